//! Bytes over a stream: data one way, and the other way how much more of it may come.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use cairn_proto::containerd::types::transfer::{Data, WindowUpdate};
use prost_types::Any;
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};
use tonic::{Status, Streaming};

use super::{Awaited, Outgoing, Pipe, pack, unpack};
use crate::chunks::Chunks;

/// What a client may send ahead of us: sixteen of the windows that containerd grants, since each costs
/// a message and a turn of the client.
const WINDOW: i32 = 16 * (64 << 10);

/// Most bytes in one message, as containerd sends them.
const DATA_MAX: usize = 32 << 10;

/// Bytes that a client sends for a call, as a reader. Its end is where the client closes its side; a client that
/// is gone before is an error, so that nothing passes for whole that is not.
/// The client is granted more as the reader goes on.
pub fn received(pipe: Pipe, call: Awaited) -> Chunks {
    let (send, chunks) = mpsc::channel(1);
    tokio::spawn(receive(send, call, pipe));
    Chunks::new(chunks)
}

/// The stream goes before the chunks do, so that its id is free when their end is read.
async fn receive(chunks: mpsc::Sender<io::Result<Bytes>>, mut call: Awaited, mut pipe: Pipe) {
    let broken = |reason: &str| io::Error::new(io::ErrorKind::ConnectionAborted, reason.to_owned());
    let mut granted: i64 = 0;
    loop {
        if granted < i64::from(WINDOW) / 2 {
            let more = pack(&WindowUpdate { update: WINDOW });
            let sent = tokio::select! {
                sent = pipe.outgoing.send(more) => sent.is_ok(),
                () = call.given_up() => false,
                () = chunks.closed() => return,
            };
            // A client that has sent all may be gone; what it sent is still to be read.
            if sent {
                granted += i64::from(WINDOW);
            }
        }
        let next = tokio::select! {
            next = pipe.incoming.message() => next,
            () = call.given_up() => Err(Status::cancelled("the call was given up")),
            () = chunks.closed() => return,
        };
        let chunk = match next {
            // A stream that is given up looks like one whose client has sent all.
            Ok(None) if pipe.outgoing.is_closed() => Err(broken("the stream was given up")),
            Ok(None) => return,
            Ok(Some(any)) => match data(&any) {
                Some(chunk) => chunk,
                None => continue,
            },
            Err(status) => Err(broken(status.message())),
        };
        if let Ok(bytes) = &chunk {
            granted -= i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        }
        let last = chunk.is_err();
        if chunks.send(chunk).await.is_err() || last {
            return;
        }
    }
}

/// What is in a message of bytes; one of another type is passed over, as containerd does.
fn data(any: &Any) -> Option<io::Result<Bytes>> {
    Some(match unpack::<Data>(any)? {
        Ok(Data { data }) => Ok(Bytes::from(data)),
        Err(status) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            status.message().to_owned(),
        )),
    })
}

/// Bytes to a client, as a writer for a thread that may wait. Dropped, the stream is closed, which is
/// the end of the bytes.
pub struct Sent {
    outgoing: Outgoing,
    call: Awaited,
    runtime: Handle,
    window: Arc<Window>,
    granting: JoinHandle<()>,
}

/// How much may be sent.
#[derive(Default)]
struct Window {
    state: Mutex<Granted>,
    changed: Condvar,
}

#[derive(Default)]
struct Granted {
    bytes: u64,
    /// No more will be granted.
    ended: bool,
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, Granted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Granted)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Takes up to so many bytes of what was granted, once anything is; nothing when that is over.
    fn take(&self, most: usize) -> usize {
        let mut granted = self.lock();
        while granted.bytes == 0 && !granted.ended {
            let woken = self.changed.wait(granted);
            granted = woken.unwrap_or_else(PoisonError::into_inner);
        }
        let taken = usize::try_from(granted.bytes)
            .unwrap_or(usize::MAX)
            .min(most);
        granted.bytes -= taken as u64;
        taken
    }
}

impl Sent {
    /// Writes to a stream, for a call.
    pub fn new(pipe: Pipe, call: Awaited) -> Sent {
        let Pipe { incoming, outgoing } = pipe;
        let window = Arc::<Window>::default();
        let granting = tokio::spawn(grant(incoming, call.clone(), window.clone()));
        Sent {
            outgoing,
            call,
            runtime: Handle::current(),
            window,
            granting,
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.granting.abort();
    }
}

impl io::Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the client wants no more");
        let length = self.window.take(bytes.len().min(DATA_MAX));
        if length == 0 {
            return Err(gone());
        }
        let data = pack(&Data {
            data: bytes[..length].to_vec(),
        });
        let Sent { outgoing, call, .. } = self;
        // A client that reads nothing may be there for as long as it likes.
        let sent = self.runtime.block_on(async {
            tokio::select! {
                sent = outgoing.send(data) => sent.is_ok(),
                () = call.given_up() => false,
            }
        });
        match sent {
            true => Ok(length),
            false => Err(gone()),
        }
    }

    /// Nothing waits here.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adds what the client grants, until it is gone or wants no more.
async fn grant(mut incoming: Streaming<Any>, mut call: Awaited, window: Arc<Window>) {
    loop {
        let next = tokio::select! {
            next = incoming.message() => next,
            () = call.given_up() => break,
        };
        let Ok(Some(any)) = next else { break };
        if let Some(Ok(WindowUpdate { update })) = unpack(&any) {
            let more = u64::try_from(update).unwrap_or(0);
            window.change(|granted| granted.bytes = granted.bytes.saturating_add(more));
        }
    }
    window.change(|granted| granted.ended = true);
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::streams::{Id, Streams};

    #[tokio::test]
    async fn who_reads_nothing_keeps_no_call_that_was_given_up() {
        let (sender, _unread) = mpsc::channel(1);
        let window = Arc::<Window>::default();
        window.change(|granted| granted.bytes = 1 << 20);
        let (call, awaited) = Awaited::new();
        let mut sent = Sent {
            outgoing: Outgoing {
                sender,
                _id: Arc::new(Id {
                    streams: Streams::default(),
                    key: ("n".to_owned(), "e".to_owned()),
                    number: 1,
                }),
            },
            call: awaited,
            runtime: Handle::current(),
            window,
            granting: tokio::spawn(async {}),
        };
        let (written, first_written) = tokio::sync::oneshot::channel();
        let writing = tokio::task::spawn_blocking(move || {
            let first = sent.write(b"some").expect("there is room for one");
            written.send(()).expect("awaited");
            (first, sent.write(b"more").map_err(|err| err.kind()))
        });
        first_written.await.expect("written");
        drop(call);
        let (first, more) = writing.await.expect("no panic");
        assert_eq!((first, more), (4, Err(io::ErrorKind::BrokenPipe)));
    }
}
