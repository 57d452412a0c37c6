//! `-vv`: every call, how it was answered and how long that took.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairnd::calls::code_name;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel, Error},
};
use tower::Service;
use tracing::debug;

use crate::size;

/// A channel whose calls are told.
#[derive(Clone, Debug)]
pub(super) struct Told(pub(super) Channel);

type Answered = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

impl Service<Request<Body>> for Told {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Answered;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answered {
        let mut call = Call {
            path: request.uri().path().to_owned(),
            began: Instant::now(),
            ended: false,
        };
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            call.look(answer.headers());
            Ok(answer.map(|body| Body::new(Watched { body, call })))
        })
    }
}

/// A call under way. One that is dropped before its end was given up, or its connection broke.
struct Call {
    path: String,
    began: Instant,
    ended: bool,
}

impl Call {
    /// The status comes behind the messages, or at once when there are none.
    fn look(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.end(code_name(status.code()));
        }
    }

    fn end(&mut self, how: &str) {
        if !std::mem::replace(&mut self.ended, true) {
            debug!(
                "call {}: {how} after {}",
                self.path,
                took(self.began.elapsed())
            );
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end("given up");
    }
}

/// Calls are short: below a millisecond the tenths are what differs.
fn took(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        _ => size::duration(time),
    }
}

struct Watched {
    body: Body,
    call: Call,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.call.look(trailers);
                }
            }
            Some(Err(status)) => this.call.end(code_name(status.code())),
            None => this.call.end(code_name(Code::Unknown)),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_have_tenths_of_milliseconds() {
        assert_eq!(took(Duration::from_micros(340)), "0.3 ms");
        assert_eq!(took(Duration::from_micros(9_999)), "9.9 ms");
        assert_eq!(took(Duration::from_millis(12)), "12 ms");
        assert_eq!(took(Duration::from_millis(2_400)), "2.4 s");
    }
}
