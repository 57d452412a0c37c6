//! Buffers that are lent out: a fixed number, so whoever is ahead of the others waits for them.

use std::{
    io::{self, BufRead, Read},
    ops::Deref,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

/// Buffers of one size. They come back by themselves, so no thread has to outlive another.
pub(super) struct Pool {
    free: Receiver<Vec<u8>>,
    home: Sender<Vec<u8>>,
}

impl Pool {
    pub(super) fn new(count: usize, bytes: usize) -> Pool {
        let (home, free) = channel();
        for _ in 0..count {
            // The receiver is alive, two lines above. Zeros take no memory before they are written to.
            let _ = home.send(vec![0; bytes]);
        }
        Pool { free, home }
    }

    /// Waits for a buffer. All that are lent come back, so there always is one in the end.
    pub(super) fn take(&self) -> Option<Lent> {
        let bytes = self.free.recv().ok()?;
        Some(Lent {
            bytes,
            filled: 0,
            home: self.home.clone(),
        })
    }
}

/// A buffer, and what of it is filled. It goes back when the last who shares it is done with it.
pub(super) struct Lent {
    bytes: Vec<u8>,
    filled: usize,
    home: Sender<Vec<u8>>,
}

impl Lent {
    /// What is not filled yet.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// So much of the space is filled now.
    pub(super) fn add(&mut self, bytes: usize) {
        self.filled = (self.filled + bytes).min(self.bytes.len());
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Nobody fills any more when the pool is gone.
        let _ = self.home.send(std::mem::take(&mut self.bytes));
    }
}

/// Where buffers come from.
pub(super) trait Coming {
    /// Waits for the next one; there is none at the end.
    fn next(&mut self) -> io::Result<Option<Arc<Lent>>>;
}

/// Buffers as they come, as one stream.
pub(super) struct Stream<C> {
    coming: C,
    /// The buffer in hand, and how much of it is consumed.
    buffer: Option<Arc<Lent>>,
    consumed: usize,
    ended: bool,
}

impl<C: Coming> Stream<C> {
    pub(super) fn new(coming: C) -> Stream<C> {
        Stream {
            coming,
            buffer: None,
            consumed: 0,
            ended: false,
        }
    }

    pub(super) fn into_inner(self) -> C {
        self.coming
    }

    fn left(&self) -> &[u8] {
        match &self.buffer {
            Some(buffer) => &buffer[self.consumed..],
            None => &[],
        }
    }
}

impl<C: Coming> Read for Stream<C> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

impl<C: Coming> BufRead for Stream<C> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.ended && self.left().is_empty() {
            // It goes back before another is waited for.
            self.buffer = None;
            self.consumed = 0;
            self.buffer = self.coming.next()?;
            self.ended = self.buffer.is_none();
        }
        Ok(self.left())
    }

    fn consume(&mut self, n: usize) {
        self.consumed += n.min(self.left().len());
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_shared_buffer_comes_back_once_and_last() {
        let pool = Pool::new(1, 8);
        let mut buffer = pool.take().expect("the only one");
        buffer.space()[..3].copy_from_slice(b"abc");
        buffer.add(3);
        let shared = Arc::new(buffer);
        let other = Arc::clone(&shared);
        drop(shared);
        assert!(pool.free.try_recv().is_err(), "it is still read");
        let reader = thread::spawn(move || other.to_vec());
        // Waits until the other has read it.
        let again = pool.take().expect("it comes back");
        assert_eq!(reader.join().expect("no panic"), b"abc");
        assert!(again.is_empty(), "nothing of it is filled");
        drop(again);
        assert!(pool.free.try_recv().is_ok());
        assert!(pool.free.try_recv().is_err(), "there is no second one");
    }
}
