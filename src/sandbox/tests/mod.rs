//! Tests of the sandbox over real SSH connections.

mod client;
mod hosts;
mod sandbox;

use std::time::{Duration, Instant};

use super::{HostOptions, LoginKey, SandboxHost};

/// Waits until a condition holds; fails the test when it does not within ten seconds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Bare hosts in a directory of their own.
async fn bare_hosts(n: usize) -> (tempfile::TempDir, Vec<SandboxHost>) {
    let dir = tempfile::tempdir().unwrap();
    let login = LoginKey::create(&dir.path().join("key")).unwrap();
    let mut hosts = Vec::new();
    for number in 1..=n {
        let name = format!("host-{number}").parse().unwrap();
        let home = dir.path().join(number.to_string());
        hosts.push(SandboxHost::start(&home, name, HostOptions::new(login.clone())).await.unwrap());
    }
    (dir, hosts)
}
