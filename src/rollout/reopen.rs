//! Going on with a run that was cut off, taking one back, and ending either.
//!
//! What is done with a host is decided by its place in the journal's table and by what the host itself says; nothing else
//! is remembered.

use std::collections::HashSet;

use super::batch::each;
use super::settle::{SettleOrder, settle_back};
use super::standing::Standing;
use super::{Outcome, Rolling, Spared, exit_code, leave_out, run, run_status};
use crate::engine::{NotNow, Saga, Settling, Shared, Stop, StopKind};
use crate::event::EventKind;
use crate::journal::{
    HostPhase, HostState, Journal, JournalError, Operator, OwedIn, Record, ReopenCommand, RunPhase, RunState,
};
use crate::model::{HostName, HostResult, HostStatus, OnFailure, RunStatus};
use crate::plan::RunPlan;
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

/// Whether a host goes on forward. What had begun to go back goes on going back.
fn goes_forward(host: &HostState) -> bool {
    matches!(
        host.phase,
        HostPhase::Untouched
            | HostPhase::Preparing
            | HostPhase::Prepared
            | HostPhase::Acting(_)
            | HostPhase::Between(_)
            | HostPhase::Committing
            | HostPhase::Owed(OwedIn::Preparing | OwedIn::Forward | OwedIn::Committing)
    )
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
    let over = rolling.stopped_before().is_some();
    let (mut forward, mut back, mut reasons) = (Vec::new(), HashSet::new(), Vec::new());
    for planned in &plan.hosts {
        let name = &planned.host.name;
        let Some(host) = state.hosts.get(name) else { continue };
        let goes_back = match host.phase {
            // What had exceeded the budget before the run was cut off takes back with it what its scope says.
            HostPhase::New => over && plan.rollout.on_failure == OnFailure::RollbackAll,
            HostPhase::Untouched => false,
            _ => is_open(host) && !goes_forward(host),
        };
        if goes_back {
            back.insert(name.clone());
        } else if is_open(host) {
            forward.push(planned.clone());
        }
    }
    let mut standing = Standing::of(&plan.hosts.iter().map(|planned| &planned.plan));
    let begins = |host: &HostName| state.hosts.get(host).is_some_and(|host| host.phase == HostPhase::Untouched);
    standing.recall(&state.shared_steps, forward.iter().any(|planned| begins(&planned.host.name)));
    standing.new_before = state.hosts.values().any(|host| host.phase == HostPhase::New);
    rolling.recalled = Some(standing);
    let names: Vec<HostName> = forward.iter().map(|planned| planned.host.name.clone()).collect();
    let reopened = each(forward, forks, |planned| {
        let shared = shared.clone();
        async move { Saga::reopen(&shared, &planned.host, &planned.plan, planned.batch).await }
    });
    let (mut sagas, mut spared) = (Vec::new(), Vec::new());
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
            let lost = kind == StopKind::Lost;
            let status = if lost { HostStatus::Unreachable } else { HostStatus::Failed };
            spared.push(leave_out(shared, Spared { host: name, status, held: false, kind: None, reason: why }).await);
            continue;
        }
        reasons.push(format!("{name}: {why}"));
        back.insert(name);
        rolling.failed_before = rolling.failed_before.saturating_add(1);
    }
    // More than the budget bears: no host begins, and what is under way goes where the scope says.
    if let Some(why) = rolling.stopped_before() {
        let wide = matches!(plan.rollout.on_failure, OnFailure::RollbackBatch | OnFailure::RollbackAll);
        for saga in std::mem::take(&mut sagas) {
            if !saga.touched() {
                spared.push(saga.spare(HostStatus::Skipped, Some(format!("not begun: {why}"))).await);
            } else if wide {
                back.insert(saga.name().clone());
            } else {
                sagas.push(saga);
            }
        }
        reasons.push(why);
    }
    let mut outcome = run(&rolling, sagas).await;
    if let Some(why) = outcome.all_back.take() {
        let new = state.hosts.iter().filter(|(_, host)| host.phase == HostPhase::New);
        back.extend(new.map(|(name, _)| name.clone()));
        reasons.push(why);
    }
    let reason = if reasons.is_empty() { "it had begun to go back".to_owned() } else { reasons.join("; ") };
    let returning = RunPlan {
        hosts: plan.hosts.iter().filter(|planned| back.contains(&planned.host.name)).cloned().collect(),
        ..plan.clone()
    };
    // By name, whatever their phase: those of an earlier batch that go back with the rest are settled.
    let returned = take_back(shared, &returning, state, ReopenCommand::Rollback, &reason, forks).await;
    outcome.failed |= returned.failed || returned.hosts.iter().any(|host| host.status == HostStatus::RolledBack);
    outcome.hosts.extend(returned.hosts);
    // A run that goes on ends as all of it ended, also what was settled before it was cut off.
    let before = settled_before(state);
    outcome.failed |= before.failed || spared.iter().any(|host| host.status == HostStatus::Failed);
    outcome.hosts.extend(spared);
    outcome.hosts.extend(before.hosts.into_iter().filter(|host| !back.contains(&host.host)));
    outcome.hosts.sort_by_key(|result| state.hosts.get_index_of(&result.host));
    outcome
}

/// Whether a host counts against the budget: it failed, or went back with one that did.
fn has_failed(host: &HostState) -> bool {
    matches!(
        host.phase,
        HostPhase::Old | HostPhase::Held | HostPhase::Dirty | HostPhase::Undoing | HostPhase::Owed(OwedIn::Undoing)
    )
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
    let outcome = settled_before(state);
    let status = if outcome.hosts.is_empty() { RunStatus::Interrupted } else { run_status(&outcome) };
    let exit_code = Some(exit_code(&outcome));
    journal.append(None, Record::RunReopened { command, by }).await?;
    journal.append(None, Record::RunFinished { status, exit_code }).await?;
    journal.close().await.map(|_| ())
}

/// Takes hosts back, the last batch first. A host that cannot be reached is owed if it was cut off, and only
/// unreachable if it was settled.
pub async fn take_back(
    shared: &Shared,
    plan: &RunPlan,
    state: &RunState,
    command: ReopenCommand,
    reason: &str,
    forks: usize,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut ready = Vec::new();
    let mut attaching = Vec::new();
    for planned in &plan.hosts {
        let Some(host) = state.hosts.get(&planned.host.name).filter(|host| goes_back(command, host)) else { continue };
        let mut settling = Settling::from_plan(shared, &planned.host, &planned.plan, planned.batch);
        settling.prepared = host.undo_digest.is_some();
        settling.with_rest = true;
        attaching.push((settling, host.phase.is_unsettled_work()));
    }
    let attached = each(attaching, forks, |(mut settling, unsettled)| async move {
        let attached = settling.attach().await;
        (settling, unsettled, attached)
    });
    for (settling, unsettled, attached) in attached.await.into_iter().flatten() {
        match attached {
            Ok(()) => ready.push(settling),
            // It was cut off, and enough was tried just now.
            Err(NotNow::Unreachable(why)) if unsettled => {
                let why = format!("{reason}; the host could not be reached: {why}");
                outcome.hosts.push(settling.owed(why).await);
            }
            Err(NotNow::Unreachable(why)) => {
                outcome.hosts.push(left(shared, &settling, HostStatus::Unreachable, why));
            }
            Err(NotNow::Contradicts(why)) => outcome.hosts.push(settling.leave(why).await),
            Err(NotNow::Other(why)) => {
                outcome.failed = true;
                outcome.hosts.push(left(shared, &settling, HostStatus::Failed, why));
            }
        }
    }
    outcome.hosts.extend(settle_back(SettleOrder::newest_first(ready), forks, reason).await);
    outcome.hosts.sort_by_key(|result| state.hosts.get_index_of(&result.host));
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
        shared.journal.append(None, Record::RunFinished { status, exit_code: Some(code) }).await?;
        shared.journal.close().await
    };
    if let Err(error) = written.await {
        shared.events.warn(None, format!("the journal could not be ended: {error}"));
        code = code.max(1);
    }
    shared.events.emit(None, None, EventKind::RunFinished { status, exit_code: code, hosts: outcome.hosts.clone() });
    code
}
