//! The applying thread's end of the stream.

use std::{
    io::{self, BufRead, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
    time::{Duration, Instant},
};

use cairn_types::Hasher;

use super::{Full, buffers::Lent, hashing::Hashed};
use crate::Error;

/// The uncompressed stream as `BufRead`, hashed as it arrives if nobody else does.
pub(super) struct Chunks<'c> {
    full: Receiver<Full>,
    /// The buffer in hand, and how much of it is consumed.
    buffer: Option<Arc<Lent>>,
    consumed: usize,
    ended: bool,
    hasher: Option<Hasher>,
    hashing: Duration,
    /// For how long, in nanoseconds, there was no buffer to inflate into.
    stalled: &'c AtomicU64,
    so_far: Consumed,
}

/// What the applying thread learned from the stream.
#[derive(Default)]
pub(super) struct Consumed {
    pub(super) size: u64,
    pub(super) failed: Option<Error>,
    /// If it was hashed here.
    pub(super) hashed: Option<Hashed>,
    pub(super) starved: Duration,
    pub(super) behind: Duration,
}

impl Chunks<'_> {
    pub(super) fn new(
        full: Receiver<Full>,
        hasher: Option<Hasher>,
        stalled: &AtomicU64,
    ) -> Chunks<'_> {
        Chunks {
            full,
            buffer: None,
            consumed: 0,
            ended: false,
            hasher,
            hashing: Duration::ZERO,
            stalled,
            so_far: Consumed::default(),
        }
    }

    pub(super) fn finish(self) -> Consumed {
        let hashed = self.hasher.map(|hasher| Hashed {
            digest: hasher.finish(),
            busy: self.hashing,
        });
        Consumed {
            hashed,
            ..self.so_far
        }
    }

    fn next_buffer(&mut self) -> io::Result<()> {
        // It goes back before another is waited for.
        self.buffer = None;
        self.consumed = 0;
        let (began, stalled) = (Instant::now(), self.stalled.load(Ordering::Relaxed));
        let received = self.full.recv();
        let starved = began.elapsed();
        let stalled = self.stalled.load(Ordering::Relaxed).saturating_sub(stalled);
        self.so_far.starved += starved;
        self.so_far.behind += Duration::from_nanos(stalled).min(starved);
        match received {
            Ok(Ok(buffer)) => {
                if let Some(hasher) = &mut self.hasher {
                    let began = Instant::now();
                    hasher.update(&buffer);
                    self.hashing += began.elapsed();
                }
                self.so_far.size += buffer.len() as u64;
                self.buffer = Some(buffer);
                Ok(())
            }
            Ok(Err(cause)) => {
                self.ended = true;
                self.so_far.failed = Some(cause);
                Err(io::Error::other("the layer could not be read"))
            }
            Err(_) => {
                self.ended = true;
                Ok(())
            }
        }
    }

    fn left(&self) -> &[u8] {
        match &self.buffer {
            Some(buffer) => &buffer[self.consumed..],
            None => &[],
        }
    }
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Chunks<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.ended && self.left().is_empty() {
            self.next_buffer()?;
        }
        Ok(self.left())
    }

    fn consume(&mut self, n: usize) {
        self.consumed += n.min(self.left().len());
    }
}
