//! What programs and pipes get of a command's own output.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::codes::staying;
use crate::fleet::bench::{Fleet, Playbook};
use crate::support::runner_host::Said;

const INVENTORY: [&str; 2] = ["-i", "inventory.toml"];

/// Each line is an object that says which event it is.
#[track_caller]
fn objects(fleet: &Fleet, args: &[&str], code: i32) -> Vec<Value> {
    let said = fleet.say(args);
    assert_eq!(said.code, Some(code), "{args:?}: {}", said.all());
    assert!(said.events.iter().all(|line| line["event"].is_string()), "{args:?}: {}", said.all());
    said.events
}

#[test]
fn every_line_for_programs_is_an_object() {
    let fleet = Fleet::start(1, &[]);
    assert_eq!(objects(&fleet, &["runs"], 0), [Value::Null; 0]);
    fleet.write(&Playbook::new(""));
    let listed = objects(&fleet, &["run", "fleet.toml", "-i", "inventory.toml", "--list-hosts", "--list-steps"], 0);
    assert_eq!((&listed[0]["host"], &listed[1]["step"]), (&json!("runner-1"), &json!("backup")));
    let linted = objects(&fleet, &["lint", "fleet.toml", "-i", "inventory.toml"], 0);
    assert_eq!(linted, [json!({ "event": "lint-finished", "status": "ok", "exit_code": 0 })]);

    let work = staying(&fleet, 1);
    work.signal("KILL");
    work.end();
    let runs = objects(&fleet, &["runs"], 0);
    let [run] = runs.as_slice() else { panic!("{runs:?}") };
    assert_eq!((&run["status"], &run["hosts"], &run["ended"]), (&json!("cut-off"), &json!(1), &Value::Null));
    assert_eq!((&run["playbook"], run["started"].is_string()), (&json!("Rotate"), true));
    let id = run["run"].as_str().unwrap();
    let cut = objects(&fleet, &["runs", id], 0);
    assert_eq!((&cut[0]["status"], &cut[0]["hosts"][0]["host"]), (&json!("cut-off"), &json!("runner-1")), "{cut:?}");
    let told = objects(&fleet, &[&["runs", "--from-hosts"], &INVENTORY[..]].concat(), 0);
    assert_eq!((&told[0]["run"], &told[0]["hosts"][0]["host"]), (&json!(id), &json!("runner-1")), "{told:?}");
    let unlock = ["unlock", "runner-1", "-i", "inventory.toml", "--reason", "the laptop is lost"];
    let held = objects(&fleet, &unlock, 8);
    assert_eq!((&held[0]["status"], &held[0]["exit_code"]), (&json!("failed"), &json!(8)), "{held:?}");
    let free = objects(&fleet, &[&unlock[..], &["--run", id]].concat(), 0);
    assert_eq!((&free[0]["run"], &free[0]["put_back"]), (&json!(id), &json!(false)), "{free:?}");

    let inventory = fs::read_to_string(fleet.sandbox().dir().join("inventory.toml")).unwrap();
    let strange = inventory.replace("known_hosts = ", "known_hosts = [\"new_known_hosts\"] #");
    assert_ne!(strange, inventory);
    fs::write(fleet.sandbox().dir().join("strange.toml"), strange).unwrap();
    let accepted = objects(&fleet, &["hosts", "accept", "-i", "strange.toml", "--yes"], 0);
    let words: Vec<&str> = accepted.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(words, ["offered", "added", "known"], "{accepted:?}");
    assert!(accepted[0]["fingerprint"].as_str().unwrap().starts_with("SHA256:"), "{accepted:?}");
    fleet.reachable(1, false);
    let gone = objects(&fleet, &["hosts", "accept", "-i", "strange.toml", "--yes"], 4);
    assert_eq!(gone[0]["status"], "unreachable", "{gone:?}");
    let silent = objects(&fleet, &[&["rollback", "--from-hosts"], &INVENTORY[..]].concat(), 4);
    assert_eq!(silent[0]["status"], "unreachable", "{silent:?}");
}

/// What a command says with an output that is made for it, and how it ends.
fn into(command: &mut Command, output: Stdio, args: &[&str]) -> (Option<i32>, String) {
    let output = command.args(args).stdout(output).stderr(Stdio::piped()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_output_that_takes_nothing_fails_the_command() {
    let fleet = Fleet::start(1, &[]);
    fleet.write(&Playbook::new(""));
    for args in [
        &["audit", "-i", "inventory.toml"][..],
        &["hosts", "-i", "inventory.toml"],
        &["lint", "fleet.toml"],
        &["runs"],
        &["ping", "-i", "inventory.toml"],
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, said) = into(&mut fleet.keyswap("plain"), full.into(), args);
        assert_eq!(code, Some(1), "{args:?}: {said}");
        assert!(said.contains("cannot write") && !said.contains("keyswap resume"), "{args:?}: {said}");
    }
}

#[test]
fn who_has_read_enough_changes_no_exit_code() {
    let fleet = Fleet::start(1, &[]);
    for (args, wanted) in [
        (&["schema", "playbook"][..], 0),
        (&["man"], 0),
        (&["completions", "bash"], 0),
        (&["audit", "-i", "inventory.toml"], 0),
        (&["exec", "-i", "inventory.toml", "--", "sh", "-c", "exit 3"], 2),
    ] {
        let (here, there) = UnixStream::pair().unwrap();
        drop(there);
        let (code, said) = into(&mut fleet.keyswap("plain"), OwnedFd::from(here).into(), args);
        assert_eq!((code, said.as_str()), (Some(wanted), ""), "{args:?}");
    }
}

#[test]
fn a_plan_that_cannot_be_written_ends_its_stream() {
    let fleet = Fleet::start(1, &[]);
    fleet.write(&Playbook::new(""));
    let said = fleet.say(&["plan", "fleet.toml", "-i", "inventory.toml", "--out", "no-directory/plan"]);
    assert_eq!(said.code, Some(5), "{}", said.all());
    assert_eq!((&said.last()["status"], &said.last()["exit_code"]), (&json!("failed"), &json!(5)), "{}", said.all());
    fleet.assert("U", &said);
}

#[test]
fn a_run_that_nobody_knows_is_an_error_wherever_it_is_asked_for() {
    let fleet = Fleet::start(1, &[]);
    for more in [&[][..], &["--from-hosts", "-i", "inventory.toml"]] {
        let said = Said::of(&mut fleet.keyswap("plain"), &[&["runs", "1999"], more].concat());
        assert_eq!((said.code, said.stdout.as_str()), (Some(5), ""), "{}", said.all());
        assert!(said.stderr.contains("1999"), "{}", said.all());
    }
    let none = Said::of(&mut fleet.keyswap("plain"), &["runs", "--from-hosts", "-i", "inventory.toml"]);
    assert_eq!(
        (none.code, none.stdout.as_str()),
        (Some(0), "no host that was reached knows a run\n"),
        "{}",
        none.all()
    );
}
