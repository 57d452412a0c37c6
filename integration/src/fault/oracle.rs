//! What is true of a store whatever happened to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use super::Bench;
use crate::{image::digest, tree::Tree};

/// What is wrong, in a sentence.
pub type Verdict<T = ()> = Result<T, String>;

/// An image as a run without faults left it.
#[derive(Debug)]
pub struct Expected {
    /// Of its manifest.
    pub target: String,
    /// All digests that it consists of.
    pub blobs: BTreeSet<String>,
    /// Its files, as mounted.
    pub tree: Tree,
}

/// An image by its word, which is its name without the registry.
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
pub(super) fn blob(root: &Path, name: &str) -> Verdict<Vec<u8>> {
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

impl Bench {
    /// Looks at the whole store by plain commands and from outside. Images are at least `least` and
    /// at most `most`; answers which.
    pub fn examine(
        &self,
        expected: &Images,
        least: &[&str],
        most: &[&str],
    ) -> Verdict<Vec<String>> {
        // What a fault left of a bundle is undone by whoever next has to do with bundles.
        self.plain(&["bundle", "ls"])?;
        let listed = self.json(&["images", "ls", "--json"])?;
        let mut images = Vec::new();
        for image in listed.as_array().into_iter().flatten() {
            let name = image["name"].as_str().unwrap_or_default();
            let word = name.strip_prefix("localhost/").unwrap_or(name);
            let known = expected
                .get(word)
                .ok_or_else(|| format!("{name} is listed"))?;
            wrong(image["complete"] != true, || {
                format!("{name} is listed and not complete")
            })?;
            wrong(image["target"]["digest"] != *known.target, || {
                format!("{name} means {}", image["target"])
            })?;
            images.push(word.to_owned());
        }
        let has = |word: &str| images.iter().any(|image| image == word);
        wrong(!least.iter().all(|word| has(word)), || {
            format!("of the images {least:?} only {images:?} are left")
        })?;
        wrong(!images.iter().all(|image| most.contains(&&**image)), || {
            format!("{images:?} are there, and not only {most:?}")
        })?;
        self.examine_files()?;
        let root = self.root();
        for word in &images {
            for digest in &expected[word].blobs {
                blob(&root, digest).map_err(|err| format!("image {word}: {err}"))?;
            }
        }
        Ok(images)
    }

    /// Records and files say the same, and there is nothing else.
    fn examine_files(&self) -> Verdict {
        let root = self.root();
        let listed = self.lines(&["-q", "content", "ls"])?;
        for digest in &listed {
            blob(&root, digest)?;
        }
        let files = names(&root.join("content/blobs/sha256"))?;
        wrong(files.len() != listed.len(), || {
            format!(
                "{} blobs are recorded, {} are there",
                listed.len(),
                files.len()
            )
        })?;
        let snapshots = self.lines(&["-q", "snapshots", "ls"])?;
        let mut trees = names(&root.join("snapshots"))?;
        trees.retain(|name| name != "trash");
        wrong(snapshots.len() != trees.len(), || {
            format!("the snapshots {snapshots:?} have the directories {trees:?}")
        })?;
        for left in ["content/ingest", "snapshots/trash"] {
            let names = names(&root.join(left))?;
            wrong(!names.is_empty(), || format!("{left} holds {names:?}"))?;
        }
        let hidden = names(&self.work())?;
        let hidden: Vec<_> = hidden.iter().filter(|name| name.starts_with('.')).collect();
        wrong(!hidden.is_empty(), || {
            format!("beside the store there is {hidden:?}")
        })
    }

    /// Mounts each image and compares it with what it was.
    pub fn examine_trees(&self, expected: &Images, images: &[String]) -> Verdict {
        for word in images {
            let tree = self.mounted_tree(word)?;
            let diff = expected[word].tree.diff(&tree);
            wrong(!diff.is_empty(), || {
                format!("the tree of {word} differs:\n{diff}")
            })?;
        }
        Ok(())
    }

    /// An image's files.
    pub fn mounted_tree(&self, word: &str) -> Verdict<Tree> {
        let name = format!("localhost/{word}");
        self.plain(&["images", "mount", &name, "{w}/look"])?;
        let tree = Tree::read(&self.work().join("look"));
        self.unmount("{w}/look")?;
        Ok(tree)
    }

    /// A program that another thread has just begun to start still shares the files that were open
    /// here, until its own beginning; so "busy" is no last word.
    fn unmount(&self, target: &str) -> Verdict {
        for _ in 0..50 {
            match self.plain(&["images", "unmount", target]) {
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
        let images = self.lines(&["-q", "images", "ls"])?;
        if !images.is_empty() {
            let images = images.iter().map(String::as_str);
            let rm: Vec<&str> = ["images", "rm"].into_iter().chain(images).collect();
            self.plain(&rm)?;
        }
        self.plain(&["gc"])?;
        self.examine_files()?;
        for what in ["content", "snapshots", "images", "bundle"] {
            let left = self.lines(&["-q", what, "ls"])?;
            wrong(!left.is_empty(), || format!("{what} {left:?} are left"))?;
        }
        let mounts = self.mounts();
        wrong(!mounts.is_empty(), || format!("{mounts:?} are mounted"))
    }
}
