//! The committer over an engine that fails when told to, and counts.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, sync_channel},
    },
};

use cairn_types::{Classified, ErrorKind};

use super::*;
use crate::{
    View,
    engine::{Pairs, Snapshot},
    schema,
};

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Commit,
    CommitPanics,
    Snapshot,
}

#[derive(Default)]
struct Fake {
    map: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    commits: AtomicUsize,
    notes: AtomicUsize,
    fault: Mutex<Option<Fault>>,
    /// For so many bytes there is room; 0 is any.
    room: AtomicU64,
}

impl Fake {
    fn fault(&self) -> Option<Fault> {
        *self.fault.lock().expect("lock")
    }

    fn set_fault(&self, fault: Option<Fault>) {
        *self.fault.lock().expect("lock") = fault;
    }
}

struct State(BTreeMap<Vec<u8>, Vec<u8>>);

impl Snapshot for State {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8]) -> Result<Pairs, Error> {
        let all = self.0.iter().filter(|(k, _)| k.starts_with(prefix));
        Ok(all.map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn scan_after(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Pairs, Error> {
        let mut all = self.scan(prefix)?;
        all.retain(|(key, _)| key.as_slice() > after);
        all.truncate(limit);
        Ok(all)
    }
}

impl Engine for Fake {
    fn full(&self, bytes: u64) -> Option<Error> {
        let free = self.room.load(SeqCst);
        let needed = bytes;
        (free > 0 && needed > free).then_some(Error::Full { free, needed })
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, Error> {
        if self.fault() == Some(Fault::Snapshot) {
            return Err(Error::Damaged("on purpose".to_owned()));
        }
        Ok(Box::new(State(self.map.lock().expect("lock").clone())))
    }

    fn commit(&self, batch: &Batch) -> Result<(), String> {
        self.commits.fetch_add(1, SeqCst);
        match self.fault() {
            Some(Fault::Commit) => return Err("no space".to_owned()),
            Some(Fault::CommitPanics) => panic!("no space"),
            _ => {}
        }
        let mut map = self.map.lock().expect("lock");
        for (key, change) in batch {
            match change {
                Some(value) => map.insert(key.clone(), value.clone()),
                None => map.remove(key),
            };
        }
        Ok(())
    }

    fn note(&self, _: &Batch) -> Result<(), String> {
        self.notes.fetch_add(1, SeqCst);
        Ok(())
    }

    fn value_bytes_max(&self) -> usize {
        1 << 20
    }

    fn key_bytes_max(&self) -> usize {
        1 << 10
    }

    fn name(&self) -> &'static str {
        "fake"
    }
}

type Change = fn(&mut Tx<'_>) -> Result<u64, Error>;

/// Runs the closures as one group.
fn group(engine: &Fake, told: &Told, closures: &[Change]) -> Vec<Result<u64, Error>> {
    let jobs: Vec<(Job, Receiver<Word<u64, Error>>)> = closures
        .iter()
        .map(|c| Job::new(*c, Wanted::OnDisk))
        .collect();
    let (jobs, answers): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
    commit_group(engine, jobs, told);
    let results = answers.into_iter().map(|words| match words.recv() {
        Ok(Word::Done(answer)) => answer,
        _ => panic!("no answer"),
    });
    results.map(|r| r.unwrap_or(Ok(u64::MAX))).collect()
}

fn next(tx: &mut Tx<'_>) -> Result<u64, Error> {
    tx.next_id("n")
}

fn look(tx: &mut Tx<'_>) -> Result<u64, Error> {
    Ok(tx.get(&schema::COUNTERS, &"n".to_owned())?.unwrap_or(0))
}

fn fail(tx: &mut Tx<'_>) -> Result<u64, Error> {
    tx.next_id("n")?;
    Err(Error::Read("on purpose".to_owned()))
}

fn blow(tx: &mut Tx<'_>) -> Result<u64, Error> {
    tx.next_id("n")?;
    panic!("on purpose")
}

fn kinds(results: &[Result<u64, Error>]) -> Vec<Result<u64, ErrorKind>> {
    let plain = results.iter().map(|r| r.as_ref().map_err(Classified::kind));
    plain.map(|r| r.copied()).collect()
}

#[test]
fn a_group_is_one_commit_and_failures_in_it_leave_nothing() {
    let engine = Fake::default();
    let told = Told::default();
    let results = group(&engine, &told, &[next, fail, blow, next, look, next]);
    let internal = Err(ErrorKind::Internal);
    let expected = [Ok(1), internal, Ok(u64::MAX), Ok(2), Ok(2), Ok(3)];
    assert_eq!(kinds(&results), expected);
    assert_eq!(engine.commits.load(SeqCst), 1);
}

#[test]
fn a_failed_commit_is_everyones_and_no_later_one_is_tried() {
    for fault in [Fault::Commit, Fault::CommitPanics] {
        let engine = Fake::default();
        let told = Told::default();
        group(&engine, &told, &[next]);
        engine.set_fault(Some(fault));
        // The first look rests on what is on disk; the second, and the refusal, on what is lost.
        let results = group(&engine, &told, &[look, next, look, fail]);
        let lost = Err(ErrorKind::Unavailable);
        assert_eq!(kinds(&results), [Ok(1), lost, lost, lost]);
        assert!(told.broken.get().is_some());
        let text = results[1].as_ref().expect_err("lost").to_string();
        assert!(
            text.contains("read-only") && text.contains("no space"),
            "{text}"
        );

        engine.set_fault(None);
        let tried = engine.commits.load(SeqCst);
        let results = group(&engine, &told, &[next, look, next, look]);
        assert_eq!(kinds(&results), [lost, Ok(1), lost, Ok(1)]);
        assert_eq!(engine.commits.load(SeqCst), tried);
    }
}

#[test]
fn an_unreadable_state_is_told_and_passes() {
    let engine = Fake::default();
    engine.set_fault(Some(Fault::Snapshot));
    let told = Told::default();
    let results = group(&engine, &told, &[next, look]);
    let damaged = Err(ErrorKind::DataLoss);
    assert_eq!(kinds(&results), [damaged, damaged]);
    engine.set_fault(None);
    assert_eq!(kinds(&group(&engine, &told, &[next])), [Ok(1)]);
}

/// Whoever comes while a commit runs shares the next one, and one of them leads it.
#[test]
fn waiting_transactions_share_a_commit() {
    const WAITING: u64 = 20;
    let engine = Arc::new(Fake::default());
    let told = Arc::new(Told::default());
    let (send, commits) = sync_channel(100);
    let observed = told.observer.set(Box::new(move |committed: Committed| {
        send.send(committed.transactions).expect("room");
    }));
    assert!(observed.is_ok());
    let committer = Committer::new(engine.clone(), Arc::clone(&told));
    let (begun, begins) = sync_channel(0);
    let (go, may_go) = sync_channel::<()>(0);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let first = move |tx: &mut Tx<'_>| {
                begun.send(()).expect("told");
                may_go.recv().expect("let go");
                next(tx)
            };
            committer.run::<u64, Error, _>(first, Wanted::OnDisk)
        });
        begins.recv().expect("begun");
        let waiting = (0..WAITING)
            .map(|_| scope.spawn(|| committer.run::<u64, Error, _>(next, Wanted::OnDisk)));
        let waiting: Vec<_> = waiting.collect();
        while committer.queue().waiting.len() < usize::try_from(WAITING).expect("small") {
            std::thread::yield_now();
        }
        go.send(()).expect("let go");
        let number = |answer: Option<Answer<u64, Error>>| match answer {
            Some(Ok(Ok(number))) => number,
            _ => panic!("no number"),
        };
        assert_eq!(number(first.join().expect("thread")), 1);
        let mut numbers: Vec<u64> = waiting
            .into_iter()
            .map(|thread| number(thread.join().expect("thread")))
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (2..=WAITING + 1).collect::<Vec<_>>());
    });
    assert_eq!(engine.commits.load(SeqCst), 2);
    drop(committer);
    drop(told);
    assert_eq!(commits.iter().collect::<Vec<_>>(), [1, 20]);
}

/// What an observer does is not the transactions' fault, and those who wait must not wait for ever.
#[test]
fn a_leader_that_panics_lets_the_next_one_lead() {
    let engine = Arc::new(Fake::default());
    let told = Arc::new(Told::default());
    let observed = told.observer.set(Box::new(|_| panic!("on purpose")));
    assert!(observed.is_ok());
    let committer = Committer::new(engine, told);
    for _ in 0..2 {
        let led = catch_unwind(AssertUnwindSafe(|| {
            committer.run::<u64, Error, _>(next, Wanted::OnDisk)
        }));
        assert!(led.is_err());
    }
    assert!(!committer.queue().led);
}

/// A group that nobody waits for is no commit; one with a single change that somebody waits for is.
#[test]
fn what_nobody_waits_for_is_only_noted() {
    for (wanted, durably) in [
        ([Wanted::Seen, Wanted::Seen], false),
        ([Wanted::Seen, Wanted::OnDisk], true),
    ] {
        let engine = Fake::default();
        let jobs = wanted.map(|wanted| Job::new(next, wanted).0);
        commit_group(&engine, jobs.into(), &Told::default());
        let (noted, committed) = (engine.notes.load(SeqCst), engine.commits.load(SeqCst));
        assert_eq!(
            (noted, committed),
            (usize::from(!durably), usize::from(durably))
        );
    }
}

/// Only the changes that there is no room for are not made, and nothing is broken.
#[test]
fn a_full_disk_is_told_to_whom_it_is_too_small_for() {
    fn long(tx: &mut Tx<'_>) -> Result<u64, Error> {
        for number in 0..4000 {
            tx.next_id(&format!("{number:060}"))?;
        }
        Ok(0)
    }
    let engine = Fake::default();
    let told = Told::default();
    engine.room.store(200_000, SeqCst);
    let full = Err(ErrorKind::ResourceExhausted);
    let results = group(&engine, &told, &[next, long, next, look]);
    assert_eq!(kinds(&results), [Ok(1), full, Ok(2), Ok(2)]);
    assert!(told.broken.get().is_none());
    // With less there is none for anybody who would write.
    engine.room.store(100, SeqCst);
    let results = group(&engine, &told, &[next, long, look]);
    assert_eq!(kinds(&results), [full, full, Ok(2)]);
    engine.room.store(0, SeqCst);
    let results = group(&engine, &told, &[long, next]);
    assert_eq!(kinds(&results), [Ok(0), Ok(3)]);
}
