//! One connection to a daemon, and the calls on it.

use std::path::Path;

use cairn_proto::containerd::{
    services::{
        content::v1::{
            DeleteContentRequest, InfoRequest, ReadContentRequest, WriteAction,
            WriteContentRequest, content_client::ContentClient,
        },
        images::v1::{CreateImageRequest, DeleteImageRequest, Image, images_client::ImagesClient},
        snapshots::v1::{
            CommitSnapshotRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
            StatSnapshotRequest, snapshots_client::SnapshotsClient,
        },
    },
    types::{Descriptor, Mount},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    metadata::MetadataValue,
    transport::{Channel, Endpoint, Error},
};

const NAMESPACE: &str = "rates";
const SNAPSHOTTER: &str = "overlayfs";
/// Most that one message carries: the size of the buffer by which containerd's Go client copies.
pub(crate) const CHUNK: usize = 1 << 20;
/// containerd's limit on messages.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A client with a connection of its own.
#[derive(Clone)]
pub(crate) struct Client {
    content: ContentClient<Channel>,
    snapshots: SnapshotsClient<Channel>,
    images: ImagesClient<Channel>,
}

type Answer<T> = Result<T, Status>;
type Labels = std::collections::BTreeMap<String, String>;

/// Collected never, whoever refers to it.
fn root() -> Labels {
    Labels::from([("containerd.io/gc.root".to_owned(), "1".to_owned())])
}

fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let namespace = MetadataValue::from_static(NAMESPACE);
    request
        .metadata_mut()
        .insert("containerd-namespace", namespace);
    request
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
    pub(crate) async fn connect(socket: &Path, count: usize) -> Result<Vec<Client>, Error> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            // The windows of containerd's Go client grow by themselves; these stay at what such
            // grow to.
            let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(16 << 20);
            let channel = endpoint.connect().await?;
            clients.push(Client {
                content: ContentClient::new(channel.clone())
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
                snapshots: SnapshotsClient::new(channel.clone()),
                images: ImagesClient::new(channel),
            });
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
        let (send, receive) = mpsc::channel(1);
        let mut conversation = Conversation {
            send,
            answers: None,
        };
        let open = WriteContentRequest {
            action: WriteAction::Stat as i32,
            r#ref: reference,
            total,
            expected: digest.to_owned(),
            ..WriteContentRequest::default()
        };
        conversation.put(open).await?;
        let request = in_namespace(ReceiverStream::new(receive));
        let answers = self.content.write(request).await?.into_inner();
        conversation.answers = Some(answers);
        conversation.hear().await?;
        let mut offset = 0;
        for piece in pieces {
            let length = i64::try_from(piece.len()).unwrap_or(i64::MAX);
            let write = WriteContentRequest {
                action: WriteAction::Write as i32,
                offset,
                data: piece.into(),
                ..WriteContentRequest::default()
            };
            conversation.put(write).await?;
            conversation.hear().await?;
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
        conversation.put(commit).await?;
        conversation.hear().await
    }

    /// Reads `size` bytes of a blob, or all when it is 0; how many came.
    pub(crate) async fn read(&mut self, digest: &str, offset: i64, size: i64) -> Answer<u64> {
        let request = in_namespace(ReadContentRequest {
            digest: digest.to_owned(),
            offset,
            size,
        });
        let mut answers = self.content.read(request).await?.into_inner();
        let mut bytes = 0;
        while let Some(answer) = answers.message().await? {
            bytes += answer.data.len() as u64;
        }
        Ok(bytes)
    }

    pub(crate) async fn info(&mut self, digest: String) -> Answer<()> {
        self.content
            .info(in_namespace(InfoRequest { digest }))
            .await?;
        Ok(())
    }

    pub(crate) async fn delete_blob(&mut self, digest: String) -> Answer<()> {
        self.content
            .delete(in_namespace(DeleteContentRequest { digest }))
            .await?;
        Ok(())
    }

    pub(crate) async fn prepare(&mut self, key: String, parent: String) -> Answer<Vec<Mount>> {
        let request = in_namespace(PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key,
            parent,
            labels: root(),
        });
        Ok(self.snapshots.prepare(request).await?.into_inner().mounts)
    }

    pub(crate) async fn commit(&mut self, name: String, key: String) -> Answer<()> {
        let request = in_namespace(CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name,
            key,
            labels: root(),
            ..CommitSnapshotRequest::default()
        });
        self.snapshots.commit(request).await?;
        Ok(())
    }

    pub(crate) async fn stat(&mut self, key: String) -> Answer<()> {
        let snapshotter = SNAPSHOTTER.to_owned();
        let request = in_namespace(StatSnapshotRequest { snapshotter, key });
        self.snapshots.stat(request).await?;
        Ok(())
    }

    pub(crate) async fn mounts(&mut self, key: String) -> Answer<()> {
        let snapshotter = SNAPSHOTTER.to_owned();
        let request = in_namespace(MountsRequest { snapshotter, key });
        self.snapshots.mounts(request).await?;
        Ok(())
    }

    pub(crate) async fn remove(&mut self, key: String) -> Answer<()> {
        let snapshotter = SNAPSHOTTER.to_owned();
        let request = in_namespace(RemoveSnapshotRequest { snapshotter, key });
        self.snapshots.remove(request).await?;
        Ok(())
    }

    pub(crate) async fn create_image(&mut self, name: String) -> Answer<()> {
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
        let request = in_namespace(CreateImageRequest {
            image: Some(image),
            ..CreateImageRequest::default()
        });
        self.images.create(request).await?;
        Ok(())
    }

    /// With `sync` it returns when the collection that follows is over.
    pub(crate) async fn delete_image(&mut self, name: String, sync: bool) -> Answer<()> {
        let request = in_namespace(DeleteImageRequest {
            name,
            sync,
            ..DeleteImageRequest::default()
        });
        self.images.delete(request).await?;
        Ok(())
    }
}

/// A stream of messages of which each waits for the answer to the last.
struct Conversation {
    send: mpsc::Sender<WriteContentRequest>,
    answers:
        Option<Streaming<cairn_proto::containerd::services::content::v1::WriteContentResponse>>,
}

impl Conversation {
    async fn put(&self, message: WriteContentRequest) -> Answer<()> {
        let put = self.send.send(message).await;
        put.map_err(|_| Status::unavailable("the stream is closed"))
    }

    async fn hear(&mut self) -> Answer<()> {
        let Some(answers) = &mut self.answers else {
            return Ok(());
        };
        match answers.message().await? {
            Some(_) => Ok(()),
            None => Err(Status::unavailable("the stream ended without an answer")),
        }
    }
}
