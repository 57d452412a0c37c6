//! Snapshots as they are made, mounted and compared. Nothing is mounted here.

use std::time::Duration;

use cairn_proto::containerd::{
    services::{
        diff::v1::{DiffRequest, diff_client::DiffClient},
        snapshots::v1::{
            CommitSnapshotRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
            ViewSnapshotRequest, snapshots_client::SnapshotsClient,
        },
    },
    types,
};
use cairn_types::{Digest, ErrorKind, Labels, SnapshotKey, SnapshotKind};
use jiff::Timestamp;

use super::{
    Client, Result,
    link::client,
    plain::{GC_ROOT, explain},
};
use crate::{args::LabelChange, error::Problem, model, size};

/// The only one there is, by the name that containerd's clients ask for.
pub(super) const SNAPSHOTTER: &str = "overlayfs";

/// How long what a comparison needs for itself is kept when its end is never reached.
const DIFF_LIFE: Duration = Duration::from_secs(3600);

/// How to write the difference of two snapshots.
pub struct DiffOptions {
    /// An OCI layer type.
    pub media_type: String,
    /// The upload it goes through.
    pub reference: Option<String>,
    /// Keep the blob until its label is taken away.
    pub keep: bool,
    /// For the blob.
    pub labels: Labels,
    /// Later modification times become this one, in seconds since 1970.
    pub epoch: Option<i64>,
}

impl Client {
    /// Makes a snapshot that collections leave alone: one to write to, or with `view` one to look at.
    pub fn snapshot_new(
        &self,
        key: &SnapshotKey,
        parent: Option<&SnapshotKey>,
        view: bool,
    ) -> Result<Vec<model::Mount>> {
        let made = self.make(key, parent, view, None);
        made.map_err(|err| {
            let attempted = if view {
                "view snapshot"
            } else {
                "prepare snapshot"
            };
            let exists = err.kind == ErrorKind::AlreadyExists;
            let problem = self.explain(attempted, ("snapshot", key.as_str()), err);
            match exists {
                true => problem.next("cairn snapshots ls"),
                false => problem,
            }
        })
    }

    /// Held by a lease, or by its label.
    fn make(
        &self,
        key: &SnapshotKey,
        parent: Option<&SnapshotKey>,
        view: bool,
        lease: Option<&str>,
    ) -> Result<Vec<model::Mount>> {
        let snapshotter = SNAPSHOTTER.to_owned();
        let labels = match lease {
            Some(_) => Default::default(),
            None => kept().into_iter().collect(),
        };
        let (key, parent) = (
            key.to_string(),
            parent.map(ToString::to_string).unwrap_or_default(),
        );
        let mut snapshots = client!(self.link, SnapshotsClient<_>);
        let mounts = match view {
            true => {
                let request = ViewSnapshotRequest {
                    snapshotter,
                    key,
                    parent,
                    labels,
                };
                let request = self.leased(request, lease)?;
                let answer = self.link.wait(snapshots.view(request))?;
                answer.into_inner().mounts
            }
            false => {
                let request = PrepareSnapshotRequest {
                    snapshotter,
                    key,
                    parent,
                    labels,
                };
                let request = self.leased(request, lease)?;
                let answer = self.link.wait(snapshots.prepare(request))?;
                answer.into_inner().mounts
            }
        };
        Ok(mounts.into_iter().map(mount).collect())
    }

    /// Freezes `key` under `name`; collections leave it alone.
    pub fn snapshot_commit(&self, name: &SnapshotKey, key: &SnapshotKey) -> Result<()> {
        let request = self.link.request(CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: name.to_string(),
            key: key.to_string(),
            labels: kept().into_iter().collect(),
            parent: String::new(),
        });
        let mut snapshots = client!(self.link, SnapshotsClient<_>);
        let answer = self.link.wait(snapshots.commit(request));
        answer.map_err(|err| {
            // What exists is the name; all else is about the snapshot.
            let exists = err.kind == ErrorKind::AlreadyExists;
            let about = if exists { name } else { key };
            let problem = self.explain("commit snapshot", ("snapshot", about.as_str()), err);
            match exists {
                true => problem.next(format!("cairn snapshots info {}", quoted(name))),
                false => problem,
            }
        })?;
        Ok(())
    }

    /// How a view or an active snapshot is mounted.
    pub fn snapshot_mounts(&self, key: &SnapshotKey) -> Result<Vec<model::Mount>> {
        let attempted = "mount snapshot";
        let about = ("snapshot", key.as_str());
        if self.snapshot(key)?.kind == SnapshotKind::Committed {
            let reason = "it is committed, and others may stand on it";
            let kind = ErrorKind::FailedPrecondition;
            let mut problem = Problem::new(kind, attempted, key.as_str(), reason);
            problem.namespace = Some(self.namespace().to_string());
            return Err(problem.next(format!("cairn snapshots view NEW-KEY {}", quoted(key))));
        }
        let mounts = self.mounts(key);
        mounts.map_err(|err| self.explain(attempted, about, err))
    }

    fn mounts(&self, key: &SnapshotKey) -> Result<Vec<model::Mount>> {
        let request = self.link.request(MountsRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_string(),
        });
        let mut snapshots = client!(self.link, SnapshotsClient<_>);
        let answer = self.link.wait(snapshots.mounts(request))?;
        let mounts = answer.into_inner().mounts;
        Ok(mounts.into_iter().map(mount).collect())
    }

    /// Stores as a layer what `newer` shows and `older` does not; what is older than nothing is an
    /// empty directory.
    pub fn snapshot_diff(
        &self,
        older: Option<&SnapshotKey>,
        newer: &SnapshotKey,
        options: &DiffOptions,
    ) -> Result<Digest> {
        // Whatever becomes of this process, nothing of it stays for long.
        let lease = self.lease_create(None, Some(DIFF_LIFE), Labels::new())?.id;
        let mut looks = Vec::new();
        let digest = self.compare(older, newer, options, &lease, &mut looks);
        for look in &looks {
            if let Err(problem) = self.drop_look(look) {
                tracing::warn!("remove snapshot {look}: {problem}");
            }
        }
        let dropped = self.lease_remove(&lease, false);
        let digest = digest?;
        dropped.map(|()| digest)
    }

    fn compare(
        &self,
        older: Option<&SnapshotKey>,
        newer: &SnapshotKey,
        options: &DiffOptions,
        lease: &str,
        looks: &mut Vec<SnapshotKey>,
    ) -> Result<Digest> {
        let about = ("snapshot", newer.as_str());
        let failed = |err| self.explain("diff snapshot", about, err);
        let left = match older {
            Some(older) => self.look_at(older, lease, looks).map_err(failed)?,
            None => Vec::new(),
        };
        let right = self.look_at(newer, lease, looks).map_err(failed)?;
        let mut labels = options.labels.clone();
        if options.keep {
            labels.extend(kept());
        }
        let request = DiffRequest {
            left: left.into_iter().map(wire).collect(),
            right: right.into_iter().map(wire).collect(),
            media_type: options.media_type.clone(),
            r#ref: options.reference.clone().unwrap_or_default(),
            labels: labels.clone().into_iter().collect(),
            source_date_epoch: options
                .epoch
                .map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
        };
        let request = self.leased(request, Some(lease))?;
        let mut differ = client!(self.link, DiffClient<_>);
        let answer = self.link.wait(differ.diff(request)).map_err(failed)?;
        let written = answer.into_inner().diff.unwrap_or_default().digest;
        let digest = Digest::parse(&written)
            .map_err(|err| failed(Problem::new(ErrorKind::Internal, "", "", err.to_string())))?;
        // A blob that was there before has not got them.
        let missing = |(key, value): (String, String)| LabelChange { key, value };
        let labels: Vec<LabelChange> = labels.into_iter().map(missing).collect();
        if !labels.is_empty() {
            self.label_blob(&digest, &labels)?;
        }
        Ok(digest)
    }

    /// The mounts of a snapshot, or of a look at it when it is committed.
    fn look_at(
        &self,
        key: &SnapshotKey,
        lease: &str,
        looks: &mut Vec<SnapshotKey>,
    ) -> Result<Vec<model::Mount>> {
        if self.snapshot(key)?.kind != SnapshotKind::Committed {
            return self.mounts(key);
        }
        let name = format!("{lease}-{}", looks.len());
        let look = SnapshotKey::parse(&name)?;
        let mounts = self.make(&look, Some(key), true, Some(lease))?;
        looks.push(look);
        Ok(mounts)
    }

    fn drop_look(&self, look: &SnapshotKey) -> Result<()> {
        let request = self.link.request(RemoveSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: look.to_string(),
        });
        let mut snapshots = client!(self.link, SnapshotsClient<_>);
        let answer = self.link.wait(snapshots.remove(request));
        answer.map_err(|err| explain("remove snapshot", ("snapshot", look.as_str()), err))?;
        Ok(())
    }
}

/// The label that keeps what nothing refers to, and since when.
pub fn kept() -> Labels {
    Labels::from([(GC_ROOT.to_owned(), size::time(Timestamp::now()))])
}

fn quoted(key: &SnapshotKey) -> String {
    crate::error::quote(key.as_str())
}

fn mount(mount: types::Mount) -> model::Mount {
    model::Mount {
        kind: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    }
}

fn wire(mount: model::Mount) -> types::Mount {
    types::Mount {
        r#type: mount.kind,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    }
}
