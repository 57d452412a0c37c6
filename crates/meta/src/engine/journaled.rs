//! Any engine behind a journal: a commit is one frame there, and the engine takes over many at once.
//!
//! What the engine has not taken over is kept in memory as well, where lookups see it before the
//! engine's own state: the young changes, in the segment that is written to, and the old ones, which
//! the engine is being given by a thread of its own.

use std::{
    ops::Bound,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use cairn_sys::{Dir, fault};
use cairn_types::{Classified, ErrorKind};
use rpds::RedBlackTreeMapSync;

use super::{Batch, Engine, Over, Pairs, Snapshot, laid_over, unpanicked};
use crate::{
    Error,
    error::kind_of_words,
    journal::{Journal, Trouble},
    keeper::Keeper,
    record, reserve,
};

/// Under it the engine has the number of the last frame that it took over. No table has this tag.
pub(super) const TAKEN_OVER: &[u8] = b"\0journal\0";

/// Between two parts of a copy, so that it takes no processor to itself.
const PAUSE: Duration = Duration::from_millis(2);

/// Changes by key. A clone costs nothing and does not change any more.
type Changes = RedBlackTreeMapSync<Vec<u8>, Option<Vec<u8>>>;

/// What the engine does not have yet.
#[derive(Clone, Default)]
struct Memory {
    young: Changes,
    old: Changes,
    /// How often young changes have become old ones.
    turns: u64,
}

/// How far the engine is with the old changes.
#[derive(Default)]
struct Progress {
    busy: bool,
    failed: Option<String>,
}

struct Shared {
    engine: Box<dyn Engine>,
    memory: RwLock<Memory>,
    progress: Mutex<Progress>,
    moved: Condvar,
}

/// Old changes on their way into the engine, up to the frame of this number.
struct Load {
    changes: Changes,
    last: u64,
    /// They are to be in the log first: their segment is written over next.
    logged: bool,
}

/// An engine behind a journal.
pub(crate) struct Journaled {
    shared: Arc<Shared>,
    /// Of whoever commits, one at a time. Gone when a write failed: what is on the disk is not known then,
    /// and no later write may succeed.
    journal: Mutex<Option<Journal>>,
    /// Where the reserve is, if there is one.
    reserve: Option<Dir>,
    /// Taken on drop.
    carrier: Option<(Sender<Load>, JoinHandle<()>)>,
}

impl Journaled {
    /// Opens the journal in `dir`, where the engine's files are, and goes on from what the engine
    /// lacks.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the journal is, and [`Error::Open`] when it is the engine.
    pub(crate) fn open(dir: &Dir, engine: Box<dyn Engine>) -> Result<Journaled, Error> {
        let mut keeper = Keeper::open(dir);
        let place = place(dir, engine.as_ref(), &keeper)?;
        let known = place.unwrap_or(0);
        let found = Journal::open(dir, known).map_err(|trouble| match trouble {
            Trouble::Sys(err) => Error::from(err),
            Trouble::Damaged(text) => Error::Damaged(text),
        })?;
        if known > 0 && !found.reaches {
            let text = format!("change {known} is gone from its journal, and later ones may be");
            return Err(Error::Damaged(text));
        }
        let logged = keeper.seen();
        if logged > found.journal.last() {
            let text = format!("its journal has lost changes, of which the log has {logged}");
            return Err(Error::Damaged(text));
        }
        keeper.catch_up(found.taken, known);
        let mut young = Changes::default();
        for (key, value) in found.changes.into_iter().flatten() {
            young.insert_mut(key, value);
        }
        let mut given = place;
        if found.in_both {
            let load = Load {
                changes: std::mem::take(&mut young),
                last: found.journal.last(),
                // The segment that is not gone on with is written over at the first turn.
                logged: true,
            };
            keeper.note(load.changes.iter(), load.last, load.logged);
            given = Some(load.last);
            load.into_engine(engine.as_ref())
                .map_err(|reason| Error::Open {
                    path: dir.path().display().to_string(),
                    engine: engine.name(),
                    kind: kind_of_words(&reason),
                    reason,
                })?;
        }
        let memory = Memory {
            young,
            ..Memory::default()
        };
        let shared = Arc::new(Shared {
            engine,
            memory: RwLock::new(memory),
            progress: Mutex::default(),
            moved: Condvar::new(),
        });
        let (sender, loads) = channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("records-carrier".to_owned())
            .spawn(move || {
                // Of one that does not know its place it is not known what a copy would be of.
                if let Some(last) = given {
                    keeper.look(last, theirs.engine.as_ref());
                }
                carry(&theirs, &loads, &mut keeper);
            })
            .map_err(|err| Error::Read(format!("start a thread: {err}")))?;
        Ok(Journaled {
            shared,
            journal: Mutex::new(Some(found.journal)),
            reserve: None,
            carrier: Some((sender, thread)),
        })
    }

    /// The engine is given nothing while the disk has too little room for it, also when the reserve in
    /// `dir` is given up: one that finds the disk full in the middle of a commit is of no use any more. What
    /// the journal has room for is taken before.
    pub(crate) fn with_reserve(mut self, dir: &Dir) -> Journaled {
        self.reserve = Some(dir.clone());
        self
    }

    fn write(&self, changes: &Batch, durably: bool) -> Result<(), String> {
        let mut slot = lock(&self.journal);
        let journal = slot.as_mut().ok_or("an earlier write failed")?;
        if let Err(reason) = self.append(journal, changes, durably) {
            *slot = None;
            return Err(reason);
        }
        let mut memory = self.shared.memory();
        for (key, value) in changes {
            memory.young.insert_mut(key.clone(), value.clone());
        }
        Ok(())
    }

    fn append(&self, journal: &mut Journal, changes: &Batch, durably: bool) -> Result<(), String> {
        let mut frame = journal.pack(changes)?;
        if journal.is_full(&frame) {
            self.turn(journal, true)?;
            // It says which frames before it are on the disk; now all are.
            frame = journal.pack(changes)?;
        }
        journal.append(&frame).map_err(|err| err.to_string())?;
        if durably {
            journal.sync().map_err(|err| err.to_string())?;
        }
        Ok(())
    }

    /// Goes on in the other segment, once the engine has what that held, and lets the engine have the
    /// young changes. With `logged` they are in the log before the next turn.
    fn turn(&self, journal: &mut Journal, logged: bool) -> Result<(), String> {
        self.shared.settled()?;
        let last = journal.last();
        journal.switch().map_err(|err| err.to_string())?;
        let changes = {
            let mut memory = self.shared.memory();
            memory.old = std::mem::take(&mut memory.young);
            memory.turns += 1;
            memory.old.clone()
        };
        lock(&self.shared.progress).busy = true;
        let load = Load {
            changes,
            last,
            logged,
        };
        match &self.carrier {
            Some((sender, _)) if sender.send(load).is_ok() => Ok(()),
            _ => Err("the thread that feeds the engine is gone".to_owned()),
        }
    }

    /// Lets the engine have everything. The segment keeps it as well until it is written over, and the next
    /// opening finds it there, so that nobody has to wait for the log here.
    fn settle(&self) -> Result<(), String> {
        let mut slot = lock(&self.journal);
        let journal = slot.as_mut().ok_or("an earlier write failed")?;
        if !self.shared.seen().young.is_empty() {
            self.turn(journal, false)?;
        }
        self.shared.settled()
    }
}

impl Shared {
    fn memory(&self) -> RwLockWriteGuard<'_, Memory> {
        // What is inside is whole at every moment.
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Memory {
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
        memory.clone()
    }

    fn turns(&self) -> u64 {
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
        memory.turns
    }

    /// Waits until the engine has the old changes.
    fn settled(&self) -> Result<(), String> {
        let progress = lock(&self.progress);
        let waited = self.moved.wait_while(progress, |progress| progress.busy);
        let progress = waited.unwrap_or_else(PoisonError::into_inner);
        match &progress.failed {
            None => Ok(()),
            Some(reason) => Err(reason.clone()),
        }
    }
}

impl Load {
    fn into_engine(self, engine: &dyn Engine) -> Result<(), String> {
        let changes = self.changes.iter();
        let mut batch: Batch = changes.map(|(k, v)| (k.clone(), v.clone())).collect();
        let number = record::seal(TAKEN_OVER, &self.last);
        batch.insert(TAKEN_OVER.to_vec(), Some(number));
        fault::gate("settle", || format!("{} records", batch.len()))
            .map_err(|err| err.to_string())?;
        unpanicked(|| engine.commit(&batch))?
    }
}

/// The body of the thread that feeds the engine.
fn carry(shared: &Shared, loads: &Receiver<Load>, keeper: &mut Keeper) {
    loop {
        let next = match keeper.is_copying() {
            true => loads.recv_timeout(PAUSE),
            false => loads.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(load) => take_over(shared, load, keeper),
            Err(RecvTimeoutError::Timeout) => keeper.go_on(shared.engine.as_ref()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    keeper.end(shared.engine.as_ref());
}

fn take_over(shared: &Shared, load: Load, keeper: &mut Keeper) {
    keeper.note(load.changes.iter(), load.last, load.logged);
    let last = load.last;
    let done = load.into_engine(shared.engine.as_ref());
    let taken = done.is_ok();
    let mut progress = lock(&shared.progress);
    match done {
        Ok(()) => shared.memory().old = Changes::default(),
        // They stay in memory and in the journal, from which the next opening tries again.
        Err(reason) => {
            tracing::error!(%reason, "the engine did not take over what is in the journal");
            progress.failed = Some(reason);
        }
    }
    progress.busy = false;
    shared.moved.notify_all();
    drop(progress);
    if taken {
        keeper.look(last, shared.engine.as_ref());
    }
}

/// The number of the last change that the engine in `dir` has; `None` when it was never given any.
fn place(dir: &Dir, engine: &dyn Engine, keeper: &Keeper) -> Result<Option<u64>, Error> {
    let damaged = |reason: String| Error::Open {
        path: dir.path().display().to_string(),
        engine: engine.name(),
        kind: ErrorKind::DataLoss,
        reason,
    };
    match taken_over(engine) {
        // It is there from the beginning where there is a copy.
        Ok(None) if keeper.has_copy() => {
            Err(damaged("it does not know what it has any more".to_owned()))
        }
        Err(err) if err.kind() == ErrorKind::DataLoss => Err(damaged(err.to_string())),
        other => other,
    }
}

/// The number of the last change that an engine has, as it says itself.
pub(crate) fn taken_over(engine: &dyn Engine) -> Result<Option<u64>, Error> {
    match engine.snapshot()?.get(TAKEN_OVER)? {
        Some(bytes) => record::open(TAKEN_OVER, &bytes).map(Some),
        None => Ok(None),
    }
}

/// What a new database says of itself.
pub(crate) fn beginning() -> Batch {
    Batch::from([(TAKEN_OVER.to_vec(), Some(record::seal(TAKEN_OVER, &0_u64)))])
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine for Journaled {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, Error> {
        loop {
            let memory = self.shared.seen();
            let below = self.shared.engine.snapshot()?;
            // Had young changes become old ones in between, the engine could have them already, and
            // with them changes that are younger than what was seen of the memory.
            if self.shared.turns() == memory.turns {
                return Ok(Box::new(State { memory, below }));
            }
        }
    }

    fn commit(&self, batch: &Batch) -> Result<(), String> {
        self.write(batch, true)
    }

    fn note(&self, batch: &Batch) -> Result<(), String> {
        self.write(batch, false)
    }

    fn full(&self, bytes: u64) -> Option<Error> {
        let dir = self.reserve.as_ref()?;
        let more = lock(&self.journal).as_ref()?.needs(bytes)?;
        // What cannot be known is left to the engine.
        let free = reserve::room(dir).ok()?;
        let needed = reserve::NEEDED_BYTES.saturating_add(more);
        if free < needed {
            return Some(Error::Full { free, needed });
        }
        reserve::keep(dir);
        None
    }

    fn value_bytes_max(&self) -> usize {
        self.shared.engine.value_bytes_max()
    }

    fn key_bytes_max(&self) -> usize {
        self.shared.engine.key_bytes_max()
    }

    fn name(&self) -> &'static str {
        self.shared.engine.name()
    }
}

impl Drop for Journaled {
    fn drop(&mut self) {
        if let Err(reason) = self.settle() {
            tracing::warn!(%reason, "the journal is left to the next opening");
        }
        if let Some((sender, thread)) = self.carrier.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

struct State<'a> {
    memory: Memory,
    below: Box<dyn Snapshot + 'a>,
}

impl State<'_> {
    /// The changes of the keys that begin with `prefix` and come behind `from`.
    fn changed(&self, prefix: &[u8], from: Bound<&[u8]>) -> Over<'_> {
        let mut over = Over::new();
        // The young ones come last, and win.
        for changes in [&self.memory.old, &self.memory.young] {
            let inside = changes
                .range::<[u8], _>((from, Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(prefix));
            over.extend(inside.map(|(key, value)| (key.as_slice(), value.as_deref())));
        }
        over
    }
}

impl Snapshot for State<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let memory = &self.memory;
        match memory.young.get(key).or_else(|| memory.old.get(key)) {
            Some(change) => Ok(change.clone()),
            None => self.below.get(key),
        }
    }

    fn scan(&self, prefix: &[u8]) -> Result<Pairs, Error> {
        let over = self.changed(prefix, Bound::Included(prefix));
        Ok(laid_over(self.below.scan(prefix)?, &over))
    }

    fn scan_after(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Pairs, Error> {
        let over = self.changed(prefix, Bound::Excluded(after));
        // However many of those below are removed above, as many as are asked for are left.
        let below = self.below.scan_after(prefix, after, limit + over.len())?;
        let mut pairs = laid_over(below, &over);
        pairs.truncate(limit);
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests;
