//! The six lies of a green publish run, each caught: a test each, named by its lie (`cargo nextest run lies::`).
//!
//! Where the host tells, the whole program runs against a real host; where the forge tells, its client against the stand-in.

use std::time::Duration;

use keyswap::model::VerifyPublish;
use keyswap::sandbox::forge::{Ending, Outcome, Version};
use keyswap::service::forge::{Progress, VerifyError};

use crate::e2e::publish::{assert_taken_back, here, playbook};
use crate::forge::green::queued_first;
use crate::forge::{dispatches, ending, on_runner, spec, stand_in, verify, verify_with};
use crate::support::runner_host::{LIVE, RunnerHost};

const IMAGE: &str = "owner/name:latest";

/// What is said of a lie that was caught.
fn caught(lie: &str, by: &str) {
    println!("caught: {lie}: {by}");
}

#[test]
fn ran_on_another_runner() {
    let host = RunnerHost::start();
    // An older task of the same repository, and one of ours in another's, are not this one.
    host.sh(&format!("echo 'task 1 repo is owner/repo https://a' >{LIVE}/tasks.log; : >{LIVE}/elsewhere"));
    let said = host.rotate(&playbook(&here()), &[]);
    assert_taken_back(&host, &said, "it ran on another runner");
    // Where it may run anywhere it is said all the same.
    let anywhere = host.rotate(&playbook(&format!("runner_log = \"{LIVE}/tasks.log\"")), &[]);
    anywhere.assert(0, "succeeded", "changed");
    assert!(
        anywhere.stdout.contains("it ran on another runner: that says nothing about these hosts"),
        "{}",
        anywhere.all()
    );
    caught("it ran on another runner", "the task is not in the log of this host's runner");
}

#[tokio::test]
async fn succeeded_without_pushing() {
    let forge = ending(Version::Forgejo(15), Ending::Success).await;
    // Another tag of the same image is no proof either.
    forge.world().push("owner/name:other", &"c".repeat(64));
    let (outcome, _) = verify(&forge, &VerifyPublish { image: Some(IMAGE.to_owned()), ..on_runner() }).await;
    assert!(matches!(outcome, Err(VerifyError::Unverified { .. })), "{outcome:?}");
    caught("it succeeded and pushed nothing", "the registry has no new package");
}

#[test]
fn used_the_fallback_credential() {
    let host = RunnerHost::start();
    let said = host.rotate(&playbook(&format!("{}, pushed_by = \"publisher\"", here())), &[]);
    assert_taken_back(&host, &said, "pushed by owner, not by publisher: another credential was used");
    host.rotate(&playbook(&format!("{}, pushed_by = \"owner\"", here())), &[]).assert(0, "succeeded", "changed");
    caught("it used another credential", "the package was pushed by another account");
}

#[tokio::test]
async fn an_older_run_of_the_same_commit() {
    // Forgejo 11 shows waiting jobs to an owner: one is there, so what appears first may be that one.
    let (outcome, forge) = queued_first(Version::Forgejo(11), "idle").await;
    assert!(matches!(outcome, Err(VerifyError::Untold { .. })), "{outcome:?}");
    assert_eq!(dispatches(&forge), 1);
    // Gitea 1.24 shows none: it is not dispatched there while the runner is not idle.
    for state in ["active", "offline"] {
        let (outcome, forge) = queued_first(Version::Gitea(24), state).await;
        assert!(matches!(outcome, Err(VerifyError::NotReady(_))), "{outcome:?}");
        assert_eq!(dispatches(&forge), 0);
    }
    caught("an older run of the same commit", "which run is ours is not told");
}

#[tokio::test]
async fn the_tag_was_there_before() {
    for version in [Version::Forgejo(11), Version::Forgejo(16), Version::Gitea(24), Version::Gitea(26)] {
        let forge = ending(version, Ending::Success).await;
        forge.world().push(IMAGE, &"a".repeat(64));
        let spec = VerifyPublish { image: Some(IMAGE.to_owned()), ..on_runner() };
        let (outcome, _) = verify(&forge, &spec).await;
        let Err(VerifyError::Unverified { reason, .. }) = outcome else { panic!("{version:?}: {outcome:?}") };
        // A new push of the very same content is told from it.
        let forge = stand_in(version, |_: &_| Outcome::success().pushing(IMAGE, &"a".repeat(64)));
        let forge = forge.await;
        forge.world().push(IMAGE, &"a".repeat(64));
        verify(&forge, &spec).await.0.unwrap_or_else(|error| panic!("{version:?}: {error}"));
        assert!(!reason.is_empty());
    }
    caught("the tag was there before", "it is the package row of before");
}

#[tokio::test]
async fn finished_before_the_restart() {
    // The answer names a run that is newer than the mark by its number, and had run before the question.
    for version in [Version::Forgejo(12), Version::Gitea(26)] {
        let forge = ending(version, Ending::NeverEnds).await;
        let (outcome, _) = verify_with(&forge, &spec(), |progress| {
            if matches!(progress, Progress::Dispatched { .. }) {
                let mut world = forge.world();
                let run = &mut world.runs[0];
                let before = run.created - Duration::from_secs(60);
                (run.status, run.taken) = ("success", true);
                (run.started, run.stopped) = (Some(before), Some(before));
            }
        })
        .await;
        let Err(VerifyError::Untold { reason }) = outcome else { panic!("{version:?}: {outcome:?}") };
        assert!(reason.contains("ran before the dispatch"), "{reason}");
    }
    caught("it finished before the restart", "its times are older than the question");
}
