//! The server spoils its answers, from each request of a command on: whatever happens, no token is left alive that no host
//! holds, none dies that a host lives on, and no host is left in between.
//!
//! Requests are counted, not named: nobody chooses which ones matter. What only looks is asked again by itself, so from such a
//! request on the server is away for good; what changes something is spoiled once, in each way, and for good, too.

use keyswap::model::Fingerprint;
use keyswap::sandbox::BreakRestart;
use keyswap::sandbox::infisical::{Fault, FaultKind};

use super::bench::{Bench, IDENTITY, without_restart};
use crate::support::runner_host::Said;

/// What a server can do to an answer to what changes something, and how often.
const KINDS: [(FaultKind, u32); 10] = [
    (FaultKind::Busy(0), 1),
    (FaultKind::Status(500), 1),
    (FaultKind::Hang, 1),
    (FaultKind::Reset, 1),
    (FaultKind::Truncate, 1),
    (FaultKind::LoseReply, 1),
    (FaultKind::HangAfter, 1),
    (FaultKind::Late(20), 1),
    (FaultKind::Status(503), 1000),
    (FaultKind::LoseReply, 1000),
];

/// To what only looks: the server is away.
const AWAY: [(FaultKind, u32); 1] = [(FaultKind::Status(503), 1000)];

/// The ways in which each of these requests is spoiled, by its number.
fn cases(requests: &[String]) -> Vec<(u32, String, FaultKind, u32)> {
    let mut cases = Vec::new();
    for (number, line) in requests.iter().enumerate() {
        let looks = line.starts_with("GET ") || line.contains("/search") || line.contains("/login");
        let kinds: &[(FaultKind, u32)] = if looks { &AWAY } else { &KINDS };
        let number = u32::try_from(number).unwrap();
        cases.extend(kinds.iter().map(|(kind, times)| (number, line.clone(), kind.clone(), *times)));
    }
    cases
}

/// Does `one` with each request of it spoiled in each way; `first` before each time. Says how many cases there were.
fn every_request<S>(
    bench: &Bench,
    mut first: impl FnMut() -> S,
    mut one: impl FnMut(&S) -> Said,
    mut settled: impl FnMut(&S, &Said, &str),
) -> usize {
    let start = first();
    let from = bench.stand_in.requests().len();
    let said = one(&start);
    let requests = bench.stand_in.requests().split_off(from);
    settled(&start, &said, "nothing was spoiled");
    let cases = cases(&requests);
    for (number, line, kind, times) in &cases {
        let start = first();
        bench.stand_in.fault(Fault {
            method: None,
            path: String::new(),
            skip: *number,
            times: *times,
            kind: kind.clone(),
        });
        let said = one(&start);
        bench.stand_in.heal();
        settled(&start, &said, &format!("request {number} ({line}): {kind:?}, {times} times"));
    }
    cases.len()
}

fn told(what: &str, cases: usize, at_least: usize) {
    println!("infisical faults ({what}): {cases} cases, 0 orphans, 0 hosts in between");
    assert!(cases >= at_least, "{what}: {cases}");
}

fn run_of(said: &Said) -> String {
    said.events[0]["run"].as_str().unwrap().to_owned()
}

/// Without a restart; `prove` from here, and from the host's side if that is to be.
fn quick(bench: &Bench, from_the_host: bool) -> std::path::PathBuf {
    bench.playbook_with("quick.toml", |text| {
        let steps = without_restart(&text);
        let proof = "\n[[steps]]\nname  = \"Prove it from the runner's side\"\nprove = { secret = \"token\" }\n";
        assert!(steps.contains(proof));
        if from_the_host { steps } else { steps.replace(proof, "") }
    })
}

/// What must be true after a run, whatever was spoiled: everything old, or everything new; then it is taken back.
fn whole(bench: &Bench, said: &Said, what: &str) {
    let mut alive = bench.alive();
    let begun = bench.state();
    if said.code == Some(3) {
        // It said that it owes something: paid as soon as the server is back.
        let paid = bench.pay(&["resume", &run_of(said)]);
        assert!(matches!(paid.code, Some(0)), "{what}\n{}\n{}", said.all(), paid.all());
        alive = bench.alive();
    }
    let (old, token) = (bench.shared().clone(), bench.facts(1).token.unwrap());
    if said.code == Some(0) {
        assert_ne!(token, old, "{what}");
        assert_eq!(alive.len(), 1, "{what}: {alive:?}");
        assert_eq!(token, Fingerprint::of(bench.token(1).as_bytes()));
        // Two runs of one second have no order: it is named.
        let back = bench.say(&["rollback", &run_of(said)]);
        assert_eq!(back.code, Some(0), "{what}\n{}", back.all());
    } else {
        assert!(matches!(said.code, Some(2 | 3)), "{what}: {} {begun:?}", said.all());
    }
    assert_eq!(bench.facts(1).token, Some(old), "{what}: {}", said.all());
    assert_eq!(bench.alive(), [""; 0], "{what}: {}", said.all());
}

#[test]
fn no_spoiled_answer_on_the_way_forward_leaves_a_token_alive_or_a_host_in_between() {
    let bench = Bench::with_identity(1, &[]);
    let playbook = quick(&bench, false);
    let settled = |(): &(), said: &Said, what: &str| whole(&bench, said, what);
    let cases = every_request(&bench, || (), |()| bench.run(&playbook, &[]), settled);
    told("run", cases, 40);
}

/// The proof from the host's side goes through the host: the same server, spoiled there. What comes before it is spoiled in the
/// test above.
#[test]
fn no_spoiled_answer_to_a_host_leaves_a_token_alive_or_a_host_in_between() {
    let bench = Bench::with_identity(1, &[]);
    let playbook = quick(&bench, true);
    let from = bench.stand_in.requests().len();
    whole(&bench, &bench.run(&playbook, &[]), "nothing was spoiled");
    let requests = bench.stand_in.requests().split_off(from);
    // Each proof begins with the server's clock; the last one is the host's.
    let own = |line: &String| line.contains("/api/status");
    let last = requests.iter().rposition(own).unwrap();
    let mut count = 0;
    for (number, line, kind, times) in cases(&requests) {
        if usize::try_from(number).unwrap() < last {
            continue;
        }
        bench.stand_in.fault(Fault { method: None, path: String::new(), skip: number, times, kind: kind.clone() });
        let said = bench.run(&playbook, &[]);
        bench.stand_in.heal();
        whole(&bench, &said, &format!("request {number} ({line}): {kind:?}, {times} times"));
        count += 1;
    }
    told("run, through the host", count, 20);
}

/// On which the token dies: the runner refuses what it is given.
#[test]
fn no_spoiled_answer_on_the_way_back_leaves_a_token_alive_or_a_host_in_between() {
    let bench = Bench::with_identity(1, &[(1, BreakRestart::AtOnce)]);
    let playbook = bench.playbook_with("back.toml", |text| text.replace("healthy = \"2s\"", "healthy = \"100ms\""));
    bench.run(&playbook, &[]).assert(2, "rolled-back", "rolled-back");
    let mut cases = 0;
    for (kind, times) in KINDS {
        bench.stand_in.fault(Fault::once("POST", "/revoke", kind.clone()).times(times));
        let said = bench.run(&playbook, &[]);
        bench.stand_in.heal();
        whole(&bench, &said, &format!("revoke {kind:?} {times} times"));
        cases += 1;
    }
    told("run that fails", cases, 10);
}

#[test]
fn no_spoiled_answer_to_a_rollback_leaves_its_token_alive() {
    let bench = Bench::with_identity(1, &[]);
    let playbook = quick(&bench, false);
    let first = || {
        let said = bench.run(&playbook, &[]);
        said.assert(0, "succeeded", "changed");
        run_of(&said)
    };
    let settled = |run: &String, said: &Said, what: &str| {
        assert!(matches!(said.code, Some(0 | 3)), "{what}: {}", said.all());
        assert_eq!(bench.facts(1).token.as_ref(), Some(bench.shared()), "{what}: {}", said.all());
        if said.code == Some(3) {
            let paid = bench.pay(&["resume", run]);
            assert_eq!(paid.code, Some(0), "{what}\n{}\n{}", said.all(), paid.all());
        }
        assert_eq!(bench.alive(), [""; 0], "{what}: {}", said.all());
    };
    let cases = every_request(&bench, first, |run| bench.say(&["rollback", run]), settled);
    told("rollback", cases, 10);
}

/// Either nothing happened and the way back is open, or it is owed and gone on with. What the host lives on never dies.
#[test]
fn no_spoiled_answer_to_a_retirement_kills_what_a_host_lives_on() {
    let bench = Bench::with_identity(1, &[]);
    let playbook = quick(&bench, false);
    bench.run(&playbook, &[]).assert(0, "succeeded", "changed");
    let first = || {
        let old = bench.token(1);
        let said = bench.run(&playbook, &[]);
        said.assert(0, "succeeded", "changed");
        (run_of(&said), old)
    };
    let settled = |(run, old): &(String, String), said: &Said, what: &str| {
        let new = bench.token(1);
        assert!(bench.opens(&new), "{what}: {}", said.all());
        match said.code {
            Some(0) => {}
            Some(2) => assert!(bench.opens(old) && !bench.holders(1, old).is_empty(), "{what}: {}", said.all()),
            Some(3) => assert_eq!(said.events.last().unwrap()["status"], "owed", "{what}: {}", said.all()),
            _ => panic!("{what}: {}", said.all()),
        }
        if said.code != Some(0) {
            let again = bench.say(&["retire", "--revoke", "--yes", run]);
            assert_eq!(again.code, Some(0), "{what}\n{}\n{}", said.all(), again.all());
        }
        assert!(!bench.opens(old) && bench.opens(&new), "{what}: {}", said.all());
        assert_eq!(bench.holders(1, old), [""; 0], "{what}: {}", said.all());
        assert_eq!(bench.alive().len(), 1, "{what}: {}", said.all());
    };
    let cases = every_request(&bench, first, |(run, _)| bench.say(&["retire", "--revoke", "--yes", run]), settled);
    told("retire --revoke", cases, 13);
}

/// An identity is made once, whatever gets lost, and is then what its file says.
#[test]
fn no_spoiled_answer_leaves_an_identity_half_made() {
    let bench = Bench::start(1, &[]);
    let project = bench.story.project.clone();
    let gone = || {
        let mut world = bench.stand_in.world();
        let ids: Vec<String> = world
            .identities
            .iter()
            .filter(|identity| identity.name == IDENTITY)
            .map(|identity| identity.id.clone())
            .collect();
        world.identities.retain(|identity| !ids.contains(&identity.id));
        world.memberships.retain(|membership| membership.project != project || !ids.contains(&membership.identity));
        world.privileges.retain(|privilege| !ids.contains(&privilege.identity));
    };
    let settled = |(): &(), said: &Said, what: &str| {
        bench.until_nothing_is_late();
        let again = bench.apply(&["--yes"]);
        assert_eq!(again.code, Some(0), "{what}\n{}\n{}", said.all(), again.all());
        let check = bench.apply(&["--check"]);
        assert_eq!(check.code, Some(0), "{what}\n{}", check.all());
        let made = bench.stand_in.world().identities.iter().filter(|identity| identity.name == IDENTITY).count();
        assert_eq!(made, 1, "{what}: {}", said.all());
        assert_eq!(bench.alive(), [""; 0], "{what}");
    };
    let cases = every_request(&bench, gone, |()| bench.apply(&["--yes"]), settled);
    told("identity apply", cases, 30);
}
