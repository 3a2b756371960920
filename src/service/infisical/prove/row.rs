//! What a proof consists of.

use jiff::Timestamp;

pub use crate::model::{ProofRow as Row, Verdict};
use crate::service::infisical::claims::{BadToken, Claims};

/// Why a token is not even asked about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Others use it too.
    #[error("it is the shared credential")]
    Shared,
    /// It is none.
    #[error("{0}")]
    NoToken(BadToken),
    /// It is for another identity.
    #[error("it is for another identity ({})", crate::service::http::clean(.0))]
    OtherIdentity(String),
    /// It has no end: such tokens are refused by the server nowadays.
    #[error("it has no end (`exp`), and servers refuse such tokens")]
    NoEnd,
    /// It has expired.
    #[error("it expired at {}", .0.strftime("%Y-%m-%d %H:%M UTC"))]
    Expired(Timestamp),
    /// It will expire soon.
    #[error("it is about to expire, at {}", .0.strftime("%Y-%m-%d %H:%M UTC"))]
    EndsSoon(Timestamp),
}

/// All rows, in the table's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The rows.
    pub rows: Vec<Row>,
    /// Why it was refused before anything was asked.
    pub reason: Option<Reason>,
    /// What the token says about itself.
    pub claims: Option<Claims>,
}

impl Proof {
    /// The token reads its keys and nothing else, and all of that was seen.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        self.reason.is_none() && !self.rows.is_empty() && self.rows.iter().all(|row| row.verdict == Verdict::Pass)
    }

    /// The numbers of the rows with this verdict, each once.
    #[must_use]
    pub fn numbers(&self, verdict: Verdict) -> Vec<u8> {
        let mut numbers: Vec<u8> =
            self.rows.iter().filter(|row| row.verdict == verdict).map(|row| row.number).collect();
        numbers.dedup();
        numbers
    }

    /// In one line.
    #[must_use]
    pub fn summary(&self) -> String {
        if let Some(reason) = &self.reason {
            return format!("refused: {reason}");
        }
        let list = |numbers: &[u8]| numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        let (failed, unseen) = (self.numbers(Verdict::Fail), self.numbers(Verdict::CouldNotLook));
        match (failed.is_empty(), unseen.is_empty()) {
            (true, true) => format!("narrow: all {} probes passed", self.rows.len()),
            (false, true) => format!("not narrow: probe {} failed", list(&failed)),
            (true, false) => format!("not proved: probe {} could not be looked at", list(&unseen)),
            (false, false) => {
                let (failed, unseen) = (list(&failed), list(&unseen));
                format!("not narrow: probe {failed} failed, {unseen} could not be looked at")
            }
        }
    }
}
