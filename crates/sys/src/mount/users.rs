//! Which mounts show a directory: as a layer of an overlay, or bound.
//!
//! A tree may be taken away, or put in the place of another, only when nobody looks at it. Only `/proc`
//! knows: each process's `mountinfo`, once per namespace.

use std::{
    collections::HashSet,
    fs,
    io::{self, ErrorKind},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::{
    holders::inside,
    table::{self, MountInfo},
};

/// Mounts that show a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Where they are, each with a process that has it in its namespace.
    pub found: Vec<(PathBuf, i32)>,
    /// There may be more: overlays of which the kernel does not tell the directories, as those from 6.7 to
    /// 6.12 do not, or namespaces that this process could not look into.
    pub silent: bool,
}

/// Who shows `dir`, or something in it, in any mount namespace of a process that can be seen from here. In
/// overlays that were mounted by names that are relative to where only their mounter knows, its two last
/// names are enough to be taken for it.
pub fn users(dir: &Path) -> Users {
    MountTables::read().users(dir)
}

/// What was mounted at one time, in the mount namespace of every process that can be seen from here.
pub struct MountTables {
    /// Of each namespace once, with a process that has it; what this process sees comes first.
    tables: Vec<(i32, Vec<MountInfo>)>,
    /// What this process sees.
    here: Vec<MountInfo>,
    /// There may be more.
    silent: bool,
}

impl MountTables {
    /// Asks `/proc`.
    pub fn read() -> MountTables {
        let here = table::mounts_below(Path::new("/"));
        let processes = fs::read_dir("/proc");
        let mut all = MountTables {
            tables: Vec::new(),
            // Who cannot look has not seen that there is none.
            silent: here.is_err() || processes.is_err() || !sees_all(),
            here: here.unwrap_or_default(),
        };
        let mut seen = HashSet::new();
        let processes = processes.into_iter().flatten().flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        // What this process sees is named by it.
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        for pid in std::iter::once(own).chain(ids) {
            let link = |what: &str| fs::read_link(format!("/proc/{pid}/{what}"));
            // Of one namespace, processes with other roots see other parts.
            let (namespace, root) = match (link("ns/mnt"), link("root")) {
                (Ok(namespace), Ok(root)) => (namespace, root),
                (Err(err), _) | (_, Err(err)) => {
                    all.silent |= !has_ended(&err);
                    continue;
                }
            };
            if seen.contains(&(namespace.clone(), root.clone())) {
                continue;
            }
            let table = match fs::read(format!("/proc/{pid}/mountinfo")) {
                Ok(table) => table,
                Err(err) => {
                    all.silent |= !has_ended(&err);
                    continue;
                }
            };
            // Only now: of one that ended before its table was read another may tell.
            seen.insert((namespace, root));
            all.tables.push((pid, table::parse(&table).collect()));
        }
        all
    }

    /// As [`users`], of that time.
    pub fn users(&self, dir: &Path) -> Users {
        let sought = Sought::new(dir, &self.here);
        let mut users = Users {
            found: Vec::new(),
            // Nothing is bound to what is not there.
            silent: self.silent || (sought.bound.is_none() && dir.exists()),
        };
        for (pid, info) in self.all() {
            match sought.shown_by(info) {
                Some(true) => users.found.push((info.mount_point.clone(), pid)),
                Some(false) => {}
                None => users.silent = true,
            }
        }
        users
    }

    /// Where `dir`, or something in it, is shown for sure: relative names, of which nobody knows what they
    /// mean, do not count.
    pub fn showing(&self, dir: &Path) -> Option<&Path> {
        let sought = Sought {
            surely: true,
            ..Sought::new(dir, &self.here)
        };
        let mut all = self.all();
        let found = all.find(|(_, info)| sought.shown_by(info) == Some(true));
        found.map(|(_, info)| info.mount_point.as_path())
    }

    fn all(&self) -> impl Iterator<Item = (i32, &MountInfo)> {
        let tables = self.tables.iter();
        tables.flat_map(|(pid, table)| table.iter().map(move |info| (*pid, info)))
    }
}

/// Whether `/proc` shows all processes of the machine. In a namespace of processes, and with `hidepid=`
/// (systemd's `ProtectProc=`), those that cannot be looked into are not there at all (proc(5)); the first of
/// the machine is one of them.
fn sees_all() -> bool {
    // The first namespace of processes has this number in every kernel (`PROC_PID_INIT_INO`).
    let own = fs::read_link("/proc/self/ns/pid");
    let first = own.is_ok_and(|ns| ns == Path::new("pid:[4026531836]"));
    first && fs::read_link("/proc/1/ns/mnt").is_ok() && fs::read_link("/proc/1/root").is_ok()
}

/// Whether an error is that of a process which ended meanwhile: it shows nothing. (Without a namespace its
/// `mountinfo` is `EINVAL`: Linux `fs/proc_namespace.c`.)
fn has_ended(err: &io::Error) -> bool {
    let kind = err.kind();
    let gone = err.raw_os_error() == Some(Errno::SRCH.raw_os_error());
    gone || matches!(kind, ErrorKind::NotFound | ErrorKind::InvalidInput)
}

/// A directory, and what it is on its file system.
struct Sought<'d> {
    dir: &'d Path,
    /// Device, and path in that.
    bound: Option<(String, PathBuf)>,
    /// Names that may be those of another directory are not taken for it.
    surely: bool,
}

impl Sought<'_> {
    fn new<'d>(dir: &'d Path, here: &[MountInfo]) -> Sought<'d> {
        Sought {
            bound: inside(dir, here),
            dir,
            surely: false,
        }
    }

    /// Whether a mount shows it; `None` when the mount does not say.
    fn shown_by(&self, info: &MountInfo) -> Option<bool> {
        if info.fs_type != "overlay" {
            let within = |(device, root): &(String, PathBuf)| {
                *device == info.device && info.root.starts_with(root)
            };
            return Some(self.bound.as_ref().is_some_and(within));
        }
        let options = info.options.as_bytes();
        if !info.options.contains("lowerdir") {
            return None;
        }
        Some(self.is_among(options).unwrap_or(true))
    }

    /// Whether it is named by the options of an overlay. Commas and colons stand between paths, or are a part
    /// of one.
    fn is_among(&self, options: &[u8]) -> Option<bool> {
        let whole = self.dir.as_os_str().as_bytes();
        let (name, above) = (self.dir.file_name()?, self.dir.parent()?.file_name()?);
        let short = [above.as_bytes(), name.as_bytes()].join(&b'/');
        let is_between = |byte: &u8| matches!(byte, b'=' | b':' | b',');
        let is_it = |at: usize| {
            let end = at + short.len();
            let ends = matches!(options.get(end), None | Some(b':' | b',' | b'/'));
            let begins = at == 0 || options[at - 1] == b'/' || is_between(&options[at - 1]);
            let first = options[..at]
                .iter()
                .rposition(is_between)
                .map_or(0, |at| at + 1);
            let is_absolute = options.get(first) == Some(&b'/');
            let is_whole = is_absolute && options[..end].ends_with(whole);
            begins && ends && (is_whole || (!is_absolute && !self.surely))
        };
        let windows = options.windows(short.len()).enumerate();
        Some(
            windows
                .filter(|(_, window)| *window == short)
                .any(|(at, _)| is_it(at)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(fs_type: &str, root: &str, options: &str) -> MountInfo {
        MountInfo {
            device: "0:1".to_owned(),
            root: PathBuf::from(root),
            mount_point: PathBuf::from("/mnt"),
            fs_type: fs_type.to_owned(),
            source: String::new(),
            options: options.to_owned(),
            upper: None,
        }
    }

    #[test]
    fn what_shows_a_directory() {
        let sought = |surely| Sought {
            dir: Path::new("/var/lib/cairn/snapshots/12/fs"),
            bound: Some(("0:1".to_owned(), PathBuf::from("/cairn/snapshots/12/fs"))),
            surely,
        };
        let own = "/var/lib/cairn/snapshots";
        for (fs_type, root, options, expected) in [
            (
                "overlay",
                "/",
                format!("ro,lowerdir={own}/13/fs:{own}/12/fs"),
                Some(true),
            ),
            (
                "overlay",
                "/",
                format!("rw,lowerdir+={own}/12/fs,lowerdir+=/s/1/fs"),
                Some(true),
            ),
            // By whom, and from where, nobody knows.
            (
                "overlay",
                "/",
                "rw,lowerdir=12/fs:1/fs,upperdir=/u".to_owned(),
                Some(true),
            ),
            (
                "overlay",
                "/",
                "rw,lowerdir=/other/12/fs,upperdir=/u".to_owned(),
                Some(false),
            ),
            (
                "overlay",
                "/",
                format!("rw,lowerdir={own}/112/fs:{own}/2/fs"),
                Some(false),
            ),
            (
                "overlay",
                "/",
                format!("rw,lowerdir={own}/12/fsx:{own}/12f/s"),
                Some(false),
            ),
            ("overlay", "/", "rw,index=off".to_owned(), None),
            (
                "ext4",
                "/cairn/snapshots/12/fs",
                "rw".to_owned(),
                Some(true),
            ),
            (
                "ext4",
                "/cairn/snapshots/12/fs/etc",
                "rw".to_owned(),
                Some(true),
            ),
            (
                "ext4",
                "/other/snapshots/12/fs",
                "rw".to_owned(),
                Some(false),
            ),
            (
                "ext4",
                "/cairn/snapshots/13/fs",
                "rw".to_owned(),
                Some(false),
            ),
            ("ext4", "/", "rw".to_owned(), Some(false)),
        ] {
            let info = info(fs_type, root, &options);
            let seen = sought(false).shown_by(&info);
            assert_eq!(seen, expected, "{fs_type} {root} {options}");
            let unsure = options.contains("lowerdir=12/fs");
            let seen = sought(true).shown_by(&info);
            let expected = if unsure { Some(false) } else { expected };
            assert_eq!(seen, expected, "for sure: {fs_type} {root} {options}");
        }
    }
}
