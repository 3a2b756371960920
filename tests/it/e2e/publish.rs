//! A publish run that is green and proves nothing: told by what the host says of it.

use keyswap::model::Fingerprint;
use keyswap::sandbox::forge::Ending;

use crate::support::runner_host::{
    AtWork, CONTROL_FILE, ENV_FILE, LIVE, Playbook, RunnerHost, SHARED_FILE, Said, TOKEN_FILE, env_text, whole,
};
use crate::support::wait_until;

/// The five steps, with more said of the verification.
pub(crate) fn playbook(more: &str) -> Playbook {
    Playbook::rotate().with(
        "verify",
        format!(
            "once = \"batch\"\nverify-publish = {{ repo = \"owner/repo\", workflow = \"docker-publish.yml\", ref = \"main\", timeout = \"20s\", image = \"owner/name:latest\", {more} }}"
        ),
    )
}

pub(crate) fn here() -> String {
    format!("on = \"this-runner\", runner_log = \"{LIVE}/tasks.log\"")
}

/// It is taken back, with these words, and the runner is up on the old token.
#[track_caller]
pub(crate) fn assert_taken_back(host: &RunnerHost, said: &Said, words: &str) {
    said.assert(2, "rolled-back", "rolled-back");
    assert!(said.host()["reason"].as_str().unwrap().contains(words), "{}", said.all());
    let runner = host.runner().unwrap_or_else(|| panic!("the runner is not up: {}", said.all()));
    assert_eq!((runner.pointer.as_deref(), runner.token), (Some(SHARED_FILE), whole(&host.shared)), "{}", said.all());
    assert_eq!(host.read(TOKEN_FILE), host.old);
    assert_eq!(host.holders(&host.new), [""; 0], "{}", said.all());
}

#[test]
fn a_run_on_this_runner_counts() {
    let host = RunnerHost::start();
    let said = host.rotate(&playbook(&here()), &[]);
    said.assert(0, "succeeded", "changed");
    assert!(said.stdout.contains("; it ran on runner-01"), "{}", said.all());
}

#[test]
fn what_cannot_be_told_does_not_count() {
    let host = RunnerHost::start();
    let said = host.rotate(&playbook("on = \"this-runner\""), &[]);
    assert_taken_back(&host, &said, "it is not known whether it ran on runner-01");
}

#[test]
fn a_runner_that_lost_the_pointer_during_the_run_proves_nothing() {
    let host = RunnerHost::start();
    host.sh(&format!(": >{LIVE}/working"));
    let args = host.run_args(&playbook(&here()));
    let work = AtWork::start(&mut host.keyswap("state"), &args.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until("the job runs", || host.path(LIVE).join("tasks.log").exists());
    // Somebody restarts it with the old environment; the file then is the new one again.
    let new = host.read(ENV_FILE);
    std::fs::write(host.path(ENV_FILE), env_text(SHARED_FILE, false)).unwrap();
    host.sh(&format!("{CONTROL_FILE} restart"));
    std::fs::write(host.path(ENV_FILE), new).unwrap();
    host.sh(&format!("rm {LIVE}/working"));
    let said = work.end();
    assert_taken_back(&host, &said, "the runner no longer has the new credential");
}

#[test]
fn a_run_that_an_earlier_process_worked_on_proves_nothing() {
    let host = RunnerHost::start();
    host.sh(&format!(": >{LIVE}/working"));
    let args = host.run_args(&playbook(&here()));
    let work = AtWork::start(&mut host.keyswap("state"), &args.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until("the job runs", || host.path(LIVE).join("tasks.log").exists());
    // The run was taken before this restart; the pointer is as it should be.
    host.sh(&format!("{CONTROL_FILE} restart; rm {LIVE}/working"));
    let said = work.end();
    assert_taken_back(&host, &said, "the runner's process is not the one that was started on the new credential");
}

#[test]
fn every_job_must_have_run_here_unless_one_is_named() {
    let host = RunnerHost::start();
    // The runner says that it took the first of them; nobody here took the second.
    host.with_forge(|repo| repo.jobs = vec!["build".to_owned(), "push".to_owned()]);
    let said = host.rotate(&playbook(&here()), &[]);
    assert_taken_back(&host, &said, "its job `push` ran on another runner");
    let said = host.rotate(&playbook(&format!("{}, job = \"push\"", here())), &[]);
    assert_taken_back(&host, &said, "it ran on another runner");
    let said = host.rotate(&playbook(&format!("{}, job = \"build\"", here())), &[]);
    said.assert(0, "succeeded", "changed");
    assert!(said.stdout.contains("; it ran on runner-01"), "{}", said.all());
}

#[test]
fn where_nobody_can_tell_the_verdict_is_unverified() {
    let host = RunnerHost::start();
    let playbook = playbook("on = \"any\"");
    let said = host.rotate(&playbook, &["--check"]);
    for words in [
        "publishes for real, once, and the tag of owner/name:latest moves: nothing undoes that",
        "takes a run on any runner: unless it ran on a host of this run, publishing stays unverified",
        "the tag of owner/name:latest moves, and nothing moves it back",
        "the forge is not asked for running jobs",
    ] {
        assert!(said.stdout.contains(words), "{words}: {}", said.all());
    }
    let said = host.rotate(&playbook, &[]);
    said.assert(0, "succeeded", "changed");
    assert!(said.stdout.contains("\"unverified: run #41"), "{}", said.all());
    let notes = said.host()["notes"].to_string();
    assert!(notes.contains("publishing is unverified: it is not known whether it ran on runner-01"), "{}", said.all());
}

#[test]
fn a_publish_that_failed_is_not_repeated() {
    let host = RunnerHost::start();
    host.publishing_ends_in(Ending::Failure);
    let mut again = playbook(&here());
    again.steps.last_mut().unwrap().1.push_str("\nretries = 3");
    let said = host.rotate(&again, &[]);
    assert_eq!((said.code, host.dispatched()), (Some(6), 0), "{}", said.all());
    assert!(said.stderr.contains("`retries` does nothing for this `verify-publish`"), "{}", said.all());
    let said = host.rotate(&playbook(&here()), &[]);
    assert_taken_back(&host, &said, "failed: a job did not succeed");
    assert_eq!(host.dispatched(), 1);
}

#[test]
fn a_registry_token_among_the_forges_secrets_is_found() {
    let host = RunnerHost::start();
    let step = "once = \"run\"\nassert-not-stored = { repo = \"owner/repo\", names = [\"REGISTRY_TOKEN\"] }";
    let playbook = Playbook::rotate().before("backup", "not stored", step);
    let said = host.rotate(&playbook, &[]);
    said.assert(0, "succeeded", "changed");
    assert!(
        said.stdout.contains("is called REGISTRY_TOKEN; values of variables were not compared: the inventory knows no")
            && said.stdout.contains("; not looked at: secrets and variables of a user"),
        "what nobody can list is said: {}",
        said.all()
    );
    host.say(&["rollback"]).assert(0, "rolled-back", "rolled-back");

    // Under another name, as a variable: known by its fingerprint alone.
    let held = Fingerprint::of(b"value of PUSH_WITH").short();
    let inventory = host.controller().join("inventory.toml");
    let known =
        format!("{}\n[known.registry-pat]\nfingerprint = \"{held}\"\n", std::fs::read_to_string(&inventory).unwrap());
    std::fs::write(&inventory, known).unwrap();
    host.with_forge(|repo| repo.variables.push("PUSH_WITH".to_owned()));
    let said = host.rotate(&playbook, &[]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(
        said.stdout.contains("registry-pat is the value of PUSH_WITH, a variable of the repository"),
        "{}",
        said.all()
    );
    host.with_forge(|repo| repo.variables.clear());
    let said = host.rotate(&playbook, &[]);
    said.assert(0, "succeeded", "changed");
    assert!(
        said.stdout.contains("no variable holds one of the 1 credentials that the inventory knows"),
        "{}",
        said.all()
    );
    host.say(&["rollback"]).assert(0, "rolled-back", "rolled-back");

    host.with_forge(|repo| repo.secrets.push("registry_token".to_owned()));
    let before = host.picture();
    let said = host.rotate(&playbook, &[]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.stdout.contains("REGISTRY_TOKEN is a secret of the repository"), "{}", said.all());
    before.assert_same(&host.picture(), &said);
}
