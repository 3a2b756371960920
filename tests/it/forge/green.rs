//! Runs that are green and are not ours, or not whole: each is caught, or said not to be told.

use std::time::Duration;

use keyswap::model::VerifyPublish;
use keyswap::sandbox::forge::{Ending, Fault, FaultKind, Outcome, Setup, StandIn, Version};
use keyswap::service::forge::{Forge, NotReady, Progress, Published, RunState, RunnerState, VerifyError};

use super::{DISPATCH, TOKEN, client, dispatches, ending, on_runner, spec, stand_in, verify, verify_with};

const TASK_ONLY: [Version; 2] = [Version::Forgejo(11), Version::Gitea(24)];

/// A workflow of two jobs, of which nobody takes the second.
async fn half_done(version: Version, image: bool) -> (StandIn, VerifyPublish) {
    let hook = |_: &_| Outcome::success().leaving("deploy");
    let forge = stand_in(version, hook).await;
    forge.with_repo(|repo| repo.jobs = vec!["build".to_owned(), "deploy".to_owned()]);
    let image = image.then(|| "owner/name:latest".to_owned());
    (forge, VerifyPublish { image, timeout: Duration::from_millis(600), ..on_runner() })
}

#[tokio::test]
async fn a_job_that_nobody_took_is_not_overlooked() {
    for version in TASK_ONLY {
        let (forge, spec) = half_done(version, false).await;
        let (outcome, _) = verify(&forge, &spec).await;
        assert!(outcome.is_err(), "{version:?}: {outcome:?}");
    }
    // Who may not see the waiting jobs has no proof that none waits.
    let (forge, spec) = half_done(Version::Forgejo(11), false).await;
    forge.world().accounts[0].owner = false;
    let (outcome, _) = verify(&forge, &spec).await;
    assert!(matches!(outcome, Err(VerifyError::Unverified { .. })), "{outcome:?}");
    // The same list without labels is empty whatever waits: it is never asked for.
    assert!(!forge.requests().iter().any(|request| request.ends_with("/runners/jobs")), "{:?}", forge.requests());
}

#[tokio::test]
async fn all_jobs_that_the_dispatch_named_are_enough() {
    let forge = ending(Version::Forgejo(11), Ending::Success).await;
    forge.with_repo(|repo| repo.jobs = vec!["build".to_owned(), "deploy".to_owned()]);
    let (outcome, _) = verify(&forge, &spec()).await;
    let published = outcome.unwrap();
    assert_eq!((published.jobs.len(), published.notes), (2, Vec::<String>::new()));
}

/// A forge on which a runner takes a run only after everybody's patience with a lost answer is over.
async fn slow(version: Version) -> StandIn {
    let setup = Setup { pickup: Duration::from_millis(400), ..Setup::new(version, TOKEN) };
    let forge = StandIn::start(setup, |_: &_| Outcome::success().pushing("owner/name:latest", &"b".repeat(64))).await;
    let forge = forge.unwrap();
    forge.world().runners = vec![("rs2000".to_owned(), "idle".to_owned())];
    forge
}

fn with_image() -> VerifyPublish {
    VerifyPublish { image: Some("owner/name:latest".to_owned()), ..on_runner() }
}

#[tokio::test]
async fn a_run_that_shows_late_is_not_dispatched_again() {
    for version in TASK_ONLY {
        for kind in [FaultKind::LoseReply, FaultKind::Status(502), FaultKind::Reset] {
            let acted = kind == FaultKind::LoseReply;
            let forge = slow(version).await;
            forge.fault(Fault::once("POST", DISPATCH, kind.clone()));
            let spec = VerifyPublish { timeout: Duration::from_secs(2), ..with_image() };
            let (outcome, said) = verify(&forge, &spec).await;
            assert_eq!(dispatches(&forge), 1, "{version:?} {kind:?}");
            if acted {
                assert!(outcome.is_ok(), "{version:?}: {outcome:?}");
                assert_eq!(forge.world().runs.len(), 1);
                assert!(said.iter().any(|progress| matches!(progress, Progress::Untaken { .. })), "{said:?}");
            } else {
                assert!(matches!(outcome, Err(VerifyError::Untold { .. })), "{version:?} {kind:?}: {outcome:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_run_that_waits_long_for_a_runner_is_waited_for() {
    let forge = slow(Version::Gitea(24)).await;
    let (outcome, said) = verify(&forge, &with_image()).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(said.iter().any(|progress| progress.to_string().contains("waits for a runner")), "{said:?}");
}

/// A run of the same workflow is queued before ours; the runner takes it first, and it is green.
pub(crate) async fn queued_first(version: Version, runner: &str) -> (Result<Published, VerifyError>, StandIn) {
    let forge = StandIn::start(Setup { pickup: Duration::from_secs(60), ..Setup::new(version, TOKEN) }, |_: &_| {
        Outcome::success()
    });
    let forge = forge.await.unwrap();
    let older = {
        let mut world = forge.world();
        world.runners = vec![("rs2000".to_owned(), runner.to_owned())];
        let repo = world.repos[0].clone();
        world.add_run(&repo, "docker-publish.yml", "refs/heads/main", "workflow_dispatch", "ops")
    };
    forge.fault(Fault::once("POST", DISPATCH, FaultKind::LoseReply));
    let spec = VerifyPublish { timeout: Duration::from_secs(2), ..with_image() };
    let (outcome, _) = verify_with(&forge, &spec, |progress| {
        if matches!(progress, Progress::Looking { .. }) {
            let mut world = forge.world();
            world.push("owner/name:latest", &"c".repeat(64));
            let at = world.runs[0].created;
            let run = world.run_mut(older).unwrap();
            (run.taken, run.status, run.task_status) = (true, "success", "success");
            (run.started, run.stopped) = (Some(at), Some(at));
        }
    })
    .await;
    (outcome, forge)
}

#[tokio::test]
async fn a_server_that_never_names_a_run_needs_a_runner_to_look_at() {
    let forge = ending(Version::Gitea(24), Ending::Success).await;
    let (outcome, _) = verify(&forge, &spec()).await;
    assert!(matches!(outcome, Err(VerifyError::NotReady(NotReady::Unquiet { .. }))), "{outcome:?}");
    assert_eq!(dispatches(&forge), 0);
}

#[tokio::test]
async fn refusals_of_a_dispatch_are_told_in_the_servers_words() {
    let forge = ending(Version::Gitea(26), Ending::Success).await;
    forge.with_repo(|repo| repo.dispatchable = false);
    let notes = client(&forge, Some(TOKEN)).preflight(&spec()).await.unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("workflow_dispatch")), "{notes:?}");
    let (outcome, _) = verify(&forge, &spec()).await;
    let Err(VerifyError::Refused { code: 422, reason }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("trigger"), "{reason}");

    let forge = ending(Version::Forgejo(15), Ending::Success).await;
    forge.with_repo(|repo| (repo.inputs, repo.required) = (vec!["tag".to_owned()], vec!["tag".to_owned()]));
    let (outcome, _) = verify(&forge, &spec()).await;
    let Err(VerifyError::Refused { code: 400, reason }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("tag"), "{reason}");
    assert!(forge.world().runs.is_empty());
}

#[tokio::test]
async fn runners_are_found_on_later_pages_and_above_the_repository() {
    for version in [Version::Forgejo(15), Version::Gitea(24)] {
        let forge = ending(version, Ending::Success).await;
        let client = client(&forge, Some(TOKEN));
        forge.world().runners = (0..60).map(|n| (format!("runner-{n}"), "idle".to_owned())).collect();
        assert_eq!(client.runner("owner/repo", "runner-57").await.unwrap(), Some(RunnerState::Idle), "{version:?}");
        for level in ["orgs", "user", "admin"] {
            forge.world().runners_above = vec![(level.to_owned(), "above".to_owned(), "active".to_owned())];
            let seen = client.runner("owner/repo", "above").await.unwrap();
            assert_eq!(seen, Some(RunnerState::Active), "{version:?} {level}");
        }
    }
    // What cannot be asked does not stand in the way.
    let forge = ending(Version::Forgejo(14), Ending::Success).await;
    assert_eq!(client(&forge, Some(TOKEN)).runner("owner/repo", "rs2000").await.unwrap(), None);
    verify(&forge, &on_runner()).await.0.unwrap();
}

#[tokio::test]
async fn a_short_page_is_not_taken_for_the_last_one() {
    for version in [Version::Forgejo(11), Version::Forgejo(15), Version::Gitea(24)] {
        let forge = ending(version, Ending::Success).await;
        let client = client(&forge, Some(TOKEN));
        forge.world().longest_page = 10;
        forge.world().runners = (0..60).map(|n| (format!("runner-{n}"), "idle".to_owned())).collect();
        if version != Version::Forgejo(11) {
            let seen = client.runner("owner/repo", "runner-57").await.unwrap();
            assert_eq!(seen, Some(RunnerState::Idle), "{version:?}");
        }
        forge.with_repo(|repo| repo.secrets = (0..60).map(|n| format!("SECRET_{n}")).collect());
        let stored = client.stored_names("owner/repo").await.unwrap();
        assert_eq!(stored.places("SECRET_57").count(), 1, "{version:?}");

        // The oldest of many tasks runs, and so does the newest.
        let tasks: Vec<u64> = {
            let mut world = forge.world();
            let repo = world.repos[0].clone();
            let add = |_| {
                let id = world.add_run(&repo, "docker-publish.yml", "refs/heads/main", "push", "alice");
                let run = world.run_mut(id).unwrap();
                (run.taken, run.status, run.task_status) = (true, "success", "success");
                id
            };
            let ids: Vec<u64> = (0..35).map(add).collect();
            let running = [ids[0], ids[34]].map(|id| {
                let run = world.run_mut(id).unwrap();
                (run.status, run.task_status) = ("running", "running");
                run.dispatched.task
            });
            running.to_vec()
        };
        let mut running = client.running("owner/repo").await.unwrap().unwrap();
        running.sort_unstable();
        assert_eq!(running, tasks, "{version:?}");
    }
}

#[tokio::test]
async fn an_index_is_whole_or_it_does_not_count() {
    let (index, child) = ("d".repeat(64), "e".repeat(64));
    let digest = index.clone();
    let forge =
        stand_in(Version::Forgejo(15), move |_: &_| Outcome::success().pushing("owner/name:latest", &digest)).await;
    let children = vec!["f".repeat(64), child.clone()];
    forge.world().indexes.insert(index.clone(), children);
    let published = verify(&forge, &with_image()).await.0.unwrap();
    assert_eq!(published.image.unwrap().served, Ok(()));
    forge.world().missing = vec![child.clone()];
    let (outcome, _) = verify(&forge, &with_image()).await;
    let Err(VerifyError::Unverified { reason, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains(&child), "{reason}");
}

#[tokio::test]
async fn a_users_own_variables_are_listed() {
    let forge = ending(Version::Forgejo(15), Ending::Success).await;
    forge.world().accounts[0].login = "Owner".to_owned();
    forge.world().user_variables = vec!["REGISTRY_TOKEN".to_owned()];
    let stored = client(&forge, Some(TOKEN)).stored_names("owner/repo").await.unwrap();
    assert_eq!(stored.places("REGISTRY_TOKEN").collect::<Vec<_>>(), ["variable of the user"]);
    assert!(stored.unseen.iter().any(|unseen| unseen.contains("secrets of a user")), "{:?}", stored.unseen);
}

#[tokio::test]
async fn other_endings_stay_what_they_are_on_task_only_servers() {
    for version in TASK_ONLY {
        let forge = ending(version, Ending::Failure).await;
        forge.world().runners = vec![("rs2000".to_owned(), "idle".to_owned())];
        let (outcome, _) = verify(&forge, &on_runner()).await;
        assert!(matches!(outcome, Err(VerifyError::Ended { state: RunState::Failure, .. })), "{outcome:?}");
    }
}
