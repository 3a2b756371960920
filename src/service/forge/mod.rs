//! Forgejo and Gitea: dispatch a workflow, know which run that was, wait for its end.
//!
//! A verification is bounded by the step's timeout. It never repeats a dispatch blindly, takes only a run that was
//! not there before for its own, and says what it leaves behind when it gives up. Which endpoints are used is
//! decided by the server's version.

mod dispatch;
mod error;
mod image;
mod jobs;
mod preflight;
mod progress;
mod registry;
mod run;
mod runners;
mod stored;
mod target;
mod tasks;
mod verify;
mod version;
mod wire;

use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

pub use self::error::{AuthProblem, Leftover, NotReady, TimedOut, VerifyError};
pub use self::image::{ImageProof, Pushed};
pub use self::jobs::JobSeen;
pub use self::preflight::Preflight;
pub use self::progress::Progress;
pub use self::run::{RunRef, RunState};
pub use self::runners::RunnerState;
pub use self::stored::StoredNames;
pub use self::verify::Published;
pub use self::version::{Product, ServerVersion};
use crate::model::{Service, VerifyPublish};
use crate::service::http::{Api, Auth, Config, HttpError, Request};

/// A forge, as steps see it.
pub trait Forge: Send + Sync {
    /// Looks at everything that a dispatch needs; changes nothing.
    fn preflight<'a>(&'a self, spec: &'a VerifyPublish) -> BoxFuture<'a, Result<Preflight, VerifyError>>;

    /// Dispatches the workflow and waits for its verdict.
    ///
    /// It ends within the step's timeout, and soon after `cancel`; then it looks, for a short bounded time, at what
    /// it leaves behind.
    fn verify_publish<'a>(
        &'a self,
        spec: &'a VerifyPublish,
        progress: &'a mut (dyn FnMut(Progress) + Send),
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<Published, VerifyError>>;

    /// How a runner of a repository (`owner/name`) stands, by its last call; `None` where the forge does not tell.
    fn runner<'a>(&'a self, repo: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<RunnerState>, VerifyError>>;

    /// Lists under which names secrets and variables are stored for the jobs of a repository (`owner/name`).
    fn stored_names<'a>(&'a self, repo: &'a str) -> BoxFuture<'a, Result<StoredNames, VerifyError>>;
}

/// How patiently a forge is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgeConfig {
    /// The limits of a request.
    pub http: Config,
    /// The pause between the first looks at a run; it grows by half each time.
    pub poll_first: Duration,
    /// The longest pause between two looks.
    pub poll_longest: Duration,
    /// How long a run whose dispatch went unanswered is looked for.
    pub look_for: Duration,
    /// How often an unchanged state is said again.
    pub say_again: Duration,
    /// How long a run must stay successful where not all of its jobs need to show.
    pub settle: Duration,
    /// How long a runner may be offline after its restart. The forge notices a runner's calls at once, and their absence
    /// after a minute.
    pub runner_back: Duration,
    /// How long a runner must be seen idle before a queue for it can be ruled out: some times longer than it waits between
    /// two calls.
    pub quiet: Duration,
    /// How long a verification that gives up tries to find and cancel its run.
    pub give_up: Duration,
}

impl Default for ForgeConfig {
    fn default() -> Self {
        Self {
            http: Config::default(),
            poll_first: Duration::from_secs(1),
            poll_longest: Duration::from_secs(10),
            look_for: Duration::from_secs(15),
            say_again: Duration::from_secs(60),
            settle: Duration::from_secs(15),
            runner_back: Duration::from_secs(90),
            quiet: Duration::from_secs(10),
            give_up: Duration::from_secs(20),
        }
    }
}

/// A client for one Forgejo or Gitea server.
#[derive(Debug)]
pub struct ForgeClient {
    api: Api,
    url: String,
    token: Option<SecretString>,
    config: ForgeConfig,
}

impl ForgeClient {
    /// A client for the inventory's forge. Without a token, looking may work and dispatching will not.
    ///
    /// # Errors
    /// When the address may not be used, the CA file cannot be read, or the token fits into no header.
    pub fn new(service: &Service, token: Option<SecretString>, config: ForgeConfig) -> Result<Self, HttpError> {
        let auth = token.clone().map_or(Auth::None, Auth::Token);
        Ok(Self { api: Api::new(service, &auth, config.http.clone())?, url: service.url.clone(), token, config })
    }

    /// Asks which server it is.
    ///
    /// # Errors
    /// When it cannot be asked, or names no version.
    pub async fn version(&self) -> Result<ServerVersion, HttpError> {
        self.detect().await
    }

    fn api(&self) -> &Api {
        &self.api
    }

    fn config(&self) -> &ForgeConfig {
        &self.config
    }

    fn need_token(&self) -> Result<(), VerifyError> {
        if self.token.is_some() { Ok(()) } else { Err(VerifyError::Auth(AuthProblem::NoToken)) }
    }

    /// Asks for something that may not be there.
    async fn get_if_there<T: DeserializeOwned>(&self, request: &Request) -> Result<Option<T>, HttpError> {
        match self.api.send(request).await {
            Ok(reply) => reply.json().map(Some),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Forge for ForgeClient {
    fn preflight<'a>(&'a self, spec: &'a VerifyPublish) -> BoxFuture<'a, Result<Preflight, VerifyError>> {
        Box::pin(async move { Ok(self.look(spec).await?.preflight) })
    }

    fn verify_publish<'a>(
        &'a self,
        spec: &'a VerifyPublish,
        progress: &'a mut (dyn FnMut(Progress) + Send),
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<Published, VerifyError>> {
        Box::pin(async move { self.verify(spec, progress, &cancel).await })
    }

    fn runner<'a>(&'a self, repo: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<RunnerState>, VerifyError>> {
        Box::pin(self.runner_state(repo, name))
    }

    fn stored_names<'a>(&'a self, repo: &'a str) -> BoxFuture<'a, Result<StoredNames, VerifyError>> {
        Box::pin(self.names(repo))
    }
}
