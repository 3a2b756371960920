//! The table of legal transitions: what may be said of a host after what was said before.

use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::model::{HostStatus, StepStatus};

/// Where a host's saga stands, by the journal alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostPhase {
    /// Nothing was sent that leaves a trace there.
    #[default]
    Untouched,
    /// Settled without having been touched: nothing to do, left out, or out of reach.
    Spared,
    /// The request that leaves undo, pre-images and guard there may or may not have arrived.
    Preparing,
    /// Undo and guard are there. After a reopening this is also where a half-done host stands, and one that may have been
    /// let go: every step is looked at again, since each may run twice.
    Prepared,
    /// This step may or may not have acted.
    Acting(u32),
    /// This step is done and was checked; the next has not begun.
    Between(u32),
    /// This step failed, or its end is unknown.
    Halted(u32),
    /// The host passed everything; it may or may not have been let go.
    Committing,
    /// Let go on the new credential, checked.
    New,
    /// Failed and left on the new credential on purpose (`hold`).
    Held,
    /// The way back has begun.
    Undoing,
    /// Wholly old, checked.
    Old,
    /// Something could not be put back.
    Dirty,
    /// Its end state could not be read.
    Owed(OwedIn),
}

/// What a host was doing when it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwedIn {
    /// Being prepared.
    Preparing,
    /// Going forward.
    Forward,
    /// Being let go.
    Committing,
    /// Going back.
    Undoing,
}

/// A record that the table forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{record}` cannot follow while the host is {phase:?}")]
pub struct IllegalTransition {
    /// Where the host stood.
    pub phase: HostPhase,
    /// The record's name.
    pub record: &'static str,
}

impl HostPhase {
    /// The phase after a record that concerns this host. This is the whole table.
    ///
    /// # Errors
    /// When the record is not possible in this phase.
    pub fn next(self, record: &Record) -> Result<Self, IllegalTransition> {
        use HostPhase::{
            Acting, Between, Committing, Dirty, Halted, Held, New, Old, Owed, Prepared, Preparing, Spared, Undoing,
            Untouched,
        };
        let illegal = Err(IllegalTransition { phase: self, record: record.name() });
        match record {
            Record::Note { .. }
            | Record::SecretKnown { .. }
            | Record::PlanApproved { .. }
            | Record::TokenRequested { .. }
            | Record::TokenMinted { .. }
            | Record::TokenRevoked { .. }
            | Record::OldRevoked { .. }
            | Record::Retired
            | Record::Proved { .. } => Ok(self),
            // No host may need what goes.
            Record::RetireStarted { .. } | Record::CopiesRemoved { .. } => match self {
                New | Spared => Ok(self),
                _ => illegal,
            },
            Record::RunStarted { .. } => match self {
                Untouched => Ok(Untouched),
                _ => illegal,
            },
            Record::PrepareStarted => match self {
                Untouched | Preparing => Ok(Preparing),
                // Going on with a host that was held on purpose, or paying a debt, arms it anew.
                Prepared | Held => Ok(self),
                _ => illegal,
            },
            Record::HostPrepared { .. } => match self {
                Untouched | Preparing | Prepared | Held => Ok(Prepared),
                _ => illegal,
            },
            Record::StepStarted { step, .. } => match self {
                Prepared => Ok(Acting(step.index)),
                // Again, after a lost reply or for a retry.
                Acting(at) | Halted(at) if at == step.index => Ok(Acting(at)),
                Between(done) if step.index > done => Ok(Acting(step.index)),
                _ => illegal,
            },
            Record::StepFinished { step, status, .. } => match self {
                Acting(at) if at == step.index => Ok(match status {
                    StepStatus::Ok | StepStatus::Changed | StepStatus::Skipped => Between(at),
                    StepStatus::Failed | StepStatus::Unknown => Halted(at),
                }),
                _ => illegal,
            },
            Record::CommitStarted { .. } => match self {
                // From Halted: a failed host that `hold` leaves as it is.
                Prepared | Between(_) | Halted(_) | Committing => Ok(Committing),
                _ => illegal,
            },
            Record::UndoStarted { .. } => match self {
                Preparing | Prepared | Acting(_) | Between(_) | Halted(_) | Committing | New | Held | Undoing
                | Dirty | Owed(_) => Ok(Undoing),
                Untouched | Spared | Old => illegal,
            },
            Record::UndoFinished { .. } => match self {
                Undoing => Ok(Undoing),
                _ => illegal,
            },
            Record::HostSettled { result } => {
                self.settled(result.status).ok_or(IllegalTransition { phase: self, record: record.name() })
            }
            Record::RunFinished { .. } => {
                if self.is_settled() || self == Untouched {
                    Ok(self)
                } else {
                    illegal
                }
            }
            Record::RunReopened { .. } => Ok(match self {
                // Also what may or may not have been let go: it is looked at again, and let go again.
                Prepared
                | Acting(_)
                | Between(_)
                | Halted(_)
                | Committing
                | Owed(OwedIn::Forward | OwedIn::Committing) => Prepared,
                Preparing | Owed(OwedIn::Preparing) => Preparing,
                Undoing | Owed(OwedIn::Undoing) => Undoing,
                // What was left out stays out: whoever stopped the rollout meant the hosts after it.
                Untouched | Spared | New | Held | Old | Dirty => self,
            }),
        }
    }

    fn settled(self, status: HostStatus) -> Option<Self> {
        use HostPhase::{
            Acting, Between, Committing, Dirty, Halted, Held, New, Old, Owed, Prepared, Preparing, Spared, Undoing,
            Untouched,
        };
        Some(match (self, status) {
            (Untouched, HostStatus::Ok | HostStatus::Skipped | HostStatus::Unreachable | HostStatus::Failed) => Spared,
            (Committing, HostStatus::Changed | HostStatus::Ok) => New,
            (Committing, HostStatus::Failed) => Held,
            // `failed` here: it failed and was found wholly old, there was nothing to put back.
            (Undoing, HostStatus::RolledBack | HostStatus::Failed) => Old,
            (Undoing, HostStatus::Dirty) => Dirty,
            // The host said that another run holds it: it has nothing of ours.
            (Preparing, HostStatus::Skipped) => Spared,
            (Preparing, HostStatus::Owed) => Owed(OwedIn::Preparing),
            (Prepared | Acting(_) | Between(_) | Halted(_), HostStatus::Owed) => Owed(OwedIn::Forward),
            (Committing, HostStatus::Owed) => Owed(OwedIn::Committing),
            // Of a settled host: it was to be taken back, and that could not even begin.
            (Undoing | New | Held | Dirty, HostStatus::Owed) => Owed(OwedIn::Undoing),
            // The same word again, by who looked once more.
            (New, HostStatus::Changed | HostStatus::Ok)
            | (Held, HostStatus::Failed)
            | (Old, HostStatus::RolledBack | HostStatus::Failed)
            | (Dirty, HostStatus::Dirty)
            | (Owed(_), HostStatus::Owed) => self,
            _ => return None,
        })
    }

    /// Where the host stands, in a few words.
    #[must_use]
    pub fn says(self) -> String {
        match self {
            Self::Untouched => "not begun".to_owned(),
            Self::Spared => "left out".to_owned(),
            Self::Preparing => "being prepared".to_owned(),
            Self::Prepared => "prepared".to_owned(),
            Self::Acting(step) => format!("in step {step}"),
            Self::Between(step) => format!("after step {step}"),
            Self::Halted(step) => format!("stopped in step {step}"),
            Self::Committing => "being let go".to_owned(),
            Self::New => "new".to_owned(),
            Self::Held => "held on the new credential".to_owned(),
            Self::Undoing => "going back".to_owned(),
            Self::Old => "old".to_owned(),
            Self::Dirty => "dirty".to_owned(),
            Self::Owed(_) => "owed".to_owned(),
        }
    }

    /// Whether the last word on the host was said: its end state is known, or known to be unknown.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Spared | Self::New | Self::Held | Self::Old | Self::Dirty | Self::Owed(_))
    }

    /// Whether `resume` or `rollback` has something to do there although nobody asked for a change of mind:
    /// the host is neither untouched nor wholly old nor wholly new.
    #[must_use]
    pub fn is_unsettled_work(self) -> bool {
        !matches!(self, Self::Untouched | Self::Spared | Self::New | Self::Held | Self::Old)
    }

    /// Whether the host may hold what the run brought: everything that was not read back as old.
    #[must_use]
    pub fn may_be_new(self) -> bool {
        self.can_go_back()
    }

    /// Whether `rollback` has something to take back there.
    #[must_use]
    pub fn can_go_back(self) -> bool {
        !matches!(self, Self::Untouched | Self::Spared | Self::Old)
    }
}

#[cfg(test)]
pub(super) mod tests;
