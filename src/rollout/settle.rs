//! Taking back a run that is over, or that was cut off.

use super::batch::undo_all;
use crate::engine::Settling;
use crate::model::HostResult;

/// Hosts in the order in which they go back.
pub struct SettleOrder(Vec<Vec<Settling>>);

impl SettleOrder {
    /// By batch, the last one first.
    #[must_use]
    pub fn newest_first(mut hosts: Vec<Settling>) -> Self {
        hosts.sort_by_key(|host| std::cmp::Reverse(host.batch));
        let mut out: Vec<Vec<Settling>> = Vec::new();
        for host in hosts {
            match out.last_mut() {
                Some(group) if group.first().is_some_and(|first| first.batch == host.batch) => group.push(host),
                _ => out.push(vec![host]),
            }
        }
        Self(out)
    }
}

/// Takes the hosts back: batch after batch, side by side within one, going on past a host whose undo failed.
pub async fn settle_back(order: SettleOrder, forks: usize, reason: &str) -> Vec<HostResult> {
    let mut results = Vec::new();
    for group in order.0 {
        results.extend(undo_all(group, forks, reason).await);
    }
    results
}
