//! A second operator whose state directory is empty settles the first one's run, by what the host recorded.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::bench::{Bench, Controller, Stand};
use super::sweep::{Row, sweep};
use crate::support::real_host::free_port;
use crate::support::runner_host::{CONTROL_FILE, NAME, Playbook, Said, TOKEN_FILE, restart, short};
use crate::support::wait_until;

/// The new token is in place, and that is not recorded.
const PLACED: &str = "journal:9:before";
/// The runner was restarted on it.
const RESTARTED: &str = "journal:13:before";

const BACK: [&str; 5] = ["resume", "--back", "--from-hosts", "-i", "inventory.toml"];
const ROLLBACK: [&str; 4] = ["rollback", "--from-hosts", "-i", "inventory.toml"];

fn start(bench: &Bench, state: &str, guard: &str, pause: Option<&str>) -> Controller {
    let mut playbook = Playbook::rotate().with("restart", restart(&format!("{CONTROL_FILE} restart"), "100ms", "20s"));
    playbook.rollout = format!("batches = [\"100%\"]\nguard = \"{guard}\"\n");
    let args = bench.host.run_args(&playbook);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut controller = Controller::start(bench.host.keyswap(state), &args, pause);
    assert!(pause.is_none() || controller.stops(), "it comes to {pause:?}: {}", controller.end().all());
    controller
}

/// A run that was cut off at a point by the death of its controller.
fn cut_off(bench: &Bench, guard: &str, point: &str) {
    start(bench, "first", guard, Some(point)).kill();
    wait_until("its shell is gone", || !bench.host.exec("pgrep -f '^sh -c read -r NONCE'").status.success());
}

#[track_caller]
fn put_back(bench: &Bench, said: &Said) {
    said.assert(0, "rolled-back", "rolled-back");
    assert_eq!(bench.stand(), Ok(Stand::Old), "{}", said.all());
    assert_eq!(bench.phase().0, "old", "{}", said.all());
}

#[track_caller]
fn nothing_to_undo(bench: &Bench, said: &Said) {
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.stdout.contains("there is nothing to undo"), "{}", said.all());
    assert_eq!(bench.stand(), Ok(Stand::Old), "{}", said.all());
}

#[test]
fn a_second_operator_settles_the_first_ones_run() {
    for (guard, point) in [("off", PLACED), ("60s", RESTARTED)] {
        let bench = Bench::start();
        let first = bench.host.runner().unwrap();
        cut_off(&bench, guard, point);
        assert_eq!(bench.host.read(TOKEN_FILE), bench.host.new);
        let (run, _) = bench.run("first").unwrap();
        let forward = bench.say("second", &["resume", "--from-hosts", "-i", "inventory.toml"]);
        assert_eq!(forward.code, Some(5), "{}", forward.all());
        assert!(forward.stderr.contains("resume --back --from-hosts"), "{}", forward.all());

        let said = bench.say("second", &BACK);
        put_back(&bench, &said);
        assert_eq!(bench.host.runner().unwrap().pid != first.pid, point == RESTARTED, "{}", said.all());
        let credential = &said.host()["credentials"][0];
        assert_eq!(
            (&credential["before"], &credential["now"]),
            (&short(&bench.host.old).into(), &short(&bench.host.old).into())
        );
        let (own, journal) = bench.run("second").unwrap();
        assert!(own != run && !journal.needs_settling(), "{}", said.all());
        assert!(journal.notes[0].text.contains(run.as_str()), "{:?}", journal.notes);
        assert!(journal.notes[0].text.contains("operator@"), "{:?}", journal.notes);
        let runs = bench.say("second", &["runs"]);
        assert!(runs.stdout.contains(own.as_str()) && runs.stdout.contains("rolled-back"), "{}", runs.all());

        // Twice does no harm, and the first operator finds it done.
        let cas = bench.cas();
        nothing_to_undo(&bench, &bench.say("second", &BACK));
        nothing_to_undo(&bench, &bench.say("third", &ROLLBACK));
        assert_eq!(bench.cas(), cas);
        let told = bench.say("first", &["resume", "--back"]);
        assert_eq!(bench.settled("first", &told, true), Ok(Stand::Old), "{}", told.all());

        start(&bench, "next", guard, None).end().assert(0, "succeeded", "changed");
        assert_eq!(bench.stand(), Ok(Stand::New));
    }
}

#[test]
fn a_run_that_succeeded_is_rolled_back_by_what_its_host_recorded() {
    let bench = Bench::start();
    start(&bench, "first", "60s", None).end().assert(0, "succeeded", "changed");
    let (run, _) = bench.run("first").unwrap();
    // New is settled: only `rollback` takes it back.
    let stays = bench.say("second", &BACK);
    assert_eq!((stays.code, bench.stand()), (Some(0), Ok(Stand::New)), "{}", stays.all());
    let unknown = bench.say("second", &[&ROLLBACK[..], &["19"]].concat());
    assert_eq!((unknown.code, bench.stand()), (Some(5), Ok(Stand::New)), "{}", unknown.all());
    let said = bench.say("second", &[&ROLLBACK[..], &[&run.as_str()[..18]]].concat());
    put_back(&bench, &said);
    nothing_to_undo(&bench, &bench.say("second", &ROLLBACK));
    let known = bench.host.holders(&bench.host.new);
    assert!(known.is_empty(), "{known:?}");
}

#[test]
fn an_earlier_run_is_known_after_a_later_one_that_was_taken_back() {
    let bench = Bench::start();
    start(&bench, "first", "off", None).end().assert(0, "succeeded", "changed");
    let (run, _) = bench.run("first").unwrap();
    fs::write(bench.host.controller().join("token"), "test-token-later").unwrap();
    bench.host.pin_runner(0);
    start(&bench, "later", "60s", None).end().assert(2, "rolled-back", "rolled-back");
    bench.host.sh("rm /run/forgejo-runner/pinned");
    assert_eq!(bench.stand(), Ok(Stand::New));
    let told = bench.say("second", &["runs", "--from-hosts", "-i", "inventory.toml", run.as_str()]);
    let wanted = json!({ "event": "run-recorded", "run": run, "hosts": [{ "host": NAME, "phase": "new" }] });
    assert_eq!(told.events, [wanted]);
    // The newest one has nothing to undo, and nobody guesses that another was meant.
    let newest = bench.say("second", &ROLLBACK);
    assert!(newest.stdout.contains("there is nothing to undo"), "{}", newest.all());
    let stays = bench.say("second", &[&BACK[..], &[run.as_str()]].concat());
    assert_eq!((stays.code, bench.stand()), (Some(0), Ok(Stand::New)), "{}", stays.all());
    put_back(&bench, &bench.say("second", &[&ROLLBACK[..], &[run.as_str()]].concat()));
}

#[test]
fn of_two_who_settle_the_second_is_told_of_the_first() {
    let bench = Bench::start();
    cut_off(&bench, "off", RESTARTED);
    // It holds the host, and has put nothing back.
    let mut second = Controller::start(bench.host.keyswap("second"), &BACK, Some("call:5:after"));
    assert!(second.stops());
    let cas = bench.cas();
    let third = bench.say("third", &BACK);
    third.assert(8, "failed", "skipped");
    let reason = third.host()["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(&format!("pid {} since 20", second.id())), "{reason}");
    assert_eq!(bench.cas(), cas);
    second.signal("CONT");
    put_back(&bench, &second.end());
}

#[test]
fn a_controller_that_sleeps_is_taken_the_lock_from_and_changes_nothing_when_it_wakes_up() {
    let bench = Bench::start();
    let first = start(&bench, "first", "off", Some(RESTARTED));
    let (run, _) = bench.run("first").unwrap();
    assert_eq!(bench.say("second", &BACK).code, Some(8));
    let unlock = ["unlock", NAME, "-i", "inventory.toml", "--reason", "it sleeps", "--run", run.as_str()];
    let unlocked = bench.say("second", &unlock);
    assert_eq!(unlocked.code, Some(0), "{}", unlocked.all());
    let said = bench.say("second", &BACK);
    put_back(&bench, &said);
    let (runner, cas) = (bench.host.runner(), bench.cas());
    first.signal("CONT");
    let woken = first.end();
    assert_eq!(woken.code, Some(2), "{}", woken.all());
    assert_eq!((bench.stand(), bench.host.runner(), bench.cas()), (Ok(Stand::Old), runner, cas), "{}", woken.all());
}

#[test]
fn what_cannot_be_put_back_is_mended_by_what_the_host_recorded() {
    let bench = Bench::start();
    cut_off(&bench, "off", PLACED);
    bench.host.sh(&format!("echo somebody-else >{TOKEN_FILE}"));
    let said = bench.say("second", &BACK);
    said.assert(3, "dirty", "dirty");
    let mend = said.host()["mend"].as_array().unwrap().clone();
    for line in &mend {
        bench.host.sh(line.as_str().unwrap());
    }
    let (own, _) = bench.run("second").unwrap();
    let settle = format!("keyswap resume {own} --back");
    assert!(!mend.is_empty() && said.host()["notes"].to_string().contains(&settle), "{}", said.all());
    let settled = bench.say("second", &["resume", own.as_str(), "--back"]);
    put_back(&bench, &settled);
    // For people: programs get the run's last event, which has no notes.
    let mut shown = Command::new(env!("CARGO_BIN_EXE_keyswap"));
    shown.args(["--state-dir", "second", "runs", own.as_str()]).current_dir(bench.host.controller());
    let shown = String::from_utf8(shown.output().unwrap().stdout).unwrap();
    assert!(shown.contains("takes back run"), "{shown}");
}

#[test]
fn a_host_without_a_manifest_goes_back_by_its_own_list() {
    let bench = Bench::start();
    cut_off(&bench, "60s", RESTARTED);
    let (run, _) = bench.run("first").unwrap();
    bench.host.sh(&format!("rm /var/lib/keyswap/runs/{run}/manifest"));
    let said = bench.say("second", &BACK);
    put_back(&bench, &said);
    assert!(said.stdout.contains("it keeps no manifest"), "{}", said.all());
}

#[test]
fn the_runs_that_a_host_knows_are_told() {
    let bench = Bench::start();
    let runs = |args: &[&str]| bench.say("second", &[&["runs", "--from-hosts", "-i", "inventory.toml"], args].concat());
    let none = runs(&[]);
    assert!(none.code == Some(0) && none.stdout.contains("knows a run"), "{}", none.all());
    cut_off(&bench, "off", PLACED);
    let (run, _) = bench.run("first").unwrap();
    let said = runs(&[&run.as_str()[..18]]);
    assert_eq!((said.code, &said.events[0]["run"]), (Some(0), &json!(run)), "{}", said.all());
    let (host, phase) = (&said.events[0]["hosts"][0]["host"], &said.events[0]["hosts"][0]["phase"]);
    assert!(host == NAME && phase.as_str().unwrap().starts_with("armed (by operator@"), "{}", said.all());
    assert_eq!((runs(&["19"]).code, runs(&["19"]).stdout.as_str()), (Some(5), ""));
    bench.host.stop_sshd();
    assert_eq!(runs(&[]).code, Some(4));
    bench.host.start_sshd();
    let unknown = bench.say("second", &["resume"]);
    assert!(unknown.code == Some(5) && unknown.stderr.contains("--from-hosts"), "{}", unknown.all());
}

/// A second operator's way back that is killed.
struct Killed {
    rollback: bool,
    what: &'static str,
    when: &'static str,
}

impl Row for Killed {
    fn name(&self, at: u32) -> String {
        let command = if self.rollback { "rollback" } else { "resume --back" };
        format!("{command} --from-hosts killed at {}:{at}:{}", self.what, self.when)
    }

    fn case(&self, bench: &Bench, at: u32) -> Option<Result<Stand, String>> {
        let state = |who: &str| format!("{who}-{}-{}-{at}-{}", self.rollback, self.what, self.when);
        let shells_gone =
            || wait_until("its shell is gone", || !bench.host.exec("pgrep -f '^sh -c read -r NONCE'").status.success());
        let guard = if at.is_multiple_of(2) { "off" } else { "60s" };
        if self.rollback {
            start(bench, &state("first"), guard, None).end().assert(0, "succeeded", "changed");
        } else {
            start(bench, &state("first"), guard, Some(RESTARTED)).kill();
            shells_gone();
        }
        let args: &[&str] = if self.rollback { &ROLLBACK } else { &BACK };
        let point = format!("{}:{at}:{}", self.what, self.when);
        let mut second = Controller::start(bench.host.keyswap(&state("second")), args, Some(&point));
        let stopped = second.stops();
        let cut = if stopped { second.kill() } else { second.end() };
        shells_gone();
        // By the second one's own journal, where it had got that far; else a third one asks the hosts again.
        let own = bench.say(&state("second"), if self.rollback { &["rollback"] } else { &["resume"] });
        let said = if own.code == Some(5) { bench.say(&state("third"), args) } else { own };
        let settled = match (bench.stand(), bench.phase().0.as_str(), said.code) {
            (Ok(Stand::Old), "old", Some(0)) => Ok(Stand::Old),
            other => Err(format!("{other:?}\n--- {}\n--- {}", cut.all(), said.all())),
        };
        bench.reset();
        if stopped || settled.is_err() { Some(settled) } else { None }
    }
}

#[test]
fn a_second_operator_who_is_killed_anywhere_is_followed_by_a_third() {
    let points = [("journal", "before"), ("call", "after")];
    let rows =
        [false, true].into_iter().flat_map(|rollback| points.map(|(what, when)| Killed { rollback, what, when }));
    let count = sweep("real kills of a second operator", &rows.collect::<Vec<_>>());
    assert!(count.cases > 25 && count.old == count.cases, "the points are all there");
}

#[test]
fn a_run_that_is_at_work_is_left_alone() {
    let bench = Bench::start();
    let first = start(&bench, "first", "60s", Some(PLACED));
    let (run, _) = bench.run("first").unwrap();
    let (picture, cas) = (bench.host.picture(), bench.cas());
    let said = bench.say("second", &BACK);
    said.assert(8, "failed", "skipped");
    let reason = said.host()["reason"].as_str().unwrap().to_owned();
    for word in [run.as_str(), "operator@", "at work"] {
        assert!(reason.contains(word), "{word}: {}", said.all());
    }
    picture.assert_same(&bench.host.picture(), &said);
    assert_eq!((bench.cas(), bench.run("second")), (cas, None), "{}", said.all());
    first.signal("CONT");
    first.end().assert(0, "succeeded", "changed");
    assert_eq!(bench.stand(), Ok(Stand::New));
}

#[test]
fn hosts_that_cannot_be_asked_are_not_passed_over() {
    let bench = Bench::start();
    cut_off(&bench, "off", PLACED);
    let inventory = fs::read_to_string(bench.host.controller().join("inventory.toml")).unwrap();
    let other = |name: &str| {
        let text = bench.host.inventory_host(NAME).replace(NAME, name);
        text.replace(&format!("port = {}", bench.host.port()), &format!("port = {}", free_port()))
    };
    // A stranger that is silent may be one of the run's machines under another name only if the run does not tell.
    fs::write(bench.host.controller().join("two.toml"), format!("{inventory}\n{}", other("stranger"))).unwrap();
    let said = bench.say("second", &["resume", "--back", "--from-hosts", "-i", "two.toml"]);
    assert_eq!(said.code, Some(4), "{}", said.all());
    assert_eq!(bench.stand(), Ok(Stand::Old), "{}", said.all());
    let hosts = said.last()["hosts"].as_array().unwrap().clone();
    assert_eq!((&hosts[0]["status"], &hosts[1]["status"]), (&"rolled-back".into(), &"unreachable".into()));

    // Nobody answers: nothing is known.
    bench.host.stop_sshd();
    let said = bench.say("third", &BACK);
    assert_eq!(said.code, Some(4), "{}", said.all());
    bench.host.start_sshd();
    nothing_to_undo(&bench, &bench.say("third", &BACK));
}

#[test]
fn a_journal_that_contradicts_the_host_is_noticed() {
    let bench = Bench::start();
    cut_off(&bench, "off", RESTARTED);
    let (run, _) = bench.run("first").unwrap();
    let journal = bench.host.controller().join(format!("first/runs/{run}/journal.jsonl"));
    let whole = fs::read_to_string(&journal).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let says = |said: &Said| said.stdout.contains("was changed or cut");
    fs::write(&journal, format!("{}\n", lines[..8].join("\n"))).unwrap();
    // Cut so far that nothing is left of the host, it is not passed over either.
    let all_of_it = fs::read(&journal).unwrap();
    fs::write(&journal, format!("{}\n", lines[..3].join("\n"))).unwrap();
    let said = bench.say("first", &["resume", "--back"]);
    said.assert(3, "dirty", "owed");
    assert!(said.all().contains("--from-hosts"), "{}", said.all());
    assert_eq!(fs::read_to_string(&journal).unwrap().lines().count(), 3, "nothing is written into it");
    fs::write(&journal, all_of_it).unwrap();
    // The journal alone is not believed: nothing is done by it, and the way out is said.
    let cas = bench.cas();
    for recovery in [&["resume"][..], &["resume", "--back"], &["rollback"]] {
        let said = bench.say("first", recovery);
        said.assert(3, "dirty", "owed");
        assert!(said.all().contains("was changed or cut") && said.all().contains("--from-hosts"), "{}", said.all());
        assert_eq!((bench.cas(), bench.host.read(TOKEN_FILE)), (cas.clone(), bench.host.new.clone()));
    }
    let said = bench.say("first", &BACK);
    put_back(&bench, &said);
    assert!(says(&said), "{}", said.all());
    let newer = whole.replacen("\"keyswap-journal\":1", "\"keyswap-journal\":2", 1);
    let altered = whole.replacen("runner-01", "runner-02", 1);
    for (text, why) in [(newer, "use the newer keyswap"), (altered, "chain is broken at line 3")] {
        fs::write(&journal, text).unwrap();
        let said = bench.say("first", &["resume", "--back", run.as_str()]);
        assert_eq!(said.code, Some(1), "{}", said.all());
        assert!(said.stderr.contains(why), "{}", said.all());
    }
}
