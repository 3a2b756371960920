//! Completions, manual pages, `--version`, `help`, `hosts`: what one has at hand before anything is run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::runner_host::Said;

fn keyswap(args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyswap"));
    command.env_clear().env("HOME", "/home/ops").env("USER", "ops").current_dir(env!("CARGO_MANIFEST_DIR"));
    Said::of(&mut command, args)
}

/// The names of all commands, as the help lists them.
fn commands() -> BTreeSet<String> {
    let help = keyswap(&["--help"]).stdout;
    let list = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn every_command_of_the_contract_is_there() {
    let there = commands();
    let wanted = [
        "run",
        "rollback",
        "resume",
        "retire",
        "audit",
        "runs",
        "plan",
        "approve",
        "identity",
        "lint",
        "hosts",
        "ping",
        "exec",
        "unlock",
        "init",
        "sandbox",
        "demo",
        "schema",
        "completions",
        "man",
        "help",
    ];
    let missing: Vec<&str> = wanted.into_iter().filter(|name| !there.contains(*name)).collect();
    assert_eq!(missing, [""; 0], "{there:?}");
    for name in there.iter().filter(|name| *name != "help") {
        let said = keyswap(&["help", name]);
        assert!(said.code == Some(0) && said.stdout.contains(&format!("Usage: keyswap {name}")), "{}", said.all());
    }
}

#[test]
fn completions_are_scripts_that_their_shells_read() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let said = keyswap(&["completions", shell]);
        assert_eq!(said.code, Some(0), "{}", said.all());
        for name in commands() {
            assert!(said.stdout.contains(&name), "{shell}: {name}");
        }
        let file = dir.path().join(shell);
        fs::write(&file, &said.stdout).unwrap();
        // Where a shell is not installed nobody there needs the script.
        let Ok(read) = Command::new(shell).arg("-n").arg(&file).output() else { continue };
        assert!(read.status.success(), "{shell}: {}", String::from_utf8_lossy(&read.stderr));
    }
    // What bash makes of it: commands, flags, and the words of a flag.
    let complete = |line: &str| {
        let script = format!(
            "source \"$1\"; COMP_WORDS=({line}); [[ '{line}' != *' ' ]] || COMP_WORDS+=(''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _keyswap keyswap \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let output =
            Command::new("bash").args(["--norc", "-c", &script, "bash"]).arg(dir.path().join("bash")).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("keyswap roll"), ["rollback"]);
    assert_eq!(complete("keyswap run --skip"), ["--skip-unreachable"]);
    assert_eq!(complete("keyswap --output "), ["human", "plain", "jsonl"]);
    assert_eq!(complete("keyswap schema i"), ["inventory", "identity"]);
}

#[test]
fn manual_pages_are_there_for_every_command_and_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("man/man1");
    let said = keyswap(&["man", "--out", out.to_str().unwrap()]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), ""), "{}", said.all());
    let pages: BTreeSet<String> =
        fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for name in commands().iter().filter(|name| *name != "help") {
        assert!(pages.contains(&format!("keyswap-{name}.1")), "{name}: {pages:?}");
    }
    assert!(pages.contains("keyswap.1") && pages.contains("keyswap-identity-apply.1"), "{pages:?}");
    assert_eq!(keyswap(&["man"]).stdout.trim_end(), fs::read_to_string(out.join("keyswap.1")).unwrap().trim_end());
    for page in &pages {
        let Ok(set) =
            Command::new("groff").args(["-K", "utf8", "-man", "-Tutf8", "-ww", "-z"]).arg(out.join(page)).output()
        else {
            return;
        };
        assert!(set.status.success() && set.stderr.is_empty(), "{page}: {}", String::from_utf8_lossy(&set.stderr));
    }
}

#[test]
fn the_version_says_what_was_built() {
    let short = keyswap(&["-V"]);
    assert_eq!((short.code, short.stdout.as_str()), (Some(0), concat!("keyswap ", env!("CARGO_PKG_VERSION"), "\n")));
    let long = keyswap(&["--version"]).stdout;
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], concat!("keyswap ", env!("CARGO_PKG_VERSION")));
    for (line, name) in lines[1..].iter().zip(["commit: ", "target: ", "compiler: rustc "]) {
        assert!(line.strip_prefix(name).is_some_and(|text| !text.is_empty()), "{name}: {long}");
    }
    assert!(lines.len() == 4 && long.contains(std::env::consts::ARCH), "{long}");
}

#[test]
fn hosts_are_a_table_for_people_and_objects_for_programs() {
    let inventory = ["-i", "inventory/example.toml"];
    let said = keyswap(&[&["hosts", "-l", "docker-publish"][..], &inventory].concat());
    assert_eq!(said.code, Some(0), "{}", said.all());
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines[0], "host           login                         become  through");
    assert_eq!(lines[1], "rs2000-docker  ops@203.0.113.7:22            sudo    bastion");
    assert!(lines.contains(&"runner-01      ops@runner-01.example.net:22  sudo    -"), "{}", said.all());
    assert!(
        lines.contains(&"  data_dir = \"/srv/forgejo-runner/data\"")
            || lines.contains(&"  data_dir = /srv/forgejo-runner/data"),
        "{}",
        said.all()
    );

    let said = keyswap(&[&["--output", "jsonl", "hosts", "-e", "service=other"][..], &inventory].concat());
    assert_eq!(said.events.len(), 5, "{}", said.all());
    let first = &said.events[0];
    assert_eq!(
        (&first["event"], &first["host"], &first["port"]),
        (&json!("host"), &json!("rs2000-docker"), &json!(22))
    );
    assert_eq!((&first["jump"], &first["become"]), (&json!(["bastion"]), &json!("sudo")));
    assert_eq!(first["vars"]["service"], "other", "-e outranks: {first}");
    assert_eq!(first["errors"], json!({}));

    // What cannot be resolved is said in its place; and where the file is wrong nothing is.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("i.toml");
    fs::write(&file, "[hosts.a]\nvars = { x = '{{ nowhere }}', y = 1 }\n").unwrap();
    let said = keyswap(&["--output", "jsonl", "hosts", "-i", file.to_str().unwrap()]);
    assert_eq!(said.events[0]["vars"]["y"], 1, "{}", said.all());
    assert!(said.events[0]["errors"]["x"].as_str().is_some_and(|why| why.contains("nowhere")), "{}", said.all());
    let missing = Path::new("/nonexistent/i.toml").to_str().unwrap();
    assert_eq!(keyswap(&["hosts", "-i", missing]).code, Some(6));
}

#[test]
fn lint_finds_syntax_types_and_undefined_variables_without_a_host() {
    let dir = tempfile::tempdir().unwrap();
    let (inventory, playbook) = (dir.path().join("i.toml"), dir.path().join("p.toml"));
    fs::write(&inventory, "[hosts.a]\naddress = '192.0.2.1'\n").unwrap();
    let lint = |text: &str| {
        fs::write(&playbook, text).unwrap();
        keyswap(&["lint", playbook.to_str().unwrap(), "-i", inventory.to_str().unwrap()])
    };
    let step = "hosts = 'all'\n[[steps]]\nname = 'x'\n";
    for (text, says) in [
        ("hosts = ", "p.toml:1"),
        (&format!("{step}retries = 'many'\nwait = {{ for = '1s' }}\n"), "a whole number"),
        (&format!("{step}backup = {{ path = '{{{{ data_dir }}}}/x' }}\n"), "data_dir"),
        ("hosts = 'nobody'\n[[steps]]\nname = 'x'\nwait = { for = '1s' }\n", "nobody"),
    ] {
        let said = lint(text);
        assert_eq!(said.code, Some(6), "{text}: {}", said.all());
        assert!(said.stderr.contains(says) && said.stderr.contains('^'), "{says}: {}", said.all());
    }
    let said = lint(&format!("{step}backup = {{ path = '/x' }}\n"));
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "ok\n"), "{}", said.all());
}
