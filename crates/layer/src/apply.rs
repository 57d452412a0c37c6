//! Entries of a layer into the upper directory of an overlay.
//!
//! The last entry of a name wins, whatever was there; whiteouts and opaque marks mean the layers
//! below and never this one, whatever the order (image-spec `layer.md`, "Whiteouts"). Nothing is
//! synced here: when a layer is safe on disk is its owner's decision.

pub(crate) mod attributes;
mod delete;
mod marks;
mod node;
mod skipped;
pub(crate) mod sums;
mod tree;

use std::{io::BufRead, sync::Arc};

use cairn_sys::Dir;
use cairn_types::{Algorithm, Usage};

pub use self::sums::Sums;
use self::{
    attributes::Times,
    delete::Marks,
    skipped::Skipped,
    tree::{Missing, Place, Tree},
};
use crate::{
    Error, Refusal,
    path::{self, Marker},
    tar::{self, Entry, EntryKind},
};

/// How to apply a layer.
#[derive(Clone, Debug)]
pub struct Options {
    /// What whiteouts become.
    pub whiteouts: Whiteouts,
    /// Overlay's marks go to `user.overlay.*` rather than `trusted.overlay.*`.
    pub userxattr: bool,
    /// What the tar reader takes.
    pub limits: tar::Limits,
    /// The longest uncompressed stream, in bytes.
    pub max_bytes: u64,
    /// The algorithm of the diff ID that [`unpack`](crate::unpack()) computes.
    pub diff_algorithm: Algorithm,
    /// How many threads [`unpack`](crate::unpack()) may use, the caller's among them. With two, or less,
    /// one reads and inflates, the caller's hashes and applies. A third hashes; from four on another
    /// reads ahead, and all but two inflate gzip. That is one thread more, since those that hash and read
    /// ahead mostly wait.
    pub threads: usize,
    /// Files get their lengths, and no bytes: what those hash to goes there instead.
    pub sums: Option<Arc<Sums>>,
}

/// What becomes of a layer's whiteouts and opaque marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// Overlay's marks, which hide what the layers below have.
    #[default]
    Marks,
    /// Deletions of what was there before the layer, for a directory that no overlay is put on.
    Delete,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            whiteouts: Whiteouts::Marks,
            userxattr: false,
            limits: tar::Limits::default(),
            max_bytes: 64 << 30,
            diff_algorithm: Algorithm::Sha256,
            threads: 2,
            sums: None,
        }
    }
}

impl Options {
    pub(crate) fn opaque_xattr(&self) -> &'static str {
        if self.userxattr {
            "user.overlay.opaque"
        } else {
            "trusted.overlay.opaque"
        }
    }
}

/// What the entries of a layer became.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Entries read, markers included.
    pub entries: u64,
    /// Directories that entries needed and the layer did not bring, parents before children; empty
    /// text is the root itself. [`adopt`](crate::adopt()) wants them.
    pub invented: Vec<Vec<u8>>,
    /// Directories that hold whiteouts; some of those may turn out to hide nothing.
    pub whited: Vec<Vec<u8>>,
    /// What the layer takes on disk.
    pub usage: Usage,
    /// What was left out and why, for the log.
    pub skipped: Vec<String>,
}

/// Applies an uncompressed layer to `upper`, which is empty unless whiteouts are to delete, and reads
/// `tar` to its end.
///
/// After an error `upper` holds part of the layer and is to be thrown away. Directories that the
/// layer does not describe are made with mode 0755 for root; [`adopt`](crate::adopt()) completes
/// them once the layers below are known.
pub fn apply<R: BufRead>(mut tar: R, upper: &Dir, options: &Options) -> Result<Applied, Error> {
    let (marks, root_known) = match options.whiteouts {
        Whiteouts::Marks => (Marks::Overlay, false),
        Whiteouts::Delete => {
            let entries = upper
                .entries()
                .map_err(Error::layer("list what is there before the layer"))?;
            // What is there has a root, too; only an entry of its own changes that.
            (Marks::deleting(entries.is_empty()), !entries.is_empty())
        }
    };
    let mut applier = Applier {
        tree: Tree::new(upper, options.opaque_xattr(), marks),
        skipped: Skipped::default(),
        entries: 0,
        root_known,
        sums: options.sums.clone(),
    };
    // No byte at all is an empty layer; a reader's own error comes up again below.
    let empty = matches!(tar.fill_buf(), Ok(bytes) if bytes.is_empty());
    if !empty {
        let mut reader = tar::Reader::new(tar, options.limits.clone());
        while let Some(entry) = reader.next()? {
            applier
                .entry(&entry, &mut reader)
                .map_err(|err| err.at(entry.offset))?;
        }
        reader.finish()?;
    }
    applier.finish(upper)
}

struct Applier {
    tree: Tree,
    skipped: Skipped,
    entries: u64,
    root_known: bool,
    sums: Option<Arc<Sums>>,
}

impl Applier {
    fn entry<R: BufRead>(
        &mut self,
        entry: &Entry,
        reader: &mut tar::Reader<R>,
    ) -> Result<(), Error> {
        self.entries += 1;
        let times = Times::of(entry);
        if times.out_of_range() {
            let reason = "time beyond the filesystem's range clamped".to_owned();
            self.skipped.note(&entry.path, reason);
        }
        let marker = path::classify(&entry.path).map_err(|err| Error::refused(&entry.path, err))?;
        if !self.root_known && !matches!(marker, Marker::Ignored) {
            self.root_known = true;
            self.tree.know_root(times, true);
        }
        match marker {
            Marker::Ignored => {
                self.skipped
                    .note(&entry.path, "AUFS bookkeeping ignored".to_owned());
                Ok(())
            }
            Marker::Root => self.root(entry, times),
            Marker::Whiteout { dir, name } => {
                expect_mark(entry)?;
                self.tree
                    .white_out(&dir, &name, times, (entry.uid, entry.gid))
                    .map_err(|stop| stop.at(&entry.path))
            }
            Marker::Opaque { dir } => {
                expect_mark(entry)?;
                self.tree
                    .hide_all(&dir, times)
                    .map_err(|stop| stop.at(&entry.path))
            }
            Marker::Entry(path) => self.place(&path, entry, times, reader),
        }
    }

    fn root(&mut self, entry: &Entry, times: Times) -> Result<(), Error> {
        if entry.kind != EntryKind::Directory {
            return Err(Error::refused(&entry.path, Refusal::Root));
        }
        self.tree.know_root(times, false);
        attributes::set_on_dir(&self.tree.root().dir, entry, &mut self.skipped)
            .map_err(Error::write(&entry.path))
    }

    fn place<R: BufRead>(
        &mut self,
        path: &[u8],
        entry: &Entry,
        times: Times,
        reader: &mut tar::Reader<R>,
    ) -> Result<(), Error> {
        let (parent, name) = path::split(path);
        let parent = match self.tree.enter(parent, Missing::Invent(times)) {
            Ok(Some(parent)) => parent,
            // `Invent` leaves nothing missing; a racer that removes what was just made gets this.
            Ok(None) => {
                return Err(Error::refused(
                    &entry.path,
                    Refusal::Parent(path::shown(parent)),
                ));
            }
            Err(stop) => return Err(stop.at(&entry.path)),
        };
        self.tree
            .bring(&parent.path, name)
            .map_err(|err| Error::refused(&entry.path, err))?;
        match entry.kind {
            EntryKind::Directory => self.directory(&parent, name, entry, times),
            EntryKind::HardLink => self.hard_link(&parent, name, entry),
            EntryKind::Regular => self.regular(&parent, name, entry, times, reader),
            _ => self.special(&parent, name, entry, times),
        }
    }

    fn directory(
        &mut self,
        parent: &Place,
        name: &[u8],
        entry: &Entry,
        times: Times,
    ) -> Result<(), Error> {
        let place = self
            .tree
            .make_dir(parent, name, times)
            .map_err(|stop| stop.at(&entry.path))?;
        attributes::set_on_dir(&place.dir, entry, &mut self.skipped)
            .map_err(Error::write(&entry.path))
    }

    fn finish(self, upper: &Dir) -> Result<Applied, Error> {
        let tree::Remembered {
            mut invented,
            whited,
        } = self.tree.finish()?;
        if !self.root_known {
            invented.push(Vec::new());
        }
        if invented.first().is_some_and(Vec::is_empty) {
            attributes::own_plainly(upper).map_err(Error::layer("set the layer's root"))?;
        }
        let usage = upper
            .usage()
            .map_err(Error::layer("count what the layer takes on disk"))?;
        Ok(Applied {
            entries: self.entries,
            invented,
            whited,
            usage,
            skipped: self.skipped.lines(),
        })
    }
}

/// A mark is an empty file. AUFS made marks as hard links to one such file, and layers written on
/// it have them so.
fn expect_mark(entry: &Entry) -> Result<(), Error> {
    match entry.kind {
        EntryKind::Regular if entry.size == 0 => Ok(()),
        EntryKind::HardLink => Ok(()),
        _ => Err(Error::refused(&entry.path, Refusal::Whiteout)),
    }
}
