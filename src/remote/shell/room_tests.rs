//! What is free on a host, and what a process can reach of it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::tests::{SHELLS, ask, host, look};
use crate::model::RestartHow;
use crate::remote::{Fact, FileFact, Host as _, Probe, ReachFact, RoomFact, SocketFact};

async fn room(shell: &[&str], state: &str) -> RoomFact {
    let mut host = host(shell, Path::new(state)).await;
    let fact = look(&mut host, vec![Probe::Room]).await.pop().unwrap();
    Box::new(host).close().await;
    match fact {
        Fact::Room(fact) => fact,
        other => panic!("{shell:?} {state}: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_free_is_told_of_the_nearest_directory_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().to_str().unwrap();
    let stat = rustix::fs::statvfs(there).unwrap();
    let total = stat.f_blocks * stat.f_frsize;
    for shell in SHELLS {
        let fact = room(shell, there).await;
        assert!(fact.bytes > 0 && fact.bytes <= total, "{shell:?}: {fact:?} of {total}");
        assert!(fact.inodes.is_none_or(|inodes| inodes <= stat.f_files), "{shell:?}: {fact:?}");
        let below = room(shell, &format!("{there}/not/yet there/*")).await;
        assert_eq!(below.system, fact.system, "{shell:?}");
        let proc = room(shell, "/proc").await;
        assert!(proc.bytes == 0 && proc.inodes.is_none() && proc.system != fact.system, "{shell:?}: {proc:?}");
        let beside = Probe::File { path: format!("{there}/token").parse().unwrap(), owner: None, group: None };
        let Fact::File(FileFact { room: Some(beside), .. }) = ask(shell, beside).await else { panic!("{shell:?}") };
        assert_eq!(beside.system, fact.system, "{shell:?}");
    }
}

async fn reach(shell: &[&str], dir: &Path, pid: u32) -> Option<ReachFact> {
    let pid_file = dir.join("pid");
    std::fs::write(&pid_file, pid.to_string()).unwrap();
    let pid_file = Some(pid_file.to_str().unwrap().parse().unwrap());
    let how = RestartHow::Command { command: "true".to_owned(), check: None, pid_file };
    match ask(shell, Probe::Service { how, pointer: None }).await {
        Fact::Service(fact) => fact.reach,
        other => panic!("{shell:?}: {other:?}"),
    }
}

/// A process that sees a directory as its `/run`.
struct Confined(Child);

impl Confined {
    fn start(run: &std::path::Path) -> Self {
        let script = r#"mount --bind "$1" /run && : >"$1/up" && exec sleep 300"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(run).stdin(Stdio::null());
        let confined = Self(command.spawn().unwrap());
        let end = Instant::now() + Duration::from_secs(10);
        while !run.join("up").exists() {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(5));
        }
        confined
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_a_process_can_reach_is_told() {
    let run = tempfile::tempdir().unwrap();
    let docker = run.path().join("docker.sock");
    let _docker = UnixListener::bind(&docker).unwrap();
    std::fs::create_dir(run.path().join("podman")).unwrap();
    std::fs::write(run.path().join("podman/podman.sock"), "").unwrap();
    std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o660)).unwrap();
    std::os::unix::fs::chown(&docker, Some(0), Some(999)).unwrap();
    let process = Confined::start(run.path());
    let (uid, gid) = std::fs::metadata("/proc/self").map(|meta| (meta.uid(), meta.gid())).unwrap();
    for shell in SHELLS {
        let seen = reach(shell, run.path(), process.0.id()).await;
        let ReachFact { uid: owner, groups, here, mut sockets } = seen.unwrap();
        // The usual link /var/run leads to it a second time; what is no socket does not count.
        sockets.dedup();
        assert_eq!((owner, here), (uid, true), "{shell:?}");
        assert!(groups.contains(&gid), "{shell:?}: {groups:?}");
        assert_eq!(sockets, [SocketFact { uid: 0, gid: 999, mode: 0o660 }], "{shell:?}");
        assert_eq!(reach(shell, run.path(), u32::MAX / 2).await, None, "{shell:?}: no such process");
    }
}
