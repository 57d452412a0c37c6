//! Gives the directories that a layer had to invent the attributes they have in the layers below.
//!
//! A layer is applied before its parents are known, so that layers can be applied side by side.
//! Afterwards, lowest layer first, this makes the tree what it would be had they been applied one
//! after the other: an invented directory takes owner, mode, times and attributes of the first
//! layer below that has it, as far as that one shows through at all.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use cairn_sys::Dir;
use cairn_types::Usage;
use rustix::{fs::FileType, io::Errno};

use crate::{
    Applied, Error, Options,
    apply::attributes::{
        copy_attributes, file_type, is_opaque, lift_whiteouts, make_whiteout, set_opaque,
        set_times_of,
    },
    path::{join, shown, split},
};

/// Completes `upper` from `parents`, nearest first, which have been completed themselves.
///
/// To be called for every layer, also where nothing was invented: an opaque mark on the layer's root
/// takes effect here, since overlay looks at that mark in every directory but the root; and whiteouts
/// that hide nothing are taken back, since overlay lists them as names that cannot be opened. Returns
/// what the layer takes on disk now.
pub fn adopt(
    upper: &Dir,
    parents: &[Dir],
    applied: &Applied,
    options: &Options,
) -> Result<Usage, Error> {
    let opaque_xattr = options.opaque_xattr();
    let failed = |path: &[u8]| {
        let path = shown(path);
        move |source| Error::Adopt { path, source }
    };
    let mut below = Below::new(parents, opaque_xattr);
    let mut own = Way::new(upper, opaque_xattr, OPEN_DIRS_EACH_MAX);
    let mut changed = false;
    for path in &applied.whited {
        changed |= take_back_marks(&mut own, &mut below, path).map_err(failed(path))?;
    }
    // Deepest first: one that was made for another goes after it.
    for path in applied
        .invented
        .iter()
        .rev()
        .filter(|path| !path.is_empty())
    {
        changed |= take_back_dir(&mut own, &mut below, path).map_err(failed(path))?;
    }
    // What was taken back is still open there.
    let mut own = Way::new(upper, opaque_xattr, OPEN_DIRS_EACH_MAX);
    for path in &applied.invented {
        let Some(model) = below.find(path).map_err(failed(path))? else {
            continue;
        };
        let found = own.descend(path).map_err(failed(path))?;
        if let Descent::Found(own) = found {
            copy_attributes(&model, &own).map_err(failed(path))?;
        }
    }
    changed |= hide_below_root(upper, parents, opaque_xattr).map_err(failed(b""))?;
    if changed {
        upper.usage().map_err(failed(b""))
    } else {
        Ok(applied.usage)
    }
}

/// Whiteouts in a directory that continues none below hide nothing: there, overlay reads the
/// directory as it is, and shows them.
fn take_back_marks(
    own: &mut Way<'_>,
    below: &mut Below<'_>,
    path: &[u8],
) -> cairn_sys::Result<bool> {
    if below.find(path)?.is_some() {
        return Ok(false);
    }
    let Descent::Found(own) = own.descend(path)? else {
        return Ok(false);
    };
    keeping_times(&own, || lift_whiteouts(&own))?;
    Ok(true)
}

/// A directory that was invented for marks alone, and has none left, is not part of the layer: it
/// would hide a file of the same name below, or show where nothing is.
fn take_back_dir(own: &mut Way<'_>, below: &mut Below<'_>, path: &[u8]) -> cairn_sys::Result<bool> {
    if below.find(path)?.is_some() {
        return Ok(false);
    }
    let (parent, name) = split(path);
    let Descent::Found(parent) = own.descend(parent)? else {
        return Ok(false);
    };
    let removed = keeping_times(&parent, || parent.rmdir(OsStr::from_bytes(name)));
    match removed {
        Ok(()) => Ok(true),
        Err(err) if err.is(Errno::NOTEMPTY) || err.is(Errno::NOENT) => Ok(false),
        Err(err) => Err(err),
    }
}

/// What is taken back was never there, so nothing has changed when.
fn keeping_times(dir: &Dir, act: impl FnOnce() -> cairn_sys::Result<()>) -> cairn_sys::Result<()> {
    let before = dir.self_stat()?;
    act()?;
    set_times_of(dir, &before)
}

/// The layers below, nearest first.
struct Below<'a>(Vec<Way<'a>>);

impl<'a> Below<'a> {
    fn new(parents: &'a [Dir], opaque_xattr: &'a str) -> Below<'a> {
        let most = OPEN_DIRS_EACH_MAX.min(OPEN_DIRS_MAX / parents.len().max(1));
        let ways = parents
            .iter()
            .map(|parent| Way::new(parent, opaque_xattr, most));
        Below(ways.collect())
    }

    /// The directory of the first parent that has `path`, unless something nearer hides it.
    fn find(&mut self, path: &[u8]) -> cairn_sys::Result<Option<Dir>> {
        for parent in &mut self.0 {
            match parent.descend(path)? {
                Descent::Found(dir) => return Ok(Some(dir)),
                Descent::Blocked | Descent::Hidden => return Ok(None),
                Descent::Missing => {}
            }
        }
        Ok(None)
    }
}

enum Descent {
    Found(Dir),
    /// Not in this layer.
    Missing,
    /// Not in this layer, and a directory on the way is opaque.
    Hidden,
    /// A file, a link or a whiteout is on the way.
    Blocked,
}

/// As many directories as all layers together keep open on the way: a process has 1,024 descriptors
/// by default, and each of several hundred layers has one already.
const OPEN_DIRS_MAX: usize = 256;
/// As many as help one layer.
const OPEN_DIRS_EACH_MAX: usize = 64;

/// The way into one layer. Paths come sorted, so the last directories are kept open: a tree of a
/// thousand levels would be walked a thousand times from its root otherwise.
struct Way<'a> {
    root: &'a Dir,
    opaque_xattr: &'a str,
    open_max: usize,
    /// With whether something on the way to them, or themselves, is opaque.
    open: HashMap<Vec<u8>, (Dir, bool)>,
}

impl<'a> Way<'a> {
    fn new(root: &'a Dir, opaque_xattr: &'a str, open_max: usize) -> Way<'a> {
        let open = HashMap::new();
        Way {
            root,
            opaque_xattr,
            open_max,
            open,
        }
    }

    fn descend(&mut self, path: &[u8]) -> cairn_sys::Result<Descent> {
        let (mut here, mut hidden, mut known) = self.nearest(path)?;
        let rest = &path[known.len()..];
        for name in rest.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            match here.open_dir(OsStr::from_bytes(name)) {
                Ok(dir) => here = dir,
                Err(err) if err.is(Errno::NOENT) => {
                    return Ok(if hidden {
                        Descent::Hidden
                    } else {
                        Descent::Missing
                    });
                }
                Err(err) if err.is(Errno::NOTDIR) || err.is(Errno::LOOP) => {
                    return Ok(Descent::Blocked);
                }
                Err(err) => return Err(err),
            }
            hidden = hidden || is_opaque(&here, self.opaque_xattr)?;
            known = join(&known, name);
            if self.open.len() >= self.open_max {
                self.open.clear();
            }
            if self.open_max > 0 {
                self.open.insert(known.clone(), (here.clone(), hidden));
            }
        }
        Ok(Descent::Found(here))
    }

    /// The deepest directory on the way to `path` that is open, or the root; whether it hides what is
    /// below, and its own path.
    fn nearest(&self, path: &[u8]) -> cairn_sys::Result<(Dir, bool, Vec<u8>)> {
        let mut at = path;
        while !at.is_empty() {
            if let Some((dir, hidden)) = self.open.get(at) {
                return Ok((dir.clone(), *hidden, at.to_vec()));
            }
            (at, _) = split(at);
        }
        let hidden = is_opaque(self.root, self.opaque_xattr)?;
        Ok((self.root.clone(), hidden, Vec::new()))
    }
}

/// An opaque root, spelled out: a whiteout for each name of the layers below, an opaque mark on each
/// directory that continues one of them.
fn hide_below_root(upper: &Dir, parents: &[Dir], opaque_xattr: &str) -> cairn_sys::Result<bool> {
    let mut added = false;
    if parents.is_empty() || !is_opaque(upper, opaque_xattr)? {
        return Ok(added);
    }
    let mut names = BTreeSet::<OsString>::new();
    for parent in parents {
        for entry in parent.entries()? {
            names.insert(entry.name);
        }
        if is_opaque(parent, opaque_xattr)? {
            break;
        }
    }
    for name in names {
        match upper.try_stat(&name)? {
            None => {
                make_whiteout(upper, &name)?;
                added = true;
            }
            Some(stat) if file_type(&stat) == FileType::Directory => {
                set_opaque(&upper.open_dir(&name)?, opaque_xattr)?;
            }
            Some(_) => {}
        }
    }
    Ok(added)
}
