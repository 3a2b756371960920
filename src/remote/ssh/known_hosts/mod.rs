//! Which host keys are trusted: OpenSSH's `known_hosts` files, read the way OpenSSH reads them.
//!
//! Invariants: nothing here says yes by default. A key is trusted only if a plain line for this host holds the very
//! same bytes, or a `@cert-authority` line for this host holds the key that signed a sound certificate for it, and no
//! `@revoked` line names either key; a `@cert-authority` line never counts as a plain one. A line that cannot be read
//! is skipped with a note and never hides the lines after it, but for one that would revoke: without it nothing is
//! trusted at all. A line is bytes, as OpenSSH takes it: what stands after the key may be anything. Keys are compared as bytes, so a key type that
//! this program cannot use is still told apart from another key.

mod certificate;
mod key;
mod learn;
mod pattern;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};

pub use certificate::{CertificateFault, HostCertificate};
pub use key::{BadHostKey, HostKey};
pub use learn::learn;
use pattern::Hosts;

use crate::model::Connection;

/// More than this is not a `known_hosts` file.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Utf8PathBuf,
    /// Counted from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The name under which a host's keys are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    name: String,
    port: u16,
}

impl Endpoint {
    /// The endpoint that is dialled: a name in any letter case, or an address in any spelling.
    #[must_use]
    pub fn new(address: &str, port: u16) -> Self {
        let name = match address.parse::<IpAddr>() {
            Ok(ip) => ip.to_string(),
            Err(_) => address.to_ascii_lowercase(),
        };
        Self { name, port }
    }

    /// The endpoint of a connection: what is dialled, or the alias that stands for it, whose lines have no port.
    #[must_use]
    pub fn of(connection: &Connection) -> Self {
        match &connection.host_key_alias {
            Some(alias) => Self { name: alias.to_ascii_lowercase(), port: 22 },
            None => Self::new(&connection.address, connection.port),
        }
    }

    /// The name without the port: what a certificate must be made for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name as a line of a `known_hosts` file gives it: `name`, or `[name]:port` if the port is not 22.
    #[must_use]
    pub fn listed_as(&self) -> String {
        match self.port {
            22 => self.name.clone(),
            port => format!("[{}]:{port}", self.name),
        }
    }
}

/// All lines of one or more files, in order.
///
/// A fleet has a line for each host and asks for each of them: lines that list whole names are found by name. Others, with
/// patterns or hashed names, have to be looked at one by one, which is done once for each name.
#[derive(Debug, Default)]
pub struct KnownHosts {
    files: Vec<Utf8PathBuf>,
    lines: Vec<Line>,
    notes: Vec<Note>,
    /// Lines of whole names alone, by each of them.
    by_name: HashMap<Vec<u8>, Vec<usize>>,
    /// All other lines.
    to_look_at: Vec<usize>,
    /// Names that were looked up, and which of the other lines cover them.
    looked_at: Mutex<HashMap<String, Arc<[usize]>>>,
}

/// A line that was skipped, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Where it stands.
    pub place: Place,
    /// What is wrong with it.
    pub why: &'static str,
}

#[derive(Debug)]
struct Line {
    place: Place,
    mark: Mark,
    hosts: Hosts,
    key: HostKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Plain,
    Authority,
    Revoked,
}

/// What the files say about a key that a host offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The key is recorded for this host.
    Trusted(Place),
    /// Nothing is recorded for this host, or only an authority for certificates.
    Unknown {
        /// A `@cert-authority` line covers the host.
        authority: bool,
    },
    /// Other keys are recorded for this host, the first of the same type here if there is one.
    Changed {
        /// Where the recorded key stands.
        place: Place,
        /// The recorded key.
        recorded: HostKey,
    },
    /// The key is marked as revoked.
    Revoked(Place),
}

/// What the files say about a certificate that a host offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateVerdict {
    /// It is sound, and its authority is recorded for this host.
    Trusted(Place),
    /// It proves nothing. The key in it may still be recorded itself.
    Useless(CertificateFault),
    /// Its key or its authority is marked as revoked.
    Revoked {
        /// Where.
        place: Place,
        /// It is the authority that is marked.
        authority: bool,
    },
}

/// A file that is there but cannot be read, or holds a `@revoked` line that cannot.
#[derive(Debug, thiserror::Error)]
#[error("{file} cannot be read")]
pub struct UnreadableFile {
    /// The file.
    pub file: Utf8PathBuf,
    /// Why.
    pub source: std::io::Error,
}

impl KnownHosts {
    /// Reads the files; one that does not exist counts as empty.
    ///
    /// # Errors
    /// A file that exists and cannot be read: it may hold a revocation, so going on without it would not be safe. A line
    /// that is marked as one and cannot be read is the same.
    pub fn read(files: &[Utf8PathBuf]) -> Result<Self, UnreadableFile> {
        let mut all = Self::default();
        for file in files {
            let unreadable = |source| UnreadableFile { file: file.clone(), source };
            match read_bounded(file) {
                Ok(bytes) => all.add(file, &bytes).map_err(unreadable)?,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => all.files.push(file.clone()),
                Err(e) => return Err(unreadable(e)),
            }
        }
        Ok(all)
    }

    /// Adds a file's content.
    ///
    /// # Errors
    /// A `@revoked` line that cannot be read, after all that can be read was added.
    pub fn add(&mut self, file: &Utf8Path, content: &[u8]) -> std::io::Result<()> {
        self.files.push(file.to_owned());
        let mut broken = Ok(());
        for (index, raw) in content.split(|b| *b == b'\n').enumerate() {
            let place = || Place { file: file.to_owned(), line: index + 1 };
            match parse_line(raw) {
                Ok(None) => {}
                Ok(Some((mark, hosts, key))) => self.push(Line { place: place(), mark, hosts, key }),
                Err(why) if broken.is_ok() && is_revocation(raw) => {
                    let why =
                        format!("line {} is marked as @revoked, and what it revokes is not told: {why}", index + 1);
                    broken = Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
                }
                Err(why) => self.notes.push(Note { place: place(), why }),
            }
        }
        broken
    }

    fn push(&mut self, line: Line) {
        let at = self.lines.len();
        match line.hosts.whole_names() {
            Some(names) => names.into_iter().for_each(|name| {
                let lines = self.by_name.entry(name.to_vec()).or_default();
                if lines.last() != Some(&at) {
                    lines.push(at);
                }
            }),
            None => self.to_look_at.push(at),
        }
        self.lines.push(line);
        self.looked_at.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The lines that cover a name, in their order.
    fn covering(&self, name: &str) -> Vec<usize> {
        let known = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let others = known.unwrap_or_else(|| {
            let covers = |at: &&usize| self.lines.get(**at).is_some_and(|line| line.hosts.cover(name));
            let found: Arc<[usize]> = self.to_look_at.iter().filter(covers).copied().collect();
            let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(looked_at.entry(name.to_owned()).or_insert(found))
        });
        let mut all = self.by_name.get(name.as_bytes()).cloned().unwrap_or_default();
        all.extend(others.iter());
        all.sort_unstable();
        all
    }

    /// The files that were asked for, present or not.
    #[must_use]
    pub fn files(&self) -> &[Utf8PathBuf] {
        &self.files
    }

    /// The lines that were skipped.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The types of the keys recorded for a host, in order, each once: what to ask the host for.
    #[must_use]
    pub fn kinds(&self, endpoint: &Endpoint) -> Vec<&str> {
        let mut kinds = Vec::new();
        for line in self.recorded(endpoint) {
            if !kinds.contains(&line.key.kind()) {
                kinds.push(line.key.kind());
            }
        }
        kinds
    }

    /// What the files say about a key that a host offers.
    #[must_use]
    pub fn check(&self, endpoint: &Endpoint, offered: &HostKey) -> Verdict {
        let listed = endpoint.listed_as();
        if let Some(place) = self.revoked(endpoint, offered) {
            return Verdict::Revoked(place);
        }
        let recorded: Vec<&Line> = self.recorded(endpoint).collect();
        if let Some(line) = recorded.iter().find(|l| l.key == *offered) {
            return Verdict::Trusted(line.place.clone());
        }
        let same_kind = recorded.iter().find(|l| l.key.kind() == offered.kind());
        // A line without the port only ever helps; what it says of another port's key proves nothing.
        let exact = recorded.iter().any(|l| l.hosts.cover(&listed));
        match same_kind.or(recorded.first()) {
            Some(line) if exact => Verdict::Changed { place: line.place.clone(), recorded: line.key.clone() },
            _ => Verdict::Unknown { authority: self.has_authority(endpoint) },
        }
    }

    /// What the files say about a certificate that a host offers, at `now` (seconds since 1970).
    #[must_use]
    pub fn check_certificate(&self, endpoint: &Endpoint, offered: &HostCertificate, now: u64) -> CertificateVerdict {
        for (key, authority) in [(&offered.key, false), (&offered.authority, true)] {
            if let Some(place) = self.revoked(endpoint, key) {
                return CertificateVerdict::Revoked { place, authority };
            }
        }
        let Some(line) = self.marked(Mark::Authority, endpoint).find(|l| l.key == offered.authority) else {
            let fingerprint = offered.authority.fingerprint();
            return CertificateVerdict::Useless(CertificateFault::UnknownAuthority(fingerprint));
        };
        match offered.judge(endpoint.name(), now) {
            Ok(()) => CertificateVerdict::Trusted(line.place.clone()),
            Err(fault) => CertificateVerdict::Useless(fault),
        }
    }

    /// Whether an authority for certificates is recorded for a host.
    #[must_use]
    pub fn has_authority(&self, endpoint: &Endpoint) -> bool {
        self.marked(Mark::Authority, endpoint).next().is_some()
    }

    fn revoked(&self, endpoint: &Endpoint, key: &HostKey) -> Option<Place> {
        self.marked(Mark::Revoked, endpoint).find(|l| l.key == *key).map(|l| l.place.clone())
    }

    /// The lines with a mark that are about an endpoint, with its port or without.
    fn marked(&self, mark: Mark, endpoint: &Endpoint) -> impl Iterator<Item = &Line> {
        let listed = endpoint.listed_as();
        let mut lines = self.covering(&listed);
        if listed != endpoint.name {
            lines.extend(self.covering(&endpoint.name));
            lines.sort_unstable();
            lines.dedup();
        }
        self.these(lines, mark)
    }

    /// The plain lines for an endpoint: those for its port, or, where there are none, those for the bare name.
    fn recorded(&self, endpoint: &Endpoint) -> impl Iterator<Item = &Line> {
        let mut lines = self.covering(&endpoint.listed_as());
        if self.these(lines.clone(), Mark::Plain).next().is_none() {
            lines = self.covering(&endpoint.name);
        }
        self.these(lines, Mark::Plain)
    }

    fn these(&self, lines: Vec<usize>, mark: Mark) -> impl Iterator<Item = &Line> {
        lines.into_iter().filter_map(|at| self.lines.get(at)).filter(move |line| line.mark == mark)
    }
}

fn read_bounded(file: &Utf8Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "the file is larger than 32 MiB"));
    }
    Ok(bytes)
}

/// What stands between the blanks of a line. As in OpenSSH, a NUL ends it.
fn fields(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = raw.split(|b| *b == 0).next().unwrap_or_default();
    line.split(|b| matches!(b, b' ' | b'\t' | b'\r')).filter(|field| !field.is_empty())
}

/// Whether a line is meant to revoke a key, in whatever letter case or company.
fn is_revocation(raw: &[u8]) -> bool {
    fields(raw).take_while(|field| field.starts_with(b"@")).any(|field| field.eq_ignore_ascii_case(b"@revoked"))
}

/// One line: nothing for blank lines and comments.
fn parse_line(raw: &[u8]) -> Result<Option<(Mark, Hosts, HostKey)>, &'static str> {
    let mut fields = fields(raw);
    let Some(mut first) = fields.next() else {
        return Ok(None);
    };
    if first.starts_with(b"#") {
        return Ok(None);
    }
    let mut mark = Mark::Plain;
    if first.starts_with(b"@") {
        mark = match first {
            b"@revoked" => Mark::Revoked,
            b"@cert-authority" => Mark::Authority,
            _ => return Err("the marker is not known"),
        };
        first = fields.next().ok_or("the host names are missing")?;
        if first.starts_with(b"@") {
            return Err("there is more than one marker");
        }
    }
    let hosts = Hosts::parse(first)?;
    let (Some(kind), Some(base64)) = (fields.next(), fields.next()) else {
        return Err("the key is missing");
    };
    let (Ok(kind), Ok(base64)) = (std::str::from_utf8(kind), std::str::from_utf8(base64)) else {
        return Err("the key is not Base64");
    };
    let key = HostKey::parse(kind, base64).map_err(BadHostKey::why)?;
    Ok(Some((mark, hosts, key)))
}

#[cfg(test)]
mod tests;
