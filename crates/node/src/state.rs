//! How the store itself is: its layout, its engine, its disk, and whether it still takes changes.

use crate::{Failure, Node, lost, node::LAYOUT};

/// What is true of an open store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Version of the tree on disk.
    pub layout: u32,
    /// `redb` or `sled`.
    pub engine: &'static str,
    /// Bytes that may still be taken on its file system.
    pub free_bytes: u64,
    /// Bytes of that file system.
    pub total_bytes: u64,
    /// Why nothing can be changed before the store is opened again; `None` when all is well.
    pub read_only: Option<String>,
    /// What became of records that were destroyed, for as long as anything is there that was put by then.
    pub rebuilt: Option<String>,
}

impl Node {
    /// How the store is now.
    ///
    /// # Errors
    /// When its file system does not say how full it is.
    pub fn state(&self) -> Result<State, Failure> {
        let space =
            self.inner.dir.space().map_err(|err| {
                Failure::of("measure", &err).object("store", self.root().display())
            })?;
        Ok(State {
            layout: LAYOUT,
            engine: self.meta().engine(),
            free_bytes: space.free_bytes,
            total_bytes: space.total_bytes,
            read_only: self.read_only().map(|failure| failure.to_string()),
            rebuilt: self.rebuilt().map(|rebuilt| lost::told(&rebuilt)),
        })
    }

    /// Why nothing can be changed before the store is opened again: a commit or a sync failed, and
    /// trying again would prove nothing. What is there can be read. `None` when all is well.
    pub fn read_only(&self) -> Option<Failure> {
        let rooms = [
            self.meta().read_only(),
            self.content().read_only(),
            self.snapshots().read_only(),
        ];
        let broken = rooms.into_iter().flatten().next()?;
        let failure = Failure::new(broken.kind(), "", broken.to_string());
        let mended = "after the disk is mended: systemctl restart cairnd";
        Some(failure.next("journalctl -u cairnd").next(mended))
    }
}
