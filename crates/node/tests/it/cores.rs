//! How many threads unpack a layer. This machine's cores do not matter: how many there are is said.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Condvar, Mutex},
    thread,
};

use cairn_node::{EngineKind, Event, ImportRequest, Node, NodeOptions, Phase, Progress, Source};
use cairn_types::{Digest, Namespace};

use crate::common::{Layout, host, scratch, tar};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// By which threads each layer was read. A layer goes on when those have ended that it waits for.
#[derive(Default)]
struct Readers {
    /// Waiting, and for what.
    waits: Option<(Digest, Digest)>,
    heard: Mutex<Heard>,
    changed: Condvar,
}

#[derive(Default)]
struct Heard {
    by: BTreeMap<Digest, BTreeSet<String>>,
    ended: BTreeSet<Digest>,
}

impl Progress for Readers {
    fn event(&self, event: Event) {
        let Event::Layer {
            digest,
            phase,
            done,
            ..
        } = event
        else {
            return;
        };
        let mut heard = self.heard.lock().expect("lock");
        if phase == Phase::Done {
            heard.ended.insert(digest);
            self.changed.notify_all();
        } else if phase == Phase::FetchUnpack && done > 0 {
            let name = thread::current().name().expect("a name").to_owned();
            heard.by.entry(digest.clone()).or_default().insert(name);
            if let Some((waiting, first)) = &self.waits
                && *waiting == digest
            {
                let not_yet = |heard: &mut Heard| !heard.ended.contains(first);
                drop(self.changed.wait_while(heard, not_yet));
            }
        }
    }
}

/// Imports an image of layers with files of so many bytes on so many cores, and returns which threads
/// read the layers. If there are two the first waits for the second.
#[track_caller]
fn readers(cores: usize, layers: &[usize]) -> Vec<Vec<String>> {
    let layers = layers.iter().enumerate().map(|(number, bytes)| {
        let text = "0123456789abcde\n".repeat(bytes / 16);
        let plain = tar(&[(&format!("file{number}"), &text)]);
        // Stored and not packed: what counts is how many bytes come.
        (GZIP, plain.clone(), plain)
    });
    let layers: Vec<_> = layers.collect();
    let digests: Vec<_> = layers.iter().map(|(_, l, _)| Digest::sha256(l)).collect();
    let mut layout = Layout::new();
    let manifest = layout.manifest(&host(), &layers);
    layout.name(manifest, "shop/web:1");
    layout.finish();
    let dir = scratch();
    let mut options = NodeOptions::new(dir.path().join("root"), EngineKind::Redb);
    options.parallel_layers = cores;
    let node = Node::open(options).expect("open");
    let ns = Namespace::parse("default").expect("namespace");
    let readers = Readers {
        waits: match digests.as_slice() {
            [first, second] => Some((first.clone(), second.clone())),
            _ => None,
        },
        ..Readers::default()
    };
    let request = ImportRequest::new(ns, Source::Path(layout.path().to_owned()));
    node.import(request, &readers).expect("import");
    let heard = readers.heard.into_inner().expect("lock");
    let by = |digest| heard.by[digest].iter().cloned().collect();
    digests.iter().map(by).collect()
}

#[test]
fn one_layer_gets_all_cores() {
    assert_eq!(readers(1, &[100_000]), [["layer-inflate"]]);
    assert_eq!(readers(2, &[100_000]), [["layer-inflate"]]);
    assert_eq!(readers(4, &[100_000]), [["layer-read"]]);
}

#[test]
fn layers_share_the_cores_by_their_bytes() {
    let (two, more) = (["layer-inflate"], ["layer-read"]);
    assert_eq!(readers(4, &[100_000, 100_000]), [two, two]);
    assert_eq!(readers(8, &[100_000, 100_000]), [more, more]);
    assert_eq!(readers(8, &[900_000, 10_000]), [more, two]);
}
