//! The inventory and the playbook of a sandbox, as its user gets them.

use std::fmt::Write;
use std::path::Path;

use super::hosts::SandboxHost;
use super::infisical::{KEYS, PATH, PROJECT};
use super::runner::POINTER;
use super::{ForgeAccess, GROUP, InfisicalAccess};
use crate::model::Fingerprint;

/// Paths that the files name.
pub(super) struct Names<'a> {
    pub(super) identity_file: &'a Path,
    pub(super) known_hosts: &'a Path,
    pub(super) new_token: &'a Path,
    pub(super) forge_token: &'a Path,
    pub(super) client_secret: &'a Path,
}

pub(super) fn inventory(
    hosts: &[SandboxHost],
    names: &Names<'_>,
    (forge, infisical): (Option<&ForgeAccess>, Option<&InfisicalAccess>),
    old: &Fingerprint,
) -> String {
    let mut text = String::from("# Throw-away runner hosts on loopback. They are gone when the sandbox ends.\n");
    let user = hosts.first().map_or("runner", SandboxHost::user);
    let _ = write!(
        text,
        "\n[defaults]\nuser = {}\nbecome = \"none\"\nidentity_file = {}\nknown_hosts = {}\n",
        quoted(user),
        quoted_path(names.identity_file),
        quoted_path(names.known_hosts),
    );
    let members = match hosts.len() {
        1 => "runner-1".to_owned(),
        n => format!("runner-[1:{n}]"),
    };
    let _ = write!(text, "\n[groups.{GROUP}]\nhosts = [{}]\n", quoted(&members));
    for host in hosts {
        let _ = write!(
            text,
            "\n[hosts.{}]\naddress = {}\nport = {}\nstate_dir = {}\nvars = {{ home = {} }}\n",
            host.name(),
            quoted(host.address()),
            host.port(),
            quoted_path(&host.dir().join("state")),
            quoted_path(host.dir()),
        );
    }
    let _ = write!(
        text,
        "\n[known.shared]           # what every runner holds at first\nfingerprint = {}\nshared = true\n",
        quoted(&old.short())
    );
    if let Some(forge) = forge {
        let _ = write!(
            text,
            "\n[services.forge]         # the stand-in\nurl = {}\ntoken = {{ from = \"file\", path = {} }}\n",
            quoted(&forge.url),
            quoted_path(names.forge_token)
        );
    }
    if let Some(infisical) = infisical {
        let _ = write!(
            text,
            "\n[services.infisical]     # the stand-in\nurl = {}\nauth = {{ client_id = {}, client_secret = {{ from = \"file\", path = {} }} }}\n",
            quoted(&infisical.url),
            quoted(&infisical.client_id),
            quoted_path(names.client_secret)
        );
    }
    text
}

/// The identity of the story: two keys of one folder, and nothing else.
pub(super) fn identity() -> String {
    let keys: Vec<String> = KEYS.iter().map(|key| quoted(key)).collect();
    format!(
        r#"# What the runners' own identity may read: these keys, and nothing else.
name    = "forgejo-docker-publish"
project = {}
scope   = "project"

[token_auth]
ttl = "90d"

[[access]]
environment = "prod"
path = {}
read = [{}]
"#,
        quoted(PROJECT),
        quoted(PATH),
        keys.join(", ")
    )
}

/// `minted`: the token is minted for the identity and proved, instead of read from a file. `logged`: the runners say which
/// tasks they took.
pub(super) fn playbook(names: &Names<'_>, forge: Option<&ForgeAccess>, (minted, logged): (bool, bool)) -> String {
    let source = if minted {
        "from = \"infisical\"\nidentity = \"identity.toml\"".to_owned()
    } else {
        format!("from = \"file\"\npath = {}", quoted_path(names.new_token))
    };
    let proofs = if minted { PROOFS } else { "" };
    let mut text = format!(
        r#"name  = "Rotate the token of the sandbox's runners"
hosts = "{GROUP}"

[vars]
token_file = "{{{{ home }}}}/data/infisical-token-auth-token"
runnerctl  = "{{{{ home }}}}/runnerctl"

[secrets.token]
{source}

[rollout]
batches      = [1, "100%"]
max_failures = 0
on_failure   = "rollback-host"
{proofs}
[[steps]]
name   = "Back up the current token"
backup = {{ path = "{{{{ token_file }}}}" }}

[[steps]]
name  = "Place the new token"
place = {{ secret = "token", path = "{{{{ token_file }}}}", mode = "0600" }}

[[steps]]
name  = "Point the runner at it"
point = {{ file = "{{{{ home }}}}/runner.env", key = "{POINTER}", value = "{{{{ token_file }}}}" }}

[[steps]]
name    = "Restart the runner"
restart = {{ command = "sh {{{{ runnerctl }}}} restart", check = "sh {{{{ runnerctl }}}} status", pid_file = "{{{{ home }}}}/runner.pid", healthy = "2s", timeout = "30s", drain = "off" }}
"#,
    );
    if let Some(forge) = forge {
        let here = if logged { HERE } else { "" };
        let image = forge.image.as_ref().map(|image| format!(", image = {}", quoted(image))).unwrap_or_default();
        let _ = write!(
            text,
            r#"
[[steps]]
name = "Verify that publishing still works"
once = "batch"
verify-publish = {{ repo = {}, workflow = {}, ref = {}{image}, timeout = "1m"{here} }}
"#,
            quoted(&forge.repo),
            quoted(&forge.workflow),
            quoted(&forge.git_ref),
        );
    }
    text
}

/// It counts only if it ran on a host of the batch.
const HERE: &str =
    ", on = \"this-runner\", runner = \"{{ inventory_hostname }}\", runner_log = \"{{ home }}/tasks.log\"";

/// From here before any host is touched, and once more from each host's side of the network.
const PROOFS: &str = r#"
[[steps]]
name  = "Prove that it reads those keys and nothing else"
once  = "run"
prove = { secret = "token" }

[[steps]]
name  = "Prove it from the runner's side"
prove = { secret = "token" }
"#;

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}
