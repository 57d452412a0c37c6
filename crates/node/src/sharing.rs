//! What namespaces let one another have without its bytes.
//!
//! A blob is stored once, whoever has it. Whether naming its digest is enough to get it is a question of
//! trust: who knows a digest need not have had the bytes. So it is with what was unpacked of blobs.

use cairn_meta::{View, schema};
use cairn_types::{ChainId, Digest, Namespace, SnapshotKey};

use crate::{
    Failure, Node, Pins,
    events::{Event, What},
};

/// By this label a namespace lets others have its blobs, when its value is `true` (containerd
/// `pkg/labels/labels.go`).
const SHAREABLE: &str = "containerd.io/namespace.shareable";

/// Who gets by its digest what another namespace has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// Nobody, but for the blobs of a namespace that says so. Others bring all the bytes, and unpack them.
    Isolated,
}

impl Sharing {
    /// As containerd calls it.
    pub fn name(self) -> &'static str {
        match self {
            Sharing::Shared => "shared",
            Sharing::Isolated => "isolated",
        }
    }
}

impl Node {
    /// Who gets what others have.
    pub fn sharing(&self) -> Sharing {
        self.inner.sharing
    }

    /// Whose a thing is that two requests must not make at once: the namespace's, where these have nothing
    /// of one another.
    pub(crate) fn sharers(&self, ns: &Namespace) -> Option<Namespace> {
        (self.sharing() == Sharing::Isolated).then(|| ns.clone())
    }

    /// A blob of at most `limit` bytes that another namespace has and shares. `None` also when it is
    /// damaged.
    pub(crate) fn read_shared(
        &self,
        pins: &Pins,
        digest: &Digest,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, Failure> {
        if self.shared_size(pins, digest)?.is_none() {
            return Ok(None);
        }
        let content = self.content();
        let namespaces = content.namespaces().map_err(|err| {
            let failure = Failure::of("look up blob", &err);
            failure.object("blob", digest)
        })?;
        // One file stands for all of them.
        let mut read = namespaces
            .iter()
            .map(|ns| content.read_all(ns, digest, limit));
        Ok(read.find_map(Result::ok))
    }

    /// The size of a blob that somebody may have who knows no more of it than its digest; `None` when
    /// there is none, or nobody who has it shares it. It stays until `pins` go. One that is damaged is damaged
    /// for all, and is brought again.
    pub fn shared_size(&self, pins: &Pins, digest: &Digest) -> Result<Option<u64>, Failure> {
        let failed = |err: &dyn cairn_types::Classified| {
            Failure::of("look up blob", err).object("blob", digest)
        };
        let content = self.content();
        let size = || match content.is_sound(digest) {
            Ok(true) => content.size_of_any(digest).map_err(|err| failed(&err)),
            Ok(false) => Ok(None),
            Err(err) => Err(failed(&err)),
        };
        // Nearly always, and then there is nothing to pin.
        if size()?.is_none() {
            return Ok(None);
        }
        // Until it is linked, those hold it who have it.
        for ns in content.namespaces().map_err(|err| failed(&err))? {
            pins.blob(&ns, digest);
        }
        if self.sharing() == Sharing::Isolated {
            let shared = self.meta().read(|view| {
                let mut namespaces = view.scan(&schema::NAMESPACES, &())?.into_iter();
                let sharing = |labels: &cairn_types::Labels| {
                    labels.get(SHAREABLE).is_some_and(|value| value == "true")
                };
                namespaces.try_fold(false, |found, (ns, record)| {
                    let link = || view.get(&schema::BLOB_LINKS, &(ns, digest.clone()));
                    Ok::<_, cairn_meta::Error>(
                        found || sharing(&record.labels) && link()?.is_some(),
                    )
                })
            });
            if !shared.map_err(|err| failed(&err))? {
                return Ok(None);
            }
        }
        size()
    }

    /// Gives `ns` snapshots of what others have unpacked of a stack, lowest first, as far as it lacks them
    /// and may have them; they show the same files. How many of the stack it has then, from the lowest.
    /// They stay until `pins` go.
    ///
    /// Nothing else is shared: a layer whose blob `ns` does not have could not be unpacked again there.
    pub(crate) fn share_chain(
        &self,
        ns: &Namespace,
        chain: &[ChainId],
        pins: &Pins,
    ) -> Result<usize, Failure> {
        let keys: Vec<SnapshotKey> = chain.iter().map(SnapshotKey::from).collect();
        // Only its own: what others have is looked for and recorded in one transaction.
        for key in &keys {
            pins.snapshot(ns, key);
        }
        if self.sharing() == Sharing::Isolated {
            for (below, key) in keys.iter().enumerate() {
                if !self.has_snapshot(ns, key)? {
                    return Ok(below);
                }
            }
            return Ok(keys.len());
        }
        let shared = self.snapshots().share(ns, &keys).map_err(|err| {
            let failure = Failure::of("share unpacked layers", &err).namespace(ns);
            match chain.last() {
                Some(top) => failure.object("snapshot", top),
                None => failure,
            }
        })?;
        for name in shared.taken {
            let key = name.clone();
            let what = What::SnapshotCommitted { key, name };
            self.happened(Event::of(ns, what));
        }
        Ok(shared.here)
    }
}
