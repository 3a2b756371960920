//! Ends every process that a sandbox started, however far it has wandered from its parent.
//!
//! A process belongs to a sandbox if the `HOME` it was started with lies in the sandbox's directory: everything that a
//! host runs inherits that, daemons in sessions of their own included. A shell that somebody merely opened in the
//! directory does not carry the mark and is left alone. Signals go through a pidfd that was opened before the mark was
//! read, so a reused process id is never hit.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const POLL: Duration = Duration::from_millis(10);
/// So many looks in a row must find nobody: a process in the middle of an exec has no environment for an instant.
const LOOKS: u32 = 3;
/// How long killed processes may take to vanish.
const KILL_WAIT: Duration = Duration::from_secs(3);

/// Sends TERM, after `grace` KILL, until no process of `dir` is left. Returns the ids of those that would not go.
/// It blocks; a caller in async code hands it to a blocking thread.
pub(super) fn end_all(dir: &Path, grace: Duration) -> Vec<i32> {
    let begun = Instant::now();
    let mut told: Vec<i32> = Vec::new();
    let mut quiet = 0;
    loop {
        let found = processes_of(dir);
        if found.is_empty() {
            quiet += 1;
            if quiet == LOOKS {
                return Vec::new();
            }
            thread::sleep(POLL);
            continue;
        }
        quiet = 0;
        let waited = begun.elapsed();
        if waited > grace + KILL_WAIT {
            return found.into_iter().map(|(pid, _)| pid).collect();
        }
        for (pid, fd) in &found {
            // A process that has just ended is what we want: errors do not matter, the next look decides.
            if waited >= grace {
                let _ = pidfd_send_signal(fd, Signal::KILL);
            } else if !told.contains(pid) {
                told.push(*pid);
                let _ = pidfd_send_signal(fd, Signal::TERM);
            }
        }
        thread::sleep(POLL);
    }
}

/// The processes whose `HOME` is `dir` or lies in it. Ended ones that nobody has waited for have no environment left
/// and do not count.
pub(super) fn processes_of(dir: &Path) -> Vec<(i32, OwnedFd)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let id: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let fd = pidfd_open(Pid::from_raw(id)?, PidfdFlags::empty()).ok()?;
            let environ = fs::read(format!("/proc/{id}/environ")).ok()?;
            let home = environ_value(&environ, "HOME")?;
            Path::new(OsStr::from_bytes(home)).starts_with(dir).then_some((id, fd))
        })
        .collect()
}

/// A variable's value in the text of `/proc/PID/environ`.
pub(super) fn environ_value<'e>(environ: &'e [u8], name: &str) -> Option<&'e [u8]> {
    environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
