//! Two controllers on one host: one wins, the other exits 8, names the first, and has changed nothing.

use std::fs;

use super::bench::{Bench, Controller, Stand};
use crate::support::runner_host::{CONTROL_FILE, Playbook, Said, restart};

/// Before the request that takes the host; everything was looked at, and the host was free.
const BEFORE_PREPARE: &str = "journal:4:after";
/// The new token is in place.
const PLACED: &str = "journal:9:before";

fn start(bench: &Bench, state: &str, pause: Option<&str>) -> Controller {
    let mut playbook = Playbook::rotate().with("restart", restart(&format!("{CONTROL_FILE} restart"), "100ms", "20s"));
    playbook.rollout = "batches = [\"100%\"]\nguard = \"60s\"\n".to_owned();
    let args = bench.host.run_args(&playbook);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut controller = Controller::start(bench.host.keyswap(state), &args, pause);
    assert!(pause.is_none() || controller.stops(), "it comes to {pause:?}: {}", controller.end().all());
    controller
}

/// Exit code 8, and the reason names the run and who began it.
#[track_caller]
fn refused(bench: &Bench, said: &Said, first: &str) {
    said.assert(8, "failed", "skipped");
    let (run, _) = bench.run(first).unwrap();
    let reason = said.host()["reason"].as_str().unwrap().to_owned();
    for word in [run.as_str(), "operator@", " pid ", " since 20", " UTC"] {
        assert!(reason.contains(word), "{word}: {}", said.all());
    }
}

/// The runs that left something in the host's state directory.
fn runs(bench: &Bench) -> Vec<String> {
    let dir = fs::read_dir(bench.host.path("/var/lib/keyswap/runs")).unwrap();
    dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_second_controller_is_refused_before_it_begins() {
    let bench = Bench::start();
    let first = start(&bench, "first", Some(PLACED));
    let (picture, state) = (bench.host.picture(), bench.cas());
    let said = start(&bench, "second", None).end();
    refused(&bench, &said, "first");
    picture.assert_same(&bench.host.picture(), &said);
    assert_eq!(bench.cas(), state);
    assert!(bench.run("second").is_none(), "a run that did not begin is not journaled");

    // The same when the first one is dead, until its run is settled.
    first.kill();
    let said = start(&bench, "second", None).end();
    refused(&bench, &said, "first");
    picture.assert_same(&bench.host.picture(), &said);
    let settled = bench.say("first", &["resume", "--back"]);
    assert_eq!(bench.settled("first", &settled, true), Ok(Stand::Old), "{}", settled.all());
    let said = start(&bench, "second", None).end();
    said.assert(0, "succeeded", "changed");
    assert_eq!(bench.stand(), Ok(Stand::New));
}

#[test]
fn who_comes_second_to_the_lock_has_changed_nothing() {
    let bench = Bench::start();
    let second = start(&bench, "second", Some(BEFORE_PREPARE));
    let first = start(&bench, "first", Some(PLACED));
    let (picture, state) = (bench.host.picture(), bench.cas());
    second.signal("CONT");
    let said = second.end();
    refused(&bench, &said, "first");
    picture.assert_same(&bench.host.picture(), &said);
    let (run, _) = bench.run("first").unwrap();
    assert_eq!((bench.cas(), runs(&bench)), (state, vec![run.to_string()]), "{}", said.all());
    let again = bench.say("second", &["resume", "--back"]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    picture.assert_same(&bench.host.picture(), &again);

    first.signal("CONT");
    let said = first.end();
    said.assert(0, "succeeded", "changed");
    assert_eq!(bench.stand(), Ok(Stand::New), "{}", said.all());
}

#[test]
fn of_two_at_once_exactly_one_wins() {
    let bench = Bench::start();
    for round in 0..6 {
        let states = [format!("a{round}"), format!("b{round}")];
        let both = states.each_ref().map(|state| start(&bench, state, Some(BEFORE_PREPARE)));
        for controller in &both {
            controller.signal("CONT");
        }
        let said = both.map(Controller::end);
        let winner = usize::from(said[0].code != Some(0));
        said[winner].assert(0, "succeeded", "changed");
        refused(&bench, &said[1 - winner], &states[winner]);
        assert_eq!(bench.stand(), Ok(Stand::New), "{}", said[winner].all());
        assert_eq!(runs(&bench).len(), 1);
        bench.reset();
        assert_eq!(bench.stand(), Ok(Stand::Old));
    }
}
