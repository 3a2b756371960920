//! What an audit asks of a target and what it hears, as data. Nothing here changes the target or needs a hold.

use super::{Active, Failure};
use crate::model::{EnvFormat, Fingerprint, RemotePath, RestartHow};

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Survey {
    /// A credential file.
    File {
        /// Its path.
        path: RemotePath,
    },
    /// An environment file: where its pointer leads, and what would outrank it.
    Env {
        /// Its path.
        path: RemotePath,
        /// How it is written.
        format: EnvFormat,
        /// The pointer's variable.
        key: Option<String>,
        /// Variables that would outrank it.
        outranking: Vec<String>,
    },
    /// A runner and its process.
    Service {
        /// Which.
        how: RestartHow,
        /// The pointer's variable.
        key: Option<String>,
        /// Variables that would outrank it.
        outranking: Vec<String>,
    },
    /// Who settled this host last, and the copies that keyswap keeps there.
    State,
    /// What the runs on this host were about.
    Known,
    /// Stray copies below a directory.
    Search {
        /// The directory.
        dir: RemotePath,
        /// Hex digits with which a fingerprint begins.
        prefixes: Vec<String>,
    },
}

/// What was seen, one for each [`Survey`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A credential file.
    File(SeenFile),
    /// An environment file.
    Env(SeenEnv),
    /// A runner.
    Service(SeenService),
    /// The host's own state.
    State(SeenState),
    /// What the runs were about, the oldest first.
    Known(Vec<KnownPlace>),
    /// Stray copies, and whether the search came to its end.
    Search(Vec<Copy>, bool),
    /// It could not be looked at.
    Refused(Failure),
}

/// A credential file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFile {
    /// Its path, links resolved.
    pub path: String,
    /// SHA-256 (hex) of its content; `None`: there is none.
    pub sha: Option<String>,
    /// The credential's fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since it was written, by the host's clock.
    pub age: Option<u64>,
    /// The claims of a token, as they are encoded in it: its middle part.
    pub claims: Option<String>,
}

/// An environment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenEnv {
    /// Its path, links resolved.
    pub path: String,
    /// Whether it is there.
    pub is_there: bool,
    /// The pointer's value, if it is a plain path.
    pub value: Option<String>,
    /// The fingerprint of what lies at that path on the host.
    pub target: Option<Fingerprint>,
    /// The claims of what lies there, as they are encoded in it.
    pub target_claims: Option<String>,
    /// Variables in it that outrank the pointer.
    pub outranking: Vec<String>,
}

/// A runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenService {
    /// Whether it is up.
    pub active: Active,
    /// Its main process.
    pub pid: Option<u32>,
    /// Seconds since that started.
    pub age: Option<u64>,
    /// Whose it is.
    pub uid: Option<u32>,
    /// Files were changed since by keyswap.
    pub stale: bool,
    /// The pointer in its environment, if it is a plain path.
    pub value: Option<String>,
    /// SHA-256 (hex) of what the process sees there.
    pub sha: Option<String>,
    /// Variables in its environment that outrank the pointer.
    pub outranking: Vec<String>,
    /// The service manager's words.
    pub detail: String,
}

/// A host's own state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenState {
    /// Its phase; `none` before the first run.
    pub phase: String,
    /// The run that it names.
    pub run: String,
    /// The state directory as it is named, and with its links resolved.
    pub dirs: (String, String),
    /// The copies that keyswap keeps.
    pub copies: Vec<Copy>,
}

/// A copy of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// `backup`, `preimage`, `superseded` (a file that a pointer used to name) or `stray`.
    pub kind: String,
    /// Where it lies.
    pub at: String,
    /// Its fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// Seconds since it was written.
    pub age: Option<u64>,
    /// It is one of a whole environment file, and no credential by itself.
    pub of_env: bool,
}

/// A place that a run was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPlace {
    /// The run.
    pub run: String,
    /// How it let the host go: `new`, `old`; another phase while it holds it; empty: nobody knows.
    pub ended: String,
    /// What.
    pub what: KnownWhat,
}

/// What a run was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownWhat {
    /// A credential file.
    File {
        /// Its path.
        path: RemotePath,
        /// SHA-256 (hex) as the run left it.
        post: String,
    },
    /// An environment file.
    Env {
        /// Its path.
        path: RemotePath,
        /// How it is written.
        format: EnvFormat,
        /// The pointer's variable, and those that were taken out.
        keys: Vec<String>,
    },
    /// A runner.
    Service {
        /// Which.
        how: RestartHow,
        /// It was up before the run.
        was_up: bool,
    },
}
