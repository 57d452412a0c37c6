//! Snapshots: stacked, mounted, written, looked at, taken apart; and differences between them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use cairn_proto::containerd::{
    services::{
        diff::v1::{ApplyRequest, DiffRequest},
        snapshots::v1::{
            CommitSnapshotRequest, Info, MountsRequest, PrepareSnapshotRequest,
            RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest, UsageRequest,
            ViewSnapshotRequest,
        },
    },
    types::{Descriptor, Mount},
};
use prost_types::FieldMask;
use tonic::Code;

use super::super::{
    api::{Api, Verdict, check, either, good, map, refused},
    client::Desk,
};

/// The one snapshotter.
const SNAPSHOTTER: &str = "overlayfs";

fn sn() -> String {
    SNAPSHOTTER.to_owned()
}

pub(super) async fn prepare(api: &Api, key: &str, parent: &str) -> Verdict<Vec<Mount>> {
    let request = PrepareSnapshotRequest {
        snapshotter: sn(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    Ok(good("prepare", api.snapshots().prepare(request).await)?.mounts)
}

pub(super) async fn view(api: &Api, key: &str, parent: &str) -> Verdict<Vec<Mount>> {
    let request = ViewSnapshotRequest {
        snapshotter: sn(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        ..ViewSnapshotRequest::default()
    };
    Ok(good("view", api.snapshots().view(request).await)?.mounts)
}

pub(super) async fn commit(api: &Api, name: &str, key: &str) -> Verdict {
    let request = CommitSnapshotRequest {
        snapshotter: sn(),
        name: name.to_owned(),
        key: key.to_owned(),
        ..CommitSnapshotRequest::default()
    };
    good("commit", api.snapshots().commit(request).await)
}

fn removal(key: &str) -> RemoveSnapshotRequest {
    RemoveSnapshotRequest {
        snapshotter: sn(),
        key: key.to_owned(),
    }
}

pub(super) async fn remove(api: &Api, key: &str) -> Verdict {
    good("remove", api.snapshots().remove(removal(key)).await)
}

async fn stat(api: &Api, key: &str) -> Verdict<Info> {
    let request = StatSnapshotRequest {
        snapshotter: sn(),
        key: key.to_owned(),
    };
    let answer = good("stat", api.snapshots().stat(request).await)?;
    answer.info.ok_or_else(|| "stat: no info".to_owned())
}

/// Whether a snapshot is there.
pub(super) async fn exists(api: &Api, key: &str) -> Verdict<bool> {
    let request = StatSnapshotRequest {
        snapshotter: sn(),
        key: key.to_owned(),
    };
    let answer = api.snapshots().stat(request).await;
    Ok(either("stat", answer, &[Code::NotFound])?.is_some())
}

/// A snapshot where its client mounted it.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    pub(super) async fn at(dir: &Path, mounts: &[Mount]) -> Verdict<Mounted> {
        let [mount] = mounts else {
            return Err(format!("{} mounts, not one", mounts.len()));
        };
        fs::create_dir_all(dir).map_err(|err| format!("{}: {err}", dir.display()))?;
        let options = mount.options.join(",");
        let mut command = Command::new("mount");
        command.args(["-t", &mount.r#type, "-o", &options, &mount.source]);
        command.arg(dir);
        run(command).await?;
        Ok(Mounted(dir.to_owned()))
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Verdict {
        fs::write(self.0.join(name), bytes).map_err(|err| format!("write {name}: {err}"))
    }

    pub(super) fn holds(&self, name: &str, bytes: &[u8]) -> Verdict {
        let found = fs::read(self.0.join(name)).map_err(|err| format!("read {name}: {err}"))?;
        check(found == bytes, || format!("{name} has other bytes"))
    }

    pub(super) async fn end(self) -> Verdict {
        let mut command = Command::new("umount");
        command.arg(&self.0);
        run(command).await
    }
}

async fn run(mut command: Command) -> Verdict {
    let ended = tokio::task::spawn_blocking(move || {
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|err| format!("{command:?}: {err}"))?;
        check(output.status.success(), || {
            format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))
        })
    });
    ended.await.map_err(|err| err.to_string())?
}

/// Prepares, writes one file, commits; the name of what was committed.
async fn layer(desk: &Desk, label: &str, parent: &str, bytes: &[u8]) -> Verdict<String> {
    let (name, key) = (
        format!("{}-{label}", desk.name),
        format!("{}-{label}-active", desk.name),
    );
    let mounts = prepare(&desk.api, &key, parent).await?;
    let mounted = Mounted::at(&desk.dir, &mounts).await?;
    mounted.write(label, bytes)?;
    mounted.end().await?;
    commit(&desk.api, &name, &key).await?;
    Ok(name)
}

/// Two layers, a look at both, and down again.
pub(super) async fn stack(desk: &mut Desk) -> Verdict {
    let (lower, upper) = (desk.noise(3000), desk.noise(30_000));
    let one = layer(desk, "one", "", &lower).await?;
    let two = layer(desk, "two", &one, &upper).await?;
    let api = &desk.api;
    let info = stat(api, &two).await?;
    check(info.parent == one && info.kind == 3, || format!("{info:?}"))?;
    let request = UsageRequest {
        snapshotter: sn(),
        key: two.clone(),
    };
    let usage = good("usage", api.snapshots().usage(request).await)?;
    check(usage.size >= 30_000, || format!("usage {usage:?}"))?;
    let look = format!("{}-look", desk.name);
    let mounts = view(api, &look, &two).await?;
    let request = MountsRequest {
        snapshotter: sn(),
        key: look.clone(),
    };
    let again = good("mounts", api.snapshots().mounts(request).await)?;
    check(again.mounts == mounts, || "other mounts".to_owned())?;
    let mounted = Mounted::at(&desk.dir, &mounts).await?;
    mounted.holds("one", &lower)?;
    mounted.holds("two", &upper)?;
    check(mounted.write("three", b"").is_err(), || {
        "a view can be written to".to_owned()
    })?;
    mounted.end().await?;
    let request = UpdateSnapshotRequest {
        snapshotter: sn(),
        info: Some(Info {
            name: two.clone(),
            labels: map(&[("soak", &desk.name)]),
            ..Info::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["labels.soak".to_owned()],
        }),
    };
    good("label", api.snapshots().update(request).await)?;
    let below = api.snapshots().remove(removal(&one)).await;
    refused("remove a parent", below, Code::FailedPrecondition)?;
    if desk.dice.roll(2) == 0 {
        for key in [&look, &two, &one] {
            remove(api, key).await?;
        }
        let again = api.snapshots().remove(removal(&one)).await;
        refused("remove again", again, Code::NotFound)?;
    }
    Ok(())
}

/// What was changed on a layer becomes one, and applied to another copy of the first gives the same.
pub(super) async fn difference(desk: &mut Desk) -> Verdict {
    let (lower, upper) = (desk.noise(2000), desk.noise(20_000));
    let base = layer(desk, "base", "", &lower).await?;
    let key = |label: &str| format!("{}-{label}", desk.name);
    let right = prepare(&desk.api, &key("right"), &base).await?;
    let mounted = Mounted::at(&desk.dir, &right).await?;
    mounted.write("new", &upper)?;
    mounted.write("base", b"changed")?;
    mounted.end().await?;
    let request = DiffRequest {
        left: view(&desk.api, &key("left"), &base).await?,
        right,
        r#ref: key("diff"),
        ..DiffRequest::default()
    };
    let made = good("diff", desk.api.diff().diff(request).await)?;
    let diff = made.diff.ok_or_else(|| "diff: no descriptor".to_owned())?;
    let mounts = prepare(&desk.api, &key("copy"), &base).await?;
    apply(&desk.api, diff, mounts.clone()).await?;
    let mounted = Mounted::at(&desk.dir, &mounts).await?;
    mounted.holds("new", &upper)?;
    mounted.holds("base", b"changed")?;
    mounted.end().await
}

/// Unpacks a layer; its diff ID.
pub(super) async fn apply(api: &Api, diff: Descriptor, mounts: Vec<Mount>) -> Verdict<String> {
    let request = ApplyRequest {
        diff: Some(diff),
        mounts,
        ..ApplyRequest::default()
    };
    let applied = good("apply", api.diff().apply(request).await)?;
    let applied = applied.applied;
    Ok(applied
        .ok_or_else(|| "apply: no descriptor".to_owned())?
        .digest)
}

/// The answers to calls that several make on one key.
pub(super) async fn contend(desk: &mut Desk, key: &str) -> Verdict {
    let request = PrepareSnapshotRequest {
        snapshotter: sn(),
        key: key.to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    let answer = desk.api.snapshots().prepare(request).await;
    either("prepare", answer, &[Code::AlreadyExists])?;
    let answer = desk.api.snapshots().remove(removal(key)).await;
    either("remove", answer, &[Code::NotFound])?;
    Ok(())
}
