//! Opening the records, and the two ways to use them.

use std::{
    cell::Cell,
    ffi::OsStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use cairn_sys::{Dir, FileType, steer};
use cairn_types::{Classified, ErrorKind};

use crate::{
    Error, ReadOnly, Reader, Rebuilt, Timestamp, Tx,
    committer::{Committed, Committer, Told, Wanted},
    copy,
    engine::{self, Engine, Journaled},
    import, journal, rebuild, reserve,
    watch::Watch,
};

/// Where a database is made before it gets its name.
const UNFINISHED: &str = "init.tmp";

/// Which engine keeps the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// The default: the better record in crash tests.
    #[default]
    Redb,
    /// By a strict recipe.
    Sled,
}

impl EngineKind {
    /// Both.
    pub const ALL: [EngineKind; 2] = [EngineKind::Redb, EngineKind::Sled];

    /// `redb` or `sled`.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Redb => "redb",
            EngineKind::Sled => "sled",
        }
    }
}

/// The records of a store. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    told: Arc<Told>,
    committer: Committer,
    /// Where the directory of the records is, and others that were put by.
    dir: Dir,
    /// The directory of the records.
    inside: Dir,
    unsettled: AtomicBool,
    rebuilt: Mutex<Option<Rebuilt>>,
}

impl Store {
    /// Opens the records in `dir`, or makes them; makes them anew where they are damaged. The caller holds
    /// the lock on the root.
    ///
    /// # Errors
    /// [`Error::OtherEngine`]; [`Error::Open`] when the files cannot be used for another reason than damage,
    /// or there is no room to make them anew.
    pub fn open(dir: &Dir, kind: EngineKind) -> Result<Store, Error> {
        let other = match kind {
            EngineKind::Redb => EngineKind::Sled,
            EngineKind::Sled => EngineKind::Redb,
        };
        reserve::keep(dir);
        import::finish(dir)?;
        let name = OsStr::new(kind.name());
        if dir.try_stat(name)?.is_none() {
            if dir.try_stat(OsStr::new(other.name()))?.is_some() {
                return Err(Error::OtherEngine {
                    path: dir.path().display().to_string(),
                    engine: kind.name(),
                    other: other.name(),
                });
            }
            make(dir, kind)?;
        }
        // Also when it was there: who made it may have been killed between the rename and its sync,
        // and nothing may be acknowledged in a directory that a power cut could still take away.
        dir.fsync()?;
        let engine = match open_kept(dir, kind) {
            Err(err) if err.kind() == ErrorKind::DataLoss => {
                tracing::error!("{err}; the records are made anew from their copy");
                tell(&rebuild::rebuild(dir, kind, &err)?);
                open_kept(dir, kind)?
            }
            opened => opened?,
        };
        let engine: Arc<dyn Engine> = Arc::new(engine.with_reserve(dir));
        let inside = dir.open_dir(name)?;
        let told = Arc::new(Told::default());
        let committer = Committer::new(Arc::clone(&engine), Arc::clone(&told));
        Ok(Store {
            inner: Arc::new(Inner {
                engine,
                told,
                committer,
                dir: dir.clone(),
                unsettled: AtomicBool::new(rebuild::is_marked(&inside)?),
                rebuilt: Mutex::new(rebuild::known(&inside)),
                inside,
            }),
        })
    }

    /// Which engine keeps the records in `dir`, if there are any.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn kept(dir: &Dir) -> Result<Option<EngineKind>, Error> {
        // What an import or a rebuilding decided are the records already, whatever has their name still.
        let names: [fn(EngineKind) -> String; 3] = [import::decided, rebuild::decided, |kind| {
            kind.name().to_owned()
        }];
        for name in names {
            for kind in EngineKind::ALL {
                if dir.try_stat(OsStr::new(&name(kind)))?.is_some() {
                    return Ok(Some(kind));
                }
            }
        }
        Ok(None)
    }

    /// Why the records take no changes any more, if that is so.
    pub fn read_only(&self) -> Option<&ReadOnly> {
        self.inner.told.broken.get()
    }

    /// Which engine keeps them.
    pub fn engine(&self) -> &'static str {
        self.inner.engine.name()
    }

    /// What became of the records before these, if they were destroyed.
    pub fn rebuilt(&self) -> Option<Rebuilt> {
        let rebuilt = self.inner.rebuilt.lock();
        let mut rebuilt = rebuilt.unwrap_or_else(PoisonError::into_inner).clone()?;
        rebuilt.aside = rebuild::put_by(&self.inner.dir).unwrap_or_default();
        Some(rebuilt)
    }

    /// Whether there may be more beside the records than they know, because they are new or were made anew.
    /// Until [`Store::settle`] nothing is litter for want of a record.
    pub fn is_unsettled(&self) -> bool {
        self.inner.unsettled.load(Ordering::Relaxed)
    }

    /// What there was beside the records is in them by now, or put by. Notes what was `found`.
    ///
    /// # Errors
    /// When that cannot be written down; then the next opening looks again.
    pub fn settle(&self, found: Vec<String>) -> Result<(), Error> {
        let rebuilt = self.inner.rebuilt.lock();
        let mut rebuilt = rebuilt.unwrap_or_else(PoisonError::into_inner);
        if !found.is_empty() {
            let report = rebuilt.get_or_insert_with(|| Rebuilt {
                at: Timestamp::now().0,
                reason: "there were no records".to_owned(),
                lost: vec!["all records".to_owned()],
                ..Rebuilt::default()
            });
            report.found = found;
            rebuild::keep(&self.inner.inside, report)?;
        }
        rebuild::unmark(&self.inner.inside)?;
        self.inner.unsettled.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Tells `observer` of every commit from now on, while others wait for it, so it must not wait. Only
    /// the first observer is told.
    pub fn observe(&self, observer: impl Fn(Committed) + Send + Sync + 'static) {
        let _ = self.inner.told.observer.set(Box::new(observer));
    }

    /// Looks at one state of the records. With sled no commit passes meanwhile, so it should be brief;
    /// a [`Store::write`] inside is refused.
    pub fn read<T, E: From<Error>>(
        &self,
        look: impl FnOnce(&Reader<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        // Those inside another, or in a transaction, see what that sees.
        if INSIDE.get() == 0 {
            steer::point("look");
        }
        let _inside = Inside::enter();
        let snapshot = self.inner.engine.snapshot()?;
        look(&Reader { snapshot })
    }

    /// Hears of every change from now on: what is read afterwards has all changes before.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn watch(&self) -> Result<Watch, Error> {
        let watches = Arc::clone(&self.inner.told.watches);
        // As a transaction, so that it comes before or after each, never within; and answered when those
        // before it are on the disk.
        self.write(move |_| Ok(watches.add()))
    }

    /// Runs `change` as one transaction and returns when it is on the disk. Others wait for it, and it
    /// may run on the thread of one of them, so it should only look at records and write records.
    ///
    /// # Errors
    /// The closure's own, and then nothing is written; [`Error::ReadOnly`] when this or an earlier
    /// commit failed; [`Error::Nested`] inside another look or change.
    pub fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        if INSIDE.get() == 0 {
            steer::point("change");
        }
        self.run(change, Wanted::OnDisk)
    }

    /// As [`Store::write`], for what nobody is promised: it returns when the change can be seen. The
    /// process may end without its being lost, and a power cut loses it only with all that comes after
    /// it; so once a later [`Store::write`] has returned, it is on the disk as well.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn note<T, E, F>(&self, change: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.run(change, Wanted::Seen)
    }

    fn run<T, E, F>(&self, change: F, wanted: Wanted) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        if INSIDE.get() > 0 {
            return Err(E::from(Error::Nested));
        }
        match self.inner.committer.run(change, wanted) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Err(E::from(Error::Read("a change got no answer".to_owned()))),
        }
    }
}

thread_local! {
    /// Looks and transactions this thread is in the middle of. A change would wait for them, and they
    /// for it.
    static INSIDE: Cell<usize> = const { Cell::new(0) };
}

/// Counts in [`INSIDE`] while it lives, through panics too.
pub(crate) struct Inside(());

impl Inside {
    pub(crate) fn enter() -> Inside {
        INSIDE.set(INSIDE.get() + 1);
        Inside(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(INSIDE.get() - 1);
    }
}

/// Opens the records that are there.
///
/// # Errors
/// [`Error::Open`] and [`Error::Damaged`] of the class `DataLoss` when they are damaged.
pub(crate) fn open_kept(dir: &Dir, kind: EngineKind) -> Result<Journaled, Error> {
    let name = OsStr::new(kind.name());
    if let Some(stat) = dir.try_stat(name)?
        && !FileType::from_raw_mode(stat.st_mode).is_dir()
    {
        return Err(Error::Open {
            path: dir.path().join(name).display().to_string(),
            engine: kind.name(),
            reason: "it is not a directory".to_owned(),
            kind: ErrorKind::DataLoss,
        });
    }
    let inside = dir.open_dir(name)?;
    if journal::create_missing(&inside)? {
        inside.fsync()?;
    }
    Journaled::open(&inside, engine::open(kind, &inside)?)
}

fn tell(rebuilt: &Rebuilt) {
    let Rebuilt { records, lost, .. } = rebuilt;
    match lost.is_empty() {
        true => tracing::warn!("{records} records were made anew, and nothing is lost"),
        false => {
            let lost = lost.join("; ");
            tracing::error!("{records} records were made anew, and this is lost: {lost}");
        }
    }
}

/// Makes a database aside and names it when it is whole: both engines can be left half made by a
/// crash or a full disk, and then do not open again.
fn make(dir: &Dir, kind: EngineKind) -> Result<(), Error> {
    let aside = OsStr::new(UNFINISHED);
    dir.remove_tree(aside)?;
    dir.create_dir(aside, 0o700)?;
    let inside = dir.open_dir(aside)?;
    engine::create(kind, &inside)?;
    journal::create_missing(&inside)?;
    copy::create_empty(&inside)?;
    // Whether the store is as new as its records shows when somebody looks.
    rebuild::mark(&inside)?;
    inside.fsync()?;
    Ok(dir.rename_noreplace(aside, dir, OsStr::new(kind.name()))?)
}
