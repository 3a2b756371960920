//! The server spoils its answers, one call of a run at a time: whatever happens, no token is left alive that no host
//! holds, and no host is left in between.

use keyswap::model::Fingerprint;
use keyswap::sandbox::BreakRestart;
use keyswap::sandbox::infisical::{Fault, FaultKind};

use super::bench::Bench;
use crate::support::runner_host::Said;

/// What a server can do to an answer.
const KINDS: [FaultKind; 7] = [
    FaultKind::Busy(0),
    FaultKind::Status(500),
    FaultKind::Status(503),
    FaultKind::Hang,
    FaultKind::Reset,
    FaultKind::Truncate,
    FaultKind::LoseReply,
];

/// A call of a run: its method, and its path without ids of its own.
fn calls(bench: &Bench, from: usize) -> Vec<(&'static str, String)> {
    let mut calls = Vec::new();
    for line in bench.stand_in.requests().split_off(from) {
        let (method, path) = line.split_once(' ').unwrap();
        let method = if method == "GET" { "GET" } else { "POST" };
        let path = path.split('?').next().unwrap().to_owned();
        // Ids of tokens are other ones each time; what stands before and after them tells the call.
        let path = match path.split_once("/token-auth/tokens/") {
            Some((_, rest)) if rest.ends_with("/revoke") => "/revoke".to_owned(),
            Some(_) => "/token-auth/tokens/".to_owned(),
            None => path,
        };
        if path.contains("KEYSWAP_CANARY") {
            continue;
        }
        if !calls.contains(&(method, path.clone())) {
            calls.push((method, path));
        }
    }
    calls
}

/// What must be true after a run and the settling of it, whatever was spoiled.
fn settled(bench: &Bench, said: &Said, what: &str) {
    bench.stand_in.heal();
    let mut alive = bench.alive();
    if said.code == Some(3) {
        // It said that it owes something: paid as soon as the server is back.
        let paid = bench.say(&["resume", said.last()["run"].as_str().unwrap()]);
        assert_eq!(paid.code, Some(0), "{what}\n{}\n{}", said.all(), paid.all());
        alive = bench.alive();
    }
    let facts = bench.facts(1);
    let (old, token) = (bench.shared().clone(), facts.token.clone().unwrap());
    if said.code == Some(0) {
        assert_ne!(token, old, "{what}");
        assert_eq!(alive.len(), 1, "{what}: {alive:?}");
        assert_eq!(token, Fingerprint::of(bench.token(1).as_bytes()));
        // And the way back is open: afterwards it is dead.
        // Two runs of one second have no order: it is named.
        let back = bench.say(&["rollback", said.last()["run"].as_str().unwrap()]);
        assert_eq!(back.code, Some(0), "{what}\n{}", back.all());
    } else {
        assert!(matches!(said.code, Some(2 | 3)), "{what}: {}", said.all());
    }
    assert_eq!(bench.facts(1).token, Some(old), "{what}: {}", said.all());
    assert_eq!(bench.alive(), [""; 0], "{what}: {}", said.all());
}

/// Runs the same playbook with each answer spoiled in each way.
fn every_call(bench: &Bench, from: usize, mut run: impl FnMut() -> Said) -> usize {
    let calls = calls(bench, from);
    let mut cases = 0;
    for (method, path) in &calls {
        // What only looks is asked again, and so is spoiled for longer than anybody asks.
        let changes = *method == "POST" && !path.ends_with("/search") && !path.ends_with("/login");
        let kinds: &[FaultKind] = if changes { &KINDS } else { &[FaultKind::Status(500)] };
        for kind in kinds {
            bench.stand_in.fault(Fault::once(method, path, kind.clone()).times(if changes { 1 } else { 20 }));
            settled(bench, &run(), &format!("{method} {path} {kind:?}"));
            cases += 1;
        }
    }
    cases
}

/// With steps that take no time, and the real program each time.
#[test]
fn no_spoiled_answer_on_the_way_forward_leaves_a_token_alive_or_a_host_in_between() {
    let bench = Bench::with_identity(1, &[]);
    let quick = bench.playbook_with("quick.toml", |text| {
        let (steps, _) = text.split_once("\n[[steps]]\nname    = \"Restart").unwrap();
        steps.replace("\n[[steps]]\nname  = \"Prove it from the runner's side\"\nprove = { secret = \"token\" }\n", "")
    });
    bench.run(&quick, &[]).assert(0, "succeeded", "changed");
    assert_eq!(bench.say(&["rollback"]).code, Some(0));
    let cases = every_call(&bench, 0, || bench.run(&quick, &[]));
    println!("{cases} spoiled answers on the way forward");
    assert!(cases > 30, "{cases}");
}

/// On which the token dies: the runner refuses what it is given.
#[test]
fn no_spoiled_answer_on_the_way_back_leaves_a_token_alive_or_a_host_in_between() {
    let bench = Bench::with_identity(1, &[(1, BreakRestart::AtOnce)]);
    let playbook = bench.playbook_with("back.toml", |text| text.replace("healthy = \"2s\"", "healthy = \"100ms\""));
    bench.run(&playbook, &[]).assert(2, "rolled-back", "rolled-back");
    let once = KINDS.into_iter().chain([FaultKind::HangAfter]).map(|kind| (kind, 1));
    let often = [FaultKind::Status(503), FaultKind::LoseReply].map(|kind| (kind, 50));
    let mut cases = 0;
    for (kind, times) in once.chain(often) {
        bench.stand_in.fault(Fault::once("POST", "/revoke", kind.clone()).times(times));
        let said = bench.run(&playbook, &[]);
        settled(&bench, &said, &format!("revoke {kind:?} {times} times"));
        cases += 1;
    }
    println!("{cases} spoiled answers on the way back");
    assert_eq!(cases, 10);
}
