//! `keyswap init`: what it writes can be started from, and what was there stays.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::runner_host::Said;

fn keyswap(dir: &Path, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyswap"));
    command.env_clear().env("HOME", dir).current_dir(dir);
    Said::of(&mut command, args)
}

#[test]
fn what_it_writes_passes_lint_and_selects_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let said = keyswap(dir.path(), &["init", "a b/desk"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    let desk = dir.path().join("a b/desk");
    // The commands that it says come next are run as they stand, by a shell.
    let next: Vec<&str> = said.stdout.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    assert!(next[0].starts_with("cd 'a b/desk' && keyswap lint"), "{next:?}");
    let path = format!("{}:/usr/bin:/bin", Path::new(env!("CARGO_BIN_EXE_keyswap")).parent().unwrap().display());
    let lint = Command::new("sh").args(["-c", next[0]]).env("PATH", &path).current_dir(dir.path()).output().unwrap();
    assert_eq!((lint.status.code(), lint.stdout.as_slice()), (Some(0), b"ok\n".as_slice()), "{lint:?}");
    let ping = Command::new("sh")
        .args(["-c", &next[1].replace("ping", "hosts")])
        .env("PATH", &path)
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&ping.stdout).contains("runner-01      ops@runner-01.example.net:22"), "{ping:?}");

    for playbook in ["rotate-token.toml", "mint-token.toml", "emergency-token.toml", "rollback-token.toml"] {
        let said = keyswap(&desk, &["lint", &format!("playbooks/{playbook}"), "-i", "inventory/example.toml"]);
        assert_eq!(said.code, Some(0), "{}", said.all());
    }
    // The approval that the inventory hints at is found where it says.
    let inventory = fs::read_to_string(desk.join("inventory/example.toml")).unwrap();
    let inventory = inventory
        .replace("# [approval]", "[approval]")
        .replace("# required", "required")
        .replace("# allowed_signers", "allowed_signers");
    fs::write(desk.join("inventory/approved.toml"), inventory).unwrap();
    assert_eq!(keyswap(&desk, &["lint", "-i", "inventory/approved.toml"]).code, Some(0));
    assert!(desk.join("inventory/allowed_signers").exists());
    for kind in ["playbook", "inventory", "identity"] {
        assert_eq!(
            fs::read_to_string(desk.join(format!("schemas/{kind}.json"))).unwrap(),
            keyswap(&desk, &["schema", kind]).stdout
        );
    }
}

#[test]
fn what_is_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("inventory")).unwrap();
    fs::write(dir.path().join("inventory/example.toml"), "mine").unwrap();
    fs::create_dir(dir.path().join("playbooks")).unwrap();
    symlink("/nonexistent/elsewhere", dir.path().join("playbooks/rotate-token.toml")).unwrap();
    let said = keyswap(dir.path(), &["init"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.stdout.contains("kept: inventory/example.toml (it was there already)\n"), "{}", said.all());
    assert!(said.stdout.contains("kept: playbooks/rotate-token.toml"), "no link is followed: {}", said.all());
    assert!(said.stdout.contains("written: playbooks/mint-token.toml\n"), "{}", said.all());
    assert_eq!(fs::read_to_string(dir.path().join("inventory/example.toml")).unwrap(), "mine");
    let again = keyswap(dir.path(), &["--output", "jsonl", "init"]);
    assert_eq!((again.code, again.stdout.matches("written").count()), (Some(0), 0), "{}", again.all());
    assert!(again.events.iter().all(|event| event["status"] == "kept"), "{}", again.all());

    // Where nothing can be written it says where.
    fs::write(dir.path().join("file"), "").unwrap();
    let said = keyswap(dir.path(), &["init", "file"]);
    assert_eq!(said.code, Some(1), "{}", said.all());
    assert!(said.stderr.contains("cannot write file/inventory/example.toml"), "{}", said.all());
}
