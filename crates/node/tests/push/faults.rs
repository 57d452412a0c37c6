//! Lines that break, registries that refuse, blobs that are damaged, and people who leave.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::FileExt,
    path::PathBuf,
};

use cairn_node::{Event, RegistryOptions};
use cairn_types::{Digest, ErrorKind};

use crate::{
    common::{Layout, OCI_LAYER, Store, simple, text},
    peers::{Ears, Line, Registry, filled, large, push, push_with},
};

/// `shop/web:1` with one layer of so many bytes and some more. Its digest.
fn heavy(len: usize) -> (Layout, Digest) {
    let mut layout = Layout::new();
    let plain = large(len);
    let digest = Digest::sha256(&plain);
    let manifest = layout.manifest("linux/amd64", &[(OCI_LAYER, plain.clone(), plain)]);
    layout.name(manifest, "shop/web:1");
    layout.finish();
    (layout, digest)
}

/// Asks no more than twice, so that what never helps is soon over.
fn hasty(store: &Store) {
    store.node.set_registry(RegistryOptions {
        retries: 1,
        ..RegistryOptions::default()
    });
}

#[test]
fn a_line_that_breaks_is_gone_on_with() {
    let (layout, layer) = heavy(8 << 20);
    let (registry, store) = (Registry::start(), filled(&layout));
    let line = Line::cut_after(3 << 20, registry.address());
    let ears = Ears::default();
    let remote = format!("{}/shop/web:1", line.address);
    let pushed = push_with(&store, "shop/web:1", &remote, &ears, |_| ()).expect("pushed");
    assert_eq!(pushed.layers[0].attempts, 2);
    let events = ears.events();
    let retry = events.iter().find_map(|event| match event {
        Event::Retry {
            digest,
            host,
            attempt,
            ..
        } => Some((digest.clone(), host.clone(), *attempt)),
        _ => None,
    });
    assert_eq!(
        retry,
        Some((layer.clone(), line.address.to_string(), (2, 6)))
    );
    let again = Event::Asked {
        digest: layer,
        host: line.address.to_string(),
        attempt: 2,
    };
    assert!(events.contains(&again), "{events:?}");
    assert_eq!(
        registry.pulled("shop/web:1"),
        pushed.target.digest.to_string()
    );
}

#[test]
fn a_registry_that_takes_nothing_is_named_with_the_blob() {
    let read_only = ", maintenance: {readonly: {enabled: true}}";
    let (registry, store) = (Registry::configured(read_only, None), filled(&simple()));
    let host = registry.host();
    let failure = push(&store, "shop/web:1", &format!("{host}/shop/web:1")).expect_err("refused");
    assert!(failure.reason.starts_with(&host), "{failure:?}");
    assert!(failure.reason.contains("405"), "{failure:?}");
    let first = &failure.causes[0];
    assert!(first.starts_with("blob sha256:"), "{failure:?}");
    assert!(first.ends_with(" was not stored"), "{failure:?}");
}

#[test]
fn a_registry_that_is_full_is_named_with_the_blob() {
    let (layout, layer) = heavy(4 << 20);
    let store = filled(&layout);
    hasty(&store);
    let disk = crate::common::scratch();
    let small = disk.path().join("small");
    fs::create_dir(&small).expect("directory");
    let mounted = ["-t", "tmpfs", "-o", "size=2m", "small", text(&small)];
    crate::common::run("mount", &mounted);
    let registry = Registry::configured("", Some(small.join("root")));
    let host = registry.host();
    let failure = push(&store, "shop/web:1", &format!("{host}/shop/web:1")).expect_err("full");
    assert!(failure.reason.starts_with(&host), "{failure:?}");
    let what = format!("blob {layer} was not stored");
    assert_eq!(failure.causes[0], what, "{failure:?}");
    // Blobs may be there; the name is not.
    assert_eq!(registry.manifest("shop/web", "1"), None);
}

/// docker-registry knows no rights, so this one is ours: it has nothing, and lets nobody write.
#[test]
fn who_may_not_write_is_told_of_which_blob() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let host = listener.local_addr().expect("address").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let answer = match head.starts_with(b"HEAD") {
                true => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                false => {
                    let body = r#"{"errors":[{"code":"DENIED","message":"quota exceeded"}]}"#;
                    let len = body.len();
                    format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {len}\r\n\r\n{body}")
                }
            };
            let _ = stream.write_all(
                answer
                    .replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")
                    .as_bytes(),
            );
        }
    });
    let store = filled(&simple());
    let remote = format!("{host}/shop/web:1");
    let failure = push_with(&store, "shop/web:1", &remote, &Ears::default(), |request| {
        request.remote.hosts.plain_http = true;
    });
    let failure = failure.expect_err("denied");
    assert_eq!(failure.kind, ErrorKind::PermissionDenied);
    assert_eq!(failure.reason, format!("{host} refused (403 forbidden)"));
    assert!(failure.causes[0].starts_with("blob sha256:"), "{failure:?}");
    let said = "DENIED: quota exceeded".to_owned();
    assert!(failure.causes.contains(&said), "{failure:?}");
    let again = format!("cairn images push -u USER {host}/shop/web:1 docker.io/shop/web:1");
    assert!(failure.next.contains(&again), "{failure:?}");
}

#[test]
fn a_damaged_blob_is_named_and_nothing_is_tagged() {
    let (layout, layer) = heavy(1 << 20);
    let (registry, store) = (Registry::start(), filled(&layout));
    let blobs: PathBuf = store.node.root().join("content/blobs/sha256");
    let mut open = fs::OpenOptions::new();
    let blob = open.read(true).write(true).open(blobs.join(layer.hex()));
    let blob = blob.expect("blob");
    let mut was = [0];
    blob.read_exact_at(&mut was, 700_000).expect("byte");
    blob.write_all_at(&[!was[0]], 700_000).expect("damage");
    let remote = format!("{}/shop/web:1", registry.host());
    let failure = push(&store, "shop/web:1", &remote).expect_err("damaged");
    assert_eq!(failure.kind, ErrorKind::DataLoss);
    assert_eq!(failure.reason, format!("blob {layer} is damaged"));
    assert!(
        failure.causes[0].starts_with("its bytes hash to "),
        "{failure:?}"
    );
    assert_eq!(registry.manifest("shop/web", "1"), None);
    // Of what it was sent nothing stays in the way.
    blob.write_all_at(&was, 700_000).expect("mend");
    let pushed = push(&store, "shop/web:1", &remote).expect("mended");
    assert_eq!(
        registry.pulled("shop/web:1"),
        pushed.target.digest.to_string()
    );
}

/// The time limit of an answer is half a minute, so this would take as long if nobody looked.
#[test]
fn who_leaves_is_not_waited_for() {
    let (layout, _) = heavy(4 << 20);
    let (registry, store) = (Registry::start(), filled(&layout));
    let line = Line::stalled_after(1 << 20, registry.address());
    let remote = format!("{}/shop/web:1", line.address);
    let ears = Ears {
        impatient: true,
        ..Ears::default()
    };
    let failure = push_with(&store, "shop/web:1", &remote, &ears, |_| ()).expect_err("left");
    assert_eq!(failure.kind, ErrorKind::Canceled);
    assert_eq!(registry.manifest("shop/web", "1"), None);
}
