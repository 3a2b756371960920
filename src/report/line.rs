//! One line for people: pieces of text, each with a role that a terminal may colour.
//!
//! Widths are columns of a terminal, not characters: a wide character takes two, a combining one none.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthChar;

use crate::model::{HostStatus, RunStatus, StepStatus};

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Ordinary.
    Text,
    /// A heading or a name.
    Strong,
    /// Of little weight.
    Faint,
    /// As it should be.
    Good,
    /// Changed.
    Change,
    /// Worth a look.
    Caution,
    /// Wrong.
    Bad,
}

/// A line as it is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    pieces: Vec<(Role, String)>,
    /// Where the rest of the line goes on when it is wrapped; a line without it is left to the terminal.
    hang: Option<usize>,
}

/// How many columns of a terminal a text takes.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(column).sum()
}

fn column(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// The begin of a text that takes at most so many columns, with `…` where something is left out.
pub(super) fn fit(text: &str, most: usize) -> String {
    Line::new().text(text).cut(most).plain()
}

impl Line {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a piece. The caller has cleaned it.
    pub(super) fn push(mut self, role: Role, text: impl Into<String>) -> Self {
        self.pieces.push((role, text.into()));
        self
    }

    pub(super) fn text(self, text: impl Into<String>) -> Self {
        self.push(Role::Text, text)
    }

    /// From here on is text that may be wrapped, and goes on in this column.
    pub(super) fn hang(mut self) -> Self {
        self.hang = Some(self.columns());
        self
    }

    /// How many columns it takes.
    pub(super) fn columns(&self) -> usize {
        self.pieces.iter().map(|(_, text)| columns(text)).sum()
    }

    /// At most so many columns of it; what is left out is told by `…`.
    pub(super) fn cut(self, most: usize) -> Self {
        if self.columns() <= most {
            return self;
        }
        let mut out = Self::new();
        // One column is for the mark.
        let mut room = most.saturating_sub(1);
        for (role, text) in self.pieces {
            let end = text.char_indices().find(|(_, c)| {
                let fits = column(*c) <= room;
                room = room.saturating_sub(column(*c));
                !fits
            });
            match end {
                Some((end, _)) => {
                    let kept = text.get(..end).unwrap_or_default();
                    return out.push(role, format!("{kept}{}", if most > 0 { "…" } else { "" }));
                }
                None => out = out.push(role, text),
            }
        }
        out
    }

    /// The line in lines of at most so many columns, where it may be wrapped. Words stay whole, and so does what stands
    /// between backticks: it may be a command to copy.
    pub(super) fn wrapped(self, most: usize) -> Vec<Self> {
        const LEAST: usize = 20;
        let Some(hang) = self.hang.filter(|hang| self.columns() > most && hang + LEAST <= most) else {
            return vec![self];
        };
        let (mut lines, mut line, mut at) = (Vec::new(), Self::new(), 0);
        for (role, text) in self.pieces {
            // Before the hang are columns, which stay as they are.
            if at < hang {
                at += columns(&text);
                line = line.push(role, text);
                continue;
            }
            for word in words(&text) {
                let wide = columns(word);
                if at + columns(word.trim_end()) > most && at > hang {
                    lines.push(std::mem::take(&mut line));
                    line = Self::new().text(" ".repeat(hang));
                    at = hang;
                    let word = word.trim_start();
                    at += columns(word);
                    line = line.push(role, word);
                } else {
                    at += wide;
                    line = line.push(role, word);
                }
            }
        }
        lines.push(line);
        lines
    }

    /// The line without any control codes and without blanks at its end.
    pub(super) fn plain(&self) -> String {
        let mut out: String = self.pieces.iter().map(|(_, text)| text.as_str()).collect();
        out.truncate(out.trim_end().len());
        out
    }

    /// The line with colours.
    pub(super) fn coloured(&self) -> String {
        let mut out = String::new();
        for (role, text) in &self.pieces {
            let style = role.style();
            // Writing into a string cannot fail.
            let _ = write!(out, "{style}{text}{style:#}");
        }
        out.truncate(out.trim_end().len());
        out
    }
}

/// A text in words with the blanks after them. Between two backticks is one word.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut from, mut quoted, mut blank) = (Vec::new(), 0, false, false);
    let pairs = text.matches('`').count() / 2 * 2;
    let mut ticks = 0;
    for (at, c) in text.char_indices() {
        if blank && c != ' ' {
            words.push(text.get(from..at).unwrap_or_default());
            from = at;
        }
        if c == '`' && ticks < pairs {
            ticks += 1;
            quoted = !quoted;
        }
        blank = c == ' ' && !quoted;
    }
    words.push(text.get(from..).unwrap_or_default());
    words
}

impl Role {
    /// What a role looks like. Colour never stands alone: each has its word beside it.
    fn style(self) -> Style {
        let colour = |colour: AnsiColor| colour.on_default();
        match self {
            Self::Text => Style::new(),
            Self::Strong => Style::new().bold(),
            Self::Faint => Style::new().dimmed(),
            Self::Good => colour(AnsiColor::Green),
            Self::Change => colour(AnsiColor::Yellow),
            Self::Caution => colour(AnsiColor::Magenta),
            Self::Bad => colour(AnsiColor::Red).bold(),
        }
    }
}

impl From<StepStatus> for Role {
    fn from(status: StepStatus) -> Self {
        match status {
            StepStatus::Ok => Self::Good,
            StepStatus::Changed => Self::Change,
            StepStatus::Failed => Self::Bad,
            StepStatus::Unknown => Self::Caution,
            StepStatus::Skipped => Self::Faint,
        }
    }
}

impl From<HostStatus> for Role {
    fn from(status: HostStatus) -> Self {
        match status {
            HostStatus::Ok => Self::Good,
            HostStatus::Changed => Self::Change,
            HostStatus::Failed | HostStatus::Dirty | HostStatus::Owed => Self::Bad,
            HostStatus::RolledBack | HostStatus::Unreachable => Self::Caution,
            HostStatus::Skipped => Self::Faint,
        }
    }
}

impl From<RunStatus> for Role {
    fn from(status: RunStatus) -> Self {
        match status {
            RunStatus::Succeeded => Self::Good,
            RunStatus::RolledBack | RunStatus::Interrupted => Self::Caution,
            RunStatus::Failed | RunStatus::Dirty => Self::Bad,
        }
    }
}
