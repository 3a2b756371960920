//! `hosts accept`, `hosts` and `ping` as an operator runs them, and every printing command before a hostile host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::real_host::{RealHost, free_port, keygen};
use crate::support::runner_host::{NAME, Playbook, RunnerHost, command as step};
use crate::support::said::Said;

/// An operator's directory with an inventory whose name wants to be quoted.
struct Desk {
    dir: tempfile::TempDir,
}

const INVENTORY: &str = "my host's.toml";

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".ssh")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, inventory: &str) {
        fs::write(self.path(INVENTORY), inventory).unwrap();
    }

    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyswap"));
        command.env_clear().env("HOME", self.dir.path()).env("USER", "operator").env("PATH", "/usr/bin:/bin");
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn say(&self, args: &[&str]) -> Said {
        Said::of(&mut self.program(), args)
    }

    /// `hosts accept` with more arguments.
    fn accept(&self, args: &[&str]) -> Said {
        self.say(&[&["hosts", "accept", "-i", INVENTORY], args].concat())
    }

    fn ping(&self) -> Said {
        self.say(&["ping", "-i", INVENTORY])
    }

    fn known(&self) -> String {
        fs::read_to_string(self.path(".ssh/known_hosts")).unwrap_or_default()
    }
}

/// A host's table without a file of known hosts, so that the operator's own counts.
fn table(host: &RealHost, name: &str, more: &str) -> String {
    let table = host.inventory_host(name);
    let kept: Vec<&str> = table.lines().filter(|line| !line.starts_with("known_hosts")).collect();
    format!("{}\n{more}\n", kept.join("\n"))
}

fn listed(host: &RealHost) -> String {
    format!("[127.0.0.1]:{} {}\n", host.port(), host.host_key())
}

#[test]
fn hosts_behind_a_new_bastion_are_scanned_once_it_is_accepted() {
    let (bastion, host) = (RealHost::start(), RealHost::start());
    let desk = Desk::new();
    // Nobody could log in to the host: to be scanned it need not let anybody in.
    let behind = table(&host, "a", "jump = \"bastion\"").replace("identity\"", "none\"");
    desk.write(&format!("{}{behind}{}", table(&bastion, "bastion", ""), behind.replace("hosts.a", "hosts.b")));

    let unasked = desk.accept(&[]);
    assert_eq!(unasked.code, Some(5), "{}", unasked.all());
    assert_eq!(desk.known(), "", "nothing is written without a yes");

    let said = desk.accept(&["--yes", "-f", "3"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(desk.known(), format!("{}{}", listed(&bastion), listed(&host)), "each key once: {}", said.all());
    assert_eq!(said.stdout.matches(" presents ").count(), 2, "each key is shown once: {}", said.all());
    assert!(said.stdout.contains("bastion: its key is known"), "{}", said.all());
    assert!(!host.sshd_log().contains("Accepted"), "a scan logs in to no host: {}", host.sshd_log());

    let again = desk.accept(&["--yes"]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    let known: Vec<&str> = again.stdout.lines().collect();
    assert_eq!(known, ["bastion: its key is known", "a: its key is known", "b: its key is known"]);
    assert_eq!(desk.known().lines().count(), 2);
}

#[test]
fn only_a_key_that_was_seen_is_said_to_be_known() {
    let (bastion, host) = (RealHost::start(), RealHost::start());
    let desk = Desk::new();
    let behind = table(&host, "behind", "jump = \"bastion\"");
    // The hop's key is known, but nobody gets through it.
    fs::write(desk.path(".ssh/known_hosts"), listed(&bastion)).unwrap();
    desk.write(&format!("{}{behind}", table(&bastion, "bastion", "").replace("identity\"", "none\"")));
    let said = desk.accept(&["--yes", "--limit", "behind"]);
    assert_eq!(said.code, Some(4), "{}", said.all());
    assert!(!said.stdout.contains("is known") && said.stdout.contains("the hop `bastion`"), "{}", said.all());

    // A changed key outweighs a host that is away, and is not added.
    let other = desk.path("other");
    keygen(&other, "ed25519", "");
    let wrong = fs::read_to_string(other.with_extension("pub")).unwrap();
    fs::write(desk.path(".ssh/known_hosts"), format!("[127.0.0.1]:{} {wrong}", host.port())).unwrap();
    let away = format!("[hosts.away]\naddress = \"127.0.0.1\"\nport = {}\n", free_port());
    desk.write(&format!("{}{away}", table(&host, "changed", "")));
    let (before, said) = (desk.known(), desk.accept(&["--yes"]));
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.stdout.contains("CHANGED") && said.stdout.contains("away: "), "{}", said.all());
    assert_eq!(desk.known(), before);
}

/// The command that a hint names, run by a shell, as somebody would who pastes it.
fn paste(desk: &Desk, hint: &str) -> Said {
    let command =
        hint.split('`').find(|part| part.starts_with("keyswap hosts accept")).unwrap_or_else(|| panic!("{hint}"));
    let program = Path::new(env!("CARGO_BIN_EXE_keyswap")).parent().unwrap();
    let mut shell = Command::new("sh");
    shell.env_clear().env("HOME", desk.dir.path()).env("PATH", format!("{}:/usr/bin:/bin", program.display()));
    Said::of(shell.current_dir(desk.dir.path()).stdin(Stdio::null()), &["-c", &format!("{command} --yes")])
}

#[test]
fn the_command_that_a_refusal_names_works() {
    let (bastion, host) = (RealHost::start(), RealHost::start());
    let desk = Desk::new();
    let jump = format!("jump = \"ops@127.0.0.1:{}\"", bastion.port());
    // A hop that is no host of the inventory has the keys of the host behind it.
    host.sh(&format!("echo '{}' >>/home/ops/.ssh/authorized_keys", public(&bastion)));
    let behind = table(&host, "h1", &jump);
    desk.write(&behind.replace(host.identity().to_str().unwrap(), bastion.identity().to_str().unwrap()));
    let said = desk.ping();
    assert_eq!(said.code, Some(4), "{}", said.all());
    let pasted = paste(&desk, &said.stdout);
    assert_eq!(pasted.code, Some(0), "{}", pasted.all());
    let said = desk.ping();
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.stdout.starts_with("h1: ok: ops as uid 0, "), "{}", said.all());

    // Another type than the recorded one: the line that is named is the one that helps.
    let other = desk.path("other");
    keygen(&other, "ecdsa", "");
    let recorded = fs::read_to_string(other.with_extension("pub")).unwrap();
    fs::write(desk.path(".ssh/known_hosts"), format!("[127.0.0.1]:{} {recorded}", host.port())).unwrap();
    desk.write(&table(&host, "h1", ""));
    let said = desk.ping();
    assert_eq!(said.code, Some(4), "{}", said.all());
    let (_, line) = said.stdout.trim().split_once("known_hosts: ").unwrap_or_else(|| panic!("{}", said.all()));
    fs::write(desk.path(".ssh/known_hosts"), format!("{}{line}\n", desk.known())).unwrap();
    assert_eq!(desk.ping().code, Some(0));
}

fn public(host: &RealHost) -> String {
    fs::read_to_string(host.identity().with_extension("pub")).unwrap().trim().to_owned()
}

#[test]
fn a_wrong_password_reaches_one_host_and_no_more() {
    const WRONG: &str = "test-token-wrong-password";
    let host = RealHost::builder().sshd_option("PasswordAuthentication yes").start();
    host.sh("echo 'ops:test-token-right' | chpasswd -c SHA512; rm -f /etc/sudoers.d/*
         echo 'ops ALL=(root) /bin/sh' >/etc/sudoers.d/ops; chmod 440 /etc/sudoers.d/ops");
    let desk = Desk::new();
    fs::write(desk.path(".ssh/known_hosts"), listed(&host)).unwrap();
    let source = "{ from = \"env\", name = \"PASSWORD\" }";
    let fleet = |more: &str, drop: &str| {
        let tables = (1..=8).map(|n| table(&host, &format!("h{n}"), more));
        tables.collect::<String>().lines().filter(|line| !line.starts_with(drop)).collect::<Vec<_>>().join("\n")
    };
    let ping = |password: &str| Said::of(desk.program().env("PASSWORD", password), &["ping", "-i", INVENTORY]);

    desk.write(&fleet(&format!("become_password = {source}"), "none"));
    let said = ping(WRONG);
    assert_eq!(said.code, Some(4), "{}", said.all());
    assert_eq!(said.stdout.matches("the password was refused").count(), 1, "{}", said.all());
    assert_eq!(said.stdout.matches("refused it before").count(), 7, "{}", said.all());
    assert!(!said.all().contains(WRONG));
    let said = ping("test-token-right");
    assert_eq!((said.code, said.stdout.matches(": ok: ").count()), (Some(0), 8), "{}", said.all());

    desk.write(&fleet(&format!("password = {source}\nbecome_password = {source}"), "identity_file"));
    let said = ping(WRONG);
    assert_eq!(said.code, Some(4), "{}", said.all());
    assert_eq!(said.stdout.matches("refused it before").count(), 7, "{}", said.all());
    assert_eq!(host.sshd_log().matches("Failed password").count(), 1, "{}", host.sshd_log());
    let said = ping("test-token-right");
    assert_eq!((said.code, said.stdout.matches(": ok: ").count()), (Some(0), 8), "{}", said.all());
}

/// What would steer a terminal, or make a text read otherwise than it is.
fn assert_harmless(what: &str, said: &Said) {
    for text in [&said.stdout, &said.stderr] {
        let bad = |c: char| {
            (c.is_control() && c != '\n') || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{feff}')
        };
        assert!(!text.chars().any(bad), "{what}: {text:?}");
    }
}

#[test]
fn no_command_shows_a_host_s_words_as_they_are() {
    const EVIL: &str = "evil\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}text\u{200b}";
    let host = RunnerHost::start();
    // It is a link into /usr, which is the machine's own.
    let _ = fs::remove_file(host.path("/etc/os-release"));
    fs::write(host.path("/etc/os-release"), format!("PRETTY_NAME=\"Debian {EVIL}\"\n")).unwrap();
    let fails = r"printf 'evil\033]0;owned\007\033[2J\302\23331m\342\200\256text\342\200\213\n' >&2; exit 7";
    let playbook = Playbook::rotate().before("restart", "fail", step(fails, "true"));
    let run = host.rotate(&playbook, &[]);
    assert_eq!(run.code, Some(2), "{}", run.all());
    assert!(run.all().contains("evil"), "the words are shown: {}", run.all());
    let id = run.last()["run"].as_str().unwrap().to_owned();
    // Held by a run of somebody who has chosen a name for it.
    host.sh("cd /var/lib/keyswap/cas; old=$(ls); IFS=.; set -- $old; mv $old $1.$2.armed.$4.$5.$6.$7
         cd ../runs/$4 || exit 1; : >ready");
    for file in ["owner", "head"] {
        fs::write(host.path(&format!("/var/lib/keyswap/runs/{id}/{file}")), format!("{EVIL}\n")).unwrap();
    }
    let inventory = ["-i", "inventory.toml"];
    let commands: [(&str, Vec<&str>); 9] = [
        ("runs", vec!["runs"]),
        ("runs RUN", vec!["runs", &id]),
        ("runs --from-hosts", [&["runs", "--from-hosts"][..], &inventory].concat()),
        ("hosts", [&["hosts"][..], &inventory].concat()),
        ("hosts accept", [&["hosts", "accept", "--yes"][..], &inventory].concat()),
        ("ping", [&["ping"][..], &inventory].concat()),
        ("audit", [&["audit"][..], &inventory].concat()),
        ("run --check", [&["run", "playbook.toml", "--check"][..], &inventory].concat()),
        ("unlock", [&["unlock", NAME, "--reason", "a test", "--run", &id][..], &inventory].concat()),
    ];
    let mut told = 0;
    for (what, args) in commands {
        for output in ["human", "jsonl"] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_keyswap"));
            let home = host.controller();
            program
                .env_clear()
                .env("HOME", &home)
                .env("USER", "operator")
                .env("PATH", "/usr/bin:/bin")
                .current_dir(&home);
            program.args(["--output", output, "--state-dir", "state"]).stdin(Stdio::null());
            let said = Said::of(&mut program, &args);
            assert_harmless(&format!("{what}, {output}"), &said);
            told += usize::from(said.all().contains("evil"));
            for event in said.events.iter().filter(|event| output == "jsonl" && event.is_object()) {
                assert_harmless(what, &Said::new(None, event.to_string().into_bytes(), Vec::new()));
            }
        }
    }
    assert!(told >= 5, "most of them show the host's words: {told}");
}
