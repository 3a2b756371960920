//! What programs and pipes get of a command's own output.

use serde_json::json;

use crate::fleet::bench::{Fleet, Playbook};

#[test]
fn a_plan_that_cannot_be_written_ends_its_stream() {
    let fleet = Fleet::start(1, &[]);
    fleet.write(&Playbook::new(""));
    let said = fleet.say(&["plan", "fleet.toml", "-i", "inventory.toml", "--out", "no-directory/plan"]);
    assert_eq!(said.code, Some(5), "{}", said.all());
    assert_eq!((&said.last()["status"], &said.last()["exit_code"]), (&json!("failed"), &json!(5)), "{}", said.all());
    fleet.assert("U", &said);
}
