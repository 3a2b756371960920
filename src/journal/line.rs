//! Lines of the journal: how a record is written, and how a whole file is read and checked.

use std::fmt::{self, Write as _};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::JournalError;
use super::record::Entry;
use crate::model::RunId;

/// The format that this keyswap writes, and the newest that it reads.
pub const FORMAT: u64 = 1;

/// The SHA-256 of a line without its line end, as 64 hex digits. The last line's is the chain's head.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LineHash(String);

impl LineHash {
    /// The hash of a line.
    #[must_use]
    pub fn of(line: &[u8]) -> Self {
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(line) {
            let _ = write!(hex, "{byte:02x}");
        }
        Self(hex)
    }

    /// 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The format's version.
    #[serde(rename = "keyswap-journal")]
    pub format: u64,
    /// The run.
    pub run: RunId,
    /// When the journal was made.
    pub ts: Timestamp,
    /// The keyswap that made it.
    pub keyswap: String,
}

impl Header {
    pub(super) fn new(run: RunId, ts: Timestamp) -> Self {
        Self { format: FORMAT, run, ts, keyswap: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

#[derive(Serialize, Deserialize)]
struct Line<P, E> {
    prev: P,
    #[serde(flatten)]
    entry: E,
}

/// A record as a line without line end, chained to the line before.
pub(super) fn encode(entry: &Entry, prev: &LineHash) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Line { prev, entry })
}

/// A journal as read: every line that is whole, checked against the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// The first line; `None` when not even that was written whole.
    pub header: Option<Header>,
    /// The records.
    pub entries: Vec<Entry>,
    /// The hash of each line, the first line's first; the last is the chain's head.
    pub hashes: Vec<LineHash>,
    /// The bytes of all whole lines. What lies behind them was torn off in the middle of a write.
    pub good_bytes: u64,
    /// Whether there was such a torn piece.
    pub torn: bool,
}

impl Log {
    /// Reads a journal's bytes. A last line without line end is a write that was cut off, and is dropped.
    ///
    /// # Errors
    /// When the format is newer, a whole line is no record, or the chain is broken.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, JournalError> {
        let mut log = Self { header: None, entries: Vec::new(), hashes: Vec::new(), good_bytes: 0, torn: false };
        for (number, line) in (1..).zip(bytes.split_inclusive(|&b| b == b'\n')) {
            let Some(text) = line.strip_suffix(b"\n") else {
                log.torn = true;
                break;
            };
            if number == 1 {
                log.header = Some(parse_header(path, text)?);
            } else {
                let read: Line<LineHash, Entry> = serde_json::from_slice(text)
                    .map_err(|error| JournalError::BadLine { line: number, why: error.to_string() })?;
                if log.hashes.last() != Some(&read.prev) || read.entry.seq != number - 1 {
                    return Err(JournalError::BrokenChain { line: number });
                }
                log.entries.push(read.entry);
            }
            log.hashes.push(LineHash::of(text));
            log.good_bytes += line.len() as u64;
        }
        Ok(log)
    }

    /// The chain's head: the hash of the last whole line.
    #[must_use]
    pub fn head(&self) -> Option<&LineHash> {
        self.hashes.last()
    }

    /// Whether a head that a host has kept belongs to this journal. If it does not, this is another history.
    #[must_use]
    pub fn contains(&self, head: &str) -> bool {
        self.hashes.iter().any(|hash| hash.as_str() == head)
    }
}

fn parse_header(path: &Path, text: &[u8]) -> Result<Header, JournalError> {
    let bad = |why: String| JournalError::NotAJournal { path: path.to_owned(), why };
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
    let found = value
        .get("keyswap-journal")
        .and_then(serde_json::Value::as_u64)
        .ok_or_else(|| bad("its first line does not say `keyswap-journal`".to_owned()))?;
    if found > FORMAT {
        return Err(JournalError::NewerFormat { found, known: FORMAT });
    }
    serde_json::from_value(value).map_err(|error| bad(error.to_string()))
}
