//! The calls of `cairn.v1` in short.

use std::path::Path;

use cairn_proto::{
    cairn::v1::{
        CollectRequest, Failure, GetImageRequest, Image, ImportOptions, ImportRequest,
        ImportResponse, Imported, ImportedImage, ListSnapshotsRequest, Snapshot, import_options,
        import_request, import_response, progress,
    },
    google::rpc,
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{Client, archive::Archive};

/// What an archive of this machine is imported with.
pub fn by_path(path: &Path) -> ImportOptions {
    ImportOptions {
        source: Some(import_options::Source::Path(path.display().to_string())),
        unpack: true,
        ..ImportOptions::default()
    }
}

/// What an archive in chunks is imported with.
pub fn in_chunks(name: &str) -> ImportOptions {
    ImportOptions {
        source: Some(import_options::Source::Stream(name.to_owned())),
        unpack: true,
        ..ImportOptions::default()
    }
}

pub fn options(options: ImportOptions) -> ImportRequest {
    ImportRequest {
        part: Some(import_request::Part::Options(options)),
    }
}

pub fn chunk(bytes: &[u8]) -> ImportRequest {
    ImportRequest {
        part: Some(import_request::Part::Chunk(bytes.to_vec().into())),
    }
}

/// An import that is under way.
pub struct Import {
    pub send: mpsc::Sender<ImportRequest>,
    pub answers: Streaming<ImportResponse>,
}

impl Client {
    /// Begins one.
    pub async fn begin_import(&self, with: ImportOptions) -> Import {
        let (send, receive) = mpsc::channel(1);
        send.send(options(with)).await.expect("room");
        let mut images = self.cairn_images();
        let answers = images.import(ReceiverStream::new(receive));
        Import {
            answers: answers.await.expect("answers").into_inner(),
            send,
        }
    }

    /// Imports a file; all events and the images.
    pub async fn import_path(
        &self,
        with: ImportOptions,
    ) -> Result<(Vec<progress::Event>, Vec<ImportedImage>), Status> {
        let import = self.begin_import(with).await;
        drop(import.send);
        end(import.answers).await
    }

    /// Imports chunks of `size` bytes.
    pub async fn import_chunks(
        &self,
        with: ImportOptions,
        bytes: &[u8],
        size: usize,
    ) -> Result<(Vec<progress::Event>, Vec<ImportedImage>), Status> {
        let import = self.begin_import(with).await;
        let (bytes, send) = (bytes.to_vec(), import.send);
        tokio::spawn(async move {
            for part in bytes.chunks(size) {
                if send.send(chunk(part)).await.is_err() {
                    break;
                }
            }
        });
        end(import.answers).await
    }

    /// Imports an archive that must be right.
    pub async fn import(&self, archive: &Archive) -> Image {
        let imported = self
            .import_chunks(in_chunks("archive"), &archive.bytes, 1 << 18)
            .await;
        let (_, mut images) = imported.expect("import");
        images.remove(0).image.expect("image")
    }

    /// One image by its full name.
    pub async fn image(&self, name: &str) -> Result<Image, Status> {
        let request = GetImageRequest {
            name: name.to_owned(),
        };
        let answer = self.cairn_images().get(request).await?;
        Ok(answer.into_inner().image.expect("image"))
    }

    /// All snapshots, measured.
    pub async fn measured(&self) -> Vec<Snapshot> {
        let list = self
            .cairn_store()
            .list_snapshots(ListSnapshotsRequest {})
            .await;
        let mut list = list.expect("list").into_inner();
        let mut all = Vec::new();
        while let Some(batch) = list.message().await.expect("batch") {
            all.extend(batch.snapshots);
        }
        all
    }

    /// Collects garbage; blobs removed. It waits for whoever works on the store.
    pub async fn collect(&self) -> u64 {
        let request = CollectRequest { dry_run: false };
        let answer = self.cairn_store().collect(request).await;
        answer
            .expect("collect")
            .into_inner()
            .content
            .expect("count")
            .removed
    }
}

/// Reads the answers to an import to their end.
pub async fn end(
    mut answers: Streaming<ImportResponse>,
) -> Result<(Vec<progress::Event>, Vec<ImportedImage>), Status> {
    let (mut events, mut images) = (Vec::new(), None);
    while let Some(answer) = answers.message().await? {
        assert!(images.is_none(), "the images are the last answer");
        match answer.part.expect("a part") {
            import_response::Part::Progress(event) => events.extend(event.event),
            import_response::Part::Imported(Imported { images: all }) => images = Some(all),
            import_response::Part::Unseen(_) => panic!("it was not said which file is meant"),
        }
    }
    Ok((events, images.expect("images")))
}

/// The parts of a failure, which the status must have.
#[track_caller]
pub fn failure(status: &Status) -> Failure {
    let details = rpc::Status::decode(status.details()).expect("details");
    assert_eq!(details.code, status.code() as i32);
    let of = |name: &str| {
        let url = format!("type.googleapis.com/{name}");
        let found = details.details.iter().find(|any| any.type_url == url);
        &found.unwrap_or_else(|| panic!("no {name}")).value
    };
    let info = rpc::ErrorInfo::decode(&**of("google.rpc.ErrorInfo")).expect("info");
    let failure = Failure::decode(&**of("cairn.v1.Failure")).expect("failure");
    assert_eq!(
        (&*info.domain, info.reason.to_lowercase()),
        ("cairn", failure.kind.clone())
    );
    failure
}

/// Code, object and reason of a failure.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String, String) {
    let status = answer.expect_err("a refusal");
    let failure = failure(&status);
    (status.code(), failure.object, failure.reason)
}
