//! The narrow door to an engine: look up, walk, and make one batch durable.

mod journaled;
mod redb;
mod sled;
mod turns;

use std::{
    collections::BTreeMap,
    mem::ManuallyDrop,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use cairn_sys::Dir;

pub(crate) use self::{journaled::Journaled, journaled::taken_over};
use self::{redb::Redb, sled::Sled};
use crate::{EngineKind, Error, record};

/// What the engines call what they keep in their directories.
pub(crate) const FILES: [&str; 2] = [redb::FILE, sled::DIRECTORY];

/// Changes that become durable together: new bytes, or removal.
pub(crate) type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Keys and values, by key.
pub(crate) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Changes by key, to be seen instead of what is below them.
pub(crate) type Over<'a> = BTreeMap<&'a [u8], Option<&'a [u8]>>;

/// Bytes of changes as they are written: each has a head of eight.
pub(crate) fn bytes_of(changes: &Batch) -> u64 {
    let bytes = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| {
        8 + key.len() as u64 + value.as_ref().map_or(0, |value| value.len() as u64)
    };
    changes.iter().map(bytes).sum()
}

/// Sorted pairs as they are with `over` over them.
pub(crate) fn laid_over(below: Pairs, over: &Over<'_>) -> Pairs {
    if over.is_empty() {
        return below;
    }
    let mut merged = Pairs::with_capacity(below.len() + over.len());
    let mut below = below.into_iter().peekable();
    for (key, value) in over {
        while let Some(pair) = below.next_if(|(known, _)| known.as_slice() < *key) {
            merged.push(pair);
        }
        below.next_if(|(known, _)| known == key);
        merged.extend(value.map(|value| (key.to_vec(), value.to_vec())));
    }
    merged.extend(below);
    merged
}

/// A state that does not change while it is looked at.
pub(crate) trait Snapshot {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    /// All pairs whose keys begin with `prefix`, in bytewise order.
    fn scan(&self, prefix: &[u8]) -> Result<Pairs, Error>;
    /// The first `limit` of the pairs whose keys begin with `prefix` and come after `after`, which
    /// begins with it as well.
    fn scan_after(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Pairs, Error>;
}

/// An ordered map on disk.
pub(crate) trait Engine: Send + Sync {
    /// Looks at the state of the last commit.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, Error>;
    /// Applies the whole batch or nothing, and returns only when it is on the disk. Called by one
    /// thread at a time. After an error the state is unknown: nothing may be written before a new opening.
    fn commit(&self, batch: &Batch) -> Result<(), String>;
    /// The same for a batch that nobody has to be promised: it may get to the disk only with the next
    /// one that is committed, and never without those before it.
    fn note(&self, batch: &Batch) -> Result<(), String> {
        self.commit(batch)
    }
    /// Why changes of so many bytes, as [`bytes_of`] counts them, cannot be made for now, though nothing is
    /// broken: there is no room for them, or for what would have to be written soon. Asked before each
    /// batch. Where there is room for so many there is for fewer.
    fn full(&self, _bytes: u64) -> Option<Error> {
        None
    }
    /// Most bytes of one value.
    fn value_bytes_max(&self) -> usize;
    /// Most bytes of one key.
    fn key_bytes_max(&self) -> usize;
    /// `redb` or `sled`.
    fn name(&self) -> &'static str;
}

/// Makes an empty database in `dir`, durably but for the name of `dir`.
pub(crate) fn create(kind: EngineKind, dir: &Dir) -> Result<(), Error> {
    match kind {
        EngineKind::Redb => Redb::create(dir),
        EngineKind::Sled => Sled::create(dir),
    }
}

/// Opens the database in `dir`, if all of it can be read.
pub(crate) fn open(kind: EngineKind, dir: &Dir) -> Result<Box<dyn Engine>, Error> {
    let engine: Box<dyn Engine> = match kind {
        EngineKind::Redb => Box::new(Redb::open(dir)?),
        EngineKind::Sled => Box::new(Sled::open(dir)?),
    };
    Ok(engine)
}

/// Opens what is left of the database in `dir`, by way of a copy in `aside` that is never closed; `None` for an
/// engine that cannot be read past its damage.
pub(crate) fn open_remains(
    kind: EngineKind,
    dir: &Dir,
    aside: &Dir,
) -> Result<Option<ManuallyDrop<Box<dyn Engine>>>, Error> {
    match kind {
        EngineKind::Redb => {
            let remains = ManuallyDrop::into_inner(Redb::open_remains(dir, aside)?);
            Ok(Some(ManuallyDrop::new(Box::new(remains))))
        }
        EngineKind::Sled => Ok(None),
    }
}

/// Puts a closed database on the disk, with its names.
pub(crate) fn sync_files(kind: EngineKind, dir: &Dir) -> Result<(), Error> {
    match kind {
        EngineKind::Redb => Redb::sync_files(dir),
        EngineKind::Sled => Sled::sync_files(dir),
    }
}

/// Refuses a record that `engine` could not keep safely, by the length of its value.
pub(crate) fn limits(engine: &dyn Engine, key: &[u8], value_bytes: usize) -> Result<(), Error> {
    let (length, limit) = (key.len(), engine.key_bytes_max());
    if length > limit {
        let key = record::shown(key).chars().take(140).collect();
        let engine = engine.name();
        return Err(Error::KeyTooLong {
            key,
            length,
            limit,
            engine,
        });
    }
    let (length, limit) = (value_bytes, engine.value_bytes_max());
    if length > limit {
        return Err(Error::TooLarge {
            key: record::shown(key),
            length,
            limit,
            engine: engine.name(),
        });
    }
    Ok(())
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

/// A database that is closed only while it is sound. redb commits once more when it is dropped: on
/// damaged pages that panics, even twice, which ends the process; and after a failed commit it would
/// be the second try that nobody may make. So a spoiled one is left open for the kernel to clean up.
/// Damage to redb's own lists of free pages shows only in a commit and can still end the process
/// there; everything acknowledged is on the disk by then.
struct Closing<T> {
    database: Option<T>,
    spoiled: AtomicBool,
}

impl<T> Closing<T> {
    fn new(database: T) -> Closing<T> {
        Closing {
            database: Some(database),
            spoiled: AtomicBool::new(false),
        }
    }

    /// Looks at the database; damage comes back as an error, whether the engine says so or panics.
    fn look<R>(&self, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        let result = unpanicked(work).unwrap_or_else(|panic| Err(Error::Damaged(panic)));
        if matches!(result, Err(Error::Damaged(_))) {
            self.spoiled.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Changes the database.
    fn change<R>(&self, work: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
        let result = unpanicked(work).unwrap_or_else(Err);
        if result.is_err() {
            self.spoiled.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl<T> Deref for Closing<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.database.as_ref().expect("taken only when dropped")
    }
}

impl<T> Drop for Closing<T> {
    fn drop(&mut self) {
        let database = self.database.take();
        if *self.spoiled.get_mut() {
            std::mem::forget(database);
        } else if let Err(reason) = unpanicked(|| drop(database)) {
            tracing::error!(%reason, "closing the records failed");
        }
    }
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

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    struct Database {
        closed: Rc<Cell<bool>>,
        panics: bool,
    }

    impl Drop for Database {
        fn drop(&mut self) {
            self.closed.set(true);
            assert!(!self.panics, "on purpose");
        }
    }

    fn closed_after(panics: bool, work: impl FnOnce(&Closing<Database>)) -> bool {
        let closed = Rc::new(Cell::new(false));
        let database = Closing::new(Database {
            closed: Rc::clone(&closed),
            panics,
        });
        work(&database);
        drop(database);
        closed.get()
    }

    #[test]
    fn only_a_sound_database_is_closed_and_never_with_a_panic() {
        assert!(closed_after(false, |d| d.look(|| Ok(())).expect("fine")));
        assert!(closed_after(true, |_| ()));
        assert!(!closed_after(true, |d| {
            let err = d.look::<()>(|| panic!("page {}", 7)).expect_err("panic");
            assert!(matches!(&err, Error::Damaged(text) if text.contains("page 7")));
        }));
        assert!(!closed_after(true, |d| {
            d.look::<()>(|| Err(Error::Damaged(String::new())))
                .expect_err("damaged");
        }));
        assert!(!closed_after(true, |d| {
            d.change::<()>(|| Err("no space".to_owned()))
                .expect_err("full");
        }));
        assert!(!closed_after(true, |d| {
            d.change::<()>(|| panic!("no space")).expect_err("full");
        }));
    }

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(end_of(b"a\0"), Some(b"a\x01".to_vec()));
        assert_eq!(end_of(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(end_of(b"\xff"), None);
        assert_eq!(end_of(b""), None);
    }
}
