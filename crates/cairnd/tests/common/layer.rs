//! Layers as tar streams.

use std::time::Duration;

/// The time of every entry, in seconds.
pub const MTIME: u64 = 1_577_934_245;

/// A tar stream that grows by its entries.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Layer {
        Layer(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    pub fn new() -> Layer {
        Layer::default()
    }

    pub fn file(self, name: &str, text: &str) -> Layer {
        self.entry(tar::EntryType::Regular, name, 0o644, "", text)
    }

    pub fn dir(self, name: &str) -> Layer {
        self.entry(tar::EntryType::Directory, name, 0o755, "", "")
    }

    pub fn symlink(self, name: &str, target: &str) -> Layer {
        self.entry(tar::EntryType::Symlink, name, 0o777, target, "")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Layer {
        self.entry(tar::EntryType::Link, name, 0o644, target, "")
    }

    fn entry(
        mut self,
        kind: tar::EntryType,
        name: &str,
        mode: u32,
        link: &str,
        text: &str,
    ) -> Layer {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(Duration::from_secs(MTIME).as_secs());
        header.set_size(text.len() as u64);
        // As bytes: the crate's own setters refuse the names that are of interest.
        let old = header.as_ustar_mut().expect("ustar");
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, text.as_bytes()).expect("entry");
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("end")
    }
}
