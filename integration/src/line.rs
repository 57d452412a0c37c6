//! A line to a server that breaks where it is told, whatever is spoken on it: TLS as well.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::http::Listener;

/// The line, for as long as it is kept.
pub struct Line {
    listener: Listener,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    passed: AtomicU64,
    /// Bytes after which it breaks; `u64::MAX` when it does not.
    breaks_at: AtomicU64,
}

impl Line {
    /// One that holds.
    pub fn to(address: SocketAddr) -> Line {
        let shared = Arc::new(Shared {
            to: address,
            passed: AtomicU64::new(0),
            breaks_at: AtomicU64::new(u64::MAX),
        });
        let carrying = Arc::clone(&shared);
        let listener = Listener::start(move |stream| carrying.carry(&stream));
        Line { listener, shared }
    }

    /// Host and port, as they stand before a repository's name.
    pub fn host(&self) -> String {
        self.listener.address().to_string()
    }

    /// Bytes that went either way.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }

    /// Breaks the connection by which so many more bytes have gone, once.
    pub fn break_after(&self, bytes: u64) {
        let at = self.passed() + bytes;
        self.shared.breaks_at.store(at, Ordering::SeqCst);
    }

    /// Whether it has broken since it was to.
    pub fn has_broken(&self) -> bool {
        self.shared.breaks_at.load(Ordering::SeqCst) == u64::MAX
    }
}

impl Shared {
    /// Both ways, until either side ends.
    fn carry(&self, client: &TcpStream) {
        let Ok(server) = TcpStream::connect(self.to) else {
            return;
        };
        let broken = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| self.pass(client, &server, &broken));
            self.pass(&server, client, &broken);
        });
    }

    fn pass(&self, mut from: &TcpStream, mut to: &TcpStream, broken: &AtomicBool) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(got @ 1..) = from.read(&mut buffer) {
            let passed = self.passed.fetch_add(got as u64, Ordering::SeqCst) + got as u64;
            let at = self.breaks_at.load(Ordering::SeqCst);
            let breaks = passed > at
                && self
                    .breaks_at
                    .compare_exchange(at, u64::MAX, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok();
            if breaks {
                broken.store(true, Ordering::SeqCst);
            }
            if broken.load(Ordering::SeqCst) || to.write_all(&buffer[..got]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
