//! `retire --from-hosts`: a run is retired by what its hosts recorded, on a machine that has no journal of it.
//!
//! Nothing is written down before the operator has agreed. Then it is a run of this machine, which leaves its hosts as they are, and
//! from there on it is gone on with by its journal alone.

use super::super::CliError;
use super::super::args::FromHosts;
use super::super::audit::judge::Names;
use super::super::error;
use super::super::from_hosts::meant;
use super::super::inventory::{joined, select};
use super::super::session::Session;
use super::say::Say;
use super::{NOT_FROM_HOSTS, RetireArgs, Retiring, can_ask};
use crate::journal::{HostPhase, HostState, JournalError, Operator, Record, RunPhase, RunState, Store};
use crate::model::{HostName, HostResult, HostStatus, RunId, RunStatus};
use crate::plan::RunPlan;
use crate::rollout::{NotRetirable, Retirable, ask, retirable};

pub(super) async fn retire(session: &Session, args: &RetireArgs) -> Result<u8, CliError> {
    if args.revoke {
        return Err(CliError::usage(NOT_FROM_HOSTS));
    }
    can_ask(args)?;
    let from = FromHosts {
        from_hosts: true,
        inventory: args.inventory.clone(),
        limit: args.limit.clone(),
        user: args.user.clone(),
        private_key: args.private_key.clone(),
        become_root: args.become_root,
    };
    let hosts = select(session, &from.as_select(), Some(&from.as_reach(args.forks)))?;
    let inventory = joined(&from.inventory);
    let forks = usize::from(args.forks);
    let asked = ask(&session.connect(&inventory)?, hosts, forks).await;
    let run = match meant(session, &asked, crate::journal::ReopenCommand::Rollback, args.run.as_deref())? {
        Ok(run) => run,
        Err(code) => return Ok(code),
    };
    let store = session.store()?;
    // What is known here says more than the hosts do: who minted what, and who was spared.
    if store.state(&run).is_ok_and(|state| state.phase != RunPhase::Fresh) {
        return Err(CliError::usage(format!("the journal of run {run} is on this machine: keyswap retire {run}")));
    }
    let own = RunId::new(jiff::Timestamp::now());
    let say = Say { session, run: &run };
    let mut recorded = match retirable(asked, &own, &run, forks).await {
        Ok(recorded) => recorded,
        Err(NotRetirable { reasons, unreachable }) => {
            return Ok(say.refused(&reasons, if unreachable { error::UNREACHABLE } else { 2 }));
        }
    };
    recorded.plan.inventory = inventory;
    recorded.plan.inventory_files =
        from.inventory.iter().map(|path| session.context().map(|at| at.cwd.join(path))).collect::<Result<_, _>>()?;
    say.line(&format!("run {run}, begun by {}, by what its hosts recorded", recorded.owner));
    let state = as_said(&recorded);
    let (plan, names) = (recorded.plan.clone(), Names::default());
    let of =
        Retiring { session, args, store: &store, plan: &plan, policies: &[], names: &names, recorded: Some(&recorded) };
    of.told(&state).await
}

/// Where the run stands by what its hosts say, as its journal here will say it.
fn as_said(recorded: &Retirable) -> RunState {
    let mut state = RunState { phase: RunPhase::Finished(RunStatus::Succeeded), ..RunState::default() };
    state.secrets.clone_from(&recorded.secrets);
    for planned in &recorded.plan.hosts {
        let result = Some(found_new(&planned.host.name, planned.batch, &recorded.plan));
        let host = HostState { phase: HostPhase::Spared, result, ..HostState::default() };
        state.hosts.insert(planned.host.name.clone(), host);
    }
    state
}

fn found_new(host: &HostName, batch: u32, plan: &RunPlan) -> HostResult {
    HostResult {
        host: host.clone(),
        status: HostStatus::Ok,
        batch,
        credentials: Vec::new(),
        reason: Some(format!("it is wholly new by run {}", plan.on_hosts())),
        mend: Vec::new(),
        notes: Vec::new(),
    }
}

/// Writes down what the hosts told, as a run of this machine that changed none of them.
pub(super) async fn begin(
    store: &Store,
    plan: &RunPlan,
    recorded: &Retirable,
    by: Operator,
) -> Result<(), JournalError> {
    let journal = store.create(&plan.run, plan, "retire", &by)?;
    let started = Record::RunStarted {
        command: "retire".to_owned(),
        playbook: plan.playbook.clone(),
        digest: plan.digest(),
        hosts: plan.hosts.iter().map(|planned| planned.host.name.clone()).collect(),
        by,
    };
    journal.append_lazy(None, started)?;
    let text = format!("retires run {}, begun by {}, by what its hosts recorded", plan.on_hosts(), recorded.owner);
    journal.append_lazy(None, Record::Note { text })?;
    for (name, fingerprint) in &recorded.secrets {
        let known = Record::SecretKnown { name: name.clone(), fingerprint: fingerprint.clone() };
        journal.append_lazy(None, known)?;
    }
    for planned in &plan.hosts {
        let result = found_new(&planned.host.name, planned.batch, plan);
        journal.append_lazy(Some(&planned.host.name), Record::HostSettled { result })?;
    }
    let finished = Record::RunFinished { status: RunStatus::Succeeded, exit_code: Some(0) };
    journal.append(None, finished).await?;
    journal.close().await?;
    Ok(())
}
