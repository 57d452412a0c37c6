//! Trees that are removed behind the answer.
//!
//! A removal is over for its caller when its record is gone: what is left of the tree is garbage, which the
//! next recovery would remove as well. A tree of a million files takes seconds to remove, and even one
//! of two empty directories takes as long as the commit of its record.

use std::{
    collections::HashSet,
    ffi::OsStr,
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
};

use cairn_sys::Dir;
use cairn_types::{Classified, ErrorKind};

use crate::disk::{FS, WORK, lock};

/// Most trees that wait: as many as the next opening may find. Who removes faster than the disk can
/// removes his own.
const WAITING_MAX: u64 = 64;

/// The thread that removes trees, once there was one to be removed.
pub(crate) struct Remover {
    shared: Arc<Shared>,
    /// `None` where no thread could be had.
    served: OnceLock<Option<Served>>,
}

struct Served {
    jobs: Sender<u64>,
    thread: JoinHandle<()>,
}

struct Shared {
    trees: Trees,
    /// Trees that are to go and still have their place among the snapshots.
    leaving: Mutex<HashSet<u64>>,
    counts: Mutex<Counts>,
    removed: Condvar,
    /// What waits is left to the next recovery.
    given_up: AtomicBool,
}

/// Trees that were handed to the thread, and those it is done with.
#[derive(Default)]
struct Counts {
    added: u64,
    done: u64,
}

/// Where trees are, and where they wait for their end.
struct Trees {
    root: Dir,
    trash: Dir,
}

impl Remover {
    pub(crate) fn new(root: Dir, trash: Dir) -> Remover {
        Remover {
            shared: Arc::new(Shared {
                trees: Trees { root, trash },
                leaving: Mutex::default(),
                counts: Mutex::default(),
                removed: Condvar::new(),
                given_up: AtomicBool::new(false),
            }),
            served: OnceLock::new(),
        }
    }

    /// Notes that the directory of a snapshot has no record any more and is to go.
    pub(crate) fn mark(&self, id: u64) {
        lock(&self.shared.leaving).insert(id);
    }

    /// Those that still have their place.
    pub(crate) fn leaving(&self) -> HashSet<u64> {
        lock(&self.shared.leaving).clone()
    }

    /// Removes the directory of a snapshot that has no record any more, sooner or later.
    pub(crate) fn add(&self, id: u64) {
        self.mark(id);
        let Some(served) = self.served.get_or_init(|| self.serve()) else {
            return self.remove(id);
        };
        {
            let mut counts = lock(&self.shared.counts);
            if counts.added.saturating_sub(counts.done) >= WAITING_MAX {
                drop(counts);
                return self.remove(id);
            }
            counts.added += 1;
        }
        // An error is the end of the thread.
        if served.jobs.send(id).is_err() {
            self.remove(id);
        }
    }

    /// Removes it now.
    pub(crate) fn remove(&self, id: u64) {
        self.mark(id);
        self.shared.remove(id);
    }

    fn serve(&self) -> Option<Served> {
        let (jobs, waiting) = mpsc::channel();
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name("tree-remover".to_owned())
            .spawn(move || work(&shared, &waiting));
        match thread {
            Ok(thread) => Some(Served { jobs, thread }),
            Err(err) => {
                tracing::warn!("trees are removed before their callers are answered: {err}");
                None
            }
        }
    }

    /// Whether trees wait to be removed.
    pub(crate) fn is_busy(&self) -> bool {
        let counts = lock(&self.shared.counts);
        counts.done < counts.added
    }

    /// Returns when all that was added before is gone, or was given up.
    pub(crate) fn wait(&self) {
        let mut counts = lock(&self.shared.counts);
        let added = counts.added;
        while counts.done < added {
            let woken = self.shared.removed.wait(counts);
            counts = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Leaves what waits to the next recovery.
    pub(crate) fn give_up(&self) {
        self.shared.given_up.store(true, Ordering::Relaxed);
    }
}

impl Drop for Remover {
    /// What a program removed is gone when it has ended.
    fn drop(&mut self) {
        let Some(Some(Served { jobs, thread })) = self.served.take() else {
            return;
        };
        drop(jobs);
        if !self.shared.given_up.load(Ordering::Relaxed) {
            let _ = thread.join();
        }
    }
}

/// Tells those who wait, also when the thread panics.
struct Ended<'s>(&'s Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        lock(&self.0.counts).done = u64::MAX;
        self.0.removed.notify_all();
    }
}

fn work(shared: &Shared, waiting: &Receiver<u64>) {
    let _ended = Ended(shared);
    for id in waiting {
        if !shared.given_up.load(Ordering::Relaxed) {
            shared.remove(id);
        }
        lock(&shared.counts).done += 1;
        shared.removed.notify_all();
    }
}

impl Shared {
    fn remove(&self, id: u64) {
        if self.trees.remove(id) {
            lock(&self.leaving).remove(&id);
        }
    }
}

impl Trees {
    /// Whether it has left its place. What fails is left to the next recovery.
    fn remove(&self, id: u64) -> bool {
        let name = id.to_string();
        let name = OsStr::new(&name);
        // Most snapshots were never written to, and then there is nothing to be listed.
        if matches!(self.root.remove_hollow(name, &[FS, WORK]), Ok(true)) {
            return true;
        }
        match self.root.rename(name, &self.trash, name) {
            Ok(()) => {}
            Err(err) if err.kind() == ErrorKind::NotFound => return true,
            Err(err) => {
                tracing::warn!("remove directory of snapshot {id}: {err}");
                return false;
            }
        }
        if let Err(err) = self.trash.remove_tree(name) {
            tracing::warn!("remove directory of snapshot {id}: {err}");
        }
        true
    }
}
