//! The rollout itself: batch after batch, until the end or the budget.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Outcome;
use super::batch::{self, Fallen};
use super::select::assign_batches;
use super::standing::{Standing, passed_over};
use crate::engine::{Saga, Settling, Shared, Stop, StopKind};
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
        assign_batches(&rolling.spec.batches, &mut sagas);
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
    let mut batches: BTreeMap<u32, Vec<Saga>> = BTreeMap::new();
    for saga in sagas {
        batches.entry(saga.batch()).or_default().push(saga);
    }
    let count = batches.keys().next_back().copied().unwrap_or(0);
    for (number, batch) in batches {
        if state.stopped.is_none() && rolling.shared.cancel.is_cancelled() {
            state.stopped = Some("stopped by the operator".to_owned());
            state.outcome.interrupted = true;
        }
        if let Some(reason) = &state.stopped {
            let (why, reason) = (reason.clone(), format!("not begun: {reason}"));
            // Of a run that is gone on with, hosts may have been in its midst: they are not left so.
            let (begun, waiting): (Vec<Saga>, Vec<Saga>) = batch.into_iter().partition(Saga::touched);
            state.results.extend(undo_others(rolling, begun, Some(&why)).await);
            for saga in waiting {
                state.results.push(saga.spare(HostStatus::Skipped, Some(reason.clone())).await);
            }
            continue;
        }
        let hosts = batch.iter().map(|saga| saga.name().clone()).collect();
        rolling.shared.events.emit(None, None, EventKind::BatchStarted { batch: number, of: count, hosts });
        one_batch(rolling, &mut state, (number, count), batch).await;
        let done = u32::try_from(state.results.len()).unwrap_or(u32::MAX);
        let hosts_total = u32::try_from(total).unwrap_or(u32::MAX);
        rolling.shared.events.emit(
            None,
            None,
            EventKind::BatchFinished { batch: number, of: count, hosts_done: done, hosts_total },
        );
        if number < count && state.stopped.is_none() && !rolling.spec.pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(rolling.spec.pause) => {}
                () = rolling.shared.cancel.cancelled() => {}
            }
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
    loop {
        let (still, fallen, lost) = batch::advance(up, rolling.forks, watcher(rolling, state.failures)).await;
        up = still;
        // A task that panicked took its connection with it; its host is settled from the plan.
        for name in lost {
            if let Some(seed) = seeds.get(&name) {
                let settling = seed.settling(rolling);
                state.fail(rolling, &name);
                state.results.push(settling.undo("keyswap itself failed while it worked on this host").await);
            }
        }
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
        for saga in &mut up {
            if saga.barrier().is_some_and(|own| own.id == step.id) {
                saga.pass_barrier();
            }
        }
    }
    commit(rolling, state, number, up, &seeds).await;
}

/// Everything that a host can be settled from without its saga.
struct Seed {
    host: Host,
    plan: HostPlan,
    batch: u32,
}

impl Seed {
    fn of(saga: &Saga, batch: u32) -> Self {
        Self { host: saga.host().clone(), plan: saga.plan().clone(), batch }
    }

    fn settling(&self, rolling: &Rolling) -> Settling {
        Settling::from_plan(&rolling.shared, &self.host, &self.plan, self.batch)
    }
}

/// Notices, while a batch is under way, that its failures exceed the budget and that all of it goes back: then no host
/// of it begins another step.
fn watcher(rolling: &Rolling, before: u32) -> impl Fn(&Stop) + Clone + Send + Sync + 'static {
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
        if wide && (failures > budget || stop.kind == StopKind::Auth) {
            halt.cancel();
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
            self.stopped.get_or_insert_with(|| "stopped by the operator".to_owned());
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

/// Settles fallen hosts, and with them, when the budget is exceeded, what the scope says. Gives back who goes on.
async fn fell(rolling: &Rolling, state: &mut State, up: Vec<Saga>, fallen: Vec<Fallen>) -> Vec<Saga> {
    if fallen.is_empty() {
        return up;
    }
    let (mut failed, mut cancelled, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for one in fallen {
        match one.stop.kind {
            StopKind::Cancelled => cancelled.push(one),
            // Nothing is wrong with the host: somebody did not want it to go on.
            StopKind::Refused => {
                state.outcome.refused = true;
                state.stopped.get_or_insert_with(|| one.stop.reason.clone());
                cancelled.push(one);
            }
            StopKind::Held => held.push(one),
            _ => failed.push(one),
        }
    }
    let lost_race = !held.is_empty();
    for one in held {
        // Not a failure of the host: somebody else is at work there, and the whole run waits until they are done.
        state.outcome.held = true;
        state.stopped.get_or_insert_with(|| format!("{}: {}", one.saga.name(), one.stop.reason));
        state.results.push(one.saga.spare(HostStatus::Skipped, Some(one.stop.reason)).await);
    }
    let interrupted = rolling.shared.cancel.is_cancelled();
    if interrupted && !cancelled.is_empty() {
        state.outcome.interrupted = true;
        state.stopped.get_or_insert_with(|| "stopped by the operator".to_owned());
    }
    for one in &failed {
        let name = one.saga.name().clone();
        state.fail(rolling, &name);
        if one.stop.kind == StopKind::Auth && state.stopped.is_none() {
            state.stopped = Some(format!("{name}: {}", one.stop.reason));
        }
    }
    let exceeded = state.stopped.is_some() && !failed.is_empty();
    let scope = rolling.spec.on_failure;
    let hold = exceeded && scope == OnFailure::Hold;
    let wide = exceeded && matches!(scope, OnFailure::RollbackBatch | OnFailure::RollbackAll);
    let mut results = undo_fallen(rolling, failed, hold).await;
    // Stopped in mid-way by somebody else's failure or by the operator: back, whatever the scope says of failures.
    let why = if interrupted { None } else { state.stopped.clone() };
    let cancelled = cancelled.into_iter().map(|one| one.saga).collect();
    results.extend(undo_others(rolling, cancelled, why.as_deref()).await);
    let mut up = up;
    if wide || lost_race || (interrupted && !up.is_empty()) {
        let why = if wide || lost_race { state.stopped.clone() } else { None };
        results.extend(undo_others(rolling, std::mem::take(&mut up), why.as_deref()).await);
    }
    state.results.extend(results);
    if exceeded && scope == OnFailure::RollbackAll {
        roll_back_committed(rolling, state).await;
    }
    up
}

async fn undo_fallen(rolling: &Rolling, fallen: Vec<Fallen>, hold: bool) -> Vec<HostResult> {
    let reasons: HashMap<HostName, String> =
        fallen.iter().map(|one| (one.saga.name().clone(), one.stop.reason.clone())).collect();
    let reasons = Arc::new(reasons);
    back(rolling, fallen.into_iter().map(|one| one.saga).collect(), |saga| {
        let reasons = Arc::clone(&reasons);
        async move {
            let reason = reasons.get(saga.name()).cloned().unwrap_or_default();
            if hold { saga.hold(&reason).await } else { saga.undo(&reason).await }
        }
    })
    .await
}

async fn undo_others(rolling: &Rolling, sagas: Vec<Saga>, why: Option<&str>) -> Vec<HostResult> {
    let reason = match why {
        Some(why) => format!("taken back with the rest: {why}"),
        None => "stopped by the operator".to_owned(),
    };
    back(rolling, sagas, |saga| {
        let reason = reason.clone();
        async move { saga.undo_with_rest(&reason).await }
    })
    .await
}

/// Settles sagas of a batch side by side.
async fn back<F, Fut>(rolling: &Rolling, sagas: Vec<Saga>, work: F) -> Vec<HostResult>
where
    F: Fn(Saga) -> Fut,
    Fut: Future<Output = HostResult> + Send + 'static,
{
    let batch = sagas.first().map_or(0, Saga::batch);
    let (mut results, lost) = batch::side_by_side(sagas, rolling.forks, work).await;
    results.extend(batch::unknown(&rolling.shared, lost, batch));
    results
}

/// Earlier batches go back too, the last one first.
async fn roll_back_committed(rolling: &Rolling, state: &mut State) {
    let reason = state.stopped.clone().unwrap_or_default();
    let reason = format!("taken back with the rest: {reason}");
    if rolling.spec.on_failure == OnFailure::RollbackAll {
        state.outcome.all_back = Some(reason.clone());
    }
    let mut committed = std::mem::take(&mut state.committed);
    while let Some(last) = committed.iter().map(|host| host.batch).max() {
        let (now, rest): (Vec<Settling>, Vec<Settling>) = committed.into_iter().partition(|host| host.batch == last);
        committed = rest;
        let undone = batch::undo_all(now, rolling.forks, &reason).await;
        let names: HashSet<&HostName> = undone.iter().map(|result| &result.host).collect();
        state.results.retain(|earlier| !names.contains(&earlier.host));
        state.results.extend(undone);
    }
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
    let mut unsettled: Vec<(Settling, String)> = Vec::new();
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
            Err((settling, stop)) => unsettled.push((*settling, stop.reason)),
        }
    }
    for name in lost {
        if let Some(seed) = seeds.get(&name) {
            unsettled.push((seed.settling(rolling), "keyswap itself failed".to_owned()));
        }
    }
    for (settling, reason) in unsettled {
        state.fail(rolling, &settling.host.name.clone());
        state.results.push(settling.undo(&format!("it could not be let go: {reason}")).await);
    }
    let wide = matches!(rolling.spec.on_failure, OnFailure::RollbackBatch | OnFailure::RollbackAll);
    if state.stopped.is_some() && state.outcome.failed && wide {
        let all = rolling.spec.on_failure == OnFailure::RollbackAll;
        let (back, stay): (Vec<Settling>, Vec<Settling>) =
            std::mem::take(&mut state.committed).into_iter().partition(|host| all || host.batch == number);
        state.committed = back;
        roll_back_committed(rolling, state).await;
        state.committed = stay;
    }
}
