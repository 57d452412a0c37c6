//! redb, with two-phase commit: its default, one-phase, can be fooled by a torn page after a crash.

use std::{
    ffi::OsStr,
    ops::Bound,
    path::{Path, PathBuf},
};

use cairn_sys::Dir;
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition, TableError};

use super::{Batch, Engine, Pairs, Snapshot, end_of};
use crate::Error;

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
const FILE: &str = "records.redb";
const CACHE_BYTES: usize = 32 << 20;

/// Records in one redb file.
pub(crate) struct Redb {
    database: Database,
}

impl Redb {
    /// Makes an empty database in `dir`; the caller gives the directory its name afterwards, since a
    /// file that was cut off while it was made cannot be opened again.
    pub(crate) fn create(dir: &Dir) -> Result<(), Error> {
        let path = dir.path().join(FILE);
        let failed = |err: &dyn std::fmt::Display| open_error(&path, err);
        let database = Database::create(&path).map_err(|err| failed(&err))?;
        let redb = Redb { database };
        redb.write(&Batch::new()).map_err(|err| failed(&err))?;
        drop(redb);
        let file = dir.open_file(OsStr::new(FILE), cairn_sys::OFlags::RDWR, 0)?;
        cairn_sys::durable::sync_file(&file)?;
        Ok(dir.fsync()?)
    }

    /// Opens what [`Redb::create`] made.
    pub(crate) fn open(dir: &Dir) -> Result<Redb, Error> {
        let path = dir.path().join(FILE);
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .open(&path)
            .map_err(|err| open_error(&path, &err))?;
        Ok(Redb { database })
    }

    fn write(&self, batch: &Batch) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
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

fn open_error(path: &Path, err: &dyn std::fmt::Display) -> Error {
    let path: PathBuf = path.into();
    Error::Open {
        path: path.display().to_string(),
        engine: "redb",
        reason: err.to_string(),
    }
}

fn read_error(err: &dyn std::fmt::Display) -> Error {
    Error::Read(err.to_string())
}

impl Engine for Redb {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, Error> {
        let transaction = self.database.begin_read().map_err(|err| read_error(&err))?;
        match transaction.open_table(RECORDS) {
            Ok(table) => Ok(Box::new(State(Some(table)))),
            Err(TableError::TableDoesNotExist(_)) => Ok(Box::new(State(None))),
            Err(err) => Err(read_error(&err)),
        }
    }

    fn commit(&self, batch: &Batch) -> Result<(), String> {
        self.write(batch).map_err(|err| err.to_string())
    }

    fn value_bytes_max(&self) -> usize {
        4 << 20
    }

    fn name(&self) -> &'static str {
        "redb"
    }
}

struct State(Option<ReadOnlyTable<&'static [u8], &'static [u8]>>);

impl Snapshot for State {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let Some(table) = &self.0 else {
            return Ok(None);
        };
        let found = table.get(key).map_err(|err| read_error(&err))?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Pairs, Error> {
        let Some(table) = &self.0 else {
            return Ok(Pairs::new());
        };
        let end = end_of(prefix);
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let range = table
            .range::<&[u8]>((Bound::Included(prefix), upper))
            .map_err(|err| read_error(&err))?;
        range
            .map(|pair| {
                let (key, value) = pair.map_err(|err| read_error(&err))?;
                Ok((key.value().to_vec(), value.value().to_vec()))
            })
            .collect()
    }
}
