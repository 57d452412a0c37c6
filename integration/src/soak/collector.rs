//! Garbage that is collected without end, and what the store is like afterwards.

use std::{
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use cairn_proto::cairn::v1::{
    CheckRequest, CollectRequest, UsageRequest, UsageRow, check_response::Part, finding::Severity,
};
use tokio::runtime::{Builder, Runtime};

use super::{
    Told,
    api::{Api, Verdict, good, told as status_told},
    daemon::Served,
};

/// From the beginning of a collection to that of the next.
const EVERY: Duration = Duration::from_millis(100);
/// What a killed client had asked for comes to its end.
const SETTLED: Duration = Duration::from_secs(2);
/// What goes on behind answers has so long to end.
const PATIENCE: Duration = Duration::from_secs(30);

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime")
}

async fn connect(daemon: &Served) -> Verdict<Api> {
    let socket = daemon.socket().display().to_string();
    Api::connect(&socket, "default").await
}

/// Collects until the end.
pub(super) fn collect(daemon: &Served, end: Instant, told: &Mutex<Told>) {
    let lock = || told.lock().unwrap_or_else(PoisonError::into_inner);
    let collected = runtime().block_on(async {
        let api = connect(daemon).await?;
        while Instant::now() < end {
            let next = Instant::now() + EVERY;
            let request = CollectRequest { dry_run: false };
            good("collect", api.store().collect(request).await)?;
            lock().collections += 1;
            tokio::time::sleep_until(next.into()).await;
        }
        Verdict::Ok(())
    });
    if let Err(reason) = collected {
        lock().fault(reason);
    }
}

/// With all that killed clients held: nothing is damaged, and every file is accounted for.
pub(super) fn check(daemon: &Served, told: &mut Told) {
    let mut found = Vec::new();
    let looked = runtime().block_on(whole(daemon, &mut found));
    found.extend(looked.err());
    for fault in found {
        told.fault(fault);
    }
}

async fn whole(daemon: &Served, found: &mut Vec<String>) -> Verdict {
    tokio::time::sleep(SETTLED).await;
    let api = connect(daemon).await?;
    let request = CollectRequest { dry_run: false };
    good("collect", api.store().collect(request).await)?;
    let request = CheckRequest {
        deep: true,
        repair: false,
        namespace: String::new(),
    };
    let mut answers = good("check", api.store().check(request).await)?;
    loop {
        let answer = answers.message().await;
        let Some(answer) = answer.map_err(|status| status_told("check", &status))? else {
            break;
        };
        let Some(Part::Finding(finding)) = answer.part else {
            continue;
        };
        if finding.severity() != Severity::Note {
            let (kind, object, name) = (&finding.kind, &finding.object, &finding.name);
            found.push(format!("fsck: {kind}: {object} {name}: {}", finding.detail));
        }
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let request = UsageRequest::default();
        let usage = good("usage", api.store().usage(request).await)?;
        let unknown = unaccounted(&daemon.root(), &usage.rows);
        if unknown.is_empty() || Instant::now() >= end {
            found.extend(unknown);
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// How `df` and the disk differ.
fn unaccounted(root: &Path, rows: &[UsageRow]) -> Vec<String> {
    let row = |kind: &str| rows.iter().find(|row| row.kind == kind);
    let said = |kind: &str| row(kind).map_or((0, 0), |row| (row.total, row.size));
    let mut unknown = Vec::new();
    let mut same = |what: &str, said: (u64, u64), found: (u64, u64)| {
        if said != found {
            unknown.push(format!(
                "df says {said:?} (number, bytes) of {what}, and there are {found:?}"
            ));
        }
    };
    let blobs = files(&root.join("content/blobs"));
    same("content", said("content"), blobs);
    same(
        "ingests",
        said("ingests"),
        files(&root.join("content/ingest")),
    );
    let trees = trees(&root.join("snapshots"));
    // Several may show one tree.
    let (snapshots, _) = said("snapshots");
    if trees > snapshots {
        unknown.push(format!(
            "df says {snapshots} snapshots, and there are {trees} trees"
        ));
    }
    unknown
}

/// Number and bytes of all files below a directory.
fn files(dir: &Path) -> (u64, u64) {
    let (mut count, mut bytes) = (0, 0);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        // It may go meanwhile.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let (more, size) = match metadata.is_dir() {
            true => files(&entry.path()),
            false => (1, metadata.len()),
        };
        (count, bytes) = (count + more, bytes + size);
    }
    (count, bytes)
}

/// Directories of snapshots, which have numbers.
fn trees(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let numbers = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.parse::<u64>().is_ok())
    });
    numbers.count() as u64
}
