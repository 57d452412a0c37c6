//! Whose turn it is: one host after the other, and those that sent wrong bytes once more, behind the others.
//!
//! Most wrong bytes are wrong once: a connection without a checksum worth the name, a cache whose disk is
//! bad. So they say something about the host, and nothing about the object.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_types::Digest;

use crate::{
    client::{Client, Need},
    error::{Cause, Error, Failed, What},
    host::{Host, Patience},
};

/// The hosts that are asked for a document.
pub(crate) struct Turns<'c> {
    client: &'c Client,
    what: What,
    left: VecDeque<Turn<'c>>,
    failed: Vec<Failed>,
}

struct Turn<'c> {
    host: &'c Host,
    patience: Patience,
    /// Its place in `failed`, when this is its second turn.
    second: Option<usize>,
}

impl<'c> Turns<'c> {
    pub(crate) fn new(client: &'c Client, what: What, need: Need) -> Turns<'c> {
        let hosts = client.hosts(need).into_iter();
        let turn = |(host, patience)| Turn {
            host,
            patience,
            second: None,
        };
        Turns {
            client,
            what,
            left: hosts.map(turn).collect(),
            failed: Vec::new(),
        }
    }

    /// Who is to be asked now.
    pub(crate) fn host(&self) -> Option<(&'c Host, Patience)> {
        let turn = self.left.front()?;
        Some((turn.host, turn.patience))
    }

    /// That one did not do it.
    pub(crate) fn failed(&mut self, cause: Cause) {
        let Some(mut turn) = self.left.pop_front() else {
            return;
        };
        let wrong = matches!(cause, Cause::WrongDigest { .. });
        let failed = turn.host.failed(cause);
        let Some(place) = turn.second else {
            if wrong {
                let told = (2, 2);
                let what = Some(&self.what);
                turn.host.again(what, told, Duration::ZERO, &failed.cause);
                turn.second = Some(self.failed.len());
                self.left.push_back(turn);
            }
            self.failed.push(failed);
            return;
        };
        self.failed[place] = failed;
    }

    /// Nobody did.
    pub(crate) fn error(self) -> Error {
        self.client.error(self.what, self.failed)
    }
}

/// Hosts that sent other bytes than those of a blob.
#[derive(Default)]
pub(crate) struct Wrong(Mutex<HashMap<Digest, Vec<Failed>>>);

impl Wrong {
    fn state(&self) -> MutexGuard<'_, HashMap<Digest, Vec<Failed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often a host did that.
    pub(crate) fn times(&self, digest: &Digest, host: &str) -> usize {
        let state = self.state();
        let known = state.get(digest).into_iter().flatten();
        known
            .filter(|one| one.host == host && is_wrong(one))
            .count()
    }

    /// What else happened while others were asked instead, for the error.
    pub(crate) fn beside(&self, digest: &Digest, failed: &Failed) {
        if let Some(known) = self.state().get_mut(digest) {
            known.push(failed.clone());
        }
    }
}

fn is_wrong(failed: &Failed) -> bool {
    matches!(failed.cause, Cause::WrongDigest { .. })
}

impl Client {
    /// Takes note that a host, by its name for users, sent a blob whole that hashes to `actual`. It is asked
    /// for that blob after all others from now on.
    ///
    /// # Errors
    /// When it is no use to begin again: as often as there are hosts, and at least twice, all of it came and
    /// was wrong. The error names the hosts.
    pub fn distrust(&self, digest: &Digest, host: &str, actual: Digest) -> Result<(), Error> {
        let failed = Failed {
            host: host.to_owned(),
            cause: Cause::WrongDigest {
                expected: digest.clone(),
                actual,
            },
        };
        let mut state = self.0.wrong.state();
        let known = state.entry(digest.clone()).or_default();
        known.push(failed.clone());
        let times = known.iter().filter(|one| is_wrong(one)).count();
        let most = self.hosts(Need::Pull).len().max(2);
        if times >= most {
            // The last of each.
            let mut last: Vec<Failed> = Vec::new();
            for one in known.iter() {
                last.retain(|other| other.host != one.host);
                last.push(one.clone());
            }
            return Err(self.error(What::Blob(digest.clone()), last));
        }
        drop(state);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let told = (count(times + 1), count(most));
        let mut hosts = self.0.hosts.iter();
        if let Some(known) = hosts.find(|known| known.label() == host) {
            let what = What::Blob(digest.clone());
            known.again(Some(&what), told, Duration::ZERO, &failed.cause);
        }
        Ok(())
    }
}
