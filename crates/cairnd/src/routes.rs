//! Which service a call is for. tonic's own routes go through a web framework, which matches parameters,
//! wraps bodies in boxes of its own and adds extensions; a path of gRPC is two names.

use std::{collections::HashMap, convert::Infallible, future::ready, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use tonic::{Status, body::Body, server::NamedService};
use tower::{BoxError, Service};

use crate::calls::Answered;

/// Services by their names. Clones share them.
#[derive(Clone, Default)]
pub struct Routes(Arc<HashMap<&'static str, Arc<dyn Serve>>>);

/// A service of which every call has a copy of its own.
trait Serve: Send + Sync {
    fn serve(&self, request: Request<Body>) -> Answered;
}

impl<S, B> Serve for S
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn serve(&self, request: Request<Body>) -> Answered {
        // They are made by tonic, and are always ready.
        let answering = self.clone().call(request);
        Box::pin(async move { answering.await.map(|answer| answer.map(Body::new)) })
    }
}

impl Routes {
    /// With one more.
    pub fn add_service<S, B>(mut self, service: S) -> Routes
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Arc::make_mut(&mut self.0).insert(S::NAME, Arc::new(service));
        self
    }

    /// Answers a request by the service that it names.
    pub(crate) fn serve(&self, request: Request<Body>) -> Answered {
        match self.at(request.uri().path()) {
            Some(service) => service.serve(request),
            None => Box::pin(ready(Ok(Status::unimplemented("").into_http()))),
        }
    }

    /// That of a path `/package.Service/Method`; the service knows its methods.
    fn at(&self, path: &str) -> Option<&dyn Serve> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let known = self.0.get(service).filter(|_| !method.is_empty());
        known.map(|service| &**service)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use tonic::Code;

    use super::*;

    #[derive(Clone)]
    struct Named(&'static str);

    impl NamedService for Named {
        const NAME: &'static str = "a.v1.Named";
    }

    impl Service<Request<Body>> for Named {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            ready(Ok(Status::aborted(self.0).into_http()))
        }
    }

    /// The code and the words that a path is answered with.
    async fn answer(routes: &Routes, path: &str) -> (Code, String) {
        let request = Request::builder().uri(path).body(Body::empty());
        let answer = routes.serve(request.expect("a request")).await;
        let answer = answer.expect("an answer");
        let status = Status::from_header_map(answer.headers()).expect("a status");
        (status.code(), status.message().to_owned())
    }

    #[tokio::test]
    async fn a_call_is_for_the_service_that_its_path_begins_with() {
        let routes = Routes::default().add_service(Named("first"));
        let more = routes.clone().add_service(Named("second"));
        let aborted = |by: &str| (Code::Aborted, by.to_owned());
        assert_eq!(answer(&routes, "/a.v1.Named/Do").await, aborted("first"));
        assert_eq!(answer(&more, "/a.v1.Named/Do").await, aborted("second"));
        for nobody in [
            "/",
            "/a.v1.Named",
            "/a.v1.Named/",
            "/a.v1/Do",
            "/A.v1.Named/Do",
        ] {
            let (code, _) = answer(&more, nobody).await;
            assert_eq!(code, Code::Unimplemented, "{nobody}");
        }
    }
}
