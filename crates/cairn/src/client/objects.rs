//! Single blobs and snapshots.

use std::io;

use cairn_proto::{
    cairn::v1::{
        self, GetSnapshotRequest, ListSnapshotsRequest, RemoveBlobRequest, RemoveSnapshotRequest,
        ResolveRequest, snapshot::Kind, store_client::StoreClient,
    },
    containerd::services::content::v1::{
        Info, InfoRequest, ListContentRequest, ReadContentRequest, content_client::ContentClient,
    },
};
use cairn_types::{Digest, ErrorKind, Hasher, SnapshotKey, SnapshotKind};

use super::{Client, Result, link::client, plain, some};
use crate::{
    error::{Problem, io_reason},
    model,
};

/// The diff ID of a layer (containerd `core/unpack`).
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// For messages.
const READ: &str = "read blob";

impl Client {
    /// All blobs by digest.
    pub fn blobs(&self) -> Result<Vec<model::Blob>> {
        let mut content = client!(self.link, ContentClient<_>);
        let answer = content.list(self.link.request(ListContentRequest::default()));
        let listed = self.link.all(answer);
        let listed = listed.map_err(|problem| self.explain("list blobs", ("blob", ""), problem))?;
        let infos = listed.into_iter().flat_map(|part| part.info);
        let mut blobs: Vec<model::Blob> = infos.map(blob).collect();
        blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(blobs)
    }

    /// The whole digest that a person means.
    pub fn resolve_blob(&self, text: &str, attempted: &str) -> Result<Digest> {
        let mut store = client!(self.link, StoreClient<_>);
        let answer = store.resolve_blob(self.link.request(resolving(text, attempted)));
        let digest = self.link.wait(answer)?.into_inner().name;
        tracing::info!("{text} means {digest}");
        Digest::parse(&digest).map_err(|err| unparsed(attempted, text, &err))
    }

    /// One blob.
    pub fn blob(&self, digest: &Digest) -> Result<model::Blob> {
        self.blob_for(digest, "inspect blob")
    }

    fn blob_for(&self, digest: &Digest, attempted: &str) -> Result<model::Blob> {
        let digest = digest.to_string();
        let mut content = client!(self.link, ContentClient<_>);
        let answer = content.info(self.link.request(InfoRequest {
            digest: digest.clone(),
        }));
        let found = self.link.wait(answer);
        let found = found.map_err(|problem| self.explain(attempted, ("blob", &digest), problem))?;
        Ok(blob(found.into_inner().info.unwrap_or_default()))
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
        let size = self.blob_for(digest, READ)?.size;
        if first > 0 && first >= size {
            let reason = format!("it has only {size} bytes");
            let name = digest.to_string();
            return Err(
                Problem::new(ErrorKind::InvalidArgument, READ, &name, reason)
                    .next(format!("cairn content info {name}")),
            );
        }
        let end = last.map_or(size, |last| last.saturating_add(1).min(size));
        if end > first {
            self.copy(digest, first..end, first == 0 && end == size, out)?;
        } else if *digest != Digest::of(digest.algorithm(), b"") {
            return Err(damaged(digest, "it is empty"));
        }
        Ok(end - first)
    }

    /// Copies what is there of a range; `whole` when that must be what the digest names.
    fn copy(
        &self,
        digest: &Digest,
        range: std::ops::Range<u64>,
        whole: bool,
        out: &mut dyn io::Write,
    ) -> Result<()> {
        let name = digest.to_string();
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let request = self.link.request(ReadContentRequest {
            digest: name.clone(),
            offset: signed(range.start),
            size: signed(range.end - range.start),
        });
        let said = |status: tonic::Status| {
            let problem = self.explain(READ, ("blob", &name), self.link.problem(&status));
            match problem.kind {
                ErrorKind::DataLoss => damaged(digest, &problem.reason),
                _ => problem,
            }
        };
        self.link.run(async {
            let mut content = client!(self.link, ContentClient<_>);
            let mut answers = content.read(request).await.map_err(said)?.into_inner();
            let mut proof = whole.then(|| Hasher::new(digest.algorithm()));
            let mut left = range.end - range.start;
            while let Some(answer) = answers.message().await.map_err(said)? {
                let room = usize::try_from(left).unwrap_or(usize::MAX);
                let data = &answer.data[..answer.data.len().min(room)];
                left -= data.len() as u64;
                if let Some(hasher) = &mut proof {
                    hasher.update(data);
                }
                // The bytes that would complete a damaged blob are kept back, as everywhere.
                if left == 0
                    && let Some(actual) = proof.take().map(Hasher::finish)
                    && actual != *digest
                {
                    return Err(damaged(digest, &format!("its bytes hash to {actual}")));
                }
                out.write_all(data).map_err(|err| unwritten(&name, &err))?;
            }
            match left {
                0 => Ok(()),
                left => Err(damaged(
                    digest,
                    &format!("its last {left} bytes are missing"),
                )),
            }
        })
    }

    /// One blob less, whoever refers to it.
    pub fn remove_blob(&self, digest: &Digest) -> Result<()> {
        let mut store = client!(self.link, StoreClient<_>);
        let digest = digest.to_string();
        let answer = store.remove_blob(self.link.request(RemoveBlobRequest { digest }));
        self.link.wait(answer).map(|_| ())
    }

    /// All snapshots by key.
    pub fn snapshots(&self) -> Result<Vec<model::Snapshot>> {
        let mut store = client!(self.link, StoreClient<_>);
        let answer = store.list_snapshots(self.link.request(ListSnapshotsRequest {}));
        let listed = self.link.all(answer)?.into_iter();
        Ok(listed
            .flat_map(|part| part.snapshots)
            .map(snapshot)
            .collect())
    }

    /// The snapshot that a person means.
    pub fn resolve_snapshot(&self, text: &str, attempted: &str) -> Result<SnapshotKey> {
        let mut store = client!(self.link, StoreClient<_>);
        let answer = store.resolve_snapshot(self.link.request(resolving(text, attempted)));
        let key = self.link.wait(answer)?.into_inner().name;
        tracing::info!("{text} means {key}");
        SnapshotKey::parse(&key).map_err(|err| unparsed(attempted, text, &err))
    }

    /// One snapshot.
    pub fn snapshot(&self, key: &SnapshotKey) -> Result<model::Snapshot> {
        let mut store = client!(self.link, StoreClient<_>);
        let key = key.to_string();
        let answer = store.get_snapshot(self.link.request(GetSnapshotRequest { key }));
        let found = self.link.wait(answer)?.into_inner().snapshot;
        Ok(snapshot(found.unwrap_or_default()))
    }

    /// One snapshot less, with what stands on it when `recursive`. Returns all that went.
    pub fn remove_snapshot(&self, key: &SnapshotKey, recursive: bool) -> Result<Vec<String>> {
        self.check_mounts(key, recursive)?;
        let mut store = client!(self.link, StoreClient<_>);
        let answer = store.remove_snapshot(self.link.request(RemoveSnapshotRequest {
            key: key.to_string(),
            recursive,
        }));
        Ok(self.link.wait(answer)?.into_inner().keys)
    }
}

fn resolving(text: &str, attempted: &str) -> ResolveRequest {
    ResolveRequest {
        text: text.to_owned(),
        attempted: attempted.to_owned(),
    }
}

pub(super) fn unparsed(attempted: &str, text: &str, err: &dyn std::error::Error) -> Problem {
    let reason = "the server's answer makes no sense";
    Problem::new(ErrorKind::Internal, attempted, text, reason).cause(err.to_string())
}

fn damaged(digest: &Digest, cause: &str) -> Problem {
    Problem::new(
        ErrorKind::DataLoss,
        READ,
        &digest.to_string(),
        "it is damaged",
    )
    .cause(format!("blob {digest} is damaged: {cause}"))
    .next("import its image again")
}

fn unwritten(name: &str, err: &io::Error) -> Problem {
    let kind = match err.kind() {
        io::ErrorKind::StorageFull => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Internal,
    };
    Problem::new(kind, READ, name, "its copy cannot be written").cause(io_reason(err))
}

fn blob(info: Info) -> model::Blob {
    model::Blob {
        digest: info.digest,
        size: plain::count(info.size),
        uncompressed: info.labels.get(UNCOMPRESSED).cloned(),
        labels: info.labels,
        created_at: plain::time(info.created_at),
        updated_at: plain::time(info.updated_at),
    }
}

fn snapshot(wire: v1::Snapshot) -> model::Snapshot {
    model::Snapshot {
        kind: match wire.kind() {
            Kind::View => SnapshotKind::View,
            Kind::Active => SnapshotKind::Active,
            Kind::Committed | Kind::Unspecified => SnapshotKind::Committed,
        },
        key: wire.key,
        parent: some(wire.parent),
        size: wire.bytes,
        inodes: wire.inodes,
        durable: wire.durable,
        labels: wire.labels,
        created_at: plain::time(wire.created_at),
        updated_at: plain::time(wire.updated_at),
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
