//! From mounts back to the snapshot they show.
//!
//! Clients hand back the mounts they were given (`Diff.Apply`). What they mean is found by the paths in
//! them, which we spelled ourselves; nothing else in them is believed, and nothing is mounted.

use std::path::Path;

use cairn_sys::{Dir, mount::escape};
use cairn_types::{Mount, Namespace, SnapshotKind};

use crate::{Error, Result, Snapshots};

/// An active snapshot's tree, and those it stands on.
pub struct Writable {
    /// Where its own files are.
    pub upper: Dir,
    /// Nearest first.
    pub lowers: Vec<Dir>,
    /// Mounted as an overlay: names that are hidden need overlay's own marks.
    pub is_overlay: bool,
}

impl Snapshots {
    /// The active snapshot of this namespace that `mounts` show; `None` when they show none.
    pub fn writable(&self, ns: &Namespace, mounts: &[Mount]) -> Result<Option<Writable>> {
        let Some((upper, lowers, is_overlay)) = ids_of(&self.inner.path, mounts) else {
            return Ok(None);
        };
        let records = self.inner.meta.read(|view| {
            use cairn_meta::View;
            Ok::<_, Error>(view.scan(&cairn_meta::schema::SNAPSHOTS, ns)?)
        })?;
        let of = |id: u64| records.iter().find(|(_, record)| record.id == id);
        let Some(((_, key), record)) = of(upper) else {
            return Ok(None);
        };
        if record.kind != SnapshotKind::Active {
            return Ok(None);
        }
        let upper = self.tree(key, upper)?;
        let mut trees = Vec::new();
        for id in lowers {
            let Some(((_, key), _)) = of(id) else {
                return Ok(None);
            };
            trees.push(self.tree(key, id)?);
        }
        Ok(Some(Writable {
            upper,
            lowers: trees,
            is_overlay,
        }))
    }
}

/// The snapshot ids in a mount that [`crate::mounts`] spelled: upper, lowers, whether it is an overlay.
fn ids_of(root: &Path, mounts: &[Mount]) -> Option<(u64, Vec<u64>, bool)> {
    let [mount] = mounts else { return None };
    if mount.kind == "bind" {
        let writable = mount.options.iter().any(|option| option == "rw");
        let id = mount
            .source
            .strip_prefix(root.to_str()?)?
            .strip_prefix('/')?;
        let id = id.strip_suffix("/fs")?.parse().ok()?;
        return writable.then_some((id, Vec::new(), false));
    }
    if mount.kind != "overlay" {
        return None;
    }
    let value = |key: &str| {
        mount
            .options
            .iter()
            .find_map(|option| option.strip_prefix(key))
    };
    let prefix = escape(root) + "/";
    let upper = ids(value("upperdir=")?, &prefix)?;
    let [upper] = upper[..] else { return None };
    let lowers = match value("lowerdir=") {
        Some(lowers) => ids(lowers, &prefix)?,
        None => Vec::new(),
    };
    Some((upper, lowers, true))
}

/// `PREFIX 1 /fs : PREFIX 2 /fs …`, where the prefix may have colons in it.
fn ids(mut text: &str, prefix: &str) -> Option<Vec<u64>> {
    let mut ids = Vec::new();
    loop {
        let rest = text.strip_prefix(prefix)?;
        let (id, rest) = rest.split_once("/fs")?;
        ids.push(id.parse().ok()?);
        match rest.strip_prefix(':') {
            Some(more) => text = more,
            None => return rest.is_empty().then_some(ids),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::mounts;

    #[test]
    fn our_own_mounts_are_understood() {
        for root in ["/s", "/a:b,c\\d e/s"] {
            let root = Path::new(root);
            let of = |kind, parents: &[u64]| ids_of(root, &mounts(root, kind, 1, parents, &[]));
            assert_eq!(of(SnapshotKind::Active, &[]), Some((1, vec![], false)));
            assert_eq!(of(SnapshotKind::Active, &[2]), Some((1, vec![2], true)));
            assert_eq!(
                of(SnapshotKind::Active, &[3, 20]),
                Some((1, vec![3, 20], true))
            );
            assert_eq!(of(SnapshotKind::View, &[]), None);
            assert_eq!(of(SnapshotKind::View, &[3, 2]), None);
        }
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        let root = Path::new("/s");
        let bind = |source: &str| Mount {
            kind: "bind".to_owned(),
            source: source.to_owned(),
            target: String::new(),
            options: vec!["rw".to_owned()],
        };
        for source in [
            "/etc",
            "/s",
            "/s/1",
            "/s/1/fs/x",
            "/s/../etc/fs",
            "/s/x/fs",
            "/t/1/fs",
            "",
        ] {
            assert_eq!(ids_of(root, &[bind(source)]), None, "{source}");
        }
        assert_eq!(ids_of(root, &[bind("/s/1/fs"), bind("/s/1/fs")]), None);
        assert_eq!(ids_of(root, &[]), None);
    }
}
