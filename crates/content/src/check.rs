//! Whether files are what their records say, and how it is known of those that are not.
//!
//! Nothing is locked for as long as bytes are read. What looks wrong is believed under the lock on its name,
//! when nobody replaces or removes it, if it is still the file that was read.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fmt,
    fs::File,
    sync::{Arc, Mutex, PoisonError},
};

use cairn_meta::{BlobRecord, View, schema};
use cairn_sys::{
    FileType, OFlags, durable,
    raw::{self, Caching},
};
use cairn_types::{Algorithm, Classified, Digest, ErrorKind, Hasher, IngestRef, Namespace};

use crate::{
    Blobs, Content, Error, Result,
    blob::read_file,
    error::{io as io_failed, sys},
    is_missing,
    locks::Held,
    proven::Mark,
    small::SMALL_BYTES_MAX,
};

/// What is wrong with the file of a recorded blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// There is none.
    Missing,
    /// Something else has its name.
    NotAFile,
    /// It has so many bytes instead of those that the record says.
    Length {
        /// Of the file.
        actual: u64,
        /// Of the record.
        recorded: u64,
    },
    /// Its bytes hash to this.
    Bytes(Digest),
    /// They cannot be read, for this reason.
    Unreadable(String),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Missing => f.write_str("its file is missing"),
            Flaw::NotAFile => f.write_str("what has its name is no file"),
            Flaw::Length { actual, recorded } => {
                write!(f, "its file has {actual} bytes instead of {recorded}")
            }
            Flaw::Bytes(actual) => write!(f, "its bytes hash to {actual}"),
            Flaw::Unreadable(reason) => write!(f, "its bytes cannot be read: {reason}"),
        }
    }
}

/// Blobs whose bytes were found to be wrong, so that who brings them anew is not told that they are here.
/// Until the next opening, or until they are right again.
#[derive(Clone, Default)]
pub(crate) struct Doubts(Arc<Mutex<HashSet<Digest>>>);

impl Doubts {
    pub(crate) fn add(&self, digest: &Digest) {
        self.set(|set| set.insert(digest.clone()));
    }

    pub(crate) fn remove(&self, digest: &Digest) {
        self.set(|set| set.remove(digest));
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.set(|set| set.contains(digest))
    }

    /// A panic elsewhere cannot leave the set half changed.
    fn set<T>(&self, act: impl FnOnce(&mut HashSet<Digest>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Content {
    /// Whether a blob is in the namespace, as its record says it is: its file has the right length, and
    /// nobody has found its bytes to be wrong. Whoever has them at hand stores them again otherwise.
    pub fn is_whole(&self, ns: &Namespace, digest: &Digest) -> Result<bool> {
        Ok(self.is_linked(ns, digest)? && self.is_sound(digest)?)
    }

    /// The same of a blob that any namespace may have.
    pub fn is_sound(&self, digest: &Digest) -> Result<bool> {
        if self.is_doubted(digest) {
            return Ok(false);
        }
        let Some(record) = self.sound_record(digest)? else {
            return Ok(false);
        };
        Ok(self.flaw_at_a_glance(digest, record.size)?.is_none())
    }

    /// Whether somebody has found the bytes of a blob to be wrong since the opening.
    pub fn is_doubted(&self, digest: &Digest) -> bool {
        self.inner.doubts.has(digest)
    }

    /// Whether the namespace has a link to the blob that proves itself.
    fn is_linked(&self, ns: &Namespace, digest: &Digest) -> Result<bool> {
        let key = (ns.clone(), digest.clone());
        let link = self
            .inner
            .meta
            .read(|view| view.get(&schema::BLOB_LINKS, &key));
        match link {
            Err(cairn_meta::Error::Corrupt { .. }) => Ok(false),
            link => Ok(link?.is_some()),
        }
    }

    fn sound_record(&self, digest: &Digest) -> Result<Option<BlobRecord>> {
        let read = self
            .inner
            .meta
            .read(|view| view.get(&schema::BLOBS, digest));
        match read {
            Err(cairn_meta::Error::Corrupt { .. }) => Ok(None),
            record => Ok(record?),
        }
    }

    /// What is wrong with the file of a blob as far as can be seen without reading it; `None` also when no
    /// record speaks of it.
    pub fn glance(&self, digest: &Digest) -> Result<Option<Flaw>> {
        let Some(record) = self.sound_record(digest)? else {
            return Ok(None);
        };
        if self.flaw_at_a_glance(digest, record.size)?.is_none() {
            return Ok(None);
        }
        let _changing = self.inner.changing.lock(digest);
        match self.sound_record(digest)? {
            Some(record) => self.flaw_at_a_glance(digest, record.size),
            None => Ok(None),
        }
    }

    /// What is wrong with a blob, every byte of it; `None` also when no record speaks of it. Tells `read`
    /// how many bytes it has read since the last time, and ends without a flaw when that says `false`.
    pub fn examine(
        &self,
        digest: &Digest,
        caching: Caching,
        read: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Flaw>> {
        if let Some(flaw) = self.glance(digest)? {
            return Ok(Some(flaw));
        }
        // One that comes up from here on is of somebody who has seen more.
        let doubted = self.is_doubted(digest);
        let Some((flaw, _changing)) = self.look_through(digest, caching, read)? else {
            return Ok(None);
        };
        let Some(flaw) = flaw else {
            if doubted {
                self.inner.doubts.remove(digest);
            }
            return Ok(None);
        };
        // Somebody may have removed it meanwhile, or what its record says is another number.
        let Some(record) = self.sound_record(digest)? else {
            return Ok(None);
        };
        if let Some(flaw) = self.flaw_at_a_glance(digest, record.size)? {
            return Ok(Some(flaw));
        }
        self.inner.doubts.add(digest);
        Ok(Some(flaw))
    }

    /// What is wrong with the bytes of a blob, whatever their number should be, and the lock on its name, under
    /// which that holds. They are read before it is taken, and once more when another file has come by then: to
    /// read gigabytes again under it would keep everybody waiting who brings the blob. `None` when
    /// `read` says `false`.
    fn look_through(
        &self,
        digest: &Digest,
        caching: Caching,
        read: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<(Option<Flaw>, Held<Digest>)>> {
        let inode = |file: &File| {
            raw::inode(file).map_err(sys(format!("look at the file of blob {digest}")))
        };
        loop {
            let seen = self.try_open(digest)?;
            let flaw = match &seen {
                Ok(file) => {
                    let mut ended = false;
                    let mut told = |got| {
                        ended = !read(got);
                        !ended
                    };
                    let flaw = self.flaw_of_bytes(digest, file, caching, &mut told)?;
                    if ended {
                        return Ok(None);
                    }
                    flaw
                }
                Err(flaw) => Some(flaw.clone()),
            };
            let changing = self.inner.changing.lock(digest);
            let now = self.try_open(digest)?;
            // A file that is open keeps its number.
            let same = match (&seen, &now) {
                (Ok(seen), Ok(now)) => inode(seen)? == inode(now)?,
                (seen, now) => seen.is_err() && now.is_err(),
            };
            // What is small is written again in its place.
            let is_small = |file: &File| {
                raw::length(file).is_ok_and(|length| length <= SMALL_BYTES_MAX as u64)
            };
            if flaw.is_some() && now.as_ref().is_ok_and(is_small) {
                return Ok(Some((self.flaw_of_file(digest)?, changing)));
            }
            if same {
                return Ok(Some((flaw, changing)));
            }
        }
    }

    /// Has whoever brings a blob again be let, as if its bytes had been found to be wrong just now.
    pub fn doubt(&self, digest: &Digest) {
        self.inner.doubts.add(digest);
    }

    /// A text that tells the file of a blob from any that comes in its place; `None` when there is none.
    pub fn file_mark(&self, digest: &Digest) -> Result<Option<String>> {
        let (dir, name) = self.place(digest);
        let stat = dir.try_stat(name);
        let stat = stat.map_err(sys(format!("look at blob {digest}")))?;
        Ok(stat.map(|stat| Mark::of(&stat).to_string()))
    }

    /// Opens the file of a blob, or says why there is nothing to be read.
    pub(crate) fn try_open(&self, digest: &Digest) -> Result<std::result::Result<File, Flaw>> {
        let (dir, name) = self.place(digest);
        match dir.open_file(name, OFlags::RDONLY, 0) {
            Ok(file) => Ok(Ok(file)),
            Err(err) if is_missing(&err) => Ok(Err(Flaw::Missing)),
            Err(err) => unreadable(format!("open blob {digest}"), err).map(Err),
        }
    }

    pub(crate) fn flaw_at_a_glance(&self, digest: &Digest, recorded: u64) -> Result<Option<Flaw>> {
        let (dir, name) = self.place(digest);
        let stat = match dir.try_stat(name) {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(Some(Flaw::Missing)),
            Err(err) => return unreadable(format!("look at blob {digest}"), err).map(Some),
        };
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Ok(Some(Flaw::NotAFile));
        }
        let actual = u64::try_from(stat.st_size).unwrap_or(0);
        Ok((actual != recorded).then_some(Flaw::Length { actual, recorded }))
    }

    /// What is wrong with the bytes of a file, whatever their number should be.
    fn flaw_of_file(&self, digest: &Digest) -> Result<Option<Flaw>> {
        match self.try_open(digest)? {
            Ok(file) => self.flaw_of_bytes(digest, &file, Caching::Kept, &mut |_| true),
            Err(flaw) => Ok(Some(flaw)),
        }
    }

    fn flaw_of_bytes(
        &self,
        digest: &Digest,
        file: &File,
        caching: Caching,
        read: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Flaw>> {
        raw::read_in_order(file);
        let mut hasher = Hasher::new(digest.algorithm());
        let mut ended = false;
        let done = read_file(file, caching, |piece| {
            hasher.update(piece);
            ended = !read(piece.len() as u64);
            !ended
        });
        if let Err(err) = done {
            return Ok(Some(Flaw::Unreadable(err.to_string())));
        }
        if ended {
            return Ok(None);
        }
        let actual = hasher.finish();
        Ok((actual != *digest).then_some(Flaw::Bytes(actual)))
    }

    /// Names among the blobs' files that no record speaks of, as `sha256/NAME`. While the store is in use
    /// some are on their way in or out: see [`Content::is_stray`].
    pub fn strays(&self) -> Result<Vec<String>> {
        let mut strays = Vec::new();
        for (blobs, algorithm) in self.inner.blobs.iter().zip(Algorithm::ALL) {
            for entry in blobs.dir.entries().map_err(sys("list blobs"))? {
                let name = format!("{}/{}", algorithm.name(), entry.name.to_string_lossy());
                if self.is_stray(&name)? {
                    strays.push(name);
                }
            }
        }
        Ok(strays)
    }

    /// Whether a file among the blobs has no record, and nobody is at work on a blob of that name.
    pub fn is_stray(&self, name: &str) -> Result<bool> {
        let Ok(digest) = Digest::parse(&name.replacen('/', ":", 1)) else {
            // No name of ours; it may be gone.
            return self.is_there(name);
        };
        if self.is_recorded(&digest)? {
            return Ok(false);
        }
        let Some(_changing) = self.inner.changing.try_lock(&digest) else {
            return Ok(false);
        };
        Ok(!self.is_recorded(&digest)? && !self.is_left(&digest) && self.is_there(name)?)
    }

    /// Whether a blob has a record, which may be what is damaged.
    pub(crate) fn is_recorded(&self, digest: &Digest) -> Result<bool> {
        let read = self
            .inner
            .meta
            .read(|view| view.get(&schema::BLOBS, digest));
        match read {
            Err(cairn_meta::Error::Corrupt { .. }) => Ok(true),
            record => Ok(record?.is_some()),
        }
    }

    /// Removes a file for which [`Content::is_stray`] holds; whether it did.
    pub fn remove_stray(&self, name: &str) -> Result<bool> {
        let digest = Digest::parse(&name.replacen('/', ":", 1)).ok();
        let changing = digest
            .as_ref()
            .map(|digest| self.inner.changing.try_lock(digest));
        if matches!(changing, Some(None)) {
            return Ok(false);
        }
        if let Some(digest) = &digest
            && self.size_of_any(digest)?.is_some()
        {
            return Ok(false);
        }
        let Some((dir, file)) = self.stray_place(name) else {
            return Ok(false);
        };
        let removed = dir.remove_tree(OsStr::new(file));
        removed.map_err(sys(format!("remove file {name} among the blobs")))?;
        Ok(true)
    }

    fn is_there(&self, name: &str) -> Result<bool> {
        let Some((dir, file)) = self.stray_place(name) else {
            return Ok(false);
        };
        match dir.try_stat(OsStr::new(file)) {
            Ok(stat) => Ok(stat.is_some()),
            Err(err) => unreadable(format!("look at {name}"), err).map(|_| true),
        }
    }

    fn stray_place<'a>(&self, name: &'a str) -> Option<(&cairn_sys::Dir, &'a str)> {
        let (algorithm, file) = name.split_once('/')?;
        let mut all = self.inner.blobs.iter().zip(Algorithm::ALL);
        let (blobs, _) = all.find(|(_, known)| known.name() == algorithm)?;
        Some((&blobs.dir, file))
    }

    /// Whether no byte is here of an upload that is recorded and that nobody writes to: a power cut has taken
    /// them.
    pub fn is_hollow(&self, ns: &Namespace, reference: &IngestRef) -> Result<bool> {
        let key = (ns.clone(), reference.clone());
        if self.is_written(&key) {
            return Ok(false);
        }
        let record = self
            .inner
            .meta
            .read(|view| view.get(&schema::INGESTS, &key));
        let Some(record) = record? else {
            return Ok(false);
        };
        let name = record.id.to_string();
        let stat = self.inner.ingests.try_stat(OsStr::new(&name));
        let stat = stat.map_err(sys(format!("look at ingest {reference}")))?;
        Ok(stat.is_none() && !self.is_written(&key))
    }

    /// Removes the file of a blob whose bytes are wrong, so that nobody reads them, and whoever brings the
    /// blob again is let. Its records stay, with all that they hold.
    ///
    /// A small blob whose bytes are still in the records is written anew instead. A file that cannot be read
    /// stays until somebody brings its bytes: it may be whole, and readable again. So does one whose bytes are
    /// right, and its record is told how many they are. It is read to know that, and `read` told of how many
    /// bytes since the last time; when that says `false` nothing is done.
    pub fn give_up(&self, digest: &Digest, read: &mut dyn FnMut(u64) -> bool) -> Result<Mended> {
        self.check_writable()?;
        // The record may be what is wrong about the length.
        let is_readable = |seen: &Option<Flaw>| matches!(seen, None | Some(Flaw::Length { .. }));
        loop {
            let Some(record) = self.sound_record(digest)? else {
                return Ok(Mended::Nothing);
            };
            let seen = self.flaw_at_a_glance(digest, record.size)?;
            let (bytes, changing) = match is_readable(&seen) {
                true => match self.look_through(digest, Caching::Kept, read)? {
                    Some((flaw, changing)) => (Some(flaw), changing),
                    None => return Ok(Mended::Stopped),
                },
                false => (None, self.inner.changing.lock(digest)),
            };
            let Some(record) = self.sound_record(digest)? else {
                return Ok(Mended::Nothing);
            };
            let seen = self.flaw_at_a_glance(digest, record.size)?;
            let flaw = match (is_readable(&seen), bytes) {
                (true, Some(flaw)) => flaw,
                (false, _) => seen.clone(),
                // Somebody has brought one that can be read.
                (true, None) => continue,
            };
            return self.mend(digest, seen, flaw, &changing);
        }
    }

    /// The same, knowing what is `seen` of the file and what is wrong with it.
    fn mend(
        &self,
        digest: &Digest,
        seen: Option<Flaw>,
        flaw: Option<Flaw>,
        changing: &Held<Digest>,
    ) -> Result<Mended> {
        let Some(flaw) = flaw else {
            self.inner.doubts.remove(digest);
            let Some(Flaw::Length { actual, .. }) = seen else {
                return Ok(Mended::Nothing);
            };
            self.measure(digest, actual, changing)?;
            return Ok(Mended::Measured);
        };
        if let Some(size) = self.replace(digest, &flaw, changing)? {
            self.measure(digest, size, changing)?;
            self.inner.doubts.remove(digest);
            return Ok(Mended::Whole);
        }
        if let Flaw::Unreadable(_) = flaw {
            self.inner.doubts.add(digest);
            return Ok(Mended::Unread);
        }
        let (dir, name) = self.place(digest);
        let removed = dir.remove_tree(name);
        removed.map_err(sys(format!("remove the damaged file of blob {digest}")))?;
        Ok(Mended::Aside)
    }

    /// Has the record of a blob say how many bytes its file has, which are the right ones.
    fn measure(&self, digest: &Digest, size: u64, _changing: &Held<Digest>) -> Result<()> {
        if self.sound_record(digest)?.is_none_or(|it| it.size == size) {
            return Ok(());
        }
        if !self.sync(digest)? {
            let reason = "its file cannot be opened any more".to_owned();
            let digest = digest.clone();
            return Err(Error::Damaged { digest, reason });
        }
        let digest = digest.clone();
        self.inner.meta.write(move |tx| {
            if let Some(known) = tx.get(&schema::BLOBS, &digest)? {
                tx.put(&schema::BLOBS, &digest, &BlobRecord { size, ..known })?;
            }
            Ok::<_, Error>(())
        })
    }

    /// Puts the file of a recorded blob and its name on the disk, and says whether it is what its record
    /// says, every byte of it.
    pub fn settle(&self, digest: &Digest) -> Result<bool> {
        self.check_writable()?;
        let _changing = self.inner.changing.lock(digest);
        let Some(record) = self.sound_record(digest)? else {
            return Ok(false);
        };
        if self.flaw_at_a_glance(digest, record.size)?.is_some() {
            return Ok(false);
        }
        // First, so that what is read is what was synced.
        Ok(self.sync(digest)? && self.flaw_of_file(digest)?.is_none())
    }

    /// Whether there is a file that could be opened; then it and its name are on the disk.
    fn sync(&self, digest: &Digest) -> Result<bool> {
        let Ok(file) = self.try_open(digest)? else {
            return Ok(false);
        };
        let failed = |err| self.failed(format!("sync blob {digest}"), err);
        durable::sync_file(&file).map_err(failed)?;
        let Blobs { dir, syncs } = self.blobs_of(digest);
        syncs.run(|| dir.fsync()).map_err(failed)?;
        Ok(true)
    }

    /// Records a blob again whose record is lost, and whose file is whole: somebody sees it still. Whether
    /// it is now.
    pub fn record_again(&self, digest: &Digest) -> Result<bool> {
        self.check_writable()?;
        let changing: Held<Digest> = self.inner.changing.lock(digest);
        let Ok(file) = self.try_open(digest)? else {
            return Ok(false);
        };
        let flaw = self.flaw_of_bytes(digest, &file, Caching::Kept, &mut |_| true);
        if flaw?.is_some() {
            return Ok(false);
        }
        let size = file.metadata();
        let size = size.map_err(io_failed(format!("look at blob {digest}"), "fstat"))?;
        let (digest, size) = (digest.clone(), size.len());
        self.inner.meta.write(move |tx| {
            match tx.get(&schema::BLOBS, &digest) {
                Ok(None) | Err(cairn_meta::Error::Corrupt { .. }) => {}
                Ok(Some(_)) => return Ok(()),
                Err(err) => return Err(err.into()),
            }
            let created_at = cairn_meta::Timestamp::now();
            let record = BlobRecord { size, created_at };
            Ok::<_, Error>(tx.put(&schema::BLOBS, &digest, &record)?)
        })?;
        drop(changing);
        Ok(true)
    }
}

/// What became of a damaged blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// It was not damaged, or is no more.
    Nothing,
    /// It is whole again.
    Whole,
    /// Its bytes are right, and its record said another number of them.
    Measured,
    /// Its file cannot be read and stays: that may pass.
    Unread,
    /// Its damaged file is gone, and whoever has its bytes can bring them.
    Aside,
    /// It is as it was: nobody waited for it to be read.
    Stopped,
}

/// A file that is there and cannot be looked at is damage, of a disk mostly, and no reason to end a check of
/// all or to keep anybody from bringing its bytes. What this process has too little of is no damage.
fn unreadable(attempted: String, err: cairn_sys::Error) -> Result<Flaw> {
    match err.kind() {
        ErrorKind::ResourceExhausted => Err(sys(attempted)(err)),
        _ => Ok(Flaw::Unreadable(err.to_string())),
    }
}
