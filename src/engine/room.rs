//! What surrounds a run on a host: room for its way back, and who else could read what is kept there.

use std::collections::BTreeMap;

use super::saga::Saga;
use crate::model::RemotePath;
use crate::remote::{Act, Fact, Failure, Probe, ReachFact, RoomFact, UndoRecord};
use crate::step::{HostPlan, Work};

/// What a file takes at least.
const BLOCK: u64 = 4096;

/// What the guard's program takes at least.
const GUARD: u64 = 96 * 1024;

/// Small files that every run keeps, at least: undo, manifest, owner, marks.
const MARKS: u32 = 5;

/// Room that is needed in a directory.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Need {
    bytes: u64,
    inodes: u64,
}

/// What the first look found around a run's files.
#[derive(Debug, Default)]
pub(super) struct Around {
    /// What is free in the directories of the files.
    rooms: BTreeMap<String, RoomFact>,
    /// What is free where the host keeps its state, or why nothing can be kept there.
    state: Option<Result<RoomFact, Failure>>,
    /// What the runners can reach.
    reaches: Vec<ReachFact>,
}

impl Around {
    pub(super) fn of(probes: &[Probe], found: &[Fact]) -> Self {
        let mut around = Self::default();
        for seen in probes.iter().zip(found) {
            match seen {
                (_, Fact::File(file)) => around.beside(&file.path, file.room.as_ref()),
                (_, Fact::Env(env)) => around.beside(&env.path, env.room.as_ref()),
                (_, Fact::Service(service)) => around.reaches.extend(service.reach.clone()),
                (_, Fact::Room(room)) => around.state = Some(Ok(room.clone())),
                (Probe::Room, Fact::Refused(failure)) => around.state = Some(Err(failure.clone())),
                _ => {}
            }
        }
        around
    }

    fn beside(&mut self, path: &str, room: Option<&RoomFact>) {
        if let (Ok(path), Some(room)) = (path.parse::<RemotePath>(), room) {
            self.rooms.insert(path.parent().to_owned(), room.clone());
        }
    }
}

impl Saga {
    /// Whether there is room for the new files and the way back, and whether jobs could read the state directory, by what was
    /// seen when the host was opened. Gives back a word of warning; what a host cannot say is neither refused nor warned of.
    ///
    /// # Errors
    /// When there is too little room.
    pub fn look_around(&self) -> Result<Option<String>, String> {
        if !self.changes() {
            return Ok(None);
        }
        let mut rooms = self.around.rooms.clone();
        match &self.around.state {
            Some(Ok(room)) => drop(rooms.insert(self.facts.state_dir.clone(), room.clone())),
            Some(Err(failure)) => return Err(failure.to_string()),
            None => {}
        }
        let needs = needs(&self.facts.state_dir, &self.plan, self.shared.guard.is_some());
        enough(needs.iter().filter_map(|(dir, need)| Some((dir.as_str(), *need, rooms.get(dir)?))))?;
        let read = |reach: &ReachFact| reader(reach, self.facts.uid, self.facts.login_uid);
        Ok(self.around.reaches.iter().find_map(read))
    }
}

/// The least that a run needs: a temporary file beside each destination, the old content and a backup where it keeps its
/// state.
fn needs(state_dir: &str, plan: &HostPlan, guarded: bool) -> BTreeMap<String, Need> {
    let mut needs: BTreeMap<String, Need> = BTreeMap::new();
    let mut add = |dir: &str, bytes: u64| {
        let need = needs.entry(dir.to_owned()).or_default();
        need.bytes += bytes.div_ceil(BLOCK).max(1) * BLOCK;
        need.inodes += 1;
    };
    if guarded {
        add(state_dir, GUARD);
    }
    (0..MARKS).for_each(|_| add(state_dir, 0));
    for step in &plan.steps {
        if let Work::Act { act: Act::Backup { path, .. }, .. } = &step.work {
            let kept = plan.undo.iter().find_map(|record| match record {
                UndoRecord::File { path: at, before, .. } if at == path => Some(before.size),
                _ => None,
            });
            add(state_dir, kept.unwrap_or(0));
            add(state_dir, 0);
        }
    }
    for record in &plan.undo {
        let Some(path) = record.file() else { continue };
        let before = match record {
            UndoRecord::File { before, .. } => Some(before.size),
            UndoRecord::Env { before, .. } => before.as_ref().map(|before| before.size),
            _ => None,
        };
        add(path.parent(), before.unwrap_or(0));
        if let Some(size) = before {
            add(state_dir, size);
        }
    }
    needs
}

/// Whether what is free is enough. Directories of one file system share it.
fn enough<'a>(rooms: impl Iterator<Item = (&'a str, Need, &'a RoomFact)>) -> Result<(), String> {
    let mut systems: BTreeMap<(&str, u64), (&RoomFact, Need, Vec<&str>)> = BTreeMap::new();
    for (dir, need, room) in rooms {
        let shared = systems.entry((&room.system, room.bytes)).or_insert((room, Need::default(), Vec::new()));
        shared.1.bytes += need.bytes;
        shared.1.inodes += need.inodes;
        shared.2.push(dir);
    }
    for (room, need, dirs) in systems.values() {
        let dirs = dirs.join(" and ");
        if room.bytes < need.bytes {
            let (needed, there) = (need.bytes / 1024, room.bytes / 1024);
            return Err(format!("too little room in {dirs}: at least {needed} KiB are needed, {there} KiB are free"));
        }
        if let Some(there) = room.inodes.filter(|there| *there < need.inodes) {
            return Err(format!("too few inodes in {dirs}: at least {} are needed, {there} are free", need.inodes));
        }
    }
    Ok(())
}

/// Why jobs of a runner could read what only keyswap's user should.
fn reader(runner: &ReachFact, keyswap: u32, login: u32) -> Option<String> {
    if runner.here && runner.uid == keyswap {
        return Some(format!("the runner works as the user that keeps the state there (uid {keyswap})"));
    }
    if runner.here && runner.uid == login {
        return Some(format!(
            "the runner works as the user that keyswap logs in as (uid {login}), which can become root"
        ));
    }
    let opens = runner.sockets.iter().any(|socket| {
        runner.uid == 0
            || (runner.uid == socket.uid && socket.mode & 0o200 != 0)
            || (runner.groups.contains(&socket.gid) && socket.mode & 0o020 != 0)
            || socket.mode & 0o002 != 0
    });
    opens.then(|| "the runner can speak to the container engine, which can mount every directory".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::SocketFact;

    #[test]
    fn room_is_counted_by_file_system() {
        let told = |a: (u64, Option<u64>, &str), b: (u64, Option<u64>, &str)| {
            let room = |(blocks, inodes, system): (u64, Option<u64>, &str)| RoomFact {
                bytes: blocks * BLOCK,
                inodes,
                system: system.to_owned(),
            };
            let need = |blocks| Need { bytes: blocks * BLOCK, inodes: 2 };
            let (a, b) = (room(a), room(b));
            enough([("/a", need(2), &a), ("/b", need(1), &b)].into_iter())
        };
        assert_eq!(told((3, Some(9), "x"), (3, Some(9), "x")), Ok(()));
        assert_eq!(told((2, Some(9), "x"), (1, Some(9), "y")), Ok(()));
        let shared = told((2, Some(9), "x"), (2, Some(9), "x")).unwrap_err();
        assert_eq!(shared, "too little room in /a and /b: at least 12 KiB are needed, 8 KiB are free");
        let inodes = told((99, Some(1), "x"), (98, Some(2), "y")).unwrap_err();
        assert_eq!(inodes, "too few inodes in /a: at least 2 are needed, 1 are free");
        assert_eq!(told((99, None, "x"), (98, None, "y")), Ok(()), "file systems without a number of inodes");
    }

    #[test]
    fn who_can_read_the_state_is_told() {
        let told = |uid, groups: &[u32], here, mode: Option<u32>| {
            let sockets = mode.map(|mode| SocketFact { uid: 0, gid: 999, mode }).into_iter().collect();
            reader(&ReachFact { uid, groups: groups.to_vec(), here, sockets }, 0, 1001).is_some()
        };
        assert!(told(0, &[0], true, None), "the same user, on the host itself");
        assert!(!told(0, &[0], false, None), "root of a container");
        assert!(told(1001, &[1001], true, None), "the login user, on the host itself");
        assert!(!told(1000, &[1000], true, Some(0o660)), "not in the socket's group");
        assert!(told(1000, &[1000, 999], true, Some(0o660)), "in the socket's group");
        assert!(told(1000, &[1000], false, Some(0o666)), "a socket for all");
        assert!(told(0, &[0], false, Some(0o660)), "root of a container with the socket");
    }
}
