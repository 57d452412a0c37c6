//! Layers of which parts can be had: a gzip member or zstd frame for each file, a table of contents, and a
//! footer that says where the table is. Whoever knows none of it sees a gzip, or a zstd.
//!
//! eStargz is that of stargz-snapshotter's `docs/estargz.md`; zstd:chunked keeps its table in a skippable
//! frame (RFC 8878, 3.1.2) that the descriptor's annotations lead to, as containers/storage writes it.

use std::io::Write;

use flate2::{Compression, GzBuilder, write::GzEncoder};
use serde_json::{Value, json};

use super::Repository;
use crate::image::{MTIME, Stored, architecture, digest};
use crate::raw::{Header, Tar};

/// Name of the entry that is about the layer and not of it.
const TOC: &str = "stargz.index.json";

impl Repository<'_> {
    /// One layer, `zstd-chunked`.
    pub fn zstd_chunked(&self) -> Value {
        let (layer, annotations) = chunked(&[("etc/name", b"chunked\n"), ("etc/other", b"")]);
        let mut manifest = self.image(architecture(), &[layer]);
        manifest["layers"][0]["annotations"] = annotations;
        self.tag("zstd-chunked", &manifest)
    }

    /// One layer, `estargz`.
    pub fn estargz(&self) -> Value {
        let layer = layer(&[("etc/name", b"starred\n"), ("etc/other", b"")]);
        self.tag("estargz", &self.image(architecture(), &[layer]))
    }
}

fn layer(files: &[(&str, &[u8])]) -> Stored {
    let (mut tar, mut packed, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    let mut member = |bytes: Vec<u8>, packed: &mut Vec<u8>| {
        packed.extend(gzip(&bytes));
        tar.extend(bytes);
    };
    let dir = Tar::empty().dir("etc/").unfinished();
    entries.push(json!({ "name": "etc/", "type": "dir", "modtime": TIME, "mode": 0o755 }));
    member(dir, &mut packed);
    for (name, data) in files {
        let offset = packed.len();
        entries.push(json!({
            "name": name, "type": "reg", "size": data.len(), "modtime": TIME, "mode": 0o644,
            "offset": offset, "digest": digest(data), "chunkDigest": digest(data),
        }));
        let header = Header::ustar(b'0', name.as_bytes(), data.len() as u64);
        member(
            Tar::empty().head(header).data(data).unfinished(),
            &mut packed,
        );
    }
    let table = json!({ "version": 1, "entries": entries }).to_string();
    let at = packed.len();
    member(
        Tar::empty().file(TOC, table.as_bytes()).finish(),
        &mut packed,
    );
    packed.extend(footer(at));
    Stored::of("application/vnd.oci.image.layer.v1.tar+gzip", packed, &tar)
}

/// [`MTIME`].
const TIME: &str = "2020-09-13T12:26:40Z";
const _: () = assert!(MTIME == 1_600_000_000);

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

/// An empty member whose extra field `SG` has the place of the table in 16 hexadecimal digits; 51 bytes.
fn footer(at: usize) -> Vec<u8> {
    let place = format!("{at:016x}STARGZ");
    let mut extra = b"SG".to_vec();
    extra.extend(u16::try_from(place.len()).expect("short").to_le_bytes());
    extra.extend(place.as_bytes());
    let encoder = GzBuilder::new()
        .extra(extra)
        .write(Vec::new(), Compression::none());
    encoder.finish().expect("gzip")
}

/// A layer, and the annotations of its descriptor.
fn chunked(files: &[(&str, &[u8])]) -> (Stored, Value) {
    let mut tar = Tar::empty().dir("etc/").unfinished();
    let mut packed = frame(&tar);
    let mut entries = vec![json!({ "type": "dir", "name": "etc/", "mode": 0o755 })];
    for (name, data) in files {
        let part = Tar::empty().file(name, data).unfinished();
        let offset = packed.len();
        packed.extend(frame(&part));
        entries.push(json!({
            "type": "reg", "name": name, "mode": 0o644, "size": data.len(),
            "digest": digest(data), "offset": offset, "endOffset": packed.len(),
        }));
        tar.extend(part);
    }
    let end = Tar::empty().finish();
    packed.extend(frame(&end));
    tar.extend(end);
    let table = json!({ "version": 1, "entries": entries }).to_string();
    let small = frame(table.as_bytes());
    // The frame's own head comes before.
    let at = packed.len() + 8;
    packed.extend(skippable(&small));
    let annotations = json!({
        "io.github.containers.zstd-chunked.manifest-checksum": digest(&small),
        "io.github.containers.zstd-chunked.manifest-position":
            format!("{at}:{}:{}:1", small.len(), table.len()),
    });
    let numbers = [at, small.len(), table.len(), 1].map(|number| (number as u64).to_le_bytes());
    packed.extend(skippable(&[&numbers.concat()[..], b"GNUlInUx"].concat()));
    let kind = "application/vnd.oci.image.layer.v1.tar+zstd";
    (Stored::of(kind, packed, &tar), annotations)
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).expect("zstd")
}

fn skippable(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("short").to_le_bytes();
    [&0x184D_2A50_u32.to_le_bytes()[..], &length, bytes].concat()
}
