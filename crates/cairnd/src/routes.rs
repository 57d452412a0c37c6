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
            None => Box::pin(ready(Ok(absent(request.uri().path()).into_http()))),
        }
    }

    /// That of a path `/package.Service/Method`; the service knows its methods.
    fn at(&self, path: &str) -> Option<&dyn Serve> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let known = self.0.get(service).filter(|_| !method.is_empty());
        known.map(|service| &**service)
    }
}

/// Most bytes of a path that are repeated to who asked for it; no service's name comes near.
const TOLD_MAX: usize = 128;

/// What is answered in the place of a service that is not here. `ctr` prints nothing else of it.
fn absent(path: &str) -> Status {
    let service = path.strip_prefix('/').unwrap_or_default();
    let service = service.split('/').next();
    let service = service.filter(|name| !name.is_empty() && name.len() <= TOLD_MAX);
    let Some(service) = service else {
        return Status::unimplemented("unknown service");
    };
    let instead = match service.strip_prefix("containerd.services.") {
        Some(rest) if rest.starts_with("tasks.") || rest.starts_with("sandbox.") => {
            ": nothing is run here; cairn bundle create IMAGE DIR, then runc run -b DIR ID"
        }
        _ => "",
    };
    Status::unimplemented(format!("unknown service {service}{instead}"))
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

    /// The first words are those of containerd's library (grpc-go `server.go: handleStream`).
    #[tokio::test]
    async fn who_asks_for_another_service_hears_which_is_not_here() {
        let routes = Routes::default().add_service(Named("first"));
        let told = async |path: &str| answer(&routes, path).await.1;
        assert_eq!(told("/a.v1.Other/Do").await, "unknown service a.v1.Other");
        for runs in ["tasks.v1.Tasks/Create", "sandbox.v1.Store/List"] {
            let told = told(&format!("/containerd.services.{runs}")).await;
            let name = runs.split('/').next().expect("a service");
            let begin = format!("unknown service containerd.services.{name}: ");
            assert!(told.starts_with(&begin), "{told}");
            assert!(told.contains("cairn bundle create"), "{told}");
        }
        let long = format!("/{}/Do", "x".repeat(TOLD_MAX + 1));
        for nobody in ["/", "//Do", &long] {
            assert_eq!(told(nobody).await, "unknown service", "{nobody}");
        }
    }
}
