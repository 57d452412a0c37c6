//! Whole images: what arrives, what is told, and what does not have to go again.

use cairn_node::{Event, ImportRequest, Phase, Source};
use cairn_types::{Digest, ErrorKind};

use crate::{
    common::{Store, host, simple, two_layers},
    peers::{Ears, Registry, filled, push, push_with, source_of},
};

fn digests() -> [Digest; 2] {
    let layers = two_layers();
    [0, 1].map(|i: usize| Digest::sha256(&layers[i].1))
}

#[test]
fn an_image_arrives_as_it_is() {
    let (registry, store) = (Registry::start(), Store::new());
    store.import(simple().path()).expect("import");
    let remote = format!("{}/shop/web:1", registry.host());
    let ears = Ears::default();
    let pushed = push_with(&store, "shop/web:1", &remote, &ears, |_| ()).expect("pushed");
    assert_eq!(
        registry.pulled("shop/web:1"),
        pushed.target.digest.to_string()
    );
    let layers = two_layers();
    assert_eq!(pushed.reused_bytes, 0);
    for (layer, (_, packed, plain)) in pushed.layers.iter().zip(&layers) {
        assert_eq!(layer.descriptor.digest, Digest::sha256(packed));
        let diff_id = layer.diff_id.as_ref().map(ToString::to_string);
        assert_eq!(diff_id, Some(Digest::sha256(plain).to_string()));
        assert!(layer.unpacked_size.is_some_and(|bytes| bytes > 0));
        assert_eq!(layer.host, Some(registry.host()));
        assert_eq!(layer.attempts, 1);
    }
    assert_eq!(pushed.layers.len(), 2);
    // Both layers and the configuration.
    let packed: usize = layers.iter().map(|(_, packed, _)| packed.len()).sum();
    assert!(pushed.sent_bytes > packed as u64, "{pushed:?}");
    assert_eq!(registry.carried(0).len(), 3);

    let events = ears.events();
    let expected: Vec<(Digest, u64)> = pushed
        .layers
        .iter()
        .map(|layer| (layer.descriptor.digest.clone(), layer.descriptor.size))
        .collect();
    assert_eq!(
        events[0],
        Event::Resolved {
            name: remote,
            platform: host(),
            layers: expected,
        }
    );
    assert_eq!(events.last(), Some(&Event::Done));
    for digest in digests() {
        let way = [Phase::Waiting, Phase::Push, Phase::Done];
        assert_eq!(ears.phases()[&digest], way);
        let asked = Event::Asked {
            digest: digest.clone(),
            host: registry.host(),
            attempt: 1,
        };
        assert!(events.contains(&asked), "{events:?}");
        let source = source_of(&store.node, &store, &digest);
        assert_eq!(source.as_deref(), Some("shop/web"));
    }
}

#[test]
fn what_is_there_does_not_go_again() {
    let (registry, store) = (Registry::start(), filled(&simple()));
    let remote = format!("{}/shop/web:1", registry.host());
    let first = push(&store, "shop/web:1", &remote).expect("pushed");
    let before = registry.asked().len();
    let ears = Ears::default();
    let second = push_with(&store, "shop/web:1", &remote, &ears, |_| ()).expect("again");
    assert_eq!(registry.carried(before), Vec::<String>::new());
    assert_eq!(
        (second.sent_bytes, second.reused_bytes),
        (0, first.sent_bytes)
    );
    assert_eq!(second.target, first.target);
    for layer in &second.layers {
        assert_eq!((&layer.host, layer.attempts), (&None, 0));
    }
    for digest in digests() {
        assert_eq!(ears.phases()[&digest], [Phase::Waiting, Phase::HereAlready]);
    }
}

#[test]
fn blobs_are_taken_over_from_a_neighbour() {
    let (registry, store) = (Registry::start(), filled(&simple()));
    let host = registry.host();
    let first = push(&store, "shop/web:1", &format!("{host}/shop/web:1")).expect("pushed");
    let before = registry.asked().len();
    let ears = Ears::default();
    let remote = format!("{host}/shop/other:2");
    let second = push_with(&store, "shop/web:1", &remote, &ears, |_| ()).expect("beside");
    assert_eq!(registry.carried(before), Vec::<String>::new());
    assert_eq!(
        (second.sent_bytes, second.reused_bytes),
        (0, first.sent_bytes)
    );
    assert_eq!(
        registry.pulled("shop/other:2"),
        first.target.digest.to_string()
    );
    for digest in digests() {
        assert_eq!(ears.phases()[&digest], [Phase::Waiting, Phase::Mounted]);
        // Both, sorted, as containerd writes them.
        let source = source_of(&store.node, &store, &digest);
        assert_eq!(source.as_deref(), Some("shop/other,shop/web"));
    }
}

/// Layers that were unpacked and not kept can go to where they are, and beside it, and nowhere else.
#[test]
fn layers_that_were_not_kept_are_taken_over() {
    let (registry, full) = (Registry::start(), filled(&simple()));
    let host = registry.host();
    let web = format!("{host}/shop/web:1");
    let target = push(&full, "shop/web:1", &web).expect("pushed").target;
    let store = Store::new();
    let discard = |request: &mut ImportRequest| request.discard = true;
    let layout = simple();
    store
        .import_with(Source::Path(layout.path().to_owned()), discard)
        .expect("import");
    let missing = digests()[0].clone();
    let failure = push(&store, "shop/web:1", &format!("{host}/new/web:1")).expect_err("nowhere");
    assert_eq!(failure.kind, ErrorKind::NotFound);
    assert_eq!(failure.reason, format!("layer {missing} is missing"));
    let nor = format!("{host} does not have it either");
    assert!(failure.causes.contains(&nor), "{failure:?}");
    assert_eq!(registry.manifest("new/web", "1"), None);

    // It is known there by its manifest.
    let again = push(&store, "shop/web:1", &format!("{host}/shop/web:2")).expect("tagged");
    assert_eq!((again.sent_bytes, &again.target), (0, &target));
    let before = registry.asked().len();
    push(&store, "shop/web:1", &format!("{host}/shop/third:1")).expect("beside");
    assert_eq!(registry.carried(before), Vec::<String>::new());
    assert_eq!(registry.pulled("shop/third:1"), target.digest.to_string());
}

#[test]
fn m08_a_digest_in_the_name_has_to_be_the_images() {
    let (registry, store) = (Registry::start(), filled(&simple()));
    let host = registry.host();
    let other = Digest::sha256(b"other");
    let failure = push(&store, "shop/web:1", &format!("{host}/shop/web@{other}"));
    assert_eq!(failure.expect_err("other").kind, ErrorKind::InvalidArgument);
    let own = push(&store, "shop/web:1", &format!("{host}/shop/web:1")).expect("by tag");
    let digest = own.target.digest;
    push(&store, "shop/web:1", &format!("{host}/new/web@{digest}")).expect("by digest");
    let there = registry.manifest("new/web", &digest.to_string());
    assert!(there.is_some());
    let failure = push(&store, "shop/web:1", "shop/web:1").expect_err("no registry");
    assert_eq!(failure.kind, ErrorKind::InvalidArgument);
}
