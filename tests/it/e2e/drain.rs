//! A runner that works on a job: it is waited for, or left alone.

use crate::support::runner_host::{
    AtWork, CONTROL_FILE as RUNNERCTL, ENV_FILE, LIVE, PID_FILE, Playbook, RunnerHost, Said, TOKEN_FILE, command,
    verify,
};
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

#[test]
fn a_job_that_begins_as_the_runner_is_restarted_is_told() {
    let host = host();
    let job = format!("echo job >{LIVE}/jobs/orders; until [ -s {LIVE}/jobs/busy ]; do sleep 0.02; done");
    // What restarts it is slower than the job is to begin, and then ends both.
    let playbook = Playbook::rotate().with(
        "restart",
        format!(
            "restart = {{ command = '''{job}; sleep 1; kill $(cat {LIVE}/jobs/busy); {CONTROL_FILE}''', pid_file = \"{LIVE}/jobs/pid\", healthy = \"200ms\", timeout = \"20s\" }}"
        ),
    );
    let said = host.rotate(&playbook, &[]);
    said.assert(0, "succeeded", "changed");
    let note = "a job began as the runner was restarted and may have been cut off: process:";
    assert!(said.host()["notes"].to_string().contains(note), "{}", said.all());
}

#[test]
fn a_rollback_waits_for_a_job_and_tells_of_one_that_it_cuts_off() {
    let host = host();
    let before = host.picture();
    let begins = format!("echo job >{LIVE}/jobs/orders; until [ -s {LIVE}/jobs/busy ]; do sleep 0.02; done");
    // The job begins on the runner that was restarted; then a step fails.
    let playbook = playbook("drain_timeout = \"1s\"").before("verify", "a job comes", command(&begins, "true")).before(
        "verify",
        "fails",
        command("exit 7", "true"),
    );
    let said = host.rotate(&playbook, &[]);
    said.assert(2, "rolled-back", "rolled-back");
    before.assert_same(&host.picture(), &said);
    assert!(said.stdout.contains("waits for running jobs before the runner goes back: process:"), "{}", said.all());
    assert!(said.host()["notes"].to_string().contains("jobs that ran were cut off: process:"), "{}", said.all());

    // One that ends in time is not cut off.
    let playbook = Playbook { steps: playbook.steps.clone(), ..playbook }.with(
        "restart",
        format!(
            "restart = {{ command = \"{CONTROL_FILE}\", pid_file = \"{LIVE}/jobs/pid\", healthy = \"200ms\", timeout = \"20s\", drain_timeout = \"60s\" }}"
        ),
    );
    host.sh(&format!("rm -f {LIVE}/jobs/busy"));
    let work = start(&host, &playbook);
    wait_until("the way back waits", || work.so_far().contains("waits for running jobs before the runner goes back"));
    order(&host, "done");
    let said = work.end();
    said.assert(2, "rolled-back", "rolled-back");
    assert!(!said.host()["notes"].to_string().contains("cut off"), "{}", said.all());
}

pub(super) const DOCKER_FILE: &str = "/usr/local/bin/docker";
pub(super) const SYSTEMCTL_FILE: &str = "/usr/local/bin/systemctl";

/// A program in the place of `docker`: the usual runner is a container, an engine for jobs stands in its network.
pub(super) fn docker() -> String {
    format!(
        "#!/bin/sh\npid=$(cat {PID_FILE})\ncase \"$*\" in\n\
         'ps --filter name='*) [ ! -e {LIVE}/hangs ] || sleep 60; cat {LIVE}/containers 2>/dev/null; : ;;\n\
         '-H unix:///run/own.sock ps '*) cat {LIVE}/own 2>/dev/null; : ;;\n\
         'ps -q --filter network=4e7') echo cafe01; echo beef02 ;;\n\
         'exec cafe01 docker ps '*) cat {LIVE}/nested 2>/dev/null; : ;;\n\
         *State.Running*) echo true false $pid beef02 0 $pid ;;\n\
         *StopTimeout*) echo 3600 ;;\n\
         *NetworkSettings*) echo 4e7 ;;\n\
         *.Path*cafe01) echo dockerd-entrypoint.sh dockerd ;;\n\
         *.Path*) echo forgejo-runner daemon ;;\n\
         'restart -t '*) echo \"$*\" >{LIVE}/restarted; {RUNNERCTL} restart ;;\n\
         *) exit 1 ;;\nesac\n"
    )
}

/// A program in the place of `systemctl`, that knows one unit.
pub(super) fn systemctl() -> String {
    format!(
        "#!/bin/sh\ncase \"$*\" in\n\
         *TimeoutStopUSec*) echo TimeoutStopUSec=5s ;;\n\
         'show '*) echo LoadState=loaded; echo ActiveState=active; echo SubState=running; echo MainPID=$(cat {PID_FILE});\n\
         echo InvocationID=$(cat {PID_FILE}); echo NRestarts=0 ;;\n\
         'restart '*) {RUNNERCTL} restart ;;\n\
         daemon-reload | 'reset-failed '*) ;;\n\
         *) exit 1 ;;\nesac\n"
    )
}

pub(super) fn install(host: &RunnerHost, file: &str, program: &str) {
    host.sh(&format!("mkdir -p {} && : >{file} && chmod 755 {file}", file.rsplit_once('/').unwrap().0));
    std::fs::write(host.path(file), program).unwrap();
}

pub(super) fn restarts(how: &str) -> Playbook {
    Playbook::rotate().with(
        "restart",
        format!("restart = {{ {how}, healthy = \"200ms\", timeout = \"20s\", drain_timeout = \"60s\" }}"),
    )
}

/// A task's container is there: the run waits, and goes on when it is gone.
fn waits_for(host: &RunnerHost, playbook: &Playbook, list: &str) {
    host.sh(&format!("echo FORGEJO-ACTIONS-TASK-7_x >{LIVE}/{list}"));
    let before = host.picture();
    let work = start(host, playbook);
    wait_until("the run waits", || {
        work.so_far().contains("waits for running jobs: container:FORGEJO-ACTIONS-TASK-7_x")
    });
    before.assert_same(&host.picture(), &Said::new(None, Vec::new(), Vec::new()));
    host.sh(&format!("rm {LIVE}/{list}"));
    let said = work.end();
    said.assert(0, "succeeded", "changed");
    host.say(&["rollback"]).assert(0, "rolled-back", "rolled-back");
}

#[test]
fn jobs_of_a_runner_in_docker_are_containers_of_its_engines() {
    let host = RunnerHost::start();
    install(&host, DOCKER_FILE, &docker());
    let playbook = restarts("docker = \"forgejo-runner\"");
    waits_for(&host, &playbook, "containers");
    waits_for(&host, &playbook, "nested");
    // The time that it would need to stop is more than a restart gives it.
    let said = host.rotate(&playbook, &["--check"]);
    assert!(
        said.stdout.contains("may take 3600 s to stop, and its restart gives it 70 s (`timeout`, `drain_timeout`)"),
        "{}",
        said.all()
    );
}

/// The container's own time to stop, where it is longer than what a restart would give: for as long as jobs are waited for.
#[test]
fn a_container_gets_the_time_to_stop_that_it_was_given() {
    let host = RunnerHost::start();
    // (what the container is given, what it gets)
    for (own, gets) in [("45", "55"), ("5", "10"), ("3600", "70"), ("", "10")] {
        install(&host, DOCKER_FILE, &docker().replace("echo 3600", &format!("echo {own}")));
        let said = host.rotate(&restarts("docker = \"forgejo-runner\""), &[]);
        said.assert(0, "succeeded", "changed");
        let order = std::fs::read_to_string(host.path(LIVE).join("restarted")).unwrap();
        assert_eq!(order.trim(), format!("restart -t {gets} -- forgejo-runner"), "{own}: {}", said.all());
        let cut = said.stdout.contains("a job that begins at that very moment is cut off");
        assert_eq!(cut, own == "3600", "{}", said.all());
        host.say(&["rollback"]).assert(0, "rolled-back", "rolled-back");
    }
    // Whoever waits for no job, or caps the step, has said how long it may take.
    install(&host, DOCKER_FILE, &docker());
    let off = restarts("docker = \"forgejo-runner\", drain = \"off\"");
    host.rotate(&off, &[]).assert(0, "succeeded", "changed");
    let order = std::fs::read_to_string(host.path(LIVE).join("restarted")).unwrap();
    assert_eq!(order.trim(), "restart -t 10 -- forgejo-runner");
}

#[test]
fn jobs_of_a_runner_under_systemd_are_found_in_its_own_engine_too() {
    let host = RunnerHost::start();
    install(&host, DOCKER_FILE, &docker());
    install(&host, SYSTEMCTL_FILE, &systemctl());
    let env = host.read(ENV_FILE);
    std::fs::write(host.path(ENV_FILE), format!("DOCKER_HOST=unix:///run/own.sock\n{env}")).unwrap();
    host.control("restart");
    let playbook = restarts("systemd = \"forgejo-runner\"");
    waits_for(&host, &playbook, "own");
    let said = host.rotate(&playbook, &["--check"]);
    assert!(said.stdout.contains("is killed 5 s after it was told to stop"), "{}", said.all());
}

#[test]
fn an_engine_that_does_not_answer_is_no_idle_one() {
    let host = RunnerHost::start();
    install(&host, DOCKER_FILE, &docker().replace("sleep 60", "exit 1"));
    host.sh(&format!(": >{LIVE}/hangs"));
    let said = host.rotate(&restarts("docker = \"forgejo-runner\""), &["--check"]);
    let words = "running jobs may have been missed: the docker engine does not answer";
    assert!(said.stdout.contains(words), "{}", said.all());
}
