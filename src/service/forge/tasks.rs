//! Runs as they show through `/actions/tasks`, for servers that have no list of runs (Forgejo 11, Gitea 1.24).
//!
//! A task exists only once a runner has taken a job: a run without tasks waits, and a run whose tasks have all
//! succeeded may still have jobs that nobody has taken. Such a view says so (`partial`), unless every job that the
//! dispatch named has its task: no list that is empty proves that nothing waits.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;

use super::dispatch::Started;
use super::run::{RunRef, RunState, RunView};
use super::target::{Target, repository};
use super::version::{Abilities, RunSource};
use super::{ForgeClient, VerifyError, wire};
use crate::service::http::{HttpError, Method, Request, clean};

/// One job that a runner has taken.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Task {
    #[serde(default)]
    pub(super) id: u64,
    pub(super) run_number: u64,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    head_branch: String,
    #[serde(default)]
    head_sha: String,
    #[serde(default)]
    event: String,
    status: String,
    #[serde(default)]
    workflow_id: String,
    #[serde(default)]
    url: String,
    #[serde(default, deserialize_with = "wire::moment")]
    created_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "wire::moment")]
    updated_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "wire::moment")]
    run_started_at: Option<Timestamp>,
}

/// What is asked for at a time, and how many of the newest tasks are read.
const PAGE: usize = 50;
const MOST: usize = 200;

impl ForgeClient {
    /// Looks at a run of which the number is known and the id is not, or is of no use.
    pub(super) async fn view_by_number(
        &self,
        target: &Target,
        abilities: Abilities,
        started: &Started,
    ) -> Result<Option<RunView>, HttpError> {
        let Some(number) = started.run.number else { return Ok(None) };
        if abilities.runs == RunSource::Tasks {
            return self.view_by_tasks(target, abilities, started, number).await.map(Some);
        }
        let (views, _) = self.recent(target, abilities).await?;
        Ok(views.into_iter().find(|view| view.run.number == Some(number)))
    }

    /// The tasks of a run, newest first.
    pub(super) async fn tasks_by_number(&self, target: &Target, number: u64) -> Result<Vec<Task>, HttpError> {
        let path = target.path(&["actions", "tasks"]);
        let mut tasks = self.newest(&path, |task| task.run_number < number).await?;
        tasks.retain(|task| task.run_number == number);
        Ok(tasks)
    }

    /// The newest tasks, newest first: as many as there are, up to a bound or to the page with one that is `past` what is looked for.
    async fn newest(&self, path: &[&str], past: impl Fn(&Task) -> bool) -> Result<Vec<Task>, HttpError> {
        let mut tasks: Vec<Task> = Vec::new();
        for page in 1..=MOST {
            let request = Request::new(Method::Get, path).query("limit", &PAGE).query("page", &page);
            let list: wire::Runs<Task> = self.api().send(&request).await?.json()?;
            let before = tasks.len();
            for task in list.workflow_runs.unwrap_or_default() {
                // Between two pages a new task may have moved one that was read to the second.
                if task.id == 0 || !tasks.iter().any(|known| known.id == task.id) {
                    tasks.push(task);
                }
            }
            let new = tasks.get(before..).unwrap_or_default();
            // A short page does not end the list, since a server may cap pages lower than asked.
            let all = list.total_count.is_some_and(|total| total > 0 && tasks.len() >= total);
            if new.is_empty() || all || new.iter().any(&past) || tasks.len() >= MOST {
                break;
            }
        }
        Ok(tasks)
    }

    async fn view_by_tasks(
        &self,
        target: &Target,
        abilities: Abilities,
        started: &Started,
        number: u64,
    ) -> Result<RunView, HttpError> {
        let tasks = self.tasks_by_number(target, number).await?;
        let Some(mut view) = folded(&tasks) else {
            return Ok(untaken(started, number, target));
        };
        view.run.id = started.run.id;
        // A job that was run again has two tasks, and is one job.
        let taken: BTreeSet<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
        let named: BTreeSet<&str> = started.jobs.iter().map(String::as_str).collect();
        let seen = taken.len() >= named.len() && !named.is_empty();
        if view.state == RunState::Success && !seen {
            view.partial = true;
            if abilities.open_jobs && self.open_jobs(target, &started.labels).await?.is_some_and(|open| open > 0) {
                view.state = RunState::Running;
            }
        }
        Ok(view)
    }

    /// The repository's tasks that run now, by their ids. `None`: this version has no such list.
    ///
    /// # Errors
    /// When the forge cannot be asked.
    pub async fn running(&self, repo: &str) -> Result<Option<Vec<u64>>, VerifyError> {
        let (owner, name) = repository(repo)?;
        let server = self.detect().await.map_err(VerifyError::asking)?;
        if server.abilities().is_none() {
            return Ok(None);
        }
        let path = ["api", "v1", "repos", &owner, &name, "actions", "tasks"];
        let tasks = self.newest(&path, |_| false).await.map_err(VerifyError::asking)?;
        Ok(Some(tasks.into_iter().filter(|task| task.status == "running").map(|task| task.id).collect()))
    }

    /// How many of the repository's jobs for these labels wait or run; `None` when that cannot be known. Without labels the
    /// server lists none, whatever waits: it is not asked then.
    pub(super) async fn open_jobs(&self, target: &Target, labels: &[String]) -> Result<Option<usize>, HttpError> {
        if labels.is_empty() {
            return Ok(None);
        }
        let path = target.path(&["actions", "runners", "jobs"]);
        let request = Request::new(Method::Get, &path).query("labels", &labels.join(","));
        match self.api().send(&request).await {
            Ok(reply) => {
                let jobs: Option<Vec<serde::de::IgnoredAny>> = reply.json()?;
                Ok(Some(jobs.map_or(0, |jobs| jobs.len())))
            }
            Err(error) if matches!(error.code(), Some(403 | 404)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// All runs that show in a list of tasks.
pub(super) fn by_run(list: wire::Runs<Task>) -> Vec<RunView> {
    let mut runs: BTreeMap<u64, Vec<Task>> = BTreeMap::new();
    for task in list.workflow_runs.unwrap_or_default() {
        runs.entry(task.run_number).or_default().push(task);
    }
    runs.values().rev().filter_map(|tasks| folded(tasks)).collect()
}

/// One run's tasks as one view. The list has the newest first, and a job that was run again counts once.
fn folded(tasks: &[Task]) -> Option<RunView> {
    let first = tasks.first()?;
    let mut newest: BTreeMap<&str, &Task> = BTreeMap::new();
    for task in tasks {
        newest.entry(task.name.as_str()).or_insert(task);
    }
    let states: Vec<RunState> = newest.values().map(|task| RunState::from_word(&task.status)).collect();
    let state = if let Some(open) = states.iter().find(|state| !state.is_final()) {
        if states.contains(&RunState::Running) { RunState::Running } else { open.clone() }
    } else {
        let worst = [RunState::Failure, RunState::Cancelled, RunState::Success];
        worst.into_iter().find(|state| states.contains(state)).unwrap_or(RunState::Skipped)
    };
    let ended = state.is_final();
    Some(RunView {
        run: RunRef { id: None, number: Some(first.run_number), url: wire::page(&first.url) },
        state,
        need_approval: false,
        partial: false,
        event: first.event.clone(),
        workflow: first.workflow_id.clone(),
        branch: first.head_branch.clone(),
        commit: clean(&first.head_sha),
        actor: None,
        inputs: None,
        created: tasks.iter().filter_map(|task| task.created_at).min(),
        started: tasks.iter().filter_map(|task| task.run_started_at).min(),
        stopped: tasks.iter().filter_map(|task| task.updated_at).max().filter(|_| ended),
    })
}

/// A run that no runner has taken: it shows nowhere.
fn untaken(started: &Started, number: u64, target: &Target) -> RunView {
    RunView {
        run: RunRef { number: Some(number), ..started.run.clone() },
        state: RunState::Waiting,
        need_approval: false,
        partial: false,
        event: "workflow_dispatch".to_owned(),
        workflow: target.file.clone(),
        branch: target.git_ref.short.clone(),
        commit: String::new(),
        actor: None,
        inputs: None,
        created: None,
        started: None,
        stopped: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(rows: &[(&str, &str)]) -> Vec<Task> {
        let task = |(name, status): &(&str, &str)| {
            serde_json::from_value(serde_json::json!({
                "id": 1, "name": name, "run_number": 45, "status": status, "event": "workflow_dispatch",
                "workflow_id": "docker-publish.yml", "head_branch": "main", "head_sha": "abc",
                "created_at": "2026-11-23T10:00:00Z", "updated_at": "2026-11-23T10:01:00Z",
            }))
            .unwrap()
        };
        rows.iter().map(task).collect()
    }

    fn state(rows: &[(&str, &str)]) -> RunState {
        folded(&tasks(rows)).unwrap().state
    }

    #[test]
    fn the_worst_final_state_wins_and_open_ones_come_first() {
        assert_eq!(state(&[("a", "success"), ("b", "success")]), RunState::Success);
        assert_eq!(state(&[("a", "success"), ("b", "running")]), RunState::Running);
        assert_eq!(state(&[("a", "failure"), ("b", "running")]), RunState::Running);
        assert_eq!(state(&[("a", "failure"), ("b", "success")]), RunState::Failure);
        assert_eq!(state(&[("a", "cancelled"), ("b", "success")]), RunState::Cancelled);
        assert_eq!(state(&[("a", "skipped")]), RunState::Skipped);
        assert!(!state(&[("a", "unknown")]).is_final());
    }

    #[test]
    fn a_job_run_again_counts_by_its_newest_task() {
        assert_eq!(state(&[("a", "success"), ("a", "failure")]), RunState::Success);
        assert_eq!(state(&[("a", "failure"), ("a", "success")]), RunState::Failure);
    }
}
