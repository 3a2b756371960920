//! Lives of controllers over a simulated world: what `run`, `resume`, `resume --back` and `rollback` do, without a terminal.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use keyswap::engine::{Patience, Shared};
use keyswap::event::Sink;
use keyswap::journal::{Journal, LineHash, Log, Medium, Operator, Record, ReopenCommand, RunPhase, RunState};
use keyswap::model::{BatchSize, HostStatus, Http, OnFailure, Rollout, RunId, Services as Servers, VerifyPublish};
use keyswap::plan::{PlannedHost, RunPlan, VERSION};
use keyswap::rollout::{self, Outcome, Rolling};
use keyswap::secret::SecretValue;
use keyswap::step::{ServiceError, Services, Values, Verified};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::fault::{Fault, Kind};
use super::link::SimConnect;
use super::setting::{self, GUARD, NEW};
use super::world::{HANG, World};

/// What a controller is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Life {
    Run,
    Resume,
    /// `resume`, where the secret that is given again is another one.
    ResumeOther,
    Back,
    Rollback,
}

/// What outlives a controller: the run's directory.
pub(super) struct Controllers {
    pub(super) world: Arc<World>,
    run: RunId,
    plan: Option<RunPlan>,
    /// The journal's length and what it tells.
    known: RefCell<(usize, Rc<Known>)>,
}

/// What a journal tells that is read again.
#[derive(Default)]
struct Known {
    state: RunState,
    head: Option<LineHash>,
    good_bytes: usize,
}

/// How a life ended by itself.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) code: u8,
}

struct Memory {
    world: Arc<World>,
    life: CancellationToken,
    waiting: Vec<u8>,
}

impl Medium for Memory {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let refused = || Err(io::Error::other("no space left on device"));
        if self.life.is_cancelled() {
            return refused();
        }
        let text = String::from_utf8_lossy(&self.waiting);
        let name = text
            .lines()
            .last()
            .and_then(|line| line.split("\"rec\":\"").nth(1))
            .and_then(|rest| rest.split('"').next());
        let Some(name) = name.map(str::to_owned) else {
            self.world.lock().journal.append(&mut self.waiting);
            return Ok(());
        };
        let fault = self.world.point(Kind::Journal, "journal", &name);
        let half = self.waiting.len() / 2;
        match fault {
            Some(Fault::FailBefore) => {
                self.world.lock().journal_failed = true;
                self.waiting.clear();
                return refused();
            }
            Some(Fault::FailAfter) => {
                let mut state = self.world.lock();
                state.journal_failed = true;
                state.journal.append(&mut self.waiting);
                return refused();
            }
            Some(Fault::Kill) => {
                self.world.kill();
                return refused();
            }
            Some(Fault::KillTorn) => {
                self.world.lock().journal.extend_from_slice(&self.waiting[..half]);
                self.world.kill();
                return refused();
            }
            Some(Fault::KillAfter) => {
                self.world.lock().journal.append(&mut self.waiting);
                self.world.kill();
                return refused();
            }
            _ => self.world.lock().journal.append(&mut self.waiting),
        }
        Ok(())
    }
}

/// The verification at the end of a batch.
struct Verification {
    well: bool,
    /// How many go well all the same.
    first: AtomicUsize,
}

impl Services for Verification {
    fn preflight<'a>(&'a self, _: &'a VerifyPublish) -> BoxFuture<'a, Result<Vec<String>, ServiceError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn verify_publish<'a>(
        &'a self,
        _: &'a VerifyPublish,
        _: &'a (dyn Fn(String) + Send + Sync),
        _: CancellationToken,
    ) -> BoxFuture<'a, Result<Verified, ServiceError>> {
        Box::pin(async { Ok(Verified::default()) })
    }

    fn http<'a>(&'a self, _: &'a Http) -> BoxFuture<'a, Result<String, ServiceError>> {
        Box::pin(async {
            // Long enough for a sign of life in between.
            sleep(Duration::from_secs(50)).await;
            let spared =
                self.first.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            if self.well || spared {
                Ok("200".to_owned())
            } else {
                Err(ServiceError { message: "status 500".to_owned(), auth: false })
            }
        })
    }
}

impl Controllers {
    pub(super) fn new(world: Arc<World>) -> Self {
        Self { world, run: "20260101-000000-abcdef".parse().unwrap(), plan: None, known: RefCell::default() }
    }

    /// What the journal tells.
    pub(super) fn state(&self) -> RunState {
        self.known().state.clone()
    }

    fn known(&self) -> Rc<Known> {
        let state = self.world.lock();
        let mut known = self.known.borrow_mut();
        if known.0 != state.journal.len() {
            let log = Log::parse(Path::new("journal"), &state.journal).unwrap_or_else(|error| panic!("{error}"));
            let told = RunState::fold(&log.entries).unwrap_or_else(|error| panic!("{error}"));
            let good_bytes = usize::try_from(log.good_bytes).unwrap();
            *known = (state.journal.len(), Rc::new(Known { state: told, head: log.head().cloned(), good_bytes }));
        }
        Rc::clone(&known.1)
    }

    fn reopen(&self, life: &CancellationToken) -> (Journal, RunState) {
        let known = self.known();
        {
            let mut state = self.world.lock();
            state.journal.truncate(known.good_bytes);
            state.journal_failed = false;
            self.known.borrow_mut().0 = known.good_bytes;
        }
        let medium = Memory { world: Arc::clone(&self.world), life: life.clone(), waiting: Vec::new() };
        let (state, head) = (known.state.clone(), known.head.clone());
        let journal = Journal::inline(self.run.clone(), Box::new(medium), state.clone(), head).unwrap();
        (journal, state)
    }

    fn shared(&self, journal: Journal, life: &CancellationToken, secret: &[u8]) -> Shared {
        let cancel = CancellationToken::new();
        let (events, _) = Sink::new(self.run.clone());
        let mut values = Values::new();
        values.insert("token".to_owned(), SecretValue::new(Zeroizing::new(secret.to_vec())).unwrap());
        Shared {
            run: self.run.clone(),
            owner: "ops@controller".to_owned(),
            about: Arc::default(),
            connect: Arc::new(SimConnect { world: Arc::clone(&self.world), life: life.clone() }),
            journal,
            events,
            values: Arc::new(values),
            services: Arc::new(Verification {
                well: self.world.setting.verifies,
                first: AtomicUsize::new(usize::from(self.world.setting.staged)),
            }),
            halt: cancel.child_token(),
            cancel,
            patience: Patience::default(),
            guard: self.world.setting.guard.then_some(GUARD),
        }
    }

    /// Fewer than hosts, where they stand in one batch.
    fn forks(&self) -> usize {
        if self.world.setting.staged || self.world.setting.hosts == 1 { 5 } else { 1 }
    }

    fn spec(&self) -> Rollout {
        let staged = self.world.setting.staged;
        Rollout {
            batches: vec![if staged { BatchSize::Count(1) } else { BatchSize::Percent(100) }],
            max_failures: 0,
            on_failure: if staged { OnFailure::RollbackAll } else { OnFailure::RollbackBatch },
            pause: Duration::ZERO,
            guard: self.world.setting.guard.then_some(GUARD),
        }
    }

    /// One controller, until it ends or is killed.
    pub(super) async fn live(&mut self, life: Life) -> Option<Ended> {
        let token = CancellationToken::new();
        self.world.lock().life = token.clone();
        let work = async {
            match life {
                Life::Run => self.run(&token).await,
                Life::Resume => self.resume(&token, NEW).await,
                Life::ResumeOther => self.resume(&token, b"test-token-other").await,
                Life::Back => self.back(&token, ReopenCommand::ResumeBack).await,
                Life::Rollback => self.back(&token, ReopenCommand::Rollback).await,
            }
        };
        tokio::select! {
            biased;
            () = token.cancelled() => None,
            ended = work => (!token.is_cancelled()).then_some(ended),
        }
    }

    async fn run(&mut self, life: &CancellationToken) -> Ended {
        let (journal, _) = self.reopen(life);
        let shared = self.shared(journal, life, NEW);
        let hosts = (0..self.world.setting.hosts)
            .map(|n| (setting::host(n), setting::steps(self.world.setting.story)))
            .collect::<Vec<_>>();
        let names = hosts.iter().map(|(host, _)| host.name.clone()).collect();
        let found = rollout::preflight(&shared, hosts, 5).await;
        if !found.spared.is_empty() {
            // Not begun: not every host could be worked on.
            let mut outcome = Outcome { failed: true, ..Outcome::default() };
            for saga in found.ready {
                outcome.hosts.push(saga.spare(HostStatus::Skipped, None).await);
            }
            return Ended { outcome, code: 4 };
        }
        let staged = self.world.setting.staged;
        let planned = (1u32..).zip(&found.ready).map(|(n, saga)| PlannedHost {
            host: saga.host().clone(),
            batch: if staged { n } else { 1 },
            plan: saga.plan().clone(),
        });
        let plan = RunPlan {
            version: VERSION,
            run: self.run.clone(),
            of: None,
            playbook: "test".to_owned(),
            rollout: self.spec(),
            secrets: Vec::new(),
            services: Servers::default(),
            approval: Vec::new(),
            hosts: planned.collect(),
            forks: self.forks(),
            inventory: "inventory".to_owned(),
            inventory_files: Vec::new(),
        };
        self.plan = Some(plan);
        let started = Record::RunStarted {
            command: "run".to_owned(),
            playbook: "test".to_owned(),
            digest: "0".to_owned(),
            hosts: names,
            by: Operator::default(),
        };
        if shared.journal.append(None, started).await.is_err() {
            return Ended { outcome: Outcome { failed: true, ..Outcome::default() }, code: 1 };
        }
        for (name, value) in shared.values.iter() {
            let record = Record::SecretKnown { name: name.clone(), fingerprint: value.fingerprint().clone() };
            let _ = shared.journal.append_lazy(None, record);
        }
        let rolling = Rolling::new(shared.clone(), self.spec(), self.forks());
        let outcome = rollout::run(&rolling, found.ready).await;
        let code = rollout::finish(&shared, &outcome).await;
        Ended { outcome, code }
    }

    async fn resume(&mut self, life: &CancellationToken, secret: &[u8]) -> Ended {
        let known = self.state();
        if known.phase == RunPhase::Fresh || !known.needs_settling() {
            return Ended { outcome: Outcome::default(), code: 0 };
        }
        let plan = self.plan.clone().unwrap();
        let (journal, state) = self.reopen(life);
        let shared = self.shared(journal, life, secret);
        if rollout::same_secrets(&plan, &state, &shared.values).is_err() {
            return self.back(life, ReopenCommand::ResumeBack).await;
        }
        let record = Record::RunReopened { command: ReopenCommand::Resume, by: Operator::default() };
        if shared.journal.append(None, record).await.is_err() {
            return Ended { outcome: Outcome { failed: true, ..Outcome::default() }, code: 1 };
        }
        let outcome = rollout::go_on(&shared, &plan, &state, self.forks()).await;
        let code = rollout::finish(&shared, &outcome).await;
        Ended { outcome, code }
    }

    async fn back(&mut self, life: &CancellationToken, command: ReopenCommand) -> Ended {
        let Some(plan) = self.plan.clone() else { return Ended { outcome: Outcome::default(), code: 0 } };
        let (journal, state) = self.reopen(life);
        if state.phase != RunPhase::Open && !state.hosts.values().any(|host| rollout::goes_back(command, host)) {
            return Ended { outcome: Outcome::default(), code: 0 };
        }
        let shared = self.shared(journal, life, NEW);
        let record = Record::RunReopened { command, by: Operator::default() };
        if shared.journal.append(None, record).await.is_err() {
            return Ended { outcome: Outcome { failed: true, ..Outcome::default() }, code: 1 };
        }
        let how = rollout::Back { command, reason: "taken back", stops: true };
        let outcome = rollout::take_back(&shared, &plan, &state, how, 5).await;
        let code = rollout::finish_back(&shared, &outcome).await;
        Ended { outcome, code }
    }

    /// Lets time pass: leases end, what hangs wakes up.
    pub(super) async fn pass(&self) {
        sleep(HANG * 2).await;
    }
}
