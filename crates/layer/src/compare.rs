//! Whether a tree is what its layer says: kinds, bytes, modes, owners, times, attributes, links, and no
//! name too many.
//!
//! The model is the same layer, applied anew with [`Sums`] in the place of bytes and completed by
//! [`adopt()`](crate::adopt()). Both are on the same file system, so that what it cannot hold it holds
//! of neither.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    os::unix::ffi::OsStrExt,
};

use cairn_sys::{
    Dir, OFlags, Result, Stat,
    raw::{self, Caching},
};
use rustix::fs::FileType;

use crate::{
    apply::{
        Sums,
        attributes::{file_type, is_opaque, is_whiteout, storable},
        sums::Sum,
    },
    path::{PATH_BYTES_MAX, join, shown},
};

/// In which way a place of a tree is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aspect {
    /// The layer has it, and the tree does not.
    Missing,
    /// No entry of the layer explains it.
    Extra,
    /// It is something else: a link, a directory, a mark for a deleted name.
    Kind,
    /// Its bytes, or how many they are.
    Content,
    /// Its permissions.
    Mode,
    /// Whose it is.
    Owner,
    /// When it was last modified.
    Time,
    /// An extended attribute.
    Attribute,
    /// Where a symbolic link leads, or of which file it is another name.
    Link,
    /// The number of a device.
    Device,
}

/// A place at which a tree is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// From the tree's root; empty for the root itself.
    pub path: Vec<u8>,
    /// In which way.
    pub aspect: Aspect,
    /// What is there, and what should be.
    pub detail: String,
}

/// Compares `tree` with its `model`, whose files' bytes are in `sums`. Tells `read` of bytes of the tree
/// that were read, and of none at each name; when that says `false` the comparison ends, and what was found is
/// no longer all there is. What it reads leaves in memory what `caching` says.
///
/// # Errors
/// When one of the trees cannot be read, which may be damage to the file system, or somebody removes it.
pub fn compare(
    model: &Dir,
    sums: &Sums,
    tree: &Dir,
    caching: Caching,
    read: &mut dyn FnMut(u64) -> bool,
) -> Result<Vec<Difference>> {
    let mut comparing = Comparing {
        sums,
        caching,
        read,
        ended: false,
        found: Vec::new(),
        names: HashMap::new(),
        taken: HashMap::new(),
    };
    comparing.root(model, tree)?;
    let mut ahead = vec![Vec::new()];
    while let Some(path) = ahead.pop() {
        // Opened by their paths: a tree may be wider and deeper than a process can hold open.
        let dirs = (&open(model, &path)?, &open(tree, &path)?);
        comparing.directory(&path, dirs, &mut ahead)?;
        if comparing.ended {
            break;
        }
    }
    let mut found = comparing.found;
    found.sort_by(|a, b| (&a.path, a.aspect).cmp(&(&b.path, b.aspect)));
    Ok(found)
}

/// Opens the directory at a path without links. It is longer than the kernel takes where links of the layer
/// led there, so that no entry had to say it whole.
fn open(root: &Dir, path: &[u8]) -> Result<Dir> {
    let (mut here, mut rest) = (root.clone(), path);
    while rest.len() > PATH_BYTES_MAX {
        // A name has at most 255 bytes.
        let Some(end) = rest[..PATH_BYTES_MAX].iter().rposition(|b| *b == b'/') else {
            break;
        };
        here = here.resolve_dir(&rest[..end])?;
        rest = &rest[end + 1..];
    }
    here.resolve_dir(rest)
}

struct Comparing<'a> {
    sums: &'a Sums,
    caching: Caching,
    read: &'a mut dyn FnMut(u64) -> bool,
    ended: bool,
    found: Vec<Difference>,
    /// Files of the model that may have several names: the file of the tree, and the first name.
    names: HashMap<u64, (u64, Vec<u8>)>,
    /// The same the other way round.
    taken: HashMap<u64, Vec<u8>>,
}

/// A name on both sides.
struct Pair<'p> {
    path: &'p [u8],
    name: &'p OsStr,
    model: (&'p Dir, &'p Stat),
    tree: (&'p Dir, &'p Stat),
}

impl Comparing<'_> {
    /// Whether somebody waits for it still.
    fn goes_on(&mut self, read: u64) -> bool {
        self.ended = self.ended || !(self.read)(read);
        !self.ended
    }

    fn differs(&mut self, path: &[u8], aspect: Aspect, detail: impl Into<String>) {
        self.found.push(Difference {
            path: path.to_vec(),
            aspect,
            detail: detail.into(),
        });
    }

    fn root(&mut self, model: &Dir, tree: &Dir) -> Result<()> {
        let (a, b) = (model.self_stat()?, tree.self_stat()?);
        self.rights(b"", &a, &b);
        // An opaque root is spelled out by marks in it, for which it has no time of its own.
        let marked = ["trusted.overlay.opaque", "user.overlay.opaque"];
        let marked = marked.map(|key| is_opaque(model, key));
        if !marked
            .into_iter()
            .collect::<Result<Vec<_>>>()?
            .contains(&true)
        {
            self.times(b"", &a, &b);
        }
        let of = |dir: &Dir| {
            let mut all = Attributes::new();
            for key in raw::flistxattr(dir)? {
                if is_compared(key.as_bytes())
                    && let Some(value) = raw::fgetxattr(dir, &key)?
                {
                    all.insert(key, value);
                }
            }
            Ok::<_, cairn_sys::Error>(all)
        };
        self.attributes(b"", &of(model)?, &of(tree)?);
        Ok(())
    }

    fn directory(
        &mut self,
        path: &[u8],
        (model, tree): (&Dir, &Dir),
        ahead: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        let mut expected = BTreeSet::new();
        for entry in model.entries()? {
            expected.insert(entry.name);
        }
        for name in &expected {
            if !self.goes_on(0) {
                return Ok(());
            }
            let below = join(path, name.as_bytes());
            let a = model.stat(name)?;
            let Some(b) = tree.try_stat(name)? else {
                let detail = format!("it is missing, and should be {}", kind(&a));
                self.differs(&below, Aspect::Missing, detail);
                continue;
            };
            let pair = Pair {
                path: &below,
                name,
                model: (model, &a),
                tree: (tree, &b),
            };
            if self.both(&pair)? {
                ahead.push(below);
            }
        }
        for entry in tree.entries()? {
            if expected.contains(&entry.name) {
                continue;
            }
            if !self.goes_on(0) {
                return Ok(());
            }
            let below = join(path, entry.name.as_bytes());
            // Gone again, in a tree that is being removed.
            let Some(b) = tree.try_stat(&entry.name)? else {
                continue;
            };
            let detail = format!("no entry of its layer explains it; it is {}", kind(&b));
            self.differs(&below, Aspect::Extra, detail);
        }
        Ok(())
    }

    /// Compares what both have; whether it is a directory, to be entered.
    fn both(&mut self, pair: &Pair<'_>) -> Result<bool> {
        let Pair {
            path,
            name,
            model: (model, a),
            tree: (tree, b),
        } = *pair;
        let of = |stat: &Stat| (file_type(stat), is_whiteout(file_type(stat), stat));
        if of(a) != of(b) {
            let detail = format!("it is {}, and should be {}", kind(b), kind(a));
            self.differs(path, Aspect::Kind, detail);
            return Ok(false);
        }
        let is_mark = is_whiteout(file_type(a), a);
        self.rights(path, a, b);
        // Nobody sees a mark's.
        if !is_mark {
            self.times(path, a, b);
        }
        self.attributes(path, &of_name(model, name)?, &of_name(tree, name)?);
        match file_type(a) {
            FileType::Directory => return Ok(true),
            FileType::Symlink => {
                let (should, is) = (model.read_link(name)?, tree.read_link(name)?);
                if should != is {
                    let words = |link: &OsString| shown(link.as_bytes());
                    let detail = format!(
                        "it leads to \"{}\", and should to \"{}\"",
                        words(&is),
                        words(&should)
                    );
                    self.differs(path, Aspect::Link, detail);
                }
            }
            FileType::CharacterDevice | FileType::BlockDevice if a.st_rdev != b.st_rdev => {
                let number = |stat: &Stat| {
                    let device = stat.st_rdev;
                    format!(
                        "{}:{}",
                        rustix::fs::major(device),
                        rustix::fs::minor(device)
                    )
                };
                let detail = format!("it is {}, and should be {}", number(b), number(a));
                self.differs(path, Aspect::Device, detail);
            }
            _ => {}
        }
        if self.is_another_name(path, a, b) || file_type(a) != FileType::RegularFile {
            return Ok(false);
        }
        self.content(pair)?;
        Ok(false)
    }

    fn rights(&mut self, path: &[u8], a: &Stat, b: &Stat) {
        let mode = |stat: &Stat| stat.st_mode & 0o7777;
        // A link's mode says nothing.
        if mode(a) != mode(b) && file_type(a) != FileType::Symlink {
            let detail = format!("its mode is {:04o}, and should be {:04o}", mode(b), mode(a));
            self.differs(path, Aspect::Mode, detail);
        }
        let owner = |stat: &Stat| (stat.st_uid, stat.st_gid);
        if owner(a) != owner(b) {
            let ((uid, gid), (should_uid, should_gid)) = (owner(b), owner(a));
            let detail =
                format!("it belongs to {uid}:{gid}, and should to {should_uid}:{should_gid}");
            self.differs(path, Aspect::Owner, detail);
        }
    }

    fn times(&mut self, path: &[u8], a: &Stat, b: &Stat) {
        if (a.st_mtime, a.st_mtime_nsec) != (b.st_mtime, b.st_mtime_nsec) {
            let at = |stat: &Stat| format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec);
            let detail = format!(
                "it was modified at {}, and should have been at {}",
                at(b),
                at(a)
            );
            self.differs(path, Aspect::Time, detail);
        }
    }

    fn attributes(&mut self, path: &[u8], a: &Attributes, b: &Attributes) {
        let names: BTreeSet<&OsString> = a.keys().chain(b.keys()).collect();
        for name in names {
            let how = match (a.get(name), b.get(name)) {
                (Some(should), Some(is)) if should == is => continue,
                (Some(_), Some(_)) => "has another value",
                (Some(_), None) => "is missing",
                (None, _) => "should not be there",
            };
            let detail = format!("its attribute {} {how}", shown(name.as_bytes()));
            self.differs(path, Aspect::Attribute, detail);
        }
    }

    /// Whether it is another name of a file that was compared already, as it should be or not.
    fn is_another_name(&mut self, path: &[u8], a: &Stat, b: &Stat) -> bool {
        if a.st_nlink < 2 && b.st_nlink < 2 {
            return false;
        }
        if let Some((file, first)) = self.names.get(&a.st_ino) {
            if *file != b.st_ino {
                let detail = format!("it should be another name of \"{}\"", shown(first));
                self.differs(path, Aspect::Link, detail);
            }
            return true;
        }
        if let Some(first) = self.taken.get(&b.st_ino) {
            let detail = format!("it should not be another name of \"{}\"", shown(first));
            self.differs(path, Aspect::Link, detail);
        }
        self.names.insert(a.st_ino, (b.st_ino, path.to_vec()));
        self.taken.entry(b.st_ino).or_insert_with(|| path.to_vec());
        false
    }

    fn content(&mut self, pair: &Pair<'_>) -> Result<()> {
        let (_, a) = pair.model;
        let (tree, b) = pair.tree;
        if a.st_size != b.st_size {
            let detail = format!("it has {} bytes, and should have {}", b.st_size, a.st_size);
            self.differs(pair.path, Aspect::Content, detail);
            return Ok(());
        }
        let Some(should) = self.sums.get(a.st_ino) else {
            return Ok(());
        };
        let file = tree.open_file(pair.name, OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
        let sum = self.sum(&file, u64::try_from(b.st_size).unwrap_or(0));
        if self.ended {
            return Ok(());
        }
        match sum.map(Sum::finish) {
            Ok(is) if is == should => {}
            Ok(_) => {
                let detail = "its bytes are not those of its layer";
                self.differs(pair.path, Aspect::Content, detail);
            }
            Err(err) => {
                let detail = format!("its bytes cannot be read: {}", err.words());
                self.differs(pair.path, Aspect::Content, detail);
            }
        }
        Ok(())
    }

    /// Reads a file of so many bytes, all but its holes.
    fn sum(&mut self, file: &File, size: u64) -> Result<Sum> {
        let mut sum = Sum::default();
        while sum.length() < size {
            let Some((start, end)) = raw::next_data(file, sum.length())? else {
                break;
            };
            let (start, end) = (start.min(size), end.min(size));
            // It may have been cut meanwhile.
            if start >= end || !self.goes_on(0) {
                break;
            }
            sum.zeros(start.saturating_sub(sum.length()));
            raw::read_through(file, start..end, self.caching, |piece| {
                sum.data(piece);
                self.goes_on(piece.len() as u64)
            })?;
            if sum.length() < end {
                break;
            }
        }
        sum.zeros(size.saturating_sub(sum.length()));
        Ok(sum)
    }
}

type Attributes = BTreeMap<OsString, Vec<u8>>;

/// Those that a layer can bring, and overlay's own. What else is there is the host's.
fn is_compared(key: &[u8]) -> bool {
    storable(key) || key.starts_with(b"trusted.") || key.starts_with(b"user.")
}

fn of_name(dir: &Dir, name: &OsStr) -> Result<Attributes> {
    let mut all = Attributes::new();
    for key in dir.list_xattr(name)? {
        if is_compared(key.as_bytes())
            && let Some(value) = dir.get_xattr(name, &key)?
        {
            all.insert(key, value);
        }
    }
    Ok(all)
}

fn kind(stat: &Stat) -> &'static str {
    match file_type(stat) {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        other if is_whiteout(other, stat) => "a mark for a deleted name",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::Unknown => "of no known kind",
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}: {}", shown(&self.path), self.detail)
    }
}
