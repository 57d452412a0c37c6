//! Variables of an environment as plain data, so that what they decide is a pure function and can be
//! explained without being done.

use std::{collections::BTreeMap, env, fmt};

/// The variables of a process. One that is empty counts as absent, as Go's and Docker's readers of
/// these variables have it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// Those of this process. What is not UTF-8 is left out: none that is read here may be so.
    pub fn of_process() -> Env {
        let texts = env::vars_os().map(|(name, value)| (name.into_string(), value.into_string()));
        texts
            .filter_map(|(name, value)| Some((name.ok()?, value.ok()?)))
            .collect()
    }

    /// The value of a variable that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The first of several names that has a value, with it.
    pub fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &str)> {
        let mut found = names.iter().map(|name| Some((*name, self.get(name)?)));
        found.find_map(|pair| pair)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Env {
        let pairs = pairs.into_iter();
        Env(pairs
            .map(|(name, value)| (name.into(), value.into()))
            .collect())
    }
}

/// Values may hold passwords, as those of proxies do. Names are told.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
