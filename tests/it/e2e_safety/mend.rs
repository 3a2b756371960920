//! An undo that cannot be done: the verdict is true, what is printed mends the host, and the run can be settled then.

use std::os::unix::fs::MetadataExt;

use serde_json::Value;

use super::typed;
use crate::support::runner_host::{
    CONTROL_FILE, DATA, ENV_FILE, Playbook, RunnerHost, SHARED_FILE, Said, TOKEN_FILE, command, restart, short, whole,
};

/// Puts the directory that jobs can write onto a file system of its own, with everything in it.
fn on_own_file_system(host: &RunnerHost, mount: &str) {
    host.host.sh(&format!(
        "cp -a {DATA} /tmp/aside && {mount} && chmod 700 {DATA} && chown 1000:1000 {DATA} &&
         cp -a /tmp/aside/. {DATA} && rm -rf /tmp/aside {DATA}/lost+found"
    ));
}

/// A rotation in whose middle something happens that no undo takes back, and that then fails.
fn spoilt(by: &str) -> Playbook {
    Playbook::rotate().before("point", "spoil", command(by, "true")).before("verify", "fail", command("exit 7", "true"))
}

fn mend_commands(said: &Said) -> Vec<String> {
    let Some(Value::Array(lines)) = said.host().get("mend") else { panic!("no mend commands: {}", said.all()) };
    lines.iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// Types the commands in, one by one, as the login user.
fn type_in(host: &RunnerHost, commands: &[String]) {
    for line in commands {
        assert!(line.starts_with("sudo "), "the login user cannot do this: {line}");
        let output = typed(host, line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The host was mended by hand: it is as before, and after `settle` the run is over and a new one may start.
#[track_caller]
fn assert_mended(host: &RunnerHost, before: &crate::support::runner_host::Picture, said: &Said, settle: &[&str]) {
    before.assert_same(&host.picture(), said);
    let runner = host.runner().expect("the runner is up");
    assert_eq!((runner.pointer.as_deref(), runner.token), (Some(SHARED_FILE), whole(&host.shared)), "{}", said.all());
    let settled = host.say(settle);
    settled.assert(0, "rolled-back", "rolled-back");
    before.assert_same(&host.picture(), &settled);
    assert!(host.runner().is_some());
    let again = host.rotate(&Playbook::rotate(), &[]);
    again.assert(0, "succeeded", "changed");
    assert_eq!(host.read(TOKEN_FILE), host.new);
}

#[track_caller]
fn assert_dirty_and_held(host: &RunnerHost, said: &Said) {
    said.assert(3, "dirty", "dirty");
    assert!(said.stdout.contains("--back"), "it is not said how the run is settled: {}", said.all());
    let refused = host.rotate(&Playbook::rotate(), &[]);
    assert_eq!(refused.code, Some(8), "a dirty host is not taken by a new run: {}", refused.all());
}

/// Mounts a small ext4 at the data directory: tmpfs knows no immutable files.
fn own_ext4() -> String {
    format!("truncate -s 8M /tmp/disk && mkfs.ext4 -q -F /tmp/disk && mount -o loop /tmp/disk {DATA} && rm /tmp/disk")
}

#[test]
fn a_directory_that_became_read_only_is_mended_by_what_is_printed() {
    let host = RunnerHost::start();
    on_own_file_system(&host, &format!("mount -t tmpfs tmpfs {DATA}"));
    let before = host.picture();
    let said = host.rotate(&spoilt(&format!("mount -o remount,ro {DATA}")), &[]);
    assert_dirty_and_held(&host, &said);
    assert_eq!(host.read(TOKEN_FILE), host.new, "the truth: it still holds the new one");
    assert_eq!(said.host()["credentials"][0]["now"], short(&host.new), "{}", said.all());
    let commands = mend_commands(&said);
    assert_eq!(commands[0], format!("sudo mount -o remount,rw {DATA}"));
    type_in(&host, &commands);
    assert_mended(&host, &before, &said, &["resume", "--back"]);
}

#[test]
fn an_immutable_directory_is_mended_by_what_is_printed() {
    let host = RunnerHost::start();
    on_own_file_system(&host, &own_ext4());
    let before = host.picture();
    // With a guard, which must not stand in the way of whoever mends the host.
    let guarded = Playbook {
        rollout: "batches = [\"100%\"]\nguard = \"60s\"\n".to_owned(),
        ..spoilt(&format!("chattr +i {DATA}"))
    };
    let said = host.rotate(&guarded, &[]);
    assert_dirty_and_held(&host, &said);
    let commands = mend_commands(&said);
    assert_eq!(commands[0], format!("sudo chattr -i {DATA}"));
    type_in(&host, &commands);
    assert_mended(&host, &before, &said, &["rollback"]);
}

#[test]
fn an_immutable_file_is_mended_by_what_is_printed() {
    let host = RunnerHost::start();
    on_own_file_system(&host, &own_ext4());
    let before = host.picture();
    let said = host.rotate(&spoilt(&format!("chattr +i {TOKEN_FILE}")), &[]);
    assert_dirty_and_held(&host, &said);
    assert_eq!(host.read(TOKEN_FILE), host.new, "the truth: it still holds the new one");
    assert_eq!(said.host()["credentials"][0]["now"], short(&host.new), "{}", said.all());
    let commands = mend_commands(&said);
    assert_eq!(commands[0], format!("sudo chattr -i {TOKEN_FILE}"));
    type_in(&host, &commands);
    assert_mended(&host, &before, &said, &["resume", "--back"]);
}

#[test]
fn a_read_only_env_file_leaves_the_content_back_and_the_rest_to_be_mended() {
    let host = RunnerHost::start();
    host.host.sh("mkdir /srv/etc && mount -t tmpfs tmpfs /srv/etc");
    host.host.sh(&format!(
        "cp -a {ENV_FILE} /srv/etc/runner.env && ln -sf /srv/etc/runner.env {ENV_FILE} && chmod 755 /srv/forgejo-runner"
    ));
    host.control("restart");
    let before = host.picture();
    let playbook = Playbook::rotate()
        .before("restart", "spoil", command("mount -o remount,ro /srv/etc", "true"))
        .before("verify", "fail", command("exit 7", "true"));
    let said = host.rotate(&playbook, &[]);
    assert_dirty_and_held(&host, &said);
    assert_eq!(host.read(TOKEN_FILE), host.old, "content goes back all the same");
    type_in(&host, &mend_commands(&said));
    assert_mended(&host, &before, &said, &["resume", "--back"]);
}

#[test]
fn a_runner_that_does_not_come_up_on_the_old_files_is_said_to_be_down() {
    let host = RunnerHost::start();
    let before = host.picture();
    // It comes up once, for the way forward, and not for the way back, until somebody removes the cause.
    let flaky = format!(
        "[ ! -e /run/forgejo-runner/broken ] || exit 9; touch /run/forgejo-runner/broken; {CONTROL_FILE} restart"
    );
    let playbook = Playbook::rotate().with("restart", restart(&flaky, "200ms", "20s")).before(
        "verify",
        "fail",
        command("exit 7", "true"),
    );
    let said = host.rotate(&playbook, &[]);
    assert_dirty_and_held(&host, &said);
    before.assert_same(&host.picture(), &said);
    assert!(said.host()["reason"].as_str().unwrap().contains("status 9"), "{}", said.all());
    host.host.sh("rm /run/forgejo-runner/broken");
    type_in(&host, &mend_commands(&said));
    host.host.sh("rm -f /run/forgejo-runner/broken");
    assert_mended(&host, &before, &said, &["resume", "--back"]);
}

#[test]
fn what_was_planted_beside_the_file_does_not_turn_the_mending_against_the_host() {
    let host = RunnerHost::start();
    on_own_file_system(&host, &format!("mount -t tmpfs tmpfs {DATA}"));
    let before = host.picture();
    let said = host.rotate(&spoilt(&format!("mount -o remount,ro {DATA}")), &[]);
    said.assert(3, "dirty", "dirty");
    host.host.sh("mkdir /srv/canary && echo canary >/srv/canary/file && chmod 600 /srv/canary/file");
    let canary = |what: &str| host.host.sh(&format!("stat -c '%a %u %g %i' /srv/canary {what}; ls -A /srv/canary"));
    let commands = mend_commands(&said);
    let clears = commands.iter().find_map(|line| line.strip_prefix("sudo rm -f "));
    let beside = clears.and_then(|line| line.split(' ').next()).expect("a name beside the file").to_owned();
    for target in ["/srv/canary", "/srv/canary/file", "/srv/canary/new"] {
        let was = canary("/srv/canary/file");
        host.host.sh("mount -o remount,rw /srv/forgejo-runner/data");
        host.host.sh(&format!("setpriv --reuid=1000 --regid=1000 --clear-groups ln -sfn {target} {beside}"));
        type_in(&host, &commands);
        assert_eq!(canary("/srv/canary/file"), was, "{target}");
        assert_eq!(host.path("/srv/canary/file").metadata().unwrap().uid(), 0);
        assert_eq!(host.read("/srv/canary/file"), "canary\n");
    }
    host.host.sh("rm -r /srv/canary");
    assert_mended(&host, &before, &said, &["resume", "--back"]);
}

#[test]
fn two_files_of_one_directory_come_back_on_a_full_disk() {
    let host = RunnerHost::start();
    on_own_file_system(&host, &format!("mount -t tmpfs -o size=1m tmpfs {DATA}"));
    host.host.sh(&format!("printf 'A=1\\nTOKEN=/old\\n' >{DATA}/jobs.env"));
    let before = host.picture();
    let point = format!(
        "point = {{ file = \"{DATA}/jobs.env\", key = \"TOKEN\", value = \"{TOKEN_FILE}\", reaches = \"jobs\" }}"
    );
    // Full to the last byte until everything that the undo writes has been written.
    let fill = command(&format!("dd if=/dev/zero of={DATA}/full bs=4k 2>/dev/null; true"), &format!("rm {DATA}/full"));
    let playbook = Playbook::rotate()
        .before("restart", "point the jobs", point)
        .before("restart", "fill", fill)
        .before("restart", "fail", command("exit 7", "true"));
    let said = host.rotate(&playbook, &[]);
    said.assert(2, "rolled-back", "rolled-back");
    before.assert_same(&host.picture(), &said);
}
