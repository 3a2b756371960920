//! A token that is minted for a run: when, by what name, and what becomes of it.

use keyswap::journal::{RunPhase, RunState};
use keyswap::model::Fingerprint;
use keyswap::sandbox::BreakRestart;
use keyswap::sandbox::infisical::{Fault, FaultKind};
use serde_json::Value;

use super::bench::{Bench, IDENTITY, without_restart};
use crate::support::runner_host::Said;
use crate::support::sentinel::Sentinel;

const NARROW: &str = "INFISICAL_TOKEN_AUTH_FILE";

fn tokens(said: &Said) -> Vec<(String, String)> {
    let told = said.events.iter().filter(|event| event["event"] == "token");
    told.map(|event| (word(&event["status"]), word(&event["detail"]))).collect()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn minted(state: &RunState) -> Fingerprint {
    state.token.as_ref().unwrap().minted.as_ref().unwrap().fingerprint.clone()
}

#[test]
fn a_token_is_minted_proved_and_rolled_out() {
    let bench = Bench::with_identity(2, &[]);
    let check = bench.run(&bench.playbook(), &["--check"]);
    assert_eq!(check.code, Some(10), "{}", check.all());
    assert_eq!(tokens(&check)[0].0, "planned", "{}", check.all());
    assert_eq!(bench.alive(), [""; 0], "a check mints nothing");

    let said = bench.run(&bench.playbook(), &["-vvv"]);
    said.assert(0, "succeeded", "changed");
    let state = bench.state();
    let (token, value) = (state.token.clone().unwrap(), bench.token(1));
    assert_eq!(minted(&state), Fingerprint::of(value.as_bytes()));
    assert_eq!((token.identity_name.as_str(), token.revoked), (IDENTITY, None));
    assert_eq!(bench.alive(), std::slice::from_ref(&token.name), "one token a run");
    assert!(token.name.contains(said.last()["run"].as_str().unwrap()), "{}", token.name);
    for number in [1, 2] {
        let facts = bench.facts(number);
        assert_eq!(facts.token, Some(minted(&state)), "{}", said.all());
        assert_eq!(facts.runner.unwrap().token, Some(minted(&state)), "{}", said.all());
        assert!(facts.env_line.unwrap().starts_with(NARROW));
    }

    // Once from here before any host was touched, and from the side of each host.
    let at = |event: &str| said.events.iter().position(|line| line["event"] == event).unwrap();
    let proofs: Vec<&Value> = said.events.iter().filter(|event| event["event"] == "proof").collect();
    assert_eq!(proofs.len(), 3, "{}", said.all());
    assert!(at("proof") < at("batch-started"), "{}", said.all());
    assert!(proofs.iter().all(|proof| proof["narrow"] == true), "{}", said.all());
    assert_eq!(proofs.iter().filter(|proof| proof["host"].is_null()).count(), 1);
    let rows = proofs[0]["rows"].as_array().unwrap();
    assert!(rows.len() > 20 && rows.iter().all(|row| row["verdict"] == "pass"), "{rows:?}");

    // The value is nowhere but on the hosts.
    assert_eq!(bench.holders(1, &value), ["data/infisical-token-auth-token"]);
    let sentinel = Sentinel::new([("minted", value.as_str())]);
    let mut sweep = sentinel.sweep();
    sweep.output("stdout", said.stdout.as_bytes()).output("stderr", said.stderr.as_bytes());
    sweep.files(bench.dir().join("controller"));
    sweep.assert_clean();
}

#[test]
fn what_goes_back_takes_its_token_with_it() {
    let bench = Bench::with_identity(1, &[(1, BreakRestart::AtOnce)]);
    let before = bench.facts(1);
    let said = bench.run(&bench.playbook(), &[]);
    said.assert(2, "rolled-back", "rolled-back");
    let last = tokens(&said).pop().unwrap();
    assert!(last.0 == "revoked" && last.1.contains("a request with it was refused"), "{}", said.all());
    assert_eq!(bench.alive(), [""; 0], "{}", said.all());
    assert!(bench.opens(&bench.story.admin_token), "the old one lives");
    let after = bench.facts(1);
    assert_eq!(after.token.as_ref(), Some(bench.shared()));
    assert_eq!((after.token, after.env_line), (before.token, before.env_line));
    assert!(bench.state().token.unwrap().revoked.is_some());
    assert!(matches!(bench.state().phase, RunPhase::Finished(_)));
}

#[test]
fn a_token_that_a_host_holds_is_never_revoked_by_the_way() {
    let bench = Bench::with_identity(2, &[(2, BreakRestart::AtOnce)]);
    let said = bench.run(&bench.playbook(), &[]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    let last = tokens(&said).pop().unwrap();
    assert!(last.0 == "kept" && last.1.contains("runner-1 may hold it"), "{}", said.all());
    assert_eq!(bench.alive().len(), 1);
    assert!(bench.opens(&bench.token(1)) && bench.token(1) != bench.token(2));

    // When the other host has gone back too, nobody needs it any more.
    let back = bench.say(&["rollback"]);
    assert_eq!(back.code, Some(0), "{}", back.all());
    assert_eq!(tokens(&back).pop().unwrap().0, "revoked", "{}", back.all());
    assert_eq!(bench.alive(), [""; 0]);
}

#[test]
fn nothing_is_minted_for_an_identity_that_has_drifted_or_is_not_there() {
    let bench = Bench::start(1, &[]);
    let said = bench.run(&bench.playbook(), &[]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.stderr.contains("keyswap identity apply"), "{}", said.all());
    assert_eq!(bench.apply(&["--check"]).code, Some(10));
    assert_eq!(bench.apply(&[]).code, Some(5), "nobody to ask");
    assert_eq!(bench.apply(&["--yes"]).code, Some(0));
    let again = bench.apply(&["--check"]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    assert_eq!(bench.apply(&["--yes"]).events.last().unwrap()["status"], "ok");
    let said = bench.run(&bench.playbook(), &[]);
    said.assert(0, "succeeded", "changed");
}

#[test]
fn a_lost_answer_leaves_no_token_alive_and_no_host_touched() {
    for kind in [FaultKind::LoseReply, FaultKind::Truncate, FaultKind::HangAfter, FaultKind::Status(500)] {
        let bench = Bench::with_identity(1, &[]);
        let before = bench.facts(1);
        bench.stand_in.fault(Fault::once("POST", "/tokens", kind.clone()));
        let said = bench.run(&bench.playbook(), &[]);
        // Whoever did not say whether it was done may do it still: only then something is owed.
        let owed = kind == FaultKind::Status(500);
        assert_eq!(said.code, Some(if owed { 3 } else { 2 }), "{kind:?} {}", said.all());
        assert_eq!(bench.alive(), [""; 0], "{kind:?} {}", said.all());
        let paid = bench.pay(&["resume"]);
        assert_eq!(paid.code, Some(0), "{kind:?} {}", paid.all());
        assert_eq!(bench.facts(1), before, "{kind:?} {}", said.all());
        assert!(said.host()["reason"].as_str().unwrap().contains("not begun"), "{}", said.all());
    }
}

#[test]
fn a_server_that_is_gone_leaves_a_debt_that_resume_pays() {
    let bench = Bench::with_identity(1, &[(1, BreakRestart::AtOnce)]);
    // Everything about tokens fails from the minting on, until it is mended.
    bench.stand_in.fault(Fault::once("POST", "/revoke", FaultKind::Status(503)).times(1000));
    let said = bench.run(&bench.playbook(), &[]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(said.host()["status"], "rolled-back", "{}", said.all());
    let last = tokens(&said).pop().unwrap();
    assert!(last.0 == "owed" && last.1.contains("keyswap resume"), "{}", said.all());
    assert_eq!(bench.alive().len(), 1);

    bench.stand_in.heal();
    let paid = bench.say(&["resume"]);
    assert_eq!(paid.code, Some(0), "{}", paid.all());
    assert_eq!(bench.alive(), [""; 0], "{}", paid.all());
    assert!(!bench.state().needs_settling());
}

#[test]
fn a_token_that_is_not_narrow_reaches_no_host() {
    let bench = Bench::with_identity(1, &[]);
    let before = bench.facts(1);
    // Seen from the identity's side: a role that nobody saw when the plan was made.
    bench.stand_in.fault(Fault::once("GET", "/api/v1/organization/audit-logs", FaultKind::Status(500)).times(10));
    let said = bench.run(&bench.playbook(), &[]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    let reason = said.host()["reason"].as_str().unwrap();
    assert!(reason.contains("not begun") && reason.contains("probe 12 could not be looked at"), "{}", said.all());
    assert_eq!(bench.facts(1), before);
    assert_eq!(bench.alive(), [""; 0], "{}", said.all());
}

/// Killed at every record of its journal, before and after it lies on the disk: whoever settles the run finds the token,
/// by its id or by the name that stood there before it was asked for.
#[test]
#[cfg(debug_assertions)]
fn a_controller_that_is_killed_leaves_no_token_alive() {
    let bench = Bench::with_identity(1, &[]);
    let before = bench.facts(1);
    let quick = bench.playbook_with("quick.toml", |text| without_restart(&text));
    let (mut cases, mut minted, mut by_name) = (0, 0, 0);
    for number in 1..200 {
        let mut ended = false;
        // Around the minting in two ways, later in one: those are for the tests of the way back.
        let ways: &[&str] = if number < 9 { &["torn", "after"] } else { &["after"] };
        for when in ways {
            let mut command = bench.command();
            command.env("KEYSWAP_TEST_PAUSE", format!("journal:{number}:{when}"));
            let args = ["run", quick.to_str().unwrap(), "-i", "inventory.toml", "--yes"];
            let mut run = crate::kills::bench::Controller::start(command, &args, None);
            if !run.stops() {
                let said = run.end();
                said.assert(0, "succeeded", "changed");
                ended = true;
                break;
            }
            let cut = run.kill();
            cases += 1;
            minted += bench.alive().len();
            let at = format!("{number} {when}: {}", cut.all());
            // Two runs of one second have no order: it is named.
            let run = word(&cut.events[0]["run"]);
            let back = bench.pay(&["resume", "--back", &run]);
            assert_eq!(back.code, Some(0), "{at}\n{}", back.all());
            by_name += usize::from(tokens(&back).iter().any(|(_, detail)| detail.contains("found by its name")));
            // A run that had settled its hosts keeps what they hold: then it is taken back.
            let back = bench.say(&["rollback", &run]);
            assert_eq!(back.code, Some(0), "{at}\n{}", back.all());
            assert_eq!(bench.alive(), [""; 0], "{at}\n{}", back.all());
            assert_eq!(bench.facts(1), before, "{at}");
        }
        if ended {
            break;
        }
    }
    println!("killed in {cases} places; {minted} times a token was alive, {by_name} times only its name was known");
    assert!(cases > 24 && minted > 16 && by_name >= 1, "{cases} {minted} {by_name}");
}

/// As its operator waits for it, without the tests' haste: when the change is said to be made, the server has forgotten what the
/// identity was allowed before, which it remembers for ten seconds.
#[test]
fn an_identity_s_change_is_said_when_the_server_knows_it() {
    use keyswap::model::{Access, IdentityScope, IdentitySpec, Service};
    use keyswap::sandbox::infisical::{KEYS, PATH, PROJECT, World};
    use keyswap::service::infisical::{Expected, Infisical, InfisicalConfig, Login, Verdict};
    use secrecy::SecretString;

    let mut bench = Bench::with_identity(1, &[]);
    bench.patient = true;
    let (project, identity, token) = {
        let mut world = bench.stand_in.world();
        let identity = world.identities.iter().find(|identity| identity.name == IDENTITY).unwrap().id.clone();
        world.privileges.clear();
        let mut wide = World::narrow_rule();
        wide["conditions"].as_object_mut().unwrap().remove("secretName");
        let project = bench.story.project.clone();
        world.add_privilege(&project, &identity, "keyswap-read", &serde_json::json!([wide]));
        let end = world.clock.now() / 1000 + 86_400 * 80;
        let token = world.mint_past_rules(&identity, "by hand", Some(end));
        (project, identity, SecretString::from(token))
    };
    let service =
        Service { url: bench.stand_in.url(), ca_file: None, token: None, client_id: None, client_secret: None };
    let holder = Infisical::new(&service, Login::Token(token.clone()), InfisicalConfig::default()).unwrap();
    let spec = IdentitySpec {
        name: IDENTITY.to_owned(),
        id: None,
        project: PROJECT.to_owned(),
        scope: IdentityScope::Project,
        ttl: std::time::Duration::from_secs(90 * 86_400),
        access: vec![Access {
            environment: "prod".to_owned(),
            path: PATH.to_owned(),
            read: KEYS.map(str::to_owned).to_vec(),
        }],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let narrow = || {
        let found = runtime.block_on(holder.project(PROJECT)).unwrap();
        assert_eq!(found.id, project);
        let proof = runtime.block_on(holder.prove(&token, &Expected::new(&spec, &found, &identity), None));
        // What the token itself is told: 13 and 14 are seen by operators only.
        proof.numbers(Verdict::Fail)
    };
    assert_ne!(narrow(), [0; 0]);
    let applied = bench.apply(&["--yes"]);
    assert_eq!(applied.code, Some(0), "{}", applied.all());
    assert_eq!(narrow(), [0; 0], "{}", applied.all());
}
