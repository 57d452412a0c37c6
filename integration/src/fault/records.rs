//! The records of a store, as `cairnd meta export` writes them, without what differs between two lives
//! that come to the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Output,
};

use serde_json::Value;

use super::Verdict;

/// Tables that say how the store works, and nothing of what it was told.
const INNER: [&str; 2] = ["counter", "blob-bytes"];
/// What is of one life in a record: times, numbers, measurements, the boot, and whether a sync has been
/// made already.
const PASSING: [&str; 8] = [
    "boot_id",
    "bytes",
    "created_at",
    "durable",
    "id",
    "started_at",
    "timing",
    "updated_at",
];
/// Labels whose values are times.
const TIMES: [&str; 2] = ["containerd.io/gc.root", EXPIRE];
/// The label of a lease that ends by itself.
const EXPIRE: &str = "containerd.io/gc.expire";
/// What labels begin with that say where a blob came from.
const SOURCE: &str = "containerd.io/distribution.source.";
/// What uploads that nobody named begin with.
const NAMELESS: &str = " put-";

/// A table and a key in it, the parts of which are divided by spaces.
type Name = (String, String);

/// Records by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records(BTreeMap<Name, Value>);

/// How far a command came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing of it is there.
    Nothing,
    /// Some of it, or what it leaves beside the records is not known.
    Part,
    /// All of it.
    All,
}

impl Stage {
    /// What is wrong with what came of the same command again, if anything is: what was done in full is
    /// refused as that, by the word `done`, and what was not begun is not.
    pub(crate) fn wrong_again(self, done: Option<&str>, output: &Output) -> Option<&'static str> {
        let said = String::from_utf8_lossy(&output.stderr);
        let error = said.lines().find(|line| line.starts_with("error: "));
        let named = done.is_some_and(|done| error.is_some_and(|line| line.contains(done)));
        let refused = named && output.status.code() == Some(1);
        match (output.status.success(), refused, self) {
            (true, _, Stage::All) if done.is_some() => Some("it was done, and is not refused"),
            (true, ..) => None,
            (false, true, Stage::Nothing) => Some("it was not done, and is refused"),
            (false, true, _) => None,
            (false, false, _) => Some("it is refused"),
        }
    }
}

impl Records {
    /// Reads an export; each of the words stands for what is behind it.
    pub(super) fn parse(text: &str, words: &[(&str, String)]) -> Verdict<Records> {
        let mut text = text.to_owned();
        for (word, meaning) in words {
            text = text.replace(meaning.as_str(), word);
        }
        let mut records = BTreeMap::new();
        for line in text.lines() {
            let mut line: Value =
                serde_json::from_str(line).map_err(|err| format!("exported {line:?}: {err}"))?;
            // The first line and the last are of the export itself.
            let Some(table) = line["table"].as_str().map(str::to_owned) else {
                continue;
            };
            if INNER.contains(&&*table) {
                continue;
            }
            let parts = line["key"].as_array().into_iter().flatten();
            let parts: Vec<&str> = parts.filter_map(Value::as_str).collect();
            let name = (table, parts.join(" "));
            let mut record = line["record"].take();
            strip(&mut record);
            records.insert(name, record);
        }
        Ok(Records(records))
    }

    /// Keys and records of a table.
    pub(super) fn table<'r>(
        &'r self,
        table: &'r str,
    ) -> impl Iterator<Item = (&'r str, &'r Value)> {
        let of = self.0.iter().filter(move |((own, _), _)| own == table);
        of.map(|((_, key), record)| (&**key, record))
    }

    /// How many of them.
    pub(super) fn count(&self, table: &str) -> usize {
        self.table(table).count()
    }

    /// How many directories snapshots have: an unpacked layer is there once for all namespaces.
    pub(super) fn trees(&self) -> usize {
        let keys = self.table("snapshot").map(|(key, _)| key);
        let trees: BTreeSet<&str> = keys
            .map(|key| match key.split_once(' ') {
                Some((_, name)) if name.starts_with("sha256:") => name,
                _ => key,
            })
            .collect();
        trees.len()
    }

    /// Snapshots that a client committed: their namespaces and names.
    pub(super) fn committed(&self) -> impl Iterator<Item = (&str, &str)> {
        const COMMITTED: u64 = 3;
        self.table("snapshot")
            .filter(|(_, record)| record["kind"] == COMMITTED)
            .filter_map(|(key, _)| key.split_once(' '))
            .filter(|(_, name)| !name.starts_with("sha256:"))
    }

    /// Without what ends by itself when a process was killed, or could not take it back: uploads that
    /// nobody can come back for, leases that expire, and snapshots that these alone hold.
    pub(super) fn settled(&self) -> Records {
        self.lasting(|key| key.contains(NAMELESS))
    }

    /// The same without any uploads.
    pub(super) fn without_uploads(&self) -> Records {
        self.lasting(|_| true)
    }

    fn lasting(&self, is_passing: impl Fn(&str) -> bool) -> Records {
        let leases = self.table("lease");
        let leases: BTreeSet<&str> = leases
            .filter(|(_, record)| record["labels"].get(EXPIRE).is_some())
            .map(|(key, _)| key)
            .collect();
        let held: BTreeSet<String> = self
            .table("lease-resource")
            .filter_map(|(key, _)| {
                let (lease, kind, name) = resource(key)?;
                let own = kind.starts_with("snapshots") && !name.starts_with("sha256:");
                let (ns, _) = lease.split_once(' ')?;
                (own && leases.contains(&*lease)).then(|| format!("{ns} {name}"))
            })
            .collect();
        self.without(|table, key| match table {
            "ingest" => is_passing(key),
            "lease" => leases.contains(key),
            "lease-resource" => {
                let lease = resource(key).is_some_and(|(lease, ..)| leases.contains(&*lease));
                lease || key.contains(NAMELESS)
            }
            "snapshot" => held.contains(key),
            "child" => key
                .split_once(' ')
                .and_then(|(ns, rest)| Some(format!("{ns} {}", rest.rsplit(' ').next()?)))
                .is_some_and(|child| held.contains(&child)),
            _ => false,
        })
    }

    /// Without those of which this is so, by their tables and keys.
    pub(super) fn without(&self, goes: impl Fn(&str, &str) -> bool) -> Records {
        let kept = self.0.iter().filter(|((table, key), _)| !goes(table, key));
        Records(kept.map(|(n, v)| (n.clone(), v.clone())).collect())
    }

    /// Whether these are they. Where a blob came from is only a hint to the next push, and who finds it here
    /// does not come from there.
    pub(super) fn same(&self, found: &Records) -> Verdict {
        let (own, found) = (self.without_sources(), found.without_sources());
        match own == found {
            true => Ok(()),
            false => Err(format!("the records are not those:{}", own.diff(&found))),
        }
    }

    fn without_sources(&self) -> Records {
        let mut records = self.0.clone();
        let links = records
            .iter_mut()
            .filter(|((table, _), _)| table == "blob-link");
        for (_, record) in links {
            if let Some(labels) = record["labels"].as_object_mut() {
                labels.retain(|label, _| !label.starts_with(SOURCE));
            }
        }
        Records(records)
    }

    fn diff(&self, found: &Records) -> String {
        let mut lines = Vec::new();
        for (sign, own, other) in [("-", self, found), ("+", found, self)] {
            let lacking = own.0.iter();
            let lacking = lacking.filter(|(name, record)| other.0.get(*name) != Some(*record));
            lines.extend(
                lacking.map(|((table, key), record)| format!("\n{sign} {table} {key} {record}")),
            );
        }
        lines.concat()
    }

    /// How far something came that leads from `before` to `after` and may have been broken off, if it
    /// led nowhere else: what it keeps is there, and nothing is there that is of neither.
    pub(super) fn stage(&self, before: &Records, after: &Records) -> Verdict<Stage> {
        if self == after {
            return Ok(Stage::All);
        }
        if self == before {
            return Ok(Stage::Nothing);
        }
        let mut wrong = Vec::new();
        for (name, record) in &self.0 {
            let known = [before, after].map(|state| state.0.get(name));
            let known: Vec<&Value> = known.into_iter().flatten().collect();
            let labelled = || name.0 == "blob-link" && labelled(record, &known);
            if !known.contains(&record) && !labelled() {
                wrong.push(format!("nobody's: {} {} {record}", name.0, name.1));
            }
        }
        let kept = before.0.keys().filter(|name| after.0.contains_key(*name));
        for (table, key) in kept.filter(|name| !self.0.contains_key(*name)) {
            wrong.push(format!("gone: {table} {key}"));
        }
        match wrong.is_empty() {
            true => Ok(Stage::Part),
            false => Err(wrong.join("\n")),
        }
    }
}

/// What a lease holds: the lease with its namespace, the kind, and the name.
fn resource(key: &str) -> Option<(String, &str, &str)> {
    let mut parts = key.splitn(4, ' ');
    let (ns, lease) = (parts.next()?, parts.next()?);
    Some((format!("{ns} {lease}"), parts.next()?, parts.next()?))
}

/// Whether each label is one of these: an import gives them to a blob one after the other.
fn labelled(record: &Value, known: &[&Value]) -> bool {
    let labels = record["labels"].as_object().into_iter().flatten();
    let mut labels = labels.map(|(key, value)| {
        known
            .iter()
            .any(|known| known["labels"].get(key) == Some(value))
    });
    !known.is_empty() && labels.all(|known| known)
}

/// Takes away what passes.
fn strip(value: &mut Value) {
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    fields.retain(|name, _| !PASSING.contains(&name.as_str()));
    for (name, value) in fields.iter_mut() {
        match (name.as_str(), value.as_object_mut()) {
            ("labels", Some(labels)) => {
                let times = labels.iter_mut();
                times
                    .filter(|(key, _)| TIMES.contains(&key.as_str()))
                    .for_each(|(_, value)| *value = Value::Null);
            }
            _ => strip(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(lines: &[&str]) -> Records {
        Records::parse(&lines.join("\n"), &[("{w}", "/tmp/x".to_owned())]).expect("an export")
    }

    const HEAD: &str = r#"{"format":"cairn-records","version":1,"engine":"redb"}"#;
    const BLOB: &str = r#"{"table":"blob","key":["sha256:1"],"record":{"created_at":5,"size":3}}"#;
    const LINK: &str = r#"{"table":"blob-link","key":["a","sha256:1"],"record":{"created_at":5,"labels":{"containerd.io/gc.root":"now","x":"y"}}}"#;
    const BARE: &str = r#"{"table":"blob-link","key":["a","sha256:1"],"record":{"created_at":7,"labels":{"x":"y"}}}"#;
    const OTHER: &str =
        r#"{"table":"blob-link","key":["a","sha256:1"],"record":{"labels":{"x":"z"}}}"#;
    const PUT: &str = r#"{"table":"ingest","key":["a","put-1-2"],"record":{"id":1}}"#;

    #[test]
    fn what_passes_is_left_out() {
        let bundle =
            r#"{"table":"bundle","key":["/tmp/x/b"],"record":{"made":true,"created_at":1}}"#;
        let counter = r#"{"table":"counter","key":["ingest"],"record":{"last":2}}"#;
        let read = records(&[HEAD, BLOB, bundle, counter, LINK]);
        let again = BLOB.replace(":5,", ":6,");
        assert_eq!(read, records(&[&again, bundle, LINK]));
        let bundles: Vec<_> = read.table("bundle").map(|(key, _)| key).collect();
        assert_eq!(bundles, ["{w}/b"]);
        assert_eq!(read.count("blob"), 1);
        assert_eq!(records(&[BLOB, PUT]).settled(), records(&[BLOB]));
        let lease = r#"{"table":"lease","key":["a","l"],"record":{"labels":{"containerd.io/gc.expire":"x"}}}"#;
        let holds =
            r#"{"table":"lease-resource","key":["a","l","snapshots/overlayfs","l-0"],"record":{}}"#;
        let held = r#"{"table":"snapshot","key":["a","l-0"],"record":{}}"#;
        let child = r#"{"table":"child","key":["a","sha256:1","l-0"],"record":{}}"#;
        let passing = [BLOB, PUT, lease, holds, held, child];
        assert_eq!(records(&passing).settled(), records(&[BLOB]));
        let lasting = lease.replace("gc.expire", "gc.other");
        let lasting = [BLOB, &lasting, holds, held, child];
        assert_eq!(records(&lasting).without_uploads(), records(&lasting));
        let layer = r#"{"table":"snapshot","key":["a","sha256:1"],"record":{}}"#;
        let work = r#"{"table":"snapshot","key":["a","work"],"record":{}}"#;
        let both = [layer, work].map(|one| one.replace("\"a\"", "\"b\""));
        assert_eq!(records(&[layer, work, &both[0], &both[1]]).trees(), 3);
    }

    #[test]
    fn a_stage_is_told_from_another_state() {
        let (before, after) = (records(&[BLOB]), records(&[BLOB, LINK, PUT]));
        let stage = |found: &[&str]| records(found).stage(&before, &after);
        assert_eq!(stage(&[BLOB]), Ok(Stage::Nothing));
        assert_eq!(stage(&[BLOB, LINK, PUT]), Ok(Stage::All));
        assert_eq!(stage(&[BLOB, LINK]), Ok(Stage::Part));
        assert_eq!(stage(&[BLOB, BARE]), Ok(Stage::Part));
        assert!(stage(&[LINK]).is_err(), "what is kept is gone");
        assert!(stage(&[BLOB, OTHER]).is_err(), "a label of nobody");
    }
}
