//! The link is cut at every request: the sshd process that carries it is killed while the controller stands still before or
//! after that request. The controller then settles the host by itself.
//!
//! `e2e/any_point.rs` cuts it in the midst of requests, at moments that differ from run to run.

use super::bench::{Bench, Controller, Stand};
use super::sweep::{Row, sweep};
use crate::support::runner_host::{CONTROL_FILE, Playbook, restart};

/// Cases that differ by their number alone.
struct Cut {
    /// The restart fails, so that the run takes itself back.
    fails: bool,
    /// `before`, `after`.
    when: &'static str,
}

impl Row for Cut {
    fn name(&self, at: u32) -> String {
        let way = if self.fails { "rolling back" } else { "forward" };
        format!("{way}, link cut {} request {at}", self.when)
    }

    fn case(&self, bench: &Bench, at: u32) -> Option<Result<Stand, String>> {
        let guard = if at.is_multiple_of(2) { "60s" } else { "off" };
        let mut playbook =
            Playbook::rotate().with("restart", restart(&format!("{CONTROL_FILE} restart"), "50ms", "20s"));
        playbook = playbook.without("verify");
        playbook.rollout = format!("batches = [\"100%\"]\nguard = \"{guard}\"\n");
        if self.fails {
            bench.host.pin_runner(0);
        }
        let state = format!("link-{}-{at}-{}", self.when, self.fails);
        let args = bench.host.run_args(&playbook);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let point = format!("call:{at}:{}", self.when);
        let mut controller = Controller::start(bench.host.keyswap(&state), &args, Some(&point));
        let stopped = controller.stops();
        if stopped {
            assert!(bench.host.kill_sshd_children() > 0, "there is a link to cut");
            controller.signal("CONT");
        }
        let said = controller.end();
        let result = bench.stand().and_then(|stand| {
            let settled = bench.run(&state).is_none_or(|(_, journal)| !journal.needs_settling());
            let right = match stand {
                Stand::New => said.code == Some(0),
                // 4: it was lost before anything was changed.
                Stand::Old => matches!(said.code, Some(2 | 4)),
            };
            let free = ["none", "old", "new"].contains(&bench.phase().0.as_str());
            if settled && right && free { Ok(stand) } else { Err(format!("{stand:?}, {:?}", bench.cas())) }
        });
        let result = result.map_err(|why| format!("{why}\n--- {}", said.all()));
        bench.host.sh("rm -f /run/forgejo-runner/pinned");
        bench.reset();
        if stopped || result.is_err() { Some(result) } else { None }
    }
}

#[test]
fn a_link_that_is_cut_at_any_request_leaves_a_settled_host() {
    let rows = [false, true].into_iter().flat_map(|fails| ["before", "after"].map(|when| Cut { fails, when }));
    let count = sweep("real cuts of the link", &rows.collect::<Vec<_>>());
    assert!(count.cases > 25 && count.old > 15 && count.new > 2, "the points are all there");
}
