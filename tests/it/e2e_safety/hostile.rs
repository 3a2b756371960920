//! Directories that jobs can write: what somebody plants there, before a run or while it runs, gains nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use crate::support::runner_host::{DATA, Picture, Playbook, RunnerHost, Said, TOKEN_FILE, command};

/// Content that nobody but root may read.
const CANARY: &str = "canary-content-that-only-root-may-read";

/// Root's own directory: what an attacker would like to read, to own, or to put something into.
fn canaries(host: &RunnerHost) {
    host.host.sh(&format!(
        "mkdir -m 755 /srv/canary && cd /srv/canary && umask 077 && printf %s '{CANARY}' >secret &&
         printf %s '{CANARY}' >infisical-token-auth-token && : >empty && mkdir open && chmod 755 open"
    ));
}

/// Runs a command line on the host as the user whose jobs run there.
fn job(host: &RunnerHost, script: &str) {
    host.host.sh(&format!("setpriv --reuid=1000 --regid=1000 --clear-groups sh -c '{script}'"));
}

/// No file but those below these paths differs, and nobody learned what is in the canaries or got a token.
#[track_caller]
fn assert_nothing_gained(host: &RunnerHost, before: &Picture, inodes: &[(PathBuf, u64)], own: &[&str], said: &Said) {
    let outside = |path: &String| !own.iter().any(|dir| path.starts_with(dir));
    let changed: Vec<String> = before.differences(&host.picture()).into_iter().filter(outside).collect();
    assert_eq!(changed, [""; 0], "{}", said.all());
    for (path, inode) in inodes {
        assert_eq!(fs::symlink_metadata(path).unwrap().ino(), *inode, "{} was replaced", path.display());
    }
    let leaked: Vec<String> =
        host.holders(CANARY).into_iter().filter(|path| !path.starts_with("/srv/canary/")).collect();
    assert_eq!(leaked, [""; 0], "a canary was copied: {}", said.all());
    for token in [&host.old, &host.new] {
        let holders = host.holders(token).into_iter();
        let known = [DATA, "/srv/evil", "/srv/aside", "/srv/swapped", "/var/lib/keyswap"];
        let lost: Vec<String> = holders.filter(|path| !known.iter().any(|dir| path.starts_with(dir))).collect();
        assert_eq!(lost, [""; 0], "a token got out: {}", said.all());
    }
    assert!(!said.stdout.contains(CANARY) && !said.stderr.contains(CANARY), "{}", said.all());
}

fn inodes(host: &RunnerHost) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(host.path("/srv/canary")).unwrap().flatten().map(|entry| entry.path());
    entries.map(|path| (path.clone(), fs::symlink_metadata(path).unwrap().ino())).collect()
}

#[test]
fn what_was_planted_before_the_run_is_refused_and_nothing_is_touched() {
    let host = RunnerHost::start();
    canaries(&host);
    host.host.sh("chown 1000:1000 /srv/forgejo-runner && mkdir /srv/evil && chown 1000:1000 /srv/evil");
    let elsewhere = Playbook::rotate()
        .without("backup")
        .with("place", format!("place = {{ secret = \"token\", path = \"{DATA}/sub/token\", mode = \"0600\", owner = \"1000\", group = \"1000\" }}"));
    let rotate = Playbook::rotate;
    let plants = [
        ("a link at the token's path", format!("ln -sf /srv/canary/secret {TOKEN_FILE}"), rotate()),
        ("a dangling link at the token's path", format!("ln -sf /srv/canary/open/new {TOKEN_FILE}"), rotate()),
        ("a link to a directory at the token's path", format!("ln -sfn /srv/canary {TOKEN_FILE}"), rotate()),
        ("a link to a link of root's", format!("ln -sf /proc/self/exe {TOKEN_FILE}"), rotate()),
        ("a pipe at the token's path", format!("rm {TOKEN_FILE} && mkfifo {TOKEN_FILE}"), rotate()),
        ("a directory at the token's path", format!("rm {TOKEN_FILE} && mkdir {TOKEN_FILE}"), rotate()),
        ("a second name of the token", format!("ln {TOKEN_FILE} /srv/evil/second"), rotate()),
        ("a link at a parent", format!("ln -s /srv/canary/open {DATA}/sub"), elsewhere.clone()),
        ("a link at a parent to a way around", format!("ln -s ../../canary/open {DATA}/sub"), elsewhere),
        ("a link at the directory itself", format!("mv {DATA} /srv/evil/data && ln -s /srv/canary {DATA}"), rotate()),
        ("a huge file", format!("truncate -s 40M {TOKEN_FILE}"), rotate()),
    ];
    for (what, plant, playbook) in plants {
        host.host.sh(&format!("cp -a {DATA} /srv/aside"));
        job(&host, &plant);
        let (before, inodes) = (host.picture(), inodes(&host));
        let began = Instant::now();
        let said = host.rotate(&playbook, &[]);
        assert_eq!(said.code, Some(2), "{what}: {}", said.all());
        assert!(began.elapsed() < Duration::from_secs(50), "{what}: {:?}", began.elapsed());
        assert_eq!(said.host()["status"], "failed", "{what}: {}", said.all());
        assert_nothing_gained(&host, &before, &inodes, &[], &said);
        assert!(!host.path("/var/lib/keyswap/runs").exists(), "{what}: the host was taken");
        host.host.sh(&format!("rm -rf {DATA} /srv/evil/* && mv /srv/aside {DATA}"));
    }
    host.rotate(&rotate(), &[]).assert(0, "succeeded", "changed");
}

#[test]
fn what_is_planted_at_a_stage_s_place_is_not_followed_by_the_undo() {
    let plants = [
        ("a link", "ln -sf /srv/canary/secret $f", 2),
        ("a link to an empty file", "ln -sf /srv/canary/empty $f", 2),
        ("a dangling link", "ln -sf /srv/canary/open/new $f", 2),
        ("a link to a directory", "ln -sfn /srv/canary/open $f", 2),
        ("a pipe", "rm -f $f; mkfifo $f", 2),
        ("another file", "rm -f $f; echo mine >$f", 2),
        ("a hard link to the live file", "ln -f infisical-token-auth-token $f", 2),
        ("a directory", "rm -f $f; mkdir $f; echo mine >$f/x", 2),
    ];
    let host = RunnerHost::start();
    canaries(&host);
    for (what, plant, code) in plants {
        let (before, inodes) = (host.picture(), inodes(&host));
        let planted = format!(
            "cd {DATA} && setpriv --reuid=1000 --regid=1000 --clear-groups sh -c \"for f in .keyswap-*-old.*; do [ -f \\$f ] || exit 1; {}; done\"",
            plant.replace('$', "\\$")
        );
        let playbook = Playbook::rotate().before("point", "plant", command(&planted, "true")).before(
            "restart",
            "fail",
            command("exit 7", "true"),
        );
        let said = host.rotate(&playbook, &[]);
        assert_eq!(said.code, Some(code), "{what}: {}", said.all());
        assert!(said.steps().contains(&("plant".to_owned(), "changed".to_owned())), "{what}: {}", said.all());
        assert_eq!(host.read(TOKEN_FILE), host.old, "{what}: the content is back");
        // What is no file of ours stays.
        let theirs = what == "a directory";
        assert_nothing_gained(&host, &before, &inodes, if theirs { &["/srv/forgejo-runner"] } else { &[] }, &said);
        if theirs {
            host.host.sh(&format!("cat {DATA}/.keyswap-*-old.*/x && rm -rf {DATA}/.keyswap-*-old.*"));
            before.assert_same(&host.picture(), &said);
        }
    }
}

#[test]
fn a_token_that_is_replaced_in_mid_run_is_dirty_and_not_followed() {
    let plants = [
        ("a link", format!("ln -sf /srv/canary/secret {TOKEN_FILE}")),
        ("a pipe", format!("rm {TOKEN_FILE}; mkfifo {TOKEN_FILE}")),
        ("another's content", format!("echo mine >{TOKEN_FILE}")),
    ];
    let host = RunnerHost::start();
    canaries(&host);
    for (what, plant) in plants {
        let (before, inodes) = (host.picture(), inodes(&host));
        let planted = format!("setpriv --reuid=1000 --regid=1000 --clear-groups sh -c \"{plant}\"");
        let playbook = Playbook::rotate().before("point", "plant", command(&planted, "true"));
        let said = host.rotate(&playbook, &[]);
        said.assert(3, "dirty", "dirty");
        assert_nothing_gained(&host, &before, &inodes, &["/srv/forgejo-runner"], &said);
        for line in said.host()["mend"].as_array().unwrap() {
            let output: Output = super::typed(&host, line.as_str().unwrap());
            assert!(output.status.success(), "{what}: {line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert_nothing_gained(&host, &before, &inodes, &[], &said);
        host.say(&["resume", "--back"]).assert(0, "rolled-back", "rolled-back");
        before.assert_same(&host.picture(), &said);
    }
}

/// Things to put in the place of others by a rename, all of them the job's own.
struct Arsenal {
    dir: PathBuf,
    next: AtomicUsize,
}

impl Arsenal {
    const SIZE: usize = 3000;

    fn new(host: &RunnerHost) -> Self {
        let dir = host.path("/srv/evil");
        fs::create_dir_all(&dir).unwrap();
        for n in 0..Self::SIZE {
            let at = dir.join(n.to_string());
            match n % 6 {
                0 => symlink("/srv/canary/empty", &at).unwrap(),
                1 => symlink(format!("/srv/canary/open/made-{n}"), &at).unwrap(),
                2 => symlink("/srv/canary/secret", &at).unwrap(),
                3 => symlink("/srv/canary/open", &at).unwrap(),
                4 => mknodat(CWD, &at, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap(),
                _ => fs::write(&at, "").unwrap(),
            }
            lchown(&at, Some(1000), Some(1000)).unwrap();
        }
        lchown(&dir, Some(1000), Some(1000)).unwrap();
        Self { dir, next: AtomicUsize::new(0) }
    }

    fn take(&self) -> PathBuf {
        self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn is_left(&self) -> bool {
        self.next.load(Ordering::Relaxed) + 500 < Self::SIZE
    }
}

/// Attacks in a tight loop while the program runs; says how often the attack was made.
fn under_attack<T>(attack: impl Fn() -> bool + Sync, work: impl FnOnce() -> T) -> (T, usize) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut made = 0;
            while !over.load(Ordering::Relaxed) {
                made += usize::from(attack());
            }
            made
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        (done, attacker.join().unwrap())
    })
}

fn quick() -> Playbook {
    Playbook::rotate().without("point").without("restart").without("verify")
}

/// The token's content where the token is a file: to open a pipe that was put in its place would wait for ever.
fn token_there(host: &RunnerHost) -> String {
    let at = host.path(TOKEN_FILE);
    let is_file = fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_file());
    if is_file { fs::read_to_string(&at).unwrap() } else { String::new() }
}

/// The host as before the next round, whatever the last one left.
fn reset(host: &RunnerHost, round: usize) {
    host.host.sh(&format!("rm -rf /var/lib/keyswap {DATA}/.keyswap-2* {TOKEN_FILE}"));
    let at = host.path(TOKEN_FILE);
    fs::write(&at, &host.old).unwrap();
    lchown(&at, Some(1000), Some(1000)).unwrap();
    host.host.sh(&format!("chmod 600 {TOKEN_FILE}"));
    let _ = fs::rename(host.controller().join("state"), host.controller().join(format!("state-{round}")));
}

/// Runs until the time is over, each time with another host of the attacker's wishes.
fn rounds(
    host: &RunnerHost,
    playbooks: &[Playbook],
    least: usize,
    attack: impl Fn() -> bool + Sync,
    check: impl Fn(&Said),
) {
    let start = Instant::now();
    // On a busy machine the attacker comes too late more often than not: it is given time to succeed.
    let (usual, longest) = (Duration::from_secs(5), Duration::from_secs(90));
    let (mut round, mut made) = (0, 0);
    let (before, inodes) = (host.picture(), inodes(host));
    while round < 4 || start.elapsed() < usual || (made < least && start.elapsed() < longest) {
        reset(host, round);
        let began = Instant::now();
        let (said, attacks) = under_attack(&attack, || host.rotate(&playbooks[round % playbooks.len()], &[]));
        assert!(began.elapsed() < Duration::from_secs(50), "it was held up: {}", said.all());
        assert!(matches!(said.code, Some(0 | 2 | 3 | 4)), "{}", said.all());
        check(&said);
        assert_nothing_gained(host, &before, &inodes, &[DATA, "/srv/evil", "/srv/swapped"], &said);
        made += attacks;
        round += 1;
    }
    assert!(made >= least, "{made} attacks in {round} rounds");
}

#[test]
fn who_replaces_new_files_as_they_are_made_gains_nothing() {
    let host = RunnerHost::start();
    canaries(&host);
    let arsenal = Arsenal::new(&host);
    let data = host.path(DATA);
    let attack = || {
        let mut hit = false;
        for entry in fs::read_dir(&data).into_iter().flatten().flatten() {
            let fresh = entry.file_name().to_string_lossy().starts_with(".keyswap-")
                && arsenal.is_left()
                && entry.metadata().is_ok_and(|meta| meta.is_file() && meta.uid() == 0);
            if fresh {
                hit |= fs::rename(arsenal.take(), entry.path()).is_ok();
            }
        }
        hit
    };
    let fails = quick().before("place", "before", "command = { run = \"true\", changes = false }");
    let fails = Playbook { steps: [fails.steps, vec![("fail".into(), command("exit 7", "true"))]].concat(), ..fails };
    rounds(&host, &[quick(), fails], 3, attack, |said| {
        // What took the place of a file without its name yet may have got that name: then it is said to be dirty (3).
        let token = token_there(&host);
        match said.code {
            Some(0) => assert_eq!(token, host.new, "{}", said.all()),
            Some(2 | 4) => assert_eq!(token, host.old, "{}", said.all()),
            _ => {}
        }
    });
}

#[test]
fn who_swaps_the_token_with_a_link_gains_nothing() {
    let host = RunnerHost::start();
    canaries(&host);
    let arsenal = Arsenal::new(&host);
    let (token, other) = (host.path(TOKEN_FILE), arsenal.dir.join("2"));
    let exchange = |a: &Path, b: &Path| renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok();
    let attack = || {
        let hit = exchange(&token, &other);
        std::thread::sleep(Duration::from_micros(200));
        exchange(&token, &other) && hit
    };
    rounds(&host, &[quick()], 100, attack, |_| {});
}

#[test]
fn who_swaps_the_directory_with_a_link_gains_nothing() {
    let host = RunnerHost::start();
    canaries(&host);
    host.host.sh("chown 1000:1000 /srv/forgejo-runner");
    let (data, link) = (host.path(DATA), host.path("/srv/swapped"));
    symlink("/srv/canary", &link).unwrap();
    lchown(&link, Some(1000), Some(1000)).unwrap();
    let exchange = || renameat_with(CWD, &data, CWD, &link, RenameFlags::EXCHANGE).is_ok();
    let attack = || {
        let hit = exchange();
        std::thread::sleep(Duration::from_micros(200));
        exchange() && hit
    };
    rounds(&host, &[quick()], 100, attack, |said| {
        let token = token_there(&host);
        match said.code {
            Some(0) => assert_eq!(token, host.new, "{}", said.all()),
            Some(2 | 4) => assert_eq!(token, host.old, "{}", said.all()),
            _ => {}
        }
    });
}
