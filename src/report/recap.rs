//! The recap: one line a host, one for the fleet, and what is left to be done by hand.

use std::fmt::Write as _;

use super::line::{Line, Role};
use super::plain::Cleaner;
use super::sanitize::line as clean;
use crate::event::{Event, EventKind};
use crate::model::{CredentialState, Fingerprint, HostResult, HostStatus, RunId};
use crate::secret::Redactor;

/// A command to mend a host is shown whole; this only keeps a hostile one from filling the screen.
const COMMAND: usize = 64 * 1024;

/// The recap of a run that is over, as its own output ended: from what the journal holds of it.
///
/// `place` is the last batch that began and how many there were, where there were batches.
#[must_use]
pub fn recap(redactor: &Redactor, run: &RunId, place: Option<(u32, u32)>, finished: EventKind) -> Vec<String> {
    let event = Event { ts: jiff::Timestamp::now(), run: run.clone(), seq: 0, host: None, step: None, kind: finished };
    let (batch, batches) = place.unwrap_or_default();
    let mut recap = Recap { batch, batches, settled: 0 };
    recap.event(&event);
    recap.lines(&event, &Cleaner::new(redactor)).iter().map(Line::plain).collect()
}

/// What the recap needs to remember of the events before it.
#[derive(Debug, Default)]
pub(super) struct Recap {
    batch: u32,
    batches: u32,
    /// Hosts whose end state was read back.
    settled: usize,
}

impl Recap {
    pub(super) fn event(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted { batches, .. } => self.batches = *batches,
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
        let changes: Vec<String> = hosts.iter().map(|host| credentials(&host.credentials, cleaner)).collect();
        let marks = width(changes.iter().map(String::as_str));
        let mut lines = vec![Line::new(), Line::new().push(Role::Strong, "recap")];
        for (host, change) in hosts.iter().zip(&changes) {
            let line = Line::new()
                .push(Role::Strong, format!("{:<names$}  ", host.host))
                .push(host.status.into(), format!("{:<words$}", host.status))
                .text(format!("  {change:<marks$}"));
            lines.push(line.text(format!("  {}", cleaner.field(host.reason.as_deref().unwrap_or_default()))));
        }
        let (batch, of, settled, all) = (self.batch, self.batches, self.settled, hosts.len());
        // A rollback has no batches to tell of.
        let place = if batch > 0 { format!("batch {batch}/{of}, ") } else { String::new() };
        let fleet = Line::new().push(Role::Strong, format!("{place}{settled}/{all} hosts"));
        lines.push(fleet.text(format!(": {}", counts(hosts))));
        for host in hosts {
            let note = |note: &String| {
                Line::new().push(Role::Caution, "note").text(format!("  {}: {}", host.host, cleaner.field(note)))
            };
            lines.extend(host.notes.iter().map(note));
        }
        for host in hosts.iter().filter(|host| matches!(host.status, HostStatus::Dirty | HostStatus::Owed)) {
            lines.extend(mend(host, event));
        }
        lines.push(
            Line::new()
                .text(format!("run {} ", event.run))
                .push((*status).into(), status.as_str())
                .text(format!(", exit {exit_code}")),
        );
        lines
    }
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
        if state.before == state.now {
            let _ = write!(out, "{} (kept)", short(&state.now));
        } else {
            let _ = write!(out, "{} -> {}", short(&state.before), short(&state.now));
        }
    }
    out
}

/// `11 changed, 1 rolled-back`, the best first.
fn counts(hosts: &[HostResult]) -> String {
    let order = [
        HostStatus::Ok,
        HostStatus::Changed,
        HostStatus::RolledBack,
        HostStatus::Failed,
        HostStatus::Dirty,
        HostStatus::Owed,
        HostStatus::Unreachable,
        HostStatus::Skipped,
    ];
    let count = |status: HostStatus| hosts.iter().filter(|host| host.status == status).count();
    let parts: Vec<String> = order.iter().filter(|&&s| count(s) > 0).map(|&s| format!("{} {s}", count(s))).collect();
    match parts.is_empty() {
        true => "no hosts".to_owned(),
        false if count(HostStatus::Ok) == hosts.len() => format!("{}, nothing had to be changed", parts.join(", ")),
        false => parts.join(", "),
    }
}

fn mend(host: &HostResult, event: &Event) -> Vec<Line> {
    let name = &host.host;
    let run = &event.run;
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
    lines.extend(host.mend.iter().map(|command| Line::new().text(format!("    {}", clean(command, COMMAND)))));
    lines
}
