//! The way out: every line passes the redactor.

use std::io::{self, Write};

use crate::secret::{RedactingWriter, Redactor};

/// Writes lines through the redactor and keeps the first fault.
#[derive(Debug)]
pub struct Printer<W: Write> {
    out: RedactingWriter<W>,
    redactor: Redactor,
    fault: Option<io::Error>,
}

impl<W: Write> Printer<W> {
    /// Writes to `out` what the redactor leaves.
    pub fn new(out: W, redactor: &Redactor) -> Self {
        Self { out: redactor.writer(out), redactor: redactor.clone(), fault: None }
    }

    /// The redactor behind it.
    #[must_use]
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Writes one line and its end, at once.
    pub fn line(&mut self, text: &str) {
        if self.fault.is_some() {
            return;
        }
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.write_all(b"\n"));
        if let Err(error) = written.and_then(|()| self.out.flush()) {
            self.fault = Some(error);
        }
    }

    /// Writes a text that ends its own lines, at once.
    pub(super) fn text(&mut self, text: &str) {
        if self.fault.is_some() {
            return;
        }
        if let Err(error) = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            self.fault = Some(error);
        }
    }

    /// The first fault, once.
    ///
    /// # Errors
    /// When anything could not be written.
    pub fn finish(&mut self) -> io::Result<()> {
        self.fault.take().map_or_else(|| self.out.flush(), Err)
    }
}
