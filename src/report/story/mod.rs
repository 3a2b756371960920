//! A run's story: what `keyswap report` tells, as a page or as JSON.
//!
//! Invariants:
//! - it is made from the journal's records alone, without a clock: nothing is told that no record says;
//! - it holds fingerprints, shortened as for people, and never a secret;
//! - text in it is as the journal has it; [`cleaned`](Story::cleaned) is the only way out, through the sanitiser and the
//!   redactor.

mod fold;
mod proofs;
#[cfg(test)]
pub(super) mod tests;
mod words;

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::sanitize;
use crate::journal::{FoldError, Log};
use crate::model::{ProofRow, RunId, Verdict};
use crate::secret::Redactor;

/// The version of the JSON.
const FORMAT: u32 = 1;
/// The most characters of one text.
const LONGEST: usize = 4000;

/// What a story is told from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Which run.
    pub run: &'a RunId,
    /// Its journal.
    pub log: &'a Log,
    /// Somebody works on it right now.
    pub at_work: bool,
    /// When the story is told.
    pub told: Timestamp,
}

/// A run's story.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    /// The version of this form.
    pub format: u32,
    /// The keyswap that tells it.
    pub keyswap: &'static str,
    /// When it was told.
    pub told: Timestamp,
    /// The run.
    pub run: RunId,
    /// The playbook's name.
    pub playbook: String,
    /// `run` or `rollback`.
    pub command: String,
    /// `user@host` of who began it.
    pub by: String,
    /// The keyswap that began it.
    pub by_version: String,
    /// The plan's digest.
    pub plan: String,
    /// The contract's word of how it ended; `cut-off`, `at-work` or `not-begun` if it did not.
    pub status: &'static str,
    /// The exit code with which it ended last.
    pub exit_code: Option<u8>,
    /// All of it in a sentence or two.
    pub sentence: String,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When the last record was written.
    pub ended: Option<Timestamp>,
    /// Hosts by how they stand, the worst first.
    pub counts: Vec<Count>,
    /// Secrets that it read, by name.
    pub secrets: Vec<Secret>,
    /// The token that it asked its issuer for.
    pub token: Option<Token>,
    /// What is left to do, the most pressing first.
    pub left: Vec<Task>,
    /// The times that somebody worked on it: `run`, and what came after.
    pub sittings: Vec<Sitting>,
    /// What happened to the run as a whole, in order.
    pub moments: Vec<Moment>,
    /// Steps that stand for a batch or the run.
    pub shared_steps: Vec<StepStory>,
    /// What was shown, in a line each.
    pub proofs: Vec<Proof>,
    /// What the credential files held before and hold now, hosts that are alike together.
    pub changes: Vec<Change>,
    /// Plans and who approved them.
    pub approvals: Vec<Approved>,
    /// Every host, in the run's order.
    pub hosts: Vec<HostStory>,
    /// Notes and warnings.
    pub notes: Vec<Note>,
    /// The journal that this was told from.
    pub journal: Journal,
}

/// So many hosts stand so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How.
    pub status: &'static str,
    /// How many.
    pub hosts: usize,
}

/// A secret's name and what it is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// The playbook's name for it.
    pub name: String,
    /// Its fingerprint.
    pub fingerprint: String,
}

/// The run's own token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Token {
    /// Name, id and identity in a line.
    pub what: String,
    /// The server that it was asked of.
    pub server: String,
    /// Its fingerprint, if it came.
    pub fingerprint: Option<String>,
    /// Its end, if it came.
    pub expires: Option<Timestamp>,
    /// Since when it is known to be dead.
    pub revoked: Option<Timestamp>,
}

/// Something that is left to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Task {
    /// How much it presses.
    pub level: Level,
    /// In a few words.
    pub title: String,
    /// Why, and what it does.
    pub text: String,
    /// The hosts that it is about.
    pub hosts: Vec<String>,
    /// Commands to be typed on that host.
    pub there: Vec<String>,
    /// Commands to be typed where keyswap runs.
    pub here: Vec<String>,
}

/// How much a task presses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Something is not as it must be.
    Must,
    /// Something that was asked for is not done.
    Should,
    /// A choice.
    May,
}

/// One time that somebody worked on the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sitting {
    /// `run`, `resume`, `resume --back`, `rollback`, `retire`.
    pub command: String,
    /// `user@host`.
    pub by: String,
    /// Its first record.
    pub started: Timestamp,
    /// Its last record.
    pub ended: Timestamp,
    /// The contract's word, if it came to an end.
    pub status: Option<&'static str>,
}

/// Something that happened to the run as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// In which sitting, counted from 0.
    pub sitting: usize,
    /// The record's name.
    pub what: &'static str,
    /// In a line.
    pub text: String,
}

/// A step as it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepStory {
    /// Its place in the playbook.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its action, where the journal tells.
    pub action: Option<String>,
    /// In which sitting.
    pub sitting: usize,
    /// What it was about to do.
    pub intent: String,
    /// How it ended; `not-known` where that was not written.
    pub status: &'static str,
    /// What was said of its end.
    pub detail: String,
    /// What was looked at afterwards.
    pub seen: Vec<String>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// Something that was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// What was asked.
    pub what: String,
    /// The answer.
    pub verdict: Verdict,
    /// In a line.
    pub said: String,
    /// When it was seen last.
    pub at: Option<Timestamp>,
    /// Hosts that it is about; none: the run.
    pub hosts: Vec<String>,
    /// Each probe.
    pub rows: Vec<ProofRow>,
}

/// What credential files held and hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// How the hosts stand.
    pub status: &'static str,
    /// The fingerprint before; none: no file.
    pub before: Option<String>,
    /// As last read back; none: no file, or not read.
    pub now: Option<String>,
    /// The hosts.
    pub hosts: Vec<String>,
}

/// A plan that the run follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Approved {
    /// When it was looked at.
    pub at: Timestamp,
    /// What was approved.
    pub what: String,
    /// The plan's digest.
    pub plan: String,
    /// Who approved it.
    pub by: Vec<Approval>,
}

/// One approval that counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Approval {
    /// Who.
    pub signer: String,
    /// The key's fingerprint.
    pub key: String,
    /// When, by the signer's clock.
    pub signed: Timestamp,
    /// Until when it holds.
    pub expires: Timestamp,
    /// What the signer had to say.
    pub comment: Option<String>,
}

/// A host's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostStory {
    /// Its name.
    pub name: String,
    /// The contract's word; `held` for a failed one that was left new on purpose, `at-work` or `not-begun` before any.
    pub status: &'static str,
    /// Its batch, where it got into one.
    pub batch: Option<u32>,
    /// The machine's own id.
    pub machine: Option<String>,
    /// Why, when it did not go well.
    pub reason: Option<String>,
    /// Its first record.
    pub started: Option<Timestamp>,
    /// Its last record.
    pub ended: Option<Timestamp>,
    /// For how long it was worked on: from its first record to its last one, summed over the sittings.
    pub busy_ms: i64,
    /// When its way back began to be laid on it, and when it lay there.
    pub prepared: Vec<Span>,
    /// Its steps as they ran.
    pub steps: Vec<StepStory>,
    /// The ways back that were gone.
    pub undo: Vec<Undo>,
    /// When it was said how it stands.
    pub settled: Vec<Settled>,
    /// Its credential files.
    pub credentials: Vec<Credential>,
    /// Commands that mend it.
    pub mend: Vec<String>,
    /// Where copies of the old credential were removed.
    pub removed: Vec<String>,
    /// Things worth knowing.
    pub notes: Vec<String>,
}

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// In which sitting.
    pub sitting: usize,
    /// Its beginning.
    pub started: Timestamp,
    /// Its end, if it was written.
    pub ended: Option<Timestamp>,
}

/// A way back that was gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undo {
    /// Why.
    pub reason: String,
    /// Nothing was wrong with this host.
    pub with_rest: bool,
    /// From when to when.
    #[serde(flatten)]
    pub span: Span,
    /// What was taken back, in order.
    pub acts: Vec<UndoAct>,
}

/// One act that was taken back, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UndoAct {
    /// The step whose act it is.
    pub step: Option<String>,
    /// The undo's own name.
    pub label: String,
    /// How it ended.
    pub status: &'static str,
    /// In a few words.
    pub detail: String,
}

/// How a host was said to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Settled {
    /// When.
    pub at: Timestamp,
    /// In which sitting.
    pub sitting: usize,
    /// How.
    pub status: &'static str,
}

/// A credential file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Credential {
    /// Its path.
    pub path: String,
    /// Before the run.
    pub before: Option<String>,
    /// As last read back.
    pub now: Option<String>,
}

/// A note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// When, where that is known.
    pub at: Option<Timestamp>,
    /// On which hosts; none: the run.
    pub hosts: Vec<String>,
    /// One line.
    pub text: String,
}

/// Which journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Journal {
    /// How many records it had.
    pub records: u64,
    /// The hash of its last line: hosts keep it.
    pub head: Option<String>,
    /// Its last line was torn off.
    pub torn: bool,
}

impl Story {
    /// Tells a run's story from its journal.
    ///
    /// # Errors
    /// When the journal tells what cannot have happened.
    pub fn of(source: &Source<'_>) -> Result<Self, FoldError> {
        fold::story(source)
    }

    /// The story as JSON, with every text clean, redacted and of bounded length.
    #[must_use]
    pub fn cleaned(&self, redactor: &Redactor) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        clean(&mut value, redactor);
        value
    }
}

/// Redacted before it is cut, so that no half of a secret is left over.
fn clean(value: &mut Value, redactor: &Redactor) {
    match value {
        Value::String(text) => {
            let whole = sanitize::line(text, usize::MAX);
            let redacted = redactor.redact(&whole);
            match sanitize::line(&redacted, LONGEST) {
                Cow::Borrowed(same) if same == text.as_str() => {}
                cleaned => *text = cleaned.into_owned(),
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, redactor)),
        Value::Object(fields) => fields.values_mut().for_each(|field| clean(field, redactor)),
        _ => {}
    }
}
