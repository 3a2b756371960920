//! Folds of events, and of a whole journal, for people and programs.
//!
//! Invariants of this room:
//! - it knows events, the journal and the model, and writes to whatever `cli` hands it;
//! - every byte goes through a [`Printer`], or [`Story::cleaned`], and so through the redactor;
//! - what is seen live is a function of events, the time and the size, and knows no clock;
//! - free text is cleaned for terminals ([`sanitize`]) wherever it comes from;
//! - a fault of the output never stops a run: it is kept and told at the end.

mod history;
mod html;
mod human;
mod jsonl;
mod line;
mod live;
mod plain;
mod printer;
mod recap;
pub mod sanitize;
mod screen;
mod story;

use std::io;

pub use history::{HistoryRow, history_table};
pub use html::{PageError, page};
pub use human::{Human, Look, Measure};
pub use jsonl::Jsonl;
pub use plain::Plain;
pub use printer::Printer;
pub use recap::recap;
pub use screen::{Hold, Screen, Size};
pub use story::{Source, Story};

use jiff::Timestamp;

use crate::event::Event;

/// Something that tells what happens.
pub trait Reporter: Send {
    /// Tells of one event. A fault of the output is kept for [`finish`](Self::finish): nobody may stop half-way
    /// through a transaction because a pipe was closed.
    fn event(&mut self, event: &Event);

    /// Shows how things stand at this moment. Called after events, and ten times a second between them.
    fn tick(&mut self, _now: Timestamp) {}

    /// Writes out what is still held back.
    ///
    /// # Errors
    /// The first fault of the output.
    fn finish(&mut self) -> io::Result<()>;
}

#[cfg(test)]
mod tests;
