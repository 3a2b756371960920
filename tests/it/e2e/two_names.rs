//! Two names of one machine in one run: two runners, each with files and a state of its own.

use std::fs;

use crate::support::runner_host::{NAME, Playbook, RunnerHost, Said, TOKEN_FILE, command};

const SECOND: &str = "runner-02";
const SECOND_DATA: &str = "/srv/second-runner/data";
const SECOND_FILE: &str = "/srv/second-runner/data/infisical-token-auth-token";
const SECOND_STATE: &str = "/var/lib/keyswap-runner-02";

/// A machine with a second runner's files, and an inventory that knows it by a second name.
fn machine(keys: &str, data: &str) -> RunnerHost {
    let host = RunnerHost::start();
    host.sh(&format!(
        "mkdir -p {SECOND_DATA} && umask 077 && printf %s '{}' >{SECOND_FILE} && chown -R 1000:1000 {SECOND_DATA}",
        host.old
    ));
    let at = host.controller().join("inventory.toml");
    let inventory =
        fs::read_to_string(&at).unwrap().replace(&format!("[\"{NAME}\"]"), &format!("[\"{NAME}\", \"{SECOND}\"]"));
    let second = host.host.inventory_host(SECOND);
    fs::write(&at, format!("{inventory}\n{second}{keys}\nvars = {{ data_dir = \"{data}\" }}\n")).unwrap();
    host
}

fn place() -> Playbook {
    Playbook::rotate().without("point").without("restart").without("verify")
}

fn tokens(host: &RunnerHost) -> [String; 2] {
    [host.read(TOKEN_FILE), host.read(SECOND_FILE)]
}

/// How a run ended for each of the names.
fn statuses(said: &Said) -> Vec<(String, u64)> {
    let hosts = said.last()["hosts"].as_array().unwrap();
    hosts.iter().map(|host| (host["status"].as_str().unwrap().to_owned(), host["batch"].as_u64().unwrap())).collect()
}

fn each(status: &str, batches: [u64; 2]) -> Vec<(String, u64)> {
    batches.map(|batch| (status.to_owned(), batch)).to_vec()
}

#[test]
fn they_are_worked_on_one_after_the_other_and_go_back_in_the_other_order() {
    let host = machine(&format!("state_dir = \"{SECOND_STATE}\""), SECOND_DATA);
    let (old, new) = ([host.old.clone(), host.old.clone()], [host.new.clone(), host.new.clone()]);
    // A machine that has a cron: the guard is started by it at boot.
    host.sh("mkdir -p /etc/cron.d && ln -s /bin/true /usr/local/sbin/crond");
    let before = host.picture();
    let hooks = "/etc/cron.d/keyswap-guard*";
    let guarded = Playbook {
        rollout: "batches = [\"100%\"]\non_failure = \"rollback-all\"\nguard = \"120s\"\n".to_owned(),
        ..place().before("place", "look", command(&format!("ls {hooks} >>/run/hooks 2>/dev/null || :"), "true"))
    };

    // The second one fails: both go back, although the first was let go already.
    let second_fails = format!("case $(cat {SECOND_FILE}) in *-new-*) exit 7 ;; esac");
    let mut failing = guarded.clone();
    failing.steps.push(("fail".to_owned(), command(&second_fails, "true")));
    let said = host.rotate(&failing, &[]);
    assert_eq!((said.code, statuses(&said)), (Some(2), each("rolled-back", [1, 2])), "{}", said.all());
    assert_eq!(tokens(&host), old, "{}", said.all());

    let said = host.rotate(&guarded, &[]);
    assert_eq!((said.code, statuses(&said)), (Some(0), each("changed", [1, 2])), "{}", said.all());
    let run = said.last()["run"].as_str().unwrap().to_owned();
    assert_eq!(tokens(&host), new, "{}", said.all());
    let again = host.rotate(&place(), &[]);
    assert_eq!((again.code, statuses(&again)), (Some(0), each("ok", [1, 2])), "{}", again.all());

    // Each name had its own start at boot, and none is left.
    let seen = host.read("/run/hooks");
    let mut names: Vec<&str> = seen.lines().collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 2, "{seen}");
    assert_eq!(host.sh(&format!("ls {hooks} 2>/dev/null || :")), "");

    let back = host.say(&["rollback", &run, "--yes"]);
    assert_eq!((back.code, statuses(&back)), (Some(0), each("rolled-back", [1, 2])), "{}", back.all());
    assert_eq!(tokens(&host), old, "{}", back.all());
    host.sh(&format!("rm -rf /run/hooks {SECOND_STATE}"));
    before.assert_same(&host.picture(), &back);
}

#[test]
fn without_a_state_of_its_own_the_second_is_refused_with_the_way_out() {
    let host = machine("", SECOND_DATA);
    let said = host.rotate(&place(), &[]);
    assert_eq!((said.code, tokens(&host)), (Some(2), [host.old.clone(), host.old.clone()]), "{}", said.all());
    let line = format!("state_dir = \\\"{SECOND_STATE}\\\"");
    assert!(said.all().contains(&line), "{}", said.all());
}

#[test]
fn one_file_is_changed_by_one_name() {
    let host = machine(&format!("state_dir = \"{SECOND_STATE}\""), "/srv/forgejo-runner/data");
    let said = host.rotate(&place(), &[]);
    assert_eq!((said.code, tokens(&host)), (Some(2), [host.old.clone(), host.old.clone()]), "{}", said.all());
    assert!(said.all().contains(&format!("are one machine, and both change {TOKEN_FILE}")), "{}", said.all());
}
