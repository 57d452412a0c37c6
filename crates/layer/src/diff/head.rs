//! One entry's header, byte for byte as Go's `archive/tar` writes it for containerd.
//!
//! That is USTAR where it suffices, and a PAX extended header before it where a name is long or not
//! ASCII, a number does not fit its field, or there are extended attributes. Owner names stay empty:
//! they would be those of this machine.

use std::collections::BTreeMap;

/// Of every header and of padding.
pub(super) const BLOCK_BYTES: usize = 512;

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
const FIFO: u8 = b'6';

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// An entry without its data.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// Relative to the root, without slashes at its ends; empty for the root.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Permissions and the three bits above them.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    /// Bytes of a regular file.
    pub(super) size: u64,
    /// Target of a link.
    pub(super) link: Vec<u8>,
    /// Major and minor number.
    pub(super) device: (u32, u32),
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Head {
    /// An empty file of mode 0 and of 1970: what a mark looks like.
    pub(super) fn mark(path: Vec<u8>) -> Head {
        Head {
            path,
            kind: Kind::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: 0,
            link: Vec::new(),
            device: (0, 0),
            xattrs: BTreeMap::new(),
        }
    }

    /// The same file under another name. Its attributes are repeated: whoever unpacks may change the
    /// owner once more, which costs a file its capabilities.
    pub(super) fn linked(&self, path: Vec<u8>, target: &[u8]) -> Head {
        Head {
            path,
            kind: Kind::HardLink,
            size: 0,
            link: target.to_vec(),
            ..self.clone()
        }
    }

    /// Appends the headers to `out`: whole blocks.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let name = self.name();
        let split = split_name(&name);
        let records = self.records(&name);
        let fits = match (&split, records.len()) {
            (_, 0) => true,
            // The two parts of a long name are what USTAR has the prefix for.
            (Some(_), 1) => records.contains_key(&b"path"[..]),
            _ => false,
        };
        if fits {
            let (prefix, name) = split.unwrap_or((b"", &name));
            out.extend_from_slice(&self.block(prefix, name, &self.link));
            return;
        }
        let mut data = Vec::new();
        for (key, value) in &records {
            record(key, value, &mut data);
        }
        out.extend_from_slice(&extension(&name, data.len()));
        out.extend_from_slice(&data);
        pad(out);
        out.extend_from_slice(&self.block(b"", &ascii(&name), &ascii(&self.link)));
    }

    fn name(&self) -> Vec<u8> {
        let mut name = match self.path.is_empty() {
            true => b".".to_vec(),
            false => self.path.clone(),
        };
        if self.kind == Kind::Directory {
            name.push(b'/');
        }
        name
    }

    /// What the fields of the plain header cannot hold.
    fn records(&self, name: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut records = BTreeMap::new();
        for (key, text) in [("path", name), ("linkpath", &self.link)] {
            if text.len() > NAME_BYTES || !text.is_ascii() {
                records.insert(key.as_bytes().to_vec(), text.to_vec());
            }
        }
        let numbers = [
            ("uid", i128::from(self.uid), 8),
            ("gid", i128::from(self.gid), 8),
            ("size", i128::from(self.size), 12),
            ("mtime", i128::from(self.mtime), 12),
        ];
        for (key, number, width) in numbers {
            if !fits_octal(number, width) {
                records.insert(key.as_bytes().to_vec(), number.to_string().into_bytes());
            }
        }
        for (key, value) in &self.xattrs {
            let key = [b"SCHILY.xattr.", &key[..]].concat();
            records.insert(key, value.clone());
        }
        records
    }

    fn block(&self, prefix: &[u8], name: &[u8], link: &[u8]) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        text(&mut block[..NAME_BYTES], name);
        octal(&mut block[100..108], i128::from(self.mode));
        octal(&mut block[108..116], i128::from(self.uid));
        octal(&mut block[116..124], i128::from(self.gid));
        octal(&mut block[124..136], i128::from(self.size));
        octal(&mut block[136..148], i128::from(self.mtime));
        block[156] = match self.kind {
            Kind::Regular => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::CharDevice => b'3',
            Kind::BlockDevice => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => FIFO,
        };
        text(&mut block[157..257], link);
        octal(&mut block[329..337], i128::from(self.device.0));
        octal(&mut block[337..345], i128::from(self.device.1));
        text(&mut block[345..500], prefix);
        seal(&mut block);
        block
    }
}

/// The header before the records of an extended header.
fn extension(name: &[u8], records: usize) -> [u8; BLOCK_BYTES] {
    let (dir, file) = match name.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => (&b""[..], name),
    };
    let parts = [dir, b"PaxHeaders.0", file];
    let parts: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let mut name = ascii(&parts.join(&b'/'));
    name.truncate(NAME_BYTES);
    while name.last() == Some(&b'/') {
        name.pop();
    }
    let mut block = [0; BLOCK_BYTES];
    text(&mut block[..NAME_BYTES], &name);
    for field in [100..108, 108..116, 116..124, 136..148] {
        octal(&mut block[field], 0);
    }
    octal(&mut block[124..136], records as i128);
    block[156] = b'x';
    seal(&mut block);
    block
}

/// Magic, version and checksum.
fn seal(block: &mut [u8; BLOCK_BYTES]) {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    octal(&mut block[148..155], i128::from(sum));
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    // Blank, equals sign and line feed.
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Fills up the last block with zeros.
pub(super) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
}

/// A long name in two at a slash, as USTAR can hold it.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME_BYTES || !name.is_ascii() {
        return None;
    }
    let end = match name.len() {
        long if long > PREFIX_BYTES + 1 => PREFIX_BYTES + 1,
        all if name.ends_with(b"/") => all - 1,
        all => all,
    };
    let slash = name[..end].iter().rposition(|b| *b == b'/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    let fits = !prefix.is_empty() && !rest.is_empty() && rest.len() <= NAME_BYTES;
    fits.then_some((prefix, rest))
}

fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}

/// What does not fit is in a record, and cut here for readers that know none.
fn text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    if text.len() > length && field.ends_with(b"/") {
        // Some take a name that ends in a slash for a directory's whatever its type.
        let kept = field
            .iter()
            .rposition(|b| *b != b'/')
            .map_or(0, |at| at + 1);
        field[kept..].fill(0);
    }
}

fn fits_octal(number: i128, width: usize) -> bool {
    number >= 0 && number < 1 << (3 * (width - 1))
}

/// Leading zeros, and a NUL at the end. What does not fit is in a record, and 0 here.
fn octal(field: &mut [u8], number: i128) {
    let number = match fits_octal(number, field.len()) {
        true => number,
        false => 0,
    };
    let digits = field.len() - 1;
    field[..digits].copy_from_slice(format!("{number:0digits$o}").as_bytes());
    field[digits] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{EntryKind, Limits, Reader};

    fn read(head: &Head) -> (usize, crate::tar::Entry) {
        let mut bytes = Vec::new();
        head.encode(&mut bytes);
        let blocks = bytes.len() / BLOCK_BYTES;
        bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
        let mut reader = Reader::new(&bytes[..], Limits::default());
        (blocks, reader.next().expect("a tar").expect("an entry"))
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut head = Head::mark(b"d/f".to_vec());
        assert_eq!(read(&head).0, 1, "plain");
        head.path = [&[b'p'; 120][..], b"/", &[b'n'; 90]].concat();
        let (blocks, entry) = read(&head);
        assert_eq!((blocks, entry.path), (1, head.path.clone()), "split");
        head.path = vec![b'n'; 150];
        let (blocks, entry) = read(&head);
        assert_eq!((blocks, entry.path), (3, head.path.clone()), "long");
        head.path = b"\xff\xc3\xa9".to_vec();
        assert_eq!(read(&head).1.path, head.path, "not even UTF-8");
        (head.uid, head.gid, head.mtime) = (u32::MAX - 1, 1 << 21, -5);
        head.xattrs.insert(b"user.x".to_vec(), b"a\0\n= b".to_vec());
        let entry = read(&head).1;
        assert_eq!((entry.uid, entry.gid), (head.uid, head.gid));
        assert_eq!(entry.mtime.secs, -5);
        assert_eq!(entry.xattrs, [(b"user.x".to_vec(), b"a\0\n= b".to_vec())]);
    }

    #[test]
    fn directories_end_in_a_slash() {
        let mut head = Head::mark(Vec::new());
        head.kind = Kind::Directory;
        assert_eq!(read(&head).1.path, b"./");
        head.path = vec![b'd'; 100];
        let (_, entry) = read(&head);
        assert_eq!(entry.path, [&head.path[..], b"/"].concat());
        assert_eq!(entry.kind, EntryKind::Directory);
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for value in [0, 1, 89, 90, 91, 92, 985, 986, 987, 988] {
            let mut out = Vec::new();
            record(b"path", &vec![b'v'; value], &mut out);
            let length = out.split(|b| *b == b' ').next().expect("a length");
            assert_eq!(length, out.len().to_string().as_bytes());
        }
    }
}
