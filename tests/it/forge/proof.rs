//! What a green run proves: the image, the runner, the names that are stored.

use keyswap::model::{Fingerprint, VerifyPublish};
use keyswap::sandbox::forge::{Ending, Fault, FaultKind, Outcome, Version};
use keyswap::service::forge::{Forge, NotReady, Progress, RunnerState, VerifyError};

use super::{TOKEN, WITH_RUNS, client, dispatches, ending, on_runner, spec, stand_in, verify, verify_with};

const IMAGE: &str = "owner/name:latest";

fn with_image() -> VerifyPublish {
    VerifyPublish { image: Some(IMAGE.to_owned()), ..on_runner() }
}

fn digest(digit: &str) -> String {
    digit.repeat(64)
}

#[tokio::test]
async fn a_push_is_seen_even_of_the_same_digest() {
    for version in WITH_RUNS.into_iter().chain([Version::Forgejo(11), Version::Gitea(24)]) {
        for before in [None, Some(digest("a")), Some(digest("b"))] {
            let forge = stand_in(version, |_: &_| Outcome::success().pushing(IMAGE, &digest("b"))).await;
            if let Some(before) = &before {
                forge.world().push(IMAGE, before);
            }
            let (outcome, _) = verify(&forge, &with_image()).await;
            let image = outcome.unwrap_or_else(|error| panic!("{version:?}: {error}")).image.unwrap();
            let told = image.before.map(|before| before.digest.unwrap());
            assert_eq!(told, before.map(|before| format!("sha256:{before}")));
            assert_eq!(image.after.digest, Some(format!("sha256:{}", digest("b"))));
        }
    }
}

#[tokio::test]
async fn what_the_registry_serves_must_be_what_was_pushed() {
    let pushing = |_: &_| Outcome::success().pushing(IMAGE, &digest("b"));
    let forge = stand_in(Version::Forgejo(15), pushing).await;
    let served = verify(&forge, &with_image()).await.0.unwrap().image.unwrap().served;
    assert_eq!(served, Ok(()));
    let asked = |what: &str| forge.requests().iter().any(|request| request.starts_with(what));
    assert!(asked("HEAD /v2/owner/name/manifests/latest") && asked("GET /v2/token?"), "{:?}", forge.requests());

    for (lie, said) in [(digest("c"), "the registry serves sha256:cccc"), (String::new(), "does not serve it")] {
        let forge = stand_in(Version::Gitea(26), pushing).await;
        forge.world().registry_lies = Some(lie);
        let (outcome, _) = verify(&forge, &with_image()).await;
        let Err(VerifyError::Unverified { reason, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains(said), "{reason}");
    }

    let forge = stand_in(Version::Forgejo(11), pushing).await;
    forge.world().registry = false;
    let published = verify(&forge, &with_image()).await.0.unwrap();
    assert!(published.image.unwrap().served.is_err());
    assert!(published.notes.iter().any(|note| note.contains("could not be asked")), "{:?}", published.notes);
}

#[tokio::test]
async fn an_image_that_cannot_be_looked_at_is_told_before_the_dispatch() {
    let forge = ending(Version::Forgejo(15), Ending::Success).await;
    forge.world().accounts[0].packages = false;
    let (outcome, _) = verify(&forge, &with_image()).await;
    let error = outcome.unwrap_err();
    assert_eq!(client(&forge, Some(TOKEN)).preflight(&with_image()).await.unwrap_err(), error);
    assert!(matches!(error, VerifyError::NotReady(NotReady::Image { .. })), "{error}");
    assert!(error.is_common() && error.to_string().contains("read:package"), "{error}");
    assert_eq!(dispatches(&forge), 0);
}

#[tokio::test]
async fn an_image_whose_answer_is_lost_is_looked_at_again() {
    let forge = stand_in(Version::Forgejo(15), |_: &_| Outcome::success().pushing(IMAGE, &digest("b"))).await;
    forge.fault(Fault::once("GET", "/packages/", FaultKind::Reset).after(1).times(4));
    let (outcome, _) = verify(&forge, &with_image()).await;
    assert!(outcome.unwrap().image.is_some());
}

#[tokio::test]
async fn the_runner_is_named_as_far_as_the_server_tells() {
    for version in WITH_RUNS.into_iter().chain([Version::Forgejo(11)]) {
        let forge = stand_in(version, |_: &_| Outcome::success().on("rs2000 (b)")).await;
        let (outcome, _) = verify(&forge, &spec()).await;
        let published = outcome.unwrap();
        let [job] = published.jobs.as_slice() else { panic!("{version:?}: {published:?}") };
        let named = !matches!(version, Version::Forgejo(11..=15));
        assert_eq!(job.runner.as_deref(), named.then_some("rs2000 (b)"), "{version:?}");
        if version.is_forgejo() {
            assert_eq!(job.task, Some(forge.world().runs[0].dispatched.task), "{version:?}");
        }
        assert_eq!(published.notes, Vec::<String>::new());
    }
}

#[tokio::test]
async fn stored_names_are_listed_and_what_is_not_seen_is_said() {
    let forge = ending(Version::Forgejo(15), Ending::Success).await;
    forge.with_repo(|repo| {
        repo.secrets = (0..120).map(|n| format!("SECRET_{n}")).collect();
        repo.variables = vec!["REGISTRY_USER".to_owned()];
    });
    let client = client(&forge, Some(TOKEN));
    let stored = client.stored_names("owner/repo").await.unwrap();
    assert_eq!(stored.places("secret_119").collect::<Vec<_>>(), ["secret of the repository"]);
    assert_eq!(stored.places("REGISTRY_USER").collect::<Vec<_>>(), ["variable of the repository"]);
    assert_eq!(stored.places("REGISTRY_TOKEN").count(), 0);
    let held = Fingerprint::of(b"value of REGISTRY_USER").short();
    assert_eq!(stored.holders(&held).collect::<Vec<_>>(), [("REGISTRY_USER", "variable of the repository")]);
    assert_eq!(stored.holders(&Fingerprint::of(b"value of another").short()).count(), 0);
    assert_eq!(stored.unseen.len(), 1, "{:?}", stored.unseen);

    forge.world().organisation = Some((vec!["REGISTRY_TOKEN".to_owned()], Vec::new()));
    let stored = client.stored_names("owner/repo").await.unwrap();
    assert_eq!(stored.places("REGISTRY_TOKEN").collect::<Vec<_>>(), ["secret of the organisation"]);

    forge.fault(Fault::once("GET", "/orgs/", FaultKind::Status(403)).times(2));
    let stored = client.stored_names("owner/repo").await.unwrap();
    assert_eq!(stored.unseen.len(), 3, "{:?}", stored.unseen);

    forge.world().accounts[0].owner = false;
    assert!(client.stored_names("owner/repo").await.unwrap_err().is_auth());
}

#[tokio::test]
async fn what_was_published_is_said_in_a_line() {
    let hook = |_: &_| Outcome::success().on("rs2000").pushing(IMAGE, &digest("b"));
    let forge = stand_in(Version::Forgejo(16), hook).await;
    let (outcome, _) = verify(&forge, &with_image()).await;
    let line = outcome.unwrap().to_string().replace(&forge.url(), "URL");
    let wanted = "run #41 (URL/owner/repo/actions/runs/41) succeeded and pushed owner/name:latest \
                  (sha256:bbbbbbbbbbbb) on rs2000";
    assert_eq!(line, wanted);
}

#[tokio::test]
async fn a_runner_is_seen_as_the_version_tells() {
    for version in WITH_RUNS.into_iter().chain([Version::Forgejo(11), Version::Gitea(24)]) {
        let forge = ending(version, Ending::Success).await;
        let client = client(&forge, Some(TOKEN));
        let told = !matches!(version, Version::Forgejo(11..=14));
        for (word, state) in
            [("offline", RunnerState::Offline), ("idle", RunnerState::Idle), ("active", RunnerState::Active)]
        {
            forge.world().runners =
                vec![("other".to_owned(), "idle".to_owned()), ("rs2000".to_owned(), word.to_owned())];
            let seen = client.runner("owner/repo", "rs2000").await.unwrap();
            assert_eq!(seen, told.then_some(state), "{version:?} {word}");
        }
        assert_eq!(client.runner("owner/repo", "unknown").await.unwrap(), None, "{version:?}");
        forge.world().accounts[0].owner = false;
        assert_eq!(
            client.runner("owner/repo", "rs2000").await.unwrap(),
            None,
            "{version:?}: only an owner may see them"
        );
    }
}

#[tokio::test]
async fn a_runner_that_does_not_come_back_is_said_before_the_dispatch() {
    let spec = VerifyPublish { runner: Some("rs2000".to_owned()), ..spec() };
    let forge = ending(Version::Forgejo(15), Ending::Success).await;
    forge.world().runners = vec![("rs2000".to_owned(), "offline".to_owned())];
    let (outcome, said) = verify(&forge, &spec).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, VerifyError::NotReady(NotReady::RunnerOffline { .. })), "{error}");
    assert!(!error.is_common(), "another host's runner may be back");
    assert_eq!((dispatches(&forge), said.len()), (0, 1), "{said:?}");

    // It calls again a little later: then the run is dispatched.
    let (outcome, _) = verify_with(&forge, &spec, |progress| {
        if matches!(progress, Progress::RunnerOffline { .. }) {
            forge.world().runners = vec![("rs2000".to_owned(), "idle".to_owned())];
        }
    })
    .await;
    assert!(outcome.is_ok(), "{outcome:?}");
}
