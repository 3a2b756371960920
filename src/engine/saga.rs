//! The way forward: open, prepare, act, commit.

use std::time::Instant;

use zeroize::Zeroizing;

use super::alive::keep_alive;
use super::drain::idle;
use super::link::held;
use super::room::Around;
use super::work::{again, controllers_work, started};
use super::{Manifest, Shared};
use crate::event::EventKind;
use crate::journal::Record;
use crate::model::{CredentialState, Host, HostName, Once, Step, StepStatus, WaitFor};
use crate::remote::{Answer, BusyFact, CallError, Fact, FailClass, Gate, HostFacts, Op, UnreachableKind};
use crate::secret::SecretValue;
use crate::step::{self, HostPlan, Looks, PlannedStep, Work};

/// One host on its way.
pub struct Saga {
    pub(super) shared: Shared,
    pub(super) host: Host,
    pub(super) conn: Option<Box<dyn crate::remote::Host>>,
    pub(super) facts: HostFacts,
    pub(super) plan: HostPlan,
    pub(super) batch: u32,
    /// The next step.
    pub(super) next: usize,
    /// An earlier session asked the host to hold our undo, and its request may still be on its way.
    pub(super) asked_before: bool,
    /// The host may hold our undo: it was asked to.
    pub(super) prepared: bool,
    /// The host said that it holds our undo.
    pub(super) armed: bool,
    pub(super) notes: Vec<String>,
    /// What the step at work was seen to have done.
    pub(super) seen: Vec<String>,
    /// What the plan was made from, where it must be made anew: a secret was still to come.
    pub(super) draft: Option<Box<Draft>>,
    /// What was found around its files, at the first look.
    pub(super) around: Around,
    /// When its runners were seen, and that they worked on no job.
    pub(super) idle: Option<(tokio::time::Instant, Vec<BusyFact>)>,
    /// The process that each restart ended with.
    pub(super) processes: std::collections::BTreeMap<u32, String>,
    /// It was let go by an earlier session, and waits here for the others of its batch.
    pub(super) let_go: bool,
    /// When the host was asked last.
    pub(super) asked: tokio::time::Instant,
}

/// What a plan is made from.
pub(super) struct Draft {
    steps: Vec<Step>,
    looks: Looks,
    found: Vec<Fact>,
}

/// What came of opening a host.
pub enum Opened {
    /// It was looked at; its steps are planned.
    Ready(Box<Saga>),
    /// It could not be reached or logged in to; nothing was changed there.
    Unreachable {
        /// Which stage said no.
        kind: UnreachableKind,
        /// Why, with what to do.
        reason: String,
    },
    /// It was reached, and the playbook cannot be done there; nothing was changed.
    Refused {
        /// Why, with what to do.
        reason: String,
    },
    /// Another run holds it.
    Held {
        /// By whom, since which run.
        reason: String,
    },
}

/// Why a saga does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The kind.
    pub kind: StopKind,
    /// In a line.
    pub reason: String,
}

/// The kinds of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// A step failed.
    Failed,
    /// A server does not accept us: every host would fail alike.
    Auth,
    /// Another run holds the host, which has nothing of ours.
    Held,
    /// The link was lost.
    Lost,
    /// The operator stopped the run.
    Cancelled,
    /// A person whose word was waited for did not give it.
    Refused,
    /// The journal could not be written: no intent, no act.
    Journal,
}

impl Stop {
    pub(super) fn new(kind: StopKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    /// Whether nothing is wrong with the host: somebody did not want it to go on.
    #[must_use]
    pub fn is_no_failure(&self) -> bool {
        matches!(self.kind, StopKind::Cancelled | StopKind::Refused)
    }
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        let kind = if matches!(error, CallError::Lost(_)) { StopKind::Lost } else { StopKind::Failed };
        Self::new(kind, error.to_string())
    }
}

impl From<crate::journal::JournalError> for Stop {
    fn from(error: crate::journal::JournalError) -> Self {
        Self::new(StopKind::Journal, format!("the journal could not be written: {error}"))
    }
}

impl Saga {
    /// Connects to a host as far as `gate` lets it, looks at it and plans its steps. Changes nothing.
    pub async fn open(shared: &Shared, host: &Host, steps: &[Step], gate: &dyn Gate) -> Opened {
        let mut conn = match shared.connect.connect(host, gate).await {
            Ok(conn) => conn,
            Err(error) => {
                let reason = match &error.hint {
                    Some(hint) => format!("{error}; {hint}"),
                    None => error.to_string(),
                };
                return Opened::Unreachable { kind: error.kind, reason };
            }
        };
        let looks = Looks::for_steps(steps);
        let asked = async {
            let Answer::Hello(facts) = conn.call(&Op::Hello, None).await? else {
                return Ok((HostFacts::default(), Vec::new()));
            };
            let found = match conn.call(&Op::Look(looks.probes().to_vec()), None).await? {
                Answer::Facts(found) => found,
                _ => Vec::new(),
            };
            Ok::<(HostFacts, Vec<Fact>), CallError>((*facts, found))
        };
        let (facts, found) = match asked.await {
            Ok(answers) => answers,
            Err(CallError::Lost(lost)) => {
                return Opened::Unreachable { kind: UnreachableKind::Network, reason: lost.to_string() };
            }
            Err(CallError::Failed(failure)) => return Opened::Refused { reason: failure.to_string() },
        };
        if !facts.missing.is_empty() {
            return Opened::Refused { reason: format!("the host lacks {}", facts.missing.join(", ")) };
        }
        if let Some(reason) = held(&facts) {
            return Opened::Held { reason };
        }
        let planned = step::plan(&shared.run, steps, &looks, &found, &shared.values);
        let (around, idle) = (Around::of(looks.probes(), &found), idle(looks.probes(), &found));
        let draft = shared.values.waits().then(|| Box::new(Draft { steps: steps.to_vec(), looks, found }));
        match planned {
            Ok(plan) => {
                let detail = format!("{} as uid {}, {}, {}", facts.login, facts.uid, facts.shell, facts.os);
                shared.events.emit(Some(&host.name), None, EventKind::HostReady { detail });
                Opened::Ready(Box::new(Self {
                    shared: shared.clone(),
                    host: host.clone(),
                    conn: Some(conn),
                    facts,
                    notes: plan.notes.clone(),
                    seen: Vec::new(),
                    plan,
                    batch: 0,
                    next: 0,
                    asked_before: false,
                    prepared: false,
                    armed: false,
                    draft,
                    around,
                    idle,
                    processes: std::collections::BTreeMap::new(),
                    let_go: false,
                    asked: tokio::time::Instant::now(),
                }))
            }
            Err(refusals) => {
                let reasons: Vec<String> = refusals
                    .iter()
                    .map(|refusal| match &refusal.fix {
                        Some(fix) => format!("{refusal} (try: {fix})"),
                        None => refusal.to_string(),
                    })
                    .collect();
                Opened::Refused { reason: reasons.join("; ") }
            }
        }
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &HostName {
        &self.host.name
    }

    /// How it is reached.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The way through the host to what it can reach, if it is connected and leads anywhere.
    pub(super) fn way(&self) -> Option<std::sync::Arc<dyn crate::remote::Way>> {
        self.conn.as_ref().and_then(|conn| conn.way())
    }

    /// What is to be done.
    #[must_use]
    pub fn plan(&self) -> &HostPlan {
        &self.plan
    }

    /// What the host is.
    #[must_use]
    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// Goes on under a run's own journal: what looked at the host before had none.
    pub fn adopt(&mut self, shared: &Shared) {
        self.shared = shared.clone();
    }

    /// Makes the plan anew from what was found, now that all values are there. Asks nobody.
    ///
    /// # Errors
    /// Why it cannot be done with these values.
    pub fn replan(&mut self) -> Result<(), String> {
        let Some(draft) = self.draft.take() else { return Ok(()) };
        let Draft { steps, looks, found } = *draft;
        let planned = step::plan(&self.shared.run, &steps, &looks, &found, &self.shared.values);
        self.plan =
            planned.map_err(|refusals| refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        self.notes.clone_from(&self.plan.notes);
        Ok(())
    }

    /// Whether the host's guard would be started again after a reboot.
    #[must_use]
    pub fn guarded_over_a_reboot(&self) -> bool {
        let has = |word: &str| self.facts.have.iter().any(|have| have == word);
        self.facts.uid == 0
            && self.facts.state_dir.starts_with("/var/lib/")
            && (has("systemd") || has("cron") || has("crond"))
    }

    /// Which machine it is, if that can be told: names with one answer lead to one machine.
    #[must_use]
    pub fn machine(&self) -> Option<(String, String)> {
        self.facts.identity()
    }

    /// Puts it into a batch, counted from 1.
    pub fn set_batch(&mut self, batch: u32) {
        self.batch = batch;
    }

    /// Its batch, counted from 1; 0 before it is in one.
    #[must_use]
    pub fn batch(&self) -> u32 {
        self.batch
    }

    /// Whether it is to be changed.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.plan.changes()
    }

    /// Whether it may have been changed, or may still come to hold the run.
    #[must_use]
    pub fn touched(&self) -> bool {
        self.prepared || self.asked_before
    }

    /// Whether it is under way in this session: one that only an earlier one asked to hold the run has not begun here.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.prepared
    }

    /// The next step that stands for a batch or the run and holds this host up, if it is at one.
    #[must_use]
    pub fn barrier(&self) -> Option<&PlannedStep> {
        self.plan.steps.get(self.next).filter(|step| step.once != Once::Host)
    }

    /// The place of the next step.
    pub(super) fn next_step(&self) -> usize {
        self.next
    }

    /// Goes past a barrier.
    pub fn pass_barrier(&mut self) {
        self.next += 1;
    }

    /// Whether all steps are done.
    #[must_use]
    pub fn at_end(&self) -> bool {
        self.next >= self.plan.steps.len()
    }

    pub(super) async fn call(&mut self, op: &Op, data: Option<&[u8]>) -> Result<Answer, CallError> {
        let Some(conn) = self.conn.as_mut() else {
            return Err(CallError::Lost(crate::remote::Lost { reason: "the connection was lost".to_owned() }));
        };
        let answer = conn.call(op, data).await;
        self.asked = tokio::time::Instant::now();
        if matches!(answer, Err(CallError::Lost(_))) {
            self.conn = None;
        }
        answer
    }

    pub(super) async fn record(&mut self, record: Record) -> Result<String, crate::journal::JournalError> {
        let appended = self.shared.journal.append(Some(&self.host.name), record).await?;
        Ok(appended.head.as_str().to_owned())
    }

    /// Leaves the way back on the host and takes the host for the run.
    ///
    /// # Errors
    /// When the host or the journal says no. [`Saga::touched`] tells whether the host may have been reached.
    pub async fn prepare(&mut self) -> Result<(), Stop> {
        if !self.changes() || self.prepared {
            return Ok(());
        }
        self.drain_all().await?;
        let undo_digest = step::digest_of(&self.plan.undo);
        self.record(Record::PrepareStarted).await?;
        self.prepared = true;
        let manifest = Manifest::new(&self.shared, &self.host.name, self.batch, &self.plan).text();
        let (hold, owner, undo) = (self.shared.hold(""), self.shared.owner_now(), self.plan.undo.clone());
        let op = Op::Prepare { hold, owner, undo, manifest };
        if let Err(error) = self.call(&op, None).await {
            if class_of(&error) == Some(FailClass::Held) {
                // Somebody else was faster, and the host says so: it has nothing of ours.
                self.prepared = false;
                return Err(Stop::new(StopKind::Held, error.to_string()));
            }
            return Err(error.into());
        }
        self.armed = true;
        self.record(Record::HostPrepared {
            undo_digest,
            machine: Some(self.facts.machine.clone()),
            epoch: None,
            credentials: self.plan.credentials.clone(),
            state_dir: Some(self.facts.state_dir.clone()),
        })
        .await?;
        Ok(())
    }

    /// Under what a request works, if the host is held.
    fn held(&self) -> Option<crate::remote::Hold> {
        self.armed.then(|| self.shared.hold(""))
    }

    /// How often this host needs a sign of life while nothing else is asked of it; `None` without a guard.
    #[must_use]
    pub fn heartbeat(&self) -> Option<std::time::Duration> {
        self.shared.heartbeat()
    }

    /// Gives the host a sign of life, if it is held and has a guard. A lost link shows at the next request.
    pub async fn renew(&mut self) {
        if self.armed && !self.let_go && self.shared.guard.is_some() {
            let op = Op::Renew { hold: self.shared.hold("") };
            let _ = self.call(&op, None).await;
        }
    }

    /// Whether another step may begin.
    ///
    /// # Errors
    /// When the rollout or the operator has said no.
    pub fn begins(&self) -> Result<(), Stop> {
        if self.shared.halt.is_cancelled() {
            return Err(Stop::new(StopKind::Cancelled, "stopped before its next step"));
        }
        Ok(())
    }

    /// Runs the host's steps up to the next barrier or the end.
    ///
    /// # Errors
    /// The first step that does not succeed; the steps after it are not begun.
    pub async fn advance(&mut self) -> Result<(), Stop> {
        while let Some(step) = self.plan.steps.get(self.next).filter(|step| step.once == Once::Host).cloned() {
            self.begins()?;
            self.one(&step).await?;
            self.next += 1;
        }
        Ok(())
    }

    async fn one(&mut self, step: &PlannedStep) -> Result<(), Stop> {
        let began = Instant::now();
        let name = self.host.name.clone();
        self.shared.events.emit(Some(&name), Some(&step.id), EventKind::StepStarted);
        let mut tries = 0;
        let outcome = loop {
            let outcome = self.work(step).await;
            let Err(stop) = &outcome else { break outcome };
            let shared = self.shared.clone();
            if !keep_alive(std::slice::from_mut(self), again(&shared, step, stop, tries)).await {
                break outcome;
            }
            tries += 1;
        };
        let (status, detail) = match &outcome {
            Ok(done) => done.clone(),
            Err(stop) if stop.kind == StopKind::Lost => (StepStatus::Unknown, stop.reason.clone()),
            Err(stop) => (StepStatus::Failed, stop.reason.clone()),
        };
        let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared.events.emit(
            Some(&name),
            Some(&step.id),
            EventKind::StepFinished { status, detail: detail.clone(), elapsed_ms },
        );
        if self.prepared {
            let seen = std::mem::take(&mut self.seen);
            let stopped = outcome.as_ref().is_err_and(Stop::is_no_failure);
            let record = Record::StepFinished { step: step.id.clone(), status, detail, seen, stopped };
            let written = self.record(record).await;
            if outcome.is_ok() {
                written?;
            }
        }
        outcome.map(|_| ())
    }

    /// Does a step's work; says how it ended well.
    async fn work(&mut self, step: &PlannedStep) -> Result<(StepStatus, String), Stop> {
        let ok = |detail: &str| Ok((StepStatus::Ok, detail.to_owned()));
        let head = if self.prepared { self.record(started(step)).await? } else { String::new() };
        match &step.work {
            Work::Nothing => Ok((step.status, step.detail.clone())),
            Work::VerifyPublish(_) if !self.changes() => {
                Ok((StepStatus::Skipped, "nothing changes on this host".to_owned()))
            }
            Work::Act { act, data } => {
                let value = match data {
                    Some((name, newline)) => Some(content(self.shared.values.get(name), *newline)?),
                    None => None,
                };
                self.act(step, act, value.as_ref().map(|value| value.as_slice()), &head).await
            }
            Work::Peek { script, limit } => {
                let op = Op::Peek { hold: self.held(), script: script.clone(), limit: *limit };
                match self.call(&op, None).await? {
                    Answer::Acted(acted) => ok(&acted.output),
                    _ => ok(""),
                }
            }
            Work::Wait { until: WaitFor::Time(_), .. }
            | Work::Http(_)
            | Work::VerifyPublish(_)
            | Work::AssertNotStored(_)
            | Work::Approve { .. }
            | Work::Prove { .. } => {
                let shared = self.shared.clone();
                controllers_work(&shared, std::slice::from_mut(self), step).await
            }
            Work::Wait { until, limit } => {
                let Some(until) = step::host_condition(until) else { return ok("") };
                self.call(&Op::Wait { hold: self.held(), until, limit: *limit }, None).await?;
                ok("it is there")
            }
        }
    }

    /// What the host's credential files held and hold, as far as it is known without asking.
    pub(super) fn credentials(&self) -> Vec<CredentialState> {
        self.plan.credentials.clone()
    }
}

/// The bytes that a `place` writes.
fn content(value: Option<&SecretValue>, newline: bool) -> Result<Zeroizing<Vec<u8>>, Stop> {
    let value = value.ok_or_else(|| Stop::new(StopKind::Failed, "the secret has no value"))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.expose().len() + 1));
    bytes.extend_from_slice(value.expose());
    if newline {
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// A failed call's class, for callers that branch on it.
pub(super) fn class_of(error: &CallError) -> Option<FailClass> {
    match error {
        CallError::Failed(failure) => Some(failure.class),
        CallError::Lost(_) => None,
    }
}
