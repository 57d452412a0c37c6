//! The program: open the store, listen, serve, and stop in order.

mod ends;

use std::{
    io::{self, Write},
    os::unix::net::UnixListener as StdListener,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_node::{EngineKind, Failure, Node, NodeOptions, Sharing};
use clap::Parser;
use tokio::{
    net::UnixListener,
    sync::watch,
    task::{JoinError, JoinHandle},
};
use tracing::{error, info, warn};

use self::ends::{Signals, both, ended, quiet};
use crate::{
    backend::{self, Serving},
    calls::{self, Calls, Rules},
    config::{self, Config, DEFAULT, Gc},
    endpoint::Endpoint,
    limits::{self, Limits},
    listen::{self, Listening, Owner, Passed},
    log::{self, Log},
    maintain::{self, Activity},
    man,
    metrics::{Metrics, Socket},
    notify, opening,
    options::{Command, ConfigVerb, Flags, Options},
    records,
    scrub::Scrubber,
    server::{self, Health},
    traces::Traces,
};

/// How often recorded times are folded into histograms.
const FOLD_EVERY: Duration = Duration::from_secs(5);

/// Runs the program.
pub fn main() -> ExitCode {
    let options = Options::parse();
    match options.command {
        None => daemon(&options.flags),
        Some(command) => match aside(&options.flags, &command) {
            Ok(text) => print(&text),
            Err(reason) => complain(&reason),
        },
    }
}

/// What is asked of the program besides serving.
fn aside(flags: &Flags, command: &Command) -> Result<String, String> {
    let layers = || flags.layers().map_err(|err| err.to_string());
    match command {
        Command::Config {
            verb: ConfigVerb::Default,
        } => Ok(DEFAULT.to_owned()),
        Command::Config {
            verb: ConfigVerb::Dump,
        } => Ok(layers()?.dump()),
        Command::Config {
            verb: ConfigVerb::Check,
        } => {
            layers()?.config().map_err(|err| err.to_string())?;
            Ok("the configuration is good\n".to_owned())
        }
        Command::Meta { verb } => {
            let config = layers()?.config().map_err(|err| err.to_string())?;
            records::run(&config, flags.engine.is_some(), verb)
        }
        Command::Man { page } => man::page(page),
        Command::Completion { shell } => Ok(man::completion(*shell)),
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(err) => complain(&format!("cannot print: {err}")),
    }
}

/// For what goes wrong before there is a log.
fn complain(reason: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: {reason}");
    ExitCode::FAILURE
}

fn daemon(flags: &Flags) -> ExitCode {
    let config = flags.layers().and_then(|layers| layers.config());
    let config = match config {
        Ok(config) => config,
        Err(err) => return complain(&err.to_string()),
    };
    let traces = match Traces::start(&config) {
        Ok(traces) => traces,
        Err(reason) => return complain(&reason),
    };
    if traces.is_some() {
        calls::keep();
    }
    let log = match log::start(&config.log, traces.as_ref()) {
        Ok(log) => log,
        Err(reason) => return complain(&reason),
    };
    let ended = start(flags, &config, &log);
    if let Err(reason) = &ended {
        notify::status(reason);
        error!("{reason}");
    }
    if let Some(traces) = traces {
        traces.end();
    }
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn start(flags: &Flags, config: &Config, log: &Log) -> Result<(), String> {
    let began = Instant::now();
    limits::raise_descriptors();
    let passed = listen::passed();
    let passed = passed.map_err(|err| format!("cannot use the sockets passed: {err}"))?;
    notify::status("opening the store");
    let engine = EngineKind::from(config.metadata.engine);
    let open = |root, sharing| {
        let options = NodeOptions {
            root,
            engine,
            sharing,
            snapshots: config.snapshotter.overlayfs.clone().into(),
            parallel_layers: config.unpack.parallel_layers,
            discard_layers: config.unpack.discard_layers,
            registry: config.registry.clone().into(),
        };
        opening::open(options).map_err(reason)
    };
    let sharing = config.metadata.content_sharing_policy.into();
    let node = open(config.root.clone(), sharing)?;
    // A daemon with a socket for containerd has a second store.
    let wanted = passed.backend.is_some() || config.backend_socket().is_some();
    let backend = match wanted {
        // Whose blobs are whose is for containerd to know there.
        true => Some(open(backend::root(&config.root), Sharing::Shared)?),
        false => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|err| format!("cannot start: {err}"))?;
    let daemon = Daemon {
        flags,
        config,
        log,
        node: &node,
        backend: backend.as_ref(),
    };
    let served = runtime.block_on(daemon.serve(passed, began));
    // Whatever it waited for, it has: a store that is closed would wait for the rest without a limit.
    for node in daemon.nodes() {
        node.snapshots().give_up_removed();
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// What a person reads of a failure.
fn reason(failure: Failure) -> String {
    let mut text = failure.to_string();
    for cause in &failure.causes {
        text.push_str(&format!(": {cause}"));
    }
    text
}

struct Daemon<'d> {
    flags: &'d Flags,
    config: &'d Config,
    log: &'d Log,
    node: &'d Node,
    backend: Option<&'d Node>,
}

impl Daemon<'_> {
    async fn serve(&self, passed: Passed, began: Instant) -> Result<(), String> {
        let (config, node) = (self.config, self.node);
        let address = config.grpc_socket().display().to_string();
        // Before anything is promised, so that no signal is lost.
        let mut signals = Signals::catch().map_err(|err| format!("cannot catch signals: {err}"))?;
        let Listening { listener, file } = self
            .listen(passed.public)
            .await
            .map_err(|err| format!("cannot listen at {address}: {err}"))?;
        let (drain, draining) = watch::channel(false);
        let (gc_sender, gc) = watch::channel(config.gc.clone());
        let metrics = self.endpoint(&draining).await?;
        maintain::watch_collections(node, metrics.clone());
        let activity = Arc::new(Activity::default());
        let calls = Calls::new(Rules {
            activity: activity.clone(),
            ..self.rules(node, Socket::Public, &draining, metrics.as_deref())
        });
        let mut backend = self
            .backend(passed.backend, &draining, metrics.as_deref())
            .await
            .map_err(|err| format!("cannot serve containerd: {err}"))?;
        let routes = server::routes(node, Some(gc.clone())).await;
        let (routes, health) = routes.map_err(|err| format!("cannot serve: {err}"))?;
        let told = async move {
            let mut draining = draining;
            let _ = draining.wait_for(|draining| *draining).await;
        };
        let serving = tokio::spawn(server::serve_routes(routes, calls.clone(), listener, told));
        let theirs = backend.as_ref().map(|backend| backend.health().clone());
        let background = self.background(health.clone(), theirs, gc, activity);
        let scrubber = Scrubber::start(self.nodes().cloned().collect(), &config.scrub);
        let ms = began.elapsed().as_secs_f64() * 1e3;
        info!(ms, root = %config.root.display(), "serving at {address}");
        notify::ready(&format!("serving at {address}"));

        let mut serving = serving;
        let ended = loop {
            tokio::select! {
                ended = &mut serving => break Some(ended),
                () = signals.stop.told() => break None,
                _ = signals.reload.recv() => self.reload(&gc_sender, &address),
                ended = ended(&mut backend) => {
                    return ended.map_err(|err| format!("cannot serve containerd: {err}"));
                }
            }
        };
        if let Some(ended) = ended {
            let ended = ended.unwrap_or_else(|err| Err(io::Error::other(err)));
            return ended.map_err(|err| format!("cannot serve at {address}: {err}"));
        }
        info!("stopping");
        notify::stopping("waiting for calls under way");
        if let Some(scrubber) = &scrubber {
            scrubber.tell();
        }
        health.unwell().await;
        if let Some(backend) = &mut backend {
            backend.stopping().await;
        }
        // Clients that come now shall not wait for an answer.
        drop(file);
        let _ = drain.send(true);
        let limit = Instant::now() + config.drain_timeout;
        let theirs = backend.as_ref().map(|backend| backend.calls().clone());
        let all: Vec<Calls> = std::iter::once(calls).chain(theirs).collect();
        let again = tokio::select! {
            () = both(&mut serving, &mut backend) => false,
            () = quiet(&all) => false,
            () = tokio::time::sleep_until(limit.into()) => {
                warn!("calls under way are cut off; what they wrote can be resumed");
                false
            }
            () = signals.stop.told() => {
                warn!("told to stop again; calls under way are cut off");
                true
            }
        };
        serving.abort();
        drop(backend);
        for task in background {
            task.abort();
        }
        if !again {
            self.finish(limit, scrubber, &mut signals).await;
        }
        info!("stopped");
        Ok(())
    }

    /// Its stores: its own, and containerd's if that has one here.
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(self.node).chain(self.backend)
    }

    /// What goes on until the daemon is told to stop.
    fn background(
        &self,
        ours: Health,
        theirs: Option<Health>,
        gc: watch::Receiver<Gc>,
        activity: Arc<Activity>,
    ) -> Vec<JoinHandle<()>> {
        let delay = self.config.unpack.settle_delay;
        let mut tasks = vec![
            tokio::spawn(notify::watchdog(self.node.clone())),
            // containerd collects its own garbage.
            tokio::spawn(maintain::collect(self.node.clone(), gc, activity)),
        ];
        for (node, health) in self.nodes().zip(std::iter::once(ours).chain(theirs)) {
            tasks.push(tokio::spawn(maintain::guard(node.clone(), health)));
            tasks.push(tokio::spawn(maintain::settle(node.clone(), delay)));
        }
        tasks
    }

    async fn listen(&self, passed: Option<StdListener>) -> io::Result<Listening> {
        if let Some(listener) = passed {
            return Ok(Listening {
                listener: UnixListener::from_std(listener)?,
                file: None,
            });
        }
        let grpc = &self.config.grpc;
        let owner = Owner {
            uid: grpc.uid,
            gid: grpc.gid,
            mode: grpc.mode,
        };
        listen::bind(&self.config.grpc_socket(), owner).await
    }

    fn rules<'r>(
        &'r self,
        node: &Node,
        socket: Socket,
        draining: &watch::Receiver<bool>,
        metrics: Option<&'r Metrics>,
    ) -> Rules<'r> {
        if let Some(metrics) = metrics {
            metrics.watch(node, socket);
        }
        Rules {
            uids: &self.config.grpc.allowed_uids,
            limits: Limits::of(&self.config.grpc),
            activity: Arc::default(),
            draining: draining.clone(),
            metrics: metrics.map(|metrics| (metrics, socket)),
            node: Some(node.clone()),
        }
    }

    /// Starts to serve containerd when that is wanted. Its calls make nothing of ours to be collected.
    async fn backend(
        &self,
        passed: Option<StdListener>,
        draining: &watch::Receiver<bool>,
        metrics: Option<&Metrics>,
    ) -> io::Result<Option<Serving>> {
        let Some(node) = self.backend else {
            return Ok(None);
        };
        let listening = match (passed, self.config.backend_socket()) {
            (Some(listener), _) => Listening {
                listener: UnixListener::from_std(listener)?,
                file: None,
            },
            (None, Some(path)) => listen::bind(&path, Owner::default()).await?,
            (None, None) => return Ok(None),
        };
        let calls = Calls::new(self.rules(node, Socket::Backend, draining, metrics));
        let serving = Serving::start(node, listening, calls, draining.clone());
        serving.await.map(Some)
    }

    /// Starts to serve figures when they are wanted.
    async fn endpoint(
        &self,
        draining: &watch::Receiver<bool>,
    ) -> Result<Option<Arc<Metrics>>, String> {
        let options = &self.config.metrics;
        if options.address.is_empty() {
            return Ok(None);
        }
        let metrics = Arc::new(Metrics::new(options)?);
        let endpoint = Endpoint::listen(self.config).await;
        let endpoint = endpoint
            .map_err(|err| format!("cannot listen at {} for metrics: {err}", options.address))?;
        info!("serving metrics at {}", endpoint.address());
        let folded = metrics.clone();
        tokio::spawn(async move {
            let mut beats = tokio::time::interval(FOLD_EVERY);
            loop {
                beats.tick().await;
                folded.fold();
            }
        });
        let stores = [
            (Socket::Public, Some(self.node)),
            (Socket::Backend, self.backend),
        ];
        let stores = stores.into_iter();
        let stores = stores.filter_map(|(socket, node)| Some((socket, node?.clone())));
        let serving = endpoint.serve(stores.collect(), metrics.clone(), draining.clone());
        tokio::spawn(async move {
            if let Err(err) = serving.await {
                error!("metrics are served no more: {err}");
            }
        });
        Ok(Some(metrics))
    }

    /// Reads `log.level`, `[registry]` and `[gc]` again; with anything wrong all stays as it is.
    fn reload(&self, gc: &watch::Sender<Gc>, address: &str) {
        notify::reloading();
        let read = self.flags.layers().and_then(|layers| layers.config());
        let changed = read.map_err(|err| err.to_string()).and_then(|read| {
            self.log.change(&read.log)?;
            gc.send_replace(read.gc.clone());
            for node in self.nodes() {
                node.set_registry(read.registry.clone().into());
            }
            let same = Config {
                log: config::Log {
                    level: self.config.log.level.clone(),
                    ..read.log
                },
                gc: self.config.gc.clone(),
                registry: self.config.registry.clone(),
                ..read
            };
            if same != *self.config {
                warn!("of what changed, all but log.level, [registry] and [gc] has to wait for the next start");
            }
            Ok(())
        });
        match changed {
            Ok(()) => info!("read the configuration again"),
            Err(reason) => error!("the configuration stays as it is: {reason}"),
        }
        notify::ready(&format!("serving at {address}"));
    }

    /// What was put off, as far as there is time for it.
    async fn finish(&self, limit: Instant, scrubber: Option<Scrubber>, signals: &mut Signals) {
        let finishing = async {
            if let Some(scrubber) = scrubber {
                // What it came to is known at its next look as well.
                let _ = within(limit, move || scrubber.stop()).await;
            }
            self.settle(limit).await;
            self.finish_removals(limit).await;
        };
        tokio::select! {
            () = finishing => {}
            () = signals.stop.told() => {
                warn!("told to stop again; what was put off is left to the next start");
            }
        }
    }

    /// A machine that is about to be switched off shall find on its disk what was unpacked on it.
    async fn settle(&self, limit: Instant) {
        notify::status("putting layers and blobs on the disk");
        for node in self.nodes() {
            let node = node.clone();
            match within(limit, move || node.settle(Duration::ZERO)).await {
                Some(Ok(Ok(_))) => {}
                Some(Ok(Err(failure))) => error!("{failure}"),
                Some(Err(err)) => {
                    error!("putting layers and blobs on the disk was given up: {err}");
                }
                None => warn!("some layers or blobs are not on the disk yet"),
            }
        }
    }

    /// What cannot be removed in time is garbage, which the next start removes.
    async fn finish_removals(&self, limit: Instant) {
        let busy: Vec<&Node> = self
            .nodes()
            .filter(|node| node.snapshots().is_removing())
            .collect();
        if busy.is_empty() {
            return;
        }
        notify::status("removing files of snapshots");
        for node in busy {
            let snapshots = node.snapshots().clone();
            let removed = within(limit, move || snapshots.wait_removed()).await;
            if removed.is_none() {
                warn!("files of removed snapshots are left to the next start");
            }
        }
    }
}

/// What blocking work ends with, or `None` when it takes longer than there is time for; it goes on by
/// itself then.
async fn within<T: Send + 'static>(
    limit: Instant,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<Result<T, JoinError>> {
    let working = tokio::task::spawn_blocking(work);
    let ended = tokio::time::timeout_at(limit.into(), working).await;
    ended.ok()
}
