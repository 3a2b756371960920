//! The controller is killed at every line of its journal and after every request, forward and rolling back; then
//! `resume` or `resume --back` settles the run.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::bench::{Bench, Controller, Stand};
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
    next: AtomicU32,
    end: AtomicU32,
}

fn families() -> Vec<Family> {
    let mut all = Vec::new();
    for fails in [false, true] {
        for (what, when) in [("journal", "before"), ("journal", "torn"), ("journal", "after"), ("call", "after")] {
            for back in [false, true] {
                let (next, end) = (AtomicU32::new(1), AtomicU32::new(u32::MAX));
                all.push(Family { fails, what, when, back, next, end });
            }
        }
    }
    all
}

impl Family {
    fn name(&self, at: u32) -> String {
        let way = if self.fails { "rolling back" } else { "forward" };
        let recovery = if self.back { "resume --back" } else { "resume" };
        format!("{way}, killed at {}:{at}:{}, then {recovery}", self.what, self.when)
    }

    /// One case; `None` when a run has no such point.
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
    let families = families();
    let (cases, violations) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    let (old, new) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let bench = Bench::start();
                for family in &families {
                    loop {
                        let at = family.next.fetch_add(1, Ordering::SeqCst);
                        if at >= family.end.load(Ordering::SeqCst) {
                            break;
                        }
                        let Some(result) = family.case(&bench, at) else {
                            family.end.fetch_min(at, Ordering::SeqCst);
                            break;
                        };
                        cases.fetch_add(1, Ordering::SeqCst);
                        match result {
                            Ok(Stand::Old) => old.fetch_add(1, Ordering::SeqCst),
                            Ok(Stand::New) => new.fetch_add(1, Ordering::SeqCst),
                            Err(why) => {
                                violations.lock().unwrap().push(format!("{}: {why}", family.name(at)));
                                0
                            }
                        };
                    }
                }
            });
        }
    });
    let violations = violations.into_inner().unwrap();
    // Past the harness, which keeps what a passing test says to itself.
    let _ = writeln!(
        std::io::stderr(),
        "real kills: {} cases, {} violations ({} ended old, {} new)",
        cases.load(Ordering::SeqCst),
        violations.len(),
        old.load(Ordering::SeqCst),
        new.load(Ordering::SeqCst),
    );
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    assert!(cases.into_inner() > 150 && old.into_inner() > 50 && new.into_inner() > 30, "the points are all there");
}
