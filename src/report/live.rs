//! What happens at this moment, in as many rows as there is room for: a fold of events that knows no terminal.
//!
//! From top to bottom: what is worked on (first what goes back, then what is at work the longest, then who waits for
//! others), how many more there are, the batch and the fleet, how the hosts stand, and the way back.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::line::{Line, Role, columns, fit};
use super::plain::{Cleaner, count, title};
use super::recap::BEST_FIRST;
use super::screen::Size;
use crate::event::{Event, EventKind, STOPPING};
use crate::model::{HostName, HostStatus, RunId, StepStatus};

/// The widest that the column of names gets.
const NAME: usize = 32;

/// The columns of the name of what stands for all.
const SHARED: usize = 5;

/// The columns of a time: `59m59s`.
const TIME: usize = 6;

/// So many rows are left to the lines that stay, where the terminal is not too low.
const LASTING: usize = 12;

/// The columns of the bar, between its brackets.
const BAR: usize = 28;

/// The fold.
#[derive(Debug)]
pub(super) struct Live {
    cleaner: Cleaner,
    /// What ends each command that is to be typed.
    options: String,
    run: Option<RunId>,
    command: String,
    began: Option<Timestamp>,
    stage: Stage,
    stopping: bool,
    /// The run's hosts; of them those that were reached, and those that are done.
    hosts: usize,
    ready: HashSet<HostName>,
    done: HashMap<HostName, HostStatus>,
    batch: (u32, u32),
    batch_hosts: HashSet<HostName>,
    /// What is worked on. Without a host: what stands for the batch or the run.
    rows: HashMap<Option<HostName>, Row>,
    width: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Looking,
    Working,
    Over,
}

#[derive(Debug)]
struct Row {
    rank: Rank,
    since: Timestamp,
    seq: u64,
    what: String,
    detail: String,
}

/// Who stands where: the first is what needs an eye the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Failed,
    Back,
    Step,
    Waiting,
}

impl Live {
    pub(super) fn new(cleaner: Cleaner, options: &str) -> Self {
        Self {
            cleaner,
            options: options.to_owned(),
            run: None,
            command: String::new(),
            began: None,
            stage: Stage::Over,
            stopping: false,
            hosts: 0,
            ready: HashSet::new(),
            done: HashMap::new(),
            batch: (0, 0),
            batch_hosts: HashSet::new(),
            rows: HashMap::new(),
            width: 0,
        }
    }

    /// Whether the run takes hosts back because it was asked to.
    pub(super) fn goes_back(&self) -> bool {
        self.command == "rollback" || self.command == "resume --back"
    }

    /// Whether hosts are to be changed, and not only to be looked at.
    pub(super) fn is_at_work(&self) -> bool {
        !matches!(self.command.as_str(), "check" | "plan")
    }

    /// How many hosts the run has.
    pub(super) fn hosts(&self) -> usize {
        self.hosts
    }

    pub(super) fn event(&mut self, event: &Event) {
        match &event.kind {
            EventKind::RunStarted { command, hosts, .. } => {
                self.run = Some(event.run.clone());
                self.command = self.cleaner.field(command);
                self.began = Some(event.ts);
                self.stage = Stage::Looking;
                self.hosts = hosts.len();
                self.width = hosts.iter().map(|host| columns(host.as_str())).max().unwrap_or_default().min(NAME);
            }
            EventKind::HostReady { .. } => self.ready.extend(event.host.clone()),
            EventKind::BatchStarted { batch, of, hosts } => {
                self.stage = Stage::Working;
                self.batch = (*batch, *of);
                self.batch_hosts = hosts.iter().cloned().collect();
            }
            EventKind::StepStarted => self.row(event, Rank::Step, String::new()),
            EventKind::StepProgress { detail } => {
                let detail = without_addresses(&self.cleaner.field(detail));
                let title = event.step.as_ref().map(title).unwrap_or_default();
                match self.rows.get_mut(&event.host) {
                    Some(row) if row.rank == Rank::Step && row.what == self.cleaner.field(&title) => {
                        row.detail = detail;
                    }
                    _ => self.row(event, Rank::Step, detail),
                }
            }
            EventKind::StepFinished { status, .. } => match (&event.host, status) {
                (None, _) => drop(self.rows.remove(&None)),
                (Some(_), StepStatus::Failed | StepStatus::Unknown) => {
                    self.row(event, Rank::Failed, status.to_string());
                }
                (Some(_), _) => self.row(event, Rank::Waiting, String::new()),
            },
            EventKind::UndoStarted { reason } => {
                self.stage = Stage::Working;
                let reason = self.cleaner.field(reason);
                if let Some(host) = &event.host {
                    // It was let go, and is taken back after all.
                    self.done.remove(host);
                }
                self.row(event, Rank::Back, reason);
            }
            EventKind::UndoFinished { .. } => {
                let title = event.step.as_ref().map(title).unwrap_or_default();
                let detail = self.cleaner.field(&title);
                if let Some(row) = self.rows.get_mut(&event.host) {
                    row.detail = format!("undone: {detail}");
                }
            }
            EventKind::HostFinished { result } => {
                self.rows.remove(&Some(result.host.clone()));
                self.batch_hosts.remove(&result.host);
                self.done.insert(result.host.clone(), result.status);
            }
            EventKind::Warning { message } if message.starts_with(STOPPING) => self.stopping = true,
            EventKind::RunFinished { .. } => {
                self.stage = Stage::Over;
                self.rows.clear();
            }
            _ => {}
        }
    }

    fn row(&mut self, event: &Event, rank: Rank, detail: String) {
        let what = match rank {
            Rank::Back => "rolling back".to_owned(),
            Rank::Waiting => "waits for the batch".to_owned(),
            _ => self.cleaner.field(&event.step.as_ref().map(title).unwrap_or_default()),
        };
        self.rows.insert(event.host.clone(), Row { rank, since: event.ts, seq: event.seq, what, detail });
    }

    /// What is to be seen at this moment, at most so large. Nothing when no run goes on.
    pub(super) fn frame(&self, now: Timestamp, size: Size) -> Vec<Line> {
        let Some(began) = self.began.filter(|_| self.stage != Stage::Over) else { return Vec::new() };
        // The last column stays free, since terminals differ in what they do behind it, and so does the row of the cursor.
        let width = size.width.saturating_sub(1);
        let most = size.height.saturating_sub((size.height / 2).min(LASTING)).min(size.height.saturating_sub(1));
        let mut foot = vec![self.fleet(since(began, now), width)];
        foot.extend(self.standing());
        foot.extend(self.way_back(width));
        // What there is no room for is the way back first, and the fleet last.
        foot.truncate(most.saturating_sub(1).clamp(1, 3));
        // Where there is room, a row between what stays and what does not.
        let gap = usize::from(most >= 10);
        let mut lines = self.active(now, width, most.saturating_sub(foot.len() + gap));
        lines.splice(..0, std::iter::repeat_n(Line::new(), gap));
        lines.append(&mut foot);
        lines.truncate(most);
        lines.into_iter().map(|line| line.cut(width)).collect()
    }

    fn active(&self, now: Timestamp, width: usize, room: usize) -> Vec<Line> {
        let mut rows: Vec<(&Option<HostName>, &Row)> = self.rows.iter().collect();
        // What stands for the batch is what all the others wait for.
        rows.sort_by_key(|(host, row)| (row.rank, host.is_some(), row.since, row.seq));
        let shown = if rows.len() <= room { rows.len() } else { room.saturating_sub(1) };
        let (shown, more) = rows.split_at(shown);
        let name_width = self.width.max(SHARED).min(width / 3);
        let mut lines: Vec<Line> = shown
            .iter()
            .map(|(host, row)| {
                let shared = if self.batch.0 > 0 { "batch" } else { "run" };
                let name = fit(host.as_ref().map_or(shared, |host| host.as_str()), name_width);
                let pad = " ".repeat(name_width.saturating_sub(columns(&name)));
                let role = match row.rank {
                    Rank::Failed => Role::Bad,
                    Rank::Back => Role::Caution,
                    Rank::Step => Role::Text,
                    Rank::Waiting => Role::Faint,
                };
                let line = Line::new()
                    .push(Role::Strong, format!("{name}{pad}"))
                    .push(Role::Faint, format!("  {:>TIME$}  ", elapsed(since(row.since, now))));
                let line = line.push(role, row.what.as_str());
                if row.detail.is_empty() { line } else { line.push(role, format!(": {}", row.detail)) }
            })
            .collect();
        if !more.is_empty() && room > 0 {
            let waiting = more.iter().filter(|(_, row)| row.rank == Rank::Waiting).count();
            let also = match waiting {
                0 => String::new(),
                all if all == more.len() => ", waiting for the batch".to_owned(),
                some => format!(", {some} of them waiting for the batch"),
            };
            lines.push(Line::new().push(Role::Faint, format!("… and {} more{also}", more.len())));
        }
        lines
    }

    /// `batch 2/5, 12/60 hosts  [=====>      ]  3m05s`
    fn fleet(&self, time: u64, width: usize) -> Line {
        let all = self.hosts;
        let (words, part) = match self.stage {
            Stage::Looking if self.ready.len() + self.done.len() < all && !self.goes_back() => {
                let seen = self.ready.iter().filter(|host| !self.done.contains_key(*host)).count() + self.done.len();
                (format!("looking at the hosts, {seen}/{all}"), seen)
            }
            Stage::Looking if !self.goes_back() => (format!("looked at {}", count(all, "host", "hosts")), all),
            _ => {
                let done = self.done.len();
                let place = match self.batch {
                    (0, _) => format!("{}, ", self.command),
                    (batch, of) => format!("batch {batch}/{of}, "),
                };
                (format!("{place}{done}/{all} hosts"), done)
            }
        };
        let time = elapsed(time);
        let free = width.saturating_sub(columns(&words) + columns(&time) + 6);
        let line = Line::new().push(Role::Strong, words);
        let line = if free >= 8 { line.text("  ").push(Role::Good, bar(part, all, free.min(BAR))) } else { line };
        line.push(Role::Faint, format!("  {time}"))
    }

    /// `11 changed, 1 rolled-back; 24 at work, 3 waiting, 21 to come`
    fn standing(&self) -> Option<Line> {
        if self.stage != Stage::Working {
            return None;
        }
        let mut groups: Vec<Vec<(Role, String)>> = Vec::new();
        let counted = |status: &HostStatus| self.done.values().filter(|done| *done == status).count();
        let done = BEST_FIRST.iter().filter(|status| counted(status) > 0);
        groups.push(done.map(|status| ((*status).into(), format!("{} {status}", counted(status)))).collect());
        let hosts = || self.rows.iter().filter(|(host, _)| host.is_some());
        let waiting = hosts().filter(|(_, row)| row.rank == Rank::Waiting).count();
        let (working, begun) = (hosts().count() - waiting, hosts().count());
        let to_come = self.hosts.saturating_sub(self.done.len() + begun);
        let words = [(working, "at work"), (waiting, "waiting"), (to_come, "to come")];
        groups.push(
            words.into_iter().filter(|(n, _)| *n > 0).map(|(n, word)| (Role::Text, format!("{n} {word}"))).collect(),
        );
        let mut line = Line::new();
        for (at, group) in groups.into_iter().filter(|group| !group.is_empty()).enumerate() {
            line = line.text(if at > 0 { "; " } else { "" });
            for (at, (role, text)) in group.into_iter().enumerate() {
                line = line.text(if at > 0 { ", " } else { "" }).push(role, text);
            }
        }
        (line.columns() > 0).then_some(line)
    }

    /// How to stop, and how to get back: a command is told whole or not at all.
    fn way_back(&self, width: usize) -> Option<Line> {
        let run = format!("{}{}", self.run.as_ref()?, self.options);
        let (stop, then) = match (self.command.as_str(), self.stage) {
            _ if self.stopping => {
                ("stopping; Ctrl-C again: left unsettled", Some(("then", format!("keyswap resume --back {run}"))))
            }
            ("check" | "plan", _) => ("nothing is changed; Ctrl-C ends it", None),
            ("run", Stage::Looking) => ("nothing is changed yet; Ctrl-C ends it", None),
            ("run", _) => ("Ctrl-C: stop, put this batch back", Some(("all", format!("keyswap rollback {run}")))),
            _ => {
                let back = if self.goes_back() { "--back " } else { "" };
                ("Ctrl-C: stop after these", Some(("go on", format!("keyswap resume {back}{run}"))))
            }
        };
        let line = Line::new().push(Role::Faint, stop);
        let whole = then.map(|(word, command)| line.clone().push(Role::Faint, format!("; {word}: {command}")));
        Some(whole.filter(|whole| whole.columns() <= width).unwrap_or(line))
    }
}

/// Addresses are long, and stand in the line that stays; what is waited for is said behind them.
fn without_addresses(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("(http") {
        out.push_str(before.trim_end());
        rest = after.split_once(')').map_or("", |(_, behind)| behind);
    }
    out + rest
}

pub(super) fn since(then: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.as_second() - then.as_second()).unwrap_or_default()
}

/// In at most six columns: `9s`, `1m02s`, `2h03m`, `4d05h`.
pub(super) fn elapsed(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", (seconds / 86_400).min(999), seconds / 3_600 % 24),
    }
}

fn bar(part: usize, all: usize, width: usize) -> String {
    let inner = width.saturating_sub(2);
    let filled = (inner * part.min(all)).checked_div(all).unwrap_or_default();
    let head = if filled < inner && part > 0 { ">" } else { "" };
    let done = "=".repeat(filled);
    format!("[{:<inner$}]", format!("{done}{head}"))
}

#[cfg(test)]
mod tests;
