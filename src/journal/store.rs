//! The state directory: where the journals of all runs lie.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{JournalError, LockHolder};
use super::files::{private_dir, sync_dir, write_atomic};
use super::fold::{RunPhase, RunState};
use super::line::Log;
use super::record::Operator;
use super::writer::{Journal, Medium, Writer};
use crate::model::RunId;

/// The journals below one state directory.
#[derive(Debug, Clone)]
pub struct Store {
    runs: PathBuf,
    #[cfg(debug_assertions)]
    around: Around,
}

/// What is put around every journal's file: for tests that stop the process at a line.
#[cfg(debug_assertions)]
#[derive(Clone, Default)]
struct Around(Option<std::sync::Arc<Wrap>>);

#[cfg(debug_assertions)]
type Wrap = dyn Fn(Box<dyn Medium>) -> Box<dyn Medium> + Send + Sync;

#[cfg(debug_assertions)]
impl std::fmt::Debug for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Around" } else { "-" })
    }
}

/// One run's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    run: RunId,
    path: PathBuf,
}

/// One line of the history.
#[derive(Debug, Clone)]
pub struct RunSummary {
    /// Which run.
    pub run: RunId,
    /// What its journal says, or why it cannot be read.
    pub state: Result<RunState, JournalError>,
    /// Whether somebody works on it now.
    pub locked: bool,
}

impl Store {
    /// The journals below a state directory, which is made (0700) when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, belongs to somebody else, or others can write in it.
    pub fn open(state_dir: &Path) -> Result<Self, JournalError> {
        private_dir(state_dir)?;
        let runs = state_dir.join("runs");
        private_dir(&runs)?;
        Ok(Self {
            runs,
            #[cfg(debug_assertions)]
            around: Around::default(),
        })
    }

    /// The directory that all of this lies in.
    pub(super) fn state_dir(&self) -> &Path {
        self.runs.parent().unwrap_or(&self.runs)
    }

    /// Puts something around the files of all journals that are written from here on. Not in release builds.
    #[cfg(debug_assertions)]
    pub fn wrap(&mut self, around: impl Fn(Box<dyn Medium>) -> Box<dyn Medium> + Send + Sync + 'static) {
        self.around = Around(Some(std::sync::Arc::new(around)));
    }

    fn start(
        &self,
        dir: &RunDir,
        file: File,
        lock: File,
        state: RunState,
        log: Option<&Log>,
    ) -> Result<Journal, JournalError> {
        let head = log.and_then(Log::head).cloned();
        let medium: Box<dyn Medium> = Box::new(FileMedium { file, _lock: lock });
        #[cfg(debug_assertions)]
        let medium = match &self.around.0 {
            Some(around) => around(medium),
            None => medium,
        };
        let mut writer = Writer::new(medium, state, head);
        writer.begin(&dir.run)?;
        sync_dir(&dir.path).map_err(JournalError::io("sync", &dir.path))?;
        Journal::threaded(dir.run.clone(), writer)
    }

    /// Makes a run's directory with its plan and an empty journal, and takes its lock.
    ///
    /// # Errors
    /// When there is such a run already or the file system refuses.
    pub fn create<P: Serialize>(
        &self,
        run: &RunId,
        plan: &P,
        command: &str,
        by: &Operator,
    ) -> Result<Journal, JournalError> {
        let dir = self.dir(run);
        std::fs::DirBuilder::new().mode(0o700).create(&dir.path).map_err(JournalError::io("create", &dir.path))?;
        sync_dir(&self.runs).map_err(JournalError::io("sync", &self.runs))?;
        let lock = dir.lock(command, by)?;
        write_atomic(&dir.plan_path(), plan)?;
        let path = dir.journal_path();
        let file = private_file(&path, true).map_err(JournalError::io("create", &path))?;
        self.start(&dir, file, lock, RunState::default(), None)
    }

    /// Writes a run's plan anew, for one whose journal is being written: only before its first host is touched.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn rewrite_plan<P: Serialize>(&self, journal: &Journal, plan: &P) -> Result<(), JournalError> {
        write_atomic(&self.dir(journal.run()).plan_path(), plan)
    }

    /// Takes a run's lock to go on with it: a torn last line is cut off, everything before it is checked and
    /// folded. The first record to append is `RunReopened`.
    ///
    /// # Errors
    /// When somebody works on it, the journal is damaged or of a newer format.
    pub fn reopen(&self, run: &RunId, command: &str, by: &Operator) -> Result<(Journal, RunState), JournalError> {
        let dir = self.dir(run);
        let lock = dir.lock(command, by)?;
        let path = dir.journal_path();
        let mut file = private_file(&path, false).map_err(JournalError::io("open", &path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(JournalError::io("read", &path))?;
        let log = Log::parse(&path, &bytes)?;
        let state = RunState::fold(&log.entries)?;
        if log.torn {
            file.set_len(log.good_bytes).and_then(|()| file.sync_all()).map_err(JournalError::io("mend", &path))?;
        }
        let journal = self.start(&dir, file, lock, state.clone(), Some(&log))?;
        Ok((journal.after(&log), state))
    }

    /// Reads a run's journal without taking its lock.
    ///
    /// # Errors
    /// When it is damaged or of a newer format.
    pub fn read(&self, run: &RunId) -> Result<Log, JournalError> {
        let path = self.dir(run).journal_path();
        let bytes = match std::fs::read(&path) {
            // Cut off while the directory was made: a run that never began.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.dir(run).path.is_dir() => Vec::new(),
            read => read.map_err(JournalError::io("read", &path))?,
        };
        Log::parse(&path, &bytes)
    }

    /// Reads and folds a run's journal without taking its lock.
    ///
    /// # Errors
    /// When it is damaged, of a newer format, or tells what cannot have happened.
    pub fn state(&self, run: &RunId) -> Result<RunState, JournalError> {
        Ok(RunState::fold(&self.read(run)?.entries)?)
    }

    /// What the run set out to do.
    ///
    /// # Errors
    /// When it cannot be read or is not of this form.
    pub fn plan<P: DeserializeOwned>(&self, run: &RunId) -> Result<P, JournalError> {
        let path = self.dir(run).plan_path();
        let bytes = std::fs::read(&path).map_err(JournalError::io("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|error| JournalError::io("understand", &path)(error.into()))
    }

    /// All runs, newest first. One whose making was cut off before its plan was there is none: it did nothing.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn ids(&self) -> Result<Vec<RunId>, JournalError> {
        let fault = || JournalError::io("read", &self.runs);
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&self.runs).map_err(fault())? {
            let name = entry.map_err(fault())?.file_name();
            // Other names are not ours: a lost+found, an editor's file.
            let run = name.to_str().and_then(|name| name.parse::<RunId>().ok());
            ids.extend(run.filter(|run| self.dir(run).is_begun()));
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        Ok(ids)
    }

    /// All runs with what their journals say, newest first. A damaged journal does not hide the others.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<RunSummary>, JournalError> {
        let summary = |run: RunId| RunSummary { state: self.state(&run), locked: self.dir(&run).is_locked(), run };
        Ok(self.ids()?.into_iter().map(summary).collect())
    }

    /// The run whose id begins so; the newest one when nothing is asked for.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find(&self, prefix: Option<&str>) -> Result<RunId, JournalError> {
        let ids = self.ids()?;
        let Some(prefix) = prefix else {
            return ids.into_iter().next().ok_or_else(|| JournalError::NoRuns(self.runs.clone()));
        };
        let mut fitting = ids.into_iter().filter(|id| id.as_str().starts_with(prefix));
        match (fitting.next(), fitting.next()) {
            (Some(run), None) => Ok(run),
            (None, _) => Err(JournalError::NoSuchRun(prefix.to_owned())),
            (Some(first), Some(second)) => Err(JournalError::Ambiguous {
                prefix: prefix.to_owned(),
                candidates: [first, second].into_iter().chain(fitting).take(10).map(String::from).collect(),
            }),
        }
    }

    /// A run's directory, whether or not it is there.
    #[must_use]
    pub fn dir(&self, run: &RunId) -> RunDir {
        RunDir { run: run.clone(), path: self.runs.join(run.as_str()) }
    }
}

impl RunSummary {
    /// Whether the run was cut off, or left something dirty or owed, and nobody works on it.
    #[must_use]
    pub fn needs_settling(&self) -> bool {
        !self.locked && self.state.as_ref().is_ok_and(|s| s.phase != RunPhase::Fresh && s.needs_settling())
    }
}

impl RunDir {
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `journal.jsonl`.
    #[must_use]
    pub fn journal_path(&self) -> PathBuf {
        self.path.join("journal.jsonl")
    }

    /// `plan.json`.
    #[must_use]
    pub fn plan_path(&self) -> PathBuf {
        self.path.join("plan.json")
    }

    /// Its plan or its journal is there: a run that has lost one of them is still to be seen. What cannot be looked at is there.
    fn is_begun(&self) -> bool {
        let missing = |path| {
            std::fs::symlink_metadata(path).is_err_and(|error: io::Error| error.kind() == io::ErrorKind::NotFound)
        };
        !(missing(self.plan_path()) && missing(self.journal_path()))
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// Takes the lock or says who has it. The kernel lets go of it when the holder dies.
    fn lock(&self, command: &str, by: &Operator) -> Result<File, JournalError> {
        let path = self.lock_path();
        let mut file = lock_file(&path).map_err(JournalError::io("open", &path))?;
        // A listing looks at the lock by taking it for a moment.
        let mut tries = 0;
        let taken = loop {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) if tries < 5 => std::thread::sleep(Duration::from_millis(10)),
                taken => break taken,
            }
            tries += 1;
        };
        match taken {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Locked(read_holder(&mut file))),
            Err(TryLockError::Error(error)) => return Err(JournalError::io("lock", &path)(error)),
        }
        let holder = LockHolder {
            pid: by.pid,
            host: by.host.clone(),
            user: by.user.clone(),
            command: command.to_owned(),
            since: Some(Timestamp::now()),
        };
        let write = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&serde_json::to_vec(&holder)?)
        };
        write(&mut file).map_err(JournalError::io("write", &path))?;
        Ok(file)
    }

    /// Whether somebody works on the run now.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        let open = OpenOptions::new().read(true).custom_flags(nofollow()).open(self.lock_path());
        open.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

fn read_holder(file: &mut File) -> LockHolder {
    let mut text = String::new();
    let read = file.take(4096).read_to_string(&mut text).ok();
    read.and_then(|_| serde_json::from_str(&text).ok()).unwrap_or(LockHolder {
        pid: 0,
        host: String::new(),
        user: String::new(),
        command: String::new(),
        since: None,
    })
}

fn nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

fn lock_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(nofollow()).open(path)
}

fn private_file(path: &Path, new: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .create_new(new)
        .mode(0o600)
        .custom_flags(nofollow())
        .open(path)
}

struct FileMedium {
    file: File,
    _lock: File,
}

impl Medium for FileMedium {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests;
