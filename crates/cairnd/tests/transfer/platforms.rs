//! Which platforms of an image a transfer takes, and which of them it unpacks.

use std::collections::BTreeMap;

use cairn_proto::containerd::types::{
    Platform,
    transfer::{ImageExportStream, ImageStore},
};
use cairn_types::{ImageName, Namespace};
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    archives::{NAME, OCI, export, host, import, json_of, named, oci, platform, unpacked},
    common::{
        Client, Server,
        archive::{Parts, header, path},
        code,
        layer::Layer,
        sha256,
    },
};

/// An archive with an index of two platforms, and their manifests.
pub(crate) fn two_platforms() -> (Vec<u8>, [String; 2]) {
    let mut files = BTreeMap::new();
    let mut entries = Vec::new();
    let mut manifests = Vec::new();
    for platform in [host(), platform("linux", "s390x")] {
        let layer = Layer::new().file("arch", &platform.architecture).bytes();
        let parts = Parts::new("", &[(sha256(&layer), layer.len())]);
        files.insert(path(&sha256(&layer)), layer);
        let (manifest, config) = (parts.manifest.clone(), parts.config.clone());
        files.extend(parts.files);
        // The one that is made is for the host.
        let text = String::from_utf8(files.remove(&path(&config)).expect("config")).expect("text");
        let ours = format!("\"architecture\":\"{}\"", host().architecture);
        assert!(text.contains(&ours));
        let theirs = format!("\"architecture\":\"{}\"", platform.architecture);
        let other = text.replace(&ours, &theirs).into_bytes();
        let text = files.remove(&path(&manifest)).expect("manifest");
        let mut value: Value = serde_json::from_slice(&text).expect("manifest");
        value["config"]["digest"] = sha256(&other).into();
        value["config"]["size"] = other.len().into();
        files.insert(path(&sha256(&other)), other);
        let manifest = value.to_string().into_bytes();
        entries.push(json!({
            "mediaType": format!("{OCI}.manifest.v1+json"),
            "digest": sha256(&manifest), "size": manifest.len(),
            "platform": {"os": platform.os, "architecture": platform.architecture},
        }));
        manifests.push(sha256(&manifest));
        files.insert(path(&sha256(&manifest)), manifest);
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}.index.v1+json"), "manifests": entries,
    });
    let index = index.to_string().into_bytes();
    let top = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": format!("{OCI}.index.v1+json"),
        "digest": sha256(&index), "size": index.len(),
        "annotations": {"io.containerd.image.name": NAME},
    }]});
    files.insert(path(&sha256(&index)), index);
    files.insert("index.json".to_owned(), top.to_string().into_bytes());
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in &files {
        tar.append(&header(name, bytes.len()), &**bytes)
            .expect("entry");
    }
    let manifests = manifests.try_into().expect("two");
    (tar.into_inner().expect("end"), manifests)
}

/// The configuration of a manifest, and its only layer.
pub(crate) fn below(bytes: &[u8], manifest: &str) -> [String; 2] {
    let manifest = json_of(&oci(bytes), &path(manifest));
    let digest = |part: &Value| part["digest"].as_str().expect("digest").to_owned();
    [&manifest["config"], &manifest["layers"][0]].map(digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_are_those_that_are_named_or_all() {
    let server = Server::start().await;
    let (bytes, [ours, other]) = two_platforms();
    let of = |platforms: &[Platform]| ImageStore {
        platforms: platforms.to_vec(),
        ..named()
    };
    let s390x = platform("linux", "s390x");
    for (ns, store, has) in [
        ("all", of(&[]), (true, true)),
        ("host", of(&[host()]), (true, false)),
        ("other", of(std::slice::from_ref(&s390x)), (false, true)),
        ("both", of(&[host(), s390x]), (true, true)),
    ] {
        let client = server.client(ns);
        import(&client, &bytes, &store).await.expect("import");
        let found = (client.has(&ours).await, client.has(&other).await);
        assert_eq!(found, has, "{ns}");
    }
    let client = server.client("none");
    let none = import(&client, &bytes, &of(&[platform("linux", "riscv64")])).await;
    assert_eq!(code(none), Code::NotFound);
}

/// containerd leaves out what an image is not for, and looks for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_the_platforms_is_enough_and_the_first_are_taken() {
    let server = Server::start().await;
    let (bytes, [ours, other]) = two_platforms();
    let of = |platforms: &[Platform], manifest_limit| ImageStore {
        platforms: platforms.to_vec(),
        manifest_limit,
        ..named()
    };
    let (none, s390x) = (platform("linux", "riscv64"), platform("linux", "s390x"));
    for (ns, store, has) in [
        ("one", of(&[none.clone(), host()], 0), (true, false)),
        (
            "first",
            of(&[none, s390x.clone(), host()], 1),
            (false, true),
        ),
        ("both", of(&[s390x, host()], 2), (true, true)),
        ("any", of(&[], 1), (true, false)),
        ("all", of(&[], 2), (true, true)),
    ] {
        let client = server.client(ns);
        import(&client, &bytes, &store).await.expect("import");
        let found = (client.has(&ours).await, client.has(&other).await);
        assert_eq!(found, has, "{ns}");
        let layers = (
            client.has(&below(&bytes, &ours)[1]).await,
            client.has(&below(&bytes, &other)[1]).await,
        );
        assert_eq!(layers, has, "{ns}");
    }
}

/// All of one platform is there, also after a collection, and of the other everything but its layer; the
/// digest of that.
pub(crate) async fn has_all_metadata(
    client: &Client,
    bytes: &[u8],
    ours: &String,
    other: &String,
) -> String {
    client.collect().await;
    let [config, layer] = below(bytes, ours);
    let [other_config, other_layer] = below(bytes, other);
    for digest in [ours, &config, &layer, other, &other_config] {
        assert!(client.has(digest).await, "{digest}");
    }
    assert!(!client.has(&other_layer).await);
    assert_eq!(client.measured().await.len(), 1);
    other_layer
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_comes_without_layers() {
    let server = Server::start().await;
    let (bytes, [ours, other]) = two_platforms();
    let client = server.client("n");
    let store = ImageStore {
        platforms: vec![host()],
        all_metadata: true,
        ..unpacked(host(), "")
    };
    import(&client, &bytes, &store).await.expect("import");
    has_all_metadata(&client, &bytes, &ours, &other).await;
    // It is as whole as it was meant to be.
    let ns = Namespace::parse("n").expect("namespace");
    let name = ImageName::parse(NAME).expect("name");
    let info = server.node.image(&ns, &name).expect("image");
    let own = cairn_types::Platform::host().to_string();
    assert_eq!((info.complete, info.platforms), (true, vec![own]));
    // The other goes out no more, and comes in with its layer.
    let of = |platform| ImageExportStream {
        platforms: vec![platform],
        ..ImageExportStream::default()
    };
    let image = ImageStore {
        name: NAME.to_owned(),
        ..ImageStore::default()
    };
    let s390x = platform("linux", "s390x");
    let refused = export(&client, &image, of(s390x.clone())).await;
    assert_eq!(code(refused), Code::NotFound);
    let store = ImageStore {
        platforms: vec![s390x.clone()],
        ..named()
    };
    import(&client, &bytes, &store).await.expect("import");
    export(&client, &image, of(s390x)).await.expect("export");
}

/// Where all are taken, the request says for which of them snapshots are made.
#[tokio::test(flavor = "multi_thread")]
async fn all_platforms_are_unpacked_for_those_that_are_named() {
    let server = Server::start().await;
    let (bytes, [ours, other]) = two_platforms();
    let s390x = || platform("linux", "s390x");
    let mut both = unpacked(host(), "");
    both.unpacks.extend(unpacked(s390x(), "").unpacks);
    for (ns, store, expected) in [
        ("ours", unpacked(host(), ""), vec![&ours]),
        ("other", unpacked(s390x(), ""), vec![&other]),
        ("both", both, vec![&ours, &other]),
    ] {
        let client = server.client(ns);
        import(&client, &bytes, &store).await.expect("import");
        // The name of an only layer's snapshot is the digest of its bytes, which are plain.
        let mut expected: Vec<String> = expected
            .into_iter()
            .map(|manifest| below(&bytes, manifest)[1].clone())
            .collect();
        let made = client.measured().await.into_iter();
        let mut made: Vec<String> = made.map(|snapshot| snapshot.key).collect();
        expected.sort();
        made.sort();
        assert_eq!(made, expected, "{ns}");
    }
}
