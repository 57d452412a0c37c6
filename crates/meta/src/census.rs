//! What every name among the files of the records is there for, and what it takes on the disk.

use std::{ffi::OsStr, path::Path};

use cairn_sys::{Dir, Meter, census};
use cairn_types::Usage;

use crate::{Error, Store, copy, engine, import, journal, rebuild, reserve};

/// What a file among those of the records is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is the engine's.
    Engine,
    /// What the engine has not taken over yet stands in it, or will.
    Journal,
    /// All records a second time, for the day the engine's files are destroyed.
    Copy,
    /// Room for the day the disk is full.
    Reserve,
    /// Records that others have taken the place of: an import's, or those made anew of damaged ones.
    Backup,
    /// Nothing here has made it.
    Unknown,
}

/// A name among the records' files.
pub type Counted = census::Counted<Purpose>;

impl Store {
    /// What the directories take that are always there, and each name in them; `dir` is where these records
    /// were opened. Measures with `meter`, so that what it has counted elsewhere is not counted again.
    pub fn census(&self, dir: &Dir, meter: &mut Meter) -> Result<(Usage, Vec<Counted>), Error> {
        let kept = self.engine();
        let (mut own, found) = meter.entries(dir, &[kept])?;
        let inside = dir.open_dir(OsStr::new(kept))?;
        let (taken, engines) = meter.entries(&inside, &[])?;
        own += taken;
        let mut counted = Vec::new();
        let inside: fn(&str) -> Purpose = purpose_inside;
        for (place, names, purpose) in [
            (Path::new(""), found, purpose as fn(&str) -> Purpose),
            (Path::new(kept), engines, inside),
        ] {
            counted.extend(names.into_iter().map(|(name, usage)| Counted {
                purpose: name.to_str().map_or(Purpose::Unknown, purpose),
                path: place.join(name),
                usage,
            }));
        }
        Ok((own, counted))
    }
}

fn purpose(name: &str) -> Purpose {
    match name {
        reserve::NAME => Purpose::Reserve,
        name if import::is_backup(name) => Purpose::Backup,
        _ => Purpose::Unknown,
    }
}

/// In the directory that has the engine's name.
fn purpose_inside(name: &str) -> Purpose {
    match name {
        name if journal::SEGMENTS.contains(&name) => Purpose::Journal,
        journal::UNFINISHED => Purpose::Journal,
        name if engine::FILES.contains(&name) || rebuild::is_note(name) => Purpose::Engine,
        name if copy::is_either(name) => Purpose::Copy,
        _ => Purpose::Unknown,
    }
}
