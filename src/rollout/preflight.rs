//! All hosts are looked at before the first one is changed.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::engine::{Opened, Saga, Shared};
use crate::model::{Host, HostName, HostStatus, Step};
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

/// Connects to every host, looks, and plans; `forks` at a time. Changes nothing.
pub async fn preflight(shared: &Shared, hosts: Vec<(Host, Vec<Step>)>, forks: usize) -> Preflight {
    let permits = Arc::new(Semaphore::new(forks.max(1)));
    let names: Vec<HostName> = hosts.iter().map(|(host, _)| host.name.clone()).collect();
    let mut tasks = JoinSet::new();
    for (at, (host, steps)) in hosts.into_iter().enumerate() {
        let (shared, permits) = (shared.clone(), Arc::clone(&permits));
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            (at, Saga::open(&shared, &host, &steps).await)
        });
    }
    let mut opened: Vec<Option<Opened>> = names.iter().map(|_| None).collect();
    while let Some(done) = tasks.join_next().await {
        if let Ok((at, result)) = done
            && let Some(slot) = opened.get_mut(at)
        {
            *slot = Some(result);
        }
    }
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
    found
}
