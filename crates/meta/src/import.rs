//! An export becomes the records of a store, all of it or nothing.
//!
//! A database is made aside from the lines, with an empty journal in its directory. When the last line
//! has proved all others and everything is on the disk, one rename gives the directory the name
//! `imported.ENGINE`: from then on these are the records, whatever happens. The rest is done by whoever
//! comes first, this process or the next opening: what was there before becomes `backup-N.ENGINE`, with
//! its own journal inside, and the new one gets its name.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead, Read},
};

use cairn_sys::Dir;
use cairn_types::{Algorithm, Hasher};

use crate::{
    EngineKind, Error, Origin, Store,
    engine::{self, Batch, Engine, limits},
    error::kind_of_io,
    journal,
    lines::{self, Line},
    rebuild,
    store::open_kept,
};

/// Where a database is made until all of it is known to be right.
const UNFINISHED: &str = "import.tmp";
/// What records are called that give way begins with it.
const BACKUP: &str = "backup";
/// A longer line is none of an export: it could hold the longest record twice.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// How much of the lines is made one commit of.
const BATCH_BYTES: usize = 4 << 20;

/// An export that is being read.
pub struct Import<'i> {
    input: &'i mut dyn BufRead,
    hasher: Hasher,
    line: u64,
    origin: Origin,
}

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Records that are there now.
    pub records: u64,
    /// The directory beside them in which the ones before are kept.
    pub backup: Option<String>,
}

impl<'i> Import<'i> {
    /// Reads the first line.
    ///
    /// # Errors
    /// [`Error::Line`] when it is not that of an export.
    pub fn begin(input: &'i mut dyn BufRead) -> Result<Import<'i>, Error> {
        let mut import = Import {
            input,
            hasher: Hasher::new(Algorithm::Sha256),
            line: 0,
            origin: Origin {
                layout: 0,
                written_by: String::new(),
                engine: String::new(),
                uuid: None,
            },
        };
        let first = import.next_line()?;
        import.hasher.update(&first);
        import.origin = lines::read_head(&first).map_err(|reason| import.wrong(reason))?;
        Ok(import)
    }

    /// What the first line says.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Makes the rest the records in `dir`, kept by `kind`. Unless they are to be replaced, there must be
    /// none. The caller holds the lock on the root.
    ///
    /// # Errors
    /// [`Error::Occupied`]; [`Error::Line`] when the export is cut or damaged; [`Error::TooLarge`] and
    /// [`Error::KeyTooLong`] when the engine could not keep a record. Nothing is changed then.
    pub fn into_records(
        mut self,
        dir: &Dir,
        kind: EngineKind,
        replace: bool,
    ) -> Result<Replaced, Error> {
        finish(dir)?;
        if !replace {
            refuse_occupied(dir)?;
        }
        let records = match self.build(dir, kind) {
            Ok(records) => records,
            Err(err) => {
                // What stays is removed by the next opening.
                let _ = dir.remove_tree(OsStr::new(UNFINISHED));
                return Err(err);
            }
        };
        let decided = OsString::from(decided(kind));
        dir.rename_noreplace(OsStr::new(UNFINISHED), dir, &decided)?;
        dir.fsync()?;
        let mut backup = finish(dir)?;
        if !replace && let Some(empty) = backup.take() {
            dir.remove_tree(OsStr::new(&empty))?;
        }
        Ok(Replaced { records, backup })
    }

    /// Makes the database aside; answers how many records it has.
    fn build(&mut self, dir: &Dir, kind: EngineKind) -> Result<u64, Error> {
        let aside = OsStr::new(UNFINISHED);
        dir.create_dir(aside, 0o700)?;
        let inside = dir.open_dir(aside)?;
        engine::create(kind, &inside)?;
        let engine = engine::open(kind, &inside)?;
        let records = self.fill(engine.as_ref())?;
        drop(engine);
        engine::sync_files(kind, &inside)?;
        journal::create_missing(&inside)?;
        inside.fsync()?;
        Ok(records)
    }

    /// Gives an engine all records, and reads the last line.
    fn fill(&mut self, engine: &dyn Engine) -> Result<u64, Error> {
        let (mut batch, mut bytes, mut records) = (Batch::new(), 0, 0_u64);
        loop {
            let text = self.next_line()?;
            match lines::read(&text).map_err(|reason| self.wrong(reason))? {
                Line::Record(key, value) => {
                    limits(engine, &key, value.len())?;
                    self.hasher.update(&text);
                    bytes += key.len() + value.len();
                    records += 1;
                    batch.insert(key, Some(value));
                }
                Line::End(end) => {
                    self.prove(&end, records)?;
                    commit(engine, &batch)?;
                    return Ok(records);
                }
            }
            if bytes > BATCH_BYTES {
                commit(engine, &std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
    }

    /// Whether the last line says what was read, and is the last.
    fn prove(&mut self, end: &lines::End, records: u64) -> Result<(), Error> {
        if end.records != records {
            let reason = format!("{} records were written, {records} are here", end.records);
            return Err(self.wrong(reason));
        }
        let digest = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256)).finish();
        if end.digest != digest.to_string() {
            return Err(self.wrong("the digest of the lines before is another one"));
        }
        let left = self.input.fill_buf().map_err(|err| failed(&err))?;
        if !left.is_empty() {
            return Err(self.wrong("something follows on the last line"));
        }
        Ok(())
    }

    /// The next line, with its end.
    fn next_line(&mut self) -> Result<Vec<u8>, Error> {
        self.line += 1;
        let mut line = Vec::new();
        let mut limited = (&mut *self.input).take(LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut line);
        read.map_err(|err| failed(&err))?;
        if line.last() == Some(&b'\n') {
            return Ok(line);
        }
        Err(self.wrong(if line.len() as u64 == LINE_BYTES_MAX {
            "longer than any of an export"
        } else {
            "the export is cut off here"
        }))
    }

    fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::Line {
            line: self.line,
            reason: reason.into(),
        }
    }
}

fn commit(engine: &dyn Engine, batch: &Batch) -> Result<(), Error> {
    engine.commit(batch).map_err(|reason| Error::Stream {
        attempted: "store",
        kind: crate::error::kind_of_words(&reason),
        reason,
    })
}

fn failed(err: &std::io::Error) -> Error {
    Error::Stream {
        attempted: "read",
        reason: err.to_string(),
        kind: kind_of_io(err),
    }
}

/// Refuses to go on where there are records.
fn refuse_occupied(dir: &Dir) -> Result<(), Error> {
    let Some(kind) = Store::kept(dir)? else {
        return Ok(());
    };
    // As they are: what is damaged gives way to an export only when that is asked for.
    let found = open_kept(dir, kind)?.snapshot()?.scan_after(&[], &[1], 1)?;
    match found.is_empty() {
        true => Ok(()),
        false => Err(Error::Occupied {
            engine: kind.name(),
        }),
    }
}

/// The name of a database that is to be the records.
pub(crate) fn decided(kind: EngineKind) -> String {
    format!("imported.{}", kind.name())
}

/// Carries through what an import or a rebuilding decided, and removes what one left that decided nothing. For
/// whoever opens the records, before anything else. Answers where those before are kept, if that was done.
///
/// It can be cut short anywhere and begun again: the new database gets its name last.
pub(crate) fn finish(dir: &Dir) -> Result<Option<String>, Error> {
    for unfinished in [UNFINISHED, rebuild::UNFINISHED] {
        dir.remove_tree(OsStr::new(unfinished))?;
    }
    for kind in EngineKind::ALL {
        for by_import in [true, false] {
            let decided = match by_import {
                true => decided(kind),
                false => rebuild::decided(kind),
            };
            let decided = OsString::from(decided);
            if dir.try_stat(&decided)?.is_none() {
                continue;
            }
            let mut backup = None;
            for before in EngineKind::ALL {
                if dir.try_stat(OsStr::new(before.name()))?.is_some() {
                    backup = Some(match by_import {
                        true => keep(dir, before, BACKUP)?,
                        false => keep(dir, before, &rebuild::stem())?,
                    });
                }
            }
            dir.rename_noreplace(&decided, dir, OsStr::new(kind.name()))?;
            dir.fsync()?;
            return Ok(backup);
        }
    }
    Ok(None)
}

/// Whether a name is that of records that were put by, whole or damaged.
pub(crate) fn is_backup(name: &str) -> bool {
    let engine = name.rsplit_once('.').map(|(_, engine)| engine);
    let is_ours = EngineKind::ALL
        .iter()
        .any(|kind| engine == Some(kind.name()));
    is_ours && (name.starts_with(BACKUP) || name.starts_with(rebuild::DAMAGED))
}

/// Puts records by under the first name of this kind that is free.
fn keep(dir: &Dir, kind: EngineKind, stem: &str) -> Result<String, Error> {
    let mut number = 1_u32;
    loop {
        let name = format!("{stem}-{number}.{}", kind.name());
        if dir.try_stat(OsStr::new(&name))?.is_none() {
            dir.rename_noreplace(OsStr::new(kind.name()), dir, OsStr::new(&name))?;
            // The name that is free now is given to others, and a disk may write that first.
            dir.fsync()?;
            return Ok(name);
        }
        number += 1;
    }
}
