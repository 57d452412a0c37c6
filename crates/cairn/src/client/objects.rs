//! Single blobs and snapshots.

use std::io;

use cairn_node::{BlobInfo, Failure, SnapshotInfo};
use cairn_types::{Classified, Digest, ErrorKind, SnapshotKey, SnapshotKind};

use super::{Client, Result, moment};
use crate::{error::Problem, model};

/// The diff ID of a layer (containerd `core/unpack`).
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// Bytes of a blob that are read at a time.
const CHUNK: usize = 1 << 18;

impl Client {
    fn about(&self, attempted: &str, kind: &str, name: &str, err: &dyn Classified) -> Problem {
        let failure = Failure::of(attempted, err).object(kind, name);
        failure.namespace(&self.ns).into()
    }

    /// All blobs by digest.
    pub fn blobs(&self) -> Result<Vec<model::Blob>> {
        let listed = self.node.content().list(&self.ns);
        let listed = listed.map_err(|err| Failure::of("list blobs", &err).namespace(&self.ns))?;
        Ok(listed.into_iter().map(blob).collect())
    }

    /// The whole digest that a person means.
    pub fn resolve_blob(&self, text: &str, attempted: &str) -> Result<Digest> {
        let digest = self.node.resolve_digest(&self.ns, text, attempted)?;
        tracing::info!("{text} means {digest}");
        Ok(digest)
    }

    /// One blob.
    pub fn blob(&self, digest: &Digest) -> Result<model::Blob> {
        let found = self.node.content().info(&self.ns, digest);
        found
            .map(blob)
            .map_err(|err| self.about("inspect blob", "blob", &digest.to_string(), &err))
    }

    /// All of its bytes are text that a terminal can show.
    pub fn is_text(&self, digest: &Digest) -> Result<bool> {
        let mut probe = TextProbe::default();
        match self.copy_blob(digest, 0, None, &mut probe) {
            Ok(_) => Ok(probe.carried.is_empty()),
            Err(_) if probe.refused => Ok(false),
            Err(problem) => Err(problem),
        }
    }

    /// Writes a blob's bytes from `first` to `last`, which is included, and says how many they
    /// were. A whole blob is proven on the way.
    pub fn copy_blob(
        &self,
        digest: &Digest,
        first: u64,
        last: Option<u64>,
        out: &mut dyn io::Write,
    ) -> Result<u64> {
        let attempted = "read blob";
        let name = digest.to_string();
        let mut source = self
            .node
            .content()
            .open_blob(&self.ns, digest)
            .map_err(|err| self.about(attempted, "blob", &name, &err))?;
        let problem = |kind, reason: &str| Problem::new(kind, attempted, &name, reason);
        if first > 0 && first >= source.size() {
            let reason = format!("it has only {} bytes", source.size());
            return Err(problem(ErrorKind::InvalidArgument, &reason)
                .next(format!("cairn content info {name}")));
        }
        let size = source.size();
        let end = last.map_or(size, |last| last.saturating_add(1).min(size));
        let whole = first == 0 && end == source.size();
        let mut buffer = vec![0; CHUNK];
        let mut at = first;
        loop {
            let room = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let got = match whole {
                // Even at the end: the last read proves an empty blob, too.
                true => io::Read::read(&mut source, &mut buffer),
                false => source.read_at(&mut buffer[..room], at),
            };
            let got = match got {
                Ok(0) => return Ok(at - first),
                Ok(got) => got,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                    let next = "import its image again";
                    return Err(problem(ErrorKind::DataLoss, "it is damaged")
                        .cause(err.to_string())
                        .next(next));
                }
                Err(err) => return Err(problem(ErrorKind::Internal, &err.to_string())),
            };
            if let Err(err) = out.write_all(&buffer[..got]) {
                let kind = match err.kind() {
                    io::ErrorKind::StorageFull => ErrorKind::ResourceExhausted,
                    _ => ErrorKind::Internal,
                };
                return Err(problem(kind, "its copy cannot be written").cause(err.to_string()));
            }
            at += got as u64;
        }
    }

    /// One blob less, whoever refers to it.
    pub fn remove_blob(&self, digest: &Digest) -> Result<()> {
        Ok(self.node.remove_blob(&self.ns, digest)?)
    }

    /// All snapshots by key.
    pub fn snapshots(&self) -> Result<Vec<model::Snapshot>> {
        let listed = self.node.snapshots().list(&self.ns);
        let listed =
            listed.map_err(|err| Failure::of("list snapshots", &err).namespace(&self.ns))?;
        Ok(listed.into_iter().map(|info| self.measured(info)).collect())
    }

    /// The snapshot that a person means.
    pub fn resolve_snapshot(&self, text: &str, attempted: &str) -> Result<SnapshotKey> {
        let key = self.node.resolve_snapshot(&self.ns, text, attempted)?;
        tracing::info!("{text} means {key}");
        Ok(key)
    }

    /// One snapshot.
    pub fn snapshot(&self, key: &SnapshotKey) -> Result<model::Snapshot> {
        let found = self.node.snapshots().stat(&self.ns, key);
        found
            .map(|info| self.measured(info))
            .map_err(|err| self.about("inspect snapshot", "snapshot", key.as_str(), &err))
    }

    /// One snapshot less, with what stands on it when `recursive`. Returns all that went.
    pub fn remove_snapshot(&self, key: &SnapshotKey, recursive: bool) -> Result<Vec<String>> {
        let gone = self.node.remove_snapshot(&self.ns, key, recursive)?;
        Ok(gone.iter().map(ToString::to_string).collect())
    }

    /// An active snapshot is measured now; when that fails its size is unknown, and the listing
    /// goes on.
    fn measured(&self, info: SnapshotInfo) -> model::Snapshot {
        let usage = match info.kind {
            SnapshotKind::Committed => Some(info.usage),
            _ => self.node.snapshots().usage(&self.ns, &info.key).ok(),
        };
        model::Snapshot {
            key: info.key.to_string(),
            parent: info.parent.map(|parent| parent.to_string()),
            kind: info.kind,
            size: usage.map(|usage| usage.bytes),
            inodes: usage.map(|usage| usage.inodes),
            durable: info.durable,
            labels: info.labels,
            created_at: model::Time(moment(info.created_at.0)),
            updated_at: model::Time(moment(info.updated_at.0)),
        }
    }
}

fn blob(info: BlobInfo) -> model::Blob {
    model::Blob {
        digest: info.digest.to_string(),
        size: info.size,
        uncompressed: info.labels.get(UNCOMPRESSED).cloned(),
        labels: info.labels,
        created_at: model::Time(moment(info.created_at.0)),
        updated_at: model::Time(moment(info.updated_at.0)),
    }
}

/// Takes what is written while it is text.
#[derive(Default)]
struct TextProbe {
    /// The beginning of a character whose end has not come yet.
    carried: Vec<u8>,
    refused: bool,
}

impl io::Write for TextProbe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.carried.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.carried) {
            Ok(text) => text.len(),
            Err(err) if err.error_len().is_some() => 0,
            Err(err) => err.valid_up_to(),
        };
        let text = std::str::from_utf8(&self.carried[..whole]).unwrap_or_default();
        let plain = text
            .chars()
            .all(|c| !c.is_control() || "\t\n\r".contains(c));
        self.carried.drain(..whole);
        // More than the beginning of a character is left over only where it is none.
        self.refused = !plain || self.carried.len() > 3;
        match self.refused {
            true => Err(io::ErrorKind::InvalidData.into()),
            false => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use io::Write;

    use super::*;

    #[test]
    fn text_is_what_a_terminal_can_show() {
        let check = |parts: &[&[u8]]| {
            let mut probe = TextProbe::default();
            let taken = parts.iter().all(|part| probe.write_all(part).is_ok());
            taken && probe.carried.is_empty()
        };
        assert!(check(&[b"{\n\t\"a\": 1}\r\n"]));
        assert!(check(&["\u{e9}".as_bytes()]));
        assert!(check(&[b"\xc3", b"\xa9"]), "a character in two parts");
        assert!(!check(&[b"\xc3"]), "half a character");
        assert!(!check(&[b"\x1f\x8b\x08\x00"]));
        assert!(!check(&[b"ab\x1b[2J"]));
        assert!(!check(&[b"\xff\xff\xff\xff"]));
    }
}
