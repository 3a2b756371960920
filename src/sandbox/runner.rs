//! The stand-in runner of a host: its files, its start, and what can be seen of it from outside.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use secrecy::{ExposeSecret, SecretString};

use super::hosts::{SandboxHost, write_private};
use super::{SandboxError, reap};
use crate::model::Fingerprint;

const RUNNER: &str = include_str!("runner.sh");
const RUNNERCTL: &str = include_str!("runnerctl.sh");
/// The variable that tells a runner where its token lies.
pub const POINTER: &str = "INFISICAL_TOKEN_AUTH_FILE";
/// Of what a failing program says, this much is shown.
const SAID: usize = 500;

/// How a runner refuses every credential but the one it has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakRestart {
    /// It does not come up.
    AtOnce,
    /// It comes up and dies after that many seconds.
    After(u32),
}

/// Where a runner's pointer leads before any rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OldPointer {
    /// To a file of another name with the same old token: a rotation changes the file, the pointer and the process.
    #[default]
    OtherFile,
    /// To the very file that a rotation replaces: the env file stays as it is.
    SameFile,
}

/// The paths of a runner in its host's directory.
#[derive(Debug, Clone)]
pub struct RunnerFiles {
    dir: PathBuf,
}

impl RunnerFiles {
    /// Those of the host that lives in `dir`.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The token file that a rotation replaces.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.dir.join("data/infisical-token-auth-token")
    }

    /// Where the pointer leads at first, with [`OldPointer::OtherFile`].
    #[must_use]
    pub fn old_token(&self) -> PathBuf {
        self.dir.join("data/shared-token")
    }

    /// The environment file.
    #[must_use]
    pub fn env_file(&self) -> PathBuf {
        self.dir.join("runner.env")
    }

    /// `start`, `stop`, `restart`, `status`; for `sh`.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.dir.join("runnerctl")
    }

    /// Holds the runner's process id.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.dir.join("runner.pid")
    }

    /// Where the running runner tells its process id and its token's fingerprint.
    #[must_use]
    pub fn status(&self) -> PathBuf {
        self.dir.join("runner.status")
    }

    /// The runner's output.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("runner.log")
    }

    /// Lays a runner with this token into the host's directory; it is not started. With an `owner` (process id and
    /// start time) it ends by itself when that process is gone.
    pub(super) fn install(
        &self,
        token: &SecretString,
        pointer: OldPointer,
        break_restart: Option<BreakRestart>,
        owner: Option<&str>,
    ) -> Result<(), SandboxError> {
        let data = self.dir.join("data");
        fs::DirBuilder::new().mode(0o700).create(&data).map_err(SandboxError::io("make", &data))?;
        write_private(&self.token(), token.expose_secret().as_bytes())?;
        let leads_to = match pointer {
            OldPointer::SameFile => self.token(),
            OldPointer::OtherFile => {
                write_private(&self.old_token(), token.expose_secret().as_bytes())?;
                self.old_token()
            }
        };
        let env = format!(
            "# Environment of the runner, read once, at its start.\nRUNNER_CAPACITY=1\n{POINTER}={}\nTZ=UTC\n",
            leads_to.display()
        );
        write_private(&self.env_file(), env.as_bytes())?;
        write_private(&self.dir.join("runner.sh"), RUNNER.as_bytes())?;
        write_private(&self.control(), RUNNERCTL.as_bytes())?;
        if let Some(owner) = owner {
            write_private(&self.dir.join("owner"), owner.as_bytes())?;
        }
        if let Some(how) = break_restart {
            let seconds = match how {
                BreakRestart::AtOnce => 0,
                BreakRestart::After(seconds) => seconds,
            };
            let pinned = Fingerprint::of(token.expose_secret().as_bytes());
            write_private(&self.dir.join("pinned"), format!("sha256:{} {seconds}\n", pinned.hex()).as_bytes())?;
        }
        Ok(())
    }
}

/// Starts a host's runner as its service manager would.
pub(super) async fn start(host: &SandboxHost) -> Result<(), SandboxError> {
    let files = RunnerFiles::of(host.dir());
    let output = host
        .place()
        .command()
        .arg(files.control())
        .arg("start")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(SandboxError::io("start", &files.control()))?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).trim_end().chars().take(SAID).collect();
    Err(SandboxError::Runner { host: host.name().to_string(), said })
}

/// What stands on a host, seen from outside with plain file access: nothing here asks the host or its runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Fingerprint of the token file that a rotation replaces; `None`: no such file.
    pub token: Option<Fingerprint>,
    /// Its permission bits.
    pub mode: Option<u32>,
    /// The pointer's line in the env file.
    pub env_line: Option<String>,
    /// Fingerprint of the file that the env file's pointer names: what the next start would get.
    pub pointed_at: Option<Fingerprint>,
    /// The runner, if it runs.
    pub runner: Option<RunnerFacts>,
}

/// A running runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerFacts {
    /// From its pid file; the process was looked at.
    pub pid: i32,
    /// When it started, in clock ticks since boot: another start has another number.
    pub started: u64,
    /// The pointer in the process's own environment.
    pub pointer: Option<String>,
    /// Fingerprint of the token that it read at its start, as it says itself.
    pub token: Option<Fingerprint>,
}

impl HostFacts {
    /// Looks at the host in `dir`. What cannot be read is `None`.
    #[must_use]
    pub fn read(dir: &Path) -> Self {
        let files = RunnerFiles::of(dir);
        let env_line = fs::read_to_string(files.env_file()).ok().and_then(|text| {
            let prefix = format!("{POINTER}=");
            text.lines().find(|line| line.starts_with(&prefix)).map(str::to_owned)
        });
        let pointed_at = env_line.as_deref().and_then(|line| line.split_once('=')).map(|(_, path)| Path::new(path));
        Self {
            token: fingerprint(&files.token()),
            mode: fs::metadata(files.token()).ok().map(|meta| meta.permissions().mode() & 0o7777),
            pointed_at: pointed_at.and_then(fingerprint),
            env_line,
            runner: RunnerFacts::read(dir),
        }
    }
}

impl RunnerFacts {
    fn read(dir: &Path) -> Option<Self> {
        let files = RunnerFiles::of(dir);
        let pid: i32 = fs::read_to_string(files.pid_file()).ok()?.trim().parse().ok()?;
        let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
        // A reused process id is somebody else.
        if reap::environ_value(&environ, "HOME")? != dir.as_os_str().as_encoded_bytes() {
            return None;
        }
        let pointer = reap::environ_value(&environ, POINTER).map(|value| String::from_utf8_lossy(value).into_owned());
        let status = fs::read_to_string(files.status()).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let token = match field("pid").and_then(|text| text.parse::<i32>().ok()) {
            Some(of) if of == pid => field("token").and_then(|text| text.parse().ok()),
            _ => None,
        };
        Some(Self { pid, started: start_ticks(pid)?, pointer, token })
    }
}

/// When a process started, in clock ticks since boot.
pub(super) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in parentheses, may hold anything; the start time is the 20th field after it.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn fingerprint(file: &Path) -> Option<Fingerprint> {
    fs::read(file).ok().map(|content| Fingerprint::of(&content))
}
