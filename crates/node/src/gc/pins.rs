//! What calls under way rely on.
//!
//! A call that finds a thing and refers to it later (an import that skips what is here, an unpacking
//! on a stack that is there) has nothing in the records meanwhile. So it says beforehand what it will
//! look for: nothing that is pinned is collected, nor what that leads to. A client's lease does the
//! same, in the records; pins are for the time of one call, and end with it or with the process.
//!
//! The look comes after the pin. Either the collector sees the pin before it removes the thing, and
//! leaves it; or it has condemned the thing already, and then the pin waits until that is on the disk,
//! for as long as one small commit takes, and the look finds nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use cairn_sys::steer;
use cairn_types::{Digest, Namespace, SnapshotKey};

use super::item::{Item, Place};
use crate::Node;

/// Everything that is pinned or condemned in one store.
#[derive(Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By how many.
    pinned: HashMap<Place, usize>,
    /// By which sentence.
    condemned: HashMap<Place, u64>,
    sentences: u64,
}

impl Registry {
    /// Nothing in here panics or waits halfway.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        steer::wait(&self.state, &self.changed, state)
    }

    fn pin(&self, place: &Place) {
        let mut state = self.lock();
        while state.condemned.contains_key(place) {
            state = self.wait(state);
        }
        *state.pinned.entry(place.clone()).or_default() += 1;
    }

    fn unpin(&self, place: &Place) {
        let mut state = self.lock();
        let Some(count) = state.pinned.get_mut(place) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            state.pinned.remove(place);
            steer::wake(&self.changed);
        }
    }

    /// Everything that is pinned now.
    pub(super) fn pinned(&self) -> Vec<Place> {
        self.lock().pinned.keys().cloned().collect()
    }

    /// Condemns nothing yet.
    pub(super) fn sentence(self: &Arc<Registry>) -> Sentence {
        let mut state = self.lock();
        state.sentences += 1;
        Sentence {
            registry: Arc::clone(self),
            number: state.sentences,
        }
    }

    /// Waits until no call relies on any of `places`, and condemns them.
    pub(crate) fn condemn(self: &Arc<Registry>, places: &[Place]) -> Sentence {
        let sentence = self.sentence();
        let mut state = self.lock();
        let taken = |state: &State| {
            let taken =
                |place| state.pinned.contains_key(place) || state.condemned.contains_key(place);
            places.iter().any(taken)
        };
        while taken(&state) {
            state = self.wait(state);
        }
        let condemned = places.iter().map(|place| (place.clone(), sentence.number));
        state.condemned.extend(condemned);
        drop(state);
        sentence
    }
}

/// Things that are being removed. When it is dropped they are, or not; whoever waits looks.
pub(crate) struct Sentence {
    registry: Arc<Registry>,
    number: u64,
}

/// A sentence as a transaction passes it.
pub(super) struct Judge {
    registry: Arc<Registry>,
    number: u64,
}

impl Sentence {
    /// For the closure of a transaction.
    pub(super) fn judge(&self) -> Judge {
        Judge {
            registry: Arc::clone(&self.registry),
            number: self.number,
        }
    }
}

impl Drop for Sentence {
    fn drop(&mut self) {
        let mut state = self.registry.lock();
        state.condemned.retain(|_, number| *number != self.number);
        steer::wake(&self.registry.changed);
    }
}

impl Judge {
    /// Condemns what `choose` returns when it is told all that is pinned; nobody pins meanwhile. What
    /// others have condemned is left to them.
    pub(super) fn condemn(
        &self,
        choose: impl FnOnce(&mut dyn Iterator<Item = &Place>) -> Vec<(Place, u32)>,
    ) -> Vec<(Place, u32)> {
        let mut state = self.registry.lock();
        let mut chosen = choose(&mut state.pinned.keys());
        chosen.retain(|(place, _)| !state.condemned.contains_key(place));
        let places = chosen.iter().map(|(place, _)| (place.clone(), self.number));
        state.condemned.extend(places.collect::<Vec<_>>());
        chosen
    }
}

/// Keeps things from being collected, from before they are looked for. Clones are one; the last to go
/// lets go of everything.
#[derive(Clone)]
pub struct Pins(Arc<Held>);

struct Held {
    registry: Arc<Registry>,
    places: Mutex<HashSet<Place>>,
}

impl Pins {
    /// Pins a blob, whether or not it is there, with all that it leads to.
    pub fn blob(&self, ns: &Namespace, digest: &Digest) {
        self.pin((ns.clone(), Item::Blob(digest.clone())));
    }

    /// Pins a snapshot, whether or not it is there, with all that it leads to.
    pub fn snapshot(&self, ns: &Namespace, key: &SnapshotKey) {
        self.pin((ns.clone(), Item::Snapshot(key.clone())));
    }

    /// Not to be called in a look at the records, nor in a transaction: it may wait for one.
    fn pin(&self, place: Place) {
        let mut places = self.0.places();
        if !places.contains(&place) {
            self.0.registry.pin(&place);
            places.insert(place);
        }
    }
}

impl Held {
    fn places(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for place in self.places().drain() {
            self.registry.unpin(&place);
        }
    }
}

impl Node {
    /// For one call.
    pub fn pins(&self) -> Pins {
        Pins(Arc::new(Held {
            registry: Arc::clone(&self.inner.pins),
            places: Mutex::default(),
        }))
    }
}
