//! The recap: one line a host, one for the fleet, and what is left to be done by hand.

use std::fmt::Write as _;

use indexmap::IndexMap;

use super::human::Look;
use super::line::{Line, Role};
use super::plain::Cleaner;
use super::sanitize::line as clean;
use crate::event::{Event, EventKind};
use crate::model::{CredentialState, Fingerprint, HostResult, HostStatus, RunId, RunStatus};
use crate::secret::Redactor;

/// A command to mend a host is shown whole; this only keeps a hostile one from filling the screen.
const COMMAND: usize = 64 * 1024;

/// How hosts may stand, the best first.
pub(super) const BEST_FIRST: [HostStatus; 8] = [
    HostStatus::Ok,
    HostStatus::Changed,
    HostStatus::Skipped,
    HostStatus::RolledBack,
    HostStatus::Unreachable,
    HostStatus::Failed,
    HostStatus::Owed,
    HostStatus::Dirty,
];

/// The recap of a run that is over, as its own output ended: from what the journal holds of it.
///
/// `command` is the one that ended it, `place` the last batch that began and how many there were, where there were batches; `options`
/// end each command that is to be typed.
#[must_use]
pub fn recap(
    redactor: &Redactor,
    run: &RunId,
    (command, place): (&str, Option<(u32, u32)>),
    finished: EventKind,
    (look, options): (Look, &str),
) -> Vec<String> {
    let event = Event { ts: jiff::Timestamp::now(), run: run.clone(), seq: 0, host: None, step: None, kind: finished };
    let (batch, batches) = place.unwrap_or_default();
    let mut recap = Recap { command: command.to_owned(), batch, batches, settled: 0, options: options.to_owned() };
    recap.event(&event);
    recap.lines(&event, &Cleaner::new(redactor)).into_iter().flat_map(|line| look.lines(line)).collect()
}

/// What the recap needs to remember of the events before it.
#[derive(Debug, Default)]
pub(super) struct Recap {
    /// `run`, `rollback`, …; empty where that is not known.
    command: String,
    batch: u32,
    batches: u32,
    /// Hosts whose end state was read back.
    settled: usize,
    /// What ends each command that is to be typed: a state directory that is not the usual one.
    pub(super) options: String,
}

impl Recap {
    pub(super) fn event(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted { command, batches, .. } => {
                self.command.clone_from(command);
                self.batches = *batches;
            }
            EventKind::BatchStarted { batch, of, .. } => (self.batch, self.batches) = (*batch, *of),
            EventKind::RunFinished { hosts, .. } => {
                let reached = |host: &&HostResult| {
                    !matches!(host.status, HostStatus::Skipped | HostStatus::Unreachable | HostStatus::Owed)
                };
                self.settled = hosts.iter().filter(reached).count();
            }
            _ => {}
        }
    }

    /// The lines for the last event; none for any other.
    pub(super) fn lines(&self, event: &Event, cleaner: &Cleaner) -> Vec<Line> {
        let EventKind::RunFinished { status, exit_code, hosts } = &event.kind else { return Vec::new() };
        let names = width(hosts.iter().map(|host| host.host.as_str()));
        let words = width(hosts.iter().map(|host| host.status.as_str()));
        // What went wrong comes last: that is what is still on the screen when there are more hosts than rows.
        let mut rows: Vec<(&HostResult, String)> =
            hosts.iter().map(|host| (host, credentials(&host.credentials, cleaner))).collect();
        rows.sort_by_key(|(host, _)| BEST_FIRST.iter().position(|status| *status == host.status));
        let mut lines = vec![Line::new(), Line::new().push(Role::Strong, "recap")];
        for (host, change) in &rows {
            let line = Line::new()
                .push(Role::Strong, format!("{:<names$}  ", host.host))
                .push(host.status.into(), format!("{:<words$}", host.status))
                .text("  ")
                .hang();
            let reason = cleaner.field(host.reason.as_deref().unwrap_or_default());
            let between = if change.is_empty() || reason.is_empty() { "" } else { "  " };
            lines.push(line.text(format!("{change}{between}")).text(reason));
        }
        let (batch, of, settled, all) = (self.batch, self.batches, self.settled, hosts.len());
        // A rollback has no batches to tell of.
        let place = if batch > 0 { format!("batch {batch}/{of}, ") } else { String::new() };
        let fleet = Line::new().push(Role::Strong, format!("{place}{settled}/{all} hosts"));
        lines.push(fleet.text(format!(": {}", counts(hosts))));
        lines.extend(notes(hosts, cleaner));
        for host in hosts.iter().filter(|host| matches!(host.status, HostStatus::Dirty | HostStatus::Owed)) {
            lines.extend(mend(host, &format!("{}{}", event.run, self.options)));
        }
        lines.extend(self.next(event, *status, hosts));
        lines.push(
            Line::new()
                .text(format!("run {} ", event.run))
                .push((*status).into(), status.as_str())
                .text(format!(", exit {exit_code}")),
        );
        lines
    }

    /// What leads on, and what leads back. What is dirty or owed has its own lines, which come first.
    fn next(&self, event: &Event, status: RunStatus, hosts: &[HostResult]) -> Vec<Line> {
        let any = |wanted: HostStatus| hosts.iter().any(|host| host.status == wanted);
        let run = format!("{}{}", event.run, self.options);
        let line = |what: &str, command: String| Line::new().push(Role::Faint, format!("{what:<10}")).text(command);
        if self.command != "run" || any(HostStatus::Dirty) || any(HostStatus::Owed) {
            return Vec::new();
        }
        let mut lines = Vec::new();
        for (wanted, word) in [
            (HostStatus::RolledBack, "rolled-back"),
            (HostStatus::Failed, "failed"),
            (HostStatus::Unreachable, "unreachable"),
        ] {
            // A run that never began is in no journal.
            if any(wanted) && self.batch > 0 {
                lines.push(line("again", format!("keyswap run PLAYBOOK -i INVENTORY --rerun {word} {run}")));
            }
        }
        if any(HostStatus::Changed) {
            lines.push(line("back", format!("keyswap rollback {run}")));
            if status == RunStatus::Succeeded {
                lines.push(line("for good", format!("keyswap retire {run}")));
            }
        }
        lines
    }
}

/// Each note once, with the hosts that it is true of.
fn notes(hosts: &[HostResult], cleaner: &Cleaner) -> Vec<Line> {
    const NAMED: usize = 3;
    let mut notes: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for host in hosts {
        for note in &host.notes {
            notes.entry(note).or_default().push(host.host.as_str());
        }
    }
    let line = |(note, names): (&str, Vec<&str>)| {
        let more = names.len().saturating_sub(NAMED);
        let named: Vec<&str> = names.into_iter().take(NAMED).collect();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let text = format!("{}{more}: {}", named.join(", "), cleaner.field(note));
        Line::new().push(Role::Caution, "note").text("  ").hang().text(text)
    };
    notes.into_iter().map(line).collect()
}

fn width<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or_default()
}

/// `sha256:old -> sha256:new`; with its path when there are several files.
fn credentials(states: &[CredentialState], cleaner: &Cleaner) -> String {
    let mut out = String::new();
    for state in states {
        if !out.is_empty() {
            out.push_str(", ");
        }
        if states.len() > 1 {
            // Writing into a string cannot fail.
            let _ = write!(out, "{}: ", cleaner.field(&state.path));
        }
        let short =
            |fingerprint: &Option<Fingerprint>| fingerprint.as_ref().map_or("none".to_owned(), Fingerprint::short);
        if state.unread {
            let _ = write!(out, "{} -> not read", short(&state.before));
        } else if state.before == state.now {
            let _ = write!(out, "{} (kept)", short(&state.now));
        } else {
            let _ = write!(out, "{} -> {}", short(&state.before), short(&state.now));
        }
    }
    out
}

/// `11 changed, 1 rolled-back`, the best first.
fn counts(hosts: &[HostResult]) -> String {
    let count = |status: HostStatus| hosts.iter().filter(|host| host.status == status).count();
    let parts: Vec<String> =
        BEST_FIRST.iter().filter(|&&s| count(s) > 0).map(|&s| format!("{} {s}", count(s))).collect();
    match parts.is_empty() {
        true => "no hosts".to_owned(),
        false if count(HostStatus::Ok) == hosts.len() => format!("{}, nothing had to be changed", parts.join(", ")),
        false => parts.join(", "),
    }
}

/// `run` is the run and the options with which it is found.
fn mend(host: &HostResult, run: &str) -> Vec<Line> {
    let name = &host.host;
    let heading = match (host.status, host.mend.is_empty()) {
        (HostStatus::Dirty, false) => {
            format!(
                "{name} is dirty: something could not be put back. Type this on it, then `keyswap resume --back {run}`:"
            )
        }
        (HostStatus::Dirty, true) => {
            format!("{name} is dirty: something could not be put back. Look at it, then `keyswap resume --back {run}`.")
        }
        (_, false) => format!(
            "{name} is owed: its end state could not be read. When it can be reached, `keyswap resume {run}`; or type this on it:"
        ),
        (_, true) => {
            format!("{name} is owed: its end state could not be read. When it can be reached, `keyswap resume {run}`.")
        }
    };
    let mut lines = vec![Line::new(), Line::new().push(Role::Bad, heading)];
    // Pasted as a whole, it stops at the first that fails.
    let last = host.mend.len().saturating_sub(1);
    lines.extend(host.mend.iter().enumerate().map(|(at, command)| {
        let goes_on = if at < last { " && \\" } else { "" };
        Line::new().text(format!("    {}{goes_on}", clean(command, COMMAND)))
    }));
    lines
}
