//! Directories whose records are lost.

use std::collections::HashSet;

use cairn_meta::{View, schema};
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
        let known: HashSet<String> = all.iter().map(|(_, it)| it.id.to_string()).collect();
        let mut highest = all.iter().map(|(_, it)| it.id).max().unwrap_or(0);
        let attempted = "put directories of snapshots by";
        let mut moved = 0;
        for entry in self.inner.root.entries().map_err(sys(attempted))? {
            let name = entry.name.to_string_lossy();
            highest = highest.max(number(&name));
            // Any may be the one that a damaged record speaks of.
            if name == TRASH || known.contains(&*name) || !damaged.is_empty() {
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
        for entry in self.inner.trash.entries().map_err(sys(attempted))? {
            highest = highest.max(number(&entry.name.to_string_lossy()));
        }
        if moved > 0 {
            self.inner.root.fsync().map_err(sys(attempted))?;
        }
        // Of what is put by or on its way out somebody may know the number.
        self.inner
            .meta
            .write(move |tx| Ok::<_, Error>(tx.skip_ids("snapshot", highest)?))?;
        Ok(moved)
    }
}

/// The number that a directory is called by, 0 for other names. What nobody can have been given is no number.
fn number(name: &str) -> u64 {
    let number = name.parse().ok();
    number
        .filter(|number| *number <= u64::from(u32::MAX))
        .unwrap_or(0)
}
