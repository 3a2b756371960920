//! What can go wrong when a server is asked, by class.
//!
//! No text here holds a credential or a query string: `reqwest`'s own texts name the whole address and are not used.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use super::clean;

/// Why a server did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The address may not be asked.
    #[error("the address may not be used: {reason}")]
    Address {
        /// Why.
        reason: String,
    },
    /// The file with the private CA's certificates cannot be used.
    #[error("the CA file `{path}` cannot be used: {reason}")]
    CaFile {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The client could not be built, or the credential does not fit into a header.
    #[error("the HTTP client cannot be set up: {reason}")]
    Setup {
        /// Why.
        reason: String,
    },
    /// No connection: nothing was sent.
    #[error("{at}: cannot be reached: {reason}")]
    Unreachable {
        /// Method and address.
        at: String,
        /// What the system said.
        reason: String,
    },
    /// No trusted TLS connection: nothing was sent.
    #[error("{at}: no trusted TLS connection: {reason}")]
    Tls {
        /// Method and address.
        at: String,
        /// What the TLS library said.
        reason: String,
    },
    /// The request was sent and no whole answer came in time.
    #[error("{at}: no answer within {after:?}")]
    Timeout {
        /// Method and address.
        at: String,
        /// The limit.
        after: Duration,
    },
    /// The request was sent and the connection ended before the whole answer was there.
    #[error("{at}: the connection ended before the answer was complete: {reason}")]
    Lost {
        /// Method and address.
        at: String,
        /// What the system said.
        reason: String,
    },
    /// The server answered with a status that is no success.
    #[error(transparent)]
    Status(Box<Refusal>),
    /// The server's answer could not be understood.
    #[error("{at}: answered something that was not expected: {reason}")]
    Malformed {
        /// Method and address.
        at: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A status that is no success, with what the server said about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: answered {code}{}", shown(.class.as_deref(), .message))]
pub struct Refusal {
    /// Method and address.
    pub at: String,
    /// The status.
    pub code: u16,
    /// The server's own class of the error (the body's `error`), where it looks like one.
    pub class: Option<String>,
    /// The server's own words, cleaned; may be empty.
    pub message: String,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// What else the server said about it, as it came: not cleaned, never shown.
    pub details: Option<serde_json::Value>,
}

fn shown(class: Option<&str>, message: &str) -> String {
    match (class, message.is_empty()) {
        (None, true) => " without a reason".to_owned(),
        (None, false) => format!(": {message}"),
        (Some(class), true) => format!(" ({class})"),
        (Some(class), false) => format!(" ({class}): {message}"),
    }
}

impl HttpError {
    /// The status, where the server gave one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    /// The refusal, where the server gave one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Status(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether the request may have taken effect although no success was reported.
    #[must_use]
    pub fn may_have_acted(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Lost { .. } | Self::Malformed { .. } => true,
            Self::Status(refusal) => refusal.code >= 500,
            Self::Address { .. }
            | Self::CaFile { .. }
            | Self::Setup { .. }
            | Self::Unreachable { .. }
            | Self::Tls { .. } => false,
        }
    }

    /// Whether asking again later may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Lost { .. } | Self::Unreachable { .. } => true,
            Self::Status(refusal) => refusal.code == 429 || refusal.code >= 500,
            Self::Malformed { .. }
            | Self::Address { .. }
            | Self::CaFile { .. }
            | Self::Setup { .. }
            | Self::Tls { .. } => false,
        }
    }

    /// Sorts one of `reqwest`'s errors.
    pub(super) fn sort(at: &str, limit: Duration, error: &reqwest::Error) -> Self {
        let at = at.to_owned();
        if error.is_builder() {
            return Self::Setup { reason: clean(&innermost(error)) };
        }
        if error.is_connect() {
            if let Some(reason) = tls_reason(error) {
                return Self::Tls { at, reason };
            }
            if error.is_timeout() {
                return Self::Unreachable { at, reason: "no connection in time".to_owned() };
            }
            return Self::Unreachable { at, reason: clean(&innermost(error)) };
        }
        if error.is_timeout() {
            return Self::Timeout { at, after: limit };
        }
        Self::Lost { at, reason: clean(&innermost(error)) }
    }
}

/// The text of the last error of the chain: the ones before it repeat the address.
fn innermost(error: &reqwest::Error) -> String {
    let mut last = None;
    let mut next = error.source();
    while let Some(error) = next {
        last = Some(error.to_string());
        next = error.source();
    }
    last.unwrap_or_else(|| "no reason given".to_owned())
}

/// What the TLS library said, if it was the one that gave up. It reports refused certificates and broken
/// handshakes as "invalid data", which no socket and no resolver does.
fn tls_reason(error: &reqwest::Error) -> Option<String> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(error) = next {
        if let Some(reason) = error.downcast_ref::<io::Error>().and_then(invalid_data) {
            return Some(reason);
        }
        next = error.source();
    }
    None
}

/// `io::Error` may wrap itself, and its `source` skips what it wraps.
fn invalid_data(error: &io::Error) -> Option<String> {
    if error.kind() == io::ErrorKind::InvalidData {
        return Some(clean(&error.to_string()));
    }
    let inner = error.get_ref()?.downcast_ref::<io::Error>()?;
    invalid_data(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_well() {
        let refusal = |class: Option<&str>, message: &str| Refusal {
            at: "GET https://git.example.net/x".to_owned(),
            code: 500,
            class: class.map(str::to_owned),
            message: message.to_owned(),
            retry_after: None,
            details: None,
        };
        let text = |r: Refusal| HttpError::Status(Box::new(r)).to_string();
        assert_eq!(text(refusal(None, "")), "GET https://git.example.net/x: answered 500 without a reason");
        assert_eq!(text(refusal(None, "no")), "GET https://git.example.net/x: answered 500: no");
        assert_eq!(text(refusal(Some("NotFound"), "no")), "GET https://git.example.net/x: answered 500 (NotFound): no");
    }

    #[test]
    fn only_what_was_sent_may_have_acted() {
        let at = String::new;
        assert!(!HttpError::Unreachable { at: at(), reason: at() }.may_have_acted());
        assert!(!HttpError::Tls { at: at(), reason: at() }.may_have_acted());
        assert!(HttpError::Timeout { at: at(), after: Duration::ZERO }.may_have_acted());
        assert!(HttpError::Lost { at: at(), reason: at() }.may_have_acted());
        assert!(HttpError::Malformed { at: at(), reason: at() }.may_have_acted());
    }
}
