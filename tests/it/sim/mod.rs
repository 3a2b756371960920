//! Every crash point: the engine over a simulated host, with everything going wrong once at every place where it can.
//!
//! A story is told once without fault; each of its micro-operations, requests, replies and records is a place. Then it is told
//! again for each place and each fault, settled by `resume`, `resume --back` or `rollback`, at once or after the guard had its
//! time; and the settling is crashed at each of its places too. A checker that knows nothing of the engine looks at the machine
//! after every change, at what each controller said when it ended, and at the end.
//!
//! `KEYSWAP_SIM_CASE=… cargo test --test it sim::` tells one case again; `KEYSWAP_SIM_REPORT=FILE` writes the table of
//! operations and faults; `KEYSWAP_SIM_ONLY=move/1/guard` tells only such stories, `KEYSWAP_SIM_FIRST=1` does not crash the
//! settling, `KEYSWAP_SIM_STOP=1` ends at the first violation.

mod case;
mod check;
mod controller;
mod coverage;
mod enumerate;
mod fault;
mod fs;
mod guard;
mod lib;
mod link;
mod protocol;
mod service;
mod setting;
mod sha;
mod state;
mod undo;
mod world;

use case::Case;
use enumerate::Tally;

#[test]
fn every_crash_point_ends_wholly_old_or_wholly_new() {
    if let Ok(text) = std::env::var("KEYSWAP_SIM_CASE") {
        let case: Case = text.parse().unwrap();
        let result = case.run();
        for (life, trace) in result.traces.iter().enumerate() {
            for (at, point) in trace.iter().enumerate() {
                let hit = case.faults.iter().find(|(l, a, _)| (*l, *a) == (life, at));
                let hit = hit.map_or(String::new(), |(.., fault)| format!("   <== {}", fault.says()));
                eprintln!("{life}:{at} {:?} {}: {}{hit}", point.kind, point.op, point.what);
            }
        }
        assert!(result.violations.is_empty(), "{}", result.violations.join("\n"));
        return;
    }
    let began = std::time::Instant::now();
    let tally = Tally::all();
    let said = format!("crash points: {} cases, {} violations", tally.cases, tally.failed.len());
    if let Ok(path) = std::env::var("KEYSWAP_SIM_REPORT") {
        std::fs::write(&path, format!("{said}\n{}", tally.coverage.report())).unwrap();
    }
    eprintln!("{said} ({:.1?})", began.elapsed());
    for (case, violations) in tally.failed.iter().take(20) {
        eprintln!(
            "{}\n  KEYSWAP_SIM_CASE='{case}' cargo test --test it sim::every -- --nocapture",
            violations.join("\n  ")
        );
    }
    assert!(tally.failed.is_empty(), "{} of {} cases", tally.failed.len(), tally.cases);
    if std::env::vars_os().all(|(name, _)| !name.to_string_lossy().starts_with("KEYSWAP_SIM_")) {
        let missing = tally.coverage.missing();
        assert!(missing.is_empty(), "neither done nor excused:\n{}", missing.join("\n"));
    }
}
