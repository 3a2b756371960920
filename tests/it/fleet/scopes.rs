//! A failure planted in the second of three batches, under each scope and budget.

use super::bench::{Fleet, Playbook, words};
use crate::support::runner_host::Said;

/// Twelve hosts in batches of 1, 3 and 8; the runner of the third host refuses every other token.
fn rollout(rollout: &str, broken: &[usize]) -> (Fleet, Said) {
    let fleet = Fleet::start(12, broken);
    let said = fleet.run(&Playbook::new(rollout), &[]);
    (fleet, said)
}

/// The batches as they were begun, by the numbers of their hosts.
fn batches(said: &Said) -> Vec<String> {
    let begun = said.events.iter().filter(|event| event["event"] == "batch-started");
    begun
        .map(|event| {
            let hosts = event["hosts"].as_array().unwrap().iter();
            hosts.map(|host| host.as_str().unwrap().trim_start_matches("runner-")).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

#[track_caller]
fn is(fleet: &Fleet, said: &Said, stands: &str, run: &str, status: [&str; 3]) {
    fleet.assert(stands, said);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert_eq!(said.last()["status"], run, "{}", said.all());
    assert_eq!(words(said), format!("{} {}", status.join(" "), ["skipped"; 8].join(" ")), "{}", said.all());
    assert_eq!(batches(said), ["1", "2 3 4"], "{}", said.all());
}

#[test]
fn rollback_host_takes_the_failed_host_back_alone() {
    let (fleet, said) = rollout("on_failure = \"rollback-host\"", &[3]);
    is(&fleet, &said, "N NON UUUUUUUU", "rolled-back", ["changed", "changed rolled-back", "changed"]);
}

#[test]
fn rollback_batch_takes_its_batch_back() {
    let (fleet, said) = rollout("on_failure = \"rollback-batch\"", &[3]);
    is(&fleet, &said, "N OOO UUUUUUUU", "rolled-back", ["changed", "rolled-back rolled-back", "rolled-back"]);
}

#[test]
fn rollback_all_takes_the_canary_back_too() {
    let (fleet, said) = rollout("on_failure = \"rollback-all\"", &[3]);
    is(&fleet, &said, "O OOO UUUUUUUU", "rolled-back", ["rolled-back", "rolled-back rolled-back", "rolled-back"]);
}

#[test]
fn hold_leaves_the_failed_host_on_the_new_credential() {
    let (fleet, said) = rollout("on_failure = \"hold\"", &[3]);
    is(&fleet, &said, "N NDN UUUUUUUU", "failed", ["changed", "changed failed", "changed"]);
}

#[test]
fn within_the_budget_a_failed_host_goes_back_alone_and_the_rollout_goes_on() {
    let (fleet, said) = rollout("max_failures = 1\non_failure = \"rollback-all\"", &[3]);
    fleet.assert("N NON NNNNNNNN", &said);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert_eq!(batches(&said), ["1", "2 3 4", "5 6 7 8 9 10 11 12"], "{}", said.all());
}

#[test]
fn a_batch_may_be_larger_than_the_number_of_forks() {
    let fleet = Fleet::start(5, &[]);
    let mut playbook = Playbook::new("");
    playbook.rollout = playbook.rollout.replace("[1, \"25%\", \"100%\"]", "[\"100%\"]");
    for guard in ["off", "60s"] {
        playbook.rollout = playbook.rollout.replace("\"off\"", &format!("\"{guard}\""));
        let said = fleet.run(&playbook, &["--forks", "2"]);
        assert_eq!(said.code, Some(0), "{}", said.all());
        fleet.assert("NNNNN", &said);
        assert_eq!(fleet.say(&["rollback"]).code, Some(0));
    }
}

#[test]
fn the_budget_counts_over_all_batches() {
    let (fleet, said) = rollout("max_failures = 1\non_failure = \"rollback-batch\"", &[3, 7]);
    // The second failure exceeds it: all of the third batch goes back, and what was let go before stays.
    fleet.assert("N NON OOOOOOOO", &said);
    assert_eq!(said.code, Some(2), "{}", said.all());
}
