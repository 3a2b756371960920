//! From records to the story.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;

use super::{
    Approval, Approved, Count, Credential, FORMAT, HostStory, Journal, Moment, Note, Secret, Settled, Sitting, Source,
    Span, StepStory, Story, Token, Undo, UndoAct, proofs, words,
};
use crate::journal::{Entry, FoldError, HostPhase, HostState, Operator, Record, ReopenCommand, RunPhase, RunState};
use crate::model::{CredentialState, Fingerprint, HostName, HostStatus, StepRef};

/// Host states from the worst to the best.
pub(super) const ORDER: [&str; 11] = [
    "dirty",
    "owed",
    "held",
    "failed",
    "at-work",
    "not-begun",
    "unreachable",
    "rolled-back",
    "changed",
    "ok",
    "skipped",
];

/// What is gathered on the way.
#[derive(Default)]
pub(super) struct Gathered {
    sittings: Vec<Sitting>,
    moments: Vec<Moment>,
    shared: Vec<StepStory>,
    hosts: IndexMap<HostName, HostStory>,
    /// What secrets were shown to read, as it was said.
    pub(super) proved: Vec<(Timestamp, Option<HostName>, Record)>,
}

pub(super) fn story(source: &Source<'_>) -> Result<Story, FoldError> {
    let state = RunState::fold(&source.log.entries)?;
    let mut told = Gathered::default();
    for entry in &source.log.entries {
        told.take(entry);
    }
    let hosts = std::mem::take(&mut told.hosts);
    let (mut hosts, names): (Vec<HostStory>, Vec<HostName>) =
        hosts.into_iter().map(|(name, host)| (host, name)).unzip();
    for (host, name) in hosts.iter_mut().zip(&names) {
        if let Some(known) = state.hosts.get(name) {
            finish(host, known, source.at_work);
        }
    }
    let mut story = Story {
        format: FORMAT,
        keyswap: env!("CARGO_PKG_VERSION"),
        told: source.told,
        run: source.run.clone(),
        playbook: state.playbook.clone(),
        command: state.command.clone(),
        by: operator(&state.by),
        by_version: state.by.version.clone(),
        plan: state.digest.clone(),
        status: status(&state, source.at_work),
        exit_code: state.exit_code,
        sentence: String::new(),
        started: state.started,
        ended: state.last,
        counts: counts(&hosts),
        secrets: state
            .secrets
            .iter()
            .map(|(name, of)| Secret { name: name.clone(), fingerprint: of.short() })
            .collect(),
        token: state.token.as_ref().map(|token| Token {
            what: token.describe(),
            server: token.server.clone(),
            fingerprint: token.minted.as_ref().map(|minted| minted.fingerprint.short()),
            expires: token.minted.as_ref().map(|minted| minted.expires),
            revoked: token.revoked,
        }),
        left: Vec::new(),
        proofs: proofs::proofs(&told, &told.shared, &hosts),
        changes: proofs::changes(&hosts),
        notes: notes(&state, &hosts),
        sittings: told.sittings,
        moments: told.moments,
        shared_steps: told.shared,
        approvals: approvals(&state),
        hosts,
        journal: Journal {
            records: state.last_seq,
            head: source.log.head().map(|head| head.as_str().to_owned()),
            torn: source.log.torn,
        },
    };
    story.left = words::left(&story, &state, source.at_work);
    story.sentence = words::sentence(&story, &state);
    Ok(story)
}

impl Gathered {
    fn take(&mut self, entry: &Entry) {
        self.sit(entry);
        let sitting = self.sittings.len().saturating_sub(1);
        if let Some(text) = words::moment(entry) {
            self.moments.push(Moment { at: entry.ts, sitting, what: entry.record.name(), text });
        }
        match (&entry.record, &entry.host) {
            (Record::RunStarted { hosts, .. }, _) => {
                self.hosts = hosts.iter().map(|name| (name.clone(), empty(name))).collect();
            }
            (Record::Proved { .. }, host) => self.proved.push((entry.ts, host.clone(), entry.record.clone())),
            (record, None) => take_step(&mut self.shared, record, entry.ts, sitting),
            (record, Some(name)) => {
                if let Some(host) = self.hosts.get_mut(name) {
                    // What lies between two sittings is no work.
                    let since = self.sittings.last().map_or(entry.ts, |last| last.started);
                    if let Some(last) = host.ended.filter(|last| *last >= since) {
                        host.busy_ms += entry.ts.as_millisecond() - last.as_millisecond();
                    }
                    host.started = host.started.or(Some(entry.ts));
                    host.ended = Some(entry.ts);
                    of_host(host, record, entry.ts, sitting);
                }
            }
        }
    }

    /// Begins a sitting where somebody begins to work; the last one goes on to here.
    fn sit(&mut self, entry: &Entry) {
        let began = match &entry.record {
            Record::RunStarted { command, by, .. } => Some((command.as_str(), by)),
            Record::RunReopened { command, by } => Some((reopen(*command), by)),
            Record::RetireStarted { by, .. } => Some(("retire", by)),
            _ => None,
        };
        if let Some((command, by)) = began {
            self.sittings.push(Sitting {
                command: command.to_owned(),
                by: operator(by),
                started: entry.ts,
                ended: entry.ts,
                status: None,
            });
        }
        if let Some(last) = self.sittings.last_mut() {
            // Between two sittings a plan is approved or a token revoked: that is not work on the run.
            let between = last.status.is_some() && began.is_none();
            last.ended = if between { last.ended } else { entry.ts };
            match &entry.record {
                Record::RunFinished { status, .. } => last.status = Some(status.as_str()),
                Record::Retired => last.status = Some("succeeded"),
                _ => {}
            }
        }
    }
}

fn empty(name: &HostName) -> HostStory {
    HostStory {
        name: name.to_string(),
        status: "not-begun",
        batch: None,
        machine: None,
        reason: None,
        started: None,
        ended: None,
        busy_ms: 0,
        prepared: Vec::new(),
        steps: Vec::new(),
        undo: Vec::new(),
        settled: Vec::new(),
        credentials: Vec::new(),
        mend: Vec::new(),
        removed: Vec::new(),
        notes: Vec::new(),
    }
}

fn of_host(host: &mut HostStory, record: &Record, at: Timestamp, sitting: usize) {
    match record {
        Record::PrepareStarted => host.prepared.push(Span { sitting, started: at, ended: None }),
        Record::HostPrepared { .. } => {
            if let Some(span) = host.prepared.last_mut() {
                span.ended = Some(at);
            }
        }
        Record::UndoStarted { reason, with_rest } => host.undo.push(Undo {
            reason: reason.clone(),
            with_rest: *with_rest,
            span: Span { sitting, started: at, ended: None },
            acts: Vec::new(),
        }),
        Record::UndoFinished { step, label, status, detail } => {
            if let Some(undo) = host.undo.last_mut() {
                undo.acts.push(UndoAct {
                    step: step.as_ref().map(StepRef::to_string),
                    label: label.clone(),
                    status: status.as_str(),
                    detail: detail.clone(),
                });
            }
        }
        Record::HostSettled { result } => {
            if let Some(undo) = host.undo.last_mut().filter(|undo| undo.span.ended.is_none()) {
                undo.span.ended = Some(at);
            }
            host.settled.push(Settled { at, sitting, status: result.status.as_str() });
        }
        Record::CopiesRemoved { at } => host.removed.extend(at.iter().cloned()),
        record => take_step(&mut host.steps, record, at, sitting),
    }
}

/// A step's beginning, or its end.
fn take_step(steps: &mut Vec<StepStory>, record: &Record, at: Timestamp, sitting: usize) {
    match record {
        Record::StepStarted { step, intent, action } => steps.push(StepStory {
            index: step.index,
            name: step.name.clone(),
            action: action.clone(),
            sitting,
            intent: intent.clone(),
            status: "not-known",
            detail: String::new(),
            seen: Vec::new(),
            started: at,
            ended: None,
        }),
        Record::StepFinished { step, status, detail, seen, .. } => {
            if let Some(open) = steps.iter_mut().rfind(|open| open.index == step.index && open.ended.is_none()) {
                open.status = status.as_str();
                open.detail.clone_from(detail);
                open.seen.clone_from(seen);
                open.ended = Some(at);
            }
        }
        _ => {}
    }
}

/// What the fold knows of a host in the end.
fn finish(host: &mut HostStory, known: &HostState, at_work: bool) {
    host.status = match (&known.result, known.phase) {
        (_, HostPhase::Held) => "held",
        (_, HostPhase::Untouched) => "not-begun",
        // Of a host that is worked on again the last word does not count.
        (Some(result), phase) if phase.is_settled() => HostStatus::as_str(result.status),
        _ if at_work => "at-work",
        _ => "owed",
    };
    host.machine = known.machine.clone().filter(|machine| machine != "-");
    let result = known.result.as_ref();
    host.batch = result.map(|result| result.batch).filter(|batch| *batch > 0);
    host.reason = result.and_then(|result| result.reason.clone()).or_else(|| known.undo_reason.clone());
    host.mend = result.map(|result| result.mend.clone()).unwrap_or_default();
    host.notes = result.map(|result| result.notes.clone()).unwrap_or_default();
    let credentials = match result {
        Some(result) if !result.credentials.is_empty() => &result.credentials,
        _ => &known.credentials,
    };
    let unread = !known.phase.is_settled() && known.phase != HostPhase::Untouched;
    host.credentials = credentials
        .iter()
        .map(|CredentialState { path, before, now, unread: own }| Credential {
            path: path.clone(),
            before: before.as_ref().map(Fingerprint::short),
            // While it is worked on nobody has read it back.
            now: if unread || *own { None } else { now.as_ref().map(Fingerprint::short) },
        })
        .collect();
}

fn status(state: &RunState, at_work: bool) -> &'static str {
    match state.phase {
        _ if at_work => "at-work",
        RunPhase::Fresh => "not-begun",
        RunPhase::Open => "cut-off",
        RunPhase::Finished(status) => status.as_str(),
    }
}

fn counts(hosts: &[HostStory]) -> Vec<Count> {
    let count = |status: &str| hosts.iter().filter(|host| host.status == status).count();
    let all = ORDER.iter().map(|&status| Count { status, hosts: count(status) });
    all.filter(|count| count.hosts > 0).collect()
}

fn approvals(state: &RunState) -> Vec<Approved> {
    let one = |proof: &crate::model::ApprovalProof| Approval {
        signer: proof.signer.clone(),
        key: proof.key.clone(),
        signed: proof.signed,
        expires: proof.expires,
        comment: proof.comment.clone(),
    };
    let all = state.approvals.iter().map(|approved| Approved {
        at: approved.ts,
        what: approved.what.clone(),
        plan: approved.plan.clone(),
        by: approved.approvals.iter().map(one).collect(),
    });
    all.collect()
}

/// Notes of the run, and those of hosts: what several hosts say alike is said once.
fn notes(state: &RunState, hosts: &[HostStory]) -> Vec<Note> {
    let mut notes: Vec<Note> = state
        .notes
        .iter()
        .map(|note| Note {
            at: Some(note.ts),
            hosts: note.host.iter().map(HostName::to_string).collect(),
            text: note.text.clone(),
        })
        .collect();
    let mut alike: IndexMap<&str, Vec<String>> = IndexMap::new();
    for host in hosts {
        for text in &host.notes {
            alike.entry(text).or_default().push(host.name.clone());
        }
    }
    notes.extend(alike.into_iter().map(|(text, hosts)| Note { at: None, hosts, text: text.to_owned() }));
    notes
}

pub(super) fn operator(by: &Operator) -> String {
    format!("{}@{}", by.user, by.host)
}

pub(super) fn reopen(command: ReopenCommand) -> &'static str {
    match command {
        ReopenCommand::Resume => "resume",
        ReopenCommand::ResumeBack => "resume --back",
        ReopenCommand::Rollback => "rollback",
    }
}

/// Hosts by a key, in the order in which the keys came.
pub(super) fn group<K: Ord + Clone, T>(items: impl Iterator<Item = (K, T)>) -> Vec<(K, Vec<T>)> {
    let mut order: Vec<K> = Vec::new();
    let mut groups: BTreeMap<K, Vec<T>> = BTreeMap::new();
    for (key, item) in items {
        if !groups.contains_key(&key) {
            order.push(key.clone());
        }
        groups.entry(key).or_default().push(item);
    }
    order.into_iter().filter_map(|key| groups.remove_entry(&key)).collect()
}
