//! What surrounds every call: who may call, an id, a span, the log line at its end, figures, how large
//! its messages are, a refusal to change a store that is read-only, and word to the collector that
//! something changed.

mod body;
mod deadline;
mod frames;
mod subject;

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use cairn_node::Node;
use http::{Request, Response};
use tokio::sync::{Notify, watch};
use tonic::{Code, Status, body::Body};
use tracing::{Instrument, Span, debug, error, field::Empty, warn};

use self::body::{Answer, Question};
pub(crate) use self::subject::{about, keep};
use crate::{
    details,
    incoming::Peer,
    limits::Limits,
    maintain::Activity,
    methods::{self, Effect, Method},
    metrics::{CallFigures, Metrics, Socket},
    routes::Routes,
    status::of_failure,
    streams::Idle,
    traces, turns,
};

/// Services of ours, whose clients take a failure with all its parts.
const OWN: &str = "cairn.v1.";

/// Surrounds the calls of a server.
#[derive(Clone)]
pub struct Calls(Arc<Shared>);

struct Shared {
    methods: HashMap<String, Arc<Known>>,
    unknown: Arc<Known>,
    uids: Vec<u32>,
    /// The server's own user.
    own: u32,
    limits: Limits,
    node: Option<Node>,
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

/// What [`Calls`] go by.
pub struct Rules<'r> {
    /// Users that are served; all when it is empty.
    pub uids: &'r [u32],
    /// How much one client may ask for.
    pub limits: Limits,
    /// Told of changes.
    pub activity: Arc<Activity>,
    /// Endless answers end when it turns true.
    pub draining: watch::Receiver<bool>,
    /// Counts, for calls on this socket.
    pub metrics: Option<(&'r Metrics, Socket)>,
    /// Changes are refused when its store has turned read-only.
    pub node: Option<Node>,
}

impl Default for Rules<'_> {
    /// Serves everybody, until the end.
    fn default() -> Self {
        let (_, never) = watch::channel(false);
        Rules {
            uids: &[],
            limits: Limits::default(),
            activity: Arc::default(),
            draining: never,
            metrics: None,
            node: None,
        }
    }
}

impl Calls {
    /// By these rules.
    pub fn new(rules: Rules<'_>) -> Calls {
        let known = |method: Method| {
            let figures = rules.metrics;
            let figures = figures.map(|(metrics, socket)| metrics.of_calls(&method, socket));
            Arc::new(Known { method, figures })
        };
        let methods = methods::all().into_iter();
        let methods = methods
            .map(|(path, method)| (path, known(method)))
            .collect();
        let unknown = known(Method::unknown());
        Calls(Arc::new(Shared {
            methods,
            unknown,
            ..Shared::by(rules)
        }))
    }

    /// Serves the program that the server is in, which nobody collects for and which never drains: so
    /// it does not matter what a method does, and a start need not read all descriptors to know.
    pub fn inside() -> Calls {
        Calls(Arc::new(Shared::by(Rules::default())))
    }

    /// How much one client may ask for.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }
}

impl Shared {
    /// That knows no method.
    fn by(rules: Rules<'_>) -> Shared {
        let unknown = Known {
            method: Method::unknown(),
            figures: None,
        };
        Shared {
            methods: HashMap::new(),
            unknown: Arc::new(unknown),
            uids: rules.uids.to_vec(),
            own: rustix::process::geteuid().as_raw(),
            limits: rules.limits,
            node: rules.node,
            activity: rules.activity,
            draining: rules.draining,
            next: AtomicU64::new(1),
            running: AtomicUsize::new(0),
            ended: Notify::new(),
        }
    }
}

impl Default for Calls {
    fn default() -> Calls {
        Calls::new(Rules::default())
    }
}

/// An answer on its way.
pub(crate) type Answered = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl Calls {
    /// Answers a request by one of the services.
    pub(crate) fn answer(&self, routes: &Routes, request: Request<Body>) -> Answered {
        let call = self.begin(&request);
        if let Err(refusal) = self.admit(&request, &call.known.method) {
            let answer = call.watch(refusal.into_http());
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let peer = request.extensions().get::<Peer>();
        let turns = peer.and_then(|peer| peer.turns.clone());
        let limit = deadline::of(request.headers());
        let counters = call.known.figures.as_ref();
        let counters = counters.map(|figures| figures.received());
        let max = self.0.limits.receive_bytes;
        let request = request.map(|body| Body::new(Question::new(body, max, counters)));
        let span = call.span.clone();
        let answer = deadline::within(limit, routes.serve(request));
        let answer = turns::during(turns, answer);
        let answer = async move {
            let answer = answer.await?;
            Ok(call.watch(answer))
        };
        Box::pin(answer.instrument(span))
    }

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
            // Known when the request is read; see [`about`].
            image = Empty,
            digest = Empty,
            key = Empty,
            ingest = Empty,
            container = Empty,
        );
        traces::begin(&span, request.headers(), path);
        if let Some(figures) = &known.figures {
            figures.begun();
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

    fn admit(&self, request: &Request<Body>, method: &Method) -> Result<(), Status> {
        self.serves(request)?;
        // One answer for all that is broken, with the sentence that says what to do; the rooms refuse
        // only what their own part of the store cannot do any more.
        let broken = || self.0.node.as_ref()?.read_only();
        let changes = matches!(method.effect, Effect::Change | Effect::Removal);
        let Some(failure) = changes.then(broken).flatten() else {
            return Ok(());
        };
        Err(match method.service.starts_with(OWN) {
            true => details::of(failure),
            false => of_failure(failure),
        })
    }

    /// The socket's permissions say who may open it; this says whom it is for, should they be wider.
    /// A connection inside this process has no other end to ask about.
    fn serves(&self, request: &Request<Body>) -> Result<(), Status> {
        let Some(peer) = peer(request) else {
            return Ok(());
        };
        let uid = peer.uid();
        if self.0.uids.is_empty() || self.0.uids.contains(&uid) || uid == self.0.own {
            return Ok(());
        }
        let text = format!("user {uid} is not served here: permission denied");
        Err(Status::permission_denied(text))
    }
}

fn peer(request: &Request<Body>) -> Option<tokio::net::unix::UCred> {
    request.extensions().get::<Peer>()?.cred
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
        let idle = answer.extensions().get::<Idle>().cloned();
        answer.map(|body| Body::new(Answer::new(body, self, idle)))
    }

    fn end(&mut self, code: Code, message: &str) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        traces::end(&self.span, code, message);
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
        let happened = matches!(code, Code::Ok | Code::Cancelled | Code::DeadlineExceeded);
        if happened && effect != Effect::None {
            self.shared.activity.changed(effect != Effect::Change);
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
