//! One image in several namespaces: unpacked once, and kept until the last of them lets go of it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use cairn_node::{
    EngineKind, Event, GcCount, Imported, Node, NodeOptions, Phase, Progress, Sharing, Source,
    events::{self, What},
};
use cairn_types::{ChainId, DiffId, Digest, Labels, Namespace, SnapshotKey};

use crate::common::*;

fn with(sharing: Sharing, engine: EngineKind) -> Store {
    let mut store = Store::new();
    let mut options = NodeOptions::new(store.dir.path().join(engine.name()), engine);
    options.sharing = sharing;
    store.node = Node::open(options).expect("open");
    store
}

/// The snapshots of a stack, lowest first.
pub(crate) fn stack(layers: &[(&str, Vec<u8>, Vec<u8>)]) -> Vec<SnapshotKey> {
    let diff_ids = layers
        .iter()
        .map(|(_, _, plain)| DiffId::new(Digest::sha256(plain)));
    let chains = ChainId::stack(&diff_ids.collect::<Vec<_>>());
    chains.iter().map(SnapshotKey::from).collect()
}

/// Which layers were unpacked.
#[derive(Default)]
struct Unpacked(Mutex<Vec<Digest>>);

impl Progress for Unpacked {
    fn event(&self, event: Event) {
        if let Event::Layer {
            digest,
            phase: Phase::FetchUnpack | Phase::Unpack,
            ..
        } = event
        {
            let mut unpacked = self.0.lock().expect("digests");
            if !unpacked.contains(&digest) {
                unpacked.push(digest);
            }
        }
    }
}

impl Store {
    fn to(&mut self, space: &str) -> &mut Store {
        self.ns = Namespace::parse(space).expect("namespace");
        self
    }

    /// How many layers an import unpacks.
    #[track_caller]
    fn unpacks(&self, layout: &Layout) -> (usize, Vec<Imported>) {
        let unpacked = Unpacked::default();
        let source = Source::Path(layout.path().to_owned());
        let request = cairn_node::ImportRequest::new(self.ns.clone(), source);
        let imported = self.node.import(request, &unpacked).expect("import");
        (unpacked.0.into_inner().expect("digests").len(), imported)
    }

    /// Where the files of a snapshot are.
    fn tree(&self, key: &SnapshotKey) -> PathBuf {
        let lowers = self.node.snapshots().lowers(&self.ns, key);
        lowers.expect("lowers")[0].path().to_owned()
    }

    fn directories(&self) -> usize {
        self.node.snapshots().wait_removed();
        let dir = self.node.root().join("snapshots");
        let trash = fs::read_dir(dir.join("trash")).expect("trash").count();
        fs::read_dir(dir).expect("directory").count() - 1 + trash
    }

    #[track_caller]
    fn remove(&self, image: &Imported) {
        let removed = self.node.remove_image(&self.ns, &image.name, false);
        removed.expect("remove");
    }
}

#[test]
fn a_second_namespace_unpacks_nothing() {
    for engine in EngineKind::ALL {
        let mut store = with(Sharing::Shared, engine);
        let (layout, keys) = (simple(), stack(&two_layers()));
        assert_eq!(store.to("a").unpacks(&layout).0, 2);
        let inodes = |store: &Store| {
            let tree = store.tree(&keys[0]);
            let inode = |file| fs::symlink_metadata(tree.join(file)).expect("stat").ino();
            ["", "bin/hello", "etc"].map(inode)
        };
        let first = inodes(&store);
        let (unpacked, images) = store.to("b").unpacks(&layout);
        assert_eq!((unpacked, store.directories()), (0, 2));
        assert!(images[0].unpacked_size.is_some_and(|size| size > 0));
        assert_eq!(inodes(&store), first);
        let image = store.node.image(&store.ns, &images[0].name).expect("image");
        assert!(image.complete, "its blobs are its own: {image:?}");
        let mounted = store.mount(&images[0].name);
        assert_eq!(
            fs::read_to_string(mounted.join("etc/motd")).expect("read"),
            "welcome\n"
        );
        store.unmount(&mounted);
    }
}

/// What is shared is told of, as what is unpacked is.
#[test]
fn listeners_hear_of_shared_snapshots() {
    struct Heard(Mutex<Vec<(Namespace, SnapshotKey)>>);
    impl events::Listener for Heard {
        fn hear(&self, event: &Arc<events::Event>) -> bool {
            if let What::SnapshotCommitted { name, .. } = &event.what {
                let told = (event.ns.clone(), name.clone());
                self.0.lock().expect("names").push(told);
            }
            true
        }
    }
    let mut store = Store::new();
    store.to("a").unpacks(&simple());
    let heard = Arc::new(Heard(Mutex::default()));
    let listener: Arc<dyn events::Listener> = heard.clone();
    store.node.listen(&listener);
    store.to("b").unpacks(&simple());
    let told = heard.0.lock().expect("names").clone();
    let own = stack(&two_layers()).into_iter();
    let own: Vec<_> = own.map(|key| (store.ns.clone(), key)).collect();
    assert_eq!(told, own);
}

#[test]
fn another_image_shares_what_it_has_in_common() {
    let mut store = Store::new();
    store.to("a").unpacks(&simple());
    let own = tar(&[("own", "x")]);
    let mut layers = two_layers();
    layers.push((OCI_LAYER, own.clone(), own));
    let mut layout = Layout::new();
    let manifest = layout.manifest(&host(), &layers);
    layout.name(manifest, "shop/other:1");
    layout.finish();
    assert_eq!(store.to("b").unpacks(&layout).0, 1);
    assert_eq!(store.directories(), 3);
    assert_eq!(store.to("a").unpacks(&layout).0, 0);
}

#[test]
fn files_go_with_the_last_namespace_and_are_counted_once() {
    for engine in EngineKind::ALL {
        let mut store = with(Sharing::Shared, engine);
        let (layout, keys) = (simple(), stack(&two_layers()));
        let images = store.to("a").unpacks(&layout).1;
        let row = |store: &Store| {
            let mut rows = store.node.df().expect("df").into_iter();
            let row = rows.find(|row| row.kind == "snapshots");
            row.expect("a row of snapshots")
        };
        let alone = row(&store);
        let unshared = store.node.df_images().expect("df")[0].unique_size;
        store.to("b").unpacks(&layout);
        let both = row(&store);
        assert_eq!((alone.total, both.total), (2, 4));
        assert!(alone.size > 0 && both.size == alone.size, "{both:?}");
        let each = store.node.df_images().expect("df");
        assert!(unshared > 0 && each.iter().all(|image| image.unique_size == 0));
        assert!(each.iter().all(|i| i.unpacked_size == Some(alone.size)));

        store.to("a").remove(&images[0]);
        let half = row(&store);
        assert_eq!((half.active, half.reclaimable), (2, 0));
        let gone = GcCount {
            removed: 2,
            freed: 0,
        };
        assert_eq!(store.node.gc(true).expect("count").snapshots, gone);
        assert_eq!(store.node.gc(false).expect("collect").snapshots, gone);
        assert_eq!(store.directories(), 2);
        let mounted = store.to("b").mount(&images[0].name);
        let motd = fs::read_to_string(mounted.join("etc/motd"));
        assert_eq!(motd.expect("read"), "welcome\n");
        assert!(!mounted.join("bin/hello").exists());
        store.unmount(&mounted);

        store.remove(&images[0]);
        let gone = GcCount {
            removed: 2,
            freed: alone.size,
        };
        assert_eq!(store.node.gc(true).expect("count").snapshots, gone);
        assert_eq!(store.node.gc(false).expect("collect").snapshots, gone);
        assert_eq!(store.directories(), 0);
        assert!(store.node.snapshots().stat(&store.ns, &keys[0]).is_err());
    }
}

/// Both at once, in one transaction of the collector's.
#[test]
fn one_collection_takes_a_tree_of_two_namespaces() {
    let mut store = Store::new();
    for space in ["a", "b"] {
        let images = store.to(space).unpacks(&simple()).1;
        store.remove(&images[0]);
    }
    let size = store.node.gc(true).expect("count").snapshots.freed;
    let gone = store.node.gc(false).expect("collect").snapshots;
    assert!(size > 0);
    assert_eq!((gone.removed, gone.freed), (4, size));
    assert_eq!(store.directories(), 0);
}

#[test]
fn isolated_namespaces_share_nothing() {
    let mut store = with(Sharing::Isolated, EngineKind::Redb);
    for space in ["a", "b"] {
        assert_eq!(store.to(space).unpacks(&simple()).0, 2);
        assert_eq!(store.unpacks(&simple()).0, 0);
    }
    assert_eq!(store.directories(), 4);
}

/// Neither what a client put under a layer's name, nor what was unpacked on that.
#[test]
fn what_a_client_committed_under_a_chain_id_is_not_shared() {
    let mut store = Store::new();
    let keys = stack(&two_layers());
    let work = SnapshotKey::parse("work").expect("key");
    store.to("a");
    let (node, ns) = (&store.node, &store.ns);
    let prepared = node.snapshots().prepare(ns, &work, None, Labels::new());
    prepared.expect("prepare");
    let committed = node.snapshots().commit(ns, &keys[0], &work, Labels::new());
    committed.expect("commit");
    fs::write(store.tree(&keys[0]).join("evil"), "").expect("write");
    // It believes its own client.
    assert_eq!(store.unpacks(&simple()).0, 1);
    let (unpacked, images) = store.to("b").unpacks(&simple());
    assert_eq!((unpacked, store.directories()), (2, 4));
    let mounted = store.mount(&images[0].name);
    assert!(mounted.join("etc/motd").exists() && !mounted.join("evil").exists());
    store.unmount(&mounted);
}

/// A power cut would take it, and with it the image: this namespace has nothing to unpack again.
#[test]
fn what_has_no_blob_here_is_synced() {
    let mut store = Store::new();
    let keys = stack(&two_layers());
    let images = store.to("a").unpacks(&simple()).1;
    let durable = |store: &Store| {
        let stat = |key| store.node.snapshots().stat(&store.ns, key);
        keys.iter().all(|key| stat(key).expect("stat").durable)
    };
    assert!(!durable(&store));
    store.to("b");
    let layout = simple();
    let source = Source::Path(layout.path().to_owned());
    let packed = store.import_with(source, |request| request.unpack = false);
    packed.expect("import");
    let unpack = |store: &Store| {
        let (target, silent) = (&images[0].target, &cairn_node::Silent);
        let pins = store.node.pins();
        let unpacked = store.node.unpack(&store.ns, target, None, silent, &pins);
        unpacked.expect("unpack").expect("a chain")
    };
    unpack(&store);
    assert!(!durable(&store), "nobody waits for a disk without need");
    for key in keys.iter().rev() {
        let removed = store.node.remove_snapshot(&store.ns, key, false);
        removed.expect("remove");
    }
    for (_, packed, _) in two_layers() {
        let removed = store.node.remove_blob(&store.ns, &Digest::sha256(&packed));
        removed.expect("remove");
    }
    assert_eq!(SnapshotKey::from(&unpack(&store)), keys[1]);
    assert!(durable(&store));
    assert!(durable(store.to("a")));
}

/// Whoever comes to share finds all of it or nothing, whatever is collected meanwhile.
fn side_by_side(engine: EngineKind) {
    let store = with(Sharing::Shared, engine);
    let (layout, done) = (simple(), AtomicBool::new(false));
    let keys = stack(&two_layers());
    thread::scope(|scope| {
        let (store, layout, keys, done) = (&store, &layout, &keys, &done);
        let workers: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .map(|space| {
                scope.spawn(move || {
                    let ns = Namespace::parse(space).expect("namespace");
                    for _ in 0..12 {
                        let source = Source::Path(layout.path().to_owned());
                        let request = cairn_node::ImportRequest::new(ns.clone(), source);
                        let imported = store.node.import(request, &cairn_node::Silent);
                        let name = imported.expect("import")[0].name.clone();
                        thread::yield_now();
                        let lowers = store.node.snapshots().lowers(&ns, &keys[1]);
                        let lowers = lowers.expect("lowers");
                        for (tree, file) in lowers.iter().zip(["etc/motd", "bin/hello"]) {
                            assert!(tree.path().join(file).exists(), "{file} of {space}");
                        }
                        let removed = store.node.remove_image(&ns, &name, false);
                        removed.expect("remove");
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                store.node.gc(false).expect("collect");
            }
        });
        let ends: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok), "see above");
    });
    store.node.gc(false).expect("collect");
    assert_eq!(store.directories(), 0);
}

#[test]
fn collections_pass_by_those_who_share() {
    side_by_side(EngineKind::Redb);
}

#[test]
fn and_so_with_the_other_engine() {
    side_by_side(EngineKind::Sled);
}

/// What a packed layer unpacks to is known wherever it was not unpacked, too: clients that find no label
/// inflate the layer to find out.
#[test]
fn packed_layers_are_labelled_in_each_namespace() {
    for sharing in [Sharing::Shared, Sharing::Isolated] {
        let mut store = with(sharing, EngineKind::Redb);
        let layout = simple();
        store.to("kept");
        let source = Source::Path(layout.path().to_owned());
        let mut kept = cairn_node::ImportRequest::new(store.ns.clone(), source);
        kept.unpack = false;
        let kept = store.node.import(kept, &Unpacked::default());
        kept.expect("import");
        for space in ["a", "b", "kept"] {
            store.to(space).unpacks(&layout);
            for (_, packed, plain) in two_layers() {
                let info = store
                    .node
                    .content()
                    .info(&store.ns, &Digest::sha256(&packed));
                let labels = info.expect("blob").labels;
                let found = labels.get("containerd.io/uncompressed");
                let expected = Digest::sha256(&plain).to_string();
                assert_eq!(found, Some(&expected), "{sharing:?} {space}");
            }
        }
    }
}
