//! The only door to the store. Today it is in this process; a socket can come between here, and no
//! other module will notice.
//!
//! Nothing else names the types of the store but through what is re-exported here, and nothing
//! leaves here but documents and problems.

use std::{io, os::unix::net::UnixStream, path::Path};

use cairn_types::{Digest, ErrorKind, ImageName, Labels, Namespace, Platform};
use jiff::Timestamp;

use cairn_node::{
    EngineKind, ExportRequest, Failure, GcReport, ImageInfo, ImportRequest, Imported, Inspect,
    InspectNode, MountRequest, Node, NodeOptions, Role,
};
pub use cairn_node::{Event, Phase, Progress, Removed, Silent, Source, Tagged};

use crate::{
    args::Global,
    error::{Problem, quote},
    model, size,
    table::short_digest,
};

/// Where a daemon would listen.
const SOCKET: &str = "/run/cairn/cairn.sock";

type Result<T> = std::result::Result<T, Problem>;

/// An open store, seen from one namespace.
pub struct Client {
    node: Node,
    ns: Namespace,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        let mut problem = Problem::new(failure.kind, &failure.attempted, "", &*failure.reason);
        problem.object = failure.object.clone();
        problem.namespace = failure.namespace.clone();
        problem.found_in = failure.found_in.clone();
        problem.causes = failure.causes.clone();
        problem.location = failure.location.clone();
        problem.next = failure.next.clone();
        problem
    }
}

/// What to import besides the archive itself.
pub struct ImportOptions {
    /// As the flag.
    pub base_name: Option<String>,
    /// As the flag.
    pub index_name: Option<String>,
    /// As the flag.
    pub digests: bool,
    /// As the flag.
    pub platforms: Vec<Platform>,
    /// As the flag.
    pub all_platforms: bool,
    /// Makes the snapshots, too.
    pub unpack: bool,
    /// For the image records.
    pub labels: Labels,
}

/// One image that came in.
pub struct NewImage {
    /// The document.
    pub image: model::Image,
    /// The variant that was taken, or `-`.
    pub platform: String,
}

/// What to export.
pub struct ExportOptions {
    /// Full names.
    pub names: Vec<ImageName>,
    /// As the flag.
    pub platforms: Vec<Platform>,
    /// As the flag.
    pub all_platforms: bool,
    /// As the flag.
    pub skip_manifest_json: bool,
    /// As the flag.
    pub skip_non_distributable: bool,
}

/// What is known about one image.
pub struct Details {
    /// The document.
    pub image: model::Image,
    /// For the default output.
    pub tree: model::Tree,
    /// As stored; empty when absent.
    pub manifest: Vec<u8>,
    /// As stored; empty when absent.
    pub config: Vec<u8>,
    /// Chain ID, bytes and inodes of each unpacked layer, lowest first.
    pub usage: Vec<(String, u64, u64)>,
}

impl Client {
    /// Opens what the global flags point at.
    pub fn open(global: &Global) -> Result<Client> {
        if let Some(socket) = &global.address {
            return Err(unreachable_daemon(socket));
        }
        check_root(&global.root)?;
        let engine = EngineKind::default();
        let node = Node::open(NodeOptions {
            root: global.root.clone(),
            engine,
        })?;
        Ok(Client {
            node,
            ns: global.namespace.clone(),
        })
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        self.node.root()
    }

    /// Whose images these are.
    pub fn namespace(&self) -> &Namespace {
        &self.ns
    }

    /// All images by name.
    pub fn images(&self) -> Result<Vec<model::Image>> {
        Ok(self.node.images(&self.ns)?.into_iter().map(image).collect())
    }

    /// The full name a person means.
    pub fn resolve(&self, text: &str, attempted: &str) -> Result<ImageName> {
        Ok(self.node.resolve(&self.ns, text, attempted)?)
    }

    /// Takes in every image of an archive.
    pub fn import(
        &self,
        source: Source,
        options: ImportOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<NewImage>> {
        let mut request = ImportRequest::new(self.ns.clone(), source);
        request.base_name = options.base_name;
        request.index_name = options.index_name;
        request.digests = options.digests;
        request.platforms = options.platforms;
        request.all_platforms = options.all_platforms;
        request.unpack = options.unpack;
        request.labels = options.labels;
        let imported = self.node.import(request, progress)?;
        imported.iter().map(|i| self.new_image(i)).collect()
    }

    fn new_image(&self, imported: &Imported) -> Result<NewImage> {
        let platform = imported.platform.as_ref();
        Ok(NewImage {
            image: image(self.node.image(&self.ns, &imported.name)?),
            platform: platform.map_or_else(|| "-".to_owned(), ToString::to_string),
        })
    }

    /// Writes an archive; its length in bytes comes back.
    pub fn export(
        &self,
        out: &mut dyn io::Write,
        options: ExportOptions,
        progress: &dyn Progress,
    ) -> Result<u64> {
        let request = ExportRequest {
            ns: self.ns.clone(),
            out,
            names: options.names,
            platforms: options.platforms,
            all_platforms: options.all_platforms,
            skip_manifest_json: options.skip_manifest_json,
            skip_non_distributable: options.skip_non_distributable,
        };
        Ok(self.node.export(request, progress)?)
    }

    /// Everything about one image.
    pub fn inspect(&self, name: &ImageName, platform: Option<&Platform>) -> Result<Details> {
        Ok(details(self.node.inspect(&self.ns, name, platform)?))
    }

    /// One more name.
    pub fn tag(&self, source: &ImageName, target: &ImageName, force: bool) -> Result<Tagged> {
        Ok(self.node.tag(&self.ns, source, target, force)?)
    }

    /// One name less.
    pub fn remove_image(&self, name: &ImageName, force: bool) -> Result<Removed> {
        Ok(self.node.remove_image(&self.ns, name, force)?)
    }

    /// The files at a directory.
    pub fn mount_image(
        &self,
        name: &ImageName,
        target: &Path,
        rw: bool,
        platform: Option<Platform>,
    ) -> Result<std::path::PathBuf> {
        let (ns, name) = (self.ns.clone(), name.clone());
        let request = MountRequest {
            ns,
            name,
            target: target.to_owned(),
            rw,
            platform,
        };
        Ok(self.node.mount_image(&request)?)
    }

    /// Undoes [`Client::mount_image`].
    pub fn unmount_image(&self, target: &Path, remove: bool) -> Result<()> {
        Ok(self.node.unmount_image(&self.ns, target, remove)?)
    }

    /// Where the space went.
    pub fn df(&self) -> Result<Vec<model::Usage>> {
        let row = |row: cairn_node::UsageRow| model::Usage {
            kind: row.kind.to_owned(),
            total: row.total,
            active: row.active,
            size: row.size,
            reclaimable: row.reclaimable,
        };
        Ok(self.node.df()?.into_iter().map(row).collect())
    }

    /// Removes what nothing leads to.
    pub fn gc(&self, dry_run: bool) -> Result<model::Gc> {
        Ok(gc(&self.node.gc(dry_run)?))
    }

    /// All namespaces that hold anything.
    pub fn namespaces(&self) -> Result<Vec<Namespace>> {
        Ok(self.node.namespaces()?)
    }
}

fn gc(report: &GcReport) -> model::Gc {
    let pick = |part: fn(&cairn_node::GcCount) -> u64| model::Removed {
        images: 0,
        content: part(&report.content),
        snapshots: part(&report.snapshots),
        ingests: part(&report.ingests),
        leases: part(&report.leases),
    };
    model::Gc {
        dry_run: report.dry_run,
        removed: pick(|c| c.removed),
        freed_bytes: report.freed(),
        wall_ms: u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
        freed: pick(|c| c.freed),
    }
}

/// A moment from its nanoseconds since 1970; one outside of what a calendar holds is its start.
fn moment(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn image(info: ImageInfo) -> model::Image {
    model::Image {
        name: info.name.to_string(),
        namespace: info.namespace.to_string(),
        target: model::Target {
            media_type: info.target.media_type,
            digest: info.target.digest.to_string(),
            size: info.target.size,
        },
        platforms: info.platforms,
        content_size: info.content_size,
        unpacked_size: info.unpacked_size,
        complete: info.complete,
        missing: info.missing.iter().map(Digest::to_string).collect(),
        labels: info.labels,
        created_at: model::Time(moment(info.created_at)),
        updated_at: model::Time(moment(info.updated_at)),
    }
}

fn details(inspect: Inspect) -> Details {
    let mut usage = Vec::new();
    // The chosen manifest only: an index's variants would mix up their layers.
    let wanted = inspect.manifest.as_ref().map(|m| &m.digest);
    let chosen = find(&inspect.tree, &|n| Some(&n.descriptor.digest) == wanted);
    for layer in chosen.map(|m| &*m.children).unwrap_or_default() {
        if let (Some(chain), Some(on_disk)) = (&layer.chain_id, layer.unpacked) {
            usage.push((chain.to_string(), on_disk.bytes, on_disk.inodes));
        }
    }
    Details {
        tree: model::Tree {
            name: inspect.image.name.to_string(),
            namespace: inspect.image.namespace.to_string(),
            added: moment(inspect.image.created_at),
            root: tree(&inspect.tree, &inspect.config_bytes),
        },
        image: image(inspect.image),
        manifest: inspect.manifest_bytes,
        config: inspect.config_bytes,
        usage,
    }
}

fn find<'n>(
    node: &'n InspectNode,
    wanted: &dyn Fn(&InspectNode) -> bool,
) -> Option<&'n InspectNode> {
    if wanted(node) {
        return Some(node);
    }
    node.children.iter().find_map(|child| find(child, wanted))
}

fn tree(node: &InspectNode, config: &[u8]) -> model::Node {
    let role = match node.role {
        Role::Index => "index".to_owned(),
        Role::Manifest => "manifest".to_owned(),
        Role::Attestation => "attestation".to_owned(),
        Role::Config => "config".to_owned(),
        Role::Layer(n) => format!("layer {n}"),
        Role::Other => "blob".to_owned(),
    };
    let mut notes = match node.role {
        Role::Config => config_notes(node, config),
        Role::Layer(_) => layer_notes(node),
        _ => vec![node.descriptor.media_type.clone()],
    };
    if let (Role::Manifest, Some(platform)) = (node.role, &node.platform) {
        notes.push(platform.to_string());
        notes.dedup();
    }
    if !node.present {
        notes.push("not here".to_owned());
    }
    model::Node {
        role,
        digest: node.descriptor.digest.to_string(),
        size: node.descriptor.size,
        note: notes.join(", "),
        children: node
            .children
            .iter()
            .map(|child| tree(child, config))
            .collect(),
    }
}

fn layer_notes(node: &InspectNode) -> Vec<String> {
    let media_type = &node.descriptor.media_type;
    let form = match media_type.rsplit_once(['+', '.']) {
        Some((_, form @ ("gzip" | "zstd" | "tar"))) => form,
        _ => media_type,
    };
    let mut notes = vec![form.to_owned()];
    if let Some(diff) = &node.diff_id {
        notes.push(format!("diff {}", short_digest(&diff.to_string())));
    }
    if let Some(usage) = node.unpacked {
        notes.push(format!("unpacked {}", size::bytes(usage.bytes)));
    }
    notes
}

/// What a person asks of a configuration: where it runs, what it starts, as whom, how old it is.
/// Only that of the chosen manifest is at hand; another's line has its platform alone.
fn config_notes(node: &InspectNode, bytes: &[u8]) -> Vec<String> {
    let mut notes: Vec<String> = node.platform.iter().map(ToString::to_string).collect();
    if Digest::of(node.descriptor.digest.algorithm(), bytes) != node.descriptor.digest {
        return notes;
    }
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(bytes) else {
        notes.push("no image configuration".to_owned());
        return notes;
    };
    let part = &document["config"];
    for (key, word) in [("Entrypoint", "entrypoint"), ("Cmd", "cmd")] {
        if part[key].as_array().is_some_and(|a| !a.is_empty()) {
            notes.push(format!("{word} {}", part[key]));
        }
    }
    let user = part["User"].as_str().filter(|u| !u.is_empty());
    notes.push(format!("user {}", user.unwrap_or("0:0")));
    if let Some(built) = document["created"].as_str() {
        let time = built.parse::<Timestamp>().map(size::time);
        notes.push(format!("built {}", time.as_deref().unwrap_or(built)));
    }
    notes
}

/// A socket that was asked for and that refuses never leads to embedded mode.
fn unreachable_daemon(socket: &Path) -> Problem {
    let attempted = "reach cairnd at";
    let name = socket.display().to_string();
    let problem = |kind, reason: String| {
        let mut problem = Problem::new(kind, attempted, "", reason);
        problem.object = Some(("daemon".to_owned(), name.clone()));
        problem
    };
    match UnixStream::connect(socket) {
        Ok(_) => problem(
            ErrorKind::Unimplemented,
            "this cairn speaks over no socket yet".to_owned(),
        )
        .next("leave out --address to work without a daemon"),
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
            let reason = format!("permission denied (you are {})", user());
            problem(ErrorKind::PermissionDenied, reason)
        }
        Err(_) => problem(ErrorKind::Unavailable, "nobody listens there".to_owned())
            .next("systemctl start cairnd")
            .next("leave out --address to work without a daemon"),
    }
}

/// Layers are unpacked with their owners and mounted, so nobody but root gets far; better to say so
/// at once than in the middle.
fn check_root(root: &Path) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let reason = format!(
        "permission denied (you are {}, and no daemon answers at {SOCKET})",
        user()
    );
    let name = root.display().to_string();
    let words = std::env::args().skip(1).map(|word| quote(&word));
    let again = std::iter::once("sudo cairn".to_owned())
        .chain(words)
        .collect::<Vec<_>>();
    Err(Problem::new(ErrorKind::PermissionDenied, "open", &name, reason).next(again.join(" ")))
}

/// The name of whoever runs this, or the number of an unknown one.
fn user() -> String {
    let uid = nix::unistd::geteuid();
    let known = nix::unistd::User::from_uid(uid).ok().flatten();
    known.map_or_else(|| format!("uid {uid}"), |user| user.name)
}
