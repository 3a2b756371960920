//! What becomes of a dispatched run: decided by whoever plays the runner.

use std::collections::BTreeMap;
use std::time::Duration;

/// A run that a runner could take now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchedRun {
    /// The server's id.
    pub id: u64,
    /// Its number within the repository.
    pub number: u64,
    /// The id of the task that its job becomes.
    pub task: u64,
    /// `owner/name`.
    pub repo: String,
    /// The workflow's file name.
    pub workflow: String,
    /// The full name of the branch or tag.
    pub git_ref: String,
    /// The commit.
    pub commit: String,
    /// The declared inputs that were given.
    pub inputs: BTreeMap<String, String>,
}

/// How a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its job succeeds.
    Success,
    /// Its job fails.
    Failure,
    /// It runs and runs.
    NeverEnds,
    /// No runner takes it.
    StuckWaiting,
    /// Somebody cancels it.
    Cancelled,
    /// Its job's condition says no.
    Skipped,
    /// It needs an approval.
    Blocked,
}

/// How a run goes, and what it does meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it goes.
    pub ending: Ending,
    /// How long it runs.
    pub after: Duration,
    /// The runner that takes it.
    pub runner: String,
    /// Its jobs that nobody takes.
    pub leaving: Vec<String>,
    /// An image that it pushes before it ends: `owner/name:tag` and the manifest's digest.
    pub push: Option<(String, String)>,
    /// The account that pushes it; `None`: the image's owner.
    pub pushed_by: Option<String>,
    /// Lines of the job's log.
    pub log: Vec<String>,
}

impl Outcome {
    /// A run that goes this way.
    #[must_use]
    pub fn new(ending: Ending) -> Self {
        Self {
            ending,
            after: Duration::ZERO,
            runner: "runner-1".to_owned(),
            leaving: Vec::new(),
            push: None,
            pushed_by: None,
            log: Vec::new(),
        }
    }

    /// A run that succeeds.
    #[must_use]
    pub fn success() -> Self {
        Self::new(Ending::Success)
    }

    /// It runs this long.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    /// This runner takes it.
    #[must_use]
    pub fn on(self, runner: &str) -> Self {
        Self { runner: runner.to_owned(), ..self }
    }

    /// Nobody takes this job of it.
    #[must_use]
    pub fn leaving(mut self, job: &str) -> Self {
        self.leaving.push(job.to_owned());
        self
    }

    /// It pushes this image (`owner/name:tag`) with this digest.
    #[must_use]
    pub fn pushing(self, image: &str, digest: &str) -> Self {
        Self { push: Some((image.to_owned(), digest.to_owned())), ..self }
    }

    /// Its pushes are this account's.
    #[must_use]
    pub fn pushed_by(self, login: &str) -> Self {
        Self { pushed_by: Some(login.to_owned()), ..self }
    }
}

/// Plays the runner.
pub trait RunnerHook: Send + Sync {
    /// Called once for each run, at the moment at which a runner could take it. It may look at files, so it is
    /// called where blocking does no harm.
    fn outcome(&self, run: &DispatchedRun) -> Outcome;
}

impl<F: Fn(&DispatchedRun) -> Outcome + Send + Sync> RunnerHook for F {
    fn outcome(&self, run: &DispatchedRun) -> Outcome {
        self(run)
    }
}
