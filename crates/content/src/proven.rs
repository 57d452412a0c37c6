//! Blobs whose bytes were proven, so that parts of them can be handed out.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use cairn_sys::Stat;
use cairn_types::Digest;

/// Most of them that are known at a time; a few MiB. Forgotten, one is proven again.
const KNOWN_MAX: usize = 16 << 10;

/// What tells a blob's file from any that comes in its place, and from what it was before somebody wrote to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    inode: u64,
    seconds: i64,
    nanos: u64,
}

impl Mark {
    // The types of the fields differ by processor.
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
    pub(crate) fn of(stat: &Stat) -> Mark {
        Mark {
            inode: stat.st_ino,
            seconds: stat.st_mtime.into(),
            nanos: stat.st_mtime_nsec.try_into().unwrap_or(0),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mark {
            inode,
            seconds,
            nanos,
        } = self;
        write!(f, "{inode} {seconds}.{nanos:09}")
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
