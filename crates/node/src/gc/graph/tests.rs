//! Marks that are kept true while records change, beside marks that are made anew.

use std::collections::{BTreeMap, HashSet};

use cairn_types::{Digest, ImageName, Labels, SnapshotKey};

use super::*;
use crate::gc::labels;

const BLOBS: usize = 8;
const SNAPSHOTS: usize = 6;
const NOW: Timestamp = Timestamp(1_000_000_000_000_000_000);

/// The same numbers each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("small") % sides
    }

    fn item(&mut self) -> Item {
        let n = self.roll(BLOBS + SNAPSHOTS);
        match n.checked_sub(BLOBS) {
            None => Item::Blob(Digest::sha256(n.to_string().as_bytes())),
            Some(n) => Item::Snapshot(key(n)),
        }
    }

    /// Labels of all kinds about others.
    fn labels(&mut self) -> Labels {
        let mut labels = Labels::new();
        for n in 0..self.roll(3) {
            let way = ["ref", "ref", "bref"][self.roll(3)];
            let (kind, value) = match self.item() {
                Item::Blob(digest) => ("content", digest.to_string()),
                Item::Snapshot(key) => ("snapshot.overlayfs", key.to_string()),
                _ => continue,
            };
            labels.insert(format!("containerd.io/gc.{way}.{kind}/{n}"), value);
        }
        if self.roll(5) == 0 {
            let label = "containerd.io/gc.cond.snapshot.overlayfs".to_owned();
            labels.insert(label, format!("usedat<24h|{}", key(self.roll(SNAPSHOTS))));
        }
        labels
    }

    fn facts(&mut self, item: &Item) -> Facts {
        let labels = self.labels();
        let root = self.roll(6) == 0;
        let snapshot = matches!(item, Item::Snapshot(_));
        Facts {
            root,
            // Only on lower ones, as it is with snapshots.
            stands_on: match item {
                Item::Snapshot(own) => {
                    let other = key(self.roll(SNAPSHOTS));
                    (other < *own).then_some(Item::Snapshot(other))
                }
                _ => None,
            },
            refs: labels::forward(&labels),
            owners: labels::back(&labels),
            conditions: match snapshot {
                true => Vec::new(),
                false => labels::conditional(&labels),
            },
            used_at: (snapshot && self.roll(2) == 0).then_some(i128::from(NOW.0)),
            ..Facts::default()
        }
    }
}

fn key(n: usize) -> SnapshotKey {
    SnapshotKey::parse(&format!("s{n}")).expect("key")
}

fn copy(facts: &Facts) -> Facts {
    Facts {
        size: facts.size,
        tree: facts.tree,
        root: facts.root,
        stands_on: facts.stands_on.clone(),
        refs: facts.refs.clone(),
        owners: facts.owners.clone(),
        conditions: facts.conditions.clone(),
        used_at: facts.used_at,
    }
}

type Records = BTreeMap<String, (Item, Facts)>;

fn anew(records: &Records, kept: &[Item]) -> Graph {
    let mut graph = Graph::new(NOW, false);
    for (item, facts) in records.values() {
        graph.set(item.clone(), copy(facts));
    }
    graph.mark();
    for item in kept {
        let id = graph.id(item.clone());
        graph.keep(id);
    }
    graph
}

fn dead(graph: &Graph) -> Vec<Item> {
    let dead = graph.dead().into_iter();
    dead.map(|id| graph.item(id).clone()).collect()
}

#[test]
fn marks_are_kept_true_and_garbage_goes_from_the_top() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut freed, mut saved) = (0, 0);
    for _ in 0..2000 {
        let mut records = Records::new();
        for _ in 0..dice.roll(14) {
            let item = dice.item();
            let facts = dice.facts(&item);
            records.insert(format!("{item:?}"), (item, facts));
        }
        let mut graph = anew(&records, &[]);
        let begun = dead(&graph);
        let mut kept = Vec::new();
        for _ in 0..dice.roll(6) {
            let item = dice.item();
            match dice.roll(4) {
                0 => {
                    records.remove(&format!("{item:?}"));
                    graph.unset(&item);
                }
                1 => {
                    let id = graph.id(item.clone());
                    graph.keep(id);
                    kept.push(item);
                }
                _ => {
                    let facts = dice.facts(&item);
                    graph.set(item.clone(), copy(&facts));
                    records.insert(format!("{item:?}"), (item, facts));
                }
            }
        }
        // Whatever is dead by marks that followed the changes is dead for who looks anew.
        let truly: HashSet<Item> = dead(&anew(&records, &kept)).into_iter().collect();
        let mut left = anew(&records, &kept);
        let condemned: Vec<Item> = begun
            .into_iter()
            .filter(|item| {
                let id = graph.id(item.clone());
                graph.is_dead(id)
            })
            .collect();
        saved += truly.len() - condemned.iter().filter(|i| truly.contains(i)).count();
        for item in condemned {
            assert!(truly.contains(&item), "{item:?} is alive");
            freed += 1;
            left.unset(&item);
            records.remove(&format!("{item:?}"));
        }
        // And what is left needs nothing of it: as much is alive as before.
        let alive = |graph: &Graph| {
            let alive = graph.all().filter(|id| !graph.is_dead(*id));
            let alive = alive.map(|id| format!("{:?}", graph.item(id)));
            alive.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(alive(&left), alive(&anew(&records, &kept)));
    }
    assert!(freed > 500 && saved > 0, "{freed} {saved}");
}

#[test]
fn whatever_has_no_way_from_a_root_is_dead_and_nothing_else_is() {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut alive = 0;
    for _ in 0..500 {
        let mut graph = Graph::new(NOW, false);
        for _ in 0..dice.roll(14) {
            let item = dice.item();
            let facts = dice.facts(&item);
            graph.set(item, facts);
        }
        graph.mark();
        for id in graph.all() {
            let ways = graph.ways_to(id, false);
            let held = graph.roots().any(|root| ways.contains_key(&root));
            assert_eq!(held, !graph.is_dead(id), "{:?}", graph.item(id));
            alive += usize::from(held);
            // Each step leads on, and the last one to it.
            for mut at in ways.keys().copied() {
                for _ in 0..ways.len() {
                    at = ways[&at];
                }
                assert_eq!(at, id);
            }
        }
    }
    assert!(alive > 500, "{alive}");
}

#[test]
fn a_flat_lease_has_ways_along_what_a_thing_stands_on() {
    let blob = Item::Blob(Digest::sha256(b"target"));
    let image = Item::Image(ImageName::parse("docker.io/library/a:1").expect("name"));
    let parent = Item::Snapshot(key(1));
    let mut graph = Graph::new(NOW, false);
    let of_image = Facts {
        stands_on: Some(blob.clone()),
        refs: vec![parent.clone()],
        ..Facts::default()
    };
    graph.set(image.clone(), of_image);
    graph.set(blob.clone(), Facts::default());
    graph.set(parent.clone(), Facts::default());
    let (image, blob, parent) = (graph.id(image), graph.id(blob), graph.id(parent));
    assert!(graph.ways_to(blob, true).contains_key(&image));
    assert!(!graph.ways_to(parent, true).contains_key(&image));
    assert!(graph.ways_to(parent, false).contains_key(&image));
}

#[test]
fn each_goes_before_what_it_keeps() {
    let blob = |text: &str| Item::Blob(Digest::sha256(text.as_bytes()));
    let refs = |items: &[Item]| Facts {
        refs: items.to_vec(),
        ..Facts::default()
    };
    let mut graph = Graph::new(NOW, false);
    // A chain and a shortcut, recorded in the most awkward order; and one that lives with the first.
    graph.set(blob("c"), Facts::default());
    graph.set(blob("b"), refs(&[blob("c")]));
    graph.set(blob("a"), refs(&[blob("c"), blob("b")]));
    graph.set(
        blob("with a"),
        Facts {
            owners: vec![blob("a")],
            ..Facts::default()
        },
    );
    // Over a name that nothing has.
    graph.set(blob("top"), refs(&[blob("nothing")]));
    graph.set(
        blob("with nothing"),
        Facts {
            owners: vec![blob("nothing")],
            ..Facts::default()
        },
    );
    graph.mark();
    let order = dead(&graph);
    let at = |text: &str| order.iter().position(|item| *item == blob(text));
    assert_eq!(order.len(), 6);
    for (above, below) in [
        ("a", "b"),
        ("b", "c"),
        ("a", "with a"),
        ("top", "with nothing"),
    ] {
        assert!(at(above) < at(below), "{above} {below}");
    }
}
