//! A throw-away host with a real OpenSSH server, for tests that need the truth about SSH, `sudo` and files.
//!
//! [`RealHost`] lives in mount, process and host-name namespaces of its own: `/etc`, `/var`, `/usr/local` are private
//! copies, `/home`, `/root`, `/srv`, `/run` and `/tmp` are empty and in memory. Only the network is the machine's.
//! It has two users beside root: `ops` (uid 4200; logs in, may `sudo` without a password) and `runner` (uid 1000).
//! Dropping it, or the death of the test process, ends every process that ran on it and every mount it made.
//!
//! Making one needs root, or `sudo` without a password; looking at its files through [`RealHost::root`] needs root.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const INIT: &str = include_str!("real_host.sh");

/// A running host. Every method blocks; call it from async tests too, the work behind it is short.
pub(crate) struct RealHost {
    init: Child,
    outer_pid: u32,
    port: u16,
    files: tempfile::TempDir,
}

/// What may differ between hosts.
pub(crate) struct Builder {
    shell: String,
    sshd_options: Vec<String>,
    host_key_type: String,
}

impl RealHost {
    /// A host whose `ops` logs in to `/bin/sh`.
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    /// A host with other choices.
    pub(crate) fn builder() -> Builder {
        Builder { shell: "/bin/sh".to_owned(), sshd_options: Vec::new(), host_key_type: "ed25519".to_owned() }
    }

    /// The port on 127.0.0.1 where its sshd listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A `known_hosts` file that holds its key under `[127.0.0.1]:port`.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.files.path().join("known_hosts")
    }

    /// Its public host key: `ssh-ed25519 AAAA…`.
    pub(crate) fn host_key(&self) -> String {
        read(&self.files.path().join("host_key.pub")).split(' ').take(2).collect::<Vec<_>>().join(" ").trim().to_owned()
    }

    /// The private key (no passphrase) that `ops` and root accept.
    pub(crate) fn identity(&self) -> PathBuf {
        self.files.path().join("identity")
    }

    /// A directory outside the host that is removed with it, for a test's own files.
    pub(crate) fn scratch(&self) -> &Path {
        self.files.path()
    }

    /// The host as an inventory's `[hosts.NAME]` table.
    pub(crate) fn inventory_host(&self, name: &str) -> String {
        format!(
            "[hosts.{name}]\naddress = \"127.0.0.1\"\nport = {}\nuser = \"ops\"\nbecome = \"sudo\"\n\
             identity_file = \"{}\"\nknown_hosts = \"{}\"\n",
            self.port,
            self.identity().display(),
            self.known_hosts().display(),
        )
    }

    /// Its file system as seen from outside: `root().join("srv/x")` is the host's `/srv/x`. Absolute symbolic links
    /// in it lead to the machine's own files, so read plain files only.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.outer_pid))
    }

    /// Runs a command line as root on the host, beside SSH, for at most a minute, and returns what it said.
    pub(crate) fn exec(&self, command: &str) -> Output {
        let pid = self.outer_pid.to_string();
        as_root("nsenter")
            .args(["-t", &pid, "--mount", "--pid", "--uts", "--root", "--wd"])
            .args(["timeout", "-k", "1", "60", "/bin/sh", "-c", command])
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .output()
            .expect("nsenter can be run")
    }

    /// As [`Self::exec`], for a command that must succeed: its standard output.
    pub(crate) fn sh(&self, command: &str) -> String {
        let output = self.exec(command);
        assert!(
            output.status.success(),
            "`{command}` on the host: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("output is UTF-8")
    }

    /// Sends a signal to every sshd process that serves a connection, and says how many there were. The programs that
    /// were started through them are left alone, as by a cut cable.
    pub(crate) fn signal_sshd_children(&self, signal: &str) -> usize {
        let script = format!(
            "for dir in /proc/[0-9]*; do pid=${{dir#/proc/}}; read -r comm 2>/dev/null <$dir/comm || continue
             case $comm in sshd*) [ \"$pid\" = \"$(cat /run/sshd.pid)\" ] || {{ kill -{signal} \"$pid\" 2>/dev/null && echo \"$pid\" || :; }} ;; esac
             done"
        );
        self.sh(&script).lines().count()
    }

    /// Cuts every connection by killing the sshd processes behind them.
    pub(crate) fn kill_sshd_children(&self) -> usize {
        self.signal_sshd_children("KILL")
    }

    /// Stops the listening sshd: new connections are refused, running ones stay.
    pub(crate) fn stop_sshd(&self) {
        self.sh("pid=$(cat /run/sshd.pid) && kill \"$pid\" && while kill -0 \"$pid\" 2>/dev/null; do sleep 0.01; done");
    }

    /// Starts sshd again, on the same port, with the configuration that is on the host now.
    pub(crate) fn start_sshd(&self) {
        self.sh("$(command -v sshd) -E /var/log/sshd.log -f /etc/ssh/sshd_config");
        self.sh("until [ -s /run/sshd.pid ]; do sleep 0.01; done");
    }

    /// What sshd has logged so far.
    pub(crate) fn sshd_log(&self) -> String {
        self.sh("cat /var/log/sshd.log")
    }
}

impl Builder {
    /// The login shell of `ops`: `/bin/dash`, `/bin/bash`, …
    pub(crate) fn shell(mut self, path: &str) -> Self {
        path.clone_into(&mut self.shell);
        self
    }

    /// A line for `sshd_config`; it wins over the harness's own.
    pub(crate) fn sshd_option(mut self, line: &str) -> Self {
        self.sshd_options.push(line.to_owned());
        self
    }

    /// The type of the host key, as `ssh-keygen -t` knows it.
    pub(crate) fn host_key_type(mut self, name: &str) -> Self {
        name.clone_into(&mut self.host_key_type);
        self
    }

    /// Makes the host and waits until its sshd listens.
    pub(crate) fn start(self) -> RealHost {
        let files = tempfile::Builder::new().prefix("keyswap-host-").tempdir().expect("a temporary directory");
        let dir = files.path();
        keygen(&dir.join("identity"), "ed25519", "");
        keygen(&dir.join("host_key"), &self.host_key_type, "");
        std::fs::copy(dir.join("identity.pub"), dir.join("authorized_keys")).expect("copy the public key");
        let options: String = self.sshd_options.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(dir.join("sshd_options"), options).expect("write the options");

        // Somebody else may take the port between our look and sshd's bind: then another one will do.
        let mut last = String::new();
        for _ in 0..5 {
            let port = free_port();
            match boot(dir, port, &self.shell) {
                Ok((init, outer_pid)) => {
                    let host = RealHost { init, outer_pid, port, files };
                    let line = format!("[127.0.0.1]:{port} {}\n", host.host_key());
                    std::fs::write(host.known_hosts(), line).expect("write known_hosts");
                    return host;
                }
                Err(why) => last = why,
            }
        }
        panic!("no throw-away host could be started (tests/setup installs what it needs): {last}");
    }
}

impl Drop for RealHost {
    fn drop(&mut self) {
        end(&mut self.init);
    }
}

/// A port on 127.0.0.1 where nobody listens.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// Makes a key pair: `path` and `path.pub`.
pub(crate) fn keygen(path: &Path, kind: &str, passphrase: &str) {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-C", "test", "-t", kind, "-N", passphrase, "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .expect("ssh-keygen can be run");
    assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `program` with root's rights: as it is, or through `sudo -n`.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", "--", program]);
    command
}

fn boot(dir: &Path, port: u16, shell: &str) -> Result<(Child, u32), String> {
    let mut child = as_root("unshare")
        .args(["--mount", "--pid", "--uts", "--fork", "--kill-child", "/bin/sh", "-c", INIT, "init"])
        .arg(dir)
        .args([&port.to_string(), shell])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("unshare cannot be run: {e}"))?;
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines().map_while(Result::ok);
    let pid = lines.next().unwrap_or_default().parse();
    let said = lines.next().unwrap_or_default();
    match pid {
        Ok(pid) if said == "ready" => Ok((child, pid)),
        _ => {
            let stderr = child.stderr.take();
            end(&mut child);
            let mut why = said;
            if let Some(mut stderr) = stderr {
                let _ = stderr.read_to_string(&mut why);
            }
            Err(why)
        }
    }
}

/// Ends a host: its process 1 leaves when its input ends, and takes everything with it.
fn end(init: &mut Child) {
    drop(init.stdin.take());
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if matches!(init.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = init.kill();
    let _ = init.wait();
}
