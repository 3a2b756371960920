//! The fleet: made anew for each run, and looked at from outside when a tool says that it is done.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::group::{Group, left_behind};

/// Where sshd listens; the delay line listens at [`DELAYED`].
pub(crate) const PORT: u16 = 22;
/// Where the delay line listens.
pub(crate) const DELAYED: u16 = 2022;
/// Who logs in.
pub(crate) const USER: &str = "bench-ops";
/// The pointer's key.
pub(crate) const KEY: &str = "INFISICAL_TOKEN_AUTH_FILE";
const OLD: &str = "test-token-old-0b9cf3c8e3a44f0d";
const NEW: &str = "test-token-new-5f1b7e2c9d8a4c63";

/// Running hosts.
pub(crate) struct Fleet {
    /// What the controllers need: `identity`, `known_hosts`, `token`; and what they write.
    pub(crate) files: PathBuf,
    /// How many.
    pub(crate) count: usize,
    /// All processes on the hosts.
    pub(crate) group: Group,
    init: Child,
    outer_pid: u32,
    disk: PathBuf,
    /// The toy runners' processes before.
    before: Vec<String>,
}

/// The address of a host, counted from 1.
pub(crate) fn address(host: usize) -> String {
    format!("127.1.{}.{}", host / 250, host % 250 + 1)
}

/// A host's directory on its machine.
pub(crate) fn directory(host: usize) -> String {
    format!("/srv/bench/{host}")
}

/// The SHA-256 of the token that every tool brings.
pub(crate) fn digest() -> String {
    sha256(NEW.as_bytes())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn env_text(directory: &str, file: &str) -> String {
    format!(
        "# Environment of the runner; read at its start.\nRUNNER_CAPACITY=2\n\n{KEY}={directory}/data/{file}\nTZ=Europe/Paris\n"
    )
}

/// The benchmark's own place below `target`.
pub(crate) fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

/// Removes what the fleets have left.
pub(crate) fn clear() {
    let _ = fs::remove_dir_all(place().join("work"));
}

impl Fleet {
    /// Makes the hosts, on the disk or in memory, and waits until sshd listens and every runner is up.
    ///
    /// Each fleet has a directory of its own, and none goes before all is measured ([`clear`]): an ext4 without a journal looks
    /// at every inode that was freed in the last minutes whenever a file is made, which would be counted to the hosts.
    pub(crate) fn start(count: usize, in_memory: bool) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let work = place().join("work").join(STARTED.fetch_add(1, Ordering::Relaxed).to_string());
        let _ = fs::remove_dir_all(&work);
        let (files, disk) = (work.join("files"), if in_memory { memory() } else { work.join("disk") });
        fs::create_dir_all(&files).unwrap();
        fs::create_dir_all(&disk).unwrap();
        keys(&files);
        let write = |name: &str, text: &str| fs::write(files.join(name), text).unwrap();
        write("old-token", OLD);
        write("shared-token", "test-token-shared");
        write("token", NEW);
        // keyswap takes no secret from a file that others can read.
        fs::set_permissions(files.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
        write("runner.env", &env_text("@DIR@", "shared-token"));
        write("toyctl", include_str!("toyctl.sh"));
        let known: String = (1..=count).map(address).map(|at| format!("{at} @\n[{at}]:{DELAYED} @\n")).collect();
        let key = fs::read_to_string(files.join("host_key.pub")).unwrap();
        write("known_hosts", &known.replace('@', key.trim()));
        let group = Group::new("hosts");
        let mut init = Command::new("unshare")
            .args(["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "/bin/sh", "-c"])
            .args([include_str!("host.sh"), "init"])
            .args([&files, &disk, &group.dir])
            .arg(count.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare can be run");
        let mut lines = BufReader::new(init.stdout.take().unwrap()).lines().map_while(Result::ok);
        let outer_pid = lines.next().and_then(|line| line.parse().ok()).unwrap_or_default();
        let said = lines.next().unwrap_or_default();
        assert!(said == "ready", "the hosts could not be started: {said}");
        let mut fleet = Self { files, count, group, init, outer_pid, disk, before: Vec::new() };
        fleet.before = (1..=count).map(|host| fleet.read(host, "run/runner.pid")).collect();
        fleet
    }

    /// The process of the listening sshd, as this side numbers it.
    pub(crate) fn sshd(&self) -> u32 {
        let is_listener = |pid: &u32| {
            let said = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            said.contains("listener")
        };
        self.group.pids().into_iter().find(is_listener).expect("sshd listens")
    }

    fn at(&self, host: usize, path: &str) -> PathBuf {
        self.disk.join(format!("srv/bench/{host}/{path}"))
    }

    fn read(&self, host: usize, path: &str) -> String {
        fs::read_to_string(self.at(host, path)).unwrap_or_default().trim().to_owned()
    }

    /// What is wrong on the hosts after a rotation; nothing if it is as it must be.
    pub(crate) fn faults(&self) -> Vec<String> {
        (1..=self.count).filter_map(|host| self.fault(host).map(|what| format!("host {host}: {what}"))).collect()
    }

    fn fault(&self, host: usize) -> Option<&'static str> {
        let dir = directory(host);
        let token = self.at(host, "data/infisical-token-auth-token");
        let pid = self.read(host, "run/runner.pid");
        let proc = PathBuf::from(format!("/proc/{}/root/proc/{pid}", self.outer_pid));
        let environ = fs::read(proc.join("environ")).unwrap_or_default();
        let wanted = format!("{KEY}={dir}/data/infisical-token-auth-token");
        let backups = [self.at(host, "backups"), self.disk.join(format!("var/lib/keyswap-{host}/backups"))];
        let Ok(meta) = fs::symlink_metadata(&token) else { return Some("no token") };
        let checks = [
            (fs::read(&token).is_ok_and(|bytes| bytes == NEW.as_bytes()), "another token"),
            (meta.is_file() && meta.mode() & 0o7777 == 0o600, "another mode"),
            (meta.uid() == 1000 && meta.gid() == 1000, "another owner"),
            (
                fs::read_to_string(self.at(host, "runner.env"))
                    .is_ok_and(|text| text == env_text(&dir, "infisical-token-auth-token")),
                "another env file",
            ),
            (
                fs::metadata(self.at(host, "runner.env")).is_ok_and(|meta| meta.uid() == 0),
                "another owner of the env file",
            ),
            (!pid.is_empty() && Some(&pid) != self.before.get(host - 1), "the runner was not restarted"),
            (proc.exists(), "the runner is not up"),
            (self.read(host, "run/seen") == digest(), "the runner has not read the new token"),
            (
                environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()),
                "the runner has another pointer",
            ),
            (started(&proc) >= written(&meta), "the runner is older than its token"),
            (backups.iter().any(|dir| holds(dir, &sha256(OLD.as_bytes()))), "no backup of the old token"),
        ];
        checks.into_iter().find(|(right, _)| !right).map(|(_, what)| what)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        drop(self.init.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && matches!(self.init.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.init.kill();
        let _ = self.init.wait();
        if self.disk.starts_with("/dev/shm") {
            let _ = fs::remove_dir_all(&self.disk);
        }
    }
}

/// A place in memory.
fn memory() -> PathBuf {
    let dir = PathBuf::from(format!("/dev/shm/keyswap-bench-{}", std::process::id()));
    for old in left_behind(Path::new("/dev/shm")) {
        let _ = fs::remove_dir_all(old);
    }
    dir
}

/// The operator's key and the hosts' one, made once for all fleets.
fn keys(files: &Path) {
    let kept = place().join("keys");
    fs::create_dir_all(&kept).unwrap();
    for name in ["identity", "host_key"] {
        if !kept.join(name).exists() {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-C", "bench", "-t", "ed25519", "-N", "", "-f"])
                .arg(kept.join(name))
                .stdin(Stdio::null())
                .status();
            assert!(made.expect("ssh-keygen can be run").success(), "no key could be made");
        }
        for name in [name.to_owned(), format!("{name}.pub")] {
            fs::copy(kept.join(&name), files.join(&name)).unwrap();
        }
    }
    fs::copy(files.join("identity.pub"), files.join("authorized_keys")).unwrap();
}

/// When a process started, in ticks since boot.
fn started(proc: &Path) -> u64 {
    let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    rest.split(' ').nth(19).and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// When a file was last written, in ticks since boot; a few less, since the two clocks are not quite one.
fn written(meta: &fs::Metadata) -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let up: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let age = meta.modified().unwrap().elapsed().unwrap_or_default();
    Duration::from_secs_f64((up - age.as_secs_f64() - 0.05).max(0.0)).as_millis() as u64 / 10
}

/// Whether a file with this digest lies somewhere below.
fn holds(dir: &Path, digest: &str) -> bool {
    fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() { holds(&path, digest) } else { fs::read(&path).is_ok_and(|bytes| sha256(&bytes) == digest) }
    })
}
