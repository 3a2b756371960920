//! Whether the runner is back: by the forge, by its own log, or not looked at, which is said.

use crate::support::runner_host::{LIVE, PID_FILE, Playbook, RunnerHost, Said, command};

use super::drain::{DOCKER_FILE, SYSTEMCTL_FILE, docker, install, restarts, systemctl};

const JOURNALCTL_FILE: &str = "/usr/local/bin/journalctl";
const SAYS: &str = "level=info msg=\"runner: rs1, with version: v12.1.2, declared successfully\"";

/// The step's own words on the verification.
fn verified(said: &Said) -> String {
    let mut finished = said.events.iter().filter(|event| event["event"] == "step-finished");
    let step = finished.rfind(|event| event["detail"].as_str().unwrap_or_default().contains("run #"));
    step.unwrap_or_else(|| panic!("{}", said.all()))["detail"].as_str().unwrap().to_owned()
}

fn notes(said: &Said) -> String {
    said.host()["notes"].to_string()
}

/// A journal that holds what every process of the unit wrote, each behind its invocation.
fn journalctl() -> String {
    format!(
        "#!/bin/sh\ncase \"$*\" in\n\
         *\" _SYSTEMD_INVOCATION_ID=$(cat {PID_FILE})\") cat {LIVE}/journal ;;\n\
         *) echo '{SAYS}' ;;\nesac\n"
    )
}

#[test]
fn a_unit_is_back_by_the_journal_of_its_new_process() {
    let host = RunnerHost::start();
    install(&host, SYSTEMCTL_FILE, &systemctl());
    install(&host, JOURNALCTL_FILE, &journalctl());
    host.sh(&format!("echo '{SAYS}' >{LIVE}/journal"));
    let playbook = restarts("systemd = \"forgejo-runner\"");
    let said = host.rotate(&playbook, &[]);
    said.assert(0, "succeeded", "changed");
    assert!(verified(&said).contains("the runner of runner-01 is online by its log"), "{}", said.all());
    assert!(!notes(&said).contains("connected to its forge again"), "{}", said.all());
    host.say(&["rollback"]).assert(0, "rolled-back", "rolled-back");

    // It says so only after a while: that is waited for.
    host.sh(&format!("echo 'level=info msg=\"Starting runner daemon\"' >{LIVE}/journal"));
    let later = format!("(sleep 5; echo '{SAYS}' >>{LIVE}/journal) </dev/null >/dev/null 2>&1 & :");
    let said = host.rotate(&playbook.before("verify", "it connects late", command(&later, "true")), &[]);
    said.assert(0, "succeeded", "changed");
    assert!(verified(&said).contains("is online by its log"), "{}", said.all());
    host.say(&["rollback"]).assert(0, "rolled-back", "rolled-back");
}

#[test]
fn a_runner_that_its_forge_does_not_know_is_taken_back() {
    let host = RunnerHost::start();
    install(&host, SYSTEMCTL_FILE, &systemctl());
    install(&host, JOURNALCTL_FILE, &journalctl());
    host.sh(&format!("echo 'level=error msg=\"unregistered runner\"' >{LIVE}/journal"));
    let before = host.picture();
    let said = host.rotate(&restarts("systemd = \"forgejo-runner\""), &[]);
    said.assert(2, "rolled-back", "rolled-back");
    assert!(said.host()["reason"].as_str().unwrap().contains("its forge does not know it"), "{}", said.all());
    assert_eq!(host.dispatched(), 0, "nothing was published");
    before.assert_same(&host.picture(), &said);
}

#[test]
fn a_container_is_back_by_what_it_wrote_since_its_start() {
    let host = RunnerHost::start();
    let logs = format!("'logs --since '*\" $pid -- beef02\") cat {LIVE}/journal ;;\n'ps --filter name='*)");
    let logs = logs.replace("'logs --since '*\" $pid", "\"logs --since $pid");
    install(&host, DOCKER_FILE, &docker().replacen("'ps --filter name='*)", &logs, 1));
    host.sh(&format!("echo 'msg=\"[poller 0] launched\"' >{LIVE}/journal"));
    let said = host.rotate(&restarts("docker = \"forgejo-runner\""), &[]);
    said.assert(0, "succeeded", "changed");
    assert!(verified(&said).contains("is online by its log"), "{}", said.all());
}

#[test]
fn where_the_forge_tells_the_log_is_not_asked_and_where_nothing_tells_it_is_said() {
    let host = RunnerHost::start();
    host.forge_sees_runner("idle");
    let named = Playbook::rotate();
    let verify = named.steps.last().unwrap().1.replace(" }", ", runner = \"{{ inventory_hostname }}\" }");
    let said = host.rotate(&named.with("verify", verify), &[]);
    said.assert(0, "succeeded", "changed");
    assert!(verified(&said).contains("runner-01 is online by the forge"), "{}", said.all());
    host.say(&["rollback"]).assert(0, "rolled-back", "rolled-back");

    let said = host.rotate(&Playbook::rotate(), &[]);
    said.assert(0, "succeeded", "changed");
    assert!(verified(&said).contains("the runner of runner-01 was not looked at"), "{}", said.all());
    assert!(notes(&said).contains("connected to its forge again was not looked at: nothing tells"), "{}", said.all());
}
