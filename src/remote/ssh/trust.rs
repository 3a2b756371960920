//! The one decision whether a host is the right one: pins, then `known_hosts`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use russh::Preferred;
use russh::keys::Algorithm;

use super::error::{HostKeyProblem, Problem};
use super::known_hosts::{CertificateVerdict, Endpoint, HostCertificate, HostKey, KnownHosts, Verdict};
use crate::model::Connection;

/// The files that OpenSSH's client reads too.
const GLOBAL_FILE: &str = "/etc/ssh/ssh_known_hosts";

/// The `known_hosts` files of a run, each set read once and shared by all its hosts: a fleet has a line for each of its hosts,
/// and a copy for each host would grow with the square of their number. A file that has changed is read again, so that
/// a revocation counts from the next connection on.
#[derive(Default)]
pub(super) struct Books(Mutex<HashMap<Vec<Utf8PathBuf>, Book>>);

/// What was read, and of which version of each file.
type Book = (Vec<Stamp>, Arc<KnownHosts>);

/// Which version of a file was read: inode, length, and both times to the nanosecond. `None`: it was not there.
type Stamp = Option<(u64, u64, [i64; 4])>;

impl Books {
    /// The files' present content. Blocks; whoever comes meanwhile waits instead of reading it too.
    fn read(&self, files: &[Utf8PathBuf]) -> Result<Arc<KnownHosts>, Problem> {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the reading: what changes during it has another stamp the next time.
        let stamps: Vec<Stamp> = files.iter().map(|file| stamp(file)).collect();
        if let Some((of, known)) = books.get(files)
            && *of == stamps
        {
            return Ok(Arc::clone(known));
        }
        let known =
            KnownHosts::read(files).map_err(|e| Problem::KnownHosts { file: e.file, reason: e.source.to_string() })?;
        for note in known.notes() {
            tracing::debug!("{} is skipped: {}", note.place, note.why);
        }
        let known = Arc::new(known);
        books.insert(files.to_vec(), (stamps, Arc::clone(&known)));
        Ok(known)
    }
}

fn stamp(file: &Utf8Path) -> Stamp {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.ino(), meta.len(), [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()]))
}

/// All that is known of one host's keys before it is dialled. There is no way to make one that accepts anything.
pub(super) struct Trust {
    endpoint: Endpoint,
    known: Arc<KnownHosts>,
    pins: Vec<HostKey>,
}

impl Trust {
    /// Reads what is recorded for a host. Blocks on files.
    pub(super) fn load(connection: &Connection, home: &Utf8Path, books: &Books) -> Result<Self, Problem> {
        let files: Vec<Utf8PathBuf> = if connection.known_hosts.is_empty() {
            vec![home.join(".ssh/known_hosts"), GLOBAL_FILE.into()]
        } else {
            connection.known_hosts.iter().map(|file| under_home(file, home)).collect()
        };
        let known = books.read(&files)?;
        let pin = |text: &String| {
            HostKey::from_line(text).map_err(|e| Problem::BadPin { text: text.clone(), why: e.to_string() })
        };
        Ok(Self {
            endpoint: Endpoint::of(connection),
            known,
            pins: connection.host_keys.iter().map(pin).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the host that presents this certificate is the right one: by the authority's word, or because the key
    /// in it is recorded itself.
    pub(super) fn verify_certificate(&self, offered: &HostCertificate) -> Result<(), Box<HostKeyProblem>> {
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        let fault = match self.known.check_certificate(&self.endpoint, offered, now) {
            CertificateVerdict::Trusted(_) if self.pins.is_empty() => return Ok(()),
            CertificateVerdict::Trusted(_) => return self.verify(offered.key()),
            CertificateVerdict::Revoked { authority: true, place } => {
                let authority = offered.authority().clone();
                return Err(Box::new(HostKeyProblem::RevokedAuthority {
                    offered: offered.key().clone(),
                    authority,
                    place,
                }));
            }
            CertificateVerdict::Revoked { .. } => return self.verify(offered.key()),
            CertificateVerdict::Useless(fault) => fault,
        };
        self.verify(offered.key()).map_err(|problem| match *problem {
            HostKeyProblem::Unknown { offered: key, .. } => {
                let authority = offered.authority().clone();
                Box::new(HostKeyProblem::Certificate { offered: key, authority, fault })
            }
            other => Box::new(other),
        })
    }

    /// Whether the host that presents this key is the right one.
    pub(super) fn verify(&self, offered: &HostKey) -> Result<(), Box<HostKeyProblem>> {
        let offered = offered.clone();
        let problem = match self.known.check(&self.endpoint, &offered) {
            Verdict::Revoked(place) => HostKeyProblem::Revoked { offered, place },
            _ if self.pins.contains(&offered) => return Ok(()),
            _ if !self.pins.is_empty() => HostKeyProblem::NotPinned { offered, pinned: self.pins.clone() },
            Verdict::Trusted(_) => return Ok(()),
            Verdict::Changed { place, recorded } if recorded.kind() == offered.kind() => {
                HostKeyProblem::Changed { offered, recorded, place }
            }
            Verdict::Changed { place, recorded } => HostKeyProblem::OtherType { offered, recorded, place },
            Verdict::Unknown { authority } => HostKeyProblem::Unknown {
                offered,
                listed_as: self.endpoint.listed_as(),
                files: self.known.files().to_vec(),
                authority,
            },
        };
        Err(Box::new(problem))
    }

    /// The algorithms to offer: certificates where an authority is recorded, then the host key types that are recorded,
    /// so that a host with several keys presents one that can be checked; never RSA with SHA-1.
    pub(super) fn preferred(&self) -> Preferred {
        let recorded = if self.pins.is_empty() {
            self.known.kinds(&self.endpoint)
        } else {
            self.pins.iter().map(HostKey::kind).collect()
        };
        let mut keys: Vec<Algorithm> =
            Preferred::DEFAULT.key.iter().filter(|a| !matches!(a, Algorithm::Rsa { hash: None })).cloned().collect();
        keys.sort_by_key(|algorithm| !recorded.contains(&kind(algorithm)));
        // Who is asked for a certificate presents no plain key, so only where an authority is recorded.
        let authority = self.pins.is_empty() && self.known.has_authority(&self.endpoint);
        let certificates = if authority { keys.clone() } else { Vec::new() };
        Preferred { key: Cow::Owned(keys), host_key_certificates: Cow::Owned(certificates), ..Preferred::DEFAULT }
    }
}

/// The type of the keys that an algorithm signs with, as `known_hosts` names it.
fn kind(algorithm: &Algorithm) -> &str {
    match algorithm {
        Algorithm::Rsa { .. } => "ssh-rsa",
        other => other.as_str(),
    }
}

/// A path with a leading `~/` resolved.
pub(super) fn under_home(path: &Utf8Path, home: &Utf8Path) -> Utf8PathBuf {
    match path.strip_prefix("~") {
        Ok(rest) => home.join(rest),
        Err(_) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKRvjYUutv9temXgSg4rF0NRV/pdiWYXiSCFObjqCQcS";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAAB";

    fn trust(lines: &str, pins: &[&str]) -> Result<Trust, Problem> {
        let dir = tempfile::tempdir().unwrap();
        let home = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::create_dir(home.join(".ssh")).unwrap();
        std::fs::write(home.join(".ssh/kh"), lines).unwrap();
        let connection = Connection {
            known_hosts: vec!["~/.ssh/kh".into()],
            host_keys: pins.iter().map(|p| (*p).to_owned()).collect(),
            ..Connection::new("h1", 22, "ops")
        };
        Trust::load(&connection, home, &Books::default())
    }

    #[test]
    fn a_file_is_read_once_and_again_when_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = Utf8Path::from_path(dir.path()).unwrap().join("kh");
        let books = Books::default();
        let endpoint = Endpoint::new("h1", 22);
        let key = HostKey::from_line(A).unwrap();
        let check = || books.read(std::slice::from_ref(&file)).unwrap();
        assert!(matches!(check().check(&endpoint, &key), Verdict::Unknown { .. }), "no file, nothing known");
        std::fs::write(&file, format!("h1 {A}\n")).unwrap();
        let first = check();
        assert!(matches!(first.check(&endpoint, &key), Verdict::Trusted(_)));
        assert!(Arc::ptr_eq(&first, &check()), "one copy for all hosts");
        std::fs::write(&file, format!("@revoked * {A}\nh1 {A}\n")).unwrap();
        assert!(matches!(check().check(&endpoint, &key), Verdict::Revoked(_)));
    }

    #[expect(clippy::result_large_err, reason = "a test's convenience")]
    fn verify(lines: &str, pins: &[&str], offered: &str) -> Result<(), HostKeyProblem> {
        let problem = trust(lines, pins).unwrap().verify(&HostKey::from_line(offered).unwrap());
        problem.map_err(|boxed| *boxed)
    }

    #[test]
    fn pins_are_the_whole_truth_but_for_revocation() {
        assert!(verify("", &[A], A).is_ok(), "a pin needs no line");
        assert!(verify(&format!("h1 {B}"), &[A], A).is_ok(), "a pin outweighs a line");
        assert!(matches!(verify(&format!("h1 {B}"), &[A], B), Err(HostKeyProblem::NotPinned { .. })));
        assert!(matches!(verify(&format!("@revoked * {A}"), &[A], A), Err(HostKeyProblem::Revoked { .. })));
        assert!(matches!(trust("", &["ssh-ed25519 nonsense"]), Err(Problem::BadPin { .. })));
    }

    #[test]
    fn every_verdict_but_one_refuses() {
        assert!(verify(&format!("h1 {A}"), &[], A).is_ok());
        assert!(matches!(verify("", &[], A), Err(HostKeyProblem::Unknown { authority: false, .. })));
        assert!(matches!(
            verify(&format!("@cert-authority h1 {A}"), &[], A),
            Err(HostKeyProblem::Unknown { authority: true, .. })
        ));
        assert!(matches!(verify(&format!("h1 {B}"), &[], A), Err(HostKeyProblem::Changed { .. })));
        assert!(matches!(verify(&format!("h1 {RSA}"), &[], A), Err(HostKeyProblem::OtherType { .. })));
        assert!(matches!(verify(&format!("@revoked h1 {A}\nh1 {A}"), &[], A), Err(HostKeyProblem::Revoked { .. })));
    }

    #[test]
    fn recorded_types_are_asked_for_first_and_sha1_never() {
        let names =
            |trust: &Trust| -> Vec<String> { trust.preferred().key.iter().map(|a| a.as_str().to_owned()).collect() };
        assert_eq!(names(&trust("", &[]).unwrap())[0], "ssh-ed25519");
        let rsa = names(&trust(&format!("h1 {RSA}"), &[]).unwrap());
        assert_eq!(rsa[..3], ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]);
        assert!(!rsa.contains(&"ssh-rsa".to_owned()));
        assert_eq!(names(&trust(&format!("h1 {A}"), &[RSA]).unwrap())[0], "rsa-sha2-512");
    }
}
