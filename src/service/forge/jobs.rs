//! Which runner a run's jobs ran on, as far as the server tells.
//!
//! Gitea names the runner. Forgejo 16 names it in the first line of a job's log. Older ones give the task's id, which
//! stands in the runner's own log on its host.

use serde::Deserialize;

use super::ForgeClient;
use super::run::RunView;
use super::target::Target;
use super::tasks::Task;
use super::version::{Abilities, Product};
use crate::service::http::{HttpError, Method, Request, clean};

/// A job of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSeen {
    /// Its name.
    pub name: String,
    /// The task's id, as the runner's own log has it.
    pub task: Option<u64>,
    /// The runner's name.
    pub runner: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ForgejoJob {
    id: u64,
    #[serde(default)]
    name: String,
    #[serde(default)]
    task_id: u64,
}

#[derive(Debug, Deserialize)]
struct GiteaJobs {
    #[serde(default)]
    jobs: Vec<GiteaJob>,
}

#[derive(Debug, Deserialize)]
struct GiteaJob {
    #[serde(default)]
    name: String,
    #[serde(default)]
    runner_name: String,
}

impl ForgeClient {
    /// The jobs of a finished run.
    pub(super) async fn jobs_of(
        &self,
        target: &Target,
        product: Product,
        abilities: Abilities,
        run: &RunView,
    ) -> Result<Vec<JobSeen>, HttpError> {
        let (Some(id), true) = (run.run.id, abilities.jobs) else {
            return self.tasks_of(target, run).await;
        };
        let id = id.to_string();
        let request = Request::new(Method::Get, &target.path(&["actions", "runs", &id, "jobs"]));
        let reply = self.api().send(&request).await?;
        if product == Product::Gitea {
            let jobs: GiteaJobs = reply.json()?;
            let seen = |job: GiteaJob| JobSeen { name: clean(&job.name), task: None, runner: word(&job.runner_name) };
            return Ok(jobs.jobs.into_iter().map(seen).collect());
        }
        let jobs: Vec<ForgejoJob> = reply.json()?;
        let mut seen = Vec::new();
        for job in jobs {
            let told = if abilities.job_log && job.task_id != 0 { self.log_head(target, job.id).await } else { None };
            let runner = told.filter(|(_, task)| *task == job.task_id).map(|(runner, _)| runner);
            let task = Some(job.task_id).filter(|task| *task != 0);
            seen.push(JobSeen { name: clean(&job.name), task, runner });
        }
        Ok(seen)
    }

    async fn tasks_of(&self, target: &Target, run: &RunView) -> Result<Vec<JobSeen>, HttpError> {
        let Some(number) = run.run.number else { return Ok(Vec::new()) };
        let tasks = self.tasks_by_number(target, number).await?;
        let seen = |task: Task| JobSeen { name: clean(&task.name), task: Some(task.id), runner: None };
        Ok(tasks.into_iter().map(seen).collect())
    }

    /// The runner's name and the task's id in the first line of a job's log; the log may have expired.
    async fn log_head(&self, target: &Target, job: u64) -> Option<(String, u64)> {
        let path = ["actions", "jobs", &job.to_string(), "logs"];
        let request = Request::new(Method::Get, &target.path(&path)).header("range", "bytes=0-2047");
        let reply = self.api().send(&request).await.ok()?;
        parse_head(&String::from_utf8_lossy(reply.body()))
    }
}

/// Reads `TIME NAME(version:V) received task N of job J, …`.
fn parse_head(log: &str) -> Option<(String, u64)> {
    let line = log.lines().next()?;
    let (left, right) = line.split_once(" received task ")?;
    let task = right.split_whitespace().next()?.parse().ok()?;
    let (_time, name) = left.split_once(' ')?;
    let (name, _version) = name.rsplit_once("(version:")?;
    Some((word(name)?, task))
}

fn word(text: &str) -> Option<String> {
    Some(clean(text)).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_log() {
        let line = "2026-11-23T10:00:00Z my runner (1)(version:v12.0.0) received task 77 of job build, be triggered";
        assert_eq!(parse_head(line), Some(("my runner (1)".to_owned(), 77)));
        for bad in ["", "2026 received task 77", "2026-11-23T10:00:00Z x(version:1) received task x of", "a b c"] {
            assert_eq!(parse_head(bad), None, "{bad}");
        }
    }
}
