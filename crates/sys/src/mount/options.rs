//! Overlay's option strings: what a client is handed, and how it is read back.

use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;

/// An overlay mount's options, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overlay {
    pub(super) lowers: Vec<PathBuf>,
    pub(super) upper: Option<PathBuf>,
    pub(super) work: Option<PathBuf>,
    pub(super) rest: Vec<String>,
}

impl Overlay {
    pub(super) fn parse(options: &[String]) -> Overlay {
        let mut parsed = Overlay::default();
        for option in options {
            match option.split_once('=') {
                Some(("lowerdir", value)) => parsed.lowers = split_lowers(value),
                Some(("upperdir", value)) => parsed.upper = Some(unescape(value)),
                Some(("workdir", value)) => parsed.work = Some(unescape(value)),
                _ if matches!(option.as_str(), "ro" | "rw") => {}
                _ => parsed.rest.push(option.clone()),
            }
        }
        parsed
    }
}

/// What of `options` belongs to the mount, and the rest, which belongs to the file system.
pub(super) fn attributes(options: &[String], read_only: bool) -> (MountAttrFlags, Vec<String>) {
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
    let mut rest = Vec::new();
    for option in options {
        match option.as_str() {
            "nosuid" => attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nodev" => attributes |= MountAttrFlags::MOUNT_ATTR_NODEV,
            _ => rest.push(option.clone()),
        }
    }
    (attributes, rest)
}

/// Overlay's own quoting: a backslash keeps a colon, a comma or a backslash.
fn split_lowers(value: &str) -> Vec<PathBuf> {
    let mut lowers = Vec::new();
    let mut current = String::new();
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => current.extend(characters.next()),
            ':' => lowers.push(PathBuf::from(std::mem::take(&mut current))),
            other => current.push(other),
        }
    }
    lowers.push(PathBuf::from(current));
    lowers
}

fn unescape(value: &str) -> PathBuf {
    let mut text = String::new();
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    PathBuf::from(text)
}

/// Quotes a directory for an overlay option string, as [`super::perform`] and the kernel read it.
pub fn escape(path: &Path) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        if matches!(c, ':' | ',' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_read_back() {
        let lowers = ["/a,b:c\\d/fs", "/plain", "/with blank\\"].map(PathBuf::from);
        let quoted = lowers.each_ref().map(|path| escape(path)).join(":");
        let options = [
            format!("lowerdir={quoted}"),
            format!("upperdir={}", escape(Path::new("/up,per:"))),
            "ro".to_owned(),
            "index=off".to_owned(),
        ];
        let parsed = Overlay::parse(&options);
        assert_eq!(parsed.lowers, lowers);
        assert_eq!(parsed.upper, Some(PathBuf::from("/up,per:")));
        assert_eq!(
            (parsed.work, parsed.rest),
            (None, vec!["index=off".to_owned()])
        );
    }
}
