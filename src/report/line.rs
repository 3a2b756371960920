//! One line for people: pieces of text, each with a role that a terminal may colour.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

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
pub(super) struct Line(Vec<(Role, String)>);

impl Line {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a piece. The caller has cleaned it.
    pub(super) fn push(mut self, role: Role, text: impl Into<String>) -> Self {
        self.0.push((role, text.into()));
        self
    }

    pub(super) fn text(self, text: impl Into<String>) -> Self {
        self.push(Role::Text, text)
    }

    /// The line without any control codes and without blanks at its end.
    pub(super) fn plain(&self) -> String {
        let mut out: String = self.0.iter().map(|(_, text)| text.as_str()).collect();
        out.truncate(out.trim_end().len());
        out
    }

    /// The line with colours.
    pub(super) fn coloured(&self) -> String {
        let mut out = String::new();
        for (role, text) in &self.0 {
            let style = role.style();
            // Writing into a string cannot fail.
            let _ = write!(out, "{style}{text}{style:#}");
        }
        out.truncate(out.trim_end().len());
        out
    }
}

impl Role {
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
