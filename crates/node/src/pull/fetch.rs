//! The bytes of a blob, from a registry to a thread that unpacks them.
//!
//! A task asks for the bytes and hands them on by a channel of a few megabytes; a thread reads them. When
//! the thread is mostly waiting, because one connection is slow, the task has the parts that come next
//! fetched by other connections, and hands them on in their order.

use std::{
    collections::VecDeque,
    io::{self, Read},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use cairn_registry::{Blob, Client, Error};
use cairn_types::Descriptor;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

use super::places::{Limits, Meter, Taken};

/// Bytes that wait to be read.
const AHEAD_BYTES: u32 = 4 << 20;
/// Pieces that wait: none is larger than a few hundred kilobytes, most are far smaller.
const AHEAD_PIECES: usize = 1024;
/// How long a reader with nothing to read does not look whether it is still wanted. Bytes wake it at once.
const BEAT: Duration = Duration::from_millis(100);
/// Bytes of a part. All that are under way are in memory.
const PART_BYTES: u64 = 4 << 20;
/// Parts of one blob that are under way at once.
const PARTS_MAX: usize = 4;
/// A blob of which less is left is not worth another connection.
const WIDE_BYTES_MIN: u64 = 4 * PART_BYTES;
/// For so long a connection is watched before it counts as slow.
const WATCHED: Duration = Duration::from_millis(300);

/// What is told of a blob's way.
pub(crate) trait Watch: Send + Sync {
    /// Another request went to a host.
    fn asked(&self, host: &str, attempt: u32);
    /// What broke goes on from where it was.
    fn resumed(&self, at: u64);
    /// So many bytes came.
    fn came(&self, bytes: usize);
}

/// Begins to fetch a blob from an offset on.
pub(crate) fn fetch(
    runtime: &Handle,
    client: Client,
    descriptor: Descriptor,
    from: u64,
    limits: Limits,
    watch: Arc<dyn Watch>,
) -> Incoming {
    let (mut out, ahead) = ahead();
    let task = runtime.spawn(async move {
        let mut fetch = Fetch {
            client,
            at: from,
            next: from,
            descriptor,
            limits,
            watch,
            attempts: 0,
        };
        if let Err(err) = fetch.run(&mut out).await {
            let _ = out.send.send(Err(err)).await;
        }
    });
    Incoming {
        runtime: runtime.clone(),
        ahead,
        rest: Bytes::new(),
        task,
    }
}

/// A blob as it comes. Reads fail with [`io::ErrorKind::WouldBlock`] now and then when nothing comes, so
/// that the reader can look whether it is still wanted. Dropped, its requests end.
pub(crate) struct Incoming {
    runtime: Handle,
    ahead: Ahead,
    rest: Bytes,
    task: JoinHandle<()>,
}

impl Incoming {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let ahead = &mut self.ahead;
        let next = match ahead.pieces.try_recv() {
            Ok(next) => Some(next),
            Err(mpsc::error::TryRecvError::Disconnected) => None,
            Err(mpsc::error::TryRecvError::Empty) => {
                let next = async { tokio::time::timeout(BEAT, ahead.pieces.recv()).await };
                let next = self.runtime.block_on(next);
                next.map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?
            }
        };
        let piece = next.transpose().map_err(io::Error::other)?;
        if let Some(piece) = &piece {
            ahead.read(piece);
        }
        Ok(piece)
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.next()? {
                Some(piece) => self.rest = piece,
                None => return Ok(0),
            }
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A way for pieces that holds [`AHEAD_BYTES`].
fn ahead() -> (Out, Ahead) {
    let (send, pieces) = mpsc::channel(AHEAD_PIECES);
    let room = Arc::new(Semaphore::new(AHEAD_BYTES as usize));
    let out = Out {
        send,
        room: Arc::clone(&room),
        starved: Starved::new(),
    };
    (out, Ahead { pieces, room })
}

/// Pieces that were handed on, and the room that they take.
struct Ahead {
    pieces: mpsc::Receiver<Result<Bytes, Error>>,
    room: Arc<Semaphore>,
}

impl Ahead {
    /// Gives back the room of a piece.
    fn read(&self, piece: &Bytes) {
        self.room.add_permits(room_of(piece) as usize);
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// A piece that is larger than all room takes all of it.
fn room_of(piece: &Bytes) -> u32 {
    u32::try_from(piece.len()).map_or(AHEAD_BYTES, |bytes| bytes.min(AHEAD_BYTES))
}

/// Where the pieces go.
struct Out {
    send: mpsc::Sender<Result<Bytes, Error>>,
    room: Arc<Semaphore>,
    starved: Starved,
}

impl Out {
    /// Hands a piece on, and waits while too much is unread; `false` when nobody reads any more.
    async fn hand(&mut self, piece: Bytes) -> bool {
        let since = Instant::now();
        let Ok(room) = self.room.acquire_many(room_of(&piece)).await else {
            return false;
        };
        // It is given back by whoever reads.
        room.forget();
        let sent = self.send.send(Ok(piece)).await.is_ok();
        self.starved.handing(since.elapsed());
        sent
    }
}

/// Whether the reader waits for the connection, or the connection for the reader.
struct Starved {
    since: Instant,
    handing: Duration,
}

impl Starved {
    fn new() -> Starved {
        Starved {
            since: Instant::now(),
            handing: Duration::ZERO,
        }
    }

    fn handing(&mut self, time: Duration) {
        self.handing += time;
    }

    /// Whether nearly all time of the last while went into waiting for bytes.
    fn is_so(&mut self) -> bool {
        let passed = self.since.elapsed();
        if passed < WATCHED {
            return false;
        }
        let starved = self.handing < passed / 5;
        *self = Starved::new();
        starved
    }
}

/// A part that another connection fetches. It keeps its place until it is handed on: what it has fetched
/// is in memory until then. Dropped, it ends.
struct Part {
    task: JoinHandle<Result<Vec<Bytes>, Error>>,
    _taken: Arc<Taken>,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Parts under way, in order and without gaps.
#[derive(Default)]
struct Parts {
    queue: VecDeque<Part>,
    given_up: bool,
}

impl Parts {
    fn has_first(&self) -> bool {
        self.queue
            .front()
            .is_some_and(|first| first.task.is_finished())
    }

    /// Waits for the first. Before another connection is given up for parts, a host must have shown that it
    /// sends any: one that does not ends them all.
    async fn first_came(&mut self) -> bool {
        let Some(first) = self.queue.front_mut() else {
            return false;
        };
        if let Ok(Ok(pieces)) = (&mut first.task).await {
            first.task = tokio::spawn(std::future::ready(Ok(pieces)));
            return true;
        }
        self.given_up = true;
        false
    }

    fn is_given_up(&self) -> bool {
        self.given_up
    }
}

struct Fetch {
    client: Client,
    descriptor: Descriptor,
    /// The next byte to hand on.
    at: u64,
    /// The first byte that nobody fetches yet, as long as there are parts.
    next: u64,
    limits: Limits,
    watch: Arc<dyn Watch>,
    attempts: u32,
}

impl Fetch {
    async fn run(&mut self, out: &mut Out) -> Result<(), Error> {
        let taken = Arc::new(self.limits.place().await);
        let mut may_part = true;
        while let Some(parts) = self.alone(out, may_part, &taken).await? {
            if self.together(parts, out, &taken).await? {
                break;
            }
            // Parts are not to be had, or not to be had from everybody.
            may_part = false;
        }
        Ok(())
    }

    /// By one connection, until the whole blob has come, or nobody reads it any more, or what comes next
    /// is there as parts.
    async fn alone(
        &mut self,
        out: &mut Out,
        mut may_part: bool,
        taken: &Taken,
    ) -> Result<Option<Parts>, Error> {
        let mut meter = Meter::default();
        let mut blob = self.client.blob(&self.descriptor, self.at);
        let mut asked = 0;
        let mut parts = Parts::default();
        let mut shown = false;
        let mut end = self.descriptor.size;
        // What came beyond the place where the parts begin.
        let mut beyond = Bytes::new();
        loop {
            if !shown && (self.at == end || parts.has_first()) {
                shown = parts.first_came().await;
            }
            if !shown && parts.is_given_up() {
                (parts, may_part, end) = (Parts::default(), false, self.descriptor.size);
                if !self.hand(std::mem::take(&mut beyond), out).await {
                    return Ok(None);
                }
            }
            if shown && self.at == end {
                return Ok(Some(parts));
            }
            if self.at == self.descriptor.size {
                return Ok(None);
            }
            let Some(mut piece) = meter.chunk(&mut blob, taken).await? else {
                return Ok(None);
            };
            let more = blob.asked() - asked;
            if more > 0 {
                let again = asked > 0;
                asked += more;
                self.attempts += more;
                self.watch
                    .asked(blob.host().unwrap_or_default(), self.attempts);
                if again && self.at > 0 {
                    self.watch.resumed(self.at);
                }
            }
            self.watch.came(piece.len());
            let wanted = usize::try_from(end - self.at).unwrap_or(usize::MAX);
            if piece.len() > wanted {
                beyond = piece.split_off(wanted);
            }
            let paced = Instant::now();
            self.limits.pace(piece.len(), taken).await;
            // A limit of ours is nothing that more connections help against.
            out.starved.handing(paced.elapsed());
            if !self.hand(piece, out).await {
                return Ok(None);
            }
            if may_part && parts.queue.is_empty() && out.starved.is_so() {
                self.next = self.at + 2 * PART_BYTES;
                if self.descriptor.size.saturating_sub(self.at) >= WIDE_BYTES_MIN {
                    self.fill(&mut parts);
                }
                if !parts.queue.is_empty() {
                    end = self.at + 2 * PART_BYTES;
                }
            }
        }
    }

    /// By several connections; `false` when one of them failed.
    async fn together(
        &mut self,
        mut parts: Parts,
        out: &mut Out,
        taken: &Arc<Taken>,
    ) -> Result<bool, Error> {
        while self.at < self.descriptor.size {
            if parts.queue.is_empty() {
                // In the place of the first connection, which is gone.
                parts.queue.extend(self.part(Arc::clone(taken)));
            }
            let Some(mut first) = parts.queue.pop_front() else {
                return Ok(true);
            };
            let Ok(Ok(pieces)) = (&mut first.task).await else {
                return Ok(false);
            };
            for piece in pieces {
                if !self.hand(piece, out).await {
                    return Ok(true);
                }
            }
            drop(first);
            self.fill(&mut parts);
        }
        Ok(true)
    }

    /// Has as many parts fetched as there are places for.
    fn fill(&mut self, parts: &mut Parts) {
        while parts.queue.len() < PARTS_MAX && self.next < self.descriptor.size {
            let Some(taken) = self.limits.try_place() else {
                return;
            };
            parts.queue.extend(self.part(Arc::new(taken)));
        }
    }

    /// The part that comes next, if there is one.
    fn part(&mut self, taken: Arc<Taken>) -> Option<Part> {
        let from = self.next;
        let to = (from + PART_BYTES).min(self.descriptor.size);
        if from >= to {
            return None;
        }
        self.next = to;
        self.attempts += 1;
        let blob = self.client.part(&self.descriptor, from, to);
        let gathered = gather(
            blob,
            self.limits.clone(),
            Arc::clone(&taken),
            self.watch.clone(),
            self.attempts,
        );
        Some(Part {
            task: tokio::spawn(gathered),
            _taken: taken,
        })
    }

    /// Hands a piece on; `false` when nobody reads any more.
    async fn hand(&mut self, piece: Bytes, out: &mut Out) -> bool {
        self.at += piece.len() as u64;
        out.hand(piece).await
    }
}

/// All bytes of a part.
async fn gather(
    mut blob: Blob,
    limits: Limits,
    taken: Arc<Taken>,
    watch: Arc<dyn Watch>,
    attempt: u32,
) -> Result<Vec<Bytes>, Error> {
    let mut pieces = Vec::new();
    let mut meter = Meter::default();
    while let Some(piece) = meter.chunk(&mut blob, &taken).await? {
        if pieces.is_empty() {
            watch.asked(blob.host().unwrap_or_default(), attempt);
        }
        watch.came(piece.len());
        limits.pace(piece.len(), &taken).await;
        pieces.push(piece);
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use cairn_registry::{Options, credentials::Anonymous};
    use cairn_types::Digest;
    use tokio::{
        sync::oneshot::{self, error::TryRecvError},
        task::yield_now,
    };

    use super::*;
    use crate::registries::{Pace, Places};

    async fn read(ahead: &mut Ahead) -> usize {
        let piece = ahead.pieces.recv().await.expect("a piece").expect("bytes");
        ahead.read(&piece);
        piece.len()
    }

    #[tokio::test]
    async fn no_more_is_held_than_there_is_room_for() {
        let (mut out, mut held) = ahead();
        let half = Bytes::from(vec![0; AHEAD_BYTES as usize / 2]);
        assert!(out.hand(half.clone()).await && out.hand(half.clone()).await);
        let handing = tokio::spawn(async move {
            let more = out.hand(half.slice(..1)).await;
            // Larger than all room, as no connection sends them: alone it goes through.
            let large = Bytes::from(vec![0; AHEAD_BYTES as usize + 1]);
            (more && out.hand(large).await, out)
        });
        tokio::task::yield_now().await;
        assert_eq!(held.pieces.len(), 2, "there is no room for more");
        let mut lengths = Vec::new();
        for _ in 0..4 {
            lengths.push(read(&mut held).await);
        }
        let whole = AHEAD_BYTES as usize;
        assert_eq!(lengths, [whole / 2, whole / 2, 1, whole + 1]);
        let (went, mut out) = handing.await.expect("handed");
        assert!(went);
        assert_eq!(held.room.available_permits(), whole, "all was given back");

        let all = Bytes::from(vec![0; whole]);
        assert!(out.hand(all.clone()).await);
        let waiting = tokio::spawn(async move { out.hand(all).await });
        tokio::task::yield_now().await;
        drop(held);
        assert!(!waiting.await.expect("handed"), "nobody reads any more");
    }

    struct Nobody;

    impl Watch for Nobody {
        fn asked(&self, _: &str, _: u32) {}
        fn resumed(&self, _: u64) {}
        fn came(&self, _: usize) {}
    }

    fn fetch() -> Fetch {
        let registry = "registry.example.com";
        let nobody = Arc::new(Anonymous) as _;
        let client = Client::new(registry, "shop/web", &[], &nobody, Options::default());
        Fetch {
            client: client.expect("client"),
            descriptor: Descriptor::new("", Digest::sha256(b""), 2 * PART_BYTES),
            at: 0,
            next: PART_BYTES,
            limits: Limits {
                places: [Places::new(1).share(), Places::new(1).share()],
                paces: [Pace::new(0), Pace::new(0)],
            },
            watch: Arc::new(Nobody),
            attempts: 0,
        }
    }

    /// Also the part that is waited for: it would go on for as long as the host lets it.
    #[tokio::test]
    async fn parts_end_with_whoever_wants_them() {
        let (held, mut ended) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let _held = held;
            std::future::pending().await
        });
        let mut parts = Parts::default();
        let mut fetch = fetch();
        let taken = Arc::new(fetch.limits.place().await);
        let _taken = Arc::clone(&taken);
        parts.queue.push_back(Part { task, _taken });
        let (mut out, _ahead) = ahead();
        let together = tokio::spawn(async move { fetch.together(parts, &mut out, &taken).await });
        // One thread runs all of this, each until it waits.
        for _ in 0..10 {
            yield_now().await;
        }
        assert_eq!(ended.try_recv(), Err(TryRecvError::Empty));
        together.abort();
        for _ in 0..10 {
            yield_now().await;
        }
        assert_eq!(ended.try_recv(), Err(TryRecvError::Closed));
    }
}
