//! From a journal's records to where the run and each of its hosts stand.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;

use super::phase::{HostPhase, IllegalTransition};
use super::record::{Entry, Operator, Record, ReopenCommand};
use super::token::{TokenFault, TokenState};
use crate::model::{
    ApprovalProof, CredentialState, Fingerprint, HostName, HostResult, RunStatus, SecretName, StepRef, StepStatus,
};

/// Where a run stands. Built by [`RunState::fold`] and by nothing else.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunState {
    /// Whether it began, goes on, or ended.
    pub phase: RunPhase,
    /// `run` or `rollback`; empty before the first record.
    pub command: String,
    /// The playbook's name.
    pub playbook: String,
    /// The plan's digest.
    pub digest: String,
    /// Who started it.
    pub by: Operator,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When the last record was written.
    pub last: Option<Timestamp>,
    /// The hosts, in the run's order.
    pub hosts: IndexMap<HostName, HostState>,
    /// The plans that it follows, with their approvals.
    pub approvals: Vec<ApprovedState>,
    /// The secrets that the run has read.
    pub secrets: BTreeMap<SecretName, Fingerprint>,
    /// The token that the run asked its issuer for.
    pub token: Option<TokenState>,
    /// The point of no return, if it was passed.
    pub retired: Option<RetireState>,
    /// Steps of a batch or the run (`once`), in the order in which they began.
    pub shared_steps: Vec<StepState>,
    /// Batches whose commit has begun.
    pub commits: Vec<u32>,
    /// Who went on with it, how and when.
    pub reopened: Vec<(Timestamp, ReopenCommand, Operator)>,
    /// The exit code with which it ended last.
    pub exit_code: Option<u8>,
    /// Notes, in order.
    pub notes: Vec<NoteState>,
    /// The last record's number.
    pub last_seq: u64,
}

/// Whether a run began, goes on, or ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RunPhase {
    /// No record yet.
    #[default]
    Fresh,
    /// It goes on, or was cut off.
    Open,
    /// It ended.
    Finished(RunStatus),
}

/// Where a host stands, and what is known of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostState {
    /// Its place in the table.
    pub phase: HostPhase,
    /// The digest of the undo that lies on it.
    pub undo_digest: Option<String>,
    /// The machine's own id.
    pub machine: Option<String>,
    /// The epoch under which the run holds it.
    pub epoch: Option<u64>,
    /// What its credential files held before the run.
    pub credentials: Vec<CredentialState>,
    /// Where it keeps its state.
    pub state_dir: Option<String>,
    /// Its steps by their place in the playbook.
    pub steps: BTreeMap<u32, StepState>,
    /// It failed itself, and did not only go back with others.
    pub fell: bool,
    /// Why it went back, if it did.
    pub undo_reason: Option<String>,
    /// What the latest way back did.
    pub undo: Vec<UndoState>,
    /// How it was settled last.
    pub result: Option<HostResult>,
}

/// What is known of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepState {
    /// Which.
    pub step: StepRef,
    /// What it was about to do.
    pub intent: String,
    /// How it ended; `None` when that was not written.
    pub status: Option<StepStatus>,
    /// What was said of its end.
    pub detail: String,
    /// When it began (again).
    pub started: Timestamp,
    /// When it ended.
    pub finished: Option<Timestamp>,
}

/// What is known of an undone act.
#[derive(Debug, Clone, PartialEq)]
pub struct UndoState {
    /// The step whose act it is.
    pub step: Option<StepRef>,
    /// The undo's own name.
    pub label: String,
    /// How it ended.
    pub status: StepStatus,
    /// What was said of it.
    pub detail: String,
    /// When.
    pub ts: Timestamp,
}

/// A plan that was made before, and who approved it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovedState {
    /// When it was looked at.
    pub ts: Timestamp,
    /// What was approved.
    pub what: String,
    /// The plan's digest.
    pub plan: String,
    /// Who approved it.
    pub approvals: Vec<ApprovalProof>,
}

/// The point of no return.
#[derive(Debug, Clone, PartialEq)]
pub struct RetireState {
    /// Who passed it last.
    pub by: Operator,
    /// When it was passed.
    pub started: Timestamp,
    /// Whether an old token is revoked on the way.
    pub revoke: bool,
    /// When the last copy was gone.
    pub finished: Option<Timestamp>,
}

/// A note.
#[derive(Debug, Clone, PartialEq)]
pub struct NoteState {
    /// When.
    pub ts: Timestamp,
    /// Of which host.
    pub host: Option<HostName>,
    /// One line.
    pub text: String,
}

/// A record that cannot follow those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} (`{record}`): {fault}")]
pub struct FoldError {
    /// Its number.
    pub seq: u64,
    /// Its name.
    pub record: &'static str,
    /// Why not.
    pub fault: FoldFault,
}

/// Why a record cannot follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldFault {
    /// Its number is not the next one.
    #[error("number {0} was expected")]
    Number(u64),
    /// The first record is another one.
    #[error("the run has not started")]
    NotStarted,
    /// There is a first record already.
    #[error("the run has started already")]
    Started,
    /// The run was over.
    #[error("the run has ended and was not reopened")]
    Ended,
    /// It is a host's record and names none.
    #[error("it names no host")]
    NoHost,
    /// It is the run's record and names a host.
    #[error("it is not of a single host")]
    OneHost,
    /// The host is not one of the run's.
    #[error("host `{0}` is not part of the run")]
    UnknownHost(HostName),
    /// The same secret with another fingerprint.
    #[error("secret `{0}` has another fingerprint than before")]
    SecretChanged(SecretName),
    /// The end of a batch's or run's step that had not begun.
    #[error("step `{0}` has not begun")]
    StepNotBegun(StepRef),
    /// It tells of a token what cannot be.
    #[error(transparent)]
    Token(#[from] TokenFault),
    /// It is past the point of no return, or was not.
    #[error("the run was retired, or was not")]
    Retired,
    /// The table forbids it.
    #[error("host `{host}`: {why}")]
    Table {
        /// Which host.
        host: HostName,
        /// What the table says.
        why: IllegalTransition,
    },
}

impl RunState {
    /// Folds records, oldest first.
    ///
    /// # Errors
    /// At the first record that cannot follow those before it.
    pub fn fold<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Result<Self, FoldError> {
        let mut state = Self::default();
        for entry in entries {
            state.apply(entry)?;
        }
        Ok(state)
    }

    /// Takes one more record in, or leaves everything as it was.
    ///
    /// # Errors
    /// When it cannot follow.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), FoldError> {
        self.checked(entry).map_err(|fault| FoldError { seq: entry.seq, record: entry.record.name(), fault })?;
        self.last_seq = entry.seq;
        self.last = Some(entry.ts);
        Ok(())
    }

    /// Hosts that are neither untouched nor wholly old nor wholly new.
    pub fn unsettled(&self) -> impl Iterator<Item = (&HostName, &HostState)> {
        self.hosts.iter().filter(|(_, host)| host.phase.is_unsettled_work())
    }

    /// Whether hosts are left that nothing was sent to, and that were not left out.
    #[must_use]
    pub fn has_hosts_to_begin(&self) -> bool {
        self.hosts.values().any(|host| host.phase == HostPhase::Untouched)
    }

    /// Hosts on which there is something to take back.
    pub fn can_go_back(&self) -> impl Iterator<Item = (&HostName, &HostState)> {
        self.hosts.iter().filter(|(_, host)| host.phase.can_go_back())
    }

    /// Whether the run was cut off, or left something dirty or owed.
    #[must_use]
    pub fn needs_settling(&self) -> bool {
        self.phase == RunPhase::Open || self.unsettled().next().is_some() || self.owed_token().is_some()
    }

    /// Whether the point of no return was passed, and what lies behind it is not done.
    #[must_use]
    pub fn is_half_retired(&self) -> bool {
        self.retired.as_ref().is_some_and(|retired| retired.finished.is_none())
    }

    /// The run's token where it may be alive although no host can hold it.
    #[must_use]
    pub fn owed_token(&self) -> Option<&TokenState> {
        let token = self.token.as_ref().filter(|token| token.revoked.is_none())?;
        self.may_hold_new().next().is_none().then_some(token)
    }

    /// Hosts that may hold what the run brought: those that were not read back as old.
    pub fn may_hold_new(&self) -> impl Iterator<Item = &HostName> {
        self.hosts.iter().filter(|(_, host)| host.phase.may_be_new()).map(|(name, _)| name)
    }

    fn checked(&mut self, entry: &Entry) -> Result<(), FoldFault> {
        if entry.seq != self.last_seq + 1 {
            return Err(FoldFault::Number(self.last_seq + 1));
        }
        match (self.phase, &entry.record) {
            (RunPhase::Fresh, Record::RunStarted { .. }) => {}
            (RunPhase::Fresh, _) => return Err(FoldFault::NotStarted),
            (_, Record::RunStarted { .. }) => return Err(FoldFault::Started),
            // A token outlives its run, and so does the word of its end.
            (
                RunPhase::Finished(_),
                Record::Note { .. }
                | Record::PlanApproved { .. }
                | Record::TokenRevoked { .. }
                | Record::RetireStarted { .. }
                | Record::OldRevoked { .. }
                | Record::CopiesRemoved { .. }
                | Record::Retired,
            ) => {}
            (_, Record::RetireStarted { .. }) => return Err(FoldFault::Retired),
            (RunPhase::Finished(_), Record::RunReopened { .. }) if self.retired.is_some() => {
                return Err(FoldFault::Retired);
            }
            (RunPhase::Finished(_), Record::RunReopened { .. }) | (RunPhase::Open, _) => {}
            (RunPhase::Finished(_), _) => return Err(FoldFault::Ended),
        }
        match &entry.record {
            Record::RunStarted { .. }
            | Record::PlanApproved { .. }
            | Record::SecretKnown { .. }
            | Record::TokenRequested { .. }
            | Record::TokenMinted { .. }
            | Record::TokenRevoked { .. }
            | Record::RetireStarted { .. }
            | Record::OldRevoked { .. }
            | Record::Retired
            | Record::CommitStarted { .. }
            | Record::RunFinished { .. }
            | Record::RunReopened { .. }
                if entry.host.is_some() =>
            {
                Err(FoldFault::OneHost)
            }
            Record::PrepareStarted
            | Record::HostPrepared { .. }
            | Record::UndoStarted { .. }
            | Record::UndoFinished { .. }
            | Record::CopiesRemoved { .. }
            | Record::HostSettled { .. } => {
                let host = entry.host.as_ref().ok_or(FoldFault::NoHost)?;
                self.of_host(host, entry)
            }
            Record::StepStarted { .. } | Record::StepFinished { .. } => match &entry.host {
                Some(host) => self.of_host(host, entry),
                None => self.of_shared_step(entry),
            },
            _ => self.of_run(entry),
        }
    }

    fn of_host(&mut self, name: &HostName, entry: &Entry) -> Result<(), FoldFault> {
        let host = self.hosts.get_mut(name).ok_or_else(|| FoldFault::UnknownHost(name.clone()))?;
        if let Record::HostSettled { result } = &entry.record
            && result.host != *name
        {
            return Err(FoldFault::UnknownHost(result.host.clone()));
        }
        host.phase = host.phase.next(&entry.record).map_err(|why| FoldFault::Table { host: name.clone(), why })?;
        host.learn(entry);
        Ok(())
    }

    fn of_shared_step(&mut self, entry: &Entry) -> Result<(), FoldFault> {
        match &entry.record {
            Record::StepStarted { step, intent, .. } => {
                self.shared_steps.push(StepState::begun(step, intent, entry.ts));
                Ok(())
            }
            Record::StepFinished { step, status, detail, .. } => {
                let open = self.shared_steps.iter_mut().rfind(|s| s.step == *step && s.status.is_none());
                open.ok_or_else(|| FoldFault::StepNotBegun(step.clone()))?.end(*status, detail, entry.ts);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn of_run(&mut self, entry: &Entry) -> Result<(), FoldFault> {
        match &entry.record {
            Record::RunStarted { command, playbook, digest, hosts, by } => {
                self.phase = RunPhase::Open;
                self.command.clone_from(command);
                self.playbook.clone_from(playbook);
                self.digest.clone_from(digest);
                self.by = by.clone();
                self.started = Some(entry.ts);
                self.hosts = hosts.iter().map(|name| (name.clone(), HostState::default())).collect();
            }
            Record::PlanApproved { what, plan, approvals, .. } => self.approvals.push(ApprovedState {
                ts: entry.ts,
                what: what.clone(),
                plan: plan.clone(),
                approvals: approvals.clone(),
            }),
            Record::SecretKnown { name, fingerprint } => match self.secrets.get(name) {
                Some(known) if known != fingerprint => return Err(FoldFault::SecretChanged(name.clone())),
                _ => {
                    self.secrets.insert(name.clone(), fingerprint.clone());
                }
            },
            Record::CommitStarted { batch, hosts } => {
                self.step_hosts(hosts.clone(), &entry.record)?;
                self.commits.push(*batch);
            }
            Record::RunFinished { status, exit_code } => {
                self.step_hosts(self.hosts.keys().cloned().collect(), &entry.record)?;
                self.phase = RunPhase::Finished(*status);
                self.exit_code = *exit_code;
            }
            Record::RunReopened { command, by } => {
                self.step_hosts(self.hosts.keys().cloned().collect(), &entry.record)?;
                self.phase = RunPhase::Open;
                self.reopened.push((entry.ts, *command, by.clone()));
            }
            Record::TokenRequested { .. } | Record::TokenMinted { .. } | Record::TokenRevoked { .. } => {
                TokenState::apply(&mut self.token, &entry.record, entry.ts)?;
            }
            Record::RetireStarted { revoke, by } => {
                self.step_hosts(self.hosts.keys().cloned().collect(), &entry.record)?;
                let started = self.retired.as_ref().map_or(entry.ts, |retired| retired.started);
                self.retired = Some(RetireState { by: by.clone(), started, revoke: *revoke, finished: None });
            }
            Record::Retired => {
                self.retired.as_mut().ok_or(FoldFault::Retired)?.finished = Some(entry.ts);
            }
            Record::Proved { .. } => {
                if let Some(name) = entry.host.as_ref().filter(|name| !self.hosts.contains_key(*name)) {
                    return Err(FoldFault::UnknownHost(name.clone()));
                }
            }
            Record::Note { text } => {
                if let Some(name) = entry.host.as_ref().filter(|name| !self.hosts.contains_key(*name)) {
                    return Err(FoldFault::UnknownHost(name.clone()));
                }
                self.notes.push(NoteState { ts: entry.ts, host: entry.host.clone(), text: text.clone() });
            }
            _ => {}
        }
        Ok(())
    }

    /// Moves several hosts at once: all of them, or none when one may not move.
    fn step_hosts(&mut self, names: Vec<HostName>, record: &Record) -> Result<(), FoldFault> {
        let mut moved = Vec::with_capacity(names.len());
        for name in names {
            let host = self.hosts.get(&name).ok_or_else(|| FoldFault::UnknownHost(name.clone()))?;
            match host.phase.next(record) {
                Ok(phase) => moved.push((name, phase)),
                Err(why) => return Err(FoldFault::Table { host: name, why }),
            }
        }
        for (name, phase) in moved {
            if let Some(host) = self.hosts.get_mut(&name) {
                host.phase = phase;
            }
        }
        Ok(())
    }
}

impl HostState {
    /// Steps that are done and were checked, before any reopening made them subject to a second look.
    pub fn steps_done(&self) -> impl Iterator<Item = &StepState> {
        self.steps.values().filter(|step| matches!(step.status, Some(StepStatus::Ok | StepStatus::Changed)))
    }

    /// The step that may or may not have acted: begun, its end not seen or unknown.
    #[must_use]
    pub fn in_flight(&self) -> Option<&StepState> {
        self.steps.values().find(|step| matches!(step.status, None | Some(StepStatus::Unknown)))
    }

    fn learn(&mut self, entry: &Entry) {
        match &entry.record {
            Record::HostPrepared { undo_digest, machine, epoch, credentials, state_dir } => {
                self.undo_digest = Some(undo_digest.clone());
                self.machine.clone_from(machine);
                self.epoch = *epoch;
                self.credentials.clone_from(credentials);
                self.state_dir.clone_from(state_dir);
            }
            Record::StepStarted { step, intent, .. } => {
                self.steps.insert(step.index, StepState::begun(step, intent, entry.ts));
            }
            Record::StepFinished { step, status, detail, stopped, .. } => {
                if let Some(known) = self.steps.get_mut(&step.index) {
                    known.end(*status, detail, entry.ts);
                }
                self.fell |= matches!(status, StepStatus::Failed | StepStatus::Unknown) && !stopped;
            }
            Record::UndoStarted { reason, with_rest } => {
                self.fell |= !with_rest;
                self.undo_reason = Some(reason.clone());
                self.undo.clear();
            }
            Record::UndoFinished { step, label, status, detail } => self.undo.push(UndoState {
                step: step.clone(),
                label: label.clone(),
                status: *status,
                detail: detail.clone(),
                ts: entry.ts,
            }),
            Record::HostSettled { result } => self.result = Some(result.clone()),
            _ => {}
        }
    }
}

impl StepState {
    fn begun(step: &StepRef, intent: &str, ts: Timestamp) -> Self {
        Self {
            step: step.clone(),
            intent: intent.to_owned(),
            status: None,
            detail: String::new(),
            started: ts,
            finished: None,
        }
    }

    fn end(&mut self, status: StepStatus, detail: &str, ts: Timestamp) {
        self.status = Some(status);
        detail.clone_into(&mut self.detail);
        self.finished = Some(ts);
    }
}

#[cfg(test)]
mod tests;
