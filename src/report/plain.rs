//! Lines for people, without control codes: for a file, a pipe, a CI log.

use std::borrow::Cow;
use std::io::{self, Write};

use super::line::{Line, Role};
use super::recap::Recap;
use super::sanitize::{self, FIELD};
use super::{Printer, Reporter};
use crate::event::{Event, EventKind, TokenStatus};
use crate::model::{CredentialState, HostName, Once, ProofRow, StepRef, Verdict};
use crate::secret::Redactor;

/// The widest that the column of host names gets.
const NAME_WIDTH: usize = 32;

/// The longest status words are `rolled-back` and `unreachable`.
const STATUS_WIDTH: usize = 11;

/// Tells each event in a line of plain text, and the recap at the end.
#[derive(Debug)]
pub struct Plain<W: Write> {
    printer: Printer<W>,
    lines: Lines,
}

impl<W: Write> Plain<W> {
    /// Writes through this printer.
    pub fn new(printer: Printer<W>) -> Self {
        let lines = Lines::new(printer.redactor());
        Self { printer, lines }
    }

    /// Ends each command that is to be typed with these options.
    #[must_use]
    pub fn typed_with(mut self, options: &str) -> Self {
        self.lines.typed_with(options);
        self
    }
}

impl<W: Write + Send> Reporter for Plain<W> {
    fn event(&mut self, event: &Event) {
        for line in self.lines.of(event) {
            self.printer.line(&line.plain());
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.printer.finish()
    }
}

/// The fold behind [`Plain`] and [`Human`](super::Human): from events to lines.
#[derive(Debug)]
pub(super) struct Lines {
    cleaner: Cleaner,
    width: usize,
    recap: Recap,
}

/// Makes free text fit for a line. It is redacted before it is cut, so that no half of a secret is left over.
#[derive(Debug)]
pub(super) struct Cleaner(Redactor);

impl Cleaner {
    pub(super) fn new(redactor: &Redactor) -> Self {
        Self(redactor.clone())
    }

    pub(super) fn field(&self, text: &str) -> String {
        let whole = sanitize::line(text, usize::MAX);
        sanitize::line(&self.0.redact(&whole), FIELD).into_owned()
    }
}

impl Lines {
    pub(super) fn new(redactor: &Redactor) -> Self {
        Self { cleaner: Cleaner::new(redactor), width: 0, recap: Recap::default() }
    }

    pub(super) fn typed_with(&mut self, options: &str) {
        options.clone_into(&mut self.recap.options);
    }

    pub(super) fn of(&mut self, event: &Event) -> Vec<Line> {
        self.recap.event(event);
        match &event.kind {
            EventKind::RunStarted { command, playbook, hosts, batches } => {
                self.width = hosts.iter().map(|h| h.as_str().len()).max().unwrap_or_default().min(NAME_WIDTH);
                let head = Line::new().push(Role::Strong, format!("{} {}", self.cleaner.field(command), event.run));
                vec![head.text(format!(
                    ": {}, {}, {}",
                    self.cleaner.field(playbook),
                    count(hosts.len(), "host", "hosts"),
                    count(*batches as usize, "batch", "batches")
                ))]
            }
            EventKind::HostReady { detail } => vec![self.row(event, (Role::Faint, "ready"), detail)],
            EventKind::HostPlanned { status, batch, of, credentials, at_most } => {
                let word = |state: &CredentialState| {
                    let now = state.now.as_ref().map_or_else(|| "absent".to_owned(), ToString::to_string);
                    format!("; {} holds {now}", state.path)
                };
                let holds: String = credentials.iter().map(word).collect();
                let text = format!("batch {batch}/{of}, at most {}{holds}", limit(*at_most));
                vec![self.row(event, ((*status).into(), status.as_str()), &text)]
            }
            EventKind::StepPlanned { status, detail, diff, at_most, once } => {
                let stands = match once {
                    Once::Host => "",
                    Once::Batch => ", once for the batch",
                    Once::Run => ", once for the run",
                };
                let longest = at_most.map(|seconds| format!(", at most {}", limit(seconds))).unwrap_or_default();
                let detail = match format!("{stands}{longest}").strip_prefix(", ") {
                    Some(more) => format!("{detail} ({more})"),
                    None => detail.clone(),
                };
                let mut lines = vec![self.row(event, ((*status).into(), status.as_str()), &titled(event, &detail))];
                lines.extend(diff.iter().map(|text| diff_line(&self.cleaner.field(text))));
                lines
            }
            EventKind::BatchStarted { batch, of, hosts } => {
                let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
                let head = Line::new().push(Role::Strong, format!("batch {batch}/{of}"));
                let count = count(hosts.len(), "host", "hosts");
                vec![head.text(format!(", {count}: {}", self.cleaner.field(&names.join(", "))))]
            }
            EventKind::BatchFinished { batch, of, hosts_done, hosts_total } => {
                let head = Line::new().push(Role::Strong, format!("batch {batch}/{of}"));
                vec![head.text(format!(" settled, {hosts_done}/{hosts_total} hosts"))]
            }
            // Of a host the end is told, with the time it took; what concerns all of them takes long.
            EventKind::StepStarted if event.host.is_some() => Vec::new(),
            EventKind::StepStarted => vec![self.row(event, (Role::Faint, "begins"), &titled(event, ""))],
            EventKind::StepProgress { detail } => {
                vec![self.row(event, (Role::Faint, "..."), &titled(event, detail))]
            }
            EventKind::StepFinished { status, detail, elapsed_ms } => {
                let text = titled(event, detail);
                let line = self.row(event, ((*status).into(), status.as_str()), &text);
                vec![line.push(Role::Faint, format!(" ({})", seconds(*elapsed_ms)))]
            }
            EventKind::UndoStarted { reason } => {
                vec![self.row(event, (Role::Caution, "undo"), &format!("rolling back: {reason}"))]
            }
            EventKind::UndoFinished { status, detail } => {
                let text = format!("undo {}", titled(event, detail));
                vec![self.row(event, ((*status).into(), status.as_str()), &text)]
            }
            EventKind::HostFinished { result } => {
                let text = match &result.reason {
                    Some(reason) => format!("settled: {reason}"),
                    None => "settled".to_owned(),
                };
                vec![self.row(event, (result.status.into(), result.status.as_str()), &text)]
            }
            EventKind::Token { status, identity, detail, .. } => {
                let role = match status {
                    TokenStatus::Owed => Role::Bad,
                    TokenStatus::Kept => Role::Caution,
                    _ => Role::Good,
                };
                vec![self.row(event, (role, status.as_str()), &format!("token of `{identity}`: {detail}"))]
            }
            // Its summary comes with the step's end. Of the same proof from each of many hosts only what is wrong is told.
            EventKind::Proof { rows, .. } => {
                let told = |row: &&ProofRow| event.host.is_none() || row.verdict != Verdict::Pass;
                rows.iter().filter(told).map(|row| self.proof_row(row)).collect()
            }
            EventKind::PlanWritten { path, digest, next } => vec![
                self.row(event, (Role::Good, "plan"), &format!("{path} ({digest})")),
                self.row(event, (Role::Faint, "next"), next),
            ],
            EventKind::Approval { signer, key, signed, expires, comment } => {
                let comment = comment.as_ref().map(|comment| format!(": {comment}")).unwrap_or_default();
                let text = format!("by `{signer}` ({key}) at {signed}, until {expires}{comment}");
                vec![self.row(event, (Role::Good, "approved"), &text)]
            }
            EventKind::Pausing { seconds } => {
                vec![self.row(event, (Role::Faint, "pause"), &format!("{} before the next batch", limit(*seconds)))]
            }
            EventKind::Warning { message } => vec![self.row(event, (Role::Caution, "warning"), message)],
            EventKind::RunFinished { .. } => self.recap.lines(event, &self.cleaner),
        }
    }

    /// `NUMBER VERDICT  PROBE: got, where expected`.
    fn proof_row(&self, row: &ProofRow) -> Line {
        let role = match row.verdict {
            Verdict::Pass => Role::Good,
            Verdict::Fail => Role::Bad,
            Verdict::CouldNotLook => Role::Caution,
        };
        let text = match row.verdict {
            Verdict::Pass => format!("{}: {}", row.probe, cut(&row.got)),
            _ => format!("{}: expected {}; got {}", row.probe, row.expected, row.got),
        };
        Line::new()
            .text(format!("    {:>2}  ", row.number))
            .push(role, format!("{:<14}", row.verdict))
            .text("  ")
            .hang()
            .text(self.cleaner.field(&text))
    }

    /// `HOST  STATUS  TEXT`; a row without a host belongs to the batch or the run.
    fn row(&self, event: &Event, (role, status): (Role, &str), text: &str) -> Line {
        let host = event.host.as_ref().map_or("*", |host| host.as_str());
        Line::new()
            .push(Role::Strong, format!("{host:<width$}  ", width = self.width))
            .push(role, format!("{status:<STATUS_WIDTH$}"))
            .text("  ")
            .hang()
            .text(self.cleaner.field(text))
    }
}

/// The step's place and name before what is said of it.
fn titled(event: &Event, detail: &str) -> String {
    match (&event.step, detail) {
        (Some(step), "") => title(step),
        (Some(step), detail) => format!("{}: {detail}", title(step)),
        (None, detail) => detail.to_owned(),
    }
}

pub(super) fn title(step: &StepRef) -> String {
    format!("{}. {}", step.index, step.name)
}

fn diff_line(text: &str) -> Line {
    let role = match text.as_bytes().first() {
        Some(b'+') => Role::Good,
        Some(b'-') => Role::Bad,
        _ => Role::Faint,
    };
    Line::new().push(role, format!("    {text}"))
}

/// The begin of a text: what went well needs no more.
fn cut(text: &str) -> Cow<'_, str> {
    const MOST: usize = 72;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => Cow::Owned(format!("{} ...", text.get(..at).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

pub(super) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A limit in words that people use.
fn limit(seconds: u64) -> String {
    match seconds {
        0 => "a moment".to_owned(),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

fn seconds(ms: u64) -> String {
    if ms < 60_000 {
        format!("{}.{}s", ms / 1000, ms % 1000 / 100)
    } else {
        format!("{}m{:02}s", ms / 60_000, ms / 1000 % 60)
    }
}
