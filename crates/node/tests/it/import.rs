//! Archives of every kind come in as the same image.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Instant,
};

use cairn_node::{Event, ImageInfo, ImportRequest, Progress, Source};
use cairn_types::{Digest, ErrorKind, ImageName, LayerTiming};
use serde_json::json;

use crate::common::*;

/// The image is whole, unpacked, and reads as its layers say.
#[track_caller]
fn check_image(store: &Store, name: &str) -> ImageInfo {
    let name = ImageName::parse(name).expect("name");
    let image = store.node.image(&store.ns, &name).expect("image");
    assert!(image.complete, "missing {:?}", image.missing);
    assert_eq!(image.platforms, [host()]);
    assert!(image.unpacked_size.expect("unpacked") > 0);
    let target = store.mount(&name);
    let motd = fs::read_to_string(target.join("etc/motd")).expect("etc/motd");
    let whited_out = target.join("bin/hello").exists();
    store.unmount(&target);
    assert_eq!((motd.as_str(), whited_out), ("welcome\n", false));
    image
}

#[test]
fn unpacked_layers_need_not_stay_packed() {
    let (layout, store) = (simple(), Store::new());
    let discard = |r: &mut ImportRequest| r.discard = true;
    store
        .import_with(Source::Path(layout.path().to_owned()), discard)
        .expect("import");
    let name = ImageName::parse("docker.io/shop/web:1").expect("name");
    let image = store.node.image(&store.ns, &name).expect("image");
    let layers = two_layers().len();
    assert_eq!((image.complete, image.missing.len()), (false, layers));
    assert!(image.unpacked_size.expect("unpacked") > 0);
    // Manifest and configuration are there, and stay.
    store.node.gc(false).expect("collection");
    assert_eq!(store.node.content().list(&store.ns).expect("list").len(), 2);
    // A power cut takes nothing: the files are on the disk, since nothing is left to make them from.
    assert_eq!(store.node.snapshots().pending_since(), None);
    let target = store.mount(&name);
    assert!(target.join("etc/motd").exists());
    store.unmount(&target);
    // What another image needs packed stays, and so does what was there before.
    let store = Store::new();
    store.import(layout.path()).expect("import");
    store
        .import_with(Source::Path(layout.path().to_owned()), discard)
        .expect("import again");
    assert!(store.node.image(&store.ns, &name).expect("image").complete);
}

/// Who waits for an import hears of the same.
#[derive(Default)]
struct Timed(Mutex<Vec<LayerTiming>>);

impl Progress for Timed {
    fn event(&self, event: Event) {
        if let Event::Timed { timing, .. } = event {
            self.0.lock().expect("lock").push(timing);
        }
    }
}

#[test]
fn it_is_known_how_long_each_layer_took() {
    let (layout, store) = (simple(), Store::new());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    store
        .node
        .observe_layers(move |timing| hears.lock().expect("lock").push(*timing));
    let timed = Timed::default();
    let began = Instant::now();
    let request = ImportRequest::new(store.ns.clone(), Source::Path(layout.path().to_owned()));
    store.node.import(request, &timed).expect("import");
    let took = began.elapsed();
    let recorded = || {
        let name = ImageName::parse("docker.io/shop/web:1").expect("name");
        let image = store.node.inspect(&store.ns, &name, None).expect("inspect");
        let nodes = image.tree.children.into_iter();
        nodes.filter_map(|node| node.timing).collect::<Vec<_>>()
    };
    let timings = recorded();
    assert_eq!(timings.len(), two_layers().len());
    for timing in &timings {
        let sum = timing.sum();
        assert!(!sum.is_zero() && sum <= took, "{timing:?} of {took:?}");
    }
    // Records have no nanoseconds.
    let micros = |timing: &LayerTiming| timing.parts().map(|(_, part)| part.as_micros());
    let mut told: Vec<_> = heard.lock().expect("lock").iter().map(micros).collect();
    let mut known: Vec<_> = timings.iter().map(micros).collect();
    told.sort_unstable();
    known.sort_unstable();
    assert_eq!(told, known);
    let mut told: Vec<_> = timed.0.lock().expect("lock").iter().map(micros).collect();
    told.sort_unstable();
    assert_eq!(told, known);
    // What is here already keeps the time it took, and is not told again.
    store.import(layout.path()).expect("import again");
    assert_eq!(recorded(), timings);
    assert_eq!(heard.lock().expect("lock").len(), timings.len());
}

#[test]
fn one_layout_in_every_wrapping_is_the_same_image() {
    let layout = simple();
    let expected = layout.entries[0]["digest"].as_str().expect("digest");
    let archive = layout.archive();
    let file = layout.dir.path().join("../cairn-test-archive.tar");
    let file = file.with_file_name(format!("cairn-{}.tar", std::process::id()));
    let name = "docker.io/shop/web:1";

    let store = Store::new();
    store.import(layout.path()).expect("directory");
    assert_eq!(
        check_image(&store, name).target.digest.to_string(),
        expected
    );

    fs::write(&file, &archive).expect("write");
    let store = Store::new();
    store.import(&file).expect("plain file");
    assert_eq!(
        check_image(&store, name).target.digest.to_string(),
        expected
    );

    for program in ["gzip", "xz", "bzip2", "zstd"] {
        fs::write(&file, pack(program, &archive)).expect("write");
        let store = Store::new();
        store
            .import(&file)
            .unwrap_or_else(|err| panic!("{program}: {err:?}"));
        assert_eq!(
            check_image(&store, name).target.digest.to_string(),
            expected
        );
    }
    fs::remove_file(&file).expect("remove");

    let store = Store::new();
    store.import_with(stream(archive), |_| ()).expect("stream");
    assert_eq!(
        check_image(&store, name).target.digest.to_string(),
        expected
    );
}

#[test]
fn importing_again_changes_nothing() {
    let layout = simple();
    let store = Store::new();
    let first = store.import(layout.path()).expect("first");
    let blobs = store.node.content().list(&store.ns).expect("blobs").len();
    let again = store.import(layout.path()).expect("again");
    assert_eq!(first[0].target, again[0].target);
    assert_eq!(
        store.node.content().list(&store.ns).expect("blobs").len(),
        blobs
    );
    check_image(&store, "docker.io/shop/web:1");
}

#[test]
fn garbage_collection_labels_are_containerds() {
    let layout = simple();
    let store = Store::new();
    let imported = store.import(layout.path()).expect("import");
    let labels = |digest: &Digest| {
        let info = store.node.content().info(&store.ns, digest);
        info.expect("blob").labels
    };
    let manifest = labels(&imported[0].target.digest);
    let keys: Vec<&str> = manifest.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "containerd.io/gc.ref.content.config",
            "containerd.io/gc.ref.content.l.0",
            "containerd.io/gc.ref.content.l.1"
        ]
    );
    let digest = |key: &str| Digest::parse(&manifest[key]).expect("digest");
    let config = labels(&digest("containerd.io/gc.ref.content.config"));
    assert!(config.contains_key("containerd.io/gc.ref.snapshot.overlayfs"));
    let layer = labels(&digest("containerd.io/gc.ref.content.l.0"));
    let plain = &two_layers()[0].2;
    assert_eq!(
        layer["containerd.io/uncompressed"],
        Digest::sha256(plain).to_string()
    );
}

#[test]
fn images_of_umoci_come_in() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let layout = dir.path().join("layout");
    let image = format!("{}:app", text(&layout));
    run("umoci", &["init", "--layout", text(&layout)]);
    run("umoci", &["new", "--image", &image]);
    for (path, content) in [("etc/motd", "welcome\n"), ("bin/other", "x")] {
        let bundle = dir.path().join("bundle");
        run("umoci", &["unpack", "--image", &image, text(&bundle)]);
        let place = bundle.join("rootfs").join(path);
        fs::create_dir_all(place.parent().expect("parent")).expect("directory");
        fs::write(place, content).expect("write");
        run("umoci", &["repack", "--image", &image, text(&bundle)]);
        fs::remove_dir_all(bundle).expect("remove");
    }
    let store = Store::new();
    let imported = store
        .import_with(Source::Path(layout), |r| {
            r.base_name = Some("quay.io/a/b".to_owned())
        })
        .expect("import");
    assert_eq!(imported[0].name.as_str(), "quay.io/a/b:app");
    check_image(&store, "quay.io/a/b:app");
}

#[test]
fn docker_archives_of_skopeo_come_in() {
    let layout = simple();
    let dir = tempfile::tempdir().expect("temporary directory");
    let out = dir.path().join("docker.tar");
    let from = format!("oci:{}:shop/web:1", text(layout.path()));
    let to = format!("docker-archive:{}:shop/web:1", text(&out));
    run("skopeo", &["--insecure-policy", "copy", &from, &to]);
    for source in [
        Source::Path(out.clone()),
        stream(fs::read(&out).expect("archive")),
    ] {
        let store = Store::new();
        let imported = store.import_with(source, |_| ()).expect("import");
        assert_eq!(imported[0].name.as_str(), "docker.io/shop/web:1");
        check_image(&store, "docker.io/shop/web:1");
    }
}

/// Docker before 1.10: `repositories`, and a directory for each layer.
#[test]
fn archives_without_manifest_json_come_in() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (low, top) = ("a".repeat(64), "b".repeat(64));
    let layers = two_layers();
    for (id, parent, layer) in [(&low, None, &layers[0]), (&top, Some(&low), &layers[1])] {
        let place = dir.path().join(id);
        fs::create_dir(&place).expect("directory");
        fs::write(place.join("VERSION"), "1.0").expect("write");
        fs::write(place.join("layer.tar"), &layer.2).expect("write");
        let mut json = json!({
            "id": id, "created": "2015-01-01T00:00:00Z", "os": "linux",
            "architecture": cairn_types::Platform::host().architecture,
            "container_config": {"Cmd": ["/bin/sh", "-c", "make"]},
        });
        if let Some(parent) = parent {
            json["parent"] = json!(parent);
        }
        fs::write(place.join("json"), json.to_string()).expect("write");
    }
    let repositories = json!({"shop/web": {"1": top}});
    fs::write(dir.path().join("repositories"), repositories.to_string()).expect("write");
    let archive = archive_of(dir.path());
    let mut digests = Vec::new();
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), &archive).expect("write");
    for source in [Source::Path(file.path().to_owned()), stream(archive)] {
        let store = Store::new();
        store.import_with(source, |_| ()).expect("import");
        digests.push(check_image(&store, "docker.io/shop/web:1").target.digest);
    }
    assert_eq!(digests[0], digests[1]);

    // Saved by ID: no names at all.
    fs::remove_file(dir.path().join("repositories")).expect("remove");
    let store = Store::new();
    let imported = store
        .import_with(stream(archive_of(dir.path())), |_| ())
        .expect("import");
    assert!(
        imported[0].name.as_str().starts_with("import-"),
        "{}",
        imported[0].name
    );
    assert_eq!(imported[0].target.digest, digests[0]);
}

/// Docker 1.10 to 24, with the layers of a second image as links to the first one's.
#[test]
fn links_between_layers_are_followed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let layers = two_layers();
    let config = json!({
        "architecture": cairn_types::Platform::host().architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [
            Digest::sha256(&layers[0].2).to_string(), Digest::sha256(&layers[1].2).to_string(),
        ]},
    });
    let config = config.to_string();
    let config_name = format!("{}.json", Digest::sha256(config.as_bytes()).hex());
    fs::write(dir.path().join(&config_name), &config).expect("write");
    for (id, layer) in [("x", &layers[0]), ("y", &layers[1])] {
        fs::create_dir(dir.path().join(id)).expect("directory");
        fs::write(dir.path().join(id).join("layer.tar"), &layer.2).expect("write");
    }
    fs::create_dir(dir.path().join("z")).expect("directory");
    std::os::unix::fs::symlink("../x/layer.tar", dir.path().join("z/layer.tar")).expect("link");
    let manifest = json!([{
        "Config": config_name, "RepoTags": ["shop/web:1", "other:2"],
        "Layers": ["z/layer.tar", "y/layer.tar"],
    }]);
    fs::write(dir.path().join("manifest.json"), manifest.to_string()).expect("write");
    let store = Store::new();
    let imported = store
        .import_with(stream(archive_of(dir.path())), |_| ())
        .expect("import");
    let names: Vec<&str> = imported.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["docker.io/shop/web:1", "docker.io/library/other:2"]);
    check_image(&store, "docker.io/shop/web:1");
    // A plain directory of the same shape is read as well.
    let store = Store::new();
    store.import(dir.path()).expect("directory");
    check_image(&store, "docker.io/library/other:2");
}

/// Docker 25 and later write both forms into one archive; the layout has the registry's digests.
#[test]
fn of_both_forms_the_layout_is_read() {
    let layout = simple();
    fs::write(layout.path().join("manifest.json"), "[]").expect("write");
    let store = Store::new();
    let imported = store
        .import_with(stream(layout.archive()), |_| ())
        .expect("import");
    let expected = layout.entries[0]["digest"].as_str().expect("digest");
    assert_eq!(imported[0].target.digest.to_string(), expected);
}

#[test]
fn only_the_platform_asked_for_is_kept() {
    let mut layout = Layout::new();
    let mut here = layout.manifest(&host(), &two_layers());
    let (os, arch) = {
        let host = cairn_types::Platform::host();
        (host.os, host.architecture)
    };
    here["platform"] = json!({"os": os, "architecture": arch});
    let other = tar(&[("other", "other\n")]);
    let mut there = layout.manifest("linux/s390x", &[(OCI_LAYER, other.clone(), other)]);
    there["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let proof = layout.json("application/vnd.in-toto+json", &json!({"proof": true}));
    let config = layout.json(OCI_CONFIG, &json!({
        "architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": []},
    }));
    let mut about = layout.json(
        OCI_MANIFEST,
        &json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [proof],
        }),
    );
    about["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    about["annotations"] = json!({"vnd.docker.reference.digest": here["digest"]});
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [there, here, about],
    });
    let index = layout.json(OCI_INDEX, &index);
    layout.name(index, "shop/web:1");
    layout.finish();

    let store = Store::new();
    let has = |store: &Store, descriptor: &serde_json::Value| {
        let digest = Digest::parse(descriptor["digest"].as_str().expect("digest"));
        store
            .node
            .content()
            .exists(&store.ns, &digest.expect("digest"))
            .expect("exists")
    };
    store.import(layout.path()).expect("import");
    check_image(&store, "docker.io/shop/web:1");
    assert!(has(&store, &here) && has(&store, &about) && has(&store, &proof));
    assert!(!has(&store, &there));

    let store = Store::new();
    store
        .import_with(Source::Path(layout.path().to_owned()), |r| {
            r.all_platforms = true
        })
        .expect("import all");
    assert!(has(&store, &there) && has(&store, &here) && has(&store, &proof));

    // The other platform's blobs may be missing altogether.
    let there_path = layout.blob_path(there["digest"].as_str().expect("digest"));
    fs::remove_file(there_path).expect("remove");
    let store = Store::new();
    store
        .import(layout.path())
        .expect("import without the other");
    check_image(&store, "docker.io/shop/web:1");
}

/// containerd's checkpoints list a CRIU image and others' parts beside the manifest.
#[test]
fn what_an_index_lists_beside_manifests_is_kept() {
    let mut layout = Layout::new();
    let image = layout.manifest(&host(), &two_layers());
    let part = layout.blob(
        "application/vnd.containerd.container.criu.checkpoint.criu.tar",
        b"criu",
    );
    let mut elsewhere = layout.blob("application/vnd.acme", b"another platform's");
    elsewhere["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [image, part, elsewhere],
    });
    let index = layout.json(OCI_INDEX, &index);
    layout.name(index, "shop/web:1");
    layout.finish();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    check_image(&store, "docker.io/shop/web:1");
    let has = |descriptor: &serde_json::Value| {
        let digest = Digest::parse(descriptor["digest"].as_str().expect("digest"));
        let content = store.node.content();
        content
            .exists(&store.ns, &digest.expect("digest"))
            .expect("exists")
    };
    assert!(has(&part));
    assert!(!has(&elsewhere));
}

/// Some tools list the platforms of one image side by side in `index.json` itself.
#[test]
fn a_flat_list_of_platforms_is_chosen_from() {
    let mut layout = Layout::new();
    let host = cairn_types::Platform::host();
    let mut here = layout.manifest(&host.to_string(), &two_layers());
    here["platform"] = json!({"os": host.os, "architecture": host.architecture});
    layout.name(here, "shop/web:1");
    let absent = Digest::sha256(b"not in the layout").to_string();
    let there = json!({
        "mediaType": OCI_MANIFEST, "digest": absent, "size": 17,
        "platform": {"os": "linux", "architecture": "s390x"},
    });
    layout.name(there, "shop/web:1");
    layout.finish();
    let store = Store::new();
    assert_eq!(store.import(layout.path()).expect("import").len(), 1);
    check_image(&store, "docker.io/shop/web:1");
}

/// One who has gone away.
struct Gone;

impl Progress for Gone {
    fn event(&self, _event: Event) {}

    fn given_up(&self) -> bool {
        true
    }
}

#[test]
fn an_import_that_nobody_waits_for_ends() {
    let layout = simple();
    let store = Store::new();
    let source = Source::Path(layout.path().to_owned());
    let request = ImportRequest::new(store.ns.clone(), source);
    let failure = store.node.import(request, &Gone).expect_err("given up");
    assert_eq!(failure.kind, ErrorKind::Canceled);
    assert_eq!(store.node.images(&store.ns).expect("images"), []);
    let uploads = store.node.content().ingests(&store.ns);
    assert_eq!(uploads.expect("uploads").len(), 0);
    store.import(layout.path()).expect("again");
    check_image(&store, "docker.io/shop/web:1");
}

#[test]
fn an_archive_is_called_what_its_sender_calls_it() {
    let store = Store::new();
    let source = Source::Named {
        name: "./web.tar".to_owned(),
        path: store.dir.path().join("no.tar"),
    };
    let failure = store.import_with(source, |_| ()).expect_err("no file");
    let object = ("archive".to_owned(), "./web.tar".to_owned());
    assert_eq!(failure.object, Some(object));
}
