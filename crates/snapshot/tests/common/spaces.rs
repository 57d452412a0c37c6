//! Layers as an unpacking leaves them, and several namespaces that have them.

use std::{fs, time::Duration};

use cairn_snapshot::{Shared, SnapshotInfo, Snapshots, StagedLayer};
use cairn_types::{
    Classified, DiffId, Digest, ErrorKind, Labels, LayerTiming, Namespace, SnapshotKey, Usage,
};

use super::{Fixture, key};

pub(crate) fn ns(name: &str) -> Namespace {
    Namespace::parse(name).expect("namespace")
}

pub(crate) fn keys(names: &[&str]) -> Vec<SnapshotKey> {
    names.iter().map(|name| key(name)).collect()
}

/// A layer as it comes of an unpacking, with a file of its own.
pub(crate) fn layer(snapshots: &Snapshots, name: &str, parent: Option<&str>) -> StagedLayer {
    let staged = snapshots.stage().expect("stage");
    fs::write(staged.dir().path().join(name), name).expect("write");
    StagedLayer {
        staged,
        key: key(name),
        parent: parent.map(key),
        usage: Usage {
            bytes: 4096,
            inodes: 2,
        },
        diff_id: Some(DiffId::new(Digest::sha256(name.as_bytes()))),
        blob: Some(Digest::sha256(format!("{name}, packed").as_bytes())),
        timing: Some(LayerTiming {
            untar: Duration::from_micros(7),
            ..LayerTiming::default()
        }),
        labels: Labels::from([("a".to_owned(), "b".to_owned())]),
    }
}

impl Fixture {
    /// A stack, lowest first, of which nothing is there.
    pub(crate) fn unpack(&self, space: &str, names: &[&str]) {
        self.unpack_on(space, None, names);
    }

    /// The same on what is there.
    pub(crate) fn unpack_on(&self, space: &str, parent: Option<&str>, names: &[&str]) {
        let mut parent = parent;
        let mut stack = Vec::new();
        for name in names {
            stack.push(layer(&self.snapshots, name, parent));
            parent = Some(name);
        }
        let committed = self.snapshots.commit_stack(&ns(space), stack);
        committed.expect("commit");
    }

    pub(crate) fn share(&self, space: &str, names: &[&str]) -> Shared {
        let shared = self.snapshots.share(&ns(space), &keys(names));
        shared.expect("share")
    }

    pub(crate) fn info(&self, space: &str, name: &str) -> Option<SnapshotInfo> {
        match self.snapshots.stat(&ns(space), &key(name)) {
            Ok(info) => Some(info),
            Err(err) => {
                assert_eq!(err.kind(), ErrorKind::NotFound, "{err}");
                None
            }
        }
    }

    pub(crate) fn drop_one(&self, space: &str, name: &str) {
        let removed = self.snapshots.remove(&ns(space), &key(name));
        removed.unwrap_or_else(|err| panic!("remove {name} of {space}: {err}"));
    }

    /// Its own files are there.
    pub(crate) fn shows(&self, space: &str, name: &str) -> bool {
        let lowers = self.snapshots.lowers(&ns(space), &key(name));
        let lowers = lowers.expect("lowers");
        fs::read_to_string(lowers[0].path().join(name)).is_ok_and(|text| text == name)
    }
}
