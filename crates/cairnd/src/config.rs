//! The configuration: what the keys mean. Where their values come from is the matter of `layers`.
//!
//! `default.toml` is the list of all keys: what is not there is refused everywhere, and its text is
//! what `cairnd config default` prints.

mod layers;
mod registry;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use cairn_node::{EngineKind, Sharing, SnapshotOptions};
use serde::{Deserialize, Deserializer, de::Error as _};

pub use self::{
    layers::{ConfigError, Layers, Override, environment},
    registry::Registry,
};

/// The file that is read unless another is named.
pub const FILE: &str = "/etc/cairn/config.toml";
/// Every key with its default and what it does.
#[cfg(not(feature = "otel"))]
pub const DEFAULT: &str = include_str!("config/default.toml");
/// Every key with its default and what it does.
#[cfg(feature = "otel")]
pub const DEFAULT: &str = concat!(
    include_str!("config/default.toml"),
    include_str!("config/tracing.toml")
);
/// The version of the file that this build reads.
const VERSION: u32 = 1;
/// More would leave less than half of the time to the calls.
const PAUSE_THRESHOLD_MAX: f64 = 0.5;

/// A message has to have room for a frame of a blob and what goes with it.
const MESSAGE_BYTES_MIN: usize = 2 << 20;
/// gRPC counts in 32 bits; Go's clients in 31.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// Everything that can be chosen.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml says what each is")]
pub struct Config {
    #[serde(deserialize_with = "version")]
    pub version: u32,
    #[serde(deserialize_with = "absolute")]
    pub root: PathBuf,
    #[serde(deserialize_with = "absolute")]
    pub state: PathBuf,
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
    pub grpc: Grpc,
    pub backend: Backend,
    pub log: Log,
    pub metrics: Metrics,
    pub registry: Registry,
    pub unpack: Unpack,
    pub gc: Gc,
    pub scrub: Scrub,
    pub metadata: Metadata,
    pub snapshotter: Snapshotter,
    #[cfg(feature = "otel")]
    pub tracing: Tracing,
}

/// The socket of the API.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml says what each is")]
pub struct Grpc {
    #[serde(deserialize_with = "not_empty")]
    pub address: String,
    pub uid: u32,
    pub gid: u32,
    #[serde(deserialize_with = "mode")]
    pub mode: u32,
    pub allowed_uids: Vec<u32>,
    #[serde(deserialize_with = "message_size")]
    pub max_recv_message_size: usize,
    #[serde(deserialize_with = "message_size")]
    pub max_send_message_size: usize,
    #[serde(deserialize_with = "at_least_one")]
    pub max_connections: usize,
    #[serde(deserialize_with = "at_least_one")]
    pub max_connections_per_process: usize,
    #[serde(deserialize_with = "at_least_one")]
    pub max_concurrent_streams: u32,
    #[serde(deserialize_with = "at_least_one")]
    pub max_working_calls: usize,
    #[serde(deserialize_with = "not_none")]
    pub handshake_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    pub keepalive_interval: Duration,
    #[serde(deserialize_with = "not_none")]
    pub keepalive_timeout: Duration,
}

/// The socket of containerd.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml says what each is")]
pub struct Backend {
    pub address: String,
}

/// What is logged, and how.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml says what each is")]
pub struct Log {
    #[serde(deserialize_with = "filter")]
    pub level: String,
    pub format: Format,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// [`Format::Journald`] when standard error is the journal's, [`Format::Text`] otherwise.
    Auto,
    /// Fields of the journal, named `CAIRN_*`.
    Journald,
    /// A line for a person.
    Text,
    /// An object on a line.
    Json,
}

/// The endpoint of figures.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml says what each is")]
pub struct Metrics {
    #[serde(deserialize_with = "loopback")]
    pub address: String,
    pub grpc_histogram: bool,
    pub containerd_names: bool,
}

/// Layers on their way to a snapshot.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml says what each is")]
pub struct Unpack {
    pub parallel_layers: usize,
    pub discard_layers: bool,
    #[serde(deserialize_with = "duration")]
    pub settle_delay: Duration,
}

/// When garbage is collected.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml says what each is")]
pub struct Gc {
    #[serde(deserialize_with = "duration")]
    pub schedule_delay: Duration,
    #[serde(deserialize_with = "duration")]
    pub startup_delay: Duration,
    #[serde(deserialize_with = "pause_threshold")]
    pub pause_threshold: f64,
    pub deletion_threshold: u64,
    pub mutation_threshold: u64,
}

/// When what is stored is read again.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml says what each is")]
pub struct Scrub {
    pub enabled: bool,
    #[serde(deserialize_with = "duration")]
    pub startup_delay: Duration,
    #[serde(deserialize_with = "an_hour_at_least")]
    pub every: Duration,
    #[serde(deserialize_with = "registry::rate")]
    pub rate: u64,
}

/// The records.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml says what each is")]
pub struct Metadata {
    pub engine: Engine,
    pub content_sharing_policy: SharingPolicy,
}

/// The snapshotters.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml says what each is")]
pub struct Snapshotter {
    pub overlayfs: Overlayfs,
}

/// The one there is.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml says what each is")]
pub struct Overlayfs {
    #[serde(deserialize_with = "mount_options")]
    pub mount_options: Vec<String>,
    pub upperdir_label: bool,
}

impl From<Overlayfs> for SnapshotOptions {
    fn from(overlayfs: Overlayfs) -> SnapshotOptions {
        SnapshotOptions {
            mount_options: overlayfs.mount_options,
            upperdir_label: overlayfs.upperdir_label,
        }
    }
}

/// Traces.
#[cfg(feature = "otel")]
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "tracing.toml says what each is")]
pub struct Tracing {
    pub endpoint: String,
    #[serde(deserialize_with = "ratio")]
    pub sampling_ratio: f64,
}

/// What keeps the records.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// redb.
    Redb,
    /// sled.
    Sled,
}

impl Engine {
    /// As it is written in a configuration.
    pub fn name(self) -> &'static str {
        EngineKind::from(self).name()
    }
}

impl From<Engine> for EngineKind {
    fn from(engine: Engine) -> EngineKind {
        match engine {
            Engine::Redb => EngineKind::Redb,
            Engine::Sled => EngineKind::Sled,
        }
    }
}

/// What namespaces let one another have.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SharingPolicy {
    /// Everything, by its digest.
    Shared,
    /// Only what a namespace shares that says so.
    Isolated,
}

impl From<SharingPolicy> for Sharing {
    fn from(policy: SharingPolicy) -> Sharing {
        match policy {
            SharingPolicy::Shared => Sharing::Shared,
            SharingPolicy::Isolated => Sharing::Isolated,
        }
    }
}

impl Config {
    /// The socket of the API.
    pub fn grpc_socket(&self) -> PathBuf {
        self.state.join(&self.grpc.address)
    }

    /// The socket of containerd, when it is wanted.
    pub fn backend_socket(&self) -> Option<PathBuf> {
        let address = &self.backend.address;
        (!address.is_empty()).then(|| self.state.join(address))
    }

    /// A path of [`Config::metrics`], when it is one.
    pub fn metrics_socket(&self) -> Option<PathBuf> {
        let address = &self.metrics.address;
        let path = !address.is_empty() && address.parse::<std::net::SocketAddr>().is_err();
        path.then(|| self.state.join(address))
    }
}

fn version<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::deserialize(from)? {
        VERSION => Ok(VERSION),
        other => Err(D::Error::custom(format_args!(
            "it is {other}, this cairnd reads {VERSION}"
        ))),
    }
}

fn absolute<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let path = String::deserialize(from)?;
    if !Path::new(&path).is_absolute() {
        return Err(D::Error::custom(format_args!(
            "{path:?} does not start with /"
        )));
    }
    Ok(path.into())
}

fn not_empty<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Err(D::Error::custom("it is empty"));
    }
    Ok(text)
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    // As containerd has it, a zero needs no unit.
    let parsed = match &*text {
        "0" => Ok(jiff::SignedDuration::ZERO),
        text => text.parse::<jiff::SignedDuration>(),
    };
    let parsed = parsed.ok().and_then(|d| Duration::try_from(d).ok());
    parsed.ok_or_else(|| {
        D::Error::custom(format_args!(
            "{text:?} is no duration such as 500ms, 30s or 1m30s"
        ))
    })
}

/// A duration that must not be nothing.
fn not_none<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    match duration(from)? {
        Duration::ZERO => Err(D::Error::custom("it is no time at all")),
        some => Ok(some),
    }
}

/// A duration after which what takes hours may begin again.
fn an_hour_at_least<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let every = duration(from)?;
    if every < Duration::from_secs(60 * 60) {
        return Err(D::Error::custom("it is less than an hour"));
    }
    Ok(every)
}

fn at_least_one<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default + PartialEq,
{
    let count = T::deserialize(from)?;
    match count == T::default() {
        true => Err(D::Error::custom("with 0 nobody would be served")),
        false => Ok(count),
    }
}

fn message_size<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let bytes = usize::deserialize(from)?;
    if !(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&bytes) {
        return Err(D::Error::custom(format_args!(
            "{bytes} is not between {MESSAGE_BYTES_MIN} and {MESSAGE_BYTES_MAX}"
        )));
    }
    Ok(bytes)
}

fn mode<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::deserialize(from)? {
        mode if mode <= 0o777 => Ok(mode),
        mode => Err(D::Error::custom(format_args!(
            "{mode} is no mode of a socket such as 0o660"
        ))),
    }
}

fn mount_options<'de, D: Deserializer<'de>>(text: D) -> Result<Vec<String>, D::Error> {
    let mount_options = Vec::deserialize(text)?;
    let options = SnapshotOptions {
        mount_options,
        ..SnapshotOptions::default()
    };
    match options.refused() {
        None => Ok(options.mount_options),
        Some(option) => Err(serde::de::Error::custom(format!(
            "{option:?} is no option of overlay's that can be chosen"
        ))),
    }
}

fn pause_threshold<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let fraction = f64::deserialize(from)?;
    if !(0.0..=PAUSE_THRESHOLD_MAX).contains(&fraction) {
        return Err(D::Error::custom(format_args!(
            "{fraction} is not between 0 and {PAUSE_THRESHOLD_MAX}"
        )));
    }
    Ok(fraction)
}

#[cfg(feature = "otel")]
fn ratio<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let ratio = f64::deserialize(from)?;
    match (0.0..=1.0).contains(&ratio) {
        true => Ok(ratio),
        false => Err(D::Error::custom(format_args!(
            "{ratio} is not between 0 and 1"
        ))),
    }
}

fn filter<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    match tracing_subscriber::EnvFilter::try_new(&text) {
        Ok(_) => Ok(text),
        Err(err) => Err(D::Error::custom(format_args!(
            "{text:?} is no level and no filter: {err}"
        ))),
    }
}

/// Figures tell who does what; they are for this machine, and what forwards them is another's work.
fn loopback<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    match text.parse::<std::net::SocketAddr>() {
        Ok(address) if !address.ip().is_loopback() => Err(D::Error::custom(format_args!(
            "{text} is not a loopback address"
        ))),
        Ok(_) => Ok(text),
        Err(_) if !text.contains('/') && text.contains(':') => Err(D::Error::custom(format_args!(
            "{text:?} is neither IP:PORT nor a path"
        ))),
        Err(_) => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &'static str, value: &str) -> Result<Config, ConfigError> {
        let mut layers = Layers::default();
        layers.set(Override {
            key,
            name: "--test".to_owned(),
            value: value.to_owned(),
        })?;
        layers.config()
    }

    #[test]
    fn defaults_are_whole() {
        let config = Layers::default().config().unwrap();
        assert_eq!(config.grpc_socket(), Path::new("/run/cairn/cairn.sock"));
        assert_eq!(config.gc.startup_delay, Duration::from_millis(100));
        assert_eq!(config.metrics_socket(), None);
        assert_eq!(config.backend_socket(), None);
    }

    #[test]
    fn values_out_of_range() {
        for (key, value) in [
            ("version", "2"),
            ("root", "here"),
            ("grpc.address", ""),
            ("grpc.mode", "4096"),
            ("grpc.max_recv_message_size", "1048576"),
            ("grpc.max_send_message_size", "2147483648"),
            ("grpc.max_connections", "0"),
            ("grpc.max_connections_per_process", "-1"),
            ("grpc.max_concurrent_streams", "0"),
            ("grpc.max_working_calls", "0"),
            ("grpc.handshake_timeout", "0"),
            ("grpc.keepalive_timeout", "0s"),
            ("gc.pause_threshold", "0.6"),
            ("gc.startup_delay", "soon"),
            ("gc.startup_delay", "-1s"),
            ("gc.mutation_threshold", "-1"),
            ("scrub.enabled", "1"),
            ("scrub.every", "monthly"),
            ("scrub.every", "59m"),
            ("scrub.every", "0"),
            ("scrub.rate", "slow"),
            ("scrub.startup_delay", "-1s"),
            ("log.level", "info,=="),
            ("log.format", "xml"),
            ("metrics.address", "0.0.0.0:1"),
            ("metrics.address", "localhost:1"),
            ("metadata.engine", "bolt"),
            ("unpack.parallel_layers", "-1"),
            ("snapshotter.overlayfs.mount_options", "[\"upperdir=/x\"]"),
            (
                "snapshotter.overlayfs.mount_options",
                "[\"xino=off,metacopy=on\"]",
            ),
            ("metadata.content_sharing_policy", "private"),
        ] {
            let err = with(key, value).expect_err(key).to_string();
            assert!(err.contains(key), "{err}");
            assert!(err.contains("--test"), "{err}");
        }
    }

    #[test]
    fn values() {
        let mode = with("grpc.mode", "0o660").unwrap().grpc.mode;
        assert_eq!(mode, 0o660);
        let uids = with("grpc.allowed_uids", "[]").unwrap().grpc.allowed_uids;
        assert!(uids.is_empty());
        let delay = with("gc.schedule_delay", "1m30s")
            .unwrap()
            .gc
            .schedule_delay;
        assert_eq!(delay, Duration::from_secs(90));
        let options = with("snapshotter.overlayfs.mount_options", "[\"volatile\"]").unwrap();
        let options = options.snapshotter.overlayfs.mount_options;
        assert_eq!(options, ["volatile"]);
        let whole = with("gc.pause_threshold", "0").unwrap();
        assert!(whole.gc.pause_threshold.abs() < f64::EPSILON);
        let scrub = with("scrub.every", "720h").unwrap().scrub;
        assert_eq!(scrub.every, Duration::from_secs(30 * 24 * 60 * 60));
        assert_eq!((scrub.enabled, scrub.rate), (true, 20 << 20));
        assert_eq!(with("scrub.rate", "").unwrap().scrub.rate, 0);
        let socket = with("metrics.address", "/run/m.sock").unwrap();
        assert_eq!(socket.metrics_socket(), Some("/run/m.sock".into()));
    }
}
