//! What `--check` says: what is, what would be, in which batch, for how long, and what could go wrong.

use super::bench::{Fleet, Playbook, words};
use crate::support::runner_host::Said;

#[test]
fn a_check_tells_of_each_host_what_is_and_what_would_be() {
    let fleet = Fleet::start(3, &[]);
    let mut playbook = Playbook::new("");
    playbook.late = "[[steps]]\nname = \"look\"\nonce = \"batch\"\nretries = 1\nhttp = { url = \"http://127.0.0.1:9/health\", timeout = \"10s\" }".into();
    let said = fleet.run(&playbook, &["--check", "--diff"]);
    assert_eq!(said.code, Some(10), "{}", said.all());
    fleet.assert("UUU", &said);
    let of = |event: &str, host: &str| {
        let found = said.events.iter().filter(|line| line["event"] == event && line["host"] == host);
        found.cloned().collect::<Vec<_>>()
    };
    let old = fleet.sandbox().old_token().short();
    for (number, batch) in [(1, 1), (2, 2), (3, 3)] {
        let host = format!("runner-{number}");
        let planned = of("host-planned", &host);
        assert_eq!(planned.len(), 1, "{}", said.all());
        assert_eq!((&planned[0]["status"], &planned[0]["batch"]), (&"changed".into(), &batch.into()), "{}", said.all());
        assert_eq!(planned[0]["credentials"][0]["now"], old.as_str());
        // The restart's limit and its life, and two looks of ten seconds with a pause of two between them.
        assert_eq!(planned[0]["at_most"], 30 + 22);
        let steps = of("step-planned", &host);
        let limits: Vec<_> =
            steps.iter().map(|step| (step["step"].as_str().unwrap(), step["at_most"].as_u64())).collect();
        assert_eq!(limits[3..], [("restart", Some(30)), ("look", Some(22))], "{}", said.all());
        let diff = steps[2]["diff"].to_string();
        assert!(diff.contains("INFISICAL_TOKEN_AUTH_FILE="), "the one env key: {diff}");
        assert!(steps[1]["diff"].to_string().contains(&fleet.sandbox().new_token().short()), "{}", said.all());
    }
    for risk in ["the guard is off", "step 4. restart waits for no job"] {
        assert_eq!(said.stdout.matches(risk).count(), 1, "{risk}: {}", said.all());
    }
    assert!(!said.stdout.contains("no step verifies"), "{}", said.all());

    let plain = Said::of(&mut fleet.keyswap("plain"), &["run", "fleet.toml", "-i", "inventory.toml", "-C"]);
    assert_eq!(plain.code, Some(10), "{}", plain.all());
    assert!(plain.stdout.contains("batch 2/3, at most 52 s; "), "{}", plain.all());
    assert!(plain.stdout.contains("(once for the batch, at most 22 s)"), "{}", plain.all());

    // A file that says the same: what `plan` writes is what `--check` shows.
    let planned = fleet.say(&["plan", "fleet.toml", "-i", "inventory.toml", "--out", "plan.json"]);
    assert_eq!(planned.code, Some(0), "{}", planned.all());
    assert_eq!(planned.events.iter().filter(|line| line["event"] == "step-planned").count(), 15, "{}", planned.all());
    let written = std::fs::read_to_string(fleet.sandbox().dir().join("plan.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&written).unwrap();
    for (at, host) in file["plan"]["hosts"].as_array().unwrap().iter().enumerate() {
        let said = of("step-planned", &format!("runner-{}", at + 1));
        for (step, said) in host["steps"].as_array().unwrap().iter().zip(said) {
            assert_eq!((&step["status"], &step["at_most"]), (&said["status"], &said["at_most"]), "{step}");
        }
    }
}

/// A host out of reach is no fault of a journal that was never begun.
#[test]
fn what_is_not_begun_misses_no_journal() {
    let fleet = Fleet::start(2, &[]);
    fleet.reachable(2, false);
    for flag in ["--yes", "--check"] {
        fleet.write(&Playbook::new(""));
        let said = fleet.say(&["run", "fleet.toml", "-i", "inventory.toml", flag]);
        assert_eq!((said.code, words(&said).as_str()), (Some(4), "skipped unreachable"), "{}", said.all());
        assert!(!said.stdout.contains("could not be written"), "{flag}: {}", said.all());
        fleet.assert("UU", &said);
    }
}
