//! Documents that pulls are reading, so that several at once fetch each of them once.
//!
//! A layer that another pull has claimed is waited for until it is stored. Documents are stored last, after
//! all that they refer to, and are wanted first: who waited for that would wait for another's whole pull. So
//! a document stays in memory for as long as any pull under way has read it, and is handed on from there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use cairn_types::{Digest, Namespace};
use tokio::sync::OnceCell;

/// The bytes of a document, once somebody has fetched them. Whoever is at it is waited for; when he fails or
/// is dropped, the next fetches.
pub(super) type Document = Arc<OnceCell<Bytes>>;

/// Whose it is where namespaces have nothing of one another, and which.
type Key = (Option<Namespace>, Digest);

/// Those that any pull under way has read.
#[derive(Default)]
pub(crate) struct Documents(Mutex<State>);

#[derive(Default)]
struct State {
    known: HashMap<Key, Weak<OnceCell<Bytes>>>,
    /// So many are looked through for those that nobody has any more.
    sweep_at: usize,
}

impl Documents {
    /// The place of a document. It is there for as long as somebody keeps it.
    pub(super) fn place(&self, key: Key) -> Document {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = state.known.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        if state.known.len() >= state.sweep_at {
            state.known.retain(|_, place| place.strong_count() > 0);
            state.sweep_at = 2 * state.known.len() + 16;
        }
        let place = Document::default();
        state.known.insert(key, Arc::downgrade(&place));
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_kept_by_those_who_read_it() {
        let documents = Documents::default();
        let key = |text: &str| (None, Digest::sha256(text.as_bytes()));
        let first = documents.place(key("a"));
        let other = (Some(Namespace::parse("ns").expect("namespace")), key("a").1);
        assert!(!Arc::ptr_eq(&first, &documents.place(other)));
        first
            .set(Bytes::from_static(b"a"))
            .expect("nobody was first");
        let second = documents.place(key("a"));
        drop(first);
        assert_eq!(second.get(), Some(&Bytes::from_static(b"a")));
        drop(second);
        assert_eq!(documents.place(key("a")).get(), None);
        for number in 0..1000 {
            documents.place(key(&number.to_string()));
        }
        let known = documents.0.lock().expect("state").known.len();
        assert!(known < 20, "{known} that nobody has");
    }
}
