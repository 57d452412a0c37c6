//! Whiteouts and opaque marks, which mean the layers below and never their own.
//!
//! The directory being written holds this layer alone, so what is on disk says what the layer has:
//! order cannot matter where every mark looks at that, and every entry at the marks.

use std::{ffi::OsStr, ops::Bound, os::unix::ffi::OsStrExt};

use rustix::{fs::FileType, io::Errno};

use super::{
    attributes::{self, Times},
    tree::{Missing, Place, Stop, Tree},
};
use crate::path::{join, split};

impl Tree {
    /// `.wh.<name>`: hides `name` of the layers below. What this layer has there stays: a whiteout
    /// says nothing about its own layer, whichever comes first.
    ///
    /// The mark has the owner of its entry, as containerd's have.
    pub(super) fn white_out(
        &mut self,
        dir: &[u8],
        name: &[u8],
        times: Times,
        owner: (u32, u32),
    ) -> Result<(), Stop> {
        if !self.marks.are_overlays() {
            return self.delete(dir, name);
        }
        let Some(place) = self.enter(dir, Missing::InventForMark(times))? else {
            return Ok(());
        };
        // Overlay lists a whiteout inside an opaque directory as a name that cannot be opened.
        if self.hides_below(&place.path) {
            return Ok(());
        }
        let name_os = OsStr::from_bytes(name);
        match attributes::make_whiteout(&place.dir, name_os) {
            Err(err) if err.is(Errno::EXIST) => {}
            other => {
                other?;
                attributes::own_whiteout(&place.dir, name_os, owner)?;
                self.whited.insert(place.path.to_vec());
                return Ok(());
            }
        }
        let stat = place.dir.stat(name_os)?;
        if attributes::file_type(&stat) != FileType::Directory {
            return Ok(());
        }
        let path = join(&place.path, name);
        if !self.hides_below(&path) {
            self.prune(&path)?;
        }
        if self.remove_if_only_for_marks(&path)? {
            self.whited.insert(place.path.to_vec());
            attributes::make_whiteout(&place.dir, name_os)?;
            return Ok(attributes::own_whiteout(&place.dir, name_os, owner)?);
        }
        if let Some(own) = self.enter(&path, Missing::Leave)? {
            self.mark_opaque(&own)?;
            self.settle(&path);
        }
        Ok(())
    }

    /// `.wh..wh..opq`: hides everything that the layers below have in `dir`.
    pub(super) fn hide_all(&mut self, dir: &[u8], times: Times) -> Result<(), Stop> {
        if !self.marks.are_overlays() {
            return self.delete_all(dir);
        }
        let Some(place) = self.enter(dir, Missing::InventForMark(times))? else {
            return Ok(());
        };
        if self.hides_below(&place.path) {
            return Ok(());
        }
        self.prune(&place.path)?;
        self.mark_opaque(&place)
    }

    pub(super) fn mark_opaque(&mut self, place: &Place) -> Result<(), Stop> {
        if !self.marks.are_overlays() {
            return Ok(());
        }
        attributes::set_opaque(&place.dir, self.opaque_xattr)?;
        self.any_opaque = true;
        if let Some(known) = self.known.get_mut(&*place.path) {
            known.opaque = true;
        }
        Ok(())
    }

    /// The directory is new in this layer, not a continuation of a lower one: nothing to adopt.
    pub(super) fn settle(&mut self, path: &[u8]) {
        if let Some(known) = self.known.get_mut(path) {
            known.invented = false;
        }
    }

    /// Whether nothing of the layers below shows in the directory at `path`.
    pub(super) fn hides_below(&self, path: &[u8]) -> bool {
        if !self.any_opaque {
            return false;
        }
        let mut path = path;
        loop {
            if self.known.get(path).is_some_and(|known| known.opaque) {
                return true;
            }
            if path.is_empty() {
                return false;
            }
            path = split(path).0;
        }
    }

    /// The known directories below `path`, parents first.
    pub(super) fn below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        if path.is_empty() {
            return self
                .known
                .keys()
                .filter(|key| !key.is_empty())
                .cloned()
                .collect();
        }
        let first = join(path, b"");
        let mut end = path.to_vec();
        end.push(b'/' + 1);
        self.known
            .range::<[u8], _>((Bound::Included(&*first), Bound::Excluded(&*end)))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Takes back the marks below a directory that is about to hide everything itself, and the
    /// directories that were invented for marks alone. Each directory is searched once in the life
    /// of a layer, since no mark is made below an opaque one.
    fn prune(&mut self, path: &[u8]) -> Result<(), Stop> {
        let mut dirs = self.below(path);
        dirs.retain(|dir| !self.hides_below(split(dir).0));
        for dir in dirs.iter().rev() {
            if !self.hides_below(dir) {
                self.lift_whiteouts(dir)?;
            }
            self.remove_if_only_for_marks(dir)?;
        }
        self.lift_whiteouts(path)
    }

    fn lift_whiteouts(&mut self, path: &[u8]) -> Result<(), Stop> {
        let Some(place) = self.enter(path, Missing::Leave)? else {
            return Ok(());
        };
        Ok(attributes::lift_whiteouts(&place.dir)?)
    }

    fn remove_if_only_for_marks(&mut self, path: &[u8]) -> Result<bool, Stop> {
        if !self.known.get(path).is_some_and(|known| known.invented) {
            return Ok(false);
        }
        let (parent, name) = split(path);
        let Some(parent) = self.enter(parent, Missing::Leave)? else {
            return Ok(false);
        };
        match parent.dir.rmdir(OsStr::from_bytes(name)) {
            Ok(()) => {
                self.known.remove(path);
                self.open.clear();
                Ok(true)
            }
            Err(err) if err.is(Errno::NOTEMPTY) || err.is(Errno::EXIST) => Ok(false),
            Err(err) => Err(err.into()),
        }
    }
}
