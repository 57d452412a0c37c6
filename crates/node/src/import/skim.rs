//! Finding the files of an uncompressed archive by seeking from header to header, so that a layer
//! can later be read straight from where it lies.
//!
//! Only what an outer archive needs: names, sizes, links. The strict reader for layers is
//! `cairn_layer::tar`; this one skips what it does not understand, because whatever it finds is
//! verified by digest before it is believed.

use std::{fs::File, os::unix::fs::FileExt};

/// One header block.
const BLOCK: u64 = 512;
/// Most bytes of one long name or PAX header in an outer archive.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Most entries of an outer archive. A `docker save` of 500 images with 100 layers has 150,000.
pub(super) const ENTRIES_MAX: usize = 1_000_000;

/// What an entry is to an importer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its bytes lie at `offset`.
    Regular,
    /// Stands for another entry, by a name relative to its own directory.
    Symlink(String),
    /// Stands for another entry, by that one's whole name.
    HardLink(String),
}

/// A regular file or link of the archive.
#[derive(Debug)]
pub(super) struct Found {
    /// As written.
    pub(super) name: String,
    /// See [`Kind`].
    pub(super) kind: Kind,
    /// First byte of its data.
    pub(super) offset: u64,
    /// Bytes of data.
    pub(super) size: u64,
}

/// Why an archive could not be read through.
#[derive(Debug, thiserror::Error)]
pub(super) enum SkimError {
    /// Not a tar at all, from the first block on.
    #[error("not a tar archive")]
    NotTar,
    /// A block that should be a header has a wrong checksum or number.
    #[error("broken tar header at byte {offset}")]
    Header {
        /// Of the block.
        offset: u64,
    },
    /// The file ends inside an entry.
    #[error("the archive ends at byte {length}, inside entry {name}")]
    Truncated {
        /// Of the file.
        length: u64,
        /// The entry.
        name: String,
    },
    /// More than a limit allows.
    #[error("{what} at byte {offset} is over its limit of {limit}")]
    Limit {
        /// Which.
        what: &'static str,
        /// Where.
        offset: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// The file cannot be read.
    #[error("read at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        source: std::io::Error,
    },
}

/// Names and sizes that extension headers set for the next entry.
#[derive(Default)]
struct Pending {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

/// Lists the regular files and links of the tar in `file`.
pub(super) fn skim(file: &File, length: u64) -> Result<Vec<Found>, SkimError> {
    let mut found = Vec::new();
    let mut pending = Pending::default();
    let mut offset = 0;
    while offset < length {
        let Some(header) = read_header(file, length, offset)? else {
            break;
        };
        let data = offset + BLOCK;
        let flag = header[156];
        let stored = number(&header[124..136]).ok_or(SkimError::Header { offset })?;
        let is_extension = matches!(flag, b'L' | b'K' | b'x' | b'g');
        // A PAX size is the following entry's, never an extension header's own.
        let size = match pending.size {
            Some(size) if !is_extension => size,
            _ => stored,
        };
        // Links and directories have no data, whatever their size field says.
        let stored = if matches!(flag, b'1'..=b'6') { 0 } else { size };
        let end = data
            .checked_add(stored)
            .ok_or(SkimError::Header { offset })?;
        if end > length {
            let name = pending.path.take().unwrap_or_else(|| header_name(&header));
            return Err(SkimError::Truncated { length, name });
        }
        if is_extension {
            let bytes = extension(file, offset, data, stored)?;
            match flag {
                b'L' => pending.path = Some(text(&bytes)),
                b'K' => pending.link = Some(text(&bytes)),
                b'x' => pax(&bytes, &mut pending).ok_or(SkimError::Header { offset })?,
                // Global headers carry comments; a global path or size would make no archive sense.
                _ => {}
            }
        } else {
            let pending = std::mem::take(&mut pending);
            let link = || {
                pending
                    .link
                    .clone()
                    .unwrap_or_else(|| text(&header[157..257]))
            };
            let kind = match flag {
                0 | b'0' | b'7' => Some(Kind::Regular),
                b'1' => Some(Kind::HardLink(link())),
                b'2' => Some(Kind::Symlink(link())),
                _ => None,
            };
            let name = pending.path.unwrap_or_else(|| header_name(&header));
            if let Some(kind) = kind.filter(|_| !name.ends_with('/')) {
                found.push(Found {
                    name,
                    kind,
                    offset: data,
                    size: stored,
                });
            }
            if found.len() > ENTRIES_MAX {
                return Err(SkimError::Limit {
                    what: "number of entries",
                    offset,
                    limit: ENTRIES_MAX as u64,
                });
            }
        }
        offset = data + stored.div_ceil(BLOCK) * BLOCK;
    }
    Ok(found)
}

/// The header at `offset`; `None` at the end-of-archive mark.
fn read_header(file: &File, length: u64, offset: u64) -> Result<Option<[u8; 512]>, SkimError> {
    let mut header = [0_u8; 512];
    if length - offset < BLOCK {
        // Some writers leave a few zeros or a newline; before the first entry it is no tar.
        return if offset == 0 {
            Err(SkimError::NotTar)
        } else {
            Err(SkimError::Truncated {
                length,
                name: "(a header)".to_owned(),
            })
        };
    }
    file.read_exact_at(&mut header, offset)
        .map_err(|source| SkimError::Read { offset, source })?;
    if header.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    if !is_header(&header) {
        return Err(if offset == 0 {
            SkimError::NotTar
        } else {
            SkimError::Header { offset }
        });
    }
    Ok(Some(header))
}

/// Whether a block has a right tar checksum (unsigned, as POSIX says).
pub(super) fn is_header(block: &[u8]) -> bool {
    let Some(block) = block.get(..512) else {
        return false;
    };
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(i, b)| {
            if (148..156).contains(&i) {
                32
            } else {
                u64::from(*b)
            }
        })
        .sum();
    number(&block[148..156]) == Some(sum)
}

fn extension(file: &File, offset: u64, data: u64, size: u64) -> Result<Vec<u8>, SkimError> {
    if size > EXTENSION_BYTES_MAX {
        return Err(SkimError::Limit {
            what: "extension header",
            offset,
            limit: EXTENSION_BYTES_MAX,
        });
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_exact_at(&mut bytes, data)
        .map_err(|source| SkimError::Read {
            offset: data,
            source,
        })?;
    Ok(bytes)
}

/// Octal digits between blanks and NULs, or base-256 when the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let (first, rest) = field.split_first()?;
        // 0xff would be a negative number; more than eight significant bytes do not fit.
        let mut value = u64::from(first & 0x7f);
        for byte in rest {
            value = value.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        return Some(value);
    }
    let digits: Vec<u8> = field
        .iter()
        .copied()
        .skip_while(|b| *b == b' ')
        .take_while(|b| *b != 0 && *b != b' ')
        .collect();
    if digits.is_empty() {
        return Some(0);
    }
    let digits = std::str::from_utf8(&digits).ok()?;
    u64::from_str_radix(digits, 8).ok()
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn header_name(header: &[u8; 512]) -> String {
    let name = text(&header[..100]);
    let prefix = text(&header[345..500]);
    // Only POSIX ustar has a prefix; GNU keeps times there.
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        format!("{prefix}/{name}")
    } else {
        name
    }
}

/// Reads `length key=value\n` records; `None` when they do not add up.
fn pax(mut bytes: &[u8], pending: &mut Pending) -> Option<()> {
    while !bytes.is_empty() && bytes[0] != 0 {
        let space = bytes.iter().position(|b| *b == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|b| *b == b'=')?;
        let value = String::from_utf8_lossy(&record[equals + 1..]).into_owned();
        match &record[..equals] {
            b"path" => pending.path = Some(value),
            b"linkpath" => pending.link = Some(value),
            b"size" => pending.size = Some(value.parse().ok()?),
            _ => {}
        }
        bytes = &bytes[length..];
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, process::Command};

    use super::*;

    fn made_by_tar(format: &str) -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(150));
        std::fs::create_dir_all(dir.path().join("in").join("d".repeat(90))).expect("directory");
        std::fs::write(dir.path().join("in").join(&long), "long").expect("file");
        std::fs::write(dir.path().join("in/a"), vec![7; 1000]).expect("file");
        std::os::unix::fs::symlink("a", dir.path().join("in/s")).expect("link");
        std::fs::hard_link(dir.path().join("in/a"), dir.path().join("in/z")).expect("link");
        let done = Command::new("tar")
            .args([&format!("--format={format}"), "--sort=name", "-cf"])
            .arg(dir.path().join("out.tar"))
            .arg("-C")
            .arg(dir.path().join("in"))
            .arg(".")
            .status()
            .expect("tar");
        // ustar cannot hold the long name; tar leaves it out and says so.
        assert!(done.success() || format == "ustar");
        let file = File::open(dir.path().join("out.tar")).expect("archive");
        (dir, file)
    }

    #[test]
    fn entries_of_every_format_are_found() {
        for format in ["gnu", "pax", "ustar"] {
            let (_dir, file) = made_by_tar(format);
            let length = file.metadata().expect("metadata").len();
            let found = skim(&file, length).expect(format);
            let names: Vec<&str> = found.iter().map(|f| f.name.as_str()).collect();
            let long = format!("./{}/{}", "d".repeat(90), "f".repeat(150));
            assert!(names.contains(&"./a"), "{format}: {names:?}");
            assert!(
                names.contains(&long.as_str()) || format == "ustar",
                "{format}"
            );
            let a = found.iter().find(|f| f.name == "./a").expect("a");
            let mut bytes = vec![0; 1000];
            file.read_exact_at(&mut bytes, a.offset).expect("data");
            assert_eq!((a.size, bytes), (1000, vec![7; 1000]));
            let kind = |n: &str| &found.iter().find(|f| f.name == n).expect("entry").kind;
            assert_eq!(kind("./s"), &Kind::Symlink("a".to_owned()));
            assert_eq!(kind("./z"), &Kind::HardLink("./a".to_owned()));
        }
    }

    #[test]
    fn a_cut_archive_is_named_as_such() {
        let (_dir, file) = made_by_tar("gnu");
        let length = file.metadata().expect("metadata").len();
        let found = skim(&file, length).expect("whole");
        let a = found.iter().find(|f| f.name == "./a").expect("a");
        let err = skim(&file, a.offset + 10).expect_err("cut");
        assert!(err.to_string().contains("inside entry ./a"), "{err}");
    }

    #[test]
    fn text_is_no_archive() {
        let mut file = tempfile::tempfile().expect("file");
        file.write_all("just a note\n".repeat(100).as_bytes())
            .expect("write");
        assert!(matches!(skim(&file, 1200), Err(SkimError::NotTar)));
    }
}
