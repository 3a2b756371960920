//! The operator's private keys: read once a run, unlocked at most once.

use std::collections::HashMap;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::{Arc, Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::error::{KeyFileProblem, Problem};

/// A larger file is no key.
const MAX_FILE: u64 = 64 * 1024;

/// Asks the operator for the passphrase of a key file.
pub trait AskPassphrase: Send + Sync {
    /// The answer, or nothing where nobody can be asked. Called at most once for a key file and a run, never twice
    /// at the same time, and on a thread that may block.
    fn ask(&self, prompt: &str) -> Option<SecretString>;
}

/// What a key file holds at first sight.
#[derive(Clone)]
pub(super) enum Found {
    /// A private key that can be used.
    Open(Arc<PrivateKey>),
    /// A private key under a passphrase, with its public half if the file tells it.
    Locked(Option<PublicKey>),
    /// Only the public half: a key that an agent should hold.
    Public(PublicKey),
}

/// Why a key file was not unlocked.
#[derive(Clone, Copy)]
enum Refusal {
    NoAnswer,
    Wrong,
}

#[derive(Default)]
struct Slot {
    found: OnceCell<Result<Found, KeyFileProblem>>,
    unlocked: OnceCell<Result<Arc<PrivateKey>, Refusal>>,
    certificate: OnceCell<Result<Option<Arc<Certificate>>, KeyFileProblem>>,
}

/// The key files of one run.
pub(super) struct KeyStore {
    ask: Arc<dyn AskPassphrase>,
    slots: Mutex<HashMap<Utf8PathBuf, Arc<Slot>>>,
    /// One question at a time.
    asking: tokio::sync::Mutex<()>,
}

impl KeyStore {
    pub(super) fn new(ask: Arc<dyn AskPassphrase>) -> Arc<Self> {
        Arc::new(Self { ask, slots: Mutex::default(), asking: tokio::sync::Mutex::default() })
    }

    fn slot(&self, file: &Utf8Path) -> Arc<Slot> {
        Arc::clone(self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(file.to_owned()).or_default())
    }

    /// What a file holds, without asking for anything.
    pub(super) async fn look(&self, file: &Utf8Path) -> Result<Found, Problem> {
        let slot = self.slot(file);
        let path = file.to_owned();
        let found = slot.found.get_or_init(|| async {
            let looked = tokio::task::spawn_blocking(move || look(&path)).await;
            looked.unwrap_or_else(|e| Err(KeyFileProblem::Unreadable(e.to_string())))
        });
        found.await.clone().map_err(|why| Problem::KeyFile { file: file.to_owned(), why })
    }

    /// The certificate beside a key file (`FILE-cert.pub`, also where `FILE.pub` names the key), if there is one.
    pub(super) async fn certificate(&self, file: &Utf8Path) -> Result<Option<Arc<Certificate>>, KeyFileProblem> {
        self.certificate_at(&super::plan::beside(file)).await
    }

    /// The certificate in a file, if the file is there.
    pub(super) async fn certificate_at(&self, file: &Utf8Path) -> Result<Option<Arc<Certificate>>, KeyFileProblem> {
        let slot = self.slot(file);
        let file = file.to_owned();
        let found = slot.certificate.get_or_init(|| async {
            let looked = tokio::task::spawn_blocking(move || match read(&file) {
                Ok(text) => match Certificate::from_openssh(&text) {
                    Ok(certificate) => Ok(Some(Arc::new(certificate))),
                    Err(_) => Err(KeyFileProblem::NotCertificate),
                },
                Err(KeyFileProblem::Missing) => Ok(None),
                Err(why) => Err(why),
            });
            looked.await.unwrap_or_else(|e| Err(KeyFileProblem::Unreadable(e.to_string())))
        });
        found.await.clone()
    }

    /// The private key of a locked file; the first who needs it makes the operator be asked.
    pub(super) async fn unlock(self: &Arc<Self>, file: &Utf8Path) -> Result<Arc<PrivateKey>, Problem> {
        let (store, path) = (Arc::clone(self), file.to_owned());
        // On a task of its own: when the host that asked first is given up, the answer still counts for the others.
        let asked = tokio::spawn(async move {
            let slot = store.slot(&path);
            let unlocked = slot.unlocked.get_or_init(|| async {
                let _turn = store.asking.lock().await;
                let ask = Arc::clone(&store.ask);
                let unlocked = tokio::task::spawn_blocking(move || unlock(&path, &*ask)).await;
                unlocked.unwrap_or(Err(Refusal::NoAnswer))
            });
            unlocked.await.clone()
        });
        match asked.await {
            Ok(Ok(key)) => Ok(key),
            Ok(Err(Refusal::Wrong)) => Err(Problem::WrongPassphrase { file: file.to_owned() }),
            Ok(Err(Refusal::NoAnswer)) | Err(_) => Err(Problem::PassphraseNeeded { file: file.to_owned() }),
        }
    }
}

fn read(file: &Utf8Path) -> Result<Zeroizing<String>, KeyFileProblem> {
    let unreadable = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => KeyFileProblem::Missing,
        _ => KeyFileProblem::Unreadable(e.to_string()),
    };
    // Not blocking: a named pipe must not hold the run up.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
    let fd = rustix::fs::open(file.as_std_path(), flags, rustix::fs::Mode::empty());
    let opened = std::fs::File::from(fd.map_err(|e| unreadable(e.into()))?);
    let meta = opened.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(KeyFileProblem::Format("not a file".to_owned()));
    }
    if meta.len() > MAX_FILE {
        return Err(KeyFileProblem::Format("too large".to_owned()));
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(meta.len()).unwrap_or(0) + 1));
    opened.take(MAX_FILE).read_to_string(&mut text).map_err(unreadable)?;
    let mode = meta.permissions().mode() & 0o7777;
    // As OpenSSH: only the owner can have left the file open, another's file is readable because it was meant to be.
    if is_private(&text) && mode & 0o077 != 0 && meta.uid() == rustix::process::geteuid().as_raw() {
        return Err(KeyFileProblem::Permissions(mode));
    }
    Ok(text)
}

fn is_private(text: &str) -> bool {
    text.contains("PRIVATE KEY-----") || text.starts_with("PuTTY-User-Key-File-")
}

fn is_openssh(text: &str) -> bool {
    text.contains("-----BEGIN OPENSSH PRIVATE KEY-----")
}

fn look(file: &Utf8Path) -> Result<Found, KeyFileProblem> {
    let text = match read(file) {
        // Only the public half is here: the usual way to name a key that lives in an agent.
        Err(KeyFileProblem::Missing) => {
            let public = read(&Utf8PathBuf::from(format!("{file}.pub")))?;
            return parse_public(&public).map(Found::Public);
        }
        other => other?,
    };
    if !is_private(&text) {
        return parse_public(&text).map(Found::Public);
    }
    let format = |e: &dyn std::fmt::Display| KeyFileProblem::Format(e.to_string());
    if is_openssh(&text) {
        let key = PrivateKey::from_openssh(text.as_bytes()).map_err(|e| format(&e))?;
        // A security key's file holds no more than a handle: the signature is made by the key, through an agent.
        if matches!(key.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) {
            return Ok(Found::Public(key.public_key().clone()));
        }
        if key.is_encrypted() {
            return Ok(Found::Locked(Some(key.public_key().clone())));
        }
        return Ok(Found::Open(Arc::new(key)));
    }
    if text.contains("ENCRYPTED") || text.contains("Encryption: aes") {
        let public = read(&Utf8PathBuf::from(format!("{file}.pub"))).and_then(|text| parse_public(&text));
        return Ok(Found::Locked(public.ok()));
    }
    let key = russh::keys::decode_secret_key(&text, None).map_err(|e| format(&e))?;
    Ok(Found::Open(Arc::new(key)))
}

fn parse_public(text: &str) -> Result<PublicKey, KeyFileProblem> {
    let base64 = text.split_ascii_whitespace().nth(1).unwrap_or_default();
    russh::keys::parse_public_key_base64(base64).map_err(|_| KeyFileProblem::Format("not a key".to_owned()))
}

fn unlock(file: &Utf8Path, ask: &dyn AskPassphrase) -> Result<Arc<PrivateKey>, Refusal> {
    let text = read(file).map_err(|_| Refusal::NoAnswer)?;
    let passphrase = ask.ask(&format!("Passphrase for {file}")).ok_or(Refusal::NoAnswer)?;
    let wrong = |_| Refusal::Wrong;
    let key = if is_openssh(&text) {
        let locked = PrivateKey::from_openssh(text.as_bytes()).map_err(wrong)?;
        locked.decrypt(passphrase.expose_secret()).map_err(wrong)?
    } else {
        russh::keys::decode_secret_key(&text, Some(passphrase.expose_secret())).map_err(|_| Refusal::Wrong)?
    };
    Ok(Arc::new(key))
}
