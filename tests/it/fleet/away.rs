//! Hosts that go away in the middle of a batch.

use std::fs;

use super::bench::{Fleet, Playbook, Stand, result, words};
use crate::support::wait_until;

/// Every host waits in the middle, until the test lets all of them go on.
fn gated(fleet: &Fleet, rollout: &str) -> Playbook {
    let gate = fleet.sandbox().dir().join("gate");
    let wait = format!(
        ": >{{{{ home }}}}/at-gate; i=0; while [ ! -e {} ] && [ $i -lt 1000 ]; do sleep 0.05; i=$((i + 1)); done",
        gate.display()
    );
    let early = format!(
        "[[steps]]\nname = \"wait\"\ncommand = {{ run = '''{wait}''', undo = \"rm -f {{{{ home }}}}/at-gate\" }}\n"
    );
    Playbook { late: early, ..Playbook::new(rollout) }
}

#[test]
fn a_host_that_goes_away_is_owed_and_resume_settles_it_when_it_is_back() {
    let fleet = Fleet::start(6, &[]);
    let mut playbook = gated(&fleet, "on_failure = \"rollback-batch\"");
    playbook.rollout = playbook.rollout.replace("[1, \"25%\", \"100%\"]", "[4, 2]");
    let work = fleet.begin(&playbook, &[]);
    wait_until("the batch waits", || (1..=4).all(|number| fleet.path(number, "at-gate").exists()));
    fleet.reachable(3, false);
    fs::write(fleet.sandbox().dir().join("gate"), "").unwrap();
    let said = work.end();

    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(said.last()["status"], "dirty", "{}", said.all());
    assert_eq!(words(&said), "rolled-back rolled-back owed rolled-back skipped skipped", "{}", said.all());
    for (number, stand) in [(1, Stand::Old), (2, Stand::Old), (4, Stand::Old), (5, Stand::Untouched)] {
        assert_eq!(fleet.stand(number), Ok(stand), "{}", said.all());
    }
    assert_eq!(fleet.stand(3), Ok(Stand::New), "nobody could take it back: {}", said.all());
    let run = said.last()["run"].as_str().unwrap().to_owned();
    let owed = result(&said, 3);
    assert!(owed["credentials"][0]["now"].is_null(), "what was not read is not said: {owed}");
    assert!(owed["notes"].to_string().contains(&format!("keyswap resume {run}")), "{owed}");
    let commands: Vec<_> = owed["mend"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert!(commands.iter().any(|line| line.contains("infisical-token-auth-token")), "{commands:?}");

    // As long as it is away, it stays owed.
    let again = fleet.say(&["resume"]);
    assert_eq!(again.code, Some(3), "{}", again.all());
    assert_eq!(result(&again, 3)["status"], "owed", "{}", again.all());

    fleet.reachable(3, true);
    let settled = fleet.say(&["resume"]);
    assert_eq!(result(&settled, 3)["status"], "rolled-back", "{}", settled.all());
    fleet.assert("OOOOUU", &settled);
    let nothing = fleet.say(&["resume"]);
    assert!(nothing.stdout.contains("there is nothing to resume"), "{}", nothing.all());
}

#[test]
fn a_way_back_goes_on_past_a_host_that_cannot_be_put_back() {
    let fleet = Fleet::start(5, &[5]);
    let mut playbook = Playbook::new("on_failure = \"rollback-all\"");
    playbook.rollout = playbook.rollout.replace("[1, \"25%\", \"100%\"]", "[2, 3]");
    playbook.early =
        "[[steps]]\nname = \"own\"\ncommand = { run = \"true\", undo = \"test ! -e {{ home }}/stuck\" }\n".to_owned();
    fs::write(fleet.path(2, "stuck"), "").unwrap();
    fs::write(fleet.path(4, "stuck"), "").unwrap();
    let said = fleet.run(&playbook, &[]);

    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(words(&said), "rolled-back dirty rolled-back dirty rolled-back", "{}", said.all());
    for number in [1, 3, 5] {
        assert_eq!(fleet.stand(number), Ok(Stand::Old), "{}", said.all());
    }
    for number in [2, 4] {
        let mend = result(&said, number)["mend"].to_string();
        assert!(mend.contains(&format!("runner-{number}/stuck")), "{mend}");
        fs::remove_file(fleet.path(number, "stuck")).unwrap();
    }
    let back = fleet.say(&["resume", "--back"]);
    assert_eq!(back.code, Some(0), "{}", back.all());
    fleet.assert("OOOOO", &back);
}
