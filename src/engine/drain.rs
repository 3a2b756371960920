//! Jobs that a restart would kill: they are waited for before the host is touched, again right before its runner is
//! restarted, and before a restart on the way back.

use std::time::Duration;

use tokio::time::Instant;

use super::alive::keep_alive;
use super::jobs::restart_of;
use super::saga::{Saga, Stop, StopKind, class_of};
use super::settle::Settling;
use crate::event::EventKind;
use crate::model::{RestartHow, StepRef, StepStatus, VerifyPublish};
use crate::remote::{Act, Answer, BusyFact, CallError, Fact, FailClass, Op, Probe};
use crate::step::{self, HostPlan, PlannedStep, Work};

/// The pause between two looks at a runner that works.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a look counts as one of just now.
const FRESH: Duration = Duration::from_secs(5);
/// A runner that the forge saw at work is idle when it was seen idle this often, for this long: the forge calls it active
/// for ten seconds after each report.
const IDLE_LOOKS: u32 = 3;
const IDLE_FOR: Duration = Duration::from_secs(10);

/// What the forge has said of a runner during one wait.
#[derive(Default)]
struct ByForge {
    active: bool,
    idle: u32,
    since: Option<Instant>,
}

/// A runner that is waited for before it is restarted on the way back.
#[derive(Debug, Clone)]
pub struct Drained {
    step: StepRef,
    how: RestartHow,
    limit: Duration,
}

impl Drained {
    /// Those of a host's plan.
    pub(super) fn of(plan: &HostPlan) -> Vec<Self> {
        let drained = |step: &PlannedStep| {
            let restart = restart_of(step).filter(|restart| restart.was_up)?;
            Some(Self { step: step.id.clone(), how: restart.how.clone(), limit: step.drain? })
        };
        plan.steps.iter().filter_map(drained).collect()
    }
}

/// The runners that were looked at, if all of them could be and none works on a job.
pub(super) fn idle(probes: &[Probe], found: &[Fact]) -> Option<(Instant, Vec<BusyFact>)> {
    let asked = probes.iter().zip(found).filter(|(probe, _)| matches!(probe, Probe::Busy { .. }));
    let idle = asked.map(|(_, fact)| match fact {
        Fact::Busy(busy) if busy.jobs.is_empty() => Some(busy.clone()),
        _ => None,
    });
    Some((Instant::now(), idle.collect::<Option<_>>()?))
}

impl Saga {
    /// Before the host is touched at all: waits until no runner that will be restarted works on a job. What was seen just now
    /// is not looked at again: right before a restart the host looks by itself.
    pub(super) async fn drain_all(&mut self) -> Result<(), Stop> {
        let seen = self.idle.take().filter(|(at, _)| at.elapsed() < FRESH);
        for busy in seen.iter().flat_map(|(_, seen)| seen) {
            self.note_unseen(busy);
        }
        for step in self.plan.steps.clone() {
            if let Some(limit) = step.drain {
                self.drain(&step, Instant::now() + limit, seen.is_none()).await?;
            }
        }
        Ok(())
    }

    /// Changes the host. A runner that works is waited for first, for one time limit, however often a new job begins.
    pub(super) async fn act(
        &mut self,
        step: &PlannedStep,
        act: &Act,
        value: Option<&[u8]>,
        head: &str,
    ) -> Result<(StepStatus, String), Stop> {
        let end = Instant::now() + step.drain.unwrap_or_default();
        // The host itself looks right before it acts, so only the forge is asked here.
        if step.drain.is_some() {
            self.drain(step, end, false).await?;
        }
        let op = Op::Act { hold: self.shared.hold(head), step: step.id.index, act: act.clone() };
        let answer = loop {
            match self.call(&op, value).await {
                // A job began since the look; nothing was touched.
                Err(error) if class_of(&error) == Some(FailClass::Busy) && step.drain.is_some() => {
                    if Instant::now() >= end {
                        return Err(error.into());
                    }
                    self.drain(step, end, true).await?;
                }
                answer => break answer?,
            }
        };
        let Answer::Acted(acted) = answer else {
            return Err(Stop::new(StopKind::Failed, "the host answered another question"));
        };
        self.look_closely(act, &acted);
        if let Some(process) = acted.process {
            self.processes.insert(step.id.index, process);
        }
        if !acted.cut.is_empty() {
            let note = format!("a job began as the runner was restarted and may have been cut off: {}", acted.cut);
            self.shared.events.warn(Some(&self.host.name), note.clone());
            self.notes.push(note);
        }
        if acted.left_stopped {
            self.notes.push("the runner was stopped and was left stopped".to_owned());
            return Ok((StepStatus::Ok, step.detail.clone()));
        }
        Ok((StepStatus::Changed, step.detail.clone()))
    }

    /// Waits until the runner that this step restarts works on no job, until `end` at the latest.
    async fn drain(&mut self, step: &PlannedStep, end: Instant, ask_host: bool) -> Result<(), Stop> {
        let (Some(limit), Some(restart)) = (step.drain, restart_of(step)) else { return Ok(()) };
        let look = Probe::Busy { how: restart.how.clone() };
        let how = restart.how.clone();
        let (mut said, mut ask_host, mut forge) = (String::new(), ask_host, ByForge::default());
        loop {
            let mut jobs = String::new();
            if ask_host {
                let Fact::Busy(busy) = self.look_at(look.clone()).await? else {
                    return Err(Stop::new(StopKind::Failed, "the host answered another question"));
                };
                jobs = busy.jobs.join(", ");
                if jobs.is_empty() {
                    self.note_unseen(&busy);
                }
            }
            // Asked second: what the forge says is a few seconds old, and may only add to what the host says.
            if jobs.is_empty() {
                jobs = self.job_by_forge(&how, &mut forge).await?.unwrap_or_default();
            }
            if jobs.is_empty() {
                return Ok(());
            }
            ask_host = true;
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
            self.unless_halted(tokio::time::sleep(PAUSE)).await?;
        }
    }

    /// Waits for something while the host is given signs of life, and no longer than the rollout goes on.
    async fn unless_halted<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, Stop> {
        let halt = self.shared.halt.clone();
        let wait = async {
            tokio::select! {
                done = wait => Some(done),
                () = halt.cancelled() => None,
            }
        };
        let stopped = || Stop::new(StopKind::Cancelled, "stopped while it waited for running jobs");
        keep_alive(std::slice::from_mut(self), wait).await.ok_or_else(stopped)
    }

    /// A job that the forge knows of, where the verification names this host's runner and the forge tells.
    async fn job_by_forge(&mut self, how: &RestartHow, so_far: &mut ByForge) -> Result<Option<String>, Stop> {
        let named = self.plan.steps.iter().find_map(|step| match &step.work {
            Work::VerifyPublish(spec) => Some((spec.clone(), spec.runner.clone()?)),
            _ => None,
        });
        let Some((spec, runner)) = named else { return Ok(None) };
        let services = std::sync::Arc::clone(&self.shared.services);
        let busy = match self.unless_halted(services.runner_busy(&spec.repo, &runner)).await? {
            Ok(Some(busy)) => busy,
            Ok(None) => return self.task_by_forge(how, &spec).await,
            Err(error) => {
                self.note_once(format!("the forge was not asked for running jobs: {error}"));
                return Ok(None);
            }
        };
        if busy {
            *so_far = ByForge { active: true, ..ByForge::default() };
            return Ok(Some(format!("{runner} is active by the forge")));
        }
        if !so_far.active {
            return Ok(None);
        }
        so_far.idle += 1;
        let since = *so_far.since.get_or_insert_with(Instant::now);
        let idle = so_far.idle >= IDLE_LOOKS && since.elapsed() > IDLE_FOR;
        Ok((!idle).then(|| format!("{runner} was active a moment ago by the forge")))
    }

    /// Where the forge does not tell how a runner stands: one of the repository's running tasks, if the host's runner has it.
    async fn task_by_forge(&mut self, how: &RestartHow, spec: &VerifyPublish) -> Result<Option<String>, Stop> {
        let services = std::sync::Arc::clone(&self.shared.services);
        let tasks = match self.unless_halted(services.running_tasks(&spec.repo)).await? {
            Ok(Some(tasks)) => tasks,
            Ok(None) => {
                self.note_once("the forge does not tell whether this runner works".to_owned());
                return Ok(None);
            }
            Err(error) => {
                self.note_once(format!("the forge was not asked for running jobs: {error}"));
                return Ok(None);
            }
        };
        if tasks.is_empty() {
            return Ok(None);
        }
        let (log, repo) = (spec.runner_log.clone(), spec.repo.clone());
        match self.look_at(Probe::Task { how: how.clone(), log, repo, tasks }).await? {
            Fact::Tasks(Some(found)) => {
                let words: Vec<String> = found.iter().map(u64::to_string).collect();
                Ok((!found.is_empty()).then(|| format!("task {} is running by the forge", words.join(", "))))
            }
            _ => {
                self.note_once("the forge knows of running jobs, and it is not known whether they run here".to_owned());
                Ok(None)
            }
        }
    }

    /// What could not be looked at is said, once: nobody shall take it for idle.
    fn note_unseen(&mut self, busy: &BusyFact) {
        match (&busy.blind, busy.looked.is_empty()) {
            (Some(blind), _) => self.note_once(step::jobs_missed(blind)),
            (None, true) => {
                self.note_once("running jobs were not looked for: it is no runner whose jobs can be told".to_owned());
            }
            (None, false) => {}
        }
    }

    fn note_once(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

impl Settling {
    /// Before a runner is restarted on the way back: waits until it works on no job, for as long as its step says. It is
    /// then restarted in any case: a host must not stay between old and new for a job's sake.
    pub(super) async fn drain(&mut self) -> Result<(), CallError> {
        let pause = self.shared.heartbeat().map_or(PAUSE, |beat| beat.min(PAUSE));
        for Drained { step, how, limit } in self.drained.clone() {
            let looks = vec![Probe::Service { how: how.clone(), pointer: None }, Probe::Busy { how }];
            let (end, mut said) = (Instant::now() + limit, String::new());
            while !self.shared.cancel.is_cancelled() {
                let Answer::Facts(facts) = self.call(&Op::Look(looks.clone())).await? else { break };
                let jobs = match facts.as_slice() {
                    // A process that is older than the files has never seen them: it will not be restarted.
                    [Fact::Service(fact), Fact::Busy(busy)] if !fact.stale => busy.jobs.join(", "),
                    _ => break,
                };
                if jobs.is_empty() || Instant::now() >= end {
                    break;
                }
                if jobs != said {
                    let detail = format!("waits for running jobs before the runner goes back: {jobs}");
                    self.shared.events.emit(Some(&self.host.name), Some(&step), EventKind::StepProgress { detail });
                    said = jobs;
                }
                tokio::time::sleep(pause).await;
                if self.shared.guard.is_some() {
                    self.call(&Op::Renew { hold: self.shared.hold("") }).await?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::Failure;

    #[test]
    fn what_could_not_be_looked_at_is_not_idle() {
        let how = RestartHow::Systemd { unit: "runner".to_owned() };
        let probes = [Probe::Room, Probe::Busy { how: how.clone() }, Probe::Busy { how }];
        let busy = |jobs: &[&str]| {
            Fact::Busy(BusyFact { jobs: jobs.iter().map(|&job| job.to_owned()).collect(), ..BusyFact::default() })
        };
        let refused = || Fact::Refused(Failure { class: FailClass::Refused, message: String::new(), fix: None });
        let seen = |second| idle(&probes, &[refused(), busy(&[]), second]).map(|(_, seen)| seen.len());
        assert_eq!(seen(busy(&[])), Some(2));
        assert_eq!(seen(busy(&["process:7(sh)"])), None);
        assert_eq!(seen(refused()), None);
    }
}
