//! Which hosts stand in which batch.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

use crate::engine::Saga;
use crate::model::BatchSize;

/// Puts every host into its batch, in the run's order; percentages are of `total`, all that were selected. Two names of one
/// machine never stand in one batch, so that work on the machine is done one after the other: the second waits for a later
/// batch.
pub fn assign_batches(batches: &[BatchSize], total: usize, sagas: &mut [Saga]) {
    let places: Vec<_> = sagas.iter().enumerate().map(|(at, saga)| saga.machine().ok_or(at)).collect();
    let numbers = cut(batches, total, &places);
    for (saga, number) in sagas.iter_mut().zip(numbers) {
        saga.set_batch(number);
    }
}

/// The batch, counted from 1, of each thing, by where it is: what is at a place that the batch has already waits.
fn cut<K: Eq + Hash>(batches: &[BatchSize], total: usize, places: &[K]) -> Vec<u32> {
    let sizes = batch_sizes(batches, total.max(places.len()));
    let last = batches.last().map_or(total.max(1), |last| size(last, total));
    let mut sizes = sizes.into_iter().chain(std::iter::repeat(last));
    let mut numbers = vec![0; places.len()];
    let mut open: VecDeque<(&mut u32, &K)> = numbers.iter_mut().zip(places).collect();
    for number in 1u32.. {
        let (mut taken, mut wait) = (HashSet::new(), Vec::new());
        let mut left = sizes.next().unwrap_or(1);
        while left > 0
            && let Some((slot, place)) = open.pop_front()
        {
            if taken.insert(place) {
                *slot = number;
                left -= 1;
            } else {
                wait.push((slot, place));
            }
        }
        for one in wait.into_iter().rev() {
            open.push_front(one);
        }
        if open.is_empty() {
            break;
        }
    }
    numbers
}

fn size(batch: &BatchSize, total: usize) -> usize {
    match batch {
        BatchSize::Count(count) => (*count as usize).max(1),
        BatchSize::Percent(percent) => (total * (*percent as usize) / 100).max(1),
    }
}

/// The sizes of the batches for `total` hosts; their sum is `total`. The last size repeats.
///
/// A percentage is of all selected hosts, rounded down, at least one host (as Ansible's `serial`).
#[must_use]
pub fn batch_sizes(batches: &[BatchSize], total: usize) -> Vec<usize> {
    let size = |batch: &BatchSize| size(batch, total);
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
    fn one_place_is_worked_on_by_one_batch_after_the_other() {
        use BatchSize::{Count, Percent};
        assert_eq!(cut(&[Count(1), Percent(50), Percent(100)], 4, &[1, 2, 3, 4]), [1, 2, 2, 3]);
        assert_eq!(cut(&[Percent(50)], 8, &[1, 2, 3, 4, 5]), [1, 1, 1, 1, 2], "of all that were selected");
        assert_eq!(cut(&[Percent(100)], 5, &["a", "b", "a", "c", "a"]), [1, 1, 2, 1, 3]);
        assert_eq!(cut(&[Count(2)], 4, &["a", "a", "b", "c"]), [1, 2, 1, 2], "the next one that can, in order");
        assert_eq!(cut(&[], 3, &[0; 3]), [1, 2, 3]);
        assert_eq!(cut::<u8>(&[Count(1)], 0, &[]), [0; 0]);
    }

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
