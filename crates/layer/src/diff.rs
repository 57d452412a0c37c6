//! What one stack of layers shows and another does not, as a layer.
//!
//! Both stacks are given as directories, nearest first, and read as overlay would merge them; nothing
//! is mounted. The entries, their order and their headers are those of containerd's walking differ
//! (`pkg/archive/tar.go`: `ChangeWriter`; continuity `fs/diff.go`), which compares two mounts:
//!
//! - a name that is gone is a whiteout where it would stand, only the topmost of a tree; there are no
//!   opaque marks, so that a directory that was replaced lists what is gone from it;
//! - the directories above whatever is written come before it, once;
//! - of a file with several names the first that is new has the data, the others are links to it.
//!
//! The right stack usually is the left one with an upper directory on it. Then only what is in that
//! directory is looked at: all else shows on both sides.
//!
//! Beyond containerd: `user.*` attributes and ACLs are kept and compared; contents are compared
//! whatever the precision of the times; a socket in the place of a file deletes it; a change to the
//! root directory itself is written as `./`. A name that begins with `.wh.` is an error.

mod compare;
mod error;
mod head;
mod pack;
mod view;
mod write;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::Write,
    os::unix::ffi::{OsStrExt, OsStringExt},
    rc::Rc,
};

use cairn_sys::{Dir, FileType, Stat};

use self::{
    compare::{Xattrs, of_dir, of_leaf, open_file, same, same_rights},
    head::{Head, Kind},
    view::{Found, Marks, Merged, Top},
    write::{Output, Parent},
};
pub use self::{
    error::Error,
    pack::{Packed, pack},
};
use crate::{apply::attributes::file_type, path::join};

/// Directories that stay open on the way down, beside the stacks themselves: a process has 1,024
/// descriptors by default. Those farthest up are closed, and opened again on the way back.
const OPEN_DIRS_MAX: usize = 256;
/// What a root directory is that nobody has touched.
const ROOT_MODE: u32 = 0o755;

/// How to write a layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Later modification times become this one, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub latest: Option<i64>,
    /// Overlay's marks are in `user.overlay.*` rather than `trusted.overlay.*`.
    pub userxattr: bool,
}

/// Writes what `right` shows and `left` does not, both nearest first, as an uncompressed layer; says
/// how many entries it has. An empty stack is an empty directory.
///
/// After an error what was written is part of a layer and to be thrown away.
pub fn diff<W: Write>(
    left: &[Dir],
    right: &[Dir],
    options: &Options,
    out: W,
) -> Result<u64, Error> {
    let through = stands_on(left, right)?;
    let own = match through {
        true => &right[..right.len() - left.len()],
        false => right,
    };
    let mut walk = Walk {
        left,
        own,
        marks: Marks::new(options.userxattr),
        latest: options.latest,
        out: Output::new(out),
        frames: Vec::new(),
        open: 0,
        closed: 1,
    };
    walk.root(right.first(), through)?;
    while let Some(frame) = walk.frames.last_mut() {
        match frame.names.next() {
            Some(name) => walk.name(&name)?,
            None => walk.up()?,
        }
    }
    walk.out.finish()
}

/// Whether `right` is `left` with something on it.
fn stands_on(left: &[Dir], right: &[Dir]) -> Result<bool, Error> {
    let Some(added) = right.len().checked_sub(left.len()) else {
        return Ok(false);
    };
    for (a, b) in left.iter().zip(&right[added..]) {
        let stat = |dir: &Dir| dir.self_stat().map_err(Error::read(b""));
        let (a, b) = (stat(a)?, stat(b)?);
        if (a.st_dev, a.st_ino) != (b.st_dev, b.st_ino) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A directory that is being compared.
struct Frame {
    path: Vec<u8>,
    /// Of the layers that only the right side has, or of all of its layers.
    own: Merged,
    left: Merged,
    /// The right side also shows what the left one has here: only names in `own` can differ.
    through: bool,
    /// In order, still to be compared.
    names: std::vec::IntoIter<OsString>,
    parent: Rc<Parent>,
}

struct Walk<'a, W> {
    left: &'a [Dir],
    own: &'a [Dir],
    marks: Marks,
    latest: Option<i64>,
    out: Output<W>,
    /// The way down, the root first.
    frames: Vec<Frame>,
    /// Directories that are open in all frames but the root's.
    open: usize,
    /// The frame after those that are closed; the root's never is.
    closed: usize,
}

impl<W: Write> Walk<'_, W> {
    fn root(&mut self, top: Option<&Dir>, through: bool) -> Result<(), Error> {
        let mut head = None;
        if let Some(top) = top {
            let stat = top.self_stat().map_err(Error::read(b""))?;
            let xattrs = of_dir(b"", top)?;
            if self.root_changed(&stat, &xattrs)? {
                head = Some(self.dir_head(Vec::new(), &stat, xattrs));
            }
        }
        let parent = Rc::new(Parent {
            above: None,
            head: RefCell::new(head),
        });
        self.out.parents(&parent)?;
        let (own, left) = (Merged::root(self.own), Merged::root(self.left));
        self.down(Vec::new(), own, left, through, parent)
    }

    /// The root of a new snapshot has the owner of the one below and mode 0755: that alone says
    /// nothing.
    fn root_changed(&self, stat: &Stat, xattrs: &Xattrs) -> Result<bool, Error> {
        let plain = stat.st_mode & 0o7777 == ROOT_MODE && xattrs.is_empty();
        let Some(below) = self.left.first() else {
            return Ok(!plain || (stat.st_uid, stat.st_gid) != (0, 0));
        };
        let other = below.self_stat().map_err(Error::read(b""))?;
        if plain && (stat.st_uid, stat.st_gid) == (other.st_uid, other.st_gid) {
            return Ok(false);
        }
        Ok(!same_rights(stat, &other) || *xattrs != of_dir(b"", below)?)
    }

    fn down(
        &mut self,
        path: Vec<u8>,
        own: Merged,
        left: Merged,
        through: bool,
        parent: Rc<Parent>,
    ) -> Result<(), Error> {
        let mut names = Vec::new();
        own.names(&path, &mut names)?;
        if !through {
            left.names(&path, &mut names)?;
        }
        names.sort();
        names.dedup();
        if !self.frames.is_empty() {
            self.open += own.dirs.len() + left.dirs.len();
        }
        self.frames.push(Frame {
            path,
            own,
            left,
            through,
            names: names.into_iter(),
            parent,
        });
        while self.open > OPEN_DIRS_MAX && self.closed + 1 < self.frames.len() {
            let far = &mut self.frames[self.closed];
            self.open -= far.own.dirs.len() + far.left.dirs.len();
            (far.own.dirs, far.left.dirs) = (Vec::new(), Vec::new());
            self.closed += 1;
        }
        Ok(())
    }

    fn up(&mut self) -> Result<(), Error> {
        let done = self.frames.pop();
        let depth = self.frames.len();
        if let Some(done) = done
            && depth > 0
        {
            self.open -= done.own.dirs.len() + done.left.dirs.len();
        }
        if depth > 1 && self.closed >= depth {
            let here = &mut self.frames[depth - 1];
            here.own.reopen(self.own, &here.path)?;
            here.left.reopen(self.left, &here.path)?;
            self.open += here.own.dirs.len() + here.left.dirs.len();
            self.closed = depth - 1;
        }
        Ok(())
    }

    /// Compares one name of the current directory.
    fn name(&mut self, name: &OsStr) -> Result<(), Error> {
        let Some(frame) = self.frames.last() else {
            return Ok(());
        };
        let right = self.marks.look_up(&frame.own, &frame.path, name)?;
        let left = self.marks.look_up(&frame.left, &frame.path, name)?;
        if frame.through && right.top.is_none() && !right.ended {
            // Removed since it was listed; what is below shows on both sides.
            return Ok(());
        }
        let path = join(&frame.path, name.as_bytes());
        let parent = Rc::clone(&frame.parent);
        let through = frame.through && !right.ended;
        match (&right.top, &left.top) {
            (None, None) => Ok(()),
            (None, Some(_)) => self.out.whiteout(&parent, &path),
            // No layer has sockets, and one on both sides is none of ours.
            (Some(top), None) if top.is_socket() => Ok(()),
            (Some(top), Some(other)) if top.is_socket() => match other.is_socket() {
                true => Ok(()),
                false => self.out.whiteout(&parent, &path),
            },
            (Some(Top::Directory(_)), _) => self.directory(parent, path, left, right, through),
            (Some(Top::Leaf(dir, stat)), _) => {
                let unchanged = same(&self.marks, &path, &left, &right)?;
                self.leaf(&parent, path, (dir, stat), unchanged)
            }
        }
    }

    fn directory(
        &mut self,
        above: Rc<Parent>,
        path: Vec<u8>,
        left: Found,
        right: Found,
        through: bool,
    ) -> Result<(), Error> {
        let (Some(Top::Directory(stat)), Some(dir)) = (&right.top, right.merged.dirs.first())
        else {
            return Err(Error::changed(&path));
        };
        let unchanged = same(&self.marks, &path, &left, &right)?;
        let head = self.dir_head(path.clone(), stat, of_dir(&path, dir)?);
        let parent = Rc::new(Parent {
            above: Some(above),
            head: RefCell::new(Some(head)),
        });
        if !unchanged {
            self.out.parents(&parent)?;
        }
        self.down(path, right.merged, left.merged, through, parent)
    }

    /// A file, a link, a device.
    fn leaf(
        &mut self,
        parent: &Rc<Parent>,
        path: Vec<u8>,
        (dir, stat): (&Dir, &Stat),
        unchanged: bool,
    ) -> Result<(), Error> {
        let inode = (stat.st_dev, stat.st_ino);
        let linked = stat.st_nlink > 1;
        let source = self.out.source(inode).filter(|_| linked);
        if unchanged && source.is_none() {
            if linked {
                self.out.wait(parent, path, inode);
            }
            return Ok(());
        }
        let source = source.map(<[u8]>::to_vec);
        let (head, data) = self.leaf_head(path, dir, stat)?;
        if let Some(source) = source {
            let link = head.linked(head.path.clone(), &source);
            return self.out.leaf(parent, &link, None);
        }
        self.out.leaf(parent, &head, data.as_ref())?;
        match linked {
            true => self.out.wrote(&head, inode),
            false => Ok(()),
        }
    }

    fn dir_head(&self, path: Vec<u8>, stat: &Stat, xattrs: Xattrs) -> Head {
        let head = self.plain_head(path, stat);
        Head {
            kind: Kind::Directory,
            xattrs,
            ..head
        }
    }

    /// The header, and the open file if it is one.
    fn leaf_head(
        &self,
        path: Vec<u8>,
        dir: &Dir,
        stat: &Stat,
    ) -> Result<(Head, Option<File>), Error> {
        let xattrs = of_leaf(&self.marks, &path, dir)?;
        let mut head = self.plain_head(path, stat);
        let device = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        let mut data = None;
        match file_type(stat) {
            FileType::Symlink => {
                let name = OsStr::from_bytes(crate::path::split(&head.path).1);
                let target = dir.read_link(name).map_err(Error::read(&head.path))?;
                (head.kind, head.link) = (Kind::Symlink, target.into_vec());
            }
            FileType::CharacterDevice => (head.kind, head.device) = (Kind::CharDevice, device),
            FileType::BlockDevice => (head.kind, head.device) = (Kind::BlockDevice, device),
            FileType::Fifo => head.kind = Kind::Fifo,
            FileType::RegularFile => {
                // What it is now, and not when it was listed, goes with its bytes.
                let (file, stat) = open_file(dir, &head.path, stat)?;
                head = self.plain_head(head.path, &stat);
                head.size = u64::try_from(stat.st_size).unwrap_or(0);
                data = Some(file);
            }
            _ => return Err(Error::changed(&head.path)),
        }
        head.xattrs = xattrs;
        Ok((head, data))
    }

    fn plain_head(&self, path: Vec<u8>, stat: &Stat) -> Head {
        Head {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: self
                .latest
                .map_or(stat.st_mtime, |latest| latest.min(stat.st_mtime)),
            xattrs: BTreeMap::new(),
            ..Head::mark(path)
        }
    }
}
