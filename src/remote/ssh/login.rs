//! Logging in: which keys are tried, in which order, and what a refusal means.
//!
//! A key's certificate is tried before the key; a password comes last, and alone where the inventory names one and no key.

use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use russh::MethodKind;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse as Asked};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::error::{KeyFileProblem, Problem, clean};
use super::handler::Handler;
use super::keys::{Found, KeyStore};
use super::limit::Limit;
use super::stream::Fate;
use super::trust::under_home;
use crate::model::Connection;
use crate::remote::{Leave, Opens, Passwords, Trial, Trials};

/// sshd ends the connection at its sixth failure, and so does everything that copies its default.
const MAX_TRIES: usize = 5;

/// How long an agent may take to list its keys. (Signing may wait for a person; the limit of the login holds there.)
const AGENT_LIMIT: Duration = Duration::from_secs(3);

/// How long a person may take to touch a security key; the limit of the login stands still meanwhile.
const TOUCH_LIMIT: Duration = Duration::from_secs(60);

/// The names that `ssh-keygen` gives.
const USUAL_FILES: [&str; 5] = ["id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa"];

/// The keys to try on one host, settled before it is dialled, so that no limit runs while the operator types.
pub(super) struct Plan {
    wanted: Vec<Wanted>,
    skipped: Vec<String>,
    /// What to say if nothing can be tried at all.
    first_problem: Option<Problem>,
    agent: Option<Utf8PathBuf>,
    password: Option<(SecretString, Arc<Trial>)>,
}

enum Wanted {
    /// A certificate, and the key that it is for.
    Certificate(Utf8PathBuf, Arc<PrivateKey>, Arc<Certificate>),
    File(Utf8PathBuf, Arc<PrivateKey>),
    /// The certificate that stands beside the file of a key which the agent holds.
    AgentCertificate(Utf8PathBuf, Arc<Certificate>),
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
    Certificate(Arc<PrivateKey>, Arc<Certificate>),
    Key(Arc<PrivateKey>),
    Agent(PublicKey),
    AgentCertificate(Box<Certificate>),
    /// A certificate that the agent does not know, for a key that it holds.
    KeyInAgent(Box<Certificate>),
}

/// An agent that is asked for the signature of the plain key where the certificate is not its own.
struct PlainKey<'a>(&'a mut AgentClient<UnixStream>);

impl russh::Signer for PlainKey<'_> {
    type Error = russh::AgentAuthError;

    async fn auth_sign(
        &mut self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        let plain = match identity {
            AgentIdentity::Certificate { certificate, comment } => AgentIdentity::PublicKey {
                key: PublicKey::new(certificate.public_key().clone(), ""),
                comment: comment.clone(),
            },
            plain @ AgentIdentity::PublicKey { .. } => plain.clone(),
        };
        russh::Signer::auth_sign(self.0, &plain, hash, data).await
    }
}

impl Plan {
    pub(super) async fn make(
        connection: &Connection,
        home: &Utf8Path,
        agent: Option<&Utf8PathBuf>,
        keys: &Arc<KeyStore>,
        passwords: &dyn Passwords,
        trials: &Trials,
    ) -> Self {
        let mut plan = Self {
            wanted: Vec::new(),
            skipped: Vec::new(),
            first_problem: None,
            agent: agent.cloned(),
            password: None,
        };
        let named = !connection.identity_files.is_empty();
        if let Some(source) = &connection.password {
            match passwords.read("the login's password", source).await {
                Ok(password) => {
                    plan.password = Some((password, trials.of(Opens::Login, &connection.user, Some(source))));
                }
                Err(reason) => plan.skip(Problem::Password { reason }),
            }
            // Who names a password and no key wants no keys tried before it.
            if !named {
                plan.agent = None;
                return plan;
            }
        }
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
                    plan.want(keys, file, key).await;
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
                Found::Public(key) | Found::Locked(Some(key)) if in_agent(&key) => {
                    plan.want_agent(keys, file, key).await;
                }
                // The usual name of a security key that is not plugged in, or not in this agent.
                Found::Public(_) if !named => {
                    plan.skipped.push(Problem::KeyFile { file, why: KeyFileProblem::PublicOnly }.to_string());
                }
                Found::Public(_) => plan.skip(Problem::KeyFile { file, why: KeyFileProblem::PublicOnly }),
                // Nobody named this file: it is not worth a question while the agent has keys to try.
                Found::Locked(_) if !named && !held.is_empty() => {
                    plan.skipped.push(format!("{file} needs a passphrase"));
                }
                Found::Locked(_) | Found::Open(_) => match keys.unlock(&file).await {
                    Ok(key) => plan.want(keys, file, key).await,
                    Err(problem) => plan.skip(problem),
                },
            }
        }
        if named {
            plan.wanted.push(Wanted::RestOfAgent);
        }
        plan
    }

    /// A key of a file, after its certificate if it has one that can be used.
    async fn want(&mut self, keys: &KeyStore, file: Utf8PathBuf, key: Arc<PrivateKey>) {
        if let Some(certificate) = self.certificate(keys, &file).await {
            match useless(&certificate, &key) {
                None => self.wanted.push(Wanted::Certificate(file.clone(), Arc::clone(&key), certificate)),
                Some(why) => self.skipped.push(format!("{}: {why}", beside(&file))),
            }
        }
        self.wanted.push(Wanted::File(file, key));
    }

    /// A key that the agent holds, after the certificate beside its file.
    async fn want_agent(&mut self, keys: &KeyStore, file: Utf8PathBuf, key: PublicKey) {
        if let Some(certificate) = self.certificate(keys, &file).await {
            match unfit(&certificate, &key) {
                None => self.wanted.push(Wanted::AgentCertificate(file.clone(), certificate)),
                Some(why) => self.skipped.push(format!("{}: {why}", beside(&file))),
            }
        }
        self.wanted.push(Wanted::Agent(file, key));
    }

    /// The certificate beside a file. One that is there and cannot be read is told of.
    async fn certificate(&mut self, keys: &KeyStore, file: &Utf8Path) -> Option<Arc<Certificate>> {
        match keys.certificate(file).await {
            Ok(certificate) => certificate,
            Err(why) => {
                self.skipped.push(format!("{} {why}", beside(file)));
                None
            }
        }
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
    pub(super) async fn login(
        &self,
        user: &str,
        endpoint: &str,
        handle: &mut Handle<Handler>,
        fate: &Fate,
        limit: &Limit,
    ) -> Result<String, Problem> {
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
        if tries.is_empty() && self.password.is_none() {
            return Err(self.nothing_to_try(agent_problem, skipped));
        }

        let mut tried = Vec::new();
        let mut remaining = Vec::new();
        let mut partial = false;
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
            let touched = one.with.wants_a_touch();
            let answer = attempt(user, handle, one.with, rsa_hash, signer);
            let answer = if touched {
                let answered = limit.without(timeout(TOUCH_LIMIT, answer)).await;
                answered.unwrap_or_else(|_| Err("nobody touched the security key".to_owned()))
            } else {
                answer.await
            };
            match answer {
                Ok(AuthResult::Success) => return Ok(one.label),
                Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                    tried.push(one.label);
                    if handle.is_closed() {
                        return Err(closed(fate, tried));
                    }
                    remaining = remaining_methods.iter().map(String::from).collect();
                    partial = partial_success;
                    if partial || !remaining_methods.contains(&MethodKind::PublicKey) {
                        break;
                    }
                }
                Err(_) if handle.is_closed() => return Err(closed(fate, tried)),
                Err(reason) => skipped.push(format!("{}: {reason}", one.label)),
            }
        }
        let Some((password, trial)) = &self.password else {
            return Err(Problem::LoginRefused { tried, skipped, remaining, partial });
        };
        // Where nothing was tried yet, nothing is known of what the host takes.
        let may = |method: &str| remaining.is_empty() || remaining.iter().any(|known| known == method);
        let (by_password, by_answer) = (may("password"), may("keyboard-interactive"));
        // Not the host's time: another one may be trying it first.
        let mut leave = match by_password || by_answer {
            false => None,
            true => match limit.without(trial.leave(endpoint)).await {
                Ok(leave) => Some(leave),
                Err(why) => {
                    skipped.push(format!("the password: {why}"));
                    return Err(Problem::LoginRefused { tried, skipped, remaining, partial });
                }
            },
        };
        let mut wrong = false;
        if by_password {
            match handle.authenticate_password(user, password.expose_secret()).await {
                Ok(AuthResult::Success) => {
                    leave.take().into_iter().for_each(Leave::taken);
                    return Ok("the password".to_owned());
                }
                Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                    partial = partial_success;
                    // A host that knows passwords and still lists them has refused this one; one that hangs up, too.
                    wrong = !partial && (handle.is_closed() || remaining_methods.contains(&MethodKind::Password));
                    remaining = remaining_methods.iter().map(String::from).collect();
                }
                Err(error) => skipped.push(format!("the password: {error}")),
            }
            tried.push("the password".to_owned());
        }
        // Only where it was not refused as a password already: nobody is to be locked out by us.
        let refused = remaining.iter().any(|known| known == "password");
        if !refused && remaining.iter().any(|known| known == "keyboard-interactive") && !handle.is_closed() {
            match ask_back(user, handle, password).await {
                Ok(()) => {
                    leave.take().into_iter().for_each(Leave::taken);
                    return Ok("the password".to_owned());
                }
                Err((given, why)) => {
                    wrong |= given;
                    skipped.push(format!("the password: {why}"));
                }
            }
            tried.push("the answer to a question".to_owned());
        }
        if wrong {
            leave.take().into_iter().for_each(Leave::refused);
        }
        if handle.is_closed() {
            return Err(closed(fate, tried));
        }
        Err(Problem::LoginRefused { tried, skipped, remaining, partial })
    }

    fn nothing_to_try(&self, agent: Option<Problem>, skipped: Vec<String>) -> Problem {
        match (&self.first_problem, agent) {
            (Some(Problem::PassphraseNeeded { file }), _) => Problem::PassphraseNeeded { file: file.clone() },
            (Some(Problem::WrongPassphrase { file }), _) => Problem::WrongPassphrase { file: file.clone() },
            (Some(Problem::KeyFile { file, why }), _) => Problem::KeyFile { file: file.clone(), why: why.clone() },
            (Some(Problem::Password { reason }), _) => Problem::Password { reason: reason.clone() },
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
                Wanted::File(_, key) | Wanted::Certificate(_, key, _) => key.public_key(),
                Wanted::Agent(_, key) => key,
                Wanted::AgentCertificate(..) | Wanted::RestOfAgent => continue,
            };
            rest.retain(|i| !matches!(i, AgentIdentity::PublicKey { key, .. } if key.key_data() == named.key_data()));
        }
        let mut tries = Vec::new();
        for wanted in &self.wanted {
            match wanted {
                Wanted::Certificate(file, key, certificate) => {
                    let label = format!("{file}-cert.pub (certificate `{}`)", clean(certificate.key_id()));
                    tries.push(Try { label, with: With::Certificate(Arc::clone(key), Arc::clone(certificate)) });
                }
                Wanted::File(file, key) => {
                    let label = label(file.as_str(), key.public_key());
                    tries.push(Try { label, with: With::Key(Arc::clone(key)) });
                }
                Wanted::AgentCertificate(file, certificate) => {
                    let label = format!(
                        "{} (certificate `{}`, its key in the agent)",
                        beside(file),
                        clean(certificate.key_id())
                    );
                    tries.push(Try { label, with: With::KeyInAgent(Box::new((**certificate).clone())) });
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
            Self::Key(key) | Self::Certificate(key, _) => key.algorithm(),
            Self::Agent(key) => key.algorithm(),
            Self::AgentCertificate(certificate) | Self::KeyInAgent(certificate) => certificate.algorithm(),
        }
    }

    /// A person must confirm that the key is used.
    fn wants_a_touch(&self) -> bool {
        matches!(self.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
    }
}

/// The certificate's file beside a key's.
pub(super) fn beside(file: &Utf8Path) -> Utf8PathBuf {
    let private = file.as_str().strip_suffix(".pub").unwrap_or(file.as_str());
    Utf8PathBuf::from(format!("{private}-cert.pub"))
}

/// Why a certificate is not worth a try with a key from a file.
fn useless(certificate: &Certificate, key: &PrivateKey) -> Option<&'static str> {
    unfit(certificate, key.public_key()).or_else(|| {
        matches!(key.algorithm(), Algorithm::Rsa { .. })
            .then_some("a certificate for an RSA key can be used only from an agent")
    })
}

/// Why a certificate is not worth a try with a key.
fn unfit(certificate: &Certificate, key: &PublicKey) -> Option<&'static str> {
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    if certificate.public_key() != key.key_data() {
        Some("it is for another key")
    } else if !certificate.cert_type().is_user() {
        Some("it is a certificate for hosts")
    } else if now < certificate.valid_after() {
        Some("it is not valid yet")
    } else if now >= certificate.valid_before() {
        Some("it has expired")
    } else {
        None
    }
}

/// Gives the password to a host that asks for it as a question; other questions are not answered. What went wrong is told
/// with whether the password was given.
async fn ask_back(user: &str, handle: &mut Handle<Handler>, password: &SecretString) -> Result<(), (bool, String)> {
    let mut given = false;
    let mut asked = handle.authenticate_keyboard_interactive_start(user, None::<String>).await;
    // A host may send empty questions, but not for ever.
    for _ in 0..4 {
        let answers = match asked.map_err(|error| (given, error.to_string()))? {
            Asked::Success => return Ok(()),
            Asked::Failure { .. } => return Err((given, "the host refused it".to_owned())),
            Asked::InfoRequest { prompts, .. } => match prompts.as_slice() {
                [] => Vec::new(),
                [one] if !one.echo && !given => {
                    given = true;
                    vec![password.expose_secret().to_owned()]
                }
                [one, ..] => return Err((given, format!("the host asks another question: {}", clean(&one.prompt)))),
            },
        };
        asked = handle.authenticate_keyboard_interactive_respond(answers).await;
    }
    Err((given, "the host asks without end".to_owned()))
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
        (With::Certificate(key, certificate), _) => {
            let answer = handle.authenticate_openssh_cert(user, key, (*certificate).clone()).await;
            answer.map_err(|e| e.to_string())
        }
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
        (With::KeyInAgent(certificate), Some(agent)) => {
            let answer = handle.authenticate_certificate_with(user, *certificate, hash, &mut PlainKey(agent)).await;
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
