//! What is done with images once they are there.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path};

use cairn_node::{ExportRequest, Failure, Silent, Tagged};
use cairn_types::{ErrorKind, ImageName, Namespace};

use crate::common::*;

fn name(text: &str) -> ImageName {
    ImageName::parse(text).expect("name")
}

fn export(store: &Store, names: &[&str], path: &Path) -> u64 {
    let mut out = fs::File::create(path).expect("create");
    export_to(store, names, &mut out).expect("export")
}

fn export_to(store: &Store, names: &[&str], out: &mut dyn Write) -> Result<u64, Failure> {
    let request = ExportRequest {
        ns: store.ns.clone(),
        out,
        names: names.iter().map(|n| name(n)).collect(),
        platforms: Vec::new(),
        any_platform: false,
        all_platforms: false,
        skip_manifest_json: false,
        skip_non_distributable: false,
        only_attestations: false,
    };
    store.node.export(request, &Silent)
}

#[test]
fn what_is_exported_is_read_by_others_and_by_us() {
    let store = Store::new();
    let imported = store.import(simple().path()).expect("import");
    let dir = tempfile::tempdir().expect("temporary directory");
    let out = dir.path().join("out.tar");
    let length = export(&store, &["docker.io/shop/web:1"], &out);
    assert_eq!(length, fs::metadata(&out).expect("archive").len());
    for source in ["oci-archive", "docker-archive"] {
        let from = format!("{source}:{}", text(&out));
        let to = format!("dir:{}", text(&dir.path().join(source)));
        run("skopeo", &["--insecure-policy", "copy", &from, &to]);
    }
    let manifest = fs::read(dir.path().join("oci-archive/manifest.json")).expect("manifest");
    assert_eq!(
        cairn_types::Digest::sha256(&manifest),
        imported[0].target.digest
    );
    // umoci reads layouts only as directories.
    let layout = dir.path().join("layout");
    fs::create_dir(&layout).expect("directory");
    run("tar", &["-xf", text(&out), "-C", text(&layout)]);
    let bundle = dir.path().join("bundle");
    run(
        "umoci",
        &[
            "unpack",
            "--image",
            &format!("{}:1", text(&layout)),
            text(&bundle),
        ],
    );
    let motd = fs::read_to_string(bundle.join("rootfs/etc/motd")).expect("motd");
    assert_eq!(motd, "welcome\n");

    let other = Store::new();
    let again = other.import(&out).expect("import again");
    assert_eq!(again[0].name, imported[0].name);
    assert_eq!(again[0].target.digest, imported[0].target.digest);
    let twice = dir.path().join("twice.tar");
    export(&other, &["docker.io/shop/web:1"], &twice);
    assert!(fs::read(&out).expect("first") == fs::read(&twice).expect("second"));
}

#[test]
fn damage_is_found_while_exporting() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let digest = cairn_types::Digest::sha256(&two_layers()[0].1);
    let path = store
        .node
        .root()
        .join("content/blobs/sha256")
        .join(digest.hex());
    let mut bytes = fs::read(&path).expect("blob");
    bytes[20] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    fs::write(&path, bytes).expect("damage");
    let exported = export_to(&store, &["docker.io/shop/web:1"], &mut std::io::sink());
    let failure = exported.expect_err("damaged");
    assert_eq!(failure.kind, ErrorKind::DataLoss);
    assert_eq!(failure.reason, format!("blob {digest} is damaged"));
}

#[test]
fn collecting_frees_everything_but_what_is_named() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let (one, two) = (
        name("docker.io/shop/web:1"),
        name("docker.io/library/two:latest"),
    );
    let tagged = store.node.tag(&store.ns, &one, &two, false).expect("tag");
    assert_eq!(tagged, Tagged::Created);
    store
        .node
        .remove_image(&store.ns, &one, false)
        .expect("remove");
    let report = store.node.gc(false).expect("collect");
    assert_eq!((report.content.removed, report.snapshots.removed), (0, 0));
    assert!(store.node.image(&store.ns, &two).expect("image").complete);

    store
        .node
        .remove_image(&store.ns, &two, false)
        .expect("remove");
    let dry = store.node.gc(true).expect("count");
    assert_eq!((dry.content.removed, dry.snapshots.removed), (4, 2));
    let rows = store.node.df().expect("usage");
    assert_eq!(rows[1].reclaimable, dry.content.freed);
    assert_eq!(rows[2].reclaimable, dry.snapshots.freed);
    let report = store.node.gc(false).expect("collect");
    assert_eq!(
        (report.content, report.snapshots),
        (dry.content, dry.snapshots)
    );
    store.assert_empty();
}

#[test]
fn names_are_found_as_people_type_them() {
    let store = Store::new();
    let imported = store.import(simple().path()).expect("import");
    let whole = name("docker.io/shop/web:1");
    let digest = imported[0].target.digest.clone();
    for text in [
        "docker.io/shop/web:1",
        "shop/web:1",
        &digest.to_string(),
        &digest.hex()[..7],
    ] {
        let found = store.node.resolve(&store.ns, text, "inspect image");
        assert_eq!(found.expect(text), whole);
    }
    let found = store
        .node
        .resolve_digest(&store.ns, &digest.hex()[..12], "get blob");
    assert_eq!(found.expect("blob"), digest);

    let other = Namespace::parse("k8s.io").expect("namespace");
    let failure = store
        .node
        .resolve(&other, "shop/web:1", "inspect image")
        .expect_err("other");
    assert_eq!(
        failure.to_string(),
        "cannot inspect image docker.io/shop/web:1: not found"
    );
    assert_eq!(failure.found_in, ["default"]);
    assert_eq!(
        failure.next,
        ["cairn -n default images inspect docker.io/shop/web:1"]
    );
    let failure = store
        .node
        .resolve(&store.ns, "shop/wbe:1", "inspect image")
        .expect_err("typo");
    assert_eq!(failure.causes, ["nearest name: docker.io/shop/web:1"]);
    let failure = store
        .node
        .resolve(&store.ns, "Busybox:1", "inspect image")
        .expect_err("case");
    assert_eq!(
        (failure.kind, &failure.next[..]),
        (ErrorKind::InvalidArgument, &["busybox:1".to_owned()][..])
    );
}

/// A layer that was unpacked before its parents takes their directories' attributes.
#[test]
fn invented_directories_are_those_of_the_layer_below() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("secret")).expect("directory");
    fs::set_permissions(tree.join("secret"), fs::Permissions::from_mode(0o700)).expect("chmod");
    std::os::unix::fs::chown(tree.join("secret"), Some(1000), Some(1001)).expect("chown");
    let out = dir.path().join("first.tar");
    run("tar", &["-cf", text(&out), "-C", text(&tree), "."]);
    let first = fs::read(&out).expect("tar");
    let second = tar(&[("secret/file", "x")]);
    let mut layout = Layout::new();
    let layers = [first, second].map(|plain| (OCI_LAYER, plain.clone(), plain));
    let manifest = layout.manifest(&host(), &layers);
    layout.name(manifest, "a:1");
    layout.finish();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let target = store.mount(&name("docker.io/library/a:1"));
    let secret = fs::metadata(target.join("secret")).expect("secret");
    store.unmount(&target);
    let owner = (
        std::os::unix::fs::MetadataExt::uid(&secret),
        std::os::unix::fs::MetadataExt::gid(&secret),
    );
    assert_eq!(
        (owner, secret.permissions().mode() & 0o7777),
        ((1000, 1001), 0o700)
    );
}

#[test]
fn layers_may_repeat_and_may_be_none() {
    let plain = tar(&[("a", "a")]);
    for count in [0, 1, 20] {
        let mut layout = Layout::new();
        let layers = vec![(OCI_LAYER, plain.clone(), plain.clone()); count];
        let manifest = layout.manifest(&host(), &layers);
        layout.name(manifest, "a:1");
        layout.finish();
        let store = Store::new();
        store.import(layout.path()).expect("import");
        assert_eq!(
            store
                .node
                .snapshots()
                .list(&store.ns)
                .expect("snapshots")
                .len(),
            count
        );
        let target = store.mount(&name("docker.io/library/a:1"));
        let files = fs::read_dir(&target).expect("files").count();
        store.unmount(&target);
        assert_eq!(files, count.min(1));
    }
}

#[test]
fn a_store_is_opened_once_and_never_from_the_future() {
    let store = Store::new();
    let root = store.node.root().to_owned();
    let mode = fs::metadata(&root).expect("root").permissions().mode();
    assert_eq!(mode & 0o7777, 0o711);
    let failure = open(&root).map(drop).expect_err("locked");
    assert_eq!(failure.kind, ErrorKind::Unavailable);
    assert!(
        failure
            .reason
            .contains(&format!("(pid {})", std::process::id())),
        "{failure}"
    );
    store.import(simple().path()).expect("import");
    drop(store.node);
    let node = open_again(&root);
    assert_eq!(node.images(&store.ns).expect("images").len(), 1);
    drop(node);
    fs::write(
        root.join("layout"),
        r#"{"layout":3,"written_by":"cairn 0.9.1"}"#,
    )
    .expect("write");
    let failure = open(&root).map(drop).expect_err("newer");
    assert_eq!(failure.reason, "store layout 3, this cairnd reads up to 1");
    assert_eq!(failure.causes, ["last written by cairn 0.9.1"]);
    let next = ["install cairn >= 0.9", "go back: man cairnd, DOWNGRADE"];
    assert_eq!(failure.next, next);
}

/// As after a kill: nobody resumes a part of an import, but a client comes back for its own upload.
#[test]
fn opening_throws_away_what_a_dead_import_left() {
    let store = Store::new();
    let writer = |reference: &str| {
        let reference = cairn_types::IngestRef::parse(reference).expect("ref");
        let ingest = store.node.content().writer(&store.ns, &reference, None, 0);
        std::io::Write::write_all(&mut ingest.expect("writer"), b"some bytes").expect("write");
    };
    writer("cairn.import-4711-0");
    writer("client-upload");
    let Store { dir, node, ns } = store;
    drop(node);
    let node = open_again(&dir.path().join("root"));
    let left = node.content().ingests(&ns).expect("ingests");
    let left: Vec<&str> = left.iter().map(|info| info.reference.as_str()).collect();
    assert_eq!(left, ["client-upload"]);
    assert_eq!(files_below(&node.root().join("content/ingest")), 1);
}

#[test]
fn a_root_whose_mounts_could_not_be_written_down_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let dir = tempfile::tempdir().expect("temporary directory");
    let root = dir
        .path()
        .join(std::ffi::OsString::from_vec(b"not\xffutf8".to_vec()));
    let failure = open(&root).err().expect("refused");
    assert_eq!(failure.kind, cairn_types::ErrorKind::InvalidArgument);
    assert!(!root.exists(), "nothing was made");
}

#[test]
fn a_store_that_others_can_write_to_is_not_opened() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let root = dir.path().join("root");
    drop(open(&root).expect("open"));
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    };
    let owner = |path: &Path, uid| {
        std::os::unix::fs::chown(path, Some(uid), None).expect("chown");
    };
    // Programs that other tests start have the lock's descriptor for a moment.
    let opened = || loop {
        match open(&root) {
            Err(failure) if failure.kind == ErrorKind::Unavailable => std::thread::yield_now(),
            other => return other,
        }
    };
    let refused = || {
        let failure = opened().err().expect("refused");
        assert_eq!(failure.kind, ErrorKind::PermissionDenied, "{failure}");
    };
    for wrong in [0o777, 0o1777, 0o770] {
        mode(&root, wrong);
        refused();
    }
    mode(&root, 0o711);
    for path in [root.clone(), root.join("snapshots"), root.join("meta")] {
        owner(&path, 1000);
        refused();
        owner(&path, 0);
    }
    // A mode is mended.
    mode(&root.join("snapshots"), 0o755);
    drop(opened().expect("open"));
    let mended = fs::metadata(root.join("snapshots")).expect("directory");
    assert_eq!(mended.permissions().mode() & 0o7777, 0o700);
}

/// A file system in memory.
struct Disk<'p>(&'p Path);

impl Disk<'_> {
    fn mounted<'p>(at: &'p Path, options: &str) -> Disk<'p> {
        run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", text(at)]);
        Disk(at)
    }
}

impl Drop for Disk<'_> {
    /// Records that failed are left open until the process ends, so it is only taken away.
    fn drop(&mut self) {
        run("umount", &["--lazy", text(self.0)]);
    }
}

/// On a disk of its own, which is then filled.
#[test]
fn a_store_without_room_takes_changes_again_when_there_is_some() {
    let dir = scratch();
    let root = dir.path().join("root");
    fs::create_dir(&root).expect("directory");
    let _disk = Disk::mounted(&root, "size=24m,mode=0711");
    let node = open(&root).expect("open");
    let state = node.state().expect("state");
    assert_eq!((state.engine, state.read_only), ("redb", None));
    assert_eq!(state.total_bytes, 24 << 20);
    assert!((1..=state.total_bytes).contains(&state.free_bytes));
    let kept = Namespace::parse("kept").expect("namespace");
    node.namespace_create(&kept, [].into()).expect("create");
    // Until there is no byte left.
    let zeros = fs::File::open("/dev/zero").expect("zeros");
    let mut fill = fs::File::create(root.join("fill")).expect("file");
    std::io::copy(&mut std::io::Read::take(zeros, 64 << 20), &mut fill).expect_err("full");
    let failed = (0..10_000).find_map(|number| {
        let ns = Namespace::parse(&format!("n{number}")).expect("namespace");
        let labels = [("key".to_owned(), "v".repeat(4000))].into();
        node.namespace_create(&ns, labels).err()
    });
    assert_eq!(failed.expect("full").kind, ErrorKind::ResourceExhausted);
    // Nothing failed that was begun, so nothing is in doubt.
    assert_eq!(node.state().expect("state").read_only, None);
    assert_eq!(node.namespace_list().expect("list")[0].name, kept);
    drop(fill);
    fs::remove_file(root.join("fill")).expect("remove");
    let more = Namespace::parse("more").expect("namespace");
    soon(|| node.namespace_create(&more, [].into()));
}
