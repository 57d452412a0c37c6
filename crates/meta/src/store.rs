//! Opening the records, and the two ways to use them.

use std::{cell::Cell, ffi::OsStr, sync::Arc};

use cairn_sys::{Dir, steer};

use crate::{
    Error, ReadOnly, Reader, Tx,
    committer::{Committed, Committer, Told, Wanted},
    engine::{Engine, Journaled, Redb, Sled},
    import, journal, reserve,
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
}

impl Store {
    /// Opens the records in `dir`, or makes them. The caller holds the lock on the root.
    ///
    /// # Errors
    /// [`Error::OtherEngine`], or [`Error::Open`] when the files are damaged.
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
        let inside = dir.open_dir(name)?;
        if journal::create_missing(&inside)? {
            inside.fsync()?;
        }
        let engine: Box<dyn Engine> = match kind {
            EngineKind::Redb => Box::new(Redb::open(&inside)?),
            EngineKind::Sled => Box::new(Sled::open(&inside)?),
        };
        let engine: Arc<dyn Engine> = Arc::new(Journaled::open(&inside, engine)?.with_reserve(dir));
        let told = Arc::new(Told::default());
        let committer = Committer::new(Arc::clone(&engine), Arc::clone(&told));
        Ok(Store {
            inner: Arc::new(Inner {
                engine,
                told,
                committer,
            }),
        })
    }

    /// Which engine keeps the records in `dir`, if there are any.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn kept(dir: &Dir) -> Result<Option<EngineKind>, Error> {
        // What an import decided are the records already, whatever has their name still.
        let names: [fn(EngineKind) -> String; 2] = [import::decided, |kind| kind.name().to_owned()];
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

/// Makes a database aside and names it when it is whole: both engines can be left half made by a
/// crash or a full disk, and then do not open again.
fn make(dir: &Dir, kind: EngineKind) -> Result<(), Error> {
    let aside = OsStr::new(UNFINISHED);
    dir.remove_tree(aside)?;
    dir.create_dir(aside, 0o700)?;
    let inside = dir.open_dir(aside)?;
    match kind {
        EngineKind::Redb => Redb::create(&inside)?,
        EngineKind::Sled => Sled::create(&inside)?,
    }
    journal::create_missing(&inside)?;
    inside.fsync()?;
    Ok(dir.rename_noreplace(aside, dir, OsStr::new(kind.name()))?)
}
