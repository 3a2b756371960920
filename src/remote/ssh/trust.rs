//! The one decision whether a host is the right one: pins, then `known_hosts`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use russh::keys::Algorithm;
use russh::{Preferred, cipher, kex, mac};

use super::error::{HostKeyProblem, Problem};
use super::known_hosts::{CertificateVerdict, Endpoint, HostCertificate, HostKey, KnownHosts, Verdict};
use crate::model::Connection;
use crate::model::algorithms::{CIPHERS, HOST_KEY_ALGORITHMS, KEX, MACS};

/// The operator's own files, where none is named.
const USUAL_FILES: [&str; 2] = [".ssh/known_hosts", ".ssh/known_hosts2"];

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
    /// Reads what is recorded for a host, in the files that are named and always in the global ones: what an administrator
    /// revokes there is revoked for everybody. Blocks on files.
    pub(super) fn load(
        connection: &Connection,
        home: &Utf8Path,
        global: &[Utf8PathBuf],
        books: &Books,
    ) -> Result<Self, Problem> {
        let mut files: Vec<Utf8PathBuf> = if connection.known_hosts.is_empty() {
            USUAL_FILES.iter().map(|file| home.join(file)).collect()
        } else {
            connection.known_hosts.iter().map(|file| under_home(file, home)).collect()
        };
        files.extend(global.iter().filter(|file| !files.contains(file)).cloned().collect::<Vec<_>>());
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
            Verdict::Changed { place, recorded } => {
                HostKeyProblem::OtherType { offered, recorded, place, listed_as: self.endpoint.listed_as() }
            }
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
    /// so that a host with several keys presents one that can be checked; never RSA with SHA-1. What the inventory names for
    /// the host takes the place of the usual.
    pub(super) fn preferred(&self, connection: &Connection) -> Result<Preferred, Problem> {
        let recorded = if self.pins.is_empty() {
            self.known.kinds(&self.endpoint)
        } else {
            self.pins.iter().map(HostKey::kind).collect()
        };
        let mut keys: Vec<Algorithm> =
            Preferred::DEFAULT.key.iter().filter(|a| !matches!(a, Algorithm::Rsa { hash: None })).cloned().collect();
        let wanted = &connection.algorithms;
        if !wanted.host_key_algorithms.is_empty() {
            keys = chosen(&wanted.host_key_algorithms, HOST_KEY_ALGORITHMS, |name| {
                keys.iter().find(|algorithm| algorithm.as_str() == name).cloned()
            })?;
        }
        keys.sort_by_key(|algorithm| !recorded.contains(&kind(algorithm)));
        // Who is asked for a certificate presents no plain key, so only where an authority is recorded.
        let authority = self.pins.is_empty() && self.known.has_authority(&self.endpoint);
        let certificates = if authority { keys.clone() } else { Vec::new() };
        let mut preferred =
            Preferred { key: Cow::Owned(keys), host_key_certificates: Cow::Owned(certificates), ..Preferred::DEFAULT };
        if !wanted.kex.is_empty() {
            let mut all = chosen(&wanted.kex, KEX, |name| kex::Name::try_from(name).ok())?;
            // No key exchanges, but what asks for the strict one and for the server's signature types.
            let extension = |name: &&kex::Name| name.as_ref().starts_with("ext-") || name.as_ref().starts_with("kex-");
            all.extend(Preferred::DEFAULT.kex.iter().filter(extension));
            preferred.kex = Cow::Owned(all);
        }
        if !wanted.ciphers.is_empty() {
            let all = chosen(&wanted.ciphers, CIPHERS, |name| cipher::Name::try_from(name).ok())?;
            preferred.cipher = Cow::Owned(all);
        }
        if !wanted.macs.is_empty() {
            preferred.mac = Cow::Owned(chosen(&wanted.macs, MACS, |name| mac::Name::try_from(name).ok())?);
        }
        Ok(preferred)
    }
}

/// Algorithms by their names, of which only known ones may be used.
fn chosen<T>(names: &[String], known: &[&str], find: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Problem> {
    let one = |name: &String| {
        let found = known.contains(&name.as_str()).then(|| find(name)).flatten();
        found.ok_or_else(|| Problem::UnknownAlgorithm { name: name.clone() })
    };
    names.iter().map(one).collect()
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
    use crate::model::Algorithms;

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
        Trust::load(&connection, home, &[home.join("global")], &Books::default())
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
    fn the_global_files_are_read_whatever_else_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let home = Utf8Path::from_path(dir.path()).unwrap();
        let (own, global) = (home.join("own"), home.join("global"));
        std::fs::write(&own, format!("h1 {A}\n")).unwrap();
        let connection = Connection { known_hosts: vec![own.clone()], ..Connection::new("h1", 22, "ops") };
        let ask = |connection: &Connection| {
            let trust = Trust::load(connection, home, std::slice::from_ref(&global), &Books::default()).unwrap();
            trust.verify(&HostKey::from_line(A).unwrap())
        };
        assert!(ask(&connection).is_ok());
        std::fs::write(&global, format!("@revoked * {A}\n")).unwrap();
        let Err(problem) = ask(&connection) else { panic!("it is revoked") };
        assert!(matches!(*problem, HostKeyProblem::Revoked { place, .. } if place.file == global));
        std::fs::write(&global, "").unwrap();
        let none = Connection { known_hosts: Vec::new(), ..connection };
        let Err(problem) = ask(&none) else { panic!("nothing is recorded") };
        assert!(problem.to_string().contains(".ssh/known_hosts2") && problem.to_string().contains(global.as_str()));
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
        let names = |trust: &Trust| -> Vec<String> {
            trust
                .preferred(&Connection::new("h1", 22, "ops"))
                .unwrap()
                .key
                .iter()
                .map(|a| a.as_str().to_owned())
                .collect()
        };
        assert_eq!(names(&trust("", &[]).unwrap())[0], "ssh-ed25519");
        let rsa = names(&trust(&format!("h1 {RSA}"), &[]).unwrap());
        assert_eq!(rsa[..3], ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]);
        assert!(!rsa.contains(&"ssh-rsa".to_owned()));
        assert_eq!(names(&trust(&format!("h1 {A}"), &[RSA]).unwrap())[0], "rsa-sha2-512");
    }

    #[test]
    fn what_a_host_is_offered_can_be_chosen_but_not_what_leaves_a_check_out() {
        let own = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let of = |algorithms: Algorithms| {
            let connection = Connection { algorithms, ..Connection::new("h1", 22, "ops") };
            trust("", &[]).unwrap().preferred(&connection)
        };
        // Every name that the inventory may hold is one that the library knows.
        let all = of(Algorithms {
            kex: own(KEX),
            ciphers: own(CIPHERS),
            macs: own(MACS),
            host_key_algorithms: own(HOST_KEY_ALGORITHMS),
        });
        let all = all.unwrap();
        assert_eq!((all.cipher.len(), all.mac.len(), all.key.len()), (CIPHERS.len(), MACS.len(), 6));
        let old = of(Algorithms { kex: own(&["diffie-hellman-group14-sha1"]), ..Algorithms::default() }).unwrap();
        let names: Vec<&str> = old.kex.iter().map(AsRef::as_ref).collect();
        assert_eq!(names.iter().filter(|name| name.starts_with("diffie")).count(), 1);
        assert!(names.contains(&"kex-strict-c-v00@openssh.com") && names.contains(&"ext-info-c"), "{names:?}");
        assert_eq!(old.cipher.len(), Preferred::DEFAULT.cipher.len());
        for bad in [
            Algorithms { macs: own(&["none"]), ..Algorithms::default() },
            Algorithms { ciphers: own(&["none"]), ..Algorithms::default() },
            Algorithms { kex: own(&["none"]), ..Algorithms::default() },
            Algorithms { host_key_algorithms: own(&["ssh-rsa"]), ..Algorithms::default() },
        ] {
            assert!(matches!(of(bad), Err(Problem::UnknownAlgorithm { .. })));
        }
    }
}
