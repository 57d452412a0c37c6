//! Every command of a store's life is hit by faults: killed before and after system calls, and with
//! calls that fail, are interrupted or fall short. After each the next command simply goes on.
//!
//! All calls in all ways are far too many for every day, so they are sampled, always in the same way;
//! `CAIRN_CRASH_FULL=1` visits all (`integration/crash kill --full`), `CAIRN_CRASH_POINTS` sets how
//! many.

#![allow(missing_docs, clippy::print_stdout)]

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use cairn_integration::fault::{self, Bench, Dice, Images, Reference, STEPS};

/// Faults with nothing after the number, and `+` for a disk that stays full.
const KINDS: &[(&str, &str)] = &[
    ("kill", ""),
    ("kill-after", ""),
    ("ENOSPC", ""),
    ("ENOSPC", "+"),
    ("EIO", ""),
    ("EDQUOT", ""),
    ("EMFILE", ""),
    ("EINTR", ""),
    ("short", ""),
];
/// Failures after which no more are looked for.
const FAILURES_MAX: usize = 12;

/// One fault: a step by its index, and the text for the program.
type Point = (usize, String);

/// The points to visit: the first and the last call of each step in every way, then each call's name
/// in every way, then whatever comes, as long as there are fewer than `limit`.
fn points(reference: &Reference, limit: usize, seed: u64) -> Vec<Point> {
    let mut edges = Vec::new();
    let mut all = Vec::new();
    for (step, calls) in reference.calls.iter().enumerate() {
        for (kind, suffix) in KINDS {
            let writes = |op: &str| op == "write" || op == "pwrite";
            let useful: Vec<_> = calls
                .iter()
                .filter(|call| *kind != "short" || writes(&call.op))
                .collect();
            for (at, call) in useful.iter().enumerate() {
                let point = (step, format!("{kind}@{}{suffix}", call.number));
                if at == 0 || at + 1 == useful.len() {
                    edges.push(point.clone());
                }
                all.push((point, (*kind, *suffix, call.op.clone())));
            }
        }
    }
    if limit >= all.len() {
        return all.into_iter().map(|(point, _)| point).collect();
    }
    let mut dice = Dice(seed);
    for at in (1..all.len()).rev() {
        all.swap(at, dice.roll(at + 1));
    }
    let mut seen = HashSet::new();
    let (first, rest): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|(_, what)| seen.insert(what.clone()));
    let sampled = first.into_iter().chain(rest).map(|(point, _)| point);
    let mut taken = HashSet::new();
    let mut points: Vec<Point> = edges
        .into_iter()
        .chain(sampled)
        .filter(|point| taken.insert(point.clone()))
        .take(limit)
        .collect();
    // Neighbours share nothing but the step; sorted, a failure is easier to read.
    points.sort();
    points
}

fn limit(default: usize) -> usize {
    if std::env::var_os("CAIRN_CRASH_FULL").is_some() {
        return usize::MAX;
    }
    let wanted = std::env::var("CAIRN_CRASH_POINTS").ok();
    wanted.map_or(default, |text| {
        text.parse().expect("CAIRN_CRASH_POINTS is a number")
    })
}

fn binary() -> PathBuf {
    match std::env::var_os("CAIRN_CRASH_BINARY") {
        Some(path) => path.into(),
        None => fault::binary().to_owned(),
    }
}

/// Visits the points with as many stores as there are processors.
fn visit_all(engine: &'static str, default: usize) {
    let binary = binary();
    let images = Images::new();
    let reference = Bench::new(&binary, &images, engine).reference();
    let calls: usize = reference.calls.iter().map(Vec::len).sum();
    let points = points(&reference, limit(default), 0x5eed);
    let (next, begin) = (AtomicUsize::new(0), Instant::now());
    let failures = Mutex::new(Vec::new());
    let ends = Mutex::new(BTreeMap::<String, usize>::new());
    let workers = thread::available_parallelism().map_or(2, |n| n.get());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let bench = Bench::new(&binary, &images, engine);
                while let Some((step, fault)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let step = &STEPS[*step];
                    match bench.visit(&reference, step, fault) {
                        Ok(ended) => {
                            let mut ends = ends.lock().expect("counts");
                            *ends.entry(format!("{ended:?}")).or_default() += 1;
                        }
                        Err(reason) => {
                            let mut failures = failures.lock().expect("failures");
                            failures.push(format!("{} with {fault}: {reason}", step.title));
                            if failures.len() >= FAILURES_MAX {
                                next.store(points.len(), Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("failures");
    let ends = ends.into_inner().expect("counts");
    println!(
        "{engine}: {} commands make {calls} calls; {} faults in {:.0?}: {ends:?}",
        STEPS.len(),
        points.len(),
        begin.elapsed()
    );
    assert!(
        failures.is_empty(),
        "{} of {} faults:\n\n{}",
        failures.len(),
        points.len(),
        failures.join("\n\n")
    );
}

#[test]
fn faults_leave_a_store_that_goes_on() {
    visit_all("redb", 600);
}

#[test]
fn faults_leave_a_store_that_goes_on_with_sled() {
    visit_all("sled", 120);
}
