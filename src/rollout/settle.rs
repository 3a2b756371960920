//! Taking hosts back, batch after batch.

use tokio_util::sync::CancellationToken;

use super::batch::undo_all;
use crate::engine::{Settling, Shared};
use crate::model::{HostName, HostResult};

/// A host that goes back, and what brings it there.
pub(super) struct Returning<F> {
    pub(super) name: HostName,
    pub(super) batch: u32,
    /// The host, connected or not; or how it stands, if it cannot go back.
    pub(super) ready: F,
}

/// Takes the hosts back: the last batch first, side by side within one, going on past a host whose undo failed. Once `stop`
/// is cancelled no further host begins: those are given back.
pub(super) async fn newest_first<F>(
    mut hosts: Vec<Returning<F>>,
    shared: &Shared,
    forks: usize,
    reason: &str,
    stop: Option<&CancellationToken>,
) -> (Vec<HostResult>, Vec<Settling>)
where
    F: Future<Output = Result<Settling, Box<HostResult>>> + Send + 'static,
{
    hosts.sort_by_key(|host| host.batch);
    let (mut results, mut left) = (Vec::new(), Vec::new());
    while let Some(batch) = hosts.last().map(|host| host.batch) {
        let at = hosts.partition_point(|host| host.batch < batch);
        let group = hosts.split_off(at).into_iter().map(|host| (host.name, host.batch, host.ready));
        let (undone, stayed) = undo_all(group.collect(), shared, forks, reason, stop).await;
        results.extend(undone);
        left.extend(stayed);
    }
    (results, left)
}
