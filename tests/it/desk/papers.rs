//! The papers are true: every command in README.md and RUNBOOK.md is run as it stands there, in its order, at a desk with the
//! shipped files. One that is not run stands in the table with its reason.

use super::scene::{HOSTS, Scene, shipped};
use crate::support::runner_host::TOKEN_FILE;

/// What becomes of a command.
enum Fate {
    /// Typed at the desk; it ends with one of these codes.
    Typed(&'static [i32]),
    /// Typed as root on the host `rs2000-docker`; it ends well.
    OnTheHost,
    /// Not run, for this reason.
    Not(&'static str),
}

use Fate::{Not, OnTheHost, Typed};

/// A command, what becomes of it, what must be there before.
type Row = (&'static str, Fate, fn(&Scene));

fn as_it_is(_: &Scene) {}

/// A token that keyswap minted follows another one.
fn minted_again(scene: &Scene) {
    scene.must("keyswap run playbooks/mint-token.toml -i inventory/example.toml --yes", 0);
}

fn approved(scene: &Scene) {
    scene.demand_approval(true);
    scene.must("keyswap plan playbooks/rotate-token.toml -i inventory/example.toml --out rotation.plan", 0);
    scene.must("keyswap approve rotation.plan --signer alice@example.net --key ~/.ssh/id_ed25519", 0);
}

fn with_approval(scene: &Scene) {
    scene.demand_approval(true);
}

fn without_approval(scene: &Scene) {
    scene.demand_approval(false);
}

fn rotated(scene: &Scene) {
    without_approval(scene);
    scene.rotate();
}

fn another_token(scene: &Scene) {
    scene.another_token();
}

/// The runner of one host does not come up with another token; one host is out of reach.
fn one_is_away_and_one_fails(scene: &Scene) {
    scene.host("runner-02").pin_runner(0);
    scene.host("runner-03").stop_sshd();
}

/// What failed stayed on the new token; now it can be mended.
fn mended(scene: &Scene) {
    assert_eq!(scene.host("runner-02").read(TOKEN_FILE), scene.token(), "held on the new one");
    assert_eq!(scene.host("runner-01").read(TOKEN_FILE), scene.token(), "the rest of its batch went on");
    assert_ne!(scene.host("runner-03").read(TOKEN_FILE), scene.token());
    scene.host("runner-02").sh("rm /run/forgejo-runner/pinned");
    scene.host("runner-03").start_sshd();
}

fn cut_off(scene: &Scene) {
    scene.cut_off();
}

fn cut_off_elsewhere(scene: &Scene) {
    scene.cut_off();
    scene.lose_the_journal();
}

fn rotated_elsewhere(scene: &Scene) {
    scene.rotate();
    scene.lose_the_journal();
}

const README: &[Row] = &[
    ("cargo run --release -- demo", Not("it builds a release; `keyswap demo` has tests of its own"), as_it_is),
    ("tests/run", Not("it is what runs this test"), as_it_is),
    ("keyswap run playbooks/rotate-token.toml -i inventory/example.toml --check --diff", Typed(&[10]), as_it_is),
    ("keyswap run playbooks/rotate-token.toml -i inventory/example.toml", Typed(&[0]), as_it_is),
    ("keyswap rollback", Typed(&[0]), as_it_is),
    (
        "keyswap plan playbooks/rotate-token.toml -i inventory/example.toml --out rotation.plan",
        Typed(&[0]),
        with_approval,
    ),
    ("keyswap approve rotation.plan --signer alice@example.net --key ~/.ssh/id_ed25519", Typed(&[0]), as_it_is),
    ("keyswap run --plan rotation.plan", Typed(&[0]), as_it_is),
    ("keyswap report --html report.html", Typed(&[0]), as_it_is),
    (
        "keyswap identity apply inventory/identities/forgejo-docker-publish.toml -i inventory/example.toml",
        Typed(&[0]),
        without_approval,
    ),
    ("keyswap run playbooks/mint-token.toml -i inventory/example.toml", Typed(&[0]), as_it_is),
    ("keyswap audit playbooks/mint-token.toml -i inventory/example.toml --expires-within 14d", Typed(&[0]), as_it_is),
    ("keyswap retire", Typed(&[0]), as_it_is),
    ("keyswap init desk", Typed(&[0]), as_it_is),
    ("keyswap lint playbooks/rotate-token.toml -i inventory/example.toml", Typed(&[0]), as_it_is),
    ("keyswap hosts -i inventory/example.toml", Typed(&[0]), as_it_is),
    ("keyswap ping -i inventory/example.toml", Typed(&[0]), as_it_is),
    ("keyswap exec -i inventory/example.toml -- uptime", Typed(&[0]), as_it_is),
];

const BY_HAND: &str = "TOKEN=/srv/forgejo-runner/data/infisical-token-auth-token";

const RUNBOOK: &[Row] = &[
    ("keyswap run playbooks/rotate-token.toml -i inventory/example.toml --check --diff", Typed(&[10]), as_it_is),
    ("keyswap run playbooks/rotate-token.toml -i inventory/example.toml --limit rs2000-docker", Typed(&[0]), as_it_is),
    ("keyswap run playbooks/rotate-token.toml -i inventory/example.toml", Typed(&[0]), as_it_is),
    (
        "keyswap identity apply inventory/identities/forgejo-docker-publish.toml -i inventory/example.toml",
        Typed(&[0]),
        as_it_is,
    ),
    ("keyswap run playbooks/mint-token.toml -i inventory/example.toml --check", Typed(&[10]), as_it_is),
    ("keyswap run playbooks/mint-token.toml -i inventory/example.toml", Typed(&[0]), as_it_is),
    ("keyswap audit playbooks/mint-token.toml -i inventory/example.toml --expires-within 14d", Typed(&[0]), as_it_is),
    ("keyswap audit -i inventory/example.toml --search /srv", Typed(&[0]), as_it_is),
    ("keyswap retire", Typed(&[0]), as_it_is),
    ("keyswap retire --revoke", Typed(&[0]), minted_again),
    (
        "ssh-keygen -Y verify -f allowed_signers -I alice@example.net -n keyswap -s rotation.plan.alice@example.net.approval.sig < rotation.plan.alice@example.net.approval",
        Typed(&[0]),
        approved,
    ),
    ("keyswap runs", Typed(&[0]), rotated),
    ("keyswap rollback", Typed(&[0]), as_it_is),
    ("keyswap audit playbooks/emergency-token.toml -i inventory/example.toml", Typed(&[0]), another_token),
    (
        "keyswap run playbooks/emergency-token.toml -i inventory/example.toml --skip-unreachable",
        Typed(&[2]),
        one_is_away_and_one_fails,
    ),
    ("keyswap exec -i inventory/example.toml -l runner-02 -- systemctl start forgejo-runner", Typed(&[0]), mended),
    ("keyswap run playbooks/emergency-token.toml -i inventory/example.toml", Typed(&[0]), as_it_is),
    ("keyswap audit playbooks/emergency-token.toml -i inventory/example.toml --search /srv", Typed(&[0]), as_it_is),
    ("keyswap retire", Typed(&[0]), as_it_is),
    ("keyswap runs", Typed(&[0]), cut_off),
    ("keyswap resume", Typed(&[0]), as_it_is),
    ("keyswap resume --back", Typed(&[0]), cut_off),
    ("keyswap runs --from-hosts -i inventory/example.toml", Typed(&[0]), cut_off_elsewhere),
    ("keyswap resume --back --from-hosts -i inventory/example.toml", Typed(&[0]), as_it_is),
    ("keyswap rollback --from-hosts -i inventory/example.toml", Typed(&[0]), rotated_elsewhere),
    ("keyswap run playbooks/rollback-token.toml -i inventory/example.toml", Typed(&[0]), rotated_elsewhere),
    ("keyswap resume --back", Typed(&[0]), cut_off),
    ("keyswap resume --back", Typed(&[0]), cut_off),
    (BY_HAND, OnTheHost, rotated),
    ("keyswap report --html report.html", Typed(&[0]), as_it_is),
    ("keyswap report --html report.html --json report.json", Typed(&[0]), as_it_is),
    ("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", OnTheHost, as_it_is),
    (
        "keyswap exec -i inventory/example.toml -l docker-publish -- systemctl is-active forgejo-runner",
        Typed(&[0]),
        as_it_is,
    ),
    (
        "keyswap exec -i inventory/example.toml --timeout 30s -- sh -c 'df -h /var/lib/keyswap | tail -n 1'",
        Typed(&[0]),
        as_it_is,
    ),
];

/// The commands of a paper: each line of its `sh` blocks without its comment, or a whole block that is a script.
fn commands(paper: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<Vec<String>> = None;
    for line in paper.lines() {
        match (line.trim(), &mut block) {
            ("```sh", None) => block = Some(Vec::new()),
            ("```", Some(lines)) => {
                let text = lines.join("\n");
                if lines.iter().any(|line| line.trim_end().ends_with("do")) {
                    found.push(text);
                } else {
                    let joined = text.replace("\\\n", " ");
                    let bare = joined.lines().map(|line| line.split(" #").next().unwrap_or_default());
                    let words = bare.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
                    found.extend(words.filter(|line| !line.is_empty() && !line.starts_with('#')));
                }
                block = None;
            }
            (_, Some(lines)) => lines.push(line.to_owned()),
            _ => {}
        }
    }
    assert!(block.is_none(), "a block has no end");
    found
}

/// The script by which a host is mended by hand, as it is typed on this very host.
fn on_this_host(scene: &Scene, script: &str) -> String {
    let host = scene.host(HOSTS[0]);
    let old = &host.old;
    let holders = host.holders(old);
    let kept =
        holders.iter().find(|path| path.starts_with("/var/lib/keyswap")).unwrap_or_else(|| panic!("{holders:?}"));
    assert!(script.contains("GOOD=/var/lib/keyswap/…"), "{script}");
    script.replace("/var/lib/keyswap/…", kept)
}

fn play(paper: &str, table: &[Row]) {
    let all = commands(&shipped(paper));
    // A script is named by its first line that does something.
    let name = |text: &'_ String| text.lines().find(|line| !line.starts_with('#')).unwrap_or_default().to_owned();
    let there: Vec<String> = all.iter().map(name).collect();
    let named: Vec<&str> = table.iter().map(|(command, ..)| *command).collect();
    assert_eq!(there, named, "{paper}: each of its commands stands in the table, in its order");

    let scene = Scene::start();
    for (text, (command, fate, before)) in all.iter().zip(table) {
        before(&scene);
        match fate {
            Not(reason) => assert!(reason.len() > 10),
            Typed(codes) => {
                let typed = scene.types(text);
                assert!(
                    typed.code.is_some_and(|code| codes.contains(&code)),
                    "{command}: {:?}\n{}",
                    typed.code,
                    typed.said
                );
                assert!(!typed.said.contains(&scene.token()), "{command}: the token was shown");
            }
            OnTheHost => {
                let is_script = *command == BY_HAND;
                let line = if is_script { on_this_host(&scene, text) } else { text.clone() };
                let output = scene.host(HOSTS[0]).exec(&line);
                let said =
                    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{line}\n{said}");
                if is_script {
                    assert_eq!(scene.host(HOSTS[0]).read(TOKEN_FILE), scene.host(HOSTS[0]).old, "{said}");
                    assert!(said.contains("sha256:") && !said.contains("test-token"), "{said}");
                }
            }
        }
    }
}

#[test]
fn every_command_of_the_readme_is_run() {
    play("README.md", README);
}

#[test]
fn every_command_of_the_runbook_is_run() {
    play("RUNBOOK.md", RUNBOOK);
}

#[test]
fn commands_are_found() {
    let paper = "```sh\na b   # why\n# only a comment\n\nc \\\n  d\n```\n\n   ```sh\n   e --x '#1'\n   ```\n```toml\nx = 1\n```\n\
                 ```sh\n# 1\nX=1\nwhile :; do\n  true\ndone\n```\n";
    assert_eq!(commands(paper), ["a b", "c d", "e --x '#1'", "# 1\nX=1\nwhile :; do\n  true\ndone"]);
}
