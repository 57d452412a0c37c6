//! The source read ahead of inflating by a thread of its own.
//!
//! What a source costs beside waiting (storing and hashing what comes, decrypting it) then takes
//! nothing from inflating, and what it makes one wait for is evened out.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::Scope,
    time::Instant,
};

use super::{
    buffers::{Coming, Lent, Pool, Stream},
    nanos,
    threads::{self, Thread},
};

/// As much as is asked of the source at once.
const BUFFER_BYTES: usize = 256 << 10;
/// How many of them there are.
const BUFFERS: usize = 8;

/// What comes from the source.
enum Packed {
    Bytes(Lent),
    End,
    Failed(io::Error),
}

/// The source's bytes as they have been read.
pub(super) struct Ahead<'t> {
    full: Receiver<Packed>,
    queued: Arc<AtomicUsize>,
    waited: &'t AtomicU64,
}

/// Starts reading `source` to its end. Whoever drops what is returned is asked nothing more of the
/// source than what is being read then. How long he waits for bytes is added to `waited`, in nanoseconds.
/// Where no thread can be started the source comes back unread.
pub(super) fn start<'scope, 't, R: Read + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    stack_bytes: usize,
    source: R,
    waited: &'t AtomicU64,
) -> Result<(Stream<Ahead<'t>>, Thread<'scope, ()>), R> {
    let (full_tx, full) = channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&queued);
    let read = move |source| read_all(source, &full_tx, &counted);
    match threads::start(scope, ("layer-read", stack_bytes), source, read) {
        Ok(thread) => {
            let ahead = Ahead {
                full,
                queued,
                waited,
            };
            Ok((Stream::new(ahead), thread))
        }
        Err((_, source)) => Err(source),
    }
}

fn read_all<R: Read>(mut source: R, full: &Sender<Packed>, queued: &AtomicUsize) {
    let pool = Pool::new(BUFFERS, BUFFER_BYTES);
    while let Some(mut buffer) = pool.take() {
        let last = fill(&mut source, &mut buffer, queued);
        if !buffer.is_empty() {
            queued.fetch_add(1, Ordering::Relaxed);
            if full.send(Packed::Bytes(buffer)).is_err() {
                return;
            }
        }
        if let Some(last) = last {
            // Nobody listening wants no more of it.
            let _ = full.send(last);
            return;
        }
    }
}

/// Fills `buffer` for as long as there is enough to inflate without it: a connection gives little at a
/// time, and as many reads as there are buffers would not be far ahead. Returns what ended the source.
fn fill<R: Read>(source: &mut R, buffer: &mut Lent, queued: &AtomicUsize) -> Option<Packed> {
    while !buffer.space().is_empty() {
        match source.read(buffer.space()) {
            Ok(0) => return Some(Packed::End),
            Ok(n) => buffer.add(n),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Some(Packed::Failed(err)),
        }
        if queued.load(Ordering::Relaxed) == 0 && !buffer.is_empty() {
            break;
        }
    }
    None
}

impl Coming for Ahead<'_> {
    fn next(&mut self) -> io::Result<Option<Arc<Lent>>> {
        let began = Instant::now();
        let received = self.full.recv();
        self.waited.fetch_add(nanos(began), Ordering::Relaxed);
        match received {
            Ok(Packed::Bytes(buffer)) => {
                self.queued.fetch_sub(1, Ordering::Relaxed);
                Ok(Some(Arc::new(buffer)))
            }
            Ok(Packed::End) => Ok(None),
            Ok(Packed::Failed(err)) => Err(err),
            // An end would have been said. Why there is none is known when the thread is joined.
            Err(_) => Err(io::Error::other("the reader broke off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Condvar, sync::Mutex, thread};

    use super::{
        super::threads::{STACK_BYTES, joined},
        *,
    };

    fn started<T, R>(started: Result<T, R>) -> T {
        started.ok().expect("a thread")
    }

    /// Gives `left` bytes, at most `piece` at a time, and counts what it gave.
    struct Given<'c> {
        left: usize,
        piece: usize,
        count: &'c Count,
    }

    #[derive(Default)]
    struct Count {
        given: Mutex<usize>,
        changed: Condvar,
    }

    impl Count {
        fn given(&self) -> usize {
            *self.given.lock().expect("lock")
        }

        fn wait_for(&self, bytes: usize) {
            let given = self.given.lock().expect("lock");
            let enough = self.changed.wait_while(given, |given| *given < bytes);
            drop(enough.expect("lock"));
        }
    }

    impl Read for Given<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = out.len().min(self.left).min(self.piece);
            out[..n].fill(7);
            self.left -= n;
            *self.count.given.lock().expect("lock") += n;
            self.count.changed.notify_all();
            Ok(n)
        }
    }

    const ALL: usize = BUFFERS * BUFFER_BYTES;

    #[test]
    fn it_is_as_far_ahead_as_there_are_buffers_and_no_further() {
        for piece in [1000, BUFFER_BYTES] {
            let (count, waited) = (Count::default(), AtomicU64::new(0));
            let (left, mut most) = (4 * ALL, 0);
            thread::scope(|scope| {
                let source = Given {
                    left,
                    piece,
                    count: &count,
                };
                let (mut ahead, thread) = started(start(scope, STACK_BYTES, source, &waited));
                // The first piece was waited for and is a buffer of its own.
                count.wait_for(ALL - BUFFER_BYTES + piece);
                let (mut taken, mut out) = (0, vec![0; 10_000]);
                loop {
                    most = most.max(count.given() - taken);
                    let n = ahead.read(&mut out).expect("read");
                    taken += n;
                    if n == 0 {
                        break;
                    }
                }
                assert_eq!(taken, left);
                assert_eq!(ahead.read(&mut out).expect("still the end"), 0);
                joined(thread).expect("no panic");
            });
            assert!(most <= ALL, "{most} bytes ahead by {piece}");
        }
    }

    #[test]
    fn one_who_is_not_wanted_any_more_ends() {
        let (count, waited) = (Count::default(), AtomicU64::new(0));
        thread::scope(|scope| {
            let source = Given {
                left: usize::MAX,
                piece: usize::MAX,
                count: &count,
            };
            let (mut ahead, thread) = started(start(scope, STACK_BYTES, source, &waited));
            count.wait_for(ALL);
            assert_eq!(ahead.read(&mut [0; 10]).expect("read"), 10);
            drop(ahead);
            joined(thread).expect("no panic");
        });
        // What was free again, and the one that was being filled.
        assert!(count.given() <= 2 * ALL + BUFFER_BYTES);
    }
}
