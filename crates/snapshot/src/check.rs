//! Whether directories are what the records say, and putting a tree in the place of a damaged one.

use std::{collections::HashSet, ffi::OsStr};

use cairn_meta::{View, schema};
use cairn_sys::{Dir, FileType, Stat, mount::MountTables};
use cairn_types::{Classified, ErrorKind, Namespace, SnapshotKey, SnapshotKind};

use crate::{
    Error, Result, Snapshots, Staged,
    disk::{FS, TRASH, WORK, lock},
    error::sys,
    share::mark_durable,
};

impl Snapshots {
    /// Whether the tree with this number is there, whatever is in it.
    pub fn has_tree(&self, id: u64) -> Result<bool> {
        Ok(self.lacks(id, SnapshotKind::Committed)?.is_none())
    }

    /// Which of the directories of a snapshot with this number is missing, as `ID`, `ID/fs` or `ID/work`.
    pub fn lacks(&self, id: u64, kind: SnapshotKind) -> Result<Option<String>> {
        let name = id.to_string();
        let failed = || sys(format!("look for directory of snapshot {id}"));
        let is_dir = |stat: Option<Stat>| {
            stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
        };
        let root = &self.inner.root;
        if !is_dir(root.try_stat(OsStr::new(&name)).map_err(failed())?) {
            return Ok(Some(name));
        }
        let dir = match root.open_dir(OsStr::new(&name)) {
            Ok(dir) => dir,
            // Removed since.
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Some(name)),
            Err(err) => return Err(failed()(err)),
        };
        let needed: &[&str] = match kind {
            SnapshotKind::Active => &[FS, WORK],
            SnapshotKind::View | SnapshotKind::Committed => &[FS],
        };
        for part in needed {
            let stat = dir.try_stat(OsStr::new(part)).map_err(failed())?;
            if !is_dir(stat) {
                return Ok(Some(format!("{name}/{part}")));
            }
        }
        Ok(None)
    }

    /// The tree of a committed snapshot, for whoever compares it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Damaged`] when it is not there.
    pub fn committed_tree(&self, ns: &Namespace, key: &SnapshotKey) -> Result<Dir> {
        let record = self.record(ns, key)?;
        match record.kind {
            SnapshotKind::Committed => self.tree(key, record.id),
            _ => Err(Error::NotFound { key: key.clone() }),
        }
    }

    /// Names in the directory of snapshots that no record speaks of and that nobody here is about to
    /// record. Some may be on their way out: what is so is gone at a later look.
    pub fn strays(&self) -> Result<Vec<String>> {
        let entries = self.inner.root.entries().map_err(sys("list snapshots"))?;
        let names = entries
            .into_iter()
            .map(|entry| entry.name.to_string_lossy().into_owned());
        let mut strays: Vec<(String, Option<u64>)> = names
            .filter(|name| name != TRASH)
            .map(|name| {
                let id = name.parse().ok();
                (name, id)
            })
            .collect();
        strays.retain(|(_, id)| id.is_none_or(|id| !self.is_own(id)));
        if strays.is_empty() || self.is_removing() {
            return Ok(Vec::new());
        }
        // Read after the directory: who made one of these has recorded it before, or never does.
        let read = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.scan_sound(&schema::SNAPSHOTS, &())?));
        let (records, damaged) = read?;
        if !damaged.is_empty() {
            // Any may be the one that a damaged record speaks of.
            return Ok(Vec::new());
        }
        let recorded: HashSet<u64> = records.into_iter().map(|(_, record)| record.id).collect();
        strays.retain(|(_, id)| id.is_none_or(|id| !recorded.contains(&id)));
        Ok(strays.into_iter().map(|(name, _)| name).collect())
    }

    /// Whether a number was given out since the opening: its directory may be in the making. What was there
    /// before without a record the opening has removed, as far as it could.
    pub(crate) fn is_own(&self, id: u64) -> bool {
        lock(&self.inner.first_id).is_some_and(|first| id >= first)
    }

    /// Removes a directory that [`Snapshots::strays`] named.
    ///
    /// # Errors
    /// [`Error::Mounted`] when somebody looks at what is in it.
    pub fn remove_stray(&self, name: &str) -> Result<()> {
        let tree = self.shown_at(OsStr::new(name));
        if let Some(at) = MountTables::read().showing(&tree) {
            let (name, at) = (name.to_owned(), at.to_owned());
            return Err(Error::Mounted { name, at });
        }
        let removed = self.inner.root.remove_tree(OsStr::new(name));
        removed.map_err(sys(format!("remove directory {name} among the snapshots")))
    }

    /// Puts a complete tree in the place of that of a committed snapshot, whose number was `id` when it was
    /// looked at. Whoever shares that tree has the new one. The old one stays until the next opening: an
    /// unpacking or a difference may be at it, and would take what vanishes there for what never was, and
    /// somebody may have mounted it while it was put away.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the snapshot is another one by now; the old tree is as it was then.
    pub fn replace(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
        id: u64,
        staged: Staged,
    ) -> Result<()> {
        if let Some(old) = self.put_in_place(ns, key, id, staged, &|| Ok(true))? {
            lock(&self.inner.replaced).insert(old.id());
            old.keep();
        }
        Ok(())
    }

    /// As [`Snapshots::replace`], for a tree that is [unproven](Snapshots::is_unproven): from then on it is
    /// known to be whole. Nothing was mounted over the old one, and it goes. Where somebody else was quicker
    /// it is `staged` that goes: his may be mounted by now.
    ///
    /// # Errors
    /// Those of [`Snapshots::replace`].
    pub fn renew(&self, ns: &Namespace, key: &SnapshotKey, id: u64, staged: Staged) -> Result<()> {
        let _renewing = lock(&self.inner.renewing);
        let still = || Ok(self.is_unproven(&self.record(ns, key)?));
        if self.put_in_place(ns, key, id, staged, &still)?.is_some() {
            let tree = ((ns.clone(), key.clone()), id);
            self.inner.meta.write(move |tx| mark_durable(tx, &[tree]))?;
        }
        lock(&self.inner.unproven).retain(|_, tree| *tree != id);
        Ok(())
    }

    /// Puts a complete tree where that of a committed snapshot is missing; whether it was still missing. One
    /// that somebody has put there meanwhile may be mounted by now.
    pub(crate) fn restore(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
        id: u64,
        staged: Staged,
    ) -> Result<bool> {
        let missing = || Ok(!self.has_tree(id)?);
        // Nobody is at what is left of one that is missing, and it goes.
        let left = self.put_in_place(ns, key, id, staged, &missing)?;
        Ok(left.is_some())
    }

    /// Both, one at a time: whether it is `wanted` is asked when nobody else replaces anything. What was there
    /// before, if it was.
    fn put_in_place(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
        id: u64,
        staged: Staged,
        wanted: &dyn Fn() -> Result<bool>,
    ) -> Result<Option<Staged>> {
        self.check_writable()?;
        let attempted = format!("put a tree in the place of that of snapshot {key}");
        // A record may say of it that it is on the disk.
        self.sync(&attempted)?;
        let _replacing = lock(&self.inner.replacing);
        if self.record(ns, key)?.id != id {
            return Err(Error::NotFound { key: key.clone() });
        }
        if !wanted()? {
            return Ok(None);
        }
        let root = &self.inner.root;
        let (new, old) = (staged.id().to_string(), id.to_string());
        let (new, old) = (OsStr::new(&new), OsStr::new(&old));
        let moved = match root.try_stat(old).map_err(sys(attempted.clone()))? {
            Some(_) => root.exchange(new, root, old),
            None => root.rename_noreplace(new, root, old),
        };
        moved.map_err(sys(attempted.clone()))?;
        // What is there by its number now is what was damaged, or nothing.
        if let Err(err) = root.fsync() {
            staged.keep();
            return Err(sys(attempted)(err));
        }
        Ok(Some(staged))
    }
}
