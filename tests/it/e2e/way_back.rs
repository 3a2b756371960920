//! After a run that succeeded: `rollback`, and the playbook that needs no journal.

use std::path::Path;

use crate::support::runner_host::{
    AtWork, CONTROL_FILE, LIVE, Playbook, RunnerHost, SHARED_FILE, Said, TOKEN_FILE, restart, short, whole,
};

/// A playbook that is shipped, word by word, but for what this host has not: docker compose, a container's path, a
/// terminal to be asked at.
fn shipped(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("playbooks").join(name);
    let text = std::fs::read_to_string(file).unwrap();
    let fitted = text.lines().map(|line| {
        if line.starts_with("restart = {") {
            restart(&format!("{CONTROL_FILE} restart"), "500ms", "20s")
        } else if line.starts_with("from = \"prompt\"") {
            "from = \"file\"\npath = \"token\"".to_owned()
        } else {
            let log = format!("on = \"this-runner\", runner_log = \"{LIVE}/tasks.log\"");
            line.replace("value = \"/data/infisical-token-auth-token\"", &format!("value = \"{TOKEN_FILE}\""))
                .replace("on = \"this-runner\"", &log)
        }
    });
    fitted.collect::<Vec<_>>().join("\n")
}

/// Runs a playbook's text with the state directory `state`.
fn run(host: &RunnerHost, state: &str, text: &str, args: &[&str]) -> Said {
    let all = host.run_args_of(text);
    let all: Vec<&str> = all.iter().map(String::as_str).chain(args.iter().copied()).collect();
    AtWork::start(&mut host.keyswap(state), &all).end()
}

#[test]
fn rollback_puts_everything_back_and_then_has_nothing_to_undo() {
    let host = RunnerHost::start();
    let (before, runner_before) = (host.picture(), host.runner().unwrap());
    host.rotate(&Playbook::rotate(), &[]).assert(0, "succeeded", "changed");
    let rotated = host.runner().unwrap();
    assert_eq!(host.open_files(), [Path::new(LIVE).join("runner.sh")], "it keeps nothing of ours");

    let said = host.say(&["rollback"]);
    said.assert(0, "rolled-back", "rolled-back");
    before.assert_same(&host.picture(), &said);
    let runner = host.runner().unwrap();
    assert!(runner.pid != rotated.pid && runner.pid != runner_before.pid, "{}", said.all());
    assert_eq!((runner.pointer.as_deref(), runner.token.as_str()), (Some(SHARED_FILE), whole(&host.shared).as_str()));
    assert_eq!(host.open_files(), [Path::new(LIVE).join("runner.sh")], "it keeps nothing of ours");
    assert_eq!(said.host()["credentials"][0]["now"], short(&host.old).as_str());
    assert_eq!(host.holders(&host.new), [""; 0], "{}", said.all());

    let again = host.say(&["rollback"]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    assert!(again.stdout.contains("there is nothing to undo"), "{}", again.all());
    assert_eq!(again.last()["exit_code"], 0, "programs get events here too: {}", again.all());
    before.assert_same(&host.picture(), &again);
    assert_eq!(host.runner(), Some(runner), "nothing was restarted");

    // And the way forward is open again.
    host.rotate(&Playbook::rotate(), &[]).assert(0, "succeeded", "changed");
    assert_eq!(host.read(TOKEN_FILE), host.new);
}

#[test]
fn the_shipped_playbooks_rotate_and_put_back_without_a_journal_and_do_not_toggle() {
    let host = RunnerHost::start();
    run(&host, "state", &shipped("rotate-token.toml"), &[]).assert(0, "succeeded", "changed");
    assert_eq!(host.read(TOKEN_FILE), host.new);
    let rotated = host.picture();

    let rollback = shipped("rollback-token.toml");
    let check = run(&host, "empty", &rollback, &["--check"]);
    assert_eq!(check.code, Some(10), "{}", check.all());
    let said = run(&host, "empty", &rollback, &[]);
    said.assert(0, "succeeded", "changed");
    let after = host.picture();
    assert_eq!(rotated.changed(&after), [TOKEN_FILE], "{:?}", rotated.differences(&after));
    assert_eq!(host.read(TOKEN_FILE), host.old);
    let runner = host.runner().unwrap();
    assert_eq!((runner.pointer.as_deref(), runner.token.as_str()), (Some(TOKEN_FILE), whole(&host.old).as_str()));

    let again = run(&host, "empty", &rollback, &[]);
    again.assert(0, "succeeded", "ok");
    after.assert_same(&host.picture(), &again);
    assert_eq!(host.runner(), Some(runner), "nothing was restarted: {}", again.all());
}
