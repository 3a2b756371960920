//! Every kind of fault at every call: no token is left alive that nobody holds, and an identity is either what its
//! file says or becomes so when it is applied once more.

use super::super::*;
use super::scene::{Scene, spec};
use crate::sandbox::infisical::{Fault, FaultKind};

/// What can happen to an answer, and how often in a row: once, or more often than it is asked again.
fn faults() -> Vec<(FaultKind, u32)> {
    let mut all = Vec::new();
    for times in [1, 20] {
        for kind in [
            FaultKind::Busy(0),
            FaultKind::Status(500),
            FaultKind::Status(503),
            FaultKind::Hang,
            FaultKind::Reset,
            FaultKind::LoseReply,
            FaultKind::HangAfter,
            FaultKind::Truncate,
            FaultKind::Garble("{}"),
        ] {
            // Three are as many as one request is tried; more of the slow ones show nothing new.
            let slow = matches!(kind, FaultKind::Hang | FaultKind::HangAfter);
            all.push((kind, if slow { times.min(3) } else { times }));
        }
    }
    all
}

/// Spoils the request that comes after `skip` others, whatever it is.
fn spoil(scene: &Scene, skip: usize, (kind, times): &(FaultKind, u32)) {
    let skip = u32::try_from(skip).unwrap();
    scene.stand_in.fault(Fault { method: None, path: String::new(), skip, times: *times, kind: kind.clone() });
}

/// An operator who waits as long as this fault is worth.
fn operator(scene: &Scene, fault: &FaultKind) -> Infisical {
    match fault {
        FaultKind::Hang | FaultKind::HangAfter => scene.hurried(),
        _ => scene.operator(),
    }
}

/// How many requests something takes when nothing goes wrong.
async fn count(act: impl AsyncFn(&Scene)) -> usize {
    let scene = Scene::new().await;
    let before = scene.stand_in.requests().len();
    act(&scene).await;
    scene.stand_in.requests().len() - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_is_settled_whatever_gets_lost() {
    let calls = count(async |scene: &Scene| {
        scene.issuer().await;
    })
    .await;
    let mut cases = Vec::new();
    for skip in 0..calls {
        cases.extend(faults().into_iter().map(|fault| (skip, fault)));
    }
    let all = cases.len();
    let settled = futures_util::StreamExt::map(futures_util::stream::iter(cases), |(skip, fault)| async move {
        let scene = Scene::new().await;
        spoil(&scene, skip, &fault);
        let operator = operator(&scene, &fault.0);
        let mut first = false;
        if let Ok(planned) = operator.plan_identity(&spec()).await {
            first = operator.apply_identity(&spec(), &planned.changes).await.is_ok();
        }
        // A server that stays away is away for now: applied again it ends where it should.
        scene.stand_in.heal();
        let operator = scene.operator();
        let planned = operator.plan_identity(&spec()).await.unwrap();
        let what = format!("{fault:?} at call {skip}: {:?}", planned.changes);
        if first {
            assert_eq!(planned.changes, [], "{what}");
        }
        operator.apply_identity(&spec(), &planned.changes).await.expect(&what);
        InfisicalIssuer::open(scene.operator(), spec()).await.expect(&what);
        let world = scene.stand_in.world();
        let made = world.identities.iter().filter(|identity| identity.name == spec().name).count();
        assert_eq!((made, world.privileges.len()), (1, 1), "{what}");
        usize::from(first)
    });
    let settled: Vec<usize> =
        futures_util::StreamExt::collect(futures_util::StreamExt::buffer_unordered(settled, 32)).await;
    let at_once: usize = settled.iter().sum();
    println!("identity: {all} cases at {calls} calls, {at_once} settled at once, all of them when applied again");
    assert_eq!(settled.len(), all);
    assert!(at_once > all / 4, "{at_once} of {all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_left_alive_whatever_gets_lost() {
    let whole = async |scene: &Scene| {
        let issuer = InfisicalIssuer::open(scene.operator(), spec()).await;
        let Ok(issuer) = issuer else { return };
        let minted = issuer.mint("keyswap test").await.unwrap();
        issuer.prove(&minted.value, &issuer.expected()).await;
        issuer.revoke(&minted.id).await.unwrap();
    };
    let calls = count(async |scene: &Scene| {
        scene.issuer().await;
        whole(scene).await;
    })
    .await;
    let before = count(async |scene: &Scene| {
        scene.issuer().await;
    })
    .await;
    let mut cases = Vec::new();
    for skip in 0..(calls - before) {
        cases.extend(faults().into_iter().map(|fault| (skip, fault)));
    }
    let all = cases.len();
    let ends = futures_util::StreamExt::map(futures_util::stream::iter(cases), |(skip, fault)| async move {
        let scene = Scene::new().await;
        scene.issuer().await;
        spoil(&scene, skip, &fault);
        let what = format!("{fault:?} at call {skip}");
        let mut narrow = None;
        let mut named = false;
        let issuer = match InfisicalIssuer::open(operator(&scene, &fault.0), spec()).await {
            Ok(issuer) => issuer,
            Err(_) => return (0, 0, 0),
        };
        match issuer.mint("keyswap test").await {
            Ok(minted) => {
                narrow = Some(issuer.prove(&minted.value, &issuer.expected()).await.is_narrow());
                if issuer.revoke(&minted.id).await.is_err() {
                    scene.stand_in.heal();
                    scene.operator().revoke(&minted.id).await.expect(&what);
                }
                scene.stand_in.heal();
                assert_eq!(
                    scene.operator().death(&minted.value).await.expect(&what),
                    Death::Dead(Class::Revoked),
                    "{what}"
                );
            }
            Err(MintError::Failed { .. }) => {}
            Err(MintError::Orphan { name, .. }) => {
                // The server is away for good, or its effect may come late: it is told, by name, and the name is enough later.
                named = true;
                let there = scene.stand_in.world().living().iter().any(|token| token.name.as_deref() == Some(&name));
                assert!(
                    fault.1 > 1 || !there || matches!(fault.0, FaultKind::Hang | FaultKind::HangAfter),
                    "{what}: an orphan after one fault"
                );
                scene.stand_in.heal();
                scene.operator().revoke_named(issuer.identity(), &name).await.expect(&what);
            }
        }
        let world = scene.stand_in.world();
        let left: Vec<_> = world.living().into_iter().filter(|token| token.name.as_deref() != Some("shared")).collect();
        assert!(left.is_empty(), "{what}: {left:?}");
        (usize::from(narrow.is_some()), usize::from(narrow == Some(true)), usize::from(named))
    });
    let ends: Vec<(usize, usize, usize)> =
        futures_util::StreamExt::collect(futures_util::StreamExt::buffer_unordered(ends, 32)).await;
    let sum = |part: fn(&(usize, usize, usize)) -> usize| ends.iter().map(part).sum::<usize>();
    println!(
        "tokens: {all} cases at {} calls, {} minted, {} proved narrow, {} named for later, none left alive",
        calls - before,
        sum(|end| end.0),
        sum(|end| end.1),
        sum(|end| end.2),
    );
    assert_eq!(ends.len(), all);
}

#[tokio::test]
async fn a_token_that_shows_only_later_is_found_and_revoked() {
    let scene = Scene::new().await;
    let issuer = scene.issuer().await;
    scene.stand_in.fault(Fault::once("POST", "/tokens", FaultKind::LoseReply));
    let lost = issuer.mint("keyswap lost").await.unwrap_err();
    assert!(matches!(&lost, MintError::Failed { revoked, .. } if revoked.len() == 1), "{lost:?}");
    assert!(scene.stand_in.world().living().iter().all(|token| token.name.as_deref() == Some("shared")));
    // An answer that holds another token than the one that was asked for is no token.
    scene.stand_in.fault(Fault::once("POST", "/tokens", FaultKind::Garble(r#"{"accessToken":"test-token-1"}"#)));
    let odd = issuer.mint("keyswap odd").await.unwrap_err();
    assert!(matches!(&odd, MintError::Failed { revoked, .. } if revoked.len() == 1), "{odd:?}");
    assert!(!format!("{odd:?}").contains("test-token-1"));
}
