//! Marks that delete: for a directory that is mounted as it is, where overlay's marks would be names
//! like any other and show.
//!
//! What was there before the layer counts as the layers below. A mark means those and never its own
//! layer, here as elsewhere, so what the layer brings is remembered as long as that can matter.

use std::{collections::BTreeSet, ffi::OsStr, ops::Bound, os::unix::ffi::OsStrExt};

use rustix::fs::FileType;

use super::{
    attributes,
    tree::{Missing, Stop, Tree},
};
use crate::{Refusal, path::join};

/// Bytes of the paths of what one layer brings into a directory that is not empty.
const BROUGHT_BYTES_MAX: usize = 256 << 20;

/// How marks are applied, and to what.
pub(super) enum Marks {
    /// Overlay's own.
    Overlay,
    /// Into an empty directory: there is nothing to delete.
    Nothing,
    /// Into a directory that has something: what the layer has brought so far, by its real path.
    Delete {
        brought: BTreeSet<Vec<u8>>,
        bytes: usize,
    },
}

impl Marks {
    pub(super) fn deleting(is_empty: bool) -> Marks {
        match is_empty {
            true => Marks::Nothing,
            false => Marks::Delete {
                brought: BTreeSet::new(),
                bytes: 0,
            },
        }
    }

    pub(super) fn are_overlays(&self) -> bool {
        matches!(self, Marks::Overlay)
    }
}

impl Tree {
    /// Remembers an entry of the layer.
    pub(super) fn bring(&mut self, dir: &[u8], name: &[u8]) -> Result<(), Refusal> {
        let Marks::Delete { brought, bytes } = &mut self.marks else {
            return Ok(());
        };
        let path = join(dir, name);
        let length = path.len();
        if brought.insert(path) {
            *bytes += length;
        }
        match *bytes > BROUGHT_BYTES_MAX {
            false => Ok(()),
            true => Err(Refusal::Directories {
                limit: BROUGHT_BYTES_MAX,
            }),
        }
    }

    /// Deletes `name` in `dir`, all but what the layer has brought.
    pub(super) fn delete(&mut self, dir: &[u8], name: &[u8]) -> Result<(), Stop> {
        if matches!(self.marks, Marks::Nothing) {
            return Ok(());
        }
        let Some(place) = self.enter(dir, Missing::Leave)? else {
            return Ok(());
        };
        let path = join(&place.path, name);
        if !self.keeps(&path) {
            return self.clear_the_way(&place, name);
        }
        match place.dir.try_stat(OsStr::from_bytes(name))? {
            Some(stat) if attributes::file_type(&stat) == FileType::Directory => {
                self.delete_below(path)
            }
            _ => Ok(()),
        }
    }

    /// Deletes everything in `dir`, all but what the layer has brought.
    pub(super) fn delete_all(&mut self, dir: &[u8]) -> Result<(), Stop> {
        if matches!(self.marks, Marks::Nothing) {
            return Ok(());
        }
        match self.enter(dir, Missing::Leave)? {
            Some(place) => self.delete_below(place.path.to_vec()),
            None => Ok(()),
        }
    }

    fn delete_below(&mut self, path: Vec<u8>) -> Result<(), Stop> {
        let mut ahead = vec![path];
        while let Some(path) = ahead.pop() {
            let Some(place) = self.enter(&path, Missing::Leave)? else {
                continue;
            };
            for entry in place.dir.entries()? {
                let name = entry.name.as_bytes();
                let below = join(&place.path, name);
                if !self.keeps(&below) {
                    self.clear_the_way(&place, name)?;
                    continue;
                }
                let stat = place.dir.stat(&entry.name)?;
                if attributes::file_type(&stat) == FileType::Directory {
                    ahead.push(below);
                }
            }
        }
        Ok(())
    }

    /// Whether the layer has brought what is at `path`, or something below it.
    fn keeps(&self, path: &[u8]) -> bool {
        let Marks::Delete { brought, .. } = &self.marks else {
            return false;
        };
        let first = join(path, b"");
        let mut end = path.to_vec();
        end.push(b'/' + 1);
        let range = (Bound::Included(&*first), Bound::Excluded(&*end));
        brought.contains(path) || brought.range::<[u8], _>(range).next().is_some()
    }
}
