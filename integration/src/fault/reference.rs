//! A life without faults, to know what each command comes to.

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::{
    Bench, Call, Disk, Step, Verdict,
    bench::told,
    calls,
    disk::copy,
    oracle::{self, Expected, Images},
    records::{Records, Stage},
};
use crate::tree::Tree;

/// What a life without faults looks like.
pub struct Reference {
    /// The stores that steps begin with, and what keeps the copies.
    disk: Disk,
    /// In the order of the steps.
    pub(super) lives: Vec<Life>,
    images: Images,
    /// Snapshots that clients committed, as mounted.
    snapshots: BTreeMap<String, Tree>,
    /// What `export` writes.
    pub(super) exported: Vec<u8>,
    /// How many calls it takes to open a store and look.
    pub(super) opening: u64,
}

/// One command.
pub(super) struct Life {
    pub(super) step: &'static Step,
    pub(super) before: Records,
    pub(super) after: Records,
    /// What it leaves beside the store is there before.
    pub(super) beside: bool,
    /// Its calls, in order.
    pub(super) calls: Vec<Call>,
    /// Those of a daemon that starts, does it and stops.
    pub(super) served: Vec<Call>,
}

impl Reference {
    /// The store that a step begins with.
    pub(super) fn base(&self, step: &Step) -> Option<PathBuf> {
        step.base.map(|title| self.disk.path().join(title))
    }

    /// An image, by its manifest.
    pub(super) fn image(&self, target: &str) -> Option<&Expected> {
        self.images.get(target)
    }

    /// A snapshot that a client committed.
    pub(super) fn snapshot(&self, name: &str) -> Option<&Tree> {
        self.snapshots.get(name)
    }

    /// How many commands there are.
    pub fn steps(&self) -> usize {
        self.lives.len()
    }

    /// How many calls they make, by themselves and served.
    pub fn calls(&self) -> [usize; 2] {
        [
            self.lives.iter().map(|life| life.calls.len()).sum(),
            self.lives.iter().map(|life| life.served.len()).sum(),
        ]
    }
}

/// Lives through the steps once, each by itself and served, and each once more when it is done.
pub(super) fn live(bench: &Bench, steps: &[&'static Step]) -> Reference {
    let mut reference = Reference {
        disk: Disk::new("768M", &[]),
        lives: Vec::new(),
        images: Images::new(),
        snapshots: BTreeMap::new(),
        exported: Vec::new(),
        opening: 0,
    };
    for step in steps {
        let kept = steps.iter().any(|other| other.base == Some(step.title));
        let lived = alone(bench, step, kept, &mut reference);
        let lived = lived.and_then(|mut life| {
            life.served = served(bench, &life, &reference)?;
            Ok(life)
        });
        let life =
            lived.unwrap_or_else(|reason| panic!("{}, without faults: {reason}", step.title));
        reference.lives.push(life);
    }
    reference
}

fn alone(
    bench: &Bench,
    step: &'static Step,
    kept: bool,
    reference: &mut Reference,
) -> Verdict<Life> {
    bench.before(reference, step)?;
    let before = bench.records()?;
    let beside = bench.check_leaves(reference, step).is_ok();
    let told_calls = bench.run(step.args, step.stdin, Some("none@1+"));
    if !told_calls.status.success() {
        return Err(told(&told_calls));
    }
    let out = bench.work().join("out.tar");
    if out.exists() {
        reference.exported = fs::read(out).expect("exported archive");
    }
    if kept {
        copy(&bench.root(), &reference.disk.path().join(step.title));
    }
    let life = Life {
        step,
        before,
        after: bench.look(true)?,
        beside,
        calls: calls(&told_calls),
        served: Vec::new(),
    };
    if reference.opening == 0 {
        let opened = bench.run(&["images", "ls"], None, Some("none@1+"));
        reference.opening = calls(&opened).len() as u64;
    }
    bench.check_leaves(reference, step)?;
    // Done again it says what it has to, and changes nothing.
    bench.repeat(step, Stage::All)?;
    life.after.same(&bench.look(false)?.settled())?;
    take_trees(bench, &life.after, reference)?;
    bench.examine_images(reference, &life.after)?;
    bench.examine_trees(reference, &life.after)?;
    bench.empty()?;
    Ok(life)
}

/// Comes to the same.
fn served(bench: &Bench, life: &Life, reference: &Reference) -> Verdict<Vec<Call>> {
    bench.before(reference, life.step)?;
    let did = bench.serve(life.step, "none@1+")?;
    if !did.good {
        return Err(format!("served: {}", did.said));
    }
    bench.check_leaves(reference, life.step)?;
    life.after.same(&bench.look(false)?.settled())?;
    bench.empty()?;
    Ok(super::calls_in(&did.said))
}

/// What images and snapshots consist of that were not there before.
fn take_trees(bench: &Bench, records: &Records, reference: &mut Reference) -> Verdict {
    for (ns, name, target) in oracle::images(records) {
        if reference.images.contains_key(target) {
            continue;
        }
        let expected = Expected {
            blobs: oracle::blobs_of(&bench.root(), target)?,
            tree: bench.mounted_tree(ns, name)?,
        };
        reference.images.insert(target.to_owned(), expected);
    }
    for (ns, name) in records.committed() {
        if !reference.snapshots.contains_key(name) {
            let tree = bench.committed_tree(ns, name)?;
            reference.snapshots.insert(name.to_owned(), tree);
        }
    }
    Ok(())
}
