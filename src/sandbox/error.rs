//! What can go wrong while a sandbox is built up or taken down.

use std::path::{Path, PathBuf};

/// Why a sandbox could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A file, a directory or a socket of the sandbox.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried (`write`, `listen on`).
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// An SSH key could not be made or written down.
    #[error("cannot make an SSH key")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A name that no host may have.
    #[error("a host cannot be called that")]
    Name(#[from] crate::model::BadName),
    /// The stand-in runner of a host did not come up.
    #[error("the runner of {host} did not start: {said}")]
    Runner {
        /// The host.
        host: String,
        /// What `runnerctl` said, bounded.
        said: String,
    },
    /// Processes of the sandbox outlived every signal.
    #[error("{} of the sandbox's processes did not end: {pids:?}", pids.len())]
    Processes {
        /// Their ids.
        pids: Vec<i32>,
    },
}

impl SandboxError {
    /// For `map_err`: `File::open(p).map_err(SandboxError::io("open", p))`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
