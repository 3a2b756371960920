//! The forge client against the stand-in: simulated servers, every version, lost answers.

pub(crate) mod green;
mod proof;
mod versions;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use keyswap::model::{PublishOn, Service, VerifyPublish};
use keyswap::sandbox::forge::{Account, Ending, Fault, FaultKind, Outcome, RunnerHook, Setup, StandIn, Version};
use keyswap::service::forge::{
    Forge, ForgeClient, ForgeConfig, Leftover, NotReady, Progress, Published, RunState, TimedOut, VerifyError,
};
use keyswap::service::http::{Config, RetryPolicy};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "test-token-forge-0001";
const WITH_RUNS: [Version; 7] = [
    Version::Forgejo(12),
    Version::Forgejo(13),
    Version::Forgejo(14),
    Version::Forgejo(15),
    Version::Forgejo(16),
    Version::Gitea(25),
    Version::Gitea(26),
];
const DISPATCH: &str = "/dispatches";

pub(crate) fn spec() -> VerifyPublish {
    VerifyPublish {
        repo: "owner/repo".to_owned(),
        workflow: "docker-publish.yml".to_owned(),
        git_ref: "main".to_owned(),
        image: None,
        timeout: Duration::from_secs(20),
        inputs: BTreeMap::new(),
        on: PublishOn::Any,
        runner: None,
        job: None,
        runner_log: None,
        pushed_by: None,
    }
}

/// The same, with a runner that can be looked at.
pub(crate) fn on_runner() -> VerifyPublish {
    VerifyPublish { runner: Some("rs2000".to_owned()), ..spec() }
}

/// The usual patience, a hundred times shorter.
fn quick() -> ForgeConfig {
    let ms = Duration::from_millis;
    let retry = RetryPolicy { attempts: 3, first: ms(2), longest: ms(10), longest_wish: ms(20) };
    ForgeConfig {
        http: Config { request_timeout: ms(400), retry, ..Config::default() },
        poll_first: ms(5),
        poll_longest: ms(20),
        look_for: ms(80),
        say_again: ms(50),
        settle: ms(60),
        runner_back: ms(300),
        quiet: ms(30),
        give_up: ms(1500),
    }
}

fn client(forge: &StandIn, token: Option<&str>) -> ForgeClient {
    let service = Service { url: forge.url(), ca_file: None, token: None, client_id: None, client_secret: None };
    ForgeClient::new(&service, token.map(SecretString::from), quick()).unwrap()
}

pub(crate) async fn stand_in(version: Version, hook: impl RunnerHook + 'static) -> StandIn {
    let forge = StandIn::start(Setup::new(version, TOKEN), hook).await.unwrap();
    forge.world().runners = vec![("rs2000".to_owned(), "idle".to_owned())];
    forge
}

pub(crate) async fn ending(version: Version, ending: Ending) -> StandIn {
    stand_in(version, move |_: &_| Outcome::new(ending).after(Duration::from_millis(10))).await
}

/// One verification and everything that it said.
pub(crate) async fn verify(forge: &StandIn, spec: &VerifyPublish) -> (Result<Published, VerifyError>, Vec<Progress>) {
    verify_with(forge, spec, |_| {}).await
}

pub(crate) async fn verify_with(
    forge: &StandIn,
    spec: &VerifyPublish,
    mut on: impl FnMut(&Progress) + Send,
) -> (Result<Published, VerifyError>, Vec<Progress>) {
    let client = client(forge, Some(TOKEN));
    let mut said = Vec::new();
    let mut note = |progress: Progress| {
        on(&progress);
        said.push(progress);
    };
    let outcome = client.verify_publish(spec, &mut note, CancellationToken::new()).await;
    let everything = format!("{outcome:?} {said:?} {client:?}");
    assert!(!everything.contains(TOKEN), "{everything}");
    (outcome, said)
}

pub(crate) fn dispatches(forge: &StandIn) -> usize {
    forge.requests().iter().filter(|request| request.starts_with("POST") && request.contains(DISPATCH)).count()
}

#[tokio::test]
async fn every_version_with_runs_from_dispatch_to_verdict() {
    for version in WITH_RUNS {
        let forge = ending(version, Ending::Success).await;
        let (outcome, said) = verify(&forge, &spec()).await;
        let published = outcome.unwrap_or_else(|error| panic!("{version:?}: {error}"));
        let world = forge.world();
        let run = &world.runs[0];
        assert_eq!(published.run.id, Some(run.dispatched.id), "{version:?}");
        assert_eq!(published.run.number, Some(run.dispatched.number), "{version:?}");
        assert_eq!(run.dispatched.git_ref, "refs/heads/main");
        assert_eq!(published.commit, run.dispatched.commit);
        assert!(published.started.is_some() && published.stopped.is_some(), "{version:?}");
        assert_eq!(world.runs.len(), 1);
        assert!(said.iter().any(|progress| matches!(progress, Progress::State { state: RunState::Success, .. })));
    }
}

#[tokio::test]
async fn forgejo_11_is_followed_through_its_tasks() {
    let forge = ending(Version::Forgejo(11), Ending::Success).await;
    let (outcome, _) = verify(&forge, &spec()).await;
    let published = outcome.unwrap();
    assert_eq!(published.run.number, Some(forge.world().runs[0].dispatched.number));
    assert!(!forge.requests().iter().any(|request| request.contains("/actions/runs?")));

    let forge = ending(Version::Forgejo(11), Ending::Failure).await;
    let (outcome, _) = verify(&forge, &spec()).await;
    assert!(matches!(outcome, Err(VerifyError::Ended { state: RunState::Failure, .. })), "{outcome:?}");

    let forge = ending(Version::Forgejo(11), Ending::StuckWaiting).await;
    let short = VerifyPublish { timeout: Duration::from_millis(300), ..spec() };
    let (outcome, _) = verify(&forge, &short).await;
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains("no runner has taken it") && text.contains("has no call to cancel"), "{text}");
}

#[tokio::test]
async fn gitea_24_cannot_tell_that_all_jobs_ended() {
    let forge = ending(Version::Gitea(24), Ending::Success).await;
    let (outcome, _) = verify(&forge, &on_runner()).await;
    assert!(matches!(outcome, Err(VerifyError::Unverified { .. })), "{outcome:?}");

    let forge = ending(Version::Gitea(24), Ending::Failure).await;
    let (outcome, _) = verify(&forge, &on_runner()).await;
    assert!(matches!(outcome, Err(VerifyError::Ended { state: RunState::Failure, .. })), "{outcome:?}");
}

#[tokio::test]
async fn servers_too_old_are_refused_before_anything_is_dispatched() {
    for version in [Version::Forgejo(10), Version::Gitea(23)] {
        let forge = ending(version, Ending::Success).await;
        let (outcome, _) = verify(&forge, &spec()).await;
        assert!(matches!(outcome, Err(VerifyError::NotReady(NotReady::TooOld { .. }))), "{outcome:?}");
        assert!(forge.world().runs.is_empty());
    }
}

#[tokio::test]
async fn what_a_dispatch_lacks_is_found_before_it() {
    type Break = fn(&StandIn, &mut VerifyPublish);
    type Wanted = fn(&NotReady) -> bool;
    let cases: &[(&str, Break, Wanted)] = &[
        ("invisible", |_, spec| spec.repo = "owner/other".to_owned(), |w| matches!(w, NotReady::NoRepo { .. })),
        ("archived", |f, _| f.with_repo(|r| r.archived = true), |w| matches!(w, NotReady::Archived { .. })),
        ("actions off", |f, _| f.with_repo(|r| r.actions = false), |w| matches!(w, NotReady::ActionsOff { .. })),
        ("no branch", |_, spec| spec.git_ref = "release/1".to_owned(), |w| matches!(w, NotReady::NoRef { .. })),
        ("no tag", |_, spec| spec.git_ref = "refs/tags/v1".to_owned(), |w| matches!(w, NotReady::NoRef { .. })),
        ("no file", |_, spec| spec.workflow = "other.yml".to_owned(), |w| matches!(w, NotReady::NoWorkflow { .. })),
        (
            "shadowed directory",
            |f, _| {
                f.with_repo(|r| {
                    let files = [".forgejo/workflows/other.yml", ".github/workflows/docker-publish.yml"];
                    r.files = files.map(str::to_owned).to_vec();
                });
            },
            |w| matches!(w, NotReady::NoWorkflow { .. }),
        ),
        ("no directory", |f, _| f.with_repo(|r| r.files.clear()), |w| matches!(w, NotReady::NoWorkflow { .. })),
    ];
    for (name, spoil, wanted) in cases {
        let forge = ending(Version::Forgejo(15), Ending::Success).await;
        let mut spec = spec();
        spoil(&forge, &mut spec);
        let (outcome, _) = verify(&forge, &spec).await;
        match outcome {
            Err(VerifyError::NotReady(why)) => assert!(wanted(&why), "{name}: {why}"),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(dispatches(&forge), 0, "{name}");
    }
}

#[tokio::test]
async fn tags_nested_branches_and_other_directories_are_found() {
    for (git_ref, full) in [("release/1.0", "refs/heads/release/1.0"), ("refs/tags/v1", "refs/tags/v1")] {
        let forge = ending(Version::Forgejo(14), Ending::Success).await;
        forge.with_repo(|repo| {
            repo.branches.insert("release/1.0".to_owned(), "b2".repeat(20));
            repo.tags.insert("v1".to_owned(), "c3".repeat(20));
            repo.files = vec![".github/workflows/docker-publish.yml".to_owned()];
        });
        let spec = VerifyPublish { git_ref: git_ref.to_owned(), ..spec() };
        let (outcome, _) = verify(&forge, &spec).await;
        let published = outcome.unwrap();
        assert_eq!(published.workflow, ".github/workflows/docker-publish.yml");
        assert_eq!(forge.world().runs[0].dispatched.git_ref, full);
    }
}

#[tokio::test]
async fn a_token_that_may_not_is_a_class_of_its_own() {
    for token in [None, Some("test-token-wrong"), Some("test-token-readonly")] {
        let forge = ending(Version::Forgejo(15), Ending::Success).await;
        let readonly = Account {
            login: "reader".to_owned(),
            token: "test-token-readonly".to_owned(),
            write: false,
            packages: false,
            owner: false,
        };
        forge.world().accounts.push(readonly);
        let client = client(&forge, token);
        let outcome = client.verify_publish(&spec(), &mut |_| {}, CancellationToken::new()).await;
        let error = outcome.unwrap_err();
        assert!(error.is_auth(), "{token:?}: {error}");
        assert!(forge.world().runs.is_empty());
    }
}

#[tokio::test]
async fn a_token_that_dies_on_the_way_is_told_at_once() {
    let forge = ending(Version::Forgejo(15), Ending::NeverEnds).await;
    let (outcome, _) = verify_with(&forge, &spec(), |progress| {
        if matches!(progress, Progress::Dispatched { .. }) {
            forge.world().accounts.clear();
        }
    })
    .await;
    let error = outcome.unwrap_err();
    assert!(error.is_auth(), "{error}");
    assert!(error.to_string().contains("run #41"), "{error}");
}

#[tokio::test]
async fn other_endings_are_no_success() {
    for (how, state) in [
        (Ending::Failure, RunState::Failure),
        (Ending::Cancelled, RunState::Cancelled),
        (Ending::Skipped, RunState::Skipped),
    ] {
        for version in WITH_RUNS {
            let forge = ending(version, how).await;
            let (outcome, _) = verify(&forge, &spec()).await;
            match outcome {
                Err(VerifyError::Ended { state: found, run }) => {
                    assert_eq!(found, state, "{version:?}");
                    assert!(run.id.is_some());
                }
                other => panic!("{version:?} {how:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_run_that_does_not_end_is_cancelled_where_that_can_be_done() {
    let hows = [
        (Ending::StuckWaiting, "no runner has taken it"),
        (Ending::Blocked, "is still blocked"),
        (Ending::NeverEnds, "is still running"),
    ];
    let cases = WITH_RUNS.into_iter().flat_map(|version| hows.map(|how| (version, how)));
    let case = |(version, (how, words)): (Version, (Ending, &'static str))| async move {
        let forge = ending(version, how).await;
        let short = VerifyPublish { timeout: Duration::from_millis(600), ..spec() };
        let (outcome, said) = verify(&forge, &short).await;
        let Err(VerifyError::TimedOut(why)) = outcome else { panic!("{version:?} {how:?}: {outcome:?}") };
        assert!(why.to_string().contains(words), "{why}");
        if how == Ending::Blocked && version.is_forgejo() {
            assert!(why.to_string().contains("somebody must approve it"), "{why}");
        }
        assert!(said.iter().any(|progress| matches!(progress, Progress::Still { .. })), "{said:?}");
        let TimedOut { left, .. } = *why;
        let status = forge.world().runs[0].status;
        if version == Version::Forgejo(16) {
            assert!(matches!(left, Leftover::Cancelled(_)), "{left:?}");
            assert_eq!(status, "cancelled");
        } else {
            assert!(matches!(left, Leftover::Running { .. }), "{left:?}");
            assert_ne!(status, "cancelled");
        }
    };
    join_all(cases.map(case)).await;
}

#[tokio::test]
async fn a_lost_answer_to_the_dispatch_never_makes_two_runs() {
    let kinds = [
        FaultKind::LoseReply,
        FaultKind::HangAfter,
        FaultKind::Truncate,
        FaultKind::Garble("<html>bad gateway</html>"),
        FaultKind::Reset,
        FaultKind::Hang,
        FaultKind::Status(502),
        FaultKind::Status(503),
        FaultKind::Busy(0),
    ];
    let cases = WITH_RUNS.into_iter().flat_map(|version| kinds.clone().map(|kind| (version, kind)));
    let case = |(version, kind): (Version, FaultKind)| async move {
        let forge = ending(version, Ending::Success).await;
        forge.fault(Fault::once("POST", DISPATCH, kind.clone()));
        let (outcome, _) = verify(&forge, &spec()).await;
        let published = outcome.unwrap_or_else(|error| panic!("{version:?} {kind:?}: {error}"));
        let world = forge.world();
        assert_eq!(world.runs.len(), 1, "{version:?} {kind:?}");
        assert_eq!(published.run.id, Some(world.runs[0].dispatched.id));
    };
    join_all(cases.map(case)).await;
}

#[tokio::test]
async fn an_answer_of_500_is_a_refusal_unless_a_run_appeared() {
    let forge = ending(Version::Forgejo(15), Ending::Success).await;
    forge.fault(Fault::once("POST", DISPATCH, FaultKind::Status(500)).times(9));
    let (outcome, _) = verify(&forge, &spec()).await;
    assert!(matches!(outcome, Err(VerifyError::Refused { code: 500, .. })), "{outcome:?}");
    assert_eq!(dispatches(&forge), 1);
}

#[tokio::test]
async fn without_a_look_the_dispatch_is_not_repeated() {
    let forge = ending(Version::Forgejo(15), Ending::Success).await;
    forge.fault(Fault::once("POST", DISPATCH, FaultKind::LoseReply));
    // The first list is the mark before the dispatch.
    forge.fault(Fault::once("GET", "/actions/runs", FaultKind::Status(503)).after(1).times(1000));
    let (outcome, _) = verify(&forge, &spec()).await;
    assert!(matches!(outcome, Err(VerifyError::Untold { .. })), "{outcome:?}");
    assert_eq!(dispatches(&forge), 1);
}

#[tokio::test]
async fn an_older_run_of_the_same_commit_is_never_ours() {
    for version in WITH_RUNS {
        let forge = ending(version, Ending::Failure).await;
        {
            let mut world = forge.world();
            let repo = world.repos[0].clone();
            let id = world.add_run(&repo, "docker-publish.yml", "refs/heads/main", "workflow_dispatch", "ops");
            world.run_mut(id).unwrap().status = "success";
        }
        forge.fault(Fault::once("POST", DISPATCH, FaultKind::LoseReply));
        let (outcome, _) = verify(&forge, &spec()).await;
        match outcome {
            Err(VerifyError::Ended { run, state: RunState::Failure }) => assert_eq!(run.number, Some(42)),
            other => panic!("{version:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_names_an_older_run_is_not_believed() {
    let forge = ending(Version::Forgejo(15), Ending::NeverEnds).await;
    {
        let mut world = forge.world();
        let repo = world.repos[0].clone();
        let id = world.add_run(&repo, "docker-publish.yml", "refs/heads/main", "workflow_dispatch", "ops");
        assert_eq!(id, 1001);
        world.run_mut(id).unwrap().status = "success";
    }
    forge.fault(Fault::once("POST", DISPATCH, FaultKind::Garble(r#"{"id":1001,"run_number":41,"jobs":[]}"#)));
    let (outcome, _) = verify(&forge, &spec()).await;
    assert!(matches!(outcome, Err(VerifyError::Untold { .. })), "{outcome:?}");
}

/// Somebody else's runs appear between the mark and the dispatch, whose answer is then lost.
async fn among_others(others: &[(&str, &str, &str, &str)], inputs: &[(&str, &str)]) -> Result<Published, VerifyError> {
    among_others_where("nonce", others, inputs).await
}

/// The same, where the workflow declares this input.
async fn among_others_where(
    declared: &str,
    others: &[(&str, &str, &str, &str)],
    inputs: &[(&str, &str)],
) -> Result<Published, VerifyError> {
    let forge = ending(Version::Forgejo(15), Ending::Success).await;
    forge.with_repo(|repo| repo.inputs = vec![declared.to_owned()]);
    forge.with_repo(|repo| {
        repo.branches.insert("dev".to_owned(), "d4".repeat(20));
    });
    forge.fault(Fault::once("POST", DISPATCH, FaultKind::LoseReply));
    let inputs = inputs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let spec = VerifyPublish { inputs, ..spec() };
    let (outcome, _) = verify_with(&forge, &spec, |progress| {
        if matches!(progress, Progress::Ready { .. }) {
            let mut world = forge.world();
            let repo = world.repos[0].clone();
            for (nth, (workflow, git_ref, event, actor)) in others.iter().enumerate() {
                let id = world.add_run(&repo, workflow, git_ref, event, actor);
                // Of every second one the inputs are not told.
                let theirs = [(declared.to_owned(), "theirs".to_owned())];
                let theirs = theirs.into_iter().filter(|_| nth % 2 == 0).collect();
                world.run_mut(id).unwrap().dispatched.inputs = theirs;
            }
        }
    })
    .await;
    if let Ok(published) = &outcome {
        let world = forge.world();
        let ours = world.runs.last().unwrap();
        assert_eq!(published.run.id, Some(ours.dispatched.id));
    }
    outcome
}

#[tokio::test]
async fn ours_is_told_from_others_or_not_at_all() {
    let (file, main) = ("docker-publish.yml", "refs/heads/main");
    for other in [
        ("lint.yml", main, "workflow_dispatch", "ops"),
        (file, "refs/heads/dev", "workflow_dispatch", "ops"),
        (file, main, "push", "ops"),
        (file, main, "workflow_dispatch", "another"),
    ] {
        let outcome = among_others(&[other], &[]).await;
        assert!(outcome.is_ok(), "{other:?}: {outcome:?}");
    }
    let twin = (file, main, "workflow_dispatch", "ops");
    let outcome = among_others(&[twin], &[("nonce", "ours")]).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    let outcome = among_others(&[twin], &[]).await;
    assert!(matches!(outcome, Err(VerifyError::Untold { .. })), "{outcome:?}");
    // One that has our inputs outranks a twin of which they are not told.
    let outcome = among_others_where("keyswap_nonce", &[twin, twin], &[]).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    // A workflow that declares our nonce gets one, and by it the run is ours.
    let outcome = among_others_where("keyswap_nonce", &[twin], &[]).await;
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test]
async fn lost_looks_are_repeated() {
    for kind in [
        FaultKind::Status(500),
        FaultKind::Status(503),
        FaultKind::Busy(0),
        FaultKind::Reset,
        FaultKind::LoseReply,
        FaultKind::Truncate,
        FaultKind::Garble("{"),
        FaultKind::Hang,
    ] {
        let forge = ending(Version::Forgejo(16), Ending::Success).await;
        let times = if kind == FaultKind::Hang { 2 } else { 7 };
        forge.fault(Fault::once("GET", "/actions/runs/", kind.clone()).times(times));
        let (outcome, said) = verify(&forge, &spec()).await;
        assert!(outcome.is_ok(), "{kind:?}: {outcome:?}");
        let complaints = said.iter().filter(|progress| matches!(progress, Progress::Unanswered { .. })).count();
        assert!(complaints <= 1, "{kind:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_run_that_vanishes_is_no_success() {
    let forge = ending(Version::Forgejo(15), Ending::NeverEnds).await;
    let (outcome, _) = verify_with(&forge, &spec(), |progress| {
        if matches!(progress, Progress::Dispatched { .. }) {
            forge.world().runs.clear();
        }
    })
    .await;
    assert!(matches!(outcome, Err(VerifyError::Gone { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_stop_is_obeyed_and_says_what_is_left() {
    let cancelled = |version, when: fn(&Progress) -> bool| async move {
        let forge = ending(version, Ending::NeverEnds).await;
        let client = client(&forge, Some(TOKEN));
        let stop = CancellationToken::new();
        let spec = spec();
        let mut on = |progress: Progress| {
            if when(&progress) {
                stop.cancel();
            }
        };
        let outcome = client.verify_publish(&spec, &mut on, stop.clone()).await;
        let Err(VerifyError::Interrupted { left }) = outcome else { panic!("{outcome:?}") };
        (left, forge)
    };
    let dispatched: fn(&Progress) -> bool = |progress| matches!(progress, Progress::Dispatched { .. });
    let (left, forge) = cancelled(Version::Forgejo(16), dispatched).await;
    assert!(matches!(left, Leftover::Cancelled(_)), "{left:?}");
    assert_eq!(forge.world().runs[0].status, "cancelled");
    let (left, _) = cancelled(Version::Forgejo(15), dispatched).await;
    assert!(matches!(left, Leftover::Running { .. }), "{left:?}");

    // Before anything was asked.
    let forge = ending(Version::Forgejo(16), Ending::Success).await;
    forge.fault(Fault::once("GET", "/version", FaultKind::Hang));
    let stop = CancellationToken::new();
    stop.cancel();
    let outcome = client(&forge, Some(TOKEN)).verify_publish(&spec(), &mut |_| {}, stop).await;
    assert_eq!(outcome, Err(VerifyError::Interrupted { left: Leftover::Nothing }));
}

#[tokio::test]
async fn a_stop_while_the_dispatch_is_unanswered_still_finds_the_run() {
    let forge = Arc::new(ending(Version::Forgejo(16), Ending::NeverEnds).await);
    forge.fault(Fault::once("POST", DISPATCH, FaultKind::HangAfter));
    let stop = CancellationToken::new();
    let watcher = {
        let (forge, stop) = (Arc::clone(&forge), stop.clone());
        tokio::spawn(async move {
            while forge.world().runs.is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            stop.cancel();
        })
    };
    let outcome = client(&forge, Some(TOKEN)).verify_publish(&spec(), &mut |_| {}, stop).await;
    watcher.await.unwrap();
    assert!(matches!(outcome, Err(VerifyError::Interrupted { left: Leftover::Cancelled(_) })), "{outcome:?}");
    assert_eq!(forge.world().runs.len(), 1);
}

#[tokio::test]
async fn the_runner_is_asked_once_for_each_run() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    let forge = stand_in(Version::Forgejo(15), move |run: &keyswap::sandbox::forge::DispatchedRun| {
        notes.lock().unwrap().push(run.inputs.clone());
        Outcome::success()
    })
    .await;
    forge.with_repo(|repo| repo.inputs = vec!["nonce".to_owned()]);
    let inputs = BTreeMap::from([("nonce", "n1"), ("undeclared", "x")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    let spec = VerifyPublish { inputs, ..spec() };
    verify(&forge, &spec).await.0.unwrap();
    let asked = asked.lock().unwrap();
    assert_eq!(asked.as_slice(), [BTreeMap::from([("nonce".to_owned(), "n1".to_owned())])]);
}
