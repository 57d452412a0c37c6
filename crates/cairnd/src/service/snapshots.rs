//! `Snapshots`: the one snapshotter, `overlayfs`.

use std::{borrow::Cow, pin::Pin};

use cairn_node::{
    Caller, Resource,
    events::{Event, What},
};
use cairn_proto::containerd::{
    services::snapshots::v1::{
        CleanupRequest, CommitSnapshotRequest, Info, Kind, ListSnapshotsRequest,
        ListSnapshotsResponse, MountsRequest, MountsResponse, PrepareSnapshotRequest,
        PrepareSnapshotResponse, RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse,
        UpdateSnapshotRequest, UpdateSnapshotResponse, UsageRequest, UsageResponse,
        ViewSnapshotRequest, ViewSnapshotResponse, snapshots_server::Snapshots,
    },
    types::Mount,
};
use cairn_snapshot::SnapshotInfo;
use cairn_types::{
    ErrorKind, Labels, SnapshotKey, SnapshotKind,
    filter::{self, Fields, Filters},
    validate_label,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::Service;
use crate::{
    caller,
    calls::about,
    convert,
    status::{blocking, missing, of, of_failure, with},
};

/// The name by which stock clients ask for it.
pub(crate) const NAME: &str = "overlayfs";
/// Infos in one message of a listing (containerd `snapshots/service`).
const BATCH: usize = 100;
/// "Make this one, or tell me that you have it" (containerd `core/snapshots`).
pub(crate) const REF: &str = "containerd.io/snapshot.ref";

struct Filtered<'s>(&'s SnapshotInfo);

impl Fields for Filtered<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match &*path[0] {
            "name" => Some(Cow::Borrowed(self.0.key.as_str())),
            "parent" => {
                let parent = self.0.parent.as_ref().map(SnapshotKey::as_str);
                Some(Cow::Borrowed(parent.unwrap_or_default()))
            }
            "kind" => Some(Cow::Borrowed(match self.0.kind {
                SnapshotKind::View => "view",
                SnapshotKind::Active => "active",
                SnapshotKind::Committed => "committed",
            })),
            "labels" => filter::label(&self.0.labels, &path[1..]),
            _ => None,
        }
    }
}

fn wire(info: SnapshotInfo) -> Info {
    let kind = match info.kind {
        SnapshotKind::View => Kind::View,
        SnapshotKind::Active => Kind::Active,
        SnapshotKind::Committed => Kind::Committed,
    };
    Info {
        name: info.key.to_string(),
        parent: info
            .parent
            .map(|parent| parent.to_string())
            .unwrap_or_default(),
        kind: kind as i32,
        created_at: Some(convert::time(info.created_at)),
        updated_at: Some(convert::time(info.updated_at)),
        labels: info.labels,
    }
}

fn check(snapshotter: &str) -> Result<(), Status> {
    match snapshotter {
        NAME => Ok(()),
        "" => Err(missing("snapshotter")),
        other => {
            let text = format!("snapshotter not loaded: {other}");
            Err(with(ErrorKind::InvalidArgument, text))
        }
    }
}

fn key(text: &str) -> Result<SnapshotKey, Status> {
    convert::name(SnapshotKey::parse(text))
}

fn known(text: &str) -> Result<SnapshotKey, Status> {
    convert::known(SnapshotKey::parse(text))
}

impl Service {
    async fn make(
        &self,
        caller: Caller,
        (key, parent): (String, String),
        mut labels: Labels,
        kind: SnapshotKind,
    ) -> Result<Vec<Mount>, Status> {
        let node = self.node.clone();
        let key = self::key(&key)?;
        about("key", &key);
        let parent = match parent.is_empty() {
            true => None,
            false => Some(self::key(&parent)?),
        };
        for (key, value) in &labels {
            validate_label(key, value).map_err(|err| of(&err))?;
        }
        labels.retain(|_, value| !value.is_empty());
        blocking(move || {
            let ns = &caller.ns;
            let held = |key: &SnapshotKey| {
                node.hold(&caller, &Resource::Snapshot(key.clone()))
                    .map_err(of_failure)
            };
            // Who asks by reference for what is here is told so, and may keep it.
            if let Some(target) = labels
                .get(REF)
                .and_then(|text| SnapshotKey::parse(text).ok())
                && target != key
                && node
                    .hold_if_there(&caller, &Resource::Snapshot(target.clone()))
                    .map_err(of_failure)?
            {
                return Err(with(
                    ErrorKind::AlreadyExists,
                    format!("target snapshot {target}"),
                ));
            }
            held(&key)?;
            let snapshots = node.snapshots();
            let made = match kind {
                SnapshotKind::View => snapshots.view(ns, &key, parent.as_ref(), labels),
                _ => snapshots.prepare(ns, &key, parent.as_ref(), labels),
            };
            let mounts = match made {
                Ok(mounts) => mounts,
                Err(err) => {
                    if !matches!(err, cairn_snapshot::Error::Exists { .. }) {
                        node.let_go(&caller, &Resource::Snapshot(key))
                            .map_err(of_failure)?;
                    }
                    return Err(of(&err));
                }
            };
            if kind == SnapshotKind::Active {
                node.happened(Event::of(
                    ns,
                    What::SnapshotPrepared {
                        key: key.clone(),
                        parent,
                    },
                ));
            }
            Ok(convert::to_mounts(mounts))
        })
        .await
    }
}

#[tonic::async_trait]
impl Snapshots for Service {
    type ListStream = Pin<Box<dyn Stream<Item = Result<ListSnapshotsResponse, Status>> + Send>>;

    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        check(&request.get_ref().snapshotter)?;
        let caller = caller::of(&request)?;
        let request = request.into_inner();
        let names = (request.key, request.parent);
        let mounts = self
            .make(caller, names, request.labels, SnapshotKind::Active)
            .await?;
        Ok(Response::new(PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        check(&request.get_ref().snapshotter)?;
        let caller = caller::of(&request)?;
        let request = request.into_inner();
        let names = (request.key, request.parent);
        let mounts = self
            .make(caller, names, request.labels, SnapshotKind::View)
            .await?;
        Ok(Response::new(ViewSnapshotResponse { mounts }))
    }

    async fn mounts(
        &self,
        request: Request<MountsRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        check(&request.get_ref().snapshotter)?;
        let ns = caller::of(&request)?.ns;
        let key = known(&request.into_inner().key)?;
        about("key", &key);
        let mounts =
            self.look(move |node| node.snapshots().mounts(&ns, &key).map_err(|err| of(&err)));
        Ok(Response::new(MountsResponse {
            mounts: convert::to_mounts(mounts.await?),
        }))
    }

    async fn commit(
        &self,
        request: Request<CommitSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        check(&request.get_ref().snapshotter)?;
        let (node, caller) = (self.node.clone(), caller::of(&request)?);
        let request = request.into_inner();
        let name = key(&request.name)?;
        let old = known(&request.key)?;
        about("key", &old);
        let parent = match request.parent.is_empty() {
            true => None,
            false => Some(known(&request.parent)?),
        };
        let mut labels = request.labels;
        for (key, value) in &labels {
            validate_label(key, value).map_err(|err| of(&err))?;
        }
        labels.retain(|_, value| !value.is_empty());
        blocking(move || {
            let ns = &caller.ns;
            node.hold(&caller, &Resource::Snapshot(name.clone()))
                .map_err(of_failure)?;
            let done = node
                .snapshots()
                .commit_on(ns, &name, &old, parent.as_ref(), labels);
            if let Err(err) = done {
                if !matches!(err, cairn_snapshot::Error::Exists { .. }) {
                    node.let_go(&caller, &Resource::Snapshot(name))
                        .map_err(of_failure)?;
                }
                return Err(of(&err));
            }
            node.let_go(&caller, &Resource::Snapshot(old.clone()))
                .map_err(of_failure)?;
            node.happened(Event::of(ns, What::SnapshotCommitted { key: old, name }));
            Ok(())
        })
        .await?;
        Ok(Response::new(()))
    }

    async fn remove(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        check(&request.get_ref().snapshotter)?;
        let (node, caller) = (self.node.clone(), caller::of(&request)?);
        let key = known(&request.into_inner().key)?;
        about("key", &key);
        blocking(move || {
            node.snapshots()
                .remove(&caller.ns, &key)
                .map_err(|err| of(&err))?;
            node.let_go(&caller, &Resource::Snapshot(key.clone()))
                .map_err(of_failure)?;
            node.happened(Event::of(&caller.ns, What::SnapshotRemoved { key }));
            Ok(())
        })
        .await?;
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        check(&request.get_ref().snapshotter)?;
        let ns = caller::of(&request)?.ns;
        let key = known(&request.into_inner().key)?;
        about("key", &key);
        let info = self.look(move |node| node.snapshots().stat(&ns, &key).map_err(|err| of(&err)));
        Ok(Response::new(StatSnapshotResponse {
            info: Some(wire(info.await?)),
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        check(&request.get_ref().snapshotter)?;
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let request = request.into_inner();
        let wanted = request.info.ok_or_else(|| missing("info"))?;
        let key = key(&wanted.name)?;
        about("key", &key);
        let change = convert::mask(request.update_mask, &["labels"], &["labels"])?;
        for (key, value) in change.named("labels", &wanted.labels) {
            validate_label(key, value).map_err(|err| of(&err))?;
        }
        let info = blocking(move || {
            let known = node.snapshots().stat(&ns, &key).map_err(|err| of(&err))?;
            let mut labels = known.labels;
            change.apply("labels", &mut labels, &wanted.labels);
            node.snapshots()
                .set_labels(&ns, &key, labels)
                .map_err(|err| of(&err))
        });
        Ok(Response::new(UpdateSnapshotResponse {
            info: Some(wire(info.await?)),
        }))
    }

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        check(&request.get_ref().snapshotter)?;
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let filters = Filters::parse(&request.into_inner().filters).map_err(|err| of(&err))?;
        let all = blocking(move || node.snapshots().list(&ns).map_err(|err| of(&err))).await?;
        let shown = all.into_iter().filter(|info| filters.pass(&Filtered(info)));
        let shown: Vec<Info> = shown.map(wire).collect();
        let batches: Vec<_> = shown
            .chunks(BATCH)
            .map(|batch| {
                Ok(ListSnapshotsResponse {
                    info: batch.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(batches))))
    }

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        check(&request.get_ref().snapshotter)?;
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let key = known(&request.into_inner().key)?;
        about("key", &key);
        let usage = blocking(move || node.snapshots().usage(&ns, &key).map_err(|err| of(&err)));
        let usage = usage.await?;
        Ok(Response::new(UsageResponse {
            size: convert::signed(usage.bytes),
            inodes: convert::signed(usage.inodes),
        }))
    }

    /// containerd's public service has none, either.
    async fn cleanup(&self, request: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        check(&request.get_ref().snapshotter)?;
        Err(with(
            ErrorKind::Unimplemented,
            "snapshotter does not implement Cleanup method",
        ))
    }
}
