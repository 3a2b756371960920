//! Throw-away runner hosts and stand-in services for `demo`, `sandbox` and the tests.
//!
//! [`Sandbox::start`] gives a directory that holds all one needs to try keyswap without touching anything real:
//!
//! ```text
//! DIR/                     0700, removed at the end
//!   inventory.toml         the hosts, group `docker-publish`
//!   playbook.toml          the rotation in five steps (four without a forge)
//!   new-token              0600, the playbook's secret source
//!   playbook-minted.toml   with an Infisical: the same with a token that is minted for identity.toml, and proved
//!   id_ed25519             0600, opens every host
//!   known_hosts            one key per host
//!   hosts/runner-1/        HOME of everything that runs on that host
//!     data/                infisical-token-auth-token and shared-token, both with the old token, 0600
//!     runner.env           the pointer INFISICAL_TOKEN_AUTH_FILE, at first to data/shared-token
//!     runnerctl            start, stop, restart, status
//!     runner.pid, .status, .heartbeat, .log
//!     state/               keyswap's own, made by keyswap
//! ```
//!
//! Each host is a real SSH server in this process on a port of 127.0.0.1 which runs the real `sh` as the current user.
//! Each runner is a daemon of its own that reads the env file and the token at its start, and only then.
//!
//! Invariants:
//! - Nothing listens on anything but loopback, and only the sandbox's own key logs in.
//! - Nothing is left behind: [`Sandbox::stop`] ends every process whose `HOME` lies in the directory and removes the
//!   directory. Dropping does the same, with less patience. If the sandbox's process is killed, the runners notice
//!   and end within seconds; only the directory stays.
//! - No real secret is ever here: all tokens are made up on the spot.
//!
//! Linux only: processes are looked at through `/proc`.

mod error;
mod exec;
pub mod faults;
mod files;
pub mod forge;
pub mod hosts;
pub mod infisical;
mod link;
mod reap;
pub mod runner;
mod server;
pub mod story;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use futures_util::{StreamExt, TryStreamExt, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;

pub use error::SandboxError;
pub use hosts::{HostOptions, LoginKey, SandboxHost};
pub use runner::{BreakRestart, HostFacts, OldPointer, RunnerFacts, RunnerFiles};

use crate::model::{Fingerprint, HostName};
use hosts::write_private;

/// The group of all hosts in the inventory.
pub const GROUP: &str = "docker-publish";
/// How many runners are started at the same time.
const AT_ONCE: usize = 8;
/// How long ended runners have to clean up before they are killed.
const GRACE: Duration = Duration::from_secs(2);
/// Descriptors that a host needs at most while one client is there: both ends of the link, pipes, the listener.
const DESCRIPTORS: u64 = 10;

/// What a sandbox is to be like.
#[derive(Default)]
pub struct SandboxOptions {
    /// Where the sandbox's directory is made; `None`: where temporary files go.
    pub parent: Option<PathBuf>,
    /// What runs commands on the hosts; `None`: `/bin/sh`.
    pub shell: Option<PathBuf>,
    /// The stand-in forge that the playbook verifies with; `None`: the playbook has no such step.
    pub forge: Option<ForgeAccess>,
    /// The stand-in Infisical that mints for `playbook-minted.toml`; `None`: there is no such playbook.
    pub infisical: Option<InfisicalAccess>,
    /// Runners that do not bear a new token, by the host's number, counted from 1.
    pub break_restart: BTreeMap<usize, BreakRestart>,
    /// Where the runners' pointers lead at first.
    pub old_pointer: OldPointer,
    /// Hosts through which nobody reaches anything else.
    pub without_forwarding: bool,
    /// Whoever plays the forge's runner writes each task into `tasks.log` of the host that it ran on: then the playbook demands
    /// that the verification ran there.
    pub logs_tasks: bool,
    /// Hosts without runners: for measurements with very many of them.
    pub without_runners: bool,
}

/// How the inventory and the playbook reach a forge.
pub struct ForgeAccess {
    /// Base address; plain `http` is fine on loopback.
    pub url: String,
    /// The token for it, written to a file of its own in the sandbox.
    pub token: SecretString,
    /// `owner/name`.
    pub repo: String,
    /// The workflow's file name.
    pub workflow: String,
    /// The branch.
    pub git_ref: String,
    /// The image that the workflow publishes.
    pub image: Option<String>,
}

/// How the inventory reaches an Infisical, and what the runners hold of it at first.
pub struct InfisicalAccess {
    /// Base address; plain `http` is fine on loopback.
    pub url: String,
    /// The operator's client id.
    pub client_id: String,
    /// The operator's client secret, written to a file of its own in the sandbox.
    pub client_secret: SecretString,
    /// The shared token that every runner holds at first.
    pub shared_token: SecretString,
}

/// A running sandbox. See the module's documentation.
pub struct Sandbox {
    // The hosts come before the directory they live in.
    hosts: Vec<SandboxHost>,
    old: Fingerprint,
    new: Fingerprint,
    dir: Option<TempDir>,
    path: PathBuf,
}

impl Sandbox {
    /// Starts `n` hosts, `runner-1` to `runner-N`, with their runners. On an error nothing is left behind.
    ///
    /// Needs a tokio runtime, now and as long as the sandbox lives.
    pub async fn start(n: usize, options: SandboxOptions) -> Result<Self, SandboxError> {
        allow_descriptors(n);
        let mut builder = tempfile::Builder::new();
        builder.prefix("keyswap-sandbox-").permissions(fs::Permissions::from_mode(0o700));
        let made = match &options.parent {
            Some(parent) => builder.tempdir_in(parent).map_err(SandboxError::io("make a directory in", parent)),
            None => builder.tempdir().map_err(SandboxError::io("make", Path::new("a temporary directory"))),
        }?;
        let path = made.path().canonicalize().map_err(SandboxError::io("resolve", made.path()))?;

        let shared = options.infisical.as_ref().map(|infisical| infisical.shared_token.clone());
        let (old_token, new_token) = (shared.unwrap_or_else(|| made_up("shared")), made_up("new"));
        let mut sandbox = Self {
            hosts: Vec::with_capacity(n),
            old: Fingerprint::of(old_token.expose_secret().as_bytes()),
            new: Fingerprint::of(new_token.expose_secret().as_bytes()),
            dir: Some(made),
            path,
        };
        // From here on dropping `sandbox` takes down whatever is up already.
        sandbox.build(n, &options, &old_token, &new_token).await?;
        Ok(sandbox)
    }

    async fn build(
        &mut self,
        n: usize,
        options: &SandboxOptions,
        old_token: &SecretString,
        new_token: &SecretString,
    ) -> Result<(), SandboxError> {
        let identity_file = self.path.join("id_ed25519");
        let login = LoginKey::create(&identity_file)?;
        let me = std::process::id().try_into().unwrap_or_default();
        let owner = runner::start_ticks(me).map(|started| format!("{me} {started}\n"));
        for number in 1..=n {
            let mut host_options = HostOptions::new(login.clone());
            host_options.forwards = !options.without_forwarding;
            if let Some(shell) = &options.shell {
                host_options.shell.clone_from(shell);
            }
            let dir = self.path.join("hosts").join(format!("runner-{number}"));
            let host = SandboxHost::start(&dir, format!("runner-{number}").parse()?, host_options).await?;
            if !options.without_runners {
                let broken = options.break_restart.get(&number).copied();
                RunnerFiles::of(host.dir()).install(old_token, options.old_pointer, broken, owner.as_deref())?;
            }
            self.hosts.push(host);
        }
        self.write_files(options, new_token, &identity_file)?;
        if !options.without_runners {
            stream::iter(&self.hosts)
                .map(|host| Ok(runner::start(host)))
                .try_buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await?;
        }
        Ok(())
    }

    fn write_files(
        &self,
        options: &SandboxOptions,
        new_token: &SecretString,
        identity_file: &Path,
    ) -> Result<(), SandboxError> {
        let (known_hosts, new_file) = (self.path.join("known_hosts"), self.path.join("new-token"));
        let forge_token = self.path.join("forge-token");
        write_private(&new_file, new_token.expose_secret().as_bytes())?;
        if let Some(forge) = &options.forge {
            write_private(&forge_token, forge.token.expose_secret().as_bytes())?;
        }
        let client_secret = self.path.join("infisical-client-secret");
        if let Some(infisical) = &options.infisical {
            write_private(&client_secret, infisical.client_secret.expose_secret().as_bytes())?;
            write_private(&self.identity(), files::identity().as_bytes())?;
        }
        let lines: String = self.hosts.iter().map(|host| host.host_key_line() + "\n").collect();
        write_private(&known_hosts, lines.as_bytes())?;
        let names = files::Names {
            identity_file,
            known_hosts: &known_hosts,
            new_token: &new_file,
            forge_token: &forge_token,
            client_secret: &client_secret,
        };
        let servers = (options.forge.as_ref(), options.infisical.as_ref());
        let inventory = files::inventory(&self.hosts, &names, servers, &self.old);
        write_private(&self.inventory(), inventory.as_bytes())?;
        if options.infisical.is_some() {
            let minted = files::playbook(&names, options.forge.as_ref(), (true, options.logs_tasks));
            write_private(&self.minted_playbook(), minted.as_bytes())?;
        }
        write_private(
            &self.playbook(),
            files::playbook(&names, options.forge.as_ref(), (false, options.logs_tasks)).as_bytes(),
        )
    }

    /// The sandbox's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.path
    }

    /// The inventory's file.
    #[must_use]
    pub fn inventory(&self) -> PathBuf {
        self.path.join("inventory.toml")
    }

    /// The file of the playbook that rotates the token.
    #[must_use]
    pub fn playbook(&self) -> PathBuf {
        self.path.join("playbook.toml")
    }

    /// The file of the playbook whose token is minted and proved, if there is an Infisical.
    #[must_use]
    pub fn minted_playbook(&self) -> PathBuf {
        self.path.join("playbook-minted.toml")
    }

    /// The file of the identity that it is minted for.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.path.join("identity.toml")
    }

    /// The hosts, in order.
    #[must_use]
    pub fn hosts(&self) -> &[SandboxHost] {
        &self.hosts
    }

    /// A host by its name.
    #[must_use]
    pub fn host(&self, name: &HostName) -> Option<&SandboxHost> {
        self.hosts.iter().find(|host| host.name() == name)
    }

    /// The token that every host holds at first.
    #[must_use]
    pub fn old_token(&self) -> &Fingerprint {
        &self.old
    }

    /// The token that the playbook brings.
    #[must_use]
    pub fn new_token(&self) -> &Fingerprint {
        &self.new
    }

    /// What stands on a host, seen with plain file access.
    #[must_use]
    pub fn facts(&self, host: &SandboxHost) -> HostFacts {
        HostFacts::read(host.dir())
    }

    /// Takes everything down: the network, the processes, the directory. Bounded; on an error what could be taken
    /// down is.
    pub async fn stop(mut self) -> Result<(), SandboxError> {
        self.hosts.clear();
        let ended = hosts::end_processes(self.path.clone(), GRACE).await;
        let removed = match self.dir.take() {
            Some(dir) => remove(&dir.keep()).map_err(SandboxError::io("remove", &self.path)),
            None => Ok(()),
        };
        ended.and(removed)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.hosts.clear();
        if let Some(dir) = self.dir.take() {
            // The last resort blocks for an instant rather than leave daemons behind.
            let left = reap::end_all(&self.path, Duration::ZERO);
            if !left.is_empty() {
                tracing::warn!(pids = ?left, "processes of the sandbox did not end");
            }
            if let Err(error) = remove(&dir.keep()) {
                tracing::warn!(%error, "the sandbox's directory could not be removed");
            }
        }
    }
}

/// Removes a directory with all that is in it, also where somebody took write permission away.
fn remove(dir: &Path) -> io::Result<()> {
    fn unlock(dir: &Path) -> io::Result<()> {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // Of the entry itself: a link is never followed.
            if entry.file_type()?.is_dir() {
                unlock(&entry.path())?;
            }
        }
        Ok(())
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(dir)?;
            fs::remove_dir_all(dir)
        }
        done => done,
    }
}

/// A token that opens nothing, another one each time.
fn made_up(what: &str) -> SecretString {
    SecretString::from(format!("test-token-{what}-{}", uuid::Uuid::new_v4().simple()))
}

/// Lifts this process's soft limit of open files as far as very many hosts need it and the hard limit lets it.
fn allow_descriptors(hosts: usize) {
    let limit = getrlimit(Resource::Nofile);
    let needed = (hosts as u64).saturating_mul(DESCRIPTORS).saturating_add(256);
    if limit.current.is_some_and(|current| current < needed) {
        let current = Some(limit.maximum.map_or(needed, |maximum| maximum.min(needed)));
        // With fewer descriptors the sandbox is only slower to accept connections.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum: limit.maximum });
    }
}
