//! How many threads the unpacking of a layer gets.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

/// No layer weighs more: what a manifest says of sizes may be anything, and the sum must not wrap.
const HEAVIEST: u64 = 1 << 40;

/// What every layer gets.
const LEAST: usize = 2;

/// From one more on, threads of a layer inflate side by side (see [`cairn_layer::Options::threads`]).
const STAGES: usize = 3;

/// How many threads all layers together may have for inflating beside the first of each. Four that inflate
/// are about what one thread can apply. What is decoded ahead takes 7.5 MiB a task, of which there are two
/// for each of these threads and one for each layer that has any: on any machine at most 53 MiB if all are at
/// one layer, and 68 MiB if three layers have one each.
const INFLATING: usize = 3;

/// What is being unpacked in a store or waits for it, over all requests.
#[derive(Default)]
pub(crate) struct Load {
    /// Packed.
    bytes: AtomicU64,
    /// Threads that layers under way were given: none of them gives any back when another begins.
    given: AtomicUsize,
    /// Of [`INFLATING`], how many are at it.
    inflating: AtomicUsize,
}

/// A layer's part of that, until it is dropped.
pub(crate) struct Weight<'l> {
    load: &'l Load,
    own: u64,
}

impl Load {
    /// Whether anything is being unpacked, or waits for it.
    pub(crate) fn is_any(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > 0
    }

    /// Adds a layer, which then weighs in what the others get.
    pub(crate) fn add(&self, bytes: u64) -> Weight<'_> {
        let own = bytes.min(HEAVIEST);
        self.bytes.fetch_add(own, Ordering::Relaxed);
        Weight { load: self, own }
    }
}

impl<'l> Weight<'l> {
    /// What the layer gets if it begins now, until that is dropped.
    pub(crate) fn threads(&self, cores: usize) -> Threads<'l> {
        let load = self.load;
        let share = threads(cores, self.own, load.bytes.load(Ordering::Relaxed));
        // Those before it had their shares of less.
        let left = |given: usize| share.min((cores + LEAST).saturating_sub(given)).max(LEAST);
        let given = take(&load.given, left);
        let beside = given.saturating_sub(STAGES);
        let inflating = take(&load.inflating, |taken| {
            beside.min(INFLATING.saturating_sub(taken))
        });
        let number = given.min(STAGES) + inflating;
        load.given.fetch_sub(given - number, Ordering::Relaxed);
        Threads {
            load,
            number,
            inflating,
        }
    }
}

/// Adds to `account` as many as there are to be had by what it is, and says how many.
fn take(account: &AtomicUsize, to_be_had: impl Fn(usize) -> usize) -> usize {
    let mut taken = 0;
    account.update(Ordering::Relaxed, Ordering::Relaxed, |before| {
        taken = to_be_had(before);
        before + taken
    });
    taken
}

impl Drop for Weight<'_> {
    fn drop(&mut self) {
        self.load.bytes.fetch_sub(self.own, Ordering::Relaxed);
    }
}

/// The threads of a layer under way.
pub(crate) struct Threads<'l> {
    load: &'l Load,
    pub(crate) number: usize,
    inflating: usize,
}

impl Drop for Threads<'_> {
    fn drop(&mut self) {
        let load = self.load;
        load.given.fetch_sub(self.number, Ordering::Relaxed);
        load.inflating.fetch_sub(self.inflating, Ordering::Relaxed);
    }
}

/// The cores that `parallel_layers` stands for.
pub(crate) fn cores(parallel_layers: usize) -> usize {
    match parallel_layers {
        0 => thread::available_parallelism().map_or(1, |n| n.get()),
        chosen => chosen,
    }
}

/// A layer's share of the cores by its bytes, but no more than are of use, and two where it is less.
///
/// Two for each of as many layers as cores keep them all busy, since the one thread waits where the
/// other works. More for each would only take turns: on two cores one layer is not faster with three or
/// four threads. Where there are fewer layers than half the cores, those that are left are shared out.
///
/// By bytes, not by the number of layers: mostly one is larger than all others together, which are done
/// soon and leave it alone with what it got at its beginning.
fn threads(cores: usize, own: u64, all: u64) -> usize {
    let (own, all) = (u128::from(own), u128::from(all.max(own).max(1)));
    let share = (cores as u128 * own + all / 2) / all;
    // A layer beside some that are next to nothing has the whole.
    let beside = (5 * INFLATING as u128 * own + all) / (5 * all);
    let most = STAGES as u128 + beside;
    usize::try_from(share.min(most)).unwrap_or(cores).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cores: usize, layers: &[u64], expected: &[usize]) {
        let load = Load::default();
        let weights: Vec<Weight<'_>> = layers.iter().map(|&bytes| load.add(bytes)).collect();
        let threads: Vec<Threads<'_>> = weights.iter().map(|w| w.threads(cores)).collect();
        let numbers: Vec<usize> = threads.iter().map(|threads| threads.number).collect();
        assert_eq!(numbers, expected, "{cores} cores for {layers:?}");
        drop(threads);
        drop(weights);
        assert_eq!(load.bytes.into_inner(), 0);
        assert_eq!(load.given.into_inner(), 0);
        assert_eq!(load.inflating.into_inner(), 0);
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
        check(1000, &[100, 100, 100], &[4, 4, 4]);
        check(1000, &[100; 4], &[3; 4]);
        // Each comes when those before have begun, and is larger than all of them.
        let load = Load::default();
        let mut weights = Vec::new();
        let mut beside = 0;
        for bytes in [1, 10, 1000, 100_000, 10_000_000] {
            weights.push(load.add(bytes));
            let weight = weights.last().expect("one");
            let threads = weight.threads(1000);
            beside += threads.number - STAGES;
            assert!(beside <= INFLATING);
            // It goes on.
            std::mem::forget(threads);
        }
        assert_eq!(beside, INFLATING);
    }

    /// Gives what each of so many equal layers gets that begin one after another, and go on.
    fn one_after_another(cores: usize, layers: usize) -> Vec<usize> {
        let load = Load::default();
        let mut numbers = Vec::new();
        for _ in 0..layers {
            let weight = load.add(300);
            let threads = weight.threads(cores);
            numbers.push(threads.number);
            std::mem::forget((threads, weight));
        }
        assert_eq!(load.given.into_inner(), numbers.iter().sum::<usize>());
        numbers
    }

    #[test]
    fn those_that_begin_later_get_what_is_left() {
        assert_eq!(one_after_another(4, 3), [4, 2, 2]);
        assert_eq!(one_after_another(8, 4), [6, 3, 2, 2]);
        assert_eq!(one_after_another(64, 10), [6, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
        // Two each would be as many as cores.
        let many = one_after_another(64, 64);
        assert!(many[..21].iter().sum::<usize>() <= 64 + LEAST, "{many:?}");
        assert!(many[21..].iter().all(|number| *number == 2), "{many:?}");
    }

    #[test]
    fn the_last_layer_gets_what_the_others_leave() {
        let load = Load::default();
        let first = load.add(100);
        let last = load.add(100);
        assert_eq!(last.threads(4).number, 2);
        drop(first);
        assert_eq!(last.threads(4).number, 4);
    }
}
