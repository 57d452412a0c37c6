//! Who is making what, so that two requests for one image do not fetch and unpack it twice.
//!
//! A request claims everything it may have to make at once, and only then looks what is missing. What
//! others have claimed it leaves to them: it does its own part, waits for theirs, and looks again. It
//! waits for none who claimed later than itself, so that nobody waits in a circle; a request whose wait
//! was in vain, because the other failed, lets go of all of its own before it claims again. So does one
//! that lost its patience (`patience`), and takes what it doubts over: that is made twice then, and
//! others wait for the one who took it.

mod patience;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cairn_types::{Digest, Namespace, SnapshotKey};

use self::patience::Patience;
pub(crate) use self::patience::Pulse;

/// How long a waiting request does not look whether it is still wanted.
const BEAT: Duration = Duration::from_millis(100);

/// Something that is made by one request at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Claimed {
    /// A blob; of one namespace where these are isolated from one another.
    Blob(Option<Namespace>, Digest),
    /// A committed layer, likewise.
    Layer(Option<Namespace>, SnapshotKey),
}

/// What is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Awaiting {
    pub(crate) what: Claimed,
    /// Of which it is made.
    pub(crate) blob: Digest,
    /// Bytes of the blob.
    pub(crate) size: u64,
}

/// Things with the claims by which they are doubted to come.
pub(crate) type Doubts = HashSet<(Claimed, u64)>;

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The others have let go.
    Over,
    /// Nobody wants the request any more.
    GivenUp,
    /// These do not get on.
    Doubted(Doubts),
}

/// All claims.
#[derive(Clone, Default)]
pub(crate) struct Claims(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    held: HashMap<Claimed, Held>,
    claims: u64,
}

struct Held {
    /// By which claim.
    by: u64,
    pulse: Arc<Pulse>,
}

impl Claims {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims all of `wanted` that nobody has, and what is doubted of those who have it.
    pub(crate) fn claim(
        &self,
        wanted: impl IntoIterator<Item = Claimed>,
        pulse: &Arc<Pulse>,
        doubts: &Doubts,
    ) -> Claim {
        let mut state = self.state();
        state.claims += 1;
        let number = state.claims;
        let mut claim = Claim {
            claims: self.clone(),
            number,
            pulse: Arc::clone(pulse),
            mine: HashSet::new(),
            others: HashMap::new(),
        };
        let own = || Held {
            by: number,
            pulse: Arc::clone(pulse),
        };
        for one in wanted {
            let held = state.held.entry(one.clone()).or_insert_with(own);
            if held.by != number && doubts.contains(&(one.clone(), held.by)) {
                *held = own();
            }
            if held.by == number {
                claim.mine.insert(one);
            } else {
                claim.others.insert(one, held.by);
            }
        }
        drop(state);
        if !doubts.is_empty() {
            // Who waits for those it was taken from has this one to wait for now.
            self.0.freed.notify_all();
        }
        claim
    }
}

/// What one request has claimed. Dropped, it is free for others.
pub(crate) struct Claim {
    claims: Claims,
    number: u64,
    pulse: Arc<Pulse>,
    mine: HashSet<Claimed>,
    /// With the claim that it was part of. Whoever claims the same later is not waited for: he may be
    /// waiting for this one.
    others: HashMap<Claimed, u64>,
}

impl Claim {
    /// Whether another request was at it when this one claimed.
    pub(crate) fn is_others(&self, one: &Claimed) -> bool {
        self.others.contains_key(one)
    }

    /// Lets go of what turned out not to be needed.
    pub(crate) fn keep_only(&mut self, needed: &HashSet<Claimed>) {
        let (kept, freed): (HashSet<_>, HashSet<_>) = std::mem::take(&mut self.mine)
            .into_iter()
            .partition(|one| needed.contains(one));
        self.mine = kept;
        self.free(&freed);
    }

    /// Waits until the others have let go of what is awaited, or do not get on with it.
    pub(crate) fn wait(&self, awaited: &[Awaiting], given_up: &dyn Fn() -> bool) -> Waited {
        let mut patience = Patience::new(&self.pulse);
        let mut state = self.claims.state();
        loop {
            let now = Instant::now();
            let (mut any, mut doubts) = (false, Doubts::new());
            for one in awaited {
                let Some(by) = self.others.get(&one.what) else {
                    continue;
                };
                let Some(held) = state.held.get(&one.what).filter(|held| held.by == *by) else {
                    continue;
                };
                any = true;
                if patience.is_over(one, &held.pulse, now) {
                    doubts.insert((one.what.clone(), *by));
                }
            }
            if !any {
                return Waited::Over;
            }
            if given_up() {
                return Waited::GivenUp;
            }
            if !doubts.is_empty() {
                return Waited::Doubted(doubts);
            }
            let waited = self.claims.0.freed.wait_timeout(state, BEAT);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn free(&self, freed: &HashSet<Claimed>) {
        if freed.is_empty() {
            return;
        }
        // What was taken over is another's.
        self.claims
            .state()
            .held
            .retain(|one, held| held.by != self.number || !freed.contains(one));
        self.claims.0.freed.notify_all();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.free(&self.mine);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn blob(text: &str) -> Claimed {
        Claimed::Blob(None, Digest::sha256(text.as_bytes()))
    }

    fn claim(claims: &Claims, wanted: impl IntoIterator<Item = Claimed>) -> Claim {
        claims.claim(wanted, &Arc::default(), &Doubts::new())
    }

    fn awaiting(one: Claimed) -> Awaiting {
        Awaiting {
            what: one,
            blob: Digest::sha256(b"blob"),
            size: 1,
        }
    }

    #[test]
    fn one_request_has_a_thing_at_a_time() {
        let claims = Claims::default();
        let first = claim(&claims, [blob("a"), blob("b")]);
        let mut second = claim(&claims, [blob("b"), blob("c"), blob("d")]);
        assert!(second.is_others(&blob("b")) && !second.is_others(&blob("c")));
        second.keep_only(&HashSet::from([blob("c")]));
        let third = claim(&claims, [blob("c"), blob("d")]);
        assert!(third.is_others(&blob("c")) && !third.is_others(&blob("d")));
        let wanted = [awaiting(blob("b"))];
        assert_eq!(second.wait(&wanted, &|| true), Waited::GivenUp);
        let nothing = || panic!("nothing to wait for");
        assert_eq!(second.wait(&[awaiting(blob("c"))], &nothing), Waited::Over);
        drop(first);
        assert_eq!(second.wait(&wanted, &nothing), Waited::Over);
    }

    #[test]
    fn what_is_doubted_is_taken_over_by_one() {
        let claims = Claims::default();
        let first = claim(&claims, [blob("a"), blob("b")]);
        let second = claim(&claims, [blob("a")]);
        let third = claim(&claims, [blob("a"), blob("b")]);
        let doubts = Doubts::from([(blob("a"), first.number)]);
        let over = claims.claim([blob("a"), blob("b")], &Arc::default(), &doubts);
        assert!(!over.is_others(&blob("a")) && over.is_others(&blob("b")));
        // Whoever waited for the first sees that it is no use, and has the taker to wait for.
        let nothing = || panic!("nothing to wait for");
        for waiting in [&second, &third] {
            let waited = waiting.wait(&[awaiting(blob("a"))], &nothing);
            assert_eq!(waited, Waited::Over);
        }
        let again = claims.claim([blob("a")], &Arc::default(), &doubts);
        assert_eq!(again.others.get(&blob("a")), Some(&over.number));
        drop(first);
        let later = claim(&claims, [blob("a"), blob("b")]);
        assert!(
            later.is_others(&blob("a")),
            "the first had nothing to let go of"
        );
        assert!(!later.is_others(&blob("b")));
    }

    /// Each takes what is free of an overlapping set, works, and waits for the rest.
    #[test]
    fn nobody_waits_in_a_circle() {
        let claims = Claims::default();
        thread::scope(|scope| {
            for number in 0..8 {
                let claims = &claims;
                scope.spawn(move || {
                    let mut doubts = Doubts::new();
                    for turn in 0..200 {
                        let first = (number * 7 + turn) % 5;
                        let wanted = (first..first + 4).map(|i| blob(&i.to_string()));
                        let wanted: Vec<_> = wanted.collect();
                        let claim = claims.claim(wanted.clone(), &Arc::default(), &doubts);
                        // Now and then somebody takes over from whom it should wait for.
                        doubts = match turn % 3 {
                            0 => claim.others.clone().into_iter().collect(),
                            _ => Doubts::new(),
                        };
                        let wanted: Vec<_> = wanted.into_iter().map(awaiting).collect();
                        if doubts.is_empty() {
                            assert_eq!(claim.wait(&wanted, &|| false), Waited::Over);
                        }
                    }
                });
            }
        });
        assert!(claims.state().held.is_empty());
    }
}
