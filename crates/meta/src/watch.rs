//! Hearing of every change from some moment on.
//!
//! Whoever walks all records beside the work (the garbage collector) cannot hold one state of them
//! for as long as that takes: one of the engines would keep every commit waiting. So it reads in
//! parts, each from a state of its own, and hears of all changes since before the first part. A key
//! that changed is as its last change says, any other as it was read; together that is one state.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicUsize, Ordering},
};

use crate::{Error, Key, Record, Table, engine::Batch, record};

/// One record that was written or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Change {
    /// Key and new record, if it is one of `table`; no record when it was removed.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the record does not prove itself.
    #[allow(clippy::type_complexity)]
    pub fn of<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
    ) -> Option<Result<(K, Option<V>), Error>> {
        let (tag, rest) = self.key.split_first()?;
        (*tag == table.tag).then(|| {
            let key = K::decode(rest).map_err(|reason| Error::Corrupt {
                key: record::shown(&self.key),
                reason,
            })?;
            let value = self.value.as_ref();
            let value = value.map(|bytes| record::open(&self.key, bytes));
            Ok((key, value.transpose()?))
        })
    }
}

type Heard = Mutex<Vec<Change>>;

/// Hears of every change until it is dropped, in the order in which they were made.
///
/// A change is heard of when its transaction has run, which is before it is on the disk: a later
/// transaction has always heard of what it builds on. One whose commit fails was heard of for
/// nothing; no other change can succeed after it.
pub struct Watch {
    heard: Arc<Heard>,
    watches: Arc<Watches>,
}

impl Watch {
    /// The changes since the last call.
    pub fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *lock(&self.heard))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watches.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All that watch one store.
#[derive(Default)]
pub(crate) struct Watches {
    /// Lets the thread pass by without a lock while there are none.
    count: AtomicUsize,
    all: Mutex<Vec<Weak<Heard>>>,
}

impl Watches {
    /// One more. To be called in a transaction, so that it falls between two others.
    pub(crate) fn add(self: &Arc<Watches>) -> Watch {
        let heard = Arc::default();
        lock(&self.all).push(Arc::downgrade(&heard));
        self.count.fetch_add(1, Ordering::Relaxed);
        Watch {
            heard,
            watches: Arc::clone(self),
        }
    }

    /// Tells everybody of the changes of one transaction, before the next one runs.
    pub(crate) fn tell(&self, changes: &Batch) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        lock(&self.all).retain(|watch| {
            let Some(heard) = watch.upgrade() else {
                return false;
            };
            let changes = changes.iter().map(|(key, value)| Change {
                key: key.clone(),
                value: value.clone(),
            });
            lock(&heard).extend(changes);
            true
        });
    }
}

/// What is inside are plain lists, whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
