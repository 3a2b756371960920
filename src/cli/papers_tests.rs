//! What the papers say in passing is true, too: every command in their text is one that the command line takes, and what stands
//! in `docs/from-ansible.md` is known, entry by entry.

use camino::Utf8Path;
use clap::{CommandFactory, Parser};

use super::args::Args;
use crate::load;

fn read(name: &str) -> String {
    let path = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The pieces of code in a text, without its blocks.
fn spans(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose.push_str(line.trim());
            prose.push(' ');
        }
    }
    prose.split('`').skip(1).step_by(2).map(|span| span.replace("\\|", "|")).collect()
}

/// The command line takes a command; placeholders stand for something that fits.
fn takes(command: &str) -> Result<(), String> {
    let words = shlex::split(command).ok_or("it cannot be split into words")?;
    let fitted = words.into_iter().map(|word| match word.as_str() {
        "RUN" => "20260101-000000-abcdef".to_owned(),
        "…" => "x".to_owned(),
        _ => word,
    });
    Args::try_parse_from(fitted).map(drop).map_err(|error| error.to_string())
}

#[test]
fn every_command_in_the_text_is_taken() {
    let mut seen = 0;
    for paper in ["README.md", "RUNBOOK.md", "CONTRIBUTING.md", "docs/from-ansible.md"] {
        for span in spans(&read(paper)).iter().filter(|span| span.starts_with("keyswap ")) {
            // Several at once, and names of commands that want more.
            if span.contains('|') && paper != "docs/from-ansible.md" {
                continue;
            }
            let said = takes(span);
            let names_only =
                span.split(' ').skip(1).all(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
            let known = || said.as_ref().is_err_and(|error| error.contains("required arguments were not provided"));
            assert!(said.is_ok() || (names_only && known()), "{paper}: {span}: {}", said.unwrap_err());
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen} commands were found");
    assert!(takes("keyswap rollbak").is_err() && takes("keyswap run x.toml -i y --chek").is_err());
}

/// Whether any command has this flag.
fn is_flag(flag: &str) -> bool {
    let has = |command: &clap::Command| {
        command.get_arguments().any(|argument| {
            argument.get_long().is_some_and(|long| format!("--{long}") == flag)
                || argument.get_short().is_some_and(|short| format!("-{short}") == flag)
        })
    };
    let command = Args::command();
    has(&command) || command.get_subcommands().any(has)
}

/// Whether `keyswap lint` takes a piece of TOML somewhere: in an inventory, in a playbook, in a step, as a step's action.
fn is_linted(snippet: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let file = Utf8Path::from_path(dir.path()).unwrap().join("x.toml");
    let context = load::Context { home: "/home/ops".into(), cwd: "/".into(), user: "ops".to_owned() };
    let step = "[[steps]]\nname = 'x'\n";
    let secrets = if snippet.contains("secrets.token") { "" } else { "secrets.token = { from = 'prompt' }\n" };
    let hosts = if snippet.starts_with("hosts =") { "" } else { "hosts = 'all'\n" };
    let group = if snippet.starts_with("groups.docker") { "" } else { "groups.docker.hosts = ['web-02']\n" };
    let mut all = String::new();
    let playbooks = [
        format!("{hosts}{secrets}{snippet}\n{step}wait = {{ for = '1s' }}\n"),
        format!("{hosts}{secrets}{step}{snippet}\nwait = {{ for = '1s' }}\n"),
        format!("{hosts}{secrets}{step}{snippet}\ncommand = {{ run = 'true', changes = false }}\n"),
        format!("{hosts}{secrets}{step}{snippet}\n"),
    ];
    for text in playbooks {
        std::fs::write(&file, text).unwrap();
        match load::playbook(&file, &context) {
            Ok(_) => return Ok(()),
            Err(error) => all += &error.to_string(),
        }
    }
    std::fs::write(&file, format!("{group}{snippet}\n")).unwrap();
    load::inventory(&[file], &context).map(drop).map_err(|error| format!("{all}\n{error}"))
}

/// Words in the table that are neither a command nor a flag nor TOML.
const WORDS: [&str; 7] = ["!not", "&and", "@file", "restart", "jsonl", "sshd", "sh"];

#[test]
fn what_an_ansible_user_knows_is_here_entry_by_entry() {
    let text = read("docs/from-ansible.md");
    let rows: Vec<Vec<String>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| in Ansible"))
        .map(|line| line.replace("\\|", "\u{1}").split('|').map(|cell| cell.replace('\u{1}', "|")).collect())
        .collect();
    assert!(rows.len() > 50, "{}", rows.len());
    for row in &rows {
        let [_, theirs, here, _] = row.as_slice() else { panic!("{row:?}: a row has two cells") };
        assert!(!theirs.trim().is_empty() && !here.trim().is_empty(), "{row:?}");
        for span in spans(here) {
            if span.starts_with("keyswap ") {
                assert_eq!(takes(&span), Ok(()), "{span}");
            } else if span.starts_with('-') {
                assert!(is_flag(&span), "{span} is no flag of any command");
            } else if span.contains(" = ") {
                assert_eq!(is_linted(&span), Ok(()), "{span}");
            } else {
                assert!(WORDS.contains(&span.as_str()) || is_flag(&format!("-{span}")), "{span}: what is that?");
            }
        }
    }
    assert!(!is_flag("--forkz") && is_linted("rollout.serial = 1").is_err() && is_linted("become = 'sudo'").is_err());
}
