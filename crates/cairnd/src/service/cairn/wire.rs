//! What the node answers, in the words of `cairn.v1`.

use std::time::Duration;

use cairn_meta::Timestamp;
use cairn_node::{
    DiskRow, DiskUsage, Event, GcCount, GcReport, Holder, ImageInfo, ImageUsage, Inspect,
    InspectNode, Kept, NamespaceInfo, NamespaceUsage, Phase, Role, SnapshotInfo, Tagged,
    TransferredLayer, Unexplained, UsageRow,
};
use cairn_proto::cairn::v1;
use cairn_types::{Digest, LayerTiming, SnapshotKind, Usage};

use crate::convert;

pub(super) fn image(info: ImageInfo) -> v1::Image {
    v1::Image {
        name: info.name.to_string(),
        namespace: info.namespace.to_string(),
        target: Some(convert::to_descriptor(&info.target)),
        labels: info.labels,
        created_at: Some(convert::time(Timestamp(info.created_at))),
        updated_at: Some(convert::time(Timestamp(info.updated_at))),
        platforms: info.platforms,
        content_size: info.content_size,
        unpacked_size: info.unpacked_size,
        complete: info.complete,
        missing: info.missing.iter().map(Digest::to_string).collect(),
    }
}

pub(super) fn inspect(inspect: Inspect) -> v1::InspectResponse {
    let manifest = inspect.manifest.map(|manifest| manifest.digest.to_string());
    v1::InspectResponse {
        image: Some(image(inspect.image)),
        tree: Some(inspect_node(inspect.tree)),
        manifest: manifest.unwrap_or_default(),
        manifest_bytes: inspect.manifest_bytes,
        config_bytes: inspect.config_bytes,
    }
}

fn inspect_node(node: InspectNode) -> v1::InspectNode {
    use v1::inspect_node::Role as Wire;
    let (role, layer) = match node.role {
        Role::Index => (Wire::Index, 0),
        Role::Manifest => (Wire::Manifest, 0),
        Role::Attestation => (Wire::Attestation, 0),
        Role::Config => (Wire::Config, 0),
        Role::Layer(number) => (Wire::Layer, number),
        Role::Other => (Wire::Other, 0),
    };
    v1::InspectNode {
        role: role.into(),
        layer: u32::try_from(layer).unwrap_or(u32::MAX),
        descriptor: Some(convert::to_descriptor(&node.descriptor)),
        present: node.present,
        platform: text(node.platform),
        diff_id: text(node.diff_id),
        chain_id: text(node.chain_id),
        unpacked: node.unpacked.map(disk_usage),
        timing: node.timing.as_ref().map(layer_timing),
        children: node.children.into_iter().map(inspect_node).collect(),
    }
}

/// Absence is empty on the wire.
fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn disk_usage(usage: Usage) -> v1::DiskUsage {
    v1::DiskUsage {
        bytes: usage.bytes,
        inodes: usage.inodes,
    }
}

fn layer_timing(timing: &LayerTiming) -> v1::LayerTiming {
    let micros = |part: Duration| u64::try_from(part.as_micros()).unwrap_or(u64::MAX);
    v1::LayerTiming {
        fetch_us: micros(timing.fetch),
        inflate_us: micros(timing.inflate),
        untar_us: micros(timing.untar),
        sync_us: micros(timing.sync),
        commit_us: micros(timing.commit),
    }
}

pub(super) fn tagged(tagged: Tagged) -> v1::tag_response::Outcome {
    use v1::tag_response::Outcome;
    match tagged {
        Tagged::Created => Outcome::Created,
        Tagged::Moved => Outcome::Moved,
        Tagged::Unchanged => Outcome::Unchanged,
    }
}

pub(super) fn progress(event: Event) -> v1::Progress {
    use v1::progress::Event as Wire;
    let event = match event {
        Event::Resolved {
            name,
            platform,
            layers,
        } => Wire::Resolved(v1::Resolved {
            name,
            platform,
            layers: layers.into_iter().map(layer_size).collect(),
        }),
        Event::Layer {
            digest,
            phase,
            done,
            total,
        } => Wire::Layer(v1::LayerProgress {
            digest: digest.to_string(),
            phase: self::phase(phase).into(),
            done,
            total,
        }),
        Event::Asked {
            digest,
            host,
            attempt,
        } => Wire::Asked(v1::LayerAsked {
            digest: digest.to_string(),
            host,
            attempt,
        }),
        Event::Resumed { digest, at } => Wire::Resumed(v1::LayerResumed {
            digest: digest.to_string(),
            at,
        }),
        Event::Retry {
            digest,
            host,
            attempt: (attempt, attempts_max),
            wait,
            cause,
        } => Wire::Retry(v1::LayerRetry {
            digest: digest.to_string(),
            host,
            attempt,
            attempts_max,
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            cause,
        }),
        Event::Timed {
            digest,
            key,
            timing,
        } => Wire::Timed(v1::LayerTimed {
            digest: digest.to_string(),
            chain_id: key.to_string(),
            timing: Some(layer_timing(&timing)),
        }),
        Event::Traced(line) => Wire::Http(v1::HttpLine { line }),
        Event::Done => Wire::Done(v1::ProgressDone {}),
    };
    v1::Progress { event: Some(event) }
}

fn layer_size((digest, size): (Digest, u64)) -> v1::LayerSize {
    v1::LayerSize {
        digest: digest.to_string(),
        size,
    }
}

fn phase(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Waiting => v1::Phase::Waiting,
        Phase::Fetch => v1::Phase::Fetch,
        Phase::FetchUnpack => v1::Phase::FetchUnpack,
        Phase::Unpack => v1::Phase::Unpack,
        Phase::Sync => v1::Phase::Sync,
        Phase::Done => v1::Phase::Done,
        Phase::HereAlready => v1::Phase::HereAlready,
        Phase::Push => v1::Phase::Push,
        Phase::Mounted => v1::Phase::Mounted,
    }
}

pub(super) fn transferred(layers: Vec<TransferredLayer>) -> Vec<v1::TransferredLayer> {
    let layer = |layer: TransferredLayer| v1::TransferredLayer {
        digest: layer.descriptor.digest.to_string(),
        diff_id: text(layer.diff_id),
        chain_id: text(layer.chain_id),
        size: layer.descriptor.size,
        unpacked_size: layer.unpacked_size,
        host: layer.host.unwrap_or_default(),
        attempts: layer.attempts,
        timing: layer.timing.as_ref().map(layer_timing),
    };
    layers.into_iter().map(layer).collect()
}

/// `usage` is what was measured, and `None` when that failed.
pub(super) fn snapshot(info: SnapshotInfo, usage: Option<Usage>) -> v1::Snapshot {
    use v1::snapshot::Kind;
    let kind = match info.kind {
        SnapshotKind::View => Kind::View,
        SnapshotKind::Active => Kind::Active,
        SnapshotKind::Committed => Kind::Committed,
    };
    v1::Snapshot {
        key: info.key.to_string(),
        parent: text(info.parent),
        kind: kind.into(),
        bytes: usage.map(|usage| usage.bytes),
        inodes: usage.map(|usage| usage.inodes),
        durable: info.durable,
        labels: info.labels,
        created_at: Some(convert::time(info.created_at)),
        updated_at: Some(convert::time(info.updated_at)),
    }
}

pub(super) fn namespace(info: NamespaceInfo) -> v1::Namespace {
    v1::Namespace {
        name: info.name.to_string(),
        labels: info.labels,
        images: info.images,
        snapshots: info.snapshots,
        size: info.size,
    }
}

pub(super) fn usage_row(row: UsageRow) -> v1::UsageRow {
    v1::UsageRow {
        kind: row.kind.to_owned(),
        total: row.total,
        active: row.active,
        size: row.size,
        reclaimable: row.reclaimable,
    }
}

pub(super) fn kept(kept: Kept) -> v1::Kept {
    let step = |(kind, name): (&str, String)| v1::Step {
        kind: kind.to_owned(),
        name,
    };
    let holder = |holder: Holder| v1::Holder {
        kind: holder.kind.to_owned(),
        name: holder.name,
        label: holder.label.unwrap_or_default(),
        through: holder.through.into_iter().map(step).collect(),
    };
    v1::Kept {
        kind: kept.kind.to_owned(),
        name: kept.name,
        size: kept.size,
        holders: kept.holders.into_iter().map(holder).collect(),
    }
}

pub(super) fn image_usage(usage: ImageUsage) -> v1::ImageUsage {
    v1::ImageUsage {
        name: usage.name.to_string(),
        namespace: usage.namespace.to_string(),
        content_size: usage.content_size,
        unpacked_size: usage.unpacked_size,
        unique_size: usage.unique_size,
    }
}

pub(super) fn namespace_usage(usage: NamespaceUsage) -> v1::NamespaceUsage {
    v1::NamespaceUsage {
        name: usage.namespace.to_string(),
        content_size: usage.content_size,
        snapshot_size: usage.snapshot_size,
        unique_size: usage.unique_size,
    }
}

pub(super) fn measured(disk: DiskUsage) -> v1::MeasureResponse {
    let row = |row: DiskRow| v1::DiskRow {
        kind: row.kind.name().to_owned(),
        total: row.total,
        bytes: row.usage.bytes,
        inodes: row.usage.inodes,
    };
    let unexplained = |one: Unexplained| v1::UnexplainedPath {
        path: one.path.to_string_lossy().into_owned(),
        bytes: one.usage.bytes,
        inodes: one.usage.inodes,
    };
    v1::MeasureResponse {
        rows: disk.rows.into_iter().map(row).collect(),
        unexplained: disk.unexplained.into_iter().map(unexplained).collect(),
    }
}

pub(super) fn collected(report: &GcReport) -> v1::CollectResponse {
    let count = |count: GcCount| {
        Some(v1::Collected {
            removed: count.removed,
            freed: count.freed,
        })
    };
    v1::CollectResponse {
        dry_run: report.dry_run,
        images: count(report.images),
        content: count(report.content),
        snapshots: count(report.snapshots),
        ingests: count(report.ingests),
        leases: count(report.leases),
        took_ms: u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
    }
}
