//! The directory a process starts in.
//!
//! An image may name one that leads through `/proc` to a descriptor of the runtime, and so out of
//! the container (CVE-2024-21626). So the path is walked here, link by link inside the image, and
//! refused when it comes by `/proc`. It is not made here: the runtime makes what is missing.
//!
//! Places of volumes are walked the same way: where a link leads is what a runtime mounts on.

use std::{collections::VecDeque, ffi::OsStr, os::unix::ffi::OsStrExt};

use cairn_sys::Dir;
use rustix::fs::FileType;

/// As many as the kernel follows.
const LINKS_MAX: usize = 40;
const PATH_BYTES_MAX: usize = 4095;

/// Links that runtimes make in the `/dev` they mount, each of them into `/proc` (runtime-spec
/// `runtime-linux.md`, "Dev symbolic links").
const DEV_LINKS: [&[u8]; 5] = [b"core", b"fd", b"stderr", b"stdin", b"stdout"];

/// The path to start in, absolute and cleaned, or why it is refused.
pub(crate) fn check(root: &Dir, path: &str) -> Result<String, String> {
    if path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return Err("it is no path".to_owned());
    }
    let clean = clean(path);
    if walk(root, &clean)?.by_proc {
        return Err("it leads into /proc, where a container can leave itself".to_owned());
    }
    Ok(clean)
}

/// Where a path leads in the image: absolute and without links, or why it leads nowhere. Behind a
/// name that is missing come those that are to be made.
pub(crate) fn resolve(root: &Dir, path: &str) -> Result<String, String> {
    if path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return Err("it is no path".to_owned());
    }
    let names = walk(root, &clean(path))?.names;
    String::from_utf8(names.join(&b'/'))
        .map(|names| format!("/{names}"))
        .map_err(|err| {
            let names = err.as_bytes().escape_ascii();
            format!("it leads to /{names}, which is not UTF-8")
        })
}

/// Without `.`, `..` and doubled slashes, as the container's root would see it.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

struct Walked {
    names: Vec<Vec<u8>>,
    /// Some step of the way was in `/proc`.
    by_proc: bool,
}

fn walk(root: &Dir, path: &str) -> Result<Walked, String> {
    let failed = |err: &cairn_sys::Error| err.to_string();
    let mut rest: VecDeque<Vec<u8>> = parts(path.as_bytes());
    // Where we are: the names so far and their directories. Behind a missing one there are none.
    let mut at: Vec<(Vec<u8>, Option<Dir>)> = Vec::new();
    let mut links = 0;
    let mut by_proc = false;
    while let Some(name) = rest.pop_front() {
        if name == b".." {
            at.pop();
            continue;
        }
        // Before it is looked at: in a container, something else is mounted there.
        by_proc |= match at.as_slice() {
            [] => name == b"proc",
            [(above, _)] => above == b"dev" && DEV_LINKS.contains(&name.as_slice()),
            _ => false,
        };
        let here = match at.last() {
            None => Some(root.clone()),
            Some((_, dir)) => dir.clone(),
        };
        let os = OsStr::from_bytes(&name);
        let stat = match &here {
            Some(dir) => dir.try_stat(os).map_err(|err| failed(&err))?,
            None => None,
        };
        let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
        let next = match (kind, &here) {
            (Some(FileType::Symlink), Some(dir)) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err("it has too many symbolic links".to_owned());
                }
                let target = dir.read_link(os).map_err(|err| failed(&err))?;
                if target.as_bytes().starts_with(b"/") {
                    at.clear();
                }
                for part in parts(target.as_bytes()).into_iter().rev() {
                    rest.push_front(part);
                }
                continue;
            }
            (Some(FileType::Directory), Some(dir)) => {
                Some(dir.open_dir(os).map_err(|err| failed(&err))?)
            }
            (Some(_), _) => return Err("it is not a directory".to_owned()),
            (None, _) => None,
        };
        at.push((name, next));
    }
    Ok(Walked {
        names: at.into_iter().map(|(name, _)| name).collect(),
        by_proc,
    })
}

fn parts(path: &[u8]) -> VecDeque<Vec<u8>> {
    let parts = path
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".");
    parts.map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, expected) in [
            ("", "/"),
            ("/", "/"),
            ("srv", "/srv"),
            ("/srv//app/./x/", "/srv/app/x"),
            ("/../../etc", "/etc"),
            ("a/../../b", "/b"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn b03_what_comes_by_proc_is_refused() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let root = temp.path();
        for dir in ["proc", "srv/app", "usr"] {
            fs::create_dir_all(root.join(dir)).expect("directory");
        }
        symlink("/proc/self/fd/8", root.join("evil")).expect("link");
        symlink("../evil", root.join("srv/again")).expect("link");
        symlink("../../../proc", root.join("srv/up")).expect("link");
        symlink("app", root.join("srv/fine")).expect("link");
        symlink("loop", root.join("loop")).expect("link");
        symlink("dev/fd", root.join("fds")).expect("link");
        fs::write(root.join("file"), "").expect("file");
        let dir = Dir::open(root).expect("open");
        for path in [
            "/",
            "/dev/shm",
            "/srv/dev/fd",
            "/srv/app",
            "/srv/fine",
            "/srv/fine/new/dir",
            "/process",
            "/srv/proc",
        ] {
            assert_eq!(check(&dir, path).expect(path), path);
        }
        for path in [
            "/proc",
            "/proc/self/fd/8",
            "/evil",
            "/srv/again/x",
            "/srv/up/self/cwd",
            "/missing/../proc/1/root",
            "/dev/fd/7",
            "/dev/./stdin",
            "/fds/7",
            "/loop",
            "/file",
            "/srv/a\0b",
        ] {
            assert!(check(&dir, path).is_err(), "{path}");
        }
    }

    #[test]
    fn b03_links_are_resolved_inside_the_image() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let root = temp.path();
        for dir in ["dev", "srv/app"] {
            fs::create_dir_all(root.join(dir)).expect("directory");
        }
        symlink("/dev", root.join("a")).expect("link");
        symlink("../..", root.join("srv/up")).expect("link");
        symlink("/new/\u{e4}", root.join("srv/new")).expect("link");
        symlink("loop", root.join("loop")).expect("link");
        symlink(OsStr::from_bytes(b"\xff"), root.join("bytes")).expect("link");
        fs::write(root.join("file"), "").expect("file");
        let dir = Dir::open(root).expect("open");
        for (path, expected) in [
            ("/", "/"),
            ("/srv/app", "/srv/app"),
            ("/missing/./x", "/missing/x"),
            ("/a", "/dev"),
            ("/a/null", "/dev/null"),
            ("/srv/up", "/"),
            ("/srv/up/a/x", "/dev/x"),
            ("/srv/new/x", "/new/\u{e4}/x"),
        ] {
            assert_eq!(resolve(&dir, path).as_deref(), Ok(expected), "{path}");
        }
        for path in ["/loop", "/file", "/file/x", "/bytes", "/a\0b"] {
            assert!(resolve(&dir, path).is_err(), "{path}");
        }
    }
}
