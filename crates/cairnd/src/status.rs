//! Errors as clients of containerd read them.
//!
//! Stock clients take the class from the code and strip a trailing `: <class>` from the message, so a
//! message ends in its class and is printed once by them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cairn_node::Failure;
use cairn_types::{Classified, ErrorKind};
use tokio::sync::oneshot;
use tonic::{Code, Status};
use tracing::Span;

use crate::turns;

/// A failure of the node as a status.
pub fn of_failure(failure: Failure) -> Status {
    let failure = failure.bounded();
    let mut message = failure.to_string();
    for cause in &failure.causes {
        message.push_str(": ");
        message.push_str(cause);
    }
    with(failure.kind, message)
}

/// Any room's error as a status.
pub fn of(err: &(impl Classified + ?Sized)) -> Status {
    let mut message = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        let text = err.to_string();
        if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = err.source();
    }
    with(err.kind(), message)
}

/// A status of a class; the message gets its ending.
pub fn with(kind: ErrorKind, message: impl Into<String>) -> Status {
    let mut message = message.into();
    let (code, class) = code(kind);
    if !class.is_empty() && !message.ends_with(class) {
        message.push_str(": ");
        message.push_str(class);
    }
    Status::new(code, message)
}

/// What a request lacks.
pub fn missing(what: &str) -> Status {
    with(ErrorKind::InvalidArgument, format!("{what} is required"))
}

/// The class of a code, and the words that messages of it end in, for clients that take them off again.
pub fn class(code: Code) -> Option<(ErrorKind, &'static str)> {
    ErrorKind::ALL.into_iter().find_map(|kind| {
        let (known, words) = self::code(kind);
        (known == code).then_some((kind, words))
    })
}

/// The code of a class, and the words that containerd's own errors of it end in.
fn code(kind: ErrorKind) -> (Code, &'static str) {
    match kind {
        ErrorKind::AlreadyExists => (Code::AlreadyExists, "already exists"),
        ErrorKind::DataLoss => (Code::DataLoss, "data loss"),
        ErrorKind::FailedPrecondition => (Code::FailedPrecondition, "failed precondition"),
        ErrorKind::Internal => (Code::Internal, "internal"),
        ErrorKind::InvalidArgument => (Code::InvalidArgument, "invalid argument"),
        ErrorKind::NotFound => (Code::NotFound, "not found"),
        ErrorKind::Unimplemented => (Code::Unimplemented, "not implemented"),
        ErrorKind::PermissionDenied => (Code::PermissionDenied, "permission denied"),
        ErrorKind::ResourceExhausted => (Code::ResourceExhausted, "resource exhausted"),
        ErrorKind::Unavailable => (Code::Unavailable, "unavailable"),
        ErrorKind::Canceled => (Code::Cancelled, "context canceled"),
    }
}

/// Runs what may wait for a disk where it keeps nobody from being served, when it is the caller's turn.
pub async fn blocking<T, F>(work: F) -> Result<T, Status>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Status> + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    aside(Box::new(move || {
        // A caller that hangs up does not end what was begun for it.
        let _ = answer.send(work());
    }))
    .await;
    // What panicked has left its words in the log.
    answered.await.unwrap_or_else(|_| Err(given_up()))
}

/// Runs what waits for nobody, and answers a panic as [`blocking`] does.
pub(crate) fn unpanicked<T>(work: impl FnOnce() -> Result<T, Status>) -> Result<T, Status> {
    // What it had begun to change is dropped with it.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(given_up()))
}

fn given_up() -> Status {
    with(ErrorKind::Internal, "the request was given up")
}

/// Of no type, unlike what each call waits for: the machinery of tasks is compiled once.
async fn aside(work: Box<dyn FnOnce() + Send>) {
    let turn = turns::take().await;
    // What is logged there names its call as well.
    let span = Span::current();
    let ended = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let _inside = span.enter();
        work();
    });
    if let Err(err) = ended.await {
        tracing::error!("a request was given up: {err}");
    }
}
