//! Layers as tar streams, and the trees that become of them.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    time::Duration,
};

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

/// Every name with its kind and text: `d/`, `f=text`, `l->target`, `w` for overlay's whiteout; `!` for
/// an opaque directory.
pub fn tree(root: &Path) -> String {
    let mut all = Vec::new();
    walk(root, "", &mut all);
    all.sort();
    all.join(" ")
}

fn walk(root: &Path, below: &str, all: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(below)).expect("list") {
        let entry = entry.expect("entry");
        let name = format!("{below}{}", entry.file_name().to_str().expect("UTF-8"));
        let meta = entry.metadata().expect("stat");
        let kind = meta.file_type();
        if kind.is_dir() {
            let mut value = [0; 8];
            let path = root.join(&name);
            let opaque = rustix::fs::lgetxattr(&path, "trusted.overlay.opaque", &mut value[..]);
            all.push(format!("{name}/{}", if opaque.is_ok() { "!" } else { "" }));
            walk(root, &format!("{name}/"), all);
        } else if kind.is_symlink() {
            let target = fs::read_link(root.join(&name)).expect("link");
            all.push(format!("{name}->{}", target.display()));
        } else if kind.is_char_device() && meta.rdev() == 0 {
            all.push(format!("{name} whited"));
        } else {
            let text = fs::read_to_string(root.join(&name)).expect("read");
            all.push(format!("{name}={text}"));
        }
    }
}
