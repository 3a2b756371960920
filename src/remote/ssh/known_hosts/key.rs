//! A public host key as bytes: enough to compare it and to show it.

use russh::keys::ssh_encoding::base64::{Base64, Base64Unpadded, Encoding};
use sha2::{Digest, Sha256};

/// A public key in SSH's wire form, whatever its type.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKey {
    kind: String,
    blob: Vec<u8>,
}

/// A text that is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadHostKey(&'static str);

impl BadHostKey {
    pub(super) fn why(self) -> &'static str {
        self.0
    }
}

impl HostKey {
    /// A key from its two fields: `ssh-ed25519` and the Base64 after it.
    ///
    /// # Errors
    /// When the Base64 is damaged, or holds a key of another type than the first field says.
    pub fn parse(kind: &str, base64: &str) -> Result<Self, BadHostKey> {
        let blob = Base64::decode_vec(base64).map_err(|_| BadHostKey("the key is not Base64"))?;
        let key = Self::from_blob(blob)?;
        if key.kind != kind {
            return Err(BadHostKey("the key is of another type than the line says"));
        }
        Ok(key)
    }

    /// A key from one line of text, `ssh-ed25519 AAAA…`, with or without a comment.
    ///
    /// # Errors
    /// As [`Self::parse`], or when a field is missing.
    pub fn from_line(line: &str) -> Result<Self, BadHostKey> {
        let mut fields = line.split_ascii_whitespace();
        match (fields.next(), fields.next()) {
            (Some(kind), Some(base64)) => Self::parse(kind, base64),
            _ => Err(BadHostKey("the key is missing")),
        }
    }

    /// A key from its wire form, which begins with the name of its type.
    pub(crate) fn from_blob(blob: Vec<u8>) -> Result<Self, BadHostKey> {
        let bad = BadHostKey("the key is damaged");
        let (length, rest) = blob.split_first_chunk::<4>().ok_or(bad)?;
        let kind = usize::try_from(u32::from_be_bytes(*length)).ok().and_then(|n| rest.get(..n)).ok_or(bad)?;
        let kind = std::str::from_utf8(kind).map_err(|_| bad)?.to_owned();
        let printable = kind.bytes().all(|b| b.is_ascii_graphic());
        if kind.is_empty() || !printable || rest.len() == kind.len() {
            return Err(bad);
        }
        Ok(Self { kind, blob })
    }

    /// The type's name: `ssh-ed25519`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The fingerprint as `ssh-keygen -l` shows it: `SHA256:…`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", Base64Unpadded::encode_string(&Sha256::digest(&self.blob)))
    }
}

impl std::fmt::Display for HostKey {
    /// As it stands in a file: type and Base64.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, Base64::encode_string(&self.blob))
    }
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.fingerprint())
    }
}
