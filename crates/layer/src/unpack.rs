//! One layer from compressed bytes to files, as a pipeline of two threads.
//!
//! One thread reads and inflates into pooled buffers, the caller's thread hashes them and applies
//! them. The buffers bound the memory of a layer whatever its size, and the same bytes are hashed
//! and written, so nothing is read back.

use std::{
    io::{self, BufRead, Read},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use cairn_sys::Dir;
use cairn_types::{Compression, DiffId, Digest, Hasher, LayerTiming, LayerType};

use crate::{
    Applied, Error, Options, apply,
    inflate::{InflateError, Inflater},
};

/// Large enough that handing over costs nothing, small enough to stay in a core's cache.
const BUFFER_BYTES: usize = 512 << 10;
/// One being filled, one being applied, two between them to even out small and large files.
const BUFFERS: usize = 4;

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
    /// The reading thread's reading and inflating.
    pub inflate: Duration,
    /// Of that, the reading.
    pub read: Duration,
    /// The applying thread's hashing.
    pub hash: Duration,
    /// The applying thread's waiting for bytes.
    pub starved: Duration,
}

impl Timing {
    /// What the time of the whole went into. For as long as the applying thread waited it was the
    /// reading thread's work that took it, in the parts of which that consists.
    pub fn parts(&self) -> LayerTiming {
        let share = match self.inflate.as_secs_f64() {
            0.0 => 0.0,
            busy => (self.read.as_secs_f64() / busy).min(1.0),
        };
        let fetch = self.starved.mul_f64(share);
        LayerTiming {
            fetch,
            inflate: self.starved.saturating_sub(fetch),
            untar: self.total.saturating_sub(self.starved),
            ..LayerTiming::default()
        }
    }
}

/// Unpacks `compressed` into `upper`, an empty directory, and computes the diff ID on the way.
///
/// `compressed` is read to its very end if all goes well, so that a digest teed from it is complete;
/// `progress` hears from another thread how many compressed bytes have been read in all. After an
/// error `upper` is to be thrown away. A source that fails is reported as that, not as the truncated
/// archive it leaves behind; one that blocks for ever blocks this call.
pub fn unpack<R: Read + Send>(
    compressed: R,
    layer: LayerType,
    upper: &Dir,
    options: &Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Unpacked, Error> {
    let started = Instant::now();
    let (full_tx, full_rx) = sync_channel(BUFFERS);
    let (empty_tx, empty_rx) = channel();
    for _ in 0..BUFFERS {
        // The receiver is alive, two lines above.
        let _ = empty_tx.send(vec![0; BUFFER_BYTES]);
    }
    let reading = AtomicU64::new(0);
    let source = Counted {
        source: compressed,
        read: 0,
        nanos: &reading,
        progress,
    };
    let max_bytes = options.max_bytes;
    thread::scope(|scope| {
        let reader = thread::Builder::new()
            .name("layer-inflate".to_owned())
            .spawn_scoped(scope, move || {
                produce(source, layer, max_bytes, &empty_rx, &full_tx)
            })
            .map_err(|err| Error::Thread(err.to_string()))?;
        let mut chunks = Chunks::new(full_rx, empty_tx, Hasher::new(options.diff_algorithm));
        let applied = apply(&mut chunks, upper, options);
        let consumed = chunks.finish();
        // The channels are gone now, so the reader stops at its next buffer if it has not yet.
        let produced = reader
            .join()
            .map_err(|_| Error::Thread("the reader broke off".into()))?;
        let applied = match (consumed.failed, applied, produced.looks_packed) {
            // What the reader met is the cause of whatever the applier made of it.
            (Some(cause), _, _) => return Err(cause),
            (None, Err(Error::Tar(_)), Some(name)) => {
                return Err(InflateError::Packing(name).into());
            }
            (None, applied, _) => applied?,
        };
        Ok(Unpacked {
            diff_id: DiffId::new(consumed.digest),
            size: consumed.size,
            compression: produced.packing,
            applied,
            timing: Timing {
                total: started.elapsed(),
                inflate: produced.busy,
                read: Duration::from_nanos(reading.load(Ordering::Relaxed)),
                hash: consumed.hashing,
                starved: consumed.starved,
            },
        })
    })
}

/// What goes from the reading thread to the applying one: a buffer with its filled length.
type Full = Result<(Vec<u8>, usize), Error>;

/// What the reading thread learned.
struct Produced {
    packing: Compression,
    looks_packed: Option<&'static str>,
    busy: Duration,
}

/// The reading thread. It ends at the end of the stream, at an error, which it hands over, or when
/// nobody wants its buffers any more.
fn produce<R: Read>(
    source: R,
    layer: LayerType,
    max_bytes: u64,
    empty: &Receiver<Vec<u8>>,
    full: &SyncSender<Full>,
) -> Produced {
    let mut produced = Produced {
        packing: layer.compression,
        looks_packed: None,
        busy: Duration::ZERO,
    };
    if let Err(cause) = inflate_all(source, layer, max_bytes, empty, full, &mut produced) {
        // Nobody listening means that the applier has failed first and says so itself.
        let _ = full.send(Err(cause));
    }
    produced
}

fn inflate_all<R: Read>(
    source: R,
    layer: LayerType,
    max_bytes: u64,
    empty: &Receiver<Vec<u8>>,
    full: &SyncSender<Full>,
    produced: &mut Produced,
) -> Result<(), Error> {
    let began = Instant::now();
    let mut inflater = Inflater::new(source, layer)?;
    produced.packing = inflater.packing();
    produced.looks_packed = inflater.looks_packed();
    produced.busy += began.elapsed();
    let mut total: u64 = 0;
    while let Ok(mut buffer) = empty.recv() {
        let began = Instant::now();
        let filled = inflater.fill(&mut buffer)?;
        produced.busy += began.elapsed();
        total += filled as u64;
        if total > max_bytes {
            return Err(Error::TooLarge { limit: max_bytes });
        }
        if filled == 0 || full.send(Ok((buffer, filled))).is_err() {
            break;
        }
    }
    Ok(())
}

/// Says how far the compressed source has been read, and how long that took.
struct Counted<'p, R> {
    source: R,
    read: u64,
    nanos: &'p AtomicU64,
    progress: &'p (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        let n = self.source.read(buffer)?;
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(took, Ordering::Relaxed);
        self.read += n as u64;
        if n > 0 {
            (self.progress)(self.read);
        }
        Ok(n)
    }
}

/// The applying thread's end: the stream as `BufRead`, hashed as it arrives.
struct Chunks {
    full: Receiver<Full>,
    empty: Sender<Vec<u8>>,
    /// The buffer in hand, how much of it is filled and how much consumed.
    buffer: Vec<u8>,
    filled: usize,
    consumed: usize,
    ended: bool,
    hasher: Hasher,
    so_far: Consumed<()>,
}

/// What the applying thread learned from the stream, `D` being its digest once that is complete.
struct Consumed<D> {
    digest: D,
    size: u64,
    failed: Option<Error>,
    hashing: Duration,
    starved: Duration,
}

impl Chunks {
    fn new(full: Receiver<Full>, empty: Sender<Vec<u8>>, hasher: Hasher) -> Chunks {
        let so_far = Consumed {
            digest: (),
            size: 0,
            failed: None,
            hashing: Duration::ZERO,
            starved: Duration::ZERO,
        };
        Chunks {
            full,
            empty,
            buffer: Vec::new(),
            filled: 0,
            consumed: 0,
            ended: false,
            hasher,
            so_far,
        }
    }

    fn finish(self) -> Consumed<Digest> {
        Consumed {
            digest: self.hasher.finish(),
            size: self.so_far.size,
            failed: self.so_far.failed,
            hashing: self.so_far.hashing,
            starved: self.so_far.starved,
        }
    }

    fn next_buffer(&mut self) -> io::Result<()> {
        let spent = std::mem::take(&mut self.buffer);
        if !spent.is_empty() {
            // The reader may be at the end and gone.
            let _ = self.empty.send(spent);
        }
        (self.filled, self.consumed) = (0, 0);
        let began = Instant::now();
        let received = self.full.recv();
        self.so_far.starved += began.elapsed();
        match received {
            Ok(Ok((buffer, filled))) => {
                let began = Instant::now();
                self.hasher.update(&buffer[..filled]);
                self.so_far.hashing += began.elapsed();
                self.so_far.size += filled as u64;
                (self.buffer, self.filled) = (buffer, filled);
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
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(buffer.len());
        buffer[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.consumed == self.filled && !self.ended {
            self.next_buffer()?;
        }
        Ok(&self.buffer[self.consumed..self.filled])
    }

    fn consume(&mut self, n: usize) {
        self.consumed = (self.consumed + n).min(self.filled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_time_are_the_whole() {
        let ms = Duration::from_millis;
        let timing = Timing {
            total: ms(1000),
            inflate: ms(800),
            read: ms(200),
            hash: ms(100),
            starved: ms(400),
        };
        let parts = timing.parts();
        let expected = [ms(100), ms(300), ms(600), ms(0), ms(0)];
        assert_eq!(parts.parts().map(|(_, part)| part), expected);
        assert_eq!(parts.sum(), timing.total);
        // A clock may show nothing at all.
        assert_eq!(Timing::default().parts(), LayerTiming::default());
    }
}
