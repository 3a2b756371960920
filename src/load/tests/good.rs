//! Files that are right.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::model::{
    Action, BatchSize, Become, CommandLine, Drain, EnvFormat, HostName, OnFailure, Once, RestartHow, SecretSource,
    Step, Vars, WaitFor,
};

fn host<'i>(inventory: &'i Inventory, name: &str) -> &'i crate::model::Host {
    &inventory.hosts[&name.parse::<HostName>().unwrap()]
}

fn steps(playbook_text: &str, inventory_text: &str, name: &str, extra: &[(&str, &str)]) -> Result<Vec<Step>, String> {
    let inventory = inventory(&[("i.toml", inventory_text)]).unwrap();
    let extra: Vars = extra.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let playbook = playbook(playbook_text).unwrap();
    playbook.steps_for(host(&inventory, name), &extra).map_err(|error| error.to_string())
}

#[test]
fn the_example_files_load_and_fit_together() {
    let root = camino::Utf8Path::new(env!("CARGO_MANIFEST_DIR"));
    let inventory = crate::load::inventory(&[root.join("inventory/example.toml")], &context()).unwrap();
    let names: Vec<_> = inventory.hosts.keys().map(HostName::as_str).collect();
    assert_eq!(names, ["rs2000-docker", "runner-01", "runner-02", "runner-03", "bastion"]);
    let docker = &host(&inventory, "rs2000-docker");
    assert_eq!((docker.connection.address.as_str(), docker.connection.user.as_str()), ("203.0.113.7", "ops"));
    assert_eq!(docker.connection.become_method, Become::Sudo);
    assert_eq!(docker.connection.identity_files, ["/home/ops/.ssh/id_ed25519"]);
    assert_eq!(docker.connection.jump[0].connection.address, "bastion.example.net");
    assert_eq!(docker.vars["service"], "docker-runner");
    assert_eq!(host(&inventory, "runner-02").connection.address, "runner-02.example.net");
    assert_eq!(host(&inventory, "runner-02").vars["inventory_hostname"], "runner-02");
    assert_eq!(inventory.groups["runners"].hosts.len(), 4);
    assert!(inventory.known["shared-admin"].shared);
    assert!(matches!(inventory.services.forge.as_ref().unwrap().token, Some(SecretSource::Env { .. })));
    for name in ["rotate-token", "rollback-token", "mint-token"] {
        let playbook = crate::load::playbook(&root.join(format!("playbooks/{name}.toml")), &context()).unwrap();
        for name in crate::load::select(&inventory, &playbook.hosts, None).unwrap() {
            let steps = playbook.steps_for(&inventory.hosts[&name], &Vars::new()).unwrap();
            assert_eq!(steps.len(), playbook.step_refs().len());
        }
        for source in playbook.secrets.values() {
            let SecretSource::Infisical { identity } = source else { continue };
            assert_eq!(crate::load::identity(identity).unwrap().name, "forgejo-docker-publish");
        }
    }
}

#[test]
fn the_rotation_becomes_typed_steps() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks/rotate-token.toml")).unwrap();
    let playbook = playbook(&text).unwrap();
    assert_eq!(playbook.rollout.batches, [BatchSize::Count(1), BatchSize::Percent(25), BatchSize::Percent(100)]);
    assert_eq!(playbook.rollout.on_failure, OnFailure::RollbackBatch);
    assert_eq!(playbook.rollout.guard, Some(Duration::from_secs(120)));
    assert_eq!(playbook.secrets["token"], SecretSource::Prompt);
    let steps = steps(&text, "[hosts.h]\nvars = { data_dir = '/srv/r/data', service = 'runner' }", "h", &[]).unwrap();
    let Action::Place(place) = &steps[1].action else { panic!("{steps:?}") };
    assert_eq!((place.path.as_str(), place.mode), ("/srv/r/data/infisical-token-auth-token", 0o600));
    assert_eq!((place.owner.as_deref(), place.newline), (Some("1000"), false));
    let Action::Point(point) = &steps[2].action else { panic!("{steps:?}") };
    assert_eq!((point.file.as_str(), point.format), ("/srv/r/runner.env", EnvFormat::Dotenv));
    assert_eq!(point.remove, ["INFISICAL_TOKEN"]);
    let Action::Restart(restart) = &steps[3].action else { panic!("{steps:?}") };
    assert!(matches!(&restart.how, RestartHow::Compose { service, .. } if service == "runner"));
    assert_eq!((restart.drain, restart.healthy), (Drain::Wait, Duration::from_secs(10)));
    assert_eq!((steps[4].once, steps[4].id.index), (Once::Batch, 5));
}

#[test]
fn every_action_is_read() {
    let text = r#"
hosts = ["a", "b"]
[secrets.t]
from = "infisical"
identity = "../inventory/identities/x.toml"
[[steps]]
name = "1"
restore = { path = "/x" }
[[steps]]
name = "2"
when = "kind == 'x' and not off"
timeout = "1m 30s"
command = { run = "f {{ kind }} '{% raw %}{{.}}{% endraw %}'", undo = ["g", "{{ kind }}"] }
[[steps]]
name = "3"
command = { argv = ["a", "{{ word }}"], changes = false }
[[steps]]
name = "4"
wait = { until = "test -e {{ word }}" }
[[steps]]
name = "5"
wait = { port = "{{ port }}", timeout = "5s" }
[[steps]]
name = "6"
wait = { for = "250ms" }
[[steps]]
name = "7"
retries = 3
http = { url = "http://127.0.0.1:8080/health/", contains = "ok" }
[[steps]]
name = "8"
once = "run"
prove = { secret = "t" }
[[steps]]
name = "9"
assert-not-stored = { repo = "a/b", names = ["TOKEN"] }
[[steps]]
name = "10"
approve = { message = "Go on with {{ kind }}?" }
[[steps]]
name = "11"
when = false
point = { file = "/etc/systemd/system/r.service.d/k.conf", key = "K", value = "/v" }
[[steps]]
name = "12"
restart = { command = "f {{ word }}", check = "g", pid_file = "/run/r.pid", drain = "off" }
"#;
    let inventory = "[hosts.a]\nvars = { kind = 'x', word = \"it's $(a)\", port = 8080, off = false }";
    let steps = steps(text, inventory, "a", &[("kind", "x")]).unwrap();
    let Action::Command(command) = &steps[1].action else { panic!() };
    assert_eq!(command.run, CommandLine::Shell("f x '{{.}}'".to_owned()));
    assert_eq!(command.undo, Some(CommandLine::Argv(vec!["g".to_owned(), "x".to_owned()])));
    assert_eq!((steps[6].retries, steps[1].timeout, steps[1].enabled), (3, Some(Duration::from_secs(90)), true));
    let Action::Command(command) = &steps[2].action else { panic!() };
    assert_eq!(command.run, CommandLine::Argv(vec!["a".to_owned(), "it's $(a)".to_owned()]));
    let Action::Wait(wait) = &steps[3].action else { panic!() };
    let WaitFor::Command(line) = &wait.until else { panic!() };
    assert_eq!(shlex::split(line).unwrap(), ["test", "-e", "it's $(a)"]);
    assert!(matches!(&steps[4].action, Action::Wait(wait) if wait.until == WaitFor::Port(8080)));
    assert!(!steps[10].enabled);
    assert!(matches!(&steps[10].action, Action::Point(point) if point.format == EnvFormat::SystemdDropin));
    let Ok(playbook) = playbook(text) else { panic!() };
    assert_eq!(playbook.hosts, "a,b");
    let identity = "/home/ops/keyswap/playbooks/../inventory/identities/x.toml".into();
    assert_eq!(playbook.secrets["t"], SecretSource::Infisical { identity });
}

#[test]
fn precedence_is_defaults_groups_host_playbook_extra() {
    let inventory = inventory(&[(
        "i.toml",
        r#"
[defaults]
user = "d"
port = 1
vars = { a = "d", b = "d", c = "d", d = "d" }
[groups.child]
hosts = ["h"]
user = "child"
vars = { b = "child", c = "child" }
[groups.parent]
children = ["child"]
user = "parent"
port = 2
vars = { b = "parent", d = "parent" }
[hosts.h]
vars = { c = "h" }
"#,
    )])
    .unwrap();
    let h = host(&inventory, "h");
    assert_eq!((h.connection.user.as_str(), h.connection.port), ("child", 2));
    assert_eq!(json!(h.vars), json!({"a": "d", "b": "child", "c": "h", "d": "parent", "inventory_hostname": "h"}));
    let playbook = "hosts = 'h'\n[vars]\nc = 'play'\na = 'play {{ b }}'\n[[steps]]\nname = 'x'\n\
                    approve = { message = '{{ a }} {{ c }} {{ d }}' }\n";
    let playbook = super::playbook(playbook).unwrap();
    let extra: Vars = [("c".to_owned(), json!("extra"))].into();
    let steps = playbook.steps_for(h, &extra).unwrap();
    assert!(matches!(&steps[0].action, Action::Approve(approve) if approve.message == "play child extra parent"));
}

#[test]
fn several_files_merge_and_later_ones_win() {
    let inventory = inventory(&[
        (
            "a/one.toml",
            "[defaults]\nidentity_file = 'id'\nuser = 'one'\n[groups.g]\nhosts = ['x']\nvars = { v = 1, w = 1 }",
        ),
        ("b/two.toml", "[defaults]\nuser = 'two'\n[groups.g]\nhosts = ['y']\nvars = { v = 2 }\n[hosts.x]\nport = 2222"),
    ])
    .unwrap();
    let x = host(&inventory, "x");
    assert_eq!((x.connection.user.as_str(), x.connection.port), ("two", 2222));
    assert_eq!(x.connection.identity_files, ["/home/ops/keyswap/a/id"]);
    assert_eq!(json!(x.vars), json!({"v": 2, "w": 1, "inventory_hostname": "x"}));
    assert_eq!(inventory.groups["g"].hosts.len(), 2);
}

#[test]
fn hops_are_written_out_and_the_bastion_does_not_jump_through_itself() {
    let inventory = inventory(&[(
        "i.toml",
        "[defaults]\njump = 'inner'\n[hosts.outer]\njump = []\n[hosts.inner]\njump = 'outer'\nport = 2022\n[hosts.h]\n\
         [hosts.far]\njump = ['inner', 'ops@198.51.100.9:2200']\n[hosts.free]\njump = 'none'\n",
    )])
    .unwrap();
    let hops = |name: &str| -> Vec<String> {
        host(&inventory, name).connection.jump.iter().map(|jump| jump.name.clone()).collect()
    };
    assert_eq!((hops("h"), hops("inner")), (vec!["outer".to_owned(), "inner".to_owned()], vec!["outer".to_owned()]));
    assert_eq!(hops("far"), ["outer", "inner", "ops@198.51.100.9:2200"]);
    assert!(hops("free").is_empty() && hops("outer").is_empty());
    let far = &host(&inventory, "far").connection.jump[2].connection;
    assert_eq!((far.user.as_str(), far.address.as_str(), far.port), ("ops", "198.51.100.9", 2200));

    let default = super::inventory(&[("i.toml", "[defaults]\njump = 'b'\n[hosts.b]\n[hosts.h]\n")]).unwrap();
    assert!(host(&default, "b").connection.jump.is_empty());
    assert_eq!(host(&default, "h").connection.jump.len(), 1);
}

#[test]
fn a_secret_of_any_source_names_the_identity_that_it_must_be_for() {
    for source in
        ["from = 'prompt'", "from = 'file', path = 'x'", "from = 'env', name = 'X'", "from = 'command', argv = ['x']"]
    {
        let text = format!(
            "hosts = 'all'\nsecrets.t = {{ {source}, identity = 'who.toml' }}\n[[steps]]\nname = '1'\nprove = {{ secret = 't' }}\n"
        );
        let steps = steps(&text, "[hosts.h]", "h", &[]).unwrap();
        let Action::Prove(prove) = &steps[0].action else { panic!("{steps:?}") };
        let file = prove.identity.as_ref().unwrap();
        assert!(file.is_absolute() || file.starts_with("playbooks"), "{file}");
        assert_eq!(file.file_name(), Some("who.toml"));
        assert_eq!(playbook(&text).unwrap().identities["t"], *file);
    }
}

#[test]
fn no_proof_goes_in_clear_to_a_host_s_own_loopback() {
    let playbook = playbook(
        "hosts = 'all'\nsecrets.t = { from = 'prompt', identity = 'who.toml' }\n\
         [[steps]]\nname = 'here'\nonce = 'run'\nprove = { secret = 't' }\n\
         [[steps]]\nname = 'there'\nwhen = 'at != \"spared\"'\nprove = { secret = 't' }\n",
    )
    .unwrap();
    let said = |url: &str, keys: &str, at: &str| {
        let text = format!(
            "[services.infisical]\nurl = '{url}'\nauth = {{ token = {{ from = 'prompt' }} }}\n\
             [hosts.bastion]\naddress = '127.0.0.1'\n[hosts.h]\n{keys}\nvars = {{ at = '{at}' }}\n"
        );
        let inventory = inventory(&[("i.toml", &text)]).unwrap();
        let steps = playbook.steps_for(host(&inventory, "h"), &Vars::new()).unwrap();
        playbook.check_proofs(&inventory.services, host(&inventory, "h"), &steps)
    };
    for (url, keys, at) in [
        ("https://infisical.example.net", "", ""),
        ("http://127.0.0.1:8080", "address = '127.0.0.1'", ""),
        ("http://localhost:8080", "address = '::1'", ""),
        ("http://127.0.0.1:8080", "address = '192.0.2.1'", "spared"),
    ] {
        said(url, keys, at).unwrap();
    }
    for (url, keys) in [
        ("http://127.0.0.1:8080", ""),
        ("http://127.0.0.1:8080", "address = '192.0.2.1'"),
        ("http://localhost:8080", "address = 'localhost.example.net'"),
        ("http://[::1]:8080", "address = '127.0.0.1'\njump = 'bastion'"),
    ] {
        let refused = said(url, keys, "").unwrap_err();
        assert_eq!(refused.len(), 1, "{refused}");
        let refused = refused.to_string();
        assert!(refused.contains(":10:1") && refused.contains("on host h"), "{refused}");
        assert!(refused.contains("https") && refused.contains("once = \"run\""), "{refused}");
    }
}
