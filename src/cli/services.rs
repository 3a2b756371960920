//! The environment's servers, as steps see them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::CliError;
use super::ask::Asker;
use super::token::Issuing;
use crate::model::{self, AssertNotStored, Http, SecretName, VerifyPublish};
use crate::remote::{Relay, Way, shares_loopback};
use crate::secret::{Redactor, SecretValue, Sources};
use crate::service::forge::{self, Forge, ForgeClient, ForgeConfig, Progress, RunnerState};
use crate::service::http::probe;
use crate::service::infisical::{InfisicalIssuer, Issuer, Proof};
use crate::step::{Consent, JobSeen, Proved, Question, ServiceError, Services, Verified};

/// The forge, if the inventory names one, who issues the run's token, and plain HTTP.
pub(super) struct Servers {
    forge: Option<ForgeClient>,
    /// What it said when it did not accept us. It would say so to every host: it is not asked again.
    refused: OnceLock<String>,
    /// By the secret: who says what it is for.
    issuers: BTreeMap<SecretName, Arc<InfisicalIssuer>>,
    asker: Option<Asker>,
    /// Fingerprints of credentials that others use too.
    shared: Vec<String>,
    /// The inventory's names for fingerprints.
    known: Vec<(String, String)>,
}

impl Servers {
    /// Reads the forge's token and makes its client, if a step needs it.
    pub(super) async fn new(
        services: &model::Services,
        needs_forge: bool,
        sources: &Sources,
        redactor: &Redactor,
    ) -> Result<Self, CliError> {
        if !needs_forge {
            return Ok(Self::none());
        }
        let Some(service) = &services.forge else {
            return Err(CliError::usage("verify-publish needs [services.forge] in the inventory"));
        };
        let token = match &service.token {
            Some(source) => {
                let value = sources.read("services.forge.token", source).await?;
                redactor.register(&value);
                Some(SecretString::from(value.expose_text()))
            }
            None => None,
        };
        let forge = ForgeClient::new(service, token, ForgeConfig::default())
            .map_err(|error| CliError::Server(format!("[services.forge]: {}", crate::model::chain(&error))))?;
        Ok(Self { forge: Some(forge), ..Self::none() })
    }

    /// With who says what each secret is for, and what others use too.
    pub(super) fn issuing<'a>(
        self,
        issuing: impl IntoIterator<Item = &'a Issuing>,
        inventory: &model::Inventory,
    ) -> Self {
        let shared = inventory.known.values().filter(|known| known.shared);
        Self {
            issuers: issuing.into_iter().map(|of| (of.secret.clone(), Arc::clone(&of.issuer))).collect(),
            shared: shared.map(|known| known.fingerprint.clone()).collect(),
            known: inventory.known.iter().map(|(name, known)| (name.clone(), known.fingerprint.clone())).collect(),
            ..self
        }
    }

    /// With who asks people in the midst of a run.
    pub(super) fn asking(self, asker: Asker) -> Self {
        Self { asker: Some(asker), ..self }
    }

    /// No servers: for what asks none.
    pub(super) fn none() -> Self {
        Self {
            forge: None,
            refused: OnceLock::new(),
            issuers: BTreeMap::new(),
            asker: None,
            shared: Vec::new(),
            known: Vec::new(),
        }
    }

    fn forge(&self) -> Result<&ForgeClient, ServiceError> {
        let message = || ServiceError { message: "the inventory names no forge".to_owned(), auth: false };
        self.forge.as_ref().ok_or_else(message)
    }
}

fn told(error: &crate::service::forge::VerifyError) -> ServiceError {
    ServiceError { message: crate::model::chain(error), auth: error.is_common() }
}

impl Servers {
    /// The proof, from here or by way of a host.
    async fn proof(&self, secret: &str, token: &SecretValue, way: Option<Arc<dyn Way>>) -> Result<Proof, String> {
        let issuer = self.issuers.get(secret).ok_or("nobody can say what this token is for")?;
        let value = SecretString::from(token.expose_text());
        let expected = issuer.expected().sharing(self.shared.clone());
        let Some(way) = way else { return Ok(issuer.prove(&value, &expected).await) };
        let (server, port) = issuer.operator().server();
        // Once before all, so that a host that does not reach the server says why.
        drop(way.open(&server, port).await?);
        // In clear it goes to this machine alone, and whoever listens on another one's loopback is a stranger.
        if issuer.operator().is_plain() && !shares_loopback(way.as_ref(), &server).await {
            let address = issuer.operator().base();
            return Err(format!(
                "through the host {address} is the host's own loopback, not this machine's, and plain http would show the token \
                 to whoever listens there: give [services.infisical] an https address, or the step `once = \"run\"`"
            ));
        }
        let relay = Relay::start(way, server, port).map_err(|error| format!("no place for a socket: {error}"))?;
        let holder = issuer.operator().with_token(&value).through(relay.socket());
        let holder = holder.map_err(|error| crate::model::chain(&error))?;
        Ok(holder.prove(&value, &expected, Some(issuer.operator())).await)
    }
}

impl Services for Servers {
    fn approve<'a>(
        &'a self,
        question: &'a Question,
        progress: &'a (dyn Fn(String) + Send + Sync),
    ) -> BoxFuture<'a, Result<Consent, String>> {
        Box::pin(async move {
            let asker = self.asker.as_ref().ok_or("nothing here asks a person")?;
            asker.ask(question, progress).await
        })
    }

    fn prove<'a>(
        &'a self,
        secret: &'a str,
        token: &'a SecretValue,
        way: Option<Arc<dyn Way>>,
    ) -> BoxFuture<'a, Result<Proved, ServiceError>> {
        Box::pin(async move {
            let auth = way.is_none();
            let proof = self.proof(secret, token, way).await.map_err(|message| ServiceError { message, auth })?;
            Ok(Proved { narrow: proof.is_narrow(), summary: proof.summary(), rows: proof.rows })
        })
    }

    fn preflight<'a>(&'a self, spec: &'a VerifyPublish) -> BoxFuture<'a, Result<Vec<String>, ServiceError>> {
        Box::pin(async move {
            let found = self.forge()?.preflight(spec).await.map_err(|error| told(&error))?;
            Ok(found.notes)
        })
    }

    fn verify_publish<'a>(
        &'a self,
        spec: &'a VerifyPublish,
        progress: &'a (dyn Fn(String) + Send + Sync),
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Result<Verified, ServiceError>> {
        Box::pin(async move {
            let mut say = |news: Progress| progress(news.to_string());
            if let Some(refused) = self.refused.get() {
                let message = format!("the forge is not asked again, it had said: {refused}");
                return Err(ServiceError { message, auth: true });
            }
            let published = self.forge()?.verify_publish(spec, &mut say, cancel).await.map_err(|error| {
                let why = told(&error);
                if error.is_auth() {
                    let _ = self.refused.set(why.message.clone());
                }
                why
            })?;
            let detail = published.to_string();
            let seen = |job: forge::JobSeen| JobSeen { name: job.name, task: job.task, runner: job.runner };
            Ok(Verified { detail, jobs: published.jobs.into_iter().map(seen).collect() })
        })
    }

    fn runner_back<'a>(
        &'a self,
        repo: &'a str,
        runner: &'a str,
        progress: &'a (dyn Fn(String) + Send + Sync),
    ) -> BoxFuture<'a, Result<bool, ServiceError>> {
        Box::pin(async move {
            let mut say = |news: Progress| progress(news.to_string());
            let untold = self.forge()?.back(repo, runner, &mut say).await.map_err(|error| told(&error))?;
            let seen = untold.is_none();
            if let Some(untold) = untold {
                progress(untold);
            }
            Ok(seen)
        })
    }

    fn runner_busy<'a>(&'a self, repo: &'a str, runner: &'a str) -> BoxFuture<'a, Result<Option<bool>, ServiceError>> {
        Box::pin(async move {
            let state = self.forge()?.runner(repo, runner).await.map_err(|error| told(&error))?;
            Ok(state.map(|state| state == RunnerState::Active))
        })
    }

    fn running_tasks<'a>(&'a self, repo: &'a str) -> BoxFuture<'a, Result<Option<Vec<u64>>, ServiceError>> {
        Box::pin(async move { self.forge()?.running(repo).await.map_err(|error| told(&error)) })
    }

    fn not_stored<'a>(&'a self, spec: &'a AssertNotStored) -> BoxFuture<'a, Result<String, ServiceError>> {
        Box::pin(async move {
            let stored = self.forge()?.stored_names(&spec.repo).await.map_err(|error| told(&error))?;
            let found =
                spec.names.iter().flat_map(|name| stored.places(name).map(move |place| format!("{name} is a {place}")));
            let mut found: Vec<String> = found.collect();
            for (known, fingerprint) in &self.known {
                let holders = stored.holders(fingerprint);
                found.extend(holders.map(|(name, place)| format!("{known} is the value of {name}, a {place}")));
            }
            if !found.is_empty() {
                return Err(ServiceError { message: format!("the forge keeps it: {}", found.join(", ")), auth: true });
            }
            let unseen = stored.unseen.join("; ");
            let unseen = if unseen.is_empty() { unseen } else { format!("; not looked at: {unseen}") };
            let values = match self.known.len() {
                0 => {
                    "values of variables were not compared: the inventory knows no credential ([known.NAME])".to_owned()
                }
                known => format!("no variable holds one of the {known} credentials that the inventory knows"),
            };
            let names = spec.names.join(" or ");
            Ok(format!("no secret and no variable of {} is called {names}; {values}{unseen}", spec.repo))
        })
    }

    fn http<'a>(&'a self, spec: &'a Http) -> BoxFuture<'a, Result<String, ServiceError>> {
        Box::pin(async move {
            match probe(spec).await {
                Ok(()) => Ok(format!("answered {}", spec.status)),
                Err(error) => Err(ServiceError { message: crate::model::chain(&error), auth: false }),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use zeroize::Zeroizing;

    use super::*;
    use crate::model::{Access, IdentityScope, IdentitySpec, Service};
    use crate::remote::Stream;
    use crate::sandbox::infisical::{Clock, KEYS, PATH, PROJECT, StandIn, World};
    use crate::service::infisical::{Infisical, InfisicalConfig, Login};

    /// A host on whose loopback one stranger has every port.
    struct Elsewhere(u16);

    impl Way for Elsewhere {
        fn open<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
            Box::pin(async move {
                let stream = TcpStream::connect(("127.0.0.1", self.0)).await;
                stream.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|error| error.to_string())
            })
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_token_is_not_shown_in_clear_on_a_host_s_own_loopback() {
        let mut world = World::new(Clock::real());
        let story = world.tell();
        let stand_in = StandIn::start(world).await.unwrap();
        let service = Service { url: stand_in.url(), ca_file: None, token: None, client_id: None, client_secret: None };
        let login =
            Login::UniversalAuth { client_id: story.client_id, client_secret: SecretString::from(story.client_secret) };
        let config = InfisicalConfig { permission_cache: Duration::ZERO, ..InfisicalConfig::default() };
        let operator = Infisical::new(&service, login, config).unwrap();
        let spec = IdentitySpec {
            name: "forgejo-docker-publish".to_owned(),
            id: None,
            project: PROJECT.to_owned(),
            scope: IdentityScope::Project,
            ttl: Duration::from_secs(90 * 86_400),
            access: vec![Access {
                environment: "prod".to_owned(),
                path: PATH.to_owned(),
                read: KEYS.map(str::to_owned).to_vec(),
            }],
        };
        let planned = operator.plan_identity(&spec).await.unwrap();
        operator.apply_identity(&spec, &planned.changes).await.unwrap();
        let issuer = Arc::new(InfisicalIssuer::open(operator, spec).await.unwrap());
        let servers = Servers { issuers: [("token".to_owned(), issuer)].into(), ..Servers::none() };

        let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way: Arc<dyn Way> = Arc::new(Elsewhere(stranger.local_addr().unwrap().port()));
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let hears = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = stranger.accept().await {
                let mut piece = [0; 1024];
                // Whoever speaks is heard and hung up on.
                let length = near.read(&mut piece).await.unwrap_or(0);
                hears.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        let token = SecretValue::new(Zeroizing::new(b"test-token-not-in-clear".to_vec())).unwrap();
        let proof = servers.proof("token", &token, Some(way)).await;
        let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
        assert!(!heard.contains("test-token") && !heard.contains("HTTP"), "{heard}");
        let refused = proof.unwrap_err();
        assert!(refused.contains("plain http") && refused.contains("once = \"run\""), "{refused}");
    }
}
