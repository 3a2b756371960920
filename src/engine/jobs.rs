//! Where the jobs of a verification ran, by what the hosts say: a green run elsewhere proves nothing of them.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::saga::{Saga, Stop, StopKind};
use crate::model::{HostName, PublishOn, RestartHow, VerifyPublish};
use crate::remote::{Act, Answer, Fact, Op, Pointer, Probe};
use crate::step::{JobSeen, PlannedStep, Verified, Work};

impl Saga {
    pub(super) async fn look_at(&mut self, probe: Probe) -> Result<Fact, Stop> {
        match self.call(&Op::Look(vec![probe]), None).await? {
            Answer::Facts(mut facts) => match facts.pop() {
                Some(Fact::Refused(failure)) => Err(Stop::new(StopKind::Failed, failure.message)),
                Some(fact) => Ok(fact),
                None => Err(Stop::new(StopKind::Failed, "the host did not say how it stands")),
            },
            _ => Err(Stop::new(StopKind::Failed, "the host answered another question")),
        }
    }

    /// What the forge calls this host's runner, if its step says so.
    pub(super) fn runner_name(&self, spec: &VerifyPublish) -> Option<String> {
        self.own_spec(spec).runner.filter(|_| self.changes())
    }

    /// The step that this host would verify with: its own names may stand in it.
    pub(super) fn own_spec(&self, spec: &VerifyPublish) -> VerifyPublish {
        match self.plan.steps.get(self.next_step()).map(|step| &step.work) {
            Some(Work::VerifyPublish(own)) => own.clone(),
            _ => spec.clone(),
        }
    }

    /// What this host knows of the jobs: its runner's name for the forge, and those that its runner says it took.
    async fn claims(&mut self, spec: &VerifyPublish, jobs: &[&JobSeen]) -> Result<Claims, Stop> {
        let own = self.own_spec(spec);
        let host = self.host.name.clone();
        let mut claims = Claims { host, runner: own.runner, took: None };
        let named = |job: &JobSeen| claims.runner.is_some() && job.runner.is_some();
        let tasks: Vec<u64> = jobs.iter().filter(|job| !named(job)).filter_map(|job| job.task).collect();
        let Some(restart) = self.plan.steps.iter().rev().find_map(restart_of).filter(|_| !tasks.is_empty()) else {
            return Ok(claims);
        };
        let probe = Probe::Task { how: restart.how.clone(), log: own.runner_log, repo: own.repo, tasks };
        match self.look_at(probe).await? {
            Fact::Tasks(took) => claims.took = took,
            _ => return Err(Stop::new(StopKind::Failed, "the host answered another question")),
        }
        Ok(claims)
    }

    /// The other half of the proof: the process that could take the run is the one that was started on the new credential,
    /// and still has it.
    async fn still_pointed(&mut self) -> Result<(), Stop> {
        let restarts: Vec<PlannedStep> =
            self.plan.steps.iter().filter(|step| restart_of(step).is_some()).cloned().collect();
        for step in &restarts {
            let Some(restart) = restart_of(step).filter(|restart| restart.was_up) else { continue };
            let probe = Probe::Service { how: restart.how.clone(), pointer: restart.pointer.cloned() };
            let Fact::Service(fact) = self.look_at(probe).await? else {
                return Err(Stop::new(StopKind::Failed, "the host answered another question"));
            };
            let restarted = self.processes.get(&step.id.index).filter(|_| last_of(&restarts, step));
            let why = if fact.stale || fact.pointed == Some(false) {
                "the runner no longer has the new credential"
            } else if restarted.is_some_and(|process| fact.process.as_ref() != Some(process)) {
                "the runner's process is not the one that was started on the new credential"
            } else {
                continue;
            };
            let name = &self.host.name;
            let reason = format!("{name}: {why}, so the run may have used another one ({})", fact.detail);
            return Err(Stop::new(StopKind::Failed, reason));
        }
        Ok(())
    }
}

/// Whether no later step restarts the same runner.
fn last_of(restarts: &[PlannedStep], step: &PlannedStep) -> bool {
    let same = |one: &&PlannedStep| restart_of(one).map(|of| of.how) == restart_of(step).map(|of| of.how);
    restarts.iter().rfind(same).is_some_and(|last| last.id.index == step.id.index)
}

/// What a restart restarts.
pub(super) struct RestartOf<'a> {
    pub(super) how: &'a RestartHow,
    pub(super) was_up: bool,
    pointer: Option<&'a Pointer>,
}

pub(super) fn restart_of(step: &PlannedStep) -> Option<RestartOf<'_>> {
    match &step.work {
        Work::Act { act: Act::Restart { how, was_up, pointer, .. }, .. } => {
            Some(RestartOf { how, was_up: *was_up, pointer: pointer.as_ref() })
        }
        _ => None,
    }
}

/// What a host says of a run's jobs.
struct Claims {
    host: HostName,
    /// What the forge calls its runner.
    runner: Option<String>,
    /// The tasks that its runner took; `None`: it cannot be told.
    took: Option<Vec<u64>>,
}

impl Claims {
    /// Whether a job ran on this host. `None`: it cannot be told.
    fn has(&self, job: &JobSeen) -> Option<bool> {
        if let (Some(ours), Some(theirs)) = (&self.runner, &job.runner) {
            return Some(ours == theirs);
        }
        Some(self.took.as_ref()?.contains(&job.task?))
    }
}

/// Where the jobs of a run ran.
#[derive(Debug, PartialEq, Eq)]
enum Ran {
    /// All of them on these hosts.
    Here(Vec<String>),
    /// At least one of them elsewhere, or nobody knows; why that says nothing about these hosts.
    Unproven(String),
}

/// Every job that a runner took must have been taken on one of these hosts: one that was not may be the one that pushed.
fn judge(claims: &[Claims], jobs: &[&JobSeen], job: Option<&str>) -> Ran {
    let hosts = || claims.iter().map(|claim| claim.host.to_string()).collect::<Vec<_>>().join(", ");
    if jobs.is_empty() {
        let which = job.map_or_else(String::new, |job| format!(" (no job `{job}` is shown)"));
        return Ran::Unproven(format!("it is not known whether it ran on {}{which}", hosts()));
    }
    let mut here: BTreeMap<&str, ()> = BTreeMap::new();
    for job in jobs {
        let told: Vec<Option<bool>> = claims.iter().map(|claim| claim.has(job)).collect();
        match claims.iter().zip(&told).find(|(_, told)| **told == Some(true)) {
            Some((claim, _)) => {
                here.insert(claim.host.as_str(), ());
            }
            None if told.iter().all(|told| *told == Some(false)) => {
                let which = if jobs.len() > 1 { format!("its job `{}`", job.name) } else { "it".to_owned() };
                return Ran::Unproven(format!("{which} ran on another runner: that says nothing about these hosts"));
            }
            None => {
                let which = if jobs.len() > 1 { format!("its job `{}`", job.name) } else { "it".to_owned() };
                return Ran::Unproven(format!("it is not known whether {which} ran on {}", hosts()));
            }
        }
    }
    Ran::Here(here.into_keys().map(str::to_owned).collect())
}

/// Judges a run that the forge calls a success by what the hosts say: where it ran, and with what.
///
/// # Errors
/// When a runner no longer has the new credential; and with [`PublishOn::ThisRunner`] when it did not run on one of
/// these hosts, or that cannot be told.
pub async fn ran_here(sagas: &mut [Saga], spec: &VerifyPublish, verified: &Verified) -> Result<String, Stop> {
    let detail = &verified.detail;
    let wanted = spec.job.as_deref();
    let jobs: Vec<&JobSeen> = verified.jobs.iter().filter(|job| job.was_taken() && job.is(wanted)).collect();
    let asked = sagas.iter_mut().filter(|saga| saga.changes()).map(|saga| {
        let jobs = &jobs;
        async move {
            let claims = saga.claims(spec, jobs).await?;
            saga.still_pointed().await?;
            Ok::<_, Stop>(claims)
        }
    });
    let claims = join_all(asked).await.into_iter().collect::<Result<Vec<_>, Stop>>()?;
    let reason = match judge(&claims, &jobs, wanted) {
        // The hosts that it stands for were let go before.
        _ if claims.is_empty() => "no host is at hand that could say whether it ran there".to_owned(),
        Ran::Here(hosts) => return Ok(format!("{detail}; it ran on {}", hosts.join(", "))),
        Ran::Unproven(reason) => reason,
    };
    if spec.on == PublishOn::ThisRunner {
        return Err(Stop::new(StopKind::Failed, format!("{detail}, but it does not count: {reason}")));
    }
    for saga in sagas.iter_mut().filter(|saga| saga.changes()) {
        saga.notes.push(format!("publishing is unverified: {reason}"));
    }
    Ok(format!("unverified: {detail}; {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, task: u64, runner: Option<&str>) -> JobSeen {
        JobSeen { name: name.to_owned(), task: Some(task), runner: runner.map(str::to_owned) }
    }

    fn host(name: &str, runner: Option<&str>, took: Option<&[u64]>) -> Claims {
        let took = took.map(<[u64]>::to_vec);
        Claims { host: name.parse().unwrap(), runner: runner.map(str::to_owned), took }
    }

    fn said(claims: &[Claims], jobs: &[JobSeen]) -> String {
        match judge(claims, &jobs.iter().collect::<Vec<_>>(), None) {
            Ran::Here(hosts) => hosts.join(" "),
            Ran::Unproven(why) => why,
        }
    }

    #[test]
    fn every_job_must_have_run_here() {
        let logs = [host("a", None, Some(&[1])), host("b", None, Some(&[2]))];
        assert_eq!(said(&logs, &[job("build", 1, None)]), "a");
        assert_eq!(said(&logs, &[job("build", 1, None), job("push", 2, None)]), "a b");
        let other = said(&logs, &[job("lint", 1, None), job("push", 3, None)]);
        assert!(other.contains("its job `push` ran on another runner"), "{other}");
        assert!(said(&logs, &[]).contains("not known whether it ran on a, b"));
        // One host's log says no and another's cannot be read.
        let half = [host("a", None, Some(&[1])), host("b", None, None)];
        assert!(said(&half, &[job("push", 3, None)]).contains("it is not known whether"));
        let named = [host("a", Some("rs1"), None), host("b", Some("rs2"), None)];
        assert_eq!(said(&named, &[job("build", 7, Some("rs2"))]), "b");
        assert!(said(&named, &[job("x", 7, Some("rs2")), job("y", 8, Some("rs3"))]).contains("`y` ran on another"));
        assert!(said(&named, &[job("build", 7, None)]).contains("not known"));
    }
}
