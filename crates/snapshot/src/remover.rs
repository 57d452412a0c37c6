//! Trees that are removed behind the answer.
//!
//! A removal is over for its caller when its record is gone: what is left of the tree is garbage, which the
//! next recovery would remove as well. A tree of a million files takes seconds to remove, and even one
//! of two empty directories takes as long as the commit of its record.

use std::{
    ffi::OsStr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
};

use cairn_sys::Dir;
use cairn_types::{Classified, ErrorKind};

use crate::disk::{FS, WORK};

/// Most trees that wait. Who removes faster than the disk can removes his own.
const WAITING_MAX: usize = 1024;

/// The thread that removes trees, once there was one to be removed.
pub(crate) struct Remover {
    trees: Arc<Trees>,
    /// `None` where no thread could be had.
    served: OnceLock<Option<Served>>,
    given_up: Arc<AtomicBool>,
}

struct Served {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

/// Where trees are, and where they wait for their end.
struct Trees {
    root: Dir,
    trash: Dir,
}

enum Job {
    Remove(u64),
    /// All that came before is done.
    Tell(SyncSender<()>),
}

impl Remover {
    pub(crate) fn new(root: Dir, trash: Dir) -> Remover {
        Remover {
            trees: Arc::new(Trees { root, trash }),
            served: OnceLock::new(),
            given_up: Arc::default(),
        }
    }

    /// Removes the directory of a snapshot that has no record any more, sooner or later.
    pub(crate) fn add(&self, id: u64) {
        let served = self.served.get_or_init(|| self.serve());
        let taken = served
            .as_ref()
            .is_some_and(|served| served.jobs.try_send(Job::Remove(id)).is_ok());
        if !taken {
            self.trees.remove(id);
        }
    }

    /// Removes it now.
    pub(crate) fn remove(&self, id: u64) {
        self.trees.remove(id);
    }

    fn serve(&self) -> Option<Served> {
        let (jobs, waiting) = mpsc::sync_channel(WAITING_MAX);
        let (trees, given_up) = (Arc::clone(&self.trees), Arc::clone(&self.given_up));
        let thread = thread::Builder::new()
            .name("tree-remover".to_owned())
            .spawn(move || work(&trees, &waiting, &given_up));
        match thread {
            Ok(thread) => Some(Served { jobs, thread }),
            Err(err) => {
                tracing::warn!("trees are removed before their callers are answered: {err}");
                None
            }
        }
    }

    /// Returns when all that was added before is gone, or was given up.
    pub(crate) fn wait(&self) {
        let Some(Some(served)) = self.served.get() else {
            return;
        };
        let (tell, told) = mpsc::sync_channel(1);
        if served.jobs.send(Job::Tell(tell)).is_ok() {
            // An error is the end of the thread, and then there is nothing to wait for.
            let _ = told.recv();
        }
    }

    /// Leaves what waits to the next recovery.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

impl Drop for Remover {
    /// What a program removed is gone when it has ended.
    fn drop(&mut self) {
        let Some(Some(Served { jobs, thread })) = self.served.take() else {
            return;
        };
        drop(jobs);
        if !self.given_up.load(Ordering::Relaxed) {
            let _ = thread.join();
        }
    }
}

fn work(trees: &Trees, waiting: &Receiver<Job>, given_up: &AtomicBool) {
    for job in waiting {
        match job {
            Job::Remove(_) if given_up.load(Ordering::Relaxed) => {}
            Job::Remove(id) => trees.remove(id),
            // Whoever asked may be gone.
            Job::Tell(tell) => drop(tell.send(())),
        }
    }
}

impl Trees {
    /// What fails is left to the next recovery.
    fn remove(&self, id: u64) {
        let name = id.to_string();
        let name = OsStr::new(&name);
        // Most snapshots were never written to, and then there is nothing to be listed.
        if matches!(self.root.remove_hollow(name, &[FS, WORK]), Ok(true)) {
            return;
        }
        match self.root.rename(name, &self.trash, name) {
            Ok(()) => {}
            Err(err) if err.kind() == ErrorKind::NotFound => return,
            Err(err) => {
                tracing::warn!("remove directory of snapshot {id}: {err}");
                return;
            }
        }
        if let Err(err) = self.trash.remove_tree(name) {
            tracing::warn!("remove directory of snapshot {id}: {err}");
        }
    }
}
