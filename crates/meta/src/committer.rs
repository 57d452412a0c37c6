//! Runs transactions one after the other, and makes each group of them durable by one commit.
//!
//! Transactions that arrive while a commit is under way wait together and share the next one, so
//! sixteen clients pay for one flush, not sixteen; and since never two run at a time, none needs a lock
//! on a record. Whoever comes first leads: runs his own and those that wait, commits, and lets the
//! first of those who came meanwhile lead on. A thread for it would do the same with two changes of
//! threads for each lone change, which cost as much as the flush.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use cairn_sys::fault;

use crate::{
    Error, ReadOnly, Tx,
    engine::{Batch, Engine, bytes_of, unpanicked},
    store::Inside,
    watch::Watches,
};

/// Most transactions in one commit: bounds how long the first one waits.
const GROUP_MAX: usize = 1024;

/// Changes that room is looked for at once: more than most groups have, so that one look is enough.
const LOOKED_BYTES: u64 = 64 << 10;

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That its changes are on the disk.
    OnDisk,
    /// That others can see them.
    Seen,
}

/// What a finished closure leaves: its changes, and how to answer its caller once they are made.
struct Outcome {
    changes: Batch,
    answer: Box<dyn FnOnce(Result<(), Error>) + Send>,
}

impl Outcome {
    fn failed<T: Send + 'static, E: Send + 'static>(
        sender: SyncSender<Word<T, E>>,
        err: E,
    ) -> Outcome {
        let answer = Box::new(move |_| {
            let _ = sender.send(Word::Done(Ok(Err(err))));
        });
        Outcome {
            changes: Batch::new(),
            answer,
        }
    }
}

/// A transaction that waits for its turn.
pub(crate) struct Job {
    run: Box<Run>,
    wanted: Wanted,
    /// Asks its caller to lead.
    lead: Box<dyn Fn() + Send>,
}

/// Takes the state to work on, or why there is none.
type Run = dyn FnOnce(Result<Tx<'_>, Error>) -> Outcome + Send;

/// What comes back: the closure's own result, an error of the commit, or the closure's panic.
pub(crate) type Answer<T, E> = Result<Result<T, E>, Box<dyn Any + Send>>;

/// What a caller hears while it waits.
pub(crate) enum Word<T, E> {
    /// Its turn has come to lead.
    Lead,
    /// Its transaction is over.
    Done(Answer<T, E>),
}

impl Job {
    /// Wraps a closure; the receiver gets exactly one answer, after the commit.
    pub(crate) fn new<T, E, F>(closure: F, wanted: Wanted) -> (Job, Receiver<Word<T, E>>)
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        // Room for both words, so that nobody waits for whom he tells.
        let (sender, receiver) = sync_channel(2);
        let leads = sender.clone();
        let lead = Box::new(move || {
            let _ = leads.send(Word::Lead);
        });
        let run = move |looked: Result<Tx<'_>, Error>| {
            let mut tx = match looked {
                Ok(tx) => tx,
                Err(err) => return Outcome::failed(sender, E::from(err)),
            };
            // A panic belongs to the caller that brought the closure, not to everybody's thread.
            let result = catch_unwind(AssertUnwindSafe(|| closure(&mut tx)));
            let changes = match &result {
                Ok(Ok(_)) => std::mem::take(&mut tx.own),
                _ => Batch::new(),
            };
            let answer = Box::new(move |committed: Result<(), Error>| {
                let _ = sender.send(Word::Done(match (result, committed) {
                    (Ok(_), Err(err)) => Ok(Err(E::from(err))),
                    (other, _) => other,
                }));
            });
            Outcome { changes, answer }
        };
        let run = Box::new(run);
        (Job { run, wanted, lead }, receiver)
    }
}

/// A group that was made durable.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// Transactions in it, those that changed nothing aside.
    pub transactions: usize,
    /// How long the engine took.
    pub took: Duration,
}

/// What the transactions tell the others.
#[derive(Default)]
pub(crate) struct Told {
    /// Set once, by the commit that failed.
    pub(crate) broken: OnceLock<ReadOnly>,
    /// Called with every commit, by whoever leads.
    pub(crate) observer: OnceLock<Box<dyn Fn(Committed) + Send + Sync>>,
    /// Told of what changes.
    pub(crate) watches: Arc<Watches>,
}

/// The transactions of one store.
pub(crate) struct Committer {
    engine: Arc<dyn Engine>,
    told: Arc<Told>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// Somebody leads, or has been asked to.
    led: bool,
}

impl Committer {
    pub(crate) fn new(engine: Arc<dyn Engine>, told: Arc<Told>) -> Committer {
        Committer {
            engine,
            told,
            queue: Mutex::default(),
        }
    }

    /// Runs a closure as one transaction, and others that wait, if it is this caller's turn; `None` when
    /// no answer came.
    pub(crate) fn run<T, E, F>(&self, closure: F, wanted: Wanted) -> Option<Answer<T, E>>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (job, words) = Job::new(closure, wanted);
        let mut queue = self.queue();
        queue.waiting.push_back(job);
        let first = !std::mem::replace(&mut queue.led, true);
        drop(queue);
        if first {
            self.lead();
        }
        loop {
            match words.recv() {
                Ok(Word::Lead) => self.lead(),
                Ok(Word::Done(answer)) => return Some(answer),
                Err(_) => return None,
            }
        }
    }

    /// Runs all that wait as one group. A transaction that asks for another one would wait for itself.
    fn lead(&self) {
        let _inside = Inside::enter();
        let _next = Next(self);
        let jobs = {
            let mut queue = self.queue();
            let count = queue.waiting.len().min(GROUP_MAX);
            queue.waiting.drain(..count).collect()
        };
        commit_group(self.engine.as_ref(), jobs, &self.told);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Whole at every moment.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the next one lead when it is dropped, through a panic too.
struct Next<'c>(&'c Committer);

impl Drop for Next<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        match queue.waiting.front() {
            // It is still there when its caller leads, and he waits for nothing but this.
            Some(first) => (first.lead)(),
            None => queue.led = false,
        }
    }
}

fn commit_group(engine: &dyn Engine, jobs: Vec<Job>, told: &Told) {
    let mut group = Batch::new();
    let mut transactions = 0;
    let mut wanted = Wanted::Seen;
    let mut answers = Vec::with_capacity(jobs.len());
    let mut room = Room::looked_for(engine);
    match engine.snapshot() {
        Ok(snapshot) => {
            for job in jobs {
                let tx = Tx {
                    engine,
                    snapshot: snapshot.as_ref(),
                    group: &group,
                    own: Batch::new(),
                };
                let saw_others = !group.is_empty();
                let outcome = (job.run)(Ok(tx));
                let wrote = !outcome.changes.is_empty();
                let refused = match told.broken.get() {
                    _ if !wrote => None,
                    Some(broken) => Some(Error::ReadOnly(broken.clone())),
                    None => room.refuses(engine, &outcome.changes),
                };
                if let Some(err) = refused {
                    (outcome.answer)(Err(err));
                    continue;
                }
                told.watches.tell(&outcome.changes);
                transactions += usize::from(wrote);
                if wrote && job.wanted == Wanted::OnDisk {
                    wanted = Wanted::OnDisk;
                }
                group.extend(outcome.changes);
                // Whatever a transaction found, even its own refusal, may rest on changes before it
                // that are not on the disk yet; only one that saw none of them and made none can be
                // answered whatever comes of the commit.
                answers.push((outcome.answer, saw_others || wrote));
            }
        }
        Err(err) => {
            tracing::error!(%err, "cannot read records");
            for job in jobs {
                ((job.run)(Err(err.clone())).answer)(Ok(()));
            }
            return;
        }
    }
    let began = Instant::now();
    let committed = commit(engine, &group, wanted, told);
    if let (Ok(()), Some(observer)) = (&committed, told.observer.get())
        && transactions > 0
    {
        observer(Committed {
            transactions,
            took: began.elapsed(),
        });
    }
    for (answer, depends) in answers {
        answer(if depends { committed.clone() } else { Ok(()) });
    }
}

/// What of the disk's room a group has taken.
struct Room {
    taken: u64,
    /// Changes that there is room for, or is not.
    looked: u64,
    full: Option<Error>,
}

impl Room {
    fn looked_for(engine: &dyn Engine) -> Room {
        Room {
            taken: 0,
            looked: LOOKED_BYTES,
            full: engine.full(LOOKED_BYTES),
        }
    }

    /// Why there is no room for these changes, too; else they have it. Where the disk is full for the long
    /// ones of one transaction, those of the others are made all the same.
    fn refuses(&mut self, engine: &dyn Engine, changes: &Batch) -> Option<Error> {
        let taken = self.taken.saturating_add(bytes_of(changes));
        if taken > self.looked {
            if let Some(full) = engine.full(taken) {
                return Some(full);
            }
            (self.looked, self.full) = (taken, None);
        }
        if self.full.is_none() {
            self.taken = taken;
        }
        self.full.clone()
    }
}

/// A failed commit leaves the disk in an unknown state; trying again could succeed without having
/// written anything, so no later one is tried: once `broken` is set, no group has changes.
fn commit(engine: &dyn Engine, group: &Batch, wanted: Wanted, told: &Told) -> Result<(), Error> {
    if group.is_empty() {
        return Ok(());
    }
    let gate = fault::gate("commit", || format!("{} records", group.len()));
    let result = gate.map_err(|err| err.to_string()).and_then(|()| {
        unpanicked(|| match wanted {
            Wanted::OnDisk => engine.commit(group),
            Wanted::Seen => engine.note(group),
        })?
    });
    result.map_err(|reason| {
        let broken = ReadOnly::now(format!("writing records failed: {reason}"));
        tracing::error!("{broken}");
        Error::ReadOnly(told.broken.get_or_init(|| broken).clone())
    })
}

#[cfg(test)]
mod tests;
