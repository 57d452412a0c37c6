//! The bodies of calls: measured, counted, and ended in time.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use cairn_types::ErrorKind;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body};

use super::{Call, frames::Frames};
use crate::{status::with, streams::Idle};

/// The body of an answer, which knows how the call ends.
pub(super) struct Answer {
    body: Body,
    call: Call,
    draining: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    frames: Frames,
}

impl Answer {
    /// With word of whether it is a stream that nobody uses, if it is a stream.
    pub(super) fn new(body: Body, call: Call, idle: Option<Idle>) -> Answer {
        let draining = (call.known.method.endless || idle.is_some()).then(|| {
            let mut draining = call.shared.draining.clone();
            let told: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
                // A server that cannot be told to drain never drains.
                let drains = draining.wait_for(|draining| *draining).await.is_ok();
                // What is used then comes to its end with whoever uses it.
                if !drains || idle.is_some_and(|idle| !idle.is_idle()) {
                    std::future::pending().await
                }
            });
            told
        });
        Answer {
            body,
            call,
            draining,
            frames: Frames::default(),
        }
    }
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
                if let Some(data) = frame.data_ref()
                    && let Err(status) = this.sent(data)
                {
                    return this.instead(&status);
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
                this.instead(&Status::unavailable("the daemon is stopping: unavailable"))
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
    /// Counts what is on its way.
    fn sent(&mut self, data: &[u8]) -> Result<(), Status> {
        let max = self.call.shared.limits.send_bytes;
        let sent = self.frames.messages(data, max);
        let sent = sent.map_err(|len| too_large("the answer", len, max))?;
        if let Some(figures) = &self.call.known.figures {
            figures.sent.increment(sent);
            figures.sent_bytes.increment(data.len() as u64);
        }
        Ok(())
    }

    /// Ends the answer with a status of our own.
    fn instead(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut trailers = HeaderMap::new();
        if let Err(status) = status.add_header(&mut trailers) {
            return Poll::Ready(Some(Err(status)));
        }
        self.end(&trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn end(&mut self, trailers: &HeaderMap) {
        match Status::from_header_map(trailers) {
            Some(status) => self.call.end(status.code(), status.message()),
            None => self.call.end(Code::Unknown, "the answer has no status"),
        }
    }
}

/// The body of a request, whose messages are measured and counted. tonic would call one that is too
/// large out of range, which clients take for an offset.
pub(super) struct Question {
    body: Body,
    frames: Frames,
    max: usize,
    counters: Option<(metrics::Counter, metrics::Counter)>,
}

impl Question {
    /// With messages of at most `max` bytes, counted as messages and as bytes.
    pub(super) fn new(
        body: Body,
        max: usize,
        counters: Option<(metrics::Counter, metrics::Counter)>,
    ) -> Question {
        Question {
            body,
            frames: Frames::default(),
            max,
            counters,
        }
    }
}

impl http_body::Body for Question {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &polled
            && let Some(data) = frame.data_ref()
        {
            match this.frames.messages(data, this.max) {
                Ok(begun) => {
                    if let Some((messages, bytes)) = &this.counters {
                        messages.increment(begun);
                        bytes.increment(data.len() as u64);
                    }
                }
                Err(len) => {
                    return Poll::Ready(Some(Err(too_large("a message", len, this.max))));
                }
            }
        }
        // A client that was killed while it asked is no fault of anybody here.
        Poll::Ready(polled.map(|frame| {
            frame.map_err(|status| match status.code() {
                Code::Unknown => with(ErrorKind::Unavailable, "the client is gone"),
                _ => status,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// As Go's gRPC answers, and so containerd.
fn too_large(what: &str, len: usize, max: usize) -> Status {
    let text = format!("{what} has {len} bytes, more than {max}");
    with(ErrorKind::ResourceExhausted, text)
}
