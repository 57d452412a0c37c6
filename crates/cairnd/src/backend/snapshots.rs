//! `Snapshots` for containerd: as for clients, whatever name it knows the snapshotter by, but for
//! what its metadata store asks of a snapshotter below it.

use cairn_proto::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, ListSnapshotsRequest, MountsRequest, MountsResponse,
    PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest, StatSnapshotRequest,
    StatSnapshotResponse, UpdateSnapshotRequest, UpdateSnapshotResponse, UsageRequest,
    UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse, snapshots_server::Snapshots,
};
use cairn_types::{ErrorKind, Labels, Mount, SnapshotKey, SnapshotKind};
use tonic::{Request, Response, Status};

use super::{Backend, NAMESPACE};
use crate::{
    calls::about,
    convert,
    service::{REF, SNAPSHOTTER, Service},
    status::{blocking, of, with},
};

/// What the layer that is being unpacked will stand on (containerd `core/unpack`); it has none when
/// it will stand on nothing.
const PARENT_REF: &str = "containerd.io/snapshot/parent-chain-id";

/// A key that must parse.
fn key(text: &str) -> Result<SnapshotKey, Status> {
    convert::name(SnapshotKey::parse(text))
}

fn parent(text: &str) -> Result<Option<SnapshotKey>, Status> {
    match text {
        "" => Ok(None),
        text => key(text).map(Some),
    }
}

/// A request in which the snapshotter has its name among clients.
macro_rules! named {
    ($request:ident) => {{
        let mut request = $request;
        SNAPSHOTTER.clone_into(&mut request.get_mut().snapshotter);
        request
    }};
}

/// A layer on the way to be put on another only when it is committed (`rebase`). What it hides of
/// that one has to be marked, which is what containerd does in an overlay, whereas in a directory it
/// would remove what is not there. It needs no more than the upper directory; nobody could mount it.
/// containerd itself makes such a mount of ours where a snapshotter is named `overlayfs`.
fn upper_only(mounts: Vec<Mount>) -> Vec<Mount> {
    let convert = |mount: Mount| match &*mount.kind {
        "bind" => Mount {
            kind: "overlay".to_owned(),
            options: vec![format!("upperdir={}", mount.source)],
            source: "overlay".to_owned(),
            target: mount.target,
        },
        _ => mount,
    };
    mounts.into_iter().map(convert).collect()
}

impl Backend {
    async fn make(
        &self,
        (name, under): (String, String),
        mut labels: Labels,
        kind: SnapshotKind,
    ) -> Result<Vec<cairn_proto::containerd::types::Mount>, Status> {
        let (node, refs) = (self.node.clone(), self.refs.clone());
        let (key, parent) = (key(&name)?, parent(&under)?);
        about("key", &key);
        labels.retain(|_, value| !value.is_empty());
        blocking(move || {
            let known = labels.get(REF).and_then(|reference| {
                refs.find(&node, &NAMESPACE, reference, parent.as_ref())
                    .map(|name| format!("{reference} is here as {name}"))
            });
            if let Some(text) = known {
                return Err(with(ErrorKind::AlreadyExists, text));
            }
            let rebased = parent.is_none() && labels.contains_key(PARENT_REF);
            let snapshots = node.snapshots();
            let made = match kind {
                SnapshotKind::View => snapshots.view(&NAMESPACE, &key, parent.as_ref(), labels),
                _ => snapshots.prepare(&NAMESPACE, &key, parent.as_ref(), labels),
            };
            let mounts = made.map_err(|err| of(&err))?;
            let mounts = match kind {
                SnapshotKind::Active if rebased => upper_only(mounts),
                _ => mounts,
            };
            Ok(convert::to_mounts(mounts))
        })
        .await
    }
}

#[tonic::async_trait]
impl Snapshots for Backend {
    type ListStream = <Service as Snapshots>::ListStream;

    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let request = request.into_inner();
        let names = (request.key, request.parent);
        let made = self.make(names, request.labels, SnapshotKind::Active);
        Ok(Response::new(PrepareSnapshotResponse {
            mounts: made.await?,
        }))
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        let request = request.into_inner();
        let names = (request.key, request.parent);
        let made = self.make(names, request.labels, SnapshotKind::View);
        Ok(Response::new(ViewSnapshotResponse {
            mounts: made.await?,
        }))
    }

    async fn mounts(
        &self,
        request: Request<MountsRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        Snapshots::mounts(&self.service, named!(request)).await
    }

    /// Among clients a parent that comes too late is left out of account, as containerd's metadata
    /// store does; below that store it is a contradiction.
    async fn commit(
        &self,
        request: Request<CommitSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let asked = request.get_ref();
        let (old, name) = (key(&asked.key)?, key(&asked.name)?);
        let wanted = parent(&asked.parent)?;
        let (node, refs) = (self.node.clone(), self.refs.clone());
        if let Some(wanted) = wanted {
            let (node, name) = (node.clone(), name.clone());
            blocking(move || {
                let snapshots = node.snapshots();
                let known = snapshots.stat(&NAMESPACE, &old).ok();
                match known.and_then(|info| info.parent) {
                    Some(parent)
                        if parent != wanted && snapshots.stat(&NAMESPACE, &name).is_err() =>
                    {
                        let text = format!("snapshot {old} stands on {parent}, not on {wanted}");
                        Err(with(ErrorKind::InvalidArgument, text))
                    }
                    _ => Ok(()),
                }
            })
            .await?;
        }
        let committed = Snapshots::commit(&self.service, named!(request)).await?;
        blocking(move || {
            // Removed again by now, perhaps.
            if let Ok(info) = node.snapshots().stat(&NAMESPACE, &name) {
                refs.learn(&info);
            }
            Ok(())
        })
        .await?;
        Ok(committed)
    }

    async fn remove(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let key = SnapshotKey::parse(&request.get_ref().key).ok();
        let removed = Snapshots::remove(&self.service, named!(request)).await?;
        if let Some(key) = key {
            self.refs.forget(&key);
        }
        Ok(removed)
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        Snapshots::stat(&self.service, named!(request)).await
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let info = request.get_ref().info.as_ref();
        let key = info.and_then(|info| SnapshotKey::parse(&info.name).ok());
        let updated = Snapshots::update(&self.service, named!(request)).await?;
        let (node, refs) = (self.node.clone(), self.refs.clone());
        blocking(move || {
            let info = key.and_then(|key| node.snapshots().stat(&NAMESPACE, &key).ok());
            if let Some(info) = info {
                refs.learn(&info);
            }
            Ok(())
        })
        .await?;
        Ok(updated)
    }

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        Snapshots::list(&self.service, named!(request)).await
    }

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        Snapshots::usage(&self.service, named!(request)).await
    }

    async fn cleanup(&self, _: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        let node = self.node.clone();
        blocking(move || node.snapshots().clean_up().map_err(|err| of(&err))).await?;
        Ok(Response::new(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_is_made_an_upper_one() {
        let mount = |kind: &str, source: &str, options: &[&str]| Mount {
            kind: kind.to_owned(),
            source: source.to_owned(),
            target: String::new(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        let bind = mount("bind", "/s/1/fs", &["rw", "rbind"]);
        let overlay = mount("overlay", "overlay", &["upperdir=/s/1/fs"]);
        assert_eq!(upper_only(vec![bind]), std::slice::from_ref(&overlay));
        assert_eq!(upper_only(vec![overlay.clone()]), [overlay]);
    }
}
