//! What a verification says while it works.

use std::fmt;
use std::time::Duration;

use super::run::{RunRef, RunState};

/// One thing worth saying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The repository is ready; what will be dispatched.
    Ready {
        /// The server and its version.
        server: String,
        /// The workflow's path.
        workflow: String,
        /// The full name of the branch or tag.
        git_ref: String,
        /// The commit there.
        commit: String,
    },
    /// The runner that was restarted has not called the forge yet.
    RunnerOffline {
        /// Its name.
        runner: String,
    },
    /// A run was dispatched.
    Dispatched {
        /// Which.
        run: RunRef,
    },
    /// The answer to the dispatch was lost or names no run: the run is looked for.
    Looking {
        /// Why.
        reason: String,
    },
    /// The dispatched run does not show: this forge shows a run only when a runner has taken it.
    Untaken {
        /// For how long.
        since: Duration,
    },
    /// An older run may still wait for the runner: before that is cleared, ours could not be told from it.
    Unquiet,
    /// The run's state changed.
    State {
        /// Which.
        run: RunRef,
        /// Its new state.
        state: RunState,
        /// It needs somebody's approval.
        need_approval: bool,
    },
    /// The state is the same for a long time.
    Still {
        /// Which.
        run: RunRef,
        /// Its state.
        state: RunState,
        /// For how long.
        since: Duration,
    },
    /// The forge does not answer; it is asked again.
    Unanswered {
        /// The error.
        reason: String,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { server, workflow, git_ref, commit } => {
                let short: String = commit.chars().take(10).collect();
                write!(f, "dispatching {workflow} at {git_ref} ({short}) on {server}")
            }
            Self::RunnerOffline { runner } => write!(f, "waiting for the runner {runner}: the forge sees it offline"),
            Self::Dispatched { run } => write!(f, "dispatched {run}"),
            Self::Looking { reason } => write!(f, "looking for the dispatched run: {reason}"),
            Self::Untaken { since } => write!(f, "the dispatched run waits for a runner for {}s", since.as_secs()),
            Self::Unquiet => f.write_str("waiting until the runner is idle: this forge does not name a dispatched run"),
            Self::State { run, state: RunState::Waiting, .. } => write!(f, "{run} waits for a runner"),
            Self::State { run, state: RunState::Blocked, need_approval: true } => {
                write!(f, "{run} is blocked until somebody approves it")
            }
            Self::State { run, state: RunState::Blocked, .. } => write!(f, "{run} is blocked by another run or job"),
            Self::State { run, state, .. } => write!(f, "{run}: {state}"),
            Self::Still { run, state: RunState::Waiting, since } => {
                write!(f, "{run}: no runner has taken it for {}s", since.as_secs())
            }
            Self::Still { run, state, since } => write!(f, "{run}: {state} for {}s", since.as_secs()),
            Self::Unanswered { reason } => write!(f, "asking again: {reason}"),
        }
    }
}
