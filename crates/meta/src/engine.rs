//! The narrow door to an engine: look up, walk, and make one batch durable.

mod redb;
mod sled;

use std::collections::BTreeMap;

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
    /// `redb` or `sled`.
    fn name(&self) -> &'static str;
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
