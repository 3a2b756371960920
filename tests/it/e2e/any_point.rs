//! A run disturbed after each line that it says: whatever the moment, the host ends wholly old or wholly new.
//!
//! The disturbance comes a little after the line, so the exact moment differs from run to run; the promise does not.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use crate::support::runner_host::{
    CONTROL_FILE, ENV_FILE, Picture, Playbook, RunnerHost, SHARED_FILE, Said, TOKEN_FILE, env_text, restart, whole,
};

/// Quick, so that every line can have its turn.
fn playbook() -> Playbook {
    Playbook::rotate().without("verify").with("restart", restart(&format!("{CONTROL_FILE} restart"), "50ms", "20s"))
}

/// Starts a run, waits for its `lines`-th line, disturbs it, and waits for its end. None: it said fewer lines.
fn disturbed(host: &RunnerHost, state: &str, lines: usize, disturb: impl Fn(&mut Child)) -> Option<Said> {
    let mut command = host.keyswap(state);
    command.args(host.run_args(&playbook())).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    for _ in 0..lines {
        if out.read_line(&mut said).unwrap() == 0 {
            assert!(child.wait().unwrap().success(), "{said}");
            return None;
        }
    }
    disturb(&mut child);
    out.read_to_string(&mut said).unwrap();
    let mut stderr = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
    Some(Said::new(child.wait().unwrap().code(), said.into_bytes(), stderr))
}

#[track_caller]
fn is_old(host: &RunnerHost, before: &Picture, said: &Said) {
    before.assert_same(&host.picture(), said);
    let runner = host.runner().unwrap_or_else(|| panic!("the runner is not up: {}", said.all()));
    let is = (runner.pointer.as_deref(), runner.token.as_str());
    assert_eq!(is, (Some(SHARED_FILE), whole(&host.shared).as_str()), "{}", said.all());
    assert_eq!(host.holders(&host.new), [""; 0], "{}", said.all());
}

#[track_caller]
fn is_new(host: &RunnerHost, before: &Picture, said: &Said) {
    assert_eq!(before.changed(&host.picture()), [TOKEN_FILE, ENV_FILE], "{}", said.all());
    assert_eq!((host.read(TOKEN_FILE), host.read(ENV_FILE)), (host.new.clone(), env_text(TOKEN_FILE, false)));
    let runner = host.runner().unwrap_or_else(|| panic!("the runner is not up: {}", said.all()));
    let is = (runner.pointer.as_deref(), runner.token.as_str());
    assert_eq!(is, (Some(TOKEN_FILE), whole(&host.new).as_str()), "{}", said.all());
}

/// Disturbs a run after each of its lines, on one host, which goes back to the old state in between. `settle` says whether
/// the host must be new now, or old.
fn after_each_line(disturb: impl Fn(&RunnerHost, &mut Child), settle: impl Fn(&RunnerHost, &str, &Said) -> bool) {
    let host = RunnerHost::start();
    let before = host.picture();
    let (mut old, mut new) = (0, 0);
    for lines in 1.. {
        // A state directory for each: the latest run is the disturbed one.
        let state = format!("state-{lines}");
        let Some(said) = disturbed(&host, &state, lines, |child| disturb(&host, child)) else {
            assert!(lines > 12 && old > 1 && new > 1, "{lines} lines, {old} old, {new} new");
            return;
        };
        if settle(&host, &state, &said) {
            is_new(&host, &before, &said);
            new += 1;
        } else {
            is_old(&host, &before, &said);
            old += 1;
        }
        let back = Said::of(&mut host.keyswap(&state), &["rollback"]);
        assert!(matches!(back.code, Some(0 | 5)), "{}\n{}", said.all(), back.all());
        is_old(&host, &before, &back);
    }
}

/// Settles a run that was cut off. None: it was killed before it had begun.
fn resumed(host: &RunnerHost, state: &str, args: &[&str]) -> Option<Said> {
    let runs = Said::of(&mut host.keyswap(state), &["runs"]);
    let said = Said::of(&mut host.keyswap(state), args);
    if runs.code == Some(0) && runs.events.is_empty() {
        return None;
    }
    assert_eq!(said.code, Some(0), "{}", said.all());
    let told = said.last()["hosts"].as_array().map(Vec::len);
    assert!(told == Some(1) || said.stdout.contains("there is nothing to"), "{}", said.all());
    Some(said)
}

#[test]
fn a_controller_killed_at_any_point_leaves_a_run_that_can_be_taken_back() {
    let settle = |host: &RunnerHost, state: &str, _: &Said| {
        let settled = resumed(host, state, &["resume", "--back"]);
        // What was let go before the kill is the new one, and stays.
        let let_go = settled.is_some_and(|said| said.stdout.contains("there is nothing to undo"));
        let_go && host.read(TOKEN_FILE) == host.new
    };
    after_each_line(|_, child| child.kill().unwrap(), settle);
}

#[test]
fn a_controller_killed_at_any_point_leaves_a_run_that_can_go_on() {
    let settle = |host: &RunnerHost, state: &str, _: &Said| resumed(host, state, &["resume"]).is_some();
    after_each_line(|_, child| child.kill().unwrap(), settle);
}

#[test]
fn ctrl_c_at_any_point_settles_the_host() {
    after_each_line(
        |_, child| {
            let pid = rustix::process::Pid::from_child(child);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        },
        |_, _, said| match said.code {
            Some(130) => false,
            Some(0) => true,
            _ => panic!("{}", said.all()),
        },
    );
}

#[test]
fn a_link_lost_at_any_point_settles_the_host() {
    after_each_line(
        |host, _| {
            host.kill_sshd_children();
        },
        |_, _, said| match said.code {
            Some(2 | 4) => false,
            Some(0) => true,
            _ => panic!("{}", said.all()),
        },
    );
}
