//! A proxy before a registry that breaks what passes through it as a script says, and counts the rest.
//!
//! It speaks HTTP/1.1 on both sides and leaves the name of the host as the client wrote it, so that a
//! registry sends its clients back to the proxy. Each request has a connection of its own to the registry;
//! connections of clients stay open as clients like.

mod broken;
mod exchange;
mod log;

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

pub use broken::{Fault, Script, limit, storm, times};
pub use log::{Seen, What};

use crate::http::Listener;

/// The proxy, for as long as it is kept.
pub struct Proxy {
    listener: Listener,
    shared: Arc<Shared>,
}

/// What its connections have in common.
struct Shared {
    upstream: SocketAddr,
    script: Mutex<Box<Script>>,
    /// Bytes a second of each connection's answers; 0 for as many as come.
    rate: AtomicU64,
    log: Mutex<Vec<Seen>>,
    connections: Gauge,
    blobs: Gauge,
    uploads: Gauge,
    /// Uploads that have to be there at once before any goes on.
    together: AtomicUsize,
    /// Requests go on whole.
    whole: AtomicBool,
}

impl Proxy {
    /// Starts one that lets everything pass.
    pub fn start(upstream: SocketAddr) -> Proxy {
        let shared = Arc::new(Shared {
            upstream,
            script: Mutex::new(Box::new(|_| None)),
            rate: AtomicU64::new(0),
            log: Mutex::default(),
            connections: Gauge::default(),
            blobs: Gauge::default(),
            uploads: Gauge::default(),
            together: AtomicUsize::new(0),
            whole: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        let listener = Listener::start(move |stream| serving.serve(&stream));
        Proxy { listener, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Host and port, as they stand before a repository's name.
    pub fn host(&self) -> String {
        self.address().to_string()
    }

    /// The same by another name, as another host would have it.
    pub fn other_host(&self) -> String {
        format!("localhost:{}", self.address().port())
    }

    /// Decides about each request from now on.
    pub fn script(&self, script: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        *lock(&self.shared.script) = Box::new(script);
    }

    /// Lets everything pass from now on.
    pub fn heal(&self) {
        self.script(|_| None);
    }

    /// Bytes a second of each connection from now on; 0 for as many as come.
    pub fn throttle(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::SeqCst);
    }

    /// Forgets what it has counted.
    pub fn forget(&self) {
        lock(&self.shared.log).clear();
        self.shared.connections.forget();
        self.shared.blobs.forget();
        self.shared.uploads.forget();
    }

    /// The registry hears only of requests that have come whole, as behind nginx
    /// (`proxy_request_buffering`).
    pub fn hold_requests(&self) {
        self.shared.whole.store(true, Ordering::SeqCst);
    }

    /// No upload goes on before so many have been there at once. Whoever sends fewer waits for a while.
    pub fn gather_uploads(&self, count: usize) {
        self.shared.together.store(count, Ordering::SeqCst);
    }

    /// All requests that have begun, in order.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.log).clone()
    }

    /// Requests for a blob's bytes by its digest; all of them without one.
    pub fn fetches(&self, digest: Option<&str>) -> usize {
        let seen = self.seen();
        let blobs = seen.iter().filter(|seen| seen.is_fetch());
        blobs
            .filter(|seen| digest.is_none_or(|digest| seen.path.ends_with(digest)))
            .count()
    }

    /// Bytes of blobs that went to clients.
    pub fn blob_bytes(&self) -> u64 {
        let seen = self.seen();
        let blobs = seen.iter().filter(|seen| seen.is_fetch());
        blobs.map(|seen| seen.sent).sum()
    }

    /// Bytes of blobs that came from clients.
    pub fn uploaded_bytes(&self) -> u64 {
        let seen = self.seen();
        let uploads = seen.iter().filter(|seen| seen.what == What::Upload);
        uploads.map(|seen| seen.received).sum()
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.shared.connections.now.load(Ordering::SeqCst)
    }

    /// The most connections that were open at once.
    pub fn peak_connections(&self) -> usize {
        self.shared.connections.peak()
    }

    /// Blobs that are on their way.
    pub fn fetching(&self) -> usize {
        self.shared.blobs.now.load(Ordering::SeqCst)
    }

    /// The most blobs that were on their way at once.
    pub fn peak_fetches(&self) -> usize {
        self.shared.blobs.peak()
    }

    /// The most uploads whose bytes were on their way at once.
    pub fn peak_uploads(&self) -> usize {
        self.shared.uploads.peak()
    }

    /// How many faults came to pass.
    pub fn faults(&self) -> usize {
        self.seen()
            .iter()
            .filter(|seen| seen.fault.is_some())
            .count()
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) {
        let _open = self.connections.enter();
        // Clients that leave in the middle are what a test is about, or its own business.
        let _ = self.exchange(stream);
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many there are, and how many there were at most.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Gauge {
    fn enter(&self) -> Inside<'_> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
        Inside(self)
    }

    fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    fn forget(&self) {
        self.peak
            .store(self.now.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

struct Inside<'g>(&'g Gauge);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}
