//! `keyswap rollback`: a run is taken back, also one that was cut off.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::args::BackArgs;
use super::from_hosts::back_from_hosts;
use super::services::Servers;
use super::session::Session;
use super::token::AtHand;
use super::{CliError, signals, token};
use crate::engine::{Patience, Shared};
use crate::event::{EventKind, Sink};
use crate::journal::{HostPhase, HostState, Journal, Record, ReopenCommand, RunState, Store};
use crate::model::{HostName, HostResult, HostStatus, RunId};
use crate::plan::{PlannedHost, RunPlan};
use crate::rollout::{
    Back, Outcome, about, end_as_left, exit_code, finish_back, goes_back, held_unseen, run_status, take_back,
};
use crate::step::Values;

/// Why hosts go back that nothing else sends back.
pub(super) const BY_OPERATOR: &str = "taken back by the operator";

pub(super) async fn rollback(session: &Session, args: &BackArgs) -> Result<u8, CliError> {
    if args.from.from_hosts {
        return back_from_hosts(session, args, ReopenCommand::Rollback).await;
    }
    back(session, args, ReopenCommand::Rollback, BY_OPERATOR, Wish::Back).await
}

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To go back.
    Back,
    /// To go on; it goes back since there is no way forward, and that is no success.
    Forward,
}

/// Takes back what `command` takes back: everything (`rollback`), or what is not settled (`resume --back`).
pub(super) async fn back(
    session: &Session,
    args: &BackArgs,
    command: ReopenCommand,
    reason: &str,
    wish: Wish,
) -> Result<u8, CliError> {
    let store = session.store()?;
    let run = store.find(args.run.as_deref())?;
    let plan: RunPlan = store.plan(&run)?;
    let before = store.state(&run)?;
    not_half_retired(session, &run, &before)?;
    if let Some(retired) = &before.retired {
        let (at, by) = (retired.started.strftime("%Y-%m-%d %H:%M UTC"), &retired.by.user);
        let reason =
            format!("run {run} was retired at {at} by {by}: the old credential is gone, and there is no way back");
        return Err(CliError::Usage(reason));
    }
    if let Some(later) = retired_later(&store, &run)? {
        return Err(CliError::Usage(format!(
            "run {later}, which came later on the same hosts, was retired: what run {run} replaced is gone from them, and there is \
             no way back"
        )));
    }
    let operator = session.operator();
    let verb = if command == ReopenCommand::Rollback { "rollback" } else { "resume --back" };
    let (journal, state) = store.reopen(&run, verb, &operator)?;
    let told = |planned: &PlannedHost| {
        state.hosts.get(&planned.host.name).is_some_and(|host| host.phase != HostPhase::Untouched)
    };
    // What the hosts recorded is written down before any of them is touched.
    if plan.of.is_some() && !plan.hosts.iter().all(told) {
        let why = format!(
            "run {run} was cut off before it wrote down what the hosts recorded: ask them again, with --from-hosts"
        );
        return Err(CliError::usage(why));
    }
    let wanted = |host: &HostState| goes_back(command, host);
    let any = plan.hosts.iter().any(|planned| state.hosts.get(&planned.host.name).is_some_and(wanted));
    if !any && state.owed_token().is_none() {
        let unseen = held_unseen(&session.connect(&plan.inventory)?, &plan, &state, usize::from(args.forks)).await;
        if !unseen.is_empty() {
            return Ok(cut_short(session, &run, unseen));
        }
        let asked = if wish == Wish::Back { "undo" } else { "resume" };
        let hint = if args.run.is_none() { earlier(session, &store, &run) } else { String::new() };
        session.nothing_to_do(&run, &state, &format!("run {run}: there is nothing to {asked}{hint}"));
        end_as_left(&journal, &state, command, operator).await?;
        return Ok(0);
    }
    journal.append(None, Record::RunReopened { command, by: operator }).await?;
    let (events, report) = session.report(&run);
    let shared = shared_for(session, &plan, journal, &events, Values::new())?;
    let names = plan
        .hosts
        .iter()
        .filter(|planned| state.hosts.get(&planned.host.name).is_some_and(wanted))
        .map(|planned| planned.host.name.clone());
    events.emit(
        None,
        None,
        EventKind::RunStarted {
            command: verb.to_owned(),
            playbook: plan.playbook.clone(),
            hosts: names.collect(),
            batches: 1,
        },
    );
    let mut outcome =
        take_back(&shared, &plan, &state, Back { command, reason, stops: true }, usize::from(args.forks)).await;
    outcome.failed |= wish == Wish::Forward && outcome.hosts.iter().any(|host| host.status == HostStatus::RolledBack);
    token::settle(session, &plan.services, &shared, AtHand::default(), &mut outcome).await;
    let code = finish_back(&shared, &outcome).await;
    report.finish(&events);
    Ok(code)
}

/// Refuses what cannot be done any more, where a retirement was begun and is not done: only its end leads on.
pub(super) fn not_half_retired(session: &Session, run: &RunId, state: &RunState) -> Result<(), CliError> {
    let Some(retired) = state.retired.as_ref().filter(|retired| retired.finished.is_none()) else { return Ok(()) };
    let (at, by) = (retired.started.strftime("%Y-%m-%d %H:%M UTC"), &retired.by.user);
    let revoke = if retired.revoke { " --revoke" } else { "" };
    let again = session.typed(&format!("keyswap retire{revoke} {run}"));
    Err(CliError::Usage(format!(
        "run {run} is being retired since {at} by {by}: there is no way back, and copies of the old credential may lie on its hosts \
         still. To go on with it: {again}"
    )))
}

/// Says of hosts that the journal is not to be believed about them. Nothing is done, and nothing is journaled.
fn cut_short(session: &Session, run: &RunId, hosts: Vec<HostResult>) -> u8 {
    let (events, report) = session.report(run);
    let outcome = Outcome { hosts, ..Outcome::default() };
    for result in &outcome.hosts {
        events.emit(Some(&result.host), None, EventKind::HostFinished { result: result.clone() });
    }
    let (status, exit_code) = (run_status(&outcome), exit_code(&outcome));
    events.emit(None, None, EventKind::RunFinished { status, exit_code, hosts: outcome.hosts });
    report.finish(&events);
    exit_code
}

/// A later run that changed hosts of this one for good: with it went what this one would need.
fn retired_later(store: &Store, run: &RunId) -> Result<Option<RunId>, CliError> {
    let state = store.state(run)?;
    let news = |state: &RunState| -> Vec<HostName> {
        let new = state.hosts.iter().filter(|(_, host)| host.phase == HostPhase::New);
        new.map(|(name, _)| name.clone()).collect()
    };
    let mine = news(&state);
    let mut later = store.ids()?.into_iter().filter(|id| id > run);
    let gone = |id: &RunId| {
        let of = store.state(id).ok().filter(|later| later.retired.is_some());
        of.is_some_and(|later| news(&later).iter().any(|name| mine.contains(name)))
    };
    Ok(if mine.is_empty() { None } else { later.find(gone) })
}

/// Names the latest run before this one that can be taken back, if one of the last few can.
fn earlier(session: &Session, store: &Store, run: &RunId) -> String {
    let ids = store.ids().unwrap_or_default();
    let can = |id: &RunId| store.state(id).is_ok_and(|state| state.can_go_back().next().is_some());
    let found = ids.into_iter().filter(|id| id < run).take(20).find(can);
    let typed = |id: RunId| session.typed(&format!("keyswap rollback {id}"));
    found.map_or_else(String::new, |id| format!("; the latest run that can be taken back: {}", typed(id)))
}

/// What going on with a run shares.
pub(super) fn shared_for(
    session: &Session,
    plan: &RunPlan,
    journal: Journal,
    events: &Sink,
    values: Values,
) -> Result<Shared, CliError> {
    let cancel = CancellationToken::new();
    let warn = events.clone();
    signals::watch(cancel.clone(), &session.screen, move || {
        warn.warn(None, "stopping: no new step begins, and what is under way is settled; again to leave at once");
    })?;
    Ok(Shared {
        run: plan.on_hosts().clone(),
        owner: session.owner(),
        about: Arc::new(about(plan)),
        connect: session.connect(&plan.inventory)?,
        journal,
        events: events.clone(),
        values: Arc::new(values),
        services: Arc::new(Servers::none()),
        halt: cancel.child_token(),
        cancel,
        patience: Patience::default(),
        guard: plan.rollout.guard,
    })
}
