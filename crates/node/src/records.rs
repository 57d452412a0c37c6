//! The records of a store that nobody has open, as a file and back.
//!
//! What blobs, layers and uploads there are is for the files beside them; an import changes none of
//! these. The next opening removes those that no record speaks of.

use std::{
    io::{BufRead, Write},
    path::Path,
};

use cairn_meta::{EngineKind, Import, Origin, Store};
pub use cairn_meta::{Exported, Replaced};
use cairn_sys::Dir;
use cairn_types::{Classified, ErrorKind};

use crate::{
    Failure,
    node::{self, LAYOUT},
    uuid,
};

const EXPORT: &str = "export the records of";
const IMPORT: &str = "import records into";

/// What an import is given besides the export.
#[derive(Clone, Copy, Debug)]
pub struct RecordsImport {
    /// Which engine is to keep the records.
    pub engine: EngineKind,
    /// The layout that the store is to have; `None` for that of this version.
    pub layout: Option<u32>,
    /// Whether records that are there give way.
    pub replace: bool,
}

/// What an import did, and whose records they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsImported {
    /// How many there are, and where the ones before are.
    pub replaced: Replaced,
    /// What the export says of itself.
    pub origin: Origin,
    /// The name of this store, when the records are those of another one.
    pub other: Option<String>,
}

/// Writes all records of the store at `root`, which nobody has open.
///
/// # Errors
/// When there is no store, when a process has it open, or when `out` takes no more. Damaged records are
/// written as they are, and named in the answer.
pub fn export_records(root: &Path, out: &mut dyn Write) -> Result<Exported, Failure> {
    exported(root, out).map_err(|failure| of_a_stopped(failure, EXPORT, root))
}

fn exported(root: &Path, out: &mut dyn Write) -> Result<Exported, Failure> {
    // Nothing may be made by looking.
    let meta = root.join("meta");
    if !meta.is_dir() {
        let failure = Failure::new(ErrorKind::NotFound, EXPORT, "there is no store");
        return Err(failure.next("name another directory: --root DIR"));
    }
    let (dir, _lock) = node::enter(root)?;
    let meta = node::own_dir(root, &dir, "meta", 0o700)?;
    let failed = |err: cairn_meta::Error| Failure::of(EXPORT, &err);
    let Some(engine) = Store::kept(&meta).map_err(failed)? else {
        return Err(Failure::new(
            ErrorKind::NotFound,
            EXPORT,
            "it has no records",
        ));
    };
    let store = Store::open(&meta, engine).map_err(failed)?;
    let origin = Origin {
        layout: LAYOUT,
        written_by: node::written_by(),
        engine: engine.name().to_owned(),
        uuid: uuid::known(&dir)?,
    };
    store.export(&origin, out).map_err(failed)
}

/// Makes an export the records of the store at `root`, which nobody has open; the store is made when it
/// is absent. After a crash it has either all of the old records or all of the new ones.
///
/// # Errors
/// When the export is cut, damaged or of another layout, when there are records that are not to be
/// replaced, or when a process has the store open. Nothing is changed then.
pub fn import_records(
    root: &Path,
    wanted: RecordsImport,
    input: &mut dyn BufRead,
) -> Result<RecordsImported, Failure> {
    imported(root, wanted, input).map_err(|failure| of_a_stopped(failure, IMPORT, root))
}

fn imported(
    root: &Path,
    wanted: RecordsImport,
    input: &mut dyn BufRead,
) -> Result<RecordsImported, Failure> {
    let failed = |err: cairn_meta::Error| not_imported(&err);
    check_known(wanted.layout.unwrap_or(LAYOUT))?;
    // Before a root is made for it.
    let import = Import::begin(input).map_err(failed)?;
    let origin = import.origin().clone();
    check_known(origin.layout)?;
    let (dir, _lock) = node::enter(root)?;
    let meta = node::own_dir(root, &dir, "meta", 0o700)?;
    let replaced = import
        .into_records(&meta, wanted.engine, wanted.replace)
        .map_err(failed)?;
    let other = named(&dir, &origin)?;
    Ok(RecordsImported {
        replaced,
        origin,
        other,
    })
}

/// A store without a name takes that of its records. Answers its own when that is another.
fn named(dir: &Dir, origin: &Origin) -> Result<Option<String>, Failure> {
    let Some(theirs) = &origin.uuid else {
        return Ok(None);
    };
    match uuid::known(dir)? {
        Some(ours) => Ok((ours != *theirs).then_some(ours)),
        None => {
            if uuid::is_one(theirs) {
                uuid::keep(dir, theirs)?;
            }
            Ok(None)
        }
    }
}

fn check_known(layout: u32) -> Result<(), Failure> {
    if layout == LAYOUT {
        return Ok(());
    }
    let reason = format!("layout {layout} is not known, only {LAYOUT} is");
    Err(Failure::new(ErrorKind::InvalidArgument, IMPORT, reason))
}

fn not_imported(err: &cairn_meta::Error) -> Failure {
    let failure = Failure::of(IMPORT, err);
    let replace = "keep them as a backup and go on: --replace";
    match err {
        cairn_meta::Error::Occupied { .. } => failure.next(replace),
        // Whether there are any cannot be known then.
        _ if err.kind() == ErrorKind::DataLoss => failure.next(replace),
        cairn_meta::Error::Line { .. } => failure.next("export the records again"),
        cairn_meta::Error::TooLarge { .. } | cairn_meta::Error::KeyTooLong { .. } => {
            failure.next("choose the other engine")
        }
        _ => failure,
    }
}

/// The same failure, of what was attempted here.
fn of_a_stopped(mut failure: Failure, attempted: &str, root: &Path) -> Failure {
    failure.attempted = attempted.to_owned();
    if failure.kind() == ErrorKind::Unavailable {
        failure.next = vec!["systemctl stop cairnd.socket cairnd.service".to_owned()];
    }
    failure.object("store", root.display())
}
