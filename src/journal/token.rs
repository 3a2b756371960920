//! The run's token, as its journal tells of it: asked for, minted, revoked. One token a run.

use jiff::Timestamp;

use super::record::Record;
use crate::model::{Fingerprint, SecretName};

/// What is known of a run's token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenState {
    /// The playbook's name for the secret.
    pub secret: SecretName,
    /// Its name at the issuer, which no other bears.
    pub name: String,
    /// The identity's id.
    pub identity: String,
    /// What the identity is called.
    pub identity_name: String,
    /// The server's address.
    pub server: String,
    /// When it was asked for.
    pub requested: Timestamp,
    /// What came; `None`: nothing, or it was lost on the way.
    pub minted: Option<MintedState>,
    /// When it was found dead, or never made.
    pub revoked: Option<Timestamp>,
}

/// A token that came.
#[derive(Debug, Clone, PartialEq)]
pub struct MintedState {
    /// Its id.
    pub id: String,
    /// Its end.
    pub expires: Timestamp,
    /// Its whole digest.
    pub fingerprint: Fingerprint,
}

/// What cannot be told of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// There is one already.
    #[error("the run has asked for a token already")]
    Twice,
    /// There is none.
    #[error("the run has asked for no token")]
    None,
    /// It is known already, or dead.
    #[error("the run's token is known already, or dead")]
    Late,
}

impl TokenState {
    /// Takes a record about the run's token in.
    pub(super) fn apply(token: &mut Option<Self>, record: &Record, ts: Timestamp) -> Result<(), TokenFault> {
        match record {
            Record::TokenRequested { .. } if token.is_some() => return Err(TokenFault::Twice),
            Record::TokenRequested { secret, name, identity, identity_name, server } => {
                *token = Some(Self {
                    secret: secret.clone(),
                    name: name.clone(),
                    identity: identity.clone(),
                    identity_name: identity_name.clone(),
                    server: server.clone(),
                    requested: ts,
                    minted: None,
                    revoked: None,
                });
            }
            Record::TokenMinted { id, expires, fingerprint } => {
                let token = token.as_mut().ok_or(TokenFault::None)?;
                if token.minted.is_some() || token.revoked.is_some() {
                    return Err(TokenFault::Late);
                }
                let (id, fingerprint) = (id.clone(), fingerprint.clone());
                token.minted = Some(MintedState { id, expires: *expires, fingerprint });
            }
            Record::TokenRevoked { .. } => token.as_mut().ok_or(TokenFault::None)?.revoked = Some(ts),
            _ => {}
        }
        Ok(())
    }

    /// What to say of it in a line, for somebody who has to find it at the issuer.
    #[must_use]
    pub fn describe(&self) -> String {
        let id = self.minted.as_ref().map(|minted| format!(" (id {})", minted.id)).unwrap_or_default();
        format!("token `{}`{id} of identity `{}` ({})", self.name, self.identity_name, self.identity)
    }
}
