//! Lives, as the disk below them was told.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    Act, Kind, Programs, Reference, Verdict, World,
    device::{Device, Record},
    disks, facts,
    image::Image,
    life::Moment,
};
use crate::fault::Images;

/// What all lives have in common.
pub(super) struct Setting<'s> {
    pub(super) programs: &'s Programs,
    pub(super) images: &'s Images,
    /// In memory.
    pub(super) dir: PathBuf,
}

/// On what, with what and by whom a life is lived.
pub(super) struct Life<'l> {
    pub(super) kind: Kind,
    pub(super) engine: &'static str,
    pub(super) programs: &'l Programs,
}

impl Life<'_> {
    fn flaw(&self) -> Option<&'static str> {
        self.programs.flaw
    }
}

/// One life, as the disk was told of it.
pub(super) struct Recording {
    pub(super) kind: Kind,
    pub(super) engine: &'static str,
    pub(super) flaw: Option<&'static str>,
    /// The empty file system.
    pub(super) begin: Image,
    pub(super) log: Vec<Record>,
}

impl Recording {
    fn new(life: &Life<'_>, begin: Image, mut log: Vec<Record>) -> Recording {
        log.shrink_to_fit();
        Recording {
            kind: life.kind,
            engine: life.engine,
            flaw: life.flaw(),
            begin,
            log,
        }
    }

    /// How many writes the disk was told of, and how many flushes.
    pub(super) fn counts(&self) -> (usize, usize) {
        let count = |is: fn(&Record) -> bool| self.log.iter().filter(|record| is(record)).count();
        (
            count(|record| matches!(record, Record::Write { .. })),
            count(|record| matches!(record, Record::Flush)),
        )
    }
}

impl Setting<'_> {
    /// The life in memory, to know what it comes to.
    pub(super) fn reference(&self, acts: &[Act]) -> Verdict<Reference> {
        let (work, aside) = (self.dir.join("reference"), self.dir.join("aside"));
        fs::create_dir_all(&work).map_err(|err| format!("{}: {err}", work.display()))?;
        World::new(self.programs, "redb", self.images, &work, &aside).reference(acts)
    }

    /// Lives on disks, as many side by side as there are processors.
    pub(super) fn record(
        &self,
        lives: &[Life<'_>],
        acts: &[Act],
        reference: &Reference,
    ) -> Verdict<Vec<Recording>> {
        let next = AtomicUsize::new(0);
        let recorded = Mutex::new(Vec::new());
        let workers = thread::available_parallelism().map_or(2, |n| n.get());
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(life) = lives.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let name = format!(
                            "{} {} {}",
                            life.kind.name(),
                            life.engine,
                            life.flaw().unwrap_or("")
                        );
                        let log = self.live(&name, life, acts, reference);
                        let log = log.map_err(|reason| format!("record {name}: {reason}"));
                        recorded
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(log);
                    }
                });
            }
        });
        let recorded = recorded
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut recorded = recorded.into_iter().collect::<Verdict<Vec<_>>>()?;
        recorded.sort_by_key(|recording| (recording.flaw, recording.kind, recording.engine));
        Ok(recorded)
    }

    /// It has to come to what the reference does.
    fn live(
        &self,
        name: &str,
        life: &Life<'_>,
        acts: &[Act],
        reference: &Reference,
    ) -> Verdict<Recording> {
        let dir = self.place(name)?;
        let begin = empty(life.kind, &dir.join("begin"))?;
        let (log, last) = self.on_disk(life, &begin, &dir, |world, device| {
            commands(world, acts, device)?;
            // Nothing that comes from here on is of the life.
            Ok((device.taken(), world.look()?.facts))
        })?;
        if last != reference.last {
            let change = facts::Change::between(&reference.last, &last);
            return Err(format!(
                "it came to something else than in memory: {change:#?}"
            ));
        }
        Ok(Recording::new(life, begin, log))
    }

    /// The daemon opens what a power cut left; it may be cut off in that as well.
    pub(super) fn reopen(&self, name: &str, life: &Life<'_>, begin: Image) -> Verdict<Recording> {
        let dir = self.place(name)?;
        let log = self.on_disk(life, &begin, &dir, |world, device| {
            world.look()?;
            Ok(device.taken())
        })?;
        Ok(Recording::new(life, begin, log))
    }

    fn place(&self, name: &str) -> Verdict<PathBuf> {
        let dir = self.dir.join(name.replace([' ', '='], "-"));
        let made = ["served", "disk"].map(|part| fs::create_dir_all(dir.join(part)));
        let made: std::io::Result<Vec<()>> = made.into_iter().collect();
        made.map_err(|err| format!("{}: {err}", dir.display()))?;
        Ok(dir)
    }

    /// Runs something in a world on a disk that takes down what it is told.
    fn on_disk<T>(
        &self,
        life: &Life<'_>,
        begin: &Image,
        dir: &Path,
        run: impl FnOnce(&mut World<'_>, &Device) -> Verdict<T>,
    ) -> Verdict<T> {
        let [served, disk] = ["served", "disk"].map(|part| dir.join(part));
        let device = Device::serve(begin, &served).map_err(|err| format!("serve a disk: {err}"))?;
        let mounted = life.kind.mount(device.file(), &disk)?;
        // What is read and written is of the disk alone from here on.
        disks::pass_by(&mounted)?;
        let mut world = World::new(life.programs, life.engine, self.images, &disk, dir);
        let ran = run(&mut world, &device);
        drop(world);
        let ended = mounted.end().and_then(|()| device.end());
        // What went wrong first says more.
        ran.and_then(|done| ended.map(|()| done))
    }
}

/// An empty file system.
fn empty(kind: Kind, file: &Path) -> Verdict<Image> {
    kind.make(file)?;
    let image = fs::File::open(file).and_then(|file| Image::read(&file));
    let image = image.map_err(|err| format!("{}: {err}", file.display()))?;
    fs::remove_file(file).map_err(|err| format!("{}: {err}", file.display()))?;
    Ok(image)
}

fn commands(world: &mut World<'_>, acts: &[Act], device: &Device) -> Verdict {
    let note = |moment| {
        device.note(match moment {
            Moment::Begun(number) => Record::Begun(number),
            Moment::Answered(number) => Record::Answered(number),
        });
    };
    let mut number = 0;
    for act in acts {
        number += world.perform(act, number, &note)?;
    }
    Ok(())
}
