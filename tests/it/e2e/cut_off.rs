//! A run that is disturbed in its midst: a lost link, a killed controller, Ctrl-C.

use std::fs;
use std::time::{Duration, Instant};

use keyswap::sandbox::forge::Ending;

use crate::support::runner_host::{
    AtWork, CONTROL_FILE, DATA, ENV_FILE, LIVE, Picture, Playbook, Runner, RunnerHost, Said, TOKEN_FILE, restart, whole,
};
use crate::support::wait_until;

/// A restart that waits, on its way to the new token, until the test opens the gate.
fn gated() -> Playbook {
    let gate = format!(
        "if grep -q {TOKEN_FILE} {ENV_FILE}; then : >{LIVE}/at-gate; until [ -e {LIVE}/gate-open ]; do sleep 0.05; done; fi; {CONTROL_FILE} restart"
    );
    Playbook::rotate().with("restart", restart(&gate, "200ms", "60s"))
}

struct Cut {
    host: RunnerHost,
    before: Picture,
    runner: Runner,
    work: AtWork,
}

impl Cut {
    /// A run that stands at the gate.
    fn at_gate() -> Self {
        let host = RunnerHost::start();
        let (before, runner) = (host.picture(), host.runner().unwrap());
        let args = host.run_args(&gated());
        let work = AtWork::start(&mut host.keyswap("state"), &args.iter().map(String::as_str).collect::<Vec<_>>());
        wait_until("the run is at the gate", || host.path(LIVE).join("at-gate").exists());
        assert_eq!(host.read(TOKEN_FILE), host.new, "the new token is in place, the runner is not restarted");
        let run = run_of(&host);
        let stage = host.path(DATA).join(format!(".keyswap-{run}-old.2"));
        assert_eq!(fs::read_to_string(stage).unwrap(), host.old, "the way back is set aside under the run's name");
        Self { host, before, runner, work }
    }

    fn open_gate(&self) {
        self.host.sh(&format!(": >{LIVE}/gate-open"));
    }

    /// The controller dies without a word.
    fn kill(self) -> (RunnerHost, Picture, Runner) {
        self.work.signal("KILL");
        assert_eq!(self.work.end().code, None);
        (self.host, self.before, self.runner)
    }
}

#[track_caller]
fn is_old(host: &RunnerHost, before: &Picture, runner: &Runner, said: &Said) {
    before.assert_same(&host.picture(), said);
    let now = host.runner().unwrap_or_else(|| panic!("the runner is not up: {}", said.all()));
    assert_eq!((now.pointer, now.token), (runner.pointer.clone(), runner.token.clone()), "{}", said.all());
    assert_eq!(host.holders(&host.new), [""; 0], "{}", said.all());
    // Nothing of the run lives on, to restart the runner behind our back.
    let left = host.exec("pgrep -f 'gate-ope[n]'");
    assert!(!left.status.success(), "{}{}", String::from_utf8_lossy(&left.stdout), said.all());
}

#[test]
fn a_lost_link_is_connected_to_again_and_the_host_goes_back() {
    let cut = Cut::at_gate();
    assert!(cut.host.kill_sshd_children() > 0);
    let said = cut.work.end();
    said.assert(2, "rolled-back", "rolled-back");
    assert!(said.steps().contains(&("restart".to_owned(), "unknown".to_owned())), "{}", said.all());
    is_old(&cut.host, &cut.before, &cut.runner, &said);
}

#[test]
fn a_killed_controllers_run_is_taken_back() {
    let (host, before, runner) = Cut::at_gate().kill();
    // Nobody else may begin on this host.
    let other = host.rotate(&Playbook::rotate(), &[]);
    assert_eq!(other.code, Some(8), "{}", other.all());
    let said = host.say(&["resume", "--back", &run_of(&host)]);
    said.assert(0, "rolled-back", "rolled-back");
    is_old(&host, &before, &runner, &said);
    let again = host.say(&["resume", "--back", &run_of(&host)]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    is_old(&host, &before, &runner, &again);
}

#[test]
fn a_killed_controllers_run_goes_on_to_the_new_token() {
    let cut = Cut::at_gate();
    cut.open_gate();
    let (host, ..) = cut.kill();
    let said = host.say(&["resume"]);
    said.assert(0, "succeeded", "changed");
    assert_eq!(host.read(TOKEN_FILE), host.new);
    let runner = host.runner().unwrap();
    assert_eq!((runner.pointer.as_deref(), runner.token), (Some(TOKEN_FILE), whole(&host.new)));
    assert_eq!(host.holders(&host.new), [TOKEN_FILE]);
    let again = host.say(&["resume"]);
    assert_eq!(again.code, Some(0), "{}", again.all());
}

#[test]
fn a_run_whose_secret_is_another_one_now_goes_back_and_that_is_no_success() {
    let (host, before, runner) = Cut::at_gate().kill();
    fs::write(host.controller().join("token"), "test-token-another").unwrap();
    let said = host.say(&["resume"]);
    said.assert(2, "rolled-back", "rolled-back");
    assert!(said.host()["reason"].to_string().contains("is another one now"), "{}", said.all());
    is_old(&host, &before, &runner, &said);
}

#[test]
fn a_killed_controllers_run_is_taken_back_by_rollback_too() {
    let (host, before, runner) = Cut::at_gate().kill();
    let said = host.say(&["rollback"]);
    said.assert(0, "rolled-back", "rolled-back");
    is_old(&host, &before, &runner, &said);
}

#[test]
fn ctrl_c_settles_what_was_touched() {
    let cut = Cut::at_gate();
    cut.work.signal("INT");
    cut.open_gate();
    let said = cut.work.end();
    said.assert(130, "interrupted", "rolled-back");
    is_old(&cut.host, &cut.before, &cut.runner, &said);
}

#[test]
fn ctrl_c_twice_leaves_at_once_and_the_journal_is_whole() {
    let cut = Cut::at_gate();
    cut.work.signal("INT");
    wait_until("the first one is taken", || cut.work.so_far().contains("again to leave at once"));
    let second = Instant::now();
    cut.work.signal("TERM");
    let said = cut.work.end();
    assert_eq!(said.code, Some(130), "{}", said.all());
    assert!(second.elapsed() < Duration::from_secs(5), "the gate is closed, and nobody waits for it");
    assert!(!said.stdout.contains("run-finished"), "it is not claimed that anything was settled: {}", said.all());
    let run = run_of(&cut.host);
    let shown = cut.host.say(&["runs", &run]);
    assert_eq!(shown.events[0]["status"], "cut-off", "{}", shown.all());
    let steps = shown.events[0]["hosts"][0]["steps"].as_array().unwrap();
    assert!(steps.iter().any(|step| step["step"] == "restart" && step["status"] == "unknown"), "{}", shown.all());
    let settled = cut.host.say(&["resume", "--back"]);
    settled.assert(0, "rolled-back", "rolled-back");
    is_old(&cut.host, &cut.before, &cut.runner, &settled);
}

#[test]
fn a_host_whose_sshd_is_down_while_it_is_settled_is_owed_until_it_is_back() {
    let cut = Cut::at_gate();
    cut.host.stop_sshd();
    assert!(cut.host.kill_sshd_children() > 0);
    let said = cut.work.end();
    said.assert(3, "dirty", "owed");
    let host = said.host();
    let mend = host["mend"].as_array().expect("the steps are printed").clone();
    assert!(mend.len() > 3 && mend.iter().all(|line| line.as_str().unwrap().starts_with("sudo ")), "{}", said.all());
    assert!(host["notes"].to_string().contains("when the host is back: keyswap resume"), "{}", said.all());
    assert!(host["credentials"][0]["now"].is_null(), "nobody looked: {}", said.all());

    cut.host.start_sshd();
    // It had failed and went back: that is no success of a run, and it is settled.
    let settled = cut.host.say(&["resume"]);
    settled.assert(2, "rolled-back", "rolled-back");
    is_old(&cut.host, &cut.before, &cut.runner, &settled);
    let again = cut.host.say(&["resume"]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    assert!(again.stdout.contains("there is nothing to resume"), "{}", again.all());
}

#[test]
fn ctrl_c_while_a_publish_run_is_waited_for_settles_too() {
    let host = RunnerHost::start();
    host.publishing_ends_in(Ending::NeverEnds);
    let (before, runner) = (host.picture(), host.runner().unwrap());
    let args = host.run_args(&Playbook::rotate());
    let work = AtWork::start(&mut host.keyswap("state"), &args.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until("the publish run is dispatched", || host.dispatched() > 0);
    work.signal("INT");
    let said = work.end();
    said.assert(130, "interrupted", "rolled-back");
    is_old(&host, &before, &runner, &said);
}

/// The only unsettled run.
fn run_of(host: &RunnerHost) -> String {
    let runs = host.say(&["runs"]);
    let oldest = runs.events.last().unwrap_or_else(|| panic!("{}", runs.all()));
    oldest["run"].as_str().unwrap().to_owned()
}
