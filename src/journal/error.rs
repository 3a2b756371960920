//! What can be wrong with a journal.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::fold::FoldError;

/// A journal that cannot be read or written. Cloned to everybody who waits for the same group of records.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another process works on the run.
    #[error("the run is being worked on by {0}")]
    Locked(LockHolder),
    /// Written by a later keyswap.
    #[error("the journal has format {found}, this keyswap reads up to {known}; use the newer keyswap")]
    NewerFormat {
        /// The format in the first line.
        found: u64,
        /// The newest format that is known.
        known: u64,
    },
    /// The first line does not say that it is a journal.
    #[error("`{}` is not a journal: {why}", path.display())]
    NotAJournal {
        /// The file.
        path: PathBuf,
        /// What is wrong with its first line.
        why: String,
    },
    /// A whole line that is no record.
    #[error("line {line} of the journal is no record: {why}")]
    BadLine {
        /// Counted from 1.
        line: u64,
        /// What the parser said.
        why: String,
    },
    /// A line that does not follow from the one before it: something was changed, added or taken out.
    #[error("the journal's chain is broken at line {line}")]
    BrokenChain {
        /// Counted from 1.
        line: u64,
    },
    /// A history that cannot have happened.
    #[error("the journal tells what cannot have happened")]
    Illegal(#[from] FoldError),
    /// An earlier write failed; what lies on the disk is unknown, so nothing more is written.
    #[error("the journal cannot be written any more since an earlier write failed")]
    Broken(#[source] Arc<io::Error>),
    /// The writer has ended.
    #[error("the journal is closed")]
    Closed,
    /// A plan runs once.
    #[error("this plan was run already ({0}): a plan runs once")]
    PlanUsed(String),
    /// There is no run at all.
    #[error("there is no run in `{}`", .0.display())]
    NoRuns(PathBuf),
    /// No run has such an id.
    #[error("no run's id begins with `{0}`")]
    NoSuchRun(String),
    /// Several runs have such an id.
    #[error("`{prefix}` could be any of {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// The ids that begin so, newest first, at most ten.
        candidates: Vec<String>,
    },
    /// Somebody else owns the state directory or may write in it.
    #[error("`{}` {why}", path.display())]
    UnsafeDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl JournalError {
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source: Arc::new(source) }
    }
}

/// Who holds a run's lock; what the lock file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// The process on that machine.
    pub pid: u32,
    /// The controller's name.
    pub host: String,
    /// The user there.
    pub user: String,
    /// What it does.
    pub command: String,
    /// Since when; `None` when the holder has not written itself down yet.
    pub since: Option<Timestamp>,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.since {
            Some(since) => {
                write!(
                    f,
                    "`keyswap {}` of {} on {}, process {}, since {since:.0}",
                    self.command, self.user, self.host, self.pid
                )
            }
            None => f.write_str("another keyswap that has just begun"),
        }
    }
}
