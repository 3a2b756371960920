//! Files and directories of the journal: private, synced, never half written.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use serde::Serialize;

use super::error::JournalError;

/// Writes a value as JSON into a file that is either the old one or whole: a temporary file beside it (0600),
/// synced, renamed over it, the directory synced.
///
/// # Errors
/// When the value cannot be written out or the file system refuses.
pub fn write_atomic<T: Serialize>(path: &Path, value: &T) -> Result<(), JournalError> {
    let write = || -> io::Result<()> {
        let dir = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
        let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(dir)?;
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_dir(dir)
    };
    write().map_err(JournalError::io("write", path))
}

/// Makes the names in a directory last.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a private directory and everything above it that is missing, or checks the one that is there.
pub(super) fn private_dir(dir: &Path) -> Result<(), JournalError> {
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty() && !p.exists()) {
        private_dir(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {
            let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            sync_dir(parent).map_err(JournalError::io("sync", parent))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_dir(dir),
        Err(error) => Err(JournalError::io("create", dir)(error)),
    }
}

/// A directory in which somebody else can rename files is no place for a journal.
fn check_dir(dir: &Path) -> Result<(), JournalError> {
    let meta = dir.metadata().map_err(JournalError::io("look at", dir))?;
    let why = if !meta.is_dir() {
        "is not a directory".to_owned()
    } else if meta.uid() != rustix::process::geteuid().as_raw() && meta.uid() != 0 {
        format!("belongs to user {}", meta.uid())
    } else if meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0 {
        format!("can be written by others (mode {:04o})", meta.mode() & 0o7777)
    } else {
        return Ok(());
    };
    Err(JournalError::UnsafeDir { path: dir.to_owned(), why })
}
