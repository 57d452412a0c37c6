//! What every name in the directory of snapshots is there for, and what it takes on the disk.
//!
//! Nothing is locked: directories are listed first and the records read afterwards, so that whoever makes a
//! directory and then its record is not met between the two. What is on its way out is not always known as
//! such in that moment, and so [`Snapshots::look_again`] is there.

use std::{
    collections::HashMap,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use cairn_meta::schema;
use cairn_sys::Meter;
use cairn_types::{SnapshotKind, Usage};

use crate::{
    Result, Snapshots,
    disk::{TRASH, lock},
    error::sys,
};

/// Records in one look; with one of the engines nothing is committed during a look.
const PART: usize = 1024;

/// What a directory among those of the snapshots is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is a record's.
    Recorded(SnapshotKind),
    /// Its number was given out since the opening, and no record has it yet.
    Staged,
    /// It has no record any more, and goes; at the next opening if not before.
    Leaving,
    /// A tree that was mended by another, which has its place: it goes at the next opening.
    Replaced,
    /// No record speaks of it.
    Unknown,
}

/// A name among the snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Below the directory of snapshots: `12`, `trash/7`.
    pub path: PathBuf,
    /// Why it is there.
    pub purpose: Purpose,
    /// What it takes with all that is in it.
    pub usage: Usage,
}

impl Snapshots {
    /// What the directories take that are always there, and each name in them. Measures with `meter`, so that
    /// what it has counted elsewhere is not counted again.
    pub fn census(&self, meter: &mut Meter<'_>) -> Result<(Usage, Vec<Counted>)> {
        let failed = || sys("measure snapshots");
        let (mut own, found) = meter
            .entries(&self.inner.root, &[TRASH])
            .map_err(failed())?;
        // Later, so that what is moved there meanwhile is not missed.
        let trash = meter.entries(&self.inner.trash, &[]).map_err(failed())?;
        own += trash.0;
        let (paths, usages): (Vec<PathBuf>, Vec<Usage>) = found
            .into_iter()
            .map(|(name, usage)| (PathBuf::from(name), usage))
            .unzip();
        let purposes = self.purposes(&paths)?;
        let all = paths.into_iter().zip(purposes).zip(usages);
        let mut counted: Vec<Counted> = all
            .map(|((path, purpose), usage)| Counted {
                path,
                purpose,
                usage,
            })
            .collect();
        counted.extend(trash.1.into_iter().map(|(name, usage)| Counted {
            path: Path::new(TRASH).join(name),
            purpose: Purpose::Leaving,
            usage,
        }));
        Ok((own, counted))
    }

    /// What names that were [`Purpose::Unknown`] are there for now; `None` of those that are gone.
    pub fn look_again(&self, paths: &[PathBuf]) -> Result<Vec<Option<Purpose>>> {
        let purposes = self.purposes(paths)?;
        let looked = paths.iter().zip(purposes).map(|(path, purpose)| {
            let is_there = self.inner.root.has(path);
            let is_there = is_there.map_err(sys("look at snapshots"))?;
            Ok(is_there.then_some(purpose))
        });
        looked.collect()
    }

    fn purposes(&self, paths: &[PathBuf]) -> Result<Vec<Purpose>> {
        let recorded = self.recorded()?;
        let leaving = self.inner.remover.leaving();
        let replaced = lock(&self.inner.replaced).clone();
        let purpose = |path: &PathBuf| {
            let Some(id) = number(path.as_os_str()) else {
                return Purpose::Unknown;
            };
            match recorded.get(&id) {
                Some(kind) => Purpose::Recorded(*kind),
                None if leaving.contains(&id) => Purpose::Leaving,
                None if replaced.contains(&id) => Purpose::Replaced,
                None if self.is_own(id) => Purpose::Staged,
                None => Purpose::Unknown,
            }
        };
        Ok(paths.iter().map(purpose).collect())
    }

    /// What recorded directories are, by number. Of a record that is damaged nothing is known.
    fn recorded(&self) -> Result<HashMap<u64, SnapshotKind>> {
        let mut recorded = HashMap::new();
        let mut after = None;
        loop {
            let part = self
                .inner
                .meta
                .read(|view| view.sound_part(&schema::SNAPSHOTS, after.as_ref(), PART));
            let ((records, _), end) = part?;
            recorded.extend(
                records
                    .into_iter()
                    .map(|(_, record)| (record.id, record.kind)),
            );
            if end.is_none() {
                return Ok(recorded);
            }
            after = end;
        }
    }
}

/// A snapshot's number, written as directories are named.
fn number(name: &OsStr) -> Option<u64> {
    let text = name.to_str()?;
    let id: u64 = text.parse().ok()?;
    (id.to_string() == text).then_some(id)
}
