//! The runners, the files, and that nothing is left behind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::client::{connect, run};
use super::until;
use crate::model::Fingerprint;
use crate::sandbox::reap::processes_of;
use crate::sandbox::runner::POINTER;
use crate::sandbox::{BreakRestart, ForgeAccess, OldPointer, RunnerFiles, Sandbox, SandboxHost, SandboxOptions, story};

/// Does by hand what the playbook does up to the restart.
fn rotate(sandbox: &Sandbox, host: &SandboxHost) {
    let files = RunnerFiles::of(host.dir());
    fs::copy(sandbox.dir().join("new-token"), files.token()).unwrap();
    let env = fs::read_to_string(files.env_file()).unwrap();
    let pointed = env.replace(files.old_token().to_str().unwrap(), files.token().to_str().unwrap());
    fs::write(files.env_file(), pointed).unwrap();
}

async fn control(host: &SandboxHost, verb: &str) -> (Option<u32>, String) {
    let command = format!("sh {}/runnerctl {verb} 2>&1", host.dir().display());
    let done = run(&connect(host).await, &command, "").await;
    (done.status, done.text().to_owned())
}

#[tokio::test]
async fn runner_changes_its_token_at_a_restart_only_and_a_broken_one_refuses_it() {
    let options = SandboxOptions {
        break_restart: BTreeMap::from([(3, BreakRestart::AtOnce), (4, BreakRestart::After(1))]),
        ..SandboxOptions::default()
    };
    let sandbox = Sandbox::start(4, options).await.unwrap();
    assert_ne!(sandbox.old_token(), sandbox.new_token());
    let (old, new) = (Some(sandbox.old_token().clone()), Some(sandbox.new_token().clone()));
    for host in sandbox.hosts() {
        let files = RunnerFiles::of(host.dir());
        let facts = sandbox.facts(host);
        assert_eq!((&facts.token, facts.mode, &facts.pointed_at), (&old, Some(0o600), &old));
        assert_eq!(facts.env_line, Some(format!("{POINTER}={}", files.old_token().display())));
        let runner = facts.runner.unwrap();
        assert_eq!((runner.pointer.as_deref(), &runner.token), (files.old_token().to_str(), &old));

        rotate(&sandbox, host);
        let facts = sandbox.facts(host);
        assert_eq!((&facts.token, &facts.pointed_at), (&new, &new));
        assert_eq!(facts.runner, Some(runner), "only a restart changes the runner");
    }
    for host in &sandbox.hosts()[..2] {
        let before = sandbox.facts(host).runner.unwrap();
        let (status, said) = control(host, "restart").await;
        let after = sandbox.facts(host).runner.unwrap();
        assert_eq!((status, said), (Some(0), format!("started, pid {}", after.pid)));
        assert_eq!((after.pointer.as_deref(), &after.token), (RunnerFiles::of(host.dir()).token().to_str(), &new));
        assert!(after.started >= before.started && after.pid != before.pid);
        assert!(!Path::new("/proc").join(before.pid.to_string()).join("exe").exists(), "the old one has ended");
        assert_eq!(control(host, "status").await.0, Some(0));
    }

    let refuses = &sandbox.hosts()[2];
    let (status, said) = control(refuses, "restart").await;
    assert_eq!((status, said.contains("refuses this runner's token")), (Some(1), true), "{said}");
    assert_eq!(control(refuses, "status").await.0, Some(3));
    assert_eq!(sandbox.facts(refuses).runner, None);
    let log = fs::read_to_string(RunnerFiles::of(refuses.dir()).log()).unwrap();
    assert_eq!(log.matches("runner: up").count(), 1, "it was never up with the new token: {log}");
    // With the old pointer it comes back.
    let files = RunnerFiles::of(refuses.dir());
    let env = fs::read_to_string(files.env_file()).unwrap();
    fs::write(files.env_file(), env.replace("infisical-token-auth-token", "shared-token")).unwrap();
    assert_eq!(control(refuses, "restart").await.0, Some(0));
    assert_eq!(sandbox.facts(refuses).runner.unwrap().token, old);

    let dies_later = &sandbox.hosts()[3];
    assert_eq!(control(dies_later, "restart").await.0, Some(0));
    until("it has died", || sandbox.facts(dies_later).runner.is_none()).await;
    assert_eq!(control(dies_later, "status").await.0, Some(3));
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn runner_dies_when_its_pointer_leads_nowhere() {
    let options = SandboxOptions { old_pointer: OldPointer::SameFile, ..SandboxOptions::default() };
    let sandbox = Sandbox::start(1, options).await.unwrap();
    let host = &sandbox.hosts()[0];
    let files = RunnerFiles::of(host.dir());
    assert_eq!(sandbox.facts(host).env_line, Some(format!("{POINTER}={}", files.token().display())));
    assert!(!files.old_token().exists());
    let good = fs::read_to_string(files.env_file()).unwrap();
    for (bad, why) in [
        ("A=1\n".to_owned(), "is not set"),
        (format!("{POINTER}=/nonexistent/token\n"), "cannot read"),
        (format!("{POINTER}={}\n", host.dir().display()), "cannot read"),
        (format!("{POINTER}=/dev/null\n"), "cannot read"),
    ] {
        fs::write(files.env_file(), &bad).unwrap();
        let (status, said) = control(host, "restart").await;
        assert_eq!((status, said.contains(why)), (Some(1), true), "{bad:?}: {said}");
        assert_eq!(sandbox.facts(host).runner, None);
    }
    fs::write(files.token(), "").unwrap();
    fs::write(files.env_file(), good).unwrap();
    let (status, said) = control(host, "start").await;
    assert_eq!((status, said.contains("is empty")), (Some(1), true), "{said}");
    assert!(!fs::read_to_string(files.log()).unwrap().contains("test-token"), "no token in the log");
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn scripts_work_in_every_shell_we_mean() {
    for shell in ["/usr/bin/dash", "/usr/bin/bash", "/usr/bin/busybox"] {
        let options = SandboxOptions { shell: Some(PathBuf::from(shell)), ..SandboxOptions::default() };
        let sandbox = Sandbox::start(1, options).await.unwrap_or_else(|error| panic!("{shell}: {error:?}"));
        let host = &sandbox.hosts()[0];
        let real = fs::canonicalize(shell).unwrap();
        let is_it = |pid: i32| assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).unwrap(), real);

        // Letters that a shell would make something of, a line without a key, one that is not ours to set, no line end.
        let files = RunnerFiles::of(host.dir());
        let odd =
            "ODD=a  b \"$HOME\" `id` \\ 'x' #y=\n not a line\n9X=1\nHOME=/nonexistent\nhome=/nonexistent\nkey=k\n";
        let pointer = format!("{POINTER}={}", files.token().display());
        fs::write(files.env_file(), format!("{odd}{pointer}")).unwrap();
        rotate(&sandbox, host);
        let (status, said) = control(host, "restart").await;
        assert_eq!(status, Some(0), "{shell}: {said}");
        let runner = sandbox.facts(host).runner.unwrap();
        is_it(runner.pid);
        let environ = fs::read(format!("/proc/{}/environ", runner.pid)).unwrap();
        let lines: Vec<&[u8]> = environ.split(|byte| *byte == 0).collect();
        for wanted in [pointer.as_str(), "ODD=a  b \"$HOME\" `id` \\ 'x' #y=", "home=/nonexistent", "key=k"] {
            assert!(
                lines.contains(&wanted.as_bytes()),
                "{shell}: no {wanted} in {}",
                String::from_utf8_lossy(&environ)
            );
        }
        assert_eq!(runner.token, Some(sandbox.new_token().clone()), "{shell}");
        assert_eq!(runner.token, Some(Fingerprint::of(&fs::read(files.token()).unwrap())));

        // It survives the session that started it, and TERM ends it cleanly.
        host.cut();
        assert!(sandbox.facts(host).runner.is_some());
        assert_eq!(control(host, "stop").await, (Some(0), "stopped".to_owned()), "{shell}");
        assert!(!files.pid_file().exists() && !files.status().exists());
        assert!(fs::read_to_string(files.log()).unwrap().ends_with("runner: stopped (TERM)\n"));
        sandbox.stop().await.unwrap();
    }
}

#[tokio::test]
async fn stopping_leaves_nothing_behind() {
    let sandbox = Sandbox::start(2, SandboxOptions::default()).await.unwrap();
    let dir = sandbox.dir().to_owned();
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let handle = connect(&sandbox.hosts()[0]).await;
    // A daemon that minds neither the session nor TERM, in a directory that cannot be written.
    let command = "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' </dev/null >/dev/null 2>&1 &
        mkdir -p a/b; touch a/b/c; chmod 500 a/b; echo";
    run(&handle, command, "").await;
    let pids: Vec<i32> = processes_of(&dir).into_iter().map(|(pid, _)| pid).collect();
    assert!(pids.len() >= 3, "two runners and the daemon: {pids:?}");
    sandbox.stop().await.unwrap();
    assert!(processes_of(&dir).is_empty());
    assert!(!dir.exists());
}

#[tokio::test]
async fn dropping_leaves_nothing_behind() {
    let sandbox = Sandbox::start(1, SandboxOptions::default()).await.unwrap();
    let dir = sandbox.dir().to_owned();
    assert!(!processes_of(&dir).is_empty());
    drop(sandbox);
    assert!(processes_of(&dir).is_empty() && !dir.exists());

    let parent = tempfile::tempdir().unwrap();
    let shell = Some(PathBuf::from("/nonexistent/sh"));
    let options = SandboxOptions { parent: Some(parent.path().to_owned()), shell, ..SandboxOptions::default() };
    assert!(Sandbox::start(1, options).await.is_err());
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "a failed start cleans up");
}

#[tokio::test]
async fn runner_ends_when_the_sandbox_process_is_gone() {
    let sandbox = Sandbox::start(1, SandboxOptions::default()).await.unwrap();
    let host = &sandbox.hosts()[0];
    assert!(sandbox.facts(host).runner.is_some());
    // This very process id, but another start time: a reused id.
    fs::write(host.dir().join("owner"), format!("{} 1\n", std::process::id())).unwrap();
    until("the runner has ended", || sandbox.facts(host).runner.is_none()).await;
    // A process id that somebody else has by now is no runner, and is left alone.
    fs::write(RunnerFiles::of(host.dir()).pid_file(), format!("{}\n", std::process::id())).unwrap();
    assert_eq!(sandbox.facts(host).runner, None);
    assert_eq!(control(host, "status").await.0, Some(3));
    assert_eq!(control(host, "stop").await, (Some(0), "not running".to_owned()));
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn runner_ends_when_its_directory_is_gone() {
    let sandbox = Sandbox::start(1, SandboxOptions::default()).await.unwrap();
    let pid = sandbox.facts(&sandbox.hosts()[0]).runner.unwrap().pid;
    fs::remove_dir_all(sandbox.dir().join("hosts")).unwrap();
    until("the runner has ended", || !processes_of(sandbox.dir()).iter().any(|(id, _)| *id == pid)).await;
    assert!(sandbox.stop().await.is_ok());
}

#[tokio::test]
async fn files_are_whole_and_private() {
    let forge = ForgeAccess {
        url: "http://127.0.0.1:1".to_owned(),
        token: "test-token-forge".to_owned().into(),
        repo: "owner/repo".to_owned(),
        workflow: "docker-publish.yml".to_owned(),
        git_ref: "main".to_owned(),
        image: Some("owner/name:latest".to_owned()),
    };
    let sandbox = Sandbox::start(2, SandboxOptions { forge: Some(forge), ..SandboxOptions::default() }).await.unwrap();
    let read = |path: &Path| -> toml::Table { fs::read_to_string(path).unwrap().parse().unwrap() };
    let inventory = read(&sandbox.inventory());
    assert_eq!(inventory["defaults"]["become"].as_str(), Some("none"));
    assert_eq!(inventory["groups"]["docker-publish"]["hosts"][0].as_str(), Some("runner-[1:2]"));
    for host in sandbox.hosts() {
        let table = &inventory["hosts"][host.name().as_str()];
        assert_eq!(table["port"].as_integer(), Some(i64::from(host.port())));
        assert_eq!(table["vars"]["home"].as_str(), host.dir().to_str());
        assert!(table["state_dir"].as_str().unwrap().starts_with(host.dir().to_str().unwrap()));
    }
    assert_eq!(inventory["known"]["shared"]["fingerprint"].as_str(), Some(sandbox.old_token().short().as_str()));
    let playbook = read(&sandbox.playbook());
    let steps = playbook["steps"].as_array().unwrap();
    let keys = ["backup", "place", "point", "restart", "verify-publish"];
    assert_eq!(steps.len(), keys.len());
    for (step, key) in steps.iter().zip(keys) {
        assert!(step.get(key).is_some(), "{step:?} is no {key}");
    }
    let known_hosts = fs::read_to_string(inventory["defaults"]["known_hosts"].as_str().unwrap()).unwrap();
    assert!(known_hosts.lines().eq(sandbox.hosts().iter().map(SandboxHost::host_key_line)));

    let secret = playbook["secrets"]["token"]["path"].as_str().unwrap();
    assert_eq!(&Fingerprint::of(&fs::read(secret).unwrap()), sandbox.new_token());
    let forge_token = inventory["services"]["forge"]["token"]["path"].as_str().unwrap();
    for private in [secret, forge_token, inventory["defaults"]["identity_file"].as_str().unwrap()] {
        assert_eq!(fs::metadata(private).unwrap().permissions().mode() & 0o777, 0o600, "{private}");
    }
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn story_claims_only_what_is_so() {
    let options =
        SandboxOptions { break_restart: BTreeMap::from([(2, BreakRestart::AtOnce)]), ..SandboxOptions::default() };
    let sandbox = Sandbox::start(2, options).await.unwrap();
    let (host, other) = (&sandbox.hosts()[0], &sandbox.hosts()[1]);
    let (before, other_before) = (sandbox.facts(host), sandbox.facts(other));
    let held = |claims: Vec<story::Claim>| claims.into_iter().map(|claim| claim.holds).collect::<Vec<_>>();
    let rotated = || held(story::rotated(&sandbox, host, &before, &sandbox.facts(host)));
    let back = |host, before| held(story::rolled_back(&sandbox, host, before, &sandbox.facts(host)));

    assert_eq!(rotated(), [false, false, false, false]);
    assert_eq!(back(other, &other_before), [true, true, true]);
    rotate(&sandbox, host);
    assert_eq!(rotated(), [true, true, false, false]);
    control(host, "restart").await;
    assert_eq!(rotated(), [true, true, true, true]);
    assert_eq!(back(host, &before), [false, false, false]);
    rotate(&sandbox, other);
    control(other, "restart").await;
    assert_eq!(back(other, &other_before), [false, false, false]);

    let line = story::host_line(host, &sandbox.facts(host));
    assert!(
        line.starts_with("runner-1: token sha256:") && line.contains("pointer to infisical-token-auth-token"),
        "{line}"
    );
    assert!(story::host_line(other, &sandbox.facts(other)).ends_with("runner down"));
    assert!(story::opening(&sandbox).iter().any(|line| line.contains("runner-2 will refuse")));
    // The hint to look around works as it is printed.
    let (_, ssh) = story::things_to_try(&sandbox, "keyswap").pop().unwrap();
    let looked = tokio::process::Command::new("sh").args(["-c", &format!("{ssh} -o BatchMode=yes pwd")]).output().await;
    assert_eq!(String::from_utf8(looked.unwrap().stdout).unwrap().trim_end(), host.dir().to_str().unwrap());
    sandbox.stop().await.unwrap();
}

#[test]
fn scripts_are_clean() {
    for script in ["runner.sh", "runnerctl.sh"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sandbox").join(script);
        let checked = Command::new("shellcheck").args(["-s", "sh"]).arg(&path).output();
        let checked = checked.expect("these tests need shellcheck");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}
