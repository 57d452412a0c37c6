//! What is true of a store whatever happened to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use super::{Bench, Reference, Verdict, disk::unmount, fsck, records::Records};
use crate::{image::digest, tree::Tree};

/// An image as a run without faults left it.
#[derive(Debug)]
pub(super) struct Expected {
    /// All digests that it consists of.
    pub(super) blobs: BTreeSet<String>,
    /// Its files, as mounted.
    pub(super) tree: Tree,
}

/// Images by the digests of their manifests.
pub(super) type Images = BTreeMap<String, Expected>;

fn wrong(condition: bool, text: impl FnOnce() -> String) -> Verdict {
    if condition { Err(text()) } else { Ok(()) }
}

/// What a directory has.
pub(crate) fn names(dir: &Path) -> Verdict<Vec<String>> {
    let entries = fs::read_dir(dir).map_err(|err| format!("list {}: {err}", dir.display()))?;
    let names = entries.map(|entry| {
        let entry = entry.map_err(|err| err.to_string())?;
        Ok(entry.file_name().to_string_lossy().into_owned())
    });
    names.collect()
}

/// The bytes of a blob file, if they are those it is named by.
fn blob(root: &Path, name: &str) -> Verdict<Vec<u8>> {
    let path = root.join("content/blobs").join(name.replace(':', "/"));
    let bytes = fs::read(&path).map_err(|err| format!("read blob {name}: {err}"))?;
    wrong(digest(&bytes) != name, || {
        format!("blob {name} has other bytes than its name says")
    })?;
    Ok(bytes)
}

/// The digests an image consists of, by its documents.
pub(super) fn blobs_of(root: &Path, target: &str) -> Verdict<BTreeSet<String>> {
    let document: Value =
        serde_json::from_slice(&blob(root, target)?).map_err(|err| err.to_string())?;
    let layers = document["layers"].as_array().into_iter().flatten();
    let parts = layers.chain([&document["config"]]);
    let digests = parts
        .filter_map(|part| part["digest"].as_str())
        .map(str::to_owned);
    Ok(digests.chain([target.to_owned()]).collect())
}

/// Namespaces and names of images, and what they mean.
pub(super) fn images(records: &Records) -> impl Iterator<Item = (&str, &str, &str)> {
    records.table("image").filter_map(|(key, record)| {
        let (ns, name) = key.split_once(' ')?;
        Some((ns, name, record["digest"].as_str()?))
    })
}

impl Bench {
    /// Looks at the whole store by plain commands and from outside; its records. `deep`: every byte is
    /// read, and every tree held against its blob.
    pub(super) fn look(&self, deep: bool) -> Verdict<Records> {
        // What a fault left of a bundle is undone by whoever next has to do with bundles.
        self.plain(&["bundle", "ls"])?;
        self.fsck(deep)?;
        let records = self.records()?;
        self.examine_files(&records)?;
        Ok(records)
    }

    /// Looks at the whole store, which has exactly these images, by their names without `localhost/`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, reference: &Reference, wanted: &[&str]) -> Verdict {
        let records = self.look(false)?;
        let names: BTreeSet<&str> = images(&records).map(|(_, name, _)| name).collect();
        let wanted: Vec<String> = wanted
            .iter()
            .map(|word| format!("localhost/{word}"))
            .collect();
        let all = wanted.iter().map(String::as_str).collect::<BTreeSet<_>>();
        wrong(names != all, || format!("{names:?} are there, not {all:?}"))?;
        self.examine_images(reference, &records)?;
        self.examine_trees(reference, &records)
    }

    /// Nothing is wrong, nothing is missing and nothing is left over.
    fn fsck(&self, deep: bool) -> Verdict {
        let words = ["fsck", "--json", "--deep"];
        let words = if deep { &words[..] } else { &words[..2] };
        fsck::clean(&self.run(words, None, None)).map(drop)
    }

    /// Each image means what it did, and all of it is here.
    pub(super) fn examine_images(&self, reference: &Reference, records: &Records) -> Verdict {
        let root = self.root();
        for (_, name, target) in images(records) {
            let known = reference.image(target);
            let known = known.ok_or_else(|| format!("image {name} is {target}"))?;
            for digest in &known.blobs {
                blob(&root, digest).map_err(|err| format!("image {name}: {err}"))?;
            }
        }
        Ok(())
    }

    /// Records and files say the same, and there is nothing else.
    pub(super) fn examine_files(&self, records: &Records) -> Verdict {
        let root = self.root();
        for (digest, _) in records.table("blob") {
            blob(&root, digest)?;
        }
        let blobs = names(&root.join("content/blobs/sha256"))?.len();
        let mut trees = names(&root.join("snapshots"))?;
        trees.retain(|name| name != "trash");
        let uploads = names(&root.join("content/ingest"))?.len();
        // An upload that is recorded need not have a file before it has a byte.
        let begun = records.count("ingest").min(uploads);
        for (table, recorded, there) in [
            ("blob", records.count("blob"), blobs),
            ("snapshot", records.trees(), trees.len()),
            ("ingest", begun, uploads),
        ] {
            wrong(recorded != there, || {
                format!("{recorded} records of {table}, and {there} of its files")
            })?;
        }
        let trash = names(&root.join("snapshots/trash"))?;
        wrong(!trash.is_empty(), || format!("trash holds {trash:?}"))?;
        let hidden = names(&self.work())?;
        let hidden: Vec<_> = hidden.iter().filter(|name| name.starts_with('.')).collect();
        wrong(!hidden.is_empty(), || {
            format!("beside the store there is {hidden:?}")
        })
    }

    /// Mounts each image and each snapshot that a client committed, and compares it with what it was.
    pub(super) fn examine_trees(&self, reference: &Reference, records: &Records) -> Verdict {
        for (ns, name, target) in images(records) {
            let known = reference.image(target);
            let known = known.ok_or_else(|| format!("image {name} is {target}"))?;
            let diff = known.tree.diff(&self.mounted_tree(ns, name)?);
            wrong(!diff.is_empty(), || {
                format!("the tree of {name} differs:\n{diff}")
            })?;
        }
        for (ns, name) in records.committed() {
            let known = reference.snapshot(name);
            let known = known.ok_or_else(|| format!("nobody committed {name}"))?;
            let diff = known.diff(&self.committed_tree(ns, name)?);
            wrong(!diff.is_empty(), || {
                format!("the tree of snapshot {name} differs:\n{diff}")
            })?;
        }
        Ok(())
    }

    /// An image's files.
    pub(super) fn mounted_tree(&self, ns: &str, name: &str) -> Verdict<Tree> {
        self.plain(&["-n", ns, "images", "mount", name, "{w}/look"])?;
        let tree = Tree::read(&self.work().join("look"));
        self.unmount(ns, "{w}/look")?;
        Ok(tree)
    }

    /// Those of a snapshot with all below it.
    pub(super) fn committed_tree(&self, ns: &str, name: &str) -> Verdict<Tree> {
        let key = "a-look";
        self.plain(&["-n", ns, "snapshots", "view", key, name])?;
        let at = self.work().join("look");
        self.mount(ns, key, &at)?;
        let tree = Tree::read(&at);
        unmount(&at)?;
        self.plain(&["-n", ns, "snapshots", "rm", key])?;
        Ok(tree)
    }

    /// A program that another thread has just begun to start still shares the files that were open
    /// here, until its own beginning; so "busy" is no last word.
    fn unmount(&self, ns: &str, target: &str) -> Verdict {
        for _ in 0..50 {
            match self.plain(&["-n", ns, "images", "unmount", target]) {
                Err(reason) if reason.contains("resource busy") => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                other => return other.map(drop),
            }
        }
        Err(format!("{target} stays busy"))
    }

    /// Removes everything that is in the store, and looks whether it is gone.
    pub fn empty(&self) -> Verdict {
        if self.is_mounted("mnt") {
            self.plain(&["images", "unmount", "--rm", "{w}/mnt"])?;
        }
        if self.work().join("bundle").exists() {
            self.plain(&["bundle", "rm", "{w}/bundle"])?;
        }
        let records = self.records()?;
        for (ns, name, _) in images(&records) {
            self.plain(&["-n", ns, "images", "rm", name])?;
        }
        for (verb, table) in [
            (&["leases", "rm"], "lease"),
            (&["content", "abort"], "ingest"),
        ] {
            for (key, _) in records.table(table) {
                let (ns, name) = key.split_once(' ').unwrap_or_default();
                self.plain(&[&["-n", ns][..], verb, &[name]].concat())?;
            }
        }
        self.empty_snapshots()?;
        self.plain(&["gc"])?;
        // What a client put is held by a label.
        let records = self.records()?;
        for (key, _) in records.table("blob-link") {
            let (ns, digest) = key.split_once(' ').unwrap_or_default();
            self.plain(&["-n", ns, "content", "rm", digest])?;
        }
        if records.count("blob-link") > 0 {
            self.plain(&["gc"])?;
        }
        self.emptied()
    }

    /// Those that clients made, with all that stands on them.
    fn empty_snapshots(&self) -> Verdict {
        loop {
            let records = self.records()?;
            let clients = records.table("snapshot");
            let clients = clients.filter_map(|(key, _)| key.split_once(' '));
            let mut clients = clients.filter(|(_, name)| !name.starts_with("sha256:"));
            let Some((ns, name)) = clients.next() else {
                return Ok(());
            };
            self.plain(&["-n", ns, "snapshots", "rm", "--recursive", name])?;
        }
    }

    fn emptied(&self) -> Verdict {
        let records = self.look(false)?;
        let left = records.without(|table, _| table == "namespace");
        wrong(left != Records::default(), || format!("{left:?} are left"))?;
        let mounts = self.mounts();
        wrong(!mounts.is_empty(), || format!("{mounts:?} are mounted"))
    }
}
