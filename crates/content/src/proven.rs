//! Blobs whose bytes were proven, so that parts of them can be handed out.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, PoisonError},
};

use cairn_types::Digest;

/// Most of them that are known at a time; a few MiB. Forgotten, one is proven again.
const KNOWN_MAX: usize = 16 << 10;

/// What tells a file from any other of its name, and from what it was before somebody wrote to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Mark {
    pub(crate) fn of(file: &File) -> io::Result<Mark> {
        let stat = file.metadata()?;
        Ok(Mark {
            inode: stat.ino(),
            size: stat.size(),
            modified: (stat.mtime(), stat.mtime_nsec()),
        })
    }
}

/// Blobs of which this process has seen every byte, on the way in or since, by what their files were then.
#[derive(Clone, Default)]
pub(crate) struct Proven(Arc<Mutex<HashMap<Digest, Mark>>>);

impl Proven {
    pub(crate) fn add(&self, digest: &Digest, mark: Mark) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(digest.clone(), mark);
    }

    pub(crate) fn has(&self, digest: &Digest, mark: Mark) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest) == Some(&mark)
    }
}
