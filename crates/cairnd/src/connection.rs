//! One connection: HTTP/2 as blobs want it, and calls that are answered where they come in.
//!
//! A look at a record is over sooner than another thread is awake to do it. So a call is begun in the
//! task of its connection, which has its message as a rule, and nearly every look ends there: its
//! answer leaves with the same write that others' answers do. Only a call that has to wait, for a disk
//! or for more of the request, gets a task of its own. While a look has to wait for a disk after all, the
//! other calls of its connection wait with it; those of other clients have a worker left by `turns`.

mod awake;
mod gather;

use std::{
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::{Context, Poll, Waker},
};

use http::{Request, Response};
use hyper::{body::Incoming, rt::Executor, server::conn::http2::Builder, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tonic::body::Body;
use tracing::debug;

use self::{awake::Awake, gather::gathered};
use crate::{
    calls::{Answered, Calls},
    incoming::Peer,
    limits::Limits,
    routes::Routes,
};

/// Serves one client until it hangs up, or until `closing` changes and what is under way has ended.
pub(crate) fn serve<IO>(
    stream: IO,
    peer: Option<Peer>,
    routes: &Routes,
    calls: &Calls,
    mut closing: watch::Receiver<()>,
) -> impl Future<Output = ()> + Send + 'static
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = Served {
        routes: routes.clone(),
        calls: calls.clone(),
        peer,
    };
    let builder = http2(calls.limits());
    let connection = async move |stream| {
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), served));
        let ended = tokio::select! {
            ended = &mut connection => ended,
            // Also when nobody is left who could say so.
            _ = closing.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(err) = ended {
            debug!("a connection broke: {err}");
        }
    };
    Awake::new(gathered(stream, |stream| Box::pin(connection(stream))))
}

/// HTTP/2 as blobs want it.
fn http2(limits: &Limits) -> Builder<AtOnce> {
    let mut builder = Builder::new(AtOnce);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval((!limits.keepalive.is_zero()).then_some(limits.keepalive))
        .keep_alive_timeout(limits.keepalive_timeout)
        // Blobs come in large frames; with the defaults of HTTP/2 a sender waits after each 64 KiB.
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(1 << 20)
        // No client of gRPC reads it, and each call would pay for it.
        .auto_date_header(false);
    builder
}

/// Begins what it is given at once, and makes a task only of what has to wait.
#[derive(Clone, Copy)]
struct AtOnce;

impl<F> Executor<F> for AtOnce
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let mut call = Box::pin(call);
        // Nobody need be woken: what waits is asked again, by the task that it becomes. A panic ends
        // the call, as it would end a task, and not the connection with all its other calls.
        let mut nobody = Context::from_waker(Waker::noop());
        let begun = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut nobody)));
        if let Ok(Poll::Pending) = begun {
            tokio::spawn(call);
        }
    }
}

/// What a connection's calls are answered by.
struct Served {
    routes: Routes,
    calls: Calls,
    peer: Option<Peer>,
}

impl Service<Request<Incoming>> for Served {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answered;

    fn call(&self, request: Request<Incoming>) -> Answered {
        let mut request = request.map(Body::new);
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        self.calls.answer(&self.routes, request)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_need_not_wait_is_over_at_once() {
        let done = Arc::new(AtomicUsize::new(0));
        let count = done.clone();
        AtOnce.execute(async move {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_has_to_wait_goes_on_by_itself() {
        let (tell, told) = oneshot::channel::<u32>();
        let (answer, answered) = oneshot::channel();
        AtOnce.execute(async move {
            let _ = answer.send(told.await);
        });
        tell.send(7).expect("it waits");
        assert_eq!(answered.await.expect("an answer"), Ok(7));
    }

    /// As it would with a task of its own.
    #[tokio::test]
    async fn a_panic_ends_nothing_else() {
        AtOnce.execute(async { panic!("on purpose") });
        let (tell, told) = oneshot::channel::<()>();
        let (held, dropped) = oneshot::channel::<()>();
        AtOnce.execute(async move {
            let _held = held;
            let _ = told.await;
            panic!("on purpose");
        });
        tell.send(()).expect("it waits");
        assert!(dropped.await.is_err(), "it is gone");
    }
}
