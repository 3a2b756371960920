//! Signs of life: while something else is waited for, hosts that are held hear that their controller is there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join, join_all};
use tokio_util::sync::CancellationToken;

use super::saga::Saga;

/// Who is given signs of life.
trait Held: Send {
    /// Gives one. It is never dropped once it has begun: its answer would be taken for that of the next request.
    fn beat(&mut self) -> BoxFuture<'_, ()>;
}

impl Held for Saga {
    fn beat(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.renew())
    }
}

/// Gives held hosts signs of life until something else is done, and gives back what that came to.
pub async fn keep_alive<T>(sagas: &mut [Saga], until: impl Future<Output = T>) -> T {
    match sagas.first().and_then(Saga::heartbeat) {
        Some(rest) => beside(sagas, rest, until).await,
        None => until.await,
    }
}

/// Each host has a beat of its own: one that does not answer must not cost the others their lease. Whose answer is still
/// waited for when the rest is done is waited for then, and the others hear of us meanwhile.
async fn beside<H: Held, T>(hosts: &mut [H], rest: Duration, until: impl Future<Output = T>) -> T {
    let (over, under_way, ended) = (AtomicBool::new(false), AtomicUsize::new(0), CancellationToken::new());
    let beats = hosts.iter_mut().map(async |host| {
        loop {
            tokio::select! {
                biased;
                () = ended.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
            // What begins after the end is not waited for by the others.
            let counts = !over.load(Ordering::SeqCst);
            if counts {
                under_way.fetch_add(1, Ordering::SeqCst);
            }
            host.beat().await;
            if counts && under_way.fetch_sub(1, Ordering::SeqCst) == 1 && over.load(Ordering::SeqCst) {
                ended.cancel();
            }
        }
    });
    let until = async {
        let done = until.await;
        over.store(true, Ordering::SeqCst);
        if under_way.load(Ordering::SeqCst) == 0 {
            ended.cancel();
        }
        done
    };
    join(until, join_all(beats)).await.0
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    /// A host that takes so long to answer, and when it was asked and had answered.
    struct Slow {
        takes: Duration,
        began: Vec<Instant>,
        answered: usize,
    }

    impl Slow {
        fn new(takes: u64) -> Self {
            Self { takes: Duration::from_secs(takes), began: Vec::new(), answered: 0 }
        }
    }

    impl Held for Slow {
        fn beat(&mut self) -> BoxFuture<'_, ()> {
            Box::pin(async {
                self.began.push(Instant::now());
                sleep(self.takes).await;
                self.answered += 1;
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_host_does_not_cost_the_others_their_lease() {
        for lasts in [0, 3, 30, 90, 200] {
            let began = Instant::now();
            let mut hosts = [Slow::new(0), Slow::new(60), Slow::new(1)];
            let rest = Duration::from_secs(5);
            beside(&mut hosts, rest, sleep(Duration::from_secs(lasts))).await;
            let ended = Instant::now();
            for host in &hosts {
                assert_eq!(host.began.len(), host.answered, "{lasts}: none is dropped");
            }
            for quick in [&hosts[0], &hosts[2]] {
                let times: Vec<_> = [began].into_iter().chain(quick.began.iter().copied()).chain([ended]).collect();
                let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
                assert!(longest <= Some(rest + Duration::from_secs(2)), "{lasts}: {longest:?}");
            }
            assert!(ended - began <= Duration::from_secs(lasts + 61), "{lasts}: {:?}", ended - began);
        }
    }
}
