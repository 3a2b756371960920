//! Folds of events for people and programs.
//!
//! Invariants of this room:
//! - it knows events and the model, and writes to whatever `cli` hands it;
//! - every byte goes through a [`Printer`], and so through the redactor;
//! - free text is cleaned for terminals ([`sanitize`]) wherever it comes from;
//! - a fault of the output never stops a run: it is kept and told at the end.

mod human;
mod jsonl;
mod line;
mod plain;
mod printer;
mod recap;
pub mod sanitize;

use std::io;

pub use human::Human;
pub use jsonl::Jsonl;
pub use plain::Plain;
pub use printer::Printer;
pub use recap::recap;

use crate::event::Event;

/// Something that tells what happens.
pub trait Reporter: Send {
    /// Tells of one event. A fault of the output is kept for [`finish`](Self::finish): nobody may stop half-way
    /// through a transaction because a pipe was closed.
    fn event(&mut self, event: &Event);

    /// Writes out what is still held back.
    ///
    /// # Errors
    /// The first fault of the output.
    fn finish(&mut self) -> io::Result<()>;
}

#[cfg(test)]
mod tests;
