//! Which keys are tried on a host, and in which order.
//!
//! A key's certificate is tried before the key; a password comes last, and alone where the inventory names one and no key.

use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use russh::keys::agent::AgentIdentity;
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PublicKey};
use secrecy::SecretString;
use tokio::time::timeout;

use super::error::{KeyFileProblem, Problem, clean};
use super::keys::{Found, KeyStore};
use super::login::{AGENT_LIMIT, connect_agent};
use super::trust::under_home;
use crate::model::Connection;
use crate::remote::{Opens, Passwords, Trial, Trials};

/// The names that `ssh-keygen` gives.
const USUAL_FILES: [&str; 5] = ["id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa"];

/// The keys to try on one host, settled before it is dialled, so that no limit runs while the operator types.
pub(super) struct Plan {
    wanted: Vec<Wanted>,
    pub(super) skipped: Vec<String>,
    /// What to say if nothing can be tried at all.
    first_problem: Option<Problem>,
    pub(super) agent: Option<Utf8PathBuf>,
    pub(super) password: Option<(SecretString, Arc<Trial>)>,
}

enum Wanted {
    /// A certificate, by its file, and the key that it is for.
    Certificate(Utf8PathBuf, Arc<PrivateKey>, Arc<Certificate>),
    File(Utf8PathBuf, Arc<PrivateKey>),
    /// A certificate, by its file, for a key which the agent holds.
    AgentCertificate(Utf8PathBuf, Arc<Certificate>),
    /// A key that the agent holds, named by a file.
    Agent(Utf8PathBuf, PublicKey),
    /// Whatever else the agent holds.
    RestOfAgent,
}

/// One try.
pub(super) struct Try {
    pub(super) label: String,
    pub(super) with: With,
}

pub(super) enum With {
    Certificate(Arc<PrivateKey>, Arc<Certificate>),
    Key(Arc<PrivateKey>),
    Agent(PublicKey),
    AgentCertificate(Box<Certificate>),
    /// A certificate that the agent does not know, for a key that it holds.
    KeyInAgent(Box<Certificate>),
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
            agent: agent_of(connection, home, agent),
            password: None,
        };
        let named = !connection.identity_files.is_empty();
        let rest_of_agent = !connection.identities_only;
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
            let files = connection.identity_files.iter().filter(|file| *file != Connection::NONE);
            files.map(|file| under_home(file, home)).collect()
        } else {
            if rest_of_agent {
                plan.wanted.push(Wanted::RestOfAgent);
            }
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
        if named && rest_of_agent {
            plan.wanted.push(Wanted::RestOfAgent);
        }
        for file in &connection.certificate_files {
            plan.want_certificate(keys, under_home(file, home), &mut held).await;
        }
        plan
    }

    /// A key of a file, after its certificate if it has one that can be used.
    async fn want(&mut self, keys: &KeyStore, file: Utf8PathBuf, key: Arc<PrivateKey>) {
        if let Some(certificate) = self.certificate(keys, &file).await {
            match useless(&certificate, &key) {
                None => self.wanted.push(Wanted::Certificate(beside(&file), Arc::clone(&key), certificate)),
                Some(why) => self.skipped.push(format!("{}: {why}", beside(&file))),
            }
        }
        self.wanted.push(Wanted::File(file, key));
    }

    /// A key that the agent holds, after the certificate beside its file.
    async fn want_agent(&mut self, keys: &KeyStore, file: Utf8PathBuf, key: PublicKey) {
        if let Some(certificate) = self.certificate(keys, &file).await {
            match unfit(&certificate, Some(&key)) {
                None => self.wanted.push(Wanted::AgentCertificate(beside(&file), certificate)),
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

    /// A certificate that is named by itself, before the key that it is for.
    async fn want_certificate(&mut self, keys: &KeyStore, file: Utf8PathBuf, held: &mut Option<Vec<PublicKey>>) {
        let certificate = match keys.certificate_at(&file).await {
            Ok(Some(certificate)) => certificate,
            Ok(None) => return self.skipped.push(format!("{file} is not there")),
            Err(why) => return self.skipped.push(format!("{file} {why}")),
        };
        let is_for = |key: &PublicKey| certificate.public_key() == key.key_data();
        let by_file = self.wanted.iter().enumerate().find_map(|(at, wanted)| match wanted {
            Wanted::File(_, key) if is_for(key.public_key()) => Some((at, Some(Arc::clone(key)))),
            Wanted::Agent(_, key) if is_for(key) => Some((at, None)),
            _ => None,
        });
        let (at, wanted, why) = match by_file {
            Some((at, Some(key))) => {
                let why = useless(&certificate, &key);
                (at, Wanted::Certificate(file.clone(), key, certificate), why)
            }
            Some((at, None)) => {
                let why = unfit(&certificate, None);
                (at, Wanted::AgentCertificate(file.clone(), certificate), why)
            }
            None => {
                if held.is_none() {
                    *held = Some(self.agent_keys().await);
                }
                if !held.iter().flatten().any(is_for) {
                    return self.skipped.push(format!("{file}: its key is neither in a file nor in the agent"));
                }
                let why = unfit(&certificate, None);
                (0, Wanted::AgentCertificate(file.clone(), certificate), why)
            }
        };
        match why {
            None => self.wanted.insert(at, wanted),
            Some(why) => self.skipped.push(format!("{file}: {why}")),
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

    /// Why there is nothing to try.
    pub(super) fn nothing_to_try(&self, agent: Option<Problem>, skipped: Vec<String>) -> Problem {
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
    pub(super) fn tries(&self, identities: Vec<AgentIdentity>) -> Vec<Try> {
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
                    let label = format!("{file} (certificate `{}`)", clean(certificate.key_id()));
                    tries.push(Try { label, with: With::Certificate(Arc::clone(key), Arc::clone(certificate)) });
                }
                Wanted::File(file, key) => {
                    let label = label(file.as_str(), key.public_key());
                    tries.push(Try { label, with: With::Key(Arc::clone(key)) });
                }
                Wanted::AgentCertificate(file, certificate) => {
                    let label = format!("{file} (certificate `{}`, its key in the agent)", clean(certificate.key_id()));
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
    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Key(key) | Self::Certificate(key, _) => key.algorithm(),
            Self::Agent(key) => key.algorithm(),
            Self::AgentCertificate(certificate) | Self::KeyInAgent(certificate) => certificate.algorithm(),
        }
    }

    /// A person must confirm that the key is used.
    pub(super) fn wants_a_touch(&self) -> bool {
        matches!(self.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
    }
}

/// The agent that a host's keys are asked of: the connection's own, none, or the operator's.
fn agent_of(connection: &Connection, home: &Utf8Path, usual: Option<&Utf8PathBuf>) -> Option<Utf8PathBuf> {
    match &connection.identity_agent {
        None => usual.cloned(),
        Some(none) if none == Connection::NONE => None,
        Some(socket) => Some(under_home(socket, home)),
    }
}

/// The certificate's file beside a key's.
pub(super) fn beside(file: &Utf8Path) -> Utf8PathBuf {
    let private = file.as_str().strip_suffix(".pub").unwrap_or(file.as_str());
    Utf8PathBuf::from(format!("{private}-cert.pub"))
}

/// Why a certificate is not worth a try with a key from a file.
fn useless(certificate: &Certificate, key: &PrivateKey) -> Option<&'static str> {
    unfit(certificate, Some(key.public_key())).or_else(|| {
        matches!(key.algorithm(), Algorithm::Rsa { .. })
            .then_some("a certificate for an RSA key can be used only from an agent")
    })
}

/// Why a certificate is not worth a try with a key; without one, with the key that it is for.
fn unfit(certificate: &Certificate, key: Option<&PublicKey>) -> Option<&'static str> {
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    if key.is_some_and(|key| certificate.public_key() != key.key_data()) {
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

/// What a key is called when it is told of.
fn label(what: &str, key: &PublicKey) -> String {
    format!("{what} ({})", key.fingerprint(HashAlg::Sha256))
}
