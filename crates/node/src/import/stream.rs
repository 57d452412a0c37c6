//! An archive that can be read only once: from standard input, over a connection, or packed.
//!
//! Its entries come in any order, and what they mean is known only at the end. So small documents
//! are kept in memory and everything else goes into the store as it arrives, verified where the
//! archive names a digest; then the same table as for a file is handed on.

use std::{
    io::{self, Cursor},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread,
};

use async_compression::tokio::bufread::{BzDecoder, GzipDecoder, XzDecoder, ZstdDecoder};
use cairn_types::{Classified, Digest, ErrorKind, Labels, Namespace};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, ReadBuf};
use tokio_stream::StreamExt;
use tokio_tar::{ArchiveBuilder, Entry, EntryType};

use super::{
    ATTEMPTED,
    archive::{Archive, Place, clean, link_target, not_an_archive},
    skim,
};
use crate::{
    Failure, Node, Pins, documents::DOCUMENT_BYTES_MAX, failure::MAKE_ROOM, store::is_full, uploads,
};

/// Most bytes of all documents of a stream together, kept in memory.
const DOCUMENTS_BYTES_MAX: u64 = 64 << 20;
/// Most bytes between the data of one entry and that of the next: headers and what extends them, which
/// the reader keeps in memory, however long they say they are.
const HEADERS_BYTES_MAX: u64 = 2 << 20;
/// `PATH_MAX` without its NUL. No member that means anything has a longer name.
const NAME_BYTES_MAX: usize = 4095;
/// What `xz -9` needs is 65 MiB.
const XZ_MEMORY_MAX: u64 = 128 << 20;
/// Also the unit of writes to the store.
const BUFFER_BYTES: usize = 1 << 18;

type Bytes = Box<dyn AsyncRead + Send + Unpin>;

/// A reader whose waiting is done in place. The stream has a thread of its own, so nobody else
/// waits with it.
pub(super) struct InPlace<R>(pub(super) R);

impl<R: io::Read + Unpin> AsyncRead for InPlace<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let got = loop {
            match self.0.read(buffer.initialize_unfilled()) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        buffer.advance(got);
        Poll::Ready(Ok(()))
    }
}

/// A reader that gives up when more is read than was allowed.
struct Metered<R> {
    inner: R,
    left: Arc<AtomicU64>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Metered<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            let what = format!("headers of an entry take more than {HEADERS_BYTES_MAX} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        let got = (buffer.filled().len() - before) as u64;
        self.left.store(left.saturating_sub(got), Ordering::Relaxed);
        polled
    }
}

/// Reads the whole stream. What was stored is listed in `stored`, also after a failure.
pub(super) fn read(
    node: &Node,
    ns: &Namespace,
    name: String,
    reader: Bytes,
    stored: &mut Vec<Digest>,
    pins: &Pins,
) -> Result<Archive, Failure> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|err| broken(&name, &err))?;
            let mut taker = Taker {
                node,
                ns,
                archive: Archive::empty(
                    name.clone(),
                    ns.clone(),
                    node.content().clone(),
                    pins.clone(),
                ),
                documents: 0,
                entries: 0,
                stored,
                pins,
            };
            runtime.block_on(taker.run(reader))?;
            Ok(taker.archive)
        });
        worker.join().unwrap_or_else(|_| {
            Err(Failure::new(
                ErrorKind::Internal,
                ATTEMPTED,
                "the reader broke off",
            ))
        })
    })
}

fn broken(name: &str, err: &io::Error) -> Failure {
    let text = err.to_string();
    // The reader of compressed streams and that of tar have different classes for the same end.
    let ended = err.kind() == io::ErrorKind::UnexpectedEof || text.starts_with("unexpected EOF");
    let failure = match err.kind() {
        _ if ended => Failure::new(ErrorKind::DataLoss, ATTEMPTED, "the archive is cut short")
            .next("fetch the archive again"),
        io::ErrorKind::InvalidData | io::ErrorKind::Other => {
            Failure::new(ErrorKind::DataLoss, ATTEMPTED, "the archive is damaged")
                .next("fetch the archive again")
        }
        io::ErrorKind::ConnectionAborted => {
            Failure::new(ErrorKind::Canceled, ATTEMPTED, "its sender broke off")
        }
        _ => Failure::new(ErrorKind::Internal, ATTEMPTED, "it cannot be read"),
    };
    let failure = failure.object("archive", name);
    if text.eq_ignore_ascii_case("unexpected end of file") {
        return failure;
    }
    failure.cause(text)
}

/// Takes the first `length` bytes, less at the end of the stream, and gives the stream back whole.
async fn peek(mut reader: Bytes, length: usize) -> io::Result<(Vec<u8>, Bytes)> {
    let mut head = Vec::with_capacity(length);
    (&mut reader)
        .take(length as u64)
        .read_to_end(&mut head)
        .await?;
    let whole = Cursor::new(head.clone()).chain(reader);
    Ok((head, Box::new(whole)))
}

/// Undoes what the stream is packed in.
async fn unpacked(reader: Bytes) -> io::Result<Bytes> {
    let (head, reader) = peek(reader, 512).await?;
    let reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => {
            let mut decoder = GzipDecoder::new(reader);
            decoder.multiple_members(true);
            Box::new(decoder)
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = ZstdDecoder::new(reader);
            decoder.multiple_members(true);
            Box::new(decoder)
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let mut decoder = XzDecoder::with_mem_limit(reader, XZ_MEMORY_MAX);
            decoder.multiple_members(true);
            Box::new(decoder)
        }
        [b'B', b'Z', b'h', ..] => {
            let mut decoder = BzDecoder::new(reader);
            decoder.multiple_members(true);
            Box::new(decoder)
        }
        _ => Box::new(reader),
    })
}

/// Takes entries in.
struct Taker<'a> {
    node: &'a Node,
    ns: &'a Namespace,
    archive: Archive,
    documents: u64,
    entries: usize,
    stored: &'a mut Vec<Digest>,
    pins: &'a Pins,
}

impl Taker<'_> {
    async fn run(&mut self, reader: Bytes) -> Result<(), Failure> {
        let name = self.archive.name.clone();
        let broken = |err: io::Error| broken(&name, &err);
        let reader = unpacked(reader).await.map_err(broken)?;
        let (head, reader) = peek(reader, 512).await.map_err(broken)?;
        if !skim::is_header(&head) {
            return Err(not_an_archive(&name, &head));
        }
        let left = Arc::new(AtomicU64::new(HEADERS_BYTES_MAX));
        let reader = Metered {
            inner: reader,
            left: Arc::clone(&left),
        };
        let mut tar = ArchiveBuilder::new(BufReader::with_capacity(BUFFER_BYTES, reader)).build();
        let mut entries = tar.entries().map_err(broken)?;
        let mut scratch = vec![0; BUFFER_BYTES];
        while let Some(entry) = entries.next().await {
            left.store(u64::MAX, Ordering::Relaxed);
            self.entries += 1;
            if self.entries > skim::ENTRIES_MAX {
                let reason = format!("it has more than {} entries", skim::ENTRIES_MAX);
                return Err(self.failure(ErrorKind::InvalidArgument, reason));
            }
            let mut entry = entry.map_err(broken)?;
            self.entry(&mut entry).await?;
            // To the end of its data, so that what comes next is a header.
            while fill(&mut entry, &mut scratch).await.map_err(broken)? > 0 {}
            left.store(HEADERS_BYTES_MAX, Ordering::Relaxed);
        }
        left.store(u64::MAX, Ordering::Relaxed);
        drop(entries);
        // Padding is read as well: a producer on the other end of a pipe must not die of it, and a
        // packed stream proves its own checksum only at its end.
        if let Ok(mut rest) = tar.into_inner() {
            loop {
                let length = rest.fill_buf().await.map_err(broken)?.len();
                if length == 0 {
                    break;
                }
                rest.consume(length);
            }
        }
        Ok(())
    }

    fn failure(&self, kind: ErrorKind, reason: String) -> Failure {
        Failure::new(kind, ATTEMPTED, reason).object("archive", &self.archive.name)
    }

    async fn entry<R: AsyncRead + Unpin>(&mut self, entry: &mut Entry<R>) -> Result<(), Failure> {
        let broken = |name: &str, err: &io::Error| broken(name, err);
        let path = entry
            .path_bytes()
            .map_err(|e| broken(&self.archive.name, &e))?;
        if path.len() > NAME_BYTES_MAX {
            return Ok(());
        }
        let Some(name) = clean(&String::from_utf8_lossy(&path)) else {
            return Ok(());
        };
        let link = entry
            .link_name_bytes()
            .map_err(|e| broken(&self.archive.name, &e))?;
        let link = link.filter(|link| link.len() <= NAME_BYTES_MAX);
        let link = link.map(|link| String::from_utf8_lossy(&link).into_owned());
        match entry.header().entry_type() {
            EntryType::Symlink => {
                let target = link.and_then(|link| link_target(&name, &link));
                self.archive.link(name, target);
                return Ok(());
            }
            EntryType::Link => {
                self.archive.link(name, link.and_then(|link| clean(&link)));
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous => {}
            _ => return Ok(()),
        }
        let size = entry.effective_size();
        let mut head = vec![0; BUFFER_BYTES];
        let filled = fill(entry, &mut head)
            .await
            .map_err(|err| broken(&self.archive.name, &err).at(self.archive.location(&name)))?;
        head.truncate(filled);
        if size <= DOCUMENT_BYTES_MAX && is_document(&name, &head) {
            return self.document(name, size, head, entry).await;
        }
        let digest = self.store(&name, size, head, entry).await?;
        self.archive.add(name, size, Place::Stored(digest))
    }

    async fn document<R: AsyncRead + Unpin>(
        &mut self,
        name: String,
        size: u64,
        mut bytes: Vec<u8>,
        entry: &mut Entry<R>,
    ) -> Result<(), Failure> {
        self.documents += size;
        if self.documents > DOCUMENTS_BYTES_MAX {
            let reason = format!("its documents take more than {DOCUMENTS_BYTES_MAX} bytes");
            return Err(self.failure(ErrorKind::InvalidArgument, reason));
        }
        entry
            .read_to_end(&mut bytes)
            .await
            .map_err(|err| broken(&self.archive.name, &err).at(self.archive.location(&name)))?;
        self.archive.add(name, size, Place::Memory(bytes.into()))
    }

    /// Stores an entry's bytes under the digest its name says, or the one they have.
    async fn store<R: AsyncRead + Unpin>(
        &mut self,
        name: &str,
        size: u64,
        mut buffer: Vec<u8>,
        entry: &mut Entry<R>,
    ) -> Result<Digest, Failure> {
        let expected = blob_name(name);
        let reference = uploads::name().map_err(|err| Failure::of(ATTEMPTED, &err))?;
        let content = self.node.content();
        if let Some(expected) = &expected {
            self.pins.blob(self.ns, expected);
        }
        let mut ingest = match content.writer(self.ns, &reference, expected.as_ref(), size) {
            Ok(ingest) => ingest,
            Err(err) => match (&expected, err.kind()) {
                // The caller skips what is left of an entry.
                (Some(expected), ErrorKind::AlreadyExists) => return Ok(expected.clone()),
                _ => return Err(self.not_stored(name, &err, size)),
            },
        };
        let copied: Result<(), Failure> = async {
            let mut filled = buffer.len();
            buffer.resize(BUFFER_BYTES, 0);
            while filled > 0 {
                io::Write::write_all(&mut ingest, &buffer[..filled]).map_err(|err| {
                    self.not_written(name, &err, size.saturating_sub(ingest.offset()))
                })?;
                filled = fill(entry, &mut buffer).await.map_err(|err| {
                    broken(&self.archive.name, &err).at(self.archive.location(name))
                })?;
            }
            let actual = ingest.digest_so_far();
            match &expected {
                Some(expected) if actual != *expected => Err(self.damaged(name, expected, &actual)),
                _ => Ok(()),
            }
        }
        .await;
        if let Err(failure) = copied {
            if let Err(err) = ingest.abort() {
                tracing::warn!("abort an upload: {err}");
            }
            return Err(failure);
        }
        let digest = ingest.digest_so_far();
        self.pins.blob(self.ns, &digest);
        match ingest.commit(Some(size), Some(&digest), Labels::new()) {
            Ok(_) => self.stored.push(digest.clone()),
            Err(err) if err.kind() == ErrorKind::AlreadyExists => {}
            Err(err) => return Err(self.not_stored(name, &err, 0)),
        }
        Ok(digest)
    }

    fn not_stored(&self, name: &str, err: &dyn Classified, missing: u64) -> Failure {
        if is_full(err) {
            return self.full(name, err.to_string(), missing);
        }
        Failure::because(ATTEMPTED, "its blobs cannot be stored", err)
            .object("archive", &self.archive.name)
            .at(self.archive.location(name))
    }

    fn not_written(&self, name: &str, err: &io::Error, missing: u64) -> Failure {
        match err.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.full(name, err.to_string(), missing)
            }
            _ => self
                .failure(ErrorKind::Internal, "its blobs cannot be stored".to_owned())
                .cause(err.to_string())
                .at(self.archive.location(name)),
        }
    }

    /// Of an archive that passes by, what comes after an entry is known by nobody: `missing` is of this
    /// one.
    fn full(&self, name: &str, cause: String, missing: u64) -> Failure {
        let reason = self.node.nothing_left(missing);
        self.failure(ErrorKind::ResourceExhausted, reason)
            .cause(cause)
            .at(self.archive.location(name))
            .next(format!("{MAKE_ROOM}; then import again"))
    }

    fn damaged(&self, name: &str, expected: &Digest, actual: &Digest) -> Failure {
        self.failure(ErrorKind::DataLoss, format!("blob {expected} is damaged"))
            .cause(format!("its bytes hash to {actual}"))
            .at(self.archive.location(name))
            .next("fetch the archive again")
    }
}

/// Reads until the buffer is full or the entry ends.
async fn fill<R: AsyncRead + Unpin>(entry: &mut Entry<R>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match entry.read(&mut buffer[filled..]).await? {
            0 => break,
            got => filled += got,
        }
    }
    Ok(filled)
}

/// What may have to be read before it is known what it is. A layer never begins like JSON.
fn is_document(name: &str, head: &[u8]) -> bool {
    let first = head.iter().find(|b| !b.is_ascii_whitespace());
    let named = ["VERSION", "oci-layout", "repositories"]
        .iter()
        .any(|n| name.rsplit('/').next() == Some(n));
    named || name.ends_with(".json") || matches!(first, Some(b'{' | b'[')) || head.is_empty()
}

/// `blobs/sha256/<hex>`.
fn blob_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}
