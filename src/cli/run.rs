//! `keyswap run`: look at every host, plan, ask, do it.

use std::collections::HashMap;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::{Output, RunArgs};
use super::ask::Asker;
use super::inventory::{Selected, extra_vars, word};
use super::order::{self, Order};
use super::prompt::Terminal;
use super::propose;
use super::proving;
use super::rerun::{Rerun, playbook_of};
use super::services::Servers;
use super::session::{Session, told};
use super::token::{self, AtHand, Issuing, NoToken};
use super::{CliError, error, said, signals};
use crate::engine::{About, Patience, Saga, Shared, TokenNote};
use crate::event::{EventKind, Sink};
use crate::journal::{Journal, Medium, Record, RunState};
use crate::model::{Action, HostName, HostResult, HostStatus, RunId, RunStatus, SecretSource};
use crate::plan::{PlannedHost, RunPlan, VERSION, Wanted};
use crate::rollout::{self, Outcome, Preflight, Rolling, batch_sizes, exit_code, run_status};
use crate::secret::SecretValue;
use crate::step::{Services, Values, Work};

/// The journal of what is only looked at: nowhere.
struct Nowhere;

impl Medium for Nowhere {
    fn append(&mut self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a look at the hosts is for.
pub(super) enum Purpose<'a> {
    /// To do what the operator asks for, or to say what that would be.
    Run,
    /// To write down what would be done.
    Propose(&'a Utf8Path),
    /// To do what was written down.
    Follow(&'a Order),
}

impl Purpose<'_> {
    fn command(&self, args: &RunArgs) -> &'static str {
        match self {
            Self::Propose(_) => "plan",
            _ if args.check => "check",
            _ => "run",
        }
    }

    fn order(&self) -> Option<&Order> {
        if let Self::Follow(order) = self { Some(order) } else { None }
    }
}

/// What the command line asks for.
pub(super) fn wanted(session: &Session, args: &RunArgs) -> Result<Wanted, CliError> {
    Ok(Wanted {
        playbook: playbook_of(args)?,
        inventory: args.select.inventory.clone(),
        limit: args.select.limit.clone(),
        variables: extra_vars(session, &args.select.extra_vars)?,
        user: args.reach.user.clone(),
        private_key: args.reach.private_key.clone(),
        become_root: args.reach.become_root,
        skip_unreachable: args.skip_unreachable,
    })
}

pub(super) async fn run(session: &Session, args: &RunArgs) -> Result<u8, CliError> {
    if let Some(file) = &args.plan {
        return Box::pin(order::run(session, args, file)).await;
    }
    let rerun = Rerun::find(session, args)?;
    if let Some(rerun) = &rerun
        && let Some(nothing) = rerun.nothing()
    {
        session.nothing_to_do(&rerun.run, &rerun.state, &nothing);
        return Ok(0);
    }
    let wanted = wanted(session, args)?;
    let selected = Selected::load(session, &wanted, rerun.as_ref())?;
    if args.list_hosts || args.list_steps {
        return list(session, args, &selected);
    }
    if !args.check {
        order::demands_none(&selected.approval(), &leads_on(session, args, (&wanted, &selected), rerun.is_some()))?;
    }
    // What a question needs is known before anything is asked of a host.
    if !args.check && !args.yes && !Terminal::is_there() {
        return Err(CliError::usage("run asks before it changes anything: give --yes, or run it on a terminal"));
    }
    Box::pin(go(session, args, (&wanted, &selected), &Purpose::Run)).await
}

/// The commands by which the same is done with an approval, on the same hosts.
fn leads_on(session: &Session, args: &RunArgs, (wanted, selected): (&Wanted, &Selected), rerun: bool) -> String {
    let names: Vec<&str> = selected.hosts.iter().map(|(host, _)| host.name.as_str()).collect();
    // `plan` knows of no earlier run: its hosts are named.
    let limit = if rerun { Some(names.join(",")) } else { wanted.limit.clone() };
    let path = |path: &Utf8PathBuf| path.to_string();
    let with = |flag: &str, value: Option<String>| value.map(|value| format!(" {flag} {}", word(&value)));
    let is = |flag: &str, set: bool| set.then(|| format!(" {flag}"));
    let options: String = with("-l", limit)
        .into_iter()
        .chain(args.select.extra_vars.iter().filter_map(|pair| with("-e", Some(pair.clone()))))
        .chain(with("-u", wanted.user.clone()))
        .chain(with("--private-key", wanted.private_key.as_ref().map(path)))
        .chain(is("--become", wanted.become_root))
        .chain(is("--skip-unreachable", wanted.skip_unreachable))
        .collect();
    let asks = is("-K", session.global.ask_become_pass).unwrap_or_default();
    let (playbook, inventory) = (word(wanted.playbook.as_str()), &selected.inventory_name);
    let plan = session.typed(&format!("keyswap plan {playbook} -i {inventory}{options}{asks} --out FILE"));
    let run = session.typed(&format!("keyswap run --plan FILE{asks}"));
    format!("{plan}\nkeyswap approve FILE --signer NAME\n{run}")
}

/// From the files to the last word.
pub(super) async fn go(
    session: &Session,
    args: &RunArgs,
    (wanted, selected): (&Wanted, &Selected),
    purpose: &Purpose<'_>,
) -> Result<u8, CliError> {
    // Where nothing can be journaled nobody is asked for anything.
    if !args.check && !matches!(purpose, Purpose::Propose(_)) {
        session.store()?;
    }
    let values = secrets(session, selected).await?;
    proving::none_is_shared(selected, &values)?;
    let proving = proving::open(session, &selected.inventory.services, &selected.proved).await?;
    let issuing = match &selected.identity {
        Some((name, spec)) if values.is_to_come(name) => {
            Some(token::open(session, &selected.inventory.services, (name, spec)).await?)
        }
        _ => None,
    };
    let servers = servers(session, selected).await?.issuing(issuing.iter().chain(&proving), &selected.inventory);
    let asks = selected.hosts.iter().flat_map(|(_, steps)| steps).any(|step| matches!(step.action, Action::Approve(_)));
    let servers = match asks && !args.check {
        true => {
            // Known before any host is touched, and not in its midst.
            Asker::could_answer(&selected.approval()).map_err(order::no)?;
            servers.asking(Asker::new(selected.approval(), session.store()?, session.operator(), session.terminal()))
        }
        false => servers,
    };
    let run = RunId::new(jiff::Timestamp::now());
    let (events, report) = session.report(&run);
    let shared = shared(session, selected, &run, &events, values, servers)?;
    let finished = whole(session, args, (wanted, selected, purpose), &shared, issuing.as_ref()).await;
    report.finish(&events);
    for issuing in issuing.iter().chain(&proving) {
        // What was lent for this ends by itself, too.
        let _ = issuing.issuer.operator().log_out().await;
    }
    finished
}

fn list(session: &Session, args: &RunArgs, selected: &Selected) -> Result<u8, CliError> {
    let is_json = session.global.output == Output::Jsonl;
    let mut out = session.out();
    if args.list_hosts {
        for (host, _) in &selected.hosts {
            match is_json {
                true => out.json(&json!({ "event": "host", "host": host.name })),
                false => out.line(host.name.as_str()),
            }
        }
    }
    if args.list_steps {
        for step in selected.playbook.step_refs() {
            match is_json {
                true => out.json(&json!({ "event": "step", "index": step.index, "step": step.name })),
                false => out.line(&step.to_string()),
            }
        }
    }
    told(out, 0)
}

/// Reads every secret that a step of a selected host writes. One that is minted comes later.
async fn secrets(session: &Session, selected: &Selected) -> Result<Values, CliError> {
    session.sources.environment().withhold_sources(selected.playbook.secrets.values());
    let wanted = |name: &str| {
        let mut steps = selected.hosts.iter().flat_map(|(_, steps)| steps);
        steps.any(|step| match &step.action {
            Action::Place(place) => place.secret == name,
            Action::Prove(prove) => prove.secret == name,
            _ => false,
        })
    };
    let mut values = Values::new();
    for (name, source) in selected.playbook.secrets.iter().filter(|(name, _)| wanted(name)) {
        if matches!(source, SecretSource::Infisical { .. }) {
            values.expect(name.clone());
            continue;
        }
        let value = session.sources.read(name, source).await?;
        session.redactor.register(&value);
        values.insert(name.clone(), value);
    }
    Ok(values)
}

async fn servers(session: &Session, selected: &Selected) -> Result<Servers, CliError> {
    let services = &selected.inventory.services;
    let tokens = [&services.forge, &services.infisical];
    let sources = tokens.into_iter().flatten().flat_map(|service| [&service.token, &service.client_secret]);
    session.sources.environment().withhold_sources(sources.flatten());
    let mut steps = selected.hosts.iter().flat_map(|(_, steps)| steps).filter(|step| step.enabled);
    let needs_forge = steps.any(|step| matches!(step.action, Action::VerifyPublish(_) | Action::AssertNotStored(_)));
    Servers::new(services, needs_forge, &session.sources, &session.redactor).await
}

fn shared(
    session: &Session,
    selected: &Selected,
    run: &RunId,
    events: &Sink,
    values: Values,
    servers: Servers,
) -> Result<Shared, CliError> {
    let journal = Journal::inline(run.clone(), Box::new(Nowhere), RunState::default(), None)?;
    let cancel = CancellationToken::new();
    let halt = cancel.child_token();
    let warn = events.clone();
    signals::watch(cancel.clone(), &session.screen, move || {
        warn.warn(None, "stopping: no new step begins, what was touched is being settled; again to leave at once");
    })?;
    Ok(Shared {
        run: run.clone(),
        owner: session.owner(),
        about: Arc::default(),
        connect: session.connect(&selected.inventory_name)?,
        journal,
        events: events.clone(),
        values: Arc::new(values),
        services: Arc::new(servers),
        cancel,
        halt,
        patience: Patience::default(),
        guard: selected.playbook.rollout.guard,
    })
}

/// Everything from the first look to the last word.
async fn whole(
    session: &Session,
    args: &RunArgs,
    (wanted, selected, purpose): (&Wanted, &Selected, &Purpose<'_>),
    shared: &Shared,
    issuing: Option<&Issuing>,
) -> Result<u8, CliError> {
    let events = &shared.events;
    let names: Vec<HostName> = selected.hosts.iter().map(|(host, _)| host.name.clone()).collect();
    let sizes = batch_sizes(&selected.playbook.rollout.batches, names.len());
    events.emit(
        None,
        None,
        EventKind::RunStarted {
            command: purpose.command(args).to_owned(),
            playbook: selected.playbook.name.clone(),
            hosts: names,
            batches: u32::try_from(sizes.len()).unwrap_or(u32::MAX),
        },
    );
    if let Some(order) = purpose.order() {
        order.warrant.say(events);
    }
    let forks = usize::from(args.reach.forks);
    let mut found = rollout::preflight(shared, selected.hosts.clone(), forks).await;
    let readers = rollout::look_around(&mut found);
    let stopped = || Outcome { interrupted: true, ..Outcome::default() };
    if shared.cancel.is_cancelled() {
        return Ok(nothing_done(selected, events, found, "stopped by the operator", stopped()).await);
    }
    let unreachable = found.spared.iter().filter(|spared| spared.status == HostStatus::Unreachable).count();
    let refused = found.spared.len() - unreachable;
    if refused > 0 || (unreachable > 0 && !(args.skip_unreachable && unreachable < selected.hosts.len())) {
        let reason = "not begun: not every host could be worked on";
        return Ok(nothing_done(selected, events, found, reason, Outcome::default()).await);
    }
    if let Err(reason) = verifications(shared, &found).await {
        let failed = Outcome { failed: true, ..Outcome::default() };
        return Ok(nothing_done(selected, events, found, &reason, failed).await);
    }
    rollout::assign_batches(&selected.playbook.rollout.batches, selected.hosts.len(), &mut found.ready);
    let in_full = args.check || args.diff || !args.yes;
    said::plan(events, &found, in_full);
    if in_full {
        said::risks(selected, events, &found);
    }
    let changes = found.ready.iter().any(Saga::changes);
    if let Some(issuing) = issuing.filter(|_| changes) {
        token::say_planned(issuing, shared);
    }
    said::warn_of_the_old(session, events, &found);
    said::warn_of_reboots(selected, events, &found);
    said::warn_of_readers(events, &readers);
    if let Purpose::Propose(out) = purpose {
        return match propose::proposal(session, (wanted, selected), shared, &found) {
            Ok(proposal) => propose::write(session, &proposal, out, events, found).await,
            Err(error) => {
                not_planned(selected, events, found, &error).await;
                Err(error)
            }
        };
    }
    if let Some(order) = purpose.order() {
        let now = match propose::proposal(session, (wanted, selected), shared, &found) {
            Ok(now) => now,
            Err(error) => {
                not_planned(selected, events, found, &error).await;
                return Err(error);
            }
        };
        if let Err(differences) = order.is_fresh(&now) {
            for difference in &differences {
                events.warn(None, format!("the plan is stale: {difference}"));
            }
            let refused = Outcome { refused: true, ..Outcome::default() };
            return Ok(nothing_done(selected, events, found, "not begun: the plan is stale", refused).await);
        }
    }
    if args.check {
        return Ok(checked(events, found, changes).await);
    }
    if changes && !args.yes {
        // The report writes on a thread of its own; the question comes after what it is about.
        session.caught_up(events).await;
        let hosts = found.ready.iter().filter(|saga| saga.changes()).count();
        let question = format!("Change {hosts} hosts?");
        if let Err(error) = session.terminal().confirm_unless(question, &shared.cancel).await {
            nothing_done(selected, events, found, "declined", stopped()).await;
            return Err(error);
        }
    }
    let mut shared = match begin(session, (selected, purpose.order()), shared, &found, forks).await {
        Ok(shared) => shared,
        Err(error) => {
            not_planned(selected, events, found, &error).await;
            return Err(error);
        }
    };
    let token = match issuing.filter(|_| changes) {
        Some(issuing) => bring(session, issuing, selected, &mut shared, &mut found.ready, forks).await,
        None => Ok(None),
    };
    for saga in &mut found.ready {
        saga.adopt(&shared);
    }
    let mut left_out = Vec::new();
    for spared in found.spared {
        left_out.push(rollout::leave_out(&shared, spared).await);
    }
    let mut outcome = match &token {
        Ok(_) => {
            let rolling = Rolling::new(shared.clone(), selected.playbook.rollout.clone(), forks);
            rollout::run(&rolling, found.ready).await
        }
        Err(NoToken { reason, owed }) => not_begun(found.ready, reason, *owed).await,
    };
    outcome.hosts.extend(left_out);
    in_order(&mut outcome.hosts, selected);
    if !outcome.token_owed {
        let value = token.ok().flatten();
        let at_hand = AtHand { value: value.as_ref(), issuing };
        token::settle(session, &selected.inventory.services, &shared, at_hand, &mut outcome).await;
    }
    Ok(rollout::finish(&shared, &outcome).await)
}

/// Mints the run's token and plans with it: from here on the plan is whole, and so is what lies beside the journal.
async fn bring(
    session: &Session,
    issuing: &Issuing,
    selected: &Selected,
    shared: &mut Shared,
    sagas: &mut [Saga],
    forks: usize,
) -> Result<Option<SecretValue>, NoToken> {
    let value = token::mint(session, issuing, shared).await?;
    let no = |reason: String| NoToken { reason, owed: false };
    let mut values = Values::clone(&shared.values);
    values.insert(issuing.secret.clone(), value.clone());
    shared.values = Arc::new(values);
    for saga in sagas.iter_mut() {
        saga.adopt(shared);
        saga.replan().map_err(|why| no(format!("{}: {why}", saga.name())))?;
    }
    let plan = run_plan(selected, &shared.run, sagas, forks);
    let told = session.store().and_then(|store| Ok(store.state(&shared.run)?));
    let told = told.map_err(|error| no(crate::model::chain(&error)))?;
    let note = told.token.as_ref().and_then(TokenNote::of);
    shared.about = Arc::new(About { token: note, ..rollout::about(&plan) });
    let written = session.store().and_then(|store| Ok(store.rewrite_plan(&shared.journal, &plan)?));
    written.map_err(|error| no(crate::model::chain(&error)))?;
    Ok(Some(value))
}

/// Ends a run that has begun and got no token: no host was touched.
async fn not_begun(sagas: Vec<Saga>, reason: &str, owed: bool) -> Outcome {
    let mut outcome = Outcome { failed: true, token_owed: owed, ..Outcome::default() };
    for saga in sagas {
        let reason = format!("not begun: {reason}");
        outcome.hosts.push(saga.spare(HostStatus::Skipped, Some(reason)).await);
    }
    outcome
}

/// Asks the forge before any host is touched whether the verification could be done at all.
async fn verifications(shared: &Shared, found: &Preflight) -> Result<(), String> {
    let mut seen = Vec::new();
    for step in found.ready.iter().filter(|saga| saga.changes()).flat_map(|saga| &saga.plan().steps) {
        if let Work::VerifyPublish(spec) = &step.work
            && !seen.contains(&spec)
        {
            let looked = Services::preflight(shared.services.as_ref(), spec).await;
            for note in looked.map_err(|error| format!("step {}: {error}", step.id))? {
                shared.events.warn(None, format!("step {}: {note}", step.id));
            }
            seen.push(spec);
        }
    }
    Ok(())
}

/// Ends a run that never began: nothing was changed anywhere.
async fn nothing_done(selected: &Selected, events: &Sink, found: Preflight, reason: &str, outcome: Outcome) -> u8 {
    let mut outcome = outcome;
    for spared in &found.spared {
        outcome.failed |= spared.status == HostStatus::Failed;
        outcome.held |= spared.held;
        let result = spared.result();
        events.emit(Some(&spared.host), None, EventKind::HostFinished { result: result.clone() });
        outcome.hosts.push(result);
    }
    for saga in found.ready {
        outcome.hosts.push(saga.never_begun(HostStatus::Skipped, Some(reason.to_owned())).await);
    }
    in_order(&mut outcome.hosts, selected);
    let code = exit_code(&outcome);
    let status = run_status(&outcome);
    events.emit(None, None, EventKind::RunFinished { status, exit_code: code, hosts: outcome.hosts });
    code
}

/// Ends a run that could not be planned or journaled: it never began.
async fn not_planned(selected: &Selected, events: &Sink, found: Preflight, error: &CliError) {
    let reason = format!("not begun: {error}");
    let mut hosts: Vec<HostResult> = found.spared.iter().map(rollout::Spared::result).collect();
    for saga in found.ready {
        hosts.push(saga.never_begun(HostStatus::Skipped, Some(reason.clone())).await);
    }
    in_order(&mut hosts, selected);
    events.emit(None, None, EventKind::RunFinished { status: RunStatus::Failed, exit_code: error.code(), hosts });
}

/// Ends a `--check`.
async fn checked(events: &Sink, found: Preflight, changes: bool) -> u8 {
    let mut outcome = Outcome::default();
    for spared in &found.spared {
        outcome.hosts.push(spared.result());
    }
    for saga in found.ready {
        outcome.hosts.push(saga.looked_at().await);
    }
    let code = match exit_code(&outcome) {
        0 if changes => error::CHANGES,
        code => code,
    };
    let status = run_status(&outcome);
    events.emit(None, None, EventKind::RunFinished { status, exit_code: code, hosts: outcome.hosts });
    code
}

/// Writes the plan and the journal's first records; from here on the run exists.
async fn begin(
    session: &Session,
    (selected, order): (&Selected, Option<&Order>),
    shared: &Shared,
    found: &Preflight,
    forks: usize,
) -> Result<Shared, CliError> {
    let plan = run_plan(selected, &shared.run, &found.ready, forks);
    let operator = session.operator();
    let store = session.store()?;
    if let Some(order) = order {
        order.warrant.claim(&store, &format!("run {}", shared.run), &operator)?;
    }
    let journal = store.create(&shared.run, &plan, "run", &operator)?;
    if let Some(order) = order {
        order.warrant.keep(&store, &shared.run, &shared.events);
    }
    let started = Record::RunStarted {
        command: "run".to_owned(),
        playbook: plan.playbook.clone(),
        digest: plan.digest(),
        hosts: selected.hosts.iter().map(|(host, _)| host.name.clone()).collect(),
        by: operator,
    };
    journal.append_lazy(None, started)?;
    if let Some(order) = order {
        journal.append_lazy(None, order.warrant.record())?;
    }
    for (name, value) in shared.values.iter() {
        let record = Record::SecretKnown { name: name.clone(), fingerprint: value.fingerprint().clone() };
        journal.append_lazy(None, record)?;
    }
    // Together: a run that is cut off right here is known with its secrets, or not at all.
    journal.sync().await?;
    Ok(Shared { journal, about: Arc::new(rollout::about(&plan)), ..shared.clone() })
}

/// What the run sets out to do.
fn run_plan(selected: &Selected, run: &RunId, sagas: &[Saga], forks: usize) -> RunPlan {
    RunPlan {
        version: VERSION,
        run: run.clone(),
        of: None,
        playbook: selected.playbook.name.clone(),
        rollout: selected.playbook.rollout.clone(),
        secrets: selected.playbook.secrets.iter().map(|(name, source)| (name.clone(), source.clone())).collect(),
        services: selected.inventory.services.clone(),
        approval: selected.approval(),
        hosts: sagas
            .iter()
            .map(|saga| PlannedHost { host: saga.host().clone(), batch: saga.batch(), plan: saga.plan().clone() })
            .collect(),
        forks,
        inventory: selected.inventory_name.clone(),
        inventory_files: selected.inventory_files.clone(),
    }
}

fn in_order(hosts: &mut [HostResult], selected: &Selected) {
    let place: HashMap<&HostName, usize> =
        selected.hosts.iter().enumerate().map(|(at, (host, _))| (&host.name, at)).collect();
    hosts.sort_by_key(|result| place.get(&result.host).copied().unwrap_or(usize::MAX));
}
