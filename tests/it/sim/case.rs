//! One case: a story, what goes wrong in it, and how it is settled; and the line that replays it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use keyswap::journal::{HostPhase, RunPhase};
use keyswap::model::{HostStatus, RunStatus};

use super::check::{self, Stands};
use super::controller::{Controllers, Ended, Life};
use super::fault::{Fault, Point};
use super::setting::{Setting, Story};
use super::world::World;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) setting: Setting,
    /// Controllers, one after the other; after them the last one's command (`resume` after `run`) until all is settled.
    pub(super) lives: Vec<Life>,
    /// Life, point, fault.
    pub(super) faults: Vec<(usize, usize, Fault)>,
    /// Nobody comes for two hours after a life has ended.
    pub(super) late: bool,
}

/// What came of a case.
pub(super) struct Result {
    pub(super) violations: Vec<String>,
    pub(super) traces: Vec<Vec<Point>>,
    pub(super) hits: BTreeSet<(usize, Point, Fault)>,
    /// What was not synced when each life after the first one began.
    pub(super) unsynced: Vec<Vec<String>>,
}

impl Result {
    /// The places of a life.
    pub(super) fn trace(&self, life: usize) -> &[Point] {
        self.traces.get(life).map_or(&[], Vec::as_slice)
    }
}

impl Case {
    pub(super) fn run(&self) -> Result {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new(self.setting, &self.faults);
            let mut controllers = Controllers::new(std::sync::Arc::clone(&world));
            let whole = self.tell(&mut controllers);
            if tokio::time::timeout(Duration::from_secs(24 * 3600), whole).await.is_err() {
                world.violation("it does not end".to_owned());
            }
            let mut state = world.lock();
            let mut violations = std::mem::take(&mut state.violations);
            violations.dedup();
            violations.truncate(5);
            let traces = std::mem::take(&mut state.injector.trace);
            let hits = std::mem::take(&mut state.injector.hits);
            Result { violations, traces, hits, unsynced: std::mem::take(&mut state.unsynced) }
        })
    }

    /// What a controller is told to do: after those of the story, the last one's command until all is settled.
    pub(super) fn life(&self, n: usize) -> Life {
        match self.lives.get(n).or(self.lives.last()) {
            Some(Life::Run) if n > 0 => Life::Resume,
            Some(life) => *life,
            None => Life::Resume,
        }
    }

    async fn tell(&self, controllers: &mut Controllers) {
        let world = std::sync::Arc::clone(&controllers.world);
        for (n, life) in self.lives.iter().enumerate() {
            if n > 0 {
                self.between(controllers).await;
            }
            let ended = controllers.live(*life).await;
            Self::come_up().await;
            self.is_true(controllers, *life, ended.as_ref());
        }
        let recover = self.life(self.lives.len());
        let mut rounds = 0;
        loop {
            let state = controllers.state();
            let back = recover == Life::Rollback && state.hosts.values().any(|host| host.phase.can_go_back());
            if (!state.needs_settling() || state.phase == RunPhase::Fresh) && !back {
                break;
            }
            rounds += 1;
            if rounds > 3 {
                world.violation(format!("it is not settled after three times {recover:?}"));
                break;
            }
            self.between(controllers).await;
            let ended = controllers.live(recover).await;
            Self::come_up().await;
            self.is_true(controllers, recover, ended.as_ref());
        }
        world.mend_links();
        controllers.pass().await;
        self.at_the_end(controllers, recover);
    }

    /// A host that was rebooted after it was settled is looked at when it is up again.
    async fn come_up() {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }

    async fn between(&self, controllers: &Controllers) {
        {
            let mut state = controllers.world.lock();
            let state = &mut *state;
            state.injector.next_life();
            let names = state.machines.iter().flat_map(|machine| machine.fs.unsynced());
            state.unsynced.push(names.map(without_numbers).collect());
        }
        controllers.world.mend_links();
        if self.late {
            controllers.pass().await;
        } else {
            // A reboot takes longer than typing the next command.
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    }

    /// What a controller said when it ended is so.
    fn is_true(&self, controllers: &Controllers, life: Life, ended: Option<&Ended>) {
        let Some(ended) = ended else { return };
        let world = &controllers.world;
        let mut wrong = Vec::new();
        let state = world.lock();
        for result in &ended.outcome.hosts {
            let m: usize = result.host.as_str().trim_start_matches('h').parse().unwrap();
            let Some(machine) = state.machines.get(m) else { continue };
            let (stands, why) = check::stands(&world.goals, machine);
            let wanted = match result.status {
                HostStatus::Changed => Some(Stands::New),
                HostStatus::RolledBack | HostStatus::Ok | HostStatus::Skipped => Some(Stands::Old),
                _ => None,
            };
            if result.status == HostStatus::Changed && !self.setting.verifies && !self.setting.staged {
                wrong.push(format!("invariant 2: {life:?} lets a host go whose verification failed"));
            }
            if wanted.is_some_and(|wanted| wanted != stands) {
                wrong.push(format!("invariant 2: {life:?} says {} of a host that is {stands:?} {why}", result.status));
            }
        }
        drop(state);
        // What is said stands in the journal, for whoever asks later.
        let told = controllers.state();
        let state = world.lock();
        for result in ended.outcome.hosts.iter().filter(|_| !state.journal_failed) {
            use HostStatus::{Changed, Dirty, Owed, RolledBack};
            let journaled = told.hosts.get(&result.host).and_then(|host| host.result.as_ref());
            if matches!(result.status, Changed | RolledBack | Dirty | Owed) && journaled != Some(result) {
                wrong.push(format!("{life:?} says {} of {}, the journal {journaled:?}", result.status, result.host));
            }
        }
        let stand = |wanted| state.machines.iter().all(|machine| check::stands(&world.goals, machine).0 == wanted);
        let all_new = stand(Stands::New);
        let all_old = stand(Stands::Old);
        let settled_somehow = all_new || all_old;
        drop(state);
        if ended.code == 0 && !settled_somehow && self.setting.hosts == 1 {
            wrong.push(format!("invariant 2: {life:?} exits 0 and the host is neither old nor new"));
        }
        if ended.code == 0 && life == Life::Rollback && !all_old {
            wrong.push("invariant 2: a rollback exits 0 and not every host is old".to_owned());
        }
        if ended.code == 0 && life == Life::Back && controllers.state().needs_settling() {
            wrong.push("invariant 2: `resume --back` exits 0 and leaves something to settle".to_owned());
        }
        if let RunPhase::Finished(RunStatus::Succeeded) = controllers.state().phase
            && !all_new
        {
            wrong.push(format!(
                "invariant 2: the run is said to have succeeded after {life:?}, and not every host is new"
            ));
        }
        for text in wrong {
            world.violation(text);
        }
    }

    fn at_the_end(&self, controllers: &Controllers, recover: Life) {
        let state = controllers.state();
        let world = &controllers.world;
        let mut wrong = Vec::new();
        for (name, host) in &state.hosts {
            let m: usize = name.as_str().trim_start_matches('h').parse().unwrap();
            let lock = world.lock();
            let machine = &lock.machines[m];
            let (stands, why) = check::stands(&world.goals, machine);
            let wanted = match host.phase {
                HostPhase::New | HostPhase::Held => Stands::New,
                HostPhase::Untouched | HostPhase::Spared | HostPhase::Old => Stands::Old,
                other => {
                    wrong.push(format!("invariant 2: the journal leaves {name} {other:?}"));
                    continue;
                }
            };
            if stands != wanted {
                wrong.push(format!("invariant 2: the journal says {:?} of {name}, it is {stands:?} {why}", host.phase));
            }
            if recover == Life::Rollback && stands != Stands::Old {
                wrong.push(format!("{name} is {stands:?} after a rollback {why}"));
            }
            let left = check::leftovers(machine);
            if !left.is_empty() {
                wrong.push(format!("left behind on {name}: {}", left.join(", ")));
            }
        }
        if state.hosts.is_empty() {
            let lock = world.lock();
            for machine in &lock.machines {
                let (stands, why) = check::stands(&world.goals, machine);
                if stands != Stands::Old {
                    wrong.push(format!("invariant 2: no run has begun, and a host is {stands:?} {why}"));
                }
            }
        }
        if self.goes_forward(recover) && !state.secrets.is_empty() {
            for (name, host) in state.hosts.iter().filter(|(_, host)| host.phase != HostPhase::New) {
                wrong.push(format!("nothing failed, and {name} is not new after `resume`: {:?}", host.result));
            }
        }
        for text in wrong {
            world.violation(text);
        }
    }

    /// Only the controller was killed, the secret was given again, and no guard had its time: there is no reason to go back.
    fn goes_forward(&self, recover: Life) -> bool {
        let killed = |fault: &Fault| matches!(fault, Fault::Kill | Fault::KillAfter | Fault::KillTorn);
        let forward = |life: &Life| matches!(life, Life::Run | Life::Resume);
        self.setting.verifies
            && !(self.late && self.setting.guard)
            && forward(&recover)
            && self.lives.iter().all(forward)
            && self.faults.iter().all(|(.., fault)| killed(fault))
    }
}

/// A name of the state holds times, which are others in each case.
fn without_numbers(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

const STORIES: &[(Story, &str)] =
    &[(Story::Replace, "replace"), (Story::Move, "move"), (Story::Restore, "restore"), (Story::Slow, "slow")];
const LIVES: &[(Life, &str)] = &[
    (Life::Run, "run"),
    (Life::Resume, "resume"),
    (Life::ResumeOther, "resume-other"),
    (Life::Back, "back"),
    (Life::Rollback, "rollback"),
];

fn word<T: Copy + PartialEq>(table: &[(T, &'static str)], wanted: T) -> &'static str {
    table.iter().find(|(known, _)| *known == wanted).map_or("?", |(_, word)| word)
}

fn meaning<T: Copy>(table: &[(T, &'static str)], wanted: &str) -> std::result::Result<T, String> {
    table.iter().find(|(_, word)| *word == wanted).map(|(known, _)| *known).ok_or_else(|| format!("no `{wanted}`"))
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.setting;
        let flag = |on, word| if on { word } else { "-" };
        write!(f, "{}/{}", word(STORIES, s.story), s.hosts)?;
        write!(f, "/{}/{}/{}", flag(s.guard, "guard"), flag(s.up, "up"), flag(s.verifies, "good"))?;
        write!(f, "/{}/{}", flag(s.staged, "staged"), flag(self.late, "late"))?;
        let lives: Vec<&str> = self.lives.iter().map(|life| word(LIVES, *life)).collect();
        let faults: Vec<String> = self.faults.iter().map(|(life, at, fault)| format!("{life}:{at}:{fault}")).collect();
        write!(f, "/{}/{}", lives.join("+"), faults.join("+"))
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let [story, hosts, guard, up, verifies, staged, late, lives, faults] = parts.as_slice() else {
            return Err(format!("`{text}` has not nine parts"));
        };
        let lives = lives.split('+').map(|text| meaning(LIVES, text)).collect::<std::result::Result<_, _>>()?;
        let faults = faults
            .split('+')
            .filter(|text| !text.is_empty())
            .map(|text| {
                let parts: Vec<&str> = text.split(':').collect();
                let [life, at, fault] = parts.as_slice() else { return Err(format!("`{text}` is no fault")) };
                let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
                Ok((number(life)?, number(at)?, fault.parse()?))
            })
            .collect::<std::result::Result<_, String>>()?;
        let setting = Setting {
            story: meaning(STORIES, story)?,
            hosts: hosts.parse().map_err(|_| format!("`{hosts}` is no number"))?,
            guard: *guard == "guard",
            up: *up == "up",
            verifies: *verifies == "good",
            staged: *staged == "staged",
        };
        Ok(Self { setting, lives, faults, late: *late == "late" })
    }
}
