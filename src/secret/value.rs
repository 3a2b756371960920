//! A secret's value in memory.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::model::Fingerprint;

/// The most bytes that a value may have.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// A checked secret: one line of text without blanks or quotes around it, wiped from memory when the last copy
/// of the handle goes. Cloning shares the bytes.
#[derive(Clone)]
pub struct SecretValue {
    bytes: Arc<Zeroizing<Vec<u8>>>,
    fingerprint: Fingerprint,
}

/// Why a value is not taken for a secret. It never holds any of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// Nothing there, or only a line end.
    #[error("the value is empty")]
    Empty,
    /// More than 64 KiB.
    #[error("the value is longer than 64 KiB")]
    TooLong,
    /// A line end that is not the last character.
    #[error("the value has more than one line")]
    SeveralLines,
    /// A blank before or after it.
    #[error("the value begins or ends with a blank")]
    Blanks,
    /// Quotes that belong to the file it was copied from.
    #[error("the value begins or ends with a quote")]
    Quotes,
    /// NUL, escape, tab or another control character, or a byte-order mark.
    #[error("the value holds a control character")]
    Control,
    /// Bytes that are no UTF-8.
    #[error("the value is not text (UTF-8)")]
    NotText,
}

impl SecretValue {
    /// Takes a value over, without one trailing line end, if it looks like a credential.
    ///
    /// # Errors
    /// When the value is empty, too long, not one line of clean text, or has blanks or quotes around it.
    pub fn new(mut bytes: Zeroizing<Vec<u8>>) -> Result<Self, BadValue> {
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        check(&bytes)?;
        let fingerprint = Fingerprint::of(&bytes);
        Ok(Self { bytes: Arc::new(bytes), fingerprint })
    }

    /// The name under which the value may be spoken of.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The value itself. Only for what writes it to a channel's standard input, authenticates with it, or
    /// registers it for redaction.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// The value as text; it was checked to be UTF-8.
    #[must_use]
    pub fn expose_text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    /// The number of bytes, which is no secret: the host checks it before it renames.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never true: an empty value is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretValue({})", self.fingerprint)
    }
}

/// Two handles are equal when the whole digests are.
impl PartialEq for SecretValue {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for SecretValue {}

fn check(bytes: &[u8]) -> Result<(), BadValue> {
    if bytes.is_empty() {
        return Err(BadValue::Empty);
    }
    if bytes.len() > MAX_BYTES {
        return Err(BadValue::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| BadValue::NotText)?;
    if text.contains(['\n', '\r', '\u{2028}', '\u{2029}', '\u{85}']) {
        return Err(BadValue::SeveralLines);
    }
    let ends = || text.chars().next().into_iter().chain(text.chars().next_back());
    if ends().any(|c| c.is_whitespace() && (!c.is_control() || c == '\t')) {
        return Err(BadValue::Blanks);
    }
    if text.chars().any(|c| c.is_control() || c == '\u{feff}') {
        return Err(BadValue::Control);
    }
    if ends().any(|c| matches!(c, '"' | '\'' | '`' | '“' | '”' | '‘' | '’')) {
        return Err(BadValue::Quotes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> Result<SecretValue, BadValue> {
        SecretValue::new(Zeroizing::new(bytes.to_vec()))
    }

    #[test]
    fn one_trailing_line_end_is_dropped() {
        for text in ["test-token-1", "test-token-1\n", "test-token-1\r\n"] {
            assert_eq!(value(text.as_bytes()).unwrap().expose(), b"test-token-1");
        }
        assert_eq!(value(b"test-token-1\n").unwrap().fingerprint(), &Fingerprint::of(b"test-token-1"));
    }

    #[test]
    fn what_was_pasted_wrongly_is_refused() {
        let long = vec![b'a'; MAX_BYTES + 1];
        let cases: [(&[u8], BadValue); 16] = [
            (b"", BadValue::Empty),
            (b"\n", BadValue::Empty),
            (b"\r\n", BadValue::Empty),
            (b"two\nlines", BadValue::SeveralLines),
            (b"token\n\n", BadValue::SeveralLines),
            (b"token\r", BadValue::SeveralLines),
            (b" token", BadValue::Blanks),
            (b"token ", BadValue::Blanks),
            (b"\ttoken", BadValue::Blanks),
            ("token\u{a0}".as_bytes(), BadValue::Blanks),
            (b"\"token\"", BadValue::Quotes),
            (b"'token", BadValue::Quotes),
            (b"to\0ken", BadValue::Control),
            ("\u{feff}token".as_bytes(), BadValue::Control),
            (b"to\xffken", BadValue::NotText),
            (&long, BadValue::TooLong),
        ];
        for (bytes, expected) in cases {
            assert_eq!(value(bytes).unwrap_err(), expected, "{bytes:?}");
        }
        assert!(value(&vec![b'a'; MAX_BYTES]).is_ok());
        assert!(value(b"it's \"fine\" inside").is_ok());
    }

    #[test]
    fn debug_shows_the_fingerprint_only() {
        let secret = value(b"test-token-1").unwrap();
        assert_eq!(format!("{secret:?}"), format!("SecretValue({})", Fingerprint::of(b"test-token-1").short()));
    }
}
