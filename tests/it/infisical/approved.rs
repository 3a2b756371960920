//! What is done beside a run and needs the approval that the inventory demands: an identity, the end of an old token.

use std::fs;

use super::bench::Bench;
use crate::support::real_host::keygen;

/// From here on the inventory demands alice's approval.
fn demand(bench: &Bench) {
    let at = |name: &str| bench.dir().join(name);
    keygen(&at("alice"), "ed25519", "");
    let public = fs::read_to_string(at("alice.pub")).unwrap();
    fs::write(at("allowed"), format!("alice {public}")).unwrap();
    let inventory = fs::read_to_string(at("inventory.toml")).unwrap();
    fs::write(at("inventory.toml"), format!("{inventory}\n[approval]\nallowed_signers = \"allowed\"\n")).unwrap();
}

fn approve(bench: &Bench, plan: &str) {
    let said = bench.say(&["approve", plan, "--signer", "alice", "--key", "alice"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
}

#[test]
fn an_identity_is_changed_only_by_a_plan_that_was_approved() {
    let bench = Bench::start(1, &[]);
    demand(&bench);
    let identities = || bench.stand_in.world().identities.len();
    let before = identities();
    let refused = bench.apply(&["--yes"]);
    assert_eq!(refused.code, Some(7), "{}", refused.all());
    assert!(
        refused.stderr.contains("\n  keyswap identity apply identity.toml -i inventory.toml --out FILE --state-dir "),
        "{}",
        refused.all()
    );
    assert_eq!(bench.apply(&["--check"]).code, Some(10), "a look needs nobody's approval");

    let planned = bench.apply(&["--out", "identity.plan"]);
    assert_eq!(planned.code, Some(0), "{}", planned.all());
    let unsigned = bench.apply(&["--plan", "identity.plan", "--yes"]);
    assert_eq!(unsigned.code, Some(7), "{}", unsigned.all());
    approve(&bench, "identity.plan");
    // A plan for something else does not do, however it was approved.
    let other = bench.say(&["run", "--plan", "identity.plan", "--yes"]);
    assert_eq!(other.code, Some(7), "{}", other.all());
    let file = bench.dir().join("identity.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("ttl = \"90d\"", "ttl = \"30d\"")).unwrap();
    let stale = bench.apply(&["--plan", "identity.plan", "--yes"]);
    assert_eq!(stale.code, Some(7), "{}", stale.all());
    assert_eq!(identities(), before, "nothing was made");

    fs::write(&file, text).unwrap();
    let done = bench.apply(&["--plan", "identity.plan", "--yes"]);
    assert_eq!(done.code, Some(0), "{}", done.all());
    assert_eq!(identities(), before + 1);
    assert_eq!(bench.apply(&["--check"]).code, Some(0));
}

#[test]
fn an_old_token_is_revoked_only_by_a_plan_that_was_approved() {
    let bench = Bench::with_identity(1, &[]);
    for _ in 0..2 {
        let ran = bench.run(&bench.playbook(), &[]);
        assert_eq!(ran.code, Some(0), "{}", ran.all());
    }
    demand(&bench);
    assert_eq!(bench.alive().len(), 2);
    let refused = bench.say(&["retire", "--revoke", "--yes"]);
    assert_eq!(refused.code, Some(7), "{}", refused.all());
    // Who cannot tell whether an approval is demanded does not go on.
    let (inventory, away) = (bench.dir().join("inventory.toml"), bench.dir().join("elsewhere.toml"));
    fs::rename(&inventory, &away).unwrap();
    let refused = bench.say(&["retire", "--revoke", "--yes"]);
    assert_eq!(refused.code, Some(7), "{}", refused.all());
    assert!(refused.stderr.contains("name it with -i"), "{}", refused.all());
    let refused = bench.say(&["retire", "--revoke", "--yes", "-i", "elsewhere.toml"]);
    assert_eq!(refused.code, Some(7), "{}", refused.all());
    fs::rename(&away, &inventory).unwrap();

    let planned = bench.say(&["retire", "--revoke", "--out", "retire.plan"]);
    assert_eq!(planned.code, Some(0), "{}", planned.all());
    let unsigned = bench.say(&["retire", "--revoke", "--plan", "retire.plan", "--yes"]);
    assert_eq!(unsigned.code, Some(7), "{}", unsigned.all());
    assert_eq!(bench.alive().len(), 2, "nothing was revoked: {}", unsigned.all());
    assert!(bench.state().retired.is_none());
    approve(&bench, "retire.plan");
    let done = bench.say(&["retire", "--revoke", "--plan", "retire.plan", "--yes"]);
    assert_eq!(done.code, Some(0), "{}", done.all());
    assert_eq!(bench.alive().len(), 1, "{}", done.all());
    let kept = bench.state().approvals;
    assert_eq!((kept.len(), kept[0].approvals[0].signer.as_str()), (1, "alice"));
}
