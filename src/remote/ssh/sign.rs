//! Signatures over small texts in OpenSSH's own format (SSHSIG), as `ssh-keygen -Y sign` makes them and `-Y verify` reads
//! them.
//!
//! Invariants: only a signature that we could verify ourselves leaves here; what would rest on SHA-1, on DSA or on a
//! certificate counts as no signature.

use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::{LineEnding, SshSig};
use russh::keys::{Algorithm, HashAlg, PublicKey};
use tokio::time::timeout;

use super::error::{KeyFileProblem, Problem, clean};
use super::keys::{AskPassphrase, Found, KeyStore};

/// What is asked for in a key's own hash: the one that `ssh-keygen` takes, too.
const HASH: HashAlg = HashAlg::Sha512;
/// How long an agent may take to list its keys.
const LIST_LIMIT: Duration = Duration::from_secs(3);
/// How long an agent may take to sign: it may ask a person, or wait for a touch.
const SIGN_LIMIT: Duration = Duration::from_secs(120);

/// A public key, as `allowed_signers` and journals name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerKey(PublicKey);

impl SignerKey {
    /// Reads `ssh-ed25519 AAAA…`.
    ///
    /// # Errors
    /// Why it is no key.
    pub fn parse(text: &str) -> Result<Self, String> {
        PublicKey::from_openssh(text).map(Self).map_err(|error| error.to_string())
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Whether both are one key, whatever their comments say.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.key_data() == other.0.key_data()
    }
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key file does not do.
    #[error(transparent)]
    Key(#[from] Problem),
    /// Neither a key nor an agent was named.
    #[error("no key was named (--key), and there is no agent (SSH_AUTH_SOCK is not set)")]
    Nothing,
    /// The agent has no key.
    #[error("the agent holds no key: load one with ssh-add, or name a key file (--key)")]
    EmptyAgent,
    /// The agent has several, and none is said to be the signer's.
    #[error("the agent holds {0} keys: name the one that signs (--key FILE, also its public half)")]
    WhichOne(usize),
    /// It does not sign with this kind of key.
    #[error("cannot sign with {0}")]
    Kind(String),
    /// The signing failed.
    #[error("{0}")]
    Failed(String),
}

/// Who signs: a key file, or the agent.
pub struct Signers {
    /// Asks for passphrases.
    pub passphrase: Arc<dyn AskPassphrase>,
    /// The agent's socket.
    pub agent: Option<Utf8PathBuf>,
}

impl Signers {
    /// Signs with a key file (its private half, or its public half with the other in the agent); without one, with
    /// the agent's key, if it holds one alone, or the only one of them that `wanted` likes.
    ///
    /// # Errors
    /// Why nothing was signed.
    pub async fn sign(
        &self,
        file: Option<&Utf8Path>,
        wanted: impl Fn(&SignerKey) -> bool,
        namespace: &str,
        message: &[u8],
    ) -> Result<(String, SignerKey), SignError> {
        let signed = match file {
            Some(file) => self.with_file(file, namespace, message).await?,
            None => {
                let mut keys = self.agent_keys().await?;
                if keys.is_empty() {
                    return Err(SignError::EmptyAgent);
                }
                if keys.len() > 1 {
                    let count = keys.len();
                    keys.retain(|key| wanted(&SignerKey(key.clone())));
                    if keys.len() != 1 {
                        return Err(SignError::WhichOne(count));
                    }
                }
                let key = keys.pop().ok_or(SignError::EmptyAgent)?;
                self.with_agent(&key, namespace, message).await?
            }
        };
        let failed = |error: russh::keys::ssh_key::Error| SignError::Failed(error.to_string());
        let text = signed.to_pem(LineEnding::LF).map_err(failed)?;
        let key = verify(&text, namespace, message).map_err(SignError::Failed)?;
        Ok((text, key))
    }

    async fn with_file(&self, file: &Utf8Path, namespace: &str, message: &[u8]) -> Result<SshSig, SignError> {
        let store = KeyStore::new(Arc::clone(&self.passphrase));
        let key = match store.look(file).await? {
            Found::Open(key) => key,
            Found::Public(key) => {
                let held = self.agent_keys().await.unwrap_or_default();
                if held.iter().any(|held| held.key_data() == key.key_data()) {
                    return self.with_agent(&key, namespace, message).await;
                }
                let why = KeyFileProblem::PublicOnly;
                return Err(Problem::KeyFile { file: file.to_owned(), why }.into());
            }
            Found::Locked(public) => {
                let held = self.agent_keys().await.unwrap_or_default();
                match public.filter(|key| held.iter().any(|held| held.key_data() == key.key_data())) {
                    Some(key) => return self.with_agent(&key, namespace, message).await,
                    None => store.unlock(file).await?,
                }
            }
        };
        key.sign(namespace, HASH, message).map_err(|error| SignError::Failed(format!("{file}: {error}")))
    }

    async fn with_agent(&self, key: &PublicKey, namespace: &str, message: &[u8]) -> Result<SshSig, SignError> {
        let socket = self.agent.as_ref().ok_or(SignError::Nothing)?;
        let hash = match key.algorithm() {
            Algorithm::Rsa { .. } => Some(HASH),
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => None,
            other => return Err(SignError::Kind(other.to_string())),
        };
        let failed = |error: &dyn std::fmt::Display| SignError::Failed(format!("the agent did not sign ({error})"));
        let data = SshSig::signed_data(namespace, HASH, message).map_err(|error| failed(&error))?;
        let asked = timeout(SIGN_LIMIT, async {
            let mut agent = AgentClient::connect_uds(socket.as_std_path()).await?;
            agent.sign_request_signature(key, hash, &data).await
        });
        let signature = asked
            .await
            .map_err(|_| failed(&"it took too long"))?
            .map_err(|error| failed(&clean(&error.to_string())))?;
        SshSig::new(key.key_data().clone(), namespace, HASH, signature).map_err(|error| failed(&error))
    }

    async fn agent_keys(&self) -> Result<Vec<PublicKey>, SignError> {
        let socket = self.agent.as_ref().ok_or(SignError::Nothing)?;
        let problem = |reason: String| SignError::Key(Problem::Agent { socket: socket.clone(), reason });
        let asked = timeout(LIST_LIMIT, async {
            let mut agent = AgentClient::connect_uds(socket.as_std_path()).await?;
            agent.request_identities().await
        });
        let identities = asked.await.map_err(|_| problem("it does not answer".to_owned()))?;
        let identities = identities.map_err(|error| problem(clean(&error.to_string())))?;
        let plain = |identity| if let AgentIdentity::PublicKey { key, .. } = identity { Some(key) } else { None };
        Ok(identities.into_iter().filter_map(plain).collect())
    }
}

/// Looks at a signature; gives back whose it is. Whether that key may sign is another question.
///
/// # Errors
/// Why it is no signature over this message.
pub fn verify(signature: &str, namespace: &str, message: &[u8]) -> Result<SignerKey, String> {
    let signature = SshSig::from_pem(signature.as_bytes()).map_err(|_| "this is no OpenSSH signature".to_owned())?;
    if signature.version() != SshSig::VERSION {
        return Err(format!("its format, version {}, is not known", signature.version()));
    }
    if signature.namespace() != namespace {
        return Err(format!("it was made for `{}`, not for `{namespace}`", clean(signature.namespace())));
    }
    // An RSA signature says by itself which hash it rests on; one that names none rests on SHA-1.
    if matches!(signature.algorithm(), Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
        return Err(format!("signatures by {} are not taken", signature.algorithm()));
    }
    let key = PublicKey::from(signature.public_key().clone());
    if !fits(&key.algorithm(), &signature.algorithm()) {
        return Err("its key and its signature are of different kinds".to_owned());
    }
    key.verify(namespace, message, &signature).map_err(|_| "it is not a signature over this text".to_owned())?;
    Ok(SignerKey(key))
}

fn fits(key: &Algorithm, signature: &Algorithm) -> bool {
    match (key, signature) {
        (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
        (key, signature) => key == signature,
    }
}
