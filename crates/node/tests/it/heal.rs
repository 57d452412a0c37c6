//! Damage that an import meets is mended by it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use cairn_content::{Flaw, Mended};
use cairn_meta::{Tx, schema};
use cairn_node::{Severity, Source};
use cairn_sys::raw::Caching;
use cairn_types::{Digest, ImageName, Labels, SnapshotKey};

use crate::{
    common::*,
    fsck::{blob_file, check, flip, parts},
};

fn keys(store: &Store) -> Vec<SnapshotKey> {
    let all = store.node.snapshots().list(&store.ns).expect("snapshots");
    all.into_iter().map(|info| info.key).collect()
}

#[track_caller]
fn assert_whole(store: &Store, layout: &Layout) {
    for digest in parts(layout) {
        let digest = Digest::parse(&digest).expect("digest");
        let flaw = store
            .node
            .content()
            .examine(&digest, Caching::Kept, &mut |_| true);
        assert_eq!(flaw.expect("examined"), None, "{digest}");
    }
    let name = ImageName::parse("docker.io/shop/web:1").expect("name");
    let target = store.mount(&name);
    assert_eq!(
        fs::read(target.join("etc/motd")).expect("file"),
        b"welcome\n"
    );
    assert!(!target.join("bin/hello").exists());
    store.unmount(&target);
}

/// How each archive comes.
fn ways(layout: &Layout) -> [Box<dyn Fn() -> Source + '_>; 2] {
    let path = layout.path().to_owned();
    [
        Box::new(move || Source::Path(path.clone())),
        Box::new(|| stream(layout.archive())),
    ]
}

#[test]
fn a_file_that_is_missing_or_cut_is_brought_again() {
    let layout = simple();
    for way in ways(&layout) {
        let store = Store::new();
        let import = || store.import_with(way(), |_| ()).expect("import");
        import();
        for digest in parts(&layout) {
            let before = store
                .node
                .content()
                .info(&store.ns, &Digest::parse(&digest).expect("d"));
            fs::remove_file(blob_file(&store, &digest)).expect("remove");
            import();
            assert_whole(&store, &layout);
            fs::set_permissions(
                blob_file(&store, &digest),
                fs::Permissions::from_mode(0o644),
            )
            .expect("mode");
            fs::write(blob_file(&store, &digest), b"").expect("cut");
            import();
            assert_whole(&store, &layout);
            let after = store
                .node
                .content()
                .info(&store.ns, &Digest::parse(&digest).expect("d"));
            assert_eq!(after.expect("info").labels, before.expect("info").labels);
        }
    }
}

/// Nobody has read the bytes since, so that nobody knows.
#[test]
fn a_flipped_bit_in_a_layer_that_is_unpacked_again_is_mended_on_the_way() {
    let layout = simple();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    for digest in &parts(&layout)[2..] {
        let bottom = keys(&store);
        for key in bottom {
            // Those above go with it.
            let _ = store.node.remove_snapshot(&store.ns, &key, true);
        }
        assert_eq!(keys(&store), []);
        flip(&blob_file(&store, digest));
        store
            .import(layout.path())
            .expect("import over a damaged blob");
        assert_whole(&store, &layout);
    }
}

#[test]
fn flipped_bits_in_documents_are_mended() {
    let layout = simple();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    for digest in &parts(&layout)[..2] {
        flip(&blob_file(&store, digest));
        store
            .import(layout.path())
            .expect("import over a damaged document");
        assert_whole(&store, &layout);
    }
}

#[test]
fn the_directory_of_a_snapshot_that_is_missing_is_made_again() {
    let layout = simple();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let directories = || {
        let entries = fs::read_dir(store.node.root().join("snapshots")).expect("directory");
        let paths = entries.map(|entry| entry.expect("entry").path());
        let mut paths: Vec<PathBuf> = paths.filter(|path| !path.ends_with("trash")).collect();
        paths.sort();
        paths
    };
    let all = directories();
    assert_eq!(all.len(), 2);
    for directory in &all {
        for lost in [directory.clone(), directory.join("fs")] {
            fs::remove_dir_all(&lost).expect("remove");
            store.import(layout.path()).expect("import");
            assert_whole(&store, &layout);
            store.node.snapshots().wait_removed();
            assert_eq!(directories(), all);
        }
    }
}

/// Also one that others stand on.
#[test]
fn the_lost_record_of_a_snapshot_is_made_again() {
    let layout = simple();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    for info in store.node.snapshots().list(&store.ns).expect("snapshots") {
        let id = (store.ns.clone(), info.key.clone());
        let lost = store
            .node
            .meta()
            .write(move |tx: &mut Tx<'_>| tx.delete(&schema::SNAPSHOTS, &id));
        lost.expect("delete");
        store.import(layout.path()).expect("import");
        let again = store.node.snapshots().stat(&store.ns, &info.key);
        assert_eq!(again.expect("snapshot").parent, info.parent);
        assert_whole(&store, &layout);
    }
}

/// Something in the place of a file that cannot be opened, until dropped.
struct Shut<'a>(&'a Path);

impl<'a> Shut<'a> {
    /// With a file that the kernel lets nobody read, whoever asks: as long as the file, which is empty.
    fn over(file: &'a Path) -> Shut<'a> {
        let shut = Path::new("/proc/sys/vm/compact_memory");
        assert!(fs::read(shut).is_err());
        cairn_sys::mount::bind(shut, file, false).expect("bind");
        Shut(file)
    }
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        cairn_sys::mount::unmount_own(self.0).expect("unmount");
    }
}

/// A disk may be ill for a moment: what cannot be read is told of, and may be whole for all that is known.
#[test]
fn a_file_that_cannot_be_read_is_told_of_and_stays() {
    let store = Store::new();
    let content = store.node.content();
    let digest = content.put(&store.ns, b"", None, Labels::new());
    let digest = digest.expect("put");
    // The records have its bytes no longer.
    content.flush().expect("flush");
    let file = blob_file(&store, &digest.to_string());
    let shut = Shut::over(&file);
    let flaw = content
        .examine(&digest, Caching::Kept, &mut |_| true)
        .expect("examined");
    assert!(matches!(flaw, Some(Flaw::Unreadable(_))), "{flaw:?}");
    assert!(!content.is_sound(&digest).expect("look"));
    assert_eq!(
        content.give_up(&digest, &mut |_| true).expect("left"),
        Mended::Unread
    );
    let (findings, _) = check(&store, true, true);
    let named = findings.iter().find(|one| one.kind == "blob-unreadable");
    let finding = named.unwrap_or_else(|| panic!("{findings:?}"));
    assert_eq!(
        (finding.severity, finding.repaired),
        (Severity::Damage, false)
    );
    assert!(finding.action.contains("stays where it is"));
    // Whoever brings it is let.
    assert!(!content.is_whole(&store.ns, &digest).expect("look"));
    drop(shut);
    assert_eq!(fs::read(&file).expect("file"), b"");
    assert_eq!(
        content.give_up(&digest, &mut |_| true).expect("whole"),
        Mended::Nothing
    );
    assert!(content.is_sound(&digest).expect("look"));
}
