//! The playbook after it was read and, for one host, rendered: typed steps with every `{{ … }}` filled in.

use std::fmt;
use std::time::Duration;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::RemotePath;

/// The name of a `[secrets.NAME]` table.
pub type SecretName = String;

/// Where a secret's value comes from. It is read when it is needed and never written anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum SecretSource {
    /// Asked on the terminal, without echo, twice.
    Prompt,
    /// A file that only its owner can read.
    File {
        /// The file.
        path: Utf8PathBuf,
    },
    /// A variable of keyswap's own environment.
    Env {
        /// The variable's name.
        name: String,
    },
    /// The standard output of a program.
    Command {
        /// The program and its arguments; no shell.
        argv: Vec<String>,
    },
    /// Minted by Infisical for an identity.
    Infisical {
        /// The identity's file.
        identity: Utf8PathBuf,
    },
}

/// How a run is staged over its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Sizes of the batches; the last one repeats.
    pub batches: Vec<BatchSize>,
    /// How many failed hosts the whole run bears; one more stops it.
    pub max_failures: u32,
    /// What is rolled back once the budget is exceeded.
    pub on_failure: OnFailure,
    /// Rest between batches.
    pub pause: Duration,
    /// The host puts itself back if the controller is silent this long; `None` turns the guard off.
    pub guard: Option<Duration>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            batches: vec![BatchSize::Percent(100)],
            max_failures: 0,
            on_failure: OnFailure::RollbackBatch,
            pause: Duration::ZERO,
            guard: Some(Duration::from_secs(120)),
        }
    }
}

/// The size of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchSize {
    /// That many hosts.
    Count(u32),
    /// Percent of all selected hosts, rounded down, at least one host.
    Percent(u32),
}

/// The scope of the rollback when a rollout stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Only the hosts that failed.
    RollbackHost,
    /// Every touched host of the batch.
    RollbackBatch,
    /// Every touched host of the run.
    RollbackAll,
    /// Nothing: the old credential must not come back.
    Hold,
}

/// One step for one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its place in the playbook, counted from 1, and its name.
    #[serde(flatten)]
    pub id: StepRef,
    /// Whether it runs on each host or once for a batch or the run.
    pub once: Once,
    /// `false` when its `when` said no for this host: it is shown as skipped.
    pub enabled: bool,
    /// How often it is tried again after a failure that left nothing behind.
    pub retries: u32,
    /// The step's own limit.
    pub timeout: Option<Duration>,
    /// What it does.
    pub action: Action,
}

/// A step's place and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StepRef {
    /// Counted from 1.
    pub index: u32,
    /// As the playbook names it.
    pub name: String,
}

impl fmt::Display for StepRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.index, self.name)
    }
}

/// How often a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Once {
    /// On every host.
    #[default]
    Host,
    /// Once for a batch, when all its hosts have come so far.
    Batch,
    /// Once for the run.
    Run,
}

/// What a step does. The names are the playbook's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Keep a named copy of a credential file on the host.
    Backup(Backup),
    /// Put a secret into a file.
    Place(Place),
    /// Set one key of an environment file.
    Point(Point),
    /// Restart the runner and look at its process.
    Restart(Restart),
    /// Put the newest backup that differs back in place.
    Restore(Restore),
    /// Dispatch a workflow and wait for its success.
    VerifyPublish(VerifyPublish),
    /// Run a command.
    Command(Command),
    /// Wait for a condition.
    Wait(Wait),
    /// Ask an HTTP server.
    Http(Http),
    /// Show that a secret reads these keys and nothing else.
    Prove(Prove),
    /// Show that names are absent from the forge's secrets.
    AssertNotStored(AssertNotStored),
    /// Wait for a person.
    Approve(Approve),
}

impl Action {
    /// Whether it leaves nothing behind when it fails, so that it may be tried again.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Command(command) => command.undo.is_none(),
            Self::Wait(wait) => !matches!(wait.until, WaitFor::Time(_)),
            Self::Http(_) | Self::Prove(_) | Self::AssertNotStored(_) => true,
            _ => false,
        }
    }

    /// Whether a step's own `timeout` can cut it short.
    #[must_use]
    pub fn takes_a_limit(&self) -> bool {
        match self {
            Self::Wait(wait) => !matches!(wait.until, WaitFor::Time(_)),
            Self::Command(_) | Self::Approve(_) | Self::Restart(_) | Self::Http(_) | Self::VerifyPublish(_) => true,
            _ => false,
        }
    }

    /// The action's key in a playbook.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Backup(_) => "backup",
            Self::Place(_) => "place",
            Self::Point(_) => "point",
            Self::Restart(_) => "restart",
            Self::Restore(_) => "restore",
            Self::VerifyPublish(_) => "verify-publish",
            Self::Command(_) => "command",
            Self::Wait(_) => "wait",
            Self::Http(_) => "http",
            Self::Prove(_) => "prove",
            Self::AssertNotStored(_) => "assert-not-stored",
            Self::Approve(_) => "approve",
        }
    }

    /// The keys of all actions, for messages.
    pub const KEYS: &'static [&'static str] = &[
        "backup",
        "place",
        "point",
        "restart",
        "restore",
        "verify-publish",
        "command",
        "wait",
        "http",
        "prove",
        "assert-not-stored",
        "approve",
    ];
}

/// `backup = { path = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The file to keep.
    pub path: RemotePath,
}

/// `restore = { path = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The file to put back.
    pub path: RemotePath,
}

/// `place = { secret, path, mode, owner, group, newline }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which `[secrets.NAME]`.
    pub secret: SecretName,
    /// The file.
    pub path: RemotePath,
    /// Permission bits; `0600` by default; nothing that group or others could use is accepted.
    pub mode: u32,
    /// User name or number; `None` keeps the owner of the file that is there, else the login's root or user.
    pub owner: Option<String>,
    /// Group name or number.
    pub group: Option<String>,
    /// Whether a line end is written after the value.
    pub newline: bool,
}

/// `point = { file, key, value, reaches, remove, format }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The environment file or systemd drop-in.
    pub file: RemotePath,
    /// The variable.
    pub key: String,
    /// Its value: a path, never a secret. It needs no quoting in any of the formats.
    pub value: String,
    /// Where the pointer must be seen.
    pub reaches: Reaches,
    /// Variables that would outrank the pointer and are taken out.
    pub remove: Vec<String>,
    /// How the file is written.
    pub format: EnvFormat,
}

/// Where a pointer must be seen after the restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reaches {
    /// In the running process's own environment.
    #[default]
    Daemon,
    /// In the jobs only: the file is read for them, and the publish run is the check.
    Jobs,
}

/// How an environment file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnvFormat {
    /// `KEY=value` lines: docker's `--env-file`, compose's `env_file`, a runner's `.env`, systemd's `EnvironmentFile`.
    Dotenv,
    /// A systemd drop-in with `Environment=` lines under `[Service]`.
    SystemdDropin,
}

/// `restart = { … }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// By which service manager.
    pub how: RestartHow,
    /// How long the new process must live before it counts as up.
    pub healthy: Duration,
    /// The limit for the restart itself.
    pub timeout: Duration,
    /// Whether running jobs are waited for.
    pub drain: Drain,
    /// The limit for that wait.
    pub drain_timeout: Duration,
}

/// Which service manager restarts the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestartHow {
    /// `restart = { systemd = "UNIT" }`.
    Systemd {
        /// The unit, with or without `.service`.
        unit: String,
    },
    /// `restart = { docker = "NAME" }`: a plain restart, which does not read an env file again.
    Docker {
        /// The container.
        container: String,
    },
    /// `restart = { compose = "FILE", service = "NAME" }`: the container is created anew.
    Compose {
        /// The compose file.
        file: RemotePath,
        /// The service in it.
        service: String,
    },
    /// `restart = { command = "…" }`.
    Command {
        /// Restarts the runner.
        command: String,
        /// Exits 0 when the runner is up.
        check: Option<String>,
        /// Holds the runner's process id.
        pid_file: Option<RemotePath>,
    },
}

/// What happens to running jobs at a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drain {
    /// Wait until the runner is idle.
    #[default]
    Wait,
    /// Restart at once.
    Off,
}

/// `verify-publish = { repo, workflow, ref, image, timeout }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyPublish {
    /// `owner/name`.
    pub repo: String,
    /// The workflow's file name.
    pub workflow: String,
    /// The branch.
    #[serde(rename = "ref")]
    pub git_ref: String,
    /// `owner/name:tag` that the run pushes.
    pub image: Option<String>,
    /// The limit for the whole verification.
    pub timeout: Duration,
    /// Inputs of the dispatch.
    #[serde(default)]
    pub inputs: std::collections::BTreeMap<String, String>,
    /// On which runner it must have run to count.
    #[serde(default)]
    pub on: PublishOn,
    /// The host's runner by the name that the forge knows.
    #[serde(default)]
    pub runner: Option<String>,
    /// The job that must have run there; `None`: all of them.
    #[serde(default)]
    pub job: Option<String>,
    /// The runner's own log on the host; `None`: the service manager's.
    #[serde(default)]
    pub runner_log: Option<RemotePath>,
    /// The account that must have pushed the image: another one means that a fallback credential was used.
    #[serde(default)]
    pub pushed_by: Option<String>,
}

/// On which runner a verification must have run to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublishOn {
    /// On any; where it ran is said if it can be told.
    #[default]
    Any,
    /// On the runner of a host of this batch. What cannot be told does not count.
    ThisRunner,
}

/// A command line: either for the target's `sh`, or words that no shell sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandLine {
    /// For `sh -c`; each `{{ … }}` in it was inserted as one quoted word.
    Shell(String),
    /// Program and arguments.
    Argv(Vec<String>),
}

/// `command = { run | argv, undo | changes = false }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// What to run.
    pub run: CommandLine,
    /// How to take it back. `None` only where it changes nothing.
    pub undo: Option<CommandLine>,
}

/// `wait = { for | path | port | until, timeout }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The condition.
    pub until: WaitFor,
    /// How long to wait for it.
    pub timeout: Duration,
}

/// What a `wait` step waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitFor {
    /// Time to pass.
    Time(Duration),
    /// A file to be there.
    Path(RemotePath),
    /// A TCP port to accept connections on the host's loopback address.
    Port(u16),
    /// A command to exit 0.
    Command(String),
}

/// `http = { url, … }`, asked by the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// The address; plain `http` only to loopback.
    pub url: String,
    /// The status that counts as success.
    pub status: u16,
    /// Text that the body must hold.
    pub contains: Option<String>,
    /// The limit for one request.
    pub timeout: Duration,
}

/// `prove = { secret = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prove {
    /// Which `[secrets.NAME]`.
    pub secret: SecretName,
    /// The file of the identity that the secret is to be for, where it is not minted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Utf8PathBuf>,
}

/// `assert-not-stored = { repo, names }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssertNotStored {
    /// `owner/name`.
    pub repo: String,
    /// Names that must be absent.
    pub names: Vec<String>,
}

/// `approve = { message = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approve {
    /// What the person is asked.
    pub message: String,
}
