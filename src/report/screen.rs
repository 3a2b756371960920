//! The lower end of a terminal, where a few rows are drawn anew again and again.
//!
//! Why not indicatif: it moves up by the rows that it drew at the old width, so that a window made narrower keeps
//! pieces of every frame; its bars, rates and clock have no use here. What is drawn is one block of lines.
//!
//! Invariants:
//! - the cursor is never hidden and rests below the block: whoever is killed leaves the terminal as it should be;
//! - a block's row is shorter than the terminal is wide, and the block lower than it is high: what is cleared is what
//!   was drawn;
//! - who writes to the same terminal by another way holds the block back meanwhile ([`Screen::hold`]);
//! - the only control codes are: up, clear what follows, clear the rest of the row, and colours.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::Printer;
use crate::secret::Redactor;

/// How large a terminal is, in columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// A terminal whose lower end is drawn anew. Clones are the same terminal.
#[derive(Clone)]
pub struct Screen(Arc<Mutex<Inner>>);

struct Inner {
    printer: Printer<Box<dyn Write + Send>>,
    /// The rows of the block as they stand on the terminal.
    block: Vec<Row>,
    /// How many hold the block back, and the question that waits for its answer.
    holds: usize,
    question: Option<String>,
}

/// A row of the block: its text with its colours, and the columns that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) text: String,
    pub(super) columns: usize,
}

/// Keeps the block off the terminal while it lives.
#[must_use]
pub struct Hold(Screen);

impl Screen {
    /// Draws through the redactor.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>, redactor: &Redactor) -> Self {
        let printer = Printer::new(out, redactor);
        Self(Arc::new(Mutex::new(Inner { printer, block: Vec::new(), holds: 0, question: None })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn redactor(&self) -> Redactor {
        self.inner().printer.redactor().clone()
    }

    /// Writes lines that stay, and below them the block.
    pub(super) fn draw(&self, lines: &[String], block: Vec<Row>, width: usize) {
        self.inner().draw(lines, block, width);
    }

    /// The first fault of the output, once. The block is taken away.
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.draw(&[], Vec::new(), usize::MAX);
        inner.printer.finish()
    }

    /// Takes the block away until the last hold is dropped. Lines that stay are written all the same.
    pub fn hold(&self) -> Hold {
        self.inner().hold();
        Hold(self.clone())
    }

    /// As [`hold`](Self::hold), while a question waits for its answer: it is asked again below lines that come meanwhile.
    pub fn ask(&self, question: &str) -> Hold {
        let mut inner = self.inner();
        inner.hold();
        inner.question = Some(question.to_owned());
        Hold(self.clone())
    }

    /// As [`hold`](Self::hold), if nobody draws at this moment: for who must not wait.
    #[must_use]
    pub fn try_hold(&self) -> Option<Hold> {
        let mut inner = match self.0.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        inner.hold();
        drop(inner);
        Some(Hold(self.clone()))
    }

    /// Something else was written below the block: it is left where it stands, and drawn anew below.
    pub fn forget(&self) {
        self.inner().block.clear();
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.holds = inner.holds.saturating_sub(1);
        if inner.holds == 0 {
            inner.question = None;
        }
    }
}

impl Inner {
    fn hold(&mut self) {
        self.holds += 1;
        if !self.block.is_empty() {
            // A terminal of unknown width: that of the last frame is as good as any.
            let text = format!("{}\u{1b}[J\r", self.up(usize::MAX));
            self.block.clear();
            self.printer.text(&text);
        }
    }

    /// Back to where the block begins. A terminal that has become narrower has wrapped rows that are longer now.
    fn up(&self, width: usize) -> String {
        let rows: usize = self.block.iter().map(|row| row.columns.max(1).div_ceil(width.max(1))).sum();
        if rows == 0 { String::new() } else { format!("\r\u{1b}[{rows}A") }
    }

    fn draw(&mut self, lines: &[String], block: Vec<Row>, width: usize) {
        let block = if self.holds > 0 { Vec::new() } else { block };
        if lines.is_empty() && block == self.block {
            return;
        }
        let mut out = self.up(width);
        if self.question.is_some() && !lines.is_empty() {
            out.push('\n');
        }
        if !lines.is_empty() && !out.is_empty() {
            out.push_str("\u{1b}[J");
        }
        for line in lines {
            out.push_str(line);
            out.push('\n');
        }
        // Each row is written over what stands there, which does not flicker. Whatever ends a write ends in `\n` or `\r`:
        // nothing of it looks like the begin of a secret and is held back.
        match block.split_last() {
            Some((last, rows)) => {
                for row in rows {
                    // Writing into a string cannot fail.
                    let _ = writeln!(out, "{}\u{1b}[K", row.text);
                }
                let _ = writeln!(out, "\u{1b}[J{}", last.text);
            }
            None if lines.is_empty() => out.push_str("\u{1b}[J\r"),
            None => {}
        }
        if let Some(question) = self.question.as_ref().filter(|_| !lines.is_empty()) {
            out.push_str(question);
        }
        self.block = block;
        self.printer.text(&out);
    }
}
