//! Bringing images in from an archive or a layout directory.
//!
//! - `archive` makes one table of members of whatever came, `skim` and `stream` fill it;
//! - `contents` finds the images in it, `docker` for the forms that have no index;
//! - `choose` takes the images that are asked for;
//! - `compress` packs what came plain, when that is asked for, and `rewrite` says so in the documents;
//! - `names` names the result; `origin` hands it all to `intake`, which stores it.
//!
//! The layers pass through `unpack/pool.rs`, as everywhere.

mod archive;
mod choose;
mod compress;
mod contents;
mod docker;
mod names;
mod origin;
mod rewrite;
mod skim;
mod stream;

use std::{
    collections::HashSet,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use cairn_sys::Dir;
use cairn_types::{Digest, ErrorKind, Labels, Namespace, Platform};
use tokio::io::AsyncRead;

pub(crate) use self::names::{IMAGE_NAME, REF_NAME};
pub use self::names::{Reference, References};
use self::{
    archive::{Archive, not_an_archive},
    choose::Choice,
    names::Naming,
    origin::Archived,
};
use crate::{
    Event, Extent, Failure, Imported, Node, Pins, Progress, events,
    events::What,
    failure::{size, words},
    intake::{self, Wanted},
    objects::word,
};

/// For messages.
const ATTEMPTED: &str = "import";

/// Where an archive comes from.
pub enum Source {
    /// A file (OCI or docker archive, plain or compressed), or an OCI layout directory.
    Path(PathBuf),
    /// The same under another name for messages: that by which a client of the daemon knows it.
    Named {
        /// For messages.
        name: String,
        /// Where it is.
        path: PathBuf,
    },
    /// Standard input.
    Stdin,
    /// Any stream.
    Stream {
        /// For messages.
        name: String,
        /// The archive's bytes, plain or compressed.
        reader: Box<dyn AsyncRead + Send + Unpin>,
    },
}

const STDIN: &str = "standard input";

impl Source {
    /// For messages: the path as given, `standard input`, or the name that it was given.
    pub fn name(&self) -> String {
        match self {
            Source::Path(path) => path.display().to_string(),
            Source::Stdin => STDIN.to_owned(),
            Source::Named { name, .. } | Source::Stream { name, .. } => name.clone(),
        }
    }
}

/// An archive's name as a command takes it.
pub(crate) fn file_word(name: &str) -> String {
    match name {
        STDIN => "-".to_owned(),
        path => word(path),
    }
}

/// What to import, and how.
pub struct ImportRequest {
    /// The namespace that gets the images.
    pub ns: Namespace,
    /// The lease that is to hold those whose labels say that they expire.
    pub lease: Option<String>,
    /// The archive.
    pub source: Source,
    /// Only names that have this as a component prefix are kept; bare tags are put behind it.
    pub base_name: Option<String>,
    /// Names the archive's whole index.
    pub index_name: Option<String>,
    /// Also names every manifest `<base>@<digest>`.
    pub digests: bool,
    /// Names as a transfer asks for them, instead of all that is said above.
    pub references: Option<References>,
    /// Which platforms of an index to take; none means the host's.
    pub platforms: Vec<Platform>,
    /// Takes every platform that is in the archive.
    pub all_platforms: bool,
    /// What else is taken, or not.
    pub extent: Extent,
    /// Makes the snapshots, too.
    pub unpack: bool,
    /// Keeps no packed layer of what is unpacked, unless something else needs it.
    pub discard: bool,
    /// Stores layers that come plain as gzip, under manifests that say so.
    pub compress: bool,
    /// Answers when the unpacked layers are on the disk, for which an import otherwise does not wait.
    pub sync: bool,
    /// For the image records.
    pub labels: Labels,
}

impl ImportRequest {
    /// Imports and unpacks what suits the host, under the names the archive gives.
    pub fn new(ns: Namespace, source: Source) -> ImportRequest {
        ImportRequest {
            ns,
            lease: None,
            source,
            base_name: None,
            index_name: None,
            digests: false,
            references: None,
            platforms: Vec::new(),
            all_platforms: false,
            extent: Extent::default(),
            unpack: true,
            discard: false,
            compress: false,
            sync: false,
            labels: Labels::new(),
        }
    }
}

impl Node {
    /// Imports every image of an archive. Either all of them are there afterwards, or none.
    pub fn import(
        &self,
        request: ImportRequest,
        progress: &dyn Progress,
    ) -> Result<Vec<Imported>, Failure> {
        let pins = self.pins();
        // Blobs that are new. What is verified is kept when only space ran out or patience, so that
        // the next try needs less; otherwise a failed import leaves nothing.
        let mut stored = Vec::new();
        let (ns, sync) = (request.ns.clone(), request.sync);
        let mut done = self.import_into(request, progress, &mut stored, &pins);
        // What is held now is held by records.
        drop(pins);
        match &mut done {
            Ok((_, needed)) => {
                self.tell_stored(&ns, stored.iter().filter(|digest| needed.contains(digest)));
                stored.retain(|digest| !needed.contains(digest));
            }
            Err(failure) if failure.kind == ErrorKind::ResourceExhausted => {
                failure.next.extend(self.kept(&ns, &stored));
                stored.clear();
            }
            Err(_) if progress.given_up() => stored.clear(),
            Err(_) => {}
        }
        // Others may have found them here, and named them by now.
        if let Err(failure) = self.discard(&ns, &stored) {
            // The garbage collector finds them.
            tracing::warn!("{failure}");
        }
        if sync {
            done = done.and_then(|done| self.sync_layers().map(|()| done));
        }
        progress.event(Event::Done);
        done.map(|(imported, _)| imported)
    }

    /// What of an import for which there was no room makes another try need less.
    fn kept(&self, ns: &Namespace, stored: &[Digest]) -> Option<String> {
        let kept = self.stored_size(ns, stored);
        let kept = (kept > 0).then(|| size(kept))?;
        let step =
            format!("or make room otherwise: {kept} are kept for another try, until cairn gc");
        Some(step)
    }

    /// Bytes of those of the blobs that are there.
    pub(crate) fn stored_size(&self, ns: &Namespace, stored: &[Digest]) -> u64 {
        let known = stored.iter().map(|digest| self.content().info(ns, digest));
        known.flatten().map(|info| info.size).sum()
    }

    /// Blobs of a failed import are told of by nobody: most are gone by then.
    pub(crate) fn tell_stored<'d>(&self, ns: &Namespace, stored: impl Iterator<Item = &'d Digest>) {
        for digest in stored {
            if let Ok(info) = self.content().info(ns, digest) {
                let (digest, size) = (info.digest, info.size);
                self.happened(events::Event::of(ns, What::ContentCreated { digest, size }));
            }
        }
    }

    fn import_into(
        &self,
        request: ImportRequest,
        progress: &dyn Progress,
        stored: &mut Vec<Digest>,
        pins: &Pins,
    ) -> Result<(Vec<Imported>, HashSet<Digest>), Failure> {
        let ImportRequest { ns, source, .. } = request;
        let mut archive = self.open_source(&ns, source, stored, pins)?;
        let contents = contents::read(&mut archive)?;
        let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        // Programs keep things in images that no runtime is meant to run.
        let unchecked = request.references.is_some();
        let choice = Choice {
            naming: Naming {
                index: request.index_name,
                references: request.references.clone(),
                ..Naming::new(request.base_name, request.digests, &today)
            },
            wanted: Wanted::new(&request.platforms, request.all_platforms, request.extent),
        };
        let origin = Archived {
            archive: &archive,
            compress: request.compress,
        };
        let chosen = choose::choose(&origin, &contents, &choice)?;
        let options = intake::Options {
            unpack: request.unpack,
            unchecked,
            discard: request.discard || self.inner.discard_layers,
            labels: request.labels,
            references: request.references,
            lease: request.lease,
        };
        intake::write(self, &ns, &origin, chosen, &options, progress, stored)
    }

    fn open_source(
        &self,
        ns: &Namespace,
        source: Source,
        stored: &mut Vec<Digest>,
        pins: &Pins,
    ) -> Result<Archive, Failure> {
        let name = source.name();
        match source {
            Source::Stdin => {
                let reader = Box::new(stream::InPlace(std::io::stdin()));
                stream::read(self, ns, name, reader, stored, pins)
            }
            Source::Stream { reader, .. } => stream::read(self, ns, name, reader, stored, pins),
            Source::Path(path) | Source::Named { path, .. } => {
                self.open_path(ns, name, &path, stored, pins)
            }
        }
    }

    fn open_path(
        &self,
        ns: &Namespace,
        name: String,
        path: &Path,
        stored: &mut Vec<Digest>,
        pins: &Pins,
    ) -> Result<Archive, Failure> {
        let failed = |err: std::io::Error| unopened(&name, &err);
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if metadata.is_dir() {
            let dir = Dir::open(path)
                .map_err(|err| Failure::of(ATTEMPTED, &err).object("layout", &name))?;
            let empty = Archive::empty(name, ns.clone(), self.content().clone(), pins.clone());
            return Ok(empty.directory(dir));
        }
        let mut file = File::open(path).map_err(failed)?;
        if !metadata.is_file() {
            // A pipe, as `<(docker save …)` makes one.
            let reader = Box::new(stream::InPlace(file));
            return stream::read(self, ns, name, reader, stored, pins);
        }
        let mut head = Vec::new();
        (&mut file)
            .take(512)
            .read_to_end(&mut head)
            .map_err(failed)?;
        if skim::is_header(&head) {
            let empty = Archive::empty(name, ns.clone(), self.content().clone(), pins.clone());
            return empty.file(file, metadata.len());
        }
        if head.is_empty() {
            return Err(not_an_archive(&name, &head));
        }
        let file = File::open(path).map_err(failed)?;
        let reader = Box::new(stream::InPlace(file));
        stream::read(self, ns, name, reader, stored, pins)
    }
}

fn unopened(name: &str, err: &std::io::Error) -> Failure {
    let (kind, reason) = match err.kind() {
        std::io::ErrorKind::NotFound => (ErrorKind::NotFound, "no such file".to_owned()),
        std::io::ErrorKind::PermissionDenied => {
            (ErrorKind::PermissionDenied, "permission denied".to_owned())
        }
        std::io::ErrorKind::NotADirectory => (ErrorKind::NotFound, "no such file".to_owned()),
        _ => (ErrorKind::Internal, words(err)),
    };
    Failure::new(kind, ATTEMPTED, reason).object("archive", name)
}
