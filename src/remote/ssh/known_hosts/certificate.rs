//! A host's certificate: an authority's word that a key is a certain host's.
//!
//! Invariant: everything is checked here that makes such a word worth something, and what is not understood refuses.
//! OpenSSH takes a certificate without principals for every host; here it is good for none, as in OpenSSH since 10.3.

use jiff::Timestamp;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, PublicKey};

use super::super::error::clean;
use super::HostKey;

/// More names than this are not listed when none of them is the right one.
const MOST_SHOWN: usize = 8;

/// What a certificate says, with nothing of it believed yet.
#[derive(Debug, Clone)]
pub struct HostCertificate {
    pub(super) key: HostKey,
    pub(super) authority: HostKey,
    for_hosts: bool,
    principals: Vec<String>,
    after: u64,
    before: u64,
    critical: Vec<String>,
    signed: bool,
    sha1: bool,
}

/// Why a certificate proves nothing about a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// No `@cert-authority` line for this host holds the key that signed it.
    #[error("no @cert-authority line for this host holds the authority {0}")]
    UnknownAuthority(String),
    /// It is a person's certificate.
    #[error("it is a certificate for users, not for hosts")]
    NotForHosts,
    /// It was made for other names.
    #[error("it is not for `{name}` but for {}", names(.listed))]
    OtherNames {
        /// The name that was dialled, or the alias.
        name: String,
        /// The names that it was made for.
        listed: Vec<String>,
    },
    /// It names nobody.
    #[error("it names no host (no principals)")]
    NoNames,
    /// Its time has not come.
    #[error("it is valid only from {0} on")]
    NotYet(String),
    /// Its time is over.
    #[error("it has been invalid since {0}")]
    Expired(String),
    /// It makes a condition that is not understood.
    #[error("it makes conditions that are not understood: {}", names(.0))]
    Condition(Vec<String>),
    /// The signature is not the authority's.
    #[error("the authority's signature is wrong")]
    Signature,
    /// The signature is made with SHA-1.
    #[error("it is signed with SHA-1")]
    Sha1,
}

impl HostCertificate {
    /// Reads a certificate; nothing if its keys cannot be written down.
    pub(crate) fn read(certificate: &Certificate) -> Option<Self> {
        let plain = |data: &KeyData| HostKey::from_blob(PublicKey::new(data.clone(), "").to_bytes().ok()?).ok();
        Some(Self {
            key: plain(certificate.public_key())?,
            authority: plain(certificate.signature_key())?,
            for_hosts: certificate.cert_type().is_host(),
            principals: certificate.valid_principals().to_vec(),
            after: certificate.valid_after(),
            before: certificate.valid_before(),
            critical: certificate.critical_options().keys().map(|name| clean(name)).collect(),
            signed: certificate.verify_signature().is_ok(),
            sha1: matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None } | Algorithm::Dsa),
        })
    }

    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> &HostKey {
        &self.key
    }

    /// The key that signed it, or is said to have.
    #[must_use]
    pub fn authority(&self) -> &HostKey {
        &self.authority
    }

    /// Everything but whether the authority is to be trusted, for a host called `name` at `now` (seconds since 1970).
    pub(super) fn judge(&self, name: &str, now: u64) -> Result<(), CertificateFault> {
        use CertificateFault as F;
        if !self.signed {
            return Err(F::Signature);
        }
        if self.sha1 {
            return Err(F::Sha1);
        }
        if !self.for_hosts {
            return Err(F::NotForHosts);
        }
        if now < self.after {
            return Err(F::NotYet(moment(self.after)));
        }
        if now >= self.before {
            return Err(F::Expired(moment(self.before)));
        }
        if self.principals.is_empty() {
            return Err(F::NoNames);
        }
        if !self.principals.iter().any(|principal| principal == name) {
            let listed = self.principals.iter().map(|principal| clean(principal)).collect();
            return Err(F::OtherNames { name: name.to_owned(), listed });
        }
        if !self.critical.is_empty() {
            return Err(F::Condition(self.critical.clone()));
        }
        Ok(())
    }
}

fn moment(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok());
    moment.map_or_else(|| "a time that is no date".to_owned(), |moment| moment.to_string())
}

fn names(all: &[String]) -> String {
    let shown = all.iter().take(MOST_SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(MOST_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
