//! What must hold when things go wrong or somebody means harm: undos that fail, secrets on the loose, hostile directories.

use std::process::{Command, Output, Stdio};

use crate::support::runner_host::RunnerHost;

mod hostile;
mod leaks;
mod mend;

/// Types a command line on the host as the login user, through the system's own SSH client.
fn typed(host: &RunnerHost, line: &str) -> Output {
    Command::new("ssh")
        .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o"])
        .arg(format!("UserKnownHostsFile={}", host.host.known_hosts().display()))
        .arg("-i")
        .arg(host.host.identity())
        .args(["-p", &host.host.port().to_string(), "ops@127.0.0.1", line])
        .stdin(Stdio::null())
        .output()
        .expect("ssh can be run")
}
