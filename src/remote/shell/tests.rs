//! The library under dash, bash and busybox ash, spoken to over a local process: what a target's shell really does.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::{BOOT, Shell, ShellHost};
use crate::model::{EnvFormat, RemotePath, RestartHow, RunId};
use crate::remote::{
    Act, Active, Answer, CallError, EnvEdit, Exit, Fact, FailClass, Hold, Host, Lost, Op, Pipe, Pointer, Probe, Target,
    UndoRecord, in_undo_order,
};

mod guard;
mod stress;

/// A shell of this machine behind a pipe.
struct LocalPipe(Child);

impl Pipe for LocalPipe {
    fn send(&mut self, data: Bytes) -> BoxFuture<'_, Result<(), Lost>> {
        Box::pin(async move {
            let stdin = self.0.stdin.as_mut().unwrap();
            stdin.write_all(&data).await.map_err(|error| Lost { reason: error.to_string() })
        })
    }

    fn recv(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, Lost>> {
        Box::pin(async move {
            let mut buffer = BytesMut::with_capacity(4096);
            match self.0.stdout.as_mut().unwrap().read_buf(&mut buffer).await {
                Ok(0) => Ok(None),
                Ok(_) => Ok(Some(buffer.freeze())),
                Err(error) => Err(Lost { reason: error.to_string() }),
            }
        })
    }

    fn stderr_tail(&self) -> String {
        String::new()
    }

    fn exit(&self) -> Option<Exit> {
        None
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            drop(self.0.stdin.take());
            let _ = self.0.wait().await;
        })
    }
}

/// Every shell, with the hands (a host with Perl) and without.
pub(super) const SHELLS: &[&[&str]] = &[
    &["dash"],
    &["env", "KS_PLAIN=1", "dash"],
    &["bash", "--norc"],
    &["busybox", "ash"],
    &["env", "KS_PLAIN=1", "busybox", "ash"],
];

fn pipe(shell: &[&str]) -> Box<LocalPipe> {
    let mut command = Command::new("setsid");
    let command = command.args(shell).arg("-c").arg(BOOT).stdin(Stdio::piped()).stdout(Stdio::piped());
    Box::new(LocalPipe(command.spawn().unwrap()))
}

pub(super) async fn host(shell: &[&str], state: &Path) -> ShellHost {
    ShellHost::start(pipe(shell), None, state.to_str(), Duration::from_secs(10)).await.unwrap()
}

fn sha(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn remote(path: &Path) -> RemotePath {
    path.to_str().unwrap().parse().unwrap()
}

/// A runner: token, env file and a daemon that holds both.
struct Runner {
    dir: PathBuf,
    _temp: tempfile::TempDir,
}

const OLD: &[u8] = b"test-token-old";
const NEW: &[u8] = b"test-token-new";
const ENV: &str = "# runner\nA=1\nexport TOKEN_FILE=/old/path\n\nB='x y'\n";

impl Runner {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        std::fs::create_dir(dir.join("data")).unwrap();
        std::fs::write(dir.join("data/token"), OLD).unwrap();
        std::fs::set_permissions(dir.join("data/token"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(dir.join("env"), ENV).unwrap();
        std::fs::set_permissions(dir.join("env"), std::fs::Permissions::from_mode(0o640)).unwrap();
        let ctl = "#!/bin/sh\ncd \"${0%/*}\" || exit 1\n[ ! -e broken ] || exit 3\n\
                   [ ! -s pid ] || kill \"$(cat pid)\" 2>/dev/null\n\
                   [ -r data/token ] || exit 1\n\
                   (set -a; . ./env; exec setsid sh -c 'echo $$ >pid; while :; do sleep 0.05; done') </dev/null >/dev/null 2>&1 &\n\
                   i=0; until [ -s pid ] && kill -0 \"$(cat pid)\" 2>/dev/null; do i=$((i+1)); [ $i -lt 100 ] || exit 2; sleep 0.02; done\n";
        std::fs::write(dir.join("ctl"), ctl).unwrap();
        std::fs::set_permissions(dir.join("ctl"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let runner = Self { dir, _temp: temp };
        assert!(std::process::Command::new(runner.dir.join("ctl")).status().unwrap().success());
        runner
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn how(&self) -> RestartHow {
        RestartHow::Command {
            command: format!("{}/ctl", self.dir.display()),
            check: None,
            pid_file: Some(remote(&self.dir.join("pid"))),
        }
    }

    fn pid(&self) -> u32 {
        std::fs::read_to_string(self.dir.join("pid")).unwrap().trim().parse().unwrap()
    }

    /// Everything below the directory but the state and the pid: name, content, mode, owner.
    fn picture(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut todo = vec![self.dir.clone()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let meta = path.symlink_metadata().unwrap();
                if path == self.state() || path.ends_with("pid") {
                    continue;
                }
                if meta.is_dir() {
                    todo.push(path.clone());
                }
                let content = if meta.is_file() { sha(&std::fs::read(&path).unwrap()) } else { String::new() };
                out.push(format!("{} {:o} {} {} {content}", path.display(), meta.mode(), meta.uid(), meta.gid()));
            }
        }
        out.sort();
        out
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kill").arg(self.pid().to_string()).status();
    }
}

/// Without a guard.
fn hold(run: &RunId) -> Hold {
    Hold { run: run.clone(), head: "h".into(), guard: None }
}

/// With a guard that has patience for its grace and little more.
fn guarded(run: &RunId) -> Hold {
    Hold { guard: Some(Duration::from_millis(200)), ..hold(run) }
}

struct Rotation {
    run: RunId,
    acts: Vec<Act>,
    undo: Vec<UndoRecord>,
}

pub(super) async fn look(host: &mut ShellHost, probes: Vec<Probe>) -> Vec<Fact> {
    match host.call(&Op::Look(probes), None).await.unwrap() {
        Answer::Facts(facts) => facts,
        other => panic!("{other:?}"),
    }
}

/// One question to a host of its own.
pub(super) async fn ask(shell: &[&str], probe: Probe) -> Fact {
    let state = tempfile::tempdir().unwrap();
    let mut host = host(shell, &state.path().join("state")).await;
    let fact = look(&mut host, vec![probe]).await.pop().unwrap();
    Box::new(host).close().await;
    fact
}

/// Looks, and makes the acts and the undo of a place, a point and a restart.
async fn rotation(host: &mut ShellHost, runner: &Runner, value: &str) -> Rotation {
    let edit = EnvEdit { key: "TOKEN_FILE".into(), value: value.into(), remove: vec!["B".into()] };
    let token = runner.dir.join("data/token");
    let facts = look(
        host,
        vec![
            Probe::File { path: remote(&token), owner: None, group: None },
            Probe::Env { path: remote(&runner.dir.join("env")), format: EnvFormat::Dotenv, edits: vec![edit.clone()] },
            Probe::Service { how: runner.how(), pointer: None },
        ],
    )
    .await;
    let [Fact::File(file), Fact::Env(env), Fact::Service(service)] = &facts[..] else { panic!("{facts:?}") };
    assert_eq!(service.active, Active::Yes);
    assert_eq!(service.pid, Some(runner.pid()));
    assert_eq!(env.edits[0].count, 1);
    assert_eq!(env.edits[0].old.as_deref(), Some("/old/path"));
    assert_eq!(env.edits[0].gone, 1);
    let (before, env_before) = (file.before.clone().unwrap(), env.before.clone().unwrap());
    let target = |path: &str, before: &crate::remote::FileBefore, post: &str| Target {
        path: path.parse().unwrap(),
        mode: before.mode,
        uid: before.uid,
        gid: before.gid,
        pre: Some(before.sha.clone()),
        post: post.to_owned(),
    };
    let pointer = Pointer { key: "TOKEN_FILE".into(), value: value.into(), content: Some(sha(NEW)) };
    let acts = vec![
        Act::Place(target(&file.path, &before, &sha(NEW))),
        Act::Point { target: target(&env.path, &env_before, &env.edits[0].post), format: EnvFormat::Dotenv, edit },
        Act::Restart {
            drain: true,
            how: runner.how(),
            was_up: true,
            healthy: Duration::from_millis(200),
            timeout: Duration::from_secs(10),
            pointer: Some(pointer),
            also: Vec::new(),
            gone: vec!["STALE".to_owned()],
        },
    ];
    let mut undo = vec![
        UndoRecord::Service {
            step: 3,
            how: runner.how(),
            was_up: true,
            healthy: Duration::from_millis(200),
            timeout: Duration::from_secs(10),
        },
        UndoRecord::File { step: 1, path: file.path.parse().unwrap(), before, post: sha(NEW) },
        UndoRecord::Env {
            step: 2,
            path: env.path.parse().unwrap(),
            before: Some(env_before),
            format: EnvFormat::Dotenv,
            keys: vec!["TOKEN_FILE".into(), "B".into()],
            posts: vec![env.edits[0].post.clone()],
        },
    ];
    in_undo_order(&mut undo);
    Rotation { run: RunId::new(jiff::Timestamp::now()), acts, undo }
}

impl Rotation {
    async fn prepare(&self, host: &mut ShellHost) {
        let op = Op::Prepare {
            hold: hold(&self.run),
            owner: "tester".into(),
            undo: self.undo.clone(),
            manifest: String::new(),
        };
        host.call(&op, None).await.unwrap();
    }

    async fn act(&self, host: &mut ShellHost, n: usize) -> Result<Answer, CallError> {
        let act = self.acts[n].clone();
        let step = u32::try_from(n).unwrap() + 1;
        let data = matches!(act, Act::Place(_)).then_some(NEW);
        host.call(&Op::Act { hold: hold(&self.run), step, act }, data).await
    }

    /// All of the way forward, but for the commit.
    async fn forward(&self, host: &mut ShellHost) {
        self.prepare(host).await;
        for n in 0..self.acts.len() {
            self.act(host, n).await.unwrap();
        }
    }

    async fn undo(&self, host: &mut ShellHost) -> crate::remote::Undone {
        let op = Op::Undo { hold: hold(&self.run), limit: Duration::from_secs(30) };
        match host.call(&op, None).await.unwrap() {
            Answer::Undone(undone) => undone,
            other => panic!("{other:?}"),
        }
    }
}

/// The second would silently take the place of the first.
#[test]
fn no_function_of_the_library_has_two_definitions() {
    let mut seen = std::collections::HashSet::new();
    let names = super::LIBRARY.lines().filter_map(|line| line.split_once("() {")).map(|(name, _)| name);
    let twice: Vec<_> = names.filter(|name| name.starts_with("ks_") && !seen.insert(*name)).collect();
    assert!(twice.is_empty() && seen.len() > 100, "{twice:?} of {}", seen.len());
}

/// The data of a request are the body's standard input and end there, whether it reads them or not.
#[tokio::test]
async fn data_go_to_their_request_and_to_no_other() {
    for shell in SHELLS {
        let state = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(10);
        let mut host = Shell::start(pipe(shell), None, state.path().to_str(), "echo up", limit).await.unwrap();
        assert_eq!(host.answer(Instant::now() + limit, limit).await.unwrap(), (0, "up".to_owned()), "{shell:?}");
        let long = "x".repeat(5000);
        let calls = [
            ("cat; echo", "one\ntwo", "one\ntwo"),
            ("echo nothing", "is read", "nothing"),
            ("read -r a; cat >/dev/null; echo \"$a\"", "\n", ""),
            ("wc -c", long.as_str(), "5000"),
            ("echo nothing", long.as_str(), "nothing"),
            ("cat", "", ""),
            ("cat | (read -r a; echo \"<$a>\")", "R 9 2 0\n:;\n", "<R 9 2 0>"),
            ("for fd in 3 4; do [ ! -e /proc/self/fd/$fd ] || echo $fd; done", "x", ""),
        ];
        for (body, data, said) in calls {
            let answer = host.request(body, data.as_bytes(), limit).await.unwrap();
            assert_eq!(answer, (0, said.to_owned()), "{shell:?}: {body}");
        }
        host.close().await;
    }
}

#[tokio::test]
async fn a_rotation_and_its_way_back_in_every_shell() {
    for shell in SHELLS {
        let runner = Runner::new();
        let before = runner.picture();
        let value = runner.dir.join("data/token");
        let value = value.to_str().unwrap();
        let mut one = host(shell, &runner.state()).await;
        let hello = one.hello().await.unwrap();
        assert_eq!((hello.phase.as_str(), &hello.missing[..]), ("none", &[][..]), "{shell:?}");
        let rotation = rotation(&mut one, &runner, value).await;
        rotation.prepare(&mut one).await;
        for twice in [false, true] {
            for n in 0..3 {
                let answer = rotation.act(&mut one, n).await.unwrap_or_else(|e| panic!("{shell:?} act {n}: {e:?}"));
                let Answer::Acted(acted) = answer else { panic!() };
                assert_eq!(acted.already, twice && n < 2, "{shell:?} act {n}");
            }
        }
        assert_eq!(std::fs::read(runner.dir.join("data/token")).unwrap(), NEW);
        assert_eq!(
            std::fs::read_to_string(runner.dir.join("env")).unwrap(),
            format!("# runner\nA=1\nexport TOKEN_FILE={value}\n\n")
        );
        for already in [false, true] {
            if already {
                one.call(&Op::Takeover { hold: hold(&rotation.run), owner: "tester".into(), only_held: false }, None)
                    .await
                    .unwrap();
            }
            let pid = runner.pid();
            let undone = rotation.undo(&mut one).await;
            assert!(undone.clean, "{shell:?} {undone:?}");
            assert_eq!(runner.pid() == pid, already, "a second undo restarts nothing: {undone:?}");
            assert_eq!(runner.picture(), before, "{shell:?}");
        }
        Box::new(one).close().await;
    }
}

/// The old file is still its runner's, who can write to it: then the copy is put back.
#[tokio::test]
async fn a_stage_that_was_blown_up_does_not_stop_the_way_back() {
    for shell in SHELLS {
        let runner = Runner::new();
        let before = runner.picture();
        let value = runner.dir.join("data/token");
        let mut host = host(shell, &runner.state()).await;
        let rotation = rotation(&mut host, &runner, value.to_str().unwrap()).await;
        rotation.prepare(&mut host).await;
        rotation.act(&mut host, 0).await.unwrap();
        let stage = runner.dir.join("data").join(format!(".keyswap-{}-old.1", rotation.run));
        std::fs::File::options().write(true).open(stage).unwrap().set_len(2 << 20).unwrap();
        let undone = rotation.undo(&mut host).await;
        assert!(undone.clean, "{shell:?}: {undone:?}");
        assert_eq!(runner.picture(), before, "{shell:?}");
        Box::new(host).close().await;
    }
}

/// What cannot be ours is passed over: a directory that a job makes beside its token keeps nobody from committing or going back.
#[tokio::test]
async fn a_directory_with_a_name_of_ours_is_in_nobody_s_way() {
    for shell in SHELLS {
        for commit in [false, true] {
            let runner = Runner::new();
            let value = runner.dir.join("data/token");
            let mut host = host(shell, &runner.state()).await;
            let rotation = rotation(&mut host, &runner, value.to_str().unwrap()).await;
            rotation.forward(&mut host).await;
            let theirs = runner.dir.join("data").join(format!(".keyswap-{}.x", rotation.run));
            std::fs::create_dir(&theirs).unwrap();
            if commit {
                let op = Op::Commit { hold: hold(&rotation.run), runner: true, paths: Vec::new() };
                host.call(&op, None).await.unwrap_or_else(|error| panic!("{shell:?}: {error:?}"));
                assert_eq!(std::fs::read(&value).unwrap(), NEW);
            } else {
                let undone = rotation.undo(&mut host).await;
                assert!(undone.clean, "{shell:?}: {undone:?}");
                assert_eq!(std::fs::read(&value).unwrap(), OLD);
                let restarted =
                    undone.records.iter().any(|r| (r.kind.as_str(), r.status.as_str()) == ("service", "changed"));
                assert!(restarted, "{shell:?}: {undone:?}");
            }
            std::fs::remove_dir(&theirs).unwrap();
            assert_eq!(std::fs::read_dir(runner.dir.join("data")).unwrap().count(), 1, "only the token");
            Box::new(host).close().await;
        }
    }
}

/// It was up when its step looked at it; a takeover ends what lives in the session of the controller before.
#[tokio::test]
async fn a_runner_that_is_down_is_not_committed() {
    for shell in SHELLS {
        let runner = Runner::new();
        let before = runner.picture();
        let value = runner.dir.join("data/token");
        let mut host = host(shell, &runner.state()).await;
        let rotation = rotation(&mut host, &runner, value.to_str().unwrap()).await;
        rotation.forward(&mut host).await;
        let pid = runner.pid();
        assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        let gone = PathBuf::from(format!("/proc/{pid}/exe"));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while gone.read_link().is_ok() && std::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let commit = Op::Commit { hold: hold(&rotation.run), runner: true, paths: Vec::new() };
        let error = host.call(&commit, None).await.unwrap_err();
        assert!(matches!(&error, CallError::Failed(f) if f.class == FailClass::Service), "{shell:?}: {error:?}");
        let undone = rotation.undo(&mut host).await;
        assert!(undone.clean, "{shell:?}: {undone:?}");
        assert_eq!(runner.picture(), before, "{shell:?}");
        assert_ne!(runner.pid(), pid, "{shell:?}: it is up on the old token");
        Box::new(host).close().await;
    }
}

/// The shell drops zeros: a file that holds some by now is not edited by line.
#[tokio::test]
async fn an_env_file_with_zeros_is_left_to_whoever_wrote_them() {
    for shell in SHELLS {
        let runner = Runner::new();
        let value = runner.dir.join("data/token");
        let mut host = host(shell, &runner.state()).await;
        let rotation = rotation(&mut host, &runner, value.to_str().unwrap()).await;
        rotation.prepare(&mut host).await;
        rotation.act(&mut host, 1).await.unwrap();
        let theirs = [std::fs::read(runner.dir.join("env")).unwrap().as_slice(), b"C=x\0y\n"].concat();
        std::fs::write(runner.dir.join("env"), &theirs).unwrap();
        let undone = rotation.undo(&mut host).await;
        assert!(!undone.clean, "{shell:?}: {undone:?}");
        assert_eq!(std::fs::read(runner.dir.join("env")).unwrap(), theirs, "{shell:?}");
        Box::new(host).close().await;
    }
}

#[tokio::test]
async fn commit_leaves_nothing_but_the_new_files_and_can_still_be_taken_back() {
    for shell in SHELLS {
        let runner = Runner::new();
        let before = runner.picture();
        let value = runner.dir.join("data/token");
        let mut one = host(shell, &runner.state()).await;
        let rotation = rotation(&mut one, &runner, value.to_str().unwrap()).await;
        rotation.forward(&mut one).await;
        let commit = Op::Commit { hold: hold(&rotation.run), runner: true, paths: Vec::new() };
        one.call(&commit, None).await.unwrap();
        one.call(&commit, None).await.unwrap();
        assert_eq!(runner.picture().len(), before.len(), "no temporary file is left");
        let error = rotation.act(&mut one, 0).await.unwrap_err();
        assert!(matches!(&error, CallError::Failed(f) if f.class == FailClass::Fenced), "{error:?}");
        one.call(&Op::Takeover { hold: hold(&rotation.run), owner: "tester".into(), only_held: false }, None)
            .await
            .unwrap();
        assert!(rotation.undo(&mut one).await.clean);
        assert_eq!(runner.picture(), before);
        Box::new(one).close().await;
    }
}

/// What lies there is the way back of a run that has acted, whoever had the host since.
#[tokio::test]
async fn a_run_that_held_the_host_does_not_begin_there_anew() {
    for shell in SHELLS {
        let runner = Runner::new();
        let before = runner.picture();
        let value = runner.dir.join("data/token");
        let mut one = host(shell, &runner.state()).await;
        let rotation = rotation(&mut one, &runner, value.to_str().unwrap()).await;
        rotation.prepare(&mut one).await;
        rotation.act(&mut one, 0).await.unwrap();
        let reason = "nobody will settle it".to_owned();
        let unlock = Op::Unlock { run: Some(rotation.run.clone()), by: "tester".into(), reason };
        let mut two = host(shell, &runner.state()).await;
        two.call(&unlock, None).await.unwrap();
        // Another run has the host, and lets it go.
        let other = Rotation { run: "20260101-000000-abcdef".parse().unwrap(), acts: Vec::new(), undo: Vec::new() };
        other.prepare(&mut two).await;
        assert!(other.undo(&mut two).await.clean, "{shell:?}");
        let prepare = Op::Prepare {
            hold: hold(&rotation.run),
            owner: "tester".into(),
            undo: rotation.undo.clone(),
            manifest: String::new(),
        };
        let error = two.call(&prepare, None).await.unwrap_err();
        assert!(matches!(&error, CallError::Failed(f) if f.class == FailClass::Fenced), "{shell:?}: {error:?}");
        two.call(&Op::Takeover { hold: hold(&rotation.run), owner: "tester".into(), only_held: false }, None)
            .await
            .unwrap();
        assert!(rotation.undo(&mut two).await.clean, "{shell:?}");
        assert_eq!(runner.picture(), before, "{shell:?}");
        Box::new(two).close().await;
    }
}

#[tokio::test]
async fn a_second_session_takes_over_and_fences_the_first() {
    let runner = Runner::new();
    let value = runner.dir.join("data/token");
    let mut one = host(SHELLS[0], &runner.state()).await;
    let rotation = rotation(&mut one, &runner, value.to_str().unwrap()).await;
    rotation.prepare(&mut one).await;
    let other = Op::Prepare {
        hold: hold(&"20260101-000000-abcdef".parse().unwrap()),
        owner: "other".into(),
        undo: rotation.undo.clone(),
        manifest: String::new(),
    };
    let mut two = host(SHELLS[1], &runner.state()).await;
    let error = two.call(&other, None).await.unwrap_err();
    assert!(matches!(&error, CallError::Failed(f) if f.class == FailClass::Held), "{error:?}");
    two.call(&Op::Takeover { hold: hold(&rotation.run), owner: "tester".into(), only_held: false }, None)
        .await
        .unwrap();
    let error = rotation.act(&mut one, 0).await.unwrap_err();
    assert!(matches!(error, CallError::Lost(_)), "the first session is gone: {error:?}");
    assert!(rotation.undo(&mut two).await.clean);
    Box::new(two).close().await;
}

#[tokio::test]
async fn what_somebody_else_changed_is_not_destroyed() {
    let runner = Runner::new();
    let value = runner.dir.join("data/token");
    let mut one = host(SHELLS[0], &runner.state()).await;
    let rotation = rotation(&mut one, &runner, value.to_str().unwrap()).await;
    rotation.prepare(&mut one).await;
    std::fs::write(runner.dir.join("data/token"), "somebody else's").unwrap();
    let error = rotation.act(&mut one, 0).await.unwrap_err();
    assert!(matches!(&error, CallError::Failed(f) if f.class == FailClass::Conflict), "{error:?}");
    rotation.act(&mut one, 1).await.unwrap();
    let env = std::fs::read_to_string(runner.dir.join("env")).unwrap();
    std::fs::write(runner.dir.join("env"), format!("{env}C=3\n")).unwrap();
    let undone = rotation.undo(&mut one).await;
    assert!(!undone.clean);
    assert_eq!(std::fs::read_to_string(runner.dir.join("data/token")).unwrap(), "somebody else's");
    let words: Vec<_> = undone.records.iter().map(|r| (r.kind.as_str(), r.status.as_str())).collect();
    assert_eq!(words, [("file", "failed"), ("env", "skipped"), ("service", "skipped")]);
    Box::new(one).close().await;
}
