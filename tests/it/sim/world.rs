//! The simulated world: machines, their clock, power and link, and the one place where faults are let loose.
//!
//! Everything that happens on a machine is a micro-operation ([`World::point`] counts it); a case names the points at which
//! something goes wrong. Time is the runtime's paused clock, so a case is the same each time it is run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::check;
use super::fault::{Fault, Injector, Kind, Point};
use super::fs::{Fs, Loss};
use super::setting::{self, Goals, Setting};

/// How long something that hangs does so: longer than any lease.
pub(super) const HANG: Duration = Duration::from_secs(3600);

/// Said of an operation that a controller had asked for which is gone.
pub(super) const LEFT_OVER: &str = "left over:";

pub(super) struct World {
    state: Mutex<State>,
    pub(super) setting: Setting,
    pub(super) goals: Goals,
}

pub(super) struct State {
    pub(super) machines: Vec<Machine>,
    pub(super) injector: Injector,
    pub(super) violations: Vec<String>,
    /// What lies synced in the controller's journal.
    pub(super) journal: Vec<u8>,
    /// The disk of the controller has refused a record.
    pub(super) journal_failed: bool,
    /// Cancelled when the controller that lives now is killed.
    pub(super) life: CancellationToken,
    /// What was not synced when each life after the first one began.
    pub(super) unsynced: Vec<Vec<String>>,
}

pub(super) struct Machine {
    pub(super) fs: Fs,
    pub(super) boot: u32,
    up: bool,
    link: bool,
    began: Instant,
    ticks_before: u64,
    pub(super) sessions: BTreeMap<u64, Session>,
    next_pid: u64,
    pub(super) runner: Option<Proc>,
    pub(super) enabled: bool,
    pub(super) watcher: Option<u64>,
    daemon: Arc<tokio::sync::Mutex<()>>,
    jobs: Vec<AbortHandle>,
    /// The run's own command was run so often, and taken back so often.
    pub(super) commands: (u32, u32),
    /// What the checker has seen last.
    checked: (u64, (u32, u32)),
}

/// A privileged shell, or the guard's watcher.
pub(super) struct Session {
    pub(super) boot: u32,
    pub(super) alive: bool,
    pub(super) busy: bool,
    pub(super) cut: CancellationToken,
    pub(super) task: Option<AbortHandle>,
}

/// The runner's process and what it read when it started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proc {
    pub(super) pid: u64,
    pub(super) start: u64,
    pub(super) pointer: String,
    pub(super) content: Vec<u8>,
}

impl Machine {
    fn new(setting: &Setting) -> Self {
        let mut machine = Self {
            fs: setting::files(setting),
            boot: 1,
            up: true,
            link: true,
            began: Instant::now(),
            ticks_before: 1_000_000,
            sessions: BTreeMap::new(),
            next_pid: 100,
            runner: None,
            enabled: setting.up,
            watcher: None,
            daemon: Arc::default(),
            jobs: Vec::new(),
            commands: (0, 0),
            checked: (0, (0, 0)),
        };
        if setting.up {
            machine.start_runner();
        }
        machine.ticks_before += 100;
        machine
    }

    /// Now, in the unit of process starts.
    pub(super) fn ticks(&self) -> u64 {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.ticks_before + elapsed / 10
    }

    pub(super) fn boot_id(&self) -> String {
        format!("b{}", self.boot)
    }

    pub(super) fn start_runner(&mut self) {
        let pointer = setting::pointer(&self.fs);
        let content = self.fs.get(&pointer).map(|file| file.content.clone()).unwrap_or_default();
        self.next_pid += 1;
        self.runner = Some(Proc { pid: self.next_pid, start: self.ticks(), pointer, content });
    }

    pub(super) fn new_session(&mut self) -> u64 {
        self.next_pid += 1;
        let session = Session { boot: self.boot, alive: true, busy: false, cut: CancellationToken::new(), task: None };
        self.sessions.insert(self.next_pid, session);
        self.next_pid
    }

    pub(super) fn alive(&self, pid: u64) -> bool {
        self.sessions.get(&pid).is_some_and(|session| session.alive && session.boot == self.boot)
    }

    pub(super) fn reachable(&self) -> bool {
        self.up && self.link
    }

    pub(super) fn kill_session(&mut self, pid: u64) {
        if let Some(session) = self.sessions.get_mut(&pid) {
            session.alive = false;
            if let Some(task) = session.task.take() {
                task.abort();
            }
        }
    }

    /// The links of all sessions are gone; who is at work ends after it.
    pub(super) fn cut(&mut self) {
        for (pid, session) in &mut self.sessions {
            if Some(*pid) == self.watcher {
                continue;
            }
            session.cut.cancel();
            if !session.busy {
                session.alive = false;
            }
        }
    }
}

impl World {
    pub(super) fn new(setting: Setting, faults: &[(usize, usize, Fault)]) -> Arc<Self> {
        let machines = (0..setting.hosts).map(|_| Machine::new(&setting)).collect();
        let state = State {
            machines,
            injector: Injector::new(faults),
            violations: Vec::new(),
            journal: Vec::new(),
            journal_failed: false,
            life: CancellationToken::new(),
            unsynced: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), setting, goals: Goals::of(&setting) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Looks at or changes a machine, and has the checker look at it afterwards.
    pub(super) fn at<R>(&self, m: usize, work: impl FnOnce(&mut Machine) -> R) -> R {
        let mut state = self.lock();
        let machine = &mut state.machines[m];
        let answer = work(machine);
        let seen = (machine.fs.version, machine.commands);
        if machine.checked != seen {
            machine.checked = seen;
            let wrong = check::always(&self.goals, machine);
            state.violations.extend(wrong);
        }
        answer
    }

    pub(super) fn violation(&self, text: String) {
        self.lock().violations.push(text);
    }

    /// Something is about to happen; says what goes wrong there.
    pub(super) fn point(&self, kind: Kind, op: &str, what: &str) -> Option<Fault> {
        self.lock().injector.point(Point { kind, op: op.to_owned(), what: what.to_owned() })
    }

    /// The controller dies: nothing more is sent or written by it.
    pub(super) fn kill(&self) {
        let mut state = self.lock();
        state.life.cancel();
        for machine in &mut state.machines {
            machine.cut();
        }
    }

    /// What a fault does to the controller, the link and the machine.
    pub(super) fn hit(self: &Arc<Self>, m: usize, fault: Fault) {
        let soon = Some(Duration::from_secs(5));
        match fault {
            Fault::FailBefore | Fault::FailAfter | Fault::Asleep => {}
            Fault::Kill | Fault::KillAfter | Fault::KillTorn | Fault::KillHang => self.kill(),
            Fault::LinkGone => self.link_down(m, None),
            Fault::LinkBack | Fault::LinkHang => self.link_down(m, soon),
            Fault::Reboot => self.reboot(m, None),
            Fault::PowerLost => self.reboot(m, Some(Loss::All)),
            Fault::PowerTorn => self.reboot(m, Some(Loss::Content)),
        }
    }

    pub(super) fn link_down(self: &Arc<Self>, m: usize, back: Option<Duration>) {
        self.at(m, |machine| {
            machine.link = false;
            machine.cut();
        });
        if let Some(back) = back {
            let world = Arc::clone(self);
            tokio::spawn(async move {
                sleep(back).await;
                world.at(m, |machine| machine.link = true);
            });
        }
    }

    /// All machines are reachable again, in time.
    pub(super) fn mend_links(&self) {
        for machine in &mut self.lock().machines {
            machine.link = true;
        }
    }

    /// The machine goes down and comes up again: the runner if it is enabled, the guard if it is to be started, then sshd.
    pub(super) fn reboot(self: &Arc<Self>, m: usize, loss: Option<Loss>) {
        self.at(m, |machine| {
            machine.up = false;
            machine.cut();
            for pid in machine.sessions.keys().copied().collect::<Vec<_>>() {
                machine.kill_session(pid);
            }
            for job in machine.jobs.drain(..) {
                job.abort();
            }
            machine.daemon = Arc::default();
            machine.runner = None;
            machine.watcher = None;
            match loss {
                Some(loss) => machine.fs.lose(loss),
                None => machine.fs.flush(),
            }
            machine.boot += 1;
            machine.ticks_before = 0;
            machine.began = Instant::now();
        });
        let world = Arc::clone(self);
        let boot = self.at(m, |machine| machine.boot);
        tokio::spawn(async move {
            let same = |world: &World| world.at(m, |machine| machine.boot) == boot;
            sleep(Duration::from_secs(2)).await;
            if !same(&world) {
                return;
            }
            world.at(m, |machine| {
                if machine.enabled {
                    machine.start_runner();
                }
            });
            sleep(Duration::from_secs(1)).await;
            if same(&world) && world.at(m, |machine| machine.fs.get(setting::HOOK).is_some()) {
                super::guard::start(&world, m);
            }
            sleep(Duration::from_secs(1)).await;
            if same(&world) {
                world.at(m, |machine| machine.up = true);
            }
        });
    }

    /// The service manager stops or restarts the runner: its own work, which goes on when whoever asked for it is gone.
    pub(super) async fn service(self: &Arc<Self>, asks: Ctx, restart: bool) {
        let (world, m) = (Arc::clone(self), asks.m);
        let job = tokio::spawn(async move {
            let daemon = world.at(m, |machine| Arc::clone(&machine.daemon));
            let _turn = daemon.lock().await;
            world.at(m, |machine| machine.runner = None);
            if restart {
                sleep(Duration::from_secs(1)).await;
                if let Some(fault) = asks.point(Kind::Daemon, "the runner is down") {
                    Ctx::strike(&world, m, fault).await;
                }
                world.at(m, Machine::start_runner);
            }
        });
        self.at(m, |machine| machine.jobs.push(job.abort_handle()));
        let _ = job.await;
    }
}

/// A process at work on a machine.
#[derive(Clone)]
pub(super) struct Ctx {
    pub(super) world: Arc<World>,
    pub(super) m: usize,
    pub(super) pid: u64,
    pub(super) op: String,
    /// The life of the controller that asked for it; the guard works for nobody.
    pub(super) life: Option<usize>,
}

impl Ctx {
    /// Something is about to happen. What a controller that is gone has left at work is no operation of the next one.
    pub(super) fn point(&self, kind: Kind, what: &str) -> Option<Fault> {
        let now = self.world.lock().injector.life;
        if self.life.is_none_or(|life| life == now) {
            self.world.point(kind, &self.op, what)
        } else {
            self.world.point(kind, &format!("{LEFT_OVER} {}", self.op), what)
        }
    }

    /// What strikes a process on the host: some of it makes it hang, or is its end.
    pub(super) async fn strike(world: &Arc<World>, m: usize, fault: Fault) {
        world.hit(m, fault);
        match fault {
            Fault::KillHang | Fault::LinkHang => sleep(HANG).await,
            Fault::Reboot | Fault::PowerLost | Fault::PowerTorn => std::future::pending().await,
            _ => {}
        }
    }

    /// One micro-operation: `Err` when the system says that it failed, whether or not it did.
    pub(super) async fn micro<R>(&self, what: &str, work: impl FnOnce(&mut Machine) -> R) -> Result<R, ()> {
        sleep(Duration::from_millis(10)).await;
        match self.point(Kind::Micro, what) {
            Some(Fault::FailBefore) => return Err(()),
            Some(Fault::FailAfter) => {
                self.world.at(self.m, work);
                return Err(());
            }
            Some(fault) => Self::strike(&self.world, self.m, fault).await,
            None => {}
        }
        Ok(self.world.at(self.m, work))
    }

    pub(super) fn look<R>(&self, work: impl FnOnce(&mut Machine) -> R) -> R {
        self.world.at(self.m, work)
    }
}
