//! What is on the disk below the root, and what it is there for.
//!
//! The everyday [`Node::df`] asks the records alone; this walks through everything. Each inode counts once
//! and under one head, in allocated bytes (blocks times 512, as `du` counts), so that the heads together are
//! what `du` says of the root. A directory is listed first and asked after then, so that whoever is at work
//! on the store is not met between a file and its record; what has no purpose all the same is on its way in
//! or out, and is looked at again for half a second before it is called unexplained.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    mem,
    path::{Path, PathBuf},
    thread,
};

use cairn_content::Stored;
use cairn_meta::Purpose as OfMeta;
use cairn_sys::{
    Dir, Meter,
    census::{Counted, Purpose},
};
use cairn_types::{Classified, ErrorKind, SnapshotKind, Usage};

use crate::{
    Failure, Node,
    fsck::{BETWEEN, LOOKS},
    lost::LOST,
    push, uuid,
};

const ATTEMPTED: &str = "measure the disk";

/// The store of the daemon's other socket, which is one by itself.
const BACKEND: &str = "backend";
/// The file system's own, where the root is one.
const LOST_AND_FOUND: &str = "lost+found";

/// What something on the disk is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskKind {
    /// Blobs.
    Content,
    /// Committed snapshots.
    Committed,
    /// Snapshots that can be written to.
    Active,
    /// Read-only looks at snapshots.
    Views,
    /// What came of uploads that are not finished.
    Ingests,
    /// What somebody is making or about to record.
    Staging,
    /// What has no record any more and waits to be deleted, at the next opening at the latest.
    Garbage,
    /// Trees that were mended by others in their place: they go at the next opening.
    Replaced,
    /// Records, as their engine keeps them.
    Records,
    /// Records that the engine has not taken over yet.
    Journal,
    /// All records a second time, for the day they are destroyed.
    Copies,
    /// Room for records on the day the disk is full.
    Reserve,
    /// Records that have given way to an import's, or were damaged.
    Backups,
    /// Uploads to registries that can be gone on with.
    Pushes,
    /// What no record spoke of when some were lost.
    Lost,
    /// The store of the backend socket.
    Backend,
    /// Directories that are always there, and what says which store this is.
    Store,
}

impl DiskKind {
    /// In the order in which they are told.
    pub const ALL: [DiskKind; 17] = [
        DiskKind::Content,
        DiskKind::Committed,
        DiskKind::Active,
        DiskKind::Views,
        DiskKind::Ingests,
        DiskKind::Staging,
        DiskKind::Garbage,
        DiskKind::Replaced,
        DiskKind::Records,
        DiskKind::Journal,
        DiskKind::Copies,
        DiskKind::Reserve,
        DiskKind::Backups,
        DiskKind::Pushes,
        DiskKind::Lost,
        DiskKind::Backend,
        DiskKind::Store,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            DiskKind::Content => "content",
            DiskKind::Committed => "committed",
            DiskKind::Active => "active",
            DiskKind::Views => "views",
            DiskKind::Ingests => "ingests",
            DiskKind::Staging => "staging",
            DiskKind::Garbage => "garbage",
            DiskKind::Replaced => "replaced",
            DiskKind::Records => "records",
            DiskKind::Journal => "journal",
            DiskKind::Copies => "copies",
            DiskKind::Reserve => "reserve",
            DiskKind::Backups => "backups",
            DiskKind::Pushes => "pushes",
            DiskKind::Lost => "lost",
            DiskKind::Backend => "backend",
            DiskKind::Store => "store",
        }
    }
}

/// What is there for one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskRow {
    /// Which.
    pub kind: DiskKind,
    /// Blobs, snapshots, files: how many, each with all that is in it.
    pub total: u64,
    /// What they take.
    pub usage: Usage,
}

/// Something below the root that nothing here has a purpose for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexplained {
    /// Where, from the root.
    pub path: PathBuf,
    /// What it takes with all that is in it.
    pub usage: Usage,
}

/// All that is below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskUsage {
    /// Every kind, in the order of [`DiskKind::ALL`].
    pub rows: Vec<DiskRow>,
    /// The rest, by path.
    pub unexplained: Vec<Unexplained>,
}

impl DiskUsage {
    /// Explained or not.
    pub fn all(&self) -> Usage {
        let mut all = Usage::default();
        let rows = self.rows.iter().map(|row| row.usage);
        for usage in rows.chain(self.unexplained.iter().map(|one| one.usage)) {
            all += usage;
        }
        all
    }
}

/// Where something is, each with its own knowledge of what belongs there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Root,
    Meta,
    Content,
    Snapshots,
}

impl Room {
    const ALL: [Room; 4] = [Room::Root, Room::Meta, Room::Content, Room::Snapshots];

    /// From the root.
    fn path(self) -> &'static str {
        match self {
            Room::Root => "",
            Room::Meta => "meta",
            Room::Content => "content",
            Room::Snapshots => "snapshots",
        }
    }
}

/// What has no purpose, so far.
struct Suspect {
    room: Room,
    /// In the room.
    path: PathBuf,
    usage: Usage,
}

/// What a suspect turns out to be.
enum Seen {
    Gone,
    Known(DiskKind),
    Unknown,
}

impl Seen {
    /// By what it is there for now, if it still is.
    fn of<R>(now: Option<Purpose<R>>, recorded: fn(R) -> DiskKind) -> Seen {
        match now.map(|purpose| kind_of(purpose, recorded)) {
            None => Seen::Gone,
            Some(None) => Seen::Unknown,
            Some(Some(kind)) => Seen::Known(kind),
        }
    }
}

/// A measurement under way.
struct Count<'n> {
    node: &'n Node,
    wanted: &'n dyn Fn() -> bool,
    meter: Meter<'n>,
    heads: BTreeMap<DiskKind, (u64, Usage)>,
    suspects: Vec<Suspect>,
}

impl Node {
    /// Walks through all that is below the root, and says what it is there for, for as long as it is `wanted`.
    /// Takes the time of a `du`; nobody waits for it.
    ///
    /// # Errors
    /// When something cannot be looked at; `Canceled` when it is not wanted any more.
    pub fn df_disk(&self, wanted: &dyn Fn() -> bool) -> Result<DiskUsage, Failure> {
        let mut count = Count {
            node: self,
            wanted,
            meter: Meter::for_as_long(wanted),
            heads: BTreeMap::new(),
            suspects: Vec::new(),
        };
        count.walk()?;
        for _ in 1..LOOKS {
            if count.suspects.is_empty() {
                break;
            }
            count.go_on()?;
            thread::sleep(BETWEEN);
            for room in Room::ALL {
                count.look_again(room)?;
            }
        }
        Ok(count.told())
    }
}

impl Count<'_> {
    fn failed(&self, err: &dyn Classified) -> Failure {
        if let Err(stopped) = self.go_on() {
            return stopped;
        }
        Failure::of(ATTEMPTED, err).object("store", self.node.root().display())
    }

    fn go_on(&self) -> Result<(), Failure> {
        match (self.wanted)() {
            true => Ok(()),
            false => {
                let kind = ErrorKind::Canceled;
                Err(Failure::new(kind, ATTEMPTED, "it was stopped"))
            }
        }
    }

    fn open(&self, room: Room) -> Result<Dir, Failure> {
        let opened = match room.path() {
            "" => Ok(self.node.inner.dir.clone()),
            path => self.node.inner.dir.open_dir(OsStr::new(path)),
        };
        opened.map_err(|err| self.failed(&err))
    }

    fn walk(&mut self) -> Result<(), Failure> {
        let rooms = Room::ALL.map(Room::path);
        let root = self.open(Room::Root)?;
        let measured = self.meter.entries(&root, &rooms);
        let (own, found) = measured.map_err(|err| self.failed(&err))?;
        self.own(own);
        for (name, usage) in found {
            let kind = name.to_str().and_then(of_root);
            self.found(Room::Root, PathBuf::from(name), kind, usage);
        }
        let meta = self.open(Room::Meta)?;
        let census = self.node.meta().census(&meta, &mut self.meter);
        let (own, counted) = census.map_err(|err| self.failed(&err))?;
        self.own(own);
        for one in counted {
            self.found(Room::Meta, one.path, of_meta(one.purpose), one.usage);
        }
        let census = self.node.content().census(&mut self.meter);
        let (own, counted) = census.map_err(|err| self.failed(&err))?;
        self.own(own);
        self.counted(Room::Content, counted, of_stored);
        let census = self.node.snapshots().census(&mut self.meter);
        let (own, counted) = census.map_err(|err| self.failed(&err))?;
        self.own(own);
        self.counted(Room::Snapshots, counted, of_snapshot);
        Ok(())
    }

    fn counted<R>(
        &mut self,
        room: Room,
        counted: Vec<Counted<Purpose<R>>>,
        recorded: fn(R) -> DiskKind,
    ) {
        for one in counted {
            self.found(room, one.path, kind_of(one.purpose, recorded), one.usage);
        }
    }

    /// What directories take that are always there.
    fn own(&mut self, usage: Usage) {
        self.heads.entry(DiskKind::Store).or_default().1 += usage;
    }

    fn found(&mut self, room: Room, path: PathBuf, kind: Option<DiskKind>, usage: Usage) {
        match kind {
            Some(kind) => self.add(kind, usage),
            None => self.suspects.push(Suspect { room, path, usage }),
        }
    }

    fn add(&mut self, kind: DiskKind, usage: Usage) {
        let head = self.heads.entry(kind).or_default();
        head.0 += 1;
        head.1 += usage;
    }

    fn look_again(&mut self, room: Room) -> Result<(), Failure> {
        let all = mem::take(&mut self.suspects);
        let (here, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.room == room);
        self.suspects = others;
        if here.is_empty() {
            return Ok(());
        }
        let paths: Vec<PathBuf> = here.iter().map(|one| one.path.clone()).collect();
        let seen = self.seen(room, &paths)?;
        for (suspect, seen) in here.into_iter().zip(seen) {
            match seen {
                Seen::Gone => {}
                Seen::Known(kind) => self.add(kind, suspect.usage),
                Seen::Unknown => self.suspects.push(suspect),
            }
        }
        Ok(())
    }

    fn seen(&self, room: Room, paths: &[PathBuf]) -> Result<Vec<Seen>, Failure> {
        match room {
            Room::Root | Room::Meta => {
                let dir = self.open(room)?;
                let seen = paths.iter().map(|path| match dir.has(path) {
                    Ok(true) => Ok(Seen::Unknown),
                    Ok(false) => Ok(Seen::Gone),
                    Err(err) => Err(self.failed(&err)),
                });
                seen.collect()
            }
            Room::Content => {
                let looked = self.node.content().look_again(paths);
                let looked = looked.map_err(|err| self.failed(&err))?.into_iter();
                Ok(looked.map(|now| Seen::of(now, of_stored)).collect())
            }
            Room::Snapshots => {
                let looked = self.node.snapshots().look_again(paths);
                let looked = looked.map_err(|err| self.failed(&err))?.into_iter();
                Ok(looked.map(|now| Seen::of(now, of_snapshot)).collect())
            }
        }
    }

    fn told(self) -> DiskUsage {
        let row = |kind: DiskKind| {
            let (total, usage) = self.heads.get(&kind).copied().unwrap_or_default();
            DiskRow { kind, total, usage }
        };
        let mut unexplained: Vec<Unexplained> = self
            .suspects
            .iter()
            .map(|one| Unexplained {
                path: Path::new(one.room.path()).join(&one.path),
                usage: one.usage,
            })
            .collect();
        unexplained.sort_by(|a, b| a.path.cmp(&b.path));
        DiskUsage {
            rows: DiskKind::ALL.map(row).into(),
            unexplained,
        }
    }
}

fn of_root(name: &str) -> Option<DiskKind> {
    // What is written aside first; of a crash it stays until the file is written again.
    let aside = name.strip_prefix('.');
    let name = aside
        .and_then(|name| name.strip_suffix(".tmp"))
        .unwrap_or(name);
    match name {
        "lock" | "layout" | "scrub" | uuid::NAME | LOST_AND_FOUND => Some(DiskKind::Store),
        push::KEPT => Some(DiskKind::Pushes),
        LOST => Some(DiskKind::Lost),
        BACKEND => Some(DiskKind::Backend),
        _ => None,
    }
}

fn of_meta(purpose: OfMeta) -> Option<DiskKind> {
    match purpose {
        OfMeta::Engine => Some(DiskKind::Records),
        OfMeta::Journal => Some(DiskKind::Journal),
        OfMeta::Copy => Some(DiskKind::Copies),
        OfMeta::Reserve => Some(DiskKind::Reserve),
        OfMeta::Backup => Some(DiskKind::Backups),
        OfMeta::Unknown => None,
    }
}

fn kind_of<R>(purpose: Purpose<R>, recorded: fn(R) -> DiskKind) -> Option<DiskKind> {
    match purpose {
        Purpose::Recorded(what) => Some(recorded(what)),
        Purpose::Making => Some(DiskKind::Staging),
        Purpose::Leaving => Some(DiskKind::Garbage),
        Purpose::Replaced => Some(DiskKind::Replaced),
        Purpose::Unknown => None,
    }
}

fn of_stored(stored: Stored) -> DiskKind {
    match stored {
        Stored::Blob => DiskKind::Content,
        Stored::Ingest => DiskKind::Ingests,
    }
}

fn of_snapshot(kind: SnapshotKind) -> DiskKind {
    match kind {
        SnapshotKind::Committed => DiskKind::Committed,
        SnapshotKind::Active => DiskKind::Active,
        SnapshotKind::View => DiskKind::Views,
    }
}
