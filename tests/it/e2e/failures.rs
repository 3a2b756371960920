//! Each of the five steps made to fail: exit 2, and the host as it was to the byte, its runner included.
//!
//! What preflight finds is refused before anything is touched; what it cannot know fails in the act and is taken back.

use keyswap::sandbox::forge::Ending;

use crate::support::runner_host::{
    CONTROL_FILE, DATA, ENV_FILE, LIVE, Picture, Playbook, Runner, RunnerHost, Said, TOKEN_FILE, command, restart,
    verify,
};
use crate::support::wait_until;

/// When a failure shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// Before anything is touched.
    Before,
    /// In this step's act.
    In(&'static str),
}

/// One way to fail.
struct Case {
    what: &'static str,
    /// What is done to the host first.
    spoil: fn(&RunnerHost),
    playbook: fn() -> Playbook,
    shows: Shows,
    /// What the reason says.
    says: &'static str,
}

fn nothing(_: &RunnerHost) {}

/// Every case on a host of its own.
fn fail(cases: &[Case]) {
    for case in cases {
        let host = RunnerHost::start();
        (case.spoil)(&host);
        let (before, runner) = (host.picture(), host.runner());
        let said = host.rotate(&(case.playbook)(), &[]);
        let what = format!("{}: {}", case.what, said.all());
        assert_eq!(said.code, Some(2), "{what}");
        let reason = said.host()["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(case.says), "{what}");
        let (status, failed) = match case.shows {
            Shows::Before => ("failed", None),
            Shows::In(step) => ("rolled-back", Some((step.to_owned(), "failed".to_owned()))),
        };
        assert_eq!(said.host()["status"], status, "{what}");
        assert_eq!(said.steps().pop(), failed, "{what}");
        as_it_was(&host, &before, runner.as_ref(), &said, case.shows);
    }
}

fn as_it_was(host: &RunnerHost, before: &Picture, runner: Option<&Runner>, said: &Said, shows: Shows) {
    before.assert_same(&host.picture(), said);
    let now = host.runner();
    let restarted = matches!(shows, Shows::In("restart" | "verify"));
    if restarted {
        let facts = |runner: &Runner| (runner.uid, runner.pointer.clone(), runner.token.clone());
        assert_eq!(now.as_ref().map(facts), runner.map(facts), "up, with the old token: {}", said.all());
    } else {
        assert_eq!(now.as_ref(), runner, "never restarted: {}", said.all());
    }
    assert_eq!(host.holders(&host.new), [""; 0], "the new token is nowhere: {}", said.all());
    // Nothing is held: the next run may begin.
    let check = host.rotate(&Playbook::rotate(), &["--check"]);
    assert!(matches!(check.code, Some(2 | 10)), "{}", check.all());
    assert!(!check.stdout.contains("holds this host"), "{}", check.all());
}

/// A small file system on a directory, with what was in it.
fn small(dir: &str, options: &str) -> String {
    format!(
        "mkdir /mnt/keep && cp -a {dir}/. /mnt/keep/ && mode=$(stat -c %a {dir}) owner=$(stat -c %u:%g {dir}) &&
         mount -t tmpfs -o {options},mode=$mode tmpfs {dir} && cp -a /mnt/keep/. {dir}/ && chown $owner {dir} && rm -rf /mnt/keep"
    )
}

#[test]
fn backup_fails() {
    fail(&[
        Case {
            what: "the state directory is read-only",
            spoil: |host| {
                host.sh("mkdir -m 700 /var/lib/keyswap && mount --bind /var/lib/keyswap /var/lib/keyswap &&
                         mount -o remount,bind,ro /var/lib/keyswap");
            },
            playbook: Playbook::rotate,
            shows: Shows::Before,
            says: "cannot write in /var/lib/keyswap",
        },
        Case {
            what: "the state directory is full",
            spoil: |host| {
                host.sh(
                    "mkdir -m 700 /var/lib/keyswap &&
                         mount -t tmpfs -o size=64k,mode=700 tmpfs /var/lib/keyswap &&
                         { dd if=/dev/zero of=/var/lib/keyswap/fill bs=1k 2>/dev/null; [ -s /var/lib/keyswap/fill ]; }",
                );
            },
            playbook: Playbook::rotate,
            shows: Shows::Before,
            says: "too little room in /var/lib/keyswap",
        },
        Case {
            what: "the state directory belongs to somebody else",
            spoil: |host| {
                host.sh(
                    "mkdir -m 700 /var/lib/keyswap && mkdir /var/lib/keyswap/cas && chown -R 1000 /var/lib/keyswap",
                );
            },
            playbook: Playbook::rotate,
            shows: Shows::Before,
            says: "is not a private directory of user 0",
        },
        Case {
            what: "backups cannot be made in mid-run",
            spoil: nothing,
            playbook: || {
                Playbook::rotate().before(
                    "backup",
                    "break",
                    command("mount -t tmpfs -o ro tmpfs /var/lib/keyswap/backups", "umount /var/lib/keyswap/backups"),
                )
            },
            shows: Shows::In("backup"),
            says: "cannot write in /var/lib/keyswap/backups",
        },
    ]);
}

/// The state directory fills up at every point of a run, one after the other, until there is room for all of it.
fn state_fills_up(option: fn(u32) -> String) {
    let host = RunnerHost::start();
    let (before, runner) = (host.picture(), host.runner());
    let (mut in_the_act, mut refused) = (0, 0);
    for budget in 1..60 {
        host.sh(&format!(
            "mkdir -p -m 700 /var/lib/keyswap && mount -t tmpfs -o {},mode=700 tmpfs /var/lib/keyswap",
            option(budget)
        ));
        let said = host.rotate(&Playbook::rotate().without("verify"), &[]);
        if said.code == Some(0) {
            assert!(
                in_the_act > 2 && refused > 0,
                "{in_the_act} failures in an act, {refused} refused: {}",
                said.all()
            );
            return;
        }
        if said.host()["status"] == "failed" {
            // Too little even for what is known before: nothing was touched.
            said.assert(2, "failed", "failed");
            let reason = said.host()["reason"].as_str().unwrap();
            assert!(reason.contains("in /var/lib/keyswap: at least"), "{}", said.all());
            assert!(host.exec("test ! -e /var/lib/keyswap/cas").status.success(), "{}", said.all());
            refused += 1;
        } else {
            said.assert(2, "rolled-back", "rolled-back");
        }
        in_the_act += usize::from(!said.steps().is_empty());
        before.assert_same(&host.picture(), &said);
        let facts = |runner: &Runner| (runner.pointer.clone(), runner.token.clone());
        assert_eq!(host.runner().as_ref().map(facts), runner.as_ref().map(facts), "{}", said.all());
        // The shell of the run leaves a moment after the link is closed.
        wait_until("the state directory is let go", || host.exec("umount /var/lib/keyswap").status.success());
    }
    panic!("never enough");
}

#[test]
fn the_state_directory_runs_out_of_inodes_at_any_point() {
    state_fills_up(|budget| format!("nr_inodes={}", budget + 1));
}

#[test]
fn the_state_directory_runs_out_of_blocks_at_any_point() {
    state_fills_up(|budget| format!("size={}k", budget * 4));
}

#[test]
fn place_fails_before_it_begins() {
    fail(&[
        Case {
            what: "there is no such owner",
            spoil: nothing,
            playbook: || {
                let place = r#"place = { secret = "token", path = "{{ token_file }}", mode = "0600", owner = "nemo" }"#;
                Playbook::rotate().with("place", place)
            },
            shows: Shows::Before,
            says: "there is no user nemo",
        },
        Case {
            what: "the directory is read-only",
            spoil: |host| {
                host.sh(&format!("mount --bind {DATA} {DATA} && mount -o remount,bind,ro {DATA}"));
            },
            playbook: Playbook::rotate,
            shows: Shows::Before,
            says: "read-only",
        },
        Case {
            what: "the directory is not there",
            spoil: nothing,
            playbook: || {
                let place =
                    r#"place = { secret = "token", path = "/srv/nowhere/token", mode = "0600", owner = "1000" }"#;
                Playbook::rotate().with("place", place)
            },
            shows: Shows::Before,
            says: "/srv/nowhere",
        },
    ]);
}

#[test]
fn place_fails_in_the_act() {
    fail(&[
        Case {
            what: "no block is left",
            spoil: |host| {
                host.sh(&small(DATA, "size=64k"));
            },
            playbook: || {
                let fill = format!("dd if=/dev/zero of={DATA}/fill bs=1k 2>/dev/null; test -s {DATA}/fill");
                Playbook::rotate().before("place", "fill", command(&fill, &format!("rm {DATA}/fill")))
            },
            shows: Shows::In("place"),
            says: "no space left on",
        },
        Case {
            what: "no inode is left",
            spoil: |host| {
                host.sh(&small(DATA, "nr_inodes=16"));
            },
            playbook: || {
                let fill = format!(
                    "mkdir {DATA}/fill; i=0; while printf '' >{DATA}/fill/$i; do i=$((i + 1)); done; test $i -gt 0"
                );
                Playbook::rotate().before("place", "fill", command(&fill, &format!("rm -r {DATA}/fill")))
            },
            shows: Shows::In("place"),
            says: "no inodes left on",
        },
    ]);
}

#[test]
fn point_fails() {
    fail(&[
        Case {
            what: "there is no env file",
            spoil: nothing,
            playbook: || {
                let point = r#"point = { file = "/srv/forgejo-runner/other.env", key = "KEY", value = "/data/token" }"#;
                Playbook::rotate().with("point", point)
            },
            shows: Shows::Before,
            says: "/srv/forgejo-runner/other.env does not exist",
        },
        Case {
            what: "the env file is a read-only mount",
            spoil: |host| {
                host.sh(&format!("mount --bind {ENV_FILE} {ENV_FILE} && mount -o remount,bind,ro {ENV_FILE}"));
            },
            playbook: Playbook::rotate,
            shows: Shows::Before,
            says: "is mounted by itself",
        },
        Case {
            what: "no block is left beside the env file",
            spoil: |host| {
                // The runner's data lies on a file system of its own, so that only the env file's is full.
                host.sh(&format!(
                    "mkdir -m 755 /srv/env && mount -t tmpfs -o size=64k,mode=755 tmpfs /srv/env &&
                     cp -a {ENV_FILE} /srv/env/runner.env"
                ));
            },
            playbook: || {
                let fill = "dd if=/dev/zero of=/srv/env/fill bs=1k 2>/dev/null; test -s /srv/env/fill";
                let mut playbook = Playbook::rotate().before("point", "fill", command(fill, "rm /srv/env/fill"));
                for (_, lines) in &mut playbook.steps {
                    *lines = lines.replace(ENV_FILE, "/srv/env/runner.env");
                }
                playbook
            },
            shows: Shows::In("point"),
            says: "no space left on",
        },
        Case {
            what: "somebody else edits the env file meanwhile",
            spoil: nothing,
            playbook: || {
                let run = format!("echo >>{ENV_FILE}; echo MORE=1 >>{ENV_FILE}");
                let undo =
                    format!("grep -v MORE=1 {ENV_FILE} >{LIVE}/env; printf %s \"$(cat {LIVE}/env)\" >{ENV_FILE}");
                Playbook::rotate().before("point", "edit", command(&run, &undo))
            },
            shows: Shows::In("point"),
            says: "somebody else changed it",
        },
    ]);
}

#[test]
fn restart_fails_before_it_begins_or_at_once() {
    fail(&[
        Case {
            what: "there is no such unit",
            spoil: nothing,
            playbook: || Playbook::rotate().with("restart", r#"restart = { systemd = "no-such-runner" }"#),
            shows: Shows::Before,
            says: "there is no unit no-such-runner",
        },
        Case {
            what: "the runner does not come up with the new token",
            spoil: |host| host.pin_runner(0),
            playbook: Playbook::rotate,
            shows: Shows::In("restart"),
            says: "the server refuses this runner's token",
        },
        Case {
            what: "the runner was never restarted, though the command says so",
            spoil: nothing,
            playbook: || {
                // Only with the new pointer is it a liar.
                let lie = format!("grep -q {TOKEN_FILE} {ENV_FILE} || {CONTROL_FILE} restart");
                Playbook::rotate().with("restart", restart(&lie, "100ms", "20s"))
            },
            shows: Shows::In("restart"),
            says: "is older than the new files",
        },
    ]);
}

#[test]
fn restart_fails_after_a_while() {
    fail(&[
        Case {
            what: "the runner dies after a second",
            spoil: |host| host.pin_runner(1),
            playbook: || {
                Playbook::rotate().with("restart", restart(&format!("{CONTROL_FILE} restart"), "1600ms", "20s"))
            },
            shows: Shows::In("restart"),
            says: "its process ended",
        },
        Case {
            what: "the restart does not end",
            spoil: nothing,
            playbook: || {
                let hang = format!("{CONTROL_FILE} restart; if grep -q {TOKEN_FILE} {ENV_FILE}; then sleep 300; fi");
                Playbook::rotate().with("restart", restart(&hang, "100ms", "2s"))
            },
            shows: Shows::In("restart"),
            says: "did not end within 2 s",
        },
    ]);
}

#[test]
fn verify_fails() {
    let patience = || Playbook::rotate().with("verify", verify("3s"));
    fail(&[
        Case {
            what: "the run ends in failure",
            spoil: |host| host.publishing_ends_in(Ending::Failure),
            playbook: Playbook::rotate,
            shows: Shows::In("verify"),
            says: "failed: a job did not succeed",
        },
        Case {
            what: "the run never ends",
            spoil: |host| host.publishing_ends_in(Ending::NeverEnds),
            playbook: patience,
            shows: Shows::In("verify"),
            says: "3s",
        },
    ]);
}

#[test]
fn a_runner_that_was_stopped_is_left_stopped_when_the_run_is_taken_back() {
    let host = RunnerHost::start();
    host.control("stop");
    host.publishing_ends_in(Ending::Failure);
    let before = host.picture();
    let said = host.rotate(&Playbook::rotate(), &[]);
    said.assert(2, "rolled-back", "rolled-back");
    before.assert_same(&host.picture(), &said);
    assert_eq!(host.runner(), None);
}
