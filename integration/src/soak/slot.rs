//! A place for a client: one process after the other, most of them killed in the middle.

use std::{
    io::{self, BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{DONE, FAULT, Told, daemon::Served};
use crate::{fault::Dice, wait::within};

/// Longest life of a client that is to be killed.
const LIFE_MAX_MS: usize = 8000;
/// A client that was asked to stop has so long for the work in its hands.
const PATIENCE: Duration = Duration::from_secs(60);

/// A place for a client.
pub(super) struct Slot<'s> {
    pub(super) number: usize,
    pub(super) ns: String,
    pub(super) program: &'s Path,
    /// Of the images that all share, or nothing.
    pub(super) registry: &'s str,
    pub(super) daemon: &'s Served,
    pub(super) told: &'s Mutex<Told>,
    pub(super) end: Instant,
}

impl Slot<'_> {
    /// Until the end.
    pub(super) fn run(&self, seed: u64) {
        let mut dice = Dice(seed);
        for life in 0.. {
            if Instant::now() >= self.end {
                return;
            }
            let name = format!("c{}-{life}", self.number);
            // One in four lives as long as the soak, but where kills are what it is about: in the end all would.
            let limit = match dice.roll(4) {
                0 if self.registry.is_empty() => self.end,
                _ => {
                    let life = Duration::from_millis(200 + dice.roll(LIFE_MAX_MS) as u64);
                    Instant::now() + life
                }
            };
            if let Err(err) = self.live(&name, dice.roll(usize::MAX) as u64 | 1, limit) {
                self.tell(|told| told.fault(format!("{name}: {err}")));
                return;
            }
        }
    }

    fn tell(&self, say: impl FnOnce(&mut Told)) {
        say(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn live(&self, name: &str, seed: u64, limit: Instant) -> io::Result<()> {
        let mut child = self.start(name, seed)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("piped");
        std::thread::scope(|scope| {
            scope.spawn(|| self.listen(BufReader::new(stdout)));
            let status = match wait(&mut child, limit.min(self.end))? {
                Some(status) => Some(status),
                None if limit < self.end => {
                    child.kill()?;
                    child.wait()?;
                    self.tell(|told| {
                        told.killed.insert(name.to_owned());
                    });
                    return Ok(());
                }
                None => {
                    drop(stdin);
                    wait(&mut child, Instant::now() + PATIENCE)?
                }
            };
            match status {
                Some(status) if status.success() => {}
                Some(status) => {
                    // What it held when it gave up is its own.
                    self.tell(|told| {
                        told.killed.insert(name.to_owned());
                        if status.code() != Some(1) {
                            told.fault(format!("{name}: {status}"));
                        }
                    });
                }
                None => {
                    child.kill()?;
                    child.wait()?;
                    self.tell(|told| {
                        told.killed.insert(name.to_owned());
                        told.fault(format!("{name}: it does not come to its end"));
                    });
                }
            }
            Ok(())
        })
    }

    /// In a mount namespace of its own, so that its mounts go when it does.
    fn start(&self, name: &str, seed: u64) -> io::Result<Child> {
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--"])
            .arg(self.program)
            .args(["client", "--ns", &self.ns, "--name", name, "--seed"])
            .arg(seed.to_string())
            .arg("--socket")
            .arg(self.daemon.socket())
            .arg("--dir")
            .arg(self.daemon.path(&format!("mnt/{name}")))
            .args(["--registry", self.registry])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    }

    /// Takes down what it says, to its end.
    fn listen(&self, said: impl BufRead) {
        for line in said.lines().map_while(Result::ok) {
            match line.split_once(' ') {
                Some((DONE, kind)) => self.tell(|told| {
                    *told.done.entry(kind.to_owned()).or_default() += 1;
                }),
                Some((FAULT, text)) => self.tell(|told| told.fault(text.to_owned())),
                _ => {}
            }
        }
    }
}

fn wait(child: &mut Child, until: Instant) -> io::Result<Option<std::process::ExitStatus>> {
    let time = until.saturating_duration_since(Instant::now());
    within(time, || child.try_wait().transpose()).transpose()
}
