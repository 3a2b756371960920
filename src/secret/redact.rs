//! Keeps secrets out of text: what is written, logged or shown passes here last.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, PoisonError, RwLock};

use tracing_subscriber::fmt::MakeWriter;
use zeroize::Zeroizing;

use super::SecretValue;
use super::matcher::Matcher;

/// A line longer than this is written in parts.
const LONG_LINE: usize = 64 * 1024;

/// Replaces every registered secret by `[secret sha256:…]`: plain, in base64 (both alphabets, at any offset), in
/// hex, URL-, JSON-, HTML- or shell-escaped, and the larger part of one that was cut off or wrapped.
///
/// Clones share what is registered. Text is redacted before it is cut to a length, not after.
#[derive(Clone, Default)]
pub struct Redactor {
    known: Arc<RwLock<Known>>,
}

#[derive(Default)]
struct Known {
    values: Vec<(String, Zeroizing<Vec<u8>>)>,
    matcher: Arc<Matcher>,
}

impl Redactor {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on this value is replaced, by its fingerprint.
    pub fn register(&self, secret: &SecretValue) {
        self.add(format!("[secret {}]", secret.fingerprint().short()), secret.expose());
    }

    /// From now on this value is replaced by `[secret WHAT]`. For passwords and passphrases: a person's password
    /// could be guessed from its fingerprint.
    pub fn register_bytes(&self, what: &str, value: &[u8]) {
        for line in value.split(|b| matches!(b, b'\n' | b'\r')).filter(|line| !line.is_empty()) {
            self.add(format!("[secret {what}]"), line);
        }
    }

    fn add(&self, label: String, value: &[u8]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.values.iter().any(|(_, other)| other.as_slice() == value) {
            return;
        }
        known.values.push((label, Zeroizing::new(value.to_vec())));
        let matcher = Matcher::new(known.values.iter().map(|(label, value)| (label.clone(), value.as_slice())));
        known.matcher = Arc::new(matcher);
    }

    /// The text without any registered secret.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.redact_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // A piece may end inside a character that differs only in its last byte.
            Cow::Owned(bytes) => Cow::Owned(
                String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
            ),
        }
    }

    /// The bytes without any registered secret.
    #[must_use]
    pub fn redact_bytes<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let matcher = self.matcher();
        if matcher.is_empty() {
            return Cow::Borrowed(text);
        }
        let hits = matcher.hits(text);
        if hits.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out = Vec::with_capacity(text.len());
        let mut from = 0;
        for hit in &hits {
            out.extend_from_slice(text.get(from..hit.start).unwrap_or_default());
            out.extend_from_slice(matcher.label(hit).as_bytes());
            from = hit.end;
        }
        out.extend_from_slice(text.get(from..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// The same for every string in a JSON value, before it is escaped.
    pub fn redact_json(&self, value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => {
                if let Cow::Owned(redacted) = self.redact(text) {
                    *text = redacted;
                }
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| self.redact_json(item)),
            serde_json::Value::Object(fields) => {
                *fields = std::mem::take(fields)
                    .into_iter()
                    .map(|(key, mut field)| {
                        self.redact_json(&mut field);
                        (self.redact(&key).into_owned(), field)
                    })
                    .collect();
            }
            _ => {}
        }
    }

    /// A writer that redacts what is written through it.
    pub fn writer<W: Write>(&self, inner: W) -> RedactingWriter<W> {
        RedactingWriter { redactor: self.clone(), inner, held: Zeroizing::new(Vec::new()) }
    }

    /// A maker of redacting writers for `tracing_subscriber`.
    pub fn make_writer<M>(&self, inner: M) -> RedactingMakeWriter<M> {
        RedactingMakeWriter { redactor: self.clone(), inner }
    }

    fn matcher(&self) -> Arc<Matcher> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).matcher)
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(known.values.iter().map(|(label, _)| label)).finish()
    }
}

/// Redacts a stream. A line goes out when its end has come; `flush` lets a line's beginning go out too, but for
/// what may be the beginning of a secret. So a secret that arrives in pieces is still found.
pub struct RedactingWriter<W: Write> {
    redactor: Redactor,
    inner: W,
    held: Zeroizing<Vec<u8>>,
}

impl<W: Write> RedactingWriter<W> {
    /// Writes out everything, also what was held back. Done on drop too, where a fault cannot be told.
    ///
    /// # Errors
    /// When the inner writer fails.
    pub fn finish(&mut self) -> io::Result<()> {
        self.release(self.held.len())?;
        self.inner.flush()
    }

    /// Redacts and writes the first `count` held bytes.
    fn release(&mut self, count: usize) -> io::Result<()> {
        let Some(ready) = self.held.get(..count).filter(|ready| !ready.is_empty()) else { return Ok(()) };
        let written = self.inner.write_all(&self.redactor.redact_bytes(ready));
        // Gone either way: after a fault the same bytes must not be written twice.
        self.held.drain(..count);
        written
    }

    /// Cuts a line that has grown too long, at a place where no secret can stand.
    fn cut_long_line(&mut self) -> io::Result<()> {
        let matcher = self.redactor.matcher();
        if self.held.len() < LONG_LINE + 2 * matcher.longest() {
            return Ok(());
        }
        let mut cut = self.held.len() - matcher.longest();
        for hit in matcher.hits(&self.held).iter().rev() {
            if hit.start < cut && cut < hit.end {
                cut = hit.start;
            }
        }
        // No cut: nothing but secrets. More of the line is waited for.
        self.release(cut)
    }
}

impl<W: Write> Write for RedactingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(buf);
        if let Some(end) = self.held.iter().rposition(|&b| b == b'\n') {
            self.release(end + 1)?;
        }
        self.cut_long_line()?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let open = self.redactor.matcher().open_end(&self.held);
        self.release(self.held.len() - open)?;
        self.inner.flush()
    }
}

impl<W: Write> Drop for RedactingWriter<W> {
    fn drop(&mut self) {
        // Nobody is there to be told of a fault.
        let _ = self.finish();
    }
}

impl<W: Write> fmt::Debug for RedactingWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedactingWriter").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

/// Makes redacting writers around another maker's, one for each log event.
#[derive(Debug, Clone)]
pub struct RedactingMakeWriter<M> {
    redactor: Redactor,
    inner: M,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for RedactingMakeWriter<M> {
    type Writer = RedactingWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        self.redactor.writer(self.inner.make_writer())
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        self.redactor.writer(self.inner.make_writer_for(meta))
    }
}

#[cfg(test)]
mod tests;
