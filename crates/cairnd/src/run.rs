//! The program: open the store, listen, serve, and stop in order.

use std::{process::ExitCode, time::Duration};

use cairn_node::{EngineKind, Node, NodeOptions};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::{listen, options::Options, server};

/// How long calls that are under way have when the daemon is told to stop.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs the daemon until it is told to stop.
pub fn main() -> ExitCode {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&options.log_level)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match start(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            error!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> Result<(), String> {
    let engine = match &*options.engine {
        "redb" => EngineKind::Redb,
        "sled" => EngineKind::Sled,
        other => return Err(format!("engine {other:?} is neither redb nor sled")),
    };
    let opened = Node::open(NodeOptions {
        root: options.root.clone(),
        engine,
    });
    let node = opened.map_err(|failure| failure.to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|err| format!("cannot start: {err}"))?;
    let served = runtime.block_on(serve(options, &node));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(options: &Options, node: &Node) -> Result<(), String> {
    let address = options.address.display();
    let listener = listen::at(&options.address).await;
    let listener = listener.map_err(|err| format!("cannot listen at {address}: {err}"))?;
    let told = told_to_stop().map_err(|err| format!("cannot catch signals: {err}"))?;
    info!(root = %options.root.display(), "serving at {address}");
    let (drained, draining) = tokio::sync::oneshot::channel();
    let stop = async move {
        told.await;
        info!("stopping");
        let _ = drained.send(());
    };
    let late = async {
        // Not told to stop at all is not late.
        match draining.await {
            Ok(()) => tokio::time::sleep(DRAIN).await,
            Err(_) => std::future::pending().await,
        }
    };
    let served = tokio::select! {
        served = server::serve(node, listener, stop) => served,
        () = late => {
            info!("calls under way are cut off; what they wrote can be resumed");
            Ok(())
        }
    };
    // Clients that come now shall not wait for an answer.
    let _ = std::fs::remove_file(&options.address);
    served.map_err(|err| format!("cannot serve at {address}: {err}"))
}

fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
