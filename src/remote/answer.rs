//! What a target answers, typed.

use zeroize::Zeroizing;

use super::{Copy, Lost, Seen};
use crate::model::{Fingerprint, RunId};

/// What the host said to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`super::Op::Hello`].
    Hello(Box<HostFacts>),
    /// To [`super::Op::Look`]: one for each probe.
    Facts(Vec<Fact>),
    /// The host is prepared or taken over.
    Done,
    /// To an act.
    Acted(Acted),
    /// To [`super::Op::Exec`].
    Ran(Ran),
    /// To [`super::Op::Undo`].
    Undone(Undone),
    /// To [`super::Op::Now`] and [`super::Op::Commit`].
    Now(Vec<NowFact>),
    /// To [`super::Op::Recorded`].
    Recorded(Vec<RecordedRun>),
    /// To [`super::Op::Survey`]: one for each.
    Surveyed(Vec<Seen>),
    /// To [`super::Op::Copies`].
    Copies(Vec<Copy>),
    /// To [`super::Op::Reveal`].
    Revealed(Revealed),
}

/// What a host is and has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// The user that the shell runs as.
    pub uid: u32,
    /// The login user.
    pub login: String,
    /// Its id, where the escalation tells.
    pub login_uid: u32,
    /// `sh` or `bash`.
    pub shell: String,
    /// The operating system's own name for itself.
    pub os: String,
    /// `/etc/machine-id`, or `-`.
    pub machine: String,
    /// The start of the boot id.
    pub boot: String,
    /// The state directory.
    pub state_dir: String,
    /// The phase of the host's state, `none` before the first run.
    pub phase: String,
    /// The run that the state names.
    pub run: String,
    /// The host's own guard has taken that run back, or tried to.
    pub by_guard: bool,
    /// Who began that run and from where.
    pub by: String,
    /// The session that holds the host for that run is alive.
    pub busy: bool,
    /// The head of that run's journal, as its last act left it here; empty if none did.
    pub head: String,
    /// Programs that keyswap needs and that are missing.
    pub missing: Vec<String>,
    /// Optional programs that are there.
    pub have: Vec<String>,
}

impl HostFacts {
    /// What tells machines apart: their own id and this boot's. Copies of one image may share the first, containers of one
    /// machine the second. `None`: it cannot be told; the lock on the host decides then.
    #[must_use]
    pub fn identity(&self) -> Option<(String, String)> {
        let known = !matches!(self.machine.as_str(), "" | "-" | "uninitialized");
        known.then(|| (self.machine.clone(), self.boot.clone()))
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// To [`super::Probe::File`].
    File(FileFact),
    /// To [`super::Probe::Env`].
    Env(EnvFact),
    /// To [`super::Probe::Service`].
    Service(ServiceFact),
    /// To [`super::Probe::Backups`], oldest first.
    Backups(Vec<BackupFact>),
    /// To [`super::Probe::Room`].
    Room(RoomFact),
    /// To [`super::Probe::Busy`].
    Busy(BusyFact),
    /// To [`super::Probe::Back`].
    Back(BackFact),
    /// To [`super::Probe::Task`]: the tasks that the log names; `None` when there is no log to read.
    Tasks(Option<Vec<u64>>),
    /// The probe says no: the step could not be done here.
    Refused(Failure),
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFact {
    /// Its path, links resolved.
    pub path: String,
    /// Content, owner, mode; `None`: absent.
    pub before: Option<super::FileBefore>,
    /// The credential's fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// The claims of the token in it, as they are encoded: its middle part.
    pub claims: Option<String>,
    /// The owner that the step wants.
    pub want_uid: u32,
    /// The group that the step wants.
    pub want_gid: u32,
    /// What is free beside it; `None`: the host cannot say.
    pub room: Option<RoomFact>,
}

/// An environment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFact {
    /// Its path, links resolved.
    pub path: String,
    /// As it is; `None`: absent.
    pub before: Option<super::FileBefore>,
    /// The directory that must be made first.
    pub mkdir: Option<String>,
    /// What each edit would change.
    pub edits: Vec<EditFact>,
    /// What is free beside it; `None`: the host cannot say.
    pub room: Option<RoomFact>,
}

/// What an edit would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditFact {
    /// Lines that set the key now.
    pub count: u32,
    /// The key's present value, if it is a plain path; `(not shown)` for anything else.
    pub old: Option<String>,
    /// The fingerprint of what lies at that path on the host.
    pub old_fingerprint: Option<Fingerprint>,
    /// Lines that set a key which is to be taken out.
    pub gone: u32,
    /// Fingerprints of credentials to which this key, and those that are to be taken out, are set now.
    pub held: Vec<Fingerprint>,
    /// SHA-256 (hex) of the file after this edit and those before it.
    pub post: String,
}

/// A runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFact {
    /// Whether it is up.
    pub active: Active,
    /// Its main process; `None` when it cannot be told.
    pub pid: Option<u32>,
    /// That very process: its id and its start.
    pub process: Option<String>,
    /// The files of an earlier run are younger than its process: it was never restarted on them.
    pub stale: bool,
    /// Whether its process has the pointer; `None` when that was not looked at.
    pub pointed: Option<bool>,
    /// The service manager's words.
    pub detail: String,
    /// What its process can reach of the host; `None`: it has none that is known.
    pub reach: Option<ReachFact>,
}

/// Whether a runner is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Active {
    /// It is.
    Yes,
    /// It is stopped.
    No,
    /// It crash-loops.
    Looping,
    /// The service manager does not know it.
    Missing,
    /// There is no way to tell.
    Unknown,
}

impl Active {
    /// The state of a host's word.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "yes" => Self::Yes,
            "no" => Self::No,
            "loop" => Self::Looping,
            "missing" => Self::Missing,
            _ => Self::Unknown,
        }
    }
}

/// A credential that a host gave away. It is shown by nothing and wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Revealed(pub Zeroizing<String>);

impl std::fmt::Debug for Revealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Revealed(..)")
    }
}

/// A named backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFact {
    /// Its name; names sort by age.
    pub id: String,
    /// SHA-256 (hex) of its content.
    pub sha: String,
    /// The credential's fingerprint.
    pub fingerprint: Fingerprint,
    /// Owner, group and mode of the file that it was made of.
    pub meta: Option<(u32, u32, u32)>,
    /// A `restore` has put it back before.
    pub restored: bool,
}

/// What is free on a file system, for the user that keyswap works as there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomFact {
    /// Bytes.
    pub bytes: u64,
    /// Inodes; `None`: the file system counts none.
    pub inodes: Option<u64>,
    /// The file system's id: directories with the same one share what is free.
    pub system: String,
}

/// What a process can reach of its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReachFact {
    /// Its user.
    pub uid: u32,
    /// Its groups.
    pub groups: Vec<u32>,
    /// It sees the host's own files, not a container's.
    pub here: bool,
    /// The sockets of container engines that it sees.
    pub sockets: Vec<SocketFact>,
}

/// Who may write to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketFact {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
}

/// Whether a runner works on a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BusyFact {
    /// Places that were looked at: `processes`, `containers`. None: it cannot be told whether jobs run.
    pub looked: Vec<String>,
    /// What was found there: `process:77(bash)`, `container:NAME`.
    pub jobs: Vec<String>,
    /// Why a place could not be looked at.
    pub blind: Option<String>,
    /// How long its service manager lets it stop, where it says so.
    pub stop: Option<StopLimit>,
}

/// What a runner's log says of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackFact {
    /// This process has reached its forge.
    Connected,
    /// It has begun, and says nothing of it yet.
    Starting,
    /// It says nothing of itself: not yet, or it never does.
    Silent,
    /// The forge does not know it.
    Unregistered,
    /// There is no log of which it could be told that it is this process's.
    Unread,
}

/// How long a runner that is stopped may take before it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopLimit {
    /// For ever.
    None,
    /// So many seconds.
    Seconds(u64),
}

/// How an act ended well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acted {
    /// The wanted state was there already.
    pub already: bool,
    /// The runner was stopped and was left stopped.
    pub left_stopped: bool,
    /// The runner's process could not be found, so it was not checked.
    pub process_unchecked: bool,
    /// The process that a restart ended with: its id and its start.
    pub process: Option<String>,
    /// Jobs that began after the last look, and that the restart may have cut off.
    pub cut: String,
    /// The end of a command's output.
    pub output: String,
}

/// How an ad-hoc command ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ran {
    /// Its exit status.
    pub status: u32,
    /// It was ended at its limit.
    pub timed_out: bool,
    /// What it wrote to standard output and standard error, line by line, as the host sent it.
    pub output: Vec<String>,
    /// There was more than that.
    pub cut: bool,
}

/// How an undo went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// Each record.
    pub records: Vec<UndoneRecord>,
    /// Whether the host is wholly old.
    pub clean: bool,
}

/// How one record of an undo went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoneRecord {
    /// The record's kind.
    pub kind: String,
    /// The step.
    pub step: u32,
    /// `ok`, `changed`, `failed` or `skipped`.
    pub status: crate::model::StepStatus,
    /// In a few words.
    pub message: String,
    /// The command that removes the obstacle, if the host knows one.
    pub fix: Option<String>,
}

/// What a host keeps of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRun {
    /// Which.
    pub run: RunId,
    /// It held the host, so that something may have been changed.
    pub held: bool,
    /// How it let the host go last: `new`, `old`, `dirty`; empty if it did not, or if nobody wrote it down.
    pub ended: String,
    /// The head of its journal, as its last act left it here; empty if none did.
    pub head: String,
    /// Its manifest, if that was asked for and is there.
    pub manifest: Option<String>,
}

/// What a credential file holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NowFact {
    /// Its path.
    pub path: String,
    /// `None`: absent.
    pub fingerprint: Option<Fingerprint>,
}

/// Why an operation did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No answer: whether it happened is unknown.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The host said no, and why.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A host's no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The kind.
    pub class: FailClass,
    /// The reason, from the host, bounded and on one line.
    pub message: String,
    /// A command that removes the obstacle.
    pub fix: Option<String>,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailClass {
    /// The host is not as the operation expects: somebody else changed it.
    Conflict,
    /// The host will not do it.
    Refused,
    /// Something is not there.
    Missing,
    /// The disk would not take it.
    Write,
    /// The runner did not come up as it should.
    Service,
    /// A command failed.
    Command,
    /// It took too long.
    Timeout,
    /// The runner works on a job.
    Busy,
    /// Another run holds the host.
    Held,
    /// This session no longer holds the host.
    Fenced,
    /// The library itself failed.
    Broken,
}

impl FailClass {
    /// The class of a host's word.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "conflict" => Self::Conflict,
            "refused" => Self::Refused,
            "missing" => Self::Missing,
            "write" => Self::Write,
            "service" => Self::Service,
            "command" => Self::Command,
            "timeout" => Self::Timeout,
            "busy" => Self::Busy,
            "held" => Self::Held,
            "fenced" => Self::Fenced,
            _ => Self::Broken,
        }
    }
}
