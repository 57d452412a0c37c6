//! A tar stream of directories and regular files, written once, front to back.
//!
//! Owner, times and order are fixed, so that the same images always give the same bytes.

use std::io::{self, Write};

const BLOCK: usize = 512;
/// What eleven octal digits hold.
const OCTAL_SIZE_MAX: u64 = 0o777_7777_7777;

/// Writes entries.
pub(super) struct TarWriter<'a> {
    out: &'a mut dyn Write,
    written: u64,
    /// Data of the current entry still to come.
    open: u64,
    padding: usize,
}

impl<'a> TarWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> TarWriter<'a> {
        TarWriter {
            out,
            written: 0,
            open: 0,
            padding: 0,
        }
    }

    /// A directory; `name` ends in `/`.
    pub(super) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.header(name, b'5', 0o755, 0)
    }

    /// Begins a file of `size` bytes, which [`TarWriter::data`] must then bring.
    pub(super) fn file(&mut self, name: &str, mode: u32, size: u64) -> io::Result<()> {
        self.header(name, b'0', mode, size)?;
        self.open = size;
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        self.padding = (BLOCK - over) % BLOCK;
        self.pad_when_complete()
    }

    /// The next bytes of the file begun last.
    pub(super) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if length > self.open {
            return Err(io::Error::other("more data than the entry's size"));
        }
        self.put(bytes)?;
        self.open -= length;
        self.pad_when_complete()
    }

    /// A whole small file.
    pub(super) fn small(&mut self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.file(name, mode, bytes.len() as u64)?;
        self.data(bytes)
    }

    /// Writes the end mark, and returns the length of everything.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.put(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.written)
    }

    fn pad_when_complete(&mut self) -> io::Result<()> {
        if self.open > 0 {
            return Ok(());
        }
        let padding = std::mem::take(&mut self.padding);
        self.put(&[0; BLOCK][..padding])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn header(&mut self, name: &str, flag: u8, mode: u32, size: u64) -> io::Result<()> {
        if self.open > 0 {
            return Err(io::Error::other("the entry before is not complete"));
        }
        let mut records = Vec::new();
        if name.len() > 100 {
            records.extend_from_slice(&record("path", name));
        }
        if size > OCTAL_SIZE_MAX {
            records.extend_from_slice(&record("size", &size.to_string()));
        }
        if !records.is_empty() {
            self.put(&block(
                "PaxHeaders.0/entry",
                b'x',
                0o644,
                records.len() as u64,
            ))?;
            self.put(&records)?;
            let padding = (BLOCK - records.len() % BLOCK) % BLOCK;
            self.put(&[0; BLOCK][..padding])?;
        }
        self.put(&block(name, flag, mode, size.min(OCTAL_SIZE_MAX)))
    }
}

/// `length key=value\n`, where the length counts its own digits.
fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    format!("{length} {key}={value}\n").into_bytes()
}

fn block(name: &str, flag: u8, mode: u32, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[flag]);
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn gnu_tar_reads_what_is_written() {
        let long = format!("blobs/sha512/{}", "a".repeat(128));
        let mut bytes = Vec::new();
        let mut tar = TarWriter::new(&mut bytes);
        tar.directory("blobs/").expect("directory");
        tar.small(&long, 0o444, &[7; 513]).expect("long name");
        tar.small("empty", 0o644, b"").expect("empty");
        let length = tar.finish().expect("end");
        assert_eq!(length, bytes.len() as u64);
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("x.tar");
        std::fs::write(&path, &bytes).expect("write");
        let listed = Command::new("tar")
            .arg("-tvf")
            .arg(&path)
            .output()
            .expect("tar");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains(&long), "{listed}");
        assert!(listed.contains("drwxr-xr-x 0/0"), "{listed}");
        assert!(
            listed.contains("-r--r--r-- 0/0             513"),
            "{listed}"
        );
    }

    #[test]
    fn records_count_themselves() {
        assert_eq!(record("path", "x"), b"9 path=x\n");
        let long = record("path", &"x".repeat(88));
        assert_eq!(long.len(), 97);
        assert!(long.starts_with(b"97 "));
    }
}
