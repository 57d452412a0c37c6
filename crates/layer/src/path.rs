//! What an entry's path asks for: a place in the tree, or one of the image-spec's markers.
//!
//! Pure text; nothing here looks at a disk. A path that leaves this room has no empty, `.` or `..`
//! component, no leading or trailing slash and no NUL, so each component is one safe name for an
//! `*at` call. Symbolic links among the parents are the walker's business.

use cairn_types::{Classified, ErrorKind};

/// `NAME_MAX` of every filesystem we unpack to.
pub const COMPONENT_BYTES_MAX: usize = 255;
/// `PATH_MAX` without its NUL.
pub const PATH_BYTES_MAX: usize = 4095;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS kept for itself in a branch; old layers carry it, it says nothing about the tree.
const AUFS: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.orph", b".wh..wh.plnk"];

/// What an entry's path asks for. Paths are relative to the layer's root and cleaned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    /// The layer's root directory itself.
    Root,
    /// A file, directory, link or device at this path.
    Entry(Vec<u8>),
    /// `.wh.<name>`: hide `name` of the layers below.
    Whiteout {
        /// The directory that holds the name; empty for the root.
        dir: Vec<u8>,
        /// What is hidden.
        name: Vec<u8>,
    },
    /// `.wh..wh..opq`: hide everything that the layers below have in this directory.
    Opaque {
        /// The directory; empty for the root.
        dir: Vec<u8>,
    },
    /// Bookkeeping of AUFS, without meaning for the tree.
    Ignored,
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No bytes at all.
    #[error("the path is empty")]
    Empty,
    /// A NUL byte, which no path of the kernel can hold.
    #[error("the path has a NUL byte")]
    Nul,
    /// A `..` component. Refused rather than clamped: no producer of honest layers writes one.
    #[error("the path has a '..' component")]
    Parent,
    /// A component over [`COMPONENT_BYTES_MAX`].
    #[error("a component of the path is longer than 255 bytes")]
    ComponentTooLong,
    /// More than [`PATH_BYTES_MAX`].
    #[error("the path is longer than 4095 bytes")]
    TooLong,
    /// `.wh.`, `.wh..` and `.wh...` would hide "", "." and "..".
    #[error("the whiteout hides no name")]
    WhiteoutName,
    /// `.wh..wh.<x>` that neither the image-spec nor AUFS defines.
    #[error("unknown kind of whiteout")]
    WhiteoutKind,
    /// `.wh.x/y`: a whiteout has nothing inside.
    #[error("a whiteout is used as a directory")]
    WhiteoutParent,
}

impl Classified for PathError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// Cleans a path as written in a header: a leading `/` means the layer's root, empty and `.`
/// components are dropped, `..` is refused. The result is empty for the root itself.
pub fn clean(path: &[u8]) -> Result<Vec<u8>, PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.contains(&0) {
        return Err(PathError::Nul);
    }
    let mut cleaned = Vec::with_capacity(path.len());
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(PathError::Parent),
            // The name that a whiteout hides is as long as any.
            name if name.strip_prefix(WHITEOUT).unwrap_or(name).len() > COMPONENT_BYTES_MAX => {
                return Err(PathError::ComponentTooLong);
            }
            _ => {}
        }
        if !cleaned.is_empty() {
            cleaned.push(b'/');
        }
        cleaned.extend_from_slice(component);
    }
    if cleaned.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    Ok(cleaned)
}

/// The parent (empty for the root) and the last component of a cleaned path.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Cleans and classifies a path as written in a header.
pub fn classify(path: &[u8]) -> Result<Marker, PathError> {
    let cleaned = clean(path)?;
    if cleaned.is_empty() {
        return Ok(Marker::Root);
    }
    let (parent, name) = split(&cleaned);
    // Few paths have `.wh.` anywhere; the others need no look at each component.
    if !parent.is_empty() && has_whiteout_component(parent) {
        let aufs = parent.split(|b| *b == b'/').any(|c| AUFS.contains(&c));
        return if aufs {
            Ok(Marker::Ignored)
        } else {
            Err(PathError::WhiteoutParent)
        };
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else {
        return Ok(Marker::Entry(cleaned));
    };
    if name == OPAQUE {
        return Ok(Marker::Opaque {
            dir: parent.to_vec(),
        });
    }
    if AUFS.contains(&name) {
        return Ok(Marker::Ignored);
    }
    match hidden {
        b"" | b"." | b".." => Err(PathError::WhiteoutName),
        meta if meta.starts_with(WHITEOUT) => Err(PathError::WhiteoutKind),
        _ => Ok(Marker::Whiteout {
            dir: parent.to_vec(),
            name: hidden.to_vec(),
        }),
    }
}

fn has_whiteout_component(path: &[u8]) -> bool {
    path.split(|b| *b == b'/').any(|c| c.starts_with(WHITEOUT))
}

/// Joins a cleaned directory and a name.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    if !dir.is_empty() {
        path.extend_from_slice(dir);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// A path for messages: bytes that could confuse a terminal are escaped, a long one is cut.
pub(crate) fn shown(path: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 256;
    if path.len() > SHOWN_BYTES_MAX {
        return format!("{}…", path[..SHOWN_BYTES_MAX].escape_ascii());
    }
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => path.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Result<Marker, PathError>) {
        assert_eq!(classify(path.as_bytes()), expected, "{path:?}");
    }

    fn entry(path: &str) -> Result<Marker, PathError> {
        Ok(Marker::Entry(path.into()))
    }

    #[test]
    fn p19_p20_paths_are_cleaned_or_refused() {
        check("a", entry("a"));
        check("a/b/", entry("a/b"));
        check("/etc/canary", entry("etc/canary"));
        check("//etc/x", entry("etc/x"));
        check("./././etc/x", entry("etc/x"));
        check("l/.", entry("l"));
        check("l//", entry("l"));
        check("..a/b..", entry("..a/b.."));
        for root in [".", "/", "./", "/.", "//", "././/"] {
            check(root, Ok(Marker::Root));
        }
        check("", Err(PathError::Empty));
        check("a\0b", Err(PathError::Nul));
        for escape in [
            "..",
            "../../canary",
            "a/../../canary",
            "a/..",
            "/..",
            "a/../b",
        ] {
            check(escape, Err(PathError::Parent));
        }
        check(&"x".repeat(255), entry(&"x".repeat(255)));
        check(&"x".repeat(256), Err(PathError::ComponentTooLong));
        check(
            &"a/".repeat(2048),
            entry("a/".repeat(2048).trim_end_matches('/')),
        );
        check(&"a/".repeat(2049), Err(PathError::TooLong));
    }

    #[test]
    fn w01_w02_w04_markers_are_told_apart() {
        let whiteout = |dir: &str, name: &str| {
            Ok(Marker::Whiteout {
                dir: dir.into(),
                name: name.into(),
            })
        };
        check(".wh.x", whiteout("", "x"));
        check("a/b/.wh.x", whiteout("a/b", "x"));
        check("a/.wh.x/", whiteout("a", "x"));
        check("a/.wh....", whiteout("a", "..."));
        check(".wh..x", whiteout("", ".x"));
        check(".wh..wh..opq", Ok(Marker::Opaque { dir: "".into() }));
        check("a/b/.wh..wh..opq", Ok(Marker::Opaque { dir: "a/b".into() }));
        for aufs in [
            ".wh..wh.aufs",
            "a/.wh..wh.orph",
            ".wh..wh.plnk/",
            ".wh..wh.plnk/7.8",
        ] {
            check(aufs, Ok(Marker::Ignored));
        }
        for nothing in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..", "a/.wh..."] {
            check(nothing, Err(PathError::WhiteoutName));
        }
        for unknown in [".wh..wh.x", "a/.wh..wh.", ".wh..wh..opq2"] {
            check(unknown, Err(PathError::WhiteoutKind));
        }
        for inside in [".wh.a/b", "a/.wh..wh..opq/b", ".wh./b"] {
            check(inside, Err(PathError::WhiteoutParent));
        }
        check("a.wh.b", entry("a.wh.b"));
        check(".whx", entry(".whx"));
    }

    #[test]
    fn p20_messages_escape_what_a_terminal_would_obey() {
        assert_eq!(shown(b"a\x1b[2J"), "a\\x1b[2J");
        assert_eq!(shown("ä/b".as_bytes()), "ä/b");
        assert_eq!(shown(&[0xff]), "\\xff");
        assert!(shown(&[b'x'; 5000]).len() < 300);
    }
}
