//! What a journal's lines say.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    ApprovalProof, CredentialState, Fingerprint, HostName, HostResult, ProofRow, RunStatus, SecretName, StepRef,
    StepStatus,
};

/// One record as it stands in the journal, without the chain's hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Counted from 1 without gaps.
    pub seq: u64,
    /// When it was written, by the controller's clock.
    pub ts: Timestamp,
    /// The host that it concerns; `None` for the run or the batch as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// What happened or is about to happen.
    #[serde(flatten)]
    pub record: Record,
}

/// What happened, or is about to happen. `rec` names it in the line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rec", rename_all = "kebab-case")]
pub enum Record {
    /// Of the run: always the first record.
    RunStarted {
        /// `run` or `rollback`, as the operator called it.
        command: String,
        /// The playbook's name.
        playbook: String,
        /// The plan's digest.
        digest: String,
        /// The hosts, in order.
        hosts: Vec<HostName>,
        /// Who started it and from where.
        by: Operator,
    },
    /// Of the run: it follows a plan that was made before, and these are the approvals of it that counted.
    PlanApproved {
        /// What was approved: `run`, or a step, or what comes after the run.
        what: String,
        /// The plan's digest.
        plan: String,
        /// Who approved it; nobody, where no approval was demanded.
        approvals: Vec<ApprovalProof>,
        /// SHA-256 of each `allowed_signers` that they were compared with.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        allowed_signers: Vec<String>,
    },
    /// Of the run: a secret was read; from here on it is known by its fingerprint.
    SecretKnown {
        /// The playbook's name for it.
        name: SecretName,
        /// Its whole digest.
        fingerprint: Fingerprint,
    },
    /// Of the run: a token is about to be asked for, under a name that no other bears: by it, one whose value was lost
    /// on the way is found again.
    TokenRequested {
        /// The playbook's name for the secret.
        secret: SecretName,
        /// The token's name.
        name: String,
        /// The identity's id.
        identity: String,
        /// What the identity is called.
        identity_name: String,
        /// The server's address.
        server: String,
    },
    /// Of the run: the token came.
    TokenMinted {
        /// Its id, by which it is revoked.
        id: String,
        /// Its end.
        expires: Timestamp,
        /// Its whole digest.
        fingerprint: Fingerprint,
    },
    /// Of the run: the token that it asked for is dead, or was never made.
    TokenRevoked {
        /// What was revoked.
        ids: Vec<String>,
        /// How that is known.
        detail: String,
    },
    /// Of the run, or of a host when it was looked at from its side: what a secret can read.
    Proved {
        /// The playbook's name for the secret.
        secret: SecretName,
        /// Whether it reads its keys and nothing else, and all of that was seen.
        narrow: bool,
        /// In a line.
        summary: String,
        /// Each probe.
        rows: Vec<ProofRow>,
    },
    /// Of a host: the first request that leaves something there (undo, pre-images, guard) is about to be sent.
    PrepareStarted,
    /// Of a host: its undo lies synced on it, its guard is armed; nothing is changed yet.
    HostPrepared {
        /// The digest of the undo as it lies there.
        undo_digest: String,
        /// The machine's own id, by which it is told apart from others; two names may be one machine.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        machine: Option<String>,
        /// The epoch under which the run holds the host.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<u64>,
        /// What its credential files hold before the run.
        credentials: Vec<CredentialState>,
        /// Where the host keeps its state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state_dir: Option<String>,
    },
    /// Of a host, or of the batch or run when there is none: a step is about to act. Steps that only look at a
    /// host need none; of a host that is not prepared the table allows none.
    StepStarted {
        /// Which.
        step: StepRef,
        /// What it is about to do, in a few words.
        intent: String,
        /// Its action, by the playbook's key; older journals do not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        action: Option<String>,
    },
    /// Of a host, batch or run: a step's end was seen. A lost reply is `unknown`.
    StepFinished {
        /// Which.
        step: StepRef,
        /// How.
        status: StepStatus,
        /// In a few words; on failure the reason.
        detail: String,
        /// What the host looked at after the act and found so, in a line each; older journals do not tell.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        seen: Vec<String>,
        /// It did not fail: somebody stopped it, or did not give his yes. Older journals do not tell.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        stopped: bool,
    },
    /// Of the run: these hosts passed everything; from here on they are let go one by one, and each counts as
    /// new once that was seen.
    CommitStarted {
        /// The batch, counted from 1.
        batch: u32,
        /// Those of its hosts that are let go.
        hosts: Vec<HostName>,
    },
    /// Of a host: the way back begins, or begins again; also when the host's own guard went it and is looked at.
    UndoStarted {
        /// Why.
        reason: String,
        /// Nothing was wrong with this host: it goes back because others do, or because the operator wants it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        with_rest: bool,
    },
    /// Of a host: one act was taken back, or not.
    UndoFinished {
        /// The step whose act it is, where it belongs to one.
        step: Option<StepRef>,
        /// The undo's own name (`file /srv/token`).
        label: String,
        /// `changed` put back, `ok` nothing to put back, `failed`, `skipped` because what it needs failed.
        status: StepStatus,
        /// In a few words.
        detail: String,
    },
    /// Of a host: where it stands, as read back from it (or, when `owed`, as it could not be read).
    HostSettled {
        /// In full.
        result: HostResult,
    },
    /// Of the run, which is over: the point of no return. From here on it cannot be taken back.
    RetireStarted {
        /// Whether the old credential is killed at its issuer, too.
        revoke: bool,
        /// Who and from where.
        by: Operator,
    },
    /// Of the run: for one request, and for no other, the old credential left its host: to see that it is refused.
    OldRevoked {
        /// Its whole digest.
        fingerprint: Fingerprint,
        /// Its id at the issuer.
        id: String,
        /// The run that minted it.
        minted_by: String,
        /// How it is known to be dead.
        detail: String,
    },
    /// Of a host: copies of the old credential were removed there.
    CopiesRemoved {
        /// Where they lay.
        at: Vec<String>,
    },
    /// Of the run: no copy of the old credential that it knows is left.
    Retired,
    /// Of the run: it ended.
    RunFinished {
        /// How.
        status: RunStatus,
        /// The exit code that went with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<u8>,
    },
    /// Of the run: somebody goes on with it.
    RunReopened {
        /// By which command.
        command: ReopenCommand,
        /// Who and from where.
        by: Operator,
    },
    /// Of a host or the run: something worth keeping that changes no state.
    Note {
        /// One line.
        text: String,
    },
}

impl Record {
    /// The record's name in the line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RunStarted { .. } => "run-started",
            Self::PlanApproved { .. } => "plan-approved",
            Self::SecretKnown { .. } => "secret-known",
            Self::TokenRequested { .. } => "token-requested",
            Self::TokenMinted { .. } => "token-minted",
            Self::TokenRevoked { .. } => "token-revoked",
            Self::Proved { .. } => "proved",
            Self::RetireStarted { .. } => "retire-started",
            Self::OldRevoked { .. } => "old-revoked",
            Self::CopiesRemoved { .. } => "copies-removed",
            Self::Retired => "retired",
            Self::PrepareStarted => "prepare-started",
            Self::HostPrepared { .. } => "host-prepared",
            Self::StepStarted { .. } => "step-started",
            Self::StepFinished { .. } => "step-finished",
            Self::CommitStarted { .. } => "commit-started",
            Self::UndoStarted { .. } => "undo-started",
            Self::UndoFinished { .. } => "undo-finished",
            Self::HostSettled { .. } => "host-settled",
            Self::RunFinished { .. } => "run-finished",
            Self::RunReopened { .. } => "run-reopened",
            Self::Note { .. } => "note",
        }
    }
}

/// Who works, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Operator {
    /// The user's name on the controller.
    pub user: String,
    /// The controller's name.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// keyswap's version.
    pub version: String,
}

impl ReopenCommand {
    /// The command as it is typed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::ResumeBack => "resume --back",
            Self::Rollback => "rollback",
        }
    }
}

/// How somebody goes on with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReopenCommand {
    /// `resume`: forward.
    Resume,
    /// `resume --back`.
    ResumeBack,
    /// `rollback`.
    Rollback,
}
