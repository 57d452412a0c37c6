//! From a snapshot and its parents to the mounts that show it, as containerd's overlay snapshotter
//! spells them.

use std::path::{Path, PathBuf};

use cairn_sys::mount::escape;
use cairn_types::{Mount, SnapshotKind};

/// Where things of snapshot `id` are.
pub(crate) fn place(root: &Path, id: u64, what: &str) -> PathBuf {
    root.join(id.to_string()).join(what)
}

/// The mounts of snapshot `id` on `parents`, nearest first.
///
/// One directory is bound; only from two on there is something to overlay.
pub(crate) fn mounts(
    root: &Path,
    kind: SnapshotKind,
    id: u64,
    parents: &[u64],
    extra: &[String],
) -> Vec<Mount> {
    let writable = kind == SnapshotKind::Active;
    let fs = |id: u64| place(root, id, "fs");
    let bound = match (writable, parents) {
        (_, []) => Some(id),
        (false, [only]) => Some(*only),
        _ => None,
    };
    if let Some(id) = bound {
        let access = if writable { "rw" } else { "ro" };
        return vec![Mount {
            kind: "bind".to_owned(),
            source: fs(id).to_string_lossy().into_owned(),
            target: String::new(),
            options: vec![access.to_owned(), "rbind".to_owned()],
        }];
    }
    let mut options = Vec::new();
    if writable {
        options.push(format!("workdir={}", escape(&place(root, id, "work"))));
        options.push(format!("upperdir={}", escape(&fs(id))));
    }
    let lowers: Vec<String> = parents.iter().map(|id| escape(&fs(*id))).collect();
    options.push(format!("lowerdir={}", lowers.join(":")));
    options.extend_from_slice(extra);
    vec![Mount {
        kind: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: SnapshotKind, parents: &[u64], expected: &str) {
        let extra = ["index=off".to_owned()];
        let mounts = mounts(Path::new("/s"), kind, 1, parents, &extra);
        let [mount] = mounts.as_slice() else {
            panic!("{mounts:?}");
        };
        let shown = format!(
            "{} {} {}",
            mount.kind,
            mount.source,
            mount.options.join(",")
        );
        assert_eq!(shown, expected);
    }

    /// containerd `plugins/snapshots/overlay/overlay_test.go`: TestOverlayMounts, -OverlayMount,
    /// -View.
    #[test]
    fn mounts_are_spelled_as_containerd_does() {
        use SnapshotKind::{Active, View};
        check(Active, &[], "bind /s/1/fs rw,rbind");
        check(View, &[], "bind /s/1/fs ro,rbind");
        check(View, &[7], "bind /s/7/fs ro,rbind");
        check(
            View,
            &[7, 3],
            "overlay overlay lowerdir=/s/7/fs:/s/3/fs,index=off",
        );
        check(
            Active,
            &[7, 3],
            "overlay overlay workdir=/s/1/work,upperdir=/s/1/fs,lowerdir=/s/7/fs:/s/3/fs,index=off",
        );
    }
}
