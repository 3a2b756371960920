//! Lock, lease and fence of a simulated host: the name of the only file in `cas`, as `state.sh` treats it.

use std::time::Duration;

use keyswap::remote::{FailClass, Hold};
use tokio::time::sleep;

use super::lib::{Done, GRACE, die, private, run_dir};
use super::world::{Ctx, Machine};

/// The name of the only file in `cas`.
#[derive(Debug, Clone)]
pub(super) struct Cas {
    pub(super) name: String,
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) phase: String,
    pub(super) run: String,
    pub(super) owner: String,
    pub(super) boot: String,
    pub(super) until: String,
}

/// Where it lies.
pub(super) const CAS: &str = "/k/cas";

impl Cas {
    /// What a request relies on: a renewed lease is the same state.
    pub(super) fn seen(&self) -> String {
        format!("{}.{}.{}.{}.{}", self.epoch, self.phase, self.run, self.owner, self.boot)
    }
}

pub(super) fn cas_of(machine: &Machine) -> Option<Cas> {
    cas_named(machine.fs.first(CAS)?)
}

/// What such a name says.
pub(super) fn cas_named(name: &str) -> Option<Cas> {
    let mut parts = name.split('.');
    let mut next = || parts.next().map(str::to_owned);
    Some(Cas {
        name: name.to_owned(),
        epoch: next()?.parse().ok()?,
        generation: next()?.parse().ok()?,
        phase: next()?,
        run: next()?,
        owner: next()?,
        boot: next()?,
        until: next()?,
    })
}

pub(super) fn owner_pid(owner: &str) -> u64 {
    owner.parse().unwrap_or(0)
}

/// Guard and limit in hundredths of a second.
fn lease(guard: Duration, limit: Duration) -> u64 {
    u64::try_from((guard + limit).as_millis() / 10).unwrap_or(u64::MAX)
}

impl Ctx {
    pub(super) fn me(&self) -> String {
        self.pid.to_string()
    }

    pub(super) fn cas_look(&self) -> Done<Cas> {
        match self.look(|machine| cas_of(machine)) {
            Some(cas) => Ok(cas),
            None => die(FailClass::Fenced, "this host has no state"),
        }
    }

    /// 0 won, 1 lost to somebody else, 2 could not write: decided by looking afterwards.
    pub(super) async fn cas(&self, cur: &Cas, phase: &str, owner: &str, until: &str, run: &str, epoch: u64) -> u8 {
        let boot = self.look(|machine| machine.boot_id());
        let new = format!("{epoch}.{}.{phase}.{run}.{owner}.{boot}.{until}", cur.generation + 1);
        let (from, to) = (format!("{CAS}/{}", cur.name), format!("{CAS}/{new}"));
        let _ = self.micro(&format!("state becomes {phase}"), |machine| machine.fs.rename(&from, &to)).await;
        self.look(|machine| match (machine.fs.get(&to).is_some(), machine.fs.get(&from).is_some()) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        })
    }

    pub(super) async fn state_synced(&self) -> Done<()> {
        self.io("state synced", |machine| machine.fs.sync_dir(CAS)).await
    }

    /// The state directory with the state `idle`, if there is none.
    pub(super) async fn state_init(&self) -> Done<()> {
        if self.look(|machine| cas_of(machine)).is_some() {
            return Ok(());
        }
        self.io("state made", |machine| {
            // A directory that is there already is not replaced.
            if cas_of(machine).is_none() {
                machine.fs.create(&format!("{CAS}/0.0.idle.-.-.-.0"), private(b""));
            }
        })
        .await?;
        self.state_synced().await
    }

    fn until(&self, hold: &Hold, limit: Duration) -> String {
        let Some(guard) = hold.guard else { return "0".to_owned() };
        (self.look(|machine| machine.ticks()) + lease(guard, limit)).to_string()
    }

    /// The lease that a request renews to; none where the present one lasts for as long as it needs and little longer.
    fn renewed(&self, cas: &Cas, hold: &Hold, limit: Duration) -> Option<String> {
        let lease = lease(hold.guard?, limit);
        let most = lease + lease / 16;
        let now = self.look(|machine| machine.ticks());
        let lasts = cas.until.parse::<u64>().is_ok_and(|until| (now + lease..=now + most).contains(&until));
        (!lasts).then(|| (now + most).to_string())
    }

    /// The owner of a state is a process of this boot that still runs.
    pub(super) fn at_work(&self, cas: &Cas) -> bool {
        self.look(|machine| cas.boot == machine.boot_id() && machine.alive(owner_pid(&cas.owner)))
    }

    /// Takes the host for a run: from a settled state, or from the run itself; as it was seen, or as its guard has left it.
    pub(super) async fn arm(&self, hold: &Hold, limit: Duration, mut seen: String) -> Done<()> {
        let run = hold.run.as_str();
        let (mut waited, mut guard) = (0, None);
        loop {
            let cas = self.cas_look()?;
            let here = self.look(|machine| machine.boot_id());
            if cas.seen() != seen {
                if guard == cas.generation.checked_sub(1) && matches!(cas.phase.as_str(), "undo" | "old" | "dirty") {
                    seen = cas.seen();
                } else {
                    return if cas.run == run { known(&cas) } else { taken(&cas) };
                }
            }
            let epoch = match cas.phase.as_str() {
                "idle" | "old" | "new" => cas.epoch + 1,
                _ if cas.run != run => return taken(&cas),
                "undo" => {
                    if self.at_work(&cas) {
                        guard = Some(cas.generation);
                        waited += 1;
                        if waited >= 600 {
                            return die(FailClass::Held, "the guard of this host is putting it back");
                        }
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                    cas.epoch
                }
                _ => {
                    if cas.boot == here && cas.owner != self.me() && cas.owner != "-" {
                        self.fence(&cas.owner).await?;
                    }
                    cas.epoch
                }
            };
            let until = self.until(hold, limit);
            match self.cas(&cas, "armed", &self.me(), &until, run, epoch).await {
                0 => break,
                1 => {}
                _ => return die(FailClass::Write, "cannot write the state"),
            }
        }
        self.state_synced().await
    }

    /// Whoever that was is gone when this returns.
    pub(super) async fn fence(&self, owner: &str) -> Done<()> {
        let pid = owner_pid(owner);
        self.io("old session ended", |machine| machine.kill_session(pid)).await
    }

    /// A new session of the run's controller holds the host from here on.
    pub(super) async fn takeover(&self, hold: &Hold, only_held: bool) -> Done<()> {
        let run = hold.run.as_str();
        if !only_held {
            self.state_init().await?;
        }
        let cas = self.cas_look()?;
        match (only_held, cas.phase.as_str()) {
            (true, "armed") if cas.run == run && !self.is_void(run) => {}
            (true, _) => {
                return die(FailClass::Fenced, format!("this host was settled meanwhile (now: {})", cas.phase));
            }
            (false, "armed" | "undo" | "dirty") if cas.run != run => return taken(&cas),
            (false, _) => {}
        }
        if !self.look(|machine| machine.fs.get(&format!("{}/ready", run_dir(run))).is_some()) {
            self.only_here(run).await?;
            self.note(run, "void", "1").await?;
        } else if hold.guard.is_some() {
            self.guard_install().await?;
        }
        self.arm(hold, GRACE, cas.seen()).await?;
        if self.is_void(run) {
            return Ok(());
        }
        self.guard_start(hold).await?;
        if only_held {
            for record in self.undo_list(run)? {
                self.stage(run, &record, true).await?;
            }
        }
        Ok(())
    }

    /// The run was given up before its way back lay here whole.
    pub(super) fn is_void(&self, run: &str) -> bool {
        let dir = run_dir(run);
        self.look(|machine| {
            machine.fs.get(&format!("{dir}/void")).is_some() && machine.fs.get(&format!("{dir}/ready")).is_none()
        })
    }

    /// Of the sessions that would prepare the run, this one alone goes on.
    pub(super) async fn only_here(&self, run: &str) -> Done<()> {
        let at = format!("{}/session", run_dir(run));
        let here = self.look(|machine| machine.boot_id());
        if let Some((boot, owner)) = self.mark(run, "session")
            && boot == here
            && owner != self.pid
        {
            self.fence(&owner.to_string()).await?;
        }
        let text = format!("{here} {}", self.me());
        self.io("session noted", |machine| machine.fs.create(&at, private(text.as_bytes()))).await
    }

    /// This session still holds the host, or the request is refused; the lease is renewed.
    pub(super) async fn own(&self, hold: &Hold, limit: Duration) -> Done<()> {
        let cas = self.cas_look()?;
        let here = self.look(|machine| machine.boot_id());
        let ours = cas.phase == "armed" && cas.run == hold.run.as_str() && cas.owner == self.me() && cas.boot == here;
        if !ours {
            return die(FailClass::Fenced, format!("this session no longer holds the host (now: {})", cas.phase));
        }
        if let Some(until) = self.renewed(&cas, hold, limit) {
            match self.cas(&cas, "armed", &self.me(), &until, hold.run.as_str(), cas.epoch).await {
                0 => {}
                1 => return die(FailClass::Fenced, "this session no longer holds the host"),
                _ => return die(FailClass::Write, "cannot write the state"),
            }
        }
        if !hold.head.is_empty() {
            let path = format!("{}/head", run_dir(hold.run.as_str()));
            let _ = self.micro("head left", |machine| machine.fs.create(&path, private(hold.head.as_bytes()))).await;
        }
        Ok(())
    }

    pub(super) async fn release(&self, phase: &str, run: &str) -> Done<()> {
        let cas = self.cas_look()?;
        match self.cas(&cas, phase, "-", "0", run, cas.epoch).await {
            0 => self.state_synced().await,
            1 => die(FailClass::Fenced, "somebody else settled this host first"),
            _ => die(FailClass::Write, "cannot write the state"),
        }
    }
}

/// Another run holds the host, or has held it meanwhile.
pub(super) fn taken<T>(cas: &Cas) -> Done<T> {
    die(FailClass::Held, format!("run {} holds this host ({})", cas.run, cas.phase))
}

/// A request of the run comes too late.
pub(super) fn known<T>(cas: &Cas) -> Done<T> {
    die(FailClass::Fenced, format!("run {} was taken up or settled here meanwhile ({})", cas.run, cas.phase))
}
