//! The keys that say how to reach a host, as they stand in `[defaults]`, in a group or at a host, and what they mean
//! once everything is merged.

use std::collections::BTreeMap;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use indexmap::IndexMap;
use toml::de::DeValue;

use super::check::{self, Problem};
use super::diag::{Diag, Place, quoted};
use super::file::{Sink, local_path};
use super::reader::{Fill, Reader};
use super::ssh::SshConfig;
use super::template::{self, Mode, Scope, Var};
use super::{Context, shared, vars};
use crate::model::algorithms::{CIPHERS, HOST_KEY_ALGORITHMS, KEX, MACS};
use crate::model::{Algorithms, Become, Connection, HostName, Origin, Origins, RemotePath, SecretSource, Vars};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A path as written, and the file whose directory it starts from.
#[derive(Debug, Clone)]
struct Written {
    text: String,
    file: Utf8PathBuf,
}

/// Host keys of one table; what is `None` is left to the next table.
#[derive(Debug, Clone, Default)]
pub(super) struct HostKeys {
    address: Option<At<String>>,
    port: Option<u16>,
    user: Option<At<String>>,
    pub(super) jump: Option<At<Vec<String>>>,
    identity_file: Option<At<Vec<Written>>>,
    identities_only: Option<bool>,
    identity_agent: Option<At<Written>>,
    certificate_file: Option<At<Vec<Written>>>,
    /// Inner `None`: `false` was said.
    pub(super) ssh_config: Option<At<Option<SshConfig>>>,
    known_hosts: Option<At<Vec<Written>>>,
    host_key: Option<Vec<String>>,
    host_key_alias: Option<At<String>>,
    kex: Option<Vec<String>>,
    ciphers: Option<Vec<String>>,
    macs: Option<Vec<String>>,
    host_key_algorithms: Option<Vec<String>>,
    become_method: Option<Become>,
    password: Option<SecretSource>,
    become_password: Option<SecretSource>,
    connect_timeout: Option<Duration>,
    state_dir: Option<At<String>>,
    vars: IndexMap<String, Var>,
}

impl HostKeys {
    /// Reads the host keys of a table that may hold others as well.
    pub(super) fn read(reader: &Reader<'_>, file: &Utf8Path, context: &Context) -> Self {
        let at = |key: &'static str| reader.get(key).map_or_else(|| reader.here(), |entry| entry.place);
        // A text without templates can be judged at once; with them it waits for the host.
        let text = |key, check: &dyn Fn(&str) -> Result<(), Problem>| {
            let judged = reader.parsed(key, |text| {
                let known = if template::has_markup(text) { Ok(()) } else { check(text) };
                known.map(|()| text.to_owned())
            });
            judged.value().map(|value| At { value, place: at(key) })
        };
        let written = |key: &'static str| {
            let whole = |text: &str| Ok(Written { text: text.to_owned(), file: file.to_owned() });
            reader.list(key, whole).value().map(|value| At { value, place: at(key) })
        };
        let password = |key: &'static str| {
            let entry = reader.get(key)?;
            match shared::secret_source(reader, &entry, file, context)? {
                SecretSource::Infisical { .. } => {
                    reader.wrong(key, "Infisical mints tokens, not passwords");
                    None
                }
                source => Some(source),
            }
        };
        let algorithms =
            |key: &'static str, known: &[&str]| reader.list(key, |text| check::known_name(text, known)).value();
        let jump = reader.list("jump", |text| match text.trim() {
            "" => Err(Problem::new("a hop has a name").help("`jump = []` for none")),
            hop => Ok(hop.to_owned()),
        });
        Self {
            address: text("address", &|text| check::address(text).map(drop)),
            port: reader.number("port", 1..=65535).value().and_then(|port| u16::try_from(port).ok()),
            user: text("user", &|text| check::user(text).map(drop)),
            jump: jump
                .value()
                .map(|hops| At { value: hops.into_iter().filter(|hop| hop != "none").collect(), place: at("jump") }),
            identity_file: written("identity_file"),
            identities_only: reader.flag("identities_only").value(),
            identity_agent: reader
                .parsed("identity_agent", |text| Ok(Written { text: text.to_owned(), file: file.to_owned() }))
                .value()
                .map(|value| At { value, place: at("identity_agent") }),
            certificate_file: written("certificate_file"),
            ssh_config: reader.fixed(|reader| ssh_config(reader, file, context)),
            known_hosts: written("known_hosts"),
            host_key: reader.list("host_key", check::host_key).value(),
            host_key_alias: text("host_key_alias", &|text| check::address(text).map(drop)),
            kex: algorithms("kex", KEX),
            ciphers: algorithms("ciphers", CIPHERS),
            macs: algorithms("macs", MACS),
            host_key_algorithms: algorithms("host_key_algorithms", HOST_KEY_ALGORITHMS),
            become_method: reader
                .word("become", &[("none", Become::None), ("sudo", Become::Sudo), ("doas", Become::Doas)])
                .value(),
            password: password("password"),
            become_password: password("become_password"),
            connect_timeout: reader.positive("connect_timeout").value(),
            state_dir: text("state_dir", &|text| state_dir(text).map(drop)),
            vars: vars::read_under(reader, "vars"),
        }
    }

    /// Lays `over` over these keys.
    pub(super) fn merge(&mut self, over: &Self) {
        fn lay<T: Clone>(under: &mut Option<T>, over: &Option<T>) {
            if over.is_some() {
                under.clone_from(over);
            }
        }
        lay(&mut self.address, &over.address);
        lay(&mut self.port, &over.port);
        lay(&mut self.user, &over.user);
        lay(&mut self.jump, &over.jump);
        lay(&mut self.identity_file, &over.identity_file);
        lay(&mut self.identities_only, &over.identities_only);
        lay(&mut self.identity_agent, &over.identity_agent);
        lay(&mut self.certificate_file, &over.certificate_file);
        lay(&mut self.ssh_config, &over.ssh_config);
        lay(&mut self.known_hosts, &over.known_hosts);
        lay(&mut self.host_key, &over.host_key);
        lay(&mut self.host_key_alias, &over.host_key_alias);
        lay(&mut self.kex, &over.kex);
        lay(&mut self.ciphers, &over.ciphers);
        lay(&mut self.macs, &over.macs);
        lay(&mut self.host_key_algorithms, &over.host_key_algorithms);
        lay(&mut self.become_method, &over.become_method);
        lay(&mut self.password, &over.password);
        lay(&mut self.become_password, &over.become_password);
        lay(&mut self.connect_timeout, &over.connect_timeout);
        lay(&mut self.state_dir, &over.state_dir);
        self.vars.extend(over.vars.iter().map(|(name, var)| (name.clone(), var.clone())));
    }

    /// Where the settings come from before anybody was asked.
    pub(super) fn origins(&self) -> Origins {
        let named = Origins::KEYS.iter().filter(|key| self.has(key)).map(|key| (*key, Origin::Inventory));
        Origins { of: named.collect(), notes: Vec::new() }
    }

    /// Whether a key that ssh_config could say as well stands in the inventory.
    pub(super) fn has(&self, key: &str) -> bool {
        match key {
            "address" => self.address.is_some(),
            "port" => self.port.is_some(),
            "user" => self.user.is_some(),
            "jump" => self.jump.is_some(),
            "identity_file" => self.identity_file.is_some(),
            "identities_only" => self.identities_only.is_some(),
            "identity_agent" => self.identity_agent.is_some(),
            "certificate_file" => self.certificate_file.is_some(),
            "known_hosts" => self.known_hosts.is_some(),
            "host_key" => self.host_key.is_some(),
            "host_key_alias" => self.host_key_alias.is_some(),
            "kex" => self.kex.is_some(),
            "ciphers" => self.ciphers.is_some(),
            "macs" => self.macs.is_some(),
            "host_key_algorithms" => self.host_key_algorithms.is_some(),
            "become" => self.become_method.is_some(),
            "password" => self.password.is_some(),
            "connect_timeout" => self.connect_timeout.is_some(),
            "state_dir" => self.state_dir.is_some(),
            _ => false,
        }
    }

    /// The variables without their places, and the host's name.
    pub(super) fn plain_vars(&self, name: &HostName) -> Vars {
        let mut vars: Vars = self.vars.iter().map(|(name, var)| (name.clone(), var.value.clone())).collect();
        vars.insert(check::HOST_VARIABLE.to_owned(), name.as_str().into());
        vars
    }

    /// What the merged keys mean for a host; hops are not looked at here.
    pub(super) fn connection(&self, name: &HostName, sink: &Sink, context: &Context) -> Option<Connection> {
        let mut vars: BTreeMap<&str, Var> = self.vars.iter().map(|(name, var)| (name.as_str(), var.clone())).collect();
        vars.insert(check::HOST_VARIABLE, Var { value: name.as_str().into(), place: None });
        let filler = Filler { scope: Scope::new(vars), sink, host: name.as_str() };
        let address = match &self.address {
            Some(address) => filler.text(address, check::address),
            None => Some(name.as_str().to_owned()),
        };
        let user = match &self.user {
            Some(user) => filler.text(user, check::user),
            None => Some(context.user.clone()),
        };
        let paths = |written: &Option<At<Vec<Written>>>| -> Option<Vec<Utf8PathBuf>> {
            let Some(At { value, place }) = written else { return Some(Vec::new()) };
            let path = |written: &Written| {
                let text = At { value: written.text.clone(), place: place.clone() };
                filler.text(&text, |text| local_path(text, &written.file, context))
            };
            value.iter().map(path).collect()
        };
        let (identity_files, known_hosts) = (paths(&self.identity_file), paths(&self.known_hosts));
        let certificate_files = paths(&self.certificate_file);
        let identity_agent = match &self.identity_agent {
            None => Some(None),
            Some(At { value: Written { text, file }, place }) => {
                let text = At { value: text.clone(), place: place.clone() };
                let socket = |text: &str| match text {
                    Connection::NONE => Ok(Connection::NONE.into()),
                    path => local_path(path, file, context),
                };
                filler.text(&text, socket).map(Some)
            }
        };
        let state_dir = match &self.state_dir {
            Some(dir) => filler.text(dir, state_dir).map(Some),
            None => Some(None),
        };
        let alias = match &self.host_key_alias {
            Some(alias) => filler.text(alias, check::address).map(Some),
            None => Some(None),
        };
        let timeout = self.connect_timeout.unwrap_or(Duration::from_secs(10));
        Some(Connection {
            address: address?,
            port: self.port.unwrap_or(22),
            user: user?,
            jump: Vec::new(),
            identity_files: identity_files?,
            identities_only: self.identities_only.unwrap_or_default(),
            identity_agent: identity_agent?,
            certificate_files: certificate_files?,
            known_hosts: known_hosts?,
            host_keys: self.host_key.clone().unwrap_or_default(),
            host_key_alias: alias?,
            algorithms: Algorithms {
                kex: self.kex.clone().unwrap_or_default(),
                ciphers: self.ciphers.clone().unwrap_or_default(),
                macs: self.macs.clone().unwrap_or_default(),
                host_key_algorithms: self.host_key_algorithms.clone().unwrap_or_default(),
            },
            password: self.password.clone(),
            become_method: self.become_method.unwrap_or_default(),
            become_password: self.become_password.clone(),
            connect_timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            state_dir: state_dir?,
        })
    }
}

/// `ssh_config = true`, or the path of a file.
fn ssh_config(reader: &Reader<'_>, file: &Utf8Path, context: &Context) -> Option<At<Option<SshConfig>>> {
    let entry = reader.get("ssh_config")?;
    let value = match entry.value {
        DeValue::String(_) => {
            let path = reader.parsed("ssh_config", |text| match text {
                // OpenSSH's word for no file at all.
                Connection::NONE => {
                    Err(Problem::new("is not the name of a file").help("`ssh_config = false` for none"))
                }
                path => local_path(path, file, context),
            });
            Some(SshConfig::File(path.value()?))
        }
        _ => reader.flag("ssh_config").value()?.then_some(SshConfig::Usual),
    };
    Some(At { value, place: entry.place })
}

fn remote(text: &str) -> Result<RemotePath, Problem> {
    text.parse().map_err(|error: crate::model::BadPath| Problem::new(error.to_string()))
}

/// A state directory's path also stands in units and crontabs, which have quoting of their own.
fn state_dir(text: &str) -> Result<RemotePath, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) {
        remote(text)
    } else {
        Err(Problem::new("may hold only letters, digits and `/`, `.`, `_`, `-`"))
    }
}

/// Fills the templates of one host's keys in.
struct Filler<'a> {
    scope: Scope<'a>,
    sink: &'a Sink,
    host: &'a str,
}

impl Filler<'_> {
    fn text<T>(&self, text: &At<String>, parse: impl FnOnce(&str) -> Result<T, Problem>) -> Option<T> {
        let filled = match self.scope.fill(&text.value, Mode::Plain) {
            Ok(filled) => filled,
            Err(fault) => {
                let place = fault.place.unwrap_or_else(|| match &fault.range {
                    Some(range) => self.sink.part(&text.place, &text.value, range),
                    None => text.place.clone(),
                });
                self.sink.note(Diag::at(place, fault.message).maybe_help(fault.help).host(self.host));
                return None;
            }
        };
        match parse(&filled) {
            Ok(value) => Some(value),
            Err(problem) => {
                let diag = Diag::at(text.place.clone(), problem.message).maybe_help(problem.help);
                let diag = if problem.hide { diag.hidden() } else { diag };
                self.sink.note(if filled == text.value { diag } else { diag.host(self.host) });
                None
            }
        }
    }
}

/// A hop that is no host of the inventory: `user@host:port`, `host:port`, `user@host` or a name with a dot.
pub(super) fn foreign_hop(text: &str, from: &Connection) -> Result<Connection, Problem> {
    let (user, rest) = match text.rsplit_once('@') {
        Some((login, rest)) => (check::user(login)?, rest),
        None => (from.user.clone(), text),
    };
    let (address, port) = check::host_port(rest)
        .ok_or_else(|| Problem::new(format!("{} is no hop", quoted(text))).help("write it as `user@host:port`"))?;
    if port == Some(0) {
        return Err(Problem::new(format!("{} has no valid port", quoted(text))));
    }
    Ok(Connection {
        // A pin or an alias is for the host that it stands at, not for those on the way.
        identity_files: from.identity_files.clone(),
        identities_only: from.identities_only,
        identity_agent: from.identity_agent.clone(),
        certificate_files: from.certificate_files.clone(),
        known_hosts: from.known_hosts.clone(),
        connect_timeout_ms: from.connect_timeout_ms,
        ..Connection::new(address, port.unwrap_or(22), user)
    })
}

/// How the host keys of a table are read: templates are filled in once everything is merged.
pub(super) const FILL: Fill<'static> = Fill::Keep;
