//! The controller falls silent and nobody comes back: the host puts itself back. Who comes back later changes nothing.

use std::time::{Duration, Instant};

use super::bench::{Bench, Controller, Stand};
use crate::support::runner_host::{CONTROL_FILE, LIVE, Playbook, Said, TOKEN_FILE, restart, whole};
use crate::support::wait_until;

/// `guard`, the grace of a request (5 s), and what a loaded machine may take to undo and to look.
const LIMIT: Duration = Duration::from_secs(3 + 5 + 12);

/// The journal's line after the act of `place`: placed, and not yet recorded.
const PLACED: &str = "journal:9:before";
/// The same of `restart`.
const RESTARTED: &str = "journal:13:before";

const BY_GUARD: &str = "put back by the host's own guard";

fn playbook(guard: &str) -> Playbook {
    let mut playbook = Playbook::rotate().with("restart", restart(&format!("{CONTROL_FILE} restart"), "100ms", "1s"));
    playbook.rollout = format!("batches = [\"100%\"]\nguard = \"{guard}\"\n");
    playbook
}

/// A run that stands at a point.
fn at(bench: &Bench, guard: &str, point: &str) -> Controller {
    let args = bench.host.run_args(&playbook(guard));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut controller = Controller::start(bench.host.keyswap("state"), &args, Some(point));
    assert!(controller.stops(), "the run comes to {point}: {}", controller.end().all());
    controller
}

/// Waits until the host has put itself back, and says how long it took.
fn put_back(bench: &Bench) -> Duration {
    let since = Instant::now();
    while bench.phase().0 != "old" {
        assert!(since.elapsed() < LIMIT, "after {:?} the host is {:?}", since.elapsed(), bench.phase());
        std::thread::sleep(Duration::from_millis(50));
    }
    since.elapsed()
}

#[track_caller]
fn says_that_the_guard_did_it(said: &Said, code: i32) {
    said.assert(code, "rolled-back", "rolled-back");
    let notes = said.host()["notes"].to_string();
    assert!(notes.contains(BY_GUARD), "{}", said.all());
}

/// Nobody comes back in time; later somebody settles the run.
fn abandoned(point: &str, restarted: bool, recovery: &[&str], code: i32) {
    let bench = Bench::start();
    let first = bench.host.runner().unwrap();
    let controller = at(&bench, "3s", point);
    assert_eq!(bench.host.read(TOKEN_FILE), bench.host.new, "the new token is in place");
    if restarted {
        assert_eq!(bench.host.runner().unwrap().token, whole(&bench.host.new), "and the runner has it");
    }
    assert_eq!(controller.kill().code, None);
    let took = put_back(&bench);
    assert_eq!(bench.stand(), Ok(Stand::Old), "after {took:?}");
    let runner = bench.host.runner().unwrap();
    assert_eq!(runner.pid != first.pid, restarted, "a runner that never had the new token is left alone");

    let (run, _) = bench.run("state").unwrap();
    let mut args = recovery.to_vec();
    args.push(run.as_str());
    let said = bench.say("state", &args);
    says_that_the_guard_did_it(&said, code);
    assert_eq!(bench.settled("state", &said, code == 0), Ok(Stand::Old), "{}", said.all());
    assert_eq!(bench.host.runner().unwrap(), runner, "nothing is done twice");
}

#[test]
fn an_abandoned_host_puts_a_placed_token_back() {
    abandoned(PLACED, false, &["resume"], 2);
}

#[test]
fn an_abandoned_host_restarts_its_runner_on_the_old_token() {
    abandoned(RESTARTED, true, &["resume", "--back"], 0);
}

/// A laptop's lid is closed, the guard fires, and the lid is opened.
fn awake_too_late(point: &str) {
    let bench = Bench::start();
    let controller = at(&bench, "3s", point);
    put_back(&bench);
    let (runner, state) = (bench.host.runner().unwrap(), bench.cas());
    let woken = Instant::now();
    controller.signal("CONT");
    let said = controller.end();
    // It sees at once that its session was ended: it does not wait for answers that will not come.
    assert!(woken.elapsed() < Duration::from_secs(20), "{point}: {:?}", woken.elapsed());
    says_that_the_guard_did_it(&said, 2);
    assert_eq!(bench.settled("state", &said, false), Ok(Stand::Old), "{point}: {}", said.all());
    assert_eq!(bench.host.runner().unwrap(), runner, "{point}: {}", said.all());
    assert_eq!(bench.cas(), state, "{point}: {}", said.all());
}

#[test]
fn a_controller_that_wakes_up_too_late_changes_nothing() {
    std::thread::scope(|scope| {
        // Before and after an act, before the restart, before the end.
        for point in ["journal:8:after", PLACED, "journal:12:after", "journal:16:after"] {
            scope.spawn(move || awake_too_late(point));
        }
    });
}

#[test]
fn a_host_that_is_rebooted_in_mid_run_puts_itself_back() {
    let bench = Bench::start();
    let controller = at(&bench, "10m", RESTARTED);
    assert_eq!(controller.kill().code, None);
    // All that ran is gone, the boot has another id, and what starts at boot is started: sshd, the runner on whatever
    // its files say, the guard.
    bench.host.kill_sshd_children();
    bench.host.sh(&format!(
        "for dir in /proc/[0-9]*; do
           tr '\\0' ' ' 2>/dev/null <$dir/cmdline | grep -q '[k]eyswap' && [ \"${{dir#/proc/}}\" != $$ ] && kill -9 \"${{dir#/proc/}}\"
         done
         {CONTROL_FILE} stop; cat /proc/sys/kernel/random/uuid >/mnt/boot_id; {CONTROL_FILE} start"
    ));
    assert_eq!(bench.host.runner().unwrap().token, whole(&bench.host.new), "it came up on the new files");
    bench.host.sh(&format!("setsid sh /var/lib/keyswap/guard.sh </dev/null >{LIVE}/guard 2>&1 &"));
    wait_until("the host is old", || bench.phase().0 == "old");
    assert_eq!(bench.stand(), Ok(Stand::Old));
    let said = bench.say("state", &["resume"]);
    says_that_the_guard_did_it(&said, 2);
    assert_eq!(bench.settled("state", &said, false), Ok(Stand::Old), "{}", said.all());
}
