//! What surrounds every call: who may call, an id, a span, the log line at its end, figures, and word
//! to the collector that something changed.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::sync::{Notify, watch};
use tonic::{Code, Status, body::Body, transport::server::UdsConnectInfo};
use tower::{Layer, Service};
use tracing::{Instrument, Span, debug, error, warn};

use crate::{
    maintain::Activity,
    methods::{self, Effect, Method},
    metrics::{CallFigures, Metrics},
};

/// Surrounds the calls of a server.
#[derive(Clone)]
pub struct Calls(Arc<Shared>);

struct Shared {
    methods: HashMap<String, Arc<Known>>,
    unknown: Arc<Known>,
    uids: Vec<u32>,
    activity: Arc<Activity>,
    draining: watch::Receiver<bool>,
    next: AtomicU64,
    running: AtomicUsize,
    ended: Notify,
}

struct Known {
    method: Method,
    figures: Option<CallFigures>,
}

impl Calls {
    /// Serves users in `uids`, or all when it is empty; ends endless answers when `draining` turns
    /// true.
    pub fn new(
        uids: &[u32],
        activity: Arc<Activity>,
        draining: watch::Receiver<bool>,
        metrics: Option<&Metrics>,
    ) -> Calls {
        let known = |method: Method| {
            let figures = metrics.map(|metrics| metrics.of_calls(&method));
            Arc::new(Known { method, figures })
        };
        let methods = methods::all().into_iter();
        Calls(Arc::new(Shared {
            methods: methods
                .map(|(path, method)| (path, known(method)))
                .collect(),
            unknown: known(Method::unknown()),
            uids: uids.to_vec(),
            activity,
            ..Shared::told(draining)
        }))
    }

    /// Serves the program that the server is in, which nobody collects for and which never drains: so
    /// it does not matter what a method does, and a start need not read all descriptors to know.
    pub fn inside() -> Calls {
        let (_, never) = watch::channel(false);
        Calls(Arc::new(Shared::told(never)))
    }
}

impl Shared {
    /// Serves everybody and knows no method.
    fn told(draining: watch::Receiver<bool>) -> Shared {
        let unknown = Known {
            method: Method::unknown(),
            figures: None,
        };
        Shared {
            methods: HashMap::new(),
            unknown: Arc::new(unknown),
            uids: Vec::new(),
            activity: Arc::default(),
            draining,
            next: AtomicU64::new(1),
            running: AtomicUsize::new(0),
            ended: Notify::new(),
        }
    }
}

impl Default for Calls {
    /// Serves everybody, until the end.
    fn default() -> Calls {
        let (_, never) = watch::channel(false);
        Calls::new(&[], Arc::default(), never, None)
    }
}

impl<S> Layer<S> for Calls {
    type Service = Surrounded<S>;

    fn layer(&self, inner: S) -> Surrounded<S> {
        Surrounded {
            inner,
            calls: self.clone(),
        }
    }
}

/// A service with [`Calls`] around it.
#[derive(Clone)]
pub struct Surrounded<S> {
    inner: S,
    calls: Calls,
}

type Answered = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<S> Service<Request<Body>> for Surrounded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answered {
        let call = self.calls.begin(&request);
        if let Err(refusal) = self.calls.admit(&request) {
            let answer = call.watch(refusal.into_http());
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let request = match &call.known.figures {
            Some(figures) => {
                let received = figures.received.clone();
                request.map(|body| Body::new(Counted(body, Frames::default(), received)))
            }
            None => request,
        };
        let span = call.span.clone();
        let answer = self.inner.call(request);
        let answer = async move {
            let answer = answer.await?;
            Ok(call.watch(answer))
        };
        Box::pin(answer.instrument(span))
    }
}

impl Calls {
    /// Whether no call is under way.
    pub fn are_none(&self) -> bool {
        self.0.running.load(Ordering::SeqCst) == 0
    }

    /// Waits until no call is under way.
    pub async fn none(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.are_none() {
                return;
            }
            ended.await;
        }
    }

    fn begin(&self, request: &Request<Body>) -> Call {
        let shared = self.0.clone();
        let path = request.uri().path();
        let known = shared.methods.get(path).unwrap_or(&shared.unknown).clone();
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        let header = |name| {
            let value = request.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()))
        };
        let peer = peer(request);
        // At the level of errors, so that whatever is logged inside names its call.
        let span = tracing::error_span!(
            "call",
            request = id,
            rpc = path,
            namespace = header("containerd-namespace").as_deref(),
            lease = header("containerd-lease").as_deref(),
            peer_pid = peer.and_then(|peer| peer.pid()),
            peer_uid = peer.map(|peer| peer.uid()),
        );
        if let Some(figures) = &known.figures {
            figures.started.increment(1);
        }
        shared.running.fetch_add(1, Ordering::SeqCst);
        Call {
            shared,
            known,
            span,
            began: Instant::now(),
            ended: false,
        }
    }

    /// The socket's permissions say who may open it; this says whom it is for, should they be wider.
    /// A connection inside this process has no other end to ask about.
    fn admit(&self, request: &Request<Body>) -> Result<(), Status> {
        let Some(peer) = peer(request) else {
            return Ok(());
        };
        let uid = peer.uid();
        let own = rustix::process::geteuid().as_raw();
        if self.0.uids.is_empty() || self.0.uids.contains(&uid) || uid == own {
            return Ok(());
        }
        let text = format!("user {uid} is not served here: permission denied");
        Err(Status::permission_denied(text))
    }
}

fn peer(request: &Request<Body>) -> Option<tokio::net::unix::UCred> {
    request.extensions().get::<UdsConnectInfo>()?.peer_cred
}

/// A call that has begun. One that is dropped before its end was given up by the client.
struct Call {
    shared: Arc<Shared>,
    known: Arc<Known>,
    span: Span,
    began: Instant,
    ended: bool,
}

impl Call {
    fn watch(mut self, answer: Response<Body>) -> Response<Body> {
        if let Some(status) = Status::from_header_map(answer.headers()) {
            self.end(status.code(), status.message());
            return answer;
        }
        let draining = self.known.method.endless.then(|| {
            let mut draining = self.shared.draining.clone();
            let told: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
                // A server that cannot be told to drain never drains.
                if draining.wait_for(|draining| *draining).await.is_err() {
                    std::future::pending().await
                }
            });
            told
        });
        answer.map(|body| {
            Body::new(Answer {
                body,
                call: self,
                draining,
                frames: Frames::default(),
            })
        })
    }

    fn end(&mut self, code: Code, message: &str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.began.elapsed();
        let ms = took.as_secs_f64() * 1e3;
        let _inside = self.span.enter();
        let name = code_name(code);
        match code {
            Code::Ok => debug!(code = name, ms, "answered"),
            Code::Internal | Code::Unknown | Code::DataLoss | Code::ResourceExhausted => {
                error!(code = name, ms, "{message}");
            }
            Code::PermissionDenied => warn!(code = name, ms, "{message}"),
            _ => debug!(code = name, ms, "{message}"),
        }
        if let Some(figures) = &self.known.figures {
            figures.handled(code, took);
        }
        let effect = self.known.method.effect;
        // What was begun goes on without its client, or leaves what it had made by then.
        let happened = matches!(code, Code::Ok | Code::Cancelled);
        if happened && effect != Effect::None {
            self.shared.activity.changed(effect == Effect::Removal);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled, "the client gave it up");
        if self.shared.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.ended.notify_waiters();
        }
    }
}

/// As Go's gRPC writes it, and so every dashboard.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// The body of an answer, which knows how the call ends.
struct Answer {
    body: Body,
    call: Call,
    draining: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    frames: Frames,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = {
            let _inside = this.call.span.enter();
            Pin::new(&mut this.body).poll_frame(cx)
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(data), Some(figures)) = (frame.data_ref(), &this.call.known.figures) {
                    figures.sent.increment(this.frames.messages(data));
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.end(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(status))) => {
                this.call.end(status.code(), status.message());
                Poll::Ready(Some(Err(status)))
            }
            Poll::Ready(None) => {
                this.call.end(Code::Unknown, "the answer has no status");
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(draining) = &mut this.draining else {
                    return Poll::Pending;
                };
                ready!(draining.as_mut().poll(cx));
                this.draining = None;
                let status = Status::unavailable("the daemon is stopping: unavailable");
                let mut trailers = HeaderMap::new();
                if let Err(status) = status.add_header(&mut trailers) {
                    return Poll::Ready(Some(Err(status)));
                }
                this.end(&trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Answer {
    fn end(&mut self, trailers: &HeaderMap) {
        match Status::from_header_map(trailers) {
            Some(status) => self.call.end(status.code(), status.message()),
            None => self.call.end(Code::Unknown, "the answer has no status"),
        }
    }
}

/// The body of a request, whose messages are counted.
struct Counted(Body, Frames, metrics::Counter);

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = ready!(Pin::new(&mut this.0).poll_frame(cx));
        if let Some(Ok(frame)) = &polled
            && let Some(data) = frame.data_ref()
        {
            this.2.increment(this.1.messages(data));
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Counts messages by their five-byte heads, however these are cut into frames.
#[derive(Default)]
struct Frames {
    head: [u8; 5],
    have: usize,
    left: usize,
}

impl Frames {
    /// How many messages begin (their head is whole) in `data`.
    fn messages(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(data.len());
                self.left -= skipped;
                data = &data[skipped..];
                continue;
            }
            let taken = (self.head.len() - self.have).min(data.len());
            self.head[self.have..self.have + taken].copy_from_slice(&data[..taken]);
            self.have += taken;
            data = &data[taken..];
            if self.have == self.head.len() {
                let [_, a, b, c, d] = self.head;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.have = 0;
                begun += 1;
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut bytes = Vec::new();
        for len in [0_u8, 3, 0, 200] {
            bytes.extend([0, 0, 0, 0, len]);
            bytes.extend(vec![0xff; usize::from(len)]);
        }
        for cut in 1..bytes.len() {
            let mut frames = Frames::default();
            let begun: u64 = bytes.chunks(cut).map(|data| frames.messages(data)).sum();
            assert_eq!(begun, 4, "cut every {cut} bytes");
        }
    }
}
