//! Runs that take up where an earlier one ended, runs that find nothing to do, and what is told of a run afterwards.

use std::fs;

use super::bench::{Fleet, Playbook, Stand, words};
use crate::support::runner_host::Said;

/// The hosts that a run looked at.
fn looked_at(said: &Said) -> Vec<String> {
    let started =
        said.events.iter().find(|event| event["event"] == "run-started").unwrap_or_else(|| panic!("{}", said.all()));
    started["hosts"].as_array().unwrap().iter().map(|host| host.as_str().unwrap().to_owned()).collect()
}

/// Plain output from the recap on.
fn recap(text: &str) -> Vec<String> {
    text.lines().skip_while(|line| *line != "recap").map(str::to_owned).collect()
}

fn plain(fleet: &Fleet, args: &[&str]) -> (Option<i32>, String) {
    let output = fleet.keyswap("plain").args(args).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_rerun_touches_exactly_the_hosts_that_the_run_left_so() {
    let fleet = Fleet::start(6, &[2, 5]);
    let playbook = |rollout: &str| {
        let mut playbook = Playbook::new(rollout);
        playbook.rollout = playbook.rollout.replace("[1, \"25%\", \"100%\"]", "[3]");
        playbook
    };
    fleet.reachable(6, false);
    let first = fleet.run(&playbook("max_failures = 1\non_failure = \"rollback-batch\""), &["--skip-unreachable"]);
    // The second failure exceeds the budget and takes host 4 with it; host 2 went back alone.
    assert_eq!(words(&first), "changed rolled-back changed rolled-back rolled-back unreachable", "{}", first.all());
    assert_eq!(first.code, Some(2), "{}", first.all());
    let run = first.last()["run"].as_str().unwrap().to_owned();

    // What would be done, without doing it.
    let asked = |which: &[&str]| {
        let mut args = vec!["--check", "--rerun"];
        args.extend(which);
        looked_at(&fleet.run(&playbook(""), &args))
    };
    fleet.reachable(6, true);
    assert_eq!(asked(&["failed"]), ["runner-2", "runner-5"]);
    assert_eq!(asked(&["rolled-back", &run]), ["runner-2", "runner-4", "runner-5"]);
    assert_eq!(asked(&["unreachable"]), ["runner-6"]);
    assert_eq!(asked(&["rolled-back", "--limit", "!runner-5"]), ["runner-2", "runner-4"]);
    let none = fleet.run(&playbook(""), &["--rerun", "unreachable", "--limit", "runner-1"]);
    assert_eq!(none.code, Some(5), "{}", none.all());
    let word = fleet.run(&playbook(""), &["--rerun", "changed"]);
    assert_eq!(word.code, Some(5), "{}", word.all());

    for number in [2, 5] {
        fs::remove_file(fleet.path(number, "pinned")).unwrap();
    }
    let before: Vec<_> = (1..=6).map(|number| fleet.sandbox().facts(fleet.host(number))).collect();
    let again = fleet.run(&playbook(""), &["--rerun", "failed"]);
    assert_eq!((again.code, words(&again).as_str()), (Some(0), "changed changed"), "{}", again.all());
    fleet.assert("NNNONU", &again);
    for number in [1, 3, 4, 6] {
        let now = fleet.sandbox().facts(fleet.host(number));
        assert_eq!(now, before[number - 1], "runner-{number} was left alone: {}", again.all());
    }

    // Of the latest run nobody failed; of the one before there is more to do.
    let nothing = fleet.run(&playbook(""), &["--rerun", "failed"]);
    assert_eq!(nothing.code, Some(0), "{}", nothing.all());
    assert!(nothing.stdout.contains("there is nothing to run again"), "{}", nothing.all());
    let rest = fleet.run(&playbook(""), &["--rerun", "unreachable", &run]);
    assert_eq!((rest.code, words(&rest).as_str()), (Some(0), "changed"), "{}", rest.all());
    fleet.assert("NNNONN", &rest);
}

#[test]
fn a_second_run_changes_nothing_and_says_so() {
    let fleet = Fleet::start(4, &[]);
    let first = fleet.run(&Playbook::new(""), &[]);
    assert_eq!(first.code, Some(0), "{}", first.all());
    fleet.assert("NNNN", &first);
    let run = first.last()["run"].as_str().unwrap().to_owned();
    let before: Vec<_> = (1..=4).map(|number| fleet.sandbox().facts(fleet.host(number))).collect();

    let (code, text) = plain(&fleet, &["run", "fleet.toml", "-i", "inventory.toml", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("4/4 hosts: 4 ok, nothing had to be changed"), "{text}");
    let now: Vec<_> = (1..=4).map(|number| fleet.sandbox().facts(fleet.host(number))).collect();
    assert_eq!(now, before, "{text}");

    // The latest run changed nothing: the one to take back is another.
    let (code, text) = plain(&fleet, &["rollback"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("the latest run that can be taken back: keyswap rollback {run}")), "{text}");
    let back = fleet.say(&["rollback", &run]);
    assert_eq!(back.code, Some(0), "{}", back.all());
    fleet.assert("OOOO", &back);
}

#[test]
fn the_journal_alone_tells_the_same_recap() {
    let fleet = Fleet::start(5, &[3]);
    fleet.reachable(5, false);
    let write = fleet.run(&Playbook::new("on_failure = \"rollback-batch\""), &["--check"]);
    assert_eq!(write.code, Some(4), "{}", write.all());
    let args = ["run", "fleet.toml", "-i", "inventory.toml", "--yes", "--skip-unreachable"];
    let (code, text) = plain(&fleet, &args);
    assert_eq!(code, Some(2), "{text}");
    assert_eq!(fleet.stand(3), Ok(Stand::Old), "{text}");
    let told = recap(&text);
    assert!(told.len() > 6 && told.iter().any(|line| line.starts_with("batch 3/3, ")), "{text}");
    let run = told.last().unwrap().split(' ').nth(1).unwrap().to_owned();
    let (_, history) = plain(&fleet, &["runs", &run]);
    assert_eq!(recap(&history), told, "{history}");

    let (code, text) = plain(&fleet, &["rollback"]);
    assert_eq!(code, Some(0), "{text}");
    let (_, history) = plain(&fleet, &["runs", &run]);
    assert_eq!(recap(&history).last(), recap(&text).last(), "{history}");
}
