//! The store's part without a connection in between.

use std::path::{Path, PathBuf};

use cairn_bundle::{Begun, BundleRequest, Bundled, Known, MountRequest, Mounts, Prepared};
use cairn_node::{BundleOrder, Failure, MountOrder, Node, Silent};
use cairn_types::{HostDir, Namespace};

use super::Store;

/// A node as what the room needs.
pub struct Direct<'n>(pub &'n Node);

impl Direct<'_> {
    fn name(&self) -> String {
        self.0.real_root().display().to_string()
    }
}

impl cairn_bundle::Store for Direct<'_> {
    type Error = Failure;

    fn begin(&self, request: &BundleRequest, dir: &HostDir) -> Result<Begun, Failure> {
        let order = BundleOrder {
            ns: request.ns.clone(),
            image: request.image.clone(),
            dir: dir.clone(),
            platform: request.platform.clone(),
        };
        let begun = self.0.bundle_begin(&order, &Silent)?;
        Ok(Begun {
            store: self.name(),
            snapshot: begun.bundle.snapshot,
            platform: begun.bundle.platform,
            mounts: begun.mounts,
            config: begun.config,
        })
    }

    fn complete(&self, dir: &HostDir, copied: bool) -> Result<(), Failure> {
        self.0.bundle_complete(dir, copied)
    }

    fn withdraw(&self, dir: &HostDir) -> Result<(), Failure> {
        self.0.bundle_withdraw(dir)
    }

    fn discard(&self, dir: &HostDir) -> Result<(), Failure> {
        self.0.bundle_drop(dir)
    }

    fn get(&self, dir: &HostDir) -> Result<Option<Known>, Failure> {
        let found = self.0.bundle(dir)?;
        Ok(found.map(|(info, mounts)| Known {
            store: self.name(),
            namespace: info.namespace,
            image: info.image,
            platform: info.platform,
            snapshot: info.snapshot,
            mounts,
            copied: info.copied,
            made: info.made,
        }))
    }

    fn unfinished(&self) -> Result<Vec<String>, Failure> {
        let found = self.0.unfinished_bundles()?;
        Ok(found.into_iter().map(|info| info.dir).collect())
    }
}

fn prepared(info: cairn_node::MountInfo) -> Prepared {
    Prepared {
        key: info.key,
        writable: info.writable,
        reused: info.reused,
        mounts: info.mounts,
    }
}

impl Mounts for Direct<'_> {
    type Error = Failure;

    fn prepare(&self, request: &MountRequest, target: &HostDir) -> Result<Prepared, Failure> {
        let order = MountOrder {
            ns: request.ns.clone(),
            name: request.name.clone(),
            target: target.clone(),
            rw: request.rw,
            // Nothing of this room depends on it.
            expires: None,
            platform: request.platform.clone(),
        };
        self.0.prepare_mount(&order, &Silent).map(prepared)
    }

    fn get(&self, ns: &Namespace, target: &HostDir) -> Result<Option<Prepared>, Failure> {
        Ok(self.0.mount(ns, target)?.map(prepared))
    }

    fn release(&self, ns: &Namespace, target: &HostDir, remove: bool) -> Result<(), Failure> {
        self.0.release_mount(ns, target, remove)
    }
}

pub fn make(store: &Store, request: &BundleRequest) -> Result<Bundled, Failure> {
    cairn_bundle::create(&Direct(&store.node), request)
}

pub fn remove(store: &Store, dir: &Path) -> Result<PathBuf, Failure> {
    cairn_bundle::remove(&Direct(&store.node), dir)
}

pub fn finish(store: &Store) {
    cairn_bundle::finish(&Direct(&store.node)).expect("list");
}

pub fn mount(store: &Store, request: &MountRequest) -> Result<PathBuf, Failure> {
    cairn_bundle::mount_image(&Direct(&store.node), request)
}

pub fn unmount(store: &Store, target: &Path, remove: bool) -> Result<(), Failure> {
    cairn_bundle::unmount_image(&Direct(&store.node), &store.ns, target, remove)
}
