//! The whole way of an operator who may do just what the job needs, against the stand-in.

use secrecy::ExposeSecret;

use super::super::*;
use super::scene::{Scene, spec};
use crate::model::{IdentityScope, IdentitySpec, RunId};

#[tokio::test]
async fn from_nothing_to_a_proved_token_and_back() {
    let scene = Scene::new().await;
    let operator = scene.operator();
    let planned = operator.plan_identity(&spec()).await.unwrap();
    assert_eq!(planned.changes.len(), 3, "{:?}", planned.changes);
    let before = scene.stand_in.requests().len();
    let applied = operator.apply_identity(&spec(), &planned.changes).await.unwrap();
    assert_eq!(applied.changed, planned.changes);
    assert!(scene.stand_in.requests().len() > before);

    // Once more: nothing to do, nothing done.
    assert_eq!(operator.plan_identity(&spec()).await.unwrap().changes, []);
    let again = operator.apply_identity(&spec(), &[]).await.unwrap();
    assert_eq!((again.identity.as_str(), again.changed.len()), (applied.identity.as_str(), 0));

    let issuer = InfisicalIssuer::open(operator, spec()).await.unwrap();
    let name = token_name(&RunId::new(jiff::Timestamp::now()));
    let minted = issuer.mint(&name).await.unwrap();
    assert_eq!((minted.name.as_str(), minted.identity.as_str()), (name.as_str(), issuer.identity()));
    assert_eq!(issuer.death(&minted.value).await.unwrap(), Death::Alive);

    let proof = issuer.prove(&minted.value, &issuer.expected()).await;
    assert!(proof.is_narrow(), "{:#?}", proof.rows);
    assert_eq!(proof.numbers(Verdict::Pass), (1..=15).collect::<Vec<u8>>());
    assert!(proof.summary().starts_with("narrow: all "), "{}", proof.summary());

    issuer.revoke(&minted.id).await.unwrap();
    issuer.revoke(&minted.id).await.unwrap();
    assert_eq!(issuer.death(&minted.value).await.unwrap(), Death::Dead(Class::Revoked));
    // The shared one lives on.
    assert_eq!(scene.stand_in.world().living().len(), 1);

    issuer.operator().log_out().await.unwrap();
    assert!(scene.stand_in.world().tokens.iter().filter(|t| t.method == "universal-auth").all(|t| t.revoked));
    // Its login is not lost with that.
    assert_eq!(issuer.revoke_named(&name).await.unwrap(), [minted.id]);
}

#[tokio::test]
async fn nothing_of_a_token_shows_in_debug_output() {
    let scene = Scene::new().await;
    let issuer = scene.issuer().await;
    let minted = issuer.mint("keyswap test").await.unwrap();
    let shown = format!("{minted:?} {issuer:?}");
    assert!(!shown.contains(minted.value.expose_secret()));
    assert!(!shown.contains(&scene.story.client_secret));
}

#[tokio::test]
async fn an_identity_of_the_organization_takes_an_admin() {
    let scene = Scene::new().await;
    let org = IdentitySpec { scope: IdentityScope::Org, ..spec() };
    let operator = scene.operator();
    let planned = operator.plan_identity(&org).await;
    // The operator of a project may not even look.
    assert!(matches!(planned, Err(ApplyError::Infisical { ref error, .. }) if error.is_auth()), "{planned:?}");

    let admin = scene.admin();
    let planned = admin.plan_identity(&org).await.unwrap();
    assert_eq!(planned.changes.len(), 4, "{:?}", planned.changes);
    admin.apply_identity(&org, &planned.changes).await.unwrap();
    let issuer = InfisicalIssuer::open(admin, org).await.unwrap();
    let minted = issuer.mint("keyswap test").await.unwrap();
    let proof = issuer.prove(&minted.value, &issuer.expected()).await;
    assert!(proof.is_narrow(), "{:#?}", proof.rows);
}

#[tokio::test]
async fn a_name_that_stands_for_two_is_refused_until_an_id_says_which() {
    let scene = Scene::new().await;
    let (org, project) = (scene.story.org.clone(), scene.story.project.clone());
    let ids: Vec<String> = (0..2)
        .map(|_| {
            let mut world = scene.stand_in.world();
            let id = world.add_identity(&org, Some(&project), &spec().name);
            world.add_member(&project, &id, &["no-access"]);
            id
        })
        .collect();
    let operator = scene.operator();
    let refused = operator.plan_identity(&spec()).await.unwrap_err();
    let ApplyError::Infisical { error: InfisicalError::Ambiguous { ids: told, .. }, .. } = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(told, &ids);
    let which = IdentitySpec { id: Some(ids[1].clone()), ..spec() };
    assert_eq!(operator.plan_identity(&which).await.unwrap().found.identity.unwrap().id, ids[1]);
    let wrong = IdentitySpec { id: Some(scene.story.operator.clone()), ..spec() };
    assert!(operator.plan_identity(&wrong).await.is_err());
}

#[tokio::test]
async fn drift_is_shown_and_put_right_and_never_by_the_way() {
    let scene = Scene::new().await;
    let issuer = scene.issuer().await;
    let identity = issuer.identity().to_owned();
    {
        let mut world = scene.stand_in.world();
        let project = scene.story.project.clone();
        let wide = serde_json::json!([{"subject": "secrets", "action": ["describeSecret", "readValue"]}]);
        world.add_privilege(&project, &identity, "by-hand", &wide);
    }
    let operator = scene.operator();
    let drift = InfisicalIssuer::open(scene.operator(), spec()).await.unwrap_err();
    assert!(drift.to_string().contains("- privilege `by-hand`: "), "{drift}");
    let planned = operator.plan_identity(&spec()).await.unwrap();
    assert!(matches!(planned.changes.as_slice(), [Change::Withdraw { .. }]));
    // Only what was shown.
    assert!(matches!(operator.apply_identity(&spec(), &[]).await, Err(ApplyError::Stale(_))));
    operator.apply_identity(&spec(), &planned.changes).await.unwrap();
    assert_eq!(operator.plan_identity(&spec()).await.unwrap().changes, []);
}

#[tokio::test]
async fn what_was_lent_is_asked_for_again_when_it_has_ended() {
    let scene = Scene::new().await;
    let operator = scene.operator();
    operator.log_in().await.unwrap();
    for token in &mut scene.stand_in.world().tokens {
        token.revoked |= token.method == "universal-auth";
    }
    assert_eq!(operator.project("home-platform").await.unwrap().id, scene.story.project);
    assert_eq!(operator.project(&scene.story.project).await.unwrap().slug, "home-platform");
    assert_eq!(operator.project("other-project").await, Err(InfisicalError::NoProject("other-project".to_owned())));
    let logins = scene.stand_in.requests().iter().filter(|line| line.contains("/login")).count();
    assert_eq!(logins, 2);
}

#[tokio::test]
async fn a_wrong_login_is_told_once_and_without_the_secret() {
    let scene = Scene::new().await;
    let secret = secrecy::SecretString::from("test-client-secret-wrong");
    let login = Login::UniversalAuth { client_id: scene.story.client_id.clone(), client_secret: secret };
    let error = scene.client(login).log_in().await.unwrap_err();
    assert_eq!(error.class(), Some(Class::BadLogin));
    assert!(!error.to_string().contains("wrong"), "{error}");
    // Three wrong ones would lock the operator out.
    assert_eq!(scene.stand_in.requests().len(), 1);
}

#[tokio::test]
async fn a_change_of_rights_is_waited_for_and_nothing_else_is() {
    let wait = std::time::Duration::from_millis(150);
    let scene = Scene::new().await;
    let login = Login::Token(secrecy::SecretString::from(scene.story.admin_token.clone()));
    let config = InfisicalConfig { permission_cache: wait, ..super::scene::config() };
    let admin = scene.client_with(login, config);
    let planned = admin.plan_identity(&spec()).await.unwrap();
    let begin = std::time::Instant::now();
    admin.apply_identity(&spec(), &planned.changes).await.unwrap();
    assert!(begin.elapsed() >= wait);
}

#[tokio::test]
async fn the_server_remembers_what_was_allowed_for_ten_seconds() {
    use crate::sandbox::infisical::Clock;
    let clock = Clock::real();
    let scene = Scene::at(clock.clone()).await;
    let issuer = scene.issuer().await;
    let minted = issuer.mint("keyswap test").await.unwrap();
    assert!(issuer.prove(&minted.value, &issuer.expected()).await.is_narrow());
    let everything = serde_json::json!([{"subject": "secrets", "action": ["describeSecret", "readValue"]}]);
    scene.stand_in.world().add_privilege(&scene.story.project, issuer.identity(), "by-hand", &everything);
    // The token's own probes see nothing of it yet; from outside it shows at once.
    let soon = issuer.prove(&minted.value, &issuer.expected()).await;
    assert_eq!(soon.numbers(Verdict::Fail), [13, 14]);
    clock.pass(std::time::Duration::from_secs(11));
    let later = issuer.prove(&minted.value, &issuer.expected()).await;
    assert_eq!(later.numbers(Verdict::Fail), [2, 3, 5, 6, 13, 14]);
}

/// A server that stores less than it was told makes a wide rule of a narrow one: that is read back and said.
#[tokio::test]
async fn what_the_server_did_not_keep_is_found_out() {
    for lost in ["secretName", "secretPath", "environment"] {
        let scene = Scene::new().await;
        scene.stand_in.world().loses = Some(lost);
        let operator = scene.operator();
        let planned = operator.plan_identity(&spec()).await.unwrap();
        let made = operator.apply_identity(&spec(), &planned.changes).await;
        assert!(matches!(made, Err(ApplyError::ReadBack(_))), "{lost}: {made:?}");
        assert!(InfisicalIssuer::open(scene.operator(), spec()).await.is_err(), "{lost}");
        // The same where a privilege that is there is written anew.
        scene.stand_in.world().loses = None;
        let planned = operator.plan_identity(&spec()).await.unwrap();
        operator.apply_identity(&spec(), &planned.changes).await.unwrap();
        let wider = IdentitySpec {
            access: vec![crate::model::Access { environment: "dev".to_owned(), ..spec().access[0].clone() }],
            ..spec()
        };
        scene.stand_in.world().loses = Some(lost);
        let planned = operator.plan_identity(&wider).await.unwrap();
        let made = operator.apply_identity(&wider, &planned.changes).await;
        assert!(matches!(made, Err(ApplyError::ReadBack(_))), "{lost}: {made:?}");
    }
}

/// Another way to log in, tokens that never end, addresses: all of it is read.
#[tokio::test]
async fn an_identity_that_can_do_more_than_its_file_says_is_not_minted_for() {
    let scene = Scene::new().await;
    let issuer = scene.issuer().await;
    let id = issuer.identity().to_owned();
    let change = |change: fn(&mut crate::sandbox::infisical::TokenAuth)| {
        scene.stand_in.world().with_identity(&id, |identity| identity.token_auth.iter_mut().for_each(change));
    };
    let opens = async || InfisicalIssuer::open(scene.operator(), spec()).await;
    assert!(opens().await.is_ok());
    change(|auth| auth.period = 3600);
    assert!(opens().await.unwrap_err().to_string().contains("cannot be what its file says"));
    change(|auth| auth.period = 0);
    change(|auth| {
        auth.addresses = Some(serde_json::json!([{"type": "ipv4", "prefix": 8, "ipAddress": "10.0.0.0"}]));
    });
    assert!(opens().await.unwrap_err().to_string().contains("from some addresses only"));
    let operator = scene.operator();
    let planned = operator.plan_identity(&spec()).await.unwrap();
    operator.apply_identity(&spec(), &planned.changes).await.unwrap();
    assert!(opens().await.is_ok());
    scene.stand_in.world().attach_universal_auth(&id, "test-client-secret-more");
    let more = opens().await.unwrap_err();
    assert!(crate::model::chain(&more).contains("`universal-auth`"), "{more}");
}
