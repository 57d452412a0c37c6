//! What can still be read of a damaged engine.
//!
//! What cannot be is a page, or all pages below one: a stretch of keys, and nothing tells where it ends. What is
//! before it is read in ever smaller parts, and where it ends is found by trial.

use std::collections::BTreeSet;

use super::{FIRST, Filler, PART, to_be};
use crate::{
    Error,
    engine::{Engine, Pairs},
    record, schema,
};

/// How many bytes longer a place may be than what it takes to get past what cannot be read.
const FINER: usize = 8;

/// Gives all of it that proves itself to `out`; what cannot be read, in words.
pub(super) fn pour(engine: &dyn Engine, out: &mut Filler) -> Result<Vec<String>, Error> {
    let mut remains = Remains {
        engine,
        after: FIRST.to_vec(),
        limit: PART,
        is_done: false,
        unread: BTreeSet::new(),
        damaged: 0,
    };
    while let Some(pairs) = remains.next_part() {
        out.add(to_be(pairs))?;
    }
    let tables = remains.unread.into_iter().map(schema::table_name);
    let mut unread: Vec<String> = tables
        .map(|table| format!("{table} records that cannot be read"))
        .collect();
    match remains.damaged {
        0 => {}
        1 => unread.push("a record that is damaged".to_owned()),
        many => unread.push(format!("{many} records that are damaged")),
    }
    Ok(unread)
}

struct Remains<'e> {
    engine: &'e dyn Engine,
    after: Vec<u8>,
    limit: usize,
    is_done: bool,
    /// The tables of which something may be missing.
    unread: BTreeSet<u8>,
    /// How many records do not prove themselves.
    damaged: u64,
}

impl Remains<'_> {
    fn next_part(&mut self) -> Option<Pairs> {
        while !self.is_done {
            match self.read(&self.after, self.limit) {
                Ok(pairs) => return Some(self.proven(pairs)),
                Err(_) if self.limit > 1 => self.limit /= 2,
                Err(_) => self.skip(),
            }
        }
        None
    }

    /// What comes behind a place. Where a page stands in the place of another the keys lead back, and who follows
    /// them never comes to an end; so that is as good as nothing.
    fn read(&self, after: &[u8], limit: usize) -> Result<Pairs, Error> {
        let pairs = self.engine.snapshot()?.scan_after(&[], after, limit)?;
        let mut before = after;
        for (at, (key, value)) in pairs.iter().enumerate() {
            if at > 0 && !proves(key, value) {
                continue;
            }
            if key.as_slice() <= before {
                return Err(Error::Damaged("its keys are in no order".to_owned()));
            }
            before = key;
        }
        Ok(pairs)
    }

    /// Goes on behind what was read; the records of it that prove themselves.
    fn proven(&mut self, mut pairs: Pairs) -> Pairs {
        self.is_done = pairs.len() < self.limit;
        if !self.is_done {
            // A damaged key may be any: from there on much that can be read might be passed over.
            let last = pairs.iter().rposition(|(key, value)| proves(key, value));
            pairs.truncate(last.map_or(1, |last| last + 1));
        }
        if let Some((key, _)) = pairs.last() {
            self.after.clone_from(key);
        }
        let read = pairs.len();
        pairs.retain(|(key, value)| proves(key, value));
        self.damaged += (read - pairs.len()) as u64;
        pairs
    }

    /// Goes on behind what cannot be read.
    fn skip(&mut self) {
        let place = self.place_behind();
        let tag = |key: &[u8]| key.first().copied().unwrap_or(0);
        let last = match &place {
            // The beginning of a table.
            Some(place) if place.len() == 1 => tag(place).saturating_sub(1),
            Some(place) => tag(place),
            None => u8::MAX,
        };
        let tags = tag(&self.after)..=last;
        self.unread
            .extend(schema::tags().filter(|tag| tags.contains(tag)));
        match place {
            Some(place) => {
                self.after = place;
                self.limit = PART;
            }
            None => self.is_done = true,
        }
    }

    /// A place near behind what cannot be read. Those that are tried begin as the last key that was read: the
    /// more they have in common the nearer they are.
    fn place_behind(&self) -> Option<Vec<u8>> {
        let after = &self.after;
        let depth = (0..=after.len())
            .rev()
            .find(|depth| self.goes_on(&after[..*depth], u8::MAX))?;
        let mut place = after[..depth].to_vec();
        let mut low = after.get(depth).copied().unwrap_or(0);
        for _ in 0..FINER {
            let high = self.first(&place, low);
            place.push(high);
            let mut nearer = place.clone();
            *nearer.last_mut()? = high - 1;
            if high - 1 == low || !self.goes_on(&nearer, u8::MAX) {
                break;
            }
            (place, low) = (nearer, 0);
        }
        Some(place)
    }

    /// The lowest byte over `low` from which on it goes on, where it does from the highest one.
    fn first(&self, place: &[u8], mut low: u8) -> u8 {
        let mut high = u8::MAX;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.goes_on(place, middle) {
                true => high = middle,
                false => low = middle,
            }
        }
        high
    }

    /// Whether it can be read on from a place and one byte more.
    fn goes_on(&self, place: &[u8], byte: u8) -> bool {
        let place = [place, &[byte]].concat();
        place > self.after && self.read(&place, 1).is_ok()
    }
}

fn proves(key: &[u8], value: &[u8]) -> bool {
    record::payload(key, value).is_ok()
}
