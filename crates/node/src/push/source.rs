//! A stored blob on its way out: read from where the registry has it, and proven to its last byte.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use cairn_content::Blob;
use cairn_registry::{ByteStream, Source};
use cairn_types::{Descriptor, Digest, Hasher};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::{Event, Phase, registries::Pace};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait between the disk and the connection.
const PIECES_WAITING: usize = 2;
/// How far apart the places are from which a proof can go on.
const MARK_BYTES: u64 = 64 << 20;

/// How far a blob has come, for whoever watches.
pub(super) struct Track {
    digest: Digest,
    total: u64,
    host: Arc<str>,
    /// Where steps are told; `None` for what is no layer.
    events: Option<mpsc::UnboundedSender<Event>>,
    done: AtomicU64,
    attempts: AtomicU32,
    ended: AtomicBool,
}

impl Track {
    pub(super) fn new(
        blob: &Descriptor,
        host: &Arc<str>,
        events: Option<mpsc::UnboundedSender<Event>>,
    ) -> Track {
        Track {
            digest: blob.digest.clone(),
            total: blob.size,
            host: Arc::clone(host),
            events,
            done: AtomicU64::new(0),
            attempts: AtomicU32::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Requests that carried it.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Bytes that went while it is under way; `None` before, after, and of what is no layer.
    pub(super) fn moving(&self) -> Option<u64> {
        let moving = self.attempts() > 0 && !self.ended.load(Ordering::Relaxed);
        (moving && self.events.is_some()).then(|| self.done.load(Ordering::Relaxed))
    }

    pub(super) fn step(&self, phase: Phase, done: u64) -> Event {
        Event::Layer {
            digest: self.digest.clone(),
            phase,
            done,
            total: self.total,
        }
    }

    /// It will be sent.
    pub(super) fn wait(&self) {
        self.tell(self.step(Phase::Waiting, 0));
    }

    /// Whether it is this blob's.
    pub(super) fn is_of(&self, digest: &Digest) -> bool {
        self.digest == *digest
    }

    /// It is complete, and how it became so.
    pub(super) fn end(&self, phase: Phase) {
        self.ended.store(true, Ordering::Relaxed);
        self.tell(self.step(phase, self.total));
    }

    fn asked(&self, at: u64) {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        self.done.store(at, Ordering::Relaxed);
        self.tell(Event::Asked {
            digest: self.digest.clone(),
            host: self.host.to_string(),
            attempt,
        });
        if at > 0 {
            self.tell(Event::Resumed {
                digest: self.digest.clone(),
                at,
            });
        }
        self.tell(self.step(Phase::Push, at));
    }

    fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            // Nobody listens any more to what is given up.
            let _ = events.send(event);
        }
    }
}

/// What is known of the bytes so far. A proof needs every byte from the first on; one that begins anew
/// after a break goes on from the last mark before it.
struct Proof {
    marks: Mutex<Vec<(u64, Hasher)>>,
    /// Why it failed.
    damage: Mutex<Option<String>>,
}

/// A blob of the store.
pub(super) struct StoredBlob {
    blob: Arc<Blob>,
    proof: Arc<Proof>,
    pace: Pace,
    track: Arc<Track>,
}

impl StoredBlob {
    pub(super) fn new(blob: Blob, pace: &Pace, track: &Arc<Track>) -> StoredBlob {
        StoredBlob {
            blob: Arc::new(blob),
            proof: Arc::new(Proof {
                marks: Mutex::default(),
                damage: Mutex::default(),
            }),
            pace: pace.clone(),
            track: Arc::clone(track),
        }
    }

    /// What is wrong with it, if that came out while it was read.
    pub(super) fn damage(&self) -> Option<String> {
        let damage = self.proof.damage.lock();
        damage.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Source for StoredBlob {
    fn read(&self, offset: u64) -> ByteStream {
        self.track.asked(offset);
        let (to, pieces) = mpsc::channel(PIECES_WAITING);
        let reading = Reading {
            blob: Arc::clone(&self.blob),
            proof: Arc::clone(&self.proof),
            pace: self.pace.clone(),
        };
        tokio::task::spawn_blocking(move || {
            if let Err(err) = reading.run(offset, &to) {
                let _ = to.blocking_send(Err(err));
            }
        });
        let track = Arc::clone(&self.track);
        Box::pin(ReceiverStream::new(pieces).map(move |piece| {
            let count = piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
            track.done.fetch_add(count, Ordering::Relaxed);
            piece
        }))
    }
}

/// One reading, in a thread that may wait for the disk.
struct Reading {
    blob: Arc<Blob>,
    proof: Arc<Proof>,
    pace: Pace,
}

impl Reading {
    /// Hands on the bytes from `offset` on; the last of them only when all have proven to be right.
    fn run(&self, offset: u64, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        let size = self.blob.size();
        let (mut at, mut hasher) = self.proof.before(offset, self.blob.digest());
        let mut buffer = vec![0; self.pace.piece(PIECE_BYTES)];
        while at < size && !to.is_closed() {
            let most =
                usize::try_from(size - at).map_or(buffer.len(), |left| left.min(buffer.len()));
            let got = match self.blob.read_at(&mut buffer[..most], at) {
                Ok(0) => return Err(self.damaged(&format!("it ends after {at} bytes of {size}"))),
                Ok(got) => got,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(err),
            };
            hasher.update(&buffer[..got]);
            let skipped = usize::try_from(offset.saturating_sub(at)).map_or(got, |n| n.min(got));
            at += got as u64;
            if at == size {
                let actual = hasher.clone().finish();
                if actual != *self.blob.digest() {
                    return Err(self.damaged(&format!("its bytes hash to {actual}")));
                }
            }
            self.proof.mark(at, &hasher);
            if skipped == got {
                continue;
            }
            if !self.pace.take_here(got - skipped, &|| !to.is_closed()) {
                break;
            }
            let piece = Bytes::copy_from_slice(&buffer[skipped..got]);
            if to.blocking_send(Ok(piece)).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn damaged(&self, cause: &str) -> io::Error {
        let mut damage = self
            .proof
            .damage
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *damage = Some(cause.to_owned());
        let text = format!("blob {} is damaged: {cause}", self.blob.digest());
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

impl Proof {
    /// The last place at or before `offset` from which to go on, and what is known there.
    fn before(&self, offset: u64, digest: &Digest) -> (u64, Hasher) {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let last = marks.iter().rev().find(|(at, _)| *at <= offset);
        last.map_or_else(
            || (0, Hasher::new(digest.algorithm())),
            |(at, hasher)| (*at, hasher.clone()),
        )
    }

    fn mark(&self, at: u64, hasher: &Hasher) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if at >= marks.last().map_or(0, |(last, _)| *last) + MARK_BYTES {
            marks.push((at, hasher.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proof goes on from a mark as if every byte had been read at once.
    #[test]
    fn a_proof_goes_on_from_its_last_mark() {
        let digest = Digest::sha256(b"");
        let proof = Proof {
            marks: Mutex::default(),
            damage: Mutex::default(),
        };
        let mut hasher = Hasher::new(digest.algorithm());
        for i in 1..=200_u64 {
            hasher.update(&i.to_be_bytes());
            proof.mark(i << 20, &hasher);
        }
        for (offset, mark) in [
            (0, 0),
            (64 << 20, 64),
            ((128 << 20) - 1, 64),
            (200 << 20, 192),
        ] {
            let (at, mut from) = proof.before(offset, &digest);
            assert_eq!(at, mark << 20);
            for i in mark + 1..=200_u64 {
                from.update(&i.to_be_bytes());
            }
            assert_eq!(from.finish(), hasher.clone().finish());
        }
    }
}
