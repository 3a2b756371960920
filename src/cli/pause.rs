//! Where a test may stop the process: not in release builds.
//!
//! `KEYSWAP_TEST_PAUSE=journal:N:before|torn|after` stops it at the N-th line that it writes into a journal (the first
//! line of a new one counts), `call:N:before|after` at the N-th request to a host. It stops itself as SIGSTOP does, all
//! threads at once; the test then ends it, or lets it go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::BoxFuture;

use crate::journal::Medium;
use crate::model;
use crate::remote::{Answer, CallError, Connect, Gate, Host, Op, Unreachable, Way};

/// The name of the variable.
pub(super) const VARIABLE: &str = "KEYSWAP_TEST_PAUSE";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    Torn,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Journal,
    Call,
}

/// A point at which the process stops itself, once.
#[derive(Debug, Clone)]
pub(super) struct Pause {
    what: What,
    at: u32,
    when: When,
    seen: Arc<AtomicU32>,
}

impl Pause {
    /// The point that a variable's text names, if it names one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(':');
        let what = match words.next()? {
            "journal" => What::Journal,
            "call" => What::Call,
            _ => return None,
        };
        let at = words.next()?.parse().ok()?;
        let when = match (what, words.next()?) {
            (_, "before") => When::Before,
            (What::Journal, "torn") => When::Torn,
            (_, "after") => When::After,
            _ => return None,
        };
        Some(Self { what, at, when, seen: Arc::default() })
    }

    /// Journals that stop here.
    pub(super) fn medium(&self, inner: Box<dyn Medium>) -> Box<dyn Medium> {
        if self.what == What::Journal { Box::new(Stopping { inner, pause: self.clone(), due: false }) } else { inner }
    }

    /// Connections that stop here.
    pub(super) fn connect(&self, inner: Arc<dyn Connect>) -> Arc<dyn Connect> {
        if self.what == What::Call { Arc::new(StoppingConnect { inner, pause: self.clone() }) } else { inner }
    }

    /// Counts one more; whether this is the one.
    fn is_here(&self) -> bool {
        self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.at
    }
}

/// Stops the whole process until somebody continues or ends it.
fn stop() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
    // Another thread may be the one that takes the signal; this one must not go on until it was taken.
    let pending = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        let mask = field.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        mask & (1 << (rustix::process::Signal::STOP.as_raw() - 1)) != 0
    };
    while pending() {
        std::thread::yield_now();
    }
}

struct Stopping {
    inner: Box<dyn Medium>,
    pause: Pause,
    due: bool,
}

impl Medium for Stopping {
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.pause.is_here() {
                self.inner.append(line)?;
                continue;
            }
            match self.pause.when {
                When::Before => stop(),
                When::Torn => {
                    let (head, tail) = line.split_at(line.len() / 2);
                    self.inner.append(head)?;
                    stop();
                    self.inner.append(tail)?;
                    continue;
                }
                When::After => self.due = true,
            }
            self.inner.append(line)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.inner.sync()?;
        if std::mem::take(&mut self.due) {
            stop();
        }
        Ok(())
    }
}

struct StoppingConnect {
    inner: Arc<dyn Connect>,
    pause: Pause,
}

impl Connect for StoppingConnect {
    fn connect<'a>(
        &'a self,
        host: &'a model::Host,
        gate: &'a dyn Gate,
    ) -> BoxFuture<'a, Result<Box<dyn Host>, Unreachable>> {
        Box::pin(async move {
            let inner = self.inner.connect(host, gate).await?;
            let host: Box<dyn Host> = Box::new(StoppingHost { inner, pause: self.pause.clone() });
            Ok(host)
        })
    }
}

struct StoppingHost {
    inner: Box<dyn Host>,
    pause: Pause,
}

impl Host for StoppingHost {
    fn call<'a>(&'a mut self, op: &'a Op, data: Option<&'a [u8]>) -> BoxFuture<'a, Result<Answer, CallError>> {
        Box::pin(async move {
            let here = self.pause.is_here();
            if here && self.pause.when == When::Before {
                stop();
            }
            let answer = self.inner.call(op, data).await;
            if here && self.pause.when == When::After {
                stop();
            }
            answer
        })
    }

    fn way(&self) -> Option<Arc<dyn Way>> {
        self.inner.way()
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_points_are_taken() {
        for text in ["journal:3:before", "journal:3:torn", "journal:12:after", "call:1:before", "call:2:after"] {
            assert!(Pause::parse(text).is_some(), "{text}");
        }
        for text in ["", "journal", "journal:x:before", "journal:1", "call:1:torn", "other:1:before"] {
            assert!(Pause::parse(text).is_none(), "{text}");
        }
    }
}
