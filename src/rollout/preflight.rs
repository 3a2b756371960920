//! All hosts are looked at before the first one is changed.

use std::collections::HashMap;
use std::sync::Arc;

use super::batch::each;
use super::common::Common;
use crate::engine::{Opened, Saga, Shared};
use crate::event::EventKind;
use crate::journal::Record;
use crate::model::{Host, HostName, HostResult, HostStatus, RemotePath, Step};
use crate::remote::{UndoRecord, UnreachableKind};

/// What looking at all hosts found.
#[derive(Default)]
pub struct Preflight {
    /// Hosts that could be worked on, in the run's order.
    pub ready: Vec<Saga>,
    /// Hosts that could not.
    pub spared: Vec<Spared>,
}

/// A host that could not be worked on; nothing was changed there.
#[derive(Debug, Clone)]
pub struct Spared {
    /// Which.
    pub host: HostName,
    /// `unreachable` or `failed`.
    pub status: HostStatus,
    /// Another run holds it.
    pub held: bool,
    /// At which stage it could not be reached, if that is why.
    pub kind: Option<UnreachableKind>,
    /// Why.
    pub reason: String,
}

impl Spared {
    /// Its line in the recap.
    #[must_use]
    pub fn result(&self) -> HostResult {
        HostResult {
            host: self.host.clone(),
            status: self.status,
            batch: 0,
            credentials: Vec::new(),
            reason: Some(self.reason.clone()),
            mend: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// Says and journals that a run leaves a host out.
pub async fn leave_out(shared: &Shared, spared: Spared) -> HostResult {
    let result = spared.result();
    let record = Record::HostSettled { result: result.clone() };
    if let Err(error) = shared.journal.append(Some(&spared.host), record).await {
        shared.events.warn(Some(&spared.host), format!("the journal could not be written: {error}"));
    }
    shared.events.emit(Some(&spared.host), None, EventKind::HostFinished { result: result.clone() });
    result
}

/// What came of one host.
enum Looked {
    /// It was looked at.
    At(Opened),
    /// It was not, and why.
    NotAt(String),
}

/// Connects to every host, looks, and plans; `forks` at a time. Changes nothing.
pub async fn preflight(shared: &Shared, hosts: Vec<(Host, Vec<Step>)>, forks: usize) -> Preflight {
    let names: Vec<HostName> = hosts.iter().map(|(host, _)| host.name.clone()).collect();
    let common = Arc::new(Common::default());
    let opened = each(hosts, forks, |(host, steps)| {
        let (shared, common) = (shared.clone(), Arc::clone(&common));
        async move {
            let turn = common.turn();
            let opened = Saga::open(&shared, &host, &steps, &turn).await;
            let kind = if let Opened::Unreachable { kind, .. } = &opened { Some(*kind) } else { None };
            turn.ended(kind).map_or(Looked::At(opened), Looked::NotAt)
        }
    })
    .await;
    let mut found = Preflight::default();
    for (host, opened) in names.into_iter().zip(opened) {
        let spared = |status, held, kind, reason| Spared { host: host.clone(), status, held, kind, reason };
        match opened {
            Some(Looked::NotAt(why)) => found.spared.push(spared(HostStatus::Skipped, false, None, why)),
            Some(Looked::At(Opened::Ready(saga))) => found.ready.push(*saga),
            Some(Looked::At(Opened::Unreachable { kind, reason })) => {
                found.spared.push(spared(HostStatus::Unreachable, false, Some(kind), reason));
            }
            Some(Looked::At(Opened::Refused { reason })) => {
                found.spared.push(spared(HostStatus::Failed, false, None, reason));
            }
            Some(Looked::At(Opened::Held { reason })) => {
                found.spared.push(spared(HostStatus::Skipped, true, None, reason));
            }
            // Its task panicked: a fault of ours, and nothing was changed.
            None => {
                let reason = "keyswap itself failed while it looked at this host".to_owned();
                found.spared.push(spared(HostStatus::Failed, false, None, reason));
            }
        }
    }
    one_name_a_machine(&mut found);
    found
}

/// Of hosts that are ready and are to be changed: those without room for the way back are refused before
/// anything is touched. Gives back why, for each of the others whose jobs could read what keyswap keeps there.
pub fn look_around(found: &mut Preflight) -> Vec<(HostName, String)> {
    let mut readers = Vec::new();
    for saga in std::mem::take(&mut found.ready) {
        match saga.look_around() {
            Ok(reader) => {
                readers.extend(reader.map(|why| (saga.name().clone(), why)));
                found.ready.push(saga);
            }
            Err(reason) => {
                let (host, status) = (saga.name().clone(), HostStatus::Failed);
                found.spared.push(Spared { host, status, held: false, kind: None, reason });
            }
        }
    }
    readers
}

/// Two names may lead to one machine. A state directory holds one run at a time, so each name needs its own; and what one of
/// them changes, the other may not: the way back of the first would put back what the second had found.
fn one_name_a_machine(found: &mut Preflight) {
    let mut machines: HashMap<(String, String), Machine> = HashMap::new();
    for saga in std::mem::take(&mut found.ready) {
        let reason = saga.machine().and_then(|machine| machines.entry(machine).or_default().refuses(&saga));
        match reason {
            Some(reason) => found.spared.push(Spared {
                host: saga.name().clone(),
                status: HostStatus::Failed,
                held: false,
                kind: None,
                reason,
            }),
            None => found.ready.push(saga),
        }
    }
}

/// What the names of one machine take there, and who took it.
#[derive(Default)]
struct Machine {
    state_dirs: HashMap<String, HostName>,
    files: HashMap<RemotePath, HostName>,
}

impl Machine {
    /// Why a name cannot be worked on beside those before it; else it takes what it needs.
    fn refuses(&mut self, saga: &Saga) -> Option<String> {
        let (name, state_dir) = (saga.name(), &saga.facts().state_dir);
        if let Some(other) = self.state_dirs.get(state_dir) {
            return Some(format!(
                "{other} and {name} are one machine and keep their state in one place: give {name} one of its own in \
                 the inventory (state_dir = \"{state_dir}-{name}\"), or rotate them in two runs, with --limit"
            ));
        }
        let files = || saga.plan().undo.iter().filter_map(UndoRecord::file);
        if let Some((file, other)) = files().find_map(|file| Some((file, self.files.get(file)?))) {
            return Some(format!("{other} and {name} are one machine, and both change {file}"));
        }
        self.state_dirs.insert(state_dir.clone(), name.clone());
        self.files.extend(files().map(|file| (file.clone(), name.clone())));
        None
    }
}
