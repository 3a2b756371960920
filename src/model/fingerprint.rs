//! Fingerprints: how a credential is named without being shown.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The SHA-256 of a credential without one trailing line end.
///
/// It is kept and compared whole; people see [`Fingerprint::short`]. Written as `sha256:` and 64 hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(String);

/// Text that is no whole fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is `sha256:` and 64 lower-case hex digits")]
pub struct ParseFingerprintError;

impl Fingerprint {
    /// The fingerprint of a value; one trailing `\n` or `\r\n` does not count.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        let value = value.strip_suffix(b"\n").unwrap_or(value);
        let value = value.strip_suffix(b"\r").unwrap_or(value);
        Self::from_digest(&Sha256::digest(value))
    }

    fn from_digest(digest: &[u8]) -> Self {
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// All 64 hex digits, as `sha256sum` prints them.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// `sha256:` and the first 12 hex digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        format!("sha256:{}", self.0.get(..12).unwrap_or_default())
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, ParseFingerprintError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            Ok(Self(hex.to_owned()))
        } else {
            Err(ParseFingerprintError)
        }
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = ParseFingerprintError;

    fn try_from(text: String) -> Result<Self, ParseFingerprintError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        format!("sha256:{}", fingerprint.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.short())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trailing_line_end_does_not_count() {
        let plain = Fingerprint::of(b"abc");
        assert_eq!(plain.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(plain.short(), "sha256:ba7816bf8f01");
        assert_eq!(Fingerprint::of(b"abc\n"), plain);
        assert_eq!(Fingerprint::of(b"abc\r\n"), plain);
        assert_ne!(Fingerprint::of(b"abc\n\n"), plain);
        assert_eq!(String::from(plain.clone()).parse(), Ok(plain));
        assert!("sha256:ba7816bf8f01".parse::<Fingerprint>().is_err());
    }
}
