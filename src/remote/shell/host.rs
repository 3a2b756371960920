//! [`Host`] over the privileged shell: operations to calls of the library, its lines to answers.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::quote::{call, words};
use super::{Boot, Shell, ShellError};
use super::{parse, survey};
use crate::model::{EnvFormat, Fingerprint, RemotePath, RestartHow, RunId};
use crate::remote::{
    Act, Answer, CallError, CopiesVerb, EnvEdit, FailClass, Failure, Hold, Host, HostCondition, HostFacts, Lost, Op,
    Pipe, Pointer, Probe, Survey, Target, UndoRecord,
};

/// What a request may take beyond the limits of what it starts: slow disks, a loaded machine.
const MARGIN: Duration = Duration::from_secs(30);

/// A target behind its privileged shell.
pub struct ShellHost {
    shell: Option<Shell>,
    /// What the host is was asked with the library, and its answer not taken yet.
    greeted: bool,
}

impl ShellHost {
    /// Starts the shell on `pipe`, where the command of `boot` was started, if that is not a shell already. `state_dir`
    /// overrides the usual place of its state.
    ///
    /// # Errors
    /// When the shell does not start, or lacks a tool that it needs.
    pub async fn start(
        pipe: Box<dyn Pipe>,
        boot: Option<Boot>,
        state_dir: Option<&str>,
        limit: Duration,
    ) -> Result<Self, ShellError> {
        let shell = Shell::start(pipe, boot, state_dir, &request(&Op::Hello).body, limit).await?;
        Ok(Self { shell: Some(shell), greeted: true })
    }

    /// Asks what the host is.
    ///
    /// # Errors
    /// As [`Host::call`].
    pub async fn hello(&mut self) -> Result<HostFacts, CallError> {
        match self.call(&Op::Hello, None).await? {
            Answer::Hello(facts) => Ok(*facts),
            _ => Err(broken("hello was not answered")),
        }
    }

    async fn ask(&mut self, request: &Request, data: &[u8]) -> Result<Vec<parse::Line>, CallError> {
        let Some(shell) = self.shell.as_mut() else {
            return Err(CallError::Lost(Lost { reason: "the connection was lost before".to_owned() }));
        };
        let limit = request.limit + MARGIN;
        let answer = async {
            if std::mem::take(&mut self.greeted) {
                let greeting = shell.answer(Instant::now() + limit, limit).await?;
                if request.is_hello {
                    return Ok(greeting);
                }
            }
            shell.request(&request.body, data, limit).await
        };
        match answer.await {
            Ok((status, text)) => parse::lines(status, &text),
            Err(error) => {
                // The shell may be anywhere now; nothing more is asked of it.
                if let Some(shell) = self.shell.take() {
                    shell.close().await;
                }
                Err(CallError::Lost(Lost { reason: error.to_string() }))
            }
        }
    }
}

fn broken(message: &str) -> CallError {
    CallError::Failed(Failure { class: FailClass::Broken, message: message.to_owned(), fix: None })
}

impl Host for ShellHost {
    fn call<'a>(&'a mut self, op: &'a Op, data: Option<&'a [u8]>) -> BoxFuture<'a, Result<Answer, CallError>> {
        Box::pin(async move {
            let request = request(op);
            let data = data.unwrap_or(&request.data);
            let lines = self.ask(&request, data).await?;
            parse::answer(op, &lines)
        })
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Some(shell) = self.shell.take() {
                shell.close().await;
            }
        })
    }
}

/// What the guard grants a request beyond the limits of the programs that it starts.
const GRACE: Duration = Duration::from_secs(5);

/// One request: a line of calls, what goes to its standard input, and what it may take.
struct Request {
    body: String,
    data: Vec<u8>,
    limit: Duration,
    is_hello: bool,
}

fn request(op: &Op) -> Request {
    let mut data = Vec::new();
    let mut limit = Duration::from_secs(30);
    let body = match op {
        Op::Hello => "ks_hello".to_owned(),
        Op::Look(probes) => {
            limit += Duration::from_secs(30) * u32::try_from(probes.len()).unwrap_or(u32::MAX);
            looks(probes.iter().enumerate().map(|(n, probe)| probe_call(n, probe)))
        }
        Op::Prepare { hold, owner, undo, manifest } => {
            let undo = undo_text(undo);
            let manifest = format!("{manifest}\nend\n");
            data = format!("{undo}{manifest}").into_bytes();
            let (undo, manifest) = (undo.len().to_string(), manifest.len().to_string());
            call("ks_prepare", [hold.run.as_str(), &lease(hold, GRACE), owner, &undo, &manifest])
        }
        Op::Takeover { hold, owner, only_held } => {
            let want = if *only_held { "held" } else { "any" };
            call("ks_takeover", [hold.run.as_str(), &lease(hold, GRACE), want, owner])
        }
        Op::Renew { hold } => own(hold, Duration::ZERO),
        Op::Act { hold, step, act } => {
            let (words, most) = act_words(*step, act);
            limit += most;
            held(Some(hold), most, &words)
        }
        Op::Peek { hold, script, limit: most } => {
            limit += *most;
            let words = call("ks_peek", [seconds(*most).as_str(), script]);
            held(hold.as_ref(), *most, &words)
        }
        Op::Exec { argv, limit: most } => {
            limit += *most;
            call("ks_exec", [seconds(*most).as_str(), &words(argv)])
        }
        Op::Wait { hold, until, limit: most } => {
            // The last look may begin just before the limit, and a command may take 30 s.
            let most_of_all = *most + Duration::from_secs(30);
            limit += most_of_all;
            let (kind, word) = match until {
                HostCondition::Path(path) => ("path", path.as_str().to_owned()),
                HostCondition::Port(port) => ("port", port.to_string()),
                HostCondition::Command(script) => ("command", script.clone()),
            };
            let words = call("ks_wait", [seconds(*most).as_str(), kind, &word]);
            held(hold.as_ref(), most_of_all, &words)
        }
        Op::Commit { hold, runner, paths } => {
            let runner = if *runner { "up" } else { "any" };
            let commit = call("ks_commit", [hold.run.as_str(), &hold.head, &lease(hold, GRACE), runner]);
            format!("{commit}; {}", now(&hold.run, paths))
        }
        Op::Undo { hold, limit: most } => {
            limit += *most;
            format!("{}; {}", own(hold, *most + GRACE), call("ks_undo", [hold.run.as_str()]))
        }
        Op::Unlock { by, reason, run } => {
            call("ks_unlock", [run.as_ref().map_or("-", RunId::as_str), by.as_str(), reason.as_str()])
        }
        Op::Recorded { run } => call("ks_recorded", [run.as_ref().map_or("-", RunId::as_str)]),
        Op::Now { run, paths } => now(run, paths),
        Op::Survey(surveys) => {
            // A search may take minutes; anything else is a glance.
            limit += Duration::from_secs(30) * u32::try_from(surveys.len()).unwrap_or(u32::MAX);
            let searches = surveys.iter().filter(|survey| matches!(survey, Survey::Search { .. })).count();
            limit += Duration::from_secs(250) * u32::try_from(searches).unwrap_or(u32::MAX);
            survey::calls(surveys)
        }
        Op::Copies { run, old, superseded, verb } => {
            let old = old.iter().map(Fingerprint::hex).collect::<Vec<_>>().join(" ");
            let verb = match verb {
                CopiesVerb::Look => "look",
                CopiesVerb::Seal => "seal",
                CopiesVerb::Remove => "remove",
            };
            let head = [run.as_str(), verb, old.as_str()];
            call("ks_copies", head.into_iter().chain(superseded.iter().map(RemotePath::as_str)))
        }
        Op::Reveal { fingerprint } => call("ks_reveal", [fingerprint.hex()]),
    };
    Request { body, data, limit, is_hello: matches!(op, Op::Hello) }
}

fn now(run: &RunId, paths: &[RemotePath]) -> String {
    call("ks_now", std::iter::once(run.as_str()).chain(paths.iter().map(RemotePath::as_str)))
}

/// The lease of a request that may take `limit`, in hundredths of a second; 0: no guard.
fn lease(hold: &Hold, limit: Duration) -> String {
    hold.guard.map_or_else(|| "0".to_owned(), |guard| hundredths(guard + limit))
}

/// The call that every request on a held host begins with.
fn own(hold: &Hold, limit: Duration) -> String {
    call("ks_own", [hold.run.as_str(), &hold.head, &lease(hold, limit)])
}

/// Calls that a held host lets only its holder make. What may take long gets a long lease, and gives it back at its end.
fn held(hold: Option<&Hold>, most: Duration, words: &str) -> String {
    match hold {
        None => words.to_owned(),
        Some(hold) if most.is_zero() || hold.guard.is_none() => format!("{}; {words}", own(hold, most + GRACE)),
        Some(hold) => format!("{}; {words}; {}", own(hold, most + GRACE), own(hold, Duration::ZERO)),
    }
}

/// Whole seconds, at least one, for `timeout`.
fn seconds(limit: Duration) -> String {
    limit.as_secs().max(1).to_string()
}

fn hundredths(time: Duration) -> String {
    (time.as_millis() / 10).to_string()
}

/// Probes in one request.
pub(super) fn looks(calls: impl Iterator<Item = String>) -> String {
    let calls: Vec<String> = calls.collect();
    call("ks_looks", calls.iter().map(String::as_str))
}

fn probe_call(n: usize, probe: &Probe) -> String {
    let n = n.to_string();
    match probe {
        Probe::File { path, owner, group } => {
            let (owner, group) = (owner.as_deref().unwrap_or("-"), group.as_deref().unwrap_or("-"));
            call("ks_look_file", [n.as_str(), path.as_str(), owner, group])
        }
        Probe::Env { path, format, edits } => {
            let removes: Vec<String> = edits.iter().map(|edit| edit.remove.join(" ")).collect();
            let mut words = vec![n.as_str(), path.as_str(), format_word(*format)];
            for (edit, remove) in edits.iter().zip(&removes) {
                words.extend([edit.key.as_str(), &edit.value, remove]);
            }
            call("ks_look_env", words)
        }
        Probe::Service { how, pointer } => {
            let [kind, a, b, _] = service_words(how);
            let [key, value, content] = pointer_words(pointer.as_ref());
            call("ks_look_service", [n.as_str(), kind, a, b, key, value, content])
        }
        Probe::Backups { path } => call("ks_look_backups", [n.as_str(), path.as_str()]),
        Probe::Room => call("ks_look_room", [n.as_str()]),
        Probe::Busy { how } => {
            let [kind, a, b, _] = service_words(how);
            call("ks_look_busy", [n.as_str(), kind, a, b])
        }
        Probe::Back { how, log } => {
            let [kind, a, b, _] = service_words(how);
            let log = log.as_ref().map_or("-", RemotePath::as_str);
            call("ks_look_back", [n.as_str(), kind, a, b, log])
        }
        Probe::Task { how, log, repo, tasks } => {
            let [kind, a, b, _] = service_words(how);
            let log = log.as_ref().map_or("-", RemotePath::as_str);
            let tasks: Vec<String> = tasks.iter().map(u64::to_string).collect();
            let words = [n.as_str(), kind, a, b, log, repo];
            call("ks_look_task", words.into_iter().chain(tasks.iter().map(String::as_str)))
        }
    }
}

pub(super) fn format_word(format: EnvFormat) -> &'static str {
    match format {
        EnvFormat::Dotenv => "dotenv",
        EnvFormat::SystemdDropin => "dropin",
    }
}

/// Kind, two words that name the runner, and the operator's restart command.
pub(super) fn service_words(how: &RestartHow) -> [&str; 4] {
    match how {
        RestartHow::Systemd { unit } => ["systemd", unit, "-", "-"],
        RestartHow::Docker { container } => ["docker", container, "-", "-"],
        RestartHow::Compose { file, service } => ["compose", file.as_str(), service, "-"],
        RestartHow::Command { command, check, pid_file } => {
            ["command", check.as_deref().unwrap_or("-"), pid_file.as_ref().map_or("-", |path| path.as_str()), command]
        }
    }
}

fn pointer_words(pointer: Option<&Pointer>) -> [&str; 3] {
    match pointer {
        Some(pointer) => [&pointer.key, &pointer.value, pointer.content.as_deref().unwrap_or("-")],
        None => ["-", "-", "-"],
    }
}

/// The calls of an act, and what the programs that it starts may take.
fn act_words(step: u32, act: &Act) -> (String, Duration) {
    let step = step.to_string();
    let none = Duration::ZERO;
    let write = |function: &str, target: &Target, rest: &[&str]| {
        let mode = format!("{:o}", target.mode);
        let (uid, gid) = (target.uid.to_string(), target.gid.to_string());
        let pre = target.pre.as_deref().unwrap_or("absent");
        let mut words = vec![step.as_str(), target.path.as_str(), &mode, &uid, &gid, pre, &target.post];
        words.extend_from_slice(rest);
        call(function, words)
    };
    match act {
        Act::Backup { path, sha, fingerprint, id } => {
            (call("ks_backup", [&step, path.as_str(), sha, fingerprint, id]), none)
        }
        Act::Place(target) => (write("ks_place", target, &[]), none),
        Act::Restore { target, backup } => (write("ks_restore", target, &[backup]), none),
        Act::Point { target, format, edit: EnvEdit { key, value, remove } } => {
            (write("ks_point", target, &[format_word(*format), key, value, &remove.join(" ")]), none)
        }
        Act::Restart { how, was_up, healthy, timeout, pointer, also, gone, drain } => {
            let [kind, a, b, command] = service_words(how);
            let [key, value, content] = pointer_words(pointer.as_ref());
            let was = if *was_up { "yes" } else { "no" };
            let (hold, limit) = (hundredths(*healthy), seconds(*timeout));
            let drain = if *drain { "yes" } else { "no" };
            let gone = gone.join(" ");
            let words = [&step, was, &hold, &limit, kind, a, b, command, key, value, content, drain, gone.as_str()];
            let also = also.iter().flat_map(|pointer| pointer_words(Some(pointer)));
            let words = call("ks_restart", words.into_iter().chain(also));
            (words, *timeout + *healthy + Duration::from_secs(90))
        }
        Act::Command { script, limit } => (call("ks_command", [&step, seconds(*limit).as_str(), script]), *limit),
    }
}

/// The host's list of the way back (`saga.sh` says what its lines mean).
fn undo_text(records: &[UndoRecord]) -> String {
    let mut text = String::new();
    for record in records {
        let step = record.step().to_string();
        let line = match record {
            UndoRecord::File { path, before, post, .. } => {
                let meta = meta_words(Some(before));
                call(
                    "file",
                    [&step, path.as_str()].into_iter().chain(meta.iter().map(String::as_str)).chain([post.as_str()]),
                )
            }
            UndoRecord::Env { path, before, format, keys, posts, .. } => {
                let meta = meta_words(before.as_ref());
                let (keys, posts) = (keys.join(" "), posts.join(" "));
                let head = [step.as_str(), path.as_str()];
                let tail = [format_word(*format), keys.as_str(), posts.as_str()];
                call("env", head.into_iter().chain(meta.iter().map(String::as_str)).chain(tail))
            }
            UndoRecord::Command { script, limit, .. } => call("command", [&step, seconds(*limit).as_str(), script]),
            UndoRecord::Service { how, was_up, healthy, timeout, .. } => {
                let [kind, a, b, command] = service_words(how);
                let was = if *was_up { "yes" } else { "no" };
                let (hold, limit) = (hundredths(*healthy), seconds(*timeout));
                call("service", [&step, was, &hold, &limit, kind, a, b, command])
            }
            UndoRecord::Remove { path, post, .. } => call("remove", [&step, path.as_str(), post]),
            UndoRecord::Rmdir { path, .. } => call("rmdir", [&step, path.as_str()]),
            UndoRecord::Backup { id, .. } => call("backup", [step.as_str(), id]),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str("end\n");
    text
}

fn meta_words(before: Option<&crate::remote::FileBefore>) -> [String; 5] {
    match before {
        Some(file) => [
            file.sha.clone(),
            file.uid.to_string(),
            file.gid.to_string(),
            format!("{:o}", file.mode),
            file.size.to_string(),
        ],
        None => ["absent".to_owned(), "0".to_owned(), "0".to_owned(), "0".to_owned(), "0".to_owned()],
    }
}

/// Fields of a line, by key.
pub(super) type Fields = HashMap<String, String>;
