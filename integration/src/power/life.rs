//! A store's life: commands of the ordinary program, each of which promises something with its answer,
//! first without a daemon, then with one.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};

use super::{
    Verdict,
    daemon::{Daemon, Programs},
    disks::{self, Mounted},
    facts::{self, Facts, Found},
    typed::Typed,
};
use crate::{
    fault::Images,
    image::{MTIME, digest, noise},
};

/// Something that is done to a store.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// A command.
    Run(Typed),
    /// Commands side by side.
    Together(Vec<Typed>),
    /// A container changes its files in the snapshot of this key, and promises nothing.
    Write(&'static str, Work),
    /// From here on a daemon serves the store.
    Serve,
    /// No longer.
    Stop,
}

/// What a container does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// Files of all kinds, a changed one and a removed one.
    Files,
    /// A directory and a link, which no file's sync takes along.
    Names,
    /// More files than are synced one by one.
    Many,
}

/// Puts what the commands read beside the images.
pub(super) fn prepare(images: &Images) {
    for (name, length, seed) in FILES {
        let bytes = noise(*length, *seed);
        fs::write(images.path().join(name), bytes).expect("write");
    }
}

/// The small ones stand in their records, the others do not. Of `whole` the half is the beginning.
const FILES: &[(&str, usize, u64)] = &[
    ("half", 25_000, 17),
    ("whole", 50_000, 17),
    ("there", 4000, 18),
    ("small", 3000, 11),
    ("large", 50_000, 12),
    ("p0", 700, 13),
    ("p1", 20_000, 14),
    ("p2", 9000, 15),
    ("p3", 2000, 16),
];

/// The digest of one of them.
fn of(name: &str) -> String {
    let file = FILES.iter().find(|(file, ..)| *file == name);
    let (_, length, seed) = file.expect("one of the files");
    digest(&noise(*length, *seed))
}

/// The whole life.
pub(super) fn acts(images: &Images) -> Vec<Act> {
    [alone(images), served(images)].concat()
}

/// All images, each with its name.
pub(super) fn imports() -> [(Typed, &'static str); 3] {
    let mut from_input = Typed::new("images import -");
    from_input.input = Some("c.tgz".to_owned());
    [
        (Typed::new("images import {i}/a.tar"), "localhost/a:1"),
        (
            Typed::new("images import --base-name localhost/b {i}/b"),
            "localhost/b:two",
        ),
        (from_input, "localhost/c:3"),
    ]
}

fn alone(images: &Images) -> Vec<Act> {
    let run = |line: &str| Act::Run(Typed::new(line));
    let begin = |name: &str| {
        let line = format!("content put --ref {name} --expected-size 50000 {{i}}/half");
        let mut typed = Typed::new(&line);
        typed.fails = true;
        Act::Run(typed)
    };
    let [import_a, import_b, import_c] = imports().map(|(typed, _)| Act::Run(typed));
    let (a, b) = (images.chain("a:1"), images.chain("b:two"));
    vec![
        import_a,
        run("content put {i}/small"),
        run("snapshots prepare work-names"),
        Act::Write("work-names", Work::Names),
        run("snapshots commit names work-names"),
        // Bound, as nothing is below it: unmounting an overlay syncs its files whatever Cairn does.
        run("snapshots prepare work-bare"),
        Act::Write("work-bare", Work::Many),
        run("snapshots commit bare work-bare"),
        import_b,
        run(&format!("snapshots prepare work-files {b}")),
        Act::Write("work-files", Work::Files),
        run("snapshots commit files work-files"),
        run("content put {i}/large"),
        run("namespaces create other team=a"),
        begin("up"),
        run(&format!("snapshots view seen {a}")),
        run("-n other content put {i}/there"),
        run("-n other snapshots prepare idle-there"),
        run("bundle create localhost/b:two {a}/bundle-1"),
        run("leases create --id keep -x 0"),
        run(&format!("leases add keep content {}", of("large"))),
        run(&format!(
            "content label {} containerd.io/gc.root-",
            of("large")
        )),
        run("images tag localhost/a:1 localhost/t:1"),
        run("images label localhost/t:1 colour=blue"),
        import_c,
        begin("gone"),
        run("namespaces label other team=b"),
        run("content put --ref up {i}/whole"),
        run("bundle rm {a}/bundle-1"),
        run("content abort gone"),
        run(&format!("snapshots prepare running {a}")),
        run("images rm localhost/c:3"),
        run("gc"),
        run("images tag --force localhost/b:two localhost/t:1"),
    ]
}

fn served(images: &Images) -> Vec<Act> {
    let run = |line: &str| Act::Run(Typed::new(line));
    let [import_a, _, import_c] = imports().map(|(typed, _)| Act::Run(typed));
    let a = images.chain("a:1");
    let puts = (0..4).map(|n| Typed::new(&format!("content put {{i}}/p{n}")));
    let others = [
        "leases create --id many -x 0",
        "images tag localhost/a:1 localhost/u:1",
        "snapshots prepare idle",
        "namespaces create brief",
    ];
    vec![
        Act::Serve,
        import_c,
        Act::Together(puts.collect()),
        run(&format!("snapshots prepare work-many {a}")),
        Act::Write("work-many", Work::Many),
        run("snapshots commit many work-many"),
        run("snapshots prepare work-more many"),
        Act::Write("work-more", Work::Names),
        run("snapshots commit more work-more"),
        Act::Together(others.map(Typed::new).to_vec()),
        run("bundle create localhost/b:two {a}/bundle-2"),
        run("snapshots rm seen"),
        run("namespaces rm brief"),
        run("leases rm --sync keep"),
        run("images rm localhost/a:1 localhost/u:1"),
        run(&format!("content rm {}", of("p1"))),
        run("snapshots rm more"),
        run("gc"),
        run("bundle rm {a}/bundle-2"),
        run("snapshots label files colour=red"),
        Act::Stop,
        import_a,
    ]
}

/// What the test takes down.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    /// A command, by its number, begins.
    Begun(usize),
    /// It was answered.
    Answered(usize),
}

/// A store and what is done to it.
pub(super) struct World<'w> {
    pub(super) programs: &'w Programs,
    pub(super) engine: &'static str,
    pub(super) images: &'w Images,
    /// Where the store is.
    pub(super) work: PathBuf,
    /// Where sockets and logs are, and what is mounted.
    pub(super) aside: PathBuf,
    daemon: Option<Daemon>,
}

impl<'w> World<'w> {
    /// Of a store that is not there yet.
    pub(super) fn new(
        programs: &'w Programs,
        engine: &'static str,
        images: &'w Images,
        work: &Path,
        aside: &Path,
    ) -> World<'w> {
        World {
            programs,
            engine,
            images,
            work: work.to_owned(),
            aside: aside.to_owned(),
            daemon: None,
        }
    }

    /// The store.
    pub(super) fn root(&self) -> PathBuf {
        self.work.join("store")
    }

    /// Does it; commands are numbered from `number` on. How many there were.
    pub(super) fn perform(
        &mut self,
        act: &Act,
        number: usize,
        note: &(dyn Fn(Moment) + Sync),
    ) -> Verdict<usize> {
        match act {
            Act::Run(typed) => self.command(typed, number, note).map(|()| 1),
            Act::Together(commands) => {
                let world = &*self;
                thread::scope(|scope| {
                    let running: Vec<_> = (number..)
                        .zip(commands)
                        .map(|(n, typed)| scope.spawn(move || world.command(typed, n, note)))
                        .collect();
                    let mut ended = running.into_iter().map(|command| command.join());
                    ended.try_for_each(|end| end.expect("no panic"))
                })?;
                Ok(commands.len())
            }
            Act::Write(key, work) => self.write(key, *work).map(|()| 0),
            Act::Serve => {
                let dir = self.aside.join("daemon");
                self.daemon = Some(Daemon::start(
                    self.programs,
                    &self.root(),
                    self.engine,
                    &dir,
                )?);
                Ok(0)
            }
            Act::Stop => match self.daemon.take() {
                Some(daemon) => daemon.stop().map(|()| 0),
                None => Err("nothing serves".to_owned()),
            },
        }
    }

    fn command(&self, typed: &Typed, number: usize, note: &(dyn Fn(Moment) + Sync)) -> Verdict {
        note(Moment::Begun(number));
        match typed.fails {
            false => self.succeeds(typed).map(drop)?,
            true => typed.refused(&self.output(typed)?)?,
        }
        note(Moment::Answered(number));
        Ok(())
    }

    fn succeeds(&self, typed: &Typed) -> Verdict<Output> {
        let output = self.output(typed)?;
        match output.status.success() {
            true => Ok(output),
            false => Err(typed.told(&output)),
        }
    }

    fn output(&self, typed: &Typed) -> Verdict<Output> {
        let mut command = self.programs.start(&self.programs.cairn, &self.aside);
        match &self.daemon {
            Some(daemon) => command.arg("--address").arg(daemon.socket()),
            None => command.arg("--root").arg(self.root()),
        };
        command.env("CAIRN_METADATA__ENGINE", self.engine);
        typed.add_to(&mut command, self.images, &self.aside)?;
        let output = command.output();
        output.map_err(|err| format!("start cairn: {err}"))
    }

    /// As a container does: nothing of it is synced.
    fn write(&self, key: &str, work: Work) -> Verdict {
        let at = self.aside.join("container");
        fs::create_dir_all(&at).map_err(|err| format!("{}: {err}", at.display()))?;
        let mounts = Typed::new(&format!("snapshots mounts {} {key}", at.display()));
        let mounts = self.succeeds(&mounts)?.stdout;
        let script = String::from_utf8_lossy(&mounts).into_owned();
        disks::run(Command::new("sh").args(["-ec", &script]))?;
        let mounted = Mounted::of(&at);
        work.run(&at)
            .map_err(|err| format!("write into {key}: {err}"))?;
        mounted.end()
    }

    /// Everything that the store says of itself.
    pub(super) fn look(&self) -> Verdict<Found> {
        self.with_daemon(|daemon| {
            runtime().block_on(async { facts::gather(&daemon.api().await?).await })
        })
    }

    /// With the daemon that serves it, or one for the moment.
    pub(super) fn with_daemon<T>(&self, run: impl FnOnce(&Daemon) -> Verdict<T>) -> Verdict<T> {
        if let Some(daemon) = &self.daemon {
            return run(daemon);
        }
        let dir = self.aside.join("look");
        let daemon = Daemon::start(self.programs, &self.root(), self.engine, &dir)?;
        let answer = run(&daemon)?;
        daemon.stop()?;
        Ok(answer)
    }
}

/// Of one thread.
pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
}

impl Work {
    fn run(self, at: &Path) -> std::io::Result<()> {
        match self {
            Work::Files => {
                fs::create_dir(at.join("app"))?;
                fs::write(at.join("app/one"), noise(5000, 21))?;
                fs::hard_link(at.join("app/one"), at.join("app/same"))?;
                fs::write(at.join("app/big"), noise(150_000, 22))?;
                symlink("one", at.join("app/link"))?;
                fs::write(at.join("etc/passwd"), "user:x:1000:1000::/:/bin/sh\n#\n")?;
                fs::remove_file(at.join("lib/seen"))?;
                let (name, value) = ("user.note", b"value");
                let flags = XattrFlags::empty();
                rustix::fs::setxattr(at.join("app/one"), name, value, flags)?;
                stamp(at, &["app/one", "app/big", "app/link", "app", "etc/passwd"])?;
                stamp(at, &["etc", "lib", ""])
            }
            Work::Names => {
                fs::create_dir_all(at.join("made/empty"))?;
                symlink("empty", at.join("made/link"))?;
                stamp(at, &["made/link", "made/empty", "made", ""])
            }
            Work::Many => {
                fs::create_dir(at.join("many"))?;
                for number in 0..80 {
                    let name = format!("many/{number}");
                    fs::write(at.join(&name), noise(600, 30 + number))?;
                    stamp(at, &[&name])?;
                }
                stamp(at, &["many", ""])
            }
        }
    }
}

/// Gives them the ordinary time.
fn stamp(at: &Path, names: &[&str]) -> std::io::Result<()> {
    let time = Timespec {
        tv_sec: MTIME.cast_signed(),
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    for name in names {
        utimensat(CWD, at.join(name), &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// What one life comes to without a power cut.
pub(super) struct Reference {
    /// Of each command, by its number.
    pub(super) changes: Vec<facts::Change>,
    /// All commands.
    pub(super) commands: Vec<Typed>,
    /// What the store has in the end.
    pub(super) last: Facts,
    /// Snapshots that were committed, as mounted.
    pub(super) trees: BTreeMap<String, Vec<String>>,
    /// Their own files.
    pub(super) own: BTreeMap<String, Vec<String>>,
}

impl Reference {
    /// What the next collection removes and nobody refers to any more when the command `begun` was the last
    /// that was begun.
    pub(super) fn garbage(&self, begun: usize) -> Option<&Facts> {
        let title = |number: &usize| self.commands[*number].title();
        let next = (begun + 1..self.commands.len()).find(|number| title(number) == "gc")?;
        let mut since = (0..=begun).rev().take_while(|number| title(number) != "gc");
        let made = since.any(|number| title(&number).starts_with("images rm "));
        made.then(|| &self.changes[next].lost)
    }
}

impl World<'_> {
    /// Lives through it once, one command after the other, and looks after each.
    pub(super) fn reference(&mut self, acts: &[Act]) -> Verdict<Reference> {
        let mut reference = Reference {
            changes: Vec::new(),
            commands: Vec::new(),
            last: Facts::new(),
            trees: BTreeMap::new(),
            own: BTreeMap::new(),
        };
        for act in acts {
            let single = match act {
                Act::Together(commands) => commands.iter().cloned().map(Act::Run).collect(),
                other => vec![other.clone()],
            };
            for act in &single {
                let number = reference.changes.len();
                self.perform(act, number, &|_| ())?;
                if let Act::Run(typed) = act {
                    reference.commands.push(typed.clone());
                    self.compare(&mut reference)?;
                }
            }
        }
        Ok(reference)
    }

    fn compare(&self, reference: &mut Reference) -> Verdict {
        let found = self.look()?;
        let change = facts::Change::between(&reference.last, &found.facts);
        if change.gained.is_empty() && change.lost.is_empty() {
            return Err(format!("{:?} changed nothing", reference.commands.last()));
        }
        for name in committed(&change.gained) {
            let at = self.aside.join("tree");
            let tree = self.with_daemon(|daemon| super::judge::tree(daemon, name, &at))?;
            reference.trees.insert(name.to_owned(), tree);
        }
        for name in whole(&change.gained) {
            let own = super::judge::own(&found, name)?;
            reference.own.insert(name.to_owned(), own);
        }
        reference.changes.push(change);
        reference.last = found.facts;
        Ok(())
    }
}

/// The snapshots among these sentences that a client committed.
pub(super) fn committed(facts: &Facts) -> impl Iterator<Item = &str> {
    whole(facts).filter(|name| !name.starts_with("sha256:"))
}

/// Those and the unpacked layers.
pub(super) fn whole(facts: &Facts) -> impl Iterator<Item = &str> {
    facts
        .iter()
        .filter_map(|fact| {
            fact.strip_prefix("snapshot ")?
                .split_once(" is committed on ")
        })
        .map(|(name, _)| name)
}
