//! The harness's own promises, checked with the system's SSH client and none of our code.

use std::process::Command;
use std::time::Instant;

use crate::support::real_host::RealHost;
use crate::support::wait_until;

/// The system's own client: what the harness promises is checked without our code.
fn openssh(host: &RealHost, command: &str) -> std::process::Output {
    Command::new("ssh")
        .args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", host.known_hosts().display()))
        .arg("-i")
        .arg(host.identity())
        .args(["-p", &host.port().to_string(), "ops@127.0.0.1", command])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("ssh can be run")
}

/// Whether a process with this command line runs anywhere on the machine.
fn runs(cmdline: &[u8]) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes.map(|p| p.path().join("cmdline")).any(|path| std::fs::read(path).is_ok_and(|c| c == cmdline))
}

#[test]
fn the_harness_makes_a_host_and_leaves_nothing_behind() {
    let host = RealHost::builder().shell("/bin/bash").host_key_type("ecdsa").sshd_option("MaxSessions 3").start();
    let said = openssh(&host, "id -u; sudo -n id -u; echo $BASH_VERSION | cut -c1; id -u runner; cat /etc/machine-id");
    assert!(said.status.success(), "{}\n{}", String::from_utf8_lossy(&said.stderr), host.sshd_log());
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(&lines[..4], ["4200", "0", "5", "1000"]);
    assert_ne!(lines[4], std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim());

    host.sh("mkdir -p /var/lib/keyswap && echo inside >/var/lib/keyswap/mark && echo inside >/srv/mark");
    assert_eq!(std::fs::read_to_string(host.root().join("srv/mark")).unwrap(), "inside\n");
    assert!(!std::path::Path::new("/var/lib/keyswap/mark").exists(), "the machine's own /var is untouched");

    // A program that outlives its connection dies with the host all the same.
    openssh(&host, "setsid sleep 4242 >/dev/null 2>&1 &");
    wait_until("the program runs", || runs(b"sleep\x004242\0"));
    let (root, scratch) = (host.root(), host.scratch().to_owned());
    drop(host);
    assert!(!root.exists() && !scratch.exists() && !runs(b"sleep\x004242\0"));
}

#[test]
fn a_host_of_the_harness_can_be_cut_off_and_come_back() {
    let host = RealHost::start();
    assert!(host.inventory_host("h1").contains(&format!("port = {}", host.port())));
    let started = Instant::now();
    std::thread::scope(|scope| {
        let cut = scope.spawn(|| openssh(&host, "sleep 60"));
        wait_until("the command runs", || host.exec("grep -qs '^sleep' /proc/[0-9]*/cmdline").status.success());
        assert!(host.kill_sshd_children() > 0);
        assert_eq!(cut.join().unwrap().status.code(), Some(255));
    });
    assert!(started.elapsed().as_secs() < 30);
    host.stop_sshd();
    assert_eq!(openssh(&host, "true").status.code(), Some(255));
    host.start_sshd();
    assert_eq!(openssh(&host, "exit 7").status.code(), Some(7));
    assert!(host.root().join("proc/1/status").exists());
}
