//! Connections as they come about: a layer around what makes them, and the request that they are for.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tower::{Layer, Service};

use super::{SENDING, time};

/// Tells of each connection that is made for a request. One that was there already has nothing to tell.
#[derive(Clone)]
pub(crate) struct Dialing;

impl<S> Layer<S> for Dialing {
    type Service = Dials<S>;

    fn layer(&self, inner: S) -> Dials<S> {
        Dials(inner)
    }
}

/// What makes connections.
#[derive(Clone)]
pub(crate) struct Dials<S>(S);

impl<S, R> Service<R> for Dials<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // It begins within the request and may end without it: another connection may have become free.
        let told = SENDING.try_with(Clone::clone).ok();
        let began = Instant::now();
        let dialing = self.0.call(request);
        Box::pin(async move {
            let dialed = dialing.await;
            if let (Some(told), Ok(_)) = (told, &dialed) {
                told.line(&format!("connected after {}", time(began.elapsed())));
            }
            dialed
        })
    }
}
