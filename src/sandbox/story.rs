//! What `demo` and `sandbox` tell their user: the words, made from what was seen on the hosts. Nothing is printed here.
//!
//! The demo's claims are [`Claim`]s: each is one sentence and whether the hosts, looked at from outside of keyswap, bear
//! it out. A demo that shows an untrue claim has failed.

use super::{HostFacts, Sandbox, SandboxHost};

/// The demo's hosts: three are rotated, the last one's runner refuses the new token.
pub const DEMO_HOSTS: usize = 4;

/// A sentence about a host, checked against what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The sentence, in the present tense, as if it were true.
    pub says: String,
    /// Whether it is.
    pub holds: bool,
}

/// What is going to happen, before the demo starts. One line each.
#[must_use]
pub fn opening(sandbox: &Sandbox) -> Vec<String> {
    let n = sandbox.hosts().len();
    let broken = sandbox.hosts().last().map(|host| host.name().to_string()).unwrap_or_default();
    vec![
        format!("{n} throw-away runner hosts are up: real SSH on loopback, each with a runner of its own."),
        format!("Every runner holds the same shared token, {}.", sandbox.old_token()),
        format!("The playbook gives them {} instead, one host first, then all others.", sandbox.new_token()),
        format!("The runner of {broken} will refuse the new token when it is restarted."),
        format!("Expected: exit code 2; {broken} is back on the shared token, all others hold the new one."),
    ]
}

/// One line on a host as it stands: token, pointer, process.
#[must_use]
pub fn host_line(host: &SandboxHost, facts: &HostFacts) -> String {
    let token = facts.token.as_ref().map_or_else(|| "no token file".to_owned(), |token| format!("token {token}"));
    let pointer = facts.env_line.as_deref().and_then(|line| line.rsplit('/').next()).unwrap_or("nothing");
    let runner = facts.runner.as_ref().map_or_else(
        || "runner down".to_owned(),
        |runner| {
            let token = runner.token.as_ref().map_or_else(|| "an unknown token".to_owned(), ToString::to_string);
            format!("runner pid {} with {token}", runner.pid)
        },
    );
    format!("{}: {token}, pointer to {pointer}, {runner}", host.name())
}

/// What must be true of a host that was rotated.
#[must_use]
pub fn rotated(sandbox: &Sandbox, host: &SandboxHost, before: &HostFacts, after: &HostFacts) -> Vec<Claim> {
    let (name, new) = (host.name(), Some(sandbox.new_token()));
    let pointer = super::RunnerFiles::of(host.dir()).token();
    let runs = after.runner.as_ref();
    vec![
        claim(
            format!("{name}'s token file holds the new token, mode 0600"),
            after.token.as_ref() == new && is_private(after),
        ),
        claim(format!("{name}'s env file points to it"), after.pointed_at.as_ref() == new),
        claim(
            format!("{name}'s runner is a new process with that pointer in its own environment"),
            is_other_process(before, after) && runs.and_then(|runner| runner.pointer.as_deref()) == pointer.to_str(),
        ),
        claim(format!("{name}'s runner has read the new token"), runs.and_then(|runner| runner.token.as_ref()) == new),
    ]
}

/// What must be true of a host that was put back.
#[must_use]
pub fn rolled_back(sandbox: &Sandbox, host: &SandboxHost, before: &HostFacts, after: &HostFacts) -> Vec<Claim> {
    let (name, old) = (host.name(), Some(sandbox.old_token()));
    let runs = after.runner.as_ref();
    vec![
        claim(
            format!("{name}'s token file holds the shared token again, mode 0600"),
            after.token.as_ref() == old && is_private(after),
        ),
        claim(format!("{name}'s env file has its old pointer again"), after.env_line == before.env_line),
        claim(
            format!("{name}'s runner runs again, with the shared token"),
            runs.and_then(|runner| runner.token.as_ref()) == old
                && runs.and_then(|runner| runner.pointer.as_ref())
                    == before.runner.as_ref().and_then(|runner| runner.pointer.as_ref()),
        ),
    ]
}

/// What a user of a running sandbox can try. `program` is how keyswap was called.
#[must_use]
pub fn things_to_try(sandbox: &Sandbox, program: &str) -> Vec<(&'static str, String)> {
    let (inventory, playbook) = (word(&sandbox.inventory()), word(&sandbox.playbook()));
    let mut lines = vec![
        ("see the hosts", format!("{program} ping -i {inventory}")),
        ("see the plan, change nothing", format!("{program} run {playbook} -i {inventory} --check")),
        ("rotate the token", format!("{program} run {playbook} -i {inventory}")),
        ("put it back", format!("{program} rollback")),
    ];
    if let Some(host) = sandbox.hosts().first() {
        let known_hosts = word(&sandbox.dir().join("known_hosts"));
        lines.push((
            "look around on a host",
            format!(
                "ssh -T -F none -o UserKnownHostsFile={known_hosts} -i {} -p {} {}@{}",
                word(host.identity_file()),
                host.port(),
                host.user(),
                host.address()
            ),
        ));
    }
    lines
}

fn claim(says: String, holds: bool) -> Claim {
    Claim { says, holds }
}

fn is_private(facts: &HostFacts) -> bool {
    facts.mode == Some(0o600)
}

fn is_other_process(before: &HostFacts, after: &HostFacts) -> bool {
    let start = |facts: &HostFacts| facts.runner.as_ref().map(|runner| (runner.pid, runner.started));
    start(after).is_some() && start(before) != start(after)
}

/// A path as one word for a shell.
fn word(path: &std::path::Path) -> String {
    let text = path.to_string_lossy();
    shlex::try_quote(&text).map_or_else(|_| text.to_string(), std::borrow::Cow::into_owned)
}
