//! Bundles whose container has users of its own: whose the files are, and whose they look to be.
//!
//! The image's files belong to 0, 1, 2 …; in the container these are the host's 100000, 100001 …, say.
//! Where the kernel can, the image's layers are mounted so that they show it. Where it cannot, or a
//! copy was asked for, each file of a copy is given its owner. What is nobody's in the container is the
//! host's nobody's then, as a mapped mount shows it, too.

use std::{borrow::Cow, ffi::OsStr, os::unix::fs::MetadataExt, path::PathBuf};

use cairn_sys::{Dir, Error, mount, raw};
use cairn_types::{HostDir, IdMap, IdRange, IdRanges, Mount, OVERFLOW_ID};

use crate::{claim, place::unmount_all};

/// Mounts a bundle's root at `target`; the bundle's own directory is `dir`, which the caller has a claim
/// to. Answers whether the owners are those of `map`: otherwise it is mounted as without one.
pub(crate) fn mount_root(
    mounts: &[Mount],
    target: &std::path::Path,
    map: Option<&IdMap>,
    dir: &HostDir,
) -> Result<bool, Error> {
    if let Some(map) = map {
        clear(dir)?;
        let scratch = claim::scratch(dir)?;
        let mapped = mount::perform_mapped(mounts, target, map, &scratch);
        claim::remove_scratch(dir);
        if mapped? {
            return Ok(true);
        }
    }
    mount::perform(mounts, target)?;
    Ok(map.is_none())
}

/// Unmounts the layers that are mounted for the moment: whoever was at work on this bundle may have
/// been killed in the middle of it.
pub(crate) fn clear(dir: &HostDir) -> Result<(), Error> {
    let scratch = claim::scratch_path(dir);
    unmount_all(&scratch)?;
    claim::remove_scratch(dir);
    Ok(())
}

/// Gives a mounted root to the container: its own directory is in the layer that is not mapped.
pub(crate) fn give_root(root: &Dir, map: &IdMap) -> Result<(), Error> {
    let stat = root.self_stat()?;
    let (uid, gid) = map.owner(stat.st_uid, stat.st_gid);
    raw::fchown(root, uid, gid)
}

/// Lets the container's root through a directory of the bundle, and nobody else: a runtime mounts in
/// the container's name.
pub(crate) fn let_through(dir: &Dir, map: &IdMap) -> Result<(), Error> {
    let (_, group) = map.owner(0, 0);
    raw::fchown(dir, 0, group)?;
    raw::fchmod(dir, 0o710)
}

/// The directory above the bundle, if any, that the container's root cannot go through by the modes of
/// directories.
pub(crate) fn closed_above(dir: &HostDir, map: &IdMap) -> Option<PathBuf> {
    let (user, group) = map.owner(0, 0);
    let closed = |path: &&std::path::Path| {
        std::fs::metadata(path).is_ok_and(|stat| {
            let needed = match (stat.uid() == user, stat.gid() == group) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            stat.mode() & needed == 0
        })
    };
    let above = dir.as_path().ancestors().skip(1);
    above
        .filter(closed)
        .last()
        .map(std::path::Path::to_path_buf)
}

/// What an attribute says in the container's numbers, in the host's.
pub(crate) fn attribute<'v>(name: &OsStr, value: &'v [u8], map: &IdMap) -> Cow<'v, [u8]> {
    let changed = match name.to_str() {
        Some("security.capability") => capability(value, map),
        Some("system.posix_acl_access" | "system.posix_acl_default") => acl(value, map),
        _ => None,
    };
    changed.map_or(Cow::Borrowed(value), Cow::Owned)
}

/// A file's capabilities are worth something only in the namespace whose root they name
/// (`capabilities(7)`); the second version of them names that of the host.
fn capability(value: &[u8], map: &IdMap) -> Option<Vec<u8>> {
    const VERSION_2: u8 = 2;
    const VERSION_3: u8 = 3;
    let (magic, sets) = (value.get(..4)?, value.get(4..20)?);
    let root = match (magic[3], value.get(20..)?) {
        (VERSION_2, []) => 0,
        (VERSION_3, root) => u32::from_le_bytes(root.try_into().ok()?),
        _ => return None,
    };
    let root = map.users.outside(root).unwrap_or(OVERFLOW_ID);
    let mut changed = vec![magic[0], magic[1], magic[2], VERSION_3];
    changed.extend_from_slice(sets);
    changed.extend_from_slice(&root.to_le_bytes());
    Some(changed)
}

/// An access control list as the kernel hands it out: a version, and entries of tag, rights and id.
fn acl(value: &[u8], map: &IdMap) -> Option<Vec<u8>> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    let mut changed = value.get(..4)?.to_vec();
    for entry in value.get(4..)?.chunks(8) {
        let (kind, id) = (entry.get(..2)?, entry.get(4..8)?);
        let id = u32::from_le_bytes(id.try_into().ok()?);
        let id = match u16::from_le_bytes(kind.try_into().ok()?) {
            USER => map.users.outside(id).unwrap_or(OVERFLOW_ID),
            GROUP => map.groups.outside(id).unwrap_or(OVERFLOW_ID),
            _ => id,
        };
        changed.extend_from_slice(&entry[..4]);
        changed.extend_from_slice(&id.to_le_bytes());
    }
    Some(changed)
}

/// The lines of a bundle's marker that say how its root is to be mounted again.
pub(crate) fn lines(map: &IdMap) -> String {
    let line = |word: &str, ranges: &IdRanges| {
        let ranges: Vec<String> = ranges.ranges().iter().map(IdRange::to_string).collect();
        format!("{word} {}\n", ranges.join(","))
    };
    line("users", &map.users) + &line("groups", &map.groups)
}

/// The reverse of [`lines`]; `None` of a marker without them.
pub(crate) fn of_lines(text: &str) -> Option<IdMap> {
    let ranges = |word: &str| {
        let mut lines = text.lines();
        let list = lines.find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))?;
        let ranges = list.split(',').map(str::parse).collect::<Result<_, _>>();
        IdRanges::new(ranges.ok()?).ok()
    };
    Some(IdMap {
        users: ranges("users")?,
        groups: ranges("groups")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> IdMap {
        let ranges = |list: &str| {
            let ranges = list.split(',').map(|text| text.parse().expect(text));
            IdRanges::new(ranges.collect()).expect("ranges")
        };
        IdMap {
            users: ranges("0:100000:1000,1000:7:1"),
            groups: ranges("0:200000:1000"),
        }
    }

    #[test]
    fn lines_are_read_back() {
        let text = lines(&map());
        assert_eq!(text, "users 0:100000:1000,1000:7:1\ngroups 0:200000:1000\n");
        assert_eq!(of_lines(&format!("/root\nbundle:/b\n{text}")), Some(map()));
        assert_eq!(of_lines("/root\nbundle:/b\n"), None);
        assert_eq!(of_lines("users 0:1:1\ngroups 1:1:1\n"), None);
    }

    #[test]
    fn attributes_name_the_hosts_numbers() {
        let shifted =
            |name: &str, value: &[u8]| attribute(OsStr::new(name), value, &map()).into_owned();
        // As `setcap cap_net_raw+ep` and, for a namespace with the root 3, `setcap -n 3` make it.
        let mut second = vec![1, 0, 0, 2, 0, 0x20, 0, 0];
        second.resize(20, 0);
        let mut third = second.clone();
        third[3] = 3;
        let with_root = |root: u32| [&third[..], &root.to_le_bytes()].concat();
        assert_eq!(shifted("security.capability", &second), with_root(100_000));
        assert_eq!(
            shifted("security.capability", &with_root(3)),
            with_root(100_003)
        );
        assert_eq!(
            shifted("security.capability", &with_root(5000)),
            with_root(OVERFLOW_ID)
        );
        assert_eq!(shifted("security.capability", b"odd"), b"odd");
        assert_eq!(shifted("user.note", &second), second);

        let entry = |tag: u16, id: u32| {
            [
                &tag.to_le_bytes()[..],
                &6_u16.to_le_bytes(),
                &id.to_le_bytes(),
            ]
            .concat()
        };
        let list = |entries: &[(u16, u32)]| {
            let entries = entries.iter().flat_map(|(tag, id)| entry(*tag, *id));
            2_u32
                .to_le_bytes()
                .into_iter()
                .chain(entries)
                .collect::<Vec<u8>>()
        };
        let none = u32::MAX;
        assert_eq!(
            shifted(
                "system.posix_acl_access",
                &list(&[(1, none), (2, 1000), (4, none), (8, 5), (8, 5000)])
            ),
            list(&[(1, none), (2, 7), (4, none), (8, 200_005), (8, OVERFLOW_ID)])
        );
        assert_eq!(
            shifted("system.posix_acl_access", &[2, 0, 0, 0, 1]),
            [2, 0, 0, 0, 1]
        );
    }
}
