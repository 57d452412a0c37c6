//! Long scripts, of several actors over the same few things, in orders by chance.

use cairn_node::{EngineKind, ImportRequest, Resource, Silent, Source};
use cairn_types::{Classified, Digest, ErrorKind, Labels, SnapshotKey};

use crate::{
    common::simple,
    model::{Model, World, key, labels, name},
    oracle::{EXPIRE, FUTURE, PAST, REF, Thing},
    orders::{Chance, Dice},
};

/// Where seeds begin; one that fails is told, and can be tried alone as the first.
const SEED: u64 = 20_261_130;
const RUNS: u64 = 200;
/// Pieces of work of each worker.
const PIECES: usize = 4;
const WORKERS: usize = 3;
/// Few, so that workers meet.
const POOL: usize = 3;
/// Snapshots of a stack that all share.
const STACK: usize = 2;

/// One worker; what it does depends on its seed alone.
struct Worker<'w> {
    world: &'w World,
    dice: Dice,
    number: usize,
    piece: usize,
}

impl Worker<'_> {
    fn fresh(&self, what: &str) -> String {
        format!("{what}-{}-{}", self.number, self.piece)
    }

    fn pool(&mut self) -> String {
        format!("pool {}", self.dice.roll(POOL))
    }

    fn lease(&self) -> String {
        let id = self.fresh("lease");
        assert!(self.world.lease(&id, labels(&[(EXPIRE, FUTURE)])));
        id
    }

    /// As a client uploads: it is there, or it is stored; in both cases it is held.
    fn upload(&self, lease: &str, text: &str, labels: Labels) -> Digest {
        let digest = Digest::sha256(text.as_bytes());
        let content = Resource::Content(digest.clone());
        if !self.world.hold_if_there(lease, &content) {
            self.world.hold(lease, &content);
            self.world.put(text, labels);
        }
        self.world.reads(&digest);
        digest
    }

    /// A document over one of the pool; only it is held afterwards.
    fn document(&mut self, lease: &str) -> Digest {
        let text = self.pool();
        let below = self.upload(lease, &text, Labels::new());
        let refers = labels(&[(REF, &*below.to_string())]);
        let document = self.upload(lease, &format!("document over {below}"), refers);
        self.world.let_go(lease, &Resource::Content(below.clone()));
        self.world.reads(&below);
        document
    }

    fn holds(&mut self) {
        let lease = self.lease();
        let document = self.document(&lease);
        self.world.reads(&document);
        self.world.end_lease(&lease);
    }

    /// A name takes over from a lease, and ends or not.
    fn names(&mut self) {
        let lease = self.lease();
        let document = self.document(&lease);
        let image = self.fresh("image");
        self.world.image(&image, &document, Labels::new());
        self.world.end_lease(&lease);
        self.world.reads(&document);
        if self.dice.roll(2) == 0 {
            let anybody = cairn_node::Caller::of(self.world.ns.clone());
            let node = &self.world.node;
            let deleted = node.image_delete(&anybody, &name(&image), None);
            deleted.expect("delete");
        }
    }

    /// As a client unpacks: each level is there, or it is prepared and committed under its name.
    fn stands(&mut self) {
        let lease = self.lease();
        let mut parent: Option<SnapshotKey> = None;
        for level in 0..STACK {
            let level = key(&format!("level {level}"));
            let resource = Resource::Snapshot(level.clone());
            if !self.world.hold_if_there(&lease, &resource) {
                self.commit(&lease, &level, parent.as_ref());
            }
            let snapshots = self.world.node.snapshots();
            let lowers = snapshots.lowers(&self.world.ns, &level);
            lowers.expect("it is held, with its parents");
            if let Some(below) = parent.replace(level) {
                self.world.let_go(&lease, &Resource::Snapshot(below));
            }
        }
        self.world.end_lease(&lease);
    }

    fn commit(&self, lease: &str, level: &SnapshotKey, parent: Option<&SnapshotKey>) {
        let (ns, snapshots) = (&self.world.ns, self.world.node.snapshots());
        let work = key(&self.fresh(&format!("work on {level}")));
        self.world.hold(lease, &Resource::Snapshot(work.clone()));
        let prepared = snapshots.prepare(ns, &work, parent, Labels::new());
        prepared.expect("its parent is held");
        self.world.hold(lease, &Resource::Snapshot(level.clone()));
        if let Err(err) = snapshots.commit(ns, level, &work, Labels::new()) {
            // Another was faster; what it made is held here all the same.
            assert_eq!(err.kind(), ErrorKind::AlreadyExists, "{err}");
            snapshots.remove(ns, &work).expect("remove");
        }
    }

    /// As a call in this process looks, and relies on what it finds.
    fn relies(&mut self) {
        let text = self.pool();
        let digest = Digest::sha256(text.as_bytes());
        let mut reliance = self.world.relies();
        reliance.blob(&digest);
        if !self.world.has(&digest) {
            self.world.put(&text, Labels::new());
        }
        self.world.reads(&digest);
        if self.dice.roll(2) == 0 {
            let image = self.fresh("image");
            self.world.image(&image, &digest, Labels::new());
        }
    }

    /// What nobody holds, and what is held by a lease that is over.
    fn litters(&mut self) {
        let text = self.fresh("nobody's");
        let digest = self.world.put(&text, Labels::new());
        let lease = self.fresh("over");
        self.world.lease(&lease, labels(&[(EXPIRE, PAST)]));
        self.world.add(&lease, &Resource::Content(digest));
    }

    fn works(&mut self) {
        for piece in 0..PIECES {
            self.piece = piece;
            match self.dice.roll(6) {
                0 => self.holds(),
                1 => self.names(),
                2 | 3 => self.stands(),
                4 => self.relies(),
                _ => self.litters(),
            }
        }
    }
}

fn run(engine: EngineKind, runs: u64) {
    let mut model = Model::new(engine);
    for seed in SEED..SEED + runs {
        eprintln!("seed {seed}");
        let mut dice = Dice(seed);
        let workers = (0..WORKERS).map(|number| {
            let seed = dice.roll(usize::MAX) as u64 | 1;
            model.world.actor("worker", move |world| {
                let mut worker = Worker {
                    world,
                    dice: Dice(seed),
                    number,
                    piece: 0,
                };
                worker.works();
            })
        });
        let mut actors: Vec<_> = workers.collect();
        actors.push(model.world.collector(3));
        actors.push(model.world.collector(2));
        let mut order = Chance::new(seed | 1);
        model.perform(actors, &mut |ready| order.choose(ready));
    }
}

#[test]
fn many_who_hold_and_let_go() {
    run(EngineKind::Redb, RUNS);
}

#[test]
fn and_with_the_other_engine() {
    run(EngineKind::Sled, RUNS / 4);
}

/// A chain ID that was returned is held by who got it, whatever becomes of its image; and so is what he
/// makes on it.
#[test]
fn what_unpacking_hands_out_is_held() {
    let layout = simple();
    let mut model = Model::new(EngineKind::Redb);
    for seed in SEED..SEED + RUNS / 2 {
        eprintln!("seed {seed}");
        let world = &model.world;
        let mut request =
            ImportRequest::new(world.ns.clone(), Source::Path(layout.path().to_owned()));
        // Of some it is there, and of some it is to be unpacked.
        request.unpack = seed % 2 == 0;
        let imported = world.node.import(request, &Silent).expect("import");
        let image = imported.into_iter().next().expect("an image");
        let target = image.target;
        let unpacks = move |world: &World| {
            let mut reliance = world.relies();
            let node = &world.node;
            let unpacked = node.unpack(&world.ns, &target, None, &Silent, &reliance.pins);
            let chain = match unpacked {
                Ok(chain) => chain.expect("it has layers"),
                Err(failure) => {
                    // Its blobs may be gone with its name.
                    assert_eq!(failure.kind, ErrorKind::NotFound, "{failure}");
                    return;
                }
            };
            let top = SnapshotKey::from(&chain);
            reliance.knows(Thing::Snapshot(top.clone()));
            let root = labels(&[("containerd.io/gc.root", "1")]);
            let snapshots = node.snapshots();
            let prepared = snapshots.prepare(&world.ns, &key("mine"), Some(&top), root);
            prepared.expect("what was handed out is there");
        };
        let lets_go = move |world: &World| {
            let removed = world.node.remove_image(&world.ns, &image.name, false);
            removed.expect("remove");
        };
        let actors = vec![
            world.actor("caller", unpacks),
            world.actor("remover of the name", lets_go),
            world.collector(2),
        ];
        let mut order = Chance::new(seed | 1);
        model.perform(actors, &mut |ready| order.choose(ready));
    }
}
