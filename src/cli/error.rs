//! Errors at the edge, and the exit code that goes with each.

use crate::journal::JournalError;
use crate::load::Diagnostics;
use crate::secret::SecretError;

/// keyswap itself failed.
pub(super) const INTERNAL: u8 = 1;
/// Hosts could not be reached; nothing was changed there.
pub(super) const UNREACHABLE: u8 = 4;
/// Bad usage, or a question that needs a terminal or `--yes`.
pub(super) const USAGE: u8 = 5;
/// A file is invalid.
pub(super) const INVALID: u8 = 6;
/// An approval is missing, or the plan is stale.
pub(super) const APPROVAL: u8 = 7;
/// A lock is held.
pub(super) const HELD: u8 = 8;
/// `--check` found changes.
pub(super) const CHANGES: u8 = 10;
/// Interrupted or declined.
pub(super) const INTERRUPTED: u8 = 130;

/// Why a command ended before it could say so through a run's own outcome.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The files are invalid; shown with their places.
    #[error("invalid files")]
    Files(Diagnostics),
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The operator said no.
    #[error("declined; nothing was changed")]
    Declined,
    /// A secret could not be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The journal says no.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An approval is missing, or the plan is not the one that was made.
    #[error("{0}")]
    Approval(String),
    /// A server says no before anything was touched.
    #[error("{0}")]
    Server(String),
    /// What was to be said could not be written.
    #[error("cannot write to standard output")]
    Output(#[source] std::io::Error),
    /// keyswap itself failed.
    #[error("{what}")]
    Internal {
        /// At what.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<Diagnostics> for CliError {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Files(diagnostics)
    }
}

impl CliError {
    pub(super) fn internal(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal { what: what.to_owned(), source: Box::new(source) }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Files(_) => INVALID,
            Self::Usage(_) => USAGE,
            Self::Declined => INTERRUPTED,
            Self::Secret(error) if error.fault.is_declined() => INTERRUPTED,
            Self::Secret(_) => USAGE,
            Self::Journal(JournalError::Locked(_)) => HELD,
            Self::Journal(JournalError::PlanUsed(_)) => APPROVAL,
            Self::Journal(JournalError::NoRuns(_) | JournalError::NoSuchRun(_) | JournalError::Ambiguous { .. }) => {
                USAGE
            }
            Self::Journal(_) | Self::Output(_) | Self::Internal { .. } => INTERNAL,
            Self::Approval(_) => APPROVAL,
            Self::Server(_) => 2,
        }
    }

    /// What to do about it; nothing where the text itself says so.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Secret(error) if error.fault.is_usage() => {
                Some("run it on a terminal, or take the secret from a file, a variable or a command")
            }
            Self::Journal(error) => of_journal(error),
            Self::Internal { .. } => Some(
                "-vv says more; `keyswap runs` shows whether a run was cut off, and `keyswap resume --back` settles it",
            ),
            Self::Files(_)
            | Self::Usage(_)
            | Self::Declined
            | Self::Secret(_)
            | Self::Approval(_)
            | Self::Server(_)
            | Self::Output(_) => None,
        }
    }
}

fn of_journal(error: &JournalError) -> Option<&'static str> {
    Some(match error {
        JournalError::NoRuns(_) | JournalError::NoSuchRun(_) => {
            "a run that another machine began is known to its hosts: --from-hosts -i INVENTORY asks them"
        }
        JournalError::Io { .. } => "check the path, its owner and the disk; --state-dir names another place",
        JournalError::Locked(_) => "wait until it has ended, then look again: keyswap runs",
        JournalError::NotAJournal { .. }
        | JournalError::BadLine { .. }
        | JournalError::BrokenChain { .. }
        | JournalError::Illegal(_) => {
            "it was changed or cut: leave it as it is, and settle from the hosts: keyswap resume --back --from-hosts -i INVENTORY"
        }
        JournalError::Broken(_) | JournalError::Closed => {
            "free the disk, then look: keyswap runs; a run that was cut off: keyswap resume --back"
        }
        JournalError::PlanUsed(_) => "make the plan anew with keyswap plan, and have it approved again",
        JournalError::Ambiguous { .. } => "give more of its id",
        JournalError::UnsafeDir { .. } => "make it yours alone (chmod 700), or name another place with --state-dir",
        JournalError::NewerFormat { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    /// What happened, where and why stand in the text; what to do stands there or in the hint.
    #[test]
    fn every_error_of_the_journal_says_what_to_do() {
        let refused = || Arc::new(io::Error::other("No space left on device"));
        let path = || "/state/runs/x/journal".into();
        let errors = [
            JournalError::Io { doing: "write", path: path(), source: refused() },
            JournalError::NewerFormat { found: 9, known: 1 },
            JournalError::NotAJournal { path: path(), why: "it is empty".to_owned() },
            JournalError::BadLine { line: 3, why: "expected `,`".to_owned() },
            JournalError::BrokenChain { line: 3 },
            JournalError::Broken(refused()),
            JournalError::Closed,
            JournalError::PlanUsed("run x".to_owned()),
            JournalError::NoRuns(path()),
            JournalError::NoSuchRun("2026".to_owned()),
            JournalError::Ambiguous {
                prefix: "2026".to_owned(),
                candidates: vec!["20260101-000000-abcdef".to_owned()],
            },
            JournalError::UnsafeDir { path: path(), why: "belongs to user 7".to_owned() },
        ];
        for error in errors {
            let error = CliError::from(error);
            let said = error.to_string();
            assert!(error.hint().is_some() || said.contains("; "), "{said}: and what is to be done?");
            assert!(said.chars().next().is_some_and(|c| !c.is_uppercase()), "{said}");
        }
        assert!(CliError::internal("cannot write x", io::Error::other("y")).hint().is_some());
    }
}
