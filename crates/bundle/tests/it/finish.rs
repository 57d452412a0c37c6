//! What a process leaves that dies while it makes or removes a bundle, and who tidies up after it.

use std::{fs, path::Path};

use cairn_bundle::{BundleRequest, Store as _};
use cairn_sys::mount;
use cairn_types::{Failure, HostDir};
use serde_json::json;

use crate::common::{Direct, Store, bundle::*, finish, host_dir, make, remove};

fn image() -> Store {
    imported(&tree(|_| ()), &json!({"Cmd": ["sh"]}))
}

fn place(store: &Store) -> (BundleRequest, HostDir) {
    let request = request(store, &store.dir.path().join("b"));
    let dir = host_dir(&request.dir);
    (request, dir)
}

/// The directory's hidden name.
fn aside(dir: &Path) -> std::path::PathBuf {
    let name = cairn_types::Digest::sha256(b"b");
    dir.with_file_name(format!(".cairn-{:.16}", name.hex()))
}

#[test]
fn what_has_a_record_alone_is_forgotten() {
    let store = image();
    let (request, dir) = place(&store);
    let direct = Direct(&store.node);
    direct.begin(&request, &dir).expect("begin");
    let failure = direct.begin(&request, &dir).expect_err("twice");
    assert_eq!(failure.kind, cairn_types::ErrorKind::AlreadyExists);
    // Until then it is nobody's bundle, but its layer is held.
    assert_eq!(store.node.bundles(&store.ns).expect("bundles"), []);
    store.node.gc(false).expect("collect");
    assert!(
        store
            .node
            .snapshots()
            .stat(&store.ns, &dir.bundle_key())
            .is_ok()
    );
    finish(&store);
    assert_no_bundle(&store);
    direct.complete(&dir, false).expect_err("there is none");
    direct.withdraw(&dir).expect_err("there is none");
    direct.discard(&dir).expect("nothing to drop");
}

#[test]
fn what_is_built_aside_is_unmounted_and_deleted() {
    let store = image();
    let (request, dir) = place(&store);
    let begun = Direct(&store.node).begin(&request, &dir).expect("begin");
    let hidden = aside(&request.dir);
    fs::create_dir_all(hidden.join("rootfs")).expect("directory");
    mount::perform(&begun.mounts, &hidden.join("rootfs")).expect("mount");
    fs::write(hidden.join("rootfs/half"), "x").expect("write");
    finish(&store);
    assert_no_bundle(&store);
    // The next attempt does not wait for that.
    let begun = Direct(&store.node).begin(&request, &dir).expect("begin");
    fs::create_dir_all(hidden.join("rootfs")).expect("directory");
    mount::perform(&begun.mounts, &hidden.join("rootfs")).expect("mount");
    let made = make(&store, &request).expect("create");
    assert!(!made.dir.join("rootfs/half").exists());
    remove(&store, &made.dir).expect("remove");
    assert_no_bundle(&store);
}

/// It was renamed, and the record does not say so; or the record says that it goes, and it is there.
#[test]
fn what_is_in_place_and_not_recorded_as_whole_goes() {
    let store = image();
    let (request, dir) = place(&store);
    for by in ["finish", "remove", "create"] {
        make(&store, &request).expect("create");
        store.node.bundle_withdraw(&dir).expect("withdraw");
        match by {
            "finish" => finish(&store),
            "remove" => drop(remove(&store, &request.dir).expect("remove")),
            _ => {
                fs::write(request.dir.join("rootfs/old"), "x").expect("write");
                let made = make(&store, &request).expect("create");
                assert!(!made.remounted && !made.dir.join("rootfs/old").exists());
                remove(&store, &request.dir).expect("remove");
            }
        }
        assert_no_bundle(&store);
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let store = image();
    let (request, dir) = place(&store);
    make(&store, &request).expect("create");
    store.node.bundle_drop(&dir).expect_err("it is whole");
    finish(&store);
    assert!(request.dir.join("rootfs/bin/sh").exists(), "it was whole");
    store.node.bundle_withdraw(&dir).expect("withdraw");
    // A directory of somebody's has come into its place.
    mount::unmount_own(&request.dir.join("rootfs")).expect("unmount");
    let away = store.dir.path().join("away");
    fs::rename(&request.dir, &away).expect("rename");
    fs::create_dir(&request.dir).expect("directory");
    fs::write(request.dir.join("precious"), "x").expect("file");
    finish(&store);
    assert!(request.dir.join("precious").exists());
    assert_eq!(store.node.unfinished_bundles().expect("list"), []);
    for dir in [&request.dir, &away] {
        fs::remove_dir_all(dir).expect("remove");
    }
    assert_no_bundle(&store);
}

/// A store that is asked while a bundle is being made, as another process would ask it.
struct Watched<'s> {
    store: &'s Store,
    seen: std::cell::Cell<u32>,
}

impl Watched<'_> {
    fn look(&self) {
        self.seen.set(self.seen.get() + 1);
        finish(self.store);
        let failure = make(self.store, &place(self.store).0).expect_err("it is being made");
        assert_eq!(
            failure.kind,
            cairn_types::ErrorKind::Unavailable,
            "{failure}"
        );
    }
}

impl cairn_bundle::Store for Watched<'_> {
    type Error = Failure;

    fn begin(
        &self,
        request: &BundleRequest,
        dir: &HostDir,
    ) -> Result<cairn_bundle::Begun, Failure> {
        self.look();
        let begun = Direct(&self.store.node).begin(request, dir);
        self.look();
        begun
    }

    fn complete(&self, dir: &HostDir, copied: bool) -> Result<(), Failure> {
        self.look();
        Direct(&self.store.node).complete(dir, copied)
    }

    fn withdraw(&self, dir: &HostDir) -> Result<(), Failure> {
        Direct(&self.store.node).withdraw(dir)?;
        self.look();
        Ok(())
    }

    fn discard(&self, dir: &HostDir) -> Result<(), Failure> {
        self.look();
        Direct(&self.store.node).discard(dir)
    }

    fn get(&self, dir: &HostDir) -> Result<Option<cairn_bundle::Known>, Failure> {
        Direct(&self.store.node).get(dir)
    }

    fn unfinished(&self) -> Result<Vec<String>, Failure> {
        Direct(&self.store.node).unfinished()
    }
}

#[test]
fn nobody_tidies_up_while_somebody_is_at_work() {
    let store = image();
    let (request, _) = place(&store);
    let watched = Watched {
        store: &store,
        seen: std::cell::Cell::new(0),
    };
    let made = cairn_bundle::create(&watched, &request).expect("create");
    assert_eq!(watched.seen.get(), 3);
    assert_eq!(contained("runc", &made.dir), "");
    cairn_bundle::remove(&watched, &made.dir).expect("remove");
    assert_eq!(watched.seen.get(), 5);
    assert_no_bundle(&store);
}
