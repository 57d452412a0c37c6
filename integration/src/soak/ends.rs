//! What is left when all clients are gone: nothing but what killed ones held, and without that nothing
//! at all.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use cairn_proto::containerd::services::{
    content::v1::{AbortRequest, ListContentRequest, ListStatusesRequest},
    images::v1::{DeleteImageRequest, ListImagesRequest},
    leases::v1::{CreateRequest, DeleteRequest, ListRequest},
    namespaces::v1::{DeleteNamespaceRequest, ListNamespacesRequest},
    snapshots::v1::ListSnapshotsRequest,
};

use super::{
    Told,
    api::{Api, Verdict, good, told as status_told},
    daemon::Served,
};
use crate::wait::within;

/// What the names of uploads of pulls begin with.
const PULLED: &str = "cairn.pull-";
/// What goes on behind an answer has so long to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks at everything, and says what should not be.
pub(super) fn check(daemon: &Served, descriptors: u64, told: &mut Told) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let mut found = Vec::new();
    if let Err(reason) = runtime.block_on(records(daemon, &told.killed, &mut found)) {
        found.push(reason);
    }
    drop(runtime);
    until_none(&mut found, || files(&daemon.root()));
    until_none(&mut found, || match daemon.descriptors() {
        Ok(now) if now > descriptors => vec![format!("{now} descriptors, {descriptors} before")],
        Ok(_) => Vec::new(),
        Err(err) => vec![format!("the daemon is gone: {err}")],
    });
    for mount in daemon.mounts() {
        found.push(format!("mounted: {mount}"));
    }
    for line in daemon.log().lines() {
        if line.contains("ERROR") || line.contains("panicked") {
            found.push(format!("logged: {line}"));
        }
    }
    for fault in found {
        told.fault(fault);
    }
}

/// What is still wrong after a while.
fn until_none(found: &mut Vec<String>, look: impl Fn() -> Vec<String>) {
    let mut wrong = Vec::new();
    within(PATIENCE, || {
        wrong = look();
        wrong.is_empty().then_some(())
    });
    found.extend(wrong);
}

/// Whether a name is of a life that was killed. Names that all use are nobody's.
fn of_killed(name: &str, killed: &BTreeSet<String>) -> bool {
    let own = name.split(['/', ':']).find_map(|part| {
        let part = part.strip_prefix("lease-").unwrap_or(part);
        let mut words = part.split('-');
        Some(format!("{}-{}", words.next()?, words.next()?))
    });
    name.contains("rival")
        || name == "l"
        || own.is_some_and(|own| killed.contains(&own))
        || name.split('/').any(|part| {
            killed
                .iter()
                .any(|life| part.starts_with(&format!("{life}-")))
        })
}

async fn records(daemon: &Served, killed: &BTreeSet<String>, found: &mut Vec<String>) -> Verdict {
    let socket = daemon.socket().display().to_string();
    let api = Api::connect(&socket, "default").await?;
    let request = ListNamespacesRequest::default();
    let listed = good("list namespaces", api.namespaces().list(request).await)?;
    let spaces: Vec<String> = listed.namespaces.into_iter().map(|ns| ns.name).collect();
    for ns in &spaces {
        let api = api.within(ns);
        let request = ListRequest::default();
        for lease in good("list leases", api.leases().list(request).await)?.leases {
            if !of_killed(&lease.id, killed) {
                found.push(format!("lease {} in {ns}", lease.id));
            }
            let request = DeleteRequest {
                id: lease.id,
                ..DeleteRequest::default()
            };
            good("delete lease", api.leases().delete(request).await)?;
        }
        let request = ListImagesRequest::default();
        for image in good("list images", api.images().list(request).await)?.images {
            if !of_killed(&image.name, killed) {
                found.push(format!("image {} in {ns}", image.name));
            }
            let request = DeleteImageRequest {
                name: image.name,
                ..DeleteImageRequest::default()
            };
            good("delete image", api.images().delete(request).await)?;
        }
        // What a pull that broke off leaves to the next one, for a day.
        let request = ListStatusesRequest::default();
        let uploads = good("list uploads", api.content().list_statuses(request).await)?;
        for upload in uploads.statuses {
            if upload.r#ref.starts_with(PULLED) {
                let request = AbortRequest {
                    r#ref: upload.r#ref,
                };
                good("abort", api.content().abort(request).await)?;
            }
        }
    }
    // One collection for all.
    let request = CreateRequest {
        id: "last".to_owned(),
        ..CreateRequest::default()
    };
    good("create lease", api.leases().create(request).await)?;
    let request = DeleteRequest {
        id: "last".to_owned(),
        sync: true,
    };
    good("delete lease", api.leases().delete(request).await)?;
    for ns in &spaces {
        nothing(&api.within(ns), found).await?;
        if ns != "default" {
            let request = DeleteNamespaceRequest { name: ns.clone() };
            let removed = api.namespaces().delete(request).await;
            if let Err(status) = removed {
                found.push(status_told(&format!("remove {ns}"), &status));
            }
        }
    }
    Ok(())
}

/// That a namespace is empty.
async fn nothing(api: &Api, found: &mut Vec<String>) -> Verdict {
    let ns = api.ns().to_owned();
    let request = ListContentRequest::default();
    let mut listed = good("list content", api.content().list(request).await)?;
    while let Ok(Some(batch)) = listed.message().await {
        for info in batch.info {
            found.push(format!("blob {} in {ns}", info.digest));
        }
    }
    let request = ListSnapshotsRequest {
        snapshotter: "overlayfs".to_owned(),
        ..ListSnapshotsRequest::default()
    };
    let mut listed = good("list snapshots", api.snapshots().list(request).await)?;
    while let Ok(Some(batch)) = listed.message().await {
        for info in batch.info {
            found.push(format!("snapshot {} in {ns}", info.name));
        }
    }
    let request = ListStatusesRequest::default();
    let uploads = good("list uploads", api.content().list_statuses(request).await)?;
    for upload in uploads.statuses {
        found.push(format!("upload {} in {ns}", upload.r#ref));
    }
    Ok(())
}

/// Files and directories that no record can stand behind any more.
fn files(root: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for dir in [
        "content/blobs/sha256",
        "content/ingest",
        "snapshots",
        "snapshots/trash",
    ] {
        let Ok(entries) = fs::read_dir(root.join(dir)) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_name() != "trash" {
                left.push(format!("file {}", entry.path().display()));
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_they_are() {
        let killed = BTreeSet::from(["c1-12".to_owned()]);
        for name in [
            "lease-c1-12-3",
            "soak.test/c1-12-77:1",
            "soak.test/rival:2",
            "c1-12-5-second",
        ] {
            assert!(of_killed(name, &killed), "{name}");
        }
        for name in ["lease-c1-1-3", "soak.test/c1-1-2:1", "c1-122-5", "other"] {
            assert!(!of_killed(name, &killed), "{name}");
        }
    }
}
