//! From mounts back to the snapshot they show.
//!
//! Clients hand back the mounts they were given (`Diff`). What they mean is found by the paths in
//! them, which we spelled ourselves; nothing else in them is believed, and nothing is mounted.

use std::{collections::HashMap, path::Path};

use cairn_sys::{Dir, mount::escape};
use cairn_types::{Mount, Namespace, SnapshotKey, SnapshotKind};

use crate::{Error, Result, Snapshots};

type Tree = (SnapshotKey, SnapshotKind, Dir);

/// An active snapshot's tree, and those it stands on.
pub struct Writable {
    /// Its key, when it was looked for.
    pub key: SnapshotKey,
    /// Its directory's number, which no other ever has.
    pub id: u64,
    /// Where its own files are.
    pub upper: Dir,
    /// Nearest first.
    pub lowers: Vec<Dir>,
    /// Mounted as an overlay: names that are hidden need overlay's own marks.
    pub is_overlay: bool,
}

/// The trees that some mounts show.
#[derive(Default)]
pub struct Shown {
    /// Nearest first; none for no mounts.
    pub trees: Vec<Dir>,
    /// The nearest one's key, when it was looked for, and its directory's number.
    pub top: Option<(SnapshotKey, u64)>,
}

impl Snapshots {
    /// Whether a snapshot is still the one that has this directory.
    pub fn has(&self, ns: &Namespace, key: &SnapshotKey, id: u64) -> Result<bool> {
        match self.record(ns, key) {
            Ok(record) => Ok(record.id == id),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// The active snapshot of this namespace that `mounts` show; `None` when they show none.
    pub fn writable(&self, ns: &Namespace, mounts: &[Mount]) -> Result<Option<Writable>> {
        let Some(ids) = ids_of(&self.inner.path, mounts) else {
            return Ok(None);
        };
        let trees = self.trees(ns, &ids.layers)?;
        let layers = ids.layers.iter().map(|id| trees.get(id).cloned());
        let Some(layers) = layers.collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let mut layers = layers.into_iter();
        Ok(match layers.next() {
            Some((key, SnapshotKind::Active, upper)) if ids.writable => Some(Writable {
                key,
                id: ids.layers[0],
                upper,
                lowers: layers.map(|(_, _, tree)| tree).collect(),
                is_overlay: ids.is_overlay,
            }),
            _ => None,
        })
    }

    /// The trees that each of `sides`, mounts of this namespace's snapshots, shows: nearest first, an
    /// active one's own among them, and none for no mounts. `None` where they are not mounts of ours.
    ///
    /// What several sides show is open once: a stack can have as many layers as a process may have
    /// descriptors, or nearly.
    pub fn shown<const N: usize>(
        &self,
        ns: &Namespace,
        sides: [&[Mount]; N],
    ) -> Result<[Option<Shown>; N]> {
        let sides = sides.map(|mounts| match mounts {
            [] => Some(Vec::new()),
            mounts => ids_of(&self.inner.path, mounts).map(|ids| ids.layers),
        });
        let all: Vec<u64> = sides.iter().flatten().flatten().copied().collect();
        let trees = self.trees(ns, &all)?;
        let shown = |ids: Vec<u64>| {
            let tree = |id: &u64| trees.get(id).map(|(_, _, tree)| tree.clone());
            let top = ids
                .first()
                .and_then(|id| Some((trees.get(id)?.0.clone(), *id)));
            Some(Shown {
                trees: ids.iter().map(tree).collect::<Option<_>>()?,
                top,
            })
        };
        Ok(sides.map(|ids| shown(ids?)))
    }

    /// The trees of snapshots by their ids, those that are known.
    fn trees(&self, ns: &Namespace, ids: &[u64]) -> Result<HashMap<u64, Tree>> {
        let records = self.inner.meta.read(|view| {
            use cairn_meta::View;
            Ok::<_, Error>(view.scan(&cairn_meta::schema::SNAPSHOTS, ns)?)
        })?;
        let mut trees = HashMap::new();
        for ((_, key), record) in records {
            if ids.contains(&record.id) {
                let tree = self.tree(&key, record.id)?;
                trees.insert(record.id, (key, record.kind, tree));
            }
        }
        Ok(trees)
    }
}

/// What a mount that [`crate::mounts`] spelled is made of.
#[derive(Debug, PartialEq, Eq)]
struct Ids {
    /// Snapshots, nearest first.
    layers: Vec<u64>,
    /// The nearest is written to.
    writable: bool,
    is_overlay: bool,
}

fn ids_of(root: &Path, mounts: &[Mount]) -> Option<Ids> {
    let [mount] = mounts else { return None };
    if !mount.target.is_empty() {
        return None;
    }
    if mount.kind == "bind" {
        let id = mount
            .source
            .strip_prefix(root.to_str()?)?
            .strip_prefix('/')?;
        return Some(Ids {
            layers: vec![id.strip_suffix("/fs")?.parse().ok()?],
            writable: mount.options.iter().any(|option| option == "rw"),
            is_overlay: false,
        });
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
    let upper = match value("upperdir=") {
        Some(upper) => ids(upper, &prefix)?,
        None => Vec::new(),
    };
    let lowers = match value("lowerdir=") {
        Some(lowers) => ids(lowers, &prefix)?,
        None => Vec::new(),
    };
    if upper.len() > 1 || upper.len() + lowers.len() == 0 {
        return None;
    }
    Some(Ids {
        writable: !upper.is_empty(),
        layers: [upper, lowers].concat(),
        is_overlay: true,
    })
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
            let check = |kind, parents: &[u64], (layers, writable, is_overlay): (&[u64], _, _)| {
                let ids = Ids {
                    layers: layers.to_vec(),
                    writable,
                    is_overlay,
                };
                assert_eq!(
                    ids_of(root, &mounts(root, kind, 1, parents, &[])),
                    Some(ids)
                );
            };
            check(SnapshotKind::Active, &[], (&[1], true, false));
            check(SnapshotKind::Active, &[2], (&[1, 2], true, true));
            check(SnapshotKind::Active, &[3, 20], (&[1, 3, 20], true, true));
            check(SnapshotKind::View, &[], (&[1], false, false));
            check(SnapshotKind::View, &[3], (&[3], false, false));
            check(SnapshotKind::View, &[3, 2], (&[3, 2], false, true));
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
