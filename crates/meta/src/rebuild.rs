//! Records whose engine or journal is damaged, made anew from what is left of them.
//!
//! They are made aside from the copy, its logs and the journal, and get their name as an import's do; what is
//! damaged is put by and never touched again. Where something is lost that is known. The new records have a mark
//! until somebody has looked at what is on the disk: nothing there is litter because no record speaks of it.

mod remains;
mod sources;

use std::ffi::OsStr;

use cairn_sys::{Dir, OFlags, durable};
use serde::{Deserialize, Serialize};

use self::sources::Sources;
use crate::{
    EngineKind, Error, Timestamp,
    engine::{self, Batch, Engine, Pairs, bytes_of},
    error::kind_of_words,
    import, journal,
};

/// Where they are made.
pub(crate) const UNFINISHED: &str = "rebuild.tmp";
/// What became of them, as JSON.
const REPORT: &str = "rebuilt.json";
const REPORT_BYTES_MAX: u64 = 1 << 20;
/// Says that there may be more on the disk than the records know.
const UNSETTLED: &str = "unsettled";
/// What damaged records are called from then on begins with it.
pub(crate) const DAMAGED: &str = "damaged-";
/// How much is made one commit of.
const BATCH_BYTES: u64 = 4 << 20;
/// How many records are in memory at once.
const PART: usize = 1024;
/// The journal's own key comes before it, and all records' behind.
const FIRST: &[u8] = &[1];

/// What became of records that were destroyed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// When, in nanoseconds since 1970 UTC.
    pub at: i64,
    /// What was wrong with them.
    pub reason: String,
    /// How many there were again.
    pub records: u64,
    /// What is lost; empty when it is known that nothing is.
    pub lost: Vec<String>,
    /// What was found of that beside the records.
    #[serde(default)]
    pub found: Vec<String>,
    /// The directories beside the records' in which damaged ones are.
    #[serde(skip)]
    pub aside: Vec<String>,
}

/// Whether a file in the directory of the records tells of them.
pub(crate) fn is_note(name: &str) -> bool {
    [REPORT, UNSETTLED].contains(&name)
}

/// The name of a database that is to be the records.
pub(crate) fn decided(kind: EngineKind) -> String {
    format!("rebuilt.{}", kind.name())
}

/// How the name begins under which damaged records are put by now.
pub(crate) fn stem() -> String {
    format!(
        "{DAMAGED}{}",
        jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ")
    )
}

/// The names under which damaged records were put by in `dir`.
pub(crate) fn put_by(dir: &Dir) -> cairn_sys::Result<Vec<String>> {
    let entries = dir.entries()?.into_iter();
    let names = entries.filter_map(|entry| entry.name.into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(DAMAGED)).collect();
    names.sort();
    Ok(names)
}

/// Makes the records in `dir` anew. They are damaged in this way.
///
/// # Errors
/// When there is no room for them, or the disk fails. Nothing is changed then.
pub(crate) fn rebuild(dir: &Dir, kind: EngineKind, why: &Error) -> Result<Rebuilt, Error> {
    let aside = OsStr::new(UNFINISHED);
    dir.remove_tree(aside)?;
    dir.create_dir(aside, 0o700)?;
    let made = dir.open_dir(aside)?;
    let report = build(dir, &made, kind, why).inspect_err(|_| {
        // What stays is removed by the next opening.
        let _ = dir.remove_tree(aside);
    })?;
    dir.rename_noreplace(aside, dir, OsStr::new(&decided(kind)))?;
    dir.fsync()?;
    import::finish(dir)?;
    Ok(report)
}

fn build(dir: &Dir, made: &Dir, kind: EngineKind, why: &Error) -> Result<Rebuilt, Error> {
    engine::create(kind, made)?;
    let mut filler = Filler {
        engine: engine::open(kind, made)?,
        place: made.path().display().to_string(),
        batch: Batch::new(),
        bytes: 0,
    };
    let lost = match dir.open_dir(OsStr::new(kind.name())) {
        Ok(from) => {
            // A journal that is damaged says so behind an engine that is not.
            let intact = matches!(why, Error::Damaged(_));
            let sources = Sources::of(&from, kind, intact);
            sources.pour(&mut filler, made)?
        }
        Err(err) => vec![format!("all records ({err})")],
    };
    filler.flush()?;
    let records = count(filler.engine.as_ref())?;
    drop(filler);
    engine::sync_files(kind, made)?;
    journal::create_missing(made)?;
    let report = Rebuilt {
        at: Timestamp::now().0,
        reason: why.to_string(),
        records,
        lost,
        ..Rebuilt::default()
    };
    keep(made, &report)?;
    // Also where nothing is known to be lost: a last change that is damaged looks like one that the power has
    // cut, and what spoke of it would go.
    mark(made)?;
    made.fsync()?;
    Ok(report)
}

fn count(engine: &dyn Engine) -> Result<u64, Error> {
    let (mut records, mut after) = (0, FIRST.to_vec());
    loop {
        let part = engine.snapshot()?.scan_after(&[], &after, PART)?;
        let Some((last, _)) = part.last() else {
            return Ok(records);
        };
        after.clone_from(last);
        records += part.len() as u64;
    }
}

/// Records that are to be.
fn to_be(pairs: Pairs) -> Batch {
    let pairs = pairs.into_iter();
    pairs.map(|(key, value)| (key, Some(value))).collect()
}

/// Gives records to a new engine, many at once.
struct Filler {
    engine: Box<dyn Engine>,
    place: String,
    batch: Batch,
    bytes: u64,
}

impl Filler {
    fn add(&mut self, changes: Batch) -> Result<(), Error> {
        self.bytes += bytes_of(&changes);
        self.batch.extend(changes);
        match self.bytes > BATCH_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.engine.commit(&batch).map_err(|reason| Error::Open {
            path: self.place.clone(),
            engine: self.engine.name(),
            kind: kind_of_words(&reason),
            reason,
        })
    }
}

/// Marks the database in `inside` as one that may know of less than there is, durably but for its name.
pub(crate) fn mark(inside: &Dir) -> cairn_sys::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE;
    inside
        .open_file(OsStr::new(UNSETTLED), flags, 0o600)
        .map(drop)
}

/// Whether it has that mark.
pub(crate) fn is_marked(inside: &Dir) -> cairn_sys::Result<bool> {
    Ok(inside.try_stat(OsStr::new(UNSETTLED))?.is_some())
}

/// Takes the mark away.
pub(crate) fn unmark(inside: &Dir) -> cairn_sys::Result<()> {
    if is_marked(inside)? {
        inside.unlink(OsStr::new(UNSETTLED))?;
        inside.fsync()?;
    }
    Ok(())
}

/// What became of the records before the ones in `inside`, if they were destroyed. A report that cannot be read
/// is none.
pub(crate) fn known(inside: &Dir) -> Option<Rebuilt> {
    let name = OsStr::new(REPORT);
    inside.try_stat(name).ok()??;
    let bytes = inside.read_file(name, REPORT_BYTES_MAX).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Puts a report on the disk.
pub(crate) fn keep(inside: &Dir, report: &Rebuilt) -> cairn_sys::Result<()> {
    let bytes = serde_json::to_vec(report).expect("plain fields serialise");
    durable::write_file(inside, OsStr::new(REPORT), &bytes, 0o600)
}
