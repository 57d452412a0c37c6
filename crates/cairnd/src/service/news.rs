//! What long work has to tell a client that may read more slowly than there is something to tell.
//!
//! The work never waits for news to be read. What waits to be read is at most the news that say
//! something new (a few for each layer); of how far a thing is within one state only the last one is
//! kept, and sent a few times a second. So it is with whom a layer's bytes are asked of, how far they had
//! come and what went wrong: a layer that is asked for again and again has one of each waiting. Lines that
//! somebody wants to read are kept one by one, up to a number; how many had to go is told instead of them.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_node::{Event, Phase};
use cairn_types::{Digest, SnapshotKey};
use tokio::sync::Notify;

/// How often a client is told how far a thing is within its state; a terminal is drawn no faster.
const PACE: Duration = Duration::from_millis(50);

/// Lines that wait to be read: none is longer than some kilobytes, most are a hundred bytes.
const LINES_MAX: usize = 4096;

/// News of one kind.
pub(super) trait Tiding {
    /// What they are about.
    type Thing: Clone + Eq + Hash;
    /// What they say of it, but for how far it is.
    type Said: Clone + Eq + Hash;

    /// What is said of which thing; `None` when it is about all of them.
    fn about(&self) -> Option<(Self::Thing, Self::Said)>;

    /// Whether it says how far the thing is in a state, of which it has one at a time, and so takes the
    /// place of the last of the kind. Something that happened to it comes after what was told meanwhile.
    fn is_state(said: &Self::Said) -> bool;

    /// Whether it is a line to be read in its turn, that is about nothing else and takes nothing's place.
    fn is_line(&self) -> bool {
        false
    }

    /// Stands for so many lines that were not kept.
    fn lost(_lines: u64) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// What an event says of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Said {
    Phase(Phase),
    Asked,
    Resumed,
    Retry,
    /// As which.
    Timed(SnapshotKey),
}

impl Tiding for Event {
    type Thing = Digest;
    type Said = Said;

    fn about(&self) -> Option<(Digest, Said)> {
        let (digest, said) = match self {
            Event::Layer { digest, phase, .. } => (digest, Said::Phase(*phase)),
            Event::Asked { digest, .. } => (digest, Said::Asked),
            Event::Resumed { digest, .. } => (digest, Said::Resumed),
            Event::Retry { digest, .. } => (digest, Said::Retry),
            Event::Timed { digest, key, .. } => (digest, Said::Timed(key.clone())),
            Event::Resolved { .. } | Event::Traced(_) | Event::Done => return None,
        };
        Some((digest.clone(), said))
    }

    fn is_state(said: &Said) -> bool {
        matches!(said, Said::Phase(_))
    }

    fn is_line(&self) -> bool {
        matches!(self, Event::Traced(_))
    }

    fn lost(lines: u64) -> Option<Event> {
        let text = format!("{lines} lines came faster than they were read, and are left out");
        Some(Event::Traced(text))
    }
}

/// News that wait to be read.
pub(super) struct News<T: Tiding> {
    pending: Mutex<Pending<T>>,
    urgent: Notify,
}

struct Pending<T: Tiding> {
    /// By number, in order.
    all: BTreeMap<u64, T>,
    next: u64,
    /// Which of `all` says what of a thing.
    places: HashMap<(T::Thing, T::Said), u64>,
    /// Which is a thing's last that is no state of it.
    turns: HashMap<T::Thing, u64>,
    /// The state that each thing was in last.
    states: HashMap<T::Thing, T::Said>,
    /// How many of `all` are lines, and how many more there would be.
    lines: usize,
    lost: u64,
    ended: bool,
}

impl<T: Tiding> News<T> {
    /// None yet.
    pub(super) fn new() -> Arc<News<T>> {
        let pending = Pending {
            all: BTreeMap::new(),
            next: 0,
            places: HashMap::new(),
            turns: HashMap::new(),
            states: HashMap::new(),
            lines: 0,
            lost: 0,
            ended: false,
        };
        Arc::new(News {
            pending: Mutex::new(pending),
            urgent: Notify::new(),
        })
    }

    fn pending(&self) -> MutexGuard<'_, Pending<T>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds news; whether they are urgent, and not only how far a thing is in a state known before.
    pub(super) fn add(&self, tiding: T) -> bool {
        let urgent = self.pending().add(tiding);
        if urgent {
            self.urgent.notify_one();
        }
        urgent
    }

    /// There will be no more.
    pub(super) fn end(&self) {
        self.pending().ended = true;
        self.urgent.notify_one();
    }

    /// Waits for news as long as they may wait; those there are, and whether they are the last.
    pub(super) async fn next(&self) -> (Vec<T>, bool) {
        // What is not urgent by itself waits for the next beat.
        tokio::select! {
            biased;
            () = self.urgent.notified() => {}
            () = tokio::time::sleep(PACE) => {}
        }
        self.take()
    }

    fn take(&self) -> (Vec<T>, bool) {
        let mut pending = self.pending();
        pending.separate();
        let all = std::mem::take(&mut pending.all);
        pending.lines = 0;
        let lost = match std::mem::take(&mut pending.lost) {
            0 => None,
            lines => T::lost(lines),
        };
        (all.into_values().chain(lost).collect(), pending.ended)
    }
}

impl<T: Tiding> Pending<T> {
    /// Whether it is news that should not wait.
    fn add(&mut self, tiding: T) -> bool {
        if tiding.is_line() && self.lines == LINES_MAX {
            self.lost += 1;
            return false;
        }
        let here = self.next;
        self.next += 1;
        if tiding.is_line() {
            self.lines += 1;
            self.all.insert(here, tiding);
            return false;
        }
        let Some((thing, said)) = tiding.about() else {
            // What comes after it is about other work, even of the same thing.
            self.separate();
            self.all.insert(here, tiding);
            return true;
        };
        let is_state = T::is_state(&said);
        let is_new = match is_state {
            true => self.states.insert(thing.clone(), said.clone()).as_ref() != Some(&said),
            false => true,
        };
        let turn = self.turns.get(&thing).copied();
        match self.places.get_mut(&(thing.clone(), said.clone())) {
            // Nothing else was said of the thing meanwhile that it must come after.
            Some(place) if is_state && turn.is_none_or(|turn| turn < *place) => {
                self.all.insert(*place, tiding);
                return is_new;
            }
            Some(place) => {
                self.all.remove(place);
                *place = here;
            }
            None => {
                self.places.insert((thing.clone(), said), here);
            }
        }
        if !is_state {
            self.turns.insert(thing, here);
        }
        self.all.insert(here, tiding);
        is_new
    }

    /// What comes from now on takes nothing's place that is there.
    fn separate(&mut self) {
        self.places.clear();
        self.turns.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(text: &str, phase: Phase, done: u64) -> Event {
        Event::Layer {
            digest: Digest::sha256(text.as_bytes()),
            phase,
            done,
            total: 1 << 40,
        }
    }

    fn resolved(name: &str) -> Event {
        Event::Resolved {
            name: name.to_owned(),
            platform: String::new(),
            layers: Vec::new(),
        }
    }

    #[test]
    fn what_waits_does_not_grow_with_the_bytes() {
        let news = News::new();
        news.add(resolved("i"));
        for done in 0..100_000 {
            news.add(layer("a", Phase::Fetch, done));
            news.add(layer("b", Phase::Unpack, done));
        }
        news.add(layer("a", Phase::Done, 7));
        let expected = vec![
            resolved("i"),
            layer("a", Phase::Fetch, 99_999),
            layer("b", Phase::Unpack, 99_999),
            layer("a", Phase::Done, 7),
        ];
        assert_eq!(news.take(), (expected, false));
        // Nothing is told twice, and nothing is put where it was taken from.
        news.add(layer("b", Phase::Unpack, 100_000));
        news.end();
        let expected = vec![layer("b", Phase::Unpack, 100_000)];
        assert_eq!(news.take(), (expected, true));
    }

    #[test]
    fn only_a_new_phase_is_urgent() {
        let news = News::new();
        let rows = [
            (resolved("i"), true),
            (layer("a", Phase::Fetch, 0), true),
            (layer("a", Phase::Fetch, 9), false),
            (layer("b", Phase::Fetch, 0), true),
            (layer("a", Phase::Done, 9), true),
            (Event::Done, true),
        ];
        for (event, urgent) in rows {
            assert_eq!(news.add(event.clone()), urgent, "{event:?}");
        }
    }

    /// Of a layer that is asked for without end one of each kind waits, in the order of the last ones.
    #[test]
    fn what_waits_does_not_grow_with_the_tries() {
        let digest = Digest::sha256(b"a");
        let retry = |attempt| Event::Retry {
            digest: digest.clone(),
            host: "h".to_owned(),
            attempt: (attempt, 5),
            wait: Duration::from_secs(3),
            cause: "timed out".to_owned(),
        };
        let asked = |attempt| Event::Asked {
            digest: digest.clone(),
            host: "h".to_owned(),
            attempt,
        };
        let resumed = |at| Event::Resumed {
            digest: digest.clone(),
            at,
        };
        let news = News::new();
        news.add(layer("a", Phase::Fetch, 0));
        for n in 0..10_000 {
            news.add(asked(n));
            news.add(resumed(u64::from(n)));
            news.add(layer("a", Phase::Fetch, u64::from(n)));
            news.add(layer("b", Phase::Fetch, u64::from(n)));
            news.add(retry(n));
        }
        assert_eq!(news.pending().all.len(), 5);
        let expected = vec![
            layer("b", Phase::Fetch, 9_999),
            asked(9_999),
            resumed(9_999),
            layer("a", Phase::Fetch, 9_999),
            retry(9_999),
        ];
        assert_eq!(news.take(), (expected, false));
    }

    #[test]
    fn lines_are_kept_up_to_a_number() {
        let line = |number: usize| Event::Traced(number.to_string());
        let news = News::new();
        news.add(resolved("i"));
        news.add(layer("a", Phase::Fetch, 1));
        assert!(!news.add(line(0)), "it may wait for the next beat");
        news.add(layer("a", Phase::Fetch, 2));
        news.add(line(1));
        // They do not stand between what is told of a layer.
        let expected = vec![resolved("i"), layer("a", Phase::Fetch, 2), line(0), line(1)];
        assert_eq!(news.take(), (expected, false));
        for number in 0..LINES_MAX + 3 {
            news.add(line(number));
        }
        let told = news.take().0;
        assert_eq!(told.len(), LINES_MAX + 1);
        assert_eq!(told[LINES_MAX - 1], line(LINES_MAX - 1));
        let last = "3 lines came faster than they were read, and are left out";
        assert_eq!(told[LINES_MAX], Event::Traced(last.to_owned()));
        news.add(line(0));
        assert_eq!(news.take().0, [line(0)]);
    }

    #[test]
    fn the_layers_of_two_images_are_not_mixed_up() {
        let news = News::new();
        let events = [
            resolved("i"),
            layer("a", Phase::Fetch, 1),
            resolved("j"),
            layer("a", Phase::Fetch, 2),
        ];
        for event in &events {
            news.add(event.clone());
        }
        assert_eq!(news.take().0, events);
    }
}
