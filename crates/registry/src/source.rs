//! Bytes on their way out: read from wherever they are kept, as often as it takes.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use crate::observer::Watch;

/// Bytes as they come.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A blob that is to be sent. It is read again, from where the registry has it, when a connection breaks.
pub trait Source: Send + Sync {
    /// The bytes from an offset to the end. What reads slower than the client's minimum rate looks like a
    /// registry that takes slower.
    fn read(&self, offset: u64) -> ByteStream;
}

/// Bytes that are at hand.
impl Source for Bytes {
    fn read(&self, offset: u64) -> ByteStream {
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.len());
        let rest = self.slice(from..);
        Box::pin(stream::once(std::future::ready(Ok(rest))))
    }
}

/// A part of a source.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Time that may pass between its last byte and an answer, besides what any request has.
    pub(crate) digestion: Duration,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}..{}", self.from, self.to)
    }
}

/// How far a body has gone out.
pub(crate) struct Meter {
    watch: Watch,
    sent: AtomicU64,
    ended: AtomicBool,
    failed: Mutex<Option<String>>,
}

impl Meter {
    fn new(watch: &Watch) -> Meter {
        Meter {
            watch: watch.clone(),
            sent: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            failed: Mutex::new(None),
        }
    }

    fn pass(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.watch.sent(bytes);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Why the source could not be read.
    pub(crate) fn failure(&self) -> Option<String> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.clone()
    }

    fn fail(&self, why: &io::Error) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        *failed = Some(cairn_types::failure::words(why));
    }
}

impl Outgoing {
    pub(crate) fn len(&self) -> u64 {
        self.to - self.from
    }

    /// A body of exactly [`Outgoing::len`] bytes, or one that fails.
    pub(crate) fn body(&self, watch: &Watch) -> (reqwest::Body, Arc<Meter>) {
        let meter = Arc::new(Meter::new(watch));
        if self.len() == 0 {
            meter.ended.store(true, Ordering::Relaxed);
            return (reqwest::Body::from(Bytes::new()), meter);
        }
        let counted = Counted {
            source: self.source.read(self.from),
            held: Bytes::new(),
            left: self.len(),
            meter: Arc::clone(&meter),
        };
        let pieces = stream::unfold(counted, |mut counted| async move {
            let piece = counted.next().await?;
            Some((piece, counted))
        });
        (reqwest::Body::wrap_stream(pieces), meter)
    }
}

/// What is handed on at a time. A larger piece would count as sent when its first byte is.
const PIECE_BYTES: usize = 64 << 10;

struct Counted {
    source: ByteStream,
    held: Bytes,
    left: u64,
    meter: Arc<Meter>,
}

impl Counted {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.left == 0 {
            return None;
        }
        while self.held.is_empty() {
            let read = self.source.next().await.unwrap_or_else(|| {
                let why = format!("it ended {} bytes early", self.left);
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))
            });
            match read {
                Ok(piece) => self.held = piece,
                Err(err) => {
                    self.meter.fail(&err);
                    self.left = 0;
                    return Some(Err(err));
                }
            }
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let len = self.held.len().min(PIECE_BYTES).min(most);
        let piece = self.held.split_to(len);
        self.left -= len as u64;
        self.meter.pass(len as u64);
        if self.left == 0 {
            // Whoever sends it may never ask for an end that its length has told before.
            self.meter.ended.store(true, Ordering::Relaxed);
        }
        Some(Ok(piece))
    }
}
