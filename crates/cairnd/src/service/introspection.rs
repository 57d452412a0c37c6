//! `Introspection`: what this server is made of, in containerd's names, since clients look for the
//! snapshotter they are about to use.

use std::{borrow::Cow, collections::BTreeMap, os::unix::fs::MetadataExt, path::Path};

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
use crate::status::{of, with};

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
fn plugins(root: &Path, sharing: Sharing) -> Vec<Plugin> {
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
        let export = match &*plugin.r#type {
            "io.containerd.snapshotter.v1" => {
                ("root", root.join("snapshots").display().to_string())
            }
            "io.containerd.metadata.v1" => ("policy", sharing.name().to_owned()),
            _ => continue,
        };
        plugin.exports.insert(export.0.to_owned(), export.1);
    }
    plugins
}

#[tonic::async_trait]
impl Introspection for Service {
    async fn plugins(
        &self,
        request: Request<PluginsRequest>,
    ) -> Result<Response<PluginsResponse>, Status> {
        let filters = Filters::parse(&request.into_inner().filters).map_err(|err| of(&err))?;
        let shown = plugins(self.node.root(), self.node.sharing())
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
        let found = plugins(self.node.root(), self.node.sharing())
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
