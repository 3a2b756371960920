//! Ad-hoc commands on many hosts, on real SSH servers and through real sudo.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::bench::{Fleet, Playbook};
use crate::support::runner_host::{AtWork, DATA, RunnerHost, Said};
use crate::support::wait_until;

fn exec(fleet: &Fleet, output: &str, args: &[&str]) -> Said {
    let mut all = vec!["exec", "-i", "inventory.toml"];
    all.extend(args);
    Said::of(&mut fleet.keyswap(output), &all)
}

/// What was said of a host.
fn of<'a>(said: &'a Said, host: &str) -> &'a Value {
    let mut finished = said.events.iter().filter(|event| event["event"] == "host-finished");
    finished.find(|event| event["host"] == host).unwrap_or_else(|| panic!("{host}: {}", said.all()))
}

#[test]
fn every_host_says_its_own_and_the_worst_is_the_exit_code() {
    let fleet = Fleet::start(3, &[]);
    let said = exec(&fleet, "jsonl", &["--", "printf", "<%s>\n", "a b", "$HOME;*", ""]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    for number in 1..=3 {
        let host = of(&said, &format!("runner-{number}"));
        assert_eq!((&host["status"], &host["exit_status"]), (&json!("ok"), &json!(0)), "{}", said.all());
        assert_eq!(host["output"], json!(["<a b>", "<$HOME;*>", "<>"]), "no shell has read the words: {}", said.all());
    }
    let last = said.events.last().unwrap();
    assert_eq!(
        (&last["event"], &last["status"], &last["exit_code"]),
        (&json!("exec-finished"), &json!("succeeded"), &json!(0))
    );

    // One fails, one is away: failed outranks unreachable.
    fleet.reachable(3, false);
    let script = "case $HOME in */runner-2) echo oops >&2; exit 9 ;; esac; echo fine";
    let said = exec(&fleet, "jsonl", &["--", "sh", "-c", script]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert_eq!(of(&said, "runner-1")["output"], json!(["fine"]));
    let failed = of(&said, "runner-2");
    assert_eq!(
        (&failed["status"], &failed["exit_status"], &failed["output"]),
        (&json!("failed"), &json!(9), &json!(["oops"]))
    );
    assert_eq!(of(&said, "runner-3")["status"], "unreachable", "{}", said.all());
    assert_eq!(said.events.last().unwrap()["hosts"], json!({"ok": 1, "failed": 1, "unreachable": 1, "skipped": 0}));
    let said = exec(&fleet, "jsonl", &["-l", "runner-1:runner-3", "--", "true"]);
    assert_eq!(said.code, Some(4), "{}", said.all());

    // For people: each line under its host's name, then what was not well.
    let said = exec(&fleet, "human", &["-f", "1", "--", "sh", "-c", script]);
    for line in [
        "runner-1: ok\nrunner-1 | fine\n",
        "runner-2: failed: exit status 9\nrunner-2 | oops\n",
        "recap\n  runner-2: failed: exit status 9\n",
    ] {
        assert!(said.stdout.contains(line), "{line:?}: {}", said.all());
    }
    assert!(said.stdout.ends_with("  3 hosts: 1 ok, 1 failed, 1 unreachable\n"), "{}", said.all());
    // None of it is a run.
    assert!(
        Said::of(&mut fleet.keyswap("human"), &["runs"]).stdout.contains("no run")
            || !fleet.sandbox().dir().join("controller/runs").exists()
    );
}

#[test]
fn hostile_output_is_cleaned_and_bounded_and_limits_hold() {
    let fleet = Fleet::start(1, &[]);
    let said = exec(&fleet, "human", &["--", "printf", "a\\033[2Jb\\007\\033]0;title\\007c\\nrunner-1: ok\\n"]);
    assert!(said.stdout.contains("runner-1 | abc\nrunner-1 | runner-1: ok\n"), "{}", said.all());
    assert!(!said.stdout.contains(['\u{1b}', '\u{7}']), "{}", said.all());

    let said = exec(&fleet, "jsonl", &["--", "sh", "-c", "yes | head -c 300000; exit 3"]);
    let host = of(&said, "runner-1");
    assert_eq!((&host["cut"], &host["exit_status"]), (&json!(true), &json!(3)), "{}", said.code.unwrap());
    assert!(host["output"].as_array().unwrap().len() < 40_000);

    let began = Instant::now();
    let said = exec(&fleet, "jsonl", &["--timeout", "1s", "--", "sleep", "600"]);
    assert_eq!((said.code, &of(&said, "runner-1")["timed_out"]), (Some(2), &json!(true)), "{}", said.all());
    assert!(began.elapsed() < Duration::from_secs(120));
}

#[test]
fn what_it_cannot_do_is_bad_usage() {
    let fleet = Fleet::start(1, &[]);
    let secret = format!("ghp_{}", "a1B2c3D4e5".repeat(4));
    for (args, says) in [
        (vec!["true"], "unexpected argument"),
        (vec![], "required"),
        (vec!["--timeout", "soon", "--", "true"], "length of time"),
        (vec!["--timeout", "0s", "--", "true"], "longer than nothing"),
        (vec!["-f", "0", "--", "true"], "0 is not in"),
        (vec!["-l", "nobody", "--", "true"], "nobody"),
        (vec!["--", "login", secret.as_str()], "word 2 of the command looks like a secret"),
    ] {
        let said = exec(&fleet, "human", &args);
        assert_eq!(said.code, Some(5), "{args:?}: {}", said.all());
        assert!(said.stderr.contains(says) && !said.stderr.contains(&secret), "{args:?}: {}", said.all());
    }
}

#[test]
fn ctrl_c_begins_no_more_hosts_and_waits_for_those_at_work() {
    let fleet = Fleet::start(3, &[]);
    let script = "touch \"$HOME/begun\"; until [ -e \"$HOME/go\" ]; do sleep 0.05; done; echo ended";
    let args = ["exec", "-i", "inventory.toml", "-f", "1", "--", "sh", "-c", script];
    let at_work = AtWork::start(&mut fleet.keyswap("jsonl"), &args);
    let begun = || (1..=3).find(|number| fleet.path(*number, "begun").exists());
    wait_until("a command runs", || begun().is_some());
    at_work.signal("INT");
    // It waits: the command is not ended, and no other host is begun.
    let first = begun().unwrap();
    std::fs::write(fleet.path(first, "go"), "").unwrap();
    let said = at_work.end();
    assert_eq!(said.code, Some(130), "{}", said.all());
    assert!(said.stderr.contains("no more hosts are begun"), "{}", said.all());
    assert_eq!(of(&said, &format!("runner-{first}"))["output"], json!(["ended"]), "{}", said.all());
    assert_eq!(said.events.last().unwrap()["hosts"], json!({"ok": 1, "failed": 0, "unreachable": 0, "skipped": 2}));
    assert_eq!((1..=3).filter(|number| fleet.path(*number, "begun").exists()).count(), 1);
}

#[test]
fn a_host_that_a_run_holds_is_worked_on_and_said_to_be_held() {
    let fleet = Fleet::start(1, &[]);
    let mut playbook = Playbook::new("");
    playbook.late = "[[steps]]\nname = \"stay\"\ncommand = { run = \"touch {{ home }}/staying; sleep 600\", changes = false }\ntimeout = \"600s\"\n".to_owned();
    let run = fleet.begin(&playbook, &[]);
    wait_until("the run is in its last step", || fleet.path(1, "staying").exists());
    let said = exec(&fleet, "jsonl", &["--", "echo", "here"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let host = of(&said, "runner-1");
    assert_eq!((&host["output"], &host["held"]["phase"]), (&json!(["here"]), &json!("armed")), "{}", said.all());
    let said = exec(&fleet, "human", &["--", "echo", "here"]);
    assert!(said.stdout.contains("holds it (armed)"), "{}", said.all());
    run.signal("KILL");
    run.end();
    let back = fleet.say(&["resume", "--back"]);
    assert_eq!(back.code, Some(0), "{}", back.all());
    fleet.assert("O", &back);
}

#[test]
fn sudo_and_the_login_are_what_the_inventory_and_the_flags_say() {
    let host = RunnerHost::start();
    let run = |args: &[&str]| {
        let mut all = vec!["exec", "-i", "inventory.toml"];
        all.extend(args);
        host.say(&all)
    };
    let root = run(&["--", "sh", "-c", "id -u; pwd; stat -c %a \"$1\"", "sh", DATA]);
    assert_eq!(root.events[0]["output"], json!(["0", "/", "700"]), "{}", root.all());
    let inventory = std::fs::read_to_string(host.controller().join("inventory.toml")).unwrap();
    std::fs::write(host.controller().join("plain.toml"), inventory.replace("become = \"sudo\"", "become = \"none\""))
        .unwrap();
    let plain = host.say(&["exec", "-i", "plain.toml", "--", "id", "-u"]);
    assert_eq!(plain.events[0]["output"], json!(["4200"]), "{}", plain.all());
    let raised = host.say(&["exec", "-i", "plain.toml", "-b", "--", "id", "-u"]);
    assert_eq!(raised.events[0]["output"], json!(["0"]), "{}", raised.all());
    let nobody = run(&["-u", "nobody-here", "--", "true"]);
    assert_eq!((nobody.code, &nobody.events[0]["status"]), (Some(4), &json!("unreachable")), "{}", nobody.all());
}
