//! What steps ask of servers, from the controller.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::model::{ApprovalProof, AssertNotStored, HostName, Http, ProofRow, RunId, StepRef, VerifyPublish};
use crate::remote::Way;
use crate::secret::SecretValue;

/// The servers of the environment.
pub trait Services: Send + Sync {
    /// Looks whether a verification could be done: server, repository, branch, workflow, rights. Says what is worth knowing
    /// and does not stand in the way.
    fn preflight<'a>(&'a self, spec: &'a VerifyPublish) -> BoxFuture<'a, Result<Vec<String>, ServiceError>>;

    /// Dispatches the workflow and waits for its end. `progress` gets a line whenever there is something new.
    ///
    /// What the hosts say of the run is not asked here.
    fn verify_publish<'a>(
        &'a self,
        spec: &'a VerifyPublish,
        progress: &'a (dyn Fn(String) + Send + Sync),
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<Verified, ServiceError>>;

    /// Waits until the forge sees a runner: whether it does. `false`: it does not tell.
    ///
    /// # Errors
    /// When the runner stays away.
    fn runner_back<'a>(
        &'a self,
        _repo: &'a str,
        _runner: &'a str,
        _progress: &'a (dyn Fn(String) + Send + Sync),
    ) -> BoxFuture<'a, Result<bool, ServiceError>> {
        Box::pin(async { Ok(false) })
    }

    /// Whether a runner works on a job by what the forge knows of it, for a moment ago. `None`: the forge does not tell.
    ///
    /// # Errors
    /// When the forge cannot be asked.
    fn runner_busy<'a>(
        &'a self,
        _repo: &'a str,
        _runner: &'a str,
    ) -> BoxFuture<'a, Result<Option<bool>, ServiceError>> {
        Box::pin(async { Ok(None) })
    }

    /// The repository's tasks that run at the moment. `None`: the forge does not tell.
    ///
    /// # Errors
    /// When the forge cannot be asked.
    fn running_tasks<'a>(&'a self, _repo: &'a str) -> BoxFuture<'a, Result<Option<Vec<u64>>, ServiceError>> {
        Box::pin(async { Ok(None) })
    }

    /// Looks that the forge gives none of these names to the jobs of a repository. Changes nothing.
    ///
    /// Says in a line where it looked, and where nobody can.
    ///
    /// # Errors
    /// When one of them is there, or the repository's own secrets cannot be listed.
    fn not_stored<'a>(&'a self, _spec: &'a AssertNotStored) -> BoxFuture<'a, Result<String, ServiceError>> {
        let message = "there is no forge to ask".to_owned();
        Box::pin(async { Err(ServiceError { message, auth: true }) })
    }

    /// Asks an HTTP server; says in a line what it answered.
    fn http<'a>(&'a self, spec: &'a Http) -> BoxFuture<'a, Result<String, ServiceError>>;

    /// Waits for a person's word. `progress` gets a line that says what is waited for.
    ///
    /// # Errors
    /// Why there is none.
    fn approve<'a>(
        &'a self,
        _question: &'a Question,
        _progress: &'a (dyn Fn(String) + Send + Sync),
    ) -> BoxFuture<'a, Result<Consent, String>> {
        Box::pin(async { Err("there is nobody to ask".to_owned()) })
    }

    /// Looks what a token can read: from here, or from a host's side of the network. Changes nothing.
    ///
    /// # Errors
    /// When there is nobody to ask. What could not be looked at is told by the rows.
    fn prove<'a>(
        &'a self,
        _secret: &'a str,
        _token: &'a SecretValue,
        _way: Option<Arc<dyn Way>>,
    ) -> BoxFuture<'a, Result<Proved, ServiceError>> {
        let message = "there is no issuer that could say what the token is for".to_owned();
        Box::pin(async { Err(ServiceError { message, auth: true }) })
    }
}

/// What a person is asked in the midst of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// In which run.
    pub run: RunId,
    /// By which step.
    pub step: StepRef,
    /// For which batch; 0 before the first.
    pub batch: u32,
    /// For this host alone; `None`: for all of `hosts`.
    pub host: Option<HostName>,
    /// The hosts that wait.
    pub hosts: Vec<HostName>,
    /// The playbook's own words.
    pub message: String,
    /// How long they wait.
    pub limit: Duration,
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts: Vec<&str> = self.hosts.iter().map(HostName::as_str).collect();
        write!(f, "step {}, for {}: {}", self.step, hosts.join(", "), self.message)
    }
}

/// Somebody said yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Who and how, in a line.
    pub detail: String,
    /// The signatures, where there are any.
    pub proofs: Option<Proofs>,
}

/// Signatures over a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proofs {
    /// The digest that was signed.
    pub plan: String,
    /// Who signed it.
    pub approvals: Vec<ApprovalProof>,
    /// SHA-256 of each `allowed_signers` that they were compared with.
    pub allowed_signers: Vec<String>,
}

/// What a token was seen to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// It reads its keys and nothing else, and all of that was seen.
    pub narrow: bool,
    /// In a line.
    pub summary: String,
    /// The probes.
    pub rows: Vec<ProofRow>,
}

/// A run that the forge calls a success.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// In a line: the run, what it pushed, where it ran.
    pub detail: String,
    /// Its jobs.
    pub jobs: Vec<JobSeen>,
}

/// A job of a run, as far as the forge tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSeen {
    /// Its name.
    pub name: String,
    /// The task that it became, as the runner's own log has it.
    pub task: Option<u64>,
    /// The runner that took it, where the forge names it.
    pub runner: Option<String>,
}

impl JobSeen {
    /// Whether a runner took it: one that was skipped ran nowhere.
    #[must_use]
    pub fn was_taken(&self) -> bool {
        self.task.is_some() || self.runner.is_some()
    }

    /// Whether it is the wanted one, by its name; one of a matrix has its values behind the name (`build (1, x)`).
    #[must_use]
    pub fn is(&self, wanted: Option<&str>) -> bool {
        let Some(wanted) = wanted else { return true };
        self.name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
    }
}

/// Why a server did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    /// In a line, without a secret.
    pub message: String,
    /// It will be the same for every host: the server does not accept who we are, or what is asked for is not there.
    pub auth: bool,
}
