//! The journal of a run: appended, synced, chained by hash, folded.
//!
//! A run's directory is `STATE/runs/RUN/` (0700, files 0600):
//! ```text
//! plan.json       what the run set out to do; written whole before the first record
//! journal.jsonl   {"keyswap-journal":1,…} and then one record a line
//! lock            held by the one process that may append; says who that is
//! ```
//! Invariants:
//! - one writer; [`Journal::append`] returns only after the record lies on the disk;
//! - every line names the SHA-256 of the line before it, so a changed or missing line is found; hosts keep the head that
//!   each act left there, so a journal that was written anew or cut short is found too ([`Journal::contradicts`]);
//! - [`HostPhase::next`] is the whole table of legal transitions. [`Journal`] refuses to write a record that it
//!   forbids, [`RunState::fold`] refuses to read one, and everything that resumes, rolls back or shows history
//!   decides by that fold alone;
//! - no record holds a secret.

mod claims;
mod error;
mod files;
mod fold;
mod line;
mod phase;
mod record;
mod store;
mod token;
mod writer;

pub use claims::Claim;
pub use error::{JournalError, LockHolder};
pub use files::write_atomic;
pub use fold::{
    ApprovedState, FoldError, FoldFault, HostState, NoteState, RetireState, RunPhase, RunState, StepState, UndoState,
};
pub use line::{FORMAT, Header, LineHash, Log};
pub use phase::{HostPhase, IllegalTransition, OwedIn};
pub use record::{Entry, Operator, Record, ReopenCommand};
pub use store::{RunDir, RunSummary, Store};
pub use token::{MintedState, TokenFault, TokenState};
pub use writer::{Appended, Journal, Medium};
