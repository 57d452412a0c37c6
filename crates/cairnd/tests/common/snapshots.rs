//! The calls of `Snapshots` in short.

use cairn_proto::containerd::{
    services::snapshots::v1::{
        CommitSnapshotRequest, Info, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
        RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest, UsageRequest,
        ViewSnapshotRequest,
    },
    types::Mount,
};
use tonic::{Code, Status};

use super::{Client, code, map, mask};

pub fn sn() -> String {
    "overlayfs".to_owned()
}

/// One namespace's snapshots, with their calls in short.
pub struct Snapshots(pub Client);

impl Snapshots {
    pub async fn prepare_with(
        &self,
        key: &str,
        parent: &str,
        labels: &[(&str, &str)],
    ) -> Result<Vec<Mount>, Code> {
        let request = PrepareSnapshotRequest {
            snapshotter: sn(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: map(labels),
        };
        let answer = self.0.snapshots().prepare(request).await;
        Ok(answer.map_err(|s| s.code())?.into_inner().mounts)
    }

    pub async fn prepare(&self, key: &str, parent: &str) -> Result<Vec<Mount>, Code> {
        self.prepare_with(key, parent, &[]).await
    }

    pub async fn view(&self, key: &str, parent: &str) -> Result<Vec<Mount>, Code> {
        let request = ViewSnapshotRequest {
            snapshotter: sn(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..ViewSnapshotRequest::default()
        };
        let answer = self.0.snapshots().view(request).await;
        Ok(answer.map_err(|s| s.code())?.into_inner().mounts)
    }

    pub async fn commit_on(&self, name: &str, key: &str, parent: &str) -> Code {
        let request = CommitSnapshotRequest {
            snapshotter: sn(),
            name: name.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..CommitSnapshotRequest::default()
        };
        code(self.0.snapshots().commit(request).await)
    }

    pub async fn commit(&self, name: &str, key: &str) -> Code {
        self.commit_on(name, key, "").await
    }

    pub async fn mounts(&self, key: &str) -> Result<Vec<Mount>, Code> {
        let request = MountsRequest {
            snapshotter: sn(),
            key: key.to_owned(),
        };
        let answer = self.0.snapshots().mounts(request).await;
        Ok(answer.map_err(|s| s.code())?.into_inner().mounts)
    }

    pub async fn remove(&self, key: &str) -> Result<(), Status> {
        let request = RemoveSnapshotRequest {
            snapshotter: sn(),
            key: key.to_owned(),
        };
        self.0.snapshots().remove(request).await.map(drop)
    }

    pub async fn stat(&self, key: &str) -> Result<Info, Code> {
        let request = StatSnapshotRequest {
            snapshotter: sn(),
            key: key.to_owned(),
        };
        let answer = self.0.snapshots().stat(request).await;
        let answer = answer.map_err(|s| s.code())?.into_inner();
        Ok(answer.info.expect("info"))
    }

    pub async fn usage(&self, key: &str) -> Result<(i64, i64), Code> {
        let request = UsageRequest {
            snapshotter: sn(),
            key: key.to_owned(),
        };
        let answer = self.0.snapshots().usage(request).await;
        let usage = answer.map_err(|s| s.code())?.into_inner();
        Ok((usage.size, usage.inodes))
    }

    pub async fn update(
        &self,
        key: &str,
        labels: &[(&str, &str)],
        paths: &[&str],
    ) -> Result<Info, Code> {
        let request = UpdateSnapshotRequest {
            snapshotter: sn(),
            info: Some(Info {
                name: key.to_owned(),
                labels: map(labels),
                parent: "ignored".to_owned(),
                ..Info::default()
            }),
            update_mask: mask(paths),
        };
        let answer = self.0.snapshots().update(request).await;
        let answer = answer.map_err(|s| s.code())?.into_inner();
        Ok(answer.info.expect("info"))
    }

    pub async fn list(&self, filters: &[&str]) -> Result<Vec<Info>, Code> {
        let request = ListSnapshotsRequest {
            snapshotter: sn(),
            filters: filters.iter().map(|f| (*f).to_owned()).collect(),
        };
        let stream = self.0.snapshots().list(request).await;
        let mut stream = stream.map_err(|s| s.code())?.into_inner();
        let mut all = Vec::new();
        while let Some(batch) = stream.message().await.map_err(|s| s.code())? {
            assert!(batch.info.len() <= 100);
            all.extend(batch.info);
        }
        Ok(all)
    }

    /// `base` and `middle` on it, committed; `active` on that, and `view`.
    pub async fn stack(&self) {
        self.prepare("a", "").await.expect("prepare");
        assert_eq!(self.commit("base", "a").await, Code::Ok);
        self.prepare("b", "base").await.expect("prepare");
        assert_eq!(self.commit("middle", "b").await, Code::Ok);
        self.prepare("active", "middle").await.expect("prepare");
        self.view("view", "middle").await.expect("view");
    }
}
