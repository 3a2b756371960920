//! Throw-away hosts with runners, the program that works on them, and what stands on them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use keyswap::sandbox::forge::{Ending, Outcome, Setup, StandIn, Version};
use keyswap::sandbox::{BreakRestart, ForgeAccess, HostFacts, RunnerFiles, Sandbox, SandboxHost, SandboxOptions};

use crate::support::runner_host::{AtWork, Said};

/// Hosts as they were, and a controller.
pub(crate) struct Fleet {
    // The hosts live on the runtime: they go first.
    sandbox: Option<Sandbox>,
    runtime: tokio::runtime::Runtime,
    /// What stood on each host before anything was done.
    pub(crate) before: Vec<HostFacts>,
}

/// A host seen from outside, compared with what stood there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    /// Never touched: files, runner process, and no state of keyswap's.
    Untouched,
    /// Files and pointer as before, the runner up on the old token.
    Old,
    /// Files and pointer new, the runner up on the new token.
    New,
    /// Files and pointer new, no runner.
    NewAndDown,
}

impl Stand {
    fn of(letter: char) -> Self {
        match letter {
            'U' => Self::Untouched,
            'O' => Self::Old,
            'N' => Self::New,
            'D' => Self::NewAndDown,
            _ => panic!("{letter}: no such stand"),
        }
    }
}

impl Fleet {
    /// So many hosts; those in `broken` have a runner that does not come up with another token.
    pub(crate) fn start(hosts: usize, broken: &[usize]) -> Self {
        let break_restart: BTreeMap<_, _> = broken.iter().map(|number| (*number, BreakRestart::AtOnce)).collect();
        Self::on(Self::runtime(), hosts, SandboxOptions { break_restart, ..SandboxOptions::default() })
    }

    /// With a forge whose runs succeed.
    pub(crate) fn with_forge(hosts: usize) -> (Self, StandIn) {
        let runtime = Self::runtime();
        let setup = Setup::new(Version::Forgejo(15), "test-token-forge-fleet");
        let soon = |_: &_| Outcome::new(Ending::Success).after(Duration::from_millis(50));
        let forge = runtime.block_on(StandIn::start(setup, soon)).unwrap();
        let access = ForgeAccess {
            url: forge.url(),
            token: "test-token-forge-fleet".into(),
            repo: "owner/repo".to_owned(),
            workflow: "docker-publish.yml".to_owned(),
            git_ref: "main".to_owned(),
            image: None,
        };
        (Self::on(runtime, hosts, SandboxOptions { forge: Some(access), ..SandboxOptions::default() }), forge)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    fn on(runtime: tokio::runtime::Runtime, hosts: usize, options: SandboxOptions) -> Self {
        let sandbox = runtime.block_on(Sandbox::start(hosts, options)).unwrap();
        let before = sandbox.hosts().iter().map(|host| sandbox.facts(host)).collect();
        Self { sandbox: Some(sandbox), runtime, before }
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        self.sandbox.as_ref().expect("it is up")
    }

    /// A host by its number, counted from 1.
    pub(crate) fn host(&self, number: usize) -> &SandboxHost {
        &self.sandbox().hosts()[number - 1]
    }

    pub(crate) fn files(&self, number: usize) -> RunnerFiles {
        RunnerFiles::of(self.host(number).dir())
    }

    /// A file in a host's directory.
    pub(crate) fn path(&self, number: usize, name: &str) -> PathBuf {
        self.host(number).dir().join(name)
    }

    /// Takes a host off the network, or puts it back.
    pub(crate) fn reachable(&self, number: usize, reachable: bool) {
        let _in = self.runtime.enter();
        self.host(number).set_reachable(reachable);
    }

    /// The program with what an operator's shell gives it.
    pub(crate) fn keyswap(&self, output: &str) -> Command {
        self.keyswap_of("controller", output)
    }

    /// The same for an operator with another state directory.
    pub(crate) fn keyswap_of(&self, state: &str, output: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyswap"));
        let home = self.sandbox().dir();
        command.env_clear().env("HOME", home).env("USER", "operator").env("PATH", "/usr/bin:/bin").current_dir(home);
        command.args(["--output", output, "--state-dir", state]).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn say(&self, args: &[&str]) -> Said {
        Said::of(&mut self.keyswap("jsonl"), args)
    }

    /// Starts the program.
    pub(super) fn at_work(&self, args: &[&str]) -> AtWork {
        AtWork::start(&mut self.keyswap("jsonl"), args)
    }

    /// Writes a playbook and starts it.
    pub(crate) fn begin(&self, playbook: &Playbook, args: &[&str]) -> AtWork {
        self.write(playbook);
        let mut all = vec!["run", "fleet.toml", "-i", "inventory.toml", "--yes"];
        all.extend(args);
        AtWork::start(&mut self.keyswap("jsonl"), &all)
    }

    /// Writes a playbook and runs it to its end.
    pub(crate) fn run(&self, playbook: &Playbook, args: &[&str]) -> Said {
        self.begin(playbook, args).end()
    }

    pub(crate) fn write(&self, playbook: &Playbook) {
        fs::write(self.sandbox().dir().join("fleet.toml"), playbook.text(self.sandbox())).unwrap();
        fs::set_permissions(self.sandbox().dir().join("new-token"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// How a host stands, by its files and its runner.
    pub(crate) fn stand(&self, number: usize) -> Result<Stand, String> {
        let (before, now) = (&self.before[number - 1], self.sandbox().facts(self.host(number)));
        if *before == now && !self.path(number, "state").exists() {
            return Ok(Stand::Untouched);
        }
        let files = |facts: &HostFacts| (facts.token.clone(), facts.mode, facts.env_line.clone());
        let (old, new) = (self.sandbox().old_token(), self.sandbox().new_token());
        let runs_on = |facts: &HostFacts| {
            let runner = facts.runner.as_ref();
            runner.map(|runner| (runner.pointer.clone(), runner.token.clone()))
        };
        if files(before) == files(&now) && runs_on(before) == runs_on(&now) {
            assert_eq!(now.pointed_at.as_ref(), Some(old));
            return Ok(Stand::Old);
        }
        let pointer = self.files(number).token().display().to_string();
        let wanted = (Some(new.clone()), Some(0o600), Some(format!("INFISICAL_TOKEN_AUTH_FILE={pointer}")));
        match runs_on(&now) {
            _ if files(&now) != wanted => Err(format!("neither old nor new: {now:?}")),
            None => Ok(Stand::NewAndDown),
            Some(on) if on == (Some(pointer), Some(new.clone())) => Ok(Stand::New),
            Some(on) => Err(format!("the files are new, the runner is on {on:?}")),
        }
    }

    /// Every host stands as its letter says: `U`ntouched, `O`ld, `N`ew, new and `D`own.
    #[track_caller]
    pub(crate) fn assert(&self, wanted: &str, said: &Said) {
        let stands: Vec<_> = (1..=self.before.len()).map(|number| self.stand(number)).collect();
        let wanted: Vec<_> = wanted.chars().filter(|c| *c != ' ').map(|letter| Ok(Stand::of(letter))).collect();
        assert_eq!(stands, wanted, "{}", said.all());
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            let stopped = self.runtime.block_on(sandbox.stop());
            if !std::thread::panicking() {
                stopped.unwrap();
            }
        }
    }
}

/// The status words of all hosts in the last line, joined by blanks.
pub(crate) fn words(said: &Said) -> String {
    let hosts = said.last()["hosts"].as_array().unwrap();
    hosts.iter().map(|host| host["status"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

/// One host's end state in the last line.
pub(crate) fn result(said: &Said, number: usize) -> &serde_json::Value {
    let name = format!("runner-{number}");
    let hosts = said.last()["hosts"].as_array().unwrap();
    hosts.iter().find(|host| host["host"] == name.as_str()).unwrap_or_else(|| panic!("{name}: {}", said.all()))
}

/// The rotation, to be changed by a test.
#[derive(Debug, Clone)]
pub(crate) struct Playbook {
    /// Keys of `[rollout]`.
    pub(crate) rollout: String,
    /// Steps before all others.
    pub(crate) first: String,
    /// Steps after the backup and before the token is placed.
    pub(crate) early: String,
    /// Steps after the restart.
    pub(crate) late: String,
}

impl Playbook {
    /// Canary, a quarter, the rest.
    pub(crate) fn new(rollout: &str) -> Self {
        let rollout = format!("batches = [1, \"25%\", \"100%\"]\nguard = \"off\"\n{rollout}");
        Self { rollout, first: String::new(), early: String::new(), late: String::new() }
    }

    fn text(&self, sandbox: &Sandbox) -> String {
        let Self { rollout, first, early, late } = self;
        let token = sandbox.dir().join("new-token");
        format!(
            r#"name = "Rotate"
hosts = "docker-publish"
[vars]
token_file = "{{{{ home }}}}/data/infisical-token-auth-token"
[secrets.token]
from = "file"
path = "{token}"
[rollout]
{rollout}
{first}
[[steps]]
name = "backup"
backup = {{ path = "{{{{ token_file }}}}" }}
{early}
[[steps]]
name = "place"
place = {{ secret = "token", path = "{{{{ token_file }}}}", mode = "0600" }}
[[steps]]
name = "point"
point = {{ file = "{{{{ home }}}}/runner.env", key = "INFISICAL_TOKEN_AUTH_FILE", value = "{{{{ token_file }}}}" }}
[[steps]]
name = "restart"
restart = {{ command = "sh {{{{ home }}}}/runnerctl restart", check = "sh {{{{ home }}}}/runnerctl status", pid_file = "{{{{ home }}}}/runner.pid", healthy = "200ms", timeout = "30s", drain = "off" }}
{late}
"#,
            token = token.display(),
        )
    }
}
