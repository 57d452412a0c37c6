//! Locks on names: one holder for each value of `K`, whoever else holds other values.

use std::{
    collections::HashSet,
    hash::Hash,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use cairn_sys::steer;

/// A set of held names.
pub(crate) struct Locks<K: Eq + Hash>(Arc<Inner<K>>);

struct Inner<K> {
    held: Mutex<HashSet<K>>,
    freed: Condvar,
}

/// Holds a name until dropped.
pub(crate) struct Held<K: Eq + Hash> {
    locks: Arc<Inner<K>>,
    name: K,
}

impl<K> Inner<K> {
    /// A panic elsewhere cannot leave the set half changed.
    fn set(&self) -> MutexGuard<'_, HashSet<K>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Locks<K> {
    pub(crate) fn new() -> Locks<K> {
        Locks(Arc::new(Inner {
            held: Mutex::new(HashSet::new()),
            freed: Condvar::new(),
        }))
    }

    /// Takes the name, or `None` when somebody has it.
    pub(crate) fn try_lock(&self, name: &K) -> Option<Held<K>> {
        self.0.set().insert(name.clone()).then(|| self.held(name))
    }

    /// Whether somebody has the name.
    pub(crate) fn is_held(&self, name: &K) -> bool {
        self.0.set().contains(name)
    }

    /// Waits for the name.
    pub(crate) fn lock(&self, name: &K) -> Held<K> {
        let mut set = self.0.set();
        while !set.insert(name.clone()) {
            set = steer::wait(&self.0.held, &self.0.freed, set);
        }
        drop(set);
        self.held(name)
    }

    fn held(&self, name: &K) -> Held<K> {
        Held {
            locks: Arc::clone(&self.0),
            name: name.clone(),
        }
    }
}

impl<K: Eq + Hash> Drop for Held<K> {
    fn drop(&mut self) {
        self.locks.set().remove(&self.name);
        steer::wake(&self.locks.freed);
    }
}
