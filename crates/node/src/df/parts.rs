//! Blobs and layers as parts of what has them: images, or namespaces. Several may have the same.

use std::collections::HashMap;

use cairn_types::Digest;

/// Something on the disk. A blob is there once for all namespaces, and so may a layer be, which is told by its
/// directory's number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Blob(Digest),
    Layer(u64),
}

/// What somebody has, with the bytes of each.
#[derive(Default)]
pub(crate) struct Parts(HashMap<Part, u64>);

impl FromIterator<(Part, u64)> for Parts {
    fn from_iter<I: IntoIterator<Item = (Part, u64)>>(parts: I) -> Parts {
        Parts(parts.into_iter().collect())
    }
}

impl Parts {
    pub(crate) fn add(&mut self, part: Part, bytes: u64) {
        self.0.insert(part, bytes);
    }

    /// Bytes of the blobs.
    pub(crate) fn content_size(&self) -> u64 {
        self.sum(|part| matches!(part, Part::Blob(_)))
    }

    /// Bytes of the layers.
    pub(crate) fn snapshot_size(&self) -> u64 {
        self.sum(|part| matches!(part, Part::Layer(_)))
    }

    fn sum(&self, wanted: impl Fn(&Part) -> bool) -> u64 {
        let parts = self.0.iter().filter(|(part, _)| wanted(part));
        parts.map(|(_, bytes)| bytes).sum()
    }
}

/// How many have each part.
pub(crate) struct Holders<'p>(HashMap<&'p Part, u32>);

impl<'p> FromIterator<&'p Parts> for Holders<'p> {
    fn from_iter<I: IntoIterator<Item = &'p Parts>>(all: I) -> Holders<'p> {
        let mut holders: HashMap<&'p Part, u32> = HashMap::new();
        for part in all.into_iter().flat_map(|parts| parts.0.keys()) {
            *holders.entry(part).or_default() += 1;
        }
        Holders(holders)
    }
}

impl Holders<'_> {
    /// Bytes of what nobody else has than whose `parts` these are.
    pub(crate) fn unique_size(&self, parts: &Parts) -> u64 {
        parts.sum(|part| self.0.get(part) == Some(&1))
    }
}
