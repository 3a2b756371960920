//! Plans that were run: each of them runs once.
//!
//! A claim is a file of the state directory that only one process can make. It is made, synced, before the run's
//! journal: a process that dies in between has used the plan up, and nothing was done.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::JournalError;
use super::files::{private_dir, sync_dir};
use super::record::Operator;
use super::store::Store;

/// Who used a plan up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// For which run, or what else it was for.
    pub by_run: String,
    /// When.
    pub at: Timestamp,
    /// Who and from where.
    pub by: Operator,
}

impl Store {
    /// Who used the plan of this digest up, if somebody did: by its claim, or by the journal of any run.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn used(&self, digest: &str) -> Result<Option<String>, JournalError> {
        let path = self.claim_path(digest)?;
        match std::fs::read(&path) {
            Ok(bytes) => {
                // One that was cut off while it was written is a claim, too.
                let claim: Option<Claim> = serde_json::from_slice(&bytes).ok();
                let when = claim.map_or_else(
                    || "an earlier time".to_owned(),
                    |claim| format!("{} by {}@{} ({})", claim.at, claim.by.user, claim.by.host, claim.by_run),
                );
                return Ok(Some(when));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(JournalError::io("read", &path)(error)),
        }
        let mut runs = self.list()?.into_iter();
        let used = runs.find(|run| {
            let approvals = run.state.as_ref().map(|state| state.approvals.as_slice()).unwrap_or_default();
            approvals.iter().any(|approved| approved.plan == digest)
        });
        Ok(used.map(|run| format!("run {}", run.run)))
    }

    /// Uses a plan up.
    ///
    /// # Errors
    /// [`JournalError::PlanUsed`] when somebody was faster.
    pub fn claim(&self, digest: &str, by_run: &str, by: &Operator) -> Result<(), JournalError> {
        if let Some(when) = self.used(digest)? {
            return Err(JournalError::PlanUsed(when));
        }
        let path = self.claim_path(digest)?;
        let mut options = OpenOptions::new();
        let mut file = match options.write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(JournalError::PlanUsed("this moment".to_owned()));
            }
            Err(error) => return Err(JournalError::io("create", &path)(error)),
        };
        let claim = Claim { by_run: by_run.to_owned(), at: Timestamp::now(), by: by.clone() };
        let written = serde_json::to_vec(&claim).map_err(std::io::Error::other);
        let written = written.and_then(|text| file.write_all(&text)).and_then(|()| file.sync_all());
        written.map_err(JournalError::io("write", &path))?;
        let dir = self.claims();
        sync_dir(&dir).map_err(JournalError::io("sync", &dir))
    }

    fn claims(&self) -> PathBuf {
        self.state_dir().join("plans")
    }

    fn claim_path(&self, digest: &str) -> Result<PathBuf, JournalError> {
        let dir = self.claims();
        private_dir(&dir)?;
        // A digest is `sha256:` and hex; whatever else comes here must not become a path.
        Ok(dir.join(digest.chars().filter(char::is_ascii_alphanumeric).collect::<String>()))
    }
}
