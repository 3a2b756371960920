//! Jobs on a host's runner: those that a restart would kill, and the one by which a verification was done.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::saga::{Saga, Stop, StopKind, keep_alive};
use crate::event::EventKind;
use crate::model::{PublishOn, RestartHow, VerifyPublish};
use crate::remote::{Act, Answer, BusyFact, Fact, Op, Pointer, Probe};
use crate::step::{PlannedStep, Verified, Work};

/// The pause between two looks at a runner that works.
const PAUSE: Duration = Duration::from_secs(2);

impl Saga {
    /// Before the host is touched at all: waits until no runner that will be restarted works on a job.
    pub(super) async fn drain_all(&mut self) -> Result<(), Stop> {
        for step in self.plan.steps.clone() {
            self.drain(&step).await?;
        }
        Ok(())
    }

    /// Waits until the runner that this step restarts works on no job, for as long as the step says.
    pub(super) async fn drain(&mut self, step: &PlannedStep) -> Result<(), Stop> {
        let (Some(limit), Some(restart)) = (step.drain, restart_of(step)) else { return Ok(()) };
        let look = Probe::Busy { how: restart.how.clone() };
        let end = Instant::now() + limit;
        let mut said = String::new();
        loop {
            let Fact::Busy(busy) = self.look_at(look.clone()).await? else {
                return Err(Stop::new(StopKind::Failed, "the host answered another question"));
            };
            let mut jobs = busy.jobs.join(", ");
            // Asked second: what the forge says is a few seconds old, and may only add to what the host says.
            if jobs.is_empty() {
                jobs = self.job_by_forge().await.unwrap_or_default();
            }
            if jobs.is_empty() {
                self.note_unseen(&busy);
                return Ok(());
            }
            if Instant::now() >= end {
                let reason = format!("the runner still works after {} s: {jobs}", limit.as_secs());
                return Err(Stop::new(StopKind::Failed, reason));
            }
            if jobs != said {
                let detail = format!("waits for running jobs: {jobs}");
                self.shared.events.emit(Some(&self.host.name), Some(&step.id), EventKind::StepProgress { detail });
                said = jobs;
            }
            self.renew().await;
            let halt = self.shared.halt.clone();
            let rest = async {
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => false,
                    () = halt.cancelled() => true,
                }
            };
            if keep_alive(std::slice::from_mut(self), rest).await {
                return Err(Stop::new(StopKind::Cancelled, "stopped while it waited for running jobs"));
            }
        }
    }

    /// A job that the forge knows of, where the verification names this host's runner and the forge tells.
    async fn job_by_forge(&mut self) -> Option<String> {
        let (repo, runner) = self.plan.steps.iter().find_map(|step| match &step.work {
            Work::VerifyPublish(spec) => Some((spec.repo.clone(), spec.runner.clone()?)),
            _ => None,
        })?;
        match self.shared.services.runner_busy(&repo, &runner).await {
            Ok(busy) => busy.unwrap_or_default().then(|| format!("{runner} is active by the forge")),
            Err(error) => {
                let note = format!("the forge was not asked for running jobs: {error}");
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
                None
            }
        }
    }

    /// What could not be looked at is said, once: nobody shall take it for idle.
    fn note_unseen(&mut self, busy: &BusyFact) {
        let note = match (&busy.blind, busy.looked.is_empty()) {
            (Some(blind), _) => format!("running jobs may have been missed: {blind}"),
            (None, true) => "running jobs were not looked for: it is no runner whose jobs can be told".to_owned(),
            (None, false) => return,
        };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    async fn look_at(&mut self, probe: Probe) -> Result<Fact, Stop> {
        match self.call(&Op::Look(vec![probe]), None).await? {
            Answer::Facts(mut facts) => match facts.pop() {
                Some(Fact::Refused(failure)) => Err(Stop::new(StopKind::Failed, failure.message)),
                Some(fact) => Ok(fact),
                None => Err(Stop::new(StopKind::Failed, "the host did not say how it stands")),
            },
            _ => Err(Stop::new(StopKind::Failed, "the host answered another question")),
        }
    }

    /// The step that this host would verify with: its own names may stand in it.
    fn own_spec(&self, spec: &VerifyPublish) -> VerifyPublish {
        match self.plan.steps.get(self.next_step()).map(|step| &step.work) {
            Some(Work::VerifyPublish(own)) => own.clone(),
            _ => spec.clone(),
        }
    }

    /// Whether the run was this host's runner's. `None`: it cannot be told.
    async fn ran(&mut self, spec: &VerifyPublish, verified: &Verified) -> Result<Option<bool>, Stop> {
        let own = self.own_spec(spec);
        if let Some(name) = own.runner.as_deref().filter(|_| !verified.runners.is_empty()) {
            return Ok(Some(verified.runners.iter().any(|runner| runner == name)));
        }
        let Some(restart) = self.plan.steps.iter().rev().find_map(restart_of) else { return Ok(None) };
        if verified.tasks.is_empty() {
            return Ok(None);
        }
        let probe = Probe::Task {
            how: restart.how.clone(),
            log: own.runner_log,
            repo: own.repo,
            tasks: verified.tasks.clone(),
        };
        match self.look_at(probe).await? {
            Fact::Tasks(found) => Ok(found.map(|found| !found.is_empty())),
            _ => Err(Stop::new(StopKind::Failed, "the host answered another question")),
        }
    }

    /// The other half of the proof: the process that could take the run still is the one that has the new credential.
    async fn still_pointed(&mut self) -> Result<(), Stop> {
        let restarts: Vec<PlannedStep> =
            self.plan.steps.iter().filter(|step| restart_of(step).is_some()).cloned().collect();
        for step in &restarts {
            let Some(restart) = restart_of(step).filter(|restart| restart.was_up) else { continue };
            let probe = Probe::Service { how: restart.how.clone(), pointer: restart.pointer.cloned() };
            let Fact::Service(fact) = self.look_at(probe).await? else {
                return Err(Stop::new(StopKind::Failed, "the host answered another question"));
            };
            if fact.stale || fact.pointed == Some(false) {
                let reason = format!(
                    "{}: the runner no longer has the new credential, so the run may have used another one ({})",
                    self.host.name, fact.detail
                );
                return Err(Stop::new(StopKind::Failed, reason));
            }
        }
        Ok(())
    }
}

/// What a restart restarts.
struct RestartOf<'a> {
    how: &'a RestartHow,
    was_up: bool,
    pointer: Option<&'a Pointer>,
}

fn restart_of(step: &PlannedStep) -> Option<RestartOf<'_>> {
    match &step.work {
        Work::Act { act: Act::Restart { how, was_up, pointer, .. }, .. } => {
            Some(RestartOf { how, was_up: *was_up, pointer: pointer.as_ref() })
        }
        _ => None,
    }
}

/// Judges a run that the forge calls a success by what the hosts say: where it ran, and with what.
///
/// # Errors
/// When a runner no longer has the new credential; and with [`PublishOn::ThisRunner`] when it did not run on one of
/// these hosts, or that cannot be told.
pub async fn ran_here(sagas: &mut [Saga], spec: &VerifyPublish, verified: &Verified) -> Result<String, Stop> {
    let asked = sagas.iter_mut().filter(|saga| saga.changes()).map(|saga| async move {
        let ran = saga.ran(spec, verified).await?;
        saga.still_pointed().await?;
        Ok::<_, Stop>((saga.name().clone(), ran))
    });
    let mut here = Vec::new();
    let mut unknown = Vec::new();
    for told in join_all(asked).await {
        match told? {
            (name, Some(true)) => here.push(name.to_string()),
            (name, None) => unknown.push(name.to_string()),
            (_, Some(false)) => {}
        }
    }
    let detail = &verified.detail;
    if !here.is_empty() {
        return Ok(format!("{detail}; it ran on {}", here.join(", ")));
    }
    let reason = if unknown.is_empty() {
        "it ran on another runner: that says nothing about these hosts".to_owned()
    } else {
        format!("it is not known whether it ran on {}", unknown.join(", "))
    };
    match spec.on {
        PublishOn::Any => Ok(format!("{detail}; {reason}")),
        PublishOn::ThisRunner => {
            let reason = format!("{detail}, but it does not count: {reason}");
            Err(Stop::new(StopKind::Failed, reason))
        }
    }
}
