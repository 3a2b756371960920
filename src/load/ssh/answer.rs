//! What `ssh -G` prints, and which of it keyswap takes.

use camino::Utf8PathBuf;

use super::expand::Tokens;
use super::{AskSsh, SshQuestion};
use crate::load::check::{self, Problem};
use crate::model::Connection;
use crate::model::algorithms::{CIPHERS, HOST_KEY_ALGORITHMS, KEX, MACS};

/// What a file sets and keyswap does not do, by the names that `ssh -G` prints: leaving it out could reach another machine, log in
/// otherwise than wanted, or check less. The inventory's keys in the third place say it better, and lift that.
const REFUSED: &[(&str, &str, &[&str], &str)] = &[
    ("proxycommand", "ProxyCommand", &["jump"], "`jump` says which way, and `jump = []` that there is none"),
    ("revokedhostkeys", "RevokedHostKeys", &[], "mark the keys as @revoked in a known_hosts file"),
    ("bindaddress", "BindAddress", &[], ""),
    ("bindinterface", "BindInterface", &[], ""),
    ("refuseconnection", "RefuseConnection", &[], ""),
    ("pubkeyauthentication", "PubkeyAuthentication no", &["password"], "name the source of a `password`"),
];

/// What a file sets and keyswap leaves out, and says so.
const TOLD: &[(&str, &str)] = &[
    ("stricthostkeychecking", "StrictHostKeyChecking: host keys are always checked, and none is added"),
    ("nohostauthenticationforlocalhost", "NoHostAuthenticationForLocalhost: host keys are always checked"),
    ("verifyhostkeydns", "VerifyHostKeyDNS: what is trusted stands in known_hosts alone"),
    ("knownhostscommand", "KnownHostsCommand: what is trusted stands in known_hosts alone"),
    ("addressfamily", "AddressFamily: both are tried"),
    ("casignaturealgorithms", "CASignatureAlgorithms: the usual ones"),
    ("requiredrsasize", "RequiredRSASize: keys of any size that known_hosts names"),
    ("pubkeyacceptedalgorithms", "PubkeyAcceptedAlgorithms: the usual ones"),
    ("preferredauthentications", "PreferredAuthentications: keys, then the inventory's password"),
    ("pkcs11provider", "PKCS11Provider: load its keys into an agent"),
    ("securitykeyprovider", "SecurityKeyProvider: load the key into an agent"),
    ("remotecommand", "RemoteCommand: keyswap runs its own"),
    ("permitlocalcommand", "PermitLocalCommand: nothing is run here"),
];

/// What has no meaning here: it is about terminals, forwardings (there are none), sharing of connections, writing of
/// known_hosts, logs, or how the files themselves are read.
const QUIET: &[&str] = &[
    "addkeystoagent",
    "batchmode",
    "canonicaldomains",
    "canonicalizefallbacklocal",
    "canonicalizehostname",
    "canonicalizemaxdots",
    "canonicalizepermittedcnames",
    "channeltimeout",
    "checkhostip",
    "clearallforwardings",
    "compression",
    "connectionattempts",
    "controlmaster",
    "controlpath",
    "controlpersist",
    "dynamicforward",
    "enableescapecommandline",
    "enablesshkeysign",
    "escapechar",
    "exitonforwardfailure",
    "fingerprinthash",
    "forkafterauthentication",
    "forwardagent",
    "forwardx11",
    "forwardx11timeout",
    "forwardx11trusted",
    "gatewayports",
    "hashknownhosts",
    "host",
    "hostbasedacceptedalgorithms",
    "hostbasedauthentication",
    "ignoreunknown",
    "ipqos",
    "kbdinteractiveauthentication",
    "localcommand",
    "localforward",
    "loglevel",
    "logverbose",
    "numberofpasswordprompts",
    "obscurekeystroketiming",
    "passwordauthentication",
    "permitremoteopen",
    "proxyusefdpass",
    "rekeylimit",
    "remoteforward",
    "requesttty",
    "sendenv",
    "serveralivecountmax",
    "serveraliveinterval",
    "sessiontype",
    "setenv",
    "stdinnull",
    "streamlocalbindmask",
    "streamlocalbindunlink",
    "syslogfacility",
    "tag",
    "tcpkeepalive",
    "tunnel",
    "tunneldevice",
    "updatehostkeys",
    "versionaddendum",
    "visualhostkey",
    "warnweakcrypto",
    "xauthlocation",
];

/// What keyswap takes.
const TAKEN: &[&str] = &[
    "hostname",
    "port",
    "user",
    "proxyjump",
    "identityfile",
    "identitiesonly",
    "identityagent",
    "certificatefile",
    "userknownhostsfile",
    "globalknownhostsfile",
    "hostkeyalias",
    "kexalgorithms",
    "ciphers",
    "macs",
    "hostkeyalgorithms",
    "connecttimeout",
];

/// The lines that `ssh -G` prints, in their order.
#[derive(Debug, Clone, Default)]
pub(in crate::load) struct Answer(Vec<(String, String)>);

impl Answer {
    pub(super) fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            (!key.is_empty()).then(|| (key.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Self(text.lines().filter_map(line).collect())
    }

    fn all(&self, key: &str) -> Vec<&str> {
        self.0.iter().filter(|(known, _)| known == key).map(|(_, value)| value.as_str()).collect()
    }

    fn one(&self, key: &str) -> Option<&str> {
        self.all(key).first().copied()
    }

    /// The values of a key, if they are others than the usual.
    fn set(&self, key: &str, usual: &Self) -> Option<Vec<&str>> {
        let values = self.all(key);
        (!values.is_empty() && values != usual.all(key)).then_some(values)
    }
}

/// A setting that keyswap cannot honour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::load) struct Refused {
    pub(super) problem: Problem,
    /// Keys of the inventory that take its place.
    pub(super) lifted_by: &'static [&'static str],
}

/// What the files set for a host; `None`: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::load) struct Settings {
    pub(super) address: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) user: Option<String>,
    pub(in crate::load) jump: Option<Vec<String>>,
    pub(super) identity_files: Option<Vec<Utf8PathBuf>>,
    pub(super) identities_only: Option<bool>,
    pub(super) identity_agent: Option<Utf8PathBuf>,
    pub(super) certificate_files: Option<Vec<Utf8PathBuf>>,
    pub(super) known_hosts: Option<Vec<Utf8PathBuf>>,
    pub(super) host_key_alias: Option<String>,
    pub(super) kex: Option<Vec<String>>,
    pub(super) ciphers: Option<Vec<String>>,
    pub(super) macs: Option<Vec<String>>,
    pub(super) host_key_algorithms: Option<Vec<String>>,
    pub(super) connect_timeout_ms: Option<u64>,
    pub(super) refused: Vec<Refused>,
    /// What is set there and left out.
    pub(in crate::load) notes: Vec<String>,
}

impl Settings {
    /// What the answer to a question sets over the usual.
    pub(super) fn of(question: &SshQuestion, answer: &Answer, usual: &Answer, ssh: &dyn AskSsh) -> Self {
        let mut settings = Self::default();
        settings.log_in(question, answer, usual);
        settings.files(question, answer, usual, ssh);
        settings.algorithms(answer, usual);
        settings.others(answer, usual);
        if settings.refused.iter().any(|refused| refused.lifted_by == ["password"]) {
            // Where a password takes the place of the keys, none of these is offered before it.
            (settings.identity_files, settings.certificate_files) = (None, None);
        }
        settings
    }

    fn refuse(&mut self, lifted_by: &'static [&'static str], problem: Problem) {
        self.refused.push(Refused { problem, lifted_by });
    }

    fn checked<T>(&mut self, key: &str, value: Result<T, Problem>) -> Option<T> {
        value
            .map_err(|problem| self.refuse(&[], Problem { message: format!("{key}: {}", problem.message), ..problem }))
            .ok()
    }

    fn log_in(&mut self, question: &SshQuestion, answer: &Answer, usual: &Answer) {
        if let Some(name) = answer.one("hostname")
            && question.address.is_none()
            && !name.eq_ignore_ascii_case(&question.host)
        {
            self.address = self.checked("HostName", check::address(name));
        }
        if let Some(port) = answer.set("port", usual).and_then(|values| values.first().copied()) {
            let port = port.parse().map_err(|_| Problem::new("is no port"));
            self.port = self.checked("Port", port);
        }
        // Whether a file says it cannot be told where it is the operator's own name; ssh would take it in any case.
        if let Some(user) = answer.one("user") {
            self.user = match check::user(user) {
                Err(_) if usual.one("user") == Some(user) => None,
                checked => self.checked("User", checked),
            };
        }
        if let Some(hops) = answer.set("proxyjump", usual) {
            let hops = hops.iter().flat_map(|hops| hops.split(',')).map(str::trim);
            self.jump =
                Some(hops.filter(|hop| !hop.is_empty() && *hop != Connection::NONE).map(str::to_owned).collect());
        }
        if let Some(alias) = answer.set("hostkeyalias", usual).and_then(|values| values.first().copied()) {
            self.host_key_alias = self.checked("HostKeyAlias", check::address(alias));
        }
        if let Some(time) = answer.set("connecttimeout", usual).and_then(|values| values.first().copied())
            && let Ok(seconds @ 1..=86_400) = time.parse::<u64>()
        {
            self.connect_timeout_ms = Some(seconds * 1000);
        }
    }

    fn files(&mut self, question: &SshQuestion, answer: &Answer, usual: &Answer, ssh: &dyn AskSsh) {
        let usual_books = usual.one("userknownhostsfile").unwrap_or_default();
        // ssh's home is the one of the password file, whatever HOME says.
        let Some(home) = usual_books.split(' ').next().and_then(|first| first.strip_suffix("/.ssh/known_hosts")) else {
            return self.refuse(&[], Problem::new("the home directory cannot be told from what it prints"));
        };
        let tokens = Tokens {
            home,
            local_user: usual.one("user").unwrap_or_default(),
            original: &question.host,
            address: answer.one("hostname").unwrap_or(&question.host),
            port: answer.one("port").unwrap_or("22"),
            user: answer.one("user").unwrap_or_default(),
            alias: answer.one("hostkeyalias"),
            jump: answer.one("proxyjump").unwrap_or_default(),
            ssh,
        };
        let mut paths = |key: &str, name: &str| -> Option<Vec<Utf8PathBuf>> {
            let path = |text: &&str| match *text {
                // Alone it means that there are none; beside others it says nothing.
                Connection::NONE => Ok(Connection::NONE.into()),
                text => tokens.path(text).map_err(|why| Problem::new(format!("{name} `{text}` {why}"))),
            };
            let found: Result<Vec<Utf8PathBuf>, Problem> = answer.set(key, usual)?.iter().map(path).collect();
            let mut found = found.map_err(|problem| self.refuse(&[], problem)).ok()?;
            if found.len() > 1 {
                found.retain(|path| path != Connection::NONE);
            }
            Some(found)
        };
        let identities = paths("identityfile", "IdentityFile");
        let certificates = paths("certificatefile", "CertificateFile");
        self.identity_files = identities;
        self.certificate_files = certificates.filter(|found| found.iter().all(|path| path != Connection::NONE));
        self.identities_only = answer
            .set("identitiesonly", usual)
            .map(|values| values.iter().any(|value| matches!(*value, "yes" | "true")));
        if let Some(agent) = answer.set("identityagent", usual).and_then(|values| values.first().copied()) {
            let agent = match (agent, agent.strip_prefix('$').filter(|name| !name.starts_with('{'))) {
                (Connection::NONE, _) => Ok(Some(Connection::NONE.into())),
                // The usual one.
                ("SSH_AUTH_SOCK", _) => Ok(None),
                (_, Some(name)) => tokens.variable(name).map(|path| Some(path.into())),
                (path, None) => tokens.path(path).map(Some),
            };
            let agent = agent.map_err(Problem::new);
            self.identity_agent = self.checked("IdentityAgent", agent).flatten();
        }
        self.books(answer, usual, &tokens);
    }

    /// The files of known hosts: the operator's, and the machine's if others than the usual are named, which are read anyway.
    fn books(&mut self, answer: &Answer, usual: &Answer, tokens: &Tokens<'_>) {
        let (own, global) = ("userknownhostsfile", "globalknownhostsfile");
        let changed = |key| answer.set(key, usual).is_some();
        if !changed(own) && !changed(global) {
            return;
        }
        let mut files = Vec::new();
        let globals = if changed(global) { answer.all(global) } else { Vec::new() };
        for text in answer.all(own).into_iter().chain(globals).flat_map(|values| values.split(' ')) {
            match text {
                "" | Connection::NONE => {}
                text if !text.starts_with(['/', '~', '%', '$']) => {
                    let why =
                        "known_hosts files are named in a way that cannot be told apart: blanks, or a relative path";
                    return self.refuse(&["known_hosts"], Problem::new(why));
                }
                text => match tokens.path(text) {
                    Ok(path) => files.push(path),
                    Err(why) => return self.refuse(&["known_hosts"], Problem::new(format!("`{text}` {why}"))),
                },
            }
        }
        if files.is_empty() {
            files.push("/dev/null".into());
        }
        if changed(global) {
            self.notes.push("GlobalKnownHostsFile: the machine's usual files are read as well".to_owned());
        }
        self.known_hosts = Some(files);
    }

    fn algorithms(&mut self, answer: &Answer, usual: &Answer) {
        let mut list = |key: &str, name: &str, known: &[&str]| -> Option<Vec<String>> {
            let values = answer.set(key, usual)?;
            let split = |values: &[&str]| -> Vec<String> {
                values.iter().flat_map(|value| value.split(',')).map(str::to_owned).collect()
            };
            let (wanted, ordinary) = (split(&values), split(&usual.all(key)));
            let (taken, left): (Vec<String>, Vec<String>) =
                wanted.into_iter().partition(|algorithm| known.contains(&algorithm.as_str()));
            if taken.is_empty() {
                let problem = Problem::new(format!("{name} names none that keyswap has"));
                self.refuse(&[], problem.help(format!("it has {}", known.join(", "))));
                return None;
            }
            // Of the long usual lists nobody misses what keyswap does not have.
            let left: Vec<String> = left.into_iter().filter(|algorithm| !ordinary.contains(algorithm)).collect();
            if !left.is_empty() {
                self.notes.push(format!("{name}: keyswap does not have {}", left.join(", ")));
            }
            Some(taken)
        };
        let (kex, ciphers) = (list("kexalgorithms", "KexAlgorithms", KEX), list("ciphers", "Ciphers", CIPHERS));
        let (macs, keys) =
            (list("macs", "MACs", MACS), list("hostkeyalgorithms", "HostKeyAlgorithms", HOST_KEY_ALGORITHMS));
        (self.kex, self.ciphers, self.macs, self.host_key_algorithms) = (kex, ciphers, macs, keys);
    }

    /// What is refused or told of. What nobody here has heard of is told of, too.
    fn others(&mut self, answer: &Answer, usual: &Answer) {
        let mut seen: Vec<&str> = Vec::new();
        for (key, value) in &answer.0 {
            let key = key.as_str();
            if seen.contains(&key) || answer.set(key, usual).is_none() || value == Connection::NONE {
                continue;
            }
            seen.push(key);
            if let Some((_, name, lifted_by, help)) = REFUSED.iter().find(|(known, ..)| *known == key) {
                if key != "pubkeyauthentication" || matches!(value.as_str(), "no" | "false") {
                    let problem = Problem::new(format!("{name} is not for keyswap"));
                    self.refuse(lifted_by, if help.is_empty() { problem } else { problem.help(*help) });
                }
            } else if key == "stricthostkeychecking" && matches!(value.as_str(), "yes" | "true" | "ask") {
                // As strict as keyswap is.
            } else if let Some((_, note)) = TOLD.iter().find(|(known, _)| *known == key) {
                self.notes.push((*note).to_owned());
            } else if !TAKEN.contains(&key) && !QUIET.contains(&key) && !key.starts_with("gssapi") {
                let name: String = key.chars().filter(char::is_ascii_alphanumeric).take(60).collect();
                self.notes.push(format!("{name}: keyswap does not know it"));
            }
        }
    }
}
