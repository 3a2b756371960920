//! What is said of a run before it begins: what would become of each host, and what could go wrong that nobody can check.

use std::collections::BTreeSet;

use super::inventory::Selected;
use super::session::Session;
use crate::engine::Saga;
use crate::event::{EventKind, Sink};
use crate::model::{HostName, HostStatus, OnFailure, Once, PublishOn, StepStatus};
use crate::remote::Act;
use crate::rollout::Preflight;
use crate::step::{PlannedStep, Work};

/// Tells of each host what is and what would be: in full, or only what is worth knowing.
pub(super) fn plan(events: &Sink, found: &Preflight, in_full: bool) {
    let of = found.ready.iter().map(Saga::batch).max().unwrap_or(1);
    for saga in &found.ready {
        if in_full {
            let limits = saga.plan().steps.iter().filter_map(PlannedStep::at_most);
            let planned = EventKind::HostPlanned {
                status: if saga.changes() { HostStatus::Changed } else { HostStatus::Ok },
                batch: saga.batch(),
                of,
                credentials: saga.plan().credentials.clone(),
                at_most: if saga.changes() { limits.sum::<std::time::Duration>().as_secs() } else { 0 },
            };
            events.emit(Some(saga.name()), None, planned);
        }
        for note in &saga.plan().notes {
            events.warn(Some(saga.name()), note.clone());
        }
        for step in saga.plan().steps.iter().filter(|_| in_full) {
            let kind = EventKind::StepPlanned {
                status: step.status,
                detail: step.detail.clone(),
                diff: if step.status == StepStatus::Changed { step.diff.clone() } else { Vec::new() },
                at_most: step.at_most().map(|limit| limit.as_secs()),
                once: step.once,
            };
            events.emit(Some(saga.name()), Some(&step.id), kind);
        }
    }
}

/// What the playbook itself leaves open, once for all hosts.
pub(super) fn risks(selected: &Selected, events: &Sink, found: &Preflight) {
    let changing: Vec<&Saga> = found.ready.iter().filter(|saga| saga.changes()).collect();
    if changing.is_empty() {
        return;
    }
    let rollout = &selected.playbook.rollout;
    if rollout.guard.is_none() {
        events.warn(None, "the guard is off: a host that loses its controller stays as it is until `keyswap resume`");
    }
    if rollout.on_failure == OnFailure::Hold {
        let guard =
            if rollout.guard.is_some() { "only its guard and Ctrl-C still put" } else { "only Ctrl-C still puts" };
        let message =
            format!("on_failure = \"hold\": a host that fails keeps the new credential; {guard} the old one back");
        events.warn(None, message);
    }
    let mut seen = BTreeSet::new();
    let steps = || changing.iter().flat_map(|saga| &saga.plan().steps);
    let cuts = |step: &&PlannedStep| {
        matches!(step.work, Work::Act { act: Act::Restart { was_up: true, drain: false, .. }, .. })
    };
    if let Some(step) = steps().find(cuts) {
        events.warn(None, format!("step {} waits for no job (drain = \"off\"): one that runs is cut off", step.id));
    }
    for (step, spec) in steps().filter_map(|step| match &step.work {
        Work::VerifyPublish(spec) => Some((step, spec)),
        _ => None,
    }) {
        if !seen.insert(step.id.index) {
            continue;
        }
        let times = match step.once {
            Once::Run => 1,
            Once::Batch => changing.iter().map(|saga| saga.batch()).collect::<BTreeSet<_>>().len(),
            Once::Host => changing.len(),
        };
        let moves = spec.image.as_ref().map_or_else(String::new, |image| format!(", and the tag of {image} moves"));
        let times = if times == 1 { "once".to_owned() } else { format!("{times} times") };
        events.warn(None, format!("step {} publishes for real, {times}{moves}: nothing undoes that", step.id));
        if spec.on == PublishOn::Any {
            events.warn(
                None,
                format!(
                    "step {} takes a run on any runner: unless it ran on a host of this run, publishing stays unverified \
                     (on = \"this-runner\" demands it)",
                    step.id
                ),
            );
        }
        if spec.runner.is_none() && steps().any(|step| step.drain.is_some()) {
            events.warn(None, format!("the forge is not asked for running jobs: step {} names no `runner`", step.id));
        }
    }
    let checked =
        |step: &&PlannedStep| step.work.asks_forge() || matches!(step.work, Work::Http(_) | Work::Peek { .. });
    if !steps().any(|step| checked(&step)) {
        events.warn(None, "no step verifies that the new credential works: only that the runner is up with it");
    }
}

/// A rollback brings the old credential back, also one that is known to open nothing any more.
pub(super) fn warn_of_the_old(session: &Session, events: &Sink, found: &Preflight) {
    // A token that was minted says when it ends: where none does, no journal needs to be read.
    let any = found.ready.iter().any(|saga| !saga.plan().old_ends.is_empty());
    let minted = if any { super::audit::from_runs(session).unwrap_or_default().minted } else { Vec::new() };
    let now = jiff::Timestamp::now();
    for saga in found.ready.iter().filter(|saga| saga.changes()) {
        for old in saga.plan().old_ends.iter().filter(|old| old.at <= now) {
            let end = old.at.strftime("%Y-%m-%d %H:%M UTC");
            let message = format!("the old token in {} expired at {end}: a rollback would not help", old.path);
            events.warn(Some(saga.name()), message);
        }
        for credential in &saga.plan().credentials {
            let revoked = |minted: &&super::audit::judge::MintedName| {
                minted.revoked && Some(&minted.fingerprint) == credential.before.as_ref()
            };
            if let Some(dead) = minted.iter().find(revoked) {
                let (path, run) = (&credential.path, &dead.run);
                let message = format!("the old token in {path}, of run {run}, was revoked: a rollback would not help");
                events.warn(Some(saga.name()), message);
            }
        }
    }
}

/// Where nothing can start the guard at boot, a reboot in mid-run leaves a host to `resume`.
pub(super) fn warn_of_reboots(selected: &Selected, events: &Sink, found: &Preflight) {
    if selected.playbook.rollout.guard.is_none() {
        return;
    }
    let without = found.ready.iter().filter(|saga| saga.changes() && !saga.guarded_over_a_reboot()).count();
    if without > 0 {
        let hosts = if without == 1 { "host" } else { "hosts" };
        events.warn(
            None,
            format!("the guard ends with a reboot on {without} {hosts}: nothing there would start it (no systemd, no cron, or no root)"),
        );
    }
}

/// Who can read the state directory can read the old credential and the way back.
pub(super) fn warn_of_readers(events: &Sink, readers: &[(HostName, String)]) {
    if let Some((host, why)) = readers.first() {
        let others = readers.len() - 1;
        let hosts = if others == 0 { host.to_string() } else { format!("{host} and {others} more") };
        events.warn(None, format!("jobs could read what keyswap keeps on {hosts}: {why}"));
    }
}
