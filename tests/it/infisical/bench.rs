//! Throw-away hosts, a stand-in Infisical with a story, and the real program against both.

use std::path::{Path, PathBuf};
use std::process::Command;

use keyswap::journal::{RunState, Store};
use keyswap::model::{Fingerprint, Service};
use keyswap::sandbox::infisical::{Clock, StandIn, Story, World};
use keyswap::sandbox::{BreakRestart, HostFacts, InfisicalAccess, Sandbox, SandboxHost, SandboxOptions};
use keyswap::service::infisical::{Death, Infisical, InfisicalConfig, Login};
use secrecy::SecretString;

use crate::support::runner_host::Said;

/// Hosts whose runners all hold the instance admin's token, and the server that it is for.
pub(super) struct Bench {
    pub(super) stand_in: StandIn,
    pub(super) story: Story,
    sandbox: Option<Sandbox>,
    runtime: tokio::runtime::Runtime,
    /// The real permission cache is waited for, and no answer is hurried.
    pub(super) patient: bool,
}

/// The identity of the sandbox's file.
pub(super) const IDENTITY: &str = "forgejo-docker-publish";

impl Bench {
    pub(super) fn start(hosts: usize, broken: &[(usize, BreakRestart)]) -> Self {
        Self::with(hosts, SandboxOptions { break_restart: broken.iter().copied().collect(), ..Default::default() })
    }

    fn with(hosts: usize, options: SandboxOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut world = World::new(Clock::real());
        let story = world.tell();
        let stand_in = runtime.block_on(StandIn::start(world)).unwrap();
        let options = SandboxOptions {
            infisical: Some(InfisicalAccess {
                url: stand_in.url(),
                client_id: story.client_id.clone(),
                client_secret: SecretString::from(story.client_secret.clone()),
                shared_token: SecretString::from(story.admin_token.clone()),
            }),
            ..options
        };
        let sandbox = runtime.block_on(Sandbox::start(hosts, options)).unwrap();
        Self { stand_in, story, sandbox: Some(sandbox), runtime, patient: false }
    }

    /// The same with the identity made as its file says, without the program's help.
    pub(super) fn with_identity(hosts: usize, broken: &[(usize, BreakRestart)]) -> Self {
        Self::start(hosts, broken).identified()
    }

    /// With an identity, on hosts through which nobody reaches anything else.
    pub(super) fn without_forwarding() -> Self {
        Self::with(1, SandboxOptions { without_forwarding: true, ..SandboxOptions::default() }).identified()
    }

    fn identified(self) -> Self {
        let bench = self;
        {
            let mut world = bench.stand_in.world();
            let (org, project) = (bench.story.org.clone(), bench.story.project.clone());
            let identity = world.add_identity(&org, Some(&project), IDENTITY);
            world.add_member(&project, &identity, &["no-access"]);
            world.attach_token_auth(&identity, 7_776_000);
            world.add_privilege(&project, &identity, "keyswap-read", &serde_json::json!([World::narrow_rule()]));
        }
        bench
    }

    fn sandbox(&self) -> &Sandbox {
        self.sandbox.as_ref().unwrap()
    }

    pub(super) fn dir(&self) -> &Path {
        self.sandbox().dir()
    }

    pub(super) fn hosts(&self) -> &[SandboxHost] {
        self.sandbox().hosts()
    }

    pub(super) fn facts(&self, number: usize) -> HostFacts {
        self.sandbox().facts(&self.hosts()[number - 1])
    }

    pub(super) fn shared(&self) -> &Fingerprint {
        self.sandbox().old_token()
    }

    pub(super) fn playbook(&self) -> PathBuf {
        self.sandbox().minted_playbook()
    }

    /// The playbook, changed; it lies beside the other one.
    pub(super) fn playbook_with(&self, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::write(&path, change(std::fs::read_to_string(self.playbook()).unwrap())).unwrap();
        path
    }

    pub(super) fn command(&self) -> Command {
        self.command_of("controller")
    }

    /// As an operator with another state directory would type it.
    pub(super) fn command_of(&self, state: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyswap"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.dir()).env("USER", "ops");
        command.stdin(std::process::Stdio::null()).current_dir(self.dir());
        if !self.patient {
            command.env("KEYSWAP_TEST_HURRY", "1");
        }
        let state = self.dir().join(state);
        command.args(["--output", "jsonl", "--state-dir", state.to_str().unwrap()]);
        command
    }

    /// Runs the program to its end.
    pub(super) fn say(&self, args: &[&str]) -> Said {
        Said::of(&mut self.command(), args)
    }

    pub(super) fn run(&self, playbook: &Path, more: &[&str]) -> Said {
        let mut args = vec!["run", playbook.to_str().unwrap(), "-i", "inventory.toml", "--yes"];
        args.extend(more);
        self.say(&args)
    }

    /// Waits for the requests that take effect after their connection has gone.
    pub(super) fn until_nothing_is_late(&self) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while self.stand_in.late() > 0 {
            assert!(std::time::Instant::now() < end, "a late request never ends");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Settles a run that owes something, as often as it says that it still does: what may come to life late is waited for.
    pub(super) fn pay(&self, args: &[&str]) -> Said {
        let mut paid = self.say(args);
        for _ in 0..60 {
            if paid.code != Some(3) {
                break;
            }
            paid = self.say(args);
        }
        paid
    }

    /// Applies the identity's file.
    pub(super) fn apply(&self, more: &[&str]) -> Said {
        let mut args = vec!["identity", "apply", "identity.toml", "-i", "inventory.toml"];
        args.extend(more);
        self.say(&args)
    }

    /// A run's journal, folded; the latest one's.
    pub(super) fn state(&self) -> RunState {
        let store = Store::open(&self.dir().join("controller")).unwrap();
        store.state(&store.find(None).unwrap()).unwrap()
    }

    /// Tokens of the narrow identity that still open something, by name.
    pub(super) fn alive(&self) -> Vec<String> {
        let world = self.stand_in.world();
        let narrow = |id: &str| world.identities.iter().any(|identity| identity.id == id && identity.name == IDENTITY);
        let living = world.living().into_iter().filter(|token| narrow(&token.identity));
        living.map(|token| token.name.clone().unwrap_or_default()).collect()
    }

    /// Whether the server takes a token.
    pub(super) fn opens(&self, token: &str) -> bool {
        let service =
            Service { url: self.stand_in.url(), ca_file: None, token: None, client_id: None, client_secret: None };
        let token = SecretString::from(token);
        let client = Infisical::new(&service, Login::Token(token.clone()), InfisicalConfig::default()).unwrap();
        self.runtime.block_on(client.death(&token)).unwrap() == Death::Alive
    }

    /// Files on a host that hold this token, from the host's directory.
    pub(super) fn holders(&self, number: usize, token: &str) -> Vec<String> {
        let dir = self.hosts()[number - 1].dir();
        let mut found = Vec::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(next) = dirs.pop() {
            for entry in std::fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
                if kind.is_dir() {
                    dirs.push(path);
                } else if kind.is_file() {
                    let text = std::fs::read(&path).unwrap_or_default();
                    if text.windows(token.len()).any(|window| window == token.as_bytes()) {
                        found.push(path.strip_prefix(dir).unwrap().to_string_lossy().into_owned());
                    }
                }
            }
        }
        found.sort();
        found
    }

    /// What a host's token file holds.
    pub(super) fn token(&self, number: usize) -> String {
        let dir = self.hosts()[number - 1].dir();
        std::fs::read_to_string(dir.join("data/infisical-token-auth-token")).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            let stopped = self.runtime.block_on(sandbox.stop());
            if !std::thread::panicking() {
                stopped.unwrap();
            }
        }
    }
}

/// A playbook's text up to its restart. No process shows the pointer then, and none is asked for it.
pub(super) fn without_restart(text: &str) -> String {
    let (steps, _) = text.split_once("\n[[steps]]\nname    = \"Restart").unwrap();
    let steps = steps.replace("reaches = \"daemon\"", "reaches = \"jobs\"");
    if steps.contains("reaches = ") { steps } else { steps.replace("point = { ", "point = { reaches = \"jobs\", ") }
}
