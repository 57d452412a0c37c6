//! Looking at records, and changing several as one.

use cairn_types::Namespace;

use crate::{
    Error, Key, NamespaceRecord, Prefix, Record, Table,
    engine::{Batch, Engine, Over, Pairs, Snapshot, laid_over, limits},
    record, schema,
};

/// What readers and transactions can both do.
pub trait View {
    #[doc(hidden)]
    fn raw_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    #[doc(hidden)]
    fn raw_scan(&self, prefix: &[u8]) -> Result<Pairs, Error>;

    /// The record under `key`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it does not prove itself.
    fn get<K: Key, V: Record>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, Error> {
        let key = encode(table, key)?;
        self.raw_get(&key)?
            .map(|bytes| record::open(&key, &bytes))
            .transpose()
    }

    /// All records whose keys begin with `prefix`, in bytewise order of the keys.
    ///
    /// # Errors
    /// [`Error::Corrupt`] at the first one that does not prove itself.
    fn scan<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
        prefix: &impl Prefix,
    ) -> Result<Vec<(K, V)>, Error> {
        let begin = encode(table, prefix)?;
        let pairs = self.raw_scan(&begin)?;
        pairs.iter().map(|(key, bytes)| open(key, bytes)).collect()
    }

    /// The same, but a record that does not prove itself costs only itself: the second part of the
    /// answer says which those are.
    ///
    /// For showing what there is. Whoever removes what no record speaks of must not rely on it.
    fn scan_sound<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
        prefix: &impl Prefix,
    ) -> Result<Sound<K, V>, Error> {
        let begin = encode(table, prefix)?;
        let mut sound = (Vec::new(), Vec::new());
        for (key, bytes) in self.raw_scan(&begin)? {
            match open(&key, &bytes) {
                Ok(pair) => sound.0.push(pair),
                Err(err) => sound.1.push(err),
            }
        }
        Ok(sound)
    }
}

/// Records that prove themselves, and what is wrong with the others.
pub type Sound<K, V> = (Vec<(K, V)>, Vec<Error>);

fn open<K: Key, V: Record>(key: &[u8], bytes: &[u8]) -> Result<(K, V), Error> {
    let value = record::open(key, bytes)?;
    let parsed = K::decode(&key[1..]).map_err(|reason| Error::Corrupt {
        key: record::shown(key),
        reason,
    })?;
    Ok((parsed, value))
}

fn encode<K, V>(table: &Table<K, V>, key: &impl Prefix) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![table.tag];
    key.encode(&mut bytes)?;
    Ok(bytes)
}

/// Looks at one state of the records, whatever is written meanwhile.
pub struct Reader<'a> {
    pub(crate) snapshot: Box<dyn Snapshot + 'a>,
}

impl View for Reader<'_> {
    fn raw_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.snapshot.get(key)
    }

    fn raw_scan(&self, prefix: &[u8]) -> Result<Pairs, Error> {
        self.snapshot.scan(prefix)
    }
}

impl Reader<'_> {
    /// The first `limit` records of a whole table, or those that come after `after`: for going through
    /// a large table in parts, with a look of its own for each.
    ///
    /// # Errors
    /// [`Error::Corrupt`] at the first one that does not prove itself.
    pub fn part<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let prefix = encode(table, &())?;
        let after = match after {
            Some(key) => encode(table, key)?,
            // No key is a tag alone.
            None => prefix.clone(),
        };
        let pairs = self.snapshot.scan_after(&prefix, &after, limit)?;
        pairs.iter().map(|(key, bytes)| open(key, bytes)).collect()
    }
}

/// Where a way through a table in parts has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(Vec<u8>);

impl Reader<'_> {
    /// As [`Reader::part`], but a record that does not prove itself costs only itself, as in
    /// [`View::scan_sound`]. Also says where to go on; `None` when there is no more.
    ///
    /// # Errors
    /// Those of the engine.
    #[allow(clippy::type_complexity, reason = "a part, and where it ends")]
    pub fn sound_part<K: Key, V: Record>(
        &self,
        table: &Table<K, V>,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<(Sound<K, V>, Option<Place>), Error> {
        let prefix = encode(table, &())?;
        let after = after.map_or(&prefix, |place| &place.0);
        let pairs = self.snapshot.scan_after(&prefix, after, limit)?;
        let end = pairs.last().filter(|_| pairs.len() >= limit);
        let end = end.map(|(key, _)| Place(key.clone()));
        let mut sound = (Vec::new(), Vec::new());
        for (key, bytes) in &pairs {
            match open(key, bytes) {
                Ok(pair) => sound.0.push(pair),
                Err(err) => sound.1.push(err),
            }
        }
        Ok((sound, end))
    }
}

/// A transaction: sees what was committed, what went before it in the same group, and its own
/// changes. Dropped without effect when its closure fails.
pub struct Tx<'a> {
    pub(crate) engine: &'a dyn Engine,
    pub(crate) snapshot: &'a dyn Snapshot,
    /// Changes of transactions before this one that share its commit.
    pub(crate) group: &'a Batch,
    pub(crate) own: Batch,
}

impl View for Tx<'_> {
    fn raw_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.own.get(key).or_else(|| self.group.get(key)) {
            Some(change) => Ok(change.clone()),
            None => self.snapshot.get(key),
        }
    }

    fn raw_scan(&self, prefix: &[u8]) -> Result<Pairs, Error> {
        let mut over = Over::new();
        // Its own come last, and win.
        for changes in [self.group, &self.own] {
            let inside = changes
                .range(prefix.to_vec()..)
                .take_while(|(key, _)| key.starts_with(prefix));
            over.extend(inside.map(|(key, value)| (key.as_slice(), value.as_deref())));
        }
        Ok(laid_over(self.snapshot.scan(prefix)?, &over))
    }
}

impl Tx<'_> {
    /// Writes a record.
    ///
    /// # Errors
    /// [`Error::TooLarge`] or [`Error::KeyTooLong`] when the engine could not keep it safely.
    pub fn put<K: Key, V: Record>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), Error> {
        let key = encode(table, key)?;
        let bytes = record::seal(&key, value);
        limits(self.engine, &key, bytes.len())?;
        self.own.insert(key, Some(bytes));
        Ok(())
    }

    /// Removes a record; removing what is not there is no error.
    pub fn delete<K: Key, V: Record>(&mut self, table: &Table<K, V>, key: &K) -> Result<(), Error> {
        self.own.insert(encode(table, key)?, None);
        Ok(())
    }

    /// Makes a namespace that has no record yet: one exists by being used.
    ///
    /// # Errors
    /// As [`View::get`] and [`Tx::put`].
    pub fn use_namespace(&mut self, ns: &Namespace) -> Result<(), Error> {
        if self.get(&schema::NAMESPACES, ns)?.is_none() {
            self.put(&schema::NAMESPACES, ns, &NamespaceRecord::default())?;
        }
        Ok(())
    }

    /// The next number of a counter, never given out again, beginning with 1.
    pub fn next_id(&mut self, counter: &str) -> Result<u64, Error> {
        let key = counter.to_owned();
        let next = self.get(&schema::COUNTERS, &key)?.unwrap_or(0) + 1;
        self.put(&schema::COUNTERS, &key, &next)?;
        Ok(next)
    }

    /// Has a counter give out no number up to `used` any more.
    ///
    /// # Errors
    /// As [`View::get`] and [`Tx::put`].
    pub fn skip_ids(&mut self, counter: &str, used: u64) -> Result<(), Error> {
        let key = counter.to_owned();
        if self.get(&schema::COUNTERS, &key)?.unwrap_or(0) < used {
            self.put(&schema::COUNTERS, &key, &used)?;
        }
        Ok(())
    }
}

/// The number of a counter that a file or directory is called by, for [`Tx::skip_ids`]; 0 for other names. What
/// nobody can have been given is no number.
pub fn number_of(name: &str) -> u64 {
    let number = name.parse().ok();
    number
        .filter(|number| *number <= u64::from(u32::MAX))
        .unwrap_or(0)
}
