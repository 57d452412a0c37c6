//! Entries into the stream: parents before what is in them, and each file's data once.

use std::{cell::RefCell, collections::HashMap, fs::File, io::Write, rc::Rc};

use super::{
    Error,
    compare::fill,
    head::{BLOCK_BYTES, Head, pad},
};
use crate::path::{PATH_BYTES_MAX, join, shown, split};

const MARK: &[u8] = b".wh.";
const BUFFER_BYTES: usize = 128 << 10;

/// A directory on the way to what is written. Its own entry is written with the first in it.
pub(super) struct Parent {
    pub(super) above: Option<Rc<Parent>>,
    /// Until it is written.
    pub(super) head: RefCell<Option<Head>>,
}

/// Names a file whatever its name.
pub(super) type Inode = (u64, u64);

/// A name that is unchanged itself, of a file that may get others.
struct Waiting {
    path: Vec<u8>,
    parent: Rc<Parent>,
}

pub(super) struct Output<W> {
    out: W,
    entries: u64,
    buffer: Vec<u8>,
    /// The name that each file with several was written under.
    written: HashMap<Inode, Vec<u8>>,
    waiting: HashMap<Inode, Vec<Waiting>>,
}

impl<W: Write> Output<W> {
    pub(super) fn new(out: W) -> Output<W> {
        Output {
            out,
            entries: 0,
            buffer: Vec::new(),
            written: HashMap::new(),
            waiting: HashMap::new(),
        }
    }

    /// Ends the archive and says how many entries it has.
    pub(super) fn finish(mut self) -> Result<u64, Error> {
        self.out
            .write_all(&[0; 2 * BLOCK_BYTES])
            .map_err(Error::Output)?;
        Ok(self.entries)
    }

    /// Writes the entries that are still due of `parent` and those above it.
    pub(super) fn parents(&mut self, parent: &Rc<Parent>) -> Result<(), Error> {
        let mut due = Vec::new();
        let mut at = Some(parent);
        while let Some(parent) = at {
            due.extend(parent.head.take());
            at = parent.above.as_ref();
        }
        for head in due.iter().rev() {
            self.head(head)?;
        }
        Ok(())
    }

    /// Says that the name at `path` is gone.
    pub(super) fn whiteout(&mut self, parent: &Rc<Parent>, path: &[u8]) -> Result<(), Error> {
        check(path)?;
        self.parents(parent)?;
        let (dir, name) = split(path);
        let mark = join(dir, &[MARK, name].concat());
        self.raw(&Head::mark(mark))
    }

    /// Writes a file with one name.
    pub(super) fn leaf(
        &mut self,
        parent: &Rc<Parent>,
        head: &Head,
        data: Option<&File>,
    ) -> Result<(), Error> {
        self.parents(parent)?;
        self.head(head)?;
        match data {
            Some(file) => self.data(head, file),
            None => Ok(()),
        }
    }

    /// The name that this file was written under.
    pub(super) fn source(&self, inode: Inode) -> Option<&[u8]> {
        self.written.get(&inode).map(Vec::as_slice)
    }

    /// Remembers an unchanged name, should the file be written for the sake of another one.
    pub(super) fn wait(&mut self, parent: &Rc<Parent>, path: Vec<u8>, inode: Inode) {
        let parent = Rc::clone(parent);
        let waiting = self.waiting.entry(inode).or_default();
        waiting.push(Waiting { path, parent });
    }

    /// After a file with several names was written: what waited for it follows as links.
    pub(super) fn wrote(&mut self, head: &Head, inode: Inode) -> Result<(), Error> {
        self.written.insert(inode, head.path.clone());
        for waiting in self.waiting.remove(&inode).unwrap_or_default() {
            self.parents(&waiting.parent)?;
            self.head(&head.linked(waiting.path, &head.path))?;
        }
        Ok(())
    }

    fn head(&mut self, head: &Head) -> Result<(), Error> {
        check(&head.path)?;
        self.raw(head)
    }

    fn raw(&mut self, head: &Head) -> Result<(), Error> {
        self.buffer.clear();
        head.encode(&mut self.buffer);
        self.entries += 1;
        self.out.write_all(&self.buffer).map_err(Error::Output)
    }

    /// As many bytes as the header has announced.
    fn data(&mut self, head: &Head, file: &File) -> Result<(), Error> {
        let mut offset = 0;
        while offset < head.size {
            let left = usize::try_from(head.size - offset).unwrap_or(usize::MAX);
            self.buffer.resize(left.min(BUFFER_BYTES), 0);
            let got = fill(&head.path, file, &mut self.buffer, offset)?;
            if got < self.buffer.len() {
                return Err(Error::changed(&head.path));
            }
            offset += got as u64;
            if offset == head.size {
                pad(&mut self.buffer);
            }
            self.out.write_all(&self.buffer).map_err(Error::Output)?;
        }
        Ok(())
    }
}

/// Refuses what would not be the same in a layer.
fn check(path: &[u8]) -> Result<(), Error> {
    if path.len() > PATH_BYTES_MAX {
        return Err(Error::TooLong { path: shown(path) });
    }
    if split(path).1.starts_with(MARK) {
        return Err(Error::Marker { path: shown(path) });
    }
    Ok(())
}
