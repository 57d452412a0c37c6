//! How the daemon comes to its end: by a signal, by a server that fails, when all is quiet.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};

use crate::{backend::Serving, calls::Calls};

/// How long clients without a call have to take leave.
const GOODBYE: Duration = Duration::from_millis(500);

/// Connections on which nothing happens: a client that does not answer would hold the daemon up by
/// not taking notice of its end.
pub(super) async fn quiet(all: &[Calls]) {
    loop {
        for calls in all {
            calls.none().await;
        }
        tokio::time::sleep(GOODBYE).await;
        if all.iter().all(Calls::are_none) {
            return;
        }
    }
}

/// Waits for the end of the backend, which never comes when there is none.
pub(super) async fn ended(backend: &mut Option<Serving>) -> io::Result<()> {
    match backend {
        Some(backend) => backend.ended().await,
        None => std::future::pending().await,
    }
}

/// Waits for the end of both servers.
pub(super) async fn both(serving: &mut JoinHandle<io::Result<()>>, backend: &mut Option<Serving>) {
    let _ = serving.await;
    if let Some(backend) = backend {
        let _ = backend.ended().await;
    }
}

/// What the daemon is told by signals.
pub(super) struct Signals {
    pub(super) stop: Stop,
    pub(super) reload: Signal,
}

/// Any signal that asks it to stop.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on none is lost.
    pub(super) fn catch() -> io::Result<Signals> {
        Ok(Signals {
            stop: Stop {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            reload: signal(SignalKind::hangup())?,
        })
    }
}

impl Stop {
    /// Waits for one.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
