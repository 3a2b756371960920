//! A plan as a file with a digest over what it says.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The format that this version writes and reads.
const FORMAT: u32 = 1;
/// No plan is this long.
const LARGEST: u64 = 64 * 1024 * 1024;

/// What is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A run.
    Run,
    /// A step of a run that waits for a person.
    Step,
    /// The end of a run's old credential.
    Retire,
    /// An identity, as its file says.
    Identity,
}

impl Kind {
    /// In a word or two.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Step => "step of a run",
            Self::Retire => "retire --revoke",
            Self::Identity => "identity apply",
        }
    }
}

/// What stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What this file is.
    keyswap: Kind,
    format: u32,
    /// `sha256:` and 64 digits, over kind and plan.
    digest: String,
    plan: Value,
}

/// A plan that was read from its file, or is about to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    /// What is planned.
    pub kind: Kind,
    /// The plan itself.
    pub plan: Value,
    digest: String,
}

/// Why a file is no plan.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// It cannot be read or written.
    #[error("{path} cannot be {what}: {source}")]
    Io {
        /// Which file.
        path: Utf8PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{path} is no plan of keyswap's: {why}")]
    NoPlan {
        /// Which file.
        path: Utf8PathBuf,
        /// Why.
        why: String,
    },
    /// It is of a newer keyswap.
    #[error("{path} is a plan of format {format}, which this version does not know")]
    Format {
        /// Which file.
        path: Utf8PathBuf,
        /// Its format.
        format: u32,
    },
    /// What it says is not what its digest was made over.
    #[error("{path} was altered: its digest is not that of what it says")]
    Altered {
        /// Which file.
        path: Utf8PathBuf,
    },
}

impl SealedError {
    /// Whether the file is there and is not what it should be, rather than out of reach.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Io { .. })
    }
}

impl Sealed {
    /// Seals a plan.
    #[must_use]
    pub fn new(kind: Kind, plan: Value) -> Self {
        let digest = digest_of(kind, &plan);
        Self { kind, plan, digest }
    }

    /// `sha256:` and 64 hex digits over kind, format and plan.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Reads a file and looks whether its digest is that of what it says.
    ///
    /// # Errors
    /// Why it is no plan.
    pub fn read(path: &Utf8Path) -> Result<Self, SealedError> {
        let io = |source| SealedError::Io { path: path.to_owned(), what: "read", source };
        let meta = std::fs::metadata(path).map_err(io)?;
        let no = |why: String| SealedError::NoPlan { path: path.to_owned(), why };
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(no("it is not a file of that kind".to_owned()));
        }
        let bytes = std::fs::read(path).map_err(io)?;
        // The place of the error, and not its text, which may quote what was no plan.
        let file: File = serde_json::from_slice(&bytes).map_err(|error| no(format!("line {}", error.line())))?;
        if file.format != FORMAT {
            return Err(SealedError::Format { path: path.to_owned(), format: file.format });
        }
        let sealed = Self::new(file.keyswap, file.plan);
        if sealed.digest != file.digest {
            return Err(SealedError::Altered { path: path.to_owned() });
        }
        Ok(sealed)
    }

    /// Writes the file: whole or not at all, readable by its owner alone.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, path: &Utf8Path) -> Result<(), SealedError> {
        let file = File { keyswap: self.kind, format: FORMAT, digest: self.digest.clone(), plan: self.plan.clone() };
        let write = || -> std::io::Result<()> {
            let mut text = serde_json::to_vec_pretty(&file)?;
            text.push(b'\n');
            replace(path, &text, 0o600)
        };
        write().map_err(|source| SealedError::Io { path: path.to_owned(), what: "written", source })
    }
}

/// Writes a file that is the old one or whole: beside it, synced, renamed over it.
pub(super) fn replace(path: &Utf8Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_str().is_empty()).unwrap_or(Utf8Path::new("."));
    let permissions = std::fs::Permissions::from_mode(mode);
    let mut file = tempfile::Builder::new().prefix(".keyswap-").permissions(permissions).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(dir)?.sync_all()
}

fn digest_of(kind: Kind, plan: &Value) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("keyswap plan {FORMAT} {}\n", kind.as_str()));
    // As it stands in the file, without its white space: order and every key are part of it. A value always serialises.
    hash.update(serde_json::to_vec(plan).unwrap_or_default());
    format!("sha256:{}", hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}
