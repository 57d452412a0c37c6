//! One layer from compressed bytes to files, as a pipeline of threads.
//!
//! A thread inflates into pooled buffers, the caller's thread applies them. Where there are cores for
//! it the source is read ahead by a thread of its own, the inflated bytes are hashed by another, out of
//! the same buffers, and gzip is inflated by several. The buffers bound the memory of a layer whatever
//! its size, and the same bytes are hashed and written, so nothing is read back.
//!
//! Memory: at most six buffers of 512 KiB, and eight of 256 KiB where the source is read ahead; what
//! the decoders need besides is theirs, for gzip 16 MiB for each thread if it has several.

mod ahead;
mod buffers;
mod chunks;
mod hashing;
mod threads;

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, Scope},
    time::{Duration, Instant},
};

use cairn_sys::Dir;
use cairn_types::{Compression, DiffId, Hasher, LayerTiming, LayerType};

use self::{
    buffers::{Lent, Pool, Stream},
    chunks::Chunks,
    threads::{STACK_BYTES, Thread, joined},
};
use crate::{
    Applied, Error, Options, apply,
    inflate::{InflateError, Inflater},
};

/// As much as is asked of a source at once that nobody reads ahead.
const SOURCE_BUFFER_BYTES: usize = 256 << 10;
/// Large enough that handing over costs nothing, small enough to stay in a core's cache.
const BUFFER_BYTES: usize = 512 << 10;
/// One being filled, one being applied, two between them to even out small and large files.
const BUFFERS: usize = 4;
/// One being hashed, and one for whichever of hashing and applying is behind the other.
const BUFFERS_TO_HASH: usize = 2;

/// What unpacking a layer gave.
#[derive(Debug)]
pub struct Unpacked {
    /// The digest of the uncompressed stream, every byte of it.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed stream.
    pub size: u64,
    /// How the layer was packed in truth.
    pub compression: Compression,
    /// What the entries became.
    pub applied: Applied,
    /// Where the time went.
    pub timing: Timing,
}

/// Where the time of unpacking one layer went; the parts overlap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// From the first byte asked to the last file written.
    pub total: Duration,
    /// The inflating thread's getting packed bytes and inflating them.
    pub inflate: Duration,
    /// Of that, the getting: reading, or waiting for who reads ahead.
    pub read: Duration,
    /// Hashing the uncompressed bytes, on whatever thread.
    pub hash: Duration,
    /// The applying thread's waiting for bytes.
    pub starved: Duration,
    /// Of that, while nothing could be inflated because hashing was behind with all buffers.
    pub behind: Duration,
}

impl Timing {
    /// What the time of the whole went into. For as long as the applying thread waited it was the
    /// inflating thread's work that took it, in the parts of which that consists, or the hashing
    /// thread's, which counts as the applying does.
    pub fn parts(&self) -> LayerTiming {
        let share = match self.inflate.as_secs_f64() {
            0.0 => 0.0,
            busy => (self.read.as_secs_f64() / busy).min(1.0),
        };
        let waited = self.starved.saturating_sub(self.behind);
        let fetch = waited.mul_f64(share);
        LayerTiming {
            fetch,
            inflate: waited.saturating_sub(fetch),
            untar: self.total.saturating_sub(waited),
            ..LayerTiming::default()
        }
    }
}

/// Which stages have a thread of their own beside inflating and applying.
struct Stages {
    hash: bool,
    ahead: bool,
    /// How many threads inflate.
    inflate: usize,
    /// What those two threads have for their stacks, each.
    stack_bytes: usize,
}

impl Stages {
    fn of(threads: usize) -> Stages {
        Stages {
            hash: threads >= 3,
            ahead: threads >= 4,
            // Inflating takes longer than all the rest. Applying takes one core, hashing and reading ahead
            // take less than one together, so they have two and inflating has what is left.
            inflate: threads.saturating_sub(2).max(1),
            stack_bytes: STACK_BYTES,
        }
    }
}

/// Unpacks `compressed` into `upper`, an empty directory, and computes the diff ID on the way, with
/// as many threads as [`Options::threads`] allows; where the system has no more it does with two, of which
/// the caller's is one.
///
/// `compressed` is read to its very end if all goes well, so that a digest teed from it is complete;
/// `progress` hears from the thread that reads how many compressed bytes have been read in all. After
/// an error `upper` is to be thrown away. A source that fails is reported as that, not as the
/// truncated archive it leaves behind; one that blocks for ever blocks this call.
pub fn unpack<R: Read + Send>(
    compressed: R,
    layer: LayerType,
    upper: &Dir,
    options: &Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Unpacked, Error> {
    let stages = Stages::of(options.threads);
    unpack_in(&stages, compressed, layer, upper, options, progress)
}

fn unpack_in<R: Read + Send>(
    stages: &Stages,
    compressed: R,
    layer: LayerType,
    upper: &Dir,
    options: &Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Unpacked, Error> {
    let started = Instant::now();
    let (getting, stalled) = (AtomicU64::new(0), AtomicU64::new(0));
    let source = Counted {
        source: compressed,
        read: 0,
        progress,
    };
    thread::scope(|scope| {
        let (source, ahead) = read_ahead(scope, stages, source, &getting);
        let hasher = Hasher::new(options.diff_algorithm);
        let (own, to_hash, hashing) = match stages.hash {
            true => hashing::start(scope, stages.stack_bytes, hasher),
            false => (Some(hasher), None, None),
        };
        let (full_tx, full_rx) = channel();
        let beside = if to_hash.is_some() {
            BUFFERS_TO_HASH
        } else {
            0
        };
        let out = Out {
            pool: Pool::new(BUFFERS + beside, BUFFER_BYTES),
            full: full_tx,
            to_hash,
            stalled: &stalled,
            max_bytes: options.max_bytes,
        };
        let threads = stages.inflate;
        let produce = move |source| produce(source, layer, threads, &out);
        let inflater = threads::start(scope, ("layer-inflate", STACK_BYTES), source, produce)
            .map_err(|(err, _)| Error::Thread(err.to_string()))?;
        let mut chunks = Stream::new(Chunks::new(full_rx, own, &stalled));
        let applied = apply(&mut chunks, upper, options);
        let consumed = chunks.into_inner().finish();
        // The channels are gone now, so the others stop at their next buffer if they have not yet.
        let produced = joined(inflater);
        let hashed = hashing.map(joined).transpose();
        ahead.map(joined).transpose()?;
        let (produced, hashed) = (produced?, hashed?.or(consumed.hashed));
        let applied = true_cause(consumed.failed, applied, produced.looks_packed)?;
        let hashed = hashed.ok_or_else(|| Error::Thread("nobody hashed".into()))?;
        Ok(Unpacked {
            diff_id: DiffId::new(hashed.digest),
            size: consumed.size,
            compression: produced.packing,
            applied,
            timing: Timing {
                total: started.elapsed(),
                inflate: produced.busy,
                read: Duration::from_nanos(getting.load(Ordering::Relaxed)),
                hash: hashed.busy,
                starved: consumed.starved,
                behind: consumed.behind,
            },
        })
    })
}

/// The source as the inflating thread reads it, and who reads it ahead of that, if anybody does.
fn read_ahead<'scope, R: Read + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    stages: &Stages,
    mut source: R,
    nanos: &'scope AtomicU64,
) -> (Box<dyn BufRead + Send + 'scope>, Option<Thread<'scope, ()>>) {
    if stages.ahead {
        source = match ahead::start(scope, stages.stack_bytes, source, nanos) {
            Ok((ahead, thread)) => return (Box::new(ahead), Some(thread)),
            Err(source) => source,
        };
    }
    let source = Clocked { source, nanos };
    let source = BufReader::with_capacity(SOURCE_BUFFER_BYTES, source);
    (Box::new(source), None)
}

/// What came of applying, unless what the reader met is the cause of whatever the applier made of it.
fn true_cause(
    failed: Option<Error>,
    applied: Result<Applied, Error>,
    looks_packed: Option<&'static str>,
) -> Result<Applied, Error> {
    match (failed, applied, looks_packed) {
        (Some(cause), _, _) => Err(cause),
        (None, Err(Error::Tar(_)), Some(name)) => Err(InflateError::Packing(name).into()),
        (None, applied, _) => applied,
    }
}

/// What goes from the inflating thread to the applying one.
type Full = Result<Arc<Lent>, Error>;

/// What the inflating thread learned.
struct Produced {
    packing: Compression,
    looks_packed: Option<&'static str>,
    busy: Duration,
}

/// Where the inflating thread's bytes go.
struct Out<'s> {
    pool: Pool,
    full: Sender<Full>,
    /// Whoever hashes them beside the applying thread.
    to_hash: Option<Sender<Arc<Lent>>>,
    stalled: &'s AtomicU64,
    max_bytes: u64,
}

/// The inflating thread. It ends at the end of the stream, at an error, which it hands over, or when
/// nobody wants its buffers any more.
fn produce<R: BufRead>(source: R, layer: LayerType, threads: usize, out: &Out<'_>) -> Produced {
    let mut produced = Produced {
        packing: layer.compression,
        looks_packed: None,
        busy: Duration::ZERO,
    };
    if let Err(cause) = inflate_all(source, layer, threads, out, &mut produced) {
        // Nobody listening means that the applier has failed first and says so itself.
        let _ = out.full.send(Err(cause));
    }
    produced
}

fn inflate_all<R: BufRead>(
    source: R,
    layer: LayerType,
    threads: usize,
    out: &Out<'_>,
    produced: &mut Produced,
) -> Result<(), Error> {
    let began = Instant::now();
    let mut inflater = Inflater::with_threads(source, layer, threads)?;
    produced.packing = inflater.packing();
    produced.looks_packed = inflater.looks_packed();
    produced.busy += began.elapsed();
    let mut total: u64 = 0;
    while let Some(mut buffer) = out.next() {
        let began = Instant::now();
        let filled = inflater.fill(buffer.space())?;
        produced.busy += began.elapsed();
        total += filled as u64;
        if total > out.max_bytes {
            let limit = out.max_bytes;
            return Err(Error::TooLarge { limit });
        }
        buffer.add(filled);
        if filled == 0 || !out.hand_over(buffer) {
            break;
        }
    }
    Ok(())
}

impl Out<'_> {
    fn next(&self) -> Option<Lent> {
        let began = Instant::now();
        let buffer = self.pool.take();
        // Where none is hashed elsewhere it is the applying thread that has them, or that has just
        // given one back to a thread that no core was free for yet.
        if self.to_hash.is_some() {
            self.stalled.fetch_add(nanos(began), Ordering::Relaxed);
        }
        buffer
    }

    /// Whether anybody wants more.
    fn hand_over(&self, buffer: Lent) -> bool {
        let buffer = Arc::new(buffer);
        if let Some(to_hash) = &self.to_hash
            && to_hash.send(Arc::clone(&buffer)).is_err()
        {
            return false;
        }
        self.full.send(Ok(buffer)).is_ok()
    }
}

/// Says how far the compressed source has been read.
struct Counted<'p, R> {
    source: R,
    read: u64,
    progress: &'p (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.read += n as u64;
        if n > 0 {
            (self.progress)(self.read);
        }
        Ok(n)
    }
}

/// Says how long it took to get bytes.
struct Clocked<'t, R> {
    source: R,
    nanos: &'t AtomicU64,
}

impl<R: Read> Read for Clocked<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        let n = self.source.read(buffer);
        self.nanos.fetch_add(nanos(began), Ordering::Relaxed);
        n
    }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where no more threads are to be had than the one that always is.
    #[test]
    fn two_threads_do_what_more_would() {
        let threads = Stages::of(4);
        assert!(threads.ahead && threads.hash);
        let refused = Stages {
            // More than there are addresses.
            stack_bytes: 1 << 60,
            ..Stages::of(4)
        };
        let nanos = AtomicU64::new(0);
        thread::scope(|scope| {
            let hasher = Hasher::new(Options::default().diff_algorithm);
            let (own, ..) = hashing::start(scope, refused.stack_bytes, hasher);
            assert!(own.is_some());
            assert!(read_ahead(scope, &refused, io::empty(), &nanos).1.is_none());
        });
        // An empty archive, with what may follow one.
        let packed = vec![0; 3 << 20];
        let expected = DiffId::new(cairn_types::Digest::sha256(&packed));
        for stages in [threads, refused] {
            let place = tempfile::tempdir().expect("directory");
            let upper = Dir::open(place.path()).expect("open");
            let layer = LayerType {
                compression: Compression::None,
                ..LayerType::parse(cairn_types::media::OCI_LAYER).expect("layer")
            };
            let read = AtomicU64::new(0);
            let options = Options::default();
            let progress = |bytes| read.store(bytes, Ordering::Relaxed);
            let unpacked = unpack_in(&stages, &packed[..], layer, &upper, &options, &progress);
            let unpacked = unpacked.expect("unpack");
            assert_eq!(unpacked.diff_id, expected);
            assert_eq!(unpacked.size, packed.len() as u64);
            assert_eq!(read.into_inner(), packed.len() as u64);
        }
    }

    #[test]
    fn the_parts_of_the_time_are_the_whole() {
        let ms = Duration::from_millis;
        let timing = Timing {
            total: ms(1000),
            inflate: ms(800),
            read: ms(200),
            hash: ms(100),
            starved: ms(400),
            behind: ms(0),
        };
        let parts = timing.parts();
        let expected = [ms(100), ms(300), ms(600), ms(0), ms(0)];
        assert_eq!(parts.parts().map(|(_, part)| part), expected);
        assert_eq!(parts.sum(), timing.total);
        // Hashing that holds the rest up counts as the applying does, on whatever thread it is.
        let behind = Timing {
            behind: ms(80),
            ..timing
        };
        let parts = behind.parts();
        let expected = [ms(80), ms(240), ms(680), ms(0), ms(0)];
        assert_eq!(parts.parts().map(|(_, part)| part), expected);
        assert_eq!(parts.sum(), timing.total);
        // A clock may show nothing at all.
        assert_eq!(Timing::default().parts(), LayerTiming::default());
    }
}
