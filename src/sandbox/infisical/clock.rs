//! The stand-in's time: the real one moved by a test, or one that stands still until it is moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

/// What time it is, in milliseconds since 1970. Clones share it.
#[derive(Debug, Clone)]
pub struct Clock {
    /// `None`: the real time.
    still: Option<i64>,
    moved: Arc<AtomicI64>,
}

impl Clock {
    /// The real time.
    #[must_use]
    pub fn real() -> Self {
        Self { still: None, moved: Arc::default() }
    }

    /// A time that stands still.
    #[must_use]
    pub fn still(at: i64) -> Self {
        Self { still: Some(at), moved: Arc::default() }
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.moved.fetch_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> i64 {
        let base = self.still.unwrap_or_else(|| Timestamp::now().as_millisecond());
        base.saturating_add(self.moved.load(Ordering::SeqCst))
    }
}

/// A time as the server writes it.
pub(super) fn iso(at: i64) -> String {
    Timestamp::from_millisecond(at).map(|at| format!("{at:.3}")).unwrap_or_default()
}
