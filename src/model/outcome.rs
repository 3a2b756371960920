//! How things ended: one vocabulary for the screen, the JSON lines and the journal.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Fingerprint, HostName};

/// How a host stands at the end of a run (`CONTRACT.md`'s vocabulary).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostStatus {
    /// Looked at, nothing to change.
    Ok,
    /// Wholly new, checked.
    Changed,
    /// A step failed; the state is the one shown with it.
    Failed,
    /// Wholly old again, checked.
    RolledBack,
    /// Something could not be put back.
    Dirty,
    /// Touched, and its end state could not be read.
    Owed,
    /// Could not be reached; nothing was changed there.
    Unreachable,
    /// Left alone.
    Skipped,
}

impl HostStatus {
    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Changed => "changed",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::Dirty => "dirty",
            Self::Owed => "owed",
            Self::Unreachable => "unreachable",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for HostStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a step ended on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepStatus {
    /// The host was already as the step wants it, or the step only looks.
    Ok,
    /// The step changed the host, and the change was read back.
    Changed,
    /// The step did not reach its goal.
    Failed,
    /// The reply was lost: it may or may not have happened.
    Unknown,
    /// Its condition said no, or an earlier failure kept it from running.
    Skipped,
}

impl StepStatus {
    /// The word that is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Changed => "changed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for StepStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunStatus {
    /// All that was asked for is done and checked.
    Succeeded,
    /// Something failed; everything in the rollback's scope is verified old.
    RolledBack,
    /// Something failed, and not everything was (or was to be) rolled back; no host is dirty or owed.
    Failed,
    /// At least one host is dirty or owed.
    Dirty,
    /// The operator stopped it; what was touched is settled.
    Interrupted,
}

impl RunStatus {
    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::RolledBack => "rolled-back",
            Self::Failed => "failed",
            Self::Dirty => "dirty",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Which credential a file on a host was found to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialState {
    /// The file's path.
    pub path: String,
    /// Before the run; `None` when there was no file.
    pub before: Option<Fingerprint>,
    /// As last read back; `None` when there is no file.
    pub now: Option<Fingerprint>,
    /// It was not read: `now` says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unread: bool,
}

impl CredentialState {
    /// Takes back what is said of now: nobody has read it.
    pub fn not_read(&mut self) {
        self.now = None;
        self.unread = true;
    }
}

/// One host's line in the recap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostResult {
    /// Which host.
    pub host: HostName,
    /// How it stands.
    pub status: HostStatus,
    /// Its batch, counted from 1; 0 when it never got into one.
    pub batch: u32,
    /// Credential files and what they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialState>,
    /// Why, when it did not go well: one line, redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Commands that mend a dirty or owed host, to be typed on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mend: Vec<String>,
    /// Things worth knowing that are no failure ("process not checked").
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
