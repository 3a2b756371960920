//! `keyswap unlock`: takes a lock away whose run nobody will settle. It puts nothing back and never says so.

use super::args::UnlockArgs;
use super::inventory::{joined, select};
use super::session::Session;
use super::{CliError, error};
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
    let mut out = session.out();
    let mut conn = match connect.connect(host, &NoGate).await {
        Ok(conn) => conn,
        Err(why) => {
            out.line(&format!("{name}: {why}"));
            return Ok(error::UNREACHABLE);
        }
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
            let run = &facts.run;
            journal(session, run, format!("{name}: its lock was taken away by {}: {reason}", session.owner())).await;
            out.line(&format!("{name}: run {run} no longer holds it (it was {}, by {})", facts.phase, facts.by));
            out.line(&format!("{name}: nothing was put back: its files and its runner are as that run left them"));
            out.line(&format!("{name}: to put it back all the same: keyswap resume {run} --back"));
            Ok(0)
        }
        Err(why) => {
            let held = matches!(&why, CallError::Failed(failure) if failure.class == FailClass::Held);
            out.line(&format!("{name}: {why}"));
            Ok(if held { error::HELD } else { 2 })
        }
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
