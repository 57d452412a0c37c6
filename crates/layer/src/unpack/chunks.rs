//! The applying thread's end of the stream.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
    time::{Duration, Instant},
};

use cairn_types::Hasher;

use super::{
    Full,
    buffers::{Coming, Lent},
    hashing::Hashed,
};
use crate::Error;

/// The uncompressed stream, hashed as it arrives if nobody else does.
pub(super) struct Chunks<'c> {
    full: Receiver<Full>,
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
}

impl Coming for Chunks<'_> {
    fn next(&mut self) -> io::Result<Option<Arc<Lent>>> {
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
                Ok(Some(buffer))
            }
            Ok(Err(cause)) => {
                self.so_far.failed = Some(cause);
                Err(io::Error::other("the layer could not be read"))
            }
            Err(_) => Ok(None),
        }
    }
}
