//! What the server says of itself: how it is, and what it is made of.

use cairn_proto::{
    cairn::v1::{InfoRequest, Scrub, store_client::StoreClient},
    containerd::services::introspection::v1::{
        Plugin, PluginsRequest, introspection_client::IntrospectionClient,
    },
};

use super::{Client, Result, fsck, link::client, plain};
use crate::model;

/// What the error of a plugin that was left out on purpose has in it (containerd `plugin`).
const SKIPPED: &str = "skip plugin";

impl Client {
    /// How the store and its server are.
    pub fn info(&self) -> Result<model::Info> {
        let mut store = client!(self.link, StoreClient<_>);
        let answer = self
            .link
            .wait(store.info(self.link.request(InfoRequest {})));
        let info = answer?.into_inner();
        Ok(model::Info {
            server: self.server()?,
            read_only: Some(info.read_only).filter(|reason| !reason.is_empty()),
            rebuilt: Some(info.rebuilt).filter(|told| !told.is_empty()),
            started_at: plain::time(info.started_at),
            pid: info.pid,
            engine: info.engine,
            uuid: info.uuid,
            free_bytes: info.free_bytes,
            total_bytes: info.total_bytes,
            namespaces: self.namespaces()?,
            usage: self.df(false)?,
            scrub: info.scrub.map(scrub),
        })
    }

    /// All plugins, in the server's order, which is that of their types.
    pub fn plugins(&self) -> Result<Vec<model::Plugin>> {
        let request = self.link.request(PluginsRequest::default());
        let mut introspection = client!(self.link, IntrospectionClient<_>);
        let answer = self.link.wait(introspection.plugins(request));
        let answer = answer.map_err(|err| self.explain("list plugins", ("", ""), err))?;
        let plugins = answer.into_inner().plugins;
        Ok(plugins.into_iter().map(plugin).collect())
    }
}

fn scrub(scrub: Scrub) -> model::Scrub {
    let time = |time: Option<_>| time.map(|time| plain::time(Some(time)));
    model::Scrub {
        running: scrub.running,
        began_at: time(scrub.began_at),
        done: scrub.done,
        total: scrub.total,
        ended_at: time(scrub.ended_at),
        blobs: scrub.blobs,
        bytes: scrub.bytes,
        trees: scrub.trees,
        unproven: scrub.unproven,
        findings: scrub.findings.into_iter().map(fsck::finding).collect(),
    }
}

fn plugin(plugin: Plugin) -> model::Plugin {
    let error = plugin.init_err.map(|status| status.message);
    let platforms = plugin.platforms.into_iter().map(|p| {
        let parts = [p.os, p.architecture, p.variant];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("/")
    });
    model::Plugin {
        kind: plugin.r#type,
        id: plugin.id,
        platforms: platforms.collect(),
        capabilities: plugin.capabilities,
        status: match &error {
            None => "ok",
            Some(text) if text.contains(SKIPPED) => "skip",
            Some(_) => "error",
        },
        error,
        exports: plugin.exports.into_iter().collect(),
    }
}
