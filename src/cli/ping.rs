//! `keyswap ping`: reaches every selected host, logs in, becomes root, and says what it is and what it lacks.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::args::{Output, PingArgs};
use super::inventory::{joined, select};
use super::session::{Session, told};
use super::tools::{Lack, Lacks};
use super::{CliError, error};
use crate::model::{Host, HostName};
use crate::remote::{Answer, Connect, HostFacts, NoGate, Op, SshConnect, Unreachable, UnreachableKind};

pub(super) async fn ping(session: &Session, args: &PingArgs) -> Result<u8, CliError> {
    let hosts = select(session, &args.select, Some(&args.reach))?;
    let connect = Arc::new(session.ssh(&joined(&args.select.inventory))?);
    let permits = Arc::new(Semaphore::new(usize::from(args.reach.forks)));
    let mut tasks = JoinSet::new();
    for (at, host) in hosts.into_iter().enumerate() {
        let (connect, permits) = (Arc::clone(&connect), Arc::clone(&permits));
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            (at, host.name.clone(), one(connect.as_ref(), &host).await)
        });
    }
    let mut results: Vec<_> = tasks.join_all().await;
    results.sort_by_key(|(at, ..)| *at);
    let mut out = session.out();
    let (mut lacking, mut away) = (false, false);
    for (_, name, result) in results {
        lacking |= result.as_ref().is_ok_and(|facts| !facts.missing.is_empty());
        away |= result.is_err();
        if session.global.output == Output::Jsonl {
            out.line(&object(&name, &result).to_string());
            continue;
        }
        match result {
            Ok(facts) => lines(&name, &facts).iter().for_each(|line| out.line(line)),
            Err(why) => match &why.hint {
                Some(hint) => out.line(&format!("{name}: {why}; {hint}")),
                None => out.line(&format!("{name}: {why}")),
            },
        }
    }
    // A host that is there and will not do outweighs one that is away.
    let code = match (lacking, away) {
        (true, _) => 2,
        (false, true) => error::UNREACHABLE,
        (false, false) => 0,
    };
    told(out, code)
}

/// A host for people.
fn lines(name: &HostName, facts: &HostFacts) -> Vec<String> {
    let HostFacts { login, uid, shell, os, state_dir, phase, run, .. } = facts;
    let mut lines = vec![format!("{name}: ok: {login} as uid {uid}, {shell}, {os}, state in {state_dir} ({phase})")];
    let lacks = Lacks::of(facts);
    // What one package brings is one line.
    let mut told: Vec<(&str, Vec<&str>)> = Vec::new();
    for lack in &lacks.needed {
        match told.iter_mut().find(|(install, _)| *install == lack.install) {
            Some((_, tools)) => tools.push(lack.tool),
            None => told.push((&lack.install, vec![lack.tool])),
        }
    }
    lines.extend(told.iter().map(|(install, tools)| format!("{name}: lacks {}: {install}", tools.join(", "))));
    // What the host says and this program does not know.
    let known = |tool: &&String| !lacks.needed.iter().any(|lack| lack.tool == tool.as_str());
    lines.extend(facts.missing.iter().filter(known).map(|tool| format!("{name}: lacks {tool}")));
    for (lacks, when) in [(&lacks.docker, "for runners in containers: "), (&lacks.nice, "")] {
        lines.extend(
            lacks
                .iter()
                .map(|Lack { tool, without, install }| format!("{name}: {when}no {tool}, so {without}: {install}")),
        );
    }
    if matches!(phase.as_str(), "armed" | "undo" | "dirty") {
        lines.push(format!("{name}: run {run} holds it: keyswap resume {run}"));
    }
    lines
}

/// A host for programs.
fn object(name: &HostName, result: &Result<HostFacts, Unreachable>) -> Value {
    let facts = match result {
        Ok(facts) => facts,
        Err(why) => {
            let reason = match why.kind {
                UnreachableKind::Network => "network",
                UnreachableKind::HostKey => "host-key",
                UnreachableKind::Login => "login",
                UnreachableKind::Escalation => "escalation",
                UnreachableKind::Shell => "shell",
            };
            return json!({
                "event": "ping", "host": name, "status": "unreachable", "reason": reason, "message": why.message,
                "hint": why.hint,
            });
        }
    };
    let lacks = Lacks::of(facts);
    let all = |lacks: &[Lack]| -> Vec<Value> {
        lacks
            .iter()
            .map(|lack| json!({ "tool": lack.tool, "without": lack.without, "install": lack.install }))
            .collect()
    };
    json!({
        "event": "ping", "host": name, "status": if facts.missing.is_empty() { "ok" } else { "failed" },
        "login": facts.login, "uid": facts.uid, "shell": facts.shell, "os": facts.os, "state_dir": facts.state_dir,
        "phase": facts.phase, "run": facts.run, "missing": all(&lacks.needed), "missing_for_docker": all(&lacks.docker),
        "nice_to_have": all(&lacks.nice),
    })
}

async fn one(connect: &SshConnect, host: &Host) -> Result<HostFacts, Unreachable> {
    let mut conn = connect.connect(host, &NoGate).await?;
    let answer = conn.call(&Op::Hello, None).await;
    conn.close().await;
    let failed = |message: String| Unreachable { kind: UnreachableKind::Shell, message, hint: None };
    match answer {
        Ok(Answer::Hello(facts)) => Ok(*facts),
        Ok(_) => Err(failed("the host answered another question".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}
