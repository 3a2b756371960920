//! What settles a run is killed itself: `resume`, `resume --back` and `rollback`, before and after every line that each of
//! them writes into the journal, and after every request to the host. Then a second recovery settles the run. What half a
//! line does to a journal is shown in `every_point.rs`.
//!
//! A kill before a line comes after the act that the line tells of: between act and record. What is cut off first, whether
//! it has a guard, and what comes second alternate with the point's number.

use super::bench::{Bench, Controller, Stand, went_on};
use super::sweep::{Row, sweep};
use crate::support::runner_host::{CONTROL_FILE, Playbook, restart};

/// The run is cut off when the token is placed, and when the runner was restarted on it; both are not recorded.
const CUT: [&str; 2] = ["journal:9:before", "journal:13:before"];

/// What comes second, and whether it takes back what is not settled.
const SECOND: [(&[&str], bool); 3] = [(&["resume"], false), (&["resume", "--back"], true), (&["rollback"], true)];

/// Cases that differ by their number alone.
struct Killed {
    /// The recovery that is killed.
    first: &'static [&'static str],
    /// `journal`, `call`.
    what: &'static str,
    /// `before`, `after`.
    when: &'static str,
}

impl Killed {
    /// The run to be settled: one that was cut off, or for `rollback` every other time one that succeeded.
    fn run(&self, bench: &Bench, state: &str, at: u32) {
        let mut playbook =
            Playbook::rotate().with("restart", restart(&format!("{CONTROL_FILE} restart"), "50ms", "20s"));
        playbook = playbook.without("verify");
        let guard = if at.is_multiple_of(3) { "off" } else { "60s" };
        playbook.rollout = format!("batches = [\"100%\"]\nguard = \"{guard}\"\n");
        let args = bench.host.run_args(&playbook);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let whole = self.first == ["rollback"] && at.is_multiple_of(2);
        let point = (!whole).then_some(CUT[at as usize % 2]);
        let mut run = Controller::start(bench.host.keyswap(state), &args, point);
        if whole {
            run.end().assert(0, "succeeded", "changed");
        } else {
            assert!(run.stops(), "{}", run.end().all());
            run.kill();
        }
    }
}

impl Row for Killed {
    fn name(&self, at: u32) -> String {
        let (second, _) = SECOND[at as usize % 3];
        format!("{} killed at {}:{at}:{}, then {}", self.first.join(" "), self.what, self.when, second.join(" "))
    }

    fn case(&self, bench: &Bench, at: u32) -> Option<Result<Stand, String>> {
        let state = format!("{}-{}-{at}-{}", self.first.concat(), self.what, self.when);
        self.run(bench, &state, at);
        let point = format!("{}:{at}:{}", self.what, self.when);
        let mut first = Controller::start(bench.host.keyswap(&state), self.first, Some(&point));
        let stopped = first.stops();
        let cut = if stopped { first.kill() } else { first.end() };
        let (second, back) = SECOND[at as usize % 3];
        let said = bench.say(&state, second);
        let result = bench.settled(&state, &said, back);
        let forward = self.first == ["resume"] && second == ["resume"];
        let result = if forward { result.and_then(went_on) } else { result };
        let result = result.map_err(|why| format!("{why}\n--- {}\n--- {}", cut.all(), said.all()));
        bench.reset();
        // What had no such point was not disturbed; it must hold of it all the same.
        if stopped || result.is_err() { Some(result) } else { None }
    }
}

#[test]
fn a_recovery_that_is_killed_anywhere_is_settled_by_the_next_one() {
    let firsts: [&[&str]; 3] = [&["resume"], &["resume", "--back"], &["rollback"]];
    let rows = firsts.iter().flat_map(|first| {
        let points = [("journal", "before"), ("journal", "after"), ("call", "after")];
        points.map(|(what, when)| Killed { first, what, when })
    });
    let count = sweep("real kills of recovery", &rows.collect::<Vec<_>>());
    assert!(count.cases > 60 && count.old > 40 && count.new > 5, "the points are all there");
}
