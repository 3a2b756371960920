//! The way out: every line is cleaned for terminals and passes the redactor.

use std::io::{self, Write};

use serde_json::Value;

use super::sanitize;
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

    /// Writes one line and its end, at once. Whatever would steer a terminal is taken out, wherever it came from.
    pub fn line(&mut self, text: &str) {
        self.styled(&sanitize::line(text, usize::MAX));
    }

    /// Writes one JSON value as a line; what would steer a terminal is taken out of its texts.
    pub fn json(&mut self, value: &Value) {
        let mut value = value.clone();
        sanitize::json(&mut value);
        self.styled(&value.to_string());
    }

    /// Writes one line as it is: for control codes of our own around pieces that were cleaned one by one.
    pub fn styled(&mut self, text: &str) {
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
