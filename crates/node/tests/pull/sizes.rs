//! Documents have the sizes that their descriptors say.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

use cairn_types::ErrorKind;
use serde_json::{Value, json};

use crate::{common::*, name, pull, push, registry::Registry};

/// Stores a document under a tag; skopeo would hold it against what it lists.
fn put(registry: &Registry, (repository, tag): (&str, &str), document: &Value) {
    let host = registry.host();
    let body = document.to_string();
    let kind = document["mediaType"].as_str().expect("type");
    let mut stream = TcpStream::connect(&*host).expect("registry");
    let request = format!(
        "PUT /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    let _ = stream.shutdown(Shutdown::Both);
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

/// containerd fetches neither, too; a size of 0 was once anything up to four megabytes, as often as it is
/// listed.
#[test]
fn m05_wrong_sizes_are_refused() {
    let registry = Registry::start();
    let layout = simple();
    push(layout.path(), "shop/web:1", &registry, "shop/web:1");
    let entry = &layout.entries[0];
    let honest = entry["size"].as_u64().expect("size");
    for size in [0, 1, honest + 1] {
        let lying = json!({"mediaType": OCI_MANIFEST, "digest": entry["digest"], "size": size});
        let entries = vec![lying; 50];
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
        put(&registry, ("shop/web", "lying"), &index);
        let lying = name(&registry, "shop/web:lying");
        let store = Store::new();
        let failure = pull(&store, lying.clone()).expect_err("lies");
        store.assert_empty();
        match size {
            0 => {
                assert_eq!(failure.kind, ErrorKind::InvalidArgument, "{failure:?}");
                let digest = entry["digest"].as_str().expect("digest");
                assert_eq!(failure.reason, format!("document {digest} is refused"));
                let cause = "its descriptor says that it has 0 bytes";
                assert_eq!(failure.causes, [cause]);
            }
            _ => assert_eq!(failure.kind, ErrorKind::DataLoss, "{failure:?}"),
        }
        // Also what is here already.
        pull(&store, name(&registry, "shop/web:1")).expect("honest");
        let failure = pull(&store, lying).expect_err("lies");
        assert_eq!(failure.kind, ErrorKind::InvalidArgument, "{failure:?}");
        if size > 0 {
            let cause = format!("it has {honest} bytes where {size} are expected");
            assert_eq!(failure.causes, [cause]);
        }
    }
}

/// Nothing that adds sizes up has to expect that they have no sum.
#[test]
fn m05_sizes_have_a_sum() {
    let registry = Registry::start();
    let layout = simple();
    push(layout.path(), "shop/web:1", &registry, "shop/web:1");
    let entry = &layout.entries[0];
    let bytes = std::fs::read(layout.blob_path(entry["digest"].as_str().expect("digest")));
    let mut manifest: Value = serde_json::from_slice(&bytes.expect("manifest")).expect("JSON");
    for layer in manifest["layers"].as_array_mut().expect("layers") {
        layer["size"] = json!(i64::MAX);
    }
    let layers = manifest["layers"].as_array_mut().expect("layers");
    layers.push(layers[0].clone());
    put(&registry, ("shop/web", "huge"), &manifest);
    let store = Store::new();
    let failure = pull(&store, name(&registry, "shop/web:huge")).expect_err("huge");
    assert_eq!(failure.kind, ErrorKind::InvalidArgument, "{failure:?}");
    assert_eq!(
        failure.causes,
        ["the sizes of all that it lists have no sum"]
    );
    store.assert_empty();
}
