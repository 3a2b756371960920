//! Each wide token is told by the right rows.

use secrecy::SecretString;
use serde_json::{Value, json};

use super::super::*;
use super::scene::Scene;
use crate::model::Fingerprint;
use crate::sandbox::infisical::World;

/// The proof for a token of the identity, after its rights were changed behind everybody's back.
async fn after(change: impl FnOnce(&mut World, &str, &str)) -> Proof {
    let scene = Scene::new().await;
    let issuer = scene.issuer().await;
    let minted = issuer.mint("keyswap test").await.unwrap();
    change(&mut scene.stand_in.world(), &scene.story.project, issuer.identity());
    issuer.prove(&minted.value, &issuer.expected()).await
}

fn with_permissions(permissions: Value) -> impl FnOnce(&mut World, &str, &str) {
    move |world, project, identity| {
        world.privileges.clear();
        world.add_privilege(project, identity, "keyswap-read", &permissions);
    }
}

fn shown(proof: &Proof) -> (Vec<u8>, Vec<u8>) {
    assert!(!proof.is_narrow());
    (proof.numbers(Verdict::Fail), proof.numbers(Verdict::CouldNotLook))
}

#[tokio::test]
async fn the_narrow_one_passes() {
    let proof = after(|_, _, _| ()).await;
    assert!(proof.is_narrow(), "{:#?}", proof.rows);
}

#[tokio::test]
async fn a_viewer() {
    let proof = after(|world, project, identity| {
        world.privileges.clear();
        world.memberships.retain(|membership| membership.identity != identity);
        world.add_member(project, identity, &["viewer"]);
    })
    .await;
    // One of the project may see its own tokens; one of the organization could not (9).
    assert_eq!(shown(&proof), (vec![2, 3, 5, 6, 9, 10, 13, 14], vec![]), "{:#?}", proof.rows);
}

#[tokio::test]
async fn an_instance_admin() {
    let proof = after(|world, project, identity| {
        world.with_identity(identity, |identity| {
            identity.instance_admin = true;
            identity.org_role = "admin".to_owned();
        });
        world.memberships.retain(|membership| membership.identity != identity);
        let other = world.projects.iter().find(|other| other.id != project).unwrap().id.clone();
        for project in [project, &other] {
            world.add_member(project, identity, &["admin"]);
        }
    })
    .await;
    assert_eq!(shown(&proof), (vec![2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], vec![]), "{:#?}", proof.rows);
}

#[tokio::test]
async fn one_that_a_slip_of_the_pen_widened() {
    // `secretname` is no key of a condition: it is dropped, and every name can be read.
    let mut rule = World::narrow_rule();
    let names = rule["conditions"].as_object_mut().unwrap().shift_remove("secretName").unwrap();
    rule["conditions"]["secretname"] = names;
    let proof = after(with_permissions(json!([rule]))).await;
    // Not found where it should be denied; another rule than the one that was granted; a key too many.
    assert_eq!(shown(&proof), (vec![2, 3, 5, 13, 14], vec![]), "{:#?}", proof.rows);
}

#[tokio::test]
async fn one_that_a_mistyped_operator_closed() {
    let mut rule = World::narrow_rule();
    rule["conditions"]["secretName"] = json!({"$inn": ["A"]});
    let proof = after(with_permissions(json!([rule]))).await;
    assert_eq!(shown(&proof), (vec![1, 2, 3, 5, 13, 14], vec![]), "{:#?}", proof.rows);
}

#[tokio::test]
async fn one_with_another_environment_too() {
    let mut rule = World::narrow_rule();
    rule["conditions"]["environment"] = json!({"$in": ["prod", "dev"]});
    let proof = after(with_permissions(json!([rule]))).await;
    // The folder is there in `dev`, too: the listing of it tells.
    assert_eq!(shown(&proof), (vec![2, 3, 6, 13, 14], vec![]), "{:#?}", proof.rows);
}

#[tokio::test]
async fn one_that_may_write() {
    let mut rule = World::narrow_rule();
    rule["action"] = json!(["edit"]);
    let proof = after(with_permissions(json!([World::narrow_rule(), rule]))).await;
    // Only from outside can that be seen without writing.
    assert_eq!(shown(&proof), (vec![13, 14], vec![]), "{:#?}", proof.rows);
}

#[tokio::test]
async fn one_that_was_revoked() {
    let scene = Scene::new().await;
    let issuer = scene.issuer().await;
    let minted = issuer.mint("keyswap test").await.unwrap();
    issuer.revoke(&minted.id).await.unwrap();
    let proof = issuer.prove(&minted.value, &issuer.expected()).await;
    assert!(!proof.is_narrow());
    let first = proof.rows.iter().find(|row| row.number == 1).unwrap();
    assert_eq!((first.verdict, first.got.as_str()), (Verdict::Fail, "revoked (401)"));
}

#[tokio::test]
async fn the_wrong_ones_are_refused_before_anybody_is_asked() {
    let scene = Scene::new().await;
    let issuer = scene.issuer().await;
    let now = jiff::Timestamp::now().as_second();
    let mint = |expires: Option<i64>| {
        let value = scene.stand_in.world().mint_past_rules(issuer.identity(), "by hand", expires);
        SecretString::from(value)
    };
    let (expired, soon, endless) = (mint(Some(now - 60)), mint(Some(now + 3600)), mint(None));
    let shared = SecretString::from(scene.story.admin_token.clone());
    let print = Fingerprint::of(scene.story.admin_token.as_bytes()).short();
    let expected = issuer.expected();
    let sharing = issuer.expected().sharing(vec![print]);
    for (token, expected, says) in [
        (&expired, &expected, "it expired at "),
        (&soon, &expected, "it is about to expire, at "),
        (&endless, &expected, "it has no end (`exp`)"),
        (&shared, &expected, "it is for another identity ("),
        (&shared, &sharing, "it is the shared credential"),
        (&SecretString::from("test-token-1"), &expected, "it is not a token: "),
    ] {
        let before = scene.stand_in.requests().len();
        let proof = issuer.prove(token, expected).await;
        assert!(!proof.is_narrow());
        assert_eq!(proof.numbers(Verdict::Fail), [15]);
        assert!(proof.summary().starts_with(&format!("refused: {says}")), "{}", proof.summary());
        // The clock, and nothing with the token.
        assert_eq!(scene.stand_in.requests()[before..], ["GET /api/status"]);
    }
}

/// A short life is no fault where the identity's file wants it so; what is past half of it is.
#[tokio::test]
async fn a_short_life_is_as_long_as_its_file_says() {
    use crate::model::IdentitySpec;
    let scene = Scene::new().await;
    let spec = IdentitySpec { ttl: std::time::Duration::from_secs(3600), ..super::scene::spec() };
    let operator = scene.operator();
    let planned = operator.plan_identity(&spec).await.unwrap();
    operator.apply_identity(&spec, &planned.changes).await.unwrap();
    let issuer = InfisicalIssuer::open(operator, spec).await.unwrap();
    let minted = issuer.mint("keyswap test").await.unwrap();
    let proof = issuer.prove(&minted.value, &issuer.expected()).await;
    assert!(proof.is_narrow(), "{}: {:#?}", proof.summary(), proof.rows);
    let soon = jiff::Timestamp::now().as_second() + 1700;
    let soon = scene.stand_in.world().mint_past_rules(issuer.identity(), "by hand", Some(soon));
    let proof = issuer.prove(&SecretString::from(soon), &issuer.expected()).await;
    assert!(proof.summary().contains("about to expire"), "{}", proof.summary());
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_no_pass() {
    let scene = Scene::new().await;
    let issuer = scene.issuer().await;
    let minted = issuer.mint("keyswap test").await.unwrap();
    let holder = issuer.operator().with_token(&minted.value);
    let alone = holder.prove(&minted.value, &issuer.expected(), None).await;
    assert_eq!(shown(&alone), (vec![], vec![13, 14]));
    use crate::sandbox::infisical::{Fault, FaultKind};
    for (path, number) in [("/roles", 10), ("/admin/user-management", 11), ("/permissions/audit", 14)] {
        scene.stand_in.fault(Fault::once("GET", path, FaultKind::Status(503)).times(3));
        let proof = issuer.prove(&minted.value, &issuer.expected()).await;
        let (failed, unseen) = shown(&proof);
        assert!(failed.is_empty(), "{failed:?}");
        assert!(unseen.contains(&number), "{path}: {unseen:?}");
    }
    assert!(issuer.prove(&minted.value, &issuer.expected()).await.is_narrow());
}

#[tokio::test]
async fn no_probe_writes() {
    let scene = Scene::new().await;
    let issuer = scene.issuer().await;
    let minted = issuer.mint("keyswap test").await.unwrap();
    let before = scene.stand_in.requests().len();
    issuer.prove(&minted.value, &issuer.expected()).await;
    for line in &scene.stand_in.requests()[before..] {
        let searches = line == "POST /api/v1/projects/search";
        assert!(line.starts_with("GET ") || searches, "{line}");
    }
}
