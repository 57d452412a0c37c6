//! The store as a whole, and who serves it.

use cairn_proto::cairn::v1::{self, store_client::StoreClient};
use cairnd::{embedded, server};

use super::{
    Client, Result,
    door::{self, Door},
    link::{Link, client},
};
use crate::{args::Global, model};

/// The version of this program, and of the server inside it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Client {
    /// Where the space went; `by_image` also by each image and namespace.
    pub fn df(&self, by_image: bool) -> Result<Vec<model::Usage>> {
        let mut store = client!(self.link, StoreClient<_>);
        let answer = store.usage(self.link.request(v1::UsageRequest { by_image }));
        let usage = self.link.wait(answer)?.into_inner();
        let mut images = by_image.then(|| usage.images.into_iter().map(image_usage).collect());
        let namespaces = usage.namespaces.into_iter().map(namespace_usage);
        let mut namespaces = by_image.then(|| namespaces.collect());
        let row = |row: v1::UsageRow| model::Usage {
            images: (row.kind == "images").then(|| images.take()).flatten(),
            namespaces: (row.kind == "images").then(|| namespaces.take()).flatten(),
            kind: row.kind,
            total: row.total,
            active: row.active,
            size: row.size,
            reclaimable: row.reclaimable,
        };
        Ok(usage.rows.into_iter().map(row).collect())
    }

    /// What is on the disk, and what it is there for.
    pub fn disk(&self) -> Result<model::Disk> {
        let mut store = client!(self.link, StoreClient<_>);
        let answer = store.measure(self.link.request(v1::MeasureRequest {}));
        let measured = self.link.wait(answer)?.into_inner();
        let row = |row: v1::DiskRow| model::DiskRow {
            kind: row.kind,
            total: row.total,
            size: row.bytes,
            inodes: row.inodes,
        };
        let unexplained = |one: v1::UnexplainedPath| model::Unexplained {
            path: one.path,
            size: one.bytes,
            inodes: one.inodes,
        };
        Ok(model::Disk::of(
            measured.rows.into_iter().map(row).collect(),
            measured.unexplained.into_iter().map(unexplained).collect(),
        ))
    }

    /// What keeps whatever is called so.
    pub fn why(&self, object: &str) -> Result<Vec<model::Kept>> {
        let mut store = client!(self.link, StoreClient<_>);
        let object = object.to_owned();
        let answer = store.why(self.link.request(v1::WhyRequest { object }));
        let objects = self.link.wait(answer)?.into_inner().objects;
        Ok(objects.into_iter().map(kept).collect())
    }

    /// Removes what nothing leads to.
    pub fn gc(&self, dry_run: bool) -> Result<model::Gc> {
        let mut store = client!(self.link, StoreClient<_>);
        let answer = store.collect(self.link.request(v1::CollectRequest { dry_run }));
        Ok(gc(&self.link.wait(answer)?.into_inner()))
    }

    /// All namespaces that hold anything.
    pub fn namespaces(&self) -> Result<Vec<String>> {
        let mut store = client!(self.link, StoreClient<_>);
        let answer = store.list_namespaces(self.link.request(v1::ListNamespacesRequest {}));
        let listed = self.link.wait(answer)?.into_inner().namespaces;
        Ok(listed.into_iter().map(|namespace| namespace.name).collect())
    }

    /// Who serves this store.
    pub fn server(&self) -> Result<model::Server> {
        served(&self.link)
    }

    /// Who would serve the store that the global flags point at. Says so also of one that does not
    /// open: a server inside this process is asked nothing.
    pub fn server_of(global: &Global) -> Result<model::Server> {
        match door::find(global)? {
            Door::Daemon(link) => served(&link),
            Door::Store(root) => Ok(model::Server {
                version: VERSION.to_owned(),
                mode: "embedded",
                address: None,
                root: root.display().to_string(),
                api: server::API.to_owned(),
                layout: embedded::LAYOUT,
            }),
        }
    }
}

fn image_usage(usage: v1::ImageUsage) -> model::ImageUsage {
    model::ImageUsage {
        name: usage.name,
        namespace: usage.namespace,
        content_size: usage.content_size,
        unpacked_size: usage.unpacked_size,
        unique_size: usage.unique_size,
    }
}

fn namespace_usage(usage: v1::NamespaceUsage) -> model::NamespaceUsage {
    model::NamespaceUsage {
        name: usage.name,
        content_size: usage.content_size,
        snapshot_size: usage.snapshot_size,
        unique_size: usage.unique_size,
    }
}

fn served(link: &Link) -> Result<model::Server> {
    let mut store = client!(link, StoreClient<_>);
    let answer = store.info(link.request(v1::InfoRequest {}));
    let info = link.wait(answer)?.into_inner();
    let address = link.address().map(|socket| socket.display().to_string());
    Ok(model::Server {
        version: info.version,
        mode: address.as_ref().map_or("embedded", |_| "daemon"),
        address,
        root: info.root,
        api: info.api,
        layout: info.layout,
    })
}

fn gc(report: &v1::CollectResponse) -> model::Gc {
    let pick = |part: fn(&v1::Collected) -> u64| {
        let of = |kind: &Option<v1::Collected>| kind.as_ref().map(part).unwrap_or_default();
        model::Removed {
            images: of(&report.images),
            content: of(&report.content),
            snapshots: of(&report.snapshots),
            ingests: of(&report.ingests),
            leases: of(&report.leases),
        }
    };
    let freed = pick(|count| count.freed);
    model::Gc {
        dry_run: report.dry_run,
        removed: pick(|count| count.removed),
        freed_bytes: freed.content + freed.snapshots + freed.ingests + freed.leases,
        wall_ms: report.took_ms,
        freed,
    }
}

fn kept(kept: v1::Kept) -> model::Kept {
    let step = |step: v1::Step| model::Step {
        kind: step.kind,
        name: step.name,
    };
    let holder = |holder: v1::Holder| model::Holder {
        kind: holder.kind,
        name: holder.name,
        label: Some(holder.label).filter(|label| !label.is_empty()),
        through: holder.through.into_iter().map(step).collect(),
        frees: None,
    };
    model::Kept {
        kind: kept.kind,
        name: kept.name,
        size: kept.size,
        held_by: kept.holders.into_iter().map(holder).collect(),
    }
}
