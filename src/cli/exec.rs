//! `keyswap exec`: an ad-hoc command on many hosts. It is no run: nothing is journaled, locked or taken back, so a host that a
//! run still holds is worked on all the same, and that is said.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::args::{Output, Reach, Select};
use super::inventory::{joined, select};
use super::session::{Session, told};
use super::{CliError, error, signals};
use crate::load;
use crate::model::{Host, HostName, HostStatus};
use crate::remote::{Answer, CallError, Connect, NoGate, Op, Ran};
use crate::report::{Printer, sanitize};

/// The longest command, all words together: more would not fit into a host's argument list everywhere.
const LONGEST: usize = 32 * 1024;
/// The most characters of one line of output.
const LINE: usize = 2_000;
/// The longest time that a command can be given.
const MOST: Duration = Duration::from_secs(24 * 3600);

/// What is run where.
#[derive(Debug, clap::Args)]
pub(super) struct ExecArgs {
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    reach: Reach,
    /// End the command on a host after this time
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = limit)]
    timeout: Duration,
    /// The program and its arguments, word by word. No shell reads them: for pipes and the like, -- sh -c '…'
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<String>,
}

fn limit(text: &str) -> Result<Duration, String> {
    match load::length(text)? {
        Duration::ZERO => Err("must be longer than nothing".to_owned()),
        time if time > MOST => Err("is longer than a day".to_owned()),
        time => Ok(time),
    }
}

/// How it went on a host.
enum End {
    Ran(Ran),
    /// Whether it ran is not known, or the host would not.
    Failed(String),
    Unreachable(String),
    Skipped,
}

/// One host's end, and what else is to be said of it.
struct Done {
    host: HostName,
    end: End,
    /// The run that holds the host, and how.
    held: Option<(String, String)>,
}

impl Done {
    fn status(&self) -> HostStatus {
        match &self.end {
            End::Ran(ran) if ran.status == 0 => HostStatus::Ok,
            End::Ran(_) | End::Failed(_) => HostStatus::Failed,
            End::Unreachable(_) => HostStatus::Unreachable,
            End::Skipped => HostStatus::Skipped,
        }
    }

    /// In a few words, where it is not simply well.
    fn why(&self, limit: Duration) -> String {
        match &self.end {
            End::Ran(ran) if ran.timed_out => {
                format!("it did not end within {} s and was ended", limit.as_secs().max(1))
            }
            End::Ran(ran) if ran.status == 0 => String::new(),
            End::Ran(ran) => format!("exit status {}", ran.status),
            End::Failed(why) | End::Unreachable(why) => why.clone(),
            End::Skipped => "interrupted before it began there".to_owned(),
        }
    }

    fn output(&self) -> impl Iterator<Item = String> {
        let lines = if let End::Ran(ran) = &self.end { ran.output.as_slice() } else { &[] };
        lines.iter().map(|line| sanitize::line(line, LINE).into_owned())
    }

    fn is_cut(&self) -> bool {
        matches!(&self.end, End::Ran(ran) if ran.cut)
    }

    fn object(&self, limit: Duration) -> Value {
        let mut object = json!({
            "event": "host-finished", "host": self.host, "status": self.status(), "output": self.output().collect::<Vec<_>>(),
            "cut": self.is_cut(),
        });
        let mut add = |key: &str, value: Value| {
            if let Value::Object(object) = &mut object {
                object.insert(key.to_owned(), value);
            }
        };
        if let End::Ran(ran) = &self.end {
            add("exit_status", ran.status.into());
            add("timed_out", ran.timed_out.into());
        }
        if self.status() != HostStatus::Ok {
            add("reason", sanitize::line(&self.why(limit), sanitize::FIELD).into());
        }
        if let Some((run, phase)) = &self.held {
            add("held", json!({ "run": run, "phase": phase }));
        }
        object
    }

    fn lines(&self, limit: Duration) -> Vec<String> {
        let host = &self.host;
        let why = self.why(limit);
        let word = self.status();
        let mut lines = vec![match why.as_str() {
            "" => format!("{host}: {word}"),
            why => format!("{host}: {word}: {}", sanitize::line(why, sanitize::FIELD)),
        }];
        if let Some((run, phase)) = &self.held {
            lines.push(format!(
                "{host}: run {run} holds it ({phase}): what this changed may be put back, or in its way"
            ));
        }
        lines.extend(self.output().map(|line| format!("{host} | {line}")));
        if self.is_cut() {
            lines.push(format!("{host} | … and more, which was not kept"));
        }
        lines
    }
}

pub(super) async fn exec(session: &Session, args: &ExecArgs) -> Result<u8, CliError> {
    let length: usize = args.command.iter().map(|word| word.len() + 3).sum();
    if length > LONGEST {
        return Err(CliError::usage(format!("the command has {length} bytes; {LONGEST} are the most")));
    }
    if let Some(at) = args.command.iter().position(|word| load::looks_secret(word)) {
        return Err(CliError::usage(format!(
            "word {} of the command looks like a secret: arguments can be read by everybody on this machine and on the hosts",
            at + 1
        )));
    }
    let hosts = select(session, &args.select, Some(&args.reach))?;
    let order: Vec<HostName> = hosts.iter().map(|host| host.name.clone()).collect();
    let connect = session.connect(&joined(&args.select.inventory))?;
    let cancel = CancellationToken::new();
    let redactor = session.redactor.clone();
    signals::watch(cancel.clone(), &session.screen, move || {
        let text = "interrupted: no more hosts are begun, and what runs is waited for. Once more: leave at once, and what runs goes on";
        Printer::new(std::io::stderr(), &redactor).line(text);
    })?;
    let mut coming = start(&connect, hosts, args, &cancel);
    let is_json = session.global.output == Output::Jsonl;
    let mut out = session.out();
    let mut all = Vec::new();
    while let Some(done) = coming.recv().await {
        if is_json {
            out.json(&done.object(args.timeout));
        } else {
            done.lines(args.timeout).iter().for_each(|line| out.line(line));
        }
        all.push((done.host.clone(), done.status(), done.why(args.timeout)));
    }
    all.sort_by_key(|(host, ..)| order.iter().position(|name| name == host));
    let count = |status: HostStatus| all.iter().filter(|(_, s, _)| *s == status).count();
    let counts = [HostStatus::Ok, HostStatus::Failed, HostStatus::Unreachable, HostStatus::Skipped]
        .map(|status| (status, count(status)));
    let [_, (_, failed), (_, unreachable), (_, skipped)] = counts;
    let (code, word) = match (failed, unreachable, skipped) {
        (1.., ..) => (2, "failed"),
        (_, 1.., _) => (error::UNREACHABLE, "failed"),
        (.., 1..) => (error::INTERRUPTED, "interrupted"),
        _ => (0, "succeeded"),
    };
    if is_json {
        let counts: serde_json::Map<String, Value> =
            counts.iter().map(|(status, count)| (status.to_string(), (*count).into())).collect();
        out.json(&json!({ "event": "exec-finished", "status": word, "exit_code": code, "hosts": counts }));
    } else {
        out.line("");
        out.line("recap");
        for (host, status, why) in all.iter().filter(|(_, status, _)| *status != HostStatus::Ok) {
            out.line(&format!("  {host}: {status}: {}", sanitize::line(why, sanitize::FIELD)));
        }
        let counts = counts.iter().filter(|(_, count)| *count > 0).map(|(status, count)| format!("{count} {status}"));
        out.line(&format!("  {} hosts: {}", all.len(), counts.collect::<Vec<_>>().join(", ")));
    }
    told(out, code)
}

/// Begins on as many hosts at a time as there are forks; each says so when it has ended.
fn start(
    connect: &Arc<dyn Connect>,
    hosts: Vec<Host>,
    args: &ExecArgs,
    cancel: &CancellationToken,
) -> mpsc::Receiver<Done> {
    let (send, receive) = mpsc::channel(16);
    let permits = Arc::new(Semaphore::new(usize::from(args.reach.forks)));
    let op = Arc::new(Op::Exec { argv: args.command.clone(), limit: args.timeout });
    for host in hosts {
        let (connect, permits, op) = (Arc::clone(connect), Arc::clone(&permits), Arc::clone(&op));
        let (send, cancel) = (send.clone(), cancel.clone());
        tokio::spawn(async move {
            let _permit = permits.acquire_owned().await;
            let name = host.name.clone();
            // A task that panics would be a host that nobody heard of.
            let done = match tokio::spawn(async move { one(connect.as_ref(), &host, &op, &cancel).await }).await {
                Ok((end, held)) => Done { host: name, end, held },
                Err(_) => Done { host: name, end: End::Failed("keyswap itself failed there".to_owned()), held: None },
            };
            let _ = send.send(done).await;
        });
    }
    receive
}

async fn one(
    connect: &dyn Connect,
    host: &Host,
    op: &Op,
    cancel: &CancellationToken,
) -> (End, Option<(String, String)>) {
    let connected = tokio::select! {
        biased;
        () = cancel.cancelled() => return (End::Skipped, None),
        connected = connect.connect(host, &NoGate) => connected,
    };
    let mut conn = match connected {
        Ok(conn) => conn,
        Err(error) => {
            let hint = error.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            return (End::Unreachable(format!("{error}{hint}")), None);
        }
    };
    let mut held = None;
    let end = match conn.call(&Op::Hello, None).await {
        Ok(Answer::Hello(facts)) if matches!(facts.phase.as_str(), "armed" | "undo" | "dirty") => {
            held = Some((facts.run, facts.phase));
            None
        }
        Ok(_) => None,
        Err(CallError::Lost(lost)) => Some(End::Unreachable(lost.to_string())),
        Err(CallError::Failed(failure)) => Some(End::Failed(failure.to_string())),
    };
    let end = match end {
        Some(end) => end,
        None if cancel.is_cancelled() => End::Skipped,
        None => match conn.call(op, None).await {
            Ok(Answer::Ran(ran)) => End::Ran(ran),
            Ok(_) => End::Failed("the host answered another question".to_owned()),
            Err(CallError::Lost(lost)) => End::Failed(format!("whether it ran to its end is not known: {lost}")),
            Err(CallError::Failed(failure)) => End::Failed(failure.to_string()),
        },
    };
    conn.close().await;
    (end, held)
}
