//! The end of an old credential against whoever changes his mind, and what comes between.

use keyswap::model::Fingerprint;
use keyswap::sandbox::infisical::{Fault, FaultKind};

use super::bench::{Bench, without_restart};
use crate::kills::bench::Controller;
use crate::support::runner_host::{AtWork, Said};
use crate::support::wait_until;

/// Without a restart, to be quick.
pub(super) fn quick(bench: &Bench) -> std::path::PathBuf {
    bench.playbook_with("quick.toml", |text| without_restart(&text))
}

pub(super) fn run(said: &Said) -> String {
    said.last()["run"].as_str().unwrap().to_owned()
}

/// Two runs: the second one's old credential is the first one's token. Their ids, and that token.
fn twice(bench: &Bench) -> (String, String, String) {
    let quick = quick(bench);
    let first = bench.run(&quick, &[]);
    first.assert(0, "succeeded", "changed");
    let token = bench.token(1);
    let second = bench.run(&quick, &[]);
    second.assert(0, "succeeded", "changed");
    (run(&first), run(&second), token)
}

fn stopped(bench: &Bench, pause: &str, args: &[&str]) -> Controller {
    let mut command = bench.command();
    command.env("KEYSWAP_TEST_PAUSE", pause);
    let mut retire = Controller::start(command, args, None);
    assert!(retire.stops(), "{}", retire.end().all());
    retire
}

/// Somebody takes the run back while the operator reads what would go.
#[test]
fn a_run_that_is_taken_back_before_the_yes_is_not_retired() {
    let bench = Bench::with_identity(1, &[]);
    let (_, second, first_token) = twice(&bench);
    let second_token = bench.token(1);
    // What is asked of the host before the question: twice by the audit, once for its copies.
    let retire = stopped(&bench, "call:3:after", &["retire", "--revoke", "--yes", &second]);
    let back = bench.say(&["rollback", &second]);
    assert_eq!(back.code, Some(0), "{}", back.all());
    retire.signal("CONT");
    let said = retire.end();
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.stdout.contains("not known to be on the new credential"), "{}", said.all());
    assert!(bench.state().retired.is_none());
    assert!(bench.opens(&first_token) && !bench.opens(&second_token), "{}", said.all());
    assert_eq!(bench.token(1), first_token);
}

/// The same by an operator on another machine, who knows no lock of this one, at the last moment: the host decides.
#[test]
fn a_host_that_went_back_by_another_hand_keeps_its_token_alive() {
    let bench = Bench::with_identity(1, &[]);
    let (_, second, first_token) = twice(&bench);
    let retire = stopped(&bench, "journal:1:after", &["retire", "--revoke", "--yes", &second]);
    let args = ["rollback", &second, "--from-hosts", "-i", "inventory.toml"];
    let back = Said::of(&mut bench.command_of("other"), &args);
    assert!(matches!(back.code, Some(0 | 3)), "{}", back.all());
    assert_eq!(bench.token(1), first_token, "{}", back.all());
    retire.signal("CONT");
    let said = retire.end();
    assert_eq!((said.code, said.events.last().unwrap()["status"].as_str()), (Some(3), Some("owed")), "{}", said.all());
    assert!(said.stdout.contains("did not end new on this host"), "{}", said.all());
    assert!(bench.opens(&first_token), "{}", said.all());
}

/// Sealed before the issuer is asked: whoever comes then is too late.
#[test]
fn a_sealed_host_is_not_taken_back_and_what_failed_is_owed() {
    let bench = Bench::with_identity(1, &[]);
    let (first, second, first_token) = twice(&bench);
    bench.stand_in.fault(Fault::once("POST", "/revoke", FaultKind::Status(503)).times(1000));
    let said = bench.say(&["retire", "--revoke", "--yes", &second]);
    assert_eq!((said.code, said.events.last().unwrap()["status"].as_str()), (Some(3), Some("owed")), "{}", said.all());
    assert!(said.stdout.contains(&format!("keyswap retire --revoke {second}")), "{}", said.all());
    for run in [&first, &second] {
        let args = ["rollback", run, "--from-hosts", "-i", "inventory.toml"];
        let back = Said::of(&mut bench.command_of("other"), &args);
        assert_ne!(back.code, Some(0), "{}", back.all());
    }
    assert_ne!(bench.token(1), first_token);
    bench.stand_in.heal();
    let again = bench.say(&["retire", "--revoke", "--yes", &second]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    assert!(!bench.opens(&first_token));
    assert_eq!(bench.holders(1, &first_token), [""; 0]);
    let back = bench.say(&["rollback", &first]);
    assert_eq!(back.code, Some(5), "{}", back.all());
    assert!(back.stderr.contains(&second) && back.stderr.contains("retired"), "{}", back.all());
}

/// Past the point of no return Ctrl-C is heard: nothing is left in the midst of a phase, and everybody names what goes on.
#[test]
fn a_retirement_that_is_stopped_is_owed_and_everybody_names_what_goes_on() {
    let bench = Bench::with_identity(1, &[]);
    let (_, second, first_token) = twice(&bench);
    // The signal waits until the process goes on; the issuer's silence gives it time to be heard.
    bench.stand_in.fault(Fault::once("POST", "/revoke", FaultKind::Hang));
    let retire = stopped(&bench, "journal:1:after", &["retire", "--revoke", "--yes", &second]);
    retire.signal("INT");
    retire.signal("CONT");
    let said = retire.end();
    assert_eq!((said.code, said.events.last().unwrap()["status"].as_str()), (Some(3), Some("owed")), "{}", said.all());
    let again = format!("keyswap retire --revoke {second} --state-dir {}", bench.dir().join("controller").display());
    assert!(said.stdout.contains(&again) && said.stderr.contains(&again), "{}", said.all());
    assert!(said.stdout.contains("stopped by the operator"), "{}", said.all());
    assert!(!bench.holders(1, &first_token).is_empty(), "no copy is gone: {}", said.all());
    for args in [&["rollback", &second][..], &["resume", &second], &["resume", "--back", &second]] {
        let refused = bench.say(args);
        assert_eq!(refused.code, Some(5), "{args:?}: {}", refused.all());
        assert!(refused.stderr.contains("is being retired") && refused.stderr.contains(&again), "{}", refused.all());
    }
    let table = bench.say(&["runs"]);
    let told = |line: &str| line.contains(&second) && line.contains("being-retired");
    assert!(table.stdout.lines().any(told), "{}", table.all());
    let done = bench.say(&["retire", "--revoke", "--yes", &second]);
    assert_eq!(done.code, Some(0), "{}", done.all());
    assert!(!bench.opens(&first_token));
    assert_eq!(bench.holders(1, &first_token), [""; 0]);
}

/// An identity that is being made as its file says is made so before Ctrl-C counts.
#[test]
fn an_identity_is_not_left_half_made_by_ctrl_c() {
    let bench = Bench::start(1, &[]);
    bench.stand_in.fault(Fault::once("POST", "", FaultKind::Hang).after(1));
    let posts = || bench.stand_in.requests().iter().filter(|line| line.starts_with("POST")).count();
    let before = posts();
    let work =
        AtWork::start(&mut bench.command(), &["identity", "apply", "identity.toml", "-i", "inventory.toml", "--yes"]);
    // The first one logs in.
    wait_until("a change is asked for", || posts() >= before + 2);
    work.signal("INT");
    let said = work.end();
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.stderr.contains("stopping"), "{}", said.all());
    assert_eq!(bench.apply(&["--check"]).code, Some(0));
}

/// A proxy says 401 and nothing of why: that proves nobody's death.
#[test]
fn a_refusal_that_does_not_say_why_proves_no_death() {
    let bench = Bench::with_identity(1, &[]);
    let (_, second, first_token) = twice(&bench);
    bench.stand_in.fault(Fault::once("GET", "/identities/details", FaultKind::Status(401)).times(1000));
    let said = bench.say(&["retire", "--revoke", "--yes", &second]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.stdout.contains("nobody could see that it is dead"), "{}", said.all());
    assert!(!bench.holders(1, &first_token).is_empty(), "its copies are what its death can be shown by");
    bench.stand_in.heal();
    let again = bench.say(&["retire", "--revoke", "--yes", &second]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    assert_eq!(bench.holders(1, &first_token), [""; 0]);
}

/// A run that found a host as it should be changed nothing there: its end takes nothing from later runs.
#[test]
fn a_host_that_a_run_spared_keeps_its_later_ways_back() {
    let bench = Bench::start(1, &[]);
    let write = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = bench.dir().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("by-hand", "test-token-by-hand");
    let from_file = |name: &str, path: &str| {
        bench.playbook_with(name, |text| {
            let (head, steps) = text.split_once("[secrets.token]").unwrap();
            let (_, steps) = steps.split_once("\n\n").unwrap();
            let steps = without_restart(steps);
            let steps: Vec<&str> = steps.split("\n[[steps]]").filter(|step| !step.contains("prove =")).collect();
            let steps = steps.join("\n[[steps]]");
            format!("{head}[secrets.token]\nfrom = \"file\"\npath = \"{path}\"\n\n{steps}")
        })
    };
    let by_hand = from_file("by-hand.toml", "by-hand");
    bench.run(&by_hand, &[]).assert(0, "succeeded", "changed");
    let spared = bench.run(&by_hand, &[]);
    spared.assert(0, "succeeded", "ok");
    write("next", "test-token-next");
    let later = bench.run(&from_file("next.toml", "next"), &[]);
    later.assert(0, "succeeded", "changed");
    let before = bench.holders(1, "test-token-by-hand");
    assert!(!before.is_empty());
    let said = bench.say(&["retire", "--yes", &run(&spared)]);
    assert_eq!(bench.holders(1, "test-token-by-hand"), before, "{}", said.all());
    let back = bench.say(&["rollback", &run(&later)]);
    assert_eq!(back.code, Some(0), "{}", back.all());
    assert_eq!(bench.facts(1).token, Some(Fingerprint::of(b"test-token-by-hand")));
}

/// On a machine that has no journal of the run: its token is known from the hosts, and dies when none of them holds it.
#[test]
fn a_run_that_is_taken_back_from_its_hosts_takes_its_token_with_it() {
    let bench = Bench::with_identity(2, &[]);
    let said = bench.run(&quick(&bench), &[]);
    said.assert(0, "succeeded", "changed");
    let from_hosts = |more: &[&str]| {
        let mut args = vec!["rollback", "--from-hosts", "-i", "inventory.toml"];
        args.extend(more);
        Said::of(&mut bench.command_of("other"), &args)
    };
    let token = |said: &Said| {
        let told = said.events.iter().rfind(|event| event["event"] == "token");
        told.map(|event| (event["status"].as_str().unwrap().to_owned(), event["detail"].as_str().unwrap().to_owned()))
    };
    // One of its hosts was not asked: it may hold the token.
    let part = from_hosts(&["--limit", "runner-1"]);
    assert_eq!(part.code, Some(3), "{}", part.all());
    let (status, detail) = token(&part).unwrap();
    assert!(status == "owed" && detail.contains("runner-2") && detail.contains("keyswap 20"), "{}", part.all());
    assert_eq!(bench.alive().len(), 1);
    // The issuer is away: owed, and paid by the run that took it back.
    bench.stand_in.fault(Fault::once("POST", "/revoke", FaultKind::Status(503)).times(1000));
    let rest = from_hosts(&[]);
    assert_eq!(rest.code, Some(3), "{}", rest.all());
    bench.stand_in.heal();
    let paid = Said::of(&mut bench.command_of("other"), &["resume"]);
    assert_eq!(paid.code, Some(0), "{}", paid.all());
    assert_eq!(bench.alive(), [""; 0], "{}", paid.all());
}

/// The request is carried out only when nobody waits for it any more.
#[test]
fn a_token_that_comes_to_life_late_is_found() {
    let bench = Bench::with_identity(1, &[]);
    bench.stand_in.fault(Fault::once("POST", "/tokens", FaultKind::Late(700)));
    // Whose own token is given back mints nothing late; one that cannot be given back lives on for a while.
    bench.stand_in.fault(Fault::once("POST", "/auth/token/revoke", FaultKind::Status(500)).times(1000));
    let said = bench.run(&quick(&bench), &[]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.events.iter().any(|event| event["event"] == "token" && event["status"] == "owed"), "{}", said.all());
    let paid = bench.pay(&["resume"]);
    assert_eq!(paid.code, Some(0), "{}", paid.all());
    assert!(paid.stdout.contains("found by its name"), "{}", paid.all());
    assert_eq!(bench.alive(), [""; 0], "{}", paid.all());
}

/// What another operator says, who has no journal of any run.
fn from_hosts(bench: &Bench, command: &str, more: &[&str]) -> Said {
    let mut args = vec![command, "--from-hosts", "-i", "inventory.toml"];
    args.extend(more);
    Said::of(&mut bench.command_of("other"), &args)
}

/// By what the hosts recorded, on a machine that has no journal of the run.
#[test]
fn an_operator_without_the_journal_retires_but_revokes_nothing() {
    let bench = Bench::with_identity(2, &[]);
    let done = bench.run(&quick(&bench), &[]);
    done.assert(0, "succeeded", "changed");
    let shared = bench.story.admin_token.clone();
    let held = || [1, 2].map(|number| bench.holders(number, &shared));
    let before = held();
    assert!(before.iter().all(|files| !files.is_empty()), "{before:?}");
    let revoke = from_hosts(&bench, "retire", &["--revoke", "--yes"]);
    assert_eq!(revoke.code, Some(5), "{}", revoke.all());
    assert!(revoke.stderr.contains("who minted it"), "{}", revoke.all());
    let part = from_hosts(&bench, "retire", &["--limit", "runner-1", "--yes"]);
    assert_eq!(part.code, Some(2), "{}", part.all());
    assert!(part.stdout.contains("runner-2 is a host of the run, and was not asked"), "{}", part.all());
    assert_eq!(held(), before);

    let said = from_hosts(&bench, "retire", &["--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(held(), [[""; 0]; 2], "{}", said.all());
    assert!(bench.opens(&shared) && bench.alive().len() == 1, "{}", said.all());
    let other = |args: &[&str]| Said::of(&mut bench.command_of("other"), args);
    let again = other(&["retire", "--yes"]);
    assert!(again.code == Some(0) && again.stdout.contains("was retired already"), "{}", again.all());
    let revoke = other(&["retire", "--revoke", "--yes"]);
    assert!(revoke.code == Some(5) && revoke.stderr.contains("who minted it"), "{}", revoke.all());
    // Nobody takes the run back any more, whatever his own journal says.
    for back in [bench.say(&["rollback"]), other(&["rollback"]), from_hosts(&bench, "rollback", &[])] {
        assert_ne!(back.code, Some(0), "{}", back.all());
    }
    assert_ne!(bench.token(1), shared);
}

#[test]
fn a_run_that_is_not_wholly_new_is_not_retired_from_its_hosts() {
    let bench = Bench::with_identity(2, &[]);
    bench.run(&quick(&bench), &[]).assert(0, "succeeded", "changed");
    let shared = bench.story.admin_token.clone();
    let args = ["rollback", "--from-hosts", "-i", "inventory.toml", "--limit", "runner-1"];
    let back = Said::of(&mut bench.command_of("third"), &args);
    assert_eq!((bench.token(1), back.code), (shared.clone(), Some(3)), "{}", back.all());
    let held = bench.holders(2, &shared);
    let said = from_hosts(&bench, "retire", &["--yes"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.stdout.contains("runner-1: run") && said.stdout.contains("did not end new"), "{}", said.all());
    assert!(!held.is_empty() && bench.holders(2, &shared) == held, "{}", said.all());
    assert_eq!(Said::of(&mut bench.command_of("other"), &["resume"]).code, Some(5), "no run was begun");
}

#[test]
fn an_earlier_run_is_retired_from_its_hosts_and_the_later_one_keeps_its_way_back() {
    let bench = Bench::with_identity(1, &[]);
    let (first, second, first_token) = twice(&bench);
    let here = Said::of(&mut bench.command(), &["retire", &first, "--from-hosts", "-i", "inventory.toml", "--yes"]);
    assert!(here.code == Some(5) && here.stderr.contains("is on this machine"), "{}", here.all());
    let said = from_hosts(&bench, "retire", &[&first, "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(bench.holders(1, &bench.story.admin_token), [""; 0], "{}", said.all());
    let back = bench.say(&["rollback", &second]);
    assert_eq!(bench.token(1), first_token, "{}", back.all());
}

/// Environment files that set the token itself hold copies of it as well: a named backup, and one that somebody made elsewhere.
#[test]
fn a_token_that_stood_in_an_environment_file_is_found_in_every_copy_of_it() {
    let bench = Bench::with_identity(1, &[]);
    let inline = "test-token-in-the-env-file";
    let dir = bench.hosts()[0].dir().to_owned();
    let env = dir.join("runner.env");
    let text = std::fs::read_to_string(&env).unwrap();
    std::fs::write(
        &env,
        format!("{text}INFISICAL_TOKEN=\"{inline}\"\nINFISICAL_API_URL=https://infisical.example.net\n"),
    )
    .unwrap();
    let playbook = bench.playbook_with("inline.toml", |text| {
        let text = without_restart(&text);
        let (head, point) = text.split_once("\n[[steps]]\nname  = \"Point").unwrap();
        let point = point.replace(", value = ", ", remove = [\"INFISICAL_TOKEN\", \"INFISICAL_API_URL\"], value = ");
        assert!(point.contains("remove = "), "{point}");
        let backup = "[[steps]]\nname = \"Keep the env file\"\nbackup = { path = \"{{ home }}/runner.env\" }\n";
        format!("{head}\n{backup}\n[[steps]]\nname  = \"Point{point}")
    });
    // A run before it has kept the file as well, when it was another one.
    let keep = bench.playbook_with("keep.toml", |_| {
        let step = "[[steps]]\nname = \"Keep\"\nbackup = { path = \"{{ home }}/runner.env\" }\n";
        format!("name = \"Keep the env file\"\nhosts = \"all\"\n\n{step}")
    });
    bench.run(&keep, &[]).assert(0, "succeeded", "changed");
    std::fs::write(&env, format!("# since then\n{}", std::fs::read_to_string(&env).unwrap())).unwrap();
    let said = bench.run(&playbook, &[]);
    said.assert(0, "succeeded", "changed");
    let held = bench.holders(1, inline);
    let kept = |part: &str| held.iter().filter(|at| at.contains(part)).count();
    assert!(kept("backups/") == 2 && kept("/pre.") > 0, "{held:?}");
    assert!(!held.iter().any(|at| at == "runner.env"), "{held:?}");

    // The audit knows it from then on, by its fingerprint alone.
    std::fs::write(dir.join("data/by-hand.bak"), inline).unwrap();
    let audit = bench.say(&["audit", "-i", "inventory.toml", "--search", dir.join("data").to_str().unwrap()]);
    let short = Fingerprint::of(inline.as_bytes()).short();
    assert!(audit.code == Some(10) && audit.stdout.contains(&short), "{}", audit.all());
    assert!(audit.stdout.contains("by-hand.bak"), "{}", audit.all());
    std::fs::remove_file(dir.join("data/by-hand.bak")).unwrap();

    // Also for who knows the run only from its hosts.
    let args = ["retire", "--from-hosts", "-i", "inventory.toml", "--yes"];
    let retired = Said::of(&mut bench.command_of("other"), &args);
    assert_eq!(retired.code, Some(0), "{}", retired.all());
    assert_eq!(bench.holders(1, inline), [""; 0], "{}", retired.all());
    for said in [&said, &audit, &retired] {
        assert!(!said.all().contains(inline), "{}", said.all());
    }
    for place in ["controller", "other"] {
        let texts =
            std::process::Command::new("grep").args(["-rl", inline]).arg(bench.dir().join(place)).output().unwrap();
        assert!(texts.stdout.is_empty(), "{}", String::from_utf8_lossy(&texts.stdout));
    }
}
