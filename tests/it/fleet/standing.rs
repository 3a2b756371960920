//! Hosts that wait while others are worked on: their guard does not fire, and what is said of them is so.

use std::fs;
use std::path::PathBuf;

use super::bench::{Fleet, Playbook, Stand, result, words};
use crate::support::wait_until;

/// The guard of these hosts waits three seconds.
fn guarded(rollout: &str) -> Playbook {
    let mut playbook = Playbook::new(rollout);
    playbook.rollout = playbook.rollout.replace("[1, \"25%\", \"100%\"]", "[\"100%\"]").replace("\"off\"", "\"3s\"");
    playbook
}

fn step(name: &str, options: &str, action: &str) -> String {
    format!("[[steps]]\nname = \"{name}\"\n{options}\n{action}\n")
}

fn peek(name: &str, script: &str) -> String {
    step(name, "", &format!("command = {{ run = \"{script}\", changes = false }}"))
}

#[test]
fn a_host_that_waits_for_its_turn_keeps_its_guard_off() {
    let fleet = Fleet::start(3, &[]);
    let mut playbook = guarded("");
    // Past the barrier each host has work of its own, one at a time: the last one waits for longer than its guard does.
    playbook.late =
        [step("barrier", "once = \"batch\"", "wait = { for = \"100ms\" }"), peek("slow", "sleep 2.5")].concat();
    let said = fleet.run(&playbook, &["--forks", "1"]);
    assert_eq!((said.code, words(&said).as_str()), (Some(0), "changed changed changed"), "{}", said.all());
    fleet.assert("NNN", &said);
}

#[test]
fn hosts_that_stand_while_a_fallen_one_goes_back_keep_their_guard_off() {
    let fleet = Fleet::start(3, &[1]);
    let mut playbook = guarded("max_failures = 1\non_failure = \"rollback-host\"");
    playbook.early = step("own", "", "command = { run = \"true\", undo = \"sleep 7\" }");
    let said = fleet.run(&playbook, &[]);
    assert_eq!((said.code, words(&said).as_str()), (Some(2), "rolled-back changed changed"), "{}", said.all());
    fleet.assert("ONN", &said);
}

#[test]
fn hold_leaves_every_host_that_fails_on_the_new_credential() {
    let fleet = Fleet::start(4, &[2]);
    let mut playbook = Playbook::new("max_failures = 2\non_failure = \"hold\"");
    playbook.rollout = playbook.rollout.replace("[1, \"25%\", \"100%\"]", "[2, 2]");
    let said = fleet.run(&playbook, &[]);
    assert_eq!((said.code, words(&said).as_str()), (Some(2), "changed failed changed changed"), "{}", said.all());
    fleet.assert("NDNN", &said);
    assert!(result(&said, 2)["reason"].to_string().contains("held on the new credential"), "{}", said.all());
}

#[test]
fn a_link_that_died_while_its_host_waited_for_its_batch_is_made_anew() {
    let fleet = Fleet::start(2, &[]);
    let mut playbook = Playbook::new("");
    let gate = fleet.sandbox().dir().join("gate");
    let canary = fleet.host(1).dir().display();
    // Long enough to be looked at before it is used.
    let wait = format!(
        "test {{{{ home }}}} != {canary} || {{ sleep 6; touch {0}.on; while [ ! -e {0} ]; do sleep 0.05; done; }}",
        gate.display()
    );
    playbook.late = peek("wait", &wait);
    let work = fleet.begin(&playbook, &[]);
    let on = gate.with_extension("on");
    wait_until("the canary waits", || on.exists());
    fleet.reachable(2, false);
    fleet.reachable(2, true);
    fs::write(gate, "").unwrap();
    let said = work.end();
    assert_eq!((said.code, words(&said).as_str()), (Some(0), "changed changed"), "{}", said.all());
    fleet.assert("NN", &said);
}

/// Four hosts that a run has changed, in batches of one, whose way back waits at a gate.
fn gated() -> (Fleet, PathBuf) {
    let fleet = Fleet::start(4, &[]);
    let gate = fleet.sandbox().dir().join("gate");
    let mut playbook = Playbook::new("");
    playbook.rollout = playbook.rollout.replace("[1, \"25%\", \"100%\"]", "[1]");
    let undo = format!(
        "touch {{{{ home }}}}/at-gate; while [ ! -e {} ]; do sleep 0.05; done; rm {{{{ home }}}}/at-gate",
        gate.display()
    );
    playbook.early = step("own", "", &format!("command = {{ run = \"true\", undo = \"{undo}\" }}"));
    let said = fleet.run(&playbook, &[]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    (fleet, gate)
}

#[test]
fn ctrl_c_stops_a_rollback_between_hosts() {
    let (fleet, gate) = gated();
    let work = fleet.at_work(&["rollback"]);
    wait_until("the last host goes back", || fleet.path(4, "at-gate").exists());
    work.signal("INT");
    wait_until("it was heard", || work.so_far().contains("stopping"));
    fs::write(&gate, "").unwrap();
    let said = work.end();
    assert_eq!(
        (said.code, words(&said).as_str()),
        (Some(130), "skipped skipped skipped rolled-back"),
        "{}",
        said.all()
    );
    fleet.assert("NNNO", &said);
    let rest = fleet.say(&["rollback"]);
    assert_eq!(rest.code, Some(0), "{}", rest.all());
    fleet.assert("OOOO", &rest);
}

#[test]
fn a_way_back_that_another_run_holds_up_is_a_lock_and_no_failure() {
    let (fleet, gate) = gated();
    fs::write(gate, "").unwrap();
    let cas = fleet.path(2, "state/cas");
    let name = fs::read_dir(&cas).unwrap().next().unwrap().unwrap().path();
    let other = "20990101-000000-abcdef";
    fs::rename(&name, cas.join(format!("9.9.armed.{other}.1-1-0.b.0"))).unwrap();
    fs::create_dir(fleet.path(2, "state/runs").join(other)).unwrap();
    let owner = fleet.path(2, "state/runs").join(other).join("owner");
    fs::write(owner, "alice@laptop pid 7 since 2099-01-01 00:00 UTC\n").unwrap();
    let said = fleet.say(&["rollback"]);
    assert_eq!(
        (said.code, words(&said).as_str()),
        (Some(8), "rolled-back skipped rolled-back rolled-back"),
        "{}",
        said.all()
    );
    let reason = result(&said, 2)["reason"].to_string();
    assert!(reason.contains(other) && reason.contains("alice@laptop pid 7 since 2099-01-01"), "{reason}");
    assert_eq!(fleet.stand(2), Ok(Stand::New), "{}", said.all());
}

#[test]
fn a_debt_is_known_and_paid_by_the_next_run() {
    let fleet = Fleet::start(1, &[]);
    fleet.write(&Playbook::new(""));
    let file = fleet.sandbox().dir().join("fleet.toml");
    let whole = fs::read_to_string(&file).unwrap();
    // A playbook that forgets the restart: the files are new, the process is not.
    let at = whole.find("[[steps]]\nname = \"restart\"").unwrap();
    fs::write(
        &file,
        whole[..at].replace("value = \"{{ token_file }}\"", "value = \"{{ token_file }}\", reaches = \"jobs\""),
    )
    .unwrap();
    let args = ["run", "fleet.toml", "-i", "inventory.toml", "--yes"];
    let first = fleet.say(&args);
    assert_eq!((first.code, words(&first).as_str()), (Some(0), "changed"), "{}", first.all());
    let facts = fleet.sandbox().facts(fleet.host(1));
    assert_eq!(facts.token.as_ref(), Some(fleet.sandbox().new_token()));
    assert_ne!(facts.runner.unwrap().token.as_ref(), Some(fleet.sandbox().new_token()), "it was not restarted");

    fs::write(&file, whole).unwrap();
    let second = fleet.say(&args);
    assert_eq!((second.code, words(&second).as_str()), (Some(0), "changed"), "{}", second.all());
    assert!(second.stdout.contains("it was never restarted on them"), "{}", second.all());
    fleet.assert("N", &second);
    let third = fleet.say(&args);
    assert_eq!((third.code, words(&third).as_str()), (Some(0), "ok"), "{}", third.all());
}

#[test]
fn a_pointer_that_no_process_would_show_is_refused() {
    let fleet = Fleet::start(1, &[]);
    fleet.write(&Playbook::new(""));
    let file = fleet.sandbox().dir().join("fleet.toml");
    let whole = fs::read_to_string(&file).unwrap();
    let at = whole.find("[[steps]]\nname = \"restart\"").unwrap();
    fs::write(&file, &whole[..at]).unwrap();
    let said = fleet.say(&["run", "fleet.toml", "-i", "inventory.toml", "--yes"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(result(&said, 1)["reason"].to_string().contains("no restart comes after it"), "{}", said.all());
    fleet.assert("U", &said);
}

#[test]
fn what_cannot_be_journaled_ends_as_every_run_does_and_asks_nobody() {
    let fleet = Fleet::start(1, &[]);
    fleet.write(&Playbook::new(""));
    fs::write(fleet.sandbox().dir().join("controller"), "no directory").unwrap();
    let said = fleet.say(&["run", "fleet.toml", "-i", "inventory.toml", "--yes"]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(!said.stdout.contains("host-ready"), "{}", said.all());
    fleet.assert("U", &said);
}
