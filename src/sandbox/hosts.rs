//! A throw-away host: a real SSH server on loopback, in this process, with a directory of its own.
//!
//! A host costs one task and one listening socket while nobody is connected; there is no thread per host. What its
//! clients run are real processes of the current user, whose `HOME` is the host's directory.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::keys::ssh_key::{LineEnding, PublicKey};
use russh::keys::{Algorithm, PrivateKey};
use russh::{MethodKind, MethodSet, server};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::exec::Place;
use super::link::Link;
use super::server::Connection;
use super::{SandboxError, reap};
use crate::model::HostName;

/// The `PATH` that commands on a host see.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A client has this long to log in, as with sshd.
const LOGIN_GRACE: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(1);

/// The key pair that opens a host, and where its private half lies.
#[derive(Clone)]
pub struct LoginKey {
    public: Arc<PublicKey>,
    file: PathBuf,
}

impl LoginKey {
    /// Makes a new ed25519 key and writes its private half, 0600, to a file that must not exist.
    pub fn create(file: &Path) -> Result<Self, SandboxError> {
        let key = new_key()?;
        let text = key.to_openssh(LineEnding::LF).map_err(|error| SandboxError::Key(Box::new(error)))?;
        write_private(file, text.as_bytes())?;
        Ok(Self { public: Arc::new(key.public_key().clone()), file: file.to_owned() })
    }

    /// The private key's file, for `identity_file`.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// How a host is set up.
#[derive(Clone)]
pub struct HostOptions {
    /// The only user who can log in; commands run as the current user all the same.
    pub user: String,
    /// The only key that can log in.
    pub login: LoginKey,
    /// What runs commands, under the name `sh`. Another one than `/bin/sh` is also what scripts on the host get when
    /// they start `sh`.
    pub shell: PathBuf,
    /// Whether connections to other addresses of the loopback network may pass through it.
    pub forwards: bool,
}

impl HostOptions {
    /// User `runner`, `/bin/sh`.
    #[must_use]
    pub fn new(login: LoginKey) -> Self {
        Self { user: "runner".to_owned(), login, shell: "/bin/sh".into(), forwards: true }
    }
}

/// A running throw-away host. Dropped, it is off the network at once; its processes are ended by
/// [`SandboxHost::stop`] only.
pub struct SandboxHost {
    name: HostName,
    port: u16,
    host_key: String,
    login: LoginKey,
    place: Arc<Place>,
    network: Arc<Network>,
}

impl SandboxHost {
    /// Starts a host on a free port of 127.0.0.1. `dir` is made if it is not there; it should belong to this host alone.
    /// Needs a tokio runtime, now and as long as the host lives.
    pub async fn start(dir: &Path, name: HostName, options: HostOptions) -> Result<Self, SandboxError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(SandboxError::io("make", dir))?;
        let dir = dir.canonicalize().map_err(SandboxError::io("resolve", dir))?;
        let path = search_path(&dir, &options.shell)?;
        let machine = dir.join("machine-id");
        if !machine.exists() {
            let id = format!("{}\n", uuid::Uuid::new_v4().simple());
            fs::write(&machine, id).map_err(SandboxError::io("write", &machine))?;
        }
        let place = Arc::new(Place { dir, user: options.user, shell: options.shell, path, forwards: options.forwards });

        let key = new_key()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let address = listener.as_ref().ok().and_then(|listener| listener.local_addr().ok());
        let listener = listener.map_err(SandboxError::io("listen on", Path::new("127.0.0.1")))?;
        let port = address.map_or(0, |address: SocketAddr| address.port());
        let host_key = key.public_key().to_openssh().map_err(|error| SandboxError::Key(Box::new(error)))?;

        let network = Arc::new(Network::default());
        let config = Arc::new(server_config(key));
        let login = Arc::clone(&options.login.public);
        tokio::spawn(accept(listener, config, Arc::clone(&network), Arc::clone(&place), login));
        Ok(Self { name, port, host_key, login: options.login, place, network })
    }

    /// The inventory's name for it.
    #[must_use]
    pub fn name(&self) -> &HostName {
        &self.name
    }

    /// Always loopback.
    #[must_use]
    pub fn address(&self) -> &'static str {
        "127.0.0.1"
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The only user who can log in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.place.user
    }

    /// The file of the only key that can log in.
    #[must_use]
    pub fn identity_file(&self) -> &Path {
        &self.login.file
    }

    /// Its line for a `known_hosts` file, without line end.
    #[must_use]
    pub fn host_key_line(&self) -> String {
        format!("[127.0.0.1]:{} {}", self.port, self.host_key)
    }

    /// The host's directory: what its processes know as `HOME`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.place.dir
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Cuts every connection to this host without a word, as a lost link does. What runs there goes on.
    pub fn cut(&self) {
        self.network.cut();
    }

    /// Makes the host unreachable, or reachable again: while it is off, connections are cut and new ones are dropped
    /// before the first byte.
    pub fn set_reachable(&self, reachable: bool) {
        self.network.down.store(!reachable, Ordering::Release);
        if !reachable {
            self.cut();
        }
    }

    /// Takes the host off the network and ends every process that it runs. Its directory stays.
    pub async fn stop(self) -> Result<(), SandboxError> {
        self.network.end();
        let dir = self.place.dir.clone();
        end_processes(dir, GRACE).await
    }
}

impl Drop for SandboxHost {
    fn drop(&mut self) {
        self.network.end();
    }
}

/// Ends the processes of `dir` on a blocking thread.
pub(super) async fn end_processes(dir: PathBuf, grace: Duration) -> Result<(), SandboxError> {
    let of = dir.clone();
    let ended = tokio::task::spawn_blocking(move || reap::end_all(&dir, grace)).await;
    match ended {
        Ok(left) if left.is_empty() => Ok(()),
        Ok(pids) => Err(SandboxError::Processes { pids }),
        Err(error) => Err(SandboxError::io("end the processes of", &of)(std::io::Error::other(error))),
    }
}

/// What can be done to a host's connections from outside.
struct Network {
    /// Ends the host's listening.
    closed: CancellationToken,
    /// The present connections' link token; replaced at each cut.
    links: Mutex<CancellationToken>,
    down: AtomicBool,
}

impl Default for Network {
    fn default() -> Self {
        let closed = CancellationToken::new();
        Self { links: Mutex::new(closed.child_token()), closed, down: AtomicBool::new(false) }
    }
}

impl Network {
    fn links(&self) -> CancellationToken {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cut(&self) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.cancel();
        *links = self.closed.child_token();
    }

    fn end(&self) {
        self.closed.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    config: Arc<server::Config>,
    network: Arc<Network>,
    place: Arc<Place>,
    login: Arc<PublicKey>,
) {
    loop {
        let accepted = tokio::select! {
            () = network.closed.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if network.down.load(Ordering::Acquire) => {}
            Ok((stream, _)) => {
                let connection = Connection::new(Arc::clone(&place), Arc::clone(&login));
                tokio::spawn(serve(stream, Arc::clone(&config), network.links(), connection));
            }
            Err(error) => {
                // Out of descriptors, mostly: it passes when a connection ends.
                tracing::warn!(%error, "a sandbox host cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, config: Arc<server::Config>, cut: CancellationToken, connection: Connection) {
    // Without it each reply waits for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let link = Link::new(stream, cut);
    let ended = match tokio::time::timeout(LOGIN_GRACE, server::run_stream(config, link, connection)).await {
        Ok(Ok(session)) => session.await,
        Ok(Err(error)) => Err(error),
        Err(_) => return,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to a sandbox host ended");
    }
}

fn server_config(key: PrivateKey) -> server::Config {
    server::Config {
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // A key that was made for this host cannot be guessed; a slow refusal would only slow the tests.
        auth_rejection_time: Duration::ZERO,
        inactivity_timeout: None,
        keys: vec![key],
        ..server::Config::default()
    }
}

fn new_key() -> Result<PrivateKey, SandboxError> {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
        .map_err(|error| SandboxError::Key(Box::new(error)))
}

/// The commands' `PATH`; in front of it a directory where `sh` is the chosen shell, if that is not the usual one.
fn search_path(dir: &Path, shell: &Path) -> Result<OsString, SandboxError> {
    if shell == Path::new("/bin/sh") {
        return Ok(PATH.into());
    }
    let bin = dir.join("bin");
    let link = bin.join("sh");
    fs::create_dir_all(&bin).map_err(SandboxError::io("make", &bin))?;
    std::os::unix::fs::symlink(shell, &link).map_err(SandboxError::io("make", &link))?;
    let mut path = bin.into_os_string();
    path.push(":");
    path.push(PATH);
    Ok(path)
}

/// Writes a new file that only its owner can read.
pub(super) fn write_private(file: &Path, content: &[u8]) -> Result<(), SandboxError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| open.write_all(content))
        .map_err(SandboxError::io("write", file))
}
