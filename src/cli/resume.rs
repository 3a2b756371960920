//! `keyswap resume`: settles a run that was cut off: forward where the secret can be had again, else back.

use std::collections::HashSet;

use super::CliError;
use super::args::ResumeArgs;
use super::rollback::{back, finish, same_secret, shared_for, take_back};
use super::services::Servers;
use super::session::Session;
use crate::engine::Saga;
use crate::event::EventKind;
use crate::journal::{HostPhase, HostState, OwedIn, Record, ReopenCommand, RunState};
use crate::model::{HostName, HostStatus};
use crate::plan::RunPlan;
use crate::rollout::{self, Outcome, Rolling};
use crate::step::{Values, Work};

pub(super) async fn resume(session: &Session, args: &ResumeArgs) -> Result<u8, CliError> {
    if args.back {
        return back(session, &args.back_args, ReopenCommand::ResumeBack).await;
    }
    let store = session.store()?;
    let run = store.find(args.back_args.run.as_deref())?;
    let plan: RunPlan = store.plan(&run)?;
    let state = store.state(&run)?;
    if !state.needs_settling() {
        session.out().line(&format!("run {run} is settled: there is nothing to resume"));
        return Ok(0);
    }
    let values = match secrets_again(session, &plan, &state).await {
        Ok(values) => values,
        Err(why) => {
            session.out().line(&format!("run {run} goes back: {why}"));
            return back(session, &args.back_args, ReopenCommand::ResumeBack).await;
        }
    };
    forward(session, args, &plan, values).await
}

/// The run's secrets, read again. Each must be the one that the run used.
async fn secrets_again(session: &Session, plan: &RunPlan, state: &RunState) -> Result<Values, String> {
    session.sources.environment().withhold_sources(plan.secrets.iter().map(|(_, source)| source));
    let mut values = Values::new();
    for (name, source) in plan.secrets.iter().filter(|(name, _)| state.secrets.contains_key(name)) {
        let value = session.sources.read(name, source).await.map_err(|error| super::session::chain(&error))?;
        session.redactor.register(&value);
        if !same_secret(state, name, &value) {
            return Err(format!("secret `{name}` is another one now ({})", value.fingerprint()));
        }
        values.insert(name.clone(), value);
    }
    Ok(values)
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

async fn forward(session: &Session, args: &ResumeArgs, plan: &RunPlan, values: Values) -> Result<u8, CliError> {
    let store = session.store()?;
    let operator = session.operator();
    let (journal, state) = store.reopen(&plan.run, "resume", &operator)?;
    let needs_forge = plan
        .hosts
        .iter()
        .any(|planned| planned.plan.steps.iter().any(|step| matches!(step.work, Work::VerifyPublish(_))));
    let servers = Servers::new(&plan.services, needs_forge, &session.sources, &session.redactor).await?;
    let record = Record::RunReopened { command: ReopenCommand::Resume, by: operator };
    journal.append(None, record).await?;
    let (events, report) = session.report(&plan.run);
    let mut shared = shared_for(session, plan, &plan.run, journal, &events, values)?;
    shared.services = std::sync::Arc::new(servers);
    let open = |host: &HostState| host.phase == HostPhase::Untouched || host.phase.is_unsettled_work();
    let names: Vec<HostName> = plan
        .hosts
        .iter()
        .filter(|planned| state.hosts.get(&planned.host.name).is_some_and(open))
        .map(|planned| planned.host.name.clone())
        .collect();
    let started = EventKind::RunStarted {
        command: "resume".to_owned(),
        playbook: plan.playbook.clone(),
        hosts: names,
        batches: 1,
    };
    events.emit(None, None, started);

    let mut sagas = Vec::new();
    let mut back: HashSet<HostName> = HashSet::new();
    let mut reasons = Vec::new();
    for planned in &plan.hosts {
        let name = &planned.host.name;
        let Some(host) = state.hosts.get(name).filter(|host| open(host)) else { continue };
        if !goes_forward(host) {
            back.insert(name.clone());
            continue;
        }
        match Saga::reopen(&shared, &planned.host, &planned.plan, planned.batch).await {
            Ok(saga) => sagas.push(saga),
            Err(stop) => {
                reasons.push(format!("{name}: {}", stop.reason));
                back.insert(name.clone());
            }
        }
    }
    let forks = usize::from(args.back_args.forks);
    let rolling = Rolling { shared: shared.clone(), spec: plan.rollout.clone(), forks };
    let mut outcome = rollout::run(&rolling, sagas).await;
    let reason = if reasons.is_empty() { "it had begun to go back".to_owned() } else { reasons.join("; ") };
    let touched = |host: &HostState| host.phase.is_unsettled_work();
    let returned = {
        let plan = RunPlan {
            hosts: plan.hosts.iter().filter(|planned| back.contains(&planned.host.name)).cloned().collect(),
            ..plan.clone()
        };
        take_back(&shared, &plan, &state, touched, &reason, forks).await
    };
    outcome.failed |= returned.failed || returned.hosts.iter().any(|host| host.status == HostStatus::RolledBack);
    outcome.hosts.extend(returned.hosts);
    let outcome = Outcome { ..outcome };
    let code = finish(&shared, &events, &outcome).await;
    report.finish(&events);
    Ok(code)
}
