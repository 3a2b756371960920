//! Infisical: a dedicated identity as desired state, tokens that are minted and revoked by id, and the proof that a
//! token reads what it should and nothing else.
//!
//! Invariants:
//! - A refusal is told by the server's own class, never by its status alone.
//! - A token is minted under a name that no other token bears; when its value was lost on the way it is found by that
//!   name and revoked, never left alive.
//! - What was written is read back and compared whole; a listing is no proof that a token is dead, a refusal is.
//! - Values of secrets are dropped unread; the operator's login and every token stay in `SecretString`.

mod access;
mod apply;
mod claims;
mod desired;
mod error;
mod identities;
mod issuer;
mod prove;
mod rules;
mod secrets;
#[cfg(test)]
mod tests;
mod tokens;
mod wire;

use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::sync::Mutex;

pub use self::access::{Found, FoundPrivilege, Source};
pub use self::apply::{Applied, ApplyError};
pub use self::claims::{BadToken, Claims};
pub use self::desired::{Change, PlanError, Planned, plan};
pub use self::error::{Class, InfisicalError};
pub use self::identities::FoundIdentity;
pub use self::issuer::{Death, InfisicalIssuer, IssueError, Issuer};
pub use self::prove::{Expected, Proof, Reason, Row, Verdict};
pub use self::rules::Rule;
pub use self::tokens::{MintError, Minted, TokenAuth, TokenId, TokenRow, token_name};
pub use self::wire::{Project, Status};
use crate::model::Service;
use crate::service::http::{Api, Auth, Config, HttpError, Method, Reply, Request};

/// How patiently Infisical is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfisicalConfig {
    /// The limits of a request.
    pub http: Config,
    /// How long the server may remember what an identity was allowed before a change.
    pub permission_cache: Duration,
    /// How long a token is looked for whose minting went unanswered.
    pub look_for: Duration,
    /// How long after it was asked for one may still come to life.
    pub late: Duration,
    /// The pause between two such looks.
    pub look_again: Duration,
    /// How often a change is tried again after an answer was lost.
    pub rounds: u32,
    /// A token that ends sooner than this is refused.
    pub least_life: Duration,
}

impl Default for InfisicalConfig {
    fn default() -> Self {
        Self {
            http: Config::default(),
            // Ten seconds there, and some for two clocks and the way.
            permission_cache: Duration::from_secs(12),
            look_for: Duration::from_secs(20),
            look_again: Duration::from_secs(4),
            late: Duration::from_secs(120),
            rounds: 4,
            least_life: Duration::from_secs(24 * 3600),
        }
    }
}

/// How somebody logs in.
#[derive(Debug, Clone)]
pub enum Login {
    /// With a token.
    Token(SecretString),
    /// With Universal Auth: a short-lived token is asked for, again when it has ended.
    UniversalAuth {
        /// The client id.
        client_id: String,
        /// The client secret.
        client_secret: SecretString,
    },
}

/// A client of one server, for one who asks.
#[derive(Debug)]
pub struct Infisical {
    api: Api,
    login: Login,
    session: Mutex<Option<Session>>,
    config: InfisicalConfig,
}

#[derive(Debug, Clone)]
struct Session {
    api: Api,
    /// The token that was asked for, to be given back.
    lent: Option<SecretString>,
}

impl Infisical {
    /// A client for the inventory's server. Nobody is asked yet.
    ///
    /// # Errors
    /// When the address may not be used or the CA file cannot be read.
    pub fn new(service: &Service, login: Login, config: InfisicalConfig) -> Result<Self, HttpError> {
        let api = Api::new(service, &Auth::None, config.http.clone())?;
        Ok(Self { api, login, session: Mutex::new(None), config })
    }

    /// A client of the same server for whoever holds this token.
    #[must_use]
    pub fn with_token(&self, token: &SecretString) -> Self {
        let (api, config) = (self.api.clone(), self.config.clone());
        Self { api, login: Login::Token(token.clone()), session: Mutex::new(None), config }
    }

    /// The same server for the same one, reached through a Unix socket that leads to it.
    ///
    /// # Errors
    /// When the CA file cannot be read.
    pub fn through(&self, socket: &Path) -> Result<Self, HttpError> {
        let (api, login) = (self.api.through(socket)?, self.login.clone());
        Ok(Self { api, login, session: Mutex::new(None), config: self.config.clone() })
    }

    /// Whether it is spoken to in clear: then it is a loopback address, and means this machine alone.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.api.is_plain()
    }

    /// The server's name and port.
    #[must_use]
    pub fn server(&self) -> (String, u16) {
        self.api.server()
    }

    /// The server's address.
    #[must_use]
    pub fn base(&self) -> String {
        self.api.base()
    }

    /// The limits that it keeps.
    #[must_use]
    pub fn config(&self) -> &InfisicalConfig {
        &self.config
    }

    /// The server's clock and limits; nobody needs to log in for that.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn status(&self) -> Result<Status, InfisicalError> {
        let reply = self.api.send(&get(&["api", "status"])).await?;
        Ok(reply.json()?)
    }

    /// Logs in, if that has not been done.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn log_in(&self) -> Result<(), InfisicalError> {
        self.session(false).await.map(|_| ())
    }

    /// Gives a token back that was lent for this session.
    ///
    /// # Errors
    /// When the server cannot be asked; the token then ends by itself, within minutes.
    pub async fn log_out(&self) -> Result<(), InfisicalError> {
        let Some(Session { lent: Some(token), .. }) = self.session.lock().await.take() else { return Ok(()) };
        let request = Request::new(Method::Post, &["api", "v1", "auth", "token", "revoke"]).repeatable();
        let request = request.json(&json!({"accessToken": token.expose_secret()}))?;
        self.api.covering(&token).send(&request).await?;
        Ok(())
    }

    async fn session(&self, anew: bool) -> Result<Api, InfisicalError> {
        let mut session = self.session.lock().await;
        if let Some(session) = session.as_ref().filter(|_| !anew) {
            return Ok(session.api.clone());
        }
        let (token, lent) = match &self.login {
            Login::Token(token) => (token.clone(), false),
            Login::UniversalAuth { client_id, client_secret } => {
                // A second login does no harm: what is lent ends within minutes.
                let request = Request::new(Method::Post, &["api", "v1", "auth", "universal-auth", "login"]);
                let body = json!({"clientId": client_id, "clientSecret": client_secret.expose_secret()});
                let request = request.repeatable().json(&body)?;
                let reply = self.api.covering(client_secret).send(&request).await?;
                (reply.json::<wire::LoggedIn>()?.access_token, true)
            }
        };
        let api = self.api.with_auth(&Auth::Bearer(token.clone()))?;
        *session = Some(Session { api: api.clone(), lent: lent.then_some(token) });
        Ok(api)
    }

    /// Sends a request as whoever is logged in; logs in anew where what was lent has ended.
    async fn send(&self, request: &Request) -> Result<Reply, InfisicalError> {
        let sent = self.session(false).await?.send(request).await.map_err(InfisicalError::from);
        let over = |error: &InfisicalError| {
            let class = error.class();
            class.is_some_and(|class| class.is_about_login() && class != Class::BadLogin)
        };
        match sent {
            // A request that was refused at the door has done nothing.
            Err(error) if over(&error) && matches!(self.login, Login::UniversalAuth { .. }) => {
                Ok(self.session(true).await?.send(request).await?)
            }
            other => other,
        }
    }

    /// The project with this slug or id.
    ///
    /// # Errors
    /// When there is none that the one who asks is a member of.
    pub async fn project(&self, slug_or_id: &str) -> Result<Project, InfisicalError> {
        let is_id = uuid::Uuid::parse_str(slug_or_id).is_ok();
        let sent = if is_id {
            let reply = self.send(&get(&["api", "v1", "projects", slug_or_id])).await;
            reply.and_then(|reply| Ok(reply.json::<wire::OneProject>()?.project))
        } else {
            let reply = self.send(&get(&["api", "v1", "projects", "slug", slug_or_id])).await;
            reply.and_then(|reply| Ok(reply.json()?))
        };
        sent.map_err(|error| match error.class() {
            Some(Class::NotFound | Class::NotMember) => InfisicalError::NoProject(slug_or_id.to_owned()),
            _ => error,
        })
    }

    /// The projects that the one who asks is a member of.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn projects(&self) -> Result<Vec<Project>, InfisicalError> {
        Ok(self.send(&get(&["api", "v1", "projects"])).await?.json::<wire::Projects>()?.projects)
    }

    /// The organization of the one who asks: its id.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn organization(&self) -> Result<String, InfisicalError> {
        let reply = self.send(&get(&["api", "v1", "identities", "details"])).await?;
        Ok(reply.json::<wire::Details>()?.identity_details.organization.id)
    }
}

fn get(path: &[&str]) -> Request {
    Request::new(Method::Get, path)
}
