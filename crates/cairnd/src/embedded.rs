//! The same server inside another program: one connection to it, and no file that leads there. And what
//! it would say of registries' hosts, for which no store is needed.

use std::{io, path::Path, time::Duration};

use cairn_node::{EngineKind, Node, NodeOptions, RegistryOptions};
use cairn_proto::cairn::v1::{ExplainHostRequest, ExplainHostResponse};
use tokio::{net::UnixStream, sync::watch};
use tonic::Status;

use crate::{
    calls::Calls,
    config::{self, ConfigError, Engine, Layers},
    connection, details, service,
};

pub use cairn_node::node::LAYOUT;

/// An open store and what serves it. Clones share it; the store is closed with the last of them and
/// its connections.
#[derive(Clone)]
pub struct Embedded {
    node: Node,
}

impl Embedded {
    /// Opens the store at `root`, making it when absent.
    ///
    /// # Errors
    /// The failure with all its parts, as a call would have it.
    pub fn open(root: &Path, engine: Engine) -> Result<Embedded, Status> {
        let node = Node::open(NodeOptions::new(root.to_owned(), EngineKind::from(engine)));
        Ok(Embedded {
            node: node.map_err(details::of)?,
        })
    }

    /// Starts a server on the runtime that this runs in, and gives the other end of the only
    /// connection that it will have. It ends with the runtime.
    ///
    /// # Errors
    /// When the store cannot say its name, or there is no descriptor left.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let uuid = self.node.uuid().map_err(io::Error::other)?;
        // Without health and reflection, which nobody asks for here and every start would pay for.
        let routes = service::public(&self.node, &uuid, None);
        let calls = Calls::inside();
        // It is never told to end: it ends with the connection.
        let (never, closing) = watch::channel(());
        let served = connection::serve(theirs, None, &routes, &calls, closing);
        tokio::spawn(async move {
            served.await;
            drop(never);
        });
        Ok(ours)
    }

    /// Reaches registries as the daemon of this machine would, by its files and by the environment.
    ///
    /// # Errors
    /// What is wrong in them, anywhere: as with the daemon nothing is taken of a bad file.
    pub fn configure(&self) -> Result<(), ConfigError> {
        self.node.set_registry(registry()?);
        Ok(())
    }

    /// Puts unpacked layers on the disk that have waited for `min_age` or longer, if there are any.
    /// Whether it did. For the time after the last answer.
    ///
    /// # Errors
    /// The failure, as a call would have it.
    pub fn settle(&self, min_age: Duration) -> Result<bool, Status> {
        self.node.settle(min_age).map_err(details::of)
    }
}

/// How the daemon of this machine would reach registries, by its files and by the environment.
///
/// # Errors
/// As [`Embedded::configure`].
pub fn registry() -> Result<RegistryOptions, ConfigError> {
    let mut layers = Layers::read(Path::new(config::FILE), false)?;
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    for from in config::environment(variables)? {
        layers.set(from)?;
    }
    Ok(layers.config()?.registry.into())
}

/// Whom a pull would ask that reaches registries in this way. Reads files that say so, and neither opens
/// a store nor asks anybody.
///
/// # Errors
/// The failure with all its parts, as the call would have it.
pub fn explain_host(
    registry: &RegistryOptions,
    request: ExplainHostRequest,
) -> Result<ExplainHostResponse, Status> {
    service::explain(&registry.hosts_dirs, request)
}
