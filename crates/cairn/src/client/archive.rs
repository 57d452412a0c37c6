//! Archives in and out.
//!
//! The server reads an archive itself where it sees the same file as this process; what it does not
//! see (standard input, a pipe, a file below a directory that is private to one of both) comes to it
//! in chunks.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use bytes::Bytes;
use cairn_proto::cairn::v1::{
    self, ExportRequest, ImportRequest, ImportResponse, export_response,
    images_client::ImagesClient, import_options, import_request, import_response,
};
use cairn_types::{ErrorKind, ImageName, Labels, Platform};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use super::{Client, Progress, Result, images::image, link::client, progress::tell};
use crate::{
    error::{Problem, io_reason},
    model,
};

/// Bytes of an archive in one message.
const CHUNK: usize = 1 << 20;

/// Messages that are read ahead of the server.
const AHEAD: usize = 4;

/// For messages.
const STDIN: &str = "standard input";

/// Where an archive comes from.
pub enum Source {
    /// A file (OCI or docker archive, plain or compressed), or an OCI layout directory.
    Path(PathBuf),
    /// Standard input.
    Stdin,
}

impl Source {
    fn name(&self) -> String {
        match self {
            Source::Path(path) => path.display().to_string(),
            Source::Stdin => STDIN.to_owned(),
        }
    }
}

/// What to import besides the archive itself.
pub struct ImportOptions {
    /// As the flag.
    pub base_name: Option<String>,
    /// As the flag.
    pub index_name: Option<String>,
    /// As the flag.
    pub digests: bool,
    /// As the flag.
    pub platforms: Vec<Platform>,
    /// As the flag.
    pub all_platforms: bool,
    /// Makes the snapshots, too.
    pub unpack: bool,
    /// As the flag.
    pub discard_unpacked_layers: bool,
    /// As the flag.
    pub compress_blobs: bool,
    /// As the flag.
    pub sync_fs: bool,
    /// For the image records.
    pub labels: Labels,
}

/// One image that came in.
pub struct NewImage {
    /// The document.
    pub image: model::Image,
    /// The variant that was taken, or `-`.
    pub platform: String,
}

/// What to export.
pub struct ExportOptions {
    /// Full names.
    pub names: Vec<ImageName>,
    /// As the flag.
    pub platforms: Vec<Platform>,
    /// As the flag.
    pub all_platforms: bool,
    /// As the flag.
    pub skip_manifest_json: bool,
    /// As the flag.
    pub skip_non_distributable: bool,
    /// As the flag.
    pub only_attestations: bool,
}

/// An archive as this process has it.
enum Archive {
    /// To be opened by the server, if it sees the same.
    File(v1::FileId, String, Option<File>),
    /// To be sent.
    Stream(Box<dyn Read + Send>),
}

/// How an import ended.
enum Ended {
    Imported(v1::Imported),
    /// The server sees another file there, or none.
    Unseen,
}

impl Client {
    /// Takes in every image of an archive.
    pub fn import(
        &self,
        source: Source,
        options: ImportOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<NewImage>> {
        let name = source.name();
        tracing::info!("read {name} into namespace {}", self.ns);
        let mut options = wire(options);
        let imported = match open(source, &name)? {
            Archive::Stream(reader) => self.send(&name, options, reader, progress)?,
            Archive::File(id, path, file) => {
                options.source = Some(import_options::Source::Path(path));
                options.path_as.clone_from(&name);
                options.path_is = Some(id);
                match (self.take(options.clone(), progress)?, file) {
                    (Ended::Imported(imported), _) => imported,
                    (Ended::Unseen, Some(file)) => {
                        tracing::info!("the server does not see {name}: it is sent");
                        self.send(&name, options, Box::new(file), progress)?
                    }
                    (Ended::Unseen, None) => {
                        let reason = "the daemon does not see this directory";
                        let problem = problem(ErrorKind::NotFound, &name, reason);
                        return Err(problem.next("tar -c . | cairn images import -   (in it)"));
                    }
                }
            }
        };
        Ok(imported.images.into_iter().map(new_image).collect())
    }

    /// Has the server read the archive.
    fn take(&self, options: v1::ImportOptions, progress: &dyn Progress) -> Result<Ended> {
        let first = tokio_stream::once(message(import_request::Part::Options(options)));
        self.link.run(async {
            let mut images = client!(self.link, ImagesClient<_>);
            let answer = images.import(self.link.request(first)).await;
            let answer = answer.map_err(|status| self.link.problem(&status))?;
            self.follow(answer.into_inner(), progress).await
        })
    }

    /// Sends the archive.
    fn send(
        &self,
        name: &str,
        mut options: v1::ImportOptions,
        reader: Box<dyn Read + Send>,
        progress: &dyn Progress,
    ) -> Result<v1::Imported> {
        options.source = Some(import_options::Source::Stream(name.to_owned()));
        let first = tokio_stream::once(message(import_request::Part::Options(options)));
        let (chunks, broken) = read(reader).map_err(|err| unreadable(name, &err))?;
        let chunks = chunks.map(|chunk| message(import_request::Part::Chunk(chunk)));
        let ended = self.link.run(async {
            let mut images = client!(self.link, ImagesClient<_>);
            let call = async {
                let answer = images.import(self.link.request(first.chain(chunks))).await;
                let answer = answer.map_err(|status| self.link.problem(&status))?;
                self.follow(answer.into_inner(), progress).await
            };
            tokio::select! {
                ended = call => ended,
                // Giving the call up is how the server learns that this is not the archive's end.
                Ok(broken) = broken => Err(unreadable(name, &broken.err)),
            }
        })?;
        match ended {
            Ended::Imported(imported) => Ok(imported),
            Ended::Unseen => Err(problem(
                ErrorKind::Internal,
                name,
                "the server looks for a file though the archive is sent to it",
            )),
        }
    }

    /// Hands progress on until the images come.
    async fn follow(
        &self,
        mut answers: tonic::Streaming<ImportResponse>,
        progress: &dyn Progress,
    ) -> Result<Ended> {
        use import_response::Part;
        loop {
            let answer = answers.message().await;
            match answer.map_err(|status| self.link.problem(&status))? {
                Some(answer) => match answer.part {
                    Some(Part::Progress(told)) => tell(progress, told),
                    Some(Part::Imported(imported)) => return Ok(Ended::Imported(imported)),
                    Some(Part::Unseen(_)) => return Ok(Ended::Unseen),
                    None => {}
                },
                None => {
                    let reason = "the server's answer ended before the import did";
                    return Err(Problem::new(ErrorKind::Internal, "", "", reason));
                }
            }
        }
    }

    /// Writes an archive; its length in bytes comes back.
    pub fn export(
        &self,
        out: &mut dyn io::Write,
        options: ExportOptions,
        progress: &dyn Progress,
    ) -> Result<u64> {
        use export_response::Part;
        let names: Vec<String> = options.names.iter().map(ImageName::to_string).collect();
        let title = names.join(", ");
        let request = self.link.request(ExportRequest {
            names,
            platforms: texts(&options.platforms),
            all_platforms: options.all_platforms,
            skip_manifest_json: options.skip_manifest_json,
            skip_non_distributable: options.skip_non_distributable,
            only_attestations: options.only_attestations,
        });
        self.link.run(async {
            let mut images = client!(self.link, ImagesClient<_>);
            let answer = images.export(request).await;
            let mut answers = answer
                .map_err(|status| self.link.problem(&status))?
                .into_inner();
            loop {
                let answer = answers.message().await;
                let answer = answer.map_err(|status| self.link.problem(&status))?;
                match answer.map(|answer| answer.part) {
                    Some(Some(Part::Progress(told))) => tell(progress, told),
                    Some(Some(Part::Chunk(chunk))) => {
                        out.write_all(&chunk)
                            .map_err(|err| unwritten(&title, &err))?;
                    }
                    Some(Some(Part::Size(size))) => {
                        out.flush().map_err(|err| unwritten(&title, &err))?;
                        return Ok(size);
                    }
                    Some(None) => {}
                    None => {
                        let reason = "the server's answer ended before the archive did";
                        return Err(Problem::new(ErrorKind::Internal, "", "", reason));
                    }
                }
            }
        })
    }
}

fn message(part: import_request::Part) -> ImportRequest {
    ImportRequest { part: Some(part) }
}

fn texts(platforms: &[Platform]) -> Vec<String> {
    platforms.iter().map(Platform::to_string).collect()
}

fn wire(options: ImportOptions) -> v1::ImportOptions {
    v1::ImportOptions {
        source: None,
        path_as: String::new(),
        path_is: None,
        base_name: options.base_name.unwrap_or_default(),
        index_name: options.index_name.unwrap_or_default(),
        digests: options.digests,
        platforms: texts(&options.platforms),
        all_platforms: options.all_platforms,
        unpack: options.unpack,
        discard_unpacked_layers: options.discard_unpacked_layers,
        compress_blobs: options.compress_blobs,
        sync_layers: options.sync_fs,
        labels: options.labels,
    }
}

fn new_image(imported: v1::ImportedImage) -> NewImage {
    NewImage {
        image: image(imported.image.unwrap_or_default()),
        platform: super::some(imported.platform).unwrap_or_else(|| "-".to_owned()),
    }
}

/// Looks at the archive as this process sees it, with this process's rights.
fn open(source: Source, name: &str) -> Result<Archive> {
    let path = match source {
        Source::Stdin => return Ok(Archive::Stream(Box::new(io::stdin()))),
        Source::Path(path) => path,
    };
    let failed = |err: io::Error| unopened(name, &err);
    let file = File::open(&path).map_err(failed)?;
    let stat = file.metadata().map_err(failed)?;
    if !stat.is_file() && !stat.is_dir() {
        return Ok(Archive::Stream(Box::new(file)));
    }
    let Some(whole) = absolute(&path).map_err(failed)? else {
        // The wire has no way to say such a name.
        return Ok(Archive::Stream(Box::new(file)));
    };
    let id = v1::FileId {
        device: stat.dev(),
        inode: stat.ino(),
    };
    Ok(Archive::File(id, whole, stat.is_file().then_some(file)))
}

/// `None` for a name that is not text.
fn absolute(path: &Path) -> io::Result<Option<String>> {
    Ok(std::path::absolute(path)?
        .into_os_string()
        .into_string()
        .ok())
}

/// What became of the reader, and what keeps the stream of its chunks from ending.
struct Broken {
    err: io::Error,
    _open: mpsc::Sender<Bytes>,
}

/// Reads in a thread of its own: a read of standard input cannot be given up, and nobody shall wait for
/// one that the server has no use for any more. The thread ends with the program.
fn read(
    mut reader: Box<dyn Read + Send>,
) -> io::Result<(ReceiverStream<Bytes>, oneshot::Receiver<Broken>)> {
    let (send, receive) = mpsc::channel(AHEAD);
    let (fail, broken) = oneshot::channel();
    thread::Builder::new()
        .name("archive".to_owned())
        .spawn(move || {
            let mut buffer = vec![0; CHUNK];
            loop {
                // What there is is sent, however little: it may be enough to refuse the archive.
                match reader.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(got) => {
                        let chunk = Bytes::copy_from_slice(&buffer[..got]);
                        if send.blocking_send(chunk).is_err() {
                            return;
                        }
                    }
                    Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                    Err(err) => {
                        let _ = fail.send(Broken { err, _open: send });
                        return;
                    }
                }
            }
        })?;
    Ok((ReceiverStream::new(receive), broken))
}

fn problem(kind: ErrorKind, name: &str, reason: &str) -> Problem {
    let mut problem = Problem::new(kind, "import", "", reason);
    problem.object = Some(("archive".to_owned(), name.to_owned()));
    problem
}

fn unopened(name: &str, err: &io::Error) -> Problem {
    match err.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            problem(ErrorKind::NotFound, name, "no such file")
        }
        io::ErrorKind::PermissionDenied => {
            problem(ErrorKind::PermissionDenied, name, "permission denied")
        }
        _ => problem(ErrorKind::Internal, name, &io_reason(err)),
    }
}

fn unreadable(name: &str, err: &io::Error) -> Problem {
    problem(ErrorKind::Internal, name, "it cannot be read").cause(io_reason(err))
}

fn unwritten(title: &str, err: &io::Error) -> Problem {
    let kind = match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::ResourceExhausted,
        io::ErrorKind::BrokenPipe => ErrorKind::Canceled,
        _ => ErrorKind::Internal,
    };
    let reason = "the archive cannot be written";
    Problem::new(kind, "export image", title, reason).cause(io_reason(err))
}
