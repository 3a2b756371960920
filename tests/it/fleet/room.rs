//! What is looked at around a run before it begins: room, and who could read what is kept on a host.

use super::bench::{Fleet, Playbook, words};

#[test]
fn runners_that_work_as_the_user_who_keeps_the_state_are_warned_of_once() {
    let fleet = Fleet::start(3, &[]);
    let said = fleet.run(&Playbook::new(""), &["--check"]);
    assert_eq!(said.code, Some(10), "{}", said.all());
    assert_eq!(words(&said), "changed changed changed", "{}", said.all());
    let warned: Vec<_> =
        said.events.iter().map(ToString::to_string).filter(|event| event.contains("jobs could read")).collect();
    assert_eq!(warned.len(), 1, "{}", said.all());
    assert!(
        warned[0].contains("runner-1 and 2 more") && warned[0].contains("the runner works as the user"),
        "{}",
        said.all()
    );
}
