//! An archive as a place that images come from.

use std::{fs::File, io::Read, sync::Arc};

use cairn_types::{Digest, ErrorKind};

use super::{
    ATTEMPTED,
    archive::{Archive, Place},
    compress, file_word,
};
use crate::{
    Failure, Pins,
    intake::{Chosen, Origin},
    unpack::Work,
};

/// An archive, and whether its plain layers are packed on their way.
pub(super) struct Archived<'a> {
    pub(super) archive: &'a Archive,
    pub(super) compress: bool,
}

impl Origin for Archived<'_> {
    fn attempted(&self) -> &'static str {
        ATTEMPTED
    }

    fn of_image(&self) -> &'static str {
        "import image"
    }

    fn object(&self) -> (&'static str, &str) {
        ("archive", &self.archive.name)
    }

    fn place(&self) -> &'static str {
        "the archive"
    }

    fn has(&self, digest: &Digest) -> Result<bool, Failure> {
        Ok(self.archive.blob(digest)?.is_some())
    }

    fn has_stored(&self, digest: &Digest) -> bool {
        self.archive.has_stored(digest)
    }

    /// An upload that nobody can go on with begins at the beginning.
    fn open(&self, digest: &Digest, _from: u64) -> Result<Box<dyn Read + Send + '_>, Failure> {
        match self.archive.blob(digest)? {
            Some(member) => self.archive.open(&member),
            None => Err(absent(self.archive, digest)),
        }
    }

    fn file(&self, digest: &Digest) -> Result<Option<Arc<File>>, Failure> {
        let member = self.archive.blob(digest)?;
        Ok(member.and_then(|member| match member.place {
            Place::File(file) => Some(file),
            // Parts of a file can be shared, too, but only whole blocks, and tar has a grain of its own.
            Place::Range { .. } | Place::Memory(_) | Place::Stored(_) => None,
        }))
    }

    fn location(&self, digest: &Digest) -> Option<String> {
        match self.archive.blob(digest) {
            Ok(Some(member)) => Some(self.archive.location(&member.name)),
            _ => None,
        }
    }

    fn advice(&self) -> (String, String) {
        let damaged = "fetch the archive again".to_owned();
        (damaged, "fetch or save the archive again".to_owned())
    }

    fn with_platform(&self, platform: &str) -> String {
        let file = file_word(&self.archive.name);
        format!("cairn images import --platform {platform} {file}")
    }

    fn packed(&self) -> String {
        let file = file_word(&self.archive.name);
        format!("cairn images import --no-unpack {file}")
    }

    fn pins(&self) -> &Pins {
        &self.archive.pins
    }

    fn prepare(
        &self,
        work: &Work<'_>,
        chosen: Vec<Chosen>,
        stored: &mut Vec<Digest>,
    ) -> Result<Vec<Chosen>, Failure> {
        match self.compress {
            true => compress::compressed(work, self.archive, chosen, stored),
            false => Ok(chosen),
        }
    }
}

fn absent(archive: &Archive, digest: &Digest) -> Failure {
    let reason = format!("blob {digest} is not in the archive");
    Failure::new(ErrorKind::NotFound, ATTEMPTED, reason)
        .object("archive", &archive.name)
        .next("fetch or save the archive again")
}
