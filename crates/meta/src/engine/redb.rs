//! redb, with two-phase commit: its default, one-phase, can be fooled by a torn page after a crash.

use std::{
    ffi::OsStr,
    mem::ManuallyDrop,
    ops::Bound,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use cairn_sys::Dir;
use cairn_types::ErrorKind;
use redb::{
    Database, DatabaseError, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition,
    TableError,
};

use super::{Batch, Closing, Engine, Pairs, Snapshot, end_of, patiently, unpanicked};
use crate::{
    Error,
    error::{is_damage, kind_of_io},
};

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
pub(super) const FILE: &str = "records.redb";
const CACHE_BYTES: usize = 32 << 20;

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Records in one redb file.
pub(crate) struct Redb {
    /// The table as the last commit left it, once somebody has looked at it: to open it costs more than
    /// most looks. While it is kept, what it consists of stays in the file, as for any look that lasts.
    /// It goes before the database.
    seen: RwLock<Option<Arc<Table>>>,
    database: Closing<Database>,
}

impl Redb {
    /// Makes an empty database in `dir`; the caller gives the directory its name afterwards, since a
    /// file that was cut off while it was made cannot be opened again.
    pub(crate) fn create(dir: &Dir) -> Result<(), Error> {
        let path = dir.path().join(FILE);
        let database = Database::create(&path).map_err(|err| open_error(&path, err.into()))?;
        let redb = Redb::over(database);
        redb.write(&super::journaled::beginning())
            .map_err(|err| open_error(&path, err))?;
        drop(redb);
        Redb::sync_files(dir)
    }

    /// Puts a closed database on the disk, with its name.
    pub(crate) fn sync_files(dir: &Dir) -> Result<(), Error> {
        let file = dir.open_file(OsStr::new(FILE), cairn_sys::OFlags::RDWR, 0)?;
        cairn_sys::durable::sync_file(&file)?;
        Ok(dir.fsync()?)
    }

    /// Opens what [`Redb::create`] made, if all of it proves itself.
    ///
    /// Every page is read for that, which takes some tenths of a second for a million records. Damage that
    /// shows only when it is met would be met in a commit, too, where it ends the process.
    pub(crate) fn open(dir: &Dir) -> Result<Redb, Error> {
        let path = dir.path().join(FILE);
        let database = open_file(&path)?;
        match sound(database) {
            Ok(database) => Ok(Redb::over(database)),
            Err(err) => Err(open_error(&path, err)),
        }
    }

    /// Copies the file from `dir` to `aside` and opens that, whatever is wrong with it: for what can still be
    /// read. It is never closed.
    pub(crate) fn open_remains(dir: &Dir, aside: &Dir) -> Result<ManuallyDrop<Redb>, Error> {
        let (path, copy) = (dir.path().join(FILE), aside.path().join(FILE));
        std::fs::copy(&path, &copy).map_err(|err| open_error(&path, redb::Error::Io(err)))?;
        Ok(ManuallyDrop::new(Redb::over(open_file(&copy)?)))
    }

    fn over(database: Database) -> Redb {
        Redb {
            seen: RwLock::default(),
            database: Closing::new(database),
        }
    }

    /// The table as the last commit left it; `None` in a file that has none yet.
    fn table(&self) -> Result<Option<Arc<Table>>, Error> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = seen.as_ref() {
            return Ok(Some(Arc::clone(table)));
        }
        drop(seen);
        // Held from before the look until it is kept: a commit that comes between the two forgets it
        // afterwards.
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.is_none() {
            *seen = self.database.look(|| self.open_table())?.map(Arc::new);
        }
        Ok(seen.clone())
    }

    fn open_table(&self) -> Result<Option<Table>, Error> {
        let transaction = self.database.begin_read().map_err(read_error)?;
        match transaction.open_table(RECORDS) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(err) => Err(read_error(err)),
        }
    }

    fn write(&self, batch: &Batch) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        // Without it the first start after a crash walks the whole file.
        transaction.set_quick_repair(true);
        {
            let mut table = transaction.open_table(RECORDS)?;
            for (key, value) in batch {
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                    None => table.remove(key.as_slice())?,
                };
            }
        }
        Ok(transaction.commit()?)
    }
}

fn open_file(path: &Path) -> Result<Database, Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    match unpanicked(|| patiently(|| builder.open(path), busy)) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(err)) => Err(open_error(path, err.into())),
        Err(panic) => Err(open_error(path, redb::Error::Corrupted(panic))),
    }
}

/// The database, if all of its pages prove themselves. One that is not sound is left open, as
/// [`Closing`] does.
fn sound(database: Database) -> Result<Database, redb::Error> {
    let mut database = ManuallyDrop::new(database);
    match unpanicked(|| database.check_integrity()) {
        Ok(Ok(_)) => Ok(ManuallyDrop::into_inner(database)),
        Ok(Err(err)) => Err(err.into()),
        Err(panic) => Err(redb::Error::Corrupted(panic)),
    }
}

fn busy(err: &DatabaseError) -> bool {
    matches!(err, DatabaseError::DatabaseAlreadyOpen)
}

fn open_error(path: &Path, err: redb::Error) -> Error {
    let kind = match &err {
        redb::Error::Corrupted(_)
        | redb::Error::RepairAborted
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => ErrorKind::DataLoss,
        redb::Error::Io(err) if is_damage(err) => ErrorKind::DataLoss,
        redb::Error::Io(err) => kind_of_io(err),
        _ => ErrorKind::Internal,
    };
    Error::Open {
        path: path.display().to_string(),
        engine: "redb",
        reason: err.to_string(),
        kind,
    }
}

fn read_error(err: impl Into<redb::Error>) -> Error {
    match err.into() {
        redb::Error::Corrupted(reason) => Error::Damaged(reason),
        other => Error::Read(other.to_string()),
    }
}

impl Engine for Redb {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, Error> {
        let table = self.table()?;
        let database = &self.database;
        Ok(Box::new(State { table, database }))
    }

    fn commit(&self, batch: &Batch) -> Result<(), String> {
        let done = self
            .database
            .change(|| self.write(batch).map_err(|err| err.to_string()));
        *self.seen.write().unwrap_or_else(PoisonError::into_inner) = None;
        done
    }

    fn value_bytes_max(&self) -> usize {
        4 << 20
    }

    fn key_bytes_max(&self) -> usize {
        64 << 10
    }

    fn name(&self) -> &'static str {
        "redb"
    }
}

struct State<'a> {
    table: Option<Arc<Table>>,
    database: &'a Closing<Database>,
}

impl Snapshot for State<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let Some(table) = &self.table else {
            return Ok(None);
        };
        self.database.look(|| {
            let found = table.get(key).map_err(read_error)?;
            Ok(found.map(|value| value.value().to_vec()))
        })
    }

    fn scan(&self, prefix: &[u8]) -> Result<Pairs, Error> {
        self.pairs(prefix, Bound::Included(prefix), usize::MAX)
    }

    fn scan_after(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Pairs, Error> {
        self.pairs(prefix, Bound::Excluded(after), limit)
    }
}

impl State<'_> {
    /// The first `limit` pairs from `lower` on whose keys begin with `prefix`.
    fn pairs(&self, prefix: &[u8], lower: Bound<&[u8]>, limit: usize) -> Result<Pairs, Error> {
        let Some(table) = &self.table else {
            return Ok(Pairs::new());
        };
        let end = end_of(prefix);
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.database.look(|| {
            let range = table.range::<&[u8]>((lower, upper)).map_err(read_error)?;
            range
                .take(limit)
                .map(|pair| {
                    let (key, value) = pair.map_err(read_error)?;
                    Ok((key.value().to_vec(), value.value().to_vec()))
                })
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_at_the_last_commit_and_stays_there() {
        let place = tempfile::tempdir().expect("a directory");
        let dir = Dir::open(place.path()).expect("open");
        Redb::create(&dir).expect("make");
        let redb = Redb::open(&dir).expect("open");
        let set = |value: &str| {
            let batch = Batch::from([(b"key".to_vec(), Some(value.as_bytes().to_vec()))]);
            redb.commit(&batch).expect("commit");
        };
        let value = |look: &dyn Snapshot| look.get(b"key").expect("get");
        let before = redb.snapshot().expect("look");
        set("one");
        let first = redb.snapshot().expect("look");
        set("two");
        let second = redb.snapshot().expect("look");
        assert_eq!(value(before.as_ref()), None);
        assert_eq!(value(first.as_ref()), Some(b"one".to_vec()));
        assert_eq!(value(second.as_ref()), Some(b"two".to_vec()));
    }
}
