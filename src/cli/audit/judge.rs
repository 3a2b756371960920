//! From what was seen on a host to what is to be said of it, and to what has drifted.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::places::{EnvPlace, FilePlace, Places, ServicePlace};
use crate::model::{Fingerprint, Inventory};
use crate::remote::{Active, Copy, Seen, SeenEnv, SeenFile, SeenService, SeenState};
use crate::service::infisical::Claims;

/// Names for fingerprints: the inventory's, and those of tokens that runs of this machine brought.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Names {
    known: Vec<(String, String, bool)>,
    pub(in crate::cli) minted: Vec<MintedName>,
    /// Whatever else runs of this machine brought or found: nobody gave it a name.
    pub(in crate::cli) nameless: Vec<Fingerprint>,
}

/// What runs of this machine know of credentials.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct FromRuns {
    pub(in crate::cli) minted: Vec<MintedName>,
    pub(in crate::cli) nameless: Vec<Fingerprint>,
}

/// A token that keyswap minted.
#[derive(Debug, Clone)]
pub(in crate::cli) struct MintedName {
    pub(in crate::cli) fingerprint: Fingerprint,
    pub(in crate::cli) run: String,
    pub(in crate::cli) revoked: bool,
}

impl Names {
    pub(in crate::cli) fn new(inventory: &Inventory, runs: FromRuns) -> Self {
        let hex = |text: &str| text.strip_prefix("sha256:").unwrap_or(text).to_owned();
        let known = inventory.known.iter().map(|(name, known)| (hex(&known.fingerprint), name.clone(), known.shared));
        Self { known: known.collect(), minted: runs.minted, nameless: runs.nameless }
    }

    /// Only those of tokens that runs brought.
    pub(in crate::cli) fn of_runs(runs: FromRuns) -> Self {
        Self { known: Vec::new(), minted: runs.minted, nameless: runs.nameless }
    }

    /// Whether others use a credential, too.
    pub(in crate::cli) fn is_shared(&self, fingerprint: &Fingerprint) -> bool {
        self.of(fingerprint).1
    }

    /// What a credential is called that others use, too.
    pub(in crate::cli) fn shared(&self, fingerprint: &Fingerprint) -> Option<String> {
        let (name, shared) = self.of(fingerprint);
        name.filter(|_| shared)
    }

    /// What a credential is called, and whether others use it too.
    fn of(&self, fingerprint: &Fingerprint) -> (Option<String>, bool) {
        if let Some((_, name, shared)) = self.known.iter().find(|(hex, ..)| fingerprint.hex().starts_with(hex)) {
            return (Some(name.clone()), *shared);
        }
        let minted = self.minted.iter().find(|minted| minted.fingerprint == *fingerprint);
        (minted.map(|minted| format!("minted by run {}", minted.run)), false)
    }

    /// The digits with which the fingerprints begin of which copies are looked for.
    pub(in crate::cli) fn prefixes(&self) -> Vec<String> {
        let named = self.known.iter().map(|(hex, ..)| hex.clone());
        let minted = self.minted.iter().map(|minted| &minted.fingerprint);
        named.chain(minted.chain(&self.nameless).map(|whole| whole.hex().to_owned())).collect()
    }
}

/// What is said of one host.
#[derive(Debug, Clone, Default, Serialize)]
pub(in crate::cli) struct Report {
    pub(in crate::cli) credentials: Vec<Credential>,
    pub(in crate::cli) pointers: Vec<Pointing>,
    pub(in crate::cli) processes: Vec<Process>,
    pub(in crate::cli) copies: Vec<CopyLine>,
    /// Phase and run of the host's own state.
    pub(in crate::cli) state: String,
    /// The run that it names, and its phase.
    #[serde(skip)]
    pub(in crate::cli) last: (String, String),
    /// What is not as it should be.
    pub(in crate::cli) drift: Vec<String>,
}

/// A credential file.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Credential {
    pub(in crate::cli) path: String,
    pub(in crate::cli) fingerprint: Option<String>,
    pub(in crate::cli) name: Option<String>,
    pub(in crate::cli) shared: bool,
    pub(in crate::cli) mode: String,
    pub(in crate::cli) uid: u32,
    pub(in crate::cli) gid: u32,
    pub(in crate::cli) age_seconds: Option<u64>,
    pub(in crate::cli) expires: Option<Timestamp>,
    pub(in crate::cli) identity: Option<String>,
    #[serde(skip)]
    pub(in crate::cli) whole: Option<Fingerprint>,
    #[serde(skip)]
    pub(in crate::cli) sha: Option<String>,
}

/// A pointer in a file.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Pointing {
    pub(in crate::cli) file: String,
    pub(in crate::cli) key: String,
    pub(in crate::cli) value: Option<String>,
    /// What lies at that path on the host.
    pub(in crate::cli) fingerprint: Option<String>,
    pub(in crate::cli) name: Option<String>,
    pub(in crate::cli) expires: Option<Timestamp>,
    pub(in crate::cli) outranking: Vec<String>,
    #[serde(skip)]
    pub(in crate::cli) target: Option<Fingerprint>,
    #[serde(skip)]
    pub(in crate::cli) claims: Option<Claims>,
    /// The running process must have it, too.
    #[serde(skip)]
    pub(in crate::cli) daemon: bool,
}

/// A runner's process.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Process {
    pub(in crate::cli) pid: Option<u32>,
    pub(in crate::cli) up: bool,
    pub(in crate::cli) age_seconds: Option<u64>,
    pub(in crate::cli) pointer: Option<String>,
    pub(in crate::cli) outranking: Vec<String>,
    /// It sees one of the credential files there.
    #[serde(skip)]
    pub(in crate::cli) sees_one: bool,
}

/// A copy.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct CopyLine {
    pub(in crate::cli) kind: String,
    pub(in crate::cli) at: String,
    pub(in crate::cli) fingerprint: Option<String>,
    pub(in crate::cli) name: Option<String>,
    pub(in crate::cli) age_seconds: Option<u64>,
}

/// How what was seen is judged.
pub(in crate::cli) struct Judge<'a> {
    pub(in crate::cli) names: &'a Names,
    pub(in crate::cli) now: Timestamp,
    /// A token that ends sooner is drift.
    pub(in crate::cli) within: Duration,
}

impl Judge<'_> {
    /// Judges what a host answered to the surveys of these places, and to those that go with every host.
    pub(in crate::cli) fn report(&self, places: &Places, seen: Vec<Seen>, extra: Vec<Seen>) -> Report {
        let mut report = Report::default();
        let mut state = SeenState::default();
        for seen in &extra {
            if let Seen::State(found) = seen {
                state.clone_from(found);
            }
        }
        report.state = match state.phase.as_str() {
            "none" | "" => "no run was here".to_owned(),
            phase => format!("{phase}, run {}", state.run),
        };
        report.last = (state.run.clone(), state.phase.clone());
        if matches!(state.phase.as_str(), "armed" | "undo" | "dirty") {
            let (phase, run) = (&state.phase, &state.run);
            report.drift.push(format!("run {run} holds this host ({phase}): keyswap resume {run}"));
        }
        for (at, found) in seen.into_iter().enumerate() {
            match found {
                Seen::File(file) => self.file(&mut report, (places, places.files.get(at)), file),
                Seen::Env(env) => {
                    let place = at.checked_sub(places.files.len()).and_then(|at| places.envs.get(at));
                    self.env(&mut report, place, env);
                }
                Seen::Service(service) => {
                    let before = places.files.len() + places.envs.len();
                    let place = at.checked_sub(before).and_then(|at| places.services.get(at));
                    Self::service(&mut report, place, service);
                }
                Seen::Refused(failure) => report.drift.push(format!("could not be looked at: {failure}")),
                _ => {}
            }
        }
        self.targets(&mut report);
        report.copies = state.copies.iter().map(|copy| self.copy(copy)).collect();
        for found in extra {
            self.strays(&mut report, &state, found);
        }
        report
    }

    fn file(&self, report: &mut Report, (places, place): (&Places, Option<&FilePlace>), file: SeenFile) {
        let drift = &mut report.drift;
        let path = &file.path;
        let claims = file.claims.as_deref().and_then(Claims::of_payload);
        let (name, shared) = file.fingerprint.as_ref().map_or((None, false), |whole| self.names.of(whole));
        if file.fingerprint.is_none() {
            drift.push(format!("{path} is not there"));
        } else {
            if shared {
                drift.push(format!("{path} holds {}, which others use too", name.as_deref().unwrap_or("a credential")));
            }
            if file.mode & 0o077 != 0 {
                drift.push(format!("{path} is open to group or others (mode {:04o})", file.mode));
            } else if let Some(mode) = place.and_then(|place| place.mode).filter(|mode| *mode != file.mode) {
                drift.push(format!("{path} has mode {:04o}, not {mode:04o}", file.mode));
            }
            let wrong = |wanted: Option<u32>, found: u32| wanted.filter(|wanted| *wanted != found);
            if let Some(uid) = wrong(place.and_then(|place| place.uid), file.uid) {
                drift.push(format!("{path} belongs to user {}, not {uid}", file.uid));
            }
            if let Some(gid) = wrong(place.and_then(|place| place.gid), file.gid) {
                drift.push(format!("{path} belongs to group {}, not {gid}", file.gid));
            }
            if let Some((run, post)) = places.left.get(path)
                && file.sha.as_ref() != Some(post)
            {
                drift.push(format!("{path} is not as run {run} left it"));
            }
            self.revoked(drift, path, file.fingerprint.as_ref());
            self.end(drift, path, claims.as_ref());
        }
        report.credentials.push(Credential {
            fingerprint: file.fingerprint.as_ref().map(Fingerprint::short),
            name,
            shared,
            mode: format!("{:04o}", file.mode),
            uid: file.uid,
            gid: file.gid,
            age_seconds: file.age,
            expires: claims.as_ref().and_then(Claims::expires),
            identity: claims.map(|claims| claims.identity_name.unwrap_or(claims.identity_id)),
            whole: file.fingerprint,
            sha: file.sha,
            path: file.path,
        });
    }

    fn revoked(&self, drift: &mut Vec<String>, path: &str, fingerprint: Option<&Fingerprint>) {
        let minted = self.names.minted.iter().find(|minted| Some(&minted.fingerprint) == fingerprint);
        if let Some(minted) = minted.filter(|minted| minted.revoked) {
            drift.push(format!("{path} holds the token of run {}, which was revoked", minted.run));
        }
    }

    /// What lies where the pointers lead. A process that sees a credential file there knows better than this host's own names:
    /// in a container the same path is another file.
    fn targets(&self, report: &mut Report) {
        let mut drift = Vec::new();
        for pointing in &report.pointers {
            let (Some(target), Some(value)) = (&pointing.target, &pointing.value) else { continue };
            let managed = |credential: &Credential| credential.whole.as_ref() == Some(target);
            let seen =
                report.processes.iter().any(|process| process.sees_one && process.pointer.as_ref() == Some(value));
            if seen || report.credentials.iter().any(managed) {
                continue;
            }
            let (file, short) = (&pointing.file, target.short());
            let called = pointing.name.as_deref().unwrap_or(&short);
            if self.names.is_shared(target) {
                drift.push(format!("{file} points to {value}, which holds {called}, which others use too"));
            } else if pointing.daemon && !report.credentials.is_empty() {
                drift.push(format!("{file} points to {value}, which holds {called}, not what is in {}", paths(report)));
            }
            self.revoked(&mut drift, value, Some(target));
            self.end(&mut drift, value, pointing.claims.as_ref());
        }
        report.drift.extend(drift);
    }

    /// What a token's claims say of its end.
    fn end(&self, drift: &mut Vec<String>, path: &str, claims: Option<&Claims>) {
        let Some(claims) = claims else { return };
        match claims.expires() {
            None => drift.push(format!("the token in {path} has no end, and servers refuse such tokens")),
            Some(end) if end <= self.now => drift.push(format!("the token in {path} expired at {}", day(end))),
            Some(end) if Duration::try_from(end.duration_since(self.now)).unwrap_or_default() < self.within => {
                drift.push(format!("the token in {path} expires at {}", day(end)));
            }
            Some(_) => {}
        }
    }

    fn env(&self, report: &mut Report, place: Option<&EnvPlace>, env: SeenEnv) {
        let key = place.and_then(|place| place.key.clone()).unwrap_or_default();
        let path = &env.path;
        if env.is_there {
            for key in &env.outranking {
                report.drift.push(format!("{path} sets {key}, which outranks the pointer"));
            }
            let wanted = place.and_then(|place| place.value.as_ref());
            match (&env.value, wanted) {
                (None, _) if !key.is_empty() => report.drift.push(format!("{path} does not set {key}")),
                (Some(value), Some(wanted)) if value != wanted => {
                    report.drift.push(format!("{path} has {key}={value}, not {wanted}"));
                }
                _ => {}
            }
        } else {
            report.drift.push(format!("{path} is not there"));
        }
        let claims = env.target_claims.as_deref().and_then(Claims::of_payload);
        report.pointers.push(Pointing {
            file: env.path,
            key,
            value: env.value,
            fingerprint: env.target.as_ref().map(Fingerprint::short),
            name: env.target.as_ref().and_then(|target| self.names.of(target).0),
            expires: claims.as_ref().and_then(Claims::expires),
            outranking: env.outranking,
            target: env.target,
            claims,
            daemon: place.is_some_and(|place| place.daemon),
        });
    }

    fn service(report: &mut Report, place: Option<&ServicePlace>, service: SeenService) {
        let wanted = report.pointers.iter().rev().find(|pointing| pointing.daemon);
        let wanted = wanted.and_then(|pointing| Some((pointing.key.clone(), pointing.value.clone()?)));
        let pid = service.pid.map_or_else(|| "the runner".to_owned(), |pid| format!("process {pid}"));
        let drift = &mut report.drift;
        match service.active {
            Active::Yes | Active::Unknown => {}
            // As the run found it.
            Active::No if place.is_some_and(|place| place.was_stopped) => {}
            Active::No => drift.push(format!("the runner is stopped ({})", service.detail)),
            Active::Looping => drift.push(format!("the runner crash-loops ({})", service.detail)),
            Active::Missing => drift.push(format!("there is no such runner ({})", service.detail)),
        }
        if service.stale {
            drift.push(format!("{pid} is older than the files: it was not restarted on them"));
        }
        for key in &service.outranking {
            drift.push(format!("{pid} has {key} in its environment, which outranks the pointer"));
        }
        if let Some((key, value)) = wanted.filter(|_| service.pid.is_some()) {
            match &service.value {
                Some(found) if *found == value => {}
                Some(found) => drift.push(format!("{pid} runs with {key}={found}, not {value}")),
                None => drift.push(format!("{pid} runs without {key}")),
            }
        }
        let known = |sha: &String| report.credentials.iter().any(|credential| credential.sha.as_ref() == Some(sha));
        let sees_one = service.sha.as_ref().is_some_and(known);
        if service.sha.is_some() && !sees_one {
            drift.push(format!("{pid} sees another credential than the files hold"));
        }
        report.processes.push(Process {
            pid: service.pid,
            up: matches!(service.active, Active::Yes),
            age_seconds: service.age,
            pointer: service.value,
            outranking: service.outranking,
            sees_one,
        });
    }

    fn copy(&self, copy: &Copy) -> CopyLine {
        CopyLine {
            kind: copy.kind.clone(),
            at: copy.at.clone(),
            fingerprint: copy.fingerprint.as_ref().map(Fingerprint::short),
            name: copy.fingerprint.as_ref().and_then(|whole| self.names.of(whole).0),
            age_seconds: copy.age,
        }
    }

    /// Files that hold a credential and lie where nobody put them.
    fn strays(&self, report: &mut Report, state: &SeenState, found: Seen) {
        let (strays, whole) = match found {
            Seen::Search(strays, whole) => (strays, whole),
            Seen::Refused(failure) => return report.drift.push(format!("could not be looked at: {failure}")),
            _ => return,
        };
        if !whole {
            report.drift.push("the search is not whole: something could not be looked at".to_owned());
        }
        let (dir, real) = &state.dirs;
        for mut stray in strays {
            // A search tells names without links.
            if let Some(rest) = stray.at.strip_prefix(&format!("{real}/")).filter(|_| !real.is_empty()) {
                stray.at = format!("{dir}/{rest}");
            }
            let below = |copy: &CopyLine| stray.at.strip_prefix(&copy.at).is_some_and(|rest| rest.starts_with('/'));
            if report.credentials.iter().any(|credential| credential.path == stray.at)
                || report.copies.iter().any(|copy| copy.at == stray.at || below(copy))
            {
                continue;
            }
            let line = self.copy(&stray);
            let what = line.name.clone().or_else(|| line.fingerprint.clone()).unwrap_or_default();
            report.drift.push(format!("a copy of {what} lies in {}", stray.at));
            report.copies.push(line);
        }
    }
}

/// The credential files, in a line.
fn paths(report: &Report) -> String {
    report.credentials.iter().map(|credential| credential.path.as_str()).collect::<Vec<_>>().join(", ")
}

/// A point in time, to the minute.
pub(in crate::cli) fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
