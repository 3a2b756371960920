//! Why a host could not be reached or logged in to, told apart as far as somebody can do something about it.
//!
//! Text that came from a server passes through [`clean`] before it is kept here.

use std::time::Duration;

use camino::Utf8PathBuf;

use super::known_hosts::{CertificateFault, HostKey, Place};
pub(crate) use super::words::{clean, last_words};
use super::words::{heard, listed, methods, names, seconds, some};

/// A connection that did not come about. Nothing was run on the host.
#[derive(Debug, thiserror::Error)]
#[error("{} failed: {problem}", self.whom())]
pub struct ConnectError {
    /// `user@address:port` of the machine that the trouble is with.
    pub endpoint: String,
    /// The inventory's name of the hop, when the trouble is with a hop on the way and not with the host itself.
    pub hop: Option<String>,
    /// What happened.
    pub problem: Problem,
}

/// What kept a connection from coming about.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Problem {
    /// The name has no address.
    #[error("the name cannot be resolved ({reason})")]
    NameNotResolved {
        /// The resolver's words.
        reason: String,
    },
    /// The network has no way there.
    #[error("there is no route ({reason})")]
    NoRoute {
        /// The system's words.
        reason: String,
    },
    /// Nobody listens there.
    #[error("the connection was refused")]
    Refused,
    /// Another failure of the network below SSH.
    #[error("the network failed ({reason})")]
    Network {
        /// The system's words.
        reason: String,
    },
    /// The limit for connecting, exchanging keys and logging in has passed.
    #[error("no answer within {} while {phase}", seconds(*after))]
    TimedOut {
        /// What was going on.
        phase: Phase,
        /// The limit.
        after: Duration,
    },
    /// Something answered, but it did not say that it speaks SSH 2.
    #[error("no SSH server answered{}", heard(said.as_deref()))]
    NoBanner {
        /// What came instead, if anything.
        said: Option<String>,
    },
    /// Both sides have no algorithm in common.
    #[error("no common {what}: the host offers {theirs}")]
    NoCommonAlgorithm {
        /// Which kind: key exchange, host key, cipher, …
        what: String,
        /// What the host offers.
        theirs: String,
    },
    /// An algorithm that the inventory names cannot be used.
    #[error("the algorithm `{name}` cannot be used")]
    UnknownAlgorithm {
        /// Its name.
        name: String,
    },
    /// The key exchange broke off.
    #[error("the key exchange failed ({reason})")]
    KeyExchange {
        /// What the library says.
        reason: String,
    },
    /// The host's key is not one that is trusted.
    #[error(transparent)]
    HostKey(Box<HostKeyProblem>),
    /// A `known_hosts` file is there but cannot be read.
    #[error("{file} cannot be read ({reason})")]
    KnownHosts {
        /// The file.
        file: Utf8PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A pinned host key in the inventory is no key.
    #[error("the pinned host key `{text}` is no public key ({why})")]
    BadPin {
        /// What the inventory says.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// There is no key to log in with.
    #[error("there is no key to log in with{}", listed("; ", skipped))]
    NoKeys {
        /// What was looked at, and why it is of no use.
        skipped: Vec<String>,
    },
    /// It was not asked for a login, since others have refused us.
    #[error("{why}")]
    KeptBack {
        /// What the others said.
        why: String,
    },
    /// The host does not accept any of our keys.
    #[error("the login was refused; tried {}{}{}", some(tried), listed("; not used: ", skipped), methods(remaining, *partial, tried))]
    LoginRefused {
        /// The keys that the host refused.
        tried: Vec<String>,
        /// The keys that could not be tried, and why.
        skipped: Vec<String>,
        /// The methods by which the host would still allow a login.
        remaining: Vec<String>,
        /// The last of what was tried was accepted, but the host wants another proof beside it.
        partial: bool,
    },
    /// The host ended the connection after too many keys that it refused.
    #[error("the host stopped listening after {} keys", tried.len())]
    TooManyAttempts {
        /// The keys that were tried.
        tried: Vec<String>,
    },
    /// The host ended the connection in the middle of the login.
    #[error("the host closed the connection during the login{}", heard(said.as_deref()))]
    ClosedDuringLogin {
        /// What it said.
        said: Option<String>,
    },
    /// A password that the inventory names cannot be had.
    #[error("the password cannot be had ({reason})")]
    Password {
        /// Why.
        reason: String,
    },
    /// A key file is protected and no passphrase was given.
    #[error("the key {file} needs a passphrase")]
    PassphraseNeeded {
        /// The key file.
        file: Utf8PathBuf,
    },
    /// The passphrase that was given does not open the key file.
    #[error("the passphrase does not open the key {file}")]
    WrongPassphrase {
        /// The key file.
        file: Utf8PathBuf,
    },
    /// A key file cannot be used.
    #[error("the key {file} {why}")]
    KeyFile {
        /// The key file.
        file: Utf8PathBuf,
        /// What is wrong with it.
        why: KeyFileProblem,
    },
    /// The agent does not answer.
    #[error("the SSH agent at {socket} cannot be used ({reason})")]
    Agent {
        /// Its socket.
        socket: Utf8PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The hop could not reach the next host.
    #[error("the hop before it could not connect there{}", heard(said.as_deref()))]
    HopCannotReach {
        /// What the hop said.
        said: Option<String>,
    },
    /// The hop does not let connections pass through.
    #[error("the hop before it does not allow connections through it")]
    HopForbids,
    /// The host does not open a session, though we are logged in.
    #[error("the host refused a session{}", heard(said.as_deref()))]
    ChannelRefused {
        /// What it said.
        said: Option<String>,
    },
    /// The host does not run commands for this login.
    #[error("the host refused to run a command")]
    CommandRefused,
    /// The link broke before the command was started, as far as we know.
    #[error("the connection was lost ({reason})")]
    Lost {
        /// What the transport knows about it.
        reason: String,
    },
}

/// What is wrong with a key file.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyFileProblem {
    /// There is no such file.
    #[error("does not exist")]
    Missing,
    /// It cannot be read.
    #[error("cannot be read ({0})")]
    Unreadable(String),
    /// Others than its owner may read it.
    #[error("can be read by others (mode {0:04o})")]
    Permissions(u32),
    /// It is not a private key that this program understands.
    #[error("is not a private key that can be used ({0})")]
    Format(String),
    /// It is only the public half, or a security key's handle, and the agent does not hold the other.
    #[error("is a public key or a security key's, and no agent holds its private half")]
    PublicOnly,
    /// It stands beside a key as a certificate and is none.
    #[error("is not a certificate that can be read")]
    NotCertificate,
}

/// Why a host's key is not trusted. The connection ended before anything was sent that needs trust.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HostKeyProblem {
    /// No key is recorded for this host.
    #[error(
        "its host key is not known: {} {}, and no line for {listed_as} in {}",
        offered.kind(), offered.fingerprint(), names(files)
    )]
    Unknown {
        /// The key that the host presents.
        offered: HostKey,
        /// The name under which it would be recorded.
        listed_as: String,
        /// The files that were searched.
        files: Vec<Utf8PathBuf>,
        /// A `@cert-authority` line covers the host, but it presents no certificate.
        authority: bool,
    },
    /// Another key of the same type is recorded.
    #[error(
        "its host key has CHANGED: it presents {} {}, but {place} says {}",
        offered.kind(), offered.fingerprint(), recorded.fingerprint()
    )]
    Changed {
        /// The key that the host presents.
        offered: HostKey,
        /// The key that is recorded.
        recorded: HostKey,
        /// Where.
        place: Place,
    },
    /// Only keys of other types are recorded; a host that hides them may be another host.
    #[error(
        "it presents a host key of another type than the recorded one: {} {}, but {place} says {} {}",
        offered.kind(), offered.fingerprint(), recorded.kind(), recorded.fingerprint()
    )]
    OtherType {
        /// The key that the host presents.
        offered: HostKey,
        /// A key that is recorded.
        recorded: HostKey,
        /// Where.
        place: Place,
        /// The name under which the presented one would be recorded.
        listed_as: String,
    },
    /// The key is marked as revoked.
    #[error("its host key {} {} is marked as revoked in {place}", offered.kind(), offered.fingerprint())]
    Revoked {
        /// The key that the host presents.
        offered: HostKey,
        /// Where.
        place: Place,
    },
    /// The host presents a certificate that proves nothing, and the key in it is not recorded.
    #[error(
        "its certificate (key {} {}, authority {} {}) proves nothing: {fault}",
        offered.kind(), offered.fingerprint(), authority.kind(), authority.fingerprint()
    )]
    Certificate {
        /// The key in the certificate.
        offered: HostKey,
        /// The key that signed it, or is said to have.
        authority: HostKey,
        /// What is wrong with it.
        fault: CertificateFault,
    },
    /// The authority that signed the host's certificate is marked as revoked.
    #[error("the authority {} {} of its certificate is marked as revoked in {place}", authority.kind(), authority.fingerprint())]
    RevokedAuthority {
        /// The key in the certificate.
        offered: HostKey,
        /// The key that signed it.
        authority: HostKey,
        /// Where.
        place: Place,
    },
    /// The inventory pins other keys.
    #[error(
        "its host key {} {} is not one that the inventory pins ({})",
        offered.kind(), offered.fingerprint(), pinned.iter().map(HostKey::fingerprint).collect::<Vec<_>>().join(", ")
    )]
    NotPinned {
        /// The key that the host presents.
        offered: HostKey,
        /// The keys that are pinned.
        pinned: Vec<HostKey>,
    },
}

/// What was going on when time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Resolving the name and connecting.
    Connecting,
    /// Waiting for the server's first line.
    Banner,
    /// Exchanging keys.
    KeyExchange,
    /// Logging in.
    Login,
    /// Opening a session or starting a command.
    Session,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Banner => "waiting for the SSH server's first line",
            Self::KeyExchange => "exchanging keys",
            Self::Login => "logging in",
            Self::Session => "opening a session",
        })
    }
}

/// The broad kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The machine did not answer, or not as an SSH server.
    Unreachable,
    /// The machine is not proven to be the right one.
    HostKey,
    /// The machine does not let us in.
    Login,
    /// Something on the operator's side: a key file, the agent, a file of host keys.
    Local,
    /// We were let in, but may not run anything.
    Refused,
}

impl ConnectError {
    fn whom(&self) -> String {
        match &self.hop {
            Some(name) => format!("the hop `{name}` ({})", self.endpoint),
            None => self.endpoint.clone(),
        }
    }

    /// The broad kind of the failure.
    #[must_use]
    pub fn class(&self) -> Class {
        use Problem as P;
        match &self.problem {
            P::NameNotResolved { .. }
            | P::NoRoute { .. }
            | P::Refused
            | P::Network { .. }
            | P::TimedOut { .. }
            | P::NoBanner { .. }
            | P::NoCommonAlgorithm { .. }
            | P::KeyExchange { .. }
            | P::HopCannotReach { .. }
            | P::HopForbids
            | P::Lost { .. } => Class::Unreachable,
            P::HostKey(_) => Class::HostKey,
            P::KeptBack { .. } | P::LoginRefused { .. } | P::TooManyAttempts { .. } | P::ClosedDuringLogin { .. } => {
                Class::Login
            }
            P::KnownHosts { .. }
            | P::UnknownAlgorithm { .. }
            | P::BadPin { .. }
            | P::NoKeys { .. }
            | P::Password { .. }
            | P::PassphraseNeeded { .. }
            | P::WrongPassphrase { .. }
            | P::KeyFile { .. }
            | P::Agent { .. } => Class::Local,
            P::ChannelRefused { .. } | P::CommandRefused => Class::Refused,
        }
    }

    /// The machine did not answer, or not as an SSH server.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.class() == Class::Unreachable
    }

    /// The machine does not let us in.
    #[must_use]
    pub fn is_auth(&self) -> bool {
        self.class() == Class::Login
    }

    /// The machine is not proven to be the right one.
    #[must_use]
    pub fn is_host_key(&self) -> bool {
        self.class() == Class::HostKey
    }

    /// The machine's key is recorded nowhere, so that a person may accept it. A changed, revoked or pinned one is not that.
    #[must_use]
    pub fn is_unknown_host_key(&self) -> bool {
        matches!(&self.problem, Problem::HostKey(problem) if matches!(**problem, HostKeyProblem::Unknown { .. }))
    }

    /// The host key that was refused, if that is why.
    #[must_use]
    pub fn offered_host_key(&self) -> Option<&HostKey> {
        match &self.problem {
            Problem::HostKey(problem) => Some(problem.offered()),
            _ => None,
        }
    }

    /// What to do about it, for the host that the inventory calls `name` and for an inventory given as `inventory`, which is
    /// quoted for a shell.
    #[must_use]
    pub fn hint(&self, inventory: &str, name: &str) -> String {
        match &self.problem {
            // By the host's name also for a hop, which need not stand in the inventory: hops are scanned first.
            Problem::HostKey(problem) => problem.hint(&format!("keyswap hosts accept -i {inventory} --limit {name}")),
            other => other.hint().to_owned(),
        }
    }
}

impl HostKeyProblem {
    /// The key that the host presents.
    #[must_use]
    pub fn offered(&self) -> &HostKey {
        match self {
            Self::Unknown { offered, .. }
            | Self::Changed { offered, .. }
            | Self::OtherType { offered, .. }
            | Self::Revoked { offered, .. }
            | Self::Certificate { offered, .. }
            | Self::RevokedAuthority { offered, .. }
            | Self::NotPinned { offered, .. } => offered,
        }
    }

    fn hint(&self, accept: &str) -> String {
        const COMPARE: &str = "compare the fingerprint with `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` run on the \
                               host itself, over another way than this connection";
        match self {
            Self::Unknown { authority: true, .. } => format!(
                "a @cert-authority line covers this host, but it presents no certificate (HostCertificate in its \
                 sshd_config); {COMPARE}, then `{accept}`"
            ),
            Self::Unknown { .. } => format!("{COMPARE}, then `{accept}`"),
            Self::Changed { place, .. } => format!(
                "somebody may be in between; if the key was replaced on purpose, {COMPARE}, remove {place}, then `{accept}`"
            ),
            Self::OtherType { offered, listed_as, place, .. } => format!(
                "somebody may be in between; if the host was given this key on purpose, {COMPARE}, then add this line to {}: \
                 {listed_as} {offered}",
                place.file
            ),
            Self::Revoked { .. } => "do not connect; the host must get a new key first".to_owned(),
            Self::RevokedAuthority { .. } => {
                "do not connect; the host must get a certificate of another authority first".to_owned()
            }
            Self::Certificate { fault: CertificateFault::OtherNames { .. } | CertificateFault::NoNames, .. } => {
                "dial the host by a name that its certificate is for (`address`), name that one as `host_key_alias`, or \
                 have the certificate made anew with the host's name"
                    .to_owned()
            }
            Self::Certificate { fault: CertificateFault::UnknownAuthority(_), .. } => {
                "compare the authority's fingerprint with the one that you were given; a @cert-authority line in \
                 known_hosts makes it trusted"
                    .to_owned()
            }
            Self::Certificate { .. } => "have the host's certificate made anew".to_owned(),
            Self::NotPinned { .. } => {
                format!(
                    "somebody may be in between; if the key was replaced on purpose, {COMPARE}, then change `host_key`"
                )
            }
        }
    }
}

impl Problem {
    fn hint(&self) -> &'static str {
        match self {
            Self::NameNotResolved { .. } => "check `address` in the inventory, or the resolver",
            Self::NoRoute { .. } | Self::Network { .. } => "check the network and the host's address",
            Self::Refused => "check that sshd runs there, and `port` in the inventory",
            Self::TimedOut { .. } => "check that the host is up and no firewall drops the packets, or raise the limit",
            Self::NoBanner { .. } => "check `port`, and that sshd is not out of connections (MaxStartups)",
            Self::NoCommonAlgorithm { .. } => {
                "the host's SSH server is too old or too strict; SHA-1 is offered only where the inventory names it (`kex`, \
                 `ciphers`, `macs`, `host_key_algorithms`)"
            }
            Self::UnknownAlgorithm { .. } => "check `kex`, `ciphers`, `macs` and `host_key_algorithms`",
            Self::KeyExchange { .. } => "look into the host's log of sshd",
            Self::HostKey(_) => "check the host's key",
            Self::KnownHosts { .. } => "make the file readable; it may hold a revoked key, so it is not passed over",
            Self::BadPin { .. } => "write `host_key` as in a .pub file: type, blank, Base64",
            Self::NoKeys { .. } => "set `identity_file`, or start ssh-agent and add a key with ssh-add",
            Self::Password { .. } => "check the source that `password` names in the inventory",
            Self::KeptBack { .. } => "see what the others said",
            Self::LoginRefused { partial: true, .. } => {
                "the host wants a second proof beside the one it accepted: a key and `password` can be given, no other"
            }
            Self::LoginRefused { .. } => "check `user`, and that the key stands in the host's authorized_keys",
            Self::TooManyAttempts { .. } => "set `identity_file` to the right key, so that it is tried first",
            Self::ClosedDuringLogin { .. } => "look into the host's log of sshd",
            Self::PassphraseNeeded { .. } => "run it in a terminal, or add the key to ssh-agent with ssh-add",
            Self::WrongPassphrase { .. } => "try again, or add the key to ssh-agent with ssh-add",
            Self::KeyFile { why: KeyFileProblem::Permissions(_), .. } => "`chmod 600` the file",
            Self::KeyFile { why: KeyFileProblem::PublicOnly, .. } => "add the private key to ssh-agent with ssh-add",
            Self::KeyFile { .. } => "check `identity_file`",
            Self::Agent { .. } => "check SSH_AUTH_SOCK, or set `identity_file`",
            Self::HopCannotReach { .. } => "check the host's address and port as seen from the hop",
            Self::HopForbids => "allow AllowTcpForwarding (and PermitOpen) for this user on the hop",
            Self::ChannelRefused { .. } => "check MaxSessions and ForceCommand on the host",
            Self::CommandRefused => "check the login shell and ForceCommand on the host",
            Self::Lost { .. } => "try again",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_told_with_the_command_that_accepts_it() {
        let offered =
            HostKey::from_line("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKRvjYUutv9temXgSg4rF0NRV/pdiWYXiSCFObjqCQcS");
        let problem = HostKeyProblem::Unknown {
            offered: offered.unwrap(),
            listed_as: "h1".to_owned(),
            files: vec!["/home/u/.ssh/known_hosts".into()],
            authority: false,
        };
        let mut error = ConnectError {
            endpoint: "ops@192.0.2.1:22".to_owned(),
            hop: None,
            problem: Problem::HostKey(Box::new(problem)),
        };
        insta::assert_snapshot!(error, @"ops@192.0.2.1:22 failed: its host key is not known: ssh-ed25519 SHA256:8hL+WLrCt8C/HBeM+6CaVObfEckz8iXPojalxCi4NCk, and no line for h1 in /home/u/.ssh/known_hosts");
        assert!(error.hint("inv.toml", "h1").ends_with("`keyswap hosts accept -i inv.toml --limit h1`"));
        error.hop = Some("bastion".to_owned());
        assert!(error.hint("inv.toml", "h1").ends_with("--limit h1`"), "hops are scanned with the host");
        assert!(error.to_string().starts_with("the hop `bastion` (ops@192.0.2.1:22) failed"));
        assert!(error.is_host_key() && !error.is_unreachable() && !error.is_auth());
    }
}
