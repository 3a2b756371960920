//! What the records show, and how far: each proof with its answer. What was not looked at is no pass.

use jiff::Timestamp;

use super::fold::{Gathered, ORDER, group};
use super::{Change, HostStory, Proof, StepStory};
use crate::journal::Record;
use crate::model::{ProofRow, Verdict};

/// Actions that show something beyond the host's own files.
const SHOWING: [&str; 4] = ["verify-publish", "assert-not-stored", "http", "approve"];

/// What is said of a step that went on without having shown what it is for (`engine::jobs`); the second by older versions.
const UNVERIFIED: [&str; 2] = ["unverified: ", "it is not known whether it ran on "];

/// All proofs: of the secret, of the hosts, of what works with them.
pub(super) fn proofs(told: &Gathered, shared: &[StepStory], hosts: &[HostStory]) -> Vec<Proof> {
    let mut out = secrets(told);
    out.extend(read_back(hosts, "The new credential was read back from the host", &["changed", "held"], |host| {
        host.credentials.iter().all(|credential| credential.now.is_some())
    }));
    out.extend(read_back(hosts, "The old credential was read back from the host", &["rolled-back"], |host| {
        host.credentials.iter().all(|credential| credential.now == credential.before)
    }));
    out.extend(processes(hosts));
    out.extend(shared.iter().filter(|step| shows(step)).map(|step| Proof {
        what: step_name(step),
        verdict: verdict(step),
        said: said(step),
        at: step.ended,
        hosts: Vec::new(),
        rows: Vec::new(),
    }));
    out.extend(on_hosts(hosts));
    out
}

/// Hosts that are alike in what their credential files held and hold.
pub(super) fn changes(hosts: &[HostStory]) -> Vec<Change> {
    let each = hosts.iter().flat_map(|host| {
        host.credentials
            .iter()
            .map(|credential| ((host.status, credential.before.clone(), credential.now.clone()), host.name.clone()))
    });
    let changes = group(each).into_iter().map(|((status, before, now), mut hosts)| {
        hosts.dedup();
        Change { status, before, now, hosts }
    });
    let mut changes: Vec<Change> = changes.collect();
    changes.sort_by_key(|change| ORDER.iter().position(|status| *status == change.status));
    changes
}

/// What secrets were shown to read: for the run, and from the sides of hosts, which are told together where they agree.
fn secrets(told: &Gathered) -> Vec<Proof> {
    let each = told.proved.iter().filter_map(|(at, host, record)| match record {
        Record::Proved { secret, narrow, summary, rows } => {
            let rows = rows.clone();
            Some(((secret.clone(), *narrow, summary.clone(), host.is_some()), (*at, host.clone(), rows)))
        }
        _ => None,
    });
    let told = group(each).into_iter().map(|((secret, narrow, summary, by_host), seen)| {
        let from = if by_host { " from the host's side" } else { "" };
        let at = seen.iter().map(|(at, ..)| *at).max();
        let hosts = seen.iter().filter_map(|(_, host, _)| host.as_ref().map(ToString::to_string)).collect();
        let rows: Vec<ProofRow> = seen.into_iter().next_back().map(|(.., rows)| rows).unwrap_or_default();
        let unseen = rows.iter().all(|row| row.verdict != Verdict::Fail);
        let verdict = match narrow {
            true => Verdict::Pass,
            false if unseen && !rows.is_empty() => Verdict::CouldNotLook,
            false => Verdict::Fail,
        };
        Proof {
            what: format!("Secret `{secret}` reads its keys and nothing else{from}"),
            verdict,
            said: summary,
            at,
            hosts,
            rows,
        }
    });
    told.collect()
}

/// Of all hosts that stand so: what they hold was read, and is what it must be.
fn read_back(hosts: &[HostStory], what: &str, wanted: &[&str], good: impl Fn(&HostStory) -> bool) -> Option<Proof> {
    let meant: Vec<&HostStory> =
        hosts.iter().filter(|host| wanted.contains(&host.status) && !host.credentials.is_empty()).collect();
    let at = meant.iter().filter_map(|host| host.settled.last()).map(|settled| settled.at).max();
    of_hosts(what.to_owned(), meant.iter().map(|host| (*host, good(host))), Verdict::CouldNotLook, at)
}

/// The process of each runner that was restarted: younger than the files, with the pointer, reading what was placed.
fn processes(hosts: &[HostStory]) -> Option<Proof> {
    // Of a host that went back its undo is the last word, not the restart before it.
    let kept = hosts.iter().filter(|host| matches!(host.status, "changed" | "held"));
    let last = kept.filter_map(|host| {
        let is_restart = |step: &&StepStory| step.action.as_deref() == Some("restart");
        host.steps.iter().rfind(is_restart).map(|step| (host, step))
    });
    let last: Vec<_> = last.collect();
    let at = last.iter().filter_map(|(_, step)| step.ended).max();
    let shown = |step: &StepStory| matches!(step.status, "changed" | "ok") && !step.seen.is_empty();
    let mut proof = of_hosts(
        "The running process is younger than the files and has what they say".to_owned(),
        last.iter().map(|(host, step)| (*host, shown(step))),
        Verdict::CouldNotLook,
        at,
    )?;
    let mut seen: Vec<String> = last.iter().flat_map(|(_, step)| step.seen.clone()).collect();
    seen.sort();
    seen.dedup();
    // On a few hosts alike all of it can be told; on many, paths differ.
    if (1..=4).contains(&seen.len()) {
        let alike = last.iter().map(|(_, step)| &step.seen).find(|seen| !seen.is_empty());
        let seen = alike.map(|seen| seen.join("; ")).unwrap_or_default();
        proof.said = format!("{}: {seen}", proof.said);
    }
    Some(proof)
}

/// Steps of hosts that show something, by step.
fn on_hosts(hosts: &[HostStory]) -> Vec<Proof> {
    let last = hosts.iter().flat_map(|host| {
        // What was tried again counts as it ended.
        let indexes = group(host.steps.iter().filter(|step| shows(step)).map(|step| (step.index, step)));
        indexes.into_iter().filter_map(move |(index, steps)| steps.last().map(|step| (index, (host, *step))))
    });
    let mut out = Vec::new();
    for (_, seen) in group(last) {
        let at: Option<Timestamp> = seen.iter().filter_map(|(_, step)| step.ended).max();
        let Some((_, first)) = seen.first() else { continue };
        let good = seen.iter().map(|(host, step)| (*host, verdict(step) == Verdict::Pass));
        let Some(mut proof) = of_hosts(step_name(first), good, Verdict::Fail, at) else { continue };
        let told = seen.iter().find(|(_, step)| verdict(step) != Verdict::Pass).map_or(*first, |(_, step)| *step);
        proof.said = format!("{}: {}", proof.said, said(told));
        out.push(proof);
    }
    out
}

/// So many of so many hosts; `other` is the verdict where it is not all of them.
fn of_hosts<'a>(
    what: String,
    hosts: impl Iterator<Item = (&'a HostStory, bool)>,
    other: Verdict,
    at: Option<Timestamp>,
) -> Option<Proof> {
    let (good, bad): (Vec<_>, Vec<_>) = hosts.partition(|(_, good)| *good);
    let all = good.len() + bad.len();
    if all == 0 {
        return None;
    }
    let names = |hosts: &[(&HostStory, bool)]| hosts.iter().map(|(host, _)| host.name.clone()).collect();
    let (verdict, said, hosts) = match bad.is_empty() {
        true if all == 1 => (Verdict::Pass, "on the one host".to_owned(), names(&good)),
        true => (Verdict::Pass, format!("on all {all} hosts"), names(&good)),
        // Those that were not shown are named.
        false => (other, format!("on {} of {all} hosts", good.len()), names(&bad)),
    };
    Some(Proof { what, verdict, said, at, hosts, rows: Vec::new() })
}

fn shows(step: &StepStory) -> bool {
    step.action.as_deref().is_some_and(|action| SHOWING.contains(&action))
}

fn step_name(step: &StepStory) -> String {
    format!("{} ({})", step.name, step.action.as_deref().unwrap_or_default())
}

fn said(step: &StepStory) -> String {
    if step.detail.is_empty() { step.status.to_owned() } else { step.detail.clone() }
}

fn verdict(step: &StepStory) -> Verdict {
    match step.status {
        // A run on any runner was taken (`on = "any"`), and nobody saw whose: the step went on, and nothing is proven by it.
        "ok" if UNVERIFIED.iter().any(|words| step.detail.contains(words)) => Verdict::CouldNotLook,
        "ok" | "changed" => Verdict::Pass,
        "failed" => Verdict::Fail,
        _ => Verdict::CouldNotLook,
    }
}
