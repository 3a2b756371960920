//! What is rotated: the files of a machine, the steps, and what they come to.

use std::fmt::Write as _;
use std::time::Duration;

use keyswap::model::{
    Action, Backup, Become, Command, CommandLine, Connection, Drain, EnvFormat, Host, Http, Once, Place, Point,
    Reaches, RemotePath, Restart, RestartHow, Restore, Step, StepRef, Wait, WaitFor,
};

use super::fs::{Fs, Inode};

pub(super) const K: &str = "/k";
pub(super) const HOOK: &str = "/etc/keyswap-guard";
pub(super) const TOKEN: &str = "/srv/r/token";
pub(super) const FRESH: &str = "/srv/r/token-fresh";
pub(super) const ENV: &str = "/srv/r/env";
pub(super) const KEY: &str = "TOKEN_FILE";
pub(super) const OLD: &[u8] = b"test-token-old";
pub(super) const NEW: &[u8] = b"test-token-new";
pub(super) const GUARD: Duration = Duration::from_secs(120);
/// The runner's user.
pub(super) const UID: u32 = 1000;

/// The story that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Story {
    /// The token is replaced where it lies, with everything else that a playbook can do.
    Replace,
    /// The token comes under a new path and the pointer follows.
    Move,
    /// A named backup is put back.
    Restore,
    /// As `Move`, and after the verification each host is waited for in its turn, for longer than the guard waits.
    Slow,
}

/// A case's fixed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Setting {
    pub(super) story: Story,
    pub(super) hosts: usize,
    pub(super) guard: bool,
    pub(super) up: bool,
    /// The verification at the end of a batch succeeds.
    pub(super) verifies: bool,
    /// Where the hosts stand one a batch, and all goes back when one fails.
    pub(super) staged: bool,
}

pub(super) fn path(text: &str) -> RemotePath {
    text.parse().unwrap()
}

fn file(content: &[u8], mode: u32, uid: u32) -> Inode {
    Inode { content: content.to_vec(), mode, uid, gid: uid }
}

pub(super) fn old_env() -> Vec<u8> {
    format!("A=1\nSTALE=x\n{KEY}={TOKEN}\n").into_bytes()
}

/// A machine's files before the run.
pub(super) fn files(setting: &Setting) -> Fs {
    let mut fs = Fs::default();
    // Another mode than the new one has, so that a mixture is seen.
    let mode = if setting.story == Story::Restore { 0o600 } else { 0o640 };
    fs.given(TOKEN, file(OLD, mode, UID));
    fs.given(ENV, file(&old_env(), 0o644, 0));
    if setting.story == Story::Restore {
        fs.given(&format!("{K}/backups/given.1/content"), file(NEW, 0o600, 0));
        fs.given(&format!("{K}/backups/given.1/meta"), file(TOKEN.as_bytes(), 0o600, 0));
    }
    fs
}

/// Where the environment file points.
pub(super) fn pointer(fs: &Fs) -> String {
    let text = fs.get(ENV).map(|file| String::from_utf8_lossy(&file.content).into_owned()).unwrap_or_default();
    let line = text.lines().rev().find_map(|line| line.strip_prefix(KEY).and_then(|rest| rest.strip_prefix('=')));
    line.unwrap_or_default().to_owned()
}

/// An environment file with one key set and others taken out.
pub(super) fn edited(content: &[u8], key: &str, value: &str, remove: &[String]) -> Vec<u8> {
    let text = String::from_utf8_lossy(content);
    let (mut out, mut set) = (String::new(), false);
    for line in text.lines() {
        let name = line.split('=').next().unwrap_or_default();
        if name == key {
            if !set {
                let _ = writeln!(out, "{key}={value}");
            }
            set = true;
        } else if !remove.iter().any(|gone| gone == name) {
            let _ = writeln!(out, "{line}");
        }
    }
    if !set {
        let _ = writeln!(out, "{key}={value}");
    }
    out.into_bytes()
}

/// What the files are when a host is wholly old, and when it is wholly new: path and file, `None` for absent.
pub(super) struct Goals {
    pub(super) up: bool,
    pub(super) old: Vec<(&'static str, Option<Inode>)>,
    pub(super) new: Vec<(&'static str, Option<Inode>)>,
}

impl Goals {
    pub(super) fn of(setting: &Setting) -> Self {
        Self { up: setting.up, old: wholly_old(setting), new: wholly_new(setting) }
    }
}

/// What the files are when the host is wholly old: path and file, `None` for absent.
fn wholly_old(setting: &Setting) -> Vec<(&'static str, Option<Inode>)> {
    let before = files(setting);
    [TOKEN, FRESH, ENV].into_iter().map(|path| (path, before.get(path).cloned())).collect()
}

/// What the files are when the host is wholly new.
fn wholly_new(setting: &Setting) -> Vec<(&'static str, Option<Inode>)> {
    let mut out = wholly_old(setting);
    let placed = Some(file(NEW, 0o600, UID));
    for (path, file) in &mut out {
        match (setting.story, *path) {
            (Story::Replace | Story::Restore, TOKEN) | (Story::Move | Story::Slow, FRESH) => file.clone_from(&placed),
            (Story::Replace, ENV) => {
                let new = edited(&old_env(), KEY, TOKEN, &["STALE".to_owned()]);
                *file = Some(Inode { content: new, mode: 0o644, uid: 0, gid: 0 });
            }
            (Story::Move | Story::Slow, ENV) => {
                let new = edited(&old_env(), KEY, FRESH, &[]);
                *file = Some(Inode { content: new, mode: 0o644, uid: 0, gid: 0 });
            }
            _ => {}
        }
    }
    out
}

pub(super) fn host(n: usize) -> Host {
    let connection =
        Connection { become_method: Become::Sudo, connect_timeout_ms: 1000, ..Connection::new("192.0.2.1", 22, "ops") };
    Host { name: format!("h{n}").parse().unwrap(), connection, vars: Default::default() }
}

/// The playbook of a story.
pub(super) fn steps(story: Story) -> Vec<Step> {
    let place = |path_text: &str| {
        Action::Place(Place {
            secret: "token".to_owned(),
            path: path(path_text),
            mode: 0o600,
            owner: Some(UID.to_string()),
            group: Some(UID.to_string()),
            newline: false,
        })
    };
    let point = |value: &str, remove: &[&str]| {
        Action::Point(Point {
            file: path(ENV),
            key: KEY.to_owned(),
            value: value.to_owned(),
            reaches: Reaches::Daemon,
            remove: remove.iter().map(|&name| name.to_owned()).collect(),
            format: EnvFormat::Dotenv,
        })
    };
    let restart = Action::Restart(Restart {
        how: RestartHow::Systemd { unit: "runner".to_owned() },
        healthy: Duration::from_secs(5),
        timeout: Duration::from_secs(90),
        drain: Drain::Off,
        drain_timeout: Duration::ZERO,
    });
    let verify = Action::Http(Http {
        url: "https://example.net/".to_owned(),
        status: 200,
        contains: None,
        timeout: Duration::from_secs(200),
    });
    let actions = match story {
        Story::Replace => vec![
            Action::Backup(Backup { path: path(TOKEN) }),
            place(TOKEN),
            point(TOKEN, &["STALE"]),
            Action::Command(Command {
                run: CommandLine::Shell("do".to_owned()),
                undo: Some(CommandLine::Shell("undo".to_owned())),
            }),
            restart,
            Action::Command(Command { run: CommandLine::Shell("true".to_owned()), undo: None }),
            Action::Wait(Wait { until: WaitFor::Path(path(TOKEN)), timeout: Duration::from_secs(5) }),
            verify,
        ],
        Story::Move => vec![place(FRESH), point(FRESH, &[]), restart, verify],
        Story::Slow => {
            let wait = Action::Wait(Wait { until: WaitFor::Time(GUARD * 5 / 4), timeout: Duration::from_secs(5) });
            vec![place(FRESH), point(FRESH, &[]), restart, verify, wait]
        }
        Story::Restore => vec![Action::Restore(Restore { path: path(TOKEN) }), restart, verify],
    };
    (1u32..)
        .zip(actions)
        .map(|(index, action)| Step {
            id: StepRef { index, name: action.key().to_owned() },
            once: if matches!(action, Action::Http(_)) { Once::Batch } else { Once::Host },
            enabled: true,
            retries: 0,
            timeout: None,
            action,
        })
        .collect()
}
