//! A store, what happens in it, and what must never.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cairn_meta::{Watch, schema};
use cairn_node::{Caller, EngineKind, Node, NodeOptions, Pins, Resource};
use cairn_snapshot::StagedLayer;
use cairn_sys::steer;
use cairn_types::{
    Classified, Descriptor, Digest, ErrorKind, ImageName, Labels, LeaseId, Namespace, SnapshotKey,
    SnapshotKind, Usage,
};
use tempfile::TempDir;

use crate::{
    oracle::{Place, REF, ROOT, Records, Thing, removed_lease, removed_thing},
    stage::{Actor, play},
};

/// Whoever is called so removes nothing to which something leads.
pub const COLLECTOR: &str = "collector";
/// Whoever is called so removes by name, and yet nothing on which a call relies.
pub const REMOVER: &str = "remover";

const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// The store, for those who act in it. Clones share it.
#[derive(Clone)]
pub struct World {
    pub node: Node,
    pub ns: Namespace,
    /// On what calls under way rely.
    relied: Arc<Mutex<Vec<Place>>>,
}

/// A script: what is there, and who does what beside one another.
#[derive(Clone, Copy)]
pub struct Script {
    pub setting: fn(&World),
    pub actors: fn(&World) -> Vec<Actor>,
}

/// A world and what is known of it.
pub struct Model {
    pub world: World,
    watch: Watch,
    records: Records,
    _dir: TempDir,
}

pub fn key(text: &str) -> SnapshotKey {
    SnapshotKey::parse(text).expect("key")
}

pub fn name(text: &str) -> ImageName {
    ImageName::parse(&format!("docker.io/model/{text}:1")).expect("name")
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// A step of its own, where a call has none that others could see.
pub fn step() {
    steer::point("a step");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Model {
    /// An empty store, in memory where there is a place for that.
    pub fn new(engine: EngineKind) -> Model {
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => TempDir::new_in(memory),
            false => TempDir::new(),
        };
        let dir = dir.expect("temporary directory");
        let opened = Node::open(NodeOptions::new(dir.path().join("root"), engine));
        let node = opened.expect("open a new store");
        let watch = node.meta().watch().expect("watch");
        Model {
            world: World {
                node,
                ns: Namespace::parse("model").expect("namespace"),
                relied: Arc::default(),
            },
            watch,
            records: Records::default(),
            _dir: dir,
        }
    }

    /// Plays a script in an order, looks at each step, and leaves the store empty.
    pub fn run(&mut self, script: Script, choose: &mut dyn FnMut(&[usize]) -> usize) {
        (script.setting)(&self.world);
        let actors = (script.actors)(&self.world);
        self.perform(actors, choose);
    }

    /// The same of actors whose setting there is already.
    pub fn perform(&mut self, actors: Vec<Actor>, choose: &mut dyn FnMut(&[usize]) -> usize) {
        self.catch_up("").expect("the setting");
        let names: Vec<&'static str> = actors.iter().map(|(name, _)| *name).collect();
        play(actors, choose, &mut |who| self.catch_up(names[who]));
        let looked = self.quiet();
        looked.unwrap_or_else(|wrong| panic!("afterwards: {wrong}"));
        self.clear();
    }

    /// Takes in what somebody has just done; whether he may.
    fn catch_up(&mut self, who: &str) -> Result<(), String> {
        let changes = self.watch.take();
        let things: Vec<Place> = changes.iter().filter_map(removed_thing).collect();
        if who == COLLECTOR && !things.is_empty() {
            let kept = self.records.kept(&lock(&self.world.relied));
            if let Some(place) = things.iter().find(|place| kept.contains(*place)) {
                return Err(format!("{place:?} was removed while something led to it"));
            }
        }
        let now_gone = |one: &Digest| {
            let gone = |(_, thing): &Place| *thing == Thing::Blob(one.clone());
            things.iter().any(gone)
        };
        let durable = |place: &(Namespace, SnapshotKey)| {
            let snapshots = changes.iter().filter_map(|one| one.of(&schema::SNAPSHOTS));
            let mut snapshots = snapshots.map(|change| change.expect("a sound record"));
            snapshots.any(|(of, record)| of == *place && record.is_some_and(|it| it.durable))
        };
        let torn_by_a_power_cut = self.records.snapshots.iter().find(|(place, record)| {
            let (ns, key) = place;
            let stays = !things.contains(&(ns.clone(), Thing::Snapshot(key.clone())));
            stays
                && !record.durable
                && !durable(place)
                && record.blob.as_ref().is_some_and(now_gone)
        });
        if let (COLLECTOR, Some((place, _))) = (who, torn_by_a_power_cut) {
            return Err(format!(
                "{place:?} is not on the disk, and its blob was removed"
            ));
        }
        let relied = lock(&self.world.relied);
        if who == REMOVER
            && let Some(place) = things.iter().find(|one| relied.contains(one))
        {
            return Err(format!("{place:?} was removed while a call relied on it"));
        }
        drop(relied);
        for lease in changes.iter().filter_map(removed_lease) {
            if who == COLLECTOR && !self.records.is_over(&lease) {
                return Err(format!("{lease:?} was removed before its time was over"));
            }
        }
        changes.iter().for_each(|change| self.records.take(change));
        Ok(())
    }

    /// Nobody does anything any more: what the records speak of is whole, and of all the rest a
    /// collection leaves nothing.
    fn quiet(&mut self) -> Result<(), String> {
        let relied = lock(&self.world.relied).len();
        if relied > 0 {
            return Err(format!("{relied} things are relied on by nobody"));
        }
        self.whole()?;
        self.collect()?;
        let garbage = self.records.garbage();
        if !garbage.is_empty() {
            return Err(format!("a collection left {garbage:?}"));
        }
        self.whole()
    }

    fn collect(&mut self) -> Result<(), String> {
        let collected = self.world.node.gc(false);
        collected.map_err(|failure| format!("collect: {failure}"))?;
        self.catch_up(COLLECTOR)
    }

    /// What records speak of is on the disk.
    fn whole(&self) -> Result<(), String> {
        let (content, snapshots) = (self.world.node.content(), self.world.node.snapshots());
        for (ns, digest) in self.records.blobs.keys() {
            let read = content.read_all(ns, digest, DOCUMENT_BYTES_MAX);
            read.map_err(|err| format!("blob {digest} is recorded: {err}"))?;
        }
        for ((ns, key), record) in &self.records.snapshots {
            let whole = match record.kind {
                SnapshotKind::Committed => snapshots.lowers(ns, key).map(drop),
                _ => snapshots.mounts(ns, key).map(drop),
            };
            whole.map_err(|err| format!("snapshot {key} is recorded: {err}"))?;
            let there = snapshots.has_tree(record.id);
            if !there.map_err(|err| format!("snapshot {key}: {err}"))? {
                return Err(format!("snapshot {key} is recorded, and its tree is gone"));
            }
        }
        Ok(())
    }

    /// Lets go of everything, whoever held it.
    fn clear(&mut self) {
        let node = self.world.node.clone();
        for (ns, name) in self.records.images.keys() {
            let anybody = Caller::of(ns.clone());
            node.image_delete(&anybody, name, None).expect("image");
        }
        for (ns, id) in self.records.leases.keys() {
            node.lease_delete(ns, id).expect("lease");
        }
        let rooted = |labels: &Labels| labels.contains_key(ROOT);
        let blobs = self.records.blobs.iter();
        for ((ns, digest), _) in blobs.filter(|(_, link)| rooted(&link.labels)) {
            let cleared = node.content().set_labels(ns, digest, Labels::new());
            cleared.expect("blob");
        }
        let snapshots = self.records.snapshots.iter();
        for ((ns, key), _) in snapshots.filter(|(_, record)| rooted(&record.labels)) {
            let cleared = node.snapshots().set_labels(ns, key, Labels::new());
            cleared.expect("snapshot");
        }
        for ((ns, reference), upload) in &self.records.uploads {
            if !upload.leased {
                node.content().abort(ns, reference).expect("upload");
            }
        }
        self.catch_up("").expect("all may");
        self.collect().expect("a collection");
        let left = self.records.things();
        assert!(left.is_empty(), "cleared, and there is {left:?}");
    }
}

impl World {
    /// One who collects so many times.
    pub fn collector(&self, times: usize) -> Actor {
        let node = self.node.clone();
        let act = move || {
            for _ in 0..times {
                node.gc(false).expect("collect");
            }
        };
        (COLLECTOR, Box::new(act))
    }

    /// One who does something.
    pub fn actor(&self, name: &'static str, act: impl FnOnce(&World) + Send + 'static) -> Actor {
        let world = self.clone();
        (name, Box::new(move || act(&world)))
    }

    /// The same in another namespace.
    pub fn within(&self, ns: &str) -> World {
        World {
            ns: Namespace::parse(ns).expect("namespace"),
            ..self.clone()
        }
    }

    fn caller(&self, lease: &str) -> Caller {
        Caller {
            ns: self.ns.clone(),
            lease: Some(lease.to_owned()),
        }
    }

    /// Stores a blob with labels; one that is there already is as good.
    pub fn put(&self, text: &str, labels: Labels) -> Digest {
        let put = self
            .node
            .content()
            .put(&self.ns, text.as_bytes(), None, labels);
        match put {
            Ok(digest) => digest,
            Err(err) => {
                assert_eq!(err.kind(), ErrorKind::AlreadyExists, "{err}");
                Digest::sha256(text.as_bytes())
            }
        }
    }

    /// A blob that refers to others.
    pub fn blob(&self, text: &str, refs: &[&Digest]) -> Digest {
        let refs = refs.iter().enumerate();
        let refs = refs.map(|(n, digest)| (format!("{REF}.{n}"), digest.to_string()));
        self.put(text, refs.collect())
    }

    /// The same, which is a root.
    pub fn root(&self, text: &str, refs: &[&Digest]) -> Digest {
        let digest = self.blob(text, refs);
        let root = labels(&[(ROOT, "1")]);
        let rooted = self.node.content().update_labels(&self.ns, &digest, &root);
        rooted.expect("label");
        digest
    }

    /// A committed snapshot.
    pub fn snapshot(&self, text: &str, parent: Option<&str>) {
        let (snapshots, parent) = (self.node.snapshots(), parent.map(key));
        let work = key(&format!("{text} as it is made"));
        let prepared = snapshots.prepare(&self.ns, &work, parent.as_ref(), Labels::new());
        prepared.expect("prepare");
        let committed = snapshots.commit(&self.ns, &key(text), &work, Labels::new());
        committed.expect("commit");
    }

    /// A layer as it comes of an unpacking: not on the disk yet, and to be had again from a blob.
    pub fn layer(&self, text: &str, blob: &Digest) {
        let snapshots = self.node.snapshots();
        let layer = StagedLayer {
            staged: snapshots.stage().expect("stage"),
            key: key(text),
            parent: None,
            usage: Usage::default(),
            diff_id: None,
            blob: Some(blob.clone()),
            timing: None,
            labels: Labels::new(),
        };
        let committed = snapshots.commit_stack(&self.ns, vec![layer]);
        committed.expect("commit");
    }

    /// An image of a blob.
    pub fn image(&self, text: &str, target: &Digest, labels: Labels) {
        let target = Descriptor::new("text/plain", target.clone(), 1);
        let anybody = Caller::of(self.ns.clone());
        let made = self
            .node
            .image_create(&anybody, &name(text), target, labels, None);
        made.expect("image");
    }

    /// Makes a lease; whether there was none.
    pub fn lease(&self, id: &str, labels: Labels) -> bool {
        let id = LeaseId::parse(id).expect("id");
        match self.node.lease_create(&self.ns, Some(id), labels) {
            Ok(_) => true,
            Err(failure) => {
                assert_eq!(failure.kind, ErrorKind::AlreadyExists, "{failure}");
                false
            }
        }
    }

    /// Adds to a lease; whether that is there.
    pub fn add(&self, lease: &str, resource: &Resource) -> bool {
        let id = LeaseId::parse(lease).expect("id");
        let (kind, thing) = resource.parts();
        match self
            .node
            .lease_resource(&self.ns, &id, (kind, &thing), true)
        {
            Ok(()) => true,
            Err(failure) => {
                assert_eq!(failure.kind, ErrorKind::NotFound, "{failure}");
                false
            }
        }
    }

    pub fn end_lease(&self, id: &str) {
        let id = LeaseId::parse(id).expect("id");
        self.node.lease_delete(&self.ns, &id).expect("delete");
    }

    /// Looks under a lease; what is found is held.
    pub fn hold_if_there(&self, lease: &str, resource: &Resource) -> bool {
        let held = self.node.hold_if_there(&self.caller(lease), resource);
        held.expect("hold")
    }

    pub fn hold(&self, lease: &str, resource: &Resource) {
        step();
        let held = self.node.hold(&self.caller(lease), resource);
        held.expect("hold");
    }

    pub fn let_go(&self, lease: &str, resource: &Resource) {
        step();
        let gone = self.node.let_go(&self.caller(lease), resource);
        gone.expect("let go");
    }

    pub fn has(&self, digest: &Digest) -> bool {
        let there = self.node.content().exists(&self.ns, digest);
        there.expect("exists")
    }

    /// What is held can be read.
    #[track_caller]
    pub fn reads(&self, digest: &Digest) {
        let read = self
            .node
            .content()
            .read_all(&self.ns, digest, DOCUMENT_BYTES_MAX);
        read.expect("it is held");
    }

    /// For one call.
    pub fn relies(&self) -> Reliance {
        Reliance {
            world: self.clone(),
            pins: self.node.pins(),
            places: Vec::new(),
        }
    }

    /// What the world is to know of a call: that it relies on something from now on.
    pub fn relied(&self, thing: Thing) {
        lock(&self.relied).push((self.ns.clone(), thing));
    }

    /// And that it does no more.
    pub fn unrelied(&self, thing: &Thing) {
        let mut relied = lock(&self.relied);
        let at = relied.iter().position(|(_, one)| one == thing);
        relied.remove(at.expect("it was relied on"));
    }
}

/// Pins, and what is known of them.
pub struct Reliance {
    world: World,
    pub pins: Pins,
    places: Vec<Thing>,
}

impl Reliance {
    pub fn blob(&mut self, digest: &Digest) {
        step();
        self.pins.blob(&self.world.ns, digest);
        self.knows(Thing::Blob(digest.clone()));
    }

    /// It is pinned by now.
    pub fn knows(&mut self, thing: Thing) {
        self.world.relied(thing.clone());
        self.places.push(thing);
    }
}

impl Drop for Reliance {
    /// The pins go after this.
    fn drop(&mut self) {
        for thing in &self.places {
            self.world.unrelied(thing);
        }
    }
}
