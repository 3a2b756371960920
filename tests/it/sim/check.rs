//! The checker: it reads machines and the synced journal, and knows nothing of the engine's own state.

use keyswap::remote::{Act, Op, UndoRecord};

use super::fs::Inode;
use super::lib::{run_dir, undo_in};
use super::setting::{self, ENV, FRESH, Goals};
use super::sha::sha;
use super::state::{CAS, cas_named};
use super::world::{Machine, World};

/// At every instant: the pointer's file is whole, and nothing was changed without its way back on the disk.
pub(super) fn always(goals: &Goals, machine: &Machine) -> Vec<String> {
    let mut wrong = Vec::new();
    let pointer = setting::pointer(&machine.fs);
    let is_token =
        |(path, token): &(&'static str, Option<Inode>), file: &Inode| *path != ENV && token.as_ref() == Some(file);
    let whole = machine
        .fs
        .get(&pointer)
        .is_some_and(|file| goals.old.iter().chain(&goals.new).any(|token| is_token(token, file)));
    if !whole {
        wrong.push(format!("invariant 1: {pointer} holds no whole credential with its final mode and owner"));
    }
    if machine.commands.0 > 1 {
        wrong.push("a command was run twice".to_owned());
    }
    let untouched = goals.old.iter().all(|(path, file)| machine.fs.get(path) == file.as_ref());
    if untouched && machine.commands.0 == 0 {
        return wrong;
    }
    // Once it is settled nothing acts on it any more.
    let cas = super::state::cas_of(machine);
    let held = cas.as_ref().is_none_or(|cas| !matches!(cas.phase.as_str(), "old" | "new"));
    if held && !way_back_lasts(machine) {
        wrong.push("invariant 3: changed while undo, preimages or lock do not lie synced on the host".to_owned());
    }
    let leased = cas.is_some_and(|cas| cas.phase == "armed" && cas.until != "0");
    if leased && machine.fs.lasting(setting::HOOK).is_none() {
        wrong.push("invariant 3: changed under a guard that nothing starts after a reboot".to_owned());
    }
    wrong
}

/// The undo and all its preimages would survive a loss of power, and so would the lock.
fn way_back_lasts(machine: &Machine) -> bool {
    let cas = machine.fs.lasting_first(CAS).and_then(cas_named);
    let Some(cas) = cas.filter(|cas| cas.run != "-") else { return false };
    let dir = run_dir(&cas.run);
    let lasting = |name: &str| machine.fs.lasting(&format!("{dir}/{name}"));
    let Some(records) = lasting("undo").and_then(|file| undo_in(&file.content)) else { return false };
    records.iter().all(|record| match record {
        UndoRecord::File { step, before, .. } | UndoRecord::Env { step, before: Some(before), .. } => {
            lasting(&format!("pre.{step}")).is_some_and(|file| sha(&file.content) == before.sha)
        }
        _ => true,
    })
}

/// Before a request is sent: its intent lies synced in the journal.
pub(super) fn intent(world: &World, m: usize, op: &Op) {
    if !matches!(op, Op::Act { .. } | Op::Prepare { .. } | Op::Undo { .. } | Op::Commit { .. }) {
        return;
    }
    let state = world.lock();
    let text = String::from_utf8_lossy(&state.journal);
    // Where the controller's own disk failed, the way back is gone all the same: it lies on the host.
    let failed = state.journal_failed;
    let mine = format!("\"host\":\"h{m}\"");
    let last = text.lines().rev().find(|line| line.contains(&mine)).unwrap_or_default();
    let (right, head) = match op {
        Op::Act { hold, step, .. } => {
            let right = last.contains("\"rec\":\"step-started\"") && last.contains(&format!("\"index\":{step},"));
            (right, Some(&hold.head))
        }
        Op::Prepare { .. } => (last.contains("\"rec\":\"prepare-started\""), None),
        Op::Undo { hold, .. } => (last.contains("\"rec\":\"undo-started\"") || failed, Some(&hold.head)),
        Op::Commit { .. } => (text.contains("\"rec\":\"commit-started\""), None),
        _ => return,
    };
    let mut wrong = Vec::new();
    if !right {
        wrong.push(format!("invariant 3: {op:?} is sent without its intent in the journal; last: {last}"));
    }
    if let Some(head) = head.filter(|_| !failed)
        && keyswap::journal::LineHash::of(last.as_bytes()).as_str() != head.as_str()
    {
        wrong.push(format!("invariant 3: {op:?} carries a head that is not in the journal"));
    }
    drop(state);
    for text in wrong {
        world.violation(text);
    }
}

/// A request carries the secret that the plan is about, and no other.
pub(super) fn content(world: &World, op: &Op, data: Option<&[u8]>) {
    if let Op::Act { act: Act::Place(target), .. } = op
        && data.map(sha).as_ref() != Some(&target.post)
    {
        world.violation("another secret is sent than the run is about".to_owned());
    }
}

/// How a host stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stands {
    Old,
    New,
    Between,
}

/// What the machine is now: its files, and its runner with what it has read.
pub(super) fn stands(goals: &Goals, machine: &Machine) -> (Stands, String) {
    let is = |wanted: &[(&'static str, Option<Inode>)]| {
        wanted.iter().find(|(path, file)| machine.fs.get(path) != file.as_ref()).map(|(path, _)| *path)
    };
    let (old, new) = (is(&goals.old), is(&goals.new));
    let stands = match (old, new) {
        (None, _) => Stands::Old,
        (_, None) => Stands::New,
        (Some(a), Some(b)) => return (Stands::Between, format!("not old at {a}, not new at {b}")),
    };
    let pointer = setting::pointer(&machine.fs);
    let content = machine.fs.get(&pointer).map(|file| file.content.clone());
    match &machine.runner {
        Some(_) if !goals.up => return (Stands::Between, "the runner was stopped and is up".to_owned()),
        None if goals.up => return (Stands::Between, "the runner was up and is not".to_owned()),
        Some(runner) if runner.pointer != pointer || Some(&runner.content) != content.as_ref() => {
            return (Stands::Between, format!("the runner holds another credential than the files ({stands:?})"));
        }
        _ => {}
    }
    let (run, back) = machine.commands;
    if (stands == Stands::Old && run > 0 && back == 0) || (stands == Stands::New && back > 0) {
        return (Stands::Between, format!("{stands:?}, and the command was run {run} times, taken back {back} times"));
    }
    (stands, String::new())
}

/// What the run left beside the files.
pub(super) fn leftovers(machine: &Machine) -> Vec<String> {
    let here = machine.fs.list(super::fs::parent(ENV));
    here.into_iter().filter(|name| name.starts_with(".keyswap-") && !FRESH.ends_with(name.as_str())).collect()
}
