//! `--from-hosts`: a run is taken back by what its hosts recorded, on a machine that has no journal of it.
//!
//! Taking it back is journaled here as a run of its own, so that it can be gone on with like any other.

use serde_json::json;

use super::args::{BackArgs, FromHosts, Output};
use super::inventory::{joined, select};
use super::rollback::{BY_OPERATOR, shared_for};
use super::session::Session;
use super::token::{self, AtHand};
use super::{CliError, error};
use crate::engine::TokenNote;
use crate::event::{EventKind, Sink, TokenStatus};
use crate::journal::{Journal, Record, ReopenCommand};
use crate::load;
use crate::model::{HostName, HostResult, HostStatus, RunId};
use crate::plan::{PlannedHost, RunPlan};
use crate::rollout::{
    Asked, Back, NoRun, Outcome, Recalled, ask, exit_code, finish_back, recall, run_status, take_back, which,
};
use crate::step::{HostPlan, Values, digest_of};

/// Why there is no `resume --from-hosts` forward.
pub(super) const NOT_FORWARD: &str = "the hosts know the way back, not the way forward: the plan, where its secret comes from and what \
     verifies it stay with the machine that began the run. Put it back (resume --back --from-hosts), then run the playbook again";

/// Takes a run back that only its hosts know.
pub(super) async fn back_from_hosts(
    session: &Session,
    args: &BackArgs,
    command: ReopenCommand,
) -> Result<u8, CliError> {
    let from: &FromHosts = &args.from;
    let hosts = select(session, &from.as_select(), Some(&from.as_reach(args.forks)))?;
    let order: Vec<HostName> = hosts.iter().map(|host| host.name.clone()).collect();
    let inventory = joined(&from.inventory);
    let connect = session.connect(&inventory)?;
    let forks = usize::from(args.forks);
    let asked = ask(&connect, hosts, forks).await;
    let run = match meant(session, &asked, command, args.run.as_deref())? {
        Ok(run) => run,
        Err(code) => return Ok(code),
    };
    let store = session.store()?;
    let own = RunId::new(jiff::Timestamp::now());
    // A journal of the run that lies here as well must tell the same story as its hosts.
    let log = store.read(&run).ok().filter(|log| log.header.is_some());
    let known = |head: &str| log.as_ref().is_none_or(|log| log.contains(head));
    let mut recalled = recall(asked, command, &own, &run, forks, known).await;
    recalled.plan.inventory = inventory;
    recalled.plan.services = load::inventory(&from.inventory, &session.context()?)?.services;
    let (events, report) = session.report(&own);
    let started = EventKind::RunStarted {
        command: word(command).to_owned(),
        playbook: recalled.plan.playbook.clone(),
        hosts: order.clone(),
        batches: 1,
    };
    events.emit(None, None, started);
    say(&events, &run, &recalled);
    let code = settle(session, &events, &order, command, &run, recalled).await;
    report.finish(&events);
    code
}

/// The run that is meant, or the exit code where nobody who could be reached knows one.
pub(super) fn meant(
    session: &Session,
    asked: &[Asked],
    command: ReopenCommand,
    prefix: Option<&str>,
) -> Result<Result<RunId, u8>, CliError> {
    let why = match which(asked, command, prefix) {
        Ok(run) => return Ok(Ok(run)),
        Err(why) => why,
    };
    let silent = say_silent(session, asked);
    // They may know it.
    let unknown = matches!(why, NoRun::NoAnswer | NoRun::Unknown(_)) && silent;
    if unknown {
        let mut out = session.out();
        match session.global.output {
            Output::Jsonl => out.json(&json!({ "event": "warning", "message": why.to_string() })),
            Output::Human | Output::Plain => out.line(&why.to_string()),
        }
        return Ok(Err(error::UNREACHABLE));
    }
    Err(CliError::usage(why.to_string()))
}

/// Tells of each host that did not answer; whether there is one.
pub(super) fn say_silent(session: &Session, asked: &[Asked]) -> bool {
    let mut out = session.out();
    let silent = asked.iter().filter_map(|asked| Some((&asked.host.name, asked.unreachable()?)));
    let said = silent.map(|(host, why)| match session.global.output {
        Output::Jsonl => {
            out.json(&json!({ "event": "host", "host": host, "status": HostStatus::Unreachable, "reason": why }));
        }
        Output::Human | Output::Plain => out.line(&format!("{host}: {why}")),
    });
    said.count() > 0
}

fn word(command: ReopenCommand) -> &'static str {
    if command == ReopenCommand::Rollback { "rollback" } else { "resume --back" }
}

/// What the hosts told that is worth knowing.
fn say(events: &Sink, run: &RunId, recalled: &Recalled) {
    for host in &recalled.strange {
        let text = format!(
            "it keeps a head of run {run}'s journal that the journal on this machine does not hold: that one was changed or cut, or is not the whole"
        );
        events.warn(Some(host), text);
    }
    for planned in &recalled.plan.hosts {
        for note in &planned.plan.notes {
            events.warn(Some(&planned.host.name), note.clone());
        }
    }
    if !recalled.missing.is_empty() {
        let names: Vec<&str> = recalled.missing.iter().map(HostName::as_str).collect();
        events.warn(None, format!("run {run} has hosts that were not asked: {}", names.join(", ")));
    }
}

/// Takes the hosts back that go back, and says of the others how they stand.
async fn settle(
    session: &Session,
    events: &Sink,
    order: &[HostName],
    command: ReopenCommand,
    run: &RunId,
    mut recalled: Recalled,
) -> Result<u8, CliError> {
    for result in recalled.stay.iter_mut().filter(|result| result.status == HostStatus::Owed) {
        result.notes.push(format!("when the host is back: keyswap resume {}", recalled.plan.run));
    }
    let mut outcome = recalled.outcome();
    let owed = outcome.hosts.iter().any(|result| result.status == HostStatus::Owed);
    let token = token(events, run, &recalled, &mut outcome);
    if recalled.plan.hosts.is_empty() && !owed && token.is_none() {
        events.warn(None, format!("run {run}: there is nothing to undo"));
        for result in &outcome.hosts {
            events.emit(Some(&result.host), None, EventKind::HostFinished { result: result.clone() });
        }
        let (status, exit_code) = (run_status(&outcome), exit_code(&outcome));
        events.emit(None, None, EventKind::RunFinished { status, exit_code, hosts: outcome.hosts });
        return Ok(exit_code);
    }
    let going = recalled.plan.clone();
    let (plan, journal) = begin(session, order, command, (run, token), &recalled).await?;
    for result in &outcome.hosts {
        spare(&journal, events, result).await?;
    }
    let state = session.store()?.state(&plan.run)?;
    let shared = shared_for(session, &plan, journal, events, Values::new())?;
    let taken =
        take_back(&shared, &going, &state, Back { command, reason: BY_OPERATOR, stops: true }, going.forks).await;
    outcome.failed |= taken.failed;
    outcome.token_owed |= taken.token_owed;
    outcome.held |= taken.held;
    outcome.interrupted |= taken.interrupted;
    outcome.unfinished |= taken.unfinished;
    outcome.hosts.extend(taken.hosts);
    outcome.hosts.sort_by_key(|result| order.iter().position(|name| *name == result.host));
    token::settle(session, &plan.services, &shared, AtHand::default(), &mut outcome).await;
    Ok(finish_back(&shared, &outcome).await)
}

/// The run's token, if its end is for this command to see to: no host that stays as it is can hold it. Else it is named.
fn token<'a>(events: &Sink, run: &RunId, recalled: &'a Recalled, outcome: &mut Outcome) -> Option<&'a TokenNote> {
    let say = |note: &TokenNote, status: TokenStatus, why: String| {
        let detail = format!("token `{}` (id {}) at {}: {why}", note.name, note.id, note.server);
        let kind = EventKind::Token {
            status,
            identity: note.identity_name.clone(),
            id: Some(note.id.clone()),
            expires: Some(note.expires),
            fingerprint: Some(note.fingerprint.clone()),
            detail,
        };
        events.emit(None, None, kind);
    };
    let listed = |names: &[HostName]| names.iter().map(HostName::as_str).collect::<Vec<_>>().join(", ");
    // By its name a token is of a run; what a host says of another one is not believed.
    let ours = |note: &TokenNote| note.name.starts_with(&format!("keyswap {run} "));
    let note = match recalled.tokens.as_slice() {
        [] => return None,
        [note] if ours(note) => note,
        strange => {
            outcome.token_owed = true;
            for note in strange {
                let why = "the hosts contradict each other, or it is of another run: it is not revoked".to_owned();
                say(note, TokenStatus::Owed, why);
            }
            return None;
        }
    };
    if !recalled.may_hold.is_empty() {
        say(note, TokenStatus::Kept, format!("it stays alive: {} may hold it", listed(&recalled.may_hold)));
        return None;
    }
    if !recalled.missing.is_empty() || !recalled.all_told {
        outcome.token_owed = true;
        let who = if recalled.all_told { listed(&recalled.missing) } else { "hosts that nobody named".to_owned() };
        say(note, TokenStatus::Owed, format!("it may be alive: {who} may hold it, and were not asked"));
        return None;
    }
    Some(note)
}

/// Writes down what the hosts told, as a run of its own; from here on it can be gone on with by the journal alone.
async fn begin(
    session: &Session,
    order: &[HostName],
    command: ReopenCommand,
    (run, token): (&RunId, Option<&TokenNote>),
    recalled: &Recalled,
) -> Result<(RunPlan, Journal), CliError> {
    let mut plan = recalled.plan.clone();
    plan.hosts.extend(recalled.owed.iter().map(|host| PlannedHost {
        host: host.clone(),
        batch: 1,
        plan: HostPlan::default(),
    }));
    let by = session.operator();
    let journal = session.store()?.create(&plan.run, &plan, word(command), &by)?;
    let started = Record::RunStarted {
        command: word(command).to_owned(),
        playbook: plan.playbook.clone(),
        digest: plan.digest(),
        hosts: order.to_vec(),
        by,
    };
    journal.append_lazy(None, started)?;
    let text = format!("takes back run {run}, begun by {}, by what its hosts recorded", recalled.owner);
    journal.append_lazy(None, Record::Note { text })?;
    if let Some(token) = token.cloned() {
        let requested = Record::TokenRequested {
            secret: token.secret,
            name: token.name,
            identity: token.identity,
            identity_name: token.identity_name,
            server: token.server,
        };
        journal.append_lazy(None, requested)?;
        let minted = Record::TokenMinted { id: token.id, expires: token.expires, fingerprint: token.fingerprint };
        journal.append_lazy(None, minted)?;
    }
    for planned in &recalled.plan.hosts {
        let name = &planned.host.name;
        journal.append_lazy(Some(name), Record::PrepareStarted)?;
        let record = Record::HostPrepared {
            undo_digest: digest_of(&planned.plan.undo),
            machine: recalled.machines.get(name).cloned(),
            epoch: None,
            credentials: planned.plan.credentials.clone(),
            state_dir: recalled.state_dirs.get(name).cloned(),
        };
        journal.append_lazy(Some(name), record)?;
    }
    for host in &recalled.owed {
        journal.append_lazy(Some(&host.name), Record::PrepareStarted)?;
    }
    journal.sync().await?;
    Ok((plan, journal))
}

/// Says and journals how a host stands that is left alone.
async fn spare(journal: &Journal, events: &Sink, result: &HostResult) -> Result<(), CliError> {
    journal.append(Some(&result.host), Record::HostSettled { result: result.clone() }).await?;
    events.emit(Some(&result.host), None, EventKind::HostFinished { result: result.clone() });
    Ok(())
}
