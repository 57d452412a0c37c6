//! Refs of uploads that have no bytes of their own, since another namespace has the blob and
//! committing will only link it. They show in no listing, but clients may abort them.
//!
//! They are kept in memory: what a restart forgets costs a client the answer that a ref which no
//! stream holds is not there.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use cairn_types::{IngestRef, Namespace};

/// Refs that are remembered; the oldest is forgotten. Most end with their stream.
const REFS_MAX: usize = 4096;

/// The refs, the oldest first.
#[derive(Default)]
pub(super) struct Linking(Mutex<VecDeque<(Namespace, IngestRef)>>);

impl Linking {
    /// Remembers one.
    pub(super) fn begin(&self, ns: &Namespace, reference: &IngestRef) {
        let mut refs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |(other, named): &(Namespace, IngestRef)| other == ns && named == reference;
        if refs.iter().any(known) {
            return;
        }
        if refs.len() >= REFS_MAX {
            refs.pop_front();
        }
        refs.push_back((ns.clone(), reference.clone()));
    }

    /// Forgets one; whether it was remembered.
    pub(super) fn end(&self, ns: &Namespace, reference: &IngestRef) -> bool {
        let mut refs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = refs.len();
        refs.retain(|(other, named)| other != ns || named != reference);
        refs.len() < before
    }
}
