//! `keyswap rollback`: a run is taken back, also one that was cut off.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::args::BackArgs;
use super::services::Servers;
use super::session::Session;
use super::{CliError, signals};
use crate::engine::{NotNow, Patience, Settling, Shared};
use crate::event::{EventKind, Sink};
use crate::journal::{HostState, Journal, Record, ReopenCommand, RunState};
use crate::model::{HostResult, HostStatus, RunId, RunStatus};
use crate::plan::RunPlan;
use crate::remote::SshConnect;
use crate::rollout::{Outcome, SettleOrder, exit_code, run_status, settle_back};
use crate::secret::SecretValue;
use crate::step::Values;

pub(super) async fn rollback(session: &Session, args: &BackArgs) -> Result<u8, CliError> {
    back(session, args, ReopenCommand::Rollback).await
}

/// Takes back what `command` takes back: everything (`rollback`), or what is not settled (`resume --back`).
pub(super) async fn back(session: &Session, args: &BackArgs, command: ReopenCommand) -> Result<u8, CliError> {
    let store = session.store()?;
    let run = store.find(args.run.as_deref())?;
    let plan: RunPlan = store.plan(&run)?;
    let operator = session.operator();
    let verb = if command == ReopenCommand::Rollback { "rollback" } else { "resume --back" };
    let (journal, state) = store.reopen(&run, verb, &operator)?;
    let wanted = |host: &HostState| match command {
        ReopenCommand::Rollback => host.phase.can_go_back(),
        ReopenCommand::Resume | ReopenCommand::ResumeBack => host.phase.is_unsettled_work(),
    };
    if !plan.hosts.iter().any(|planned| state.hosts.get(&planned.host.name).is_some_and(wanted)) {
        session.out().line(&format!("run {run}: there is nothing to undo"));
        return Ok(0);
    }
    journal.append(None, Record::RunReopened { command, by: operator }).await?;
    let (events, report) = session.report(&run);
    let shared = shared_for(session, &plan, &run, journal, &events, Values::new())?;
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
    let outcome =
        take_back(&shared, &plan, &state, wanted, "taken back by the operator", usize::from(args.forks)).await;
    let code = finish_back(&shared, &events, &outcome).await;
    report.finish(&events);
    Ok(code)
}

/// What going on with a run shares.
pub(super) fn shared_for(
    session: &Session,
    plan: &RunPlan,
    run: &RunId,
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
        run: run.clone(),
        owner: session.owner(),
        connect: Arc::new(SshConnect::new(session.dialer(), plan.inventory.clone())),
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

/// Takes hosts back, the last batch first. A host that cannot be reached is owed if it was cut off, and only
/// unreachable if it was settled.
pub(super) async fn take_back(
    shared: &Shared,
    plan: &RunPlan,
    state: &RunState,
    wanted: impl Fn(&HostState) -> bool,
    reason: &str,
    forks: usize,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut ready = Vec::new();
    let mut attaching = tokio::task::JoinSet::new();
    for planned in &plan.hosts {
        let Some(host) = state.hosts.get(&planned.host.name).filter(|host| wanted(host)) else { continue };
        let mut settling = Settling::from_plan(shared, &planned.host, &planned.plan, planned.batch);
        settling.prepared = host.undo_digest.is_some();
        let unsettled = host.phase.is_unsettled_work();
        attaching.spawn(async move {
            let attached = settling.attach().await;
            (settling, unsettled, attached)
        });
    }
    while let Some(joined) = attaching.join_next().await {
        let Ok((settling, unsettled, attached)) = joined else { continue };
        match attached {
            Ok(()) => ready.push(settling),
            // It was cut off: the undo tries again, and then writes down that it is owed.
            Err(NotNow::Unreachable(_)) if unsettled => ready.push(settling),
            Err(NotNow::Unreachable(why)) => {
                outcome.hosts.push(left(shared, &settling, HostStatus::Unreachable, why));
            }
            Err(NotNow::Other(why)) => {
                outcome.failed = true;
                outcome.hosts.push(left(shared, &settling, HostStatus::Failed, why));
            }
        }
    }
    outcome.hosts.extend(settle_back(SettleOrder::newest_first(ready), forks, reason).await);
    let place = |result: &HostResult| plan.hosts.iter().position(|planned| planned.host.name == result.host);
    outcome.hosts.sort_by_key(place);
    outcome
}

/// A host that stays as it is; nothing was changed there.
fn left(shared: &Shared, settling: &Settling, status: HostStatus, reason: String) -> HostResult {
    let result = HostResult {
        host: settling.host.name.clone(),
        status,
        batch: settling.batch,
        credentials: Vec::new(),
        reason: Some(reason),
        mend: Vec::new(),
        notes: Vec::new(),
    };
    shared.events.emit(Some(&result.host), None, EventKind::HostFinished { result: result.clone() });
    result
}

/// Ends a way back: a rollback that succeeded is a success.
async fn finish_back(shared: &Shared, events: &Sink, outcome: &Outcome) -> u8 {
    let status = match run_status(outcome) {
        RunStatus::Succeeded => RunStatus::RolledBack,
        other => other,
    };
    end(shared, events, outcome, status).await
}

/// Ends a run: its last record, its last event, its exit code.
pub(super) async fn finish(shared: &Shared, events: &Sink, outcome: &Outcome) -> u8 {
    end(shared, events, outcome, run_status(outcome)).await
}

async fn end(shared: &Shared, events: &Sink, outcome: &Outcome, status: RunStatus) -> u8 {
    let mut code = exit_code(outcome);
    let written = async {
        shared.journal.append(None, Record::RunFinished { status }).await?;
        shared.journal.close().await
    };
    if let Err(error) = written.await {
        events.warn(None, format!("the journal could not be ended: {error}"));
        code = code.max(1);
    }
    events.emit(None, None, EventKind::RunFinished { status, exit_code: code, hosts: outcome.hosts.clone() });
    code
}

/// Whether a secret that was given again is the one that the run used.
pub(super) fn same_secret(state: &RunState, name: &str, value: &SecretValue) -> bool {
    state.secrets.get(name).is_some_and(|known| known == value.fingerprint())
}
