//! The issuer of tokens, as the rest of keyswap sees it: mint, revoke, prove, and make sure that one is dead.

use futures_util::future::BoxFuture;
use secrecy::SecretString;

use super::apply::ApplyError;
use super::desired::Change;
use super::prove::{Expected, Proof};
use super::tokens::{MintError, Minted, TokenId};
use super::{Class, Infisical, InfisicalError, Project};
use crate::model::IdentitySpec;

/// Issues tokens for one identity.
pub trait Issuer: Send + Sync {
    /// Mints a token under a name that no other bears (see [`token_name`](super::token_name)). The name is to be
    /// journaled before.
    fn mint<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Minted, MintError>>;

    /// Revokes a token.
    fn revoke<'a>(&'a self, id: &'a TokenId) -> BoxFuture<'a, Result<(), InfisicalError>>;

    /// Revokes whatever was minted under a name: for a run that was cut off between minting and journaling.
    fn revoke_named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<TokenId>, InfisicalError>>;

    /// Whether a token is refused: shown by one harmless request with it, for no listing proves it.
    fn death<'a>(&'a self, token: &'a SecretString) -> BoxFuture<'a, Result<Death, InfisicalError>>;

    /// Proves what a token can read. Changes nothing.
    fn prove<'a>(&'a self, token: &'a SecretString, expected: &'a Expected) -> BoxFuture<'a, Proof>;
}

/// Whether a token still opens anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// It was refused, for this reason.
    Dead(Class),
    /// It was taken.
    Alive,
}

/// Why nothing can be issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The server refused, or could not be asked.
    #[error("the identity `{name}` could not be looked at")]
    Infisical {
        /// The identity's name.
        name: String,
        /// What it said.
        #[source]
        error: InfisicalError,
    },
    /// The state cannot be reached at all.
    #[error("the identity cannot be what its file says")]
    Plan(#[source] ApplyError),
    /// The identity is not what its file says. It is never made so by the way.
    #[error("the identity `{name}` is not what its file says ({}); `keyswap identity apply` makes it so", shown(.changes))]
    Drift {
        /// The identity's name.
        name: String,
        /// What would have to change.
        changes: Vec<Change>,
    },
}

fn shown(changes: &[Change]) -> String {
    changes.iter().map(Change::to_string).collect::<Vec<_>>().join("; ")
}

/// Infisical as the issuer for one identity.
#[derive(Debug)]
pub struct InfisicalIssuer {
    operator: Infisical,
    spec: IdentitySpec,
    project: Project,
    identity: String,
}

impl InfisicalIssuer {
    /// Looks whether the identity is exactly what its file says. Changes nothing.
    ///
    /// # Errors
    /// When it is not, or that cannot be found out.
    pub async fn open(operator: Infisical, spec: IdentitySpec) -> Result<Self, IssueError> {
        let planned = operator.plan_identity(&spec).await.map_err(|error| match error {
            ApplyError::Infisical { name, error, .. } => IssueError::Infisical { name, error },
            other => IssueError::Plan(other),
        })?;
        match planned.found.identity {
            Some(identity) if planned.changes.is_empty() => {
                Ok(Self { operator, spec, project: planned.found.project, identity: identity.id })
            }
            _ => Err(IssueError::Drift { name: spec.name, changes: planned.changes }),
        }
    }

    /// The identity's id.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The identity's file.
    #[must_use]
    pub fn spec(&self) -> &IdentitySpec {
        &self.spec
    }

    /// The project.
    #[must_use]
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// The operator's client.
    #[must_use]
    pub fn operator(&self) -> &Infisical {
        &self.operator
    }

    /// What a proof is to show for a token of this identity.
    #[must_use]
    pub fn expected(&self) -> Expected {
        Expected::new(&self.spec, &self.project, &self.identity)
    }
}

impl Infisical {
    /// Whether a token is dead, shown with one request that does nothing else: only the server's own word that it was revoked or
    /// has ended proves it.
    ///
    /// # Errors
    /// When the server cannot be asked, or refuses for another reason or none: then nobody knows.
    pub async fn death(&self, token: &SecretString) -> Result<Death, InfisicalError> {
        match self.with_token(token).organization().await {
            Ok(_) => Ok(Death::Alive),
            Err(error) => match error.class() {
                Some(class) if class.is_the_end() => Ok(Death::Dead(class)),
                _ => Err(error),
            },
        }
    }
}

impl Issuer for InfisicalIssuer {
    fn mint<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Minted, MintError>> {
        Box::pin(self.operator.mint(&self.identity, name))
    }

    fn revoke<'a>(&'a self, id: &'a TokenId) -> BoxFuture<'a, Result<(), InfisicalError>> {
        Box::pin(self.operator.revoke(id))
    }

    fn revoke_named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<TokenId>, InfisicalError>> {
        Box::pin(self.operator.revoke_named(&self.identity, name))
    }

    fn death<'a>(&'a self, token: &'a SecretString) -> BoxFuture<'a, Result<Death, InfisicalError>> {
        Box::pin(self.operator.death(token))
    }

    fn prove<'a>(&'a self, token: &'a SecretString, expected: &'a Expected) -> BoxFuture<'a, Proof> {
        let holder = self.operator.with_token(token);
        Box::pin(async move { holder.prove(token, expected, Some(&self.operator)).await })
    }
}
