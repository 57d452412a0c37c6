//! Streams that clients open for their other calls to use: progress, archives, credentials, logs.
//!
//! A client opens one by its id, within its namespace, and then names it in a call
//! (containerd `plugins/streaming`, `core/transfer/streaming`). Of a stream of bytes whoever receives
//! grants the other how much he may send, so that neither side keeps more than that.

mod awaited;
mod bytes;
mod whole;

use std::{
    collections::{HashMap, hash_map::Entry},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use cairn_types::ErrorKind;
use prost::{Message, Name};
use prost_types::Any;
use tokio::{sync::mpsc, time::Sleep};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

#[cfg(test)]
pub(crate) use self::bytes::tests::Loose;
pub use self::{
    awaited::Awaited,
    bytes::{Sent, received},
    whole::Whole,
};
use crate::status::with;

/// Type of the message that a stream begins with.
const READY: &str = "google.protobuf.Empty";

/// Messages to a client that is slower than we are.
const AHEAD: usize = 4;

/// Namespace, which may be empty, and id.
type Key = (String, String);

/// All open streams. Clones share them.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    streams: HashMap<Key, Known>,
    opened: u64,
}

struct Known {
    /// Of all that were opened.
    number: u64,
    /// Of whoever opened it.
    lease: Option<String>,
    /// Until a call takes them.
    ends: Option<Ends>,
}

struct Ends {
    incoming: Streaming<Any>,
    outgoing: mpsc::Sender<Result<Any, Status>>,
}

/// A stream that a call has taken. Dropped, it is closed and its id is free again.
pub struct Pipe {
    /// What the client sends.
    pub incoming: Streaming<Any>,
    /// What it is sent.
    pub outgoing: Outgoing,
}

/// Where messages to a client go. With the last of its clones the stream is closed.
#[derive(Clone)]
pub struct Outgoing {
    sender: mpsc::Sender<Result<Any, Status>>,
    _id: Arc<Id>,
}

impl Outgoing {
    /// Sends a message, and waits while the client is slow.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn send(&self, message: Any) -> Result<(), Gone> {
        self.sender.send(Ok(message)).await.map_err(|_| Gone)
    }

    /// Waits until the client is gone.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Whether it is.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// The client has gone.
#[derive(Debug)]
pub struct Gone;

/// What a client is sent, until its stream is closed. Dropped with its call, it frees the id as well.
pub struct Messages {
    receiver: mpsc::Receiver<Result<Any, Status>>,
    /// When the lease ends under which it was opened.
    over: Option<Pin<Box<Sleep>>>,
    id: Id,
}

impl Messages {
    /// Closes it after this time, unless a call has taken it by then.
    pub fn end_after(&mut self, left: Duration) {
        self.over = Some(Box::pin(tokio::time::sleep(left)));
    }

    /// For whoever has to end a stream that is of no use any more.
    pub fn idle(&self) -> Idle {
        let Id {
            streams,
            key,
            number,
        } = &self.id;
        Idle {
            streams: streams.clone(),
            key: key.clone(),
            number: *number,
        }
    }
}

/// Tells whether a stream still waits for a call to take it.
#[derive(Clone)]
pub struct Idle {
    streams: Streams,
    key: Key,
    number: u64,
}

impl Idle {
    /// Whether it does.
    pub fn is_idle(&self) -> bool {
        let open = self.streams.lock();
        let known = open.streams.get(&self.key);
        known.is_some_and(|known| known.number == self.number && known.ends.is_some())
    }
}

impl Stream for Messages {
    type Item = Result<Any, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let over = self.over.as_mut().map(|over| over.as_mut().poll(context));
        if over.is_some_and(|over| over.is_ready()) {
            self.over = None;
            let Id {
                streams,
                key,
                number,
            } = &self.id;
            streams.close_idle(|of, known| of == key && known.number == *number);
        }
        self.receiver.poll_recv(context)
    }
}

/// Frees an id when its stream is closed.
struct Id {
    streams: Streams,
    key: Key,
    number: u64,
}

impl Drop for Id {
    fn drop(&mut self) {
        self.streams.forget(&self.key, self.number);
    }
}

impl Streams {
    /// Makes a stream known, until its `lease` is deleted if it has one. Its first message is that it
    /// is known.
    ///
    /// # Errors
    /// `AlreadyExists` while another has the id.
    pub fn open(
        &self,
        key: Key,
        lease: Option<String>,
        incoming: Streaming<Any>,
    ) -> Result<Messages, Status> {
        let (outgoing, receiver) = mpsc::channel(AHEAD);
        let ready = Any {
            type_url: READY.to_owned(),
            value: Vec::new(),
        };
        // It is empty still.
        let _ = outgoing.try_send(Ok(ready));
        let mut open = self.lock();
        open.opened += 1;
        let number = open.opened;
        match open.streams.entry(key.clone()) {
            Entry::Occupied(_) => {
                let message = format!("stream {:?}", key.1);
                Err(with(ErrorKind::AlreadyExists, message))
            }
            Entry::Vacant(vacant) => {
                let ends = Some(Ends { incoming, outgoing });
                vacant.insert(Known {
                    number,
                    lease,
                    ends,
                });
                let streams = self.clone();
                let id = Id {
                    streams,
                    key,
                    number,
                };
                Ok(Messages {
                    receiver,
                    over: None,
                    id,
                })
            }
        }
    }

    /// Takes a stream for a call.
    ///
    /// # Errors
    /// `NotFound` when the namespace has none of this id, or another call has it.
    pub fn take(&self, ns: &str, id: &str) -> Result<Pipe, Status> {
        let key = (ns.to_owned(), id.to_owned());
        let taken = {
            let mut open = self.lock();
            let known = open.streams.get_mut(&key);
            known.and_then(|known| Some((known.number, known.ends.take()?)))
        };
        let Some((number, ends)) = taken else {
            return Err(with(ErrorKind::NotFound, format!("stream {id:?}")));
        };
        let Ends { incoming, outgoing } = ends;
        let streams = self.clone();
        let _id = Arc::new(Id {
            streams,
            key,
            number,
        });
        let outgoing = Outgoing {
            sender: outgoing,
            _id,
        };
        Ok(Pipe { incoming, outgoing })
    }

    /// Closes what was opened under a lease that is no more. A stream that a call has taken is closed
    /// with the call: what is under way comes to its end.
    pub fn let_go(&self, ns: &str, lease: &str) {
        self.close_idle(|(of, _), known| of == ns && known.lease.as_deref() == Some(lease));
    }

    /// Closes those of the streams that no call has taken.
    fn close_idle(&self, which: impl Fn(&Key, &Known) -> bool) {
        let mut open = self.lock();
        let left = open
            .streams
            .extract_if(|key, known| known.ends.is_some() && which(key, known));
        let left: Vec<_> = left.collect();
        drop(open);
        drop(left);
    }

    fn forget(&self, key: &Key, number: u64) {
        let mut open = self.lock();
        let mine = open.streams.get(key).map(|known| known.number) == Some(number);
        let removed = mine.then(|| open.streams.remove(key));
        drop(open);
        drop(removed);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message as containerd packs it: under its bare name.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::full_name(),
        value: message.encode_to_vec(),
    }
}

/// A message of this type; `None` when it is of another.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Option<Result<M, Status>> {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    (name == M::full_name()).then(|| {
        M::decode(&*any.value).map_err(|err| {
            let message = format!("{}: {err}", any.type_url);
            with(ErrorKind::InvalidArgument, message)
        })
    })
}
