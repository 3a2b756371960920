//! The way back, as data: what lies on the host before its first change.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{EnvFormat, RemotePath, RestartHow};

/// A file as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBefore {
    /// SHA-256 (hex) of its content.
    pub sha: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
}

/// One entry of the way back. The variants stand in the order in which they are undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
pub enum UndoRecord {
    /// A file that was there gets its content, owner and mode back.
    File {
        /// The step that changes it.
        step: u32,
        /// Where.
        path: RemotePath,
        /// As it was.
        before: FileBefore,
        /// SHA-256 (hex) as the run leaves it.
        post: String,
    },
    /// An environment file gets its bytes back, or only our lines if somebody else edited it meanwhile.
    Env {
        /// The first step that changes it.
        step: u32,
        /// Where.
        path: RemotePath,
        /// As it was; `None`: there was none.
        before: Option<FileBefore>,
        /// How it is written.
        format: EnvFormat,
        /// The variables that the run sets or takes out.
        keys: Vec<String>,
        /// SHA-256 (hex) after each of the run's edits.
        posts: Vec<String>,
    },
    /// The operator's own way back of a command, run if the command was started.
    Command {
        /// The step.
        step: u32,
        /// For `sh -c`.
        script: String,
        /// Its limit.
        limit: Duration,
    },
    /// The runner goes back to what it was: up on the old files, or stopped.
    Service {
        /// The step.
        step: u32,
        /// Which runner.
        how: RestartHow,
        /// Whether it was up.
        was_up: bool,
        /// How long it must live after the restart.
        healthy: Duration,
        /// The limit for the restart.
        timeout: Duration,
    },
    /// A file that was not there goes, if it is as the run left it.
    Remove {
        /// The step.
        step: u32,
        /// Where.
        path: RemotePath,
        /// SHA-256 (hex) as the run leaves it.
        post: String,
    },
    /// A directory that the run made goes, if it is empty.
    Rmdir {
        /// The step.
        step: u32,
        /// Where.
        path: RemotePath,
    },
    /// A named backup that the run made goes.
    Backup {
        /// The step.
        step: u32,
        /// Its name.
        id: String,
    },
}

impl UndoRecord {
    /// The step whose act it takes back.
    #[must_use]
    pub fn step(&self) -> u32 {
        match self {
            Self::File { step, .. }
            | Self::Env { step, .. }
            | Self::Command { step, .. }
            | Self::Service { step, .. }
            | Self::Remove { step, .. }
            | Self::Rmdir { step, .. }
            | Self::Backup { step, .. } => *step,
        }
    }

    /// The file that it puts back or takes away.
    #[must_use]
    pub fn file(&self) -> Option<&RemotePath> {
        match self {
            Self::File { path, .. } | Self::Env { path, .. } | Self::Remove { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The kind's word in the host's list.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Env { .. } => "env",
            Self::Command { .. } => "command",
            Self::Service { .. } => "service",
            Self::Remove { .. } => "remove",
            Self::Rmdir { .. } => "rmdir",
            Self::Backup { .. } => "backup",
        }
    }

    /// The place in the undo's order: content, pointer, command, runner and its check, and only then new paths.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            Self::File { .. } => 1,
            Self::Env { .. } => 2,
            Self::Command { .. } => 3,
            Self::Service { .. } => 4,
            Self::Remove { .. } | Self::Rmdir { .. } => 5,
            Self::Backup { .. } => 6,
        }
    }
}

/// Puts the records into the order of the undo: by rank, and within a rank the last step first.
pub fn in_undo_order(records: &mut [UndoRecord]) {
    records.sort_by_key(|record| {
        let dir_last = matches!(record, UndoRecord::Rmdir { .. });
        (record.rank(), dir_last, std::cmp::Reverse(record.step()))
    });
}
