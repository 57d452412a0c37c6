//! What the daemon takes while its clients work.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Told, daemon::Served};

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(100);

/// What was seen.
#[derive(Default)]
pub(super) struct Memory {
    samples: Vec<u64>,
    descriptors: u64,
}

impl Memory {
    /// Looks until the end.
    pub(super) fn watch(&mut self, daemon: &Served, end: Instant, told: &Mutex<Told>) {
        let fault = |text: String| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.fault(text);
        };
        while Instant::now() < end {
            match daemon.anonymous() {
                Ok(bytes) => self.samples.push(bytes),
                Err(err) => return fault(format!("the daemon is gone: {err}")),
            }
            self.descriptors = self.descriptors.max(daemon.descriptors().unwrap_or(0));
            // It mounts for nobody.
            let mounts = daemon.mounts();
            if !mounts.is_empty() {
                fault(format!("the daemon has mounts: {mounts:?}"));
            }
            std::thread::sleep(EVERY);
        }
    }

    /// The most, in bytes.
    pub(super) fn peak(&self) -> u64 {
        self.samples.iter().copied().max().unwrap_or(0)
    }

    /// Most descriptors at once.
    pub(super) fn descriptors(&self) -> u64 {
        self.descriptors
    }

    /// The median in the second and in the last quarter.
    pub(super) fn quarters(&self) -> (u64, u64) {
        let quarter = self.samples.len() / 4;
        let median = |samples: &[u64]| {
            let mut sorted = samples.to_vec();
            sorted.sort_unstable();
            sorted.get(sorted.len() / 2).copied().unwrap_or(0)
        };
        let second = &self.samples[quarter..(2 * quarter)];
        let last = &self.samples[self.samples.len() - quarter..];
        (median(second), median(last))
    }
}
