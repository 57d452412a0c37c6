//! What a client is told while a transfer goes on.

use cairn_proto::containerd::types::transfer::{
    ImageImportStream, ImageReference, ImageStore, Progress, UnpackConfiguration,
};

use crate::{
    archives::{images, import},
    common::{Server, archive::Archive, layer::Layer},
};

const NAME: &str = "registry.test/shop/web:1";

fn unpacked() -> ImageStore {
    ImageStore {
        extra_references: vec![ImageReference {
            name: "registry.test".to_owned(),
            is_prefix: true,
            ..ImageReference::default()
        }],
        unpacks: vec![UnpackConfiguration::default()],
        ..ImageStore::default()
    }
}

fn archive() -> Archive {
    let layer = |text: &str| Layer::new().file(text, &text.repeat(10_000)).bytes();
    Archive::new(NAME, &[layer("a"), layer("b")])
}

/// The last of what was told of everything that has a name, in the order in which it came up.
fn last(told: &[Progress]) -> Vec<&Progress> {
    let mut last: Vec<&Progress> = Vec::new();
    for progress in told.iter().filter(|progress| !progress.name.is_empty()) {
        match last.iter_mut().find(|known| known.name == progress.name) {
            Some(known) => *known = progress,
            None => last.push(progress),
        }
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_told_in_the_words_of_ctr() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive();
    let told = import(&client, &archive.bytes, &unpacked())
        .await
        .expect("import");
    let status = told.iter().filter(|progress| progress.name.is_empty());
    let status: Vec<&str> = status.map(|progress| &*progress.event).collect();
    assert_eq!(status, ["Importing", "Completed import"]);
    assert_eq!(
        told.last().map(|progress| &*progress.event),
        Some("Completed import")
    );
    let last = last(&told);
    let [image, manifest, config, layers @ ..] = &*last else {
        panic!("{told:?}")
    };
    assert_eq!((&*image.name, &*image.event), (NAME, "saved"));
    let target = image.desc.as_ref().expect("a descriptor");
    assert_eq!(target.digest, archive.manifest);
    // Each is below what refers to it.
    let manifest_name = format!("manifest-{}", archive.manifest);
    let config_name = format!("config-{}", archive.config);
    for (part, name, parent) in [
        (manifest, &*manifest_name, NAME),
        (config, &*config_name, &*manifest_name),
    ] {
        assert_eq!((&*part.name, &*part.event), (name, "complete"));
        assert_eq!(part.parents, [parent]);
        assert!(part.total > 0 && part.progress == part.total, "{part:?}");
        let desc = part.desc.as_ref().expect("a descriptor");
        assert_eq!(Some(&*desc.digest), name.split_once('-').map(|(_, d)| d));
    }
    let names: Vec<&str> = layers.iter().map(|layer| &*layer.name).collect();
    let keys = archive
        .layers
        .iter()
        .map(|digest| format!("layer-{digest}"));
    assert_eq!(names, keys.collect::<Vec<_>>());
    for layer in layers {
        assert_eq!(layer.event, "extracted");
        assert_eq!(layer.parents, [&*manifest_name]);
        let desc = layer.desc.as_ref().expect("a descriptor");
        assert_eq!(desc.media_type, "application/vnd.oci.image.layer.v1.tar");
        assert!(
            layer.total > 10_000 && layer.progress == layer.total,
            "{layer:?}"
        );
    }
    // Everything is there already the next time.
    let told = import(&client, &archive.bytes, &unpacked())
        .await
        .expect("import");
    let events: Vec<&str> = self::last(&told)
        .iter()
        .map(|progress| &*progress.event)
        .collect();
    let (first, parts) = events.split_first().expect("events");
    assert_eq!((*first, parts), ("saved", &["already exists"; 4][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_not_told_as_an_end() {
    let server = Server::start().await;
    let client = server.client("n");
    let progress = client.stream("p").await.expect("a stream");
    let stream = client.stream("i").await.expect("a stream");
    let from = ImageImportStream {
        stream: "i".to_owned(),
        ..ImageImportStream::default()
    };
    let to = unpacked();
    let (done, (), told) = tokio::join!(
        client.transfer(&from, &to, "p"),
        stream.send_all(b"no archive"),
        progress.told(),
    );
    assert!(done.is_err());
    let events: Vec<&str> = told.iter().map(|progress| &*progress.event).collect();
    assert_eq!(events, ["Importing"]);
}

/// The stream is read when all is over.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_client_that_does_not_read() {
    let server = Server::start().await;
    let client = server.client("n");
    let layers = (0..50).map(|n| Layer::new().file("n", &n.to_string()).bytes());
    let archive = Archive::new(NAME, &layers.collect::<Vec<_>>());
    let progress = client.stream("p").await.expect("a stream");
    let stream = client.stream("i").await.expect("a stream");
    let from = ImageImportStream {
        stream: "i".to_owned(),
        ..ImageImportStream::default()
    };
    let to = unpacked();
    let (done, ()) = tokio::join!(
        client.transfer(&from, &to, "p"),
        stream.send_all(&archive.bytes),
    );
    done.expect("import");
    assert_eq!(images(&client).await.len(), 1);
    let told = progress.told().await;
    assert_eq!(last(&told).len(), 53);
    assert_eq!(
        told.last().map(|progress| &*progress.event),
        Some("Completed import")
    );
}
