//! What a signer signs: a small JSON that names the plan's digest.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::sealed::{Kind, replace};

/// The format that this version writes and reads.
const FORMAT: u32 = 1;
/// No approval is this long.
const LARGEST: u64 = 16 * 1024;
/// No comment is this long.
const LONGEST_COMMENT: usize = 500;

/// A person's word that a plan may run. Its signature is over the file's exact bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// What this file is.
    keyswap: String,
    format: u32,
    /// What was approved.
    pub kind: Kind,
    /// The plan's digest.
    pub plan: String,
    /// Who says so; the name in `allowed_signers`.
    pub signer: String,
    /// When it was signed, by the signer's clock.
    pub signed: Timestamp,
    /// Until when it holds.
    pub expires: Timestamp,
    /// What the signer has to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Why there is no statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The name will not do.
    #[error("`{0}` will not do as a signer's name: letters, digits and `.@_+-`, at most 100, no dot first")]
    Signer(String),
    /// The comment will not do.
    #[error("the comment must be one line of at most {LONGEST_COMMENT} characters")]
    Comment,
    /// The time does not exist.
    #[error("it would hold for too long")]
    Expiry,
}

/// A signer's name, which becomes part of a file's name.
///
/// # Errors
/// When it will not do.
pub fn signer_name(text: &str) -> Result<&str, StatementError> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '@' | '_' | '+' | '-');
    let fits = !text.is_empty() && text.chars().count() <= 100 && !text.starts_with(['.', '-']);
    if fits && text.chars().all(plain) {
        Ok(text)
    } else {
        Err(StatementError::Signer(text.escape_debug().to_string()))
    }
}

/// Where a signer's word on a plan lies: `F.NAME.approval`.
#[must_use]
pub fn statement_path(plan: &Utf8Path, signer: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{plan}.{signer}.approval"))
}

/// Where its signature lies.
#[must_use]
pub(super) fn signature_path(statement: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{statement}.sig"))
}

impl Statement {
    /// A word that holds from now on for a time.
    ///
    /// # Errors
    /// When name or comment will not do.
    pub fn new(
        kind: Kind,
        plan: &str,
        signer: &str,
        (now, valid): (Timestamp, Duration),
        comment: Option<&str>,
    ) -> Result<Self, StatementError> {
        let comment = comment.map(str::trim).filter(|comment| !comment.is_empty());
        if comment.is_some_and(|text| text.chars().count() > LONGEST_COMMENT || text.chars().any(char::is_control)) {
            return Err(StatementError::Comment);
        }
        // Whole seconds: nobody reads fractions of them.
        let second = |at: Timestamp| Timestamp::from_second(at.as_second()).map_err(|_| StatementError::Expiry);
        let expires = now.checked_add(valid).map_err(|_| StatementError::Expiry)?;
        Ok(Self {
            keyswap: "approval".to_owned(),
            format: FORMAT,
            kind,
            plan: plan.to_owned(),
            signer: signer_name(signer)?.to_owned(),
            signed: second(now)?,
            expires: second(expires)?,
            comment: comment.map(str::to_owned),
        })
    }

    /// The bytes that are signed: what stands in the file, with its last line end.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        // Plain data: it always serialises.
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// Reads one.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let read: Self =
            serde_json::from_slice(bytes).map_err(|error| format!("line {}: not an approval", error.line()))?;
        if read.keyswap != "approval" || read.format != FORMAT {
            return Err("it is no approval, or one of a newer format".to_owned());
        }
        if signer_name(&read.signer).is_err() || read.comment.iter().any(|text| text.chars().any(char::is_control)) {
            return Err("it holds what no approval of keyswap's would".to_owned());
        }
        Ok(read)
    }

    /// Writes a signed word beside its plan: the signature last, so that a word without one is no word.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, plan: &Utf8Path, signature: &str) -> std::io::Result<Utf8PathBuf> {
        let path = statement_path(plan, &self.signer);
        let signature_at = signature_path(&path);
        // An earlier word's signature does not belong to this one.
        match std::fs::remove_file(&signature_at) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        replace(&path, &self.bytes(), 0o644)?;
        replace(&signature_at, signature.as_bytes(), 0o644)?;
        Ok(path)
    }
}

/// A small file's bytes.
pub(super) fn read_small(path: &Utf8Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
    let is_file = file.metadata().map_err(|error| format!("{path}: {error}"))?.is_file();
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| format!("{path}: {error}"))?;
    if !is_file || bytes.len() as u64 > LARGEST {
        return Err(format!("{path}: too large"));
    }
    Ok(bytes)
}
