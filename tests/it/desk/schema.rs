//! `keyswap schema`: the files in `schemas/` are what the program says, and they judge files as `keyswap lint` does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::runner_host::Said;

const KINDS: [&str; 3] = ["playbook", "inventory", "identity"];

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn keyswap() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyswap"));
    command.env_clear().env("HOME", "/nonexistent");
    command
}

fn schema(kind: &str) -> Value {
    let said = Said::of(&mut keyswap(), &["schema", kind]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    serde_json::from_str(&said.stdout).unwrap()
}

/// What a schema says of a TOML text.
fn judge(kind: &str, text: &str) -> Result<(), String> {
    let instance: toml::Table = text.parse().map_err(|error| format!("no TOML: {error}"))?;
    let validator = jsonschema::draft7::new(&schema(kind)).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&serde_json::to_value(instance).unwrap()).map(|error| error.to_string()).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
}

/// What `keyswap lint` says of a text.
fn lint(kind: &str, text: &str) -> Said {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file.toml");
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    match kind {
        "playbook" => Said::of(&mut keyswap(), &["lint", file]),
        "inventory" => Said::of(&mut keyswap(), &["lint", "-i", file]),
        _ => {
            // An identity is read with the playbook that names it.
            let playbook = dir.path().join("playbook.toml");
            let text = "hosts = 'all'\nsecrets.t = { from = 'infisical', identity = 'file.toml' }\n[[steps]]\nname = 'x'\nprove = { secret = 't' }\nonce = 'run'\n";
            fs::write(&playbook, text).unwrap();
            Said::of(&mut keyswap(), &["lint", playbook.to_str().unwrap()])
        }
    }
}

/// Every TOML file below a directory.
fn files(dir: &str) -> Vec<PathBuf> {
    let mut todo = vec![top().join(dir)];
    let mut found = Vec::new();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            } else if entry.path().extension().is_some_and(|end| end == "toml") {
                found.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn the_files_are_what_the_program_says() {
    for kind in KINDS {
        let said = Said::of(&mut keyswap(), &["schema", kind]);
        let file = fs::read_to_string(top().join(format!("schemas/{kind}.json"))).unwrap_or_default();
        assert!(file == said.stdout, "run: cargo run -q -- schema {kind} >schemas/{kind}.json");
        jsonschema::draft7::meta::validate(&serde_json::from_str(&file).unwrap()).unwrap();
    }
}

#[test]
fn every_shipped_file_names_its_schema_and_is_valid_by_it() {
    let mut shipped = Vec::new();
    shipped.extend(files("playbooks").into_iter().map(|path| ("playbook", path)));
    shipped.extend(
        files("inventory")
            .into_iter()
            .map(|path| (if path.to_str().unwrap().contains("/identities/") { "identity" } else { "inventory" }, path)),
    );
    assert!(shipped.len() >= 5, "{shipped:?}");
    for (kind, path) in shipped {
        let text = fs::read_to_string(&path).unwrap();
        let named = text
            .lines()
            .next()
            .unwrap()
            .strip_prefix("#:schema ")
            .unwrap_or_else(|| panic!("{}: names no schema", path.display()));
        let named = path.parent().unwrap().join(named).canonicalize().unwrap();
        assert_eq!(named, top().join(format!("schemas/{kind}.json")), "{}", path.display());
        assert_eq!(judge(kind, &text), Ok(()), "{}", path.display());
    }
}

const PLAYBOOK: &str = "hosts = 'all'\n[secrets.token]\nfrom = 'prompt'\n[[steps]]\nname = 'x'\n";

/// What both take: the odd and the templated.
const GOOD: &[(&str, &str, &str)] = &[
    ("playbook", PLAYBOOK, "backup = { path = '{{ data_dir }}/x' }"),
    (
        "playbook",
        PLAYBOOK,
        "place = { secret = 'token', path = '/x', mode = '0400', owner = 1000, group = 'www-data', newline = '{{ nl }}' }\nretries = '{{ n }}'\ntimeout = '1m 30s'",
    ),
    (
        "playbook",
        PLAYBOOK,
        "place = { secret = 'token', path = '/x', mode = '{{ mode }}' }\nonce = 'host'\nwhen = true",
    ),
    ("playbook", PLAYBOOK, "point = { file = '/e', key = 'A', value = '/x', reaches = '{{ reaches }}', remove = 'B' }"),
    (
        "playbook",
        PLAYBOOK,
        "restart = { command = 'x', check = 'y', pid_file = '/run/x.pid', healthy = '500ms', drain = 'off' }",
    ),
    (
        "playbook",
        PLAYBOOK,
        "verify-publish = { repo = 'a/b', workflow = 'x.yaml', ref = 'main', inputs = { a = 'b', c = true, d = 1 }, on = 'this-runner' }",
    ),
    ("playbook", PLAYBOOK, "command = { argv = ['x', '{{ y }}'], undo = 'z' }"),
    ("playbook", PLAYBOOK, "command = { run = 'x', changes = false }"),
    ("playbook", PLAYBOOK, "wait = { port = '{{ port }}', timeout = '5s' }"),
    (
        "playbook",
        "rollout.batches = '25%'\nrollout.guard = 'off'\n",
        "hosts = ['a', '!b']\nsteps = [{ name = 'x', wait = { for = '1s' } }]",
    ),
    (
        "inventory",
        "",
        "[groups.g]\nhosts = 'a[1:3]'\nport = 2222\njump = []\nstate_dir = '/var/lib/{{ inventory_hostname }}'\n[groups.h]\nchildren = ['g']\nvars = { a = [1, { b = true }] }",
    ),
    (
        "inventory",
        "",
        "[hosts.a]\nbecome = 'doas'\npassword = { from = 'command', argv = ['pass', 'x'] }\nhost_key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZha2VmYWtlZmFrZWZha2U='",
    ),
    ("inventory", "", ""),
    (
        "identity",
        "",
        "name = 'n'\nproject = 'p'\ntoken_auth.ttl = '90d'\n[[access]]\nenvironment = 'e'\npath = '/'\nread = ['A']",
    ),
];

/// What both refuse.
const BAD: &[(&str, &str, &str)] = &[
    ("playbook", PLAYBOOK, "bakcup = { path = '/x' }"),
    ("playbook", PLAYBOOK, "backup = { path = '/x' }\nwait = { for = '1s' }"),
    ("playbook", PLAYBOOK, ""),
    ("playbook", PLAYBOOK, "backup = '/x'"),
    ("playbook", PLAYBOOK, "backup = { path = 'x' }"),
    ("playbook", PLAYBOOK, "backup = { path = '/x/' }"),
    ("playbook", PLAYBOOK, "backup = { path = '/x', mode = '0600' }"),
    ("playbook", PLAYBOOK, "place = { secret = 'token', path = '/x', mode = 600 }"),
    ("playbook", PLAYBOOK, "place = { secret = 'token', path = '/x', mode = '0644' }"),
    ("playbook", PLAYBOOK, "place = { secret = 'token', path = '/x', value = 'test-token-literal' }"),
    ("playbook", PLAYBOOK, "point = { file = '/e', key = 'A', value = '/x', reaches = 'deamon' }"),
    ("playbook", PLAYBOOK, "restart = { systemd = 'x', docker = 'y' }"),
    ("playbook", PLAYBOOK, "restart = { compose = '/x' }"),
    ("playbook", PLAYBOOK, "restart = { systemd = 'x', check = 'y' }"),
    ("playbook", PLAYBOOK, "restart = { systemd = 'x', healthy = 5 }"),
    ("playbook", PLAYBOOK, "command = { run = 'x' }"),
    ("playbook", PLAYBOOK, "command = { run = 'x', argv = ['y'], undo = 'z' }"),
    ("playbook", PLAYBOOK, "verify-publish = { repo = 'a/b', workflow = 'x' , ref = 'main' }"),
    ("playbook", PLAYBOOK, "backup = { path = '/x' }\nonce = 'bach'"),
    ("playbook", PLAYBOOK, "backup = { path = '/x' }\nretries = 11"),
    ("playbook", PLAYBOOK, "backup = { path = '/x' }\ntimeout = '90'"),
    (
        "playbook",
        "rollout.on_failure = 'rolback-all'\n",
        "hosts = 'a'\nsteps = [{ name = 'x', wait = { for = '1s' } }]",
    ),
    ("playbook", "rollout.batches = [0]\n", "hosts = 'a'\nsteps = [{ name = 'x', wait = { for = '1s' } }]"),
    ("playbook", "rollout.batches = '0%'\n", "hosts = 'a'\nsteps = [{ name = 'x', wait = { for = '1s' } }]"),
    ("playbook", "secrets.t = 'test-token-literal'\n", "hosts = 'a'\nsteps = [{ name = 'x', wait = { for = '1s' } }]"),
    ("playbook", "secrets.t = { from = 'file' }\n", "hosts = 'a'\nsteps = [{ name = 'x', wait = { for = '1s' } }]"),
    (
        "playbook",
        "secrets.t = { from = 'prompt', path = 'x' }\n",
        "hosts = 'a'\nsteps = [{ name = 'x', wait = { for = '1s' } }]",
    ),
    ("playbook", "", "hosts = 'a'\nsteps = []"),
    ("playbook", "", "steps = [{ name = 'x', wait = { for = '1s' } }]"),
    ("inventory", "", "[host.a]"),
    ("inventory", "", "[hosts.a]\nport = 70000"),
    ("inventory", "", "[hosts.a]\nbecome = 'su'"),
    ("inventory", "", "[hosts.a]\npassword = 'test-token-literal'"),
    ("inventory", "", "[hosts.a]\npassword = { from = 'infisical', identity = 'x' }"),
    ("inventory", "", "[hosts.a]\nconnect_timeout = 10"),
    ("inventory", "", "[hosts.a]\nstate_dir = '/var/lib/key swap'"),
    ("inventory", "", "[groups.g]\nhosts = [1]"),
    ("inventory", "", "[known.k]\nfingerprint = 'sha256:xyz'"),
    ("inventory", "", "[services.gitlab]\nurl = 'https://x.example.net'"),
    ("inventory", "", "[services.forge]\nurl = 'ftp://x.example.net'"),
    ("inventory", "", "[approval]\nrequired = 1"),
    (
        "identity",
        "",
        "name = 'n'\nproject = 'p'\ntoken_auth.ttl = '90d'\nscope = 'organization'\n[[access]]\nenvironment = 'e'\npath = '/'\nread = ['A']",
    ),
    (
        "identity",
        "",
        "name = 'n'\nproject = 'p'\ntoken_auth.ttl = '90d'\n[[access]]\nenvironment = 'e'\npath = '/x/'\nread = ['A']",
    ),
    (
        "identity",
        "",
        "name = 'n'\nproject = 'p'\ntoken_auth.ttl = '90d'\n[[access]]\nenvironment = 'e'\npath = '/'\nread = 'A'",
    ),
    ("identity", "", "name = 'n'\nproject = 'p'\ntoken_auth.ttl = '90d'"),
];

#[test]
fn schema_and_lint_agree_on_the_good_and_the_bad() {
    for (kind, head, rest) in GOOD {
        let text = format!("{head}{rest}\n");
        let said = lint(kind, &text);
        assert_eq!((said.code, judge(kind, &text)), (Some(0), Ok(())), "{text}\n{}", said.all());
    }
    for (kind, head, rest) in BAD {
        let text = format!("{head}{rest}\n");
        let said = lint(kind, &text);
        assert_eq!(said.code, Some(6), "{text}\n{}", said.all());
        assert!(judge(kind, &text).is_err(), "the schema takes\n{text}");
    }
}
