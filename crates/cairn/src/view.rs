//! The default output of each listing: which columns, in which order, and the trees.
//!
//! Pure functions from documents to text; they read no clock, no store and no terminal.

use std::time::Duration;

use cairn_types::Labels;
use jiff::Timestamp;

use crate::{
    error::quote,
    model::{
        Blob, Bundle, Gc, Image, ImageUsage, Kept, Node, Snapshot, Time, TimedLayer, Tree, Usage,
    },
    size,
    table::{Cell, Column, Table, printable, short_digest},
};

mod disk;
mod document;
mod fsck;
mod mounts;
mod records;
mod transfer;

pub use disk::{df_namespaces, disk, unexplained};
pub use fsck::findings;
pub use mounts::mounts;
pub use records::{events, ingests, label_lines, leases, namespaces, plugin, plugins, resources};
pub use transfer::{hosts, pulled, pushed};

/// Width of `999.9 MiB (100%)`: RECLAIMABLE does not jump between two runs.
const RECLAIMABLE_WIDTH: usize = 16;

/// REF DIGEST SIZE UNPACKED PLATFORMS ADDED; wide: + TYPE LABELS.
pub fn images(images: &[Image], wide: bool, now: Timestamp) -> Table {
    let mut columns = vec![
        Column::left("REF"),
        Column::left("DIGEST"),
        Column::right("SIZE"),
        Column::right("UNPACKED"),
        Column::left("PLATFORMS"),
        Column::left("ADDED"),
    ];
    if wide {
        columns.extend([Column::left("TYPE"), Column::left("LABELS")]);
    }
    let mut table = Table::new(&columns);
    for image in images {
        let mut row = vec![
            Cell::Reference(image.name.clone()),
            Cell::Digest(image.target.digest.clone()),
            Cell::bytes(Some(image.content_size)),
            Cell::bytes(image.unpacked_size),
            Cell::text(image.platforms.join(",")),
            Cell::text(size::age(image.created_at.0, now)),
        ];
        if wide {
            let media_type = Cell::text(&*image.target.media_type);
            row.extend([media_type, Cell::Labels(image.labels.clone())]);
        }
        table.row(row);
    }
    table
}

/// REF STATUS CONTENT UNPACKED.
pub fn check(images: &[Image]) -> Table {
    let headers = ["REF", "STATUS", "CONTENT", "UNPACKED"].map(Column::left);
    let mut table = Table::new(&headers);
    for image in images {
        let content = match image.missing.len() {
            0 => "complete".to_owned(),
            n => format!("{n} missing"),
        };
        table.row(vec![
            Cell::Reference(image.name.clone()),
            Cell::text(if image.complete {
                "ready"
            } else {
                "incomplete"
            }),
            Cell::text(content),
            Cell::text(if image.unpacked_size.is_some() {
                "yes"
            } else {
                "no"
            }),
        ]);
    }
    table
}

/// DIGEST SIZE AGE LABELS.
pub fn content(blobs: &[Blob], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        Column::left("DIGEST"),
        Column::right("SIZE"),
        Column::left("AGE"),
        Column::left("LABELS"),
    ]);
    for blob in blobs {
        table.row(vec![
            Cell::Digest(blob.digest.clone()),
            Cell::bytes(Some(blob.size)),
            Cell::text(size::age(blob.created_at.0, now)),
            Cell::Labels(blob.labels.clone()),
        ]);
    }
    table
}

/// KEY PARENT KIND SIZE; wide: + INODES CREATED LABELS.
pub fn snapshots(snapshots: &[Snapshot], wide: bool, now: Timestamp) -> Table {
    let mut columns = vec![
        Column::left("KEY"),
        Column::left("PARENT"),
        Column::left("KIND"),
        Column::right("SIZE"),
    ];
    if wide {
        columns.extend([
            Column::right("INODES"),
            Column::left("CREATED"),
            Column::left("LABELS"),
        ]);
    }
    let mut table = Table::new(&columns);
    for snapshot in snapshots {
        let parent = snapshot.parent.as_deref();
        let mut row = vec![
            Cell::Digest(snapshot.key.clone()),
            parent.map_or_else(|| Cell::text(""), |p| Cell::Digest(p.to_owned())),
            Cell::text(snapshot.kind.name()),
            Cell::bytes(snapshot.size),
        ];
        if wide {
            let inodes = snapshot.inodes;
            row.extend([
                inodes.map_or_else(|| Cell::number("-"), Cell::number),
                Cell::text(size::age(snapshot.created_at.0, now)),
                Cell::Labels(snapshot.labels.clone()),
            ]);
        }
        table.row(row);
    }
    table
}

/// KEY SIZE INODES; `total` adds a line with the sums. Sizes are exact with `exact`.
pub fn usage(rows: &[(String, u64, u64)], total: bool, exact: bool) -> Table {
    let columns = [
        Column::left("KEY"),
        Column::right("SIZE"),
        Column::right("INODES"),
    ];
    let mut table = Table::new(&columns);
    let bytes = |n: u64| {
        if exact {
            Cell::number(n)
        } else {
            Cell::bytes(Some(n))
        }
    };
    for (key, size, inodes) in rows {
        table.row(vec![
            Cell::Digest(key.clone()),
            bytes(*size),
            Cell::number(inodes),
        ]);
    }
    if total {
        let size = rows.iter().map(|r| r.1).sum();
        let inodes: u64 = rows.iter().map(|r| r.2).sum();
        table.row(vec![Cell::text("total"), bytes(size), Cell::number(inodes)]);
    }
    table
}

/// What the time of each layer went into. They are unpacked side by side, so there is no sum of them.
pub fn timing(layers: &[TimedLayer]) -> Table {
    let mut table = Table::new(&[
        Column::left("LAYER"),
        Column::right("SIZE"),
        Column::right("UNPACKED"),
        Column::right("FETCH"),
        Column::right("INFLATE"),
        Column::right("UNTAR"),
        Column::right("SYNC"),
        Column::right("COMMIT"),
        Column::right("TOTAL"),
    ]);
    for layer in layers {
        let mut row = vec![
            Cell::Digest(layer.digest.clone()),
            Cell::bytes(Some(layer.size)),
            Cell::bytes(layer.unpacked_size),
        ];
        let parts = layer.timing_ms.map(|t| {
            let parts = [t.fetch, t.inflate, t.untar, t.sync, t.commit];
            let [fetch, inflate, untar, sync, commit] = parts;
            [fetch, inflate, untar, sync, commit, parts.iter().sum()]
        });
        let cells = match parts {
            Some(parts) => parts.map(|ms| size::duration(Duration::from_millis(ms))),
            None => std::array::from_fn(|_| "-".to_owned()),
        };
        row.extend(cells.map(Cell::Number));
        table.row(row);
    }
    table
}

/// One blank per level, as `ctr snapshots tree`; siblings in bytewise order. Keys that are digests
/// are shortened for people.
pub fn snapshot_tree(snapshots: &[Snapshot], short: bool) -> String {
    let known = |key: &str| snapshots.iter().any(|s| s.key == key);
    let mut roots: Vec<&Snapshot> = snapshots
        .iter()
        .filter(|s| s.parent.as_deref().is_none_or(|p| !known(p)))
        .collect();
    roots.sort_by(|a, b| b.key.cmp(&a.key));
    let mut open: Vec<(usize, &Snapshot)> = roots.into_iter().map(|s| (0, s)).collect();
    let mut text = String::new();
    // A chain may be 500 deep; a loop on a list of open ends does not care.
    while let Some((depth, snapshot)) = open.pop() {
        let key = match short {
            true => short_digest(&snapshot.key),
            false => snapshot.key.clone(),
        };
        text.push_str(&format!("{}{}\n", " ".repeat(depth), printable(&key)));
        let mut children: Vec<&Snapshot> = snapshots
            .iter()
            .filter(|s| s.parent.as_deref() == Some(&snapshot.key))
            .collect();
        children.sort_by(|a, b| b.key.cmp(&a.key));
        open.extend(children.into_iter().map(|s| (depth + 1, s)));
    }
    text
}

/// DIR IMAGE PLATFORM MOUNTED SIZE CREATED.
pub fn bundles(bundles: &[Bundle], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        Column::left("DIR"),
        Column::left("IMAGE"),
        Column::left("PLATFORM"),
        Column::left("MOUNTED"),
        Column::right("SIZE"),
        Column::left("CREATED"),
    ]);
    for bundle in bundles {
        table.row(vec![
            Cell::text(&*bundle.dir),
            Cell::Reference(bundle.image.clone()),
            Cell::text(&*bundle.platform),
            Cell::text(match (bundle.mounted, bundle.copied) {
                (true, _) => "yes",
                (false, true) => "copy",
                (false, false) => "no",
            }),
            Cell::bytes(bundle.size),
            Cell::text(size::age(bundle.created_at.0, now)),
        ]);
    }
    table
}

/// TYPE TOTAL ACTIVE SIZE RECLAIMABLE.
pub fn df(rows: &[Usage]) -> Table {
    let mut table = Table::new(&[
        Column::left("TYPE"),
        Column::right("TOTAL"),
        Column::right("ACTIVE"),
        Column::right("SIZE"),
        Column::right("RECLAIMABLE").at_least(RECLAIMABLE_WIDTH),
    ]);
    for row in rows {
        let percent = size::percent(row.reclaimable, row.size);
        table.row(vec![
            Cell::text(&*row.kind),
            Cell::number(row.total),
            Cell::number(row.active),
            Cell::bytes(Some(row.size)),
            Cell::number(format!("{} ({percent}%)", size::bytes(row.reclaimable))),
        ]);
    }
    table
}

/// REF NAMESPACE SIZE UNPACKED UNIQUE.
pub fn df_images(images: &[ImageUsage]) -> Table {
    let mut table = Table::new(&[
        Column::left("REF"),
        Column::left("NAMESPACE"),
        Column::right("SIZE"),
        Column::right("UNPACKED"),
        Column::right("UNIQUE"),
    ]);
    for image in images {
        table.row(vec![
            Cell::Reference(image.name.clone()),
            Cell::text(&*image.namespace),
            Cell::bytes(Some(image.content_size)),
            Cell::bytes(image.unpacked_size),
            Cell::bytes(Some(image.unique_size)),
        ]);
    }
    table
}

/// KEPT BY, NAME, THROUGH, TO LET GO.
pub fn kept(kept: &Kept) -> Table {
    let mut table = Table::new(&[
        Column::left("KEPT BY"),
        Column::left("NAME"),
        Column::left("THROUGH"),
        Column::left("TO LET GO"),
    ]);
    for holder in &kept.held_by {
        let steps = holder.through.iter();
        let steps: Vec<String> = steps
            .map(|step| format!("{} {}", step.kind, quote(&step.name)))
            .collect();
        let name = match &holder.label {
            Some(label) => format!("{} by {}", quote(&holder.name), quote(label)),
            None => quote(&holder.name),
        };
        table.row(vec![
            Cell::text(&*holder.kind),
            Cell::text(name),
            Cell::text(steps.join(", ")),
            Cell::text(holder.frees.clone().unwrap_or_default()),
        ]);
    }
    table
}

/// TYPE REMOVED FREED, kinds of which nothing went left out, and the total with its time.
pub fn gc(gc: &Gc) -> Table {
    let columns = [
        Column::left("TYPE"),
        Column::right("REMOVED"),
        Column::right("FREED"),
    ];
    let mut table = Table::new(&columns);
    let (removed, freed) = (&gc.removed, &gc.freed);
    let kinds = [
        ("images", removed.images, freed.images),
        ("content", removed.content, freed.content),
        ("snapshots", removed.snapshots, freed.snapshots),
        ("ingests", removed.ingests, freed.ingests),
        ("leases", removed.leases, freed.leases),
    ];
    for (kind, count, bytes) in kinds.into_iter().filter(|k| k.1 > 0) {
        table.row(vec![
            Cell::text(kind),
            Cell::number(count),
            Cell::bytes(Some(bytes)),
        ]);
    }
    let count: u64 = kinds.iter().map(|k| k.1).sum();
    let total = vec![
        Cell::text("total"),
        Cell::number(count),
        Cell::bytes(Some(gc.freed_bytes)),
    ];
    let wall = std::time::Duration::from_millis(gc.wall_ms);
    table.row_with(total, &format!(" in {}", size::duration(wall)));
    table
}

/// What is known of one blob.
pub fn blob(blob: &Blob) -> String {
    let mut rows = vec![
        ("digest", blob.digest.clone()),
        ("size", size::bytes(blob.size)),
        ("uncompressed", or_dash(blob.uncompressed.as_deref())),
    ];
    rows.extend(dates(&blob.created_at, &blob.updated_at));
    rows.extend(labels(&blob.labels));
    pairs(&rows)
}

/// What is known of one snapshot.
pub fn snapshot(snapshot: &Snapshot) -> String {
    let number = |n: Option<u64>| n.map(|n| n.to_string());
    let mut rows = vec![
        ("key", snapshot.key.clone()),
        ("parent", or_dash(snapshot.parent.as_deref())),
        ("kind", snapshot.kind.name().to_owned()),
        ("size", or_dash(snapshot.size.map(size::bytes).as_deref())),
        ("inodes", or_dash(number(snapshot.inodes).as_deref())),
        (
            "durable",
            if snapshot.durable { "yes" } else { "no" }.to_owned(),
        ),
    ];
    rows.extend(dates(&snapshot.created_at, &snapshot.updated_at));
    rows.extend(labels(&snapshot.labels));
    pairs(&rows)
}

fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

fn dates(created: &Time, updated: &Time) -> [(&'static str, String); 2] {
    [
        ("created", size::time(created.0)),
        ("updated", size::time(updated.0)),
    ]
}

/// One line each; the word stands before the first only.
fn labels(labels: &Labels) -> Vec<(&'static str, String)> {
    let words = std::iter::once("labels").chain(std::iter::repeat(""));
    let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
    let lines: Vec<_> = words.zip(pairs).collect();
    match lines.is_empty() {
        true => vec![("labels", "-".to_owned())],
        false => lines,
    }
}

/// `key  value`, the values below one another.
pub fn pairs(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let line = |(key, value): &(&str, String)| format!("{key:width$}  {}\n", printable(value));
    rows.iter().map(line).collect()
}

/// The tree of `images inspect`. Digests are shortened for people.
pub fn tree(tree: &Tree, short: bool) -> String {
    let added = size::time(tree.added);
    let mut text = format!(
        "{}   (namespace {}, added {added})\n",
        tree.name, tree.namespace
    );
    branch(&mut text, "", true, &tree.root, short);
    text
}

/// The digests in a text.
fn short_words(text: &str) -> String {
    let word = |word: &str| match word.strip_suffix([',', ';']) {
        Some(bare) => format!("{}{}", short_digest(bare), &word[bare.len()..]),
        None => short_digest(word),
    };
    let words: Vec<String> = text.split(' ').map(word).collect();
    words.join(" ")
}

fn branch(text: &mut String, indent: &str, last: bool, node: &Node, short: bool) {
    let digest = if short {
        short_digest(&node.digest)
    } else {
        node.digest.clone()
    };
    let corner = if last { "└─" } else { "├─" };
    let (role, bytes) = (&node.role, size::bytes(node.size));
    let note = match short {
        true => short_words(&node.note),
        false => node.note.clone(),
    };
    let line = format!("{indent}{corner} {role:8}  {digest}  {bytes:9}  {note}");
    text.push_str(line.trim_end());
    text.push('\n');
    let below = format!("{indent}{}", if last { "   " } else { "│  " });
    let bar = if node.children.is_empty() {
        "   "
    } else {
        "│  "
    };
    let document = node.document.as_deref().and_then(document::lines);
    for line in document.unwrap_or_default() {
        text.push_str(&format!("{below}{bar}{}\n", printable(&line)));
    }
    // An image tree is an index, its manifests, their blobs: three levels, checked by its reader.
    for (i, child) in node.children.iter().enumerate() {
        branch(text, &below, i + 1 == node.children.len(), child, short);
    }
}

#[cfg(test)]
mod tests;
