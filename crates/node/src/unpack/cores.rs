//! How many threads the unpacking of a layer gets.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// No layer weighs more: what a manifest says of sizes may be anything, and the sum must not wrap.
const HEAVIEST: u64 = 1 << 40;

/// What is being unpacked in a store or waits for it, over all requests, in packed bytes.
#[derive(Default)]
pub(crate) struct Load(AtomicU64);

/// A layer's part of that, until it is dropped.
pub(crate) struct Weight<'l> {
    load: &'l Load,
    own: u64,
}

impl Load {
    /// Adds a layer, which then weighs in what the others get.
    pub(crate) fn add(&self, bytes: u64) -> Weight<'_> {
        let own = bytes.min(HEAVIEST);
        self.0.fetch_add(own, Ordering::Relaxed);
        Weight { load: self, own }
    }
}

impl Weight<'_> {
    /// How many threads the layer gets if it begins now.
    pub(crate) fn threads(&self, cores: usize) -> usize {
        threads(cores, self.own, self.load.0.load(Ordering::Relaxed))
    }
}

impl Drop for Weight<'_> {
    fn drop(&mut self) {
        self.load.0.fetch_sub(self.own, Ordering::Relaxed);
    }
}

/// The cores that `parallel_layers` stands for.
pub(crate) fn cores(parallel_layers: usize) -> usize {
    match parallel_layers {
        0 => thread::available_parallelism().map_or(1, |n| n.get()),
        chosen => chosen,
    }
}

/// How many threads all layers together may have for inflating beside the first of each. They take up to
/// 16 MiB each, so that unpacking one or two layers stays below 64 MiB; and four that inflate are about what
/// one thread can apply.
const INFLATING: u64 = 3;

/// A layer's share of the cores by its bytes, but no more than are of use, and two where it is less.
///
/// Two for each of as many layers as cores keep them all busy, since the one thread waits where the
/// other works. More for each would only take turns: on two cores one layer is not faster with three or
/// four threads. Where there are fewer layers than half the cores, those that are left are shared out.
///
/// By bytes, not by the number of layers: mostly one is larger than all others together, which are done
/// soon and leave it alone with what it got at its beginning.
fn threads(cores: usize, own: u64, all: u64) -> usize {
    let all = all.max(own).max(1);
    // One apart from some that are next to nothing has the whole, and two have no more than it together.
    let inflating = (4 * INFLATING * own + all) / (4 * all);
    let (own, all) = (u128::from(own), u128::from(all));
    let share = (cores as u128 * own + all / 2) / all;
    let most = 3 + u128::from(inflating);
    usize::try_from(share.min(most)).unwrap_or(cores).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cores: usize, layers: &[u64], expected: &[usize]) {
        let load = Load::default();
        let weights: Vec<Weight<'_>> = layers.iter().map(|&bytes| load.add(bytes)).collect();
        let threads: Vec<usize> = weights.iter().map(|w| w.threads(cores)).collect();
        assert_eq!(threads, expected, "{cores} cores for {layers:?}");
        drop(weights);
        assert_eq!(load.0.into_inner(), 0);
    }

    #[test]
    fn layers_enough_for_all_cores_get_two_threads_each() {
        check(1, &[50], &[2]);
        check(1, &[0], &[2]);
        check(2, &[50], &[2]);
        check(2, &[50, 50], &[2, 2]);
        check(4, &[50, 50], &[2, 2]);
        check(4, &[50; 40], &[2; 40]);
    }

    #[test]
    fn fewer_layers_get_the_cores_that_are_left() {
        check(3, &[300], &[3]);
        check(4, &[300], &[4]);
        check(8, &[300, 300], &[4, 4]);
        check(64, &[300], &[6]);
    }

    #[test]
    fn a_large_layer_is_not_held_back_by_small_ones() {
        check(4, &[300, 1, 1, 1], &[4, 2, 2, 2]);
        check(8, &[800, 10, 10, 10, 10, 10], &[6, 2, 2, 2, 2, 2]);
        // Whatever sizes a manifest has.
        check(8, &[u64::MAX, u64::MAX, 1, 0], &[4, 4, 2, 2]);
    }

    #[test]
    fn memory_is_bounded_on_any_machine() {
        for part in 0..=100 {
            let load = Load::default();
            let both = [load.add(part), load.add(100 - part)];
            let threads = both.each_ref().map(|weight| weight.threads(1000));
            // From the fourth on all inflate beside the first.
            let beside: usize = threads.iter().map(|n| n.saturating_sub(3)).sum();
            assert!(beside <= 3, "{threads:?} for {part} of 100");
        }
    }

    #[test]
    fn the_last_layer_gets_what_the_others_leave() {
        let load = Load::default();
        let first = load.add(100);
        let last = load.add(100);
        assert_eq!(last.threads(4), 2);
        drop(first);
        assert_eq!(last.threads(4), 4);
    }
}
