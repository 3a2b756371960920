//! The sentinel: searches everything that was written, said or started for secrets, in every form.
//!
//! ```ignore
//! let sentinel = Sentinel::new([("new token", NEW), ("old token", OLD)]);
//! let trace = Trace::to(outside.join("trace"));
//! let out = trace.command(keyswap).args(["run", …]).output()?;       // or Trace::attach(log, &[sshd])?
//! let mut sweep = sentinel.sweep();
//! sweep.allow(host.root().join("srv/token"), "new token");           // that one secret, in that one file
//! sweep.files(host.root());
//! sweep.output("stdout", &out.stdout);
//! sweep.starts(&trace.starts()?);
//! sweep.processes();
//! sweep.assert_clean();
//! ```
//!
//! A place that could not be searched counts against the sweep as much as a finding does. An allowance is for one
//! secret in one file, by exact path: the name of the file is searched all the same. Tests run side by side: give each
//! test secrets of its own, or it finds its neighbour's.

pub(crate) mod needles;
pub(crate) mod scan;
pub(crate) mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(crate) use needles::Form;
pub(crate) use trace::{Start, Trace};

/// The secrets, ready to be searched for.
pub(crate) struct Sentinel {
    /// For each needle: which secret, in which form.
    known: Vec<(String, Form)>,
    matcher: scan::Matcher,
}

/// One search through many places.
pub(crate) struct Sweep<'a> {
    sentinel: &'a Sentinel,
    allowed: BTreeMap<PathBuf, BTreeSet<String>>,
    allowed_pids: BTreeSet<u32>,
    findings: Vec<Finding>,
    blind: Vec<String>,
    looked: Looked,
}

/// A secret where it must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The secret's label.
    pub(crate) secret: String,
    /// How it was written.
    pub(crate) form: Form,
    /// In what kind of place.
    pub(crate) kind: Kind,
    /// In which one: a path, an output's name, a process.
    pub(crate) place: String,
}

/// The kinds of places that are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The content of a regular file.
    Content,
    /// The name of a file of any type.
    Name,
    /// What a symbolic link points to.
    Link,
    /// Captured output.
    Output,
    /// The arguments of a program that was started.
    Argv,
    /// The environment of a program that was started.
    Environment,
}

/// How much was searched, so that a test can tell a clean sweep from an empty one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Files, directories and links seen.
    pub(crate) files: u64,
    /// Bytes of file content and output.
    pub(crate) bytes: u64,
    /// Running processes.
    pub(crate) processes: u64,
    /// Traced program starts.
    pub(crate) starts: u64,
}

impl Sentinel {
    /// Secrets with a label each, which stands for them in findings. At least 12 bytes each, or chance would be found.
    pub(crate) fn new<L: Into<String>, V: AsRef<[u8]>>(secrets: impl IntoIterator<Item = (L, V)>) -> Self {
        let (mut known, mut needles) = (Vec::new(), Vec::new());
        for (label, value) in secrets {
            let label = label.into();
            for (form, needle) in needles::forms(value.as_ref()) {
                known.push((label.clone(), form));
                needles.push(needle);
            }
        }
        assert!(!known.is_empty(), "a sentinel without secrets finds nothing");
        let matcher = scan::Matcher::new(needles.iter().map(Vec::as_slice));
        Self { known, matcher }
    }

    /// Begins a search.
    pub(crate) fn sweep(&self) -> Sweep<'_> {
        Sweep {
            sentinel: self,
            allowed: BTreeMap::new(),
            allowed_pids: BTreeSet::new(),
            findings: Vec::new(),
            blind: Vec::new(),
            looked: Looked::default(),
        }
    }

    /// Which secrets stand in these bytes, and how.
    fn search(&self, bytes: &[u8]) -> BTreeSet<(String, Form)> {
        let mut scanner = self.matcher.scanner();
        scanner.feed(bytes);
        self.name(scanner)
    }

    fn search_file(&self, path: &Path) -> std::io::Result<(u64, BTreeSet<(String, Form)>)> {
        let mut source = fs::File::open(path)?;
        let (mut scanner, mut total) = (self.matcher.scanner(), 0);
        let mut piece = vec![0; 1 << 18];
        loop {
            match source.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    scanner.feed(&piece[..count]);
                    total += count as u64;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok((total, self.name(scanner)))
    }

    /// The needles that were found, by name. A half says nothing more where the whole was found.
    fn name(&self, scanner: scan::Scanner<'_>) -> BTreeSet<(String, Form)> {
        let mut found: BTreeSet<_> = scanner.finish().into_iter().map(|index| self.known[index].clone()).collect();
        let whole: BTreeSet<_> = found.iter().filter(|(_, form)| *form == Form::Raw).map(|(s, _)| s.clone()).collect();
        found.retain(|(secret, form)| *form != Form::Half || !whole.contains(secret));
        found
    }
}

impl Sweep<'_> {
    /// The secret with this label may stand in this file.
    pub(crate) fn allow(&mut self, file: impl Into<PathBuf>, secret: &str) -> &mut Self {
        assert!(self.sentinel.known.iter().any(|(label, _)| label == secret), "no secret is called {secret:?}");
        self.allowed.entry(file.into()).or_default().insert(secret.to_owned());
        self
    }

    /// This running process may hold secrets in its argv and environment: the operator gave them to it.
    pub(crate) fn allow_process(&mut self, pid: u32) -> &mut Self {
        self.allowed_pids.insert(pid);
        self
    }

    /// Searches everything under `root`: names, links and every byte of every regular file. Links are not followed;
    /// kernel file systems (proc, sysfs, cgroups …) below the root are passed by.
    pub(crate) fn files(&mut self, root: impl AsRef<Path>) -> &mut Self {
        let root = root.as_ref();
        match fs::symlink_metadata(root) {
            Ok(meta) => self.entry(root, &meta, None),
            // A root that is not there is a mistake of the test, so it does not pass for a vanished file.
            Err(e) => self.blind.push(format!("{}: {e}", root.display())),
        }
        self
    }

    fn entry(&mut self, path: &Path, meta: &fs::Metadata, parent_device: Option<u64>) {
        self.looked.files += 1;
        self.bytes(Kind::Name, path.display(), path.file_name().unwrap_or_default().as_bytes());
        if meta.is_symlink() {
            match fs::read_link(path) {
                Ok(target) => self.bytes(Kind::Link, path.display(), target.as_os_str().as_bytes()),
                Err(e) => self.blind(path.display(), &e),
            }
        } else if meta.is_file() {
            match self.sentinel.search_file(path) {
                Ok((bytes, found)) => {
                    self.looked.bytes += bytes;
                    let allowed = self.allowed.get(path).cloned().unwrap_or_default();
                    self.add(Kind::Content, path.display(), found.into_iter().filter(|(s, _)| !allowed.contains(s)));
                }
                Err(e) => self.blind(path.display(), &e),
            }
        } else if meta.is_dir() && (parent_device == Some(meta.dev()) || !is_kernels(path)) {
            match fs::read_dir(path) {
                Ok(entries) => entries.for_each(|entry| match entry.and_then(|e| Ok((e.path(), e.metadata()?))) {
                    Ok((path, below)) => self.entry(&path, &below, Some(meta.dev())),
                    Err(e) => self.blind(path.display(), &e),
                }),
                Err(e) => self.blind(path.display(), &e),
            }
        }
    }

    /// Searches something that was said: standard output, an event stream, a response.
    pub(crate) fn output(&mut self, name: &str, bytes: &[u8]) -> &mut Self {
        self.looked.bytes += bytes.len() as u64;
        self.bytes(Kind::Output, name, bytes);
        self
    }

    /// Searches argv and environment of all processes that run now. A process that hides itself is passed by if it
    /// is older than the test, which it has nothing to do with, or if we are not root and must let it hide.
    pub(crate) fn processes(&mut self) -> &mut Self {
        let root = rustix::process::geteuid().is_root();
        let own_start = trace::start(std::process::id());
        for pid in trace::pids().filter(|pid| !self.allowed_pids.contains(pid)).collect::<Vec<_>>() {
            for (kind, file) in [(Kind::Argv, "cmdline"), (Kind::Environment, "environ")] {
                let place = format!("/proc/{pid}/{file}");
                match fs::read(&place) {
                    Ok(bytes) => self.bytes(kind, &place, &bytes),
                    Err(e) if e.kind() == ErrorKind::PermissionDenied && (!root || trace::start(pid) < own_start) => {}
                    Err(e) => self.blind(&place, &e),
                }
            }
            self.looked.processes += 1;
        }
        self
    }

    /// Searches traced program starts. Leave out (`&starts[1..]`) a first one to which the operator gave the secret.
    pub(crate) fn starts(&mut self, starts: &[Start]) -> &mut Self {
        for start in starts {
            self.looked.starts += 1;
            let place = format!("process {}: {}", start.pid, start.line());
            self.bytes(Kind::Argv, &place, &start.program);
            start.argv.iter().for_each(|word| self.bytes(Kind::Argv, &place, word));
            start.env.iter().for_each(|variable| self.bytes(Kind::Environment, &place, variable));
        }
        self
    }

    /// What was found so far.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Places that could not be searched, and why.
    pub(crate) fn blind_spots(&self) -> &[String] {
        &self.blind
    }

    /// How much was searched so far.
    pub(crate) fn looked(&self) -> Looked {
        self.looked
    }

    /// Panics with every finding and every place that could not be searched, if there is one, or if nothing was
    /// searched at all.
    pub(crate) fn assert_clean(&self) {
        let mut said = String::new();
        for Finding { secret, form, kind, place } in &self.findings {
            writeln!(said, "the {secret} is in {kind:?} as {form:?}: {place}").unwrap();
        }
        for blind in &self.blind {
            writeln!(said, "not searched: {blind}").unwrap();
        }
        assert!(said.is_empty(), "the sentinel objects:\n{said}");
        assert!(self.looked != Looked::default(), "the sentinel was shown nothing");
    }

    fn bytes(&mut self, kind: Kind, place: impl std::fmt::Display, bytes: &[u8]) {
        self.add(kind, place, self.sentinel.search(bytes).into_iter());
    }

    fn add(&mut self, kind: Kind, place: impl std::fmt::Display, found: impl Iterator<Item = (String, Form)>) {
        for (secret, form) in found {
            let finding = Finding { secret, form, kind, place: place.to_string() };
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
    }

    /// What vanished while we looked is not there; anything else that hid itself is said.
    fn blind(&mut self, place: impl std::fmt::Display, error: &std::io::Error) {
        let gone =
            error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
        if !gone {
            self.blind.push(format!("{place}: {error}"));
        }
    }
}

/// Whether a directory is on a file system that the kernel makes up.
fn is_kernels(path: &Path) -> bool {
    const MAGIC: [u64; 12] = [
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
        0x1cd1,      // devpts
        0xcafe_4a11, // bpf
        0x6265_6570, // configfs
        0x1980_0202, // mqueue
        0x6e73_6673, // nsfs
    ];
    rustix::fs::statfs(path).is_ok_and(|fs| u64::try_from(fs.f_type).is_ok_and(|magic| MAGIC.contains(&magic)))
}
