//! `keyswap rollback`: a run is taken back, also one that was cut off.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::args::BackArgs;
use super::from_hosts::back_from_hosts;
use super::services::Servers;
use super::session::Session;
use super::{CliError, signals};
use crate::engine::{Patience, Shared};
use crate::event::{EventKind, Sink};
use crate::journal::{HostState, Journal, Record, ReopenCommand};
use crate::plan::RunPlan;
use crate::rollout::{about, end_as_left, finish_back, goes_back, take_back};
use crate::step::Values;

/// Why hosts go back that nothing else sends back.
pub(super) const BY_OPERATOR: &str = "taken back by the operator";

pub(super) async fn rollback(session: &Session, args: &BackArgs) -> Result<u8, CliError> {
    if args.from.from_hosts {
        return back_from_hosts(session, args, ReopenCommand::Rollback).await;
    }
    back(session, args, ReopenCommand::Rollback, BY_OPERATOR, "undo").await
}

/// Takes back what `command` takes back: everything (`rollback`), or what is not settled (`resume --back`). Where no host
/// was touched there is nothing to do, and `asked` is the word for what the operator wanted.
pub(super) async fn back(
    session: &Session,
    args: &BackArgs,
    command: ReopenCommand,
    reason: &str,
    asked: &str,
) -> Result<u8, CliError> {
    let store = session.store()?;
    let run = store.find(args.run.as_deref())?;
    let plan: RunPlan = store.plan(&run)?;
    let operator = session.operator();
    let verb = if command == ReopenCommand::Rollback { "rollback" } else { "resume --back" };
    let (journal, state) = store.reopen(&run, verb, &operator)?;
    let wanted = |host: &HostState| goes_back(command, host);
    if !plan.hosts.iter().any(|planned| state.hosts.get(&planned.host.name).is_some_and(wanted)) {
        session.nothing_to_do(&run, &state, &format!("run {run}: there is nothing to {asked}"));
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
    let outcome = take_back(&shared, &plan, &state, command, reason, usize::from(args.forks)).await;
    let code = finish_back(&shared, &outcome).await;
    report.finish(&events);
    Ok(code)
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
    signals::watch(cancel.clone(), move || {
        warn.warn(None, "stopping after the hosts that are under way; again to leave at once");
    })?;
    Ok(Shared {
        run: plan.on_hosts().clone(),
        owner: session.owner(),
        about: Arc::new(about(plan)),
        connect: session.connect(&plan.inventory),
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
