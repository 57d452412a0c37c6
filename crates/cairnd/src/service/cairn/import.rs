//! `Images.Import`: an archive that the server opens, or one that comes in chunks.
//!
//! Chunks are handed to the importer one by one, and only when it asks: a client that is faster than
//! the disk waits, and what is in memory is a few messages, however large the archive.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

use bytes::Bytes;
use cairn_node::{Failure, ImportRequest as Import, Imported, Node, Progress, Source};
use cairn_proto::cairn::v1::{
    self, ImportOptions, ImportRequest, ImportResponse, import_options, import_request::Part,
    import_response,
};
use cairn_types::{ErrorKind, Namespace, Platform};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use tracing::{field::display, info};

use super::{
    Answers, parsed,
    progress::{self, Sender, Teller},
    refused, wire,
};
use crate::{calls::about, chunks::Chunks, details, traces};

const ATTEMPTED: &str = "import";

/// The answers to a stream that brings options, and after them maybe an archive.
pub(super) fn answers(
    node: Node,
    ns: Namespace,
    messages: Streaming<ImportRequest>,
) -> Answers<ImportResponse> {
    progress::converse(|send| run(node, ns, messages, send))
}

async fn run(
    node: Node,
    ns: Namespace,
    mut messages: Streaming<ImportRequest>,
    send: Sender<ImportResponse>,
) -> Result<(), Status> {
    let first = messages.message().await?.and_then(|message| message.part);
    let Some(Part::Options(options)) = first else {
        return Err(refused(ATTEMPTED, "the first message must have options"));
    };
    if let (Some(import_options::Source::Path(path)), Some(file)) =
        (&options.source, &options.path_is)
        && !is_there(path, file)
    {
        let unseen = import_response::Part::Unseen(v1::Unseen {});
        let _ = send.send(Ok(ImportResponse { part: Some(unseen) })).await;
        return Ok(());
    }
    let source = match &options.source {
        Some(import_options::Source::Path(path)) => file(path, &options.path_as)?,
        Some(import_options::Source::Stream(name)) => {
            // One chunk waits while one is read and one is received.
            let (chunks, receive) = mpsc::channel(1);
            tokio::spawn(pump(messages, chunks, send.clone()));
            Source::Stream {
                name: name.clone(),
                reader: Box::new(Chunks::new(receive)),
            }
        }
        None => return Err(refused(ATTEMPTED, "the options name no archive")),
    };
    let request = request(&ns, options, source)?;
    let wrap = |event| ImportResponse {
        part: Some(import_response::Part::Progress(event)),
    };
    let work = move |teller: &Teller<ImportResponse>| {
        let imported = import(&node, &ns, request, teller).map_err(details::of)?;
        Ok(ImportResponse {
            part: Some(import_response::Part::Imported(imported)),
        })
    };
    progress::run(send, wrap, work).await;
    Ok(())
}

/// Whether this process sees at `path` what the client sees there.
fn is_there(path: &str, file: &v1::FileId) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| (meta.dev(), meta.ino()) == (file.device, file.inode))
}

/// A file or layout directory of this machine.
fn file(path: &str, name: &str) -> Result<Source, Status> {
    let path = PathBuf::from(path);
    let failed = |reason: &str| {
        let failure = Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, reason);
        Err(details::of(failure.object("archive", path.display())))
    };
    if !path.is_absolute() {
        return failed("its path is not absolute, and the server is in another directory");
    }
    // Whoever reads a pipe that nobody writes to can be stopped by nobody. What cannot be looked at
    // is left to the importer, which knows how to say so.
    if is_special(&path) {
        return failed("it is neither a file nor a directory: send it in chunks");
    }
    let name = match name {
        "" => path.display().to_string(),
        name => name.to_owned(),
    };
    Ok(Source::Named { name, path })
}

fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
}

fn request(ns: &Namespace, options: ImportOptions, source: Source) -> Result<Import, Status> {
    let platform = |text: &String| -> Result<Platform, Status> {
        parsed(text.parse(), ATTEMPTED, "platform", text)
    };
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let mut request = Import::new(ns.clone(), source);
    request.base_name = given(options.base_name);
    request.index_name = given(options.index_name);
    request.digests = options.digests;
    request.platforms = options
        .platforms
        .iter()
        .map(platform)
        .collect::<Result<_, _>>()?;
    request.all_platforms = options.all_platforms;
    request.unpack = options.unpack;
    request.discard = options.discard_unpacked_layers;
    request.compress = options.compress_blobs;
    request.sync = options.sync_layers;
    request.labels = options.labels;
    Ok(request)
}

fn import(
    node: &Node,
    ns: &Namespace,
    request: Import,
    progress: &dyn Progress,
) -> Result<v1::Imported, Failure> {
    let archive = request.source.name();
    let began = Instant::now();
    let imported = node.import(request, progress)?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    let bytes: u64 = imported.iter().map(|image| image.content_size).sum();
    // A line has room for one, and so has a span.
    let one = match &*imported {
        [one] => Some(one),
        _ => None,
    };
    let digest = one.map(|one| display(&one.target.digest));
    let images = imported.len();
    info!(archive, images, digest, bytes, ms, "imported");
    if let Some(one) = one {
        about("image", &one.name);
        about("digest", &one.target.digest);
        traces::manifest(&one.target.digest);
    }
    let images = imported.into_iter().map(|imported| {
        let Imported { name, platform, .. } = imported;
        Ok(v1::ImportedImage {
            image: Some(wire::image(node.image(ns, &name)?)),
            platform: platform.map(|p| p.to_string()).unwrap_or_default(),
        })
    });
    Ok(v1::Imported {
        images: images.collect::<Result<_, Failure>>()?,
    })
}

/// Hands chunks on until the client has sent all, or the importer wants no more.
async fn pump(
    mut messages: Streaming<ImportRequest>,
    chunks: mpsc::Sender<io::Result<Bytes>>,
    answers: Sender<ImportResponse>,
) {
    let broken = |reason: &str| io::Error::new(io::ErrorKind::ConnectionAborted, reason.to_owned());
    loop {
        let next = tokio::select! {
            next = messages.message() => next,
            () = chunks.closed() => return,
        };
        let chunk = match next {
            Ok(Some(ImportRequest {
                part: Some(Part::Chunk(chunk)),
            })) => Ok(chunk),
            Ok(Some(_)) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a message in the middle of the archive has no chunk",
            )),
            // A call that is given up looks like one whose client has sent all.
            Ok(None) if answers.is_closed() => Err(broken("the call was given up")),
            Ok(None) => return,
            Err(status) => Err(broken(status.message())),
        };
        let last = chunk.is_err();
        if chunks.send(chunk).await.is_err() || last {
            return;
        }
    }
}
