//! Writing down a key that the operator has accepted.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};

use super::{Endpoint, HostKey, KnownHosts, Verdict};

/// Adds a line for `key` to a `known_hosts` file, which is made if it is not there. What stands in the file stays,
/// byte for byte; a reader sees the old file or the new one, and two writers take turns. A key that somebody else has added
/// meanwhile is not added twice: `false` then.
///
/// This is the operator's yes: nothing calls it but the command that asks. Blocks on the file system.
///
/// # Errors
/// When the file cannot be read or replaced, or revokes the key by now; it is unchanged then.
pub fn learn(file: &Utf8Path, endpoint: &Endpoint, key: &HostKey) -> io::Result<bool> {
    // A link (to a repository of dot files, say) stays one.
    let file = match file.canonicalize_utf8() {
        Ok(target) => target,
        Err(e) if e.kind() == io::ErrorKind::NotFound => file.to_owned(),
        Err(e) => return Err(e),
    };
    let dir = match file.parent() {
        Some(dir) if !dir.as_str().is_empty() => dir.to_owned(),
        _ => Utf8PathBuf::from("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    // The directory is the lock, since the file itself is replaced.
    let lock = File::open(&dir)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;

    let (mut content, owner) = match File::open(&file) {
        // What is replaced by a file has to be one: `/dev/null` stands for none.
        Ok(opened) if !opened.metadata()?.is_file() => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(opened) => (super::read_bounded(&file)?, Some(opened.metadata()?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
        Err(e) => return Err(e),
    };
    let mut known = KnownHosts::default();
    known.add(&file, &content)?;
    match known.check(endpoint, key) {
        Verdict::Trusted(_) => return Ok(false),
        Verdict::Revoked(place) => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{place} revokes the key")));
        }
        Verdict::Unknown { .. } | Verdict::Changed { .. } => {}
    }
    if content.last().is_some_and(|last| *last != b'\n') {
        content.push(b'\n');
    }
    writeln!(content, "{} {key}", endpoint.listed_as())?;

    let mut fresh = tempfile::Builder::new().prefix(".known_hosts-").tempfile_in(&dir)?;
    fresh.write_all(&content)?;
    if let Some(old) = owner {
        fresh.as_file().set_permissions(PermissionsExt::from_mode(old.mode() & 0o777))?;
    }
    fresh.as_file().sync_all()?;
    fresh.persist(&file).map_err(|e| e.error)?;
    lock.sync_all()?;
    Ok(true)
}
