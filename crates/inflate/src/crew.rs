//! Threads that decode ahead of a reader, and what they are asked for.
//!
//! The reader decodes from what it knows, as it would without them. Pieces of the input that it has not
//! come to are decoded by others meanwhile, from where a block seems to begin. When the reader ends a
//! block at the very bit at which one of them began, it takes what that one has made so far, and goes on
//! behind it. So nothing that was guessed wrongly can come out, and nobody waits for anybody: a reader
//! that has caught up with another thread decodes on by itself, and that one begins elsewhere.

use std::{
    collections::VecDeque,
    io::BufRead,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use crate::{
    WINDOW_BYTES,
    ahead::{BEHIND, ReadAhead, Task},
    part::{Key, PARTS_MAX, Part, Parts},
    scout::Scout,
};

/// However little comes of them, no more pieces are decoded as one.
const PIECES_MAX: u64 = 16;
/// More would make more than one thread can look up, prove and hand out, which is some four times what it
/// decodes.
const THREADS_MAX: usize = 8;
/// So many tasks in a row without gain, and no more is guessed for a while.
const MISSES_MAX: u32 = 8;
/// A task without gain is one of which less than this part was taken.
const GAIN: u64 = 16;
/// The first while, in bytes of the input; the next ones are twice as long each, up to the last.
const REST_BYTES: u64 = 16 << 20;
const REST_BYTES_MAX: u64 = 1 << 30;

/// What may be chosen otherwise to test it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// What the input is cut into; and how much of the output a task is to make, which is of some of
    /// these pieces. Of less, much would be searching, and there is no room for more.
    pub(crate) piece_bytes: usize,
    pub(crate) span_bytes: u64,
    /// As much of the input is read before anybody is asked for help: it may be all.
    pub(crate) start_bytes: u64,
    /// What each thread has for its stack.
    pub(crate) stack_bytes: usize,
    /// Whether the reader waits until others have done all they can, however little it is.
    pub(crate) patient: bool,
}

impl Plan {
    pub(crate) const USUAL: Plan = Plan {
        piece_bytes: 64 << 10,
        span_bytes: 3 << 19,
        start_bytes: 1 << 20,
        stack_bytes: 256 << 10,
        patient: false,
    };
}

/// A task, and how far it is, which both sides look at.
pub(crate) struct Order {
    /// Whoever takes it has it: a thread to begin, or the reader to call it off.
    task: Mutex<Option<Task>>,
    /// The bit at which decoding has begun, or one of the two values below.
    start: AtomicU64,
    stop: AtomicBool,
}

const SEARCHING: u64 = u64::MAX;
const NOTHING: u64 = u64::MAX - 1;

impl Order {
    pub(crate) fn begun(&self, start: u64) {
        self.start.store(start, Ordering::Release);
    }

    pub(crate) fn searching(&self) {
        self.begun(SEARCHING);
    }

    pub(crate) fn nothing(&self) {
        self.begun(NOTHING);
    }

    /// Whether nothing of it is wanted any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// An order that has been given.
struct Bet {
    begin: u64,
    end: u64,
    order: Arc<Order>,
    made: Receiver<Part>,
    /// The first that has come, while it is too early for it.
    first: Option<Part>,
}

/// What others have made of what comes next, part by part.
pub(crate) struct Lead {
    bet: Bet,
    pub(crate) part: Part,
    /// How much of the part has been given out.
    given: usize,
    patient: bool,
}

struct Job {
    order: Arc<Order>,
    made: Sender<Part>,
}

/// The threads of one reader. They end with it.
pub(crate) struct Crew {
    plan: Plan,
    /// How many threads there may be.
    most: usize,
    threads: Vec<JoinHandle<()>>,
    jobs: Option<Sender<Job>>,
    queue: Arc<Mutex<Receiver<Job>>>,
    parts: Arc<Parts>,
    bets: VecDeque<Bet>,
    /// The first byte that nobody has been given.
    next: u64,
    misses: u32,
    /// Where in the input to begin, or to begin again.
    wake: u64,
    rest: u64,
}

impl Crew {
    /// With `threads` in all, the caller's included. None is started yet.
    pub(crate) fn new(threads: usize, plan: Plan) -> Crew {
        let most = threads.saturating_sub(1).min(THREADS_MAX);
        let (jobs, queue) = channel();
        Crew {
            plan,
            most,
            threads: Vec::new(),
            jobs: Some(jobs),
            queue: Arc::new(Mutex::new(queue)),
            // For each task that is given away, and for one that the reader hands out.
            parts: Parts::new((2 * most + 1) * PARTS_MAX),
            bets: VecDeque::new(),
            next: 0,
            misses: 0,
            wake: plan.start_bytes,
            rest: REST_BYTES,
        }
    }

    /// Reads ahead and gives pieces away, if that is of use. So far `made` bytes have come out.
    pub(crate) fn feed<R: BufRead>(&mut self, input: &mut ReadAhead<R>, made: u64) {
        // What does not pack is stored, and copying is faster than looking for anything in it.
        let is_stored = made < input.position() + input.position() / 32;
        if self.most == 0 || input.position() < self.wake || is_stored && !self.plan.patient {
            return;
        }
        // As much as the same pieces have made so far.
        let each = made / (input.position() / self.plan.piece_bytes as u64 + 1) + 1;
        let count = (self.plan.span_bytes / each).clamp(1, PIECES_MAX) as usize;
        input.read_ahead((2 * self.most + 1) * count + BEHIND);
        while self.bets.len() < 2 * self.most
            && let Some(task) = input.task(self.next, count)
        {
            self.next = task.end;
            self.give(task);
        }
    }

    fn give(&mut self, task: Task) {
        if self.threads.len() < self.most && self.threads.len() <= self.bets.len() {
            self.start_thread();
        }
        let Some(jobs) = &self.jobs else { return };
        let (begin, end) = (task.begin, task.end);
        let order = Arc::new(Order {
            task: Mutex::new(Some(task)),
            start: AtomicU64::new(SEARCHING),
            stop: AtomicBool::new(false),
        });
        let (sender, made) = channel();
        // If nobody is there to take it, that shows when it is asked for.
        let _ = jobs.send(Job {
            order: Arc::clone(&order),
            made: sender,
        });
        self.bets.push_back(Bet {
            begin,
            end,
            order,
            made,
            first: None,
        });
    }

    fn start_thread(&mut self) {
        let queue = Arc::clone(&self.queue);
        let parts = Arc::clone(&self.parts);
        let started = thread::Builder::new()
            .name("inflate-ahead".to_owned())
            .stack_size(self.plan.stack_bytes)
            .spawn(move || work(&queue, &parts));
        match started {
            Ok(thread) => self.threads.push(thread),
            // It goes on with those that there are, or with none.
            Err(_) => self.most = self.threads.len(),
        }
    }

    /// From which byte of the input on a block's end is of interest.
    pub(crate) fn awaited(&self) -> Option<u64> {
        self.bets.front().map(|bet| bet.begin)
    }

    /// What others have made of the input from the bit `at` on, the reader being there between two
    /// blocks.
    pub(crate) fn arrive(&mut self, at: u64) -> Option<Lead> {
        let patient = self.plan.patient;
        while let Some(bet) = self.bets.front_mut()
            && at >= bet.begin * 8
        {
            if bet.is_for_later(at, patient) {
                return None;
            }
            let mut bet = self.bets.pop_front()?;
            if let Some(part) = bet.take_first(at) {
                return Some(Lead {
                    bet,
                    part,
                    given: 0,
                    patient,
                });
            }
            self.count(false, at / 8);
        }
        None
    }

    /// Takes notice of what was gained by one that is at its end.
    pub(crate) fn settle(&mut self, lead: &Lead) {
        let gained = lead.part.next - lead.part.start / 8;
        let is_gain = gained >= (lead.bet.end - lead.bet.begin) / GAIN;
        self.count(is_gain, lead.part.next);
    }

    /// Takes notice of a task, the reader being at the byte `at` of the input.
    pub(crate) fn count(&mut self, gained: bool, at: u64) {
        if gained {
            self.misses = 0;
            self.rest = REST_BYTES;
            return;
        }
        self.misses += 1;
        if self.misses >= MISSES_MAX && !self.plan.patient {
            self.bets.clear();
            self.misses = 0;
            self.wake = at + self.rest;
            self.rest = (2 * self.rest).min(REST_BYTES_MAX);
        }
    }

    /// How many threads and parts there are that have not ended, and the bytes of the parts that are
    /// free.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize) {
        (Arc::strong_count(&self.parts) - 1, self.parts.bytes())
    }

    /// Ends all threads, for good.
    pub(crate) fn dismiss(&mut self) {
        self.most = 0;
        self.bets.clear();
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // One that broke off has been noticed by what it did not make.
            let _ = thread.join();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.dismiss();
    }
}

impl Bet {
    /// Whether the reader may still come to where this began.
    fn is_for_later(&mut self, at: u64, patient: bool) -> bool {
        if patient && self.first.is_none() {
            self.first = self.made.recv().ok();
        }
        let start = match &self.first {
            Some(part) => part.start,
            None if patient => NOTHING,
            None => self.order.start.load(Ordering::Acquire),
        };
        match start {
            // A thread that has only looked so far may be further on than the reader; but none that
            // has not begun.
            SEARCHING => at < self.end * 8 && lock(&self.order.task).is_none(),
            NOTHING => false,
            start => start > at,
        }
    }

    /// What was made from the bit `at` on, if it was.
    fn take_first(&mut self, at: u64) -> Option<Part> {
        let first = self.first.take();
        first
            .into_iter()
            .chain(self.made.try_iter())
            .find(|part| part.start == at)
    }
}

impl Drop for Bet {
    fn drop(&mut self) {
        lock(&self.order.task).take();
        self.order.stop.store(true, Ordering::Release);
    }
}

impl Lead {
    /// Gives out more of this part.
    pub(crate) fn give(&mut self, key: &Key, out: &mut [u8]) -> usize {
        let n = out.len().min(self.part.length - self.given);
        let from = self.given;
        if self.part.is_clear {
            out[..n].copy_from_slice(&self.part.clear()[from..from + n]);
        } else {
            let cells = &self.part.marked()[WINDOW_BYTES..];
            key.read(&cells[from..from + n], &mut out[..n]);
        }
        self.given += n;
        n
    }

    pub(crate) fn has_given_all(&self) -> bool {
        self.given == self.part.length
    }

    /// Goes on to the next part, if it is there.
    pub(crate) fn advance(&mut self) -> bool {
        let next = if self.patient {
            self.bet.made.recv().ok()
        } else {
            self.bet.made.try_recv().ok()
        };
        match next {
            // What was made from elsewhere is what was made since this turned out wrong.
            Some(part) if part.start == self.part.start => {
                self.part = part;
                self.given = 0;
                true
            }
            _ => false,
        }
    }
}

/// One thread's work: one task after the other, as long as there may be more.
fn work(queue: &Mutex<Receiver<Job>>, parts: &Arc<Parts>) {
    let mut scout = Scout::new();
    loop {
        let Ok(job) = lock(queue).recv() else { return };
        // It may have been called off.
        let task = lock(&job.order.task).take();
        if let Some(task) = task {
            scout.explore(&task, &job.order, parts, &job.made);
        }
    }
}

/// What is locked here is whole whenever a thread may break off.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
