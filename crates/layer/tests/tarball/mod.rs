//! Tars written block by block, and entries shown as text.
#![allow(
    dead_code,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation
)]

use std::io::BufReader;

use cairn_layer::tar::{Entry, EntryKind, Limits, Reader, TarError};
use cairn_types::{Classified, ErrorKind};

/// A header under construction.
#[derive(Clone)]
pub struct Header(pub [u8; 512]);

/// A ustar header of a file.
pub fn header(flag: u8, name: &str, size: u64) -> Header {
    let mut header = Header([0; 512]);
    let name = name.as_bytes();
    header
        .put(0, &name[..name.len().min(100)])
        .put(100, b"0000644\0")
        .put(108, b"0000000\0")
        .put(116, b"0000000\0")
        .put(124, format!("{size:011o}\0").as_bytes())
        .put(136, b"00000000000\0")
        .put(156, &[flag])
        .put(257, b"ustar\x0000");
    header
}

pub fn gnu(flag: u8, name: &str, size: u64) -> Header {
    let mut header = header(flag, name, size);
    header.put(257, b"ustar  \0");
    header
}

impl Header {
    pub fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Header {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn with(mut self, at: usize, bytes: &[u8]) -> Header {
        self.put(at, bytes);
        self
    }

    /// The block with the checksum that belongs to it.
    pub fn sealed(mut self) -> [u8; 512] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|b| u32::from(*b)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

pub fn tar() -> Tar {
    Tar::default()
}

impl Tar {
    pub fn raw(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Data and its padding.
    pub fn data(mut self, data: &[u8]) -> Tar {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn head(self, header: Header) -> Tar {
        self.raw(&header.sealed())
    }

    pub fn file(self, name: &str, data: &[u8]) -> Tar {
        self.head(header(b'0', name, data.len() as u64)).data(data)
    }

    /// An extension header with a body.
    pub fn ext(self, flag: u8, body: &[u8]) -> Tar {
        self.head(gnu(flag, "ext", body.len() as u64)).data(body)
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        self.ext(b'x', &pax_body(records))
    }

    pub fn global(self, records: &[(&str, &[u8])]) -> Tar {
        self.ext(b'g', &pax_body(records))
    }

    pub fn end(self) -> Tar {
        self.raw(&[0; 1024])
    }
}

pub fn pax_body(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len.to_string().len() + rest != len {
            len += 1;
        }
        body.extend_from_slice(format!("{len} {key}=").as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}

/// An entry with its stored bytes.
pub type Read = (Entry, Vec<u8>);

/// Reads everything through a buffer that is never aligned with a block.
pub fn read_with(bytes: &[u8], limits: Limits) -> Result<(Vec<Read>, u64), TarError> {
    let mut reader = Reader::new(BufReader::with_capacity(97, bytes), limits);
    let mut all = Vec::new();
    while let Some(entry) = reader.next()? {
        let mut data = Vec::new();
        loop {
            let bytes = reader.data()?;
            if bytes.is_empty() {
                break;
            }
            let n = bytes.len().min(61);
            data.extend_from_slice(&bytes[..n]);
            reader.consume(n);
        }
        all.push((entry, data));
    }
    let total = reader.finish()?;
    Ok((all, total))
}

pub fn read(bytes: &[u8]) -> Result<Vec<Read>, TarError> {
    let (all, total) = read_with(bytes, Limits::default())?;
    assert_eq!(
        total,
        bytes.len() as u64,
        "every byte belongs to the stream"
    );
    Ok(all)
}

/// A file's contents, holes and all.
pub fn contents((entry, data): &Read) -> Vec<u8> {
    let Some(segments) = &entry.sparse else {
        return data.clone();
    };
    let mut whole = vec![0; entry.size as usize];
    let mut rest = &data[..];
    for segment in segments {
        let (bytes, after) = rest.split_at(segment.len as usize);
        whole[segment.offset as usize..][..bytes.len()].copy_from_slice(bytes);
        rest = after;
    }
    assert!(rest.is_empty(), "stored bytes beyond the map");
    whole
}

pub fn kind_letter(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Regular => "file",
        EntryKind::Directory => "dir",
        EntryKind::Symlink => "symlink",
        EntryKind::HardLink => "link",
        EntryKind::CharDevice { .. } => "char",
        EntryKind::BlockDevice { .. } => "block",
        EntryKind::Fifo => "fifo",
    }
}

/// An error with its causes, on one line.
pub fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Expects an archive to be refused as a fault of whoever made it, with this among the reasons.
#[track_caller]
pub fn refused(tar: &Tar, reason: &str) {
    let err = read(&tar.0).expect_err("must be refused");
    let text = chain(&err);
    assert!(text.contains(reason), "{text}");
    assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{text}");
}

/// Expects an archive to ask for more than these limits give.
#[track_caller]
pub fn over_limit(tar: &Tar, limits: Limits) {
    let err = read_with(&tar.0, limits).expect_err("must be refused");
    assert_eq!(err.kind(), ErrorKind::ResourceExhausted, "{err}");
}

/// Names and data, "name=data", of an archive that is read.
#[track_caller]
pub fn check(tar: &Tar, expected: &[&str]) {
    let entries = read(&tar.0).expect("a valid archive");
    let shown: Vec<String> = entries
        .iter()
        .map(|(entry, data)| {
            let data = String::from_utf8_lossy(&data[..data.len().min(8)]);
            format!("{}={data}", entry.path.escape_ascii())
        })
        .collect();
    assert_eq!(shown, expected);
}
