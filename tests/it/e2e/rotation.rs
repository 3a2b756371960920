//! A rotation that succeeds, seen from outside.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use crate::support::runner_host::{
    ENV_FILE, Playbook, RunnerHost, SHARED_FILE, TOKEN_FILE, env_text, restart, short, whole,
};

/// Everything below a directory, as text.
fn texts(dir: &Path) -> String {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(
            |path| {
                if path.is_dir() {
                    texts(&path)
                } else {
                    String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
                }
            },
        )
        .collect()
}

#[test]
fn a_rotation_swaps_file_pointer_and_process() {
    let host = RunnerHost::start();
    let (before, runner_before) = (host.picture(), host.runner().unwrap());
    assert_eq!((runner_before.pointer.as_deref(), runner_before.uid), (Some(SHARED_FILE), 1000));
    assert_eq!(runner_before.token, whole(&host.shared));

    let said = host.rotate(&Playbook::rotate(), &["-vvv"]);
    said.assert(0, "succeeded", "changed");
    let after = host.picture();
    assert_eq!(before.changed(&after), [TOKEN_FILE, ENV_FILE], "{:?}", before.differences(&after));
    assert_eq!(host.read(TOKEN_FILE), host.new, "exactly the new bytes");
    let token = fs::metadata(host.path(TOKEN_FILE)).unwrap();
    assert_eq!((token.mode() & 0o7777, token.uid(), token.gid()), (0o600, 1000, 1000));
    assert_eq!(host.read(ENV_FILE), env_text(TOKEN_FILE, false), "one line changed, one removed, nothing else");
    let env = fs::metadata(host.path(ENV_FILE)).unwrap();
    assert_eq!((env.mode() & 0o7777, env.uid(), env.gid()), (0o640, 0, 0));

    let runner = host.runner().unwrap();
    assert_ne!(runner.pid, runner_before.pid);
    assert_eq!((runner.pointer.as_deref(), runner.token), (Some(TOKEN_FILE), whole(&host.new)));
    // Both clocks count from the boot, in hundredths of a second.
    let uptime: f64 = host.read("/proc/uptime").split(' ').next().unwrap().parse().unwrap();
    let file_age = SystemTime::now().duration_since(token.modified().unwrap()).unwrap().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "ticks since boot are far from 2^52")]
    let runner_age = uptime - runner.started as f64 / 100.0;
    assert!(runner_age <= file_age + 0.02, "the runner ({runner_age} s) is older than the file ({file_age} s)");

    let credential = &said.host()["credentials"][0];
    assert_eq!(credential["path"], TOKEN_FILE);
    assert_eq!((&credential["before"], &credential["now"]), (&short(&host.old).into(), &short(&host.new).into()));
    let journal = texts(&host.controller().join("state"));
    let shown = host.say(&["runs", said.last()["run"].as_str().unwrap()]);
    for token in [&host.old, &host.new] {
        assert!(journal.contains(&short(token)), "the journal names {}", short(token));
        assert!(shown.stdout.contains(&short(token)), "{}", shown.all());
        assert!(!journal.contains(token) && !said.all().contains(token), "{}", said.all());
    }
    assert_eq!(host.dispatched(), 1);

    // No copy outside: the new token only in its file, the old one only under the state directory.
    assert_eq!(host.holders(&host.new), [TOKEN_FILE]);
    let old = host.holders(&host.old);
    assert!(!old.is_empty() && old.iter().all(|path| path.starts_with("/var/lib/keyswap/")), "{old:?}");
    for path in old {
        let meta = fs::metadata(host.path(&path)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o600, 0), "{path}");
    }
}

#[test]
fn a_check_changes_nothing_and_a_second_run_has_nothing_to_do() {
    let host = RunnerHost::start();
    let (before, runner_before) = (host.picture(), host.runner());
    let check = host.rotate(&Playbook::rotate(), &["--check", "--diff"]);
    assert_eq!(check.code, Some(10), "{}", check.all());
    assert_eq!(check.last()["exit_code"], 10);
    before.assert_same(&host.picture(), &check);
    assert_eq!(host.runner(), runner_before);
    assert!(!host.path("/var/lib/keyswap").exists() && host.dispatched() == 0, "a check leaves nothing behind");

    let first = host.rotate(&Playbook::rotate(), &[]);
    first.assert(0, "succeeded", "changed");
    let (rotated, runner) = (host.picture(), host.runner());
    let check = host.rotate(&Playbook::rotate(), &["--check"]);
    check.assert(0, "succeeded", "ok");

    let second = host.rotate(&Playbook::rotate(), &[]);
    second.assert(0, "succeeded", "ok");
    let steps: Vec<String> = second.steps().into_iter().map(|(step, status)| format!("{step} {status}")).collect();
    assert_eq!(steps, ["backup ok", "place ok", "point ok", "restart ok", "verify skipped"]);
    rotated.assert_same(&host.picture(), &second);
    assert_eq!(host.runner(), runner, "the runner was left alone");
    assert_eq!(host.dispatched(), 1, "what did not change is not verified again");
}

#[test]
fn a_runner_that_is_stopped_gets_the_token_and_stays_stopped() {
    let host = RunnerHost::start();
    host.control("stop");
    let said = host.rotate(&Playbook::rotate(), &[]);
    said.assert(0, "succeeded", "changed");
    assert_eq!((host.runner(), host.read(TOKEN_FILE)), (None, host.new.clone()));
    assert!(said.host()["notes"].to_string().contains("left stopped"), "{}", said.all());
    host.control("start");
    assert_eq!(host.runner().unwrap().token, whole(&host.new));
}

#[test]
fn a_runner_that_was_not_restarted_is_found_out() {
    let host = RunnerHost::start();
    let (before, runner) = (host.picture(), host.runner());
    let said = host.rotate(&Playbook::rotate().with("restart", restart("true", "100ms", "20s")), &[]);
    said.assert(2, "rolled-back", "rolled-back");
    assert!(said.stdout.contains("is older than the new files"), "{}", said.all());
    // Nor can a command that does nothing put the runner on the old files; it never left them.
    before.assert_same(&host.picture(), &said);
    assert_eq!(host.runner(), runner);
}
