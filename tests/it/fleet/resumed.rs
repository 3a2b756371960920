//! Runs that are cut off and gone on with: what had failed before counts, what a host was is not guessed, and no host is
//! forgotten.

use std::fs;
use std::path::PathBuf;

use keyswap::journal::{HostPhase, RunPhase, RunState, Store};
use keyswap::model::{HostName, RunId, RunStatus};

use super::bench::{Fleet, Playbook, result, words};
use crate::kills::bench::Controller;
use crate::support::said::{AtWork, Said};
use crate::support::wait_until;

const RUN: [&str; 5] = ["run", "fleet.toml", "-i", "inventory.toml", "--yes"];

fn peek(name: &str, script: &str) -> String {
    format!("[[steps]]\nname = \"{name}\"\ncommand = {{ run = '''{script}''', changes = false }}\n")
}

fn batches(rollout: &str, batches: &str) -> Playbook {
    let mut playbook = Playbook::new(rollout);
    playbook.rollout = playbook.rollout.replace("[1, \"25%\", \"100%\"]", batches);
    playbook
}

/// After its restart every host waits until the test opens the gate, and may be waited with again.
fn gated(fleet: &Fleet, playbook: Playbook) -> (Playbook, PathBuf) {
    let gate = fleet.sandbox().dir().join("gate");
    let wait = format!(
        ": >{{{{ home }}}}/at-gate; i=0; while [ ! -e {} ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i + 1)); done",
        gate.display()
    );
    (Playbook { late: peek("wait", &wait), ..playbook }, gate)
}

/// The only run of the operator's state directory.
fn journal(fleet: &Fleet) -> (RunId, RunState) {
    let store = Store::open(&fleet.sandbox().dir().join("controller")).unwrap();
    let run = store.find(None).unwrap();
    let state = store.state(&run).unwrap();
    (run, state)
}

fn phase(fleet: &Fleet, number: usize) -> HostPhase {
    let store = Store::open(&fleet.sandbox().dir().join("controller")).unwrap();
    let Ok(state) = store.find(None).and_then(|run| store.state(&run)) else { return HostPhase::Untouched };
    let name: HostName = format!("runner-{number}").parse().unwrap();
    state.hosts.get(&name).map(|host| host.phase).unwrap_or_default()
}

/// The controller dies without a word.
fn kill(work: AtWork) {
    work.signal("KILL");
    assert_eq!(work.end().code, None);
}

/// A run whose hosts stand at the gate on the new token when its controller dies.
fn cut_off_at_the_gate(fleet: &Fleet) -> RunId {
    let (playbook, gate) = gated(fleet, batches("", "[\"100%\"]"));
    let work = fleet.begin(&playbook, &[]);
    wait_until("the host waits", || fleet.path(1, "at-gate").exists());
    kill(work);
    fs::write(gate, "").unwrap();
    journal(fleet).0
}

#[test]
fn a_host_that_another_run_had_meanwhile_goes_back_by_its_own_way_back() {
    let fleet = Fleet::start(1, &[]);
    let first = cut_off_at_the_gate(&fleet);
    let unlock = ["unlock", "runner-1", "-i", "inventory.toml", "--reason", "it is gone", "--run", first.as_str()];
    let unlocked = fleet.say(&unlock);
    assert_eq!(unlocked.code, Some(0), "{}", unlocked.all());

    // Another run comes to nothing: what it puts back is the first one's token.
    let token = fleet.sandbox().dir().join("new-token");
    let given = fs::read(&token).unwrap();
    fs::write(&token, "test-token-of-another-run\n").unwrap();
    fleet.write(&Playbook { late: peek("fail", "false"), ..batches("", "[\"100%\"]") });
    let other = Said::of(&mut fleet.keyswap_of("other", "jsonl"), &RUN);
    assert_eq!((other.code, words(&other).as_str()), (Some(2), "rolled-back"), "{}", other.all());
    fleet.assert("N", &other);

    fs::write(&token, given).unwrap();
    let said = fleet.say(&["resume", first.as_str()]);
    assert_eq!((said.code, words(&said).as_str()), (Some(2), "rolled-back"), "{}", said.all());
    assert!(result(&said, 1)["reason"].to_string().contains("another run"), "{}", said.all());
    fleet.assert("O", &said);
}

#[test]
fn a_host_that_has_lost_its_state_is_not_said_to_be_old() {
    let fleet = Fleet::start(1, &[]);
    cut_off_at_the_gate(&fleet);
    fs::remove_dir_all(fleet.path(1, "state")).unwrap();
    let said = fleet.say(&["resume"]);
    assert_eq!((said.code, words(&said).as_str()), (Some(3), "owed"), "{}", said.all());
    assert!(result(&said, 1)["reason"].to_string().contains("lost the run's way back"), "{}", said.all());
}

/// A batch of which one host has failed while the others were still at work, when the controller died. `again`: what goes on
/// with it dies, too.
fn failed_and_cut_off(again: bool) {
    let fleet = Fleet::start(5, &[]);
    let cause = fleet.path(1, "fails");
    fs::write(&cause, "").unwrap();
    let gate = fleet.sandbox().dir().join("gate");
    let at = |number: usize| fleet.path(number, "at-gate").display().to_string();
    // Who is to fail goes on to its last step when the others stand at the gate.
    let wait = format!(
        ": >{{{{ home }}}}/at-gate; i=0; until [ -e {0} ] || {{ [ -e {1} ] && [ -e {2} ] && [ {{{{ home }}}} = {3} ]; }}; do \
         i=$((i + 1)); [ $i -lt 600 ] || exit 1; sleep 0.05; done",
        gate.display(),
        at(2),
        at(3),
        fleet.host(1).dir().display()
    );
    let mut playbook = batches("on_failure = \"rollback-batch\"", "[3, 2]");
    (playbook.early, playbook.late) = (peek("wait", &wait), peek("probe", "test ! -e {{ home }}/fails"));
    let work = fleet.begin(&playbook, &[]);
    wait_until("one has failed, and the others are at work", || matches!(phase(&fleet, 1), HostPhase::Halted(_)));
    kill(work);
    // Nothing would fail any more.
    fs::remove_file(cause).unwrap();
    fs::write(gate, "").unwrap();
    if again {
        let mut second = Controller::start(fleet.keyswap("jsonl"), &["resume"], Some("journal:1:after"));
        assert!(second.stops(), "{}", second.end().all());
        second.kill();
        assert_eq!(phase(&fleet, 1), HostPhase::Prepared);
    }
    let said = fleet.say(&["resume"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert_eq!(words(&said), "rolled-back rolled-back rolled-back skipped skipped", "{}", said.all());
    fleet.assert("OOOUU", &said);
    let (_, state) = journal(&fleet);
    let fell: Vec<bool> = state.hosts.values().map(|host| host.fell).collect();
    assert_eq!(fell, [true, false, false, false, false], "who failed, and who went back with it");
}

#[test]
fn a_failure_counts_although_the_controller_died_before_the_host_went_back() {
    failed_and_cut_off(false);
}

#[test]
fn a_failure_counts_although_what_went_on_died_too() {
    failed_and_cut_off(true);
}

/// Three hosts, of which the first was let go when the controller died, and whose secret cannot be had any more.
fn without_its_secret() -> (Fleet, PathBuf, Vec<u8>) {
    let fleet = Fleet::start(3, &[]);
    let work = fleet.begin(&batches("pause = \"5m\"", "[1, 2]"), &[]);
    wait_until("the canary is let go", || phase(&fleet, 1) == HostPhase::New);
    kill(work);
    let token = fleet.sandbox().dir().join("new-token");
    let given = fs::read(&token).unwrap();
    fs::remove_file(&token).unwrap();
    (fleet, token, given)
}

#[test]
fn a_run_is_not_ended_for_want_of_its_secret_while_hosts_are_still_to_begin() {
    let (fleet, token, given) = without_its_secret();
    let said = fleet.say(&["resume"]);
    assert_eq!(said.code, Some(5), "{}", said.all());
    assert!(said.stderr.contains("new-token") && said.stderr.contains(" --back"), "{}", said.all());
    fleet.assert("NUU", &said);
    assert_eq!(journal(&fleet).1.phase, RunPhase::Open, "{}", said.all());

    fs::write(&token, "test-token-another\n").unwrap();
    fleet.write(&batches("", "[1, 2]"));
    let said = fleet.say(&["resume"]);
    assert_eq!(said.code, Some(5), "{}", said.all());
    assert!(said.stderr.contains("is another one now"), "{}", said.all());

    fs::write(&token, given).unwrap();
    let said = fleet.say(&["resume"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    fleet.assert("NNN", &said);
    assert_eq!(journal(&fleet).1.phase, RunPhase::Finished(RunStatus::Succeeded));
}

#[test]
fn a_run_that_is_ended_with_hosts_that_never_began_has_not_succeeded() {
    let (fleet, ..) = without_its_secret();
    let said = fleet.say(&["resume", "--back"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    fleet.assert("NUU", &said);
    assert_eq!(journal(&fleet).1.phase, RunPhase::Finished(RunStatus::Interrupted), "{}", said.all());
}

#[test]
fn a_host_that_was_let_go_unseen_goes_back_with_its_batch() {
    let fleet = Fleet::start(2, &[]);
    let mut playbook = batches("on_failure = \"rollback-batch\"", "[\"100%\"]");
    playbook.late = peek("probe", "test ! -e {{ home }}/fails");
    fleet.write(&playbook);
    let args = [&RUN[..], &["--forks", "1"]].concat();
    // Right before the word that the first host was let go.
    let mut first = Controller::start(fleet.keyswap("jsonl"), &args, Some("journal:29:before"));
    assert!(first.stops(), "{}", first.end().all());
    first.kill();
    assert_eq!([1, 2].map(|number| phase(&fleet, number)), [HostPhase::Committing; 2]);
    let stands = |number: usize| {
        let mut names = fs::read_dir(fleet.path(number, "state/cas")).unwrap();
        let name = names.next().unwrap().unwrap().file_name().into_string().unwrap();
        name.split('.').nth(2).unwrap().to_owned()
    };
    assert_eq!([1, 2].map(stands), ["new", "armed"]);

    fs::write(fleet.path(2, "fails"), "").unwrap();
    let said = fleet.say(&["resume"]);
    assert_eq!((said.code, words(&said).as_str()), (Some(2), "rolled-back rolled-back"), "{}", said.all());
    fleet.assert("OO", &said);
}
