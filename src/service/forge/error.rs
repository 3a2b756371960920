//! Why a verification did not succeed, and what it left behind.

use std::fmt;
use std::time::Duration;

use super::run::{RunRef, RunState};
use crate::service::http::{HttpError, Refusal};

/// Why a verification did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The step itself cannot be carried out.
    #[error("the step cannot be carried out: {0}")]
    Spec(String),
    /// The forge does not accept the token, or the token may not do this. It concerns every host alike.
    #[error("the forge refuses: {0}")]
    Auth(AuthProblem),
    /// The repository is not ready for a dispatch; nothing was started.
    #[error("nothing was dispatched: {0}")]
    NotReady(NotReady),
    /// The forge could not be asked; nothing was started.
    #[error("the forge could not be asked")]
    Http(#[source] HttpError),
    /// The forge refused to dispatch; nothing was started.
    #[error("the forge refused the dispatch ({code}): {reason}")]
    Refused {
        /// The status.
        code: u16,
        /// The server's words, or what usually is behind its silence.
        reason: String,
    },
    /// It cannot be said whether the dispatch was accepted, or which run it started.
    #[error("the dispatched run cannot be told: {reason}; a run may be under way and still publish")]
    Untold {
        /// Why.
        reason: String,
    },
    /// The run is not there any more.
    #[error("{run} is gone from the forge")]
    Gone {
        /// Which.
        run: RunRef,
    },
    /// The run ended otherwise than with success.
    #[error("{run} {}", ended(.state))]
    Ended {
        /// Which.
        run: RunRef,
        /// How.
        state: RunState,
    },
    /// The run did not end in time.
    #[error("{0}")]
    TimedOut(Box<TimedOut>),
    /// keyswap was told to stop.
    #[error("stopped; {left}")]
    Interrupted {
        /// What is left on the forge.
        left: Leftover,
    },
    /// The run succeeded, but that does not show what it should show.
    #[error("{run} succeeded, but it does not count: {reason}")]
    Unverified {
        /// Which.
        run: RunRef,
        /// Why.
        reason: String,
    },
}

/// Where a verification stood when its time was up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedOut {
    /// Which run, once it was known.
    pub run: Option<RunRef>,
    /// Where it stood when it was last seen.
    pub state: Option<RunState>,
    /// It needs somebody's approval.
    pub need_approval: bool,
    /// The limit.
    pub waited: Duration,
    /// What is left on the forge.
    pub left: Leftover,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standing = standing(self.run.as_ref(), self.state.as_ref(), self.need_approval);
        write!(f, "{standing} after {:?}; {}", self.waited, self.left)
    }
}

/// Who was refused, and what may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthProblem {
    /// There is no token.
    NoToken,
    /// The server said so.
    Refused {
        /// What it said.
        refusal: Box<Refusal>,
        /// A run that was already dispatched.
        run: Option<Box<RunRef>>,
    },
}

impl fmt::Display for AuthProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("no token was given (`token` in `[services.forge]`)"),
            Self::Refused { refusal, run } => {
                let hint = match refusal.code {
                    401 => "the token is wrong, expired or revoked",
                    _ => "the token needs `write:repository`, and its user the right to run actions there",
                };
                write!(f, "{refusal}; {hint}")?;
                match run {
                    Some(run) => write!(f, "; {run} was already dispatched"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What a repository lacks for a dispatch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The server is too old.
    #[error("{version} cannot say which run a dispatch started; Forgejo 11 or Gitea 1.24 and later can be used")]
    TooOld {
        /// What it is.
        version: String,
    },
    /// It is not there, or the token may not see it.
    #[error("there is no repository `{repo}`, or the token may not see it")]
    NoRepo {
        /// `owner/name`.
        repo: String,
    },
    /// It is archived.
    #[error("the repository `{repo}` is archived")]
    Archived {
        /// `owner/name`.
        repo: String,
    },
    /// Actions are off.
    #[error("actions are turned off in the repository `{repo}`")]
    ActionsOff {
        /// `owner/name`.
        repo: String,
    },
    /// The branch or tag is not there.
    #[error("`{repo}` has no {git_ref}")]
    NoRef {
        /// `owner/name`.
        repo: String,
        /// The full name.
        git_ref: String,
    },
    /// The workflow is not there.
    #[error("there is no workflow `{workflow}` at {git_ref}: {looked}")]
    NoWorkflow {
        /// The file's name.
        workflow: String,
        /// The full name of the branch or tag.
        git_ref: String,
        /// Where it was looked for.
        looked: String,
    },
    /// The runner that was restarted does not call the forge.
    #[error("the forge sees the runner `{runner}` offline for {waited:?}: look at its log on the host")]
    RunnerOffline {
        /// Its name.
        runner: String,
        /// For how long it was waited for.
        waited: std::time::Duration,
    },
    /// An older run that waits for the runner could not be told from the one that would be dispatched.
    #[error(
        "{version} does not name the run that a dispatch starts, and {why}: ours could not be told from an older one"
    )]
    Unquiet {
        /// What it is.
        version: String,
        /// Why a queue cannot be ruled out.
        why: String,
    },
    /// The image's present state cannot be read, so that a push could not be seen.
    #[error("the image `{image}` cannot be looked at, so a push could not be seen: {reason}")]
    Image {
        /// As the step names it.
        image: String,
        /// Why.
        reason: String,
    },
}

/// What a verification that gave up left on the forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing was dispatched.
    Nothing,
    /// The run was cancelled.
    Cancelled(RunRef),
    /// The run goes on, and may still publish.
    Running {
        /// Which.
        run: RunRef,
        /// Why it was not cancelled.
        reason: String,
    },
    /// The run ended by itself in the meantime.
    Ended {
        /// Which.
        run: RunRef,
        /// How.
        state: RunState,
    },
    /// A dispatch was sent, and what became of it is not known.
    Unknown,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing was dispatched"),
            Self::Cancelled(run) => write!(f, "{run} was cancelled"),
            Self::Running { run, reason } => {
                write!(f, "{run} is left as it is and may still publish ({reason})")
            }
            Self::Ended { run, state } => write!(f, "{run} ended in the meantime: {state}"),
            Self::Unknown => {
                f.write_str("a dispatch was sent and its answer is not known: look for a run that may still publish")
            }
        }
    }
}

impl VerifyError {
    /// Whether the token is the trouble: then asking for another host will fail the same way.
    #[must_use]
    pub fn is_auth(&self) -> bool {
        matches!(self, Self::Auth(_))
    }

    /// Whether it concerns every host alike: another host would fail the same way.
    #[must_use]
    pub fn is_common(&self) -> bool {
        match self {
            Self::NotReady(NotReady::RunnerOffline { .. } | NotReady::Unquiet { .. }) => false,
            Self::Spec(_) | Self::Auth(_) | Self::NotReady(_) | Self::Refused { .. } => true,
            _ => false,
        }
    }

    /// Sorts an error from before the dispatch.
    pub(super) fn asking(error: HttpError) -> Self {
        match error {
            HttpError::Status(refusal) if matches!(refusal.code, 401 | 403) => {
                Self::Auth(AuthProblem::Refused { refusal, run: None })
            }
            other => Self::Http(other),
        }
    }
}

fn ended(state: &RunState) -> String {
    match state {
        RunState::Failure => "failed: a job did not succeed".to_owned(),
        RunState::Cancelled => "was cancelled by somebody".to_owned(),
        RunState::Skipped => "was skipped: the conditions of all its jobs said no, so nothing was published".to_owned(),
        other => format!("ended as {other}"),
    }
}

fn standing(run: Option<&RunRef>, state: Option<&RunState>, need_approval: bool) -> String {
    let Some(run) = run else { return "no run was started".to_owned() };
    match state {
        Some(RunState::Waiting) => format!("{run} still waits: no runner has taken it"),
        Some(RunState::Blocked) if need_approval => format!("{run} is still blocked: somebody must approve it"),
        Some(RunState::Blocked) => format!("{run} is still blocked by another run or job"),
        Some(RunState::Running) => format!("{run} is still running"),
        Some(other) => format!("{run} stands at {other}"),
        None => format!("{run} could not be looked at"),
    }
}
