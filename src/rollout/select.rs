//! Which hosts stand in which batch.

use crate::model::BatchSize;

/// The sizes of the batches for `total` hosts; their sum is `total`. The last size repeats.
///
/// A percentage is of all selected hosts, rounded down, at least one host (as Ansible's `serial`).
#[must_use]
pub fn batch_sizes(batches: &[BatchSize], total: usize) -> Vec<usize> {
    let size = |batch: &BatchSize| match batch {
        BatchSize::Count(count) => (*count as usize).max(1),
        BatchSize::Percent(percent) => (total * (*percent as usize) / 100).max(1),
    };
    let last = batches.last().map_or(total.max(1), size);
    let mut out = Vec::new();
    let mut left = total;
    let mut sizes = batches.iter().map(size);
    while left > 0 {
        let take = sizes.next().unwrap_or(last).min(left);
        out.push(take);
        left -= take;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_serial() {
        use BatchSize::{Count, Percent};
        assert_eq!(batch_sizes(&[Count(1), Percent(25), Percent(100)], 12), [1, 3, 8]);
        assert_eq!(batch_sizes(&[Count(2)], 5), [2, 2, 1]);
        assert_eq!(batch_sizes(&[Percent(10)], 3), [1, 1, 1]);
        assert_eq!(batch_sizes(&[], 3), [3]);
        assert_eq!(batch_sizes(&[Percent(100)], 0), [0; 0]);
    }
}
