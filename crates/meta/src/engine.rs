//! The narrow door to an engine: look up, walk, and make one batch durable.

mod redb;
mod sled;
mod turns;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

pub(crate) use self::{redb::Redb, sled::Sled};
use crate::Error;

/// Changes that become durable together: new bytes, or removal.
pub(crate) type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Keys and values, by key.
pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A state that does not change while it is looked at.
pub(crate) trait Snapshot {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    /// All pairs whose keys begin with `prefix`, in bytewise order.
    fn scan(&self, prefix: &[u8]) -> Result<Pairs, Error>;
}

/// An ordered map on disk.
pub(crate) trait Engine: Send + Sync {
    /// Looks at the state of the last commit.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, Error>;
    /// Applies the whole batch or nothing, and returns only when it is on the disk. Called by one
    /// thread. After an error the state is unknown: nothing may be written before a new opening.
    fn commit(&self, batch: &Batch) -> Result<(), String>;
    /// Most bytes of one value.
    fn value_bytes_max(&self) -> usize;
    /// Most bytes of one key.
    fn key_bytes_max(&self) -> usize;
    /// `redb` or `sled`.
    fn name(&self) -> &'static str;
}

/// Both engines panic on some damaged pages. What a disk says is no reason to unwind through a
/// caller, so a panic comes back as its message.
pub(crate) fn unpanicked<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("the engine stopped: {}", text.unwrap_or("no reason given"))
    })
}

/// How long an opening waits for a lock on the files.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Opens again while the files are `busy`. Who opens a store holds the lock on its root, so another
/// holder is on its way out: the engine's own threads after a close, or a child of this process that
/// has not come to its `exec` yet.
fn patiently<T, E>(open: impl Fn() -> Result<T, E>, busy: impl Fn(&E) -> bool) -> Result<T, E> {
    let begin = Instant::now();
    loop {
        match open() {
            Err(err) if busy(&err) && begin.elapsed() < LOCK_WAIT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// The first key after all that begin with `prefix`; `None` when there is none.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}
