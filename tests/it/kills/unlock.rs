//! `keyswap unlock`: a lock is taken away with a reason, and nothing else.

use super::bench::{Bench, Controller, Stand};
use crate::support::runner_host::{CONTROL_FILE, NAME, Playbook, restart};
use crate::support::wait_until;

const REASON: &str = "the laptop that ran it was stolen; it's settled by hand";

#[test]
fn a_stale_lock_is_taken_away_with_a_reason_and_nothing_is_put_back() {
    let bench = Bench::start();
    let mut playbook = Playbook::rotate().with("restart", restart(&format!("{CONTROL_FILE} restart"), "100ms", "20s"));
    playbook.rollout = "batches = [\"100%\"]\nguard = \"10m\"\n".to_owned();
    let args = bench.host.run_args(&playbook);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let unlock = ["unlock", NAME, "-i", "inventory.toml", "--reason", REASON];
    let none = bench.say("state", &unlock);
    assert_eq!(none.code, Some(2), "nothing to unlock: {}", none.all());

    let mut controller = Controller::start(bench.host.keyswap("state"), &args, Some("journal:9:before"));
    assert!(controller.stops());
    let (run, _) = bench.run("state").unwrap();
    let (picture, state) = (bench.host.picture(), bench.cas());
    let refused = |word: &str| {
        let said = bench.say("other", &unlock);
        assert_eq!(said.code, Some(8), "{}", said.all());
        assert!(said.stdout.contains(word) && said.stdout.contains(run.as_str()), "{word}: {}", said.all());
        assert_eq!(bench.cas(), state, "{}", said.all());
    };
    refused("is connected");
    controller.kill();
    wait_until("its shell is gone", || !bench.host.exec("pgrep -f '^sh -c read -r NONCE'").status.success());
    refused("the lease");

    let named = [&unlock[..], &["--run", run.as_str()]].concat();
    let said = bench.say("other", &named);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(said.events[0]["put_back"], false, "{}", said.all());
    assert_eq!(bench.phase(), ("idle".to_owned(), run.to_string()));
    picture.assert_same(&bench.host.picture(), &said);
    let written = bench.host.read("/var/lib/keyswap/unlocks");
    for word in [run.as_str(), "phase=armed", "by=operator@", REASON] {
        assert!(written.contains(word), "{word}: {written}");
    }
    let again = bench.say("other", &named);
    assert_eq!(again.code, Some(2), "{}", again.all());

    // The way back lies there all the same.
    let said = bench.say("state", &["resume", "--back"]);
    assert_eq!(bench.settled("state", &said, true), Ok(Stand::Old), "{}", said.all());
}
