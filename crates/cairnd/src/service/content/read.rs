//! `Content.Read`: a blob on its way to a client, read as the client takes it.
//!
//! Bytes that this process has not seen before are proven on their way: of a damaged blob a client gets no last
//! part, and none of its parts when it asks for one.
//!
//! Nothing is read ahead and no thread waits, so whoever opens many blobs and reads none has nothing of
//! the others'. What the kernel has in memory is copied where the answer is written: to have a thread
//! read it would take longer than the copy. What has to come from the disk is waited for elsewhere.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use cairn_content::{Blob, Proof};
use cairn_proto::containerd::services::content::v1::{ReadContentRequest, ReadContentResponse};
use cairn_types::ErrorKind;
use tokio_stream::Stream;
use tonic::Status;

use crate::{
    convert,
    status::{blocking, with},
    turns::{self, Turns},
};

/// Most bytes of a blob in one message. They are copied from the kernel, into the message and out to
/// the socket, and this is what stays in a processor's cache meanwhile. containerd's have 1 MiB; no
/// client relies on it.
const CHUNK: usize = 128 << 10;

/// A wait for the disk.
type Waiting = Pin<Box<dyn Future<Output = Result<Bytes, Status>> + Send>>;

/// The next bytes, or the wait for them.
enum Next {
    Here(Result<Bytes, Status>),
    Later(Waiting),
}

/// The part of a blob that a client asked for.
pub(super) struct Reading {
    blob: Arc<Blob>,
    turns: Option<Turns>,
    start: u64,
    at: u64,
    end: u64,
    /// What was sent last, whose room is used again when it has gone.
    sent: Bytes,
    waiting: Option<Waiting>,
    proof: Proving,
}

/// What is still to be seen of a blob.
enum Proving {
    Nothing,
    /// All of it, by who is sent all of it.
    OnTheWay(Box<Proof>),
    /// All of it, before a part is sent.
    Before,
}

impl Reading {
    /// What `request` asks for. It waits for the disk by the turns of the call that it is made in.
    ///
    /// # Errors
    /// `OutOfRange` when it begins behind the blob's end.
    pub(super) fn new(blob: Blob, request: &ReadContentRequest) -> Result<Reading, Status> {
        let size = blob.size();
        let start = u64::try_from(request.offset).unwrap_or(0);
        if start > size {
            let digest = blob.digest();
            let text = format!("read past the end of {digest}: offset {start} of {size}");
            return Err(Status::out_of_range(format!("{text}: out of range")));
        }
        let end = match u64::try_from(request.size).unwrap_or(0) {
            0 => size,
            wanted => start.saturating_add(wanted).min(size),
        };
        let proof = match (blob.is_proven(), (start, end) == (0, size)) {
            (true, _) => Proving::Nothing,
            (false, true) => Proving::OnTheWay(Box::new(blob.begin_proof())),
            (false, false) => Proving::Before,
        };
        Ok(Reading {
            proof,
            blob: Arc::new(blob),
            turns: turns::own(),
            start,
            at: start,
            end,
            sent: Bytes::new(),
            waiting: None,
        })
    }

    /// Room for the next bytes.
    fn room(&mut self) -> BytesMut {
        let left = usize::try_from(self.end - self.at).unwrap_or(CHUNK);
        let length = left.min(CHUNK);
        match std::mem::take(&mut self.sent).try_into_mut() {
            Ok(mut room) => {
                room.resize(length, 0);
                room
            }
            Err(_) => BytesMut::zeroed(length),
        }
    }

    fn next(&mut self) -> Next {
        let (mut room, at) = (self.room(), self.at);
        let before = matches!(self.proof, Proving::Before);
        let here = match before {
            true => Ok(None),
            false => self.blob.read_at_once(&mut room, at),
        };
        match here {
            Ok(Some(read)) => Next::Here(taken(&self.blob, room, read)),
            Ok(None) => {
                if before {
                    self.proof = Proving::Nothing;
                }
                let blob = self.blob.clone();
                let read = blocking(move || {
                    if before {
                        blob.prove().map_err(|err| failed(&blob, &err))?;
                    }
                    let read = read_at(&blob, &mut room, at).map_err(|err| failed(&blob, &err))?;
                    taken(&blob, room, read)
                });
                Next::Later(Box::pin(turns::during(self.turns.clone(), read)))
            }
            Err(err) => Next::Here(Err(failed(&self.blob, &err))),
        }
    }
}

fn read_at(blob: &Blob, room: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match blob.read_at(room, at) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// What was read of a blob that goes on here.
fn taken(blob: &Blob, mut room: BytesMut, read: usize) -> Result<Bytes, Status> {
    if read == 0 {
        let text = format!("{} is cut", blob.digest());
        return Err(with(ErrorKind::DataLoss, text));
    }
    room.truncate(read);
    Ok(room.freeze())
}

fn failed(blob: &Blob, err: &io::Error) -> Status {
    let kind = match err.kind() {
        io::ErrorKind::InvalidData => ErrorKind::DataLoss,
        _ => ErrorKind::Internal,
    };
    with(kind, format!("read {}: {err}", blob.digest()))
}

impl Stream for Reading {
    type Item = Result<ReadContentResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.at >= this.end {
            return Poll::Ready(None);
        }
        let read = loop {
            if let Some(waiting) = &mut this.waiting {
                let read = ready!(waiting.as_mut().poll(cx));
                this.waiting = None;
                break read;
            }
            match this.next() {
                Next::Here(read) => break read,
                Next::Later(waiting) => this.waiting = Some(waiting),
            }
        };
        let data = read.and_then(|data| {
            if let Proving::OnTheWay(proof) = &mut this.proof {
                let proven = this.blob.prove_piece(proof, &data);
                proven.map_err(|err| failed(&this.blob, &err))?;
            }
            Ok(data)
        });
        let data = match data {
            Ok(data) => data,
            Err(status) => {
                this.at = this.end;
                return Poll::Ready(Some(Err(status)));
            }
        };
        let offset = convert::signed(this.at - this.start);
        this.at += data.len() as u64;
        this.sent = data.clone();
        Poll::Ready(Some(Ok(ReadContentResponse { offset, data })))
    }
}
