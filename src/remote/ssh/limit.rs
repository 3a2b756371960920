//! A limit of time that stands still while a person, or another host, is waited for.

use std::future::{Future, pending};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The time that is left for a host.
pub(super) struct Limit(watch::Sender<Clock>);

#[derive(Clone, Copy)]
enum Clock {
    /// It is over then.
    Runs(Instant),
    /// So much is left.
    Stands(Duration),
}

impl Clock {
    fn left(self) -> Duration {
        match self {
            Self::Runs(until) => until.saturating_duration_since(Instant::now()),
            Self::Stands(left) => left,
        }
    }
}

/// Lets the time run again when it is dropped.
struct Standing<'a>(&'a watch::Sender<Clock>);

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|clock| *clock = Clock::Runs(Instant::now() + clock.left()));
    }
}

impl Limit {
    /// The time runs from now on.
    pub(super) fn new(left: Duration) -> Self {
        Self(watch::Sender::new(Clock::Runs(Instant::now() + left)))
    }

    /// What is left.
    pub(super) fn left(&self) -> Duration {
        self.0.borrow().left()
    }

    /// Waits for something that is not the host's fault: no time runs meanwhile.
    pub(super) async fn without<T>(&self, what: impl Future<Output = T>) -> T {
        self.0.send_modify(|clock| *clock = Clock::Stands(clock.left()));
        let _standing = Standing(&self.0);
        what.await
    }

    /// Waits until nothing is left.
    pub(super) async fn over(&self) {
        let mut seen = self.0.subscribe();
        loop {
            let clock = *seen.borrow_and_update();
            let end = async {
                match clock {
                    Clock::Runs(until) => sleep_until(until).await,
                    Clock::Stands(_) => pending().await,
                }
            };
            tokio::select! {
                () = end => return,
                // The sender is ours and lives.
                _ = seen.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_while_somebody_is_waited_for() {
        let limit = Limit::new(Duration::from_secs(10));
        let began = Instant::now();
        let work = async {
            sleep(Duration::from_secs(4)).await;
            limit.without(sleep(Duration::from_secs(100))).await;
            assert_eq!(limit.left(), Duration::from_secs(6));
            sleep(Duration::from_secs(60)).await;
        };
        tokio::select! {
            () = work => panic!("the limit holds after the wait"),
            () = limit.over() => {}
        }
        assert_eq!(began.elapsed(), Duration::from_secs(110));
        assert_eq!(limit.left(), Duration::ZERO);
    }
}
