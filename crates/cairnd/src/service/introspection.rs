//! `Introspection`: what this server is made of, in containerd's names, since clients look for the
//! snapshotter they are about to use.

use std::{
    borrow::Cow, collections::BTreeMap, os::unix::fs::MetadataExt, path::Path, time::Duration,
};

use cairn_node::Sharing;
use cairn_proto::containerd::{
    services::introspection::v1::{
        Plugin, PluginInfoRequest, PluginInfoResponse, PluginsRequest, PluginsResponse,
        ServerResponse, introspection_server::Introspection,
    },
    types::Platform as WirePlatform,
};
use cairn_types::{
    ErrorKind, Platform,
    filter::{Fields, Filters},
};
use tonic::{Request, Response, Status};

use super::Service;
use crate::{
    config::Gc,
    status::{of, with},
};

struct Filtered<'p>(&'p Plugin);

impl Fields for Filtered<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match &*path[0] {
            "type" => Some(Cow::Borrowed(&self.0.r#type)),
            "id" => Some(Cow::Borrowed(&self.0.id)),
            _ => None,
        }
    }
}

/// Type, id, capabilities; with platforms where unpacking is meant.
fn plugins(root: &Path, sharing: Sharing, gc: Option<&Gc>) -> Vec<Plugin> {
    let host = Platform::host();
    let platform = WirePlatform {
        os: host.os.clone(),
        architecture: host.architecture.clone(),
        variant: host.variant.clone().unwrap_or_default(),
        ..WirePlatform::default()
    };
    let table: &[(&str, &str, &[&str], bool)] = &[
        ("io.containerd.content.v1", "content", &[], false),
        (
            "io.containerd.snapshotter.v1",
            super::snapshots::NAME,
            &["rebase"],
            true,
        ),
        ("io.containerd.differ.v1", "walking", &[], true),
        ("io.containerd.metadata.v1", "bolt", &[], false),
        ("io.containerd.gc.v1", "scheduler", &[], false),
        ("io.containerd.lease.v1", "manager", &[], false),
        ("io.containerd.event.v1", "exchange", &[], false),
        ("io.containerd.streaming.v1", "manager", &[], false),
        ("io.containerd.transfer.v1", "local", &[], false),
        ("io.containerd.grpc.v1", "containers", &[], false),
        ("io.containerd.grpc.v1", "content", &[], false),
        ("io.containerd.grpc.v1", "diff", &[], false),
        ("io.containerd.grpc.v1", "events", &[], false),
        ("io.containerd.grpc.v1", "healthcheck", &[], false),
        ("io.containerd.grpc.v1", "images", &[], false),
        ("io.containerd.grpc.v1", "introspection", &[], false),
        ("io.containerd.grpc.v1", "leases", &[], false),
        ("io.containerd.grpc.v1", "namespaces", &[], false),
        ("io.containerd.grpc.v1", "snapshots", &[], false),
        ("io.containerd.grpc.v1", "streaming", &[], false),
        ("io.containerd.grpc.v1", "transfer", &[], false),
        ("io.containerd.grpc.v1", "version", &[], false),
    ];
    let plugin = |(kind, id, capabilities, on_platform): &(&str, &str, &[&str], bool)| Plugin {
        r#type: (*kind).to_owned(),
        id: (*id).to_owned(),
        requires: Vec::new(),
        platforms: on_platform.then(|| platform.clone()).into_iter().collect(),
        exports: BTreeMap::new(),
        capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
        init_err: None,
    };
    let mut plugins: Vec<Plugin> = table.iter().map(plugin).collect();
    for plugin in &mut plugins {
        let exports = match &*plugin.r#type {
            "io.containerd.snapshotter.v1" => {
                vec![("root", root.join("snapshots").display().to_string())]
            }
            "io.containerd.metadata.v1" => vec![("policy", sharing.name().to_owned())],
            "io.containerd.gc.v1" => gc.map(schedule).unwrap_or_default(),
            _ => continue,
        };
        let exports = exports.into_iter();
        plugin.exports = exports
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
    }
    plugins
}

/// What decides when the daemon collects, in the words of containerd's scheduler.
fn schedule(gc: &Gc) -> Vec<(&'static str, String)> {
    vec![
        ("PauseThreshold", gc.pause_threshold.to_string()),
        ("DeletionThreshold", gc.deletion_threshold.to_string()),
        ("MutationThreshold", gc.mutation_threshold.to_string()),
        ("ScheduleDelay", printed(gc.schedule_delay)),
        ("StartupDelay", printed(gc.startup_delay)),
    ]
}

/// As Go prints a duration, which is what readers of these parse.
fn printed(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    if duration.is_zero() {
        return "0s".to_owned();
    }
    // Within a minute both have the largest unit that makes it one or more.
    if minutes == 0 {
        return format!("{duration:?}");
    }
    let seconds = (duration - Duration::from_secs(minutes * 60)).as_secs_f64();
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

impl Service {
    /// As they are now: the rules of collections can change meanwhile.
    fn plugins(&self) -> Vec<Plugin> {
        let gc = self.gc.as_ref().map(|gc| gc.borrow().clone());
        plugins(self.node.root(), self.node.sharing(), gc.as_ref())
    }
}

#[tonic::async_trait]
impl Introspection for Service {
    async fn plugins(
        &self,
        request: Request<PluginsRequest>,
    ) -> Result<Response<PluginsResponse>, Status> {
        let filters = Filters::parse(&request.into_inner().filters).map_err(|err| of(&err))?;
        let shown = self
            .plugins()
            .into_iter()
            .filter(|plugin| filters.pass(&Filtered(plugin)));
        Ok(Response::new(PluginsResponse {
            plugins: shown.collect(),
        }))
    }

    async fn server(&self, _: Request<()>) -> Result<Response<ServerResponse>, Status> {
        let pidns = std::fs::metadata("/proc/self/ns/pid").map(|meta| meta.ino());
        Ok(Response::new(ServerResponse {
            uuid: self.uuid.to_string(),
            pid: u64::from(std::process::id()),
            pidns: pidns.unwrap_or(0),
            deprecations: Vec::new(),
        }))
    }

    async fn plugin_info(
        &self,
        request: Request<PluginInfoRequest>,
    ) -> Result<Response<PluginInfoResponse>, Status> {
        let request = request.into_inner();
        let found = self
            .plugins()
            .into_iter()
            .find(|plugin| plugin.r#type == request.r#type && plugin.id == request.id);
        let Some(plugin) = found else {
            let text = format!("plugin {}.{} not found", request.r#type, request.id);
            return Err(with(ErrorKind::NotFound, text));
        };
        if request.options.is_some() {
            return Err(with(
                ErrorKind::Unimplemented,
                "the plugin provides no information",
            ));
        }
        Ok(Response::new(PluginInfoResponse {
            plugin: Some(plugin),
            extra: None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (millis, expected) in [
            (0, "0s"),
            (100, "100ms"),
            (1500, "1.5s"),
            (59_999, "59.999s"),
            (60_000, "1m0s"),
            (90_100, "1m30.1s"),
            (7_200_000, "2h0m0s"),
        ] {
            assert_eq!(printed(Duration::from_millis(millis)), expected);
        }
        assert_eq!(printed(Duration::from_micros(1)), "1µs");
    }
}
