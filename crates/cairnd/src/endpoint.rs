//! The endpoint of figures and health, over plain HTTP on this machine alone.

use std::{io, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use cairn_node::Node;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    config::Config,
    listen::{self, Owner, SocketFile},
    metrics::{Metrics, Socket},
};

/// Listens where the configuration says.
pub struct Endpoint {
    on: On,
    /// Removed in the end.
    _file: Option<SocketFile>,
}

enum On {
    Tcp(TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Endpoint {
    /// Listens.
    pub async fn listen(config: &Config) -> io::Result<Endpoint> {
        match config.metrics_socket() {
            Some(path) => {
                // Figures are for those who watch the machine, not for everybody on it.
                let owner = Owner {
                    uid: config.grpc.uid,
                    gid: config.grpc.gid,
                    mode: config.grpc.mode,
                };
                let listening = listen::bind(&path, owner).await?;
                Ok(Endpoint {
                    on: On::Unix(listening.listener),
                    _file: listening.file,
                })
            }
            None => Ok(Endpoint {
                on: On::Tcp(TcpListener::bind(&config.metrics.address).await?),
                _file: None,
            }),
        }
    }

    /// Where it listens, with the port that a port of 0 became.
    pub fn address(&self) -> String {
        match &self.on {
            On::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| String::new(), |address| address.to_string()),
            On::Unix(listener) => listener
                .local_addr()
                .ok()
                .and_then(|address| Some(address.as_pathname()?.display().to_string()))
                .unwrap_or_default(),
        }
    }

    /// Serves for as long as it is polled.
    pub async fn serve(
        self,
        stores: Vec<(Socket, Node)>,
        metrics: Arc<Metrics>,
        draining: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let watched: Vec<Node> = stores.iter().map(|(_, node)| node.clone()).collect();
        let stores = Arc::new(stores);
        let figures = move || {
            let (stores, metrics) = (stores.clone(), metrics.clone());
            async move {
                let text = metrics.render(&stores).await;
                ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
            }
        };
        let health = move || {
            let stopping = *draining.borrow();
            let broken = watched.iter().find_map(Node::read_only);
            async move {
                let unwell = |text| (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
                match (stopping, broken) {
                    (true, _) => unwell("stopping\n".to_owned()),
                    (false, Some(failure)) => unwell(format!("{failure}\n")),
                    (false, None) => (StatusCode::OK, "ok\n").into_response(),
                }
            }
        };
        let router = Router::new()
            .route("/metrics", get(figures.clone()))
            .route("/v1/metrics", get(figures))
            .route("/healthz", get(health));
        match self.on {
            On::Tcp(listener) => axum::serve(listener, router).await,
            On::Unix(listener) => axum::serve(listener, router).await,
        }
    }
}
