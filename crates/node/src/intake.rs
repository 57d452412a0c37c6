//! Images that come in, from an archive or from a registry: what of them is taken, and how it is stored.

mod choose;
mod write;

use std::{fs::File, io::Read, sync::Arc};

use cairn_types::{Digest, Labels, Platform};

pub use self::choose::Extent;
pub(crate) use self::{
    choose::{Chosen, Wanted, Which, choose_one, is_foreign},
    write::{Options, total_size, write},
};
use crate::{Failure, Pins, unpack::Work};

/// One image that came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// Its full name.
    pub name: cairn_types::ImageName,
    /// What the name points at.
    pub target: cairn_types::Descriptor,
    /// The platform of the manifest that was taken; `None` when it is an artifact or names none.
    pub platform: Option<Platform>,
    /// Bytes of its blobs.
    pub content_size: u64,
    /// Bytes of its unpacked layers; `None` when they are not unpacked.
    pub unpacked_size: Option<u64>,
}

/// Where images come from.
pub(crate) trait Origin: Sync {
    /// As in [`crate::Report::attempted`], before it is known which image.
    fn attempted(&self) -> &'static str;
    /// The same, of an image.
    fn of_image(&self) -> &'static str;
    /// Kind and name, as in [`crate::Report::object`]: what stands for it as long as no image does.
    fn object(&self) -> (&'static str, &str);
    /// What it is, for sentences: `the archive`.
    fn place(&self) -> &'static str;
    /// Whether a blob is to be had of it.
    fn has(&self, digest: &Digest) -> Result<bool, Failure>;
    /// Whether the store has a blob that it may lack.
    fn has_stored(&self, digest: &Digest) -> bool;
    /// The bytes of a blob from an offset on; other than 0 only where [`Origin::is_dear`].
    fn open(&self, digest: &Digest, from: u64) -> Result<Box<dyn Read + Send + '_>, Failure>;
    /// A file that should be the blob and nothing else, where there is one. Others may write to it.
    fn file(&self, _digest: &Digest) -> Result<Option<Arc<File>>, Failure> {
        Ok(None)
    }
    /// Where a blob lies, for `where:` lines.
    fn location(&self, digest: &Digest) -> Option<String>;
    /// What to do about damage, and about what is missing.
    fn advice(&self) -> (String, String);
    /// The command that takes it for another platform.
    fn with_platform(&self, platform: &str) -> String;
    /// The command that takes it without unpacking.
    fn packed(&self) -> String;
    /// Everything that is looked for in the store.
    fn pins(&self) -> &Pins;
    /// Whether its bytes are so dear that none is brought twice: what another request is at is waited
    /// for then, and an upload that broke off is gone on with.
    fn is_dear(&self) -> bool {
        false
    }
    /// From where it comes and how quickly it may: who waits for another one's bytes would get his own no
    /// sooner if this is the same of both.
    fn alike(&self) -> String {
        String::new()
    }
    /// How many blobs come side by side, if that is not up to the processors.
    fn at_once(&self) -> Option<usize> {
        None
    }
    /// Takes note that all bytes of a blob came and hash to `actual`. `Ok` when it is worth to have them
    /// once more; else what each place did, as sentences, where there is more to say than the place.
    fn distrust(&self, _digest: &Digest, _actual: &Digest) -> Result<(), Vec<String>> {
        Err(Vec::new())
    }
    /// Why a blob could not be read, when it knows better than an error of reading.
    fn explain(&self, _err: &std::io::Error) -> Option<Failure> {
        None
    }
    /// Labels that every blob gets, beside those it has.
    fn labels(&self) -> Labels {
        Labels::new()
    }
    /// The last thing before blobs are stored: rewrites what was chosen.
    fn prepare(
        &self,
        _work: &Work<'_>,
        chosen: Vec<Chosen>,
        _stored: &mut Vec<Digest>,
    ) -> Result<Vec<Chosen>, Failure> {
        Ok(chosen)
    }
}
