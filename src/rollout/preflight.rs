//! All hosts are looked at before the first one is changed.

use std::collections::HashMap;

use super::batch::each;
use crate::engine::{Opened, Saga, Shared};
use crate::event::EventKind;
use crate::journal::Record;
use crate::model::{Host, HostName, HostResult, HostStatus, Step};
use crate::remote::UnreachableKind;

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

/// Connects to every host, looks, and plans; `forks` at a time. Changes nothing.
pub async fn preflight(shared: &Shared, hosts: Vec<(Host, Vec<Step>)>, forks: usize) -> Preflight {
    let names: Vec<HostName> = hosts.iter().map(|(host, _)| host.name.clone()).collect();
    let opened = each(hosts, forks, |(host, steps)| {
        let shared = shared.clone();
        async move { Saga::open(&shared, &host, &steps).await }
    })
    .await;
    let mut found = Preflight::default();
    for (host, opened) in names.into_iter().zip(opened) {
        let spared = |status, held, kind, reason| Spared { host: host.clone(), status, held, kind, reason };
        match opened {
            Some(Opened::Ready(saga)) => found.ready.push(*saga),
            Some(Opened::Unreachable { kind, reason }) => {
                found.spared.push(spared(HostStatus::Unreachable, false, Some(kind), reason));
            }
            Some(Opened::Refused { reason }) => found.spared.push(spared(HostStatus::Failed, false, None, reason)),
            Some(Opened::Held { reason }) => found.spared.push(spared(HostStatus::Skipped, true, None, reason)),
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

/// Two names may lead to one machine, whose state can hold one run at a time. Until their work can be done one after the
/// other in one run, the second name is refused before anything is changed.
fn one_name_a_machine(found: &mut Preflight) {
    let mut seen: HashMap<(String, String), HostName> = HashMap::new();
    for saga in std::mem::take(&mut found.ready) {
        let facts = saga.facts();
        let key = (facts.machine.clone(), facts.state_dir.clone());
        // Without a machine id there is nothing to tell machines apart by; the lock on the host decides.
        match seen.get(&key).filter(|_| facts.machine != "-") {
            Some(first) => found.spared.push(Spared {
                host: saga.name().clone(),
                status: HostStatus::Failed,
                held: false,
                kind: None,
                reason: format!("{first} and {} are one machine: rotate them in two runs, with --limit", saga.name()),
            }),
            None => {
                seen.insert(key, saga.name().clone());
                found.ready.push(saga);
            }
        }
    }
}
