//! How long a small change waits while garbage is collected: `cargo run --release -p cairn-node
//! --example gc_pause [SNAPSHOTS BLOBS]`.
//!
//! Makes a store of that many records (20,000 and 50,000 unless told otherwise), of which first all
//! are held, then half, then none, and collects it each time while another thread makes and removes
//! leases one by one.

#![allow(clippy::print_stdout, reason = "it is what a benchmark is for")]

use std::{
    error::Error,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use cairn_meta::{
    BlobLink, BlobRecord, LeaseRecord, NamespaceRecord, SnapshotRecord, Timestamp, Tx, schema,
};
use cairn_node::{EngineKind, Node, NodeOptions};
use cairn_types::{Digest, Labels, LeaseId, Namespace, SnapshotKey, SnapshotKind, Usage};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Records in one transaction while the store is filled.
const CHUNK: usize = 2000;
/// Layers of an image.
const STACK: usize = 10;

fn key(n: usize) -> SnapshotKey {
    SnapshotKey::parse(&format!("snapshot {n}")).expect("a short text")
}

fn snapshot(n: usize) -> SnapshotRecord {
    SnapshotRecord {
        id: 1_000_000 + n as u64,
        kind: SnapshotKind::Committed,
        parent: (!n.is_multiple_of(STACK)).then(|| key(n - 1)),
        labels: Labels::new(),
        created_at: Timestamp::now(),
        updated_at: Timestamp::now(),
        usage: Usage::default(),
        durable: true,
        boot_id: String::new(),
        diff_id: None,
        blob: None,
        timing: None,
    }
}

/// The records alone: what a collection waits for besides is the removal of files, which makes no
/// other call wait.
fn fill(node: &Node, ns: &Namespace, snapshots: usize, blobs: usize) -> Outcome<()> {
    for from in (0..snapshots).step_by(CHUNK) {
        let ns = ns.clone();
        node.meta().write(move |tx: &mut Tx<'_>| {
            tx.put(&schema::NAMESPACES, &ns, &NamespaceRecord::default())?;
            for n in from..(from + CHUNK).min(snapshots) {
                let record = snapshot(n);
                if let Some(parent) = &record.parent {
                    let child = (ns.clone(), parent.clone(), key(n));
                    tx.put(&schema::CHILDREN, &child, &())?;
                }
                tx.put(&schema::SNAPSHOTS, &(ns.clone(), key(n)), &record)?;
            }
            Ok::<_, cairn_meta::Error>(())
        })?;
    }
    for from in (0..blobs).step_by(CHUNK) {
        let ns = ns.clone();
        node.meta().write(move |tx: &mut Tx<'_>| {
            for n in from..(from + CHUNK).min(blobs) {
                let digest = digest(n);
                let mut link = BlobLink::default();
                // Every tenth is a manifest over the nine after it.
                if n.is_multiple_of(STACK) {
                    for below in n + 1..n + STACK {
                        let label = format!("containerd.io/gc.ref.content.l.{below}");
                        let value = self::digest(below).to_string();
                        link.labels.insert(label, value);
                    }
                }
                let created_at = Timestamp::now();
                let blob = BlobRecord {
                    size: 1,
                    created_at,
                };
                tx.put(&schema::BLOBS, &digest, &blob)?;
                tx.put(&schema::BLOB_LINKS, &(ns.clone(), digest), &link)?;
            }
            Ok::<_, cairn_meta::Error>(())
        })?;
    }
    Ok(())
}

fn digest(n: usize) -> Digest {
    Digest::sha256(n.to_string().as_bytes())
}

/// Holds the top of every stack, and every manifest, of the first `part` in a hundred.
fn hold(node: &Node, ns: &Namespace, snapshots: usize, blobs: usize, part: usize) -> Outcome<()> {
    let lease = (ns.clone(), LeaseId::parse("all")?);
    node.meta().write(move |tx: &mut Tx<'_>| {
        let record = LeaseRecord {
            labels: Labels::new(),
            created_at: Timestamp::now(),
        };
        tx.put(&schema::LEASES, &lease, &record)?;
        let tops = (STACK - 1..snapshots).step_by(STACK);
        let tops = tops.map(|n| {
            (
                "snapshots/overlayfs",
                key(n).to_string(),
                n * 100 / snapshots,
            )
        });
        let manifests = (0..blobs).step_by(STACK);
        let manifests = manifests.map(|n| ("content", digest(n).to_string(), n * 100 / blobs));
        for (kind, name, at) in tops.chain(manifests) {
            let resource = (lease.0.clone(), lease.1.clone(), kind.to_owned(), name);
            match at < part {
                true => tx.put(&schema::LEASE_RESOURCES, &resource, &())?,
                false => tx.delete(&schema::LEASE_RESOURCES, &resource)?,
            }
        }
        Ok::<_, cairn_meta::Error>(())
    })?;
    Ok(())
}

/// Makes and removes leases until it is told to stop; how long each call took.
fn change(node: &Node, ns: &Namespace, stop: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let lease = node.lease_create(ns, None, Labels::new());
        took.push(began.elapsed());
        let began = Instant::now();
        if let Ok(lease) = lease {
            let _ = node.lease_delete(ns, &lease.id);
        }
        took.push(began.elapsed());
    }
    took
}

fn tell(what: &str, mut took: Vec<Duration>) {
    if took.is_empty() {
        return println!("{what}: no changes");
    }
    took.sort_unstable();
    let at = |part: usize| took[(took.len() - 1) * part / 1000];
    println!(
        "{what:<28} {:>6} changes   p50 {:>9.2?}   p99 {:>9.2?}   max {:>9.2?}",
        took.len(),
        at(500),
        at(990),
        at(1000)
    );
}

fn main() -> Outcome<()> {
    let counts = std::env::args().skip(1).map(|text| text.parse());
    let counts = counts.collect::<Result<Vec<usize>, _>>()?;
    let [snapshots, blobs] = counts.try_into().unwrap_or([20_000, 50_000]);
    let dir = tempfile::tempdir()?;
    let failed = |failure: cairn_node::Failure| failure.to_string();
    let node =
        Node::open(NodeOptions::new(dir.path().join("root"), EngineKind::Redb)).map_err(failed)?;
    let ns = Namespace::parse("default")?;
    fill(&node, &ns, snapshots, blobs)?;
    for part in [100, 50, 0] {
        hold(&node, &ns, snapshots, blobs, part)?;
        let beside = |work: &dyn Fn() -> Outcome<String>| {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let changes = scope.spawn(|| change(&node, &ns, &stop));
                let done = work();
                stop.store(true, Ordering::Relaxed);
                let changes = changes.join().unwrap_or_default();
                done.map(|what| tell(&what, changes))
            })
        };
        beside(&|| {
            thread::sleep(Duration::from_secs(2));
            Ok("beside nothing".to_owned())
        })?;
        beside(&|| {
            let report = node.gc(false).map_err(failed)?;
            let removed = report.content.removed + report.snapshots.removed;
            println!(
                "removed {removed} in {:.2?}, longest transaction {:.2?}",
                report.took, report.pause
            );
            Ok("beside that".to_owned())
        })?;
    }
    Ok(())
}
