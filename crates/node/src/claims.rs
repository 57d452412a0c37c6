//! Who is making what, so that two requests for one image do not fetch and unpack it twice.
//!
//! A request claims everything it may have to make at once, and only then looks what is missing. What
//! others have claimed it leaves to them: it does its own part, waits for theirs, and looks again. It
//! waits for none who claimed later than itself, so that nobody waits in a circle; a request whose wait
//! was in vain, because the other failed, lets go of all of its own before it claims again.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_types::{Digest, Namespace, SnapshotKey};

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
    /// By which claim.
    held: HashMap<Claimed, u64>,
    claims: u64,
}

impl Claims {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims all of `wanted` that nobody has.
    pub(crate) fn claim(&self, wanted: impl IntoIterator<Item = Claimed>) -> Claim {
        let mut state = self.state();
        state.claims += 1;
        let number = state.claims;
        let mut claim = Claim {
            claims: self.clone(),
            mine: HashSet::new(),
            others: HashMap::new(),
        };
        for one in wanted {
            let holder = *state.held.entry(one.clone()).or_insert(number);
            if holder == number {
                claim.mine.insert(one);
            } else {
                claim.others.insert(one, holder);
            }
        }
        claim
    }
}

/// What one request has claimed. Dropped, it is free for others.
pub(crate) struct Claim {
    claims: Claims,
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

    /// Waits until the others have let go; `false` when the request was given up meanwhile.
    pub(crate) fn wait(&self, given_up: &dyn Fn() -> bool) -> bool {
        let mut state = self.claims.state();
        while self
            .others
            .iter()
            .any(|(one, by)| state.held.get(one) == Some(by))
        {
            if given_up() {
                return false;
            }
            let waited = self.claims.0.freed.wait_timeout(state, BEAT);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn free(&self, freed: &HashSet<Claimed>) {
        if freed.is_empty() {
            return;
        }
        self.claims
            .state()
            .held
            .retain(|one, _| !freed.contains(one));
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

    #[test]
    fn one_request_has_a_thing_at_a_time() {
        let claims = Claims::default();
        let first = claims.claim([blob("a"), blob("b")]);
        let mut second = claims.claim([blob("b"), blob("c"), blob("d")]);
        assert!(second.is_others(&blob("b")) && !second.is_others(&blob("c")));
        second.keep_only(&HashSet::from([blob("c")]));
        let third = claims.claim([blob("c"), blob("d")]);
        assert!(third.is_others(&blob("c")) && !third.is_others(&blob("d")));
        assert!(!second.wait(&|| true), "given up");
        drop(first);
        assert!(second.wait(&|| panic!("nothing to wait for")));
    }

    /// Each takes what is free of an overlapping set, works, and waits for the rest.
    #[test]
    fn nobody_waits_in_a_circle() {
        let claims = Claims::default();
        thread::scope(|scope| {
            for number in 0..8 {
                let claims = &claims;
                scope.spawn(move || {
                    for turn in 0..200 {
                        let first = (number * 7 + turn) % 5;
                        let wanted = (first..first + 4).map(|i| blob(&i.to_string()));
                        let claim = claims.claim(wanted);
                        assert!(claim.wait(&|| false));
                    }
                });
            }
        });
        assert!(claims.state().held.is_empty());
    }
}
