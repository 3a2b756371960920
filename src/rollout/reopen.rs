//! Going on with a run that was cut off, taking one back, and ending either.
//!
//! What is done with a host is decided by its place in the journal's table and by what the host itself says; nothing else
//! is remembered.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::batch::{gather, not_known};
use super::common::Common;
use super::settle::{Returning, newest_first};
use super::standing::Standing;
use super::{Outcome, Rolling, Spared, exit_code, leave_out, run, run_status};
use crate::engine::{Known, NotNow, Saga, Settling, Shared, Stop, StopKind};
use crate::event::EventKind;
use crate::journal::{
    HostPhase, HostState, Journal, JournalError, Operator, OwedIn, Record, ReopenCommand, RunPhase, RunState,
};
use crate::model::{HostName, HostResult, HostStatus, OnFailure, RunStatus};
use crate::plan::RunPlan;
use crate::remote::UnreachableKind;
use crate::step::{Values, Work};

/// Whether a command that takes a run back has something to do on a host: `rollback` takes back everything,
/// `resume --back` what is not settled.
#[must_use]
pub fn goes_back(command: ReopenCommand, host: &HostState) -> bool {
    match command {
        ReopenCommand::Rollback => host.phase.can_go_back(),
        ReopenCommand::Resume | ReopenCommand::ResumeBack => host.phase.is_unsettled_work(),
    }
}

/// Whether `resume` has something to do on a host.
#[must_use]
pub fn is_open(host: &HostState) -> bool {
    host.phase == HostPhase::Untouched || host.phase.is_unsettled_work()
}

/// Whether a host goes on forward. What had begun to go back goes on going back. What failed or was stopped goes back, too,
/// unless it is to stay on the new credential; also if what went on with the run since was cut off itself.
fn goes_forward(host: &HostState, holds: bool) -> bool {
    match host.phase {
        HostPhase::Untouched
        | HostPhase::Preparing
        | HostPhase::Prepared
        | HostPhase::Acting(_)
        | HostPhase::Between(_)
        | HostPhase::Committing
        | HostPhase::Owed(OwedIn::Preparing | OwedIn::Forward | OwedIn::Committing) => holds || !host.fell,
        HostPhase::Halted(_) => holds,
        _ => false,
    }
}

/// Whether the secrets that the plan writes were given again, and are those that the run used.
///
/// # Errors
/// The first that is missing or is another one, in a line.
pub fn same_secrets(plan: &RunPlan, state: &RunState, values: &Values) -> Result<(), String> {
    let steps = plan.hosts.iter().flat_map(|planned| &planned.plan.steps);
    let needed = steps.filter_map(|step| match &step.work {
        Work::Act { data: Some((name, _)), .. } => Some(name),
        _ => None,
    });
    for name in needed {
        let known = state.secrets.get(name).ok_or_else(|| format!("the journal does not know secret `{name}`"))?;
        let value = values.get(name).ok_or_else(|| format!("secret `{name}` was not given again"))?;
        if known != value.fingerprint() {
            return Err(format!("secret `{name}` is another one now ({})", value.fingerprint()));
        }
    }
    Ok(())
}

/// Settles a run that was cut off: forward where the hosts still can, else back.
pub async fn go_on(shared: &Shared, plan: &RunPlan, state: &RunState, forks: usize) -> Outcome {
    let failed = state.hosts.values().filter(|host| has_failed(host)).count();
    let mut rolling = Rolling::new(shared.clone(), plan.rollout.clone(), forks);
    rolling.failed_before = u32::try_from(failed).unwrap_or(u32::MAX);
    let (mut forward, mut back, mut reasons) = (Vec::new(), HashSet::new(), Vec::new());
    for planned in &plan.hosts {
        let name = &planned.host.name;
        let Some(host) = state.hosts.get(name).filter(|host| is_open(host)) else { continue };
        if goes_forward(host, rolling.holds()) {
            forward.push(planned.clone());
        } else {
            back.insert(name.clone());
        }
    }
    let mut standing = Standing::of(&plan.hosts.iter().map(|planned| &planned.plan));
    let begins = |host: &HostName| state.hosts.get(host).is_some_and(|host| host.phase == HostPhase::Untouched);
    standing.recall(&state.shared_steps, forward.iter().any(|planned| begins(&planned.host.name)));
    standing.new_before = state.hosts.values().any(|host| host.phase == HostPhase::New);
    rolling.recalled = Some(standing);
    let names: Vec<HostName> = forward.iter().map(|planned| planned.host.name.clone()).collect();
    let common = Arc::new(Common::default());
    let reopened = gather(forward, forks, |planned| {
        let (shared, common) = (shared.clone(), Arc::clone(&common));
        let known = state.hosts.get(&planned.host.name).map(Known::of).unwrap_or_default();
        async move {
            let turn = common.turn();
            let of_plan = (&planned.host, &planned.plan, planned.batch);
            let reopened = Saga::reopen(&shared, of_plan, known, &turn).await;
            let kind = if let Err((_, kind)) = &reopened { *kind } else { None };
            match turn.ended(kind) {
                Some(reason) => Err(Stop { kind: StopKind::Lost, reason }),
                None => reopened.map_err(|(stop, _)| stop),
            }
        }
    });
    let (mut sagas, mut spared, mut fell) = (Vec::new(), Vec::new(), HashSet::new());
    let mut outcome = Outcome::default();
    for (name, reopened) in names.into_iter().zip(reopened.await) {
        let broken =
            || Stop { kind: StopKind::Failed, reason: "keyswap itself failed while it looked at it".to_owned() };
        let Stop { kind, reason: why } = match reopened.unwrap_or_else(|| Err(broken())) {
            Ok(saga) => {
                sagas.push(saga);
                continue;
            }
            Err(stop) => stop,
        };
        if begins(&name) {
            let status = match kind {
                StopKind::Lost => HostStatus::Unreachable,
                StopKind::Held => HostStatus::Skipped,
                _ => HostStatus::Failed,
            };
            let held = kind == StopKind::Held;
            outcome.held |= held;
            spared.push(Spared { host: name, status, held, kind: None, reason: why });
            continue;
        }
        // Where the old one must not come back, what cannot be asked is owed, and may still go on.
        if kind == StopKind::Lost
            && rolling.holds()
            && let Some(planned) = plan.hosts.iter().find(|planned| planned.host.name == name)
        {
            let settling = Settling::from_plan(shared, &planned.host, &planned.plan, planned.batch);
            outcome.hosts.push(settling.owed(format!("the host could not be reached: {why}")).await);
            outcome.failed = true;
            rolling.failed_before = rolling.failed_before.saturating_add(1);
            continue;
        }
        reasons.push(format!("{name}: {why}"));
        rolling.failed_before = rolling.failed_before.saturating_add(1);
        fell.insert(name.clone());
        back.insert(name);
    }
    // More than the budget bears: no host begins, and what is under way goes where the scope says.
    let mut not_begun = Vec::new();
    if let Some(why) = rolling.stopped_before() {
        let scope = plan.rollout.on_failure;
        for saga in std::mem::take(&mut sagas) {
            if !saga.touched() {
                not_begun.push(saga);
            } else if !saga.has_begun() || matches!(scope, OnFailure::RollbackBatch | OnFailure::RollbackAll) {
                back.insert(saga.name().clone());
            } else {
                sagas.push(saga);
            }
        }
        // What an earlier session let go: of the batch in which the budget was exceeded, or everywhere.
        let failed = |name: &HostName| fell.contains(name) || state.hosts.get(name).is_some_and(has_failed);
        let hit = plan.hosts.iter().filter(|planned| failed(&planned.host.name)).map(|planned| planned.batch).max();
        back.extend(let_go(plan, state, scope, hit));
        reasons.push(why);
    }
    // Those that go back do so now: they do not wait for the others.
    let reason = if reasons.is_empty() { "it had begun to go back".to_owned() } else { reasons.join("; ") };
    let returning = |names: &HashSet<HostName>| RunPlan {
        hosts: plan.hosts.iter().filter(|planned| names.contains(&planned.host.name)).cloned().collect(),
        ..plan.clone()
    };
    // By name, whatever their phase: those of an earlier batch that go back with the rest are settled.
    let how = |reason| Back { command: ReopenCommand::Rollback, reason, stops: false };
    let first = returning(&back);
    let (mut forward, returned, ()) = tokio::join!(
        Box::pin(run(&rolling, sagas)),
        take_back_as(shared, &first, state, how(&reason), (forks, &fell)),
        async {
            let why = rolling.stopped_before().unwrap_or_default();
            for saga in not_begun {
                outcome.hosts.push(saga.spare(HostStatus::Skipped, Some(format!("not begun: {why}"))).await);
            }
            for one in spared {
                outcome.failed |= one.status == HostStatus::Failed;
                outcome.hosts.push(leave_out(shared, one).await);
            }
        }
    );
    let mut all_returned = vec![returned];
    if let Some((batch, why)) = forward.also_back.take() {
        let also: HashSet<HostName> =
            let_go(plan, state, plan.rollout.on_failure, batch).filter(|name| !back.contains(name)).collect();
        let also_plan = returning(&also);
        all_returned.push(take_back_as(shared, &also_plan, state, how(&why), (forks, &fell)).await);
        back.extend(also);
    }
    outcome.merge(forward);
    for returned in all_returned {
        outcome.failed |= returned.hosts.iter().any(|host| host.status == HostStatus::RolledBack);
        outcome.merge(returned);
    }
    // A run that goes on ends as all of it ended, also what was settled before it was cut off.
    let before = settled_before(state);
    outcome.failed |= before.failed;
    outcome.hosts.extend(before.hosts.into_iter().filter(|host| !back.contains(&host.host)));
    outcome.hosts.sort_by_key(|result| state.hosts.get_index_of(&result.host));
    outcome
}

/// Hosts that an earlier session let go and that go back with a failure: by the scope, those of the batch, or all.
fn let_go<'a>(
    plan: &'a RunPlan,
    state: &'a RunState,
    scope: OnFailure,
    batch: Option<u32>,
) -> impl Iterator<Item = HostName> + 'a {
    let new = |name: &HostName| state.hosts.get(name).is_some_and(|host| host.phase == HostPhase::New);
    let hosts = plan.hosts.iter().filter(move |planned| match scope {
        OnFailure::RollbackAll => true,
        OnFailure::RollbackBatch => Some(planned.batch) == batch,
        OnFailure::RollbackHost | OnFailure::Hold => false,
    });
    hosts.map(|planned| planned.host.name.clone()).filter(move |name| new(name))
}

/// Whether a host counts against the budget: it failed itself, and did not only go back with one that did. What had failed
/// and is new all the same does not.
fn has_failed(host: &HostState) -> bool {
    match host.phase {
        HostPhase::Held => true,
        // Before anything of the run was there.
        HostPhase::Spared => host.result.as_ref().is_some_and(|result| result.status == HostStatus::Failed),
        HostPhase::Untouched | HostPhase::New => false,
        _ => host.fell,
    }
}

/// How those hosts ended that need nothing more, as their last records say.
fn settled_before(state: &RunState) -> Outcome {
    let settled = state.hosts.values().filter(|host| host.phase.is_settled() && !host.phase.is_unsettled_work());
    let hosts: Vec<HostResult> = settled.filter_map(|host| host.result.clone()).collect();
    let failed = hosts.iter().any(|host| matches!(host.status, HostStatus::Failed | HostStatus::RolledBack));
    Outcome { hosts, failed, ..Outcome::default() }
}

/// Ends a run that was cut off before its first host was touched, or after its last one was settled: as they were left.
/// Does nothing for one that has ended, or that never began.
///
/// # Errors
/// When the journal cannot be written.
pub async fn end_as_left(
    journal: &Journal,
    state: &RunState,
    command: ReopenCommand,
    by: Operator,
) -> Result<(), JournalError> {
    if state.phase != RunPhase::Open {
        return Ok(());
    }
    let mut outcome = settled_before(state);
    let none = outcome.hosts.is_empty();
    // Whoever ends it here gives up the hosts that never began.
    outcome.interrupted = !none && state.has_hosts_to_begin();
    let status = if none { RunStatus::Interrupted } else { run_status(&outcome) };
    let exit_code = Some(exit_code(&outcome));
    journal.append(None, Record::RunReopened { command, by }).await?;
    journal.append(None, Record::RunFinished { status, exit_code }).await?;
    journal.close().await.map(|_| ())
}

/// How hosts are taken back.
#[derive(Debug, Clone, Copy)]
pub struct Back<'a> {
    /// By which command.
    pub command: ReopenCommand,
    /// Why.
    pub reason: &'a str,
    /// Whether the operator can stop it between hosts.
    pub stops: bool,
}

/// Takes hosts back, the last batch first. A host that cannot be reached is owed if it was cut off, and only
/// unreachable if it was settled.
pub async fn take_back(shared: &Shared, plan: &RunPlan, state: &RunState, how: Back<'_>, forks: usize) -> Outcome {
    take_back_as(shared, plan, state, how, (forks, &HashSet::new())).await
}

async fn take_back_as(
    shared: &Shared,
    plan: &RunPlan,
    state: &RunState,
    how: Back<'_>,
    (forks, fell): (usize, &HashSet<HostName>),
) -> Outcome {
    let mut hosts = Vec::new();
    // All are looked for at once, also those whose turn comes late: who does not answer is waited for once.
    let looking = Arc::new(Semaphore::new(forks.max(1)));
    let common = Arc::new(Common::default());
    let told = Arc::new(Mutex::new(Outcome::default()));
    for planned in &plan.hosts {
        let name = &planned.host.name;
        let Some(host) = state.hosts.get(name).filter(|host| goes_back(how.command, host)) else { continue };
        let mut settling = Settling::from_plan(shared, &planned.host, &planned.plan, planned.batch);
        settling.prepared = host.undo_digest.is_some();
        settling.with_rest = !(fell.contains(name) || host.fell);
        if host.state_dir.is_some() {
            settling.state_dir.clone_from(&host.state_dir);
        }
        let unsettled = host.phase.is_unsettled_work();
        let (looking, common, told) = (Arc::clone(&looking), Arc::clone(&common), Arc::clone(&told));
        let (reason, stop) = (how.reason.to_owned(), how.stops.then(|| shared.cancel.clone()));
        let ready = tokio::spawn(async move {
            let _permit = looking.acquire_owned().await;
            if stop.is_some_and(|stop| stop.is_cancelled()) {
                return Ok(settling);
            }
            let turn = common.turn();
            let attached = settling.attach(&turn).await;
            let kind = if let Err(NotNow::Unreachable(kind, _)) = &attached { Some(*kind) } else { None };
            let attached = match turn.ended(kind) {
                Some(why) => Err(NotNow::Unreachable(UnreachableKind::Login, why)),
                None => attached,
            };
            match attached {
                Ok(()) => Ok(settling),
                Err(why) => Err(Box::new(not_now(settling, why, (&reason, unsettled), &told).await)),
            }
        });
        let (lost, batch) = (name.clone(), planned.batch);
        let of = shared.clone();
        let ready = async move { ready.await.unwrap_or_else(|_| Err(Box::new(not_known(&of, lost, batch)))) };
        hosts.push(Returning { name: name.clone(), batch: planned.batch, ready });
    }
    let stop = how.stops.then_some(&shared.cancel);
    let (results, stayed) = newest_first(hosts, shared, forks, how.reason, stop).await;
    let mut outcome = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
    outcome.hosts.extend(results);
    for settling in stayed {
        outcome.interrupted = true;
        let open = state.hosts.get(&settling.host.name).is_some_and(|host| host.phase.is_unsettled_work());
        outcome.unfinished |= open;
        let why =
            if open { "stopped by the operator: it is still in the run's midst" } else { "stopped by the operator" };
        outcome.hosts.push(left(shared, &settling, HostStatus::Skipped, why.to_owned()));
    }
    outcome.hosts.sort_by_key(|result| state.hosts.get_index_of(&result.host));
    outcome
}

/// What is said of a host that cannot be taken back now.
async fn not_now(
    settling: Settling,
    why: NotNow,
    (reason, unsettled): (&str, bool),
    told: &Mutex<Outcome>,
) -> HostResult {
    let shared = settling.shared.clone();
    let tell = |tell: &dyn Fn(&mut Outcome)| tell(&mut told.lock().unwrap_or_else(PoisonError::into_inner));
    match why {
        // It was cut off, and enough was tried just now.
        NotNow::Unreachable(_, why) if unsettled => {
            settling.owed_a_way_back(format!("{reason}; the host could not be reached: {why}")).await
        }
        NotNow::Unreachable(_, why) => left(&shared, &settling, HostStatus::Unreachable, why),
        NotNow::Contradicts(why) => settling.leave(why).await,
        NotNow::Held(why) => {
            tell(&|outcome| {
                outcome.held = true;
                outcome.unfinished |= unsettled;
            });
            left(&shared, &settling, HostStatus::Skipped, why)
        }
        NotNow::Other(why) => {
            tell(&|outcome| {
                outcome.failed = true;
                outcome.unfinished |= unsettled;
            });
            left(&shared, &settling, HostStatus::Failed, why)
        }
    }
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

/// Ends a way back: a rollback that succeeded is a success. Gives back the exit code.
pub async fn finish_back(shared: &Shared, outcome: &Outcome) -> u8 {
    let status = match run_status(outcome) {
        RunStatus::Succeeded => RunStatus::RolledBack,
        other => other,
    };
    end(shared, outcome, status).await
}

/// Ends a run: its last record, its last event. Gives back its exit code.
pub async fn finish(shared: &Shared, outcome: &Outcome) -> u8 {
    end(shared, outcome, run_status(outcome)).await
}

async fn end(shared: &Shared, outcome: &Outcome, status: RunStatus) -> u8 {
    let mut code = exit_code(outcome);
    let written = async {
        // Where hosts are left in its midst the run goes on, whenever somebody does.
        if !outcome.unfinished {
            shared.journal.append(None, Record::RunFinished { status, exit_code: Some(code) }).await?;
        }
        shared.journal.close().await
    };
    if let Err(error) = written.await {
        shared.events.warn(None, format!("the journal could not be ended: {error}"));
        code = code.max(1);
    }
    shared.events.emit(None, None, EventKind::RunFinished { status, exit_code: code, hosts: outcome.hosts.clone() });
    code
}

#[cfg(test)]
mod tests;
