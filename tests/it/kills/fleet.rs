//! Several hosts in batches, on the sandbox's own servers: a second operator settles what a killed controller left, also
//! with a host that is silent.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use keyswap::model::Fingerprint;
use keyswap::sandbox::{BreakRestart, Sandbox, SandboxOptions};

use super::bench::Controller;
use crate::support::runner_host::Said;
use crate::support::wait_until;

fn keyswap(home: &Path, state: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyswap"));
    command.env_clear().env("HOME", home).env("USER", "operator").env("PATH", "/usr/bin:/bin").current_dir(home);
    command.args(["--output", "jsonl", "--state-dir", state]).stdin(Stdio::null());
    command
}

/// The hosts' words in the last line, in order.
fn words(said: &Said) -> Vec<String> {
    let hosts = said.last()["hosts"].as_array().cloned().unwrap_or_default();
    hosts.iter().map(|host| host["status"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Whether the session that holds a host is alive: the state's name tells which.
fn held_alive(dir: &Path) -> bool {
    let names = fs::read_dir(dir.join("state/cas")).into_iter().flatten().flatten();
    let owners = names.filter_map(|name| name.file_name().to_str()?.split('.').nth(4)?.split('-').next()?.parse().ok());
    owners.into_iter().any(|pid: u32| Path::new(&format!("/proc/{pid}")).exists())
}

#[test]
fn a_second_operator_settles_a_fleet_with_a_silent_host() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let sandbox = runtime.block_on(Sandbox::start(4, SandboxOptions::default())).unwrap();
    let home = sandbox.dir().to_owned();
    let say = |state: &str, args: &[&str]| Controller::start(keyswap(&home, state), args, None).end();
    // What each host's file, pointer and process hold.
    let holds = |at: usize| -> [Option<Fingerprint>; 2] {
        let facts = sandbox.facts(&sandbox.hosts()[at]);
        [facts.pointed_at, facts.runner.and_then(|runner| runner.token)]
    };
    let (old, new) = (sandbox.old_token().clone(), sandbox.new_token().clone());
    let is = |at: usize, token: &Fingerprint| assert_eq!(holds(at), [Some(token.clone()), Some(token.clone())], "{at}");

    let run = ["run", "playbook.toml", "-i", "inventory.toml", "--yes"];
    let mut first = Controller::start(keyswap(&home, "first"), &run, Some("journal:36:before"));
    assert!(first.stops(), "{}", first.end().all());
    first.kill();
    is(0, &new);

    let silent = &sandbox.hosts()[1];
    silent.set_reachable(false);
    let back = ["resume", "--back", "--from-hosts", "-i", "inventory.toml"];
    wait_until("the dead controller's sessions are gone", || {
        !sandbox.hosts().iter().any(|host| held_alive(host.dir()))
    });
    let said = say("second", &back);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(words(&said), ["ok", "owed", "rolled-back", "rolled-back"], "{}", said.all());
    is(0, &new);
    is(2, &old);
    is(3, &old);

    // When it is back, the operator's own journal settles it.
    silent.set_reachable(true);
    let said = say("second", &["resume"]);
    assert_eq!((said.code, words(&said)), (Some(0), vec!["rolled-back".to_owned()]), "{}", said.all());
    is(1, &old);

    // And what had been let go is taken back by whoever wants it.
    let said = say("third", &["rollback", "--from-hosts", "-i", "inventory.toml"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(words(&said), ["rolled-back", "ok", "ok", "ok"], "{}", said.all());
    (0..4).for_each(|at| is(at, &old));
    runtime.block_on(sandbox.stop()).unwrap();
}

/// The outcome for the second batch, whose first host fails when the run goes on, and which of its hosts end new.
fn resumed_and_stopped(on_failure: &str, expected: [&str; 3]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // The second host's runner does not come up again: the first of those that the resumed run works on.
    let broken = [(2, BreakRestart::AtOnce)].into_iter().collect();
    let options = SandboxOptions { break_restart: broken, ..SandboxOptions::default() };
    let sandbox = runtime.block_on(Sandbox::start(4, options)).unwrap();
    let home = sandbox.dir().to_owned();
    let playbook = home.join("playbook.toml");
    let text = std::fs::read_to_string(&playbook).unwrap();
    assert!(text.contains("\"rollback-host\""), "{text}");
    std::fs::write(&playbook, text.replace("\"rollback-host\"", &format!("\"{on_failure}\""))).unwrap();
    let begun = |at: usize| sandbox.hosts()[at].dir().join("state/runs").exists();

    let run = ["run", "playbook.toml", "-i", "inventory.toml", "--yes"];
    let mut first = Controller::start(keyswap(&home, "first"), &run, Some("journal:29:before"));
    assert!(first.stops(), "{}", first.end().all());
    first.kill();
    assert!((0..4).all(begun), "all of the second batch is in its midst");
    wait_until("the dead controller's sessions are gone", || {
        !sandbox.hosts().iter().any(|host| held_alive(host.dir()))
    });

    let said = Controller::start(keyswap(&home, "first"), &["resume"], None).end();
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert_eq!(words(&said)[1..], expected, "{}", said.all());
    for (host, status) in sandbox.hosts()[1..].iter().zip(expected) {
        let facts = sandbox.facts(host);
        let token = facts.runner.and_then(|runner| runner.token);
        let wanted = if status == "changed" { sandbox.new_token() } else { sandbox.old_token() };
        assert_eq!([facts.pointed_at, token], [Some(wanted.clone()), Some(wanted.clone())], "{}", said.all());
    }
    let again = Controller::start(keyswap(&home, "first"), &["resume"], None).end();
    assert_eq!(again.code, Some(0), "{}", again.all());
    assert!(again.stdout.contains("there is nothing to resume"), "{}", again.all());
    runtime.block_on(sandbox.stop()).unwrap();
}

#[test]
fn a_resumed_run_that_stops_takes_back_the_batch_that_it_was_cut_off_in() {
    resumed_and_stopped("rollback-batch", ["rolled-back"; 3]);
}

#[test]
fn a_resumed_run_that_stops_leaves_no_host_in_its_midst() {
    resumed_and_stopped("rollback-host", ["rolled-back", "changed", "changed"]);
}
