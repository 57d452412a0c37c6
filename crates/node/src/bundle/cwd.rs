//! The directory a process starts in.
//!
//! An image may name one that leads through `/proc` to a descriptor of the runtime, and so out of
//! the container (CVE-2024-21626). So the path is walked here, link by link inside the image, and
//! refused when it comes by `/proc`. It is not made here: the runtime makes what is missing.

use std::{collections::VecDeque, ffi::OsStr, os::unix::ffi::OsStrExt};

use cairn_sys::Dir;
use rustix::fs::FileType;

/// As many as the kernel follows.
const LINKS_MAX: usize = 40;
const PATH_BYTES_MAX: usize = 4095;

/// The path to start in, absolute and cleaned, or why it is refused.
pub(super) fn check(root: &Dir, path: &str) -> Result<String, String> {
    if path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return Err("it is no path".to_owned());
    }
    let clean = clean(path);
    match leads_into_proc(root, &clean) {
        Ok(false) => Ok(clean),
        Ok(true) => Err("it leads into /proc, where a container can leave itself".to_owned()),
        Err(reason) => Err(reason),
    }
}

/// Without `.`, `..` and doubled slashes, as the container's root would see it.
pub(super) fn clean(path: &str) -> String {
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

fn leads_into_proc(root: &Dir, path: &str) -> Result<bool, String> {
    let failed = |err: &cairn_sys::Error| err.to_string();
    let mut rest: VecDeque<Vec<u8>> = parts(path.as_bytes());
    // Where we are: the names so far and their directories. Behind a missing one there are none.
    let mut at: Vec<(Vec<u8>, Option<Dir>)> = Vec::new();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == b".." {
            at.pop();
            continue;
        }
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
        if at.is_empty() && name == b"proc" {
            return Ok(true);
        }
        at.push((name, next));
    }
    Ok(false)
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
    fn what_comes_by_proc_is_refused() {
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
        fs::write(root.join("file"), "").expect("file");
        let dir = Dir::open(root).expect("open");
        for path in [
            "/",
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
            "/loop",
            "/file",
            "/srv/a\0b",
        ] {
            assert!(check(&dir, path).is_err(), "{path}");
        }
    }
}
