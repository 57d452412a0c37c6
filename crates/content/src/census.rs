//! What every name among the files of blobs and uploads is there for, and what it takes on the disk.
//!
//! Nothing is locked for longer than a look at one name: directories are listed first and the records read
//! afterwards. What is on its way in or out is not always known as such in that moment, and so
//! [`Content::look_again`] is there.

use std::{
    collections::HashSet,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use cairn_meta::schema;
use cairn_sys::{
    Meter,
    census::{self, Counted, number, still_there},
};
use cairn_types::{Algorithm, Digest, Usage};

use crate::{Content, Result, error::sys};

/// Records in one look; with one of the engines nothing is committed during a look.
const PART: usize = 1024;
/// Where blobs and uploads are.
const BLOBS: &str = "blobs";
const INGESTS: &str = "ingest";

/// Of what there are records among the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A blob.
    Blob,
    /// What came of an upload.
    Ingest,
}

/// What a file among those of the content is there for.
pub type Purpose = census::Purpose<Stored>;

impl Content {
    /// What the directories take that are always there, and each name in them. Measures with `meter`, so that
    /// what it has counted elsewhere is not counted again.
    pub fn census(&self, meter: &mut Meter<'_>) -> Result<(Usage, Vec<Counted<Purpose>>)> {
        let failed = || sys("measure content");
        let root = &self.inner.root;
        let blobs = root.open_dir(OsStr::new(BLOBS)).map_err(failed())?;
        let algorithms = Algorithm::ALL.map(Algorithm::name);
        let mut listings = vec![
            (PathBuf::new(), root, &[BLOBS, INGESTS][..]),
            (PathBuf::from(BLOBS), &blobs, &algorithms[..]),
        ];
        for (blobs, algorithm) in self.inner.blobs.iter().zip(algorithms) {
            listings.push((Path::new(BLOBS).join(algorithm), &blobs.dir, &[]));
        }
        listings.push((PathBuf::from(INGESTS), &self.inner.ingests, &[]));
        let mut own = Usage::default();
        let (mut paths, mut usages) = (Vec::new(), Vec::new());
        for (place, dir, others) in listings {
            let (taken, found) = meter.entries(dir, others).map_err(failed())?;
            own += taken;
            for (name, usage) in found {
                paths.push(place.join(name));
                usages.push(usage);
            }
        }
        let purposes = self.purposes(&paths)?;
        let names = paths.into_iter().zip(usages);
        Ok((own, Counted::all(names, purposes)))
    }

    /// What names that had no purpose are there for now; `None` of those that are gone.
    pub fn look_again(&self, paths: &[PathBuf]) -> Result<Vec<Option<Purpose>>> {
        let purposes = self.purposes(paths)?;
        let looked = still_there(&self.inner.root, paths, purposes);
        looked.map_err(sys("look at content"))
    }

    fn purposes(&self, paths: &[PathBuf]) -> Result<Vec<Purpose>> {
        let recorded = self.recorded_ingests()?;
        let ending = self.ending().clone();
        let purpose = |path: &PathBuf| {
            let name = path.file_name().and_then(OsStr::to_str);
            let above = path.parent().and_then(Path::to_str);
            let (Some(name), Some(above)) = (name, above) else {
                return Ok(Purpose::Unknown);
            };
            match above.split_once('/') {
                Some((BLOBS, algorithm)) => match Digest::parse(&format!("{algorithm}:{name}")) {
                    Ok(digest) => self.purpose_of_blob(&digest),
                    Err(_) => Ok(Purpose::Unknown),
                },
                None if above == INGESTS => Ok(self.purpose_of_ingest(name, &recorded, &ending)),
                _ => Ok(Purpose::Unknown),
            }
        };
        paths.iter().map(purpose).collect()
    }

    fn purpose_of_blob(&self, digest: &Digest) -> Result<Purpose> {
        if self.is_recorded(digest)? {
            return Ok(Purpose::Recorded(Stored::Blob));
        }
        let Some(_changing) = self.inner.changing.try_lock(digest) else {
            return Ok(Purpose::Making);
        };
        if self.is_recorded(digest)? {
            return Ok(Purpose::Recorded(Stored::Blob));
        }
        if self.is_left(digest) {
            return Ok(Purpose::Leaving);
        }
        // Its record is lost, and not the use.
        Ok(match self.is_seen(digest)? {
            true => Purpose::Recorded(Stored::Blob),
            false => Purpose::Unknown,
        })
    }

    fn purpose_of_ingest(
        &self,
        name: &str,
        recorded: &HashSet<u64>,
        ending: &HashSet<u64>,
    ) -> Purpose {
        let put = name.strip_prefix("put-");
        if let Some(number) = put.and_then(|put| number(OsStr::new(put))) {
            let given = self.inner.puts.load(Ordering::Relaxed);
            return match number < given {
                true => Purpose::Making,
                // Of another process, which is gone.
                false => Purpose::Unknown,
            };
        }
        match number(OsStr::new(name)) {
            Some(id) if recorded.contains(&id) => Purpose::Recorded(Stored::Ingest),
            Some(id) if ending.contains(&id) => Purpose::Leaving,
            _ => Purpose::Unknown,
        }
    }

    /// The numbers of recorded uploads. Of a record that is damaged nothing is known.
    fn recorded_ingests(&self) -> Result<HashSet<u64>> {
        let mut recorded = HashSet::new();
        let mut after = None;
        loop {
            let part = self
                .inner
                .meta
                .read(|view| view.sound_part(&schema::INGESTS, after.as_ref(), PART));
            let ((records, _), end) = part?;
            recorded.extend(records.into_iter().map(|(_, record)| record.id));
            if end.is_none() {
                return Ok(recorded);
            }
            after = end;
        }
    }
}
