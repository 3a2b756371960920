//! The proof that a token reads its keys and nothing else: a table of probes, each with what is expected and what was
//! got.
//!
//! Read-only. A token is narrow only if **every** row passed; what could not be looked at is no pass. A token that is
//! the wrong one, or ends too soon, is refused before the server is asked. Never shown: that the names of all
//! projects of the organization, and of the folders of its own, can be seen by any identity.

mod probes;
mod row;

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

pub use self::row::{Proof, Reason, Row, Verdict};
use super::access::wanted;
use super::rules::Rule;
use super::{Claims, Infisical, Project};
use crate::model::{Access, Fingerprint, IdentitySpec};

/// What a token is expected to be.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The identity that it is for.
    pub identity: String,
    /// The project.
    pub project: String,
    /// The organization.
    pub org: String,
    /// The project's environments.
    pub environments: Vec<String>,
    /// What it may read.
    pub access: Vec<Access>,
    /// The same as the server's rules.
    pub(super) rules: Vec<Rule>,
    /// The identity lives in the organization and not in the project.
    pub(super) of_org: bool,
    /// Fingerprints of credentials that others use too, as the inventory writes them (`sha256:` and 12 to 64 digits).
    pub shared: Vec<String>,
    /// The longest life that the server gives, in seconds, where it does not say itself.
    pub longest: u64,
    /// Half of the life that its file gives it: what ends sooner is about to end.
    pub half_life: Duration,
}

impl Expected {
    /// What a file says of a token for this identity.
    #[must_use]
    pub fn new(spec: &IdentitySpec, project: &Project, identity: &str) -> Self {
        Self {
            identity: identity.to_owned(),
            project: project.id.clone(),
            org: project.org_id.clone(),
            environments: project.environments.iter().map(|environment| environment.slug.clone()).collect(),
            access: spec.access.clone(),
            rules: wanted(spec),
            of_org: spec.scope == crate::model::IdentityScope::Org,
            shared: Vec::new(),
            longest: 7_776_000,
            half_life: spec.ttl / 2,
        }
    }

    /// Names fingerprints of credentials that others use too.
    #[must_use]
    pub fn sharing(self, shared: Vec<String>) -> Self {
        Self { shared, ..self }
    }
}

/// Why a token is refused without asking anybody; what its claims say where they could be read.
pub(super) fn refuse(
    token: &SecretString,
    expected: &Expected,
    now: Timestamp,
    least: Duration,
) -> (Option<Claims>, Option<Reason>) {
    let fingerprint = Fingerprint::of(token.expose_secret().as_bytes());
    let is_it = |known: &String| {
        let hex = known.strip_prefix("sha256:").unwrap_or(known);
        !hex.is_empty() && fingerprint.hex().starts_with(hex)
    };
    if expected.shared.iter().any(is_it) {
        return (Claims::read(token).ok(), Some(Reason::Shared));
    }
    let claims = match Claims::read(token) {
        Ok(claims) => claims,
        Err(error) => return (None, Some(Reason::NoToken(error))),
    };
    let reason = if claims.identity_id != expected.identity {
        Some(Reason::OtherIdentity(claims.identity_id.clone()))
    } else {
        match claims.expires() {
            None => Some(Reason::NoEnd),
            Some(end) if end <= now => Some(Reason::Expired(end)),
            Some(end) if Duration::try_from(end.duration_since(now)).unwrap_or_default() < least => {
                Some(Reason::EndsSoon(end))
            }
            Some(_) => None,
        }
    };
    (Some(claims), reason)
}

impl Infisical {
    /// Proves what the holder of a token can read. `self` is a client that asks with this token, through whatever way
    /// it takes; `operator` looks at the identity's rules from outside, and without one nothing is called narrow.
    pub async fn prove(&self, token: &SecretString, expected: &Expected, operator: Option<&Self>) -> Proof {
        let (now, longest) = match self.status().await {
            // Two clocks: the server's is the one that counts.
            Ok(status) => (status.date, status.max_token_ttl),
            Err(_) => (Timestamp::now(), None),
        };
        let expected = &Expected { longest: longest.unwrap_or(expected.longest), ..expected.clone() };
        let least = self.config.least_life.min(expected.half_life);
        let (claims, reason) = refuse(token, expected, now, least);
        let mut rows = vec![probes::claims(claims.as_ref(), reason.as_ref(), expected, now)];
        if reason.is_none() {
            rows.extend(self.probes(expected, operator).await);
        }
        rows.sort_by_key(|row| row.number);
        Proof { rows, reason, claims }
    }
}
