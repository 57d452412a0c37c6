//! Directories whose records are lost.

use std::collections::HashSet;

use cairn_meta::{View, number_of, schema};
use cairn_sys::Dir;

use crate::{Error, Result, Snapshots, disk::TRASH, error::sys};

impl Snapshots {
    /// Moves every directory that no record speaks of to the one that `put_by` makes, where [`Snapshots::recover`]
    /// would remove it; how many. Whoever has one mounted still has it.
    ///
    /// For the time between opening and first use. It may be cut short and begun again.
    pub fn put_aside(&self, put_by: &mut dyn FnMut() -> cairn_sys::Result<Dir>) -> Result<u64> {
        let (all, damaged) = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.scan_sound(&schema::SNAPSHOTS, &())?))?;
        let attempted = "put directories of snapshots by";
        let entries = self.inner.root.entries().map_err(sys(attempted))?;
        let leaving = self.inner.trash.entries().map_err(sys(attempted))?;
        let names = entries.iter().chain(&leaving);
        let named = names.map(|entry| number_of(&entry.name.to_string_lossy()));
        let highest = named.chain(all.iter().map(|(_, it)| it.id)).max();
        let highest = highest.unwrap_or(0);
        // First of all: of what is put by, or cannot be, or is on its way out, nobody may be given the number.
        self.inner
            .meta
            .write(move |tx| Ok::<_, Error>(tx.skip_ids("snapshot", highest)?))?;
        // Any may be the one that a damaged record speaks of. Until none is, what is lost is not known.
        if let Some(err) = damaged.into_iter().next() {
            return Err(err.into());
        }
        let known: HashSet<String> = all.iter().map(|(_, it)| it.id.to_string()).collect();
        let mut moved = 0;
        for entry in entries {
            let name = entry.name.to_string_lossy();
            if name == TRASH || known.contains(&*name) {
                continue;
            }
            let to = put_by().map_err(sys(attempted))?;
            let renamed = self
                .inner
                .root
                .rename_noreplace(&entry.name, &to, &entry.name);
            let synced = renamed.and_then(|()| to.fsync());
            synced.map_err(sys(attempted))?;
            moved += 1;
        }
        if moved > 0 {
            self.inner.root.fsync().map_err(sys(attempted))?;
        }
        Ok(moved)
    }
}
