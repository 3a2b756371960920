//! `prove` as a step: each token that is not narrow is told by the right rows, and reaches no host.
//!
//! The program is stopped when its token came, and what the identity may do is changed behind its back: nobody mints for
//! an identity that had drifted before.

use std::time::Duration;

use keyswap::sandbox::infisical::{KEYS, World};
use serde_json::json;

use super::bench::{Bench, IDENTITY};
use crate::kills::bench::Controller;
use crate::support::runner_host::Said;

/// The records up to the word that the token came: run-started, token-requested, token-minted, secret-known.
const MINTED: &str = "journal:4:after";

fn id(world: &World) -> String {
    world.identities.iter().find(|identity| identity.name == IDENTITY).unwrap().id.clone()
}

/// Runs up to the minting, changes the world, and goes on.
fn after(bench: &Bench, change: impl FnOnce(&mut World)) -> Said {
    let mut command = bench.command();
    command.env("KEYSWAP_TEST_PAUSE", MINTED);
    let playbook = bench.playbook();
    let args = ["run", playbook.to_str().unwrap(), "-i", "inventory.toml", "--yes"];
    let mut run = Controller::start(command, &args, None);
    assert!(run.stops(), "{}", run.end().all());
    change(&mut bench.stand_in.world());
    run.signal("CONT");
    run.end()
}

/// The numbers of the rows that failed in the first proof.
fn failed(said: &Said) -> Vec<u64> {
    let proof = said.events.iter().find(|event| event["event"] == "proof").unwrap_or_else(|| panic!("{}", said.all()));
    let rows = proof["rows"].as_array().unwrap();
    let mut numbers: Vec<u64> =
        rows.iter().filter(|row| row["verdict"] == "fail").map(|row| row["number"].as_u64().unwrap()).collect();
    numbers.dedup();
    numbers
}

fn change_rule(world: &mut World, change: impl FnOnce(&mut serde_json::Value)) {
    let (identity, mut rule) = (id(world), World::narrow_rule());
    let project = world.projects[0].id.clone();
    change(&mut rule);
    world.privileges.clear();
    world.add_privilege(&project, &identity, "keyswap-read", &json!([rule]));
}

/// A kind of token, what is done for it, and the rows that tell it.
type Case = (&'static str, fn(&mut World), &'static [u64]);

#[test]
fn each_token_that_is_not_narrow_is_told_by_its_rows() {
    let cases: [Case; 6] = [
        (
            "a project viewer",
            |world| {
                let (identity, project) = (id(world), world.projects[0].id.clone());
                world.privileges.clear();
                world.memberships.retain(|membership| membership.identity != identity);
                world.add_member(&project, &identity, &["viewer"]);
            },
            &[2, 3, 5, 6, 9, 10, 13, 14],
        ),
        (
            "an instance admin",
            |world| {
                let identity = id(world);
                world.with_identity(&identity, |identity| {
                    identity.instance_admin = true;
                    identity.org_role = "admin".to_owned();
                });
                world.memberships.retain(|membership| membership.identity != identity);
                for project in [0, 1].map(|at: usize| world.projects[at].id.clone()) {
                    world.add_member(&project, &identity, &["admin"]);
                }
            },
            &[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
        ),
        (
            "widened by a mistyped condition",
            |world| {
                change_rule(world, |rule| {
                    let conditions = rule["conditions"].as_object_mut().unwrap();
                    conditions.remove("secretName");
                    conditions.insert("secretname".to_owned(), json!({ "$in": KEYS }));
                });
            },
            &[2, 3, 5, 13, 14],
        ),
        (
            "with an environment more",
            |world| change_rule(world, |rule| rule["conditions"]["environment"] = json!({ "$in": ["prod", "dev"] })),
            &[2, 3, 6, 13, 14],
        ),
        ("expired", |world| world.clock.pass(Duration::from_secs(91 * 86_400)), &[15]),
        (
            "revoked",
            |world| {
                let identity = id(world);
                world
                    .tokens
                    .iter_mut()
                    .filter(|token| token.identity == identity)
                    .for_each(|token| token.revoked = true);
            },
            &[1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12],
        ),
    ];
    for (what, change, rows) in cases {
        let bench = Bench::with_identity(1, &[]);
        let before = bench.facts(1);
        let said = after(&bench, change);
        // The operator may not touch an admin's tokens: what is alive and not needed is owed, and said so.
        let owed = what == "an instance admin";
        assert_eq!(said.code, Some(if owed { 3 } else { 2 }), "{what}: {}", said.all());
        assert_eq!(failed(&said), rows, "{what}: {}", said.all());
        let reason = said.host()["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("not begun: step 1. Prove"), "{what}: {}", said.all());
        assert_eq!(bench.facts(1), before, "{what}: no host was touched");
        assert_eq!(bench.alive().len(), usize::from(owed), "{what}: {}", said.all());
        println!("{what}: rows {rows:?}");
    }
    let bench = Bench::with_identity(1, &[]);
    let said = after(&bench, |_| ());
    said.assert(0, "succeeded", "changed");
    assert_eq!(failed(&said), [0; 0], "the narrow one");
}

/// A host that does not reach the server is told from one whose token is wrong, and goes back.
#[test]
fn a_host_that_does_not_reach_the_server_is_found_out() {
    let bench = Bench::without_forwarding();
    let before = bench.facts(1);
    let said = bench.run(&bench.playbook(), &[]);
    said.assert(2, "rolled-back", "rolled-back");
    let reason = said.host()["reason"].as_str().unwrap();
    assert!(reason.contains("does not let connections pass"), "{}", said.all());
    assert_eq!(bench.facts(1), before, "{}", said.all());
    assert_eq!(bench.alive(), [""; 0], "{}", said.all());
}

/// The minted playbook, with its token from a file.
fn from_file(bench: &Bench) -> std::path::PathBuf {
    bench.playbook_with("from-file.toml", |text| {
        let minted = "from = \"infisical\"\n";
        assert!(text.contains(minted), "{text}");
        text.replace(minted, "from = \"file\"\npath = \"by-hand\"\n")
    })
}

fn write(bench: &Bench, token: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = bench.dir().join("by-hand");
    std::fs::write(&path, token).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A token that nobody here minted is proved as well.
#[test]
fn a_token_from_a_file_is_proved_and_a_shared_one_is_placed_nowhere() {
    let bench = Bench::with_identity(2, &[]);
    bench.run(&bench.playbook(), &["--limit", "runner-1"]).assert(0, "succeeded", "changed");
    let (narrow, before) = (bench.token(1), bench.facts(2));
    let playbook = from_file(&bench);
    let run = |inventory: &str| {
        bench.say(&["run", playbook.to_str().unwrap(), "-i", inventory, "--limit", "runner-2", "--yes"])
    };

    write(&bench, &bench.story.admin_token);
    let shared = run("inventory.toml");
    assert_eq!(shared.code, Some(5), "{}", shared.all());
    assert!(shared.stderr.contains("`shared`") && shared.stderr.contains("others use"), "{}", shared.all());
    // Nobody says so: its proof does not pass.
    let inventory = std::fs::read_to_string(bench.dir().join("inventory.toml")).unwrap();
    std::fs::write(bench.dir().join("unsaid.toml"), inventory.replace("shared = true", "shared = false")).unwrap();
    let unsaid = run("unsaid.toml");
    assert_eq!((unsaid.code, failed(&unsaid)), (Some(2), vec![15]), "{}", unsaid.all());
    assert_eq!(bench.facts(2), before, "{}", unsaid.all());

    write(&bench, &narrow);
    let said = run("inventory.toml");
    said.assert(0, "succeeded", "changed");
    let proofs: Vec<_> = said.events.iter().filter(|event| event["event"] == "proof").collect();
    assert!(proofs.len() == 2 && proofs.iter().all(|proof| proof["narrow"] == true), "{}", said.all());
    assert_eq!(bench.token(2), narrow);
    assert_eq!(bench.alive().len(), 1, "a token that was not minted here is revoked by nobody");
}

/// A run of such a token that was cut off goes on, and proves it from the host's side.
#[test]
fn a_token_from_a_file_is_proved_again_by_the_run_that_goes_on() {
    let bench = Bench::with_identity(2, &[]);
    bench.run(&bench.playbook(), &["--limit", "runner-1"]).assert(0, "succeeded", "changed");
    let narrow = bench.token(1);
    write(&bench, &narrow);
    let playbook = from_file(&bench);
    let mut command = bench.command();
    command.env("KEYSWAP_TEST_PAUSE", "journal:5:after");
    let args = ["run", playbook.to_str().unwrap(), "-i", "inventory.toml", "--limit", "runner-2", "--yes"];
    let mut run = Controller::start(command, &args, None);
    assert!(run.stops(), "{}", run.end().all());
    run.signal("KILL");
    run.end();
    let said = bench.say(&["resume", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let proofs: Vec<_> = said.events.iter().filter(|event| event["event"] == "proof").collect();
    assert!(proofs.iter().all(|proof| proof["narrow"] == true), "{}", said.all());
    assert!(proofs.iter().any(|proof| proof["host"] == "runner-2"), "{}", said.all());
    assert_eq!(bench.token(2), narrow);
}
