//! What a proof consists of: rows of what was looked at, what a narrow token shows, and what this one showed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a row shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As expected.
    Pass,
    /// Otherwise than expected.
    Fail,
    /// It could not be looked at, which is no pass.
    CouldNotLook,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::CouldNotLook => "could not look",
        })
    }
}

/// One probe of a proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofRow {
    /// Its number in the table of probes; several rows may have one.
    pub number: u8,
    /// What was looked at.
    pub probe: String,
    /// What a narrow token shows.
    pub expected: String,
    /// What this one showed.
    pub got: String,
    /// What that means.
    pub verdict: Verdict,
}
