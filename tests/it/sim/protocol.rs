//! The guard's protocol, explored exhaustively: controllers, a second operator, watchers, reboots and an unlock share one name,
//! and every interleaving of their single steps is tried.
//!
//! A step is a look, a kill, a rename of the observed name, or a change of the files: what `state.sh` and `guard.sh` do
//! between two of which anybody else may come. Whoever hangs is one who is not stepped for a while. Properties: who settles a
//! host finds it so; nobody changes files after the way back has begun, or under somebody else's hold; of committing and
//! firing one hold sees one.

use std::collections::HashSet;

/// Whether a breakage is let in, so that the exploration is seen to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// A takeover and a fire kill nobody.
    NoFence,
    /// A commit writes over whatever name is there.
    CommitNotAtomic,
    /// A request that lost its rename looks again and takes what it finds.
    ArmsAnything,
    /// A request does not ask whether it still holds the host.
    NotAsked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Armed,
    Undo,
    Old,
    New,
}

const NOBODY: u8 = 9;

/// The only name in `cas`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Name {
    epoch: u8,
    generation: u8,
    phase: Phase,
    run: u8,
    owner: u8,
    boot: u8,
    /// In `Undo`: the session that held the host.
    fence: u8,
}

/// As it is first.
const NONE: Name =
    Name { epoch: 0, generation: 0, phase: Phase::Idle, run: NOBODY, owner: NOBODY, boot: 0, fence: NOBODY };

impl Name {
    /// What a request relies on: a renewed lease is the same state.
    fn seen(self) -> (u8, Phase, u8, u8, u8) {
        (self.epoch, self.phase, self.run, self.owner, self.boot)
    }
}

/// What an actor is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    /// A controller of a run: holds the host, acts, commits.
    Forward(u8),
    /// A controller of a run: takes it back.
    Back(u8),
    Watcher,
    /// An operator takes the lock away.
    Unlock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Actor {
    role: Role,
    alive: bool,
    boot: u8,
    /// Its next step.
    at: u8,
    seen: Name,
}

const END: u8 = 99;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    name: Name,
    boot: u8,
    expired: bool,
    new_files: bool,
    /// The way back of the present hold has begun.
    going_back: bool,
    reboots: u8,
    actors: Vec<Actor>,
}

impl World {
    fn new(roles: &[Role], reboots: u8) -> Self {
        let actors = roles.iter().map(|&role| Actor { role, alive: true, boot: 0, at: 0, seen: NONE }).collect();
        Self { name: NONE, boot: 0, expired: false, new_files: false, going_back: false, reboots, actors }
    }

    fn kill(&mut self, who: u8) {
        if let Some(actor) = self.actors.get_mut(usize::from(who)).filter(|actor| actor.boot == self.boot) {
            actor.alive = false;
        }
    }

    fn lives(&self, who: u8) -> bool {
        self.actors.get(usize::from(who)).is_some_and(|actor| actor.alive)
    }

    /// Renames the observed name; false if it is no longer there.
    fn rename(&mut self, from: Name, phase: Phase, run: u8, owner: u8, epoch: u8) -> bool {
        if self.name != from {
            return false;
        }
        let generation = self.name.generation + 1;
        self.name = Name { epoch, generation, phase, run, owner, boot: self.boot, fence: from.owner };
        true
    }

    /// The present hold is this actor's.
    fn held_by(&self, me: u8, run: u8) -> bool {
        let name = self.name;
        (name.phase, name.run, name.owner, name.boot) == (Phase::Armed, run, me, self.boot)
    }

    /// One step of an actor; what it violates.
    fn step(&mut self, me: usize, broken: Broken) -> Result<(), String> {
        let who = u8::try_from(me).unwrap_or(NOBODY);
        match self.actors[me].role {
            Role::Forward(run) => self.controller(me, who, run, false, broken),
            Role::Back(run) => self.controller(me, who, run, true, broken),
            Role::Watcher => self.watcher(me, who, broken),
            Role::Unlock => self.unlock(me),
        }
    }

    fn controller(&mut self, me: usize, who: u8, run: u8, back: bool, broken: Broken) -> Result<(), String> {
        let (at, seen, now) = (self.actors[me].at, self.actors[me].seen, self.name);
        let mut next = at + 1;
        match at {
            0 => {
                let taken = matches!(now.phase, Phase::Armed | Phase::Undo) && now.run != run;
                let settled = !back && now.run == run && now.phase != Phase::Armed;
                if taken || settled {
                    next = END;
                }
                self.actors[me].seen = now;
            }
            // Who holds the host for the same run is ended first.
            1 => {
                if seen.phase == Phase::Armed
                    && seen.boot == self.boot
                    && seen.owner != who
                    && broken != Broken::NoFence
                {
                    self.kill(seen.owner);
                }
            }
            2 => {
                let guard = seen.phase == Phase::Undo && now.run == run;
                let same = now.seen() == seen.seen() || broken == Broken::ArmsAnything && now.run == run;
                if guard && now.phase == Phase::Undo && now.boot == self.boot && self.lives(now.owner) {
                    // A guard that is at work is waited for.
                    next = at;
                } else if same || guard && now.phase != Phase::Armed {
                    let settled = matches!(now.phase, Phase::Idle | Phase::Old | Phase::New);
                    self.rename(now, Phase::Armed, run, who, now.epoch + u8::from(settled));
                    (self.expired, self.going_back) = (false, false);
                } else {
                    next = END;
                }
            }
            // Each request: does this session still hold the host? The lease is renewed by the same rename.
            3 | 6 => {
                if !self.held_by(who, run) && broken != Broken::NotAsked {
                    next = END;
                }
                self.actors[me].seen = now;
            }
            4 | 7 => {
                if self.rename(seen, Phase::Armed, run, who, seen.epoch) {
                    self.expired = false;
                } else if broken != Broken::NotAsked {
                    next = END;
                }
            }
            5 => {
                self.change(who, run, !back)?;
                if back {
                    self.going_back = true;
                }
            }
            8 => {
                if !back && !self.new_files {
                    next = END;
                }
                self.actors[me].seen = now;
                if !self.held_by(who, run) && broken != Broken::CommitNotAtomic {
                    next = END;
                }
            }
            _ => {
                let phase = if back { Phase::Old } else { Phase::New };
                let from = if broken == Broken::CommitNotAtomic { now } else { seen };
                if now.phase == Phase::Old && phase == Phase::New && now.epoch == seen.epoch && from == now {
                    return Err("a hold was put back and committed".to_owned());
                }
                self.rename(from, phase, run, NOBODY, from.epoch);
                next = END;
            }
        }
        self.actors[me].at = next;
        Ok(())
    }

    /// A session changes the files.
    fn change(&mut self, who: u8, run: u8, new: bool) -> Result<(), String> {
        let name = self.name;
        if new && self.going_back {
            return Err(format!("{who} acts after the way back has begun"));
        }
        if !self.held_by(who, run) && name.phase != Phase::Undo {
            return Err(format!("{who} changes files while the host is {name:?}"));
        }
        self.new_files = new;
        Ok(())
    }

    fn watcher(&mut self, me: usize, who: u8, broken: Broken) -> Result<(), String> {
        let (at, seen, now) = (self.actors[me].at, self.actors[me].seen, self.name);
        let mut next = at + 1;
        match at {
            0 => {
                let again = now.boot != self.boot;
                next = match now.phase {
                    Phase::Armed if again || self.expired => 1,
                    Phase::Undo if again || !self.lives(now.owner) => 1,
                    _ => 0,
                };
                self.actors[me].seen = now;
            }
            1 => {
                let fence = if seen.phase == Phase::Undo { seen.fence } else { seen.owner };
                if self.rename(seen, Phase::Undo, seen.run, who, seen.epoch) {
                    self.name.fence = if seen.boot == self.boot { fence } else { NOBODY };
                    self.actors[me].seen = self.name;
                } else {
                    next = 0;
                }
            }
            2 => {
                if broken != Broken::NoFence {
                    self.kill(seen.fence);
                }
            }
            3 => {
                self.going_back = true;
                self.new_files = false;
            }
            _ => {
                self.rename(seen, Phase::Old, seen.run, NOBODY, seen.epoch);
                next = 0;
            }
        }
        self.actors[me].at = next;
        Ok(())
    }

    fn unlock(&mut self, me: usize) -> Result<(), String> {
        let (at, seen, now) = (self.actors[me].at, self.actors[me].seen, self.name);
        let mut next = at + 1;
        match at {
            0 => {
                if now.phase != Phase::Armed {
                    next = END;
                }
                self.actors[me].seen = now;
            }
            1 => {
                if !self.rename(seen, Phase::Idle, seen.run, NOBODY, seen.epoch + 1) {
                    next = END;
                }
            }
            _ => {
                if seen.boot == self.boot {
                    self.kill(seen.owner);
                }
                next = END;
            }
        }
        self.actors[me].at = next;
        Ok(())
    }

    /// What must be so after every step.
    fn holds(&self) -> Result<(), String> {
        match self.name.phase {
            Phase::New if !self.new_files => Err("the host is called new and is old".to_owned()),
            Phase::Old if self.new_files => Err("the host is called old and is new".to_owned()),
            _ => Ok(()),
        }
    }

    /// The same state with the smallest numbers: of generations and epochs only the order matters, and of who has ended nothing.
    fn smallest(mut self) -> Self {
        for actor in &mut self.actors {
            if !actor.alive || actor.at == END {
                (actor.alive, actor.at) = (false, END);
            }
            if actor.at == 0 || actor.at == END {
                actor.seen = NONE;
            }
        }
        let rank = |part: fn(&Name) -> u8, world: &Self| -> Vec<u8> {
            let mut all: Vec<u8> = world.actors.iter().map(|actor| part(&actor.seen)).collect();
            all.extend([0, part(&world.name)]);
            all.sort_unstable();
            all.dedup();
            all
        };
        let (generations, epochs) = (rank(|name| name.generation, &self), rank(|name| name.epoch, &self));
        let place = |all: &[u8], number: u8| all.iter().position(|&known| known == number).map_or(0, |at| at as u8);
        let seen = self.actors.iter_mut().map(|actor| &mut actor.seen);
        for name in seen.chain([&mut self.name]) {
            name.generation = place(&generations, name.generation);
            name.epoch = place(&epochs, name.epoch);
        }
        self
    }

    /// All that may happen next.
    fn after(&self, broken: Broken) -> Vec<Result<Self, String>> {
        let mut out = Vec::new();
        for (me, actor) in self.actors.iter().enumerate() {
            if actor.alive && actor.at != END {
                let mut next = self.clone();
                let said = next.step(me, broken).and_then(|()| next.holds());
                out.push(said.map(|()| next));
            }
        }
        if self.name.phase == Phase::Armed && !self.expired {
            out.push(Ok(Self { expired: true, ..self.clone() }));
        }
        if self.reboots > 0 {
            let mut next = Self { reboots: self.reboots - 1, boot: self.boot + 1, ..self.clone() };
            for actor in &mut next.actors {
                // The watcher is started again; a controller that has not come yet comes later.
                let fresh = actor.role == Role::Watcher || actor.at == 0;
                (actor.alive, actor.boot) = (fresh, self.boot + 1);
                actor.at = if fresh { 0 } else { actor.at };
            }
            out.push(Ok(next));
        }
        out
    }
}

/// Every interleaving: how many states there are, or what is wrong.
fn explore(roles: &[Role], reboots: u8, broken: Broken) -> Result<usize, String> {
    let first = World::new(roles, reboots);
    let mut known = HashSet::from([first.clone()]);
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        for next in world.after(broken) {
            let next = next?.smallest();
            if known.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    Ok(known.len())
}

const STORIES: &[&[Role]] = &[
    &[Role::Forward(1), Role::Watcher, Role::Watcher, Role::Back(1)],
    &[Role::Forward(1), Role::Forward(1), Role::Watcher, Role::Back(1)],
    &[Role::Forward(1), Role::Forward(2), Role::Watcher, Role::Forward(1)],
    &[Role::Forward(1), Role::Back(1), Role::Back(1), Role::Watcher],
];

#[test]
fn the_guard_s_protocol_holds_in_every_interleaving() {
    let mut states = 0;
    for roles in STORIES {
        for reboots in [0, 1] {
            states += explore(roles, reboots, Broken::Nothing).unwrap_or_else(|wrong| panic!("{roles:?}: {wrong}"));
        }
    }
    eprintln!("guard's protocol: {states} states, 0 violations");
}

#[test]
fn an_unlocked_host_is_nobody_s() {
    // Unlocking puts nothing back: what the files hold then is the operator's, so that only the hold is looked at.
    let roles = [Role::Forward(1), Role::Forward(2), Role::Unlock];
    let first = World::new(&roles, 0);
    let mut known = HashSet::from([first.clone()]);
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        for me in 0..roles.len() {
            let mut next = world.clone();
            if next.actors[me].alive && next.actors[me].at != END && next.step(me, Broken::Nothing).is_ok() {
                let holders = (0..2u8).filter(|&who| next.held_by(who, who + 1)).count();
                assert!(holders <= 1);
                let next = next.smallest();
                if known.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
    }
}

#[test]
fn what_is_broken_in_the_protocol_is_found() {
    for broken in [Broken::NoFence, Broken::CommitNotAtomic, Broken::ArmsAnything, Broken::NotAsked] {
        let found = STORIES.iter().any(|roles| explore(roles, 1, broken).is_err());
        assert!(found, "{broken:?} was not found");
    }
}
