//! What would go wrong on every host alike is told once, and the fleet is left alone.

use std::fs;

use super::bench::{Fleet, Playbook, words};
use crate::support::real_host::keygen;
use crate::support::runner_host::Said;

const HOSTS: usize = 24;
const FORKS: usize = 4;

/// A few hosts were asked, the others not; none was touched, with or without `--skip-unreachable`.
fn told_once(fleet: &Fleet, why: &str) {
    for args in [&["-f", "4"][..], &["-f", "4", "--skip-unreachable"]] {
        let said: Said = fleet.run(&Playbook::new(""), args);
        assert_eq!(said.code, Some(4), "{}", said.all());
        let asked = words(&said).matches("unreachable").count();
        assert!((3..3 + FORKS).contains(&asked), "{asked} hosts were asked: {}", said.all());
        assert_eq!(words(&said).matches("skipped").count(), HOSTS - asked, "{}", said.all());
        assert!(said.stdout.contains(why), "{}", said.all());
        fleet.assert(&"U".repeat(HOSTS), &said);
    }
}

#[test]
fn host_keys_that_have_changed_on_many_hosts_stop_the_fleet() {
    let fleet = Fleet::start(HOSTS, &[]);
    let file = fleet.sandbox().dir().join("known_hosts");
    let text = fs::read_to_string(&file).unwrap();
    // Each host's line gets the key of the one before it.
    let lines: Vec<(&str, &str)> = text.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let keys = lines.iter().cycle().skip(HOSTS - 1);
    let turned: String = lines.iter().zip(keys).map(|((name, _), (_, key))| format!("{name} {key}\n")).collect();
    fs::write(&file, turned).unwrap();
    told_once(&fleet, "have keys that are unknown or have changed");

    // One that is wrong among many that are right is that host's own affair.
    let wrong = lines[1].1;
    let one: String = lines
        .iter()
        .enumerate()
        .map(|(at, (name, key))| format!("{name} {}\n", if at == 0 { wrong } else { key }))
        .collect();
    fs::write(&file, one).unwrap();
    let said = fleet.run(&Playbook::new(""), &["--check", "--skip-unreachable"]);
    assert_eq!(words(&said).matches("changed").count(), HOSTS - 1, "{}", said.all());
    assert_eq!(words(&said).matches("unreachable").count(), 1, "{}", said.all());
}

#[test]
fn a_login_that_is_refused_everywhere_stops_the_fleet() {
    let fleet = Fleet::start(HOSTS, &[]);
    let key = fleet.sandbox().dir().join("id_ed25519");
    fs::remove_file(&key).unwrap();
    keygen(&key, "ed25519", "");
    told_once(&fleet, "refused the login");
}
