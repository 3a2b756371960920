//! A dedicated machine identity as it is to be: one file is the single truth for making it, minting for it and
//! proving what its tokens can read.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What an identity is to be. Anything more on the server is drift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentitySpec {
    /// Its name.
    pub name: String,
    /// Its id, where the name alone does not say which: names are not unique on the server.
    pub id: Option<String>,
    /// The project's slug or id.
    pub project: String,
    /// Where it lives.
    pub scope: IdentityScope,
    /// How long its tokens live.
    pub ttl: Duration,
    /// All that it may read.
    pub access: Vec<Access>,
}

/// Where an identity lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentityScope {
    /// In the project: an admin of the project can make it, and it can be a member nowhere else.
    Project,
    /// In the organization.
    Org,
}

impl fmt::Display for IdentityScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Project => "project",
            Self::Org => "org",
        })
    }
}

/// Keys of one folder of one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The environment's slug.
    pub environment: String,
    /// The folder, from `/`.
    pub path: String,
    /// The names of the secrets, and no others.
    pub read: Vec<String>,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {}", self.environment, self.path, self.read.join(", "))
    }
}
