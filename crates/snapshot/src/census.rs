//! What every name in the directory of snapshots is there for, and what it takes on the disk.
//!
//! Nothing is locked: directories are listed first and the records read afterwards, so that whoever makes a
//! directory and then its record is not met between the two. What is on its way out is not always known as
//! such in that moment, and so [`Snapshots::look_again`] is there.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use cairn_meta::schema;
use cairn_sys::{
    Meter,
    census::{self, Counted, number, still_there},
};
use cairn_types::{SnapshotKind, Usage};

use crate::{
    Result, Snapshots,
    disk::{TRASH, lock},
    error::sys,
};

/// Records in one look; with one of the engines nothing is committed during a look.
const PART: usize = 1024;

/// What a directory among those of the snapshots is there for. One whose number was given out since the
/// opening is being made.
pub type Purpose = census::Purpose<SnapshotKind>;

impl Snapshots {
    /// What the directories take that are always there, and each name in them. Measures with `meter`, so that
    /// what it has counted elsewhere is not counted again.
    pub fn census(&self, meter: &mut Meter<'_>) -> Result<(Usage, Vec<Counted<Purpose>>)> {
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
        let mut counted = Counted::all(paths.into_iter().zip(usages), purposes);
        counted.extend(trash.1.into_iter().map(|(name, usage)| Counted {
            path: Path::new(TRASH).join(name),
            purpose: Purpose::Leaving,
            usage,
        }));
        Ok((own, counted))
    }

    /// What names that had no purpose are there for now; `None` of those that are gone.
    pub fn look_again(&self, paths: &[PathBuf]) -> Result<Vec<Option<Purpose>>> {
        let purposes = self.purposes(paths)?;
        let looked = still_there(&self.inner.root, paths, purposes);
        looked.map_err(sys("look at snapshots"))
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
                None if self.is_own(id) => Purpose::Making,
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
