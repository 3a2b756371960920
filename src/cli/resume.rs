//! `keyswap resume`: settles a run that was cut off: forward where the secret can be had again, else back.

use super::CliError;
use super::args::{Output, ResumeArgs};
use super::ask::Asker;
use super::from_hosts::{NOT_FORWARD, back_from_hosts};
use super::proving;
use super::rollback::{BY_OPERATOR, Wish, back, not_half_retired, shared_for};
use super::services::Servers;
use super::session::Session;
use crate::engine::{About, TokenNote};
use crate::event::EventKind;
use crate::journal::{Record, ReopenCommand, RunState};
use crate::model::{HostName, Inventory};
use crate::plan::RunPlan;
use crate::rollout::{about, finish, go_on, is_open, same_secrets};
use crate::step::Values;

pub(super) async fn resume(session: &Session, args: &ResumeArgs) -> Result<u8, CliError> {
    if args.back_args.from.from_hosts {
        if !args.back {
            return Err(CliError::usage(NOT_FORWARD));
        }
        return back_from_hosts(session, &args.back_args, ReopenCommand::ResumeBack).await;
    }
    if args.back {
        return back(session, &args.back_args, ReopenCommand::ResumeBack, BY_OPERATOR, Wish::Back).await;
    }
    let store = session.store()?;
    let run = store.find(args.back_args.run.as_deref())?;
    let plan: RunPlan = store.plan(&run)?;
    let state = store.state(&run)?;
    not_half_retired(session, &run, &state)?;
    if !state.needs_settling() && plan.of.is_none() {
        session.nothing_to_do(&run, &state, &format!("run {run} is settled: there is nothing to resume"));
        return Ok(0);
    }
    if plan.of.is_some() {
        return back(session, &args.back_args, ReopenCommand::ResumeBack, BY_OPERATOR, Wish::Back).await;
    }
    let values = match secrets_again(session, &plan, &state).await {
        Ok(values) => values,
        // Nothing is in its midst, and hosts are still to begin: with the secret it can go on, so it is not ended here.
        Err(why) if waits_for_hosts(&state) => {
            let how = format!("give the secret again, or end it as it is: keyswap resume {run} --back");
            return Err(CliError::Usage(format!("run {run} cannot go on: {why}; {how}")));
        }
        Err(why) => {
            if session.global.output != Output::Jsonl && state.unsettled().next().is_some() {
                session.out().line(&format!("run {run} goes back: {why}"));
            }
            return back(session, &args.back_args, ReopenCommand::ResumeBack, &why, Wish::Forward).await;
        }
    };
    forward(session, args, &plan, values).await
}

/// Whether all that a run has left is hosts that never began, while others are settled.
fn waits_for_hosts(state: &RunState) -> bool {
    let settled = state.hosts.values().any(|host| host.phase.is_settled());
    state.has_hosts_to_begin() && settled && state.unsettled().next().is_none() && state.owed_token().is_none()
}

/// The run's secrets, read again. Each must be the one that the run used.
async fn secrets_again(session: &Session, plan: &RunPlan, state: &RunState) -> Result<Values, String> {
    session.sources.environment().withhold_sources(plan.secrets.iter().map(|(_, source)| source));
    let mut values = Values::new();
    for (name, source) in plan.secrets.iter().filter(|(name, _)| state.secrets.contains_key(name)) {
        let value = session.sources.read(name, source).await.map_err(|error| crate::model::chain(&error))?;
        session.redactor.register(&value);
        values.insert(name.clone(), value);
    }
    same_secrets(plan, state, &values)?;
    Ok(values)
}

async fn forward(session: &Session, args: &ResumeArgs, plan: &RunPlan, values: Values) -> Result<u8, CliError> {
    let store = session.store()?;
    let operator = session.operator();
    let (journal, state) = store.reopen(&plan.run, "resume", &operator)?;
    let needs_forge = plan.hosts.iter().any(|planned| planned.plan.steps.iter().any(|step| step.work.asks_forge()));
    let servers = Servers::new(&plan.services, needs_forge, &session.sources, &session.redactor).await?;
    // Which tokens are shared was looked at when the run began, and these are the same.
    let identities = proving::read(&proving::of_plan(plan))?;
    let proving = proving::open(session, &plan.services, &identities).await?;
    let servers = servers.issuing(&proving, &Inventory::default());
    let servers =
        servers.asking(Asker::new(plan.approval.clone(), store.clone(), operator.clone(), session.terminal()));
    let record = Record::RunReopened { command: ReopenCommand::Resume, by: operator };
    journal.append(None, record).await?;
    let (events, report) = session.report(&plan.run);
    let mut shared = shared_for(session, plan, journal, &events, values)?;
    shared.services = std::sync::Arc::new(servers);
    let token = state.token.as_ref().and_then(TokenNote::of);
    shared.about = std::sync::Arc::new(About { token, ..about(plan) });
    let names: Vec<HostName> = plan
        .hosts
        .iter()
        .filter(|planned| state.hosts.get(&planned.host.name).is_some_and(is_open))
        .map(|planned| planned.host.name.clone())
        .collect();
    let started = EventKind::RunStarted {
        command: "resume".to_owned(),
        playbook: plan.playbook.clone(),
        hosts: names,
        batches: 1,
    };
    events.emit(None, None, started);
    let mut outcome = go_on(&shared, plan, &state, usize::from(args.back_args.forks)).await;
    super::token::settle(session, &plan.services, &shared, super::token::AtHand::default(), &mut outcome).await;
    let code = finish(&shared, &outcome).await;
    report.finish(&events);
    for issuing in &proving {
        let _ = issuing.issuer.operator().log_out().await;
    }
    Ok(code)
}
