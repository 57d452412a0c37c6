//! Which images an archive has.

use cairn_types::{Descriptor, Digest, ErrorKind, MediaKind, media};
use serde::{Deserialize, Serialize};

use super::{
    ATTEMPTED,
    archive::{Archive, Member, Place},
    docker,
};
use crate::{
    Failure,
    documents::{self, DOCUMENT_BYTES_MAX, Document, DocumentError},
    walk::Blobs,
};

/// The only layout version there is.
const LAYOUT_VERSION: &str = "1.0.0";

/// What the archive lists at its top.
pub(super) struct Contents {
    /// Each image, with annotations that name it.
    pub(super) entries: Vec<Descriptor>,
    /// The index that lists them, as stored under `--index-name`.
    pub(super) index: Descriptor,
}

/// `oci-layout`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// The index that stands for a docker archive.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: &'a [Descriptor],
}

/// Finds the images. An archive that is both an OCI layout and a docker archive, as Docker 25 and
/// later save them, is read as the layout: its digests are those of the registry.
pub(super) fn read(archive: &mut Archive) -> Result<Contents, Failure> {
    if let Some(member) = archive.member("index.json")? {
        check_layout(archive)?;
        return layout(archive, &member);
    }
    if let Some(entries) = docker::read(archive)? {
        let made = Made {
            schema_version: 2,
            media_type: media::OCI_INDEX,
            manifests: &entries,
        };
        let bytes = serde_json::to_vec(&made).expect("a struct of plain fields serialises");
        let size = bytes.len() as u64;
        let index = Descriptor::new(media::OCI_INDEX, archive.keep(bytes), size);
        return some(archive, Contents { entries, index });
    }
    let failure = Failure::new(
        ErrorKind::InvalidArgument,
        ATTEMPTED,
        "neither an OCI nor a docker archive",
    )
    .object("archive", &archive.name)
    .next("make one: docker save -o FILE IMAGE");
    Err(match archive.is_empty() {
        true => failure.cause("it has no files"),
        false => failure.cause("it has neither index.json nor manifest.json nor repositories"),
    })
}

fn some(archive: &Archive, contents: Contents) -> Result<Contents, Failure> {
    if contents.entries.is_empty() {
        let failure = Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, "it lists no image");
        return Err(failure.object("archive", &archive.name));
    }
    Ok(contents)
}

/// A missing `oci-layout` says nothing that `index.json` does not; another version is not read.
fn check_layout(archive: &Archive) -> Result<(), Failure> {
    let Some(member) = archive.member("oci-layout")? else {
        return Ok(());
    };
    let bytes = archive.read(&member, 4096)?;
    let version = serde_json::from_slice::<Layout>(&bytes).map(|l| l.image_layout_version);
    match version {
        Ok(version) if version == LAYOUT_VERSION => Ok(()),
        Ok(version) => Err(wrong(
            archive,
            "oci-layout",
            format!("it is of version {version:?}, only {LAYOUT_VERSION} is known"),
        )),
        Err(err) => Err(wrong(archive, "oci-layout", err.to_string())),
    }
}

fn wrong(archive: &Archive, member: &str, cause: String) -> Failure {
    Failure::new(
        ErrorKind::InvalidArgument,
        ATTEMPTED,
        format!("its {member} is refused"),
    )
    .object("archive", &archive.name)
    .cause(cause)
    .at(archive.location(member))
}

fn layout(archive: &mut Archive, member: &Member) -> Result<Contents, Failure> {
    let bytes = archive.read(member, DOCUMENT_BYTES_MAX)?;
    let document = documents::document(&bytes, "")
        .map_err(|err| wrong(archive, "index.json", err.to_string()))?;
    let Document::Index(index) = document else {
        return Err(wrong(archive, "index.json", "it is a manifest".to_owned()));
    };
    let size = bytes.len() as u64;
    let descriptor = Descriptor::new(media::OCI_INDEX, archive.keep(bytes), size);
    let contents = Contents {
        entries: index.manifests,
        index: descriptor,
    };
    some(archive, contents)
}

/// The documents of an archive; what it lacks may be in the store already.
pub(super) struct ArchiveBlobs<'a> {
    pub(super) archive: &'a Archive,
}

impl Blobs for ArchiveBlobs<'_> {
    type Error = Failure;

    fn document(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, Failure> {
        let digest = &descriptor.digest;
        let Some(member) = self.archive.blob(digest)? else {
            return Ok(self.archive.stored(digest));
        };
        let bytes = self.archive.read(&member, DOCUMENT_BYTES_MAX)?;
        let word = match MediaKind::of(&descriptor.media_type) {
            MediaKind::Config => "configuration",
            MediaKind::Index => "index",
            _ => "manifest",
        };
        let actual = Digest::of(digest.algorithm(), &bytes);
        let mut causes = Vec::new();
        if bytes.len() as u64 != descriptor.size {
            causes.push(format!(
                "it has {} bytes instead of {}",
                bytes.len(),
                descriptor.size
            ));
        }
        if actual != *digest {
            causes.push(format!("its bytes hash to {actual}"));
        }
        if causes.is_empty() {
            return Ok(Some(bytes));
        }
        let mut failure = Failure::new(
            ErrorKind::DataLoss,
            ATTEMPTED,
            format!("{word} {digest} is damaged"),
        )
        .object("archive", &self.archive.name)
        .next("fetch the archive again");
        failure.causes = causes;
        if !matches!(member.place, Place::Memory(_)) || member.name != digest.to_string() {
            failure.location = Some(self.archive.location(&member.name));
        }
        Err(failure)
    }

    fn refuse(&self, descriptor: &Descriptor, reason: DocumentError) -> Failure {
        let text = format!("document {} is refused", descriptor.digest);
        Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, text)
            .object("archive", &self.archive.name)
            .cause(reason.to_string())
    }

    fn too_many(&self, _descriptor: &Descriptor, reason: String) -> Failure {
        Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, reason)
            .object("archive", &self.archive.name)
    }
}
