//! What several integration tests share.

use std::time::{Duration, Instant};

pub(crate) mod browser;
pub(crate) mod real_host;
pub(crate) mod runner_host;
pub(crate) mod said;
pub(crate) mod sentinel;

/// Waits until something is true, for at most half a minute.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
