//! Bytes over a stream: data one way, and the other way how much more of it may come.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proto::containerd::types::transfer::{Data, WindowUpdate};
use prost_types::Any;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tonic::{Status, Streaming};

use super::{Awaited, Gone, Outgoing, Pipe, pack, unpack, whole::gone};
use crate::chunks::Chunks;

/// What a client may send ahead of us: sixteen of the windows that containerd grants, since each costs
/// a message and a turn of the client.
const WINDOW: i32 = 16 * (64 << 10);

/// Most bytes in one message, as containerd sends them, but for the last ones of [`super::whole`].
pub(super) const DATA_MAX: usize = 32 << 10;

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

/// Bytes to a client, also as a writer for a thread that may wait. Dropped, the stream is closed, which
/// is the end of the bytes.
pub struct Sent {
    outgoing: Outgoing,
    call: Awaited,
    runtime: Handle,
    window: Arc<Window>,
    granting: JoinHandle<()>,
}

/// How much may be sent.
#[derive(Default)]
struct Window(watch::Sender<Granted>);

#[derive(Default)]
struct Granted {
    bytes: u64,
    /// Most that there ever was of them.
    most: u64,
    /// No more will be granted.
    ended: bool,
}

impl Window {
    fn change(&self, change: impl FnOnce(&mut Granted)) {
        self.0.send_modify(change);
    }

    /// Grants more.
    fn add(&self, bytes: u64) {
        self.change(|granted| {
            granted.bytes = granted.bytes.saturating_add(bytes);
            granted.most = granted.most.max(granted.bytes);
        });
    }

    /// Waits until so many bytes are granted at once; whether they are, as they may never be.
    async fn opens(&self, bytes: u64) -> bool {
        let mut granted = self.0.subscribe();
        let small = |now: &Granted| now.bytes > 0 && now.most < bytes;
        let settled = granted.wait_for(|now| now.bytes >= bytes || now.ended || small(now));
        settled.await.is_ok_and(|now| now.bytes >= bytes)
    }

    /// Takes up to so many bytes of what was granted, once anything is; nothing when that is over.
    async fn take(&self, most: usize) -> usize {
        let mut granted = self.0.subscribe();
        // The sender is here, so the wait cannot fail. What it returns locks the window.
        let _ = granted.wait_for(|now| now.bytes > 0 || now.ended).await;
        let mut taken = 0;
        self.change(|granted| {
            taken = usize::try_from(granted.bytes)
                .unwrap_or(usize::MAX)
                .min(most);
            granted.bytes -= taken as u64;
        });
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

    /// Sends some of these bytes, which are not none, as soon as the client grants any; how many.
    ///
    /// # Errors
    /// When the client grants no more, is gone, or has given up the call.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<usize, Gone> {
        self.send_up_to(bytes, DATA_MAX).await
    }

    /// The same, with so many in a message.
    pub(super) async fn send_up_to(&mut self, bytes: &[u8], most: usize) -> Result<usize, Gone> {
        let length = self.window.take(bytes.len().min(most)).await;
        if length == 0 {
            return Err(Gone);
        }
        let data = pack(&Data {
            data: bytes[..length].to_vec(),
        });
        // A client that reads nothing may be there for as long as it likes.
        tokio::select! {
            sent = self.outgoing.send(data) => sent.map(|()| length),
            () = self.call.given_up() => Err(Gone),
        }
    }

    /// Waits until the client grants so many bytes at once, but no longer than this; whether it does.
    ///
    /// # Errors
    /// When the client has given up the call.
    pub(super) async fn opens(&mut self, bytes: usize, most: Duration) -> Result<bool, Gone> {
        let opens = tokio::time::timeout(most, self.window.opens(bytes as u64));
        tokio::select! {
            opens = opens => Ok(opens.unwrap_or(false)),
            () = self.call.given_up() => Err(Gone),
        }
    }

    /// Where it waits.
    pub(super) fn runtime(&self) -> Handle {
        self.runtime.clone()
    }

    /// Waits until the client is gone, or has given up the call.
    pub async fn closed(&mut self) {
        tokio::select! {
            () = self.outgoing.closed() => {}
            () = self.call.given_up() => {}
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
        let sent = self.runtime().block_on(self.send(bytes));
        sent.map_err(|Gone| gone())
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
            window.add(more);
        }
    }
    window.change(|granted| granted.ended = true);
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;
    use crate::streams::{Id, Streams};

    /// Bytes to a client that is played by a test.
    pub(crate) struct Loose {
        pub(crate) sent: Sent,
        /// What comes to it.
        pub(crate) receiver: mpsc::Receiver<Result<Any, Status>>,
        pub(crate) window: Grants,
        /// The call goes on until this is dropped.
        pub(crate) call: Box<dyn Send + Sync>,
    }

    /// What it grants.
    pub(crate) struct Grants(Arc<Window>);

    impl Loose {
        /// Of a client that has granted nothing yet.
        pub(crate) fn new() -> Loose {
            let (sender, receiver) = mpsc::channel(1);
            let window = Arc::<Window>::default();
            let (call, awaited) = Awaited::new();
            let (granting, mut given_up) = (window.clone(), awaited.clone());
            let sent = Sent {
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
                window: window.clone(),
                granting: tokio::spawn(async move {
                    given_up.given_up().await;
                    granting.change(|granted| granted.ended = true);
                }),
            };
            Loose {
                sent,
                receiver,
                window: Grants(window),
                call: Box::new(call),
            }
        }
    }

    impl Grants {
        pub(crate) fn grant(&self, bytes: u64) {
            self.0.add(bytes);
        }
    }

    #[tokio::test]
    async fn who_reads_nothing_keeps_no_call_that_was_given_up() {
        let Loose {
            mut sent,
            receiver: _unread,
            window,
            call,
        } = Loose::new();
        window.grant(1 << 20);
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
