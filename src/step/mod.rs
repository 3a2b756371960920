//! What each action looks at, does, and needs to be taken back.
//!
//! Planning is pure: [`Looks`] collects what the steps of a host must look at, the host answers, and [`plan`] turns steps
//! and facts into a [`HostPlan`]: for each step what is to be done (or that nothing is), and the whole way back, before
//! anything is changed. A step that cannot be done here is refused at this point.

mod backup;
mod command;
mod looks;
mod place;
mod point;
mod restart;
mod restore;
mod services;
mod values;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    Action, AssertNotStored, CredentialState, Fingerprint, Http, Once, RemotePath, SecretName, Step, StepRef,
    StepStatus, VerifyPublish, WaitFor,
};
use crate::remote::{Act, Fact, HostCondition, UndoRecord, in_undo_order};

pub use looks::Looks;
pub use services::{Consent, JobSeen, Proofs, Proved, Question, ServiceError, Services, Verified};
pub use values::Values;

/// What is to be done on one host, and its way back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    /// The steps in order.
    pub steps: Vec<PlannedStep>,
    /// The way back in its order.
    pub undo: Vec<UndoRecord>,
    /// The credential files and what they hold now.
    pub credentials: Vec<CredentialState>,
    /// Things worth knowing before it begins.
    pub notes: Vec<String>,
    /// Files that a pointer names now and will not any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<Superseded>,
    /// Credentials that stood in environment files themselves, and do not any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_out: Vec<Fingerprint>,
    /// When the tokens end that are replaced, as far as they say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub old_ends: Vec<OldEnd>,
}

/// The end of a token that a run replaces: after it, a rollback brings back what opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldEnd {
    /// Its file.
    pub path: String,
    /// When it ends, by its own claims.
    pub at: jiff::Timestamp,
}

/// A file that a pointer used to name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    /// Its path on the host.
    pub path: RemotePath,
    /// The credential that it holds.
    pub fingerprint: Fingerprint,
}

impl HostPlan {
    /// Whether the host is to be changed.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.work, Work::Act { .. }))
    }

    /// The longest that the way back may take.
    #[must_use]
    pub fn undo_limit(&self) -> Duration {
        undo_limit(&self.undo)
    }
}

/// The longest that these records may take to be undone.
#[must_use]
pub fn undo_limit(undo: &[UndoRecord]) -> Duration {
    let parts = undo.iter().map(|record| match record {
        UndoRecord::Service { timeout, healthy, .. } => *timeout + *healthy + Duration::from_secs(90),
        UndoRecord::Command { limit, .. } => *limit + Duration::from_secs(10),
        _ => Duration::from_secs(10),
    });
    parts.sum()
}

/// One step of a host's plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Which.
    pub id: StepRef,
    /// Whether it runs on each host or once.
    pub once: Once,
    /// `changed`: it would change the host; `ok`: it would not; `skipped`: its condition says no.
    pub status: StepStatus,
    /// What it would do, in a few words.
    pub detail: String,
    /// The change in lines: fingerprints, modes, owners, the one env key.
    pub diff: Vec<String>,
    /// How often it is tried again.
    pub retries: u32,
    /// How long running jobs are waited for before it; `None`: they are not.
    #[serde(default)]
    pub drain: Option<Duration>,
    /// What to do.
    pub work: Work,
}

impl PlannedStep {
    /// How often it may be tried again: only what leaves nothing behind is. A second publish would be one more.
    #[must_use]
    pub fn repeats(&self) -> u32 {
        if self.work.is_repeatable() { self.retries } else { 0 }
    }

    /// The pause before it is tried again for the `n`th time, counted from 0.
    #[must_use]
    pub fn pause(n: u32) -> Duration {
        RETRY_PAUSE.saturating_mul(1u32.checked_shl(n).unwrap_or(u32::MAX))
    }

    /// The longest that it may take, where it has a limit.
    #[must_use]
    pub fn at_most(&self) -> Option<Duration> {
        let once = match &self.work {
            Work::VerifyPublish(spec) => spec.timeout,
            Work::Approve { limit, .. }
            | Work::Peek { limit, .. }
            | Work::Wait { limit, .. }
            | Work::Act { act: Act::Command { limit, .. }, .. } => *limit,
            Work::Http(http) => http.timeout,
            Work::Act { act: Act::Restart { healthy, timeout, .. }, .. } => *timeout + *healthy,
            _ => return None,
        };
        let again = self.repeats();
        let pauses: Duration = (0..again).map(Self::pause).sum();
        Some(once.saturating_mul(again + 1).saturating_add(pauses).saturating_add(self.drain.unwrap_or_default()))
    }
}

/// The pause before a step is tried again; doubled each time.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// What a planned step does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Nothing.
    Nothing,
    /// Changes the host.
    Act {
        /// How.
        act: Act,
        /// The secret that is written, and whether a line end follows it.
        data: Option<(SecretName, bool)>,
    },
    /// Runs a command that changes nothing.
    Peek {
        /// For `sh -c`.
        script: String,
        /// Its limit.
        limit: Duration,
    },
    /// Waits for something on the host.
    Wait {
        /// What.
        until: WaitFor,
        /// The limit.
        limit: Duration,
    },
    /// Asks an HTTP server, from the controller.
    Http(Http),
    /// Publishes through the forge, from the controller.
    VerifyPublish(VerifyPublish),
    /// Looks that names are not among what the forge gives to jobs, from the controller.
    AssertNotStored(AssertNotStored),
    /// Waits for a person's word.
    Approve {
        /// What is asked.
        message: String,
        /// For how long.
        limit: Duration,
    },
    /// Looks what a secret can read.
    Prove {
        /// Which.
        secret: SecretName,
        /// The file of the identity that it is to be for, where it is not minted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<camino::Utf8PathBuf>,
    },
}

impl Work {
    /// The action by its key in a playbook; `None` where there is nothing to do.
    #[must_use]
    pub fn action(&self) -> Option<&'static str> {
        Some(match self {
            Self::Nothing => return None,
            Self::Act { act: Act::Backup { .. }, .. } => "backup",
            Self::Act { act: Act::Place(_), .. } => "place",
            Self::Act { act: Act::Restore { .. }, .. } => "restore",
            Self::Act { act: Act::Point { .. }, .. } => "point",
            Self::Act { act: Act::Restart { .. }, .. } => "restart",
            Self::Act { act: Act::Command { .. }, .. } | Self::Peek { .. } => "command",
            Self::Wait { .. } => "wait",
            Self::Http(_) => "http",
            Self::VerifyPublish(_) => "verify-publish",
            Self::AssertNotStored(_) => "assert-not-stored",
            Self::Approve { .. } => "approve",
            Self::Prove { .. } => "prove",
        })
    }

    /// Whether it needs the forge.
    #[must_use]
    pub fn asks_forge(&self) -> bool {
        matches!(self, Self::VerifyPublish(_) | Self::AssertNotStored(_))
    }

    /// Whether it leaves nothing behind when it fails, so that it may be tried again.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Peek { .. } | Self::Http(_) | Self::Prove { .. } | Self::AssertNotStored(_) => true,
            Self::Wait { until, .. } => !matches!(until, WaitFor::Time(_)),
            Self::Nothing | Self::Act { .. } | Self::VerifyPublish(_) | Self::Approve { .. } => false,
        }
    }

    /// Whether it is done by the controller alone, so that it can stand for a batch or the run.
    #[must_use]
    pub fn is_controllers(&self) -> bool {
        matches!(
            self,
            Self::Nothing
                | Self::Http(_)
                | Self::VerifyPublish(_)
                | Self::AssertNotStored(_)
                | Self::Prove { .. }
                | Self::Approve { .. }
                | Self::Wait { until: WaitFor::Time(_), .. }
        )
    }
}

/// The host's part of a condition, if it has one.
#[must_use]
pub fn host_condition(until: &WaitFor) -> Option<HostCondition> {
    match until {
        WaitFor::Time(_) => None,
        WaitFor::Path(path) => Some(HostCondition::Path(path.clone())),
        WaitFor::Port(port) => Some(HostCondition::Port(*port)),
        WaitFor::Command(script) => Some(HostCondition::Command(script.clone())),
    }
}

/// A step that cannot be done on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step}: {reason}")]
pub struct Refusal {
    /// Which.
    pub step: StepRef,
    /// Why not.
    pub reason: String,
    /// A command that removes the obstacle.
    pub fix: Option<String>,
}

/// What planning carries from step to step.
struct Planner<'a> {
    values: &'a Values,
    facts: &'a [Fact],
    run: &'a crate::model::RunId,
    plan: HostPlan,
    /// Content of files after the steps so far: path as the playbook names it, SHA-256, and whether it changes.
    contents: Vec<(RemotePath, String, bool)>,
    /// Something on disk changes that a running process has not seen.
    dirty_process: bool,
    /// The playbook has steps that could change files at all.
    has_file_steps: bool,
}

/// How long a person is waited for where the step names no limit.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What a step's own planner says.
struct Planned {
    status: StepStatus,
    detail: String,
    diff: Vec<String>,
    work: Work,
}

impl Planned {
    fn nothing(detail: impl Into<String>) -> Self {
        Self { status: StepStatus::Ok, detail: detail.into(), diff: Vec::new(), work: Work::Nothing }
    }

    fn change(detail: impl Into<String>, diff: Vec<String>, act: Act) -> Self {
        Self { status: StepStatus::Changed, detail: detail.into(), diff, work: Work::Act { act, data: None } }
    }

    fn check(detail: impl Into<String>, work: Work) -> Self {
        Self { status: StepStatus::Ok, detail: detail.into(), diff: Vec::new(), work }
    }
}

/// A reason why not, before the step's name is added.
struct No {
    reason: String,
    fix: Option<String>,
}

impl No {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), fix: None }
    }
}

/// Plans the steps of one host from what its probes found.
///
/// # Errors
/// Every step that cannot be done here.
pub fn plan(
    run: &crate::model::RunId,
    steps: &[Step],
    looks: &Looks,
    facts: &[Fact],
    values: &Values,
) -> Result<HostPlan, Vec<Refusal>> {
    let has_file_steps = steps
        .iter()
        .any(|step| step.enabled && matches!(step.action, Action::Place(_) | Action::Point(_) | Action::Restore(_)));
    let mut planner = Planner {
        values,
        facts,
        run,
        plan: HostPlan::default(),
        contents: Vec::new(),
        dirty_process: false,
        has_file_steps,
    };
    let mut refusals = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let planned = if step.enabled {
            planner.step(at, steps, step, looks)
        } else {
            Ok(Planned {
                status: StepStatus::Skipped,
                detail: "its condition says no".to_owned(),
                diff: Vec::new(),
                work: Work::Nothing,
            })
        };
        match planned {
            Ok(planned) if step.once != Once::Host && !planned.work.is_controllers() => refusals.push(Refusal {
                step: step.id.clone(),
                reason: format!("`{}` works on each host and cannot be done once for all", step.action.key()),
                fix: None,
            }),
            Ok(planned) => planner.plan.steps.push(PlannedStep {
                id: step.id.clone(),
                once: step.once,
                status: planned.status,
                detail: planned.detail,
                diff: planned.diff,
                retries: step.retries,
                drain: drain_of(step, &planned.work),
                work: planned.work,
            }),
            Err(no) => refusals.push(Refusal { step: step.id.clone(), reason: no.reason, fix: no.fix }),
        }
    }
    refusals.extend(unseen_pointers(steps));
    if !refusals.is_empty() {
        return Err(refusals);
    }
    in_undo_order(&mut planner.plan.undo);
    Ok(planner.plan)
}

/// What a verification does besides: a plan says it before anybody agrees to it.
fn published(verify: &VerifyPublish) -> String {
    let moved = match &verify.image {
        Some(image) => format!("; the tag of {image} moves, and nothing moves it back"),
        None => "; what it publishes stays".to_owned(),
    };
    let VerifyPublish { workflow, repo, git_ref, .. } = verify;
    format!("publishes for real: runs {workflow} of {repo} on {git_ref}{moved}")
}

/// What is said where jobs may run that were not seen: the same words in the plan and in the recap.
#[must_use]
pub fn jobs_missed(why: &str) -> String {
    format!("running jobs may have been missed: {why}")
}

/// Pointers that a process is to show and that no restart comes after: nobody would look.
fn unseen_pointers(steps: &[Step]) -> impl Iterator<Item = Refusal> {
    let last = steps.iter().rposition(|step| step.enabled && matches!(step.action, Action::Restart(_)));
    let after = steps.iter().enumerate().filter(move |(at, _)| last.is_none_or(|last| *at > last));
    let unseen = after.filter(|(_, step)| match &step.action {
        Action::Point(point) => step.enabled && point.reaches == crate::model::Reaches::Daemon,
        _ => false,
    });
    unseen.map(|(_, step)| Refusal {
        step: step.id.clone(),
        reason:
            "no restart comes after it, so that no process would be seen to have the pointer: add a `restart`, or say \
                 `reaches = \"jobs\"`"
                .to_owned(),
        fix: None,
    })
}

impl Planner<'_> {
    fn step(&mut self, at: usize, steps: &[Step], step: &Step, looks: &Looks) -> Result<Planned, No> {
        match &step.action {
            Action::Backup(backup) => self.backup(step, backup, steps, looks),
            Action::Place(place) => self.place(step, place, looks),
            Action::Point(point) => self.point(step, point, looks),
            Action::Restart(restart) => self.restart(at, steps, step, restart, looks),
            Action::Restore(restore) => self.restore(step, restore, looks),
            Action::Command(command) => self.command(step, command),
            Action::Wait(wait) => {
                let limit = capped(step, wait.timeout);
                Ok(Planned::check("waits", Work::Wait { until: wait.until.clone(), limit }))
            }
            Action::Http(http) => {
                let spec = Http { timeout: capped(step, http.timeout), ..http.clone() };
                Ok(Planned::check(format!("asks {}", http.url), Work::Http(spec)))
            }
            Action::VerifyPublish(verify) => {
                let spec = VerifyPublish { timeout: capped(step, verify.timeout), ..verify.clone() };
                Ok(Planned::check(published(verify), Work::VerifyPublish(spec)))
            }
            Action::Prove(prove) => {
                let from = if step.once == Once::Host { "from the host's side" } else { "from here" };
                Ok(Planned::check(
                    format!("looks {from} whether `{}` reads its keys and nothing else", prove.secret),
                    Work::Prove { secret: prove.secret.clone(), identity: prove.identity.clone() },
                ))
            }
            Action::AssertNotStored(spec) => Ok(Planned::check(
                format!("looks that the jobs of {} are given no {}", spec.repo, spec.names.join(", ")),
                Work::AssertNotStored(spec.clone()),
            )),
            Action::Approve(approve) => Ok(Planned::check(
                format!("waits for a person's word: {}", approve.message),
                Work::Approve { message: approve.message.clone(), limit: step.timeout.unwrap_or(PATIENCE) },
            )),
        }
    }

    fn fact(&self, at: Option<usize>) -> Result<&Fact, No> {
        match at.and_then(|at| self.facts.get(at)) {
            Some(Fact::Refused(failure)) => Err(No { reason: failure.message.clone(), fix: failure.fix.clone() }),
            Some(fact) => Ok(fact),
            None => Err(No::because("the host did not say how it stands")),
        }
    }

    fn file_fact(&self, looks: &Looks, path: &RemotePath) -> Result<crate::remote::FileFact, No> {
        match self.fact(looks.file_at(path))? {
            Fact::File(fact) => Ok(fact.clone()),
            _ => Err(No::because("the host answered another question")),
        }
    }

    /// Remembers a credential file for the recap.
    fn credential(&mut self, fact: &crate::remote::FileFact) {
        if !self.plan.credentials.iter().any(|known| known.path == fact.path) {
            self.plan.credentials.push(CredentialState {
                path: fact.path.clone(),
                before: fact.fingerprint.clone(),
                now: fact.fingerprint.clone(),
                unread: false,
            });
        }
    }
}

/// An action's limit, and the step's own where that is shorter.
fn capped(step: &Step, limit: Duration) -> Duration {
    step.timeout.map_or(limit, |own| own.min(limit))
}

/// A resolved path from a host, as a path again.
fn resolved(text: &str) -> Result<RemotePath, No> {
    text.parse().map_err(|error| No::because(format!("the host names a path that cannot be used: {error}")))
}

/// How long running jobs are waited for before a step: only a runner that is up can have any.
fn drain_of(step: &Step, work: &Work) -> Option<Duration> {
    match (&step.action, work) {
        (Action::Restart(restart), Work::Act { act: Act::Restart { drain: true, .. }, .. }) => {
            Some(restart.drain_timeout)
        }
        _ => None,
    }
}

/// The record that takes a written file back.
fn file_undo(step: u32, path: RemotePath, before: Option<crate::remote::FileBefore>, post: &str) -> UndoRecord {
    match before {
        Some(before) => UndoRecord::File { step, path, before, post: post.to_owned() },
        None => UndoRecord::Remove { step, path, post: post.to_owned() },
    }
}

/// The digest of a way back: what the journal keeps of it.
#[must_use]
pub fn digest_of(undo: &[UndoRecord]) -> String {
    // Plain data without maps: it always serialises, and always alike.
    let text = serde_json::to_vec(undo).unwrap_or_default();
    sha_hex(&[&text])
}

/// SHA-256 in hex.
pub(crate) fn sha_hex(parts: &[&[u8]]) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
