//! `keyswap unlock`: takes a lock away whose run nobody will settle. It puts nothing back and never says so.

use serde_json::json;

use super::args::{Output, UnlockArgs};
use super::inventory::{joined, select};
use super::session::{Session, told};
use super::{CliError, error};
use crate::model::HostName;
use crate::remote::{Answer, CallError, FailClass, HostFacts, NoGate, Op};

pub(super) async fn unlock(session: &Session, args: &UnlockArgs) -> Result<u8, CliError> {
    let reason = args.reason.trim();
    if reason.is_empty() || reason.chars().any(char::is_control) {
        return Err(CliError::usage("--reason must say why, in one line"));
    }
    let hosts = select(session, &args.as_select(), Some(&args.reach))?;
    let [host] = hosts.as_slice() else {
        return Err(CliError::usage(format!("unlock takes one host; `{}` selects {}", args.host, hosts.len())));
    };
    let name = &host.name;
    let connect = session.connect(&joined(&args.inventory))?;
    let say = Say { session, host: name };
    let mut conn = match connect.connect(host, &NoGate).await {
        Ok(conn) => conn,
        Err(why) => return say.failed("unreachable", &why.to_string(), error::UNREACHABLE),
    };
    let unlock = Op::Unlock { by: session.owner(), reason: reason.to_owned(), run: args.run.clone() };
    let asked = async {
        let facts = match conn.call(&Op::Hello, None).await? {
            Answer::Hello(facts) => *facts,
            _ => HostFacts::default(),
        };
        conn.call(&unlock, None).await?;
        Ok::<HostFacts, CallError>(facts)
    };
    let answer = asked.await;
    conn.close().await;
    match answer {
        Ok(facts) => {
            let text = format!("{name}: its lock was taken away by {}: {reason}", session.owner());
            journal(session, &facts.run, text).await;
            say.done(&facts)
        }
        Err(why) => {
            let held = matches!(&why, CallError::Failed(failure) if failure.class == FailClass::Held);
            say.failed("failed", &why.to_string(), if held { error::HELD } else { 2 })
        }
    }
}

/// Tells of it, for people or for programs.
struct Say<'a> {
    session: &'a Session,
    host: &'a HostName,
}

impl Say<'_> {
    fn done(&self, facts: &HostFacts) -> Result<u8, CliError> {
        let (host, HostFacts { run, phase, by, .. }) = (self.host, facts);
        let back = self.session.typed(&format!("keyswap resume {run} --back"));
        let mut out = self.session.out();
        if self.session.global.output == Output::Jsonl {
            out.json(&json!({
                "event": "unlock-finished", "host": host, "status": "changed", "run": run, "was": phase, "by": by,
                "put_back": false, "next": back, "exit_code": 0,
            }));
            return told(out, 0);
        }
        out.line(&format!("{host}: run {run} no longer holds it (it was {phase}, by {by})"));
        out.line(&format!("{host}: nothing was put back: its files and its runner are as that run left them"));
        out.line(&format!("{host}: to put it back all the same: {back}"));
        told(out, 0)
    }

    fn failed(&self, status: &str, why: &str, code: u8) -> Result<u8, CliError> {
        let host = self.host;
        let mut out = self.session.out();
        match self.session.global.output {
            Output::Jsonl => out.json(&json!({
                "event": "unlock-finished", "host": host, "status": status, "reason": why, "exit_code": code,
            })),
            Output::Human | Output::Plain => out.line(&format!("{host}: {why}")),
        }
        told(out, code)
    }
}

/// Leaves a word in the run's own journal, where this machine has one that nobody writes just now. The host keeps it anyway.
async fn journal(session: &Session, run: &str, text: String) {
    let Ok(store) = session.store() else { return };
    let Ok(run) = store.find(Some(run)) else { return };
    let noted = async {
        let (journal, _) = store.reopen(&run, "unlock", &session.operator())?;
        journal.append(None, crate::journal::Record::Note { text }).await?;
        journal.close().await.map(|_| ())
    };
    if let Err(error) = noted.await {
        session.warn(&format!("the journal of run {run} does not hold it: {}", crate::model::chain(&error)));
    }
}
