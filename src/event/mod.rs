//! Everything that can be said while keyswap works: one enum that feeds every output.
//!
//! Events carry facts, not sentences for one kind of screen. No event carries a secret; free text from a host
//! (the tail of a command's output, a reason) has passed the redactor and holds no control characters.

mod sink;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    CredentialState, Fingerprint, HostName, HostResult, HostStatus, Once, ProofRow, RunId, RunStatus, StepRef,
    StepStatus,
};

pub use sink::Sink;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, by the controller's clock.
    pub ts: Timestamp,
    /// In which run.
    pub run: RunId,
    /// Counted from 1 without gaps within the run.
    pub seq: u64,
    /// On which host, where it concerns one.
    pub host: Option<HostName>,
    /// In which step, where it concerns one.
    pub step: Option<StepRef>,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A run begins.
    RunStarted {
        /// What it is: `run`, `check`, `rollback`, `resume`.
        command: String,
        /// The playbook's name.
        playbook: String,
        /// The hosts in the order in which they will be worked on.
        hosts: Vec<HostName>,
        /// The number of batches.
        batches: u32,
    },
    /// A host was reached, logged in to and looked at.
    HostReady {
        /// What the login found, in a few words: user, shell, service manager.
        detail: String,
    },
    /// What would become of a host (`--check`), or will: its steps follow.
    HostPlanned {
        /// `changed` or `ok`.
        status: HostStatus,
        /// Its batch, counted from 1.
        batch: u32,
        /// How many batches there are.
        of: u32,
        /// What its credential files hold now.
        credentials: Vec<CredentialState>,
        /// The longest that its steps with a limit may take together, in seconds.
        at_most: u64,
    },
    /// What a step would do on a host (`--check`), or will do.
    StepPlanned {
        /// `ok`: nothing to do. `changed`: it would change the host.
        status: StepStatus,
        /// What would change, in a few words.
        detail: String,
        /// Lines of a diff: fingerprints, modes, owners and the one env key only.
        diff: Vec<String>,
        /// The longest that it may take, in seconds, where it has a limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at_most: Option<u64>,
        /// It stands for the batch or the run.
        #[serde(default)]
        once: Once,
    },
    /// A batch begins.
    BatchStarted {
        /// Counted from 1.
        batch: u32,
        /// How many there are.
        of: u32,
        /// Its hosts.
        hosts: Vec<HostName>,
    },
    /// A batch is settled.
    BatchFinished {
        /// Counted from 1.
        batch: u32,
        /// How many there are.
        of: u32,
        /// Hosts of the run that are settled, so far.
        hosts_done: u32,
        /// Hosts of the run.
        hosts_total: u32,
    },
    /// The rollout rests between two batches.
    Pausing {
        /// For so many seconds.
        seconds: u64,
    },
    /// A step begins on a host, or for a batch or the run when the event names no host.
    StepStarted,
    /// A long step lives: what it waits for.
    StepProgress {
        /// In a few words.
        detail: String,
    },
    /// A step ended.
    StepFinished {
        /// How.
        status: StepStatus,
        /// In a few words; on failure the reason.
        detail: String,
        /// Milliseconds since it began.
        elapsed_ms: u64,
    },
    /// A host is being rolled back.
    UndoStarted {
        /// Why.
        reason: String,
    },
    /// One act was taken back, or was found to need no taking back.
    UndoFinished {
        /// `changed`: put back. `ok`: nothing to put back. `failed`: not put back. `skipped`: what it needs failed.
        status: StepStatus,
        /// In a few words.
        detail: String,
    },
    /// A host's part is over.
    HostFinished {
        /// How it stands, in full.
        result: HostResult,
    },
    /// The token that the run gets from its issuer.
    Token {
        /// What becomes of it.
        status: TokenStatus,
        /// The identity that it is for.
        identity: String,
        /// Its id, once it has one.
        id: Option<String>,
        /// Its end.
        expires: Option<Timestamp>,
        /// Its fingerprint.
        fingerprint: Option<Fingerprint>,
        /// In a few words.
        detail: String,
    },
    /// What a secret can read, probe by probe.
    Proof {
        /// The playbook's name for it.
        secret: String,
        /// Whether it reads its keys and nothing else, and all of that was seen.
        narrow: bool,
        /// In a line.
        summary: String,
        /// The probes.
        rows: Vec<ProofRow>,
    },
    /// The plan was written into a file.
    PlanWritten {
        /// Which file.
        path: String,
        /// Its digest, whole.
        digest: String,
        /// What leads on.
        next: String,
    },
    /// An approval of the plan that is run, which counted.
    Approval {
        /// Who.
        signer: String,
        /// The key's fingerprint, `SHA256:…`.
        key: String,
        /// When, by the signer's clock.
        signed: Timestamp,
        /// Until when it holds.
        expires: Timestamp,
        /// What the signer had to say.
        comment: Option<String>,
    },
    /// Something that the operator should know.
    Warning {
        /// One line.
        message: String,
    },
    /// The run is over. Always the last event.
    RunFinished {
        /// How.
        status: RunStatus,
        /// The exit code that goes with it.
        exit_code: u8,
        /// Every host.
        hosts: Vec<HostResult>,
    },
}

/// How a warning begins which says that the operator has stopped the run.
pub const STOPPING: &str = "stopping";

/// What becomes of a run's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenStatus {
    /// It would be minted.
    Planned,
    /// It was minted.
    Minted,
    /// It is dead.
    Revoked,
    /// It stays alive, since a host may hold it.
    Kept,
    /// It may be alive although no host holds it.
    Owed,
}

impl TokenStatus {
    /// The word that is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Minted => "minted",
            Self::Revoked => "revoked",
            Self::Kept => "kept",
            Self::Owed => "owed",
        }
    }
}

impl EventKind {
    /// The status word that goes with the event, where it has one.
    #[must_use]
    pub fn status(&self) -> Option<&'static str> {
        match self {
            Self::StepPlanned { status, .. }
            | Self::StepFinished { status, .. }
            | Self::UndoFinished { status, .. } => Some(status.as_str()),
            Self::Token { status, .. } => Some(status.as_str()),
            Self::Proof { narrow, .. } => Some(if *narrow { "pass" } else { "fail" }),
            Self::HostPlanned { status, .. } => Some(HostStatus::as_str(*status)),
            Self::HostFinished { result } => Some(HostStatus::as_str(result.status)),
            Self::RunFinished { status, .. } => Some(status.as_str()),
            _ => None,
        }
    }
}
