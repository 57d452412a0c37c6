//! The daemon's server over a store of its own, on threads of the test.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use cairn_node::{EngineKind, Node, NodeOptions};
use tokio::{net::UnixListener, runtime::Builder, sync::oneshot};

/// Serves until it is dropped.
pub struct Daemon {
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Returns when it listens.
    pub fn start(root: PathBuf, socket: PathBuf) -> Daemon {
        let address = socket.clone();
        let (stop, told) = oneshot::channel::<()>();
        let (ready, listening) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut options = NodeOptions::new(root, EngineKind::Redb);
            // As the commands beside it are told by `CAIRN_REGISTRY__RETRIES`.
            options.registry.retries = 0;
            let node = Node::open(options).expect("store");
            let runtime = Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async {
                let listener = UnixListener::bind(&address).expect("bind");
                ready.send(()).expect("waited for");
                let stop = async {
                    let _ = told.await;
                };
                let served = cairnd::server::serve(&node, listener, stop).await;
                served.expect("serve");
            });
        });
        listening.recv().expect("it listens");
        Daemon {
            socket,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}
