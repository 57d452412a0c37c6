//! Where the power goes, and what of the unflushed writes had reached the disk by then.

use std::{collections::BTreeSet, fmt};

use super::{
    device::Record,
    facts::{Change, Known},
    image::{BLOCK, Image, parts},
};
use crate::fault::Dice;

/// What of the writes since the last flush is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pick {
    /// None.
    None,
    /// All.
    All,
    /// The first so many.
    First(usize),
    /// Some, and of some only some blocks, as these dice fall.
    Some(u64),
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pick::None => f.write_str("none"),
            Pick::All => f.write_str("all"),
            Pick::First(count) => write!(f, "the first {count}"),
            Pick::Some(seed) => write!(f, "some by {seed:#x}"),
        }
    }
}

/// A moment: behind so many records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cut {
    pub(super) at: usize,
    pub(super) pick: Pick,
}

/// So many cuts of a recording, in its order; fewer if it has not as many.
///
/// First the moments at which a command has been answered, with nothing that need not be there and with
/// everything; then those around flushes; then whatever chance chooses.
pub(super) fn choose(log: &[Record], wanted: usize, dice: &mut Dice) -> Vec<Cut> {
    let pending = pending(log);
    let mut marks = Vec::new();
    let mut flushes = Vec::new();
    for (at, record) in (1..).zip(log) {
        match record {
            Record::Answered(_) => {
                marks.extend([Pick::None, Pick::All].map(|pick| Cut { at, pick }));
                let pick = Pick::Some(seed(dice));
                marks.push(Cut { at, pick });
            }
            Record::Flush if pending[at - 1] > 0 => {
                flushes.push(Cut {
                    at,
                    pick: Pick::None,
                });
                let first = Pick::First(dice.roll(pending[at - 1]));
                let picks = [Pick::All, Pick::Some(seed(dice)), first];
                flushes.extend(picks.map(|pick| Cut { at: at - 1, pick }));
            }
            _ => {}
        }
    }
    shuffle(&mut flushes, dice);
    let mut chosen = BTreeSet::new();
    let mut take = |cut: Cut| {
        let cut = match pending[cut.at] {
            0 => Cut {
                pick: Pick::None,
                ..cut
            },
            _ => cut,
        };
        if chosen.len() < wanted {
            chosen.insert(cut);
        }
        chosen.len() < wanted
    };
    let mut more = marks.into_iter().chain(flushes).all(&mut take);
    // Most moments have something pending; where nothing has, no chance would ever end this.
    let mut tries = wanted * 20;
    while more && tries > 0 {
        tries -= 1;
        let at = 1 + dice.roll(log.len());
        let pick = match dice.roll(4) {
            0 => Pick::First(dice.roll(pending[at].max(1))),
            _ => Pick::Some(seed(dice)),
        };
        more = pending[at] == 0 || take(Cut { at, pick });
    }
    chosen.into_iter().collect()
}

/// All moments at which something is certain anew: nothing is there but what was flushed.
pub(super) fn certain(log: &[Record]) -> Vec<Cut> {
    let certain = (1..).zip(log).filter(|(_, record)| match record {
        Record::Flush | Record::Answered(_) => true,
        Record::Write { .. } | Record::Begun(_) => false,
    });
    let pick = Pick::None;
    certain.map(|(at, _)| Cut { at, pick }).collect()
}

/// Those of them at which a command has been answered.
pub(super) fn answered(log: &[Record]) -> Vec<Cut> {
    let mut answered = certain(log);
    answered.retain(|cut| matches!(log[cut.at - 1], Record::Answered(_)));
    answered
}

fn seed(dice: &mut Dice) -> u64 {
    // Nought would stay nought.
    dice.roll(usize::MAX) as u64 | 1
}

fn shuffle<T>(all: &mut [T], dice: &mut Dice) {
    for at in (1..all.len()).rev() {
        all.swap(at, dice.roll(at + 1));
    }
}

/// How many writes wait for a flush behind so many records.
fn pending(log: &[Record]) -> Vec<usize> {
    let mut now = 0;
    let counts = log.iter().map(|record| {
        match record {
            Record::Write { .. } => now += 1,
            Record::Flush => now = 0,
            Record::Begun(_) | Record::Answered(_) => {}
        }
        now
    });
    [0].into_iter().chain(counts).collect()
}

/// How far a life has come.
#[derive(Clone, Default)]
pub(super) struct Standing {
    /// What is known of the store.
    pub(super) known: Known,
    /// How many commands were answered.
    pub(super) answered: usize,
    /// Those that were begun and are not.
    pub(super) under_way: BTreeSet<usize>,
    /// The last that was begun.
    pub(super) begun: Option<usize>,
}

impl Standing {
    /// What is known when all that is under way has been answered.
    pub(super) fn then(&self, changes: &[Change]) -> Known {
        let mut known = self.known.clone();
        for command in &self.under_way {
            known.answer(&changes[*command]);
        }
        known
    }

    fn begin(&mut self, command: usize, change: &Change) {
        self.known.begin(change);
        self.under_way.insert(command);
        self.begun = self.begun.max(Some(command));
    }

    fn answer(&mut self, command: usize, change: &Change) {
        self.under_way.remove(&command);
        self.known.answer(change);
        self.answered += 1;
    }
}

/// A recording that is gone through once: what is on the disk for certain, and what may be.
pub(super) struct Reel<'l> {
    log: &'l [Record],
    /// Of each command.
    changes: &'l [Change],
    standing: Standing,
    certain: Image,
    /// The records behind the last flush.
    from: usize,
    to: usize,
}

impl<'l> Reel<'l> {
    /// At its beginning, with what the disk had then.
    pub(super) fn new(
        log: &'l [Record],
        changes: &'l [Change],
        begin: &Image,
        standing: &Standing,
    ) -> Reel<'l> {
        Reel {
            log,
            changes,
            standing: standing.clone(),
            certain: begin.clone(),
            from: 0,
            to: 0,
        }
    }

    /// Goes on to a moment, which does not lie behind.
    pub(super) fn wind(&mut self, at: usize) {
        assert!(self.to <= at, "a reel is not wound back");
        for (number, record) in self.log.iter().enumerate().take(at).skip(self.to) {
            match record {
                Record::Write { .. } => {}
                Record::Flush => {
                    for (at, bytes) in writes(&self.log[self.from..number]) {
                        self.certain.write(at, bytes);
                    }
                    self.from = number + 1;
                }
                Record::Begun(command) => {
                    self.standing.begin(*command, &self.changes[*command]);
                }
                Record::Answered(command) => {
                    self.standing.answer(*command, &self.changes[*command]);
                }
            }
        }
        self.to = at;
    }

    /// How far the life has come.
    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// What is on the disk.
    pub(super) fn image(&self, pick: Pick) -> Image {
        let mut image = self.certain.clone();
        let pending = writes(&self.log[self.from..self.to]);
        match pick {
            Pick::None => {}
            Pick::All => pending.for_each(|(at, bytes)| image.write(at, bytes)),
            Pick::First(count) => pending
                .take(count)
                .for_each(|(at, bytes)| image.write(at, bytes)),
            Pick::Some(seed) => some(&mut image, pending, &mut Dice(seed)),
        }
        image
    }
}

/// Half of the writes are there; of one in ten, some of the blocks.
fn some<'w>(image: &mut Image, pending: impl Iterator<Item = (u64, &'w [u8])>, dice: &mut Dice) {
    for (at, bytes) in pending {
        match dice.roll(10) {
            0..=4 => image.write(at, bytes),
            5 if bytes.len() > BLOCK => {
                for (at, part) in parts(at, bytes.len()) {
                    if dice.roll(2) == 0 {
                        image.write(at, &bytes[part]);
                    }
                }
            }
            _ => {}
        }
    }
}

fn writes(records: &[Record]) -> impl Iterator<Item = (u64, &[u8])> {
    records.iter().filter_map(|record| match record {
        Record::Write { at, bytes } => Some((*at, &bytes[..])),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: u64, byte: u8) -> Record {
        Record::Write {
            at: at * BLOCK as u64,
            bytes: vec![byte; BLOCK],
        }
    }

    fn block(image: &Image, at: u64) -> u8 {
        let mut byte = [0];
        image.fill(at * BLOCK as u64, &mut byte);
        byte[0]
    }

    #[test]
    fn what_was_flushed_is_certain_and_the_rest_is_not() {
        let log = [
            write(0, 1),
            Record::Flush,
            write(0, 2),
            write(1, 2),
            Record::Answered(0),
        ];
        let changes = [Change::default()];
        let (begin, standing) = (Image::new(1 << 20), Standing::default());
        let mut reel = Reel::new(&log, &changes, &begin, &standing);
        reel.wind(1);
        assert_eq!(block(&reel.image(Pick::None), 0), 0);
        reel.wind(5);
        let has = |pick| {
            let image = reel.image(pick);
            (block(&image, 0), block(&image, 1))
        };
        assert_eq!(has(Pick::None), (1, 0));
        assert_eq!(has(Pick::First(1)), (2, 0));
        assert_eq!(has(Pick::All), (2, 2));
        let seen: BTreeSet<_> = (1..200).map(|seed| has(Pick::Some(seed))).collect();
        assert_eq!(seen, BTreeSet::from([(1, 0), (1, 2), (2, 0), (2, 2)]));
    }

    #[test]
    fn answers_are_cut_first_and_none_twice() {
        let mut log = Vec::new();
        for number in 0..50 {
            log.extend([write(1, 1), write(2, 2), Record::Flush, write(3, 3)]);
            log.push(Record::Answered(number));
        }
        let few = choose(&log, 150, &mut Dice(1));
        assert_eq!(few.len(), 150);
        assert!(few.iter().all(|cut| cut.at % 5 == 0), "{few:?}");
        let many = choose(&log, 400, &mut Dice(1));
        assert_eq!(many.len(), 400);
        assert!(many.is_sorted());
        assert_eq!(choose(&log, 400, &mut Dice(1)), many);
        let counts = [certain(&log).len(), answered(&log).len()];
        assert_eq!(counts, [100, 50]);
    }
}
