//! What a journal keeps of an approval.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A signed word that counted, whole: whoever doubts it can look at the signature again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalProof {
    /// Who, by the name in `allowed_signers`.
    pub signer: String,
    /// The key's fingerprint, `SHA256:…`.
    pub key: String,
    /// When, by the signer's clock.
    pub signed: Timestamp,
    /// Until when it holds.
    pub expires: Timestamp,
    /// What the signer had to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The bytes that were signed.
    pub statement: String,
    /// The signature over them, in OpenSSH's format.
    pub signature: String,
}
