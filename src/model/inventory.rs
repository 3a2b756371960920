//! The inventory after it was read, merged and checked: what is known of each host.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{HostName, SecretSource};

/// Variables of a host, a group or the command line.
pub type Vars = BTreeMap<String, serde_json::Value>;

/// All hosts, in the order in which the inventory names them, with every group and default applied.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// The hosts by name.
    pub hosts: IndexMap<HostName, Host>,
    /// The groups by name, members expanded (ranges written out, groups in groups resolved), in file order.
    pub groups: IndexMap<String, Group>,
    /// Where each host's settings come from.
    pub origins: BTreeMap<HostName, Origins>,
    /// Names for fingerprints: `[known.NAME]`.
    pub known: BTreeMap<String, KnownCredential>,
    /// The servers of this environment: `[services.…]`.
    pub services: Services,
    /// The approval that every run against this inventory needs, if any.
    pub approval: Option<ApprovalPolicy>,
}

/// A group's members, expanded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// Members in order, without duplicates.
    pub hosts: Vec<HostName>,
}

/// Where the settings of a host come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// Keys of the inventory that are set for the host; what is not here is the usual.
    pub of: BTreeMap<&'static str, Origin>,
    /// What OpenSSH's settings say and keyswap leaves out.
    pub notes: Vec<String>,
}

impl Origins {
    /// The keys that are told of, in their order.
    pub const KEYS: &[&str] = &[
        "address",
        "port",
        "user",
        "jump",
        "identity_file",
        "identities_only",
        "identity_agent",
        "certificate_file",
        "known_hosts",
        "host_key",
        "host_key_alias",
        "kex",
        "ciphers",
        "macs",
        "host_key_algorithms",
        "connect_timeout",
        "become",
        "state_dir",
    ];
}

/// Who said a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The inventory.
    Inventory,
    /// OpenSSH's settings, since the inventory asks for them and says nothing itself.
    SshConfig,
}

/// One host: how to reach it, and its variables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The inventory's name.
    pub name: HostName,
    /// How to reach it and log in.
    pub connection: Connection,
    /// Its variables: the host's own over its groups' over the defaults.
    pub vars: Vars,
}

/// How a host is reached. It holds references to keys, never a key or a password.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Connection {
    /// DNS name or IP address.
    pub address: String,
    /// TCP port; 22 by default.
    pub port: u16,
    /// The login user.
    pub user: String,
    /// Hosts to go through, first hop first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jump: Vec<Jump>,
    /// Private key files to try, in order. Empty: the agent, then the usual names under `~/.ssh`. [`Connection::NONE`]
    /// alone: no file at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identity_files: Vec<Utf8PathBuf>,
    /// Of the agent's keys only those that the key files name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub identities_only: bool,
    /// The agent's socket, if not the one of the operator's environment; [`Connection::NONE`]: no agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_agent: Option<Utf8PathBuf>,
    /// Certificates for keys that stand elsewhere than beside them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificate_files: Vec<Utf8PathBuf>,
    /// The operator's `known_hosts` files. Empty: `~/.ssh/known_hosts`. The machine's own are read beside them, always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_hosts: Vec<Utf8PathBuf>,
    /// Pinned host keys (`ssh-ed25519 AAAA…`); when there are any, only these are accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<String>,
    /// The name under which the host's key is looked up, and which its certificate must be made for, if not the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key_alias: Option<String>,
    /// Key exchanges, ciphers, MACs and host key signatures, in order, where not the usual ones are offered: names of
    /// [`algorithms`](super::algorithms).
    #[serde(default, skip_serializing_if = "Algorithms::is_usual")]
    pub algorithms: Algorithms,
    /// Where the login's password comes from, for hosts that take no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretSource>,
    /// How to become root there.
    #[serde(rename = "become")]
    pub become_method: Become,
    /// Where sudo's password comes from, if it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub become_password: Option<SecretSource>,
    /// Limit for TCP connect, key exchange and login together, per hop, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Where keyswap keeps its state on the host, if not in the usual place (`/var/lib/keyswap`, or
    /// `~/.local/state/keyswap` without escalation).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<super::RemotePath>,
}

impl Connection {
    /// What stands in a path's place where there is to be none, as in OpenSSH's settings.
    pub const NONE: &str = "none";

    /// A connection with nothing but the usual: no hops, the usual files, no escalation, ten seconds.
    #[must_use]
    pub fn new(address: impl Into<String>, port: u16, user: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            port,
            user: user.into(),
            jump: Vec::new(),
            identity_files: Vec::new(),
            identities_only: false,
            identity_agent: None,
            certificate_files: Vec::new(),
            known_hosts: Vec::new(),
            host_keys: Vec::new(),
            host_key_alias: None,
            algorithms: Algorithms::default(),
            password: None,
            become_method: Become::None,
            become_password: None,
            connect_timeout_ms: 10_000,
            state_dir: None,
        }
    }
}

/// The algorithms that are offered to a host, each list in order; an empty one: the usual.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Algorithms {
    /// Key exchanges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kex: Vec<String>,
    /// Ciphers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ciphers: Vec<String>,
    /// Message authentication codes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<String>,
    /// Host key signatures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_key_algorithms: Vec<String>,
}

impl Algorithms {
    /// None is named.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// One hop on the way to a host, itself a whole connection without hops of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Jump {
    /// What the inventory calls the hop.
    pub name: String,
    /// How to reach it from the hop before.
    pub connection: Connection,
}

/// How to gain root on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Become {
    /// Stay the login user.
    #[default]
    None,
    /// Through `sudo`.
    Sudo,
    /// Through `doas`.
    Doas,
}

/// A name for a credential's fingerprint: `[known.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCredential {
    /// At least the first 12 hex digits, as written.
    pub fingerprint: String,
    /// Others use it too: a host that holds it has drifted.
    pub shared: bool,
}

/// The servers that belong to an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// `[services.infisical]`.
    pub infisical: Option<Service>,
    /// `[services.forge]`.
    pub forge: Option<Service>,
}

/// A server and how to log in there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Base address; `http` only to loopback.
    pub url: String,
    /// A private CA's certificates (PEM), added to the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<Utf8PathBuf>,
    /// Where a bearer token comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretSource>,
    /// Infisical Universal Auth: the client id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Infisical Universal Auth: where the client secret comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretSource>,
}

/// Who must sign a plan before it may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalPolicy {
    /// How many different signers.
    pub required: u32,
    /// OpenSSH's `allowed_signers` file.
    pub allowed_signers: Utf8PathBuf,
    /// How long an approval holds, in seconds.
    pub valid_seconds: u64,
}
