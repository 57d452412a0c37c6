//! An archive as a table of named members, each readable on its own, whatever it was packed in.
//!
//! Three forms become one: a layout directory, a plain archive file (members are ranges of it), and
//! a stream that could be read only once (members are in memory or already in the store).

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::Arc,
};

use cairn_content::Content;
use cairn_sys::{Dir, Part};
use cairn_types::{Digest, ErrorKind, Namespace};
use rustix::fs::OFlags;

use super::{
    ATTEMPTED,
    skim::{self, Found, SkimError},
};
use crate::{Failure, Pins};

/// Longest chain of links between members.
const LINKS_MAX: usize = 16;

/// Where a member's bytes are.
#[derive(Clone)]
pub(super) enum Place {
    /// Part of an uncompressed archive file.
    Range {
        /// The archive.
        file: Arc<File>,
        /// First byte.
        offset: u64,
    },
    /// Kept while the stream passed.
    Memory(Arc<[u8]>),
    /// Stored while the stream passed, under this digest.
    Stored(Digest),
    /// A file of its own in a layout directory.
    File(Arc<File>),
}

/// A regular file of the archive.
#[derive(Clone)]
pub(super) struct Member {
    /// As named in the archive, cleaned.
    pub(super) name: String,
    /// Bytes.
    pub(super) size: u64,
    /// Where they are.
    pub(super) place: Place,
}

/// An opened archive.
pub(super) struct Archive {
    /// For messages: the file as the user named it.
    pub(super) name: String,
    members: HashMap<String, Member>,
    links: HashMap<String, String>,
    /// Blobs the archive has under other names, or that were made of it.
    blobs: HashMap<Digest, Member>,
    /// The layout directory itself; its members are looked up when asked for.
    dir: Option<Dir>,
    ns: Namespace,
    content: Content,
    /// Everything that is looked for in the store.
    pub(super) pins: Pins,
}

/// `./a//b/` is `a/b`; a name with `..` is none.
pub(super) fn clean(name: &str) -> Option<String> {
    let parts: Vec<&str> = name
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    (!parts.is_empty() && !parts.contains(&"..")).then(|| parts.join("/"))
}

/// The member a symbolic link in `from` means: `../x/layer.tar` in `y/layer.tar` is `x/layer.tar`.
pub(super) fn link_target(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if target.starts_with('/') {
        return None;
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    clean(&parts.join("/"))
}

impl Archive {
    /// An archive without members yet.
    pub(super) fn empty(name: String, ns: Namespace, content: Content, pins: Pins) -> Archive {
        Archive {
            name,
            members: HashMap::new(),
            links: HashMap::new(),
            blobs: HashMap::new(),
            dir: None,
            ns,
            content,
            pins,
        }
    }

    /// A layout directory.
    pub(super) fn directory(mut self, dir: Dir) -> Archive {
        self.dir = Some(dir);
        self
    }

    /// An uncompressed archive file.
    pub(super) fn file(self, file: File, length: u64) -> Result<Archive, Failure> {
        let mut archive = self;
        let found = skim::skim(&file, length).map_err(|err| archive.unreadable(&file, &err))?;
        let file = Arc::new(file);
        for entry in found {
            let Found { name, kind, .. } = entry;
            let Some(name) = clean(&name) else { continue };
            match kind {
                skim::Kind::Regular => {
                    let place = Place::Range {
                        file: Arc::clone(&file),
                        offset: entry.offset,
                    };
                    archive.add(name, entry.size, place)?;
                }
                skim::Kind::Symlink(target) => {
                    archive.link(name.clone(), link_target(&name, &target))
                }
                skim::Kind::HardLink(target) => archive.link(name, clean(&target)),
            }
        }
        Ok(archive)
    }

    fn unreadable(&self, file: &File, err: &SkimError) -> Failure {
        match err {
            SkimError::NotTar => {
                let mut head = [0; 512];
                let length = file.read_at(&mut head, 0).unwrap_or(0);
                not_an_archive(&self.name, &head[..length])
            }
            SkimError::Truncated { .. } => {
                Failure::new(ErrorKind::DataLoss, ATTEMPTED, "the archive is cut short")
                    .object("archive", &self.name)
                    .cause(err.to_string())
                    .next("fetch the archive again")
            }
            SkimError::Read { source, .. } => {
                Failure::new(ErrorKind::Internal, ATTEMPTED, "it cannot be read")
                    .object("archive", &self.name)
                    .cause(err.to_string())
                    .cause(source.to_string())
            }
            _ => Failure::new(ErrorKind::DataLoss, ATTEMPTED, "the archive is damaged")
                .object("archive", &self.name)
                .cause(err.to_string())
                .next("fetch the archive again"),
        }
    }

    /// Adds a regular file. A later one of the same name replaces it, as unpacking would, except
    /// for those that decide what the archive means.
    pub(super) fn add(&mut self, name: String, size: u64, place: Place) -> Result<(), Failure> {
        const ONCE: [&str; 4] = ["index.json", "oci-layout", "manifest.json", "repositories"];
        if ONCE.contains(&name.as_str()) && self.members.contains_key(&name) {
            let reason = format!("it has two entries {name}");
            return Err(Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, reason)
                .object("archive", &self.name));
        }
        self.links.remove(&name);
        let member = Member {
            name: name.clone(),
            size,
            place,
        };
        self.members.insert(name, member);
        Ok(())
    }

    /// Adds a link; one that leads out of the archive is left out.
    pub(super) fn link(&mut self, name: String, target: Option<String>) {
        if let Some(target) = target {
            self.members.remove(&name);
            self.links.insert(name, target);
        }
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.dir.is_none() && self.members.is_empty()
    }

    /// Names of all regular files and links, sorted; none for a layout directory.
    pub(super) fn names(&self) -> Vec<&str> {
        let keys = self.members.keys().chain(self.links.keys());
        let mut names: Vec<&str> = keys.map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Finds a member, links followed.
    pub(super) fn member(&self, name: &str) -> Result<Option<Member>, Failure> {
        let Some(mut name) = clean(name) else {
            return Ok(None);
        };
        if let Some(dir) = &self.dir {
            return self.member_of_dir(dir, name);
        }
        for _ in 0..LINKS_MAX {
            if let Some(member) = self.members.get(&name) {
                return Ok(Some(member.clone()));
            }
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Links are followed within the directory only; a device or pipe is not opened for reading.
    fn member_of_dir(&self, dir: &Dir, name: String) -> Result<Option<Member>, Failure> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match dir.open_in_root(name.as_bytes(), flags, 0) {
            Ok(fd) => File::from(fd),
            Err(err) if err.is(rustix::io::Errno::NOENT) || err.is(rustix::io::Errno::NOTDIR) => {
                return Ok(None);
            }
            Err(err) => {
                return Err(Failure::because(ATTEMPTED, "it cannot be read", &err)
                    .object("layout", &self.name));
            }
        };
        let metadata = file
            .metadata()
            .map_err(|err| self.read_failure(&name, &err))?;
        Ok(metadata.is_file().then(|| Member {
            name,
            size: metadata.len(),
            place: Place::File(Arc::new(file)),
        }))
    }

    /// The blob of a digest.
    pub(super) fn blob(&self, digest: &Digest) -> Result<Option<Member>, Failure> {
        if let Some(member) = self.blobs.get(digest) {
            return Ok(Some(member.clone()));
        }
        self.member(&format!(
            "blobs/{}/{}",
            digest.algorithm().name(),
            digest.hex()
        ))
    }

    /// A document that only the store has.
    pub(super) fn stored(&self, digest: &Digest) -> Option<Vec<u8>> {
        let limit = crate::documents::DOCUMENT_BYTES_MAX;
        self.pins.blob(&self.ns, digest);
        self.content.read_all(&self.ns, digest, limit).ok()
    }

    /// Whether the store has a blob that the archive may lack.
    pub(super) fn has_stored(&self, digest: &Digest) -> bool {
        self.pins.blob(&self.ns, digest);
        self.content.is_whole(&self.ns, digest).unwrap_or(false)
    }

    /// Makes a member known by the digest it has or claims.
    pub(super) fn alias(&mut self, digest: Digest, member: Member) {
        self.blobs.insert(digest, member);
    }

    /// Adds a document that was made of what the archive has.
    pub(super) fn keep(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::sha256(&bytes);
        let member = Member {
            name: digest.to_string(),
            size: bytes.len() as u64,
            place: Place::Memory(bytes.into()),
        };
        self.alias(digest.clone(), member);
        digest
    }

    /// Opens a member for reading from its beginning.
    pub(super) fn open(&self, member: &Member) -> Result<Box<dyn Read + Send>, Failure> {
        Ok(match &member.place {
            Place::Range { file, offset } => {
                Box::new(Part::new(Arc::clone(file), *offset..offset + member.size))
            }
            Place::File(file) => Box::new(Part::new(Arc::clone(file), 0..member.size)),
            Place::Memory(bytes) => Box::new(io::Cursor::new(Arc::clone(bytes))),
            Place::Stored(digest) => {
                let blob = self.content.open_blob(&self.ns, digest);
                Box::new(blob.map_err(|err| Failure::of("read blob", &err).object("blob", digest))?)
            }
        })
    }

    /// Reads a small member whole.
    pub(super) fn read(&self, member: &Member, limit: u64) -> Result<Vec<u8>, Failure> {
        if member.size > limit {
            let reason = format!(
                "its {} has {} bytes, more than {limit}",
                member.name, member.size
            );
            return Err(Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, reason)
                .object("archive", &self.name));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(member.size).unwrap_or(0));
        self.open(member)?
            .read_to_end(&mut bytes)
            .map_err(|err| self.read_failure(&member.name, &err))?;
        Ok(bytes)
    }

    /// Where a member is, for `where:` lines.
    pub(super) fn location(&self, member: &str) -> String {
        format!("{}, entry {member}", self.name)
    }

    fn read_failure(&self, member: &str, err: &io::Error) -> Failure {
        Failure::new(ErrorKind::Internal, ATTEMPTED, "it cannot be read")
            .object("archive", &self.name)
            .cause(err.to_string())
            .at(self.location(member))
    }
}

/// Says what the bytes are instead of an archive.
pub(super) fn not_an_archive(name: &str, head: &[u8]) -> Failure {
    let text = !head.is_empty()
        && head
            .iter()
            .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace() || *b >= 0x80);
    let what = match head {
        [] => "it is empty".to_owned(),
        [b'P', b'K', 3 | 5, ..] => {
            "first bytes are a zip file's; expected tar, gzip or zstd".to_owned()
        }
        [0x7f, b'E', b'L', b'F', ..] => {
            "first bytes are a program's; expected tar, gzip or zstd".to_owned()
        }
        _ if text => "first bytes are text; expected tar, gzip or zstd".to_owned(),
        _ => "first bytes are of no known kind; expected tar, gzip or zstd".to_owned(),
    };
    Failure::new(
        ErrorKind::InvalidArgument,
        ATTEMPTED,
        "neither an OCI nor a docker archive",
    )
    .object("archive", name)
    .cause(what)
    .next("make one: docker save -o FILE IMAGE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_the_archive() {
        for (from, target, to) in [
            ("b/layer.tar", "../a/layer.tar", Some("a/layer.tar")),
            ("x.tar", "y.tar", Some("y.tar")),
            ("b/layer.tar", "../../etc/passwd", None),
            ("b/layer.tar", "/etc/passwd", None),
        ] {
            assert_eq!(
                link_target(from, target).as_deref(),
                to,
                "{from} -> {target}"
            );
        }
        assert_eq!(
            clean("./blobs//sha256/x").as_deref(),
            Some("blobs/sha256/x")
        );
        assert_eq!(clean("../x"), None);
        assert_eq!(clean("./"), None);
    }
}
