//! The rollout itself: batch after batch, until the end or the budget.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Outcome;
use super::batch::{self, Fallen};
use super::select::assign_batches;
use super::settle::{Returning, newest_first};
use super::standing::{Standing, passed_over};
use crate::engine::{Saga, Settling, Shared, Stop, StopKind, keep_alive};
use crate::event::EventKind;
use crate::journal::Record;
use crate::model::{Host, HostName, HostResult, HostStatus, OnFailure, Once, Rollout};
use crate::step::HostPlan;

/// What a rollout works with.
pub struct Rolling {
    /// What its sagas share.
    pub shared: Shared,
    /// Its batches, budget and scope.
    pub spec: Rollout,
    /// How many hosts are worked on at the same time.
    pub forks: usize,
    /// Hosts that failed before it went on with a run that was cut off. They count.
    pub failed_before: u32,
    /// The steps that stand for a run that goes on, and which of them are behind it.
    pub(super) recalled: Option<Standing>,
}

impl Rolling {
    /// A rollout from its start.
    #[must_use]
    pub fn new(shared: Shared, spec: Rollout, forks: usize) -> Self {
        Self { shared, spec, forks, failed_before: 0, recalled: None }
    }

    /// Whether a host that fails stays on the new credential.
    pub(super) fn holds(&self) -> bool {
        self.spec.on_failure == OnFailure::Hold
    }

    /// Why no further batch may begin, before anything more has failed.
    pub(super) fn stopped_before(&self) -> Option<String> {
        (self.failed_before > self.spec.max_failures).then(|| {
            format!("{} hosts had failed, and {} failures are borne", self.failed_before, self.spec.max_failures)
        })
    }
}

/// The state of a rollout between batches.
struct State {
    results: Vec<HostResult>,
    /// Hosts that were let go, for a rollback that reaches back.
    committed: Vec<Settling>,
    failures: u32,
    stopped: Option<String>,
    standing: Standing,
    outcome: Outcome,
}

/// Works through all hosts, batch by batch. `sagas` are in the run's order; each is given back as a result.
///
/// A run that goes on keeps the batches that it was planned with.
pub async fn run(rolling: &Rolling, mut sagas: Vec<Saga>) -> Outcome {
    let total = sagas.len();
    let standing = rolling.recalled.clone().unwrap_or_else(|| Standing::of(&sagas.iter().map(Saga::plan)));
    if sagas.iter().any(|saga| saga.batch() == 0) {
        assign_batches(&rolling.spec.batches, total, &mut sagas);
    }
    let order: Vec<HostName> = sagas.iter().map(|saga| saga.name().clone()).collect();
    let mut state = State {
        results: Vec::new(),
        committed: Vec::new(),
        failures: rolling.failed_before,
        stopped: None,
        standing,
        outcome: Outcome::default(),
    };
    if let Err(stop) = state.standing.open(&rolling.shared, &mut sagas).await {
        state.of_run(stop);
    }
    // Hosts of later batches may be held, too, in a run that goes on: they are told that their controller lives.
    let mut later = sagas;
    later.sort_by_key(Saga::batch);
    let count = later.last().map_or(0, Saga::batch);
    while let Some(number) = later.first().map(Saga::batch) {
        let rest = later.split_off(later.partition_point(|saga| saga.batch() == number));
        let batch = std::mem::replace(&mut later, rest);
        if state.stopped.is_none() && rolling.shared.cancel.is_cancelled() {
            state.stopped = Some(BY_OPERATOR.to_owned());
            state.outcome.interrupted = true;
        }
        if let Some(why) = state.stopped.clone() {
            // Of a run that is gone on with, hosts may have been in its midst: they are not left so.
            let others = batch.into_iter().map(|saga| (saga, Way::Rest(why.clone()))).collect();
            let results = keep_alive(&mut later, settle(rolling, others)).await;
            state.results.extend(results);
            continue;
        }
        let hosts = batch.iter().map(|saga| saga.name().clone()).collect();
        rolling.shared.events.emit(None, None, EventKind::BatchStarted { batch: number, of: count, hosts });
        let before = state.results.len();
        keep_alive(&mut later, Box::pin(one_batch(rolling, &mut state, (number, count), batch))).await;
        let settled = state.results.get(before..).unwrap_or_default();
        let changed = settled.iter().any(|result| result.status != HostStatus::Ok);
        let done = u32::try_from(state.results.len()).unwrap_or(u32::MAX);
        let hosts_total = u32::try_from(total).unwrap_or(u32::MAX);
        rolling.shared.events.emit(
            None,
            None,
            EventKind::BatchFinished { batch: number, of: count, hosts_done: done, hosts_total },
        );
        // Where nothing was changed there is nothing to be watched.
        if number < count && state.stopped.is_none() && changed && !rolling.spec.pause.is_zero() {
            let seconds = rolling.spec.pause.as_secs();
            rolling.shared.events.emit(None, None, EventKind::Pausing { seconds });
            keep_alive(&mut later, async {
                tokio::select! {
                    () = tokio::time::sleep(rolling.spec.pause) => {}
                    () = rolling.shared.cancel.cancelled() => {}
                }
            })
            .await;
        }
    }
    after_all(rolling, &mut state).await;
    let mut outcome = state.outcome;
    let place: HashMap<HostName, usize> = order.into_iter().enumerate().map(|(at, name)| (name, at)).collect();
    state.results.sort_by_key(|result| place.get(&result.host).copied().unwrap_or(usize::MAX));
    outcome.hosts = state.results;
    outcome
}

/// One batch, to its settled end.
async fn one_batch(rolling: &Rolling, state: &mut State, (number, count): (u32, u32), batch: Vec<Saga>) {
    let seeds: HashMap<HostName, Seed> =
        batch.iter().map(|saga| (saga.name().clone(), Seed::of(saga, number))).collect();
    let mut up = batch;
    let changes = up.iter().any(Saga::changes);
    let closed = CancellationToken::new();
    loop {
        let watch = watcher(rolling, state.failures, closed.clone());
        let (still, fallen, lost) = batch::advance(up, rolling.forks, &closed, watch).await;
        up = still;
        panicked(rolling, state, &mut up, lost, &seeds).await;
        up = fell(rolling, state, up, fallen).await;
        if up.is_empty() {
            return;
        }
        let Some(step) = batch::barrier_of(&up) else { break };
        let passed = if step.once == Once::Run {
            // A rollout that was stopped has no batch after this one.
            let last = number == count || state.stopped.is_some();
            let needed = changes || state.left_new();
            match state.standing.at(step.id.index, last) {
                Some(step) => {
                    let passed = state.standing.run(&rolling.shared, &mut up, &step, needed).await;
                    passed.inspect_err(|stop| state.of_run(stop.clone()))
                }
                None => Ok(()),
            }
        } else {
            let idle = (!changes).then_some("no host of the batch changes");
            batch::barrier(&rolling.shared, &mut up, &step, idle).await
        };
        if let Err(stop) = passed {
            let fallen = up.into_iter().map(|saga| Fallen { saga, stop: stop.clone() }).collect();
            let none = fell(rolling, state, Vec::new(), fallen).await;
            debug_assert!(none.is_empty(), "nobody stands after a failed barrier");
            return;
        }
        let (still, fallen, lost) = batch::still_held(up, rolling.forks).await;
        up = still;
        panicked(rolling, state, &mut up, lost, &seeds).await;
        up = fell(rolling, state, up, fallen).await;
        if up.is_empty() {
            return;
        }
        for saga in &mut up {
            if saga.barrier().is_some_and(|own| own.id == step.id) {
                saga.pass_barrier();
            }
        }
    }
    commit(rolling, state, number, up, &seeds).await;
}

/// A task that panicked took its connection with it; its host is settled from the plan.
async fn panicked(
    rolling: &Rolling,
    state: &mut State,
    up: &mut [Saga],
    lost: Vec<HostName>,
    seeds: &HashMap<HostName, Seed>,
) {
    let reason = "keyswap itself failed while it worked on this host";
    for name in lost {
        let Some(seed) = seeds.get(&name) else { continue };
        let settling = seed.settling(rolling);
        state.fail(rolling, &name);
        let settled = Box::pin(async {
            // Nobody knows how far it is: only `resume` may say that it is wholly new.
            if rolling.holds() { settling.owed(reason.to_owned()).await } else { settling.undo(reason).await }
        });
        state.results.push(keep_alive(up, settled).await);
    }
}

/// Everything that a host can be settled from without its saga.
struct Seed {
    host: Host,
    plan: HostPlan,
    batch: u32,
    state_dir: String,
}

impl Seed {
    fn of(saga: &Saga, batch: u32) -> Self {
        let state_dir = saga.facts().state_dir.clone();
        Self { host: saga.host().clone(), plan: saga.plan().clone(), batch, state_dir }
    }

    fn settling(&self, rolling: &Rolling) -> Settling {
        let settling = Settling::from_plan(&rolling.shared, &self.host, &self.plan, self.batch);
        Settling { state_dir: Some(self.state_dir.clone()), ..settling }
    }
}

/// Notices, while a batch is under way, that its failures exceed the budget: then no further host of it begins, and where
/// all of it goes back, no host of it begins another step.
fn watcher(
    rolling: &Rolling,
    before: u32,
    closed: CancellationToken,
) -> impl Fn(&Stop) + Clone + Send + Sync + 'static {
    let seen = Arc::new(AtomicU32::new(before));
    let budget = rolling.spec.max_failures;
    let wide = matches!(rolling.spec.on_failure, OnFailure::RollbackBatch | OnFailure::RollbackAll);
    let halt = rolling.shared.halt.clone();
    move |stop: &Stop| {
        if stop.kind == StopKind::Cancelled {
            return;
        }
        if matches!(stop.kind, StopKind::Held | StopKind::Refused) {
            halt.cancel();
            return;
        }
        let failures = seen.fetch_add(1, Ordering::SeqCst) + 1;
        if failures > budget || stop.kind == StopKind::Auth {
            closed.cancel();
            if wide {
                halt.cancel();
            }
        }
    }
}

/// Steps at the end of the playbook that stand for the run, when no host of the last batch was left to wait at them: what
/// was let go before is to be verified all the same. After a stop they are passed over, and that is said.
async fn after_all(rolling: &Rolling, state: &mut State) {
    for step in state.standing.after_all() {
        if let Some(reason) = rolling.stopped_before().or_else(|| state.stopped.clone()) {
            passed_over(&rolling.shared, &step, &reason);
            continue;
        }
        let needed = state.left_new();
        if let Err(stop) = state.standing.run(&rolling.shared, &mut [], &step, needed).await {
            state.of_run(stop);
            if state.outcome.failed && rolling.spec.on_failure == OnFailure::RollbackAll {
                roll_back_committed(rolling, state).await;
            }
        }
    }
}

impl State {
    /// A step that stands for the run did not succeed. That is no failure of single hosts, so no budget bears it.
    fn of_run(&mut self, stop: Stop) {
        if stop.kind == StopKind::Cancelled {
            self.outcome.interrupted = true;
            self.stopped.get_or_insert_with(|| BY_OPERATOR.to_owned());
            return;
        }
        if stop.kind == StopKind::Refused {
            self.outcome.refused = true;
        } else {
            self.outcome.failed = true;
        }
        self.stopped.get_or_insert(stop.reason);
    }

    /// Whether the run has left a host on the new credential.
    fn left_new(&self) -> bool {
        let new = |result: &HostResult| result.status == HostStatus::Changed;
        self.standing.new_before || self.results.iter().any(new)
    }

    fn fail(&mut self, rolling: &Rolling, host: &HostName) {
        self.failures += 1;
        self.outcome.failed = true;
        if self.failures > rolling.spec.max_failures && self.stopped.is_none() {
            self.stopped = Some(format!("{host} failed, and {} failures are borne", rolling.spec.max_failures));
        }
    }
}

/// What becomes of a host that does not go on.
enum Way {
    /// It failed, and goes back.
    Back(String),
    /// It failed, and stays on the new credential.
    Hold(String),
    /// Nothing is wrong with it: it goes back with the rest, or does not begin.
    Rest(String),
    /// It has nothing of ours: somebody else holds it.
    Leave(String),
}

impl Way {
    async fn go(self, saga: Saga) -> HostResult {
        match self {
            Self::Back(reason) => saga.undo(&reason).await,
            Self::Hold(reason) => saga.hold(&reason).await,
            Self::Leave(reason) => saga.spare(HostStatus::Skipped, Some(reason)).await,
            Self::Rest(why) if !saga.touched() => {
                saga.spare(HostStatus::Skipped, Some(format!("not begun: {why}"))).await
            }
            Self::Rest(why) if why == BY_OPERATOR => saga.undo_with_rest(&why).await,
            Self::Rest(why) => saga.undo_with_rest(&format!("taken back with the rest: {why}")).await,
        }
    }
}

/// Why hosts go back that the operator stopped.
const BY_OPERATOR: &str = "stopped by the operator";

/// Settles fallen hosts, and with them, when the budget is exceeded, what the scope says. Gives back who goes on.
async fn fell(rolling: &Rolling, state: &mut State, mut up: Vec<Saga>, fallen: Vec<Fallen>) -> Vec<Saga> {
    if fallen.is_empty() {
        return up;
    }
    let interrupted = rolling.shared.cancel.is_cancelled();
    let (mut any_failed, mut lost_race) = (false, false);
    let mut cancelled = Vec::new();
    let mut going: Vec<(Saga, Way)> = Vec::new();
    for Fallen { saga, stop } in fallen {
        match stop.kind {
            StopKind::Cancelled => cancelled.push(saga),
            // Nothing is wrong with the host: somebody did not want it to go on.
            StopKind::Refused => {
                state.outcome.refused = true;
                state.stopped.get_or_insert(stop.reason);
                cancelled.push(saga);
            }
            // Not a failure of the host: somebody else is at work there, and the whole run waits until they are done.
            StopKind::Held => {
                lost_race = true;
                state.outcome.held = true;
                state.stopped.get_or_insert_with(|| format!("{}: {}", saga.name(), stop.reason));
                going.push((saga, Way::Leave(stop.reason)));
            }
            kind => {
                any_failed = true;
                state.fail(rolling, saga.name());
                if kind == StopKind::Auth {
                    state.stopped.get_or_insert_with(|| format!("{}: {}", saga.name(), stop.reason));
                }
                let way = if rolling.holds() { Way::Hold } else { Way::Back };
                going.push((saga, way(stop.reason)));
            }
        }
    }
    if interrupted && !cancelled.is_empty() {
        state.outcome.interrupted = true;
        state.stopped.get_or_insert_with(|| BY_OPERATOR.to_owned());
    }
    let exceeded = state.stopped.is_some() && any_failed;
    let scope = rolling.spec.on_failure;
    let wide = exceeded && matches!(scope, OnFailure::RollbackBatch | OnFailure::RollbackAll);
    if wide && scope == OnFailure::RollbackBatch {
        let batch = going.first().map(|(saga, _)| saga.batch());
        let why = state.stopped.clone().unwrap_or_default();
        state.outcome.also_back = Some((batch, format!("taken back with the rest: {why}")));
    }
    // Stopped in mid-way by somebody else's failure or by the operator: back, whatever the scope says of failures.
    let why = state.stopped.clone().filter(|_| !interrupted).unwrap_or_else(|| BY_OPERATOR.to_owned());
    going.extend(cancelled.into_iter().map(|saga| (saga, Way::Rest(why.clone()))));
    if wide || lost_race || interrupted {
        let why = state.stopped.clone().filter(|_| wide || lost_race).unwrap_or_else(|| BY_OPERATOR.to_owned());
        going.extend(std::mem::take(&mut up).into_iter().map(|saga| (saga, Way::Rest(why.clone()))));
    }
    // Who goes on waits for them, and says so to its host.
    let results = keep_alive(&mut up, settle(rolling, going)).await;
    state.results.extend(results);
    if exceeded && scope == OnFailure::RollbackAll {
        roll_back_committed(rolling, state).await;
    }
    up
}

/// Settles sagas of a batch side by side, each in its own way.
async fn settle(rolling: &Rolling, going: Vec<(Saga, Way)>) -> Vec<HostResult> {
    let batch = going.first().map_or(0, |(saga, _)| saga.batch());
    let (mut sagas, mut ways) = (Vec::new(), HashMap::new());
    for (saga, way) in going {
        ways.insert(saga.name().clone(), way);
        sagas.push(saga);
    }
    let ways = Arc::new(Mutex::new(ways));
    let (mut results, lost) = batch::side_by_side(sagas, rolling.forks, move |saga| {
        let way = ways.lock().unwrap_or_else(PoisonError::into_inner).remove(saga.name());
        async move { way.unwrap_or_else(|| Way::Back(String::new())).go(saga).await }
    })
    .await;
    results.extend(batch::unknown(&rolling.shared, lost, batch));
    results
}

/// Earlier batches go back too, the last one first.
async fn roll_back_committed(rolling: &Rolling, state: &mut State) {
    let reason = state.stopped.clone().unwrap_or_default();
    let reason = format!("taken back with the rest: {reason}");
    if rolling.spec.on_failure == OnFailure::RollbackAll {
        state.outcome.also_back = Some((None, reason.clone()));
    }
    let committed = std::mem::take(&mut state.committed).into_iter();
    let hosts = committed.map(|host| Returning {
        name: host.host.name.clone(),
        batch: host.batch,
        ready: std::future::ready(Ok(host)),
    });
    let (undone, _) = newest_first(hosts.collect(), &rolling.shared, rolling.forks, &reason, None).await;
    let names: HashSet<&HostName> = undone.iter().map(|result| &result.host).collect();
    state.results.retain(|earlier| !names.contains(&earlier.host));
    state.results.extend(undone);
}

/// All of the batch has passed: its hosts are let go.
async fn commit(rolling: &Rolling, state: &mut State, number: u32, up: Vec<Saga>, seeds: &HashMap<HostName, Seed>) {
    let touched: Vec<HostName> = up.iter().filter(|saga| saga.touched()).map(|saga| saga.name().clone()).collect();
    if !touched.is_empty() {
        let record = Record::CommitStarted { batch: number, hosts: touched };
        if let Err(error) = rolling.shared.journal.append(None, record).await {
            let stop = Stop::from(error);
            let fallen = up.into_iter().map(|saga| Fallen { saga, stop: stop.clone() }).collect();
            let _ = fell(rolling, state, Vec::new(), fallen).await;
            return;
        }
    }
    let (done, lost) = batch::side_by_side(up, rolling.forks, Saga::commit).await;
    let mut unsettled: Vec<(Settling, String, bool)> = Vec::new();
    for result in done {
        match result {
            Ok(result) => {
                if result.status == HostStatus::Changed
                    && let Some(seed) = seeds.get(&result.host)
                {
                    let mut settling = seed.settling(rolling);
                    settling.committed = true;
                    settling.with_rest = true;
                    state.committed.push(settling);
                }
                state.results.push(result);
            }
            Err((settling, stop)) => unsettled.push((*settling, stop.reason, stop.kind == StopKind::Lost)),
        }
    }
    for name in lost {
        if let Some(seed) = seeds.get(&name) {
            unsettled.push((seed.settling(rolling), "keyswap itself failed".to_owned(), true));
        }
    }
    for (settling, reason, unknown) in unsettled {
        state.fail(rolling, &settling.host.name.clone());
        let reason = format!("it could not be let go: {reason}");
        // Where the old one must not come back, what may be new already is not taken back for want of an answer.
        let result =
            if unknown && rolling.holds() { settling.owed(reason).await } else { settling.undo(&reason).await };
        state.results.push(result);
    }
    let wide = matches!(rolling.spec.on_failure, OnFailure::RollbackBatch | OnFailure::RollbackAll);
    if state.stopped.is_some() && state.outcome.failed && wide {
        let all = rolling.spec.on_failure == OnFailure::RollbackAll;
        let why = state.stopped.clone().unwrap_or_default();
        state.outcome.also_back = Some(((!all).then_some(number), format!("taken back with the rest: {why}")));
        let (back, stay): (Vec<Settling>, Vec<Settling>) =
            std::mem::take(&mut state.committed).into_iter().partition(|host| all || host.batch == number);
        state.committed = back;
        roll_back_committed(rolling, state).await;
        state.committed = stay;
    }
}
