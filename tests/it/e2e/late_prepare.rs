//! A host that is still laying the way back when its controller is lost: it must not begin after it was given up.

use std::fs;

use crate::support::runner_host::{
    AtWork, CONTROL_FILE, LIVE, Playbook, RunnerHost, Said, TOKEN_FILE, restart, verify,
};
use crate::support::wait_until;

/// A run whose preparation stands still on the host, right before it takes hold, until the gate is opened.
fn preparing(playbook: &Playbook) -> (RunnerHost, AtWork) {
    let host = RunnerHost::start();
    // The host's tools are found here first, and without Perl it is they that are used.
    host.sh("! [ -e /usr/bin/perl ] || mount --bind /dev/null /usr/bin/perl");
    let sync = format!(
        "#!/bin/sh\ncase $PWD in /var/lib/keyswap/runs/*) : >{LIVE}/at-gate\n\
         until [ -e {LIVE}/gate-open ]; do sleep 0.05; done ;; esac\nexec /bin/sync \"$@\"\n"
    );
    host.sh("umask 077; : >/usr/local/sbin/sync; chmod 755 /usr/local/sbin/sync");
    fs::write(host.path("/usr/local/sbin/sync"), sync).unwrap();
    let args = host.run_args(playbook);
    let work = AtWork::start(&mut host.keyswap("state"), &args.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until("the host prepares", || host.path(LIVE).join("at-gate").exists());
    (host, work)
}

/// The old session goes on, now that the run is settled, and finds out; the next run is not held up by it.
fn late(host: &RunnerHost, said: &Said) {
    assert_eq!(said.host()["status"], "rolled-back", "{}", said.all());
    let (picture, runner) = (host.picture(), host.runner());
    host.sh(&format!(": >{LIVE}/gate-open"));
    wait_until("the old session is gone", || !host.exec("pgrep -x sudo").status.success());
    picture.assert_same(&host.picture(), said);
    assert_eq!(host.runner(), runner);
    let next = host.rotate(&Playbook::rotate().without("verify"), &[]);
    next.assert(0, "succeeded", "changed");
    assert_eq!(host.read(TOKEN_FILE), host.new);
}

#[test]
fn a_preparation_that_outlives_its_controller_does_not_take_hold() {
    let (host, work) = preparing(&Playbook::rotate().without("verify"));
    let before = host.picture();
    work.signal("KILL");
    assert_eq!(work.end().code, None);
    let said = host.say(&["resume", "--back"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    before.assert_same(&host.picture(), &said);
    late(&host, &said);
}

#[test]
fn a_preparation_that_outlives_its_link_does_not_take_hold() {
    let (host, work) = preparing(&Playbook::rotate().without("verify"));
    let before = host.picture();
    assert!(host.kill_sshd_children() > 0);
    let said = work.end();
    assert_eq!(said.code, Some(2), "{}", said.all());
    before.assert_same(&host.picture(), &said);
    late(&host, &said);
}

#[test]
fn a_preparation_that_outlives_its_controller_does_not_take_hold_when_no_other_is_sent() {
    // Before it is asked once more its runner is waited for, in vain.
    let named = verify("20s").replace(" }", ", runner = \"{{ inventory_hostname }}\" }");
    let impatient =
        restart(&format!("{CONTROL_FILE} restart"), "500ms", "20s").replace(" }", ", drain_timeout = \"1s\" }");
    let (host, work) = preparing(&Playbook::rotate().with("verify", named).with("restart", impatient));
    let before = host.picture();
    work.signal("KILL");
    assert_eq!(work.end().code, None);
    host.forge_sees_runner("active");
    let said = host.say(&["resume"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.host()["reason"].to_string().contains("the runner still works"), "{}", said.all());
    before.assert_same(&host.picture(), &said);
    let again = host.say(&["resume"]);
    assert!(again.stdout.contains("there is nothing to resume"), "{}", again.all());
    late(&host, &said);
}
