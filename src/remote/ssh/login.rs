//! Logging in: which keys are tried, in which order, and what a refusal means.

use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use russh::MethodKind;
use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::error::{KeyFileProblem, Problem, clean};
use super::handler::Handler;
use super::keys::{Found, KeyStore};
use super::stream::Fate;
use super::trust::under_home;
use crate::model::Connection;

/// sshd ends the connection at its sixth failure, and so does everything that copies its default.
const MAX_TRIES: usize = 5;

/// How long an agent may take to list its keys. (Signing may wait for a person; the limit of the login holds there.)
const AGENT_LIMIT: Duration = Duration::from_secs(3);

/// The names that `ssh-keygen` gives.
const USUAL_FILES: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// The keys to try on one host, settled before it is dialled, so that no limit runs while the operator types.
pub(super) struct Plan {
    wanted: Vec<Wanted>,
    skipped: Vec<String>,
    /// What to say if nothing can be tried at all.
    first_problem: Option<Problem>,
    agent: Option<Utf8PathBuf>,
}

enum Wanted {
    File(Utf8PathBuf, Arc<PrivateKey>),
    /// A key that the agent holds, named by a file.
    Agent(Utf8PathBuf, PublicKey),
    /// Whatever else the agent holds.
    RestOfAgent,
}

/// One try.
struct Try {
    label: String,
    with: With,
}

enum With {
    Key(Arc<PrivateKey>),
    Agent(PublicKey),
    AgentCertificate(Box<Certificate>),
}

impl Plan {
    pub(super) async fn make(
        connection: &Connection,
        home: &Utf8Path,
        agent: Option<&Utf8PathBuf>,
        keys: &Arc<KeyStore>,
    ) -> Self {
        let mut plan = Self { wanted: Vec::new(), skipped: Vec::new(), first_problem: None, agent: agent.cloned() };
        let named = !connection.identity_files.is_empty();
        let files: Vec<Utf8PathBuf> = if named {
            connection.identity_files.iter().map(|file| under_home(file, home)).collect()
        } else {
            plan.wanted.push(Wanted::RestOfAgent);
            USUAL_FILES.iter().map(|name| home.join(".ssh").join(name)).collect()
        };
        let mut held: Option<Vec<PublicKey>> = None;
        for file in files {
            let found = match keys.look(&file).await {
                Ok(Found::Open(key)) => {
                    plan.wanted.push(Wanted::File(file, key));
                    continue;
                }
                Ok(found) => found,
                Err(Problem::KeyFile { why: KeyFileProblem::Missing, .. }) if !named => continue,
                Err(problem) => {
                    plan.skip(problem);
                    continue;
                }
            };
            if held.is_none() {
                held = Some(plan.agent_keys().await);
            }
            let held = held.as_deref().unwrap_or_default();
            let in_agent = |key: &PublicKey| held.iter().any(|h| h.key_data() == key.key_data());
            match found {
                Found::Public(key) if in_agent(&key) => plan.wanted.push(Wanted::Agent(file, key)),
                Found::Locked(Some(key)) if in_agent(&key) => plan.wanted.push(Wanted::Agent(file, key)),
                Found::Public(_) => plan.skip(Problem::KeyFile { file, why: KeyFileProblem::PublicOnly }),
                // Nobody named this file: it is not worth a question while the agent has keys to try.
                Found::Locked(_) if !named && !held.is_empty() => {
                    plan.skipped.push(format!("{file} needs a passphrase"));
                }
                Found::Locked(_) | Found::Open(_) => match keys.unlock(&file).await {
                    Ok(key) => plan.wanted.push(Wanted::File(file, key)),
                    Err(problem) => plan.skip(problem),
                },
            }
        }
        if named {
            plan.wanted.push(Wanted::RestOfAgent);
        }
        plan
    }

    fn skip(&mut self, problem: Problem) {
        self.skipped.push(problem.to_string());
        self.first_problem.get_or_insert(problem);
    }

    /// The public keys in the agent; none if there is no agent, since that is reported when one is needed.
    async fn agent_keys(&self) -> Vec<PublicKey> {
        let Some(socket) = &self.agent else { return Vec::new() };
        let asked = timeout(AGENT_LIMIT, async {
            let mut agent = connect_agent(socket).await.ok()?;
            agent.request_identities().await.ok()
        });
        let identities = asked.await.ok().flatten().unwrap_or_default();
        identities
            .into_iter()
            .filter_map(|i| if let AgentIdentity::PublicKey { key, .. } = i { Some(key) } else { None })
            .collect()
    }

    /// Logs in; the answer names the key that the host accepted.
    pub(super) async fn login(&self, user: &str, handle: &mut Handle<Handler>, fate: &Fate) -> Result<String, Problem> {
        let mut skipped = self.skipped.clone();
        let mut agent_problem = None;
        let mut agent = match &self.agent {
            None => None,
            Some(socket) => match open_agent(socket, handle).await {
                Ok(agent) => Some(agent),
                Err(problem) => {
                    skipped.push(problem.to_string());
                    agent_problem = Some(problem);
                    None
                }
            },
        };
        let identities = agent.as_mut().map(|(_, identities)| std::mem::take(identities)).unwrap_or_default();
        let mut tries = self.tries(identities);
        if tries.len() > MAX_TRIES {
            skipped.push(format!("{} more keys, since hosts end the connection at the sixth", tries.len() - MAX_TRIES));
            tries.truncate(MAX_TRIES);
        }
        if tries.is_empty() {
            return Err(self.nothing_to_try(agent_problem, skipped));
        }

        let mut tried = Vec::new();
        let mut remaining = Vec::new();
        for one in tries {
            let rsa_hash = match one.with.algorithm() {
                Algorithm::Rsa { .. } => match rsa_hash(handle).await {
                    Some(hash) => Some(hash),
                    None => {
                        skipped.push(format!("{}: the host takes RSA keys only with SHA-1", one.label));
                        continue;
                    }
                },
                _ => None,
            };
            let signer = agent.as_mut().map(|(client, _)| client);
            let answer = attempt(user, handle, one.with, rsa_hash, signer).await;
            match answer {
                Ok(AuthResult::Success) => return Ok(one.label),
                Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                    tried.push(one.label);
                    if handle.is_closed() {
                        return Err(closed(fate, tried));
                    }
                    remaining = remaining_methods.iter().map(String::from).collect();
                    if partial_success || !remaining_methods.contains(&MethodKind::PublicKey) {
                        return Err(Problem::LoginRefused { tried, skipped, remaining, partial: partial_success });
                    }
                }
                Err(_) if handle.is_closed() => return Err(closed(fate, tried)),
                Err(reason) => skipped.push(format!("{}: {reason}", one.label)),
            }
        }
        Err(Problem::LoginRefused { tried, skipped, remaining, partial: false })
    }

    fn nothing_to_try(&self, agent: Option<Problem>, skipped: Vec<String>) -> Problem {
        match (&self.first_problem, agent) {
            (Some(Problem::PassphraseNeeded { file }), _) => Problem::PassphraseNeeded { file: file.clone() },
            (Some(Problem::WrongPassphrase { file }), _) => Problem::WrongPassphrase { file: file.clone() },
            (Some(Problem::KeyFile { file, why }), _) => Problem::KeyFile { file: file.clone(), why: why.clone() },
            (_, Some(problem)) => problem,
            _ => Problem::NoKeys { skipped },
        }
    }

    /// All tries in order, each key once.
    fn tries(&self, identities: Vec<AgentIdentity>) -> Vec<Try> {
        let mut rest = identities;
        // Keys that a file names are tried in the file's place.
        for wanted in &self.wanted {
            let named = match wanted {
                Wanted::File(_, key) => key.public_key(),
                Wanted::Agent(_, key) => key,
                Wanted::RestOfAgent => continue,
            };
            rest.retain(|i| !matches!(i, AgentIdentity::PublicKey { key, .. } if key.key_data() == named.key_data()));
        }
        let mut tries = Vec::new();
        for wanted in &self.wanted {
            match wanted {
                Wanted::File(file, key) => {
                    let label = label(file.as_str(), key.public_key());
                    tries.push(Try { label, with: With::Key(Arc::clone(key)) });
                }
                Wanted::Agent(file, key) => {
                    let label = label(&format!("{file} in the agent"), key);
                    tries.push(Try { label, with: With::Agent(key.clone()) });
                }
                Wanted::RestOfAgent => tries.extend(rest.drain(..).map(|identity| match identity {
                    AgentIdentity::PublicKey { key, comment } => {
                        Try { label: label(&format!("agent key `{}`", clean(&comment)), &key), with: With::Agent(key) }
                    }
                    AgentIdentity::Certificate { certificate, comment } => Try {
                        label: format!("agent certificate `{}`", clean(&comment)),
                        with: With::AgentCertificate(Box::new(certificate)),
                    },
                })),
            }
        }
        tries
    }
}

impl With {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Key(key) => key.algorithm(),
            Self::Agent(key) => key.algorithm(),
            Self::AgentCertificate(certificate) => certificate.algorithm(),
        }
    }
}

fn label(what: &str, key: &PublicKey) -> String {
    format!("{what} ({})", key.fingerprint(HashAlg::Sha256))
}

async fn attempt(
    user: &str,
    handle: &mut Handle<Handler>,
    with: With,
    hash: Option<HashAlg>,
    agent: Option<&mut AgentClient<UnixStream>>,
) -> Result<AuthResult, String> {
    match (with, agent) {
        (With::Key(key), _) => {
            let answer = handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(key, hash)).await;
            answer.map_err(|e| e.to_string())
        }
        (With::Agent(key), Some(agent)) => {
            let answer = handle.authenticate_publickey_with(user, key, hash, agent).await;
            answer.map_err(|e| format!("the agent did not sign ({e})"))
        }
        (With::AgentCertificate(certificate), Some(agent)) => {
            let answer = handle.authenticate_certificate_with(user, *certificate, hash, agent).await;
            answer.map_err(|e| format!("the agent did not sign ({e})"))
        }
        (_, None) => Err("the agent has gone".to_owned()),
    }
}

/// The hash to use with RSA keys: SHA-2 if the host takes it or does not say, nothing if it only takes SHA-1.
async fn rsa_hash(handle: &Handle<Handler>) -> Option<HashAlg> {
    match handle.best_supported_rsa_hash().await {
        Ok(Some(best)) => best,
        Ok(None) | Err(_) => Some(HashAlg::Sha256),
    }
}

/// What it means that the host has gone in the middle of the login: the library reports only a refusal.
fn closed(fate: &Fate, tried: Vec<String>) -> Problem {
    match fate.farewell() {
        Some(said) if said.contains("Too many authentication failures") => Problem::TooManyAttempts { tried },
        said => Problem::ClosedDuringLogin { said },
    }
}

async fn connect_agent(socket: &Utf8Path) -> Result<AgentClient<UnixStream>, Problem> {
    let client = AgentClient::connect_uds(socket.as_std_path()).await;
    client.map_err(|e| Problem::Agent { socket: socket.to_owned(), reason: e.to_string() })
}

/// A connection to the agent for this one login, bound to it where the agent knows how.
async fn open_agent(
    socket: &Utf8Path,
    handle: &Handle<Handler>,
) -> Result<(AgentClient<UnixStream>, Vec<AgentIdentity>), Problem> {
    let mut agent = connect_agent(socket).await?;
    if let Some(binding) = handle.agent_session_binding()
        && let Err(e) = agent.bind_session(binding, false).await
    {
        tracing::debug!("the agent does not bind sessions: {e}");
    }
    let identities = agent.request_identities().await;
    let identities = identities.map_err(|e| Problem::Agent { socket: socket.to_owned(), reason: e.to_string() })?;
    Ok((agent, identities))
}
