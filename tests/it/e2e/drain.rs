//! A runner that works on a job: it is waited for, or left alone.

use crate::support::runner_host::{AtWork, ENV_FILE, LIVE, Playbook, RunnerHost, Said, TOKEN_FILE, command, verify};
use crate::support::wait_until;

const PROGRAM_FILE: &str = "/usr/local/sbin/forgejo-runner";
const CONTROL_FILE: &str = "/usr/local/sbin/jobctl";

/// A daemon that is called like the real one, and has a process below it only while it works on a job.
const PROGRAM: &str = "#!/bin/sh\ncd \"$HOME\" || exit 1\necho $$ >pid\n: >up\n\
    while :; do read -r word <orders || continue; case $word in\n\
    job) sleep 300 & job=$!; echo \"$job\" >busy ;;\n\
    done) kill \"$job\"; wait \"$job\" 2>/dev/null; rm -f busy ;;\nesac; done\n";

/// Restarts it with the env file as its environment, and gives an idle one its orders to end.
fn control() -> String {
    format!(
        "#!/bin/sh\ncd {LIVE}/jobs || exit 1\n[ ! -s pid ] || kill \"$(cat pid)\" 2>/dev/null\nrm -f up\n\
         (set -a; . {ENV_FILE}; HOME={LIVE}/jobs exec setsid {PROGRAM_FILE}) </dev/null >/dev/null 2>&1 &\n\
         i=0; until [ -e up ]; do i=$((i+1)); [ $i -lt 200 ] || exit 1; sleep 0.02; done\n"
    )
}

/// A host with such a runner beside the usual one.
fn host() -> RunnerHost {
    let host = RunnerHost::start();
    host.sh(&format!(
        "mkdir {LIVE}/jobs && mkfifo {LIVE}/jobs/orders && : >{PROGRAM_FILE} && : >{CONTROL_FILE} && chmod 755 {PROGRAM_FILE} {CONTROL_FILE}"
    ));
    std::fs::write(host.path(PROGRAM_FILE), PROGRAM).unwrap();
    std::fs::write(host.path(CONTROL_FILE), control()).unwrap();
    host.sh(CONTROL_FILE);
    host
}

fn order(host: &RunnerHost, word: &str) {
    host.sh(&format!("echo {word} >{LIVE}/jobs/orders"));
    wait_until("the runner obeys", || job(host).is_some() == (word == "job"));
}

/// The job that runs, if it does.
fn job(host: &RunnerHost) -> Option<String> {
    let pid = std::fs::read_to_string(host.path(LIVE).join("jobs/busy")).ok()?;
    let cmdline = std::fs::read(host.path(&format!("/proc/{}/cmdline", pid.trim()))).ok()?;
    cmdline.starts_with(b"sleep").then_some(pid)
}

fn playbook(drain: &str) -> Playbook {
    Playbook::rotate().with(
        "restart",
        format!(
            "restart = {{ command = \"{CONTROL_FILE}\", pid_file = \"{LIVE}/jobs/pid\", healthy = \"200ms\", timeout = \"20s\", {drain} }}"
        ),
    )
}

fn start(host: &RunnerHost, playbook: &Playbook) -> AtWork {
    let args = host.run_args(playbook);
    AtWork::start(&mut host.keyswap("state"), &args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_job_ends_before_the_runner_is_restarted() {
    let host = host();
    order(&host, "job");
    let (before, running) = (host.picture(), job(&host));
    let work = start(&host, &playbook("drain_timeout = \"60s\""));
    wait_until("the run waits", || work.so_far().contains("waits for running jobs: process:"));
    before.assert_same(&host.picture(), &Said::new(None, Vec::new(), Vec::new()));
    assert!(running.is_some() && job(&host) == running, "it still runs");
    order(&host, "done");
    let said = work.end();
    said.assert(0, "succeeded", "changed");
    assert_eq!(host.read(TOKEN_FILE), host.new);
}

#[test]
fn a_job_that_never_ends_stops_the_run_before_anything_is_changed() {
    let host = host();
    order(&host, "job");
    let (before, running) = (host.picture(), job(&host));
    let said = host.rotate(&playbook("drain_timeout = \"1s\""), &[]);
    said.assert(2, "failed", "failed");
    assert!(said.stdout.contains("the runner still works after 1 s: process:"), "{}", said.all());
    before.assert_same(&host.picture(), &said);
    assert!(running.is_some() && job(&host) == running, "it still runs");
    assert!(!host.path("/var/lib/keyswap/runs").exists(), "the host was not even taken: {}", said.all());
}

#[test]
fn a_job_that_begins_in_mid_run_is_not_killed_either() {
    let host = host();
    let (before, orders) =
        (host.picture(), format!("echo job >{LIVE}/jobs/orders; until [ -s {LIVE}/jobs/busy ]; do sleep 0.02; done"));
    let playbook = playbook("drain_timeout = \"1s\"").before("restart", "a job comes", command(&orders, "true"));
    let said = host.rotate(&playbook, &[]);
    said.assert(2, "rolled-back", "rolled-back");
    before.assert_same(&host.picture(), &said);
    assert!(job(&host).is_some(), "it still runs: {}", said.all());
}

#[test]
fn without_drain_nobody_is_waited_for() {
    let host = host();
    order(&host, "job");
    let said = host.rotate(&playbook("drain = \"off\""), &[]);
    said.assert(0, "succeeded", "changed");
    assert!(!said.stdout.contains("running jobs"), "{}", said.all());
}

#[test]
fn a_job_that_only_the_forge_knows_of_is_waited_for() {
    let host = host();
    host.forge_sees_runner("active");
    let named = verify("20s").replace(" }", ", runner = \"{{ inventory_hostname }}\" }");
    let before = host.picture();
    let work = start(&host, &playbook("drain_timeout = \"60s\"").with("verify", named));
    wait_until("the run waits", || work.so_far().contains("waits for running jobs: runner-01 is active by the forge"));
    before.assert_same(&host.picture(), &Said::new(None, Vec::new(), Vec::new()));
    host.forge_sees_runner("idle");
    let said = work.end();
    said.assert(0, "succeeded", "changed");
}
