//! Many clients that do everything at once, each a process of its own, killed at random; and what
//! their daemon is like meanwhile and afterwards.
//!
//! A killed client may leave what it held: its leases with what they keep, images it had made. That is
//! its own doing, and is removed by name. Everything else has to be gone in the end, and no answer may
//! be another than the client's piece of work says.
//!
//! There are two: one of everything ([`Kind::Everything`]), and one of what clients share and the collector
//! removes ([`Kind::Collecting`]).

pub(crate) mod api;
mod client;
mod collector;
mod daemon;
mod ends;
mod memory;
mod shelf;
mod slot;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

pub use self::client::{Who, run as client};
use self::{daemon::Served, memory::Memory, slot::Slot};
use crate::{fault::Dice, registry::Registry};

/// First words of what a client says.
const STARTED: &str = "started";
const DONE: &str = "done";
const FAULT: &str = "fault";

/// Namespaces that clients share.
const NAMESPACES: usize = 4;
/// Most anonymous memory of the daemon.
const MEMORY_MAX: u64 = 100 << 20;
/// Memory may grow by this from the second quarter of the time to the last.
const GROWTH_MAX: f64 = 1.25;
/// What a longer life in a process's allocator may add to that, in bytes.
const GROWTH_BYTES: u64 = 4 << 20;
/// Connections to a registry that are kept for the next pull.
const KEPT_CONNECTIONS: u64 = 64;
/// Shorter runs cannot tell growth from warming up.
const LONG: Duration = Duration::from_secs(300);
/// Faults that are kept; the first say what is wrong.
const FAULTS_MAX: usize = 50;

/// What clients do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// All that can be done.
    #[default]
    Everything,
    /// They pull images that share layers, build on them and let go of them, while garbage is collected
    /// ten times a second. At the end nothing is damaged, and all room is accounted for.
    Collecting,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// What clients do.
    pub kind: Kind,
    /// The daemon's program.
    pub daemon: PathBuf,
    /// The program that is a client when it is told to.
    pub client: PathBuf,
    /// For how long.
    pub time: Duration,
    /// How many at once.
    pub clients: usize,
    /// Where the dice begin.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Pieces of work by their names.
    pub done: BTreeMap<String, u64>,
    /// Clients killed.
    pub killed: u64,
    /// Collections that were asked for.
    pub collections: u64,
    /// Everything that should not be.
    pub faults: Vec<String>,
    /// Most anonymous memory of the daemon, in bytes.
    pub peak: u64,
    /// Its median in the second and in the last quarter of the time.
    pub quarters: (u64, u64),
    /// Descriptors and threads of the daemon at the end of the work.
    pub descriptors: u64,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| {
            let tenths = bytes * 10 / (1 << 20);
            format!("{}.{} MiB", tenths / 10, tenths % 10)
        };
        let (second, last) = self.quarters;
        for (kind, count) in &self.done {
            writeln!(f, "{count:>8}  {kind}")?;
        }
        let all: u64 = self.done.values().sum();
        writeln!(f, "{all:>8}  pieces of work in {:?}", self.took)?;
        writeln!(f, "{:>8}  clients killed", self.killed)?;
        if self.collections > 0 {
            writeln!(f, "{:>8}  collections", self.collections)?;
        }
        writeln!(
            f,
            "anonymous memory: peak {}, second quarter {}, last quarter {}",
            mebibytes(self.peak),
            mebibytes(second),
            mebibytes(last)
        )?;
        match self.faults.len() {
            0 => writeln!(f, "no faults"),
            count => {
                writeln!(f, "{count} faults:")?;
                self.faults
                    .iter()
                    .try_for_each(|fault| writeln!(f, "  {fault}"))
            }
        }
    }
}

/// What slots tell while they run.
#[derive(Default)]
struct Told {
    done: BTreeMap<String, u64>,
    faults: Vec<String>,
    /// Lives that ended by a kill.
    killed: BTreeSet<String>,
    collections: u64,
}

impl Told {
    fn fault(&mut self, text: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(text);
        }
    }
}

/// Runs it.
///
/// # Errors
/// When it cannot even begin.
pub fn run(options: &Options) -> io::Result<Report> {
    let collecting = options.kind == Kind::Collecting;
    let registry = collecting.then(Registry::start);
    if let Some(registry) = &registry {
        shelf::fill(registry);
    }
    let host = registry.as_ref().map(Registry::host).unwrap_or_default();
    let mut daemon = Served::start(&options.daemon)?;
    let (before, began) = (daemon.descriptors()?, Instant::now());
    let end = began + options.time;
    let told = Mutex::new(Told::default());
    let mut dice = Dice(options.seed | 1);
    let mut memory = Memory::default();
    std::thread::scope(|scope| {
        for number in 0..options.clients {
            let slot = Slot {
                number,
                ns: format!("shared{}", number % NAMESPACES),
                program: &options.client,
                registry: &host,
                daemon: &daemon,
                told: &told,
                end,
            };
            let seed = dice.roll(usize::MAX) as u64 | 1;
            scope.spawn(move || slot.run(seed));
        }
        if collecting {
            scope.spawn(|| collector::collect(&daemon, end, &told));
        }
        memory.watch(&daemon, end, &told);
    });
    let mut told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    if collecting {
        // What is removed here is what was held by those that were killed; before that it has to be whole.
        collector::check(&daemon, &mut told);
    }
    let kept = if collecting { KEPT_CONNECTIONS } else { 0 };
    ends::check(&daemon, before + kept, &mut told);
    if !daemon.stop()? {
        told.fault("the daemon does not stop".to_owned());
    }
    Ok(judge(options, began.elapsed(), told, &memory))
}

fn judge(options: &Options, took: Duration, mut told: Told, memory: &Memory) -> Report {
    let quarters = memory.quarters();
    if memory.peak() >= MEMORY_MAX {
        told.fault(format!("the daemon used {} bytes", memory.peak()));
    }
    #[allow(clippy::cast_precision_loss, reason = "megabytes")]
    let allowed = quarters.0 as f64 * GROWTH_MAX + GROWTH_BYTES as f64;
    #[allow(clippy::cast_precision_loss, reason = "megabytes")]
    let grown = quarters.1 as f64 > allowed;
    if options.time >= LONG && grown {
        told.fault(format!("the daemon's memory grew: {quarters:?}"));
    }
    Report {
        done: told.done,
        killed: told.killed.len() as u64,
        collections: told.collections,
        faults: told.faults,
        peak: memory.peak(),
        quarters,
        descriptors: memory.descriptors(),
        took,
    }
}
