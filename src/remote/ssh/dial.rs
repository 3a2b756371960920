//! From an inventory's connection to a logged-in link: hops, limits, retries.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use camino::Utf8PathBuf;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use russh::client::{Config, connect_stream};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::error::{ConnectError, Phase, Problem, clean};
use super::handler::{Handler, Stop};
use super::keys::{AskPassphrase, KeyStore};
use super::limit::Limit;
use super::link::Link;
use super::plan::Plan;
use super::session::Session;
use super::stream::{Carrier, Fate, Stream};
use super::trust::{Books, Trust};
use crate::model::{Connection, Jump};
use crate::remote::{Gate, NoGate, Passwords, Stage, Trials};

/// sshd drops connections at random once ten are not logged in yet (`MaxStartups 10:30:100`); a bastion sees them all.
const LOGINS_AT_ONCE: usize = 8;
/// How often one login is tried, counting only failures before the key exchange was done.
const ATTEMPTS: u32 = 4;
/// The first pause between two tries; each further one is twice as long.
const BACKOFF: Duration = Duration::from_millis(150);

/// The `known_hosts` files of a machine, the ones that OpenSSH's client reads too.
pub const GLOBAL_KNOWN_HOSTS: [&str; 2] = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];

/// A host with several addresses is tried at the next one when nothing has come of the last for so long.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// What a dialer needs to know of the operator's side.
pub struct DialerConfig {
    /// The operator's home directory: for `~/`, the usual key files and `known_hosts`.
    pub home: Utf8PathBuf,
    /// The `known_hosts` files of the whole machine, which are read for every host: [`GLOBAL_KNOWN_HOSTS`].
    pub global_known_hosts: Vec<Utf8PathBuf>,
    /// The socket of the operator's SSH agent.
    pub agent_socket: Option<Utf8PathBuf>,
    /// Who is asked for passphrases.
    pub passphrase: Arc<dyn AskPassphrase>,
    /// Where the passwords come from that the inventory names.
    pub passwords: Arc<dyn Passwords>,
    /// What is known of passwords that hosts have taken or refused; one for the whole process.
    pub trials: Arc<Trials>,
    /// How a silent death of the link is noticed.
    pub keepalive: Keepalive,
}

/// How often a sign of life is asked for on an idle link, and how many may be missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before each question.
    pub interval: Duration,
    /// Questions without an answer before the link counts as lost.
    pub max: usize,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), max: 3 }
    }
}

/// Makes links to hosts. One serves a whole run, so that a passphrase is asked for once and a bastion that all hosts
/// are behind is not overrun.
pub struct Dialer {
    config: DialerConfig,
    keys: Arc<KeyStore>,
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
    hops: Mutex<HashMap<Vec<Connection>, Arc<tokio::sync::Mutex<Hop>>>>,
    books: Arc<Books>,
}

/// A connection to a hop, shared by all hosts behind it while one of them uses it. Whoever comes first logs in; the
/// others wait for that, and take its failure for their own.
#[derive(Default)]
struct Hop {
    session: Weak<Session>,
    failed: Option<(Instant, Problem)>,
}

/// A failed attempt.
struct Failure {
    problem: Problem,
    /// It failed before the host knew who we are, in a way that passes by itself.
    may_pass: bool,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problem, may_pass: false }
    }
}

impl Dialer {
    /// A dialer for one run.
    #[must_use]
    pub fn new(config: DialerConfig) -> Self {
        let keys = KeyStore::new(Arc::clone(&config.passphrase));
        Self { config, keys, turns: Mutex::default(), hops: Mutex::default(), books: Arc::default() }
    }

    /// Connects to a host, over its hops if it has any, checks each one's key and logs in.
    ///
    /// # Errors
    /// The first hop that fails, and why. Nothing has been run on the host then.
    pub async fn connect(&self, connection: &Connection) -> Result<Link, ConnectError> {
        self.connect_by(connection, &NoGate).await
    }

    /// As [`connect`](Self::connect), but the host is asked for a login when `gate` says so, and by then its key was checked.
    ///
    /// # Errors
    /// As there, and [`Problem::KeptBack`].
    pub async fn connect_by(&self, connection: &Connection, gate: &dyn Gate) -> Result<Link, ConnectError> {
        let way = self.way(&connection.jump).await?;
        let session = match Box::pin(self.hop(connection, way.clone(), gate)).await {
            // A hop that others had opened may have died under us; a fresh one tells whether the host is there.
            Err(problem) if way.as_ref().is_some_and(|hop| hop.handle.is_closed()) => {
                tracing::debug!("{}: the hop was lost ({problem}), once more", endpoint(connection));
                let way = self.way(&connection.jump).await?;
                Box::pin(self.hop(connection, way, gate)).await
            }
            session => session,
        };
        Ok(Link::new(session.map_err(|p| failed(connection, None, p))?))
    }

    /// What passwords hosts have taken or refused.
    pub(crate) fn trials(&self) -> &Arc<Trials> {
        &self.config.trials
    }

    /// Looks whether a host's key is known, and goes no further: nothing is said there of who asks. Hops on the way are
    /// logged in to, since there is no other way through them.
    ///
    /// # Errors
    /// The first hop that fails, or why the host's key is not trusted or was not seen.
    pub async fn scan(&self, connection: &Connection) -> Result<(), ConnectError> {
        let way = self.way(&connection.jump).await?;
        let scanned = Box::pin(self.dial(connection, way, None)).await;
        scanned.map(drop).map_err(|problem| failed(connection, None, problem))
    }

    /// The connection to the last hop; each hop that is open already is used again.
    async fn way(&self, jumps: &[Jump]) -> Result<Option<Arc<Session>>, ConnectError> {
        let mut via = None;
        let mut route = Vec::new();
        for jump in jumps {
            route.push(jump.connection.clone());
            let hop = {
                let mut hops = self.hops.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(hops.entry(route.clone()).or_default())
            };
            let came = Instant::now();
            let mut hop = hop.lock().await;
            let failure = |problem| failed(&jump.connection, Some(&jump.name), problem);
            if let Some(session) = hop.session.upgrade().filter(|session| !session.handle.is_closed()) {
                via = Some(session);
                continue;
            }
            if let Some((at, problem)) = &hop.failed
                && *at >= came
            {
                return Err(failure(problem.clone()));
            }
            match Box::pin(self.hop(&jump.connection, via, &NoGate)).await {
                Ok(session) => {
                    let session = Arc::new(session);
                    hop.session = Arc::downgrade(&session);
                    via = Some(session);
                }
                Err(problem) => {
                    hop.failed = Some((Instant::now(), problem.clone()));
                    return Err(failure(problem));
                }
            }
        }
        Ok(via)
    }

    /// One hop of the way, the last one included.
    async fn hop(
        &self,
        connection: &Connection,
        via: Option<Arc<Session>>,
        gate: &dyn Gate,
    ) -> Result<Session, Problem> {
        let home = &self.config.home;
        let (agent, passwords) = (self.config.agent_socket.as_ref(), &*self.config.passwords);
        let plan = Plan::make(connection, home, agent, &self.keys, passwords, &self.config.trials).await;
        let session = self.dial(connection, via, Some((&plan, gate))).await?;
        session.ok_or(Problem::KeyExchange { reason: "it ended early".to_owned() })
    }

    /// Reaches a machine and logs in, or, without the means for that, looks at its key alone and makes nothing.
    async fn dial(
        &self,
        connection: &Connection,
        via: Option<Arc<Session>>,
        login: Option<(&Plan, &dyn Gate)>,
    ) -> Result<Option<Session>, Problem> {
        let turns = self.turns(connection, via.as_deref());
        let limit = Duration::from_millis(connection.connect_timeout_ms);
        // Waiting for a turn is not the host's fault, so only the attempts count against the limit.
        let mut left = limit;
        for attempt in 1.. {
            let phase = Mutex::new(Phase::Connecting);
            let turn = turns.acquire().await;
            let clock = Limit::new(left);
            let tried = tokio::select! {
                tried = self.attempt(connection, via.clone(), login, &phase, &clock) => Some(tried),
                () = clock.over() => None,
            };
            drop(turn);
            left = clock.left();
            let failure = match tried {
                Some(Ok(session)) => return Ok(session),
                Some(Err(failure)) => failure,
                None => {
                    let phase = *phase.lock().unwrap_or_else(PoisonError::into_inner);
                    return Err(Problem::TimedOut { phase, after: limit });
                }
            };
            if !failure.may_pass || attempt >= ATTEMPTS || left.is_zero() {
                return Err(failure.problem);
            }
            sleep(pause(attempt)).await;
        }
        Err(Problem::TimedOut { phase: Phase::Connecting, after: limit })
    }

    /// One try. Whatever ends it early ends its socket too.
    async fn attempt(
        &self,
        connection: &Connection,
        via: Option<Arc<Session>>,
        login: Option<(&Plan, &dyn Gate)>,
        phase: &Mutex<Phase>,
        clock: &Limit,
    ) -> Result<Option<Session>, Failure> {
        let trust = load_trust(connection, &self.config, &self.books).await?;
        match &via {
            None => {
                let tcp = connect_tcp(&connection.address, connection.port).await?;
                Box::pin(self.speak(connection, tcp, trust, via, login, phase, clock)).await
            }
            Some(hop) => {
                let stream = hop.stream_to(&connection.address, connection.port).await?;
                Box::pin(self.speak(connection, stream, trust, via, login, phase, clock)).await
            }
        }
    }

    /// Key exchange and login over a stream.
    #[expect(clippy::too_many_arguments, reason = "what an attempt is made of, for each kind of stream")]
    async fn speak<S: Carrier>(
        &self,
        connection: &Connection,
        carrier: S,
        trust: Trust,
        via: Option<Arc<Session>>,
        login: Option<(&Plan, &dyn Gate)>,
        phase: &Mutex<Phase>,
        clock: &Limit,
    ) -> Result<Option<Session>, Failure> {
        let now = |new| *phase.lock().unwrap_or_else(PoisonError::into_inner) = new;
        let fate = Fate::default();
        let guard = fate.guard();
        let config = Arc::new(Config {
            preferred: trust.preferred(connection)?,
            keepalive_interval: Some(self.config.keepalive.interval),
            keepalive_max: self.config.keepalive.max,
            ..Config::default()
        });
        now(Phase::Banner);
        let stream = Stream::new(carrier, &fate);
        let heard = fate.clone();
        let speaking = connect_stream(config, stream, Handler::new(trust, &fate, login.is_none()));
        tokio::pin!(speaking);
        let connected = tokio::select! {
            biased;
            connected = &mut speaking => connected,
            () = heard.banner() => {
                now(Phase::KeyExchange);
                speaking.await
            }
        };
        let mut handle = match connected {
            Err(Stop::Seen) => return Ok(None),
            connected => connected.map_err(|stop| kex_failure(stop, &fate))?,
        };
        let Some((plan, gate)) = login else { return Ok(None) };
        now(Phase::Login);
        // Not the host's time: others are asked first.
        clock.without(gate.enter(Stage::Login)).await.map_err(|why| Problem::KeptBack { why })?;
        let endpoint = endpoint(connection);
        let key = plan.login(&connection.user, &endpoint, &mut handle, &fate, clock).await?;
        let limit = Duration::from_millis(connection.connect_timeout_ms);
        Ok(Some(Session { handle, fate, _guard: guard, via, endpoint, key, limit }))
    }

    fn turns(&self, connection: &Connection, via: Option<&Session>) -> Arc<Semaphore> {
        let from = via.map(Session::route).unwrap_or_default();
        let server = format!("{from} > {}:{}", connection.address, connection.port);
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(server).or_insert_with(|| Arc::new(Semaphore::new(LOGINS_AT_ONCE))))
    }
}

fn endpoint(connection: &Connection) -> String {
    let Connection { user, address, port, .. } = connection;
    if address.contains(':') { format!("{user}@[{address}]:{port}") } else { format!("{user}@{address}:{port}") }
}

fn failed(connection: &Connection, hop: Option<&String>, problem: Problem) -> ConnectError {
    ConnectError { endpoint: endpoint(connection), hop: hop.cloned(), problem }
}

async fn load_trust(connection: &Connection, config: &DialerConfig, books: &Arc<Books>) -> Result<Trust, Problem> {
    let (connection, books) = (connection.clone(), Arc::clone(books));
    let (home, global) = (config.home.clone(), config.global_known_hosts.clone());
    let loaded = tokio::task::spawn_blocking(move || Trust::load(&connection, &home, &global, &books)).await;
    loaded.unwrap_or_else(|e| Err(Problem::KnownHosts { file: Utf8PathBuf::new(), reason: e.to_string() }))
}

async fn connect_tcp(address: &str, port: u16) -> Result<TcpStream, Problem> {
    let found = lookup_host((address, port)).await;
    let addresses: Vec<_> = found.map_err(|e| Problem::NameNotResolved { reason: e.to_string() })?.collect();
    let tcp = connect_any(in_turns(addresses)).await?;
    // Without it each small write waits for the answer to the one before; a failure costs time only.
    let _ = tcp.set_nodelay(true);
    Ok(tcp)
}

/// The addresses in the resolver's order, but the two families by turns: one of them may be dead as a whole.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (own, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let (mut own, mut other) = (own.into_iter(), other.into_iter());
    let mut all = Vec::new();
    loop {
        let next = [own.next(), other.next()];
        if next == [None, None] {
            return all;
        }
        all.extend(next.into_iter().flatten());
    }
}

/// A connection to the first address that answers. An address that is silent does not keep the next ones waiting.
async fn connect_any(addresses: Vec<SocketAddr>) -> Result<TcpStream, Problem> {
    let mut last = Problem::NameNotResolved { reason: "it has no address".to_owned() };
    let mut waiting = addresses.into_iter();
    let mut trying = FuturesUnordered::new();
    loop {
        let more = match waiting.next() {
            Some(address) => {
                trying.push(TcpStream::connect(address));
                waiting.len() > 0
            }
            None => false,
        };
        tokio::select! {
            Some(tried) = trying.next() => match tried {
                Ok(tcp) => return Ok(tcp),
                Err(error) => last = network(&error),
            },
            () = sleep(NEXT_ADDRESS), if more => {}
            else => return Err(last),
        }
    }
}

fn network(e: &io::Error) -> Problem {
    use io::ErrorKind as K;
    let reason = e.to_string();
    match e.kind() {
        K::ConnectionRefused => Problem::Refused,
        K::HostUnreachable | K::NetworkUnreachable | K::TimedOut | K::AddrNotAvailable | K::PermissionDenied => {
            Problem::NoRoute { reason }
        }
        _ => Problem::Network { reason },
    }
}

/// What it means that the library gave up before the login.
fn kex_failure(stop: Stop, fate: &Fate) -> Failure {
    let (said, is_ssh) = fate.first_words();
    let error = match stop {
        Stop::HostKey(problem) => return Problem::HostKey(problem).into(),
        Stop::Seen => return Problem::KeyExchange { reason: "it ended early".to_owned() }.into(),
        Stop::Ssh(error) => error,
    };
    // sshd that has enough of unknown visitors hangs up, or says so and hangs up.
    if !is_ssh {
        let full = said.as_deref().is_none_or(|s| s.contains("MaxStartups") || s.contains("Not allowed at this time"));
        return Failure { problem: Problem::NoBanner { said }, may_pass: full };
    }
    match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => {
            Problem::NoCommonAlgorithm { what: what_kind(&kind), theirs: clean(&theirs.join(", ")) }.into()
        }
        russh::Error::IO(_) | russh::Error::HUP | russh::Error::Disconnect => {
            let reason = fate.farewell().or_else(|| fate.reason()).unwrap_or_else(|| clean(&error.to_string()));
            Failure { problem: Problem::KeyExchange { reason }, may_pass: true }
        }
        other => Problem::KeyExchange { reason: clean(&other.to_string()) }.into(),
    }
}

fn what_kind(kind: &russh::AlgorithmKind) -> String {
    match kind {
        russh::AlgorithmKind::Kex => "key exchange",
        russh::AlgorithmKind::Key => "host key type",
        russh::AlgorithmKind::Cipher => "cipher",
        russh::AlgorithmKind::Compression => "compression",
        russh::AlgorithmKind::Mac => "message authentication",
    }
    .to_owned()
}

/// Twice as long each time, and by chance up to half as long again, so that those who failed together do not come
/// back together.
fn pause(attempt: u32) -> Duration {
    let base = BACKOFF * 2_u32.saturating_pow(attempt.saturating_sub(1));
    let (chance, _) = uuid::Uuid::new_v4().as_u64_pair();
    base + base.mul_f64(f64::from(u32::try_from(chance >> 32).unwrap_or(0)) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_silent_does_not_keep_the_others_waiting() {
        // A queue that is full: what comes after it gets no answer.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(0).unwrap();
        let silent = full.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(tcp) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(silent)).await {
            queue.push(tcp.unwrap());
            assert!(queue.len() < 16, "the queue does not fill");
        }
        let alive = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = alive.local_addr().unwrap();
        let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
        for addresses in [vec![silent, there], vec![closed, there], vec![silent, closed, silent, there], vec![there]] {
            let connected = tokio::time::timeout(Duration::from_secs(20), connect_any(addresses)).await;
            assert_eq!(connected.expect("in time").unwrap().peer_addr().unwrap(), there);
        }
        assert!(matches!(connect_any(vec![closed, closed]).await, Err(Problem::Refused)));
        assert!(matches!(connect_any(Vec::new()).await, Err(Problem::NameNotResolved { .. })));
    }

    #[test]
    fn address_families_are_tried_by_turns() {
        let parse = |all: &[&str]| all.iter().map(|one| one.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let sorted = in_turns(parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]));
        assert_eq!(sorted, parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
        assert!(in_turns(Vec::new()).is_empty());
    }

    #[test]
    fn pauses_grow_and_differ() {
        for attempt in 1..ATTEMPTS {
            let base = BACKOFF * 2_u32.pow(attempt - 1);
            let pauses: std::collections::HashSet<Duration> = (0..20).map(|_| pause(attempt)).collect();
            assert!(pauses.len() > 10, "{pauses:?}");
            assert!(pauses.iter().all(|p| (base..=base * 3 / 2).contains(p)), "{pauses:?}");
        }
    }
}
