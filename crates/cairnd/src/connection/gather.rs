//! What a connection writes in one turn, written as one.
//!
//! HTTP/2 flushes after each frame of data, and most clients take frames of 16 KiB at most: so a blob would
//! leave by a system call, and wake its reader, for each 16 KiB, and an answer of some length by two. But
//! nobody sees less of it sooner when it leaves at the end of the turn, or as soon as there is much of it.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much is gathered: the frames of one message of a blob.
const MUCH: usize = 136 << 10;
/// A connection that had less to say in its turn keeps no room for more.
const LITTLE: usize = 8 << 10;

/// A stream whose writes wait for [`Gathered`]. Only one task may hold it and that.
pub(super) struct Gather<IO>(Arc<Mutex<Inner<IO>>>);

struct Inner<IO> {
    stream: IO,
    written: Vec<u8>,
    /// How much of it has left already.
    left: usize,
    /// How much was gathered in this turn.
    turn: usize,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Inner<IO> {
    /// Writes what was gathered.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.left < self.written.len() {
            let stream = Pin::new(&mut self.stream);
            let count = ready!(stream.poll_write(context, &self.written[self.left..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.left += count;
        }
        self.written.clear();
        self.left = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if self.written.len() + length > MUCH {
            ready!(self.poll_out(context))?;
            if length > MUCH {
                return Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
            }
        }
        for piece in pieces {
            self.written.extend_from_slice(piece);
        }
        self.turn += length;
        Poll::Ready(Ok(length))
    }

    /// Ends a turn.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let turn = std::mem::take(&mut self.turn);
        ready!(self.poll_out(context))?;
        if turn < LITTLE && self.written.capacity() > LITTLE {
            self.written = Vec::new();
        }
        self.stream_flush(context)
    }

    fn stream_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
}

impl<IO> Gather<IO> {
    fn inner(&self) -> MutexGuard<'_, Inner<IO>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner().stream).poll_read(context, buffer)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gather<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Left to the end of the turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        ready!(inner.poll_out(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }
}

/// What uses a [`Gather`], after each of whose turns what it wrote leaves.
pub(super) struct Gathered<IO, F> {
    stream: Gather<IO>,
    future: F,
}

/// What `user` makes of a stream whose writes leave by turns.
pub(super) fn gathered<IO, F>(stream: IO, user: impl FnOnce(Gather<IO>) -> F) -> Gathered<IO, F> {
    let inner = Arc::new(Mutex::new(Inner {
        stream,
        written: Vec::new(),
        left: 0,
        turn: 0,
    }));
    Gathered {
        stream: Gather(inner.clone()),
        future: user(Gather(inner)),
    }
}

impl<IO, F> Future for Gathered<IO, F>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: Future + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let gathered = self.get_mut();
        let polled = Pin::new(&mut gathered.future).poll(context);
        // Where it cannot leave now, this task is woken when it can. An error is met by the next write, or
        // by a read as the connection's end.
        let _ = gathered.stream.inner().poll_turn(context);
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker};

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Takes as many bytes as it has room for, and remembers what came by which write.
    #[derive(Default)]
    struct Pipe {
        room: usize,
        writes: Vec<Vec<u8>>,
        shut: bool,
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Pipe>>);

    impl Shared {
        fn with_room(room: usize) -> Shared {
            let pipe = Shared::default();
            pipe.pipe().room = room;
            pipe
        }

        fn pipe(&self) -> MutexGuard<'_, Pipe> {
            self.0.lock().expect("no test panics with it")
        }

        fn bytes(&self) -> Vec<u8> {
            self.pipe().writes.concat()
        }
    }

    impl AsyncRead for Shared {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Shared {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let mut pipe = self.pipe();
            let count = bytes.len().min(pipe.room);
            if count == 0 {
                return Poll::Pending;
            }
            pipe.room -= count;
            pipe.writes.push(bytes[..count].to_vec());
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.pipe().shut = true;
            Poll::Ready(Ok(()))
        }
    }

    fn turn(task: &mut (impl Future<Output = ()> + Unpin)) -> Poll<()> {
        Pin::new(task).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_one_turn_writes_and_flushes_leaves_as_one_write() {
        let pipe = Shared::with_room(usize::MAX);
        let mut task = gathered(pipe.clone(), |mut stream| {
            Box::pin(async move {
                for frame in [&b"head"[..], b"body", b"end"] {
                    stream.write_all(frame).await.expect("there is room");
                    stream.flush().await.expect("nothing is done");
                }
                std::future::pending::<()>().await;
            })
        });
        assert!(turn(&mut task).is_pending());
        assert_eq!(pipe.pipe().writes, [b"headbodyend"]);
    }

    #[test]
    fn no_more_is_gathered_than_much_and_nothing_is_lost() {
        let sent: Vec<u8> = (0..251).cycle().take(MUCH * 3).collect();
        let pipe = Shared::with_room(0);
        let taken = Arc::new(Mutex::new(0));
        let (bytes, count) = (sent.clone(), taken.clone());
        let mut task = gathered(pipe.clone(), |mut stream| {
            Box::pin(async move {
                for frame in bytes.chunks(1000) {
                    stream.write_all(frame).await.expect("it does not break");
                    *count.lock().expect("alone") += frame.len();
                }
                stream.shutdown().await.expect("it does not break");
            })
        });
        assert!(turn(&mut task).is_pending());
        assert!(*taken.lock().expect("alone") <= MUCH);
        assert!(pipe.bytes().is_empty());
        let mut turns = 0;
        while turn(&mut task).is_pending() {
            pipe.pipe().room += 10_001;
            turns += 1;
            assert!(turns < 100, "it hangs");
        }
        assert!(pipe.pipe().shut);
        assert_eq!(pipe.bytes(), sent);
    }

    #[test]
    fn it_is_shut_behind_the_last_byte() {
        let pipe = Shared::with_room(2);
        let mut task = gathered(pipe.clone(), |mut stream| {
            Box::pin(async move {
                stream.write_all(b"end").await.expect("it is gathered");
                stream.shutdown().await.expect("it does not break");
            })
        });
        assert!(turn(&mut task).is_pending());
        assert!(!pipe.pipe().shut);
        pipe.pipe().room = 1;
        assert!(turn(&mut task).is_ready());
        assert_eq!((pipe.bytes(), pipe.pipe().shut), (b"end".to_vec(), true));
    }

    #[test]
    fn a_large_write_is_not_copied_and_comes_behind_the_small_ones() {
        let pipe = Shared::with_room(usize::MAX);
        let large = vec![7; MUCH + 1];
        let mut task = gathered(pipe.clone(), |mut stream| {
            Box::pin(poll_fn(move |context| {
                let _ = Pin::new(&mut stream).poll_write(context, b"small");
                let _ = Pin::new(&mut stream).poll_write(context, &large);
                Poll::<()>::Pending
            }))
        });
        assert!(turn(&mut task).is_pending());
        let lengths: Vec<usize> = pipe.pipe().writes.iter().map(Vec::len).collect();
        assert_eq!(lengths, [5, MUCH + 1]);
    }
}
