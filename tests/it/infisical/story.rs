//! From a shared admin token to one that reads two keys, and to the one after that: each as its operator types it.

use keyswap::model::Fingerprint;
use keyswap::sandbox::BreakRestart;

use super::bench::{Bench, without_restart};
use crate::support::runner_host::Said;

fn audit(bench: &Bench, more: &[&str]) -> Said {
    let mut args = vec!["audit", "-i", "inventory.toml"];
    args.extend(more);
    bench.say(&args)
}

/// What has drifted, all hosts together.
fn drift(said: &Said) -> String {
    let hosts = said.events.iter().filter(|event| event["event"] == "host-audited");
    hosts.map(|host| host["drift"].to_string()).collect()
}

#[test]
fn from_the_shared_token_to_a_narrow_one_and_to_the_next() {
    let bench = Bench::start(2, &[]);
    let shared = bench.story.admin_token.clone();
    let before = audit(&bench, &["playbook-minted.toml"]);
    assert_eq!(before.code, Some(10), "{}", before.all());
    assert!(drift(&before).contains("holds shared, which others use too"), "{}", before.all());

    assert_eq!(bench.apply(&["--check"]).code, Some(10));
    let applied = bench.apply(&["--yes"]);
    assert_eq!(applied.code, Some(0), "{}", applied.all());
    let first = bench.run(&bench.playbook(), &[]);
    first.assert(0, "succeeded", "changed");
    let narrow = bench.token(1);
    for playbook in [&["playbook-minted.toml"][..], &[]] {
        let clean = audit(&bench, playbook);
        assert_eq!(clean.code, Some(0), "{}", clean.all());
        let host = &clean.events[0];
        let credential = &host["credentials"][0];
        assert_eq!(credential["fingerprint"], Fingerprint::of(narrow.as_bytes()).short(), "{}", clean.all());
        assert!(credential["name"].as_str().unwrap().starts_with("minted by run"), "{}", clean.all());
        assert!(credential["expires"].is_string(), "{}", clean.all());
        assert_eq!(credential["identity"], "forgejo-docker-publish", "{}", clean.all());
        assert!(host["processes"][0]["pointer"].is_string(), "{}", clean.all());
        assert!(!host["copies"].as_array().unwrap().is_empty(), "the backups are listed: {}", clean.all());
    }
    let soon = audit(&bench, &["--expires-within", "91d"]);
    assert!(soon.code == Some(10) && drift(&soon).contains("expires at"), "{}", soon.all());

    // Others live on it: keyswap did not mint it, and does not kill it.
    let refused = bench.say(&["retire", "--revoke", "--yes"]);
    assert_eq!(refused.code, Some(2), "{}", refused.all());
    assert!(refused.stdout.contains("was not minted by keyswap"), "{}", refused.all());
    assert!(bench.opens(&shared) && !bench.holders(1, &shared).is_empty());

    assert_eq!(bench.say(&["retire"]).code, Some(5), "nobody to ask");
    let retired = bench.say(&["retire", "--yes"]);
    assert_eq!(retired.code, Some(0), "{}", retired.all());
    for number in [1, 2] {
        assert_eq!(bench.holders(number, &shared), [""; 0], "{}", retired.all());
        assert_eq!(bench.holders(number, &narrow), ["data/infisical-token-auth-token"]);
    }
    assert!(bench.opens(&shared), "others live on it");
    let back = bench.say(&["rollback"]);
    assert_eq!(back.code, Some(5), "{}", back.all());
    assert!(back.stderr.contains("was retired"), "{}", back.all());
    assert_eq!(bench.say(&["retire", "--yes"]).code, Some(0), "twice is once");
    let clean = audit(&bench, &["playbook-minted.toml"]);
    assert_eq!(clean.code, Some(0), "{}", clean.all());

    // The next one: now the old token is keyswap's own.
    let second = bench.run(&bench.playbook(), &[]);
    second.assert(0, "succeeded", "changed");
    let next = bench.token(1);
    assert!(next != narrow && bench.alive().len() == 2);
    let revoked = bench.say(&["retire", "--revoke", "--yes"]);
    assert_eq!(revoked.code, Some(0), "{}", revoked.all());
    assert!(!bench.opens(&narrow) && bench.opens(&next) && bench.opens(&shared));
    for number in [1, 2] {
        assert_eq!(bench.holders(number, &narrow), [""; 0], "{}", revoked.all());
        assert_eq!(bench.facts(number).runner.unwrap().token, Some(Fingerprint::of(next.as_bytes())));
    }
    let clean = audit(&bench, &[]);
    assert_eq!(clean.code, Some(0), "{}", clean.all());
    // Somebody puts the dead one back: seen by an audit, and told before a run promises a way back to it.
    std::fs::write(bench.hosts()[0].dir().join("data/infisical-token-auth-token"), &narrow).unwrap();
    let dead = audit(&bench, &["playbook-minted.toml"]);
    assert!(dead.code == Some(10) && drift(&dead).contains("which was revoked"), "{}", dead.all());
    let check = bench.run(&bench.playbook(), &["--check"]);
    assert!(check.stdout.contains("was revoked: a rollback would not help"), "{}", check.all());
    let everything = [before, first, second, retired, revoked, clean].map(|said| said.all()).join("");
    for token in [&shared, &narrow, &next] {
        assert!(!everything.contains(token.as_str()));
    }
    let journals = bench.dir().join("controller");
    for token in [&shared, &narrow, &next] {
        let found = std::process::Command::new("grep").args(["-rlF", token]).arg(&journals).output().unwrap();
        assert!(found.stdout.is_empty(), "a journal holds a token");
    }
}

#[test]
fn a_failure_in_the_middle_goes_all_the_way_back() {
    let bench = Bench::with_identity(2, &[(2, BreakRestart::AtOnce)]);
    let shared = bench.story.admin_token.clone();
    let before = [bench.facts(1), bench.facts(2)];
    let all = bench.playbook_with("all.toml", |text| text.replace("rollback-host", "rollback-all"));
    let said = bench.run(&all, &[]);
    said.assert(2, "rolled-back", "rolled-back");
    assert_eq!(bench.alive(), [""; 0], "the new one is dead: {}", said.all());
    assert!(bench.opens(&shared), "the old one lives");
    for (number, before) in [1, 2].into_iter().zip(before) {
        let after = bench.facts(number);
        assert_eq!((after.token, after.env_line), (before.token, before.env_line), "{}", said.all());
        assert_eq!(after.runner.unwrap().token.as_ref(), Some(bench.shared()));
    }
    let refused = bench.say(&["retire", "--yes"]);
    assert_eq!(refused.code, Some(2), "{}", refused.all());
    assert!(refused.stdout.contains("not known to be on the new credential"), "{}", refused.all());
    assert!(bench.holders(1, &shared).len() >= 2, "nothing of the old one was removed");
}

#[test]
fn nothing_is_retired_while_a_host_is_not_on_the_new_one() {
    let bench = Bench::with_identity(2, &[]);
    let shared = bench.story.admin_token.clone();
    bench.run(&bench.playbook(), &[]).assert(0, "succeeded", "changed");
    let copies = bench.holders(1, &shared);
    // Somebody put the old one back on one host.
    let file = bench.hosts()[1].dir().join("data/infisical-token-auth-token");
    std::fs::write(&file, &shared).unwrap();
    let audited = audit(&bench, &[]);
    assert_eq!(audited.code, Some(10), "{}", audited.all());
    assert!(
        drift(&audited).contains("which others use too") && drift(&audited).contains("left it"),
        "{}",
        audited.all()
    );
    let refused = bench.say(&["retire", "--yes"]);
    assert_eq!(refused.code, Some(2), "{}", refused.all());
    assert!(refused.stdout.contains("runner-2: audit finds drift"), "{}", refused.all());
    assert_eq!(bench.holders(1, &shared), copies, "nothing was removed anywhere");
    assert_eq!(bench.say(&["rollback"]).code.map(|code| code != 5), Some(true), "the way back is open");
}

#[test]
fn a_stray_copy_is_found_and_a_token_that_other_hosts_hold_is_not_killed() {
    let bench = Bench::with_identity(2, &[]);
    bench.run(&bench.playbook(), &[]).assert(0, "succeeded", "changed");
    let first = bench.token(1);
    let stray = bench.hosts()[0].dir().join("data/notes");
    std::fs::write(&stray, format!("{first}\r\n")).unwrap();
    let dir = bench.hosts()[0].dir().to_str().unwrap().to_owned();
    let found = audit(&bench, &["--limit", "runner-1", "--search", &dir]);
    assert_eq!(found.code, Some(10), "{}", found.all());
    assert!(drift(&found).contains("lies in") && drift(&found).contains("data/notes"), "{}", found.all());
    std::fs::remove_file(&stray).unwrap();
    let shared_left = audit(&bench, &["--limit", "runner-1", "--search", &dir]);
    assert!(drift(&shared_left).contains("a copy of shared lies in"), "the pointer's old file: {}", shared_left.all());

    // Only one host gets the next one: the other lives on the first.
    let second = bench.run(&bench.playbook(), &["--limit", "runner-1"]);
    second.assert(0, "succeeded", "changed");
    let refused = bench.say(&["retire", "--revoke", "--yes"]);
    assert_eq!(refused.code, Some(2), "{}", refused.all());
    assert!(refused.stdout.contains("runner-2 lives on"), "{}", refused.all());
    assert!(bench.opens(&first));
}

/// Killed at each record of a retirement: whoever types it again ends it, and from its first record on there is no way back.
#[test]
#[cfg(debug_assertions)]
fn a_retirement_that_was_cut_off_is_gone_on_with() {
    use crate::kills::bench::Controller;

    let bench = Bench::with_identity(2, &[]);
    let quick = bench.playbook_with("quick.toml", |text| without_restart(&text));
    let run = |said: &Said| said.last()["run"].as_str().unwrap().to_owned();
    let mut before = bench.run(&quick, &[]);
    before.assert(0, "succeeded", "changed");
    let mut cases = 0;
    for number in 1..20 {
        let old = bench.token(1);
        let said = bench.run(&quick, &[]);
        said.assert(0, "succeeded", "changed");
        let mut command = bench.command();
        command.env("KEYSWAP_TEST_PAUSE", format!("journal:{number}:after"));
        let mut retire = Controller::start(command, &["retire", "--revoke", "--yes", &run(&said)], None);
        if !retire.stops() {
            assert_eq!(retire.end().code, Some(0));
            break;
        }
        retire.kill();
        cases += 1;
        let back = bench.say(&["rollback", &run(&said)]);
        let refused = ["is being retired", "was retired"].iter().any(|why| back.stderr.contains(why));
        assert!(back.code == Some(5) && refused, "{number}: {}", back.all());
        let again = bench.say(&["retire", "--revoke", "--yes", &run(&said)]);
        // Once every copy is gone there is nothing left to show its death with: then it is known to be dead already.
        assert!(matches!(again.code, Some(0 | 5)), "{number}: {}", again.all());
        assert!(!bench.opens(&old), "{number}: {}", again.all());
        for host in [1, 2] {
            assert_eq!(bench.holders(host, &old), [""; 0], "{number}: {}", again.all());
        }
        before = said;
    }
    println!("cut off at {cases} records, the last run {}", run(&before));
    assert!(cases >= 6, "{cases}");
}

#[test]
fn a_later_run_that_was_taken_back_leaves_the_one_before_it_to_be_retired() {
    let bench = Bench::with_identity(1, &[]);
    let shared = bench.story.admin_token.clone();
    let first = bench.run(&bench.playbook(), &[]);
    first.assert(0, "succeeded", "changed");
    let second = bench.run(&bench.playbook(), &[]);
    second.assert(0, "succeeded", "changed");
    let run = |said: &Said| said.last()["run"].as_str().unwrap().to_owned();
    assert_eq!(bench.say(&["rollback", &run(&second)]).code, Some(0));
    let refused = bench.say(&["retire", "--yes", &run(&second)]);
    assert_eq!(refused.code, Some(2), "{}", refused.all());
    let retired = bench.say(&["retire", "--yes", &run(&first)]);
    assert_eq!(retired.code, Some(0), "{}", retired.all());
    assert_eq!(bench.holders(1, &shared), [""; 0], "{}", retired.all());
    assert_eq!(bench.facts(1).runner.unwrap().token, Some(Fingerprint::of(bench.token(1).as_bytes())));
}
