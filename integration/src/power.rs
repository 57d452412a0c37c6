//! Power cuts: a store lives on a disk that takes down everything it is told, and is looked at in the
//! states that the disk could have been left in.
//!
//! What was flushed is there, and of what was written since, anything may be. Each state is mounted by the
//! kernel, which replays the file system's own journal, and opened by the ordinary daemon after another
//! boot. All that had been acknowledged has to be there, and nothing may be there by half.
//!
//! Who guards the guards: programs that are wrong on purpose have to be caught.

mod cuts;
mod daemon;
mod device;
mod disks;
mod explore;
mod facts;
mod flaws;
mod image;
mod judge;
mod life;
mod record;
mod report;
mod saved;
mod typed;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use tempfile::TempDir;

use self::{
    daemon::Daemon,
    explore::Explorer,
    flaws::FLAWS,
    judge::Judge,
    life::{Act, Reference, World},
    record::{Life, Recording, Setting},
    saved::Saved,
};
pub use self::{daemon::Programs, disks::Kind, report::Report};
use crate::fault::{Dice, Images};

/// What is wrong, in a sentence.
type Verdict<T = ()> = Result<T, String>;

/// The engines that keep records.
const ENGINES: [&str; 2] = ["redb", "sled"];
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Failures after which no more are looked for.
const FAILURES_MAX: usize = 6;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The programs under test.
    pub programs: Programs,
    /// The same with fault points.
    pub flawed: Programs,
    /// States of all file systems and engines together.
    pub states: usize,
    /// Where chance begins.
    pub seed: u64,
    /// Where states that fail are kept.
    pub keep: PathBuf,
}

/// A place of its own in memory, with another boot's name over that of this one. The mounts are those of
/// the calling process and of nobody else, which [`enter`] sees to.
struct Place {
    dir: TempDir,
}

/// The command that starts a program in namespaces of its own for mounts and processes. When it ends, or
/// whoever has started it, however that comes about, all it started ends as well, so that nobody is left
/// to whom anything is mounted.
pub fn enter(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare"]);
    command.args(["--mount", "--propagation", "private"]);
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(program);
    command
}

impl Place {
    fn new() -> Verdict<Place> {
        let dir = TempDir::with_prefix("power").map_err(|err| err.to_string())?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=90%", "none"]);
        disks::run(mount.arg(dir.path()))?;
        let place = Place { dir };
        place.boot(1)?;
        let mut mount = Command::new("mount");
        disks::run(mount.arg("--bind").arg(place.path("boot_id")).arg(BOOT_ID))?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Another boot begins.
    fn boot(&self, number: u32) -> Verdict {
        let id = format!("00000000-0000-4000-8000-{number:012}\n");
        fs::write(self.path("boot_id"), id).map_err(|err| format!("name a boot: {err}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(BOOT_ID).status();
        let _ = Command::new("umount").arg(self.dir.path()).status();
    }
}

/// Records all lives, and looks at their states.
///
/// # Errors
/// Whatever keeps it from looking; what is wrong with the states is in the report.
pub fn run(options: &Options) -> Result<Report, String> {
    let place = Place::new()?;
    let began = Instant::now();
    let images = Images::new();
    life::prepare(&images);
    let acts = life::acts(&images);
    let setting = Setting {
        programs: &options.programs,
        images: &images,
        dir: place.path("record"),
    };
    let reference = setting.reference(&acts)?;
    let trees = trees(&setting)?;
    let flawed = FLAWS.map(|flaw| Programs {
        flaw: Some(flaw.word),
        ..options.flawed.clone()
    });
    let mut dice = Dice(options.seed | 1);
    let right = lives(&Kind::ALL, &ENGINES, &options.programs);
    let right = setting.record(&right, &acts, &reference)?;
    let wrong = flaws::lives(&flawed, &mut dice);
    let wrong = setting.record(&wrong, &acts, &reference)?;
    place.boot(2)?;
    let explorer = Explorer {
        options,
        images: &images,
        reference: &reference,
        trees: &trees,
        dir: place.path("states"),
    };
    let mut report = Report::new(options.seed, reference.changes.len());
    explorer.guards(&wrong, &mut report);
    explorer.all(&right, &mut dice, &mut report);
    let openings = explorer.openings(&setting, &right, &mut dice)?;
    place.boot(3)?;
    explorer.again(&openings, &mut dice, &mut report);
    report.expect(options.states);
    report.took = began.elapsed();
    Ok(report)
}

fn lives<'l>(kinds: &[Kind], engines: &[&'static str], programs: &'l Programs) -> Vec<Life<'l>> {
    let life = |kind, engine| Life {
        kind,
        engine,
        programs,
    };
    let mut lives = Vec::new();
    for kind in kinds {
        lives.extend(engines.iter().map(|engine| life(*kind, engine)));
    }
    lives
}

/// Looks at a state that was kept, three times over; what is wrong with it.
///
/// # Errors
/// When it cannot be read.
pub fn replay(programs: &Programs, file: &Path) -> Result<Vec<String>, String> {
    let saved = Saved::read(file).map_err(|err| format!("{}: {err}", file.display()))?;
    let place = Place::new()?;
    place.boot(2)?;
    let images = Images::new();
    life::prepare(&images);
    let judge = Judge::new(programs, &images, place.path("replay"));
    let mut wrong = vec![saved.story.clone()];
    for _ in 0..3 {
        let judged = saved.judge(&judge).err();
        wrong.push(judged.unwrap_or_else(|| "nothing is wrong".to_owned()));
    }
    Ok(wrong)
}

/// The files of each image, by the digest of its manifest.
fn trees(setting: &Setting<'_>) -> Verdict<BTreeMap<String, Vec<String>>> {
    let (work, aside) = (setting.dir.join("trees"), setting.dir.join("trees-aside"));
    let mut world = World::new(setting.programs, "redb", setting.images, &work, &aside);
    fs::create_dir_all(&work).map_err(|err| err.to_string())?;
    for (typed, _) in life::imports() {
        world.perform(&Act::Run(typed), 0, &|_| ())?;
    }
    let found = world.look()?.facts;
    let judge = Judge::new(setting.programs, setting.images, aside);
    world.with_daemon(|daemon: &Daemon| {
        let trees = judge::images(&found).map(|(name, target)| {
            let tree = judge.image_tree(daemon, name)?;
            Ok((target.to_owned(), tree))
        });
        trees.collect()
    })
}
