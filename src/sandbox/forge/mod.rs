//! A stand-in for Forgejo and Gitea on loopback: **simulated**, not a real server.
//!
//! It follows what was read in the servers' source: which endpoints a version has (the others answer 404), their
//! words, and their quirks (a 500 without a message for a short branch name or a workflow that is not there, the
//! Unix epoch for times that have not come, no conclusion beside the status). What has shown to work here has not
//! been shown to work on a real server.
//!
//! What becomes of a run is decided by a [`RunnerHook`]; which answers get lost is decided by [`Fault`]s.

mod actions;
mod hook;
mod json;
mod routes;
mod world;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::hook::{DispatchedRun, Ending, Outcome, RunnerHook};
pub use self::world::{Account, Package, Repo, Run, Version, World};
pub use super::faults::{Fault, FaultKind};
use super::faults::{Server, Switchboard};

/// What is served: the world, and who plays the runner.
struct Shared {
    world: Mutex<World>,
    hook: Box<dyn RunnerHook>,
    /// How long a run waits before a runner could take it.
    pickup: Duration,
    stop: CancellationToken,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a stand-in begins.
pub struct Setup {
    /// Which server is played.
    pub version: Version,
    /// Who may ask.
    pub accounts: Vec<Account>,
    /// How long a run waits before a runner could take it.
    pub pickup: Duration,
}

impl Setup {
    /// One account with all rights and this token, and no waiting.
    #[must_use]
    pub fn new(version: Version, token: &str) -> Self {
        let account =
            Account { login: "ops".to_owned(), token: token.to_owned(), write: true, packages: true, owner: true };
        Self { version, accounts: vec![account], pickup: Duration::ZERO }
    }
}

/// A running stand-in; it ends when this is dropped.
pub struct StandIn {
    shared: Arc<Shared>,
    server: Server,
}

impl StandIn {
    /// Starts one with the repository `owner/repo`.
    ///
    /// # Errors
    /// When no port of the loopback address can be had.
    pub async fn start(setup: Setup, hook: impl RunnerHook + 'static) -> io::Result<Self> {
        let mut world = World::new(setup.version, setup.accounts);
        let mut repo = Repo::new("owner/repo");
        if !setup.version.is_forgejo() {
            repo.files = vec!["README.md".to_owned(), ".gitea/workflows/docker-publish.yml".to_owned()];
        }
        world.repos.push(repo);
        let board = Arc::new(Switchboard::default());
        let stop = CancellationToken::new();
        let world = Mutex::new(world);
        let shared = Arc::new(Shared { world, hook: Box::new(hook), pickup: setup.pickup, stop });
        let server = Server::start(routes::router(Arc::clone(&shared)), board).await?;
        Ok(Self { shared, server })
    }

    /// The base address.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Spoils answers.
    pub fn fault(&self, fault: Fault) {
        self.server.switchboard().add(fault);
    }

    /// The requests so far, each as `METHOD PATH?QUERY`.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.server.switchboard().requests()
    }

    /// The world, to look at or to change. It must be let go of before the next request.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world()
    }

    /// Changes the first repository.
    pub fn with_repo(&self, change: impl FnOnce(&mut Repo)) {
        if let Some(repo) = self.world().repos.first_mut() {
            change(repo);
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// Lets a run go its way.
fn play(shared: Arc<Shared>, run: DispatchedRun) {
    let stop = shared.stop.clone();
    let life = async move {
        tokio::time::sleep(shared.pickup).await;
        let asked = Arc::clone(&shared);
        let question = run.clone();
        let Ok(outcome) = tokio::task::spawn_blocking(move || asked.hook.outcome(&question)).await else { return };
        if !shared.world().take(run.id, &outcome) {
            return;
        }
        tokio::time::sleep(outcome.after).await;
        shared.world().finish(run.id, &outcome);
    };
    tokio::spawn(async move {
        tokio::select! {
            () = life => {}
            () = stop.cancelled() => {}
        }
    });
}
