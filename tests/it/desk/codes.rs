//! What each exit code wants from a person: each one is produced for real, then RUNBOOK.md's line for it is followed to the letter,
//! and the hosts are looked at past keyswap.

use std::fs;

use super::scene::shipped;
use crate::fleet::bench::{Fleet, Playbook, words};
use crate::support::real_host::keygen;
use crate::support::runner_host::{AtWork, DATA, RunnerHost, SHARED_FILE, Said, TOKEN_FILE, command, whole};
use crate::support::wait_until;

/// The commands and flags in a code's line of the table, as they stand there.
fn advice(code: &str) -> Vec<String> {
    let runbook = shipped("RUNBOOK.md");
    let section = runbook.split("## What each exit code wants from you").nth(1).unwrap();
    let row = |line: &&str| line.split('|').nth(1).is_some_and(|cell| cell.trim().trim_matches('*') == code);
    let line = section.lines().find(row).unwrap_or_else(|| panic!("there is no line for {code}"));
    let what_to_do = line.split('|').nth(3).unwrap();
    what_to_do.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

const RUN: [&str; 4] = ["run", "fleet.toml", "-i", "inventory.toml"];

fn run(fleet: &Fleet, more: &[&str]) -> Said {
    fleet.write(&Playbook::new(""));
    fleet.say(&[&RUN, more].concat())
}

#[track_caller]
fn ends(said: &Said, code: i32) {
    assert_eq!(said.code, Some(code), "{}", said.all());
}

/// A run of one host that stays in its last step until there is a file `go`.
fn stay() -> Playbook {
    let mut playbook = Playbook::new("");
    let step = "command = { run = \"touch {{ home }}/staying; until [ -e {{ home }}/go ]; do sleep 0.05; done\", changes = false }\ntimeout = \"600s\"\n";
    playbook.late =
        format!("[[steps]]\nname = \"stay\"\n{step}[[steps]]\nname = \"last\"\nwait = {{ for = \"100ms\" }}\n");
    playbook
}

/// At work in its last step, until there is a file `go`.
pub(super) fn staying(fleet: &Fleet, number: usize) -> AtWork {
    let _ = fs::remove_file(fleet.path(number, "staying"));
    let work = fleet.begin(&stay(), &[]);
    wait_until("the run is in its last step", || fleet.path(number, "staying").exists());
    work
}

#[test]
fn code_0_wants_nothing() {
    assert_eq!(advice("0"), [""; 0]);
    let fleet = Fleet::start(2, &[]);
    let said = run(&fleet, &["--yes"]);
    ends(&said, 0);
    fleet.assert("NN", &said);
}

/// keyswap cannot keep what it would do, while an earlier run was cut off.
#[test]
fn code_1_wants_a_look_at_the_runs_and_resume_back() {
    assert_eq!(advice("1"), ["keyswap runs", "keyswap resume --back"]);
    let fleet = Fleet::start(1, &[]);
    // Where nothing can be kept, nothing is begun.
    fleet.write(&Playbook::new(""));
    fs::write(fleet.sandbox().dir().join("no-directory"), "").unwrap();
    let failed = Said::of(&mut fleet.keyswap_of("no-directory/state", "human"), &[&RUN[..], &["--yes"]].concat());
    ends(&failed, 1);
    assert!(failed.stderr.contains("no-directory/state"), "it says where: {}", failed.all());
    fleet.assert("U", &failed);
    // And where a run was cut off, that is what the list shows.
    let work = staying(&fleet, 1);
    work.signal("KILL");
    work.end();
    let runs = Said::of(&mut fleet.keyswap("human"), &["runs"]);
    assert!(runs.stdout.contains("cut off"), "{}", runs.all());
    let back = fleet.say(&["resume", "--back"]);
    ends(&back, 0);
    fleet.assert("O", &back);
}

#[test]
fn code_2_wants_the_cause_mended_and_another_run() {
    assert_eq!(advice("2"), [""; 0]);
    let host = RunnerHost::start();
    let before = host.picture();
    host.pin_runner(0);
    let said = host.rotate(&crate::support::runner_host::Playbook::rotate(), &[]);
    said.assert(2, "rolled-back", "rolled-back");
    before.assert_same(&host.picture(), &said);
    assert!(host.runner().is_some_and(|runner| runner.token == whole(&host.shared)), "no host needs anybody tonight");
    assert!(said.host()["reason"].as_str().unwrap().contains("runner"), "why: {}", said.all());
    host.sh("rm /run/forgejo-runner/pinned");
    host.rotate(&crate::support::runner_host::Playbook::rotate(), &[]).assert(0, "succeeded", "changed");
    assert_eq!(host.read(TOKEN_FILE), host.new);
}

#[test]
fn code_3_owed_wants_the_host_back_and_resume_back() {
    assert_eq!(advice("3"), [""; 0]);
    let fleet = Fleet::start(1, &[]);
    let work = staying(&fleet, 1);
    fleet.reachable(1, false);
    let said = work.end();
    ends(&said, 3);
    assert_eq!(words(&said), "owed", "{}", said.all());
    fleet.reachable(1, true);
    let back = fleet.say(&["resume", "--back"]);
    ends(&back, 0);
    fleet.assert("O", &back);
}

#[test]
fn code_3_dirty_wants_the_cause_cured_the_printed_commands_and_resume_back() {
    let runbook = shipped("RUNBOOK.md");
    let section = runbook.split("## Exit 3: a host is dirty or owed").nth(1).unwrap().split("\n## ").next().unwrap();
    assert_eq!(section.matches("keyswap resume --back").count(), 3, "{section}");
    let host = RunnerHost::start();
    host.sh(&format!("cp -a {DATA} /tmp/aside && mount -t tmpfs tmpfs {DATA} && chmod 700 {DATA} && chown 1000:1000 {DATA} && cp -a /tmp/aside/. {DATA} && rm -rf /tmp/aside"));
    let before = host.picture();
    let playbook = crate::support::runner_host::Playbook::rotate()
        .before("point", "spoil", command(&format!("mount -o remount,ro {DATA}"), "true"))
        .before("verify", "fail", command("exit 7", "true"));
    let said = host.rotate(&playbook, &[]);
    said.assert(3, "dirty", "dirty");
    let mend = said.host()["mend"].as_array().unwrap_or_else(|| panic!("{}", said.all())).clone();
    for line in mend.iter().map(|line| line.as_str().unwrap()) {
        // As root on that host, in their order, as they stand.
        host.sh(line);
    }
    let back = host.say(&["resume", "--back"]);
    back.assert(0, "rolled-back", "rolled-back");
    before.assert_same(&host.picture(), &back);
    let runner = host.runner().expect("the runner is up");
    assert_eq!((runner.pointer.as_deref(), runner.token), (Some(SHARED_FILE), whole(&host.shared)));
}

#[test]
fn code_4_wants_the_hosts_seen_to_and_a_run_limited_to_them() {
    assert_eq!(advice("4"), ["--limit"]);
    let fleet = Fleet::start(2, &[]);
    fleet.reachable(2, false);
    let said = run(&fleet, &["--yes", "--skip-unreachable"]);
    ends(&said, 4);
    fleet.assert("NU", &said);
    fleet.reachable(2, true);
    let said = run(&fleet, &["--yes", "--limit", "runner-2"]);
    ends(&said, 0);
    fleet.assert("NN", &said);
}

#[test]
fn code_5_wants_the_message_read_and_yes_in_a_script() {
    assert_eq!(advice("5"), ["--yes"]);
    let fleet = Fleet::start(1, &[]);
    let said = run(&fleet, &[]);
    ends(&said, 5);
    assert!(said.stderr.contains("--yes"), "{}", said.all());
    fleet.assert("U", &said);
    let said = run(&fleet, &["--yes"]);
    ends(&said, 0);
    fleet.assert("N", &said);
}

#[test]
fn code_6_wants_the_file_put_right() {
    assert_eq!(advice("6"), [""; 0]);
    let fleet = Fleet::start(1, &[]);
    fleet.write(&Playbook::new("max_failure = 1\n"));
    let said = Said::of(&mut fleet.keyswap("human"), &[&RUN[..], &["--yes"]].concat());
    ends(&said, 6);
    let line = said.stderr.lines().find(|line| line.contains("-->")).unwrap_or_else(|| panic!("{}", said.all()));
    assert!(line.contains("fleet.toml:") && said.stderr.contains("^^^^"), "{}", said.all());
    assert!(said.stderr.contains("did you mean `max_failures`"), "{}", said.all());
    fleet.assert("U", &said);
    fleet.write(&Playbook::new("max_failures = 1\n"));
    let said = fleet.say(&[&RUN[..], &["--yes"]].concat());
    ends(&said, 0);
    fleet.assert("N", &said);
}

#[test]
fn code_7_wants_another_plan_and_another_approval() {
    assert_eq!(advice("7"), ["rollback"]);
    let fleet = Fleet::start(1, &[]);
    let dir = fleet.sandbox().dir().to_owned();
    keygen(&dir.join("alice"), "ed25519", "");
    fs::write(dir.join("allowed"), format!("alice {}", fs::read_to_string(dir.join("alice.pub")).unwrap())).unwrap();
    let inventory = fs::read_to_string(dir.join("inventory.toml")).unwrap();
    fs::write(dir.join("inventory.toml"), format!("{inventory}\n[approval]\nallowed_signers = \"allowed\"\n")).unwrap();
    let said = run(&fleet, &["--yes"]);
    ends(&said, 7);
    fleet.assert("U", &said);
    ends(&fleet.say(&["plan", "fleet.toml", "-i", "inventory.toml", "--out", "p.plan"]), 0);
    ends(&fleet.say(&["approve", "p.plan", "--signer", "alice", "--key", "alice"]), 0);
    let said = fleet.say(&["run", "--plan", "p.plan", "--yes"]);
    ends(&said, 0);
    fleet.assert("N", &said);
    // And the way back needs none.
    let back = fleet.say(&["rollback"]);
    ends(&back, 0);
    fleet.assert("O", &back);
}

#[test]
fn code_8_wants_that_run_settled_or_unlocked() {
    assert_eq!(advice("8"), ["keyswap resume", "keyswap unlock HOST -i … --run RUN --reason \"…\""]);
    let fleet = Fleet::start(1, &[]);
    let held = |fleet: &Fleet| {
        let said = Said::of(&mut fleet.keyswap_of("another", "human"), &[&RUN[..], &["--yes"]].concat());
        ends(&said, 8);
        assert!(said.all().contains("operator@"), "it says who: {}", said.all());
        let named = said.stdout.split("keyswap resume ").nth(1).unwrap_or_else(|| panic!("which run: {}", said.all()));
        named.split([' ', ',']).next().unwrap().to_owned()
    };
    let work = staying(&fleet, 1);
    held(&fleet);
    work.signal("KILL");
    work.end();
    held(&fleet);
    // The one whose run it is settles it.
    fs::write(fleet.path(1, "go"), "").unwrap();
    let said = fleet.say(&["resume"]);
    ends(&said, 0);
    fleet.assert("N", &said);
    fs::remove_file(fleet.path(1, "go")).unwrap();
    ends(&fleet.say(&["rollback"]), 0);

    // Nobody ever can: the lock goes, nothing else does.
    let work = staying(&fleet, 1);
    work.signal("KILL");
    work.end();
    let run = held(&fleet);
    let unlock = ["unlock", "runner-1", "-i", "inventory.toml", "--run", &run, "--reason", "the laptop is lost"];
    let said = Said::of(&mut fleet.keyswap_of("another", "human"), &unlock);
    ends(&said, 0);
    assert!(said.stdout.contains("nothing was put back"), "{}", said.all());
    let back = fleet.say(&["resume", "--back"]);
    ends(&back, 0);
    fleet.assert("O", &back);
}

#[test]
fn code_10_is_expected_before_a_rotation() {
    assert_eq!(advice("10"), [""; 0]);
    let fleet = Fleet::start(2, &[]);
    let said = run(&fleet, &["--check"]);
    ends(&said, 10);
    assert!(!said.stdout.contains("could not be written"), "a look leaves nothing to be written: {}", said.all());
    fleet.assert("UU", &said);
    ends(&run(&fleet, &["--yes"]), 0);
    let said = run(&fleet, &["--check"]);
    ends(&said, 0);
    fleet.assert("NN", &said);
}

#[test]
fn code_130_wants_nothing() {
    assert_eq!(advice("130"), [""; 0]);
    let fleet = Fleet::start(1, &[]);
    let work = staying(&fleet, 1);
    work.signal("INT");
    wait_until("it has heard", || work.so_far().contains("stopping"));
    // The step that runs is waited for, then all of it goes back.
    fs::write(fleet.path(1, "go"), "").unwrap();
    let said = work.end();
    ends(&said, 130);
    fleet.assert("O", &said);
    let nothing = fleet.say(&["resume", "--back"]);
    ends(&nothing, 0);
    fleet.assert("O", &nothing);
}

/// A command of a recap, with the names that it leaves open.
fn printed(said: &Said, what: &str) -> String {
    let line = said.stdout.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix("  "));
    let line = line.unwrap_or_else(|| panic!("no `{what}`: {}", said.all()));
    line.trim().replace("PLAYBOOK", "fleet.toml").replace("INVENTORY", "inventory.toml")
}

/// A command line as a person types it, and the yes.
fn typed(fleet: &Fleet, line: &str) -> Said {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_keyswap")).parent().unwrap();
    let mut shell = std::process::Command::new("sh");
    let home = fleet.sandbox().dir();
    shell.env_clear().env("HOME", home).env("USER", "operator").current_dir(home).stdin(std::process::Stdio::null());
    shell.env("PATH", format!("{}:/usr/bin:/bin", program.display()));
    Said::of(&mut shell, &["-c", &format!("{line} --yes")])
}

#[test]
fn what_a_recap_prints_is_typed_as_it_stands() {
    // The runs lie where nobody looks who is not told.
    let fleet = Fleet::start(3, &[3]);
    fleet.write(&Playbook::new(""));
    let said = Said::of(&mut fleet.keyswap("plain"), &[&RUN[..], &["--yes"]].concat());
    ends(&said, 2);
    fleet.assert("NNO", &said);
    let again = typed(&fleet, &printed(&said, "again"));
    ends(&again, 2);
    assert!(again.stdout.contains(", 1/1 hosts: 1 rolled-back"), "only that one: {}", again.all());
    let back = typed(&fleet, &printed(&said, "back"));
    ends(&back, 0);
    fleet.assert("OOO", &back);
    // Whose playbook is left out is told so, and not that a run is no file.
    let again = printed(&said, "again").replace("run fleet.toml", "run");
    let nameless = typed(&fleet, &again);
    ends(&nameless, 5);
    assert!(nameless.stderr.contains("name the playbook"), "{}", nameless.all());

    let only = [&RUN[..], &["--yes", "--limit", "runner-1"]].concat();
    let said = Said::of(&mut fleet.keyswap("plain"), &only);
    ends(&said, 0);
    let history =
        Said::of(&mut fleet.keyswap("plain"), &["runs", said.stdout.split(' ').nth(1).unwrap().trim_end_matches(':')]);
    assert_eq!(printed(&history, "for good"), printed(&said, "for good"));
    let retired = typed(&fleet, &printed(&said, "for good"));
    ends(&retired, 0);
    assert!(retired.stdout.contains("copies removed"), "{}", retired.all());
}
