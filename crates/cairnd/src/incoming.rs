//! Connections as they come, and how many of them there may be.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream, unix::UCred},
    time::{Sleep, sleep},
};
use tracing::{error, warn};

use crate::{limits::Limits, turns::Turns};

/// How long accepting rests when it fails for want of descriptors or memory.
const REST: Duration = Duration::from_millis(100);
/// How often it is said that it does, or that somebody has too many connections.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// The first words of HTTP/2 (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

/// Who is at the other end of a connection.
#[derive(Clone)]
pub struct Peer {
    /// As the kernel has it.
    pub cred: Option<UCred>,
    /// The turns of its process.
    pub turns: Option<Turns>,
}

/// Connections as they come. Want of descriptors makes it rest, not end.
pub struct Incoming {
    listener: UnixListener,
    quota: Quota,
    handshake: Duration,
    failed: Complaint,
    refused: Complaint,
}

/// Something that is said once in a while, however often it happens.
#[derive(Default)]
struct Complaint(Option<Instant>);

impl Complaint {
    fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|at| at.elapsed() > COMPLAIN_EVERY);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

impl Incoming {
    /// Those that `listener` accepts.
    pub fn new(listener: UnixListener, limits: &Limits) -> Incoming {
        Incoming {
            listener,
            quota: Quota::new(limits),
            handshake: limits.handshake,
            failed: Complaint::default(),
            refused: Complaint::default(),
        }
    }

    /// The next one.
    pub(crate) async fn accept(&mut self) -> Connection {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Some(connection) = self.admit(stream) {
                        return connection;
                    }
                }
                Err(err) => {
                    // It may come and go with every connection that is closed.
                    if self.failed.is_due() {
                        error!("cannot accept a connection: {err}");
                    }
                    sleep(REST).await;
                }
            }
        }
    }

    /// A connection, unless there are too many.
    fn admit(&mut self, stream: UnixStream) -> Option<Connection> {
        let cred = stream.peer_cred().ok();
        // From another namespace of processes all come with the same number, which is none.
        let pid = cred.and_then(|cred| cred.pid()).filter(|&pid| pid > 0);
        match self.quota.take(pid) {
            Ok(place) => Some(Connection {
                stream,
                peer: Peer {
                    cred,
                    turns: place.turns.clone(),
                },
                silence: Some((0, Box::pin(sleep(self.handshake)))),
                _place: place,
            }),
            // To leave them waiting would be no better: they would not know for what.
            Err(why) => {
                if self.refused.is_due() {
                    warn!(peer_pid = pid, "connections are refused: {why}");
                }
                None
            }
        }
    }
}

/// A connection that takes one of the places.
pub struct Connection {
    stream: UnixStream,
    peer: Peer,
    /// Until its first words are said: how many bytes of them were, and when it is too late.
    silence: Option<(usize, Pin<Box<Sleep>>)>,
    _place: Place,
}

impl Connection {
    /// Who is at its other end.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        let Some((said, late)) = &mut this.silence else {
            return polled;
        };
        *said += buf.filled().len() - before;
        if *said >= PREFACE_BYTES {
            this.silence = None;
        } else if polled.is_pending() && late.as_mut().poll(cx).is_ready() {
            let text = "it does not speak HTTP/2";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Places for connections.
#[derive(Clone)]
struct Quota {
    max: usize,
    per_process: usize,
    working: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_process: HashMap<i32, (usize, Turns)>,
}

/// One of the places, given back when dropped.
struct Place {
    pid: Option<i32>,
    turns: Option<Turns>,
    taken: Arc<Mutex<Taken>>,
}

impl Quota {
    fn new(limits: &Limits) -> Quota {
        Quota {
            max: limits.connections,
            per_process: limits.connections_per_process,
            working: limits.working,
            taken: Arc::default(),
        }
    }

    fn take(&self, pid: Option<i32>) -> Result<Place, String> {
        let mut taken = lock(&self.taken);
        if taken.all >= self.max {
            return Err(format!("there are {} (grpc.max_connections)", self.max));
        }
        let turns = match pid {
            None => None,
            Some(pid) => {
                let fresh = || (0, Turns::new(self.working));
                let (own, turns) = taken.by_process.entry(pid).or_insert_with(fresh);
                if *own >= self.per_process {
                    let key = "grpc.max_connections_per_process";
                    return Err(format!("process {pid} has {own} ({key})"));
                }
                *own += 1;
                Some(turns.clone())
            }
        };
        taken.all += 1;
        Ok(Place {
            pid,
            turns,
            taken: self.taken.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.all -= 1;
        let Some(pid) = self.pid else { return };
        if let Some((own, _)) = taken.by_process.get_mut(&pid) {
            *own -= 1;
            if *own == 0 {
                taken.by_process.remove(&pid);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let limits = Limits {
            connections: 3,
            connections_per_process: 2,
            ..Limits::default()
        };
        let quota = Quota::new(&limits);
        let first = quota.take(Some(7)).unwrap();
        let second = quota.take(Some(7)).unwrap();
        let full = quota.take(Some(7)).err().unwrap();
        assert!(full.contains("process 7 has 2"), "{full}");
        let other = quota.take(None).unwrap();
        assert!(other.turns.is_none());
        let full = quota.take(Some(8)).err().unwrap();
        assert!(full.contains("max_connections)"), "{full}");
        drop((first, other));
        let again = quota.take(Some(7)).unwrap();
        drop((second, again));
        assert!(lock(&quota.taken).by_process.is_empty());
        assert_eq!(lock(&quota.taken).all, 0);
    }
}
