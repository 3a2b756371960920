//! No core dumps: a crash must not write the memory that holds a secret into a file.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// The system refused to turn core dumps off, so no secret may be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot turn core dumps off")]
pub struct NoCoreDumpError(#[from] rustix::io::Errno);

/// Sets the core size to nothing for this process and its children, and marks this process as not dumpable, so
/// that a core handler behind a pipe (which ignores the size) gets nothing either and no other process of the
/// same user can attach and read the memory.
///
/// # Errors
/// When the system refuses either; the caller must then not go on.
pub fn forbid_core_dumps() -> Result<(), NoCoreDumpError> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a process of its own: other tests of this binary read their `/proc/self`, which this closes.
    #[test]
    fn the_process_has_no_core_afterwards() {
        const CHILD: &str = "secret::coredump::tests::child";
        let this = std::env::current_exe().unwrap();
        let output = std::process::Command::new(this).args(["--exact", CHILD, "--ignored"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    #[ignore = "run by the test above"]
    fn child() {
        forbid_core_dumps().unwrap();
        assert_eq!(rustix::process::getrlimit(Resource::Core).current, Some(0));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
