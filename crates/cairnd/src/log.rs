//! The log: to the journal with fields of its own, or to standard error as text or JSON.

use std::{
    io,
    os::{linux::fs::MetadataExt, unix::ffi::OsStrExt},
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, fmt, layer::Layered, layer::SubscriberExt,
    reload, util::SubscriberInitExt,
};

use crate::{
    config::{self, Format},
    traces::Traces,
};

type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;
type Writer = Box<dyn Layer<Filtered> + Send + Sync>;

/// The running log, whose level can be changed. Its form cannot: calls under way carry their fields in
/// the form that they began with, and the writer of another form panics where it finds none.
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Starts logging, and sending spans when `traces` are wanted.
///
/// # Errors
/// When this process logs already, or a filter is malformed.
pub fn start(config: &config::Log, traces: Option<&Traces>) -> Result<Log, String> {
    let (filter, filter_handle) = reload::Layer::new(filter(config)?);
    let registry = Registry::default().with(filter);
    let registry = registry.with(writer(config.format));
    let started = registry
        .with(traces.map(|traces| traces.layer()))
        .try_init();
    started.map_err(|err| format!("cannot log: {err}"))?;
    Ok(Log {
        filter: filter_handle,
    })
}

impl Log {
    /// Goes on at the level that `config` has.
    pub fn change(&self, config: &config::Log) -> Result<(), String> {
        let filter = filter(config)?;
        self.filter.reload(filter).map_err(|err| err.to_string())
    }
}

/// A plain level is about this program: the frames of every connection are asked for by name.
fn filter(config: &config::Log) -> Result<EnvFilter, String> {
    let level = &config.level;
    let filter = match level.parse::<LevelFilter>() {
        Ok(plain) if plain >= LevelFilter::DEBUG => {
            format!("{level},h2=info,hyper=info,hyper_util=info,tonic=info,tower=info")
        }
        _ => level.clone(),
    };
    EnvFilter::try_new(filter).map_err(|err| format!("log.level: {err}"))
}

fn writer(format: Format) -> Writer {
    let text = || -> Writer {
        let ansi = rustix::termios::isatty(io::stderr());
        fmt::layer().with_writer(io::stderr).with_ansi(ansi).boxed()
    };
    let journald = || {
        let layer = tracing_journald::layer().ok()?;
        let layer = layer
            .with_field_prefix(Some("CAIRN".to_owned()))
            .with_syslog_identifier("cairnd".to_owned());
        Some(layer.boxed())
    };
    match format {
        Format::Text => text(),
        Format::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(io::stderr)
            .boxed(),
        // Without the journal's socket, whoever reads standard error shall read something.
        Format::Journald => journald().unwrap_or_else(text),
        Format::Auto if to_journal() => journald().unwrap_or_else(text),
        Format::Auto => text(),
    }
}

/// Whether standard error is the journal's own stream: a shell that a service started inherits the
/// variable, but not the descriptor (systemd.exec(5), `$JOURNAL_STREAM`).
fn to_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stat) = std::fs::metadata("/proc/self/fd/2") else {
        return false;
    };
    format!("{}:{}", stat.st_dev(), stat.st_ino()).as_bytes() == stream.as_bytes()
}
