//! A forge that stops accepting us in the middle of a rollout.

use keyswap::sandbox::forge::{Fault, FaultKind};

use super::bench::{Fleet, Playbook, Stand, words};
use crate::support::runner_host::Said;

const FORKS: usize = 2;

/// Twelve hosts in batches of 1, 8 and 3, each verified by itself; the forge takes the first batch's run and refuses
/// every other one. Many failures would be borne.
fn refused(status: u16, scope: &str) -> (Fleet, Said) {
    let (fleet, forge) = Fleet::with_forge(12);
    let mut playbook = Playbook::new(&format!("max_failures = 12\non_failure = \"{scope}\""));
    playbook.rollout = playbook.rollout.replace("[1, \"25%\", \"100%\"]", "[1, 8, 3]");
    let verify = r#"repo = "owner/repo", workflow = "docker-publish.yml", ref = "main", timeout = "20s""#;
    playbook.late = format!("[[steps]]\nname = \"verify\"\nverify-publish = {{ {verify} }}\n");
    forge.fault(Fault::once("POST", "/dispatches", FaultKind::Status(status)).times(100).after(1));
    let said = fleet.run(&playbook, &["--forks", &FORKS.to_string()]);

    assert_eq!(said.code, Some(2), "{}", said.all());
    let requests = forge.requests();
    let asked =
        requests.iter().filter(|request| request.starts_with("POST") && request.contains("/dispatches")).count();
    // One for the first batch; then whoever was at it when the forge first said no.
    assert!((2..=1 + FORKS).contains(&asked), "asked {asked} times: {}", said.all());
    assert!(
        words(&said).starts_with("changed ") && words(&said).ends_with(" skipped skipped skipped"),
        "{}",
        said.all()
    );
    (fleet, said)
}

#[test]
fn the_first_403_stops_the_rollout_and_nobody_begins_any_more() {
    let (fleet, said) = refused(403, "rollback-host");
    let stands: Vec<_> = (1..=12).map(|number| fleet.stand(number).unwrap()).collect();
    assert_eq!(stands[0], Stand::New, "{}", said.all());
    assert!(stands[1..9].iter().all(|stand| matches!(stand, Stand::Old | Stand::Untouched)), "{}", said.all());
    assert!(stands[1..9].contains(&Stand::Old), "{}", said.all());
    assert!(stands[1..9].contains(&Stand::Untouched), "the batch's own hosts do not begin, either: {}", said.all());
    assert_eq!(stands[9..], [Stand::Untouched; 3], "{}", said.all());
}

#[test]
fn the_first_401_stops_those_of_the_batch_too_that_have_not_begun() {
    let (fleet, said) = refused(401, "rollback-batch");
    let stands: Vec<_> = (1..=12).map(|number| fleet.stand(number).unwrap()).collect();
    assert_eq!((stands[0], stands[1]), (Stand::New, Stand::Old), "{}", said.all());
    assert!(stands[2..9].iter().all(|stand| matches!(stand, Stand::Old | Stand::Untouched)), "{}", said.all());
    assert!(stands[2..9].contains(&Stand::Untouched), "nobody begins any more: {}", said.all());
    assert_eq!(stands[9..], [Stand::Untouched; 3], "{}", said.all());
}

#[test]
fn a_verification_that_fails_takes_both_hosts_of_its_batch_back() {
    let (fleet, forge) = Fleet::with_forge(2);
    let mut playbook = Playbook::new("max_failures = 0\non_failure = \"rollback-batch\"");
    playbook.rollout = playbook.rollout.replace("[1, \"25%\", \"100%\"]", "[2]");
    // It is green, and nobody can tell that it ran on one of them.
    let verify = r#"repo = "owner/repo", workflow = "docker-publish.yml", ref = "main", on = "this-runner""#;
    playbook.late = format!("[[steps]]\nname = \"verify\"\nonce = \"batch\"\nverify-publish = {{ {verify} }}\n");
    let said = fleet.run(&playbook, &[]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert_eq!(words(&said), "rolled-back rolled-back", "{}", said.all());
    fleet.assert("OO", &said);
    assert!(said.stdout.contains("it is not known whether it ran on runner-1, runner-2"), "{}", said.all());
    assert_eq!(forge.world().runs.len(), 1, "a publish is not repeated: {}", said.all());
}
