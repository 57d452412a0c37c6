//! Which bundles there are.

use std::path::PathBuf;

use cairn_meta::{View, schema};
use cairn_sys::mount;
use cairn_types::{Classified, ErrorKind, Namespace};

use super::{BundleInfo, place::ROOTFS};
use crate::{Failure, Node};

const ATTEMPTED: &str = "list bundles";

impl Node {
    /// The bundles of a namespace by directory.
    pub fn bundles(&self, ns: &Namespace) -> Result<Vec<BundleInfo>, Failure> {
        let scan = self.meta().read(|view| view.scan(&schema::BUNDLES, &()));
        let records = scan.map_err(|err| Failure::of(ATTEMPTED, &err).namespace(ns))?;
        let mut bundles = Vec::new();
        for (dir, record) in records {
            if record.namespace != *ns || !record.made {
                continue;
            }
            let size = match self.snapshots().usage(ns, &record.snapshot) {
                Ok(usage) => usage.bytes,
                Err(err) if err.kind() == ErrorKind::NotFound => 0,
                Err(err) => return Err(Failure::of(ATTEMPTED, &err).object("bundle", dir)),
            };
            let dir = PathBuf::from(dir);
            let mounted = mount::is_mount_point(&dir.join(ROOTFS));
            bundles.push(BundleInfo {
                mounted: mounted
                    .map_err(|err| Failure::of(ATTEMPTED, &err).object("bundle", dir.display()))?,
                dir,
                namespace: record.namespace,
                image: record.image,
                manifest: record.manifest,
                platform: record.platform,
                snapshot: record.snapshot,
                size,
                created_at: record.created_at.0,
            });
        }
        bundles.sort_by(|a, b| a.dir.cmp(&b.dir));
        Ok(bundles)
    }
}
