//! One connection to a daemon, and the calls on it.

use std::{collections::BTreeMap, path::Path};

use cairn_proto::containerd::{
    services::{
        content::v1::{
            DeleteContentRequest, InfoRequest, InfoResponse, ReadContentRequest,
            ReadContentResponse, WriteAction, WriteContentRequest, WriteContentResponse,
        },
        images::v1::{CreateImageRequest, CreateImageResponse, DeleteImageRequest, Image},
        snapshots::v1::{
            CommitSnapshotRequest, MountsRequest, MountsResponse, PrepareSnapshotRequest,
            PrepareSnapshotResponse, RemoveSnapshotRequest, StatSnapshotRequest,
            StatSnapshotResponse,
        },
    },
    types::{Descriptor, Mount},
};
use sha2::{Digest as _, Sha256};
use tonic::Status;

use crate::wire::{Answers, Connection};

const SNAPSHOTTER: &str = "overlayfs";
/// Most that one message carries: the size of the buffer by which containerd's Go client copies.
pub(crate) const CHUNK: usize = 1 << 20;

/// The path of a method.
macro_rules! method {
    ($service:literal, $name:literal) => {
        concat!(
            "http://localhost/containerd.services.",
            $service,
            "/",
            $name
        )
    };
}

/// A client with a connection of its own.
#[derive(Clone)]
pub(crate) struct Client {
    connection: Connection,
}

type Answer<T> = Result<T, Status>;
type Labels = BTreeMap<String, String>;

/// Collected never, whoever refers to it.
fn root() -> Labels {
    Labels::from([("containerd.io/gc.root".to_owned(), "1".to_owned())])
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    named(Sha256::new_with_prefix(bytes))
}

/// A finished hash as a digest.
pub(crate) fn named(hash: Sha256) -> String {
    format!("sha256:{:x}", hash.finalize())
}

impl Client {
    /// Opens `count` connections.
    pub(crate) async fn connect(socket: &Path, count: usize) -> Answer<Vec<Client>> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            let connection = Connection::open(socket).await?;
            clients.push(Client { connection });
        }
        Ok(clients)
    }

    /// Stores a blob that comes in pieces.
    pub(crate) async fn write(
        &mut self,
        reference: String,
        digest: &str,
        total: i64,
        pieces: impl Iterator<Item = Vec<u8>>,
    ) -> Answer<()> {
        let method = method!("content.v1.Content", "Write");
        let mut conversation = self.connection.converse(method).await?;
        let open = WriteContentRequest {
            action: WriteAction::Stat as i32,
            r#ref: reference,
            total,
            expected: digest.to_owned(),
            ..WriteContentRequest::default()
        };
        let _: WriteContentResponse = conversation.say(&open, false).await?;
        let mut offset = 0;
        for piece in pieces {
            let length = i64::try_from(piece.len()).unwrap_or(i64::MAX);
            let write = WriteContentRequest {
                action: WriteAction::Write as i32,
                offset,
                data: piece.into(),
                ..WriteContentRequest::default()
            };
            conversation.say(&write, false).await?;
            offset += length;
        }
        let commit = WriteContentRequest {
            action: WriteAction::Commit as i32,
            total,
            offset,
            expected: digest.to_owned(),
            labels: root(),
            ..WriteContentRequest::default()
        };
        conversation.say(&commit, true).await?;
        Ok(())
    }

    /// Stores a blob by one message: for filling a store, of which nothing is measured.
    pub(crate) async fn put(&mut self, reference: String, bytes: Vec<u8>) -> Answer<()> {
        let method = method!("content.v1.Content", "Write");
        let mut conversation = self.connection.converse(method).await?;
        let commit = WriteContentRequest {
            action: WriteAction::Commit as i32,
            r#ref: reference,
            total: i64::try_from(bytes.len()).unwrap_or(0),
            expected: sha256(&bytes),
            data: bytes.into(),
            labels: root(),
            ..WriteContentRequest::default()
        };
        let _: WriteContentResponse = conversation.say(&commit, true).await?;
        Ok(())
    }

    /// Reads `size` bytes of a blob, or all when it is 0; how many came.
    pub(crate) async fn read(&mut self, digest: &str, offset: i64, size: i64) -> Answer<u64> {
        let request = ReadContentRequest {
            digest: digest.to_owned(),
            offset,
            size,
        };
        let method = method!("content.v1.Content", "Read");
        let mut answers: Answers<ReadContentResponse> =
            self.connection.ask(method, &request).await?;
        let mut bytes = 0;
        while let Some(answer) = answers.next().await? {
            bytes += answer.data.len() as u64;
        }
        Ok(bytes)
    }

    pub(crate) async fn info(&mut self, digest: String) -> Answer<()> {
        let method = method!("content.v1.Content", "Info");
        let request = InfoRequest { digest };
        let _: InfoResponse = self.connection.call(method, &request).await?;
        Ok(())
    }

    pub(crate) async fn delete_blob(&mut self, digest: String) -> Answer<()> {
        let method = method!("content.v1.Content", "Delete");
        let request = DeleteContentRequest { digest };
        self.connection.call(method, &request).await
    }

    pub(crate) async fn prepare(&mut self, key: String, parent: String) -> Answer<Vec<Mount>> {
        let method = method!("snapshots.v1.Snapshots", "Prepare");
        let request = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key,
            parent,
            labels: root(),
        };
        let answer: PrepareSnapshotResponse = self.connection.call(method, &request).await?;
        Ok(answer.mounts)
    }

    pub(crate) async fn commit(&mut self, name: String, key: String) -> Answer<()> {
        let method = method!("snapshots.v1.Snapshots", "Commit");
        let request = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name,
            key,
            labels: root(),
            ..CommitSnapshotRequest::default()
        };
        self.connection.call(method, &request).await
    }

    pub(crate) async fn stat(&mut self, key: String) -> Answer<()> {
        let method = method!("snapshots.v1.Snapshots", "Stat");
        let snapshotter = SNAPSHOTTER.to_owned();
        let request = StatSnapshotRequest { snapshotter, key };
        let _: StatSnapshotResponse = self.connection.call(method, &request).await?;
        Ok(())
    }

    pub(crate) async fn mounts(&mut self, key: String) -> Answer<()> {
        let method = method!("snapshots.v1.Snapshots", "Mounts");
        let snapshotter = SNAPSHOTTER.to_owned();
        let request = MountsRequest { snapshotter, key };
        let _: MountsResponse = self.connection.call(method, &request).await?;
        Ok(())
    }

    pub(crate) async fn remove(&mut self, key: String) -> Answer<()> {
        let method = method!("snapshots.v1.Snapshots", "Remove");
        let snapshotter = SNAPSHOTTER.to_owned();
        let request = RemoveSnapshotRequest { snapshotter, key };
        self.connection.call(method, &request).await
    }

    pub(crate) async fn create_image(&mut self, name: String) -> Answer<()> {
        let method = method!("images.v1.Images", "Create");
        let target = Descriptor {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest: sha256(name.as_bytes()),
            size: 1,
            ..Descriptor::default()
        };
        let image = Image {
            name,
            target: Some(target),
            ..Image::default()
        };
        let request = CreateImageRequest {
            image: Some(image),
            ..CreateImageRequest::default()
        };
        let _: CreateImageResponse = self.connection.call(method, &request).await?;
        Ok(())
    }

    /// With `sync` it returns when the collection that follows is over.
    pub(crate) async fn delete_image(&mut self, name: String, sync: bool) -> Answer<()> {
        let method = method!("images.v1.Images", "Delete");
        let request = DeleteImageRequest {
            name,
            sync,
            ..DeleteImageRequest::default()
        };
        self.connection.call(method, &request).await
    }
}
