//! `keyswap runs`: history, from the journals alone or from the hosts alone.

use super::args::{Output, RunsArgs};
use super::inventory::{joined, select};
use super::session::Session;
use super::{CliError, error};
use crate::event::EventKind;
use crate::journal::{RunPhase, RunState, RunSummary, Store};
use crate::model::{HostResult, RunId};
use crate::plan::RunPlan;
use crate::report::{HistoryRow, history_table, recap};
use crate::rollout::{ask, history};

/// How many hosts are asked at the same time.
const FORKS: u16 = 25;

pub(super) async fn runs(session: &Session, args: &RunsArgs) -> Result<u8, CliError> {
    if args.from.from_hosts {
        return from_hosts(session, args).await;
    }
    let store = session.store()?;
    let mut out = session.out();
    let Some(prefix) = &args.run else {
        table(session, &store.list()?);
        return Ok(0);
    };
    let run = store.find(Some(prefix))?;
    let state = store.state(&run)?;
    let finished = finished(&state);
    if let (Output::Jsonl, Some(finished)) = (session.global.output, &finished) {
        let (events, report) = session.report(&run);
        events.emit(None, None, finished.clone());
        report.finish(&events);
        return Ok(0);
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
        let status = step.status.map_or("not known", crate::model::StepStatus::as_str);
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
            let status = step.status.map_or("not known", crate::model::StepStatus::as_str);
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
    Ok(0)
}

/// The history, newest first.
fn table(session: &Session, runs: &[RunSummary]) {
    let mut out = session.out();
    if runs.is_empty() {
        out.line("no runs yet");
        return;
    }
    let rows: Vec<HistoryRow> = runs
        .iter()
        .map(|summary| match &summary.state {
            Ok(state) => HistoryRow {
                run: &summary.run,
                started: state.started,
                ended: state.last.filter(|_| matches!(state.phase, RunPhase::Finished(_))),
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
}

/// The runs that hosts know, with each host's own word.
async fn from_hosts(session: &Session, args: &RunsArgs) -> Result<u8, CliError> {
    let hosts = select(session, &args.from.as_select(), Some(&args.from.as_reach(FORKS)))?;
    let connect = session.connect(&joined(&args.from.inventory))?;
    let asked = ask(&connect, hosts, usize::from(FORKS)).await;
    let mut out = session.out();
    let prefix = args.run.as_deref().unwrap_or_default();
    let history = history(&asked);
    if history.is_empty() {
        out.line("no host that was reached knows a run");
    }
    for (run, hosts) in history.iter().filter(|(run, _)| run.as_str().starts_with(prefix)) {
        out.line(&format!("run {run}"));
        for (host, word) in hosts {
            out.line(&format!("  {host}: {word}"));
        }
    }
    let mut code = 0;
    for (host, why) in asked.iter().filter_map(|asked| Some((&asked.host.name, asked.unreachable()?))) {
        code = error::UNREACHABLE;
        out.line(&format!("{host}: {why}"));
    }
    Ok(code)
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
