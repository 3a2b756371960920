//! A workflow run as keyswap sees it, whichever server tells of it.

use std::fmt;

use jiff::Timestamp;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// No runner has taken it yet.
    Waiting,
    /// Something must happen before a runner may take it.
    Blocked,
    /// A runner works on it.
    Running,
    /// All its jobs succeeded.
    Success,
    /// A job failed.
    Failure,
    /// Somebody cancelled it.
    Cancelled,
    /// None of its jobs had to run.
    Skipped,
    /// A word that is not known; cleaned.
    Other(String),
}

impl RunState {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Cancelled | Self::Skipped)
    }

    /// Reads Forgejo's word.
    pub(super) fn from_word(word: &str) -> Self {
        match word {
            "waiting" => Self::Waiting,
            "blocked" => Self::Blocked,
            "running" => Self::Running,
            "success" => Self::Success,
            "failure" => Self::Failure,
            "cancelled" => Self::Cancelled,
            "skipped" => Self::Skipped,
            other => Self::Other(crate::service::http::clean(other)),
        }
    }

    /// Reads Gitea's pair of words, in which `waiting` means blocked.
    pub(super) fn from_pair(status: &str, conclusion: &str) -> Self {
        match status {
            "queued" | "requested" | "pending" => Self::Waiting,
            "waiting" => Self::Blocked,
            "in_progress" => Self::Running,
            "completed" => match conclusion {
                "success" | "failure" | "cancelled" | "skipped" => Self::from_word(conclusion),
                other => Self::Other(crate::service::http::clean(&format!("completed {other}"))),
            },
            other => Self::from_word(other),
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waiting"),
            Self::Blocked => f.write_str("blocked"),
            Self::Running => f.write_str("running"),
            Self::Success => f.write_str("success"),
            Self::Failure => f.write_str("failure"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Skipped => f.write_str("skipped"),
            Self::Other(word) => write!(f, "`{word}`"),
        }
    }
}

/// Which run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRef {
    /// The server's id, by which it is asked for; not known where only `/actions/tasks` exists.
    pub id: Option<u64>,
    /// Its number within the repository, which people see.
    pub number: Option<u64>,
    /// Its page.
    pub url: Option<String>,
}

impl fmt::Display for RunRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.number, self.id) {
            (Some(number), _) => write!(f, "run #{number}")?,
            (None, Some(id)) => write!(f, "run with id {id}")?,
            (None, None) => f.write_str("run")?,
        }
        match &self.url {
            Some(url) => write!(f, " ({url})"),
            None => Ok(()),
        }
    }
}

/// One look at a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunView {
    pub(super) run: RunRef,
    pub(super) state: RunState,
    pub(super) need_approval: bool,
    /// It may have jobs that do not show.
    pub(super) partial: bool,
    pub(super) event: String,
    /// The workflow's file name, without directory.
    pub(super) workflow: String,
    /// The branch's short name.
    pub(super) branch: String,
    pub(super) commit: String,
    /// The login of who started it, where it is said.
    pub(super) actor: Option<String>,
    /// The inputs of the dispatch, where they are said.
    pub(super) inputs: Option<std::collections::BTreeMap<String, String>>,
    pub(super) created: Option<Timestamp>,
    pub(super) started: Option<Timestamp>,
    pub(super) stopped: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_both_servers() {
        assert_eq!(RunState::from_word("waiting"), RunState::Waiting);
        assert_eq!(RunState::from_pair("waiting", ""), RunState::Blocked);
        assert_eq!(RunState::from_pair("queued", ""), RunState::Waiting);
        assert_eq!(RunState::from_pair("completed", "success"), RunState::Success);
        assert!(!RunState::from_pair("completed", "").is_final());
        assert!(!RunState::from_word("unknown").is_final());
        assert_eq!(RunState::from_word("a\u{1b}b"), RunState::Other("a b".to_owned()));
    }
}
