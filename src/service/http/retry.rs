//! When a request is sent again, and after how long.

use std::time::Duration;

use super::HttpError;

/// How often and how far apart a request is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a request is sent at most, the first time included.
    pub attempts: u32,
    /// The pause before the first repetition; it doubles from then on.
    pub first: Duration,
    /// The longest pause of our own choice.
    pub longest: Duration,
    /// The longest pause at the server's wish (`Retry-After`); a longer wish is cut to this.
    pub longest_wish: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 4,
            first: Duration::from_millis(300),
            longest: Duration::from_secs(5),
            longest_wish: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// The pause before the next attempt, or `None` when the error stands. `sent` counts the attempts so far.
    ///
    /// A request that was turned away unread (no connection, 429) may always be sent again; one that may have
    /// taken effect only if repeating it does no harm.
    pub(super) fn pause(&self, error: &HttpError, repeatable: bool, sent: u32) -> Option<Duration> {
        if sent >= self.attempts || !error.is_passing() {
            return None;
        }
        let unread = matches!(error, HttpError::Unreachable { .. }) || error.code() == Some(429);
        if !unread && !repeatable {
            return None;
        }
        if let Some(wish) = error.refusal().and_then(|refusal| refusal.retry_after) {
            return Some(wish.min(self.longest_wish));
        }
        let doubled = self.first.saturating_mul(1u32.checked_shl(sent.saturating_sub(1)).unwrap_or(u32::MAX));
        Some(jittered(doubled.min(self.longest)))
    }
}

/// Between three quarters and five quarters of a pause, so that many clients do not ask in step.
#[must_use]
pub fn jittered(pause: Duration) -> Duration {
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    let part = u32::try_from(random >> 40).unwrap_or(0) % 1000;
    pause.saturating_mul(750 + part / 2) / 1000
}

/// Reads `Retry-After`: seconds, or a date.
pub(super) fn retry_after(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let date = http_date(text)?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// Reads a date as HTTP writes it (`Tue, 15 Nov 1994 08:12:31 GMT`).
pub(super) fn http_date(text: &str) -> Option<jiff::Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::Refusal;
    use super::*;

    fn status(code: u16, wish: Option<u64>) -> HttpError {
        HttpError::Status(Box::new(Refusal {
            at: String::new(),
            code,
            class: None,
            message: String::new(),
            retry_after: wish.map(Duration::from_secs),
            details: None,
        }))
    }

    #[test]
    fn what_may_have_acted_is_repeated_only_if_harmless() {
        let policy = RetryPolicy::default();
        let lost = HttpError::Lost { at: String::new(), reason: String::new() };
        assert!(policy.pause(&lost, true, 1).is_some());
        assert!(policy.pause(&lost, false, 1).is_none());
        assert!(policy.pause(&status(503, None), true, 1).is_some());
        assert!(policy.pause(&status(503, None), false, 1).is_none());
        assert!(policy.pause(&status(429, None), false, 1).is_some());
        for code in [400, 401, 403, 404, 301] {
            assert!(policy.pause(&status(code, None), true, 1).is_none(), "{code}");
        }
    }

    #[test]
    fn attempts_and_pauses_are_bounded() {
        let policy = RetryPolicy::default();
        assert!(policy.pause(&status(500, None), true, policy.attempts).is_none());
        assert_eq!(policy.pause(&status(429, Some(3)), true, 1), Some(Duration::from_secs(3)));
        assert_eq!(policy.pause(&status(429, Some(86_400)), true, 1), Some(policy.longest_wish));
        let eager = RetryPolicy { attempts: 100, ..policy.clone() };
        for sent in 1..99 {
            let pause = eager.pause(&status(500, None), true, sent).unwrap();
            assert!(pause <= policy.longest.mul_f32(1.25), "{sent}: {pause:?}");
            assert!(pause >= policy.first.mul_f32(0.74), "{sent}: {pause:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = http_date("Tue, 15 Nov 1994 08:12:31 GMT").unwrap();
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Tue, 15 Nov 1994 08:12:41 GMT", now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after("Tue, 15 Nov 1994 08:12:21 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-1", now), None);
    }
}
