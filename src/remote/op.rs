//! What a target can be asked, as data.
//!
//! An operation is one round trip. Operations that change something name the run, and are refused by the host unless this
//! session holds it for that run. Each of them may be sent twice: the host looks first, acts only on the state that the
//! operation expects, and answers "already" when it finds the state that the operation wants.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Survey, UndoRecord};
use crate::model::{EnvFormat, Fingerprint, RemotePath, RestartHow, RunId};

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// What the host is and has.
    Hello,
    /// How things stand; changes nothing. One answer a probe, in order.
    Look(Vec<Probe>),
    /// Keep the preimages and the undo, take the host for the run, start its guard, set the stages.
    Prepare {
        /// For which run.
        hold: Hold,
        /// Who runs it and from where, for a second operator's eyes.
        owner: String,
        /// The way back, in its order.
        undo: Vec<UndoRecord>,
        /// What the run is, in one line without a secret: for an operator who has no journal of it.
        manifest: String,
    },
    /// Take the host for the run again after the link was lost; the old session is fenced.
    Takeover {
        /// For which run.
        hold: Hold,
        /// Who does so and from where, for another operator's eyes.
        owner: String,
        /// A host that was settled meanwhile (by its guard, by another session) is refused, not taken up again.
        only_held: bool,
    },
    /// A sign of life between requests: the guard waits on.
    Renew {
        /// For which run.
        hold: Hold,
    },
    /// One step's act.
    Act {
        /// For which run.
        hold: Hold,
        /// The step, counted from 1.
        step: u32,
        /// What to do.
        act: Act,
    },
    /// A command that changes nothing.
    Peek {
        /// For which run, if the host is held.
        hold: Option<Hold>,
        /// For `sh -c`.
        script: String,
        /// Its limit.
        limit: Duration,
    },
    /// An operator's ad-hoc command, beside any run: how it ended is the answer, whatever it was.
    Exec {
        /// The program and its arguments; each reaches it as it stands here.
        argv: Vec<String>,
        /// Its limit.
        limit: Duration,
    },
    /// Wait for a condition.
    Wait {
        /// For which run, if the host is held.
        hold: Option<Hold>,
        /// The condition.
        until: HostCondition,
        /// The limit.
        limit: Duration,
    },
    /// Everything is as the run should leave it: the host is new, and says what its credential files hold.
    Commit {
        /// For which run.
        hold: Hold,
        /// So is its runner: one that was up before is up.
        runner: bool,
        /// Files that none of the run's acts writes.
        paths: Vec<RemotePath>,
    },
    /// Take the run back: the host is old, or dirty.
    Undo {
        /// For which run.
        hold: Hold,
        /// The longest that its parts may take together.
        limit: Duration,
    },
    /// Take the lock of a run away that nobody will settle. Puts nothing back.
    Unlock {
        /// Who wants it.
        by: String,
        /// Why, in one line.
        reason: String,
        /// The run that holds the host, where it is to be taken away although its controller may be at work.
        run: Option<RunId>,
    },
    /// What the host keeps of its runs; changes nothing.
    Recorded {
        /// This one with its manifest; `None`: all of them without.
        run: Option<RunId>,
    },
    /// What an audit looks at; changes nothing. One answer a survey, in order.
    Survey(Vec<Survey>),
    /// The copies of old credentials that a run knows: to be named, or to be removed for good.
    Copies {
        /// The run that brought what is there instead.
        run: RunId,
        /// The old credentials.
        old: Vec<Fingerprint>,
        /// Files that pointers used to name.
        superseded: Vec<RemotePath>,
        /// What is done with them.
        verb: CopiesVerb,
    },
    /// A credential itself, from a backup: for the one request that shows that it is dead.
    Reveal {
        /// Which.
        fingerprint: Fingerprint,
    },
    /// What the run's credential files hold now.
    Now {
        /// The run.
        run: RunId,
        /// Files that none of its acts writes.
        paths: Vec<RemotePath>,
    },
}

/// What is done with copies of old credentials. All of it is refused where the run did not end new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopiesVerb {
    /// They are named.
    Look,
    /// Nothing yet, but the host refuses from here on to be taken back by the run.
    Seal,
    /// They go, and with them the way back of the runs before.
    Remove,
}

/// Under what a request works on a held host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The run that holds the host.
    pub run: RunId,
    /// The head of the journal's chain; left on the host.
    pub head: String,
    /// How long the controller may be silent before the host puts itself back; `None`: for ever. Each request renews
    /// it, for as long as the request itself may take and then this long.
    pub guard: Option<Duration>,
}

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A file: content by digest, owner, mode; whether it could be replaced.
    File {
        /// Its path.
        path: RemotePath,
        /// The owner that it shall have; `None`: as it is.
        owner: Option<String>,
        /// The group that it shall have.
        group: Option<String>,
    },
    /// An environment file, and its digest after each of the edits.
    Env {
        /// Its path.
        path: RemotePath,
        /// How it is written.
        format: EnvFormat,
        /// The edits, in order.
        edits: Vec<EnvEdit>,
    },
    /// A runner: up or not, its process, whether that has the pointer.
    Service {
        /// Which.
        how: RestartHow,
        /// The pointer that its process should have, if that is to be looked at.
        pointer: Option<Pointer>,
    },
    /// The named backups of a file.
    Backups {
        /// Its path.
        path: RemotePath,
    },
    /// What is free where the host keeps its state.
    Room,
    /// Whether a runner works on a job.
    Busy {
        /// Which runner.
        how: RestartHow,
    },
    /// Whether a runner says in its own log that it is connected to its forge, since its process began.
    Back {
        /// Which runner.
        how: RestartHow,
        /// Its log file; `None`: the service manager's.
        log: Option<RemotePath>,
    },
    /// Whether a runner took tasks of the forge, by its own log.
    Task {
        /// Which runner.
        how: RestartHow,
        /// Its log file; `None`: the service manager's.
        log: Option<RemotePath>,
        /// The repository, `owner/name`.
        repo: String,
        /// The tasks' ids.
        tasks: Vec<u64>,
    },
}

/// One key of an environment file is set, others are taken out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvEdit {
    /// The variable.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Variables to take out.
    pub remove: Vec<String>,
}

/// A variable in a process's environment, and what the file that it names must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The variable.
    pub key: String,
    /// Its value.
    pub value: String,
    /// SHA-256 (hex) of the content behind it, as the process sees it; `None`: not checked.
    pub content: Option<String>,
}

/// What a file is to become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its path, links resolved.
    pub path: RemotePath,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// SHA-256 (hex) of what it must hold before; `None`: it must be absent.
    pub pre: Option<String>,
    /// SHA-256 (hex) of what it will hold.
    pub post: String,
}

/// What a step does on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Keep a named backup.
    Backup {
        /// The file.
        path: RemotePath,
        /// SHA-256 (hex) of what it holds.
        sha: String,
        /// Its fingerprint (hex): without one trailing line end.
        fingerprint: String,
        /// The backup's name.
        id: String,
    },
    /// Write the operation's data into a file.
    Place(Target),
    /// Put a named backup back.
    Restore {
        /// The file.
        target: Target,
        /// The backup's name.
        backup: String,
    },
    /// Edit an environment file.
    Point {
        /// The file.
        target: Target,
        /// How it is written.
        format: EnvFormat,
        /// The edit.
        edit: EnvEdit,
    },
    /// Restart the runner and look at its process.
    Restart {
        /// Which.
        how: RestartHow,
        /// Whether it was up before the run.
        was_up: bool,
        /// How long the new process must live.
        healthy: Duration,
        /// The limit for the restart itself.
        timeout: Duration,
        /// What the new process must have.
        pointer: Option<Pointer>,
        /// What else it must have.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        also: Vec<Pointer>,
        /// Variables that it must not have any more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        gone: Vec<String>,
        /// A runner that works on a job is not touched: the answer is [`super::FailClass::Busy`].
        #[serde(default)]
        drain: bool,
    },
    /// Run a command; never twice.
    Command {
        /// For `sh -c`.
        script: String,
        /// Its limit.
        limit: Duration,
    },
}

/// What a host can wait for by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostCondition {
    /// A file is there.
    Path(RemotePath),
    /// Somebody listens on a TCP port of the loopback address.
    Port(u16),
    /// A command exits 0.
    Command(String),
}
