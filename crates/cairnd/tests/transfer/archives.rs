//! Archives that come and go as transfers.

use std::{
    collections::BTreeMap,
    io::Read,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use cairn_proto::containerd::{
    services::images::v1::{Image, ListImagesRequest},
    types::{
        Platform,
        transfer::{
            ImageExportStream, ImageImportStream, ImageReference, ImageStore, Progress,
            UnpackConfiguration,
        },
    },
};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::common::{
    Client, Server,
    archive::{Archive, header, path},
    code,
    layer::Layer,
    sha256,
    transfer::WINDOW,
};
use crate::platforms::two_platforms;

pub(crate) const NAME: &str = "registry.test/shop/web:1";
pub(crate) const OCI: &str = "application/vnd.oci.image";

/// An id that no stream of these tests has had.
fn id(kind: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{kind}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Imports an archive; what was told of it.
pub(crate) async fn import(
    client: &Client,
    bytes: &[u8],
    store: &ImageStore,
) -> Result<Vec<Progress>, Status> {
    import_with(client, bytes, store, ImageImportStream::default()).await
}

async fn import_with(
    client: &Client,
    bytes: &[u8],
    store: &ImageStore,
    from: ImageImportStream,
) -> Result<Vec<Progress>, Status> {
    let (import, progress) = (id("import"), id("progress"));
    let stream = client.stream(&import).await?;
    let telling = client.stream(&progress).await?;
    let from = ImageImportStream {
        stream: import,
        ..from
    };
    let (done, (), told) = tokio::join!(
        client.transfer(&from, store, &progress),
        stream.send_all(bytes),
        telling.told(),
    );
    done.map(|()| told)
}

/// Exports; the archive.
pub(crate) async fn export(
    client: &Client,
    store: &ImageStore,
    to: ImageExportStream,
) -> Result<Vec<u8>, Status> {
    let export = id("export");
    let stream = client.stream(&export).await?;
    let to = ImageExportStream {
        stream: export,
        ..to
    };
    let (done, bytes) = tokio::join!(client.transfer(store, &to, ""), stream.receive_all());
    done.map(|()| bytes)
}

/// All images of a namespace, by name.
pub(crate) async fn images(client: &Client) -> Vec<Image> {
    let list = client.images().list(ListImagesRequest::default()).await;
    list.expect("list").into_inner().images
}

/// The files of an archive, with their digests.
pub(crate) fn oci(bytes: &[u8]) -> BTreeMap<String, (Vec<u8>, String)> {
    let mut archive = tar::Archive::new(bytes);
    let mut files = BTreeMap::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("entry");
        let name = entry.path().expect("path").display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("bytes");
        let digest = sha256(&bytes);
        files.insert(name, (bytes, digest));
    }
    files
}

pub(crate) fn json_of(files: &BTreeMap<String, (Vec<u8>, String)>, name: &str) -> Value {
    serde_json::from_slice(&files[name].0).expect("JSON")
}

pub(crate) fn platform(os: &str, architecture: &str) -> Platform {
    Platform {
        os: os.to_owned(),
        architecture: architecture.to_owned(),
        ..Platform::default()
    }
}

pub(crate) fn host() -> Platform {
    let host = cairn_types::Platform::host();
    platform(&host.os, &host.architecture)
}

/// Keeps the names that archives give.
pub(crate) fn named() -> ImageStore {
    ImageStore {
        extra_references: vec![ImageReference {
            name: "unused".to_owned(),
            is_prefix: true,
            allow_overwrite: true,
            ..ImageReference::default()
        }],
        ..ImageStore::default()
    }
}

pub(crate) fn unpacked(platform: Platform, snapshotter: &str) -> ImageStore {
    ImageStore {
        unpacks: vec![UnpackConfiguration {
            platform: Some(platform),
            snapshotter: snapshotter.to_owned(),
        }],
        ..named()
    }
}

fn archive(name: &str) -> Archive {
    let layers = ["one", name].map(|text| Layer::new().file(text, text).bytes());
    Archive::new(name, &layers)
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_unpacked_when_that_is_asked_for() {
    let server = Server::start().await;
    let archive = archive(NAME);
    for (ns, store, snapshots) in [
        ("packed", named(), 0),
        ("ours", unpacked(host(), "overlayfs"), 2),
        ("default", unpacked(host(), ""), 2),
    ] {
        let client = server.client(ns);
        import(&client, &archive.bytes, &store)
            .await
            .expect("import");
        assert_eq!(client.measured().await.len(), snapshots, "{ns}");
        for layer in &archive.layers {
            assert!(client.has(layer).await);
        }
    }
    let client = server.client("refused");
    for store in [
        unpacked(host(), "erofs"),
        unpacked(platform("windows", "amd64"), ""),
    ] {
        let refused = import(&client, &archive.bytes, &store).await;
        let status = refused.expect_err("a refusal");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("no unpack platforms defined"));
    }
    assert_eq!(images(&client).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_layers_are_packed_on_demand() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive(NAME);
    let from = ImageImportStream {
        force_compress: true,
        ..ImageImportStream::default()
    };
    let imported = import_with(&client, &archive.bytes, &named(), from).await;
    imported.expect("import");
    assert!(!client.has(&archive.layers[0]).await);
    let from = ImageImportStream {
        media_type: "application/x-tar".to_owned(),
        ..ImageImportStream::default()
    };
    let imported = import_with(&client, &archive.bytes, &named(), from).await;
    imported.expect("import");
    assert!(client.has(&archive.layers[0]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_cut_short_is_no_image() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive(NAME);
    let half = &archive.bytes[..archive.ends[0] + 100];
    let cut = import(&client, half, &named()).await;
    assert_eq!(code(cut), Code::DataLoss);
    let none = import(&client, b"", &named()).await;
    assert_eq!(code(none), Code::InvalidArgument);
    assert_eq!(images(&client).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_leaves_no_image() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive(NAME);
    let going = server.apart("n").await;
    let stream = going.stream("i").await.expect("a stream");
    let from = ImageImportStream {
        stream: "i".to_owned(),
        ..ImageImportStream::default()
    };
    let transfer = tokio::spawn({
        let client = client.clone();
        async move { client.transfer(&from, &named(), "").await }
    });
    let data = archive.bytes[..archive.ends[0] + 100].to_vec();
    assert!(data.len() < WINDOW);
    let data = cairn_proto::containerd::types::transfer::Data { data };
    stream.send(&data).await;
    drop((stream, going));
    assert!(transfer.await.expect("task").is_err());
    assert_eq!(images(&client).await, []);
}

/// The manifest by what it is called in an archive, as skopeo reads it.
fn skopeo(archive: &std::path::Path, name: &str) -> String {
    let image = format!("oci-archive:{}:{name}", archive.display());
    let output = Command::new("skopeo")
        .args(["inspect", "--raw", &image])
        .output();
    let output = output.expect("skopeo");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    sha256(&output.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_out_is_what_came_in() {
    let server = Server::start().await;
    let client = server.client("n");
    let (one, two) = (archive(NAME), archive("registry.test/two:2"));
    for archive in [&one, &two] {
        import(&client, &archive.bytes, &named())
            .await
            .expect("import");
    }
    let mut both = ImageStore {
        name: NAME.to_owned(),
        ..ImageStore::default()
    };
    both.extra_references = vec![ImageReference {
        name: "registry.test/two:2".to_owned(),
        ..ImageReference::default()
    }];
    let bytes = export(&client, &both, ImageExportStream::default()).await;
    let bytes = bytes.expect("export");
    let files = oci(&bytes);
    for archive in [&one, &two] {
        let blobs = archive
            .layers
            .iter()
            .chain([&archive.manifest, &archive.config]);
        for digest in blobs {
            assert_eq!(&files[&path(digest)].1, digest);
        }
    }
    assert!(files.contains_key("manifest.json"));
    let file = server.path("both.tar");
    std::fs::write(&file, &bytes).expect("file");
    assert_eq!(skopeo(&file, "1"), one.manifest);
    assert_eq!(skopeo(&file, "2"), two.manifest);
    // It comes in again, under the same names.
    let again = server.client("again");
    import(&again, &bytes, &named()).await.expect("import");
    let targets = |all: Vec<Image>| {
        let target = |image: Image| (image.name, image.target.expect("target").digest);
        all.into_iter().map(target).collect::<Vec<_>>()
    };
    let (before, after) = (images(&client).await, images(&again).await);
    assert_eq!(targets(before), targets(after));
    let to = ImageExportStream {
        skip_compatibility_manifest: true,
        ..ImageExportStream::default()
    };
    let bytes = export(&client, &both, to).await.expect("export");
    assert!(!oci(&bytes).contains_key("manifest.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_go_out_as_they_are_asked_for() {
    let server = Server::start().await;
    let client = server.client("n");
    let (bytes, [ours, other]) = two_platforms();
    import(&client, &bytes, &named()).await.expect("import");
    let store = ImageStore {
        name: NAME.to_owned(),
        ..ImageStore::default()
    };
    let of = |platforms: &[Platform], all_platforms| ImageExportStream {
        platforms: platforms.to_vec(),
        all_platforms,
        ..ImageExportStream::default()
    };
    let s390x = platform("linux", "s390x");
    for (to, has) in [
        (of(&[], false), (true, false)),
        (of(std::slice::from_ref(&s390x), false), (false, true)),
        (of(&[host(), s390x], false), (true, true)),
        (of(&[], true), (true, true)),
    ] {
        let what = format!("{to:?}");
        let bytes = export(&client, &store, to).await.expect("export");
        let files = oci(&bytes);
        let found = (
            files.contains_key(&path(&ours)),
            files.contains_key(&path(&other)),
        );
        assert_eq!(found, has, "{what}");
        let index = json_of(&files, "index.json");
        assert_eq!(index["mediaType"], format!("{OCI}.index.v1+json"));
        assert_eq!(
            index["manifests"][0]["annotations"]["io.containerd.image.name"],
            NAME
        );
    }
    let none = export(&client, &store, of(&[platform("linux", "riscv64")], false)).await;
    assert_eq!(code(none), Code::NotFound);
}

/// Two images seldom have the same platforms, and `ctr` names them for all that it exports.
#[tokio::test(flavor = "multi_thread")]
async fn any_of_the_platforms_is_enough_for_an_image_to_go_out() {
    let server = Server::start().await;
    let client = server.client("n");
    let (bytes, [ours, other]) = two_platforms();
    let single = archive("registry.test/single:1");
    import(&client, &bytes, &named()).await.expect("import");
    client.import(&single).await;
    let both = ImageStore {
        name: NAME.to_owned(),
        extra_references: vec![ImageReference {
            name: "registry.test/single:1".to_owned(),
            ..ImageReference::default()
        }],
        ..ImageStore::default()
    };
    let of = |platforms: Vec<Platform>| ImageExportStream {
        platforms,
        ..ImageExportStream::default()
    };
    let s390x = || platform("linux", "s390x");
    let out = export(&client, &both, of(vec![s390x(), host()])).await;
    let files = oci(&out.expect("export"));
    for digest in [&ours, &other, &single.manifest] {
        assert!(files.contains_key(&path(digest)), "{digest}");
    }
    // Each has to have one.
    let refused = export(&client, &both, of(vec![s390x()])).await;
    let refused = refused.expect_err("one is for another platform");
    assert_eq!(refused.code(), Code::NotFound);
    let words = refused.message();
    assert!(
        words.contains("registry.test/single:1: no manifest for linux/s390x"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_out_is_refused() {
    let server = Server::start().await;
    let client = server.client("n");
    client.import(&archive(NAME)).await;
    let store = |name: &str| ImageStore {
        name: name.to_owned(),
        ..ImageStore::default()
    };
    let absent = export(&client, &store("absent"), ImageExportStream::default()).await;
    assert_eq!(code(absent), Code::NotFound);
    let mut prefix = store(NAME);
    prefix.extra_references = named().extra_references;
    let prefix = export(&client, &prefix, ImageExportStream::default()).await;
    assert_eq!(code(prefix), Code::Unimplemented);
}

/// An archive of an image like those of containerd's own test of it (`TestTransferImport`): its configuration
/// speaks of no layer, and what is said to be a layer is any bytes. And the image's manifest.
fn no_layers(layer: Vec<u8>) -> (Vec<u8>, String) {
    let host = host();
    let config = json!({
        "architecture": host.architecture, "os": host.os, "author": "registry.test/all-refs:1",
        "config": {}, "rootfs": {"type": "", "diff_ids": null},
    });
    let config = config.to_string().into_bytes();
    let part = |kind: &str, bytes: &[u8]| {
        let kind = format!("{OCI}.{kind}");
        json!({"mediaType": kind, "digest": sha256(bytes), "size": bytes.len()})
    };
    let manifest = json!({
        "schemaVersion": 2, "config": part("config.v1+json", &config),
        "layers": [part("layer.v1.tar+gzip", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = part("manifest.v1+json", &manifest);
    entry["annotations"] = json!({"io.containerd.image.name": NAME});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    let mut tar = tar::Builder::new(Vec::new());
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    let digest = sha256(&manifest);
    let files = [
        (path(&sha256(&layer)), layer),
        (path(&sha256(&config)), config),
        (path(&digest), manifest),
        ("oci-layout".to_owned(), layout.to_vec()),
        ("index.json".to_owned(), index.to_string().into_bytes()),
    ];
    for (name, bytes) in &files {
        tar.append(&header(name, bytes.len()), &**bytes)
            .expect("entry");
    }
    (tar.into_inner().expect("end"), digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_unpacked_need_not_be_unpackable() {
    let server = Server::start().await;
    let (bytes, manifest) = no_layers(b"no layer at all".to_vec());
    let client = server.client("n");
    import(&client, &bytes, &named()).await.expect("import");
    let all = images(&client).await;
    assert_eq!(all[0].target.as_ref().expect("target").digest, manifest);
    let other = server.client("unpacked");
    let refused = import(&other, &bytes, &unpacked(host(), "")).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    assert_eq!(images(&other).await, []);
}

/// A byte that one place has and its neighbours have not.
fn scattered(place: u64) -> u8 {
    ((place * place) >> 7).to_le_bytes()[0]
}

/// Of more bytes than a client grants at a time, by far and by few, each arrives, and in its order.
#[tokio::test(flavor = "multi_thread")]
async fn long_archives_go_out_whole() {
    let server = Server::start().await;
    for length in [40_000, 200_077] {
        let client = server.client(&format!("n{length}"));
        let layer: Vec<u8> = (0..length).map(scattered).collect();
        let digest = sha256(&layer);
        let (bytes, manifest) = no_layers(layer);
        import(&client, &bytes, &named()).await.expect("import");
        let store = ImageStore {
            name: NAME.to_owned(),
            ..ImageStore::default()
        };
        let out = export(&client, &store, ImageExportStream::default()).await;
        let files = oci(&out.expect("export"));
        for digest in [&digest, &manifest] {
            assert_eq!(&files[&path(digest)].1, digest, "{length}");
        }
    }
}
