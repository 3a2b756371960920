//! Runs to be told of: a real one, and made-up ones in which everything happens.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use keyswap::journal::{Entry, Log, Record};
use keyswap::report::{Source, Story, page};
use keyswap::sandbox::forge::{self, Ending, Outcome, Setup, Version};
use keyswap::sandbox::infisical::{self, Clock, World};
use keyswap::sandbox::{BreakRestart, ForgeAccess, InfisicalAccess, Sandbox, SandboxOptions};
use keyswap::secret::Redactor;
use secrecy::SecretString;

use crate::support::real_host::keygen;
use crate::support::said::Said;

const FORGE_TOKEN: &str = "test-token-forge-report";
/// Entries as they stand in a journal, without the chain.
const MIXED: &str = include_str!("../../fixtures/report-mixed.jsonl");

/// Hosts, servers and a controller after a real run.
pub(super) struct Stage {
    tokens: Vec<String>,
    sandbox: Option<Sandbox>,
    _servers: (forge::StandIn, infisical::StandIn),
    runtime: tokio::runtime::Runtime,
}

impl Stage {
    /// Three hosts get a token that is minted and proved, by a plan that alice approved; the last one's runner does not
    /// come up with it, so that its batch goes back.
    pub(super) fn approved_run_with_one_that_fails() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut world = World::new(Clock::real());
        let story = world.tell();
        let issuer = runtime.block_on(infisical::StandIn::start(world)).unwrap();
        let soon = |_: &_| Outcome::new(Ending::Success).after(Duration::from_millis(50));
        let setup = Setup::new(Version::Forgejo(15), FORGE_TOKEN);
        let forge = runtime.block_on(forge::StandIn::start(setup, soon)).unwrap();
        let options = SandboxOptions {
            infisical: Some(InfisicalAccess {
                url: issuer.url(),
                client_id: story.client_id.clone(),
                client_secret: SecretString::from(story.client_secret.clone()),
                shared_token: SecretString::from(story.admin_token.clone()),
            }),
            forge: Some(ForgeAccess {
                url: forge.url(),
                token: FORGE_TOKEN.into(),
                repo: "owner/repo".to_owned(),
                workflow: "docker-publish.yml".to_owned(),
                git_ref: "main".to_owned(),
                image: None,
            }),
            break_restart: [(3, BreakRestart::AtOnce)].into_iter().collect(),
            ..SandboxOptions::default()
        };
        let sandbox = runtime.block_on(Sandbox::start(3, options)).unwrap();
        let tokens = vec![story.admin_token.clone(), story.client_secret.clone(), FORGE_TOKEN.to_owned()];
        let stage = Self { tokens, sandbox: Some(sandbox), _servers: (forge, issuer), runtime };

        let applied = stage.say(&["identity", "apply", "identity.toml", "-i", "inventory.toml", "--yes"]);
        assert_eq!(applied.code, Some(0), "{}", applied.all());
        keygen(&stage.path("alice"), "ed25519", "");
        let public = fs::read_to_string(stage.path("alice.pub")).unwrap();
        fs::write(stage.path("allowed"), format!("alice {public}")).unwrap();
        let inventory = fs::read_to_string(stage.path("inventory.toml")).unwrap();
        let policy = "[approval]\nrequired = 1\nallowed_signers = \"allowed\"\n";
        fs::write(stage.path("inventory.toml"), format!("{inventory}\n{policy}")).unwrap();
        for args in [
            &["plan", "playbook-minted.toml", "-i", "inventory.toml", "--out", "plan.json"][..],
            &["approve", "plan.json", "--signer", "alice", "--key", "alice", "--comment", "looks right"],
        ] {
            let said = stage.say(args);
            assert_eq!(said.code, Some(0), "{}", said.all());
        }
        let ran = stage.say(&["run", "--plan", "plan.json", "--yes"]);
        assert_eq!(ran.code, Some(2), "{}", ran.all());
        stage
    }

    pub(super) fn dir(&self) -> &Path {
        self.sandbox.as_ref().unwrap().dir()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Runs the program to its end, in the sandbox's directory.
    pub(super) fn say(&self, args: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyswap"));
        command.env_clear().env("HOME", self.dir()).env("USER", "operator").env("PATH", "/usr/bin:/bin");
        command.current_dir(self.dir()).args(["--output", "jsonl", "--state-dir", "controller"]);
        Said::of(command.stdin(Stdio::null()), args)
    }

    /// None of the scene's secrets stands in these files.
    #[track_caller]
    pub(super) fn no_token_in(&self, files: &[&str]) {
        let hosts = self.sandbox.as_ref().unwrap().hosts().iter();
        let held = hosts.map(|host| fs::read_to_string(host.dir().join("data/infisical-token-auth-token")).unwrap());
        let held: Vec<String> = held.map(|token| token.trim().to_owned()).collect();
        for file in files {
            let text = fs::read_to_string(self.path(file)).unwrap();
            for token in self.tokens.iter().chain(&held) {
                assert!(!token.is_empty() && !text.contains(token), "{file} holds a token");
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            let stopped = self.runtime.block_on(sandbox.stop());
            if !std::thread::panicking() {
                stopped.unwrap();
            }
        }
    }
}

fn tell(entries: Vec<Entry>) -> String {
    let log = Log { header: None, entries, hashes: Vec::new(), good_bytes: 0, torn: false };
    let run = "20260317-020411-5a1c0d".parse().unwrap();
    let told = "2026-03-17T09:30:00Z".parse().unwrap();
    let story = Story::of(&Source { run: &run, log: &log, at_work: false, told }).unwrap();
    page(&story, &Redactor::new()).unwrap()
}

/// The page of a run in which everything happens.
pub(super) fn mixed() -> String {
    tell(MIXED.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// The page of a run on so many hosts: all but three do what the first host of the mixed run did, three what its third did.
pub(super) fn many(hosts: usize) -> String {
    let entries: Vec<Entry> = MIXED.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<String> = (1..=hosts).map(|number| format!("runner-{number:04}")).collect();
    let of = |name: &str| -> Vec<Entry> {
        let ended = entries.iter().position(|entry| entry.record.name() == "run-finished").unwrap();
        let own =
            entries.iter().take(ended).filter(|entry| entry.host.as_ref().is_some_and(|host| host.as_str() == name));
        own.cloned().collect()
    };
    let (good, bad) = (of("runner-01"), of("runner-03"));
    let mut out: Vec<Entry> = Vec::new();
    let mut put = |mut entry: Entry| {
        entry.seq = out.len() as u64 + 1;
        out.push(entry);
    };
    let mut first = entries[0].clone();
    if let Record::RunStarted { hosts, .. } = &mut first.record {
        *hosts = names.iter().map(|name| name.parse().unwrap()).collect();
    }
    put(first);
    for entry in entries.iter().skip(1).filter(|entry| entry.host.is_none()).take(5) {
        put(entry.clone());
    }
    let is_bad = |number: usize| number % (hosts / 3) == 7;
    let mut ends = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let (source, own) = if is_bad(number) { ("runner-03", &bad) } else { ("runner-01", &good) };
        for entry in own {
            let text = serde_json::to_string(entry).unwrap().replace(source, name);
            let own: Entry = serde_json::from_str(&text).unwrap();
            match own.record {
                Record::HostSettled { .. } => ends.push(own),
                _ => put(own),
            }
        }
    }
    let mut commit = entries.iter().find(|entry| entry.record.name() == "commit-started").unwrap().clone();
    if let Record::CommitStarted { hosts, .. } = &mut commit.record {
        let good = names.iter().enumerate().filter(|(number, _)| !is_bad(*number));
        *hosts = good.map(|(_, name)| name.parse().unwrap()).collect();
    }
    put(commit);
    ends.into_iter().for_each(&mut put);
    put(entries.last().unwrap().clone());
    tell(out)
}
