//! Tars written block by block, for what no library writes: old formats, odd numbers, wrong ends.
//!
//! Offsets are those of POSIX `pax`, "ustar Interchange Format", and of the GNU tar manual, "Basic
//! Tar Format".

use crate::image::MTIME;

/// A header block under construction. Owner is 0:0 and the time [`MTIME`] unless told otherwise.
#[derive(Clone)]
pub struct Header([u8; 512]);

impl Header {
    /// A POSIX ustar header; `flag` is the type. A name over 100 bytes is cut.
    pub fn ustar(flag: u8, name: &[u8], size: u64) -> Header {
        Header([0; 512])
            .put(0, &name[..name.len().min(100)])
            .mode(if flag == b'5' { 0o755 } else { 0o644 })
            .put(108, b"0000000\x000000000\0")
            .put(124, format!("{size:011o}\0").as_bytes())
            .put(136, format!("{MTIME:011o}\0").as_bytes())
            .put(156, &[flag])
            .put(257, b"ustar\x0000")
    }

    /// A GNU header.
    pub fn gnu(flag: u8, name: &[u8], size: u64) -> Header {
        Header::ustar(flag, name, size).put(257, b"ustar  \0")
    }

    /// A header from before POSIX, without magic.
    pub fn v7(flag: u8, name: &[u8], size: u64) -> Header {
        Header::ustar(flag, name, size).put(257, &[0; 8])
    }

    /// Bytes at an offset.
    #[must_use]
    pub fn put(mut self, at: usize, bytes: &[u8]) -> Header {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The permission bits.
    #[must_use]
    pub fn mode(self, mode: u32) -> Header {
        self.put(100, format!("{mode:07o}\0").as_bytes())
    }

    /// The target of a link.
    #[must_use]
    pub fn link(self, target: &[u8]) -> Header {
        self.put(157, target)
    }

    /// Major and minor number.
    #[must_use]
    pub fn device(self, major: u32, minor: u32) -> Header {
        self.put(329, format!("{major:07o}\0{minor:07o}\0").as_bytes())
    }

    fn sealed(self) -> [u8; 512] {
        let block = self.put(148, b"        ");
        let sum: u32 = block.0.iter().map(|byte| u32::from(*byte)).sum();
        block.put(148, format!("{sum:06o}\0 ").as_bytes()).0
    }
}

/// A tar that grows block by block.
#[derive(Clone, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    /// Nothing yet.
    pub fn empty() -> Tar {
        Tar::default()
    }

    /// Begins with a plain root directory, so that its time does not depend on who unpacks.
    pub fn new() -> Tar {
        Tar::empty().head(Header::ustar(b'5', b"./", 0))
    }

    /// Where the next header will be.
    pub fn offset(&self) -> usize {
        self.0.len()
    }

    /// Bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A header with its checksum.
    #[must_use]
    pub fn head(self, header: Header) -> Tar {
        self.raw(&header.sealed())
    }

    /// Data and its padding.
    #[must_use]
    pub fn data(mut self, data: &[u8]) -> Tar {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A ustar file.
    #[must_use]
    pub fn file(self, name: &str, data: &[u8]) -> Tar {
        self.head(Header::ustar(b'0', name.as_bytes(), data.len() as u64))
            .data(data)
    }

    /// A ustar directory.
    #[must_use]
    pub fn dir(self, name: &str) -> Tar {
        self.head(Header::ustar(b'5', name.as_bytes(), 0))
    }

    /// A ustar symbolic (`2`) or hard (`1`) link.
    #[must_use]
    pub fn link(self, flag: u8, name: &str, target: &str) -> Tar {
        self.head(Header::ustar(flag, name.as_bytes(), 0).link(target.as_bytes()))
    }

    /// A GNU header of type `L` or `K` with a name.
    #[must_use]
    pub fn long(self, flag: u8, name: &[u8]) -> Tar {
        let body = [name, b"\0"].concat();
        self.head(Header::gnu(flag, b"././@LongLink", body.len() as u64))
            .data(&body)
    }

    /// A PAX header for the next entry.
    #[must_use]
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        self.extended(b'x', &records_of(records))
    }

    /// A global PAX header.
    #[must_use]
    pub fn global(self, records: &[(&str, &[u8])]) -> Tar {
        self.extended(b'g', &records_of(records))
    }

    /// A PAX header with a body of one's own.
    #[must_use]
    pub fn extended(self, flag: u8, body: &[u8]) -> Tar {
        self.head(Header::ustar(flag, b"PaxHeaders/x", body.len() as u64))
            .data(body)
    }

    /// The whole tar with its two zero blocks.
    pub fn finish(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }

    /// The whole tar without an end.
    pub fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

/// The body of a PAX header: records of the form `"%d %s=%s\n"`, whose length counts the whole record,
/// its own digits and the newline included (POSIX `pax`, "pax Extended Header").
pub fn records_of(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length.to_string().len() + rest != length {
            length += 1;
        }
        body.extend_from_slice(format!("{length} {key}=").as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}
