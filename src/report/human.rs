//! Lines for people at a terminal.

use std::io::{self, Write};

use super::plain::Lines;
use super::{Printer, Reporter};
use crate::event::Event;

/// Tells the same as [`Plain`](super::Plain), with colours where they are allowed.
#[derive(Debug)]
pub struct Human<W: Write> {
    printer: Printer<W>,
    lines: Lines,
    colour: bool,
}

impl<W: Write> Human<W> {
    /// Writes through this printer; `cli` decides whether colours are allowed there.
    pub fn new(printer: Printer<W>, colour: bool) -> Self {
        let lines = Lines::new(printer.redactor());
        Self { printer, lines, colour }
    }
}

impl<W: Write + Send> Reporter for Human<W> {
    fn event(&mut self, event: &Event) {
        for line in self.lines.of(event) {
            self.printer.line(&if self.colour { line.coloured() } else { line.plain() });
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.printer.finish()
    }
}
