//! The controller is killed at every line of its journal and after every request, forward and rolling back; then
//! `resume` or `resume --back` settles the run.

use super::bench::{Bench, Controller, Stand, went_on};
use super::sweep::{Row, sweep};
use crate::support::runner_host::{CONTROL_FILE, Playbook, restart};

/// Cases that differ by their number alone.
struct Family {
    /// The restart fails, so that the run takes itself back.
    fails: bool,
    /// `journal`, `call`.
    what: &'static str,
    /// `before`, `torn`, `after`.
    when: &'static str,
    /// By `resume --back`.
    back: bool,
}

fn families() -> Vec<Family> {
    let mut all = Vec::new();
    for fails in [false, true] {
        for (what, when) in [("journal", "before"), ("journal", "torn"), ("journal", "after"), ("call", "after")] {
            for back in [false, true] {
                all.push(Family { fails, what, when, back });
            }
        }
    }
    all
}

impl Row for Family {
    fn name(&self, at: u32) -> String {
        let way = if self.fails { "rolling back" } else { "forward" };
        let recovery = if self.back { "resume --back" } else { "resume" };
        format!("{way}, killed at {}:{at}:{}, then {recovery}", self.what, self.when)
    }

    fn case(&self, bench: &Bench, at: u32) -> Option<Result<Stand, String>> {
        let guard = if at.is_multiple_of(2) { "guard = \"60s\"" } else { "guard = \"off\"" };
        let mut playbook =
            Playbook::rotate().with("restart", restart(&format!("{CONTROL_FILE} restart"), "100ms", "20s"));
        playbook.rollout = format!("batches = [\"100%\"]\n{guard}\n");
        if self.fails {
            bench.host.pin_runner(0);
        }
        let state = format!("state-{}-{at}-{}-{}-{}", self.what, self.when, self.back, self.fails);
        let args = bench.host.run_args(&playbook);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let pause = format!("{}:{at}:{}", self.what, self.when);
        let mut controller = Controller::start(bench.host.keyswap(&state), &args, Some(&pause));
        let result = if controller.stops() {
            let cut = controller.kill();
            let recovery: &[&str] = if self.back { &["resume", "--back"] } else { &["resume"] };
            Some(if bench.run(&state).is_none() {
                bench.stand()
            } else {
                let said = bench.say(&state, recovery);
                let settled = bench.settled(&state, &said, self.back);
                // Nothing had failed, and the secret is given again: there is no reason to go back.
                let forward = !self.fails && !self.back && bench.knows_its_secrets(&state);
                let settled = if forward { settled.and_then(went_on) } else { settled };
                settled.map_err(|why| format!("{why}\n--- {}\n--- {}", cut.all(), said.all()))
            })
        } else {
            let said = controller.end();
            let code = if self.fails { 2 } else { 0 };
            assert_eq!(said.code, Some(code), "a run that was not cut off: {}", said.all());
            None
        };
        bench.host.sh("rm -f /run/forgejo-runner/pinned");
        bench.reset();
        result
    }
}

#[test]
fn killed_anywhere_a_run_ends_wholly_old_or_wholly_new() {
    let count = sweep("real kills", &families());
    assert!(count.cases > 150 && count.old > 50 && count.new > 30, "the points are all there");
}
