//! After a run that succeeded: `rollback`, and the playbook that needs no journal.

use std::path::Path;

use crate::support::runner_host::{LIVE, Playbook, RunnerHost, SHARED_FILE, TOKEN_FILE, short, whole};

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
fn the_rollback_playbook_needs_no_journal_and_does_not_toggle() {
    let host = RunnerHost::start();
    host.rotate(&Playbook::rotate(), &[]).assert(0, "succeeded", "changed");
    let rotated = host.picture();

    let fresh = |args: &[&str]| {
        let mut all = host.run_args(&Playbook::restore());
        all.extend(args.iter().map(ToString::to_string));
        let mut command = host.keyswap("empty");
        crate::support::runner_host::AtWork::start(&mut command, &all.iter().map(String::as_str).collect::<Vec<_>>())
            .end()
    };
    let check = fresh(&["--check"]);
    assert_eq!(check.code, Some(10), "{}", check.all());
    let said = fresh(&[]);
    said.assert(0, "succeeded", "changed");
    let after = host.picture();
    assert_eq!(rotated.changed(&after), [TOKEN_FILE], "{:?}", rotated.differences(&after));
    assert_eq!(host.read(TOKEN_FILE), host.old);
    let runner = host.runner().unwrap();
    assert_eq!((runner.pointer.as_deref(), runner.token.as_str()), (Some(TOKEN_FILE), whole(&host.old).as_str()));

    let again = fresh(&[]);
    again.assert(0, "succeeded", "ok");
    after.assert_same(&host.picture(), &again);
    assert_eq!(host.runner(), Some(runner), "nothing was restarted: {}", again.all());
}
