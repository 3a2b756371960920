//! One batch: side by side up to each barrier, then the barrier's step, then on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinSet, unconstrained};
use tokio_util::sync::CancellationToken;

use crate::engine::{Saga, Settling, Shared, Stop, StopKind, again, controllers_work, keep_alive, started};
use crate::event::EventKind;
use crate::journal::Record;
use crate::model::{HostName, HostResult, HostStatus, StepRef, StepStatus};
use crate::step::{PlannedStep, Work};

/// A host that does not go on.
pub(super) struct Fallen {
    pub(super) saga: Saga,
    pub(super) stop: Stop,
}

/// So many at a time, in the order in which they were asked for, whichever task is faster: a run begins its hosts as it says.
struct Turns(Arc<Semaphore>);

impl Turns {
    fn new(forks: usize) -> Self {
        Self(Arc::new(Semaphore::new(forks.max(1))))
    }

    /// The next turn, for as long as what it gives is held.
    fn next(&self) -> impl Future<Output = Option<OwnedSemaphorePermit>> + Send + use<> {
        let mut turn = Box::pin(unconstrained(Arc::clone(&self.0).acquire_owned()));
        // The first time that it is asked for takes the place in the line.
        let first = turn.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        // Nobody closes it.
        async move {
            match first {
                Poll::Ready(permit) => permit.ok(),
                Poll::Pending => turn.await.ok(),
            }
        }
    }
}

/// Does something with many things side by side, `forks` at a time; what comes of each, in their order. `None`: its task
/// panicked.
pub(super) async fn each<I, T, F, Fut>(items: Vec<I>, forks: usize, work: F) -> Vec<Option<T>>
where
    T: Send + 'static,
    F: Fn(I) -> Fut,
    Fut: Future<Output = T> + Send + 'static,
{
    let turns = Turns::new(forks);
    let mut tasks = JoinSet::new();
    let mut results: Vec<Option<T>> = Vec::new();
    for (at, item) in items.into_iter().enumerate() {
        results.push(None);
        let (turn, work) = (turns.next(), work(item));
        tasks.spawn(async move {
            let _turn = turn.await;
            (at, work.await)
        });
    }
    while let Some(joined) = tasks.join_next().await {
        if let Ok((at, value)) = joined
            && let Some(slot) = results.get_mut(at)
        {
            *slot = Some(value);
        }
    }
    results
}

/// As [`each`], with sagas; a host that waits for its turn is told that its controller lives. What panics is given back by
/// its name.
pub(super) async fn side_by_side<T, F, Fut>(sagas: Vec<Saga>, forks: usize, work: F) -> (Vec<T>, Vec<HostName>)
where
    T: Send + 'static,
    F: Fn(Saga) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = T> + Send + 'static,
{
    let (turns, work) = (Turns::new(forks), Arc::new(work));
    all_begun(sagas, |mut saga| {
        let (turn, work) = (turns.next(), Arc::clone(&work));
        async move {
            let _turn = keep_alive(std::slice::from_mut(&mut saga), turn).await;
            work(saga).await
        }
    })
    .await
}

/// Begins something with every saga, in their order.
async fn all_begun<T, F, Fut>(sagas: Vec<Saga>, begin: F) -> (Vec<T>, Vec<HostName>)
where
    T: Send + 'static,
    F: Fn(Saga) -> Fut,
    Fut: Future<Output = T> + Send + 'static,
{
    let names: Vec<HostName> = sagas.iter().map(|saga| saga.name().clone()).collect();
    let (mut done, mut lost) = (Vec::new(), Vec::new());
    let all = sagas.len();
    for (name, result) in names.into_iter().zip(each(sagas, all, begin).await) {
        match result {
            Some(value) => done.push(value),
            None => lost.push(name),
        }
    }
    (done, lost)
}

/// Hosts whose way back panicked: nobody knows how they stand.
pub(super) fn unknown(shared: &Shared, hosts: Vec<HostName>, batch: u32) -> impl Iterator<Item = HostResult> {
    let shared = shared.clone();
    hosts.into_iter().map(move |host| not_known(&shared, host, batch))
}

/// A host whose way back panicked.
pub(super) fn not_known(shared: &Shared, host: HostName, batch: u32) -> HostResult {
    let result = HostResult {
        host,
        status: HostStatus::Owed,
        batch,
        credentials: Vec::new(),
        reason: Some("keyswap itself failed while it took this host back".to_owned()),
        mend: Vec::new(),
        notes: vec![format!("settle it: keyswap resume {}", shared.run)],
    };
    shared.events.emit(Some(&result.host), None, EventKind::HostFinished { result: result.clone() });
    result
}

/// Opens sagas side by side, `forks` at a time. Who is there early waits for the others, and says so to its host.
pub(super) async fn gather<I, E, F, Fut>(items: Vec<I>, forks: usize, open: F) -> Vec<Option<Result<Saga, E>>>
where
    E: Send + 'static,
    F: Fn(I) -> Fut,
    Fut: Future<Output = Result<Saga, E>> + Send + 'static,
{
    let (all, all_there) = (items.len(), Gathering::new(items.len()));
    let turns = Turns::new(forks);
    each(items, all, |item| {
        let (all_there, turn, opening) = (all_there.clone(), turns.next(), open(item));
        async move {
            let arrival = all_there.arrival();
            let turn = turn.await;
            let mut opened = opening.await;
            drop((turn, arrival));
            if let Ok(saga) = &mut opened {
                keep_alive(std::slice::from_mut(saga), all_there.complete()).await;
            }
            opened
        }
    })
    .await
}

/// What a barrier was waited for counts for the hosts that are still held; gives those back, and who is not.
pub(super) async fn still_held(sagas: Vec<Saga>, forks: usize) -> (Vec<Saga>, Vec<Fallen>, Vec<HostName>) {
    let (held, lost) = side_by_side(sagas, forks, |mut saga| async move {
        match saga.still_held().await {
            Ok(()) => Ok(saga),
            Err(stop) => Err(Fallen { saga, stop }),
        }
    })
    .await;
    let (mut up, mut fallen) = (Vec::new(), Vec::new());
    for one in held {
        match one {
            Ok(saga) => up.push(saga),
            Err(one) => fallen.push(one),
        }
    }
    (up, fallen, lost)
}

/// Brings each saga to its next barrier, or to its end. Once `closed`, no host begins any more that nothing was done on.
pub(super) async fn advance(
    sagas: Vec<Saga>,
    forks: usize,
    closed: &CancellationToken,
    on_fall: impl Fn(&Stop) + Clone + Send + Sync + 'static,
) -> (Vec<Saga>, Vec<Fallen>, Vec<HostName>) {
    let all_there = Gathering::new(sagas.len());
    // Who waits for the others holds no turn: those who have not begun need it.
    let turns = Turns::new(forks);
    let (done, lost) = all_begun(sagas, |mut saga| {
        let (on_fall, all_there, turn, closed) = (on_fall.clone(), all_there.clone(), turns.next(), closed.clone());
        async move {
            let arrival = all_there.arrival();
            let turn = keep_alive(std::slice::from_mut(&mut saga), turn).await;
            let result = async {
                saga.begins()?;
                if !saga.has_begun() && saga.changes() && closed.is_cancelled() {
                    return Err(Stop { kind: StopKind::Cancelled, reason: "stopped before it began".to_owned() });
                }
                saga.wake().await?;
                saga.prepare().await?;
                saga.advance().await
            };
            let result = result.await;
            // At once: who is still at work learns that there is no use in going on.
            if let Err(stop) = &result {
                on_fall(stop);
            }
            drop((turn, arrival));
            // Who is early waits for the others, and says so to its host.
            let stopped = result.as_ref().is_err_and(|stop| stop.kind == StopKind::Lost);
            if !stopped {
                keep_alive(std::slice::from_mut(&mut saga), all_there.complete()).await;
            }
            match result {
                Ok(()) => Ok(saga),
                Err(stop) => Err(Fallen { saga, stop }),
            }
        }
    })
    .await;
    let (mut up, mut fallen) = (Vec::new(), Vec::new());
    for result in done {
        match result {
            Ok(saga) => up.push(saga),
            Err(one) => fallen.push(one),
        }
    }
    (up, fallen, lost)
}

/// Counts who has come to the end of a stage, in whatever way; a panic counts too.
#[derive(Clone)]
struct Gathering(Arc<(AtomicUsize, CancellationToken)>);

struct Arrival(Gathering);

impl Gathering {
    fn new(expected: usize) -> Self {
        Self(Arc::new((AtomicUsize::new(expected), CancellationToken::new())))
    }

    fn arrival(&self) -> Arrival {
        Arrival(self.clone())
    }

    async fn complete(&self) {
        self.0.1.cancelled().await;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let (left, token) = &*self.0.0;
        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
            token.cancel();
        }
    }
}

/// The step that all of a batch waits at.
pub(super) fn barrier_of(sagas: &[Saga]) -> Option<PlannedStep> {
    let mut at: Vec<&PlannedStep> = sagas.iter().filter_map(|saga| saga.barrier()).collect();
    at.sort_by_key(|step| step.id.index);
    let first = at.first()?.id.index;
    // Where the condition said no for a host, its step does nothing; another host's may have work.
    let working = at.iter().find(|step| step.id.index == first && step.work != Work::Nothing);
    working.or(at.first()).map(|step| (*step).clone())
}

/// Runs a barrier's step for the batch or the run, unless there is a reason why nothing needs it.
///
/// # Errors
/// When it did not succeed, named.
pub(super) async fn barrier(
    shared: &Shared,
    sagas: &mut [Saga],
    step: &PlannedStep,
    idle: Option<&str>,
) -> Result<(), Stop> {
    shared.events.emit(None, Some(&step.id), EventKind::StepStarted);
    let began = std::time::Instant::now();
    let finish = |status: StepStatus, detail: &str| {
        let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let kind = EventKind::StepFinished { status, detail: detail.to_owned(), elapsed_ms };
        shared.events.emit(None, Some(&step.id), kind);
    };
    if step.work == Work::Nothing || idle.is_some() {
        finish(StepStatus::Skipped, idle.unwrap_or(&step.detail));
        return Ok(());
    }
    shared.journal.append(None, started(step)).await?;
    let mut tries = 0;
    let outcome = loop {
        let outcome = controllers_work(shared, sagas, step).await;
        let Err(stop) = &outcome else { break outcome };
        if !keep_alive(sagas, again(shared, step, stop, tries)).await {
            break outcome;
        }
        tries += 1;
    };
    let (status, detail) = match &outcome {
        Ok((status, detail)) => (*status, detail.clone()),
        Err(stop) => (StepStatus::Failed, stop.reason.clone()),
    };
    finish(status, &detail);
    let stopped = outcome.as_ref().is_err_and(Stop::is_no_failure);
    let record = Record::StepFinished { step: StepRef::clone(&step.id), status, detail, seen: Vec::new(), stopped };
    shared.journal.append(None, record).await?;
    outcome.map(|_| ()).map_err(|stop| Stop { kind: stop.kind, reason: format!("step {}: {}", step.id, stop.reason) })
}

/// Takes hosts back side by side; `ready` brings each of them, connected or not. Once `stop` is cancelled no further one
/// begins: those come second.
pub(super) async fn undo_all<F>(
    hosts: Vec<(HostName, u32, F)>,
    shared: &Shared,
    forks: usize,
    reason: &str,
    stop: Option<&CancellationToken>,
) -> (Vec<HostResult>, Vec<Settling>)
where
    F: Future<Output = Result<Settling, Box<HostResult>>> + Send + 'static,
{
    let names: Vec<(HostName, u32)> = hosts.iter().map(|(name, batch, _)| (name.clone(), *batch)).collect();
    let undone = each(hosts, forks, |(_, _, ready)| {
        let (reason, stop) = (reason.to_owned(), stop.cloned());
        async move {
            match ready.await {
                Err(result) => Ok(*result),
                Ok(host) if stop.is_some_and(|stop| stop.is_cancelled()) => Err(Box::new(host)),
                Ok(host) => Ok(host.undo(&reason).await),
            }
        }
    });
    let (mut results, mut left) = (Vec::new(), Vec::new());
    for ((name, batch), result) in names.into_iter().zip(undone.await) {
        match result {
            Some(Ok(result)) => results.push(result),
            Some(Err(host)) => left.push(*host),
            None => results.extend(unknown(shared, vec![name], batch)),
        }
    }
    (results, left)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_waits_for_its_turn_begins_in_order() {
        let (begun, turns, all) = (Arc::new(Mutex::new(Vec::new())), Turns::new(1), 600);
        let results = each((0..all).collect(), all, |number: usize| {
            let (turn, begun) = (turns.next(), Arc::clone(&begun));
            async move {
                let _turn = turn.await;
                begun.lock().unwrap().push(number);
                tokio::task::yield_now().await;
                number
            }
        });
        let in_order: Vec<usize> = (0..all).collect();
        assert_eq!(results.await.into_iter().flatten().collect::<Vec<_>>(), in_order);
        assert_eq!(*begun.lock().unwrap(), in_order);
    }
}
