//! All states of all recordings, by as many workers as there are processors.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    FAILURES_MAX, Options, Recording, Reference, Report, Saved, Verdict,
    cuts::{self, Cut, Reel, Standing},
    facts::Change,
    flaws,
    judge::{Expected, Judge, Looked},
    record::{Life, Setting},
    report::{Guard, Row},
    typed::Typed,
};
use crate::fault::{Dice, Images, caught};

/// States that a worker takes at once: to come to the first of them a recording is gone through.
const UNIT: usize = 50;
/// After so many states it is told how many there were.
const TOLD_EVERY: usize = 500;
/// Most states, of two kinds each, in which a program is looked for that need not be caught.
const UNSURE_STATES: usize = 60;
/// How often a state that fails is looked at in all.
const LOOKS: usize = 3;
/// States of each recording whose opening is cut off in turn.
const OPENINGS: usize = 3;
/// Among so many each of them is chosen.
const OPENINGS_AMONG: usize = 80;
/// One state in so many is of an opening.
const OPENINGS_SHARE: usize = 10;

/// What all workers have in common.
pub(super) struct Explorer<'e> {
    pub(super) options: &'e Options,
    pub(super) images: &'e Images,
    pub(super) reference: &'e Reference,
    /// Of images, by the digests of their manifests.
    pub(super) trees: &'e BTreeMap<String, Vec<String>>,
    /// In memory.
    pub(super) dir: PathBuf,
}

/// The states of one recording.
struct Work<'w> {
    recording: &'w Recording,
    /// How far the life has come at its beginning.
    standing: Standing,
    cuts: Vec<Cut>,
}

/// An opening, and how far the life had come.
pub(super) struct Opening {
    recording: Recording,
    standing: Standing,
}

/// What came of them.
#[derive(Default)]
struct Tally {
    states: AtomicUsize,
    mounted: AtomicUsize,
    used: AtomicUsize,
    deep: AtomicUsize,
    micros: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn looked(&self, looked: Looked) {
        let Looked {
            mounted,
            used,
            deep,
        } = looked;
        for (counter, counts) in [
            (&self.mounted, mounted),
            (&self.used, used),
            (&self.deep, deep),
        ] {
            counter.fetch_add(usize::from(counts), Ordering::Relaxed);
        }
    }
}

/// How far all workers are, and when enough is known to be wrong.
struct Limit {
    looked: AtomicUsize,
    of: usize,
    failed: AtomicUsize,
    most: usize,
}

impl Limit {
    /// Tells now and then: all states can take an hour.
    fn looked(&self) {
        let looked = 1 + self.looked.fetch_add(1, Ordering::Relaxed);
        if looked.is_multiple_of(TOLD_EVERY) {
            let failed = self.failed.load(Ordering::Relaxed);
            let line = format!("{looked} of {} states, {failed} failed\n", self.of);
            // Whoever closed it does not want to know.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

impl Explorer<'_> {
    /// Each program that is wrong on purpose has to be caught: most by what was answered, others only
    /// before they make up for it.
    pub(super) fn guards(&self, flawed: &[Recording], report: &mut Report) {
        for recording in flawed {
            let mut guard = Guard {
                flaw: recording.flaw.unwrap_or_default(),
                kind: recording.kind.name(),
                engine: recording.engine,
                sure: flaws::is_sure(recording.kind, recording.engine),
                states: 0,
                caught: None,
            };
            for cuts in [cuts::answered, cuts::certain] {
                let mut cuts = cuts(&recording.log);
                // What need not be caught is not looked for for long.
                if !guard.sure {
                    let step = cuts.len().div_ceil(UNSURE_STATES).max(1);
                    cuts = cuts.into_iter().step_by(step).collect();
                }
                if guard.caught.is_some() {
                    break;
                }
                let works = [Work {
                    recording,
                    standing: Standing::default(),
                    cuts,
                }];
                let tallies = self.explore(&works, 1);
                guard.states += tallies[0].states.load(Ordering::Relaxed);
                guard.caught = taken(&tallies[0].failures).into_iter().next();
            }
            report.guard(guard);
        }
    }

    /// Nothing may be wrong with the others.
    pub(super) fn all(&self, recordings: &[Recording], dice: &mut Dice, report: &mut Report) {
        let openings = self.options.states / OPENINGS_SHARE;
        let each = (self.options.states - openings).div_ceil(recordings.len());
        let work = |recording: &'_ Recording| cuts::choose(&recording.log, each, dice);
        let cuts: Vec<_> = recordings.iter().map(work).collect();
        let works = recordings.iter().zip(cuts).map(|(recording, cuts)| Work {
            recording,
            standing: Standing::default(),
            cuts,
        });
        self.account(&works.collect::<Vec<_>>(), "", report);
    }

    /// Openings of some states, each as the disk was told of it.
    pub(super) fn openings(
        &self,
        setting: &Setting<'_>,
        recordings: &[Recording],
        dice: &mut Dice,
    ) -> Verdict<Vec<Opening>> {
        let mut openings = Vec::new();
        for recording in recordings {
            let mut reel = self.reel(recording, &Standing::default());
            let mut cuts = cuts::choose(&recording.log, OPENINGS * OPENINGS_AMONG, dice);
            let mut left = OPENINGS;
            // In their order, each as likely as any other.
            while left > 0 && !cuts.is_empty() {
                let cut = cuts.remove(0);
                if dice.roll(cuts.len() + 1) >= left {
                    continue;
                }
                left -= 1;
                reel.wind(cut.at);
                let life = Life {
                    kind: recording.kind,
                    engine: recording.engine,
                    programs: setting.programs,
                };
                let name = format!("opening {}", openings.len());
                openings.push(Opening {
                    recording: setting.reopen(&name, &life, reel.image(cut.pick))?,
                    standing: reel.standing().clone(),
                });
            }
        }
        Ok(openings)
    }

    /// Nothing may be wrong when the power goes again while a store is opened.
    pub(super) fn again(&self, openings: &[Opening], dice: &mut Dice, report: &mut Report) {
        let each = (self.options.states / OPENINGS_SHARE).div_ceil(openings.len().max(1));
        let works: Vec<_> = openings
            .iter()
            .map(|opening| Work {
                recording: &opening.recording,
                standing: opening.standing.clone(),
                cuts: cuts::choose(&opening.recording.log, each, dice),
            })
            .collect();
        self.account(&works, ", opened", report);
    }

    fn account(&self, works: &[Work<'_>], what: &'static str, report: &mut Report) {
        let tallies = self.explore(works, FAILURES_MAX);
        for (work, tally) in works.iter().zip(tallies) {
            let (writes, flushes) = work.recording.counts();
            let failures = taken(&tally.failures);
            let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
            report.add(Row {
                name: format!("{}{what}", work.recording.kind.name()),
                engine: work.recording.engine,
                writes,
                flushes,
                asked: work.cuts.len(),
                states: count(&tally.states),
                mounted: count(&tally.mounted),
                used: count(&tally.used),
                deep: count(&tally.deep),
                busy: Duration::from_micros(count(&tally.micros) as u64),
                failures: failures.len(),
            });
            report.failures.extend(failures);
        }
    }

    fn reel<'r>(&'r self, recording: &'r Recording, standing: &Standing) -> Reel<'r> {
        let changes = &self.reference.changes;
        Reel::new(&recording.log, changes, &recording.begin, standing)
    }

    /// Looks at all states, until so many have failed.
    fn explore(&self, works: &[Work<'_>], failures_max: usize) -> Vec<Tally> {
        let tallies: Vec<Tally> = works.iter().map(|_| Tally::default()).collect();
        // Recordings in turn, so that workers are at different file systems.
        let longest = works.iter().map(|work| work.cuts.len()).max().unwrap_or(0);
        let units: Vec<(usize, usize)> = (0..longest)
            .step_by(UNIT)
            .flat_map(|from| (0..works.len()).map(move |work| (work, from)))
            .filter(|(work, from)| *from < works[*work].cuts.len())
            .collect();
        let next = AtomicUsize::new(0);
        let limit = Limit {
            looked: AtomicUsize::new(0),
            of: works.iter().map(|work| work.cuts.len()).sum(),
            failed: AtomicUsize::new(0),
            most: failures_max,
        };
        let workers = thread::available_parallelism().map_or(2, |n| n.get());
        thread::scope(|scope| {
            for worker in 0..workers {
                let (tallies, units, next, limit) = (&tallies, &units, &next, &limit);
                scope.spawn(move || {
                    let dir = self.dir.join(format!("worker-{worker}"));
                    let judge = Judge::new(&self.options.programs, self.images, dir);
                    while let Some((work, from)) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.unit(&judge, &works[*work], *from, &tallies[*work], limit);
                    }
                });
            }
        });
        tallies
    }

    fn unit(&self, judge: &Judge<'_>, work: &Work<'_>, from: usize, tally: &Tally, limit: &Limit) {
        let mut reel = self.reel(work.recording, &work.standing);
        let cuts = work.cuts.iter().enumerate().skip(from).take(UNIT);
        for (number, cut) in cuts {
            if limit.failed.load(Ordering::Relaxed) >= limit.most {
                return;
            }
            let began = Instant::now();
            reel.wind(cut.at);
            match self.state(judge, work.recording, &reel, number, *cut) {
                Ok(looked) => tally.looked(looked),
                Err(reason) => {
                    lock(&tally.failures).push(reason);
                    limit.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            let micros = usize::try_from(began.elapsed().as_micros()).unwrap_or(0);
            tally.micros.fetch_add(micros, Ordering::Relaxed);
            tally.states.fetch_add(1, Ordering::Relaxed);
            limit.looked();
        }
    }

    fn state(
        &self,
        judge: &Judge<'_>,
        recording: &Recording,
        reel: &Reel<'_>,
        number: usize,
        cut: Cut,
    ) -> Verdict<Looked> {
        let standing = reel.standing();
        let Recording {
            kind, engine, flaw, ..
        } = recording;
        let mut state = Saved {
            kind: *kind,
            engine: (*engine).to_owned(),
            number,
            expected: self.expected(standing),
            image: reel.image(cut.pick),
            story: String::new(),
        };
        let reason = match judged(&state, judge) {
            Ok(looked) => return Ok(looked),
            Err(reason) => reason,
        };
        state.story = format!(
            "{} {engine}, seed {}, state {number}: behind record {}, of the unflushed writes {}; {} commands \
             answered, under way {:?}\n{reason}",
            kind.name(),
            self.options.seed,
            cut.at,
            cut.pick,
            standing.answered,
            self.under_way(standing)
                .map(Typed::title)
                .collect::<Vec<_>>(),
        );
        self.look_again(judge, &state, *flaw, reason)
    }

    /// Looks again, as somebody else would who replays it, at a state with which something is wrong.
    fn look_again(
        &self,
        judge: &Judge<'_>,
        state: &Saved,
        flaw: Option<&'static str>,
        reason: String,
    ) -> Verdict<Looked> {
        let dir = match flaw {
            Some(_) => &self.dir.join("kept"),
            None => &self.options.keep,
        };
        let kept = state.keep(dir);
        let read = kept.and_then(|path| Ok((Saved::read(&path)?, path)));
        let (state, path) = read.map_err(|err| format!("{}: {err}", state.story))?;
        let failed = 1
            + (1..LOOKS)
                .filter(|_| judged(&state, judge).is_err())
                .count();
        match (flaw, failed == LOOKS) {
            (Some(flaw), true) if flaws::explains(flaw, &reason) => Err(reason),
            // What happens once, or is lost otherwise, was not brought about by the flaw.
            (Some(_), _) => Ok(Looked::default()),
            (None, again) => Err(format!(
                "{}\n{}next: ./integration/crash power --replay {}",
                state.story,
                match again {
                    true => String::new(),
                    false => format!("ONLY {failed} OF {LOOKS} TIMES: the lane itself is wrong\n"),
                },
                path.display(),
            )),
        }
    }

    /// What is known of the store then.
    fn expected(&self, standing: &Standing) -> Expected {
        let mut then = standing.then(&self.reference.changes);
        let garbage = standing.begun.and_then(|last| self.reference.garbage(last));
        if let Some(garbage) = garbage {
            then.certain.retain(|fact| !garbage.contains(fact));
        }
        Expected {
            known: standing.known.clone(),
            trees: self.reference.trees.clone(),
            own: self.reference.own.clone(),
            images: self.trees.clone(),
            again: self.unanswered(standing),
            then,
        }
    }

    /// What is to be done again.
    fn unanswered(&self, standing: &Standing) -> Vec<(Typed, Change)> {
        let numbers = standing.under_way.iter();
        let Reference {
            commands, changes, ..
        } = self.reference;
        numbers
            .map(|number| (commands[*number].clone(), changes[*number].clone()))
            .collect()
    }

    /// Commands that were begun and not answered.
    fn under_way<'a>(&'a self, standing: &'a Standing) -> impl Iterator<Item = &'a Typed> {
        let numbers = standing.under_way.iter();
        numbers.map(move |number| &self.reference.commands[*number])
    }
}

/// Looks at a state.
fn judged(state: &Saved, judge: &Judge<'_>) -> Verdict<Looked> {
    caught(|| state.judge(judge))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn taken(failures: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut *lock(failures))
}
