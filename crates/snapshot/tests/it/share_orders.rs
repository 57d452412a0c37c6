//! Trees of several namespaces, shared and removed in whatever order.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use cairn_meta::EngineKind;

use crate::common::Fixture;

/// The same numbers each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("small") % sides
    }
}

const SPACES: [&str; 3] = ["a", "b", "c"];
const STACK: [&str; 4] = ["one", "two", "three", "four"];

/// What a store should have: how many layers of the stack each namespace has, with their trees, and which
/// trees are on the disk.
#[derive(Default)]
struct Model {
    boot: u32,
    has: HashMap<&'static str, Vec<u64>>,
    durable: BTreeSet<u64>,
}

impl Model {
    fn trees(&self) -> BTreeSet<u64> {
        self.has.values().flatten().copied().collect()
    }

    #[track_caller]
    fn check(&self, store: &Fixture) {
        for space in SPACES {
            let has = self.has.get(space).map_or(&[][..], Vec::as_slice);
            for (n, name) in STACK.iter().enumerate() {
                let info = store.info(space, name);
                assert_eq!(info.as_ref().map(|info| info.id), has.get(n).copied());
                let Some(info) = info else { continue };
                assert_eq!(info.durable, self.durable.contains(&info.id));
                assert!(store.shows(space, name), "{name} of {space}");
            }
        }
        assert_eq!(store.directories(), self.trees().len());
    }

    /// What others could give to a namespace.
    fn to_be_had(&self, space: &str, upto: usize) -> Vec<u64> {
        let mut own = self.has.get(space).cloned().unwrap_or_default();
        while own.len() < upto {
            let n = own.len();
            let fits = |theirs: &&Vec<u64>| theirs.len() > n && theirs[..n] == own[..];
            let found = SPACES.iter().filter_map(|other| self.has.get(other));
            let Some(theirs) = found.filter(fits).map(|theirs| theirs[n]).next() else {
                break;
            };
            own.push(theirs);
        }
        own
    }

    fn step(&mut self, store: Fixture, dice: &mut Dice) -> Fixture {
        let space = SPACES[dice.roll(SPACES.len())];
        let upto = 1 + dice.roll(STACK.len());
        match dice.roll(12) {
            0..=3 => self.share(&store, space, upto),
            4..=5 => self.unpack(&store, space, upto),
            6..=9 => {
                let known = self.has.entry(space).or_default();
                if known.pop().is_some() {
                    store.drop_one(space, STACK[known.len()]);
                }
            }
            10 => {
                store.snapshots.flush().expect("flush");
                self.durable.extend(self.trees());
            }
            _ => return self.reopen(store, dice.roll(2) == 0),
        }
        store
    }

    fn share(&mut self, store: &Fixture, space: &'static str, upto: usize) {
        let known = self.has.get(space).map_or(0, Vec::len);
        let own = self.to_be_had(space, upto);
        let shared = store.share(space, &STACK[..upto]);
        assert_eq!(shared.here, own.len().min(upto));
        assert_eq!(shared.taken.len(), own.len() - known);
        self.has.insert(space, own);
    }

    /// Without looking at what others have.
    fn unpack(&mut self, store: &Fixture, space: &'static str, upto: usize) {
        let known = self.has.entry(space).or_default();
        let missing = &STACK[known.len()..upto.max(known.len())];
        let top = known.len().checked_sub(1).map(|below| STACK[below]);
        store.unpack_on(space, top, missing);
        for name in missing {
            known.push(store.info(space, name).expect("unpacked").id);
        }
    }

    fn reopen(&mut self, store: Fixture, cut: bool) -> Fixture {
        self.boot += u32::from(cut);
        let (store, _) = store.reopen(&format!("boot-{}", self.boot));
        if cut {
            for own in self.has.values_mut() {
                let whole = own.iter().take_while(|tree| self.durable.contains(tree));
                own.truncate(whole.count());
            }
        }
        store
    }
}

fn random_orders(engine: EngineKind, seeds: u64, steps: usize) {
    let mut most = 0;
    for seed in 0..seeds {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed);
        let mut store = Fixture::of(engine).reopen("boot-0").0;
        let mut model = Model::default();
        for _ in 0..steps {
            store = model.step(store, &mut dice);
            model.check(&store);
            let records: usize = model.has.values().map(Vec::len).sum();
            most = most.max(records - model.trees().len());
        }
    }
    assert!(most > STACK.len(), "{most} records shared a tree");
}

#[test]
fn trees_are_there_exactly_as_long_as_records_speak_of_them() {
    random_orders(EngineKind::Redb, 8, 60);
}

#[test]
fn and_so_with_the_other_engine() {
    random_orders(EngineKind::Sled, 2, 60);
}

/// The last of a tree's records goes while others come to share it.
#[test]
fn sharing_and_removing_pass_each_other() {
    const ROUNDS: usize = 60;
    let store = Fixture::new();
    let shared = AtomicUsize::new(0);
    // From whom all others have theirs at first.
    store.unpack("first", &STACK[..2]);
    let begun = Barrier::new(SPACES.len() + 1);
    thread::scope(|scope| {
        for space in SPACES {
            let (store, shared, begun) = (&store, &shared, &begun);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let got = store.share(space, &STACK[..2]);
                    shared.fetch_add(got.taken.len(), Ordering::Relaxed);
                    if round == 0 {
                        begun.wait();
                    }
                    let top = got.here.checked_sub(1).map(|below| STACK[below]);
                    store.unpack_on(space, top, &STACK[got.here..2]);
                    thread::yield_now();
                    for name in [STACK[1], STACK[0]] {
                        assert!(store.shows(space, name), "{name} of {space}");
                        store.drop_one(space, name);
                    }
                }
            });
        }
        begun.wait();
        store.drop_one("first", STACK[1]);
        store.drop_one("first", STACK[0]);
    });
    assert!(shared.into_inner() >= 2 * SPACES.len());
    assert_eq!(store.directories(), 0);
}
