//! All calls of all commands, in all ways in which they can fail, or a sample of them.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Bench, Call, Dice, Images, Reference, caught,
    reference::Life,
    steps,
    visit::{Ended, Point, Visited},
};

/// Faults with nothing after the number, and `+` for a disk that stays full.
const KINDS: [(&str, &str); 9] = [
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
/// Those of them that are errors.
const ERRORS: [&str; 4] = ["ENOSPC", "EIO", "EDQUOT", "EMFILE"];
/// Commands that are hit in their opening, too: of a store that is not there, of one with images, and of
/// one with a mount that has to be found again.
const OPENED: [&str; 3] = ["open", "import shared", "unmount"];
/// Of so many kills one is followed by another, when the store is opened.
const AGAIN_EVERY: usize = 5;
/// Of so many points of a sample one is in a daemon.
const SERVED_EVERY: usize = 4;
/// Failures after which no more are looked for.
const FAILURES_MAX: usize = 12;
/// A life is no shorter than this, and a command makes no fewer calls.
const STEPS_MIN: usize = 60;
const CALLS_MIN: usize = 100;
/// Fewer points than this say little about the share of those at which nothing came to pass.
const FEW: usize = 50;
/// So many at least of a sample are of each kind, wherever they come to pass.
const EACH_KIND: usize = 6;
/// So many points are of all kinds.
const WANTED_ALL_KINDS: usize = 200;

/// What to visit.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// What keeps the records.
    pub engine: &'static str,
    /// How many points; all without.
    pub points: Option<usize>,
    /// Where chance begins.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Tally {
    engine: &'static str,
    steps: usize,
    calls: [usize; 2],
    /// How many points were asked for.
    wanted: usize,
    /// Of each kind, in the order of [`KINDS`].
    kinds: [Count; KINDS.len()],
    /// Those of a daemon, in all kinds.
    served: Count,
    /// Kills while the store was opened.
    again: Count,
    ends: BTreeMap<&'static str, usize>,
    /// What is wrong.
    pub failures: Vec<String>,
    took: Duration,
}

/// Points that were chosen, and those at which the fault came to pass.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    chosen: usize,
    fired: usize,
}

impl Count {
    fn add(&mut self, fired: bool) {
        self.chosen += 1;
        self.fired += usize::from(fired);
    }

    /// Calls that are made side by side are not as many in every run, so that some are never made. Of a
    /// few that may be more than of all.
    fn is_enough(self) -> bool {
        match self.chosen {
            ..FEW => self.fired * 2 >= self.chosen,
            _ => self.fired * 10 >= self.chosen * 8,
        }
    }
}

/// Visits the points with as many stores as there are processors.
pub fn run(binary: &Path, wanted: Wanted) -> Tally {
    let (images, began) = (Images::served(), Instant::now());
    let engine = wanted.engine;
    let reference = Bench::new(binary, &images, engine).reference(&steps());
    let mut dice = Dice(wanted.seed | 1);
    let (points, of) = points(&reference, wanted.points, &mut dice);
    let tally = Mutex::new(Tally {
        engine,
        steps: reference.steps(),
        calls: reference.calls(),
        wanted: wanted.points.map_or(of, |most| most.min(of)),
        kinds: [Count::default(); KINDS.len()],
        served: Count::default(),
        again: Count::default(),
        ends: BTreeMap::new(),
        failures: Vec::new(),
        took: Duration::ZERO,
    });
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(2, |n| n.get());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let bench = Bench::new(binary, &images, engine);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some((kind, point)) = points.get(number) else {
                        break;
                    };
                    let visited = caught(|| bench.visit(&reference, point, number));
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    let title = reference.lives[point.step].step.title;
                    tally.take(*kind, point, visited, title);
                    if tally.failures.len() >= FAILURES_MAX {
                        next.store(points.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.took = began.elapsed();
    tally.expect_enough();
    tally
}

/// The calls at which a kind of fault can come to pass.
fn useful<'c>(kind: &str, calls: &'c [Call]) -> impl Iterator<Item = &'c Call> {
    let short = kind == "short";
    let writes = |op: &str| op == "write" || op == "pwrite";
    calls.iter().filter(move |call| !short || writes(&call.op))
}

/// A point, its kind, and what is alike in others: the name of the call.
struct Choice {
    kind: usize,
    point: Point,
    op: String,
    /// Behind the opening, which is the same in all commands.
    own: bool,
}

/// The points to visit with their kinds, all or so many, and how many there are. Of a sample the first is
/// one of each command's own calls in a way of dying and one of failing; then some of each kind, each
/// call's name in every way, and whatever is left. Some are in a daemon.
fn points(
    reference: &Reference,
    limit: Option<usize>,
    dice: &mut Dice,
) -> (Vec<(usize, Point)>, usize) {
    let mut alone = choices(reference, false);
    let mut served = choices(reference, true);
    let of = alone.len() + served.len();
    let mut chosen: Vec<Choice> = match limit {
        None => alone.into_iter().chain(served).collect(),
        Some(limit) => {
            shuffle(&mut alone, dice);
            shuffle(&mut served, dice);
            let of_daemon = limit / SERVED_EVERY;
            let mut chosen = sample(served, of_daemon);
            chosen.extend(sample(alone, limit - chosen.len()));
            chosen
        }
    };
    let kills = chosen.iter_mut().filter(|choice| choice.kind < 2);
    for choice in kills.step_by(AGAIN_EVERY) {
        let opening = usize::try_from(reference.opening).unwrap_or(1).max(1);
        choice.point.again = Some(1 + dice.roll(opening) as u64);
    }
    // Neighbours share nothing but the step; sorted, a failure is easier to read.
    chosen.sort_by(|a, b| a.point.cmp(&b.point));
    let chosen = chosen.into_iter();
    (
        chosen.map(|choice| (choice.kind, choice.point)).collect(),
        of,
    )
}

/// Every call of a command that is its own, in every way. The opening is the same in all of them, so that
/// only few are hit in it.
fn choices(reference: &Reference, served: bool) -> Vec<Choice> {
    let mut choices = Vec::new();
    for (step, life) in reference.lives.iter().enumerate() {
        let Life {
            calls,
            served: of_daemon,
            ..
        } = life;
        let calls = if served { of_daemon } else { calls };
        let whole = OPENED.contains(&life.step.title);
        for (kind, (word, suffix)) in KINDS.iter().enumerate() {
            // A repair takes a blob that cannot be read out of use, which is no way back.
            if life.step.damaged && ERRORS.contains(word) {
                continue;
            }
            let calls = useful(word, calls);
            let calls = calls.filter(|call| whole || call.number > reference.opening);
            choices.extend(calls.map(|call| Choice {
                kind,
                point: Point {
                    step,
                    served,
                    fault: format!("{word}@{}{suffix}", call.number),
                    again: None,
                },
                op: call.op.clone(),
                own: call.number > reference.opening,
            }));
        }
    }
    choices
}

/// So many of them, as different as may be.
fn sample(choices: Vec<Choice>, limit: usize) -> Vec<Choice> {
    let (own, opening): (Vec<_>, Vec<_>) = choices.into_iter().partition(|choice| choice.own);
    let mut steps = HashSet::new();
    let (first, own): (Vec<_>, Vec<_>) = own
        .into_iter()
        .partition(|choice| steps.insert((choice.point.step, choice.kind < 2)));
    let rest = own.into_iter().chain(opening);
    let mut kinds = [0; KINDS.len()];
    let (second, rest): (Vec<_>, Vec<_>) = rest.partition(|choice| {
        kinds[choice.kind] += 1;
        kinds[choice.kind] <= EACH_KIND
    });
    let mut names = HashSet::new();
    let (third, rest): (Vec<_>, Vec<_>) = rest
        .into_iter()
        .partition(|choice| names.insert((choice.kind, choice.op.clone())));
    let all = first.into_iter().chain(second).chain(third).chain(rest);
    all.take(limit).collect()
}

fn shuffle<T>(all: &mut [T], dice: &mut Dice) {
    for at in (1..all.len()).rev() {
        all.swap(at, dice.roll(at + 1));
    }
}

impl Tally {
    fn take(
        &mut self,
        kind: usize,
        point: &Point,
        visited: Result<Visited, String>,
        title: &'static str,
    ) {
        let visited = match visited {
            Ok(visited) => visited,
            Err(reason) => {
                let Point {
                    served,
                    fault,
                    again,
                    ..
                } = point;
                let by = if *served { " by a daemon" } else { "" };
                let again = again.map_or_else(String::new, |call| format!(", then kill@{call}"));
                let line = format!("{title}{by} with {fault}{again}: {reason}");
                self.failures.push(line);
                return;
            }
        };
        let fired = visited.ended != Ended::Untouched;
        self.kinds[kind].add(fired);
        if point.served {
            self.served.add(fired);
        }
        if point.again.is_some() {
            self.again.add(visited.again);
        }
        let end = match visited.ended {
            Ended::Untouched => "untouched",
            Ended::Killed => "killed",
            Ended::Answered => "killed when it had answered",
            Ended::Failed => "failed",
            Ended::Succeeded => "succeeded",
        };
        *self.ends.entry(end).or_default() += 1;
    }

    /// A lane that looks at little finds little.
    fn expect_enough(&mut self) {
        let visited: usize = self.kinds.iter().map(|count| count.chosen).sum();
        let mut lacking = Vec::new();
        if visited + self.failures.len() < self.wanted {
            lacking.push(format!("{visited} points were visited of {}", self.wanted));
        }
        if self.steps < STEPS_MIN || self.calls.iter().any(|of| *of < self.steps * CALLS_MIN) {
            let [alone, served] = self.calls;
            lacking.push(format!(
                "{} commands make {alone} and {served} calls",
                self.steps
            ));
        }
        let kinds = KINDS.iter().zip(&self.kinds);
        let kinds = kinds.map(|((word, suffix), count)| (format!("{word}{suffix}"), *count));
        let others = [("served", self.served), ("killed again", self.again)];
        let others = others.map(|(name, count)| (name.to_owned(), count));
        for (name, count) in kinds.chain(others) {
            let none = count.chosen == 0 && self.wanted >= WANTED_ALL_KINDS;
            if none || !count.is_enough() {
                let Count { chosen, fired } = count;
                lacking.push(format!("{name} came to pass at {fired} points of {chosen}"));
            }
        }
        if self.failures.is_empty() {
            self.failures = lacking;
        }
    }
}

/// A table in Markdown: what was hit how often.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = KINDS.map(|(word, suffix)| format!("{word}{suffix}"));
        let names = names.join(" | ");
        writeln!(
            f,
            "| engine | commands | calls | {names} | of these by a daemon | killed again | failed |"
        )?;
        writeln!(f, "|{}", "---|".repeat(KINDS.len() + 6))?;
        let fired = self.kinds.map(|count| count.fired.to_string()).join(" | ");
        writeln!(
            f,
            "| {} | {} | {} | {fired} | {} | {} | {} |",
            self.engine,
            self.steps,
            self.calls.iter().sum::<usize>(),
            self.served.fired,
            self.again.fired,
            self.failures.len()
        )?;
        let fired: usize = self.kinds.iter().map(|count| count.fired).sum();
        let took = self.took.as_secs();
        write!(
            f,
            "{fired} faults came to pass in {took} s: {:?}",
            self.ends
        )
    }
}
