//! All records as lines of JSON.

use std::io::Write;

use cairn_types::{Algorithm, Hasher};

use crate::{
    Error, Origin, Store,
    error::kind_of_io,
    lines::{self, End},
    record,
};

/// How many records are in memory at once.
const PART: usize = 1024;
/// The journal's own key comes before it, and all records' behind.
const FIRST: &[u8] = &[1];

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Records.
    pub records: u64,
    /// What is wrong with those of them that do not prove themselves. They are in the export as they are.
    pub damaged: Vec<String>,
}

impl Store {
    /// Writes all records of one moment, in the order of their keys. The same records give the same
    /// lines, but for the first and the last.
    ///
    /// # Errors
    /// Those of reading, and [`Error::Stream`] when `out` takes no more.
    pub fn export(&self, origin: &Origin, out: &mut dyn Write) -> Result<Exported, Error> {
        let mut lines = Lines {
            out,
            hasher: Hasher::new(Algorithm::Sha256),
        };
        lines.put(&lines::head(origin))?;
        let mut exported = Exported {
            records: 0,
            damaged: Vec::new(),
        };
        self.read(|reader| {
            let mut after = FIRST.to_vec();
            loop {
                let part = reader.snapshot.scan_after(&[], &after, PART)?;
                let Some((last, _)) = part.last() else {
                    return Ok::<(), Error>(());
                };
                after.clone_from(last);
                for (key, value) in &part {
                    if let Err(err) = record::payload(key, value) {
                        exported.damaged.push(err.to_string());
                    }
                    lines.put(&lines::of_record(key, value))?;
                    exported.records += 1;
                }
            }
        })?;
        lines.end(exported.records)?;
        Ok(exported)
    }
}

struct Lines<'o> {
    out: &'o mut dyn Write,
    hasher: Hasher,
}

impl Lines<'_> {
    fn put(&mut self, line: &[u8]) -> Result<(), Error> {
        self.hasher.update(line);
        self.out.write_all(line).map_err(|err| failed(&err))
    }

    fn end(self, records: u64) -> Result<(), Error> {
        let digest = self.hasher.finish().to_string();
        let last = lines::end(&End { records, digest });
        let written = self.out.write_all(&last).and_then(|()| self.out.flush());
        written.map_err(|err| failed(&err))
    }
}

fn failed(err: &std::io::Error) -> Error {
    Error::Stream {
        attempted: "write",
        reason: err.to_string(),
        kind: kind_of_io(err),
    }
}
