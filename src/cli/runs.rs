//! `keyswap runs`: history, from the journals alone or from the hosts alone.

use serde_json::{Value, json};

use super::args::{Output, RunsArgs};
use super::from_hosts::say_silent;
use super::inventory::{joined, select};
use super::session::{Session, told, unless_unsaid};
use super::{CliError, error};
use crate::event::EventKind;
use crate::journal::{RunPhase, RunState, RunSummary, Store};
use crate::model::{HostResult, RunId, StepStatus};
use crate::plan::RunPlan;
use crate::report::{HistoryRow, history_table, recap};
use crate::rollout::{NoRun, ask, history};

/// How many hosts are asked at the same time.
const FORKS: u16 = 25;

pub(super) async fn runs(session: &Session, args: &RunsArgs) -> Result<u8, CliError> {
    if args.from.from_hosts {
        return from_hosts(session, args).await;
    }
    let store = session.store()?;
    let mut out = session.out();
    let Some(prefix) = &args.run else {
        return table(session, &store.list()?);
    };
    let run = store.find(Some(prefix))?;
    // Looked at first: a run that ends in between is then told as at work, and not as cut off.
    let locked = store.dir(&run).is_locked();
    let state = store.state(&run)?;
    let finished = finished(&state);
    if session.global.output == Output::Jsonl {
        let Some(finished) = finished else {
            out.json(&unfinished(&run, &state, locked));
            return told(out, 0);
        };
        let (events, report) = session.report(&run);
        events.emit(None, None, finished);
        return unless_unsaid(report.told(&events), 0);
    }
    out.line(&format!("run {run}: {} ({})", state.playbook, phase(&state)));
    out.line(&format!("by {}@{}, keyswap {}", state.by.user, state.by.host, state.by.version));
    for approved in &state.approvals {
        out.line(&format!("{} plan {} ({})", approved.ts, approved.plan, approved.what));
        for proof in &approved.approvals {
            let comment = proof.comment.as_ref().map(|comment| format!(": {comment}")).unwrap_or_default();
            out.line(&format!("  approved by `{}` ({}) at {}{comment}", proof.signer, proof.key, proof.signed));
        }
    }
    for (name, fingerprint) in &state.secrets {
        out.line(&format!("secret {name}: {fingerprint}"));
    }
    for note in &state.notes {
        let host = note.host.as_ref().map(|host| format!("{host}: ")).unwrap_or_default();
        out.line(&format!("{} {host}{}", note.ts, note.text));
    }
    if let Some(token) = &state.token {
        let end = token.minted.as_ref().map(|minted| minted.expires.strftime("%Y-%m-%d %H:%M UTC").to_string());
        let end = end.map_or_else(|| "never came".to_owned(), |end| format!("until {end}"));
        let dead = token.revoked.map(|at| format!(", dead since {}", at.strftime("%Y-%m-%d %H:%M UTC")));
        out.line(&format!("{}: {end}{}", token.describe(), dead.unwrap_or_default()));
    }
    for step in &state.shared_steps {
        let status = step.status.map_or("not known", StepStatus::as_str);
        out.line(&format!("{} [{status}] {}", step.step, step.detail));
    }
    if let Some(retired) = &state.retired {
        let done = if retired.finished.is_some() { "retired" } else { "being retired" };
        out.line(&format!("{} {done} by {}: it cannot be taken back", retired.started, retired.by.user));
    }
    for (ts, command, by) in &state.reopened {
        out.line(&format!("{ts} {} by {}@{}", command.as_str(), by.user, by.host));
    }
    for (name, host) in &state.hosts {
        let status = host.result.as_ref().map_or_else(|| host.phase.says(), |result| result.status.to_string());
        out.line(&format!("{name}: {status}"));
        for credential in host.result.iter().flat_map(|result| &result.credentials) {
            let word = |fingerprint: &Option<crate::model::Fingerprint>| {
                fingerprint.as_ref().map_or_else(|| "absent".to_owned(), ToString::to_string)
            };
            let now = if credential.unread { "not read".to_owned() } else { word(&credential.now) };
            out.line(&format!("  {}: {} -> {now}", credential.path, word(&credential.before)));
        }
        for step in host.steps.values() {
            let status = step.status.map_or("not known", StepStatus::as_str);
            out.line(&format!("  {} [{status}] {}", step.step, step.detail));
        }
        if let Some(reason) = host.result.as_ref().and_then(|result| result.reason.as_ref()) {
            out.line(&format!("  why: {reason}"));
        }
        for undo in &host.undo {
            out.line(&format!("  undo {} [{}] {}", undo.label, undo.status, undo.detail));
        }
        for command in host.result.iter().flat_map(|result| &result.mend) {
            out.line(&format!("  mend: {command}"));
        }
    }
    if let Some(finished) = finished {
        // What was gone on with or retired since leads no further in the way that its end told.
        let command = if state.reopened.is_empty() && state.retired.is_none() { state.command.as_str() } else { "" };
        let told = (command, place(&store, &run, &state));
        let ends = (session.look(), &*session.same_state());
        for line in recap(&session.redactor, &run, told, finished, ends) {
            out.line(&line);
        }
    }
    told(out, 0)
}

/// A run that has no end yet, for programs.
fn unfinished(run: &RunId, state: &RunState, locked: bool) -> Value {
    let hosts = state.hosts.iter().map(|(name, host)| {
        let steps = host.steps.values().map(|step| {
            let status = step.status.map_or("unknown", StepStatus::as_str);
            json!({ "index": step.step.index, "step": step.step.name, "status": status, "detail": step.detail })
        });
        let steps: Vec<Value> = steps.collect();
        let mut told = host.result.as_ref().map_or_else(|| json!({ "host": name }), |result| json!(result));
        if let Value::Object(told) = &mut told {
            told.insert("phase".to_owned(), host.phase.says().into());
            told.insert("steps".to_owned(), steps.into());
        }
        told
    });
    json!({
        "event": "run-unfinished", "run": run, "started": state.started, "status": word(state, locked),
        "playbook": state.playbook, "by": format!("{}@{}", state.by.user, state.by.host),
        "hosts": hosts.collect::<Vec<_>>(),
    })
}

/// How a run stands, as programs get it.
fn word(state: &RunState, locked: bool) -> String {
    if locked { "at-work".to_owned() } else { phase(state).replace(' ', "-") }
}

/// A run in a line, for programs.
fn object(summary: &RunSummary) -> Value {
    match &summary.state {
        Ok(state) => json!({
            "event": "run", "run": summary.run, "started": state.started, "ended": ended(state),
            "status": word(state, summary.locked), "hosts": state.hosts.len(), "playbook": state.playbook,
        }),
        Err(error) => json!({
            "event": "run", "run": summary.run, "status": "unreadable", "reason": crate::model::chain(error),
        }),
    }
}

/// When a run ended, if it did.
fn ended(state: &RunState) -> Option<jiff::Timestamp> {
    state.last.filter(|_| matches!(state.phase, RunPhase::Finished(_)))
}

/// The history, newest first.
fn table(session: &Session, runs: &[RunSummary]) -> Result<u8, CliError> {
    let mut out = session.out();
    if session.global.output == Output::Jsonl {
        runs.iter().for_each(|summary| out.json(&object(summary)));
        return told(out, 0);
    }
    if runs.is_empty() {
        out.line("no runs yet");
        return told(out, 0);
    }
    let rows: Vec<HistoryRow> = runs
        .iter()
        .map(|summary| match &summary.state {
            Ok(state) => HistoryRow {
                run: &summary.run,
                started: state.started,
                ended: ended(state),
                status: if summary.locked { "under way" } else { phase(state) },
                role: match state.phase {
                    RunPhase::Finished(status) if !state.is_half_retired() => Some(status),
                    _ => None,
                },
                hosts: Some(state.hosts.len()),
                about: state.playbook.clone(),
            },
            Err(error) => HistoryRow {
                run: &summary.run,
                started: None,
                ended: None,
                status: "unreadable",
                role: None,
                hosts: None,
                about: crate::model::chain(error),
            },
        })
        .collect();
    for line in history_table(&session.redactor, &rows, session.look()) {
        out.line(&line);
    }
    told(out, 0)
}

/// The runs that hosts know, with each host's own word.
async fn from_hosts(session: &Session, args: &RunsArgs) -> Result<u8, CliError> {
    let hosts = select(session, &args.from.as_select(), Some(&args.from.as_reach(FORKS)))?;
    let connect = session.connect(&joined(&args.from.inventory))?;
    let asked = ask(&connect, hosts, usize::from(FORKS)).await;
    let is_json = session.global.output == Output::Jsonl;
    let prefix = args.run.as_deref().unwrap_or_default();
    let mut known = history(&asked);
    known.retain(|(run, _)| run.as_str().starts_with(prefix));
    let mut out = session.out();
    for (run, hosts) in &known {
        if is_json {
            let hosts: Vec<Value> = hosts.iter().map(|(host, word)| json!({ "host": host, "phase": word })).collect();
            out.json(&json!({ "event": "run-recorded", "run": run, "hosts": hosts }));
            continue;
        }
        out.line(&format!("run {run}"));
        for (host, word) in hosts {
            out.line(&format!("  {host}: {word}"));
        }
    }
    // Who did not answer may know it.
    let code = if say_silent(session, &asked) { error::UNREACHABLE } else { 0 };
    if known.is_empty() {
        let none = NoRun::Unknown(args.run.clone()).to_string();
        if code == 0 && args.run.is_some() {
            return Err(CliError::usage(none));
        }
        match is_json {
            true => out.json(&json!({ "event": "warning", "message": none })),
            false => out.line(&none),
        }
    }
    told(out, code)
}

/// The run's last event, as it was said when it ended; none for a run that was cut off.
fn finished(state: &RunState) -> Option<EventKind> {
    let (RunPhase::Finished(status), Some(exit_code)) = (state.phase, state.exit_code) else { return None };
    let hosts = state.hosts.values().filter_map(|host| host.result.clone()).collect();
    Some(EventKind::RunFinished { status, exit_code, hosts })
}

/// The last batch that began, and how many there were. Who goes on with a run makes other batches of what is left.
fn place(store: &Store, run: &RunId, state: &RunState) -> Option<(u32, u32)> {
    if !state.reopened.is_empty() {
        return None;
    }
    let results = state.hosts.values().filter_map(|host| host.result.as_ref());
    let last = results.map(|result: &HostResult| result.batch).max().filter(|batch| *batch > 0)?;
    let plan: RunPlan = store.plan(run).ok()?;
    let of = plan.hosts.iter().map(|planned| planned.batch).max()?;
    Some((last, of))
}

fn phase(state: &RunState) -> &'static str {
    match state.phase {
        RunPhase::Finished(_) if state.is_half_retired() => "being retired",
        RunPhase::Fresh => "not begun",
        RunPhase::Open => "cut off",
        RunPhase::Finished(status) => status.as_str(),
    }
}
