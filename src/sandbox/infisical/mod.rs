//! A stand-in for Infisical on loopback: **simulated**, not a real server.
//!
//! It follows what was recorded from a real, unlicensed one: the words and classes of its refusals, names that are
//! not unique, conditions that are widened by a slip of the pen without a word, permissions that are remembered for
//! ten seconds, lives that are capped at 90 days, listings that are no proof. A test replays the recordings against
//! it. What has shown to work here has not been shown to work on a real server.
//!
//! Which answers get lost is decided by [`Fault`]s; what time it is, by a [`Clock`].

mod access;
mod admin;
mod clock;
mod identities;
mod jwt;
mod links;
mod projects;
mod reply;
mod rights;
mod routes;
mod secrets;
mod show;
#[cfg(test)]
mod tests;
mod token_auth;
mod world;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

pub use self::clock::Clock;
pub use self::rights::Rule;
pub use self::world::{
    Folder, Identity, Import, Membership, Named, Org, Privilege, Project, Role, Secret, Token, TokenAuth,
    UniversalAuth, World,
};
pub use super::faults::{Fault, FaultKind};
use super::faults::{Server, Switchboard};

/// The project of the story.
pub const PROJECT: &str = "home-platform";
/// The folder of the story's secrets.
pub const PATH: &str = "/home-platform/infra";
/// The two keys that the story's runner needs.
pub const KEYS: [&str; 2] = ["KAN_FORGEJO_REGISTRY_USERNAME", "KAN_FORGEJO_REGISTRY_TOKEN"];

/// What is served.
struct Shared {
    world: Mutex<World>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running stand-in; it ends when this is dropped.
pub struct StandIn {
    shared: Arc<Shared>,
    server: Server,
}

/// What a story begins with: who is there, and what opens what.
#[derive(Clone)]
pub struct Story {
    /// The organization's id.
    pub org: String,
    /// The project's id.
    pub project: String,
    /// The other project's id.
    pub other: String,
    /// The instance admin's identity.
    pub admin: String,
    /// A token of the instance admin: the shared one.
    pub admin_token: String,
    /// The operator's identity: no access in the organization, admin of the project.
    pub operator: String,
    /// The operator's login.
    pub client_id: String,
    /// The operator's login.
    pub client_secret: String,
}

impl std::fmt::Debug for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Story").field("project", &self.project).finish_non_exhaustive()
    }
}

impl World {
    /// Two projects with secrets in three environments, an instance admin with a token that never should have been
    /// shared, and an operator who may do exactly what the job needs.
    pub fn tell(&mut self) -> Story {
        let org = self.add_org("Home");
        let project = self.add_project(&org, PROJECT);
        let other = self.add_project(&org, "other-project");
        for (environment, path, key, value) in [
            ("prod", PATH, KEYS[0], "ci-publisher"),
            ("prod", PATH, KEYS[1], "not-a-real-forgejo-token"),
            ("prod", PATH, "DECOY_DATABASE_PASSWORD", "decoy-value"),
            ("prod", "/", "ROOT_SECRET", "root-value"),
            ("dev", PATH, KEYS[1], "dev-value"),
        ] {
            self.add_secret(&project, environment, path, key, value);
        }
        self.add_secret(&other, "prod", "/", KEYS[1], "other-value");
        let admin = self.add_identity(&org, None, "Instance Admin Identity");
        self.with_identity(&admin, |identity| {
            identity.instance_admin = true;
            identity.org_role = "admin".to_owned();
        });
        self.attach_token_auth(&admin, 0);
        let expires = self.clock.now() / 1000 + jwt::LONGEST;
        let admin_token = self.mint_past_rules(&admin, "shared", Some(expires));
        let operator = self.add_identity(&org, None, "rotation-operator");
        let client_secret = format!("test-client-secret-{}", uuid::Uuid::new_v4().simple());
        let client_id = self.attach_universal_auth(&operator, &client_secret);
        for project in [&project, &other] {
            self.add_member(project, &admin, &["admin"]);
        }
        self.add_member(&project, &operator, &["admin"]);
        Story { org, project, other, admin, admin_token, operator, client_id, client_secret }
    }

    /// The rule of the story, as an API call writes it.
    #[must_use]
    pub fn narrow_rule() -> serde_json::Value {
        json!({
            "subject": "secrets", "action": ["describeSecret", "readValue"],
            "conditions": {
                "environment": {"$eq": "prod"}, "secretPath": {"$eq": PATH}, "secretName": {"$in": KEYS},
            },
        })
    }
}

impl StandIn {
    /// Starts one with this world.
    ///
    /// # Errors
    /// When no port of the loopback address can be had.
    pub async fn start(world: World) -> io::Result<Self> {
        let shared = Arc::new(Shared { world: Mutex::new(world) });
        let server = Server::start(routes::router(Arc::clone(&shared)), Arc::new(Switchboard::default())).await?;
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

    /// Spoils no answer any more.
    pub fn heal(&self) {
        self.server.switchboard().clear();
    }

    /// How many requests are still to take effect, after their connection has gone.
    #[must_use]
    pub fn late(&self) -> usize {
        self.server.switchboard().late()
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
}
