//! One store on one small disk, and what is done to it.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::{
    Call, Disk, Images, Step, calls,
    disk::copy,
    oracle::{self, Expected, Verdict},
    scenario::STEPS,
};

/// A store, the program and the images.
pub struct Bench {
    disk: Disk,
    binary: PathBuf,
    engine: &'static str,
    images: PathBuf,
}

/// What a life without faults looks like.
pub struct Reference {
    /// The store after each step, and what keeps the copies.
    disk: Disk,
    expected: oracle::Images,
    /// What `export` writes.
    exported: Vec<u8>,
    /// The calls of each step, in order.
    pub calls: Vec<Vec<Call>>,
}

/// How a command with a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The fault did not come to pass: there were fewer calls.
    Untouched,
    /// By the kill.
    Killed,
    /// With an error.
    Failed,
    /// As if nothing had happened.
    Succeeded,
}

impl Bench {
    /// An empty disk. `engine` keeps the records.
    pub fn new(binary: &Path, images: &Images, engine: &'static str) -> Bench {
        let disk = Disk::new("192M", &["-O", "^has_journal"]);
        Bench::on(disk, binary, images, engine)
    }

    /// The same on a disk of one's own.
    pub fn on(disk: Disk, binary: &Path, images: &Images, engine: &'static str) -> Bench {
        let bench = Bench {
            disk,
            binary: binary.to_owned(),
            engine,
            images: images.path(),
        };
        bench.begin(None);
        bench
    }

    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The directory beside the store.
    pub fn work(&self) -> PathBuf {
        self.disk.path().join("w")
    }

    /// The store.
    pub fn root(&self) -> PathBuf {
        self.work().join("store")
    }

    /// What is mounted here.
    pub fn mounts(&self) -> Vec<PathBuf> {
        self.disk.mounts()
    }

    pub(super) fn is_mounted(&self, name: &str) -> bool {
        self.mounts().contains(&self.work().join(name))
    }

    /// Runs the program; `{w}` and `{i}` stand for directories.
    pub fn run(&self, args: &[&str], stdin: Option<&str>, fault: Option<&str>) -> Output {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(self.root());
        for arg in args {
            let arg = arg.replace("{w}", &self.work().display().to_string());
            command.arg(arg.replace("{i}", &self.images.display().to_string()));
        }
        for variable in ["CAIRN_FAULT", "CAIRN_ROOT", "CONTAINERD_NAMESPACE"] {
            command.env_remove(variable);
        }
        command.env("CAIRN_METADATA__ENGINE", self.engine);
        if let Some(fault) = fault {
            command.env("CAIRN_FAULT", fault);
        }
        command.stdin(match stdin {
            Some(name) => fs::File::open(self.images.join(name))
                .expect("archive")
                .into(),
            None => Stdio::null(),
        });
        command.output().expect("start cairn")
    }

    /// Runs it without a fault, and it succeeds.
    pub fn plain(&self, args: &[&str]) -> Verdict<Output> {
        self.succeeds(args, None)
    }

    fn succeeds(&self, args: &[&str], stdin: Option<&str>) -> Verdict<Output> {
        let output = self.run(args, stdin, None);
        match output.status.success() {
            true => Ok(output),
            false => Err(format!("plain {args:?} {}", told(&output))),
        }
    }

    /// What it prints, by line.
    pub fn lines(&self, args: &[&str]) -> Verdict<Vec<String>> {
        let output = self.plain(args)?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The document it prints.
    pub fn json(&self, args: &[&str]) -> Verdict<Value> {
        let output = self.plain(args)?;
        serde_json::from_slice(&output.stdout).map_err(|err| format!("plain {args:?}: {err}"))
    }

    /// Begins anew with a copy of a store.
    fn begin(&self, store: Option<&Path>) {
        self.disk.unmount_all();
        let work = self.work();
        if work.exists() {
            fs::remove_dir_all(&work).expect("remove");
        }
        fs::create_dir(&work).expect("mkdir");
        if let Some(store) = store {
            copy(store, &self.root());
        }
    }

    /// Lives through all steps once.
    pub fn reference(&self) -> Reference {
        let mut reference = Reference {
            disk: Disk::new("512M", &[]),
            expected: oracle::Images::new(),
            exported: Vec::new(),
            calls: Vec::new(),
        };
        for step in STEPS {
            let done = self.reference_step(step, &mut reference);
            done.unwrap_or_else(|reason| panic!("{}, without faults: {reason}", step.title));
        }
        reference
    }

    fn reference_step(&self, step: &Step, reference: &mut Reference) -> Verdict {
        self.begin(reference.base(step).as_deref());
        for setup in step.setup {
            self.plain(setup)?;
        }
        let told_calls = self.run(step.args, step.stdin, Some("none@1+"));
        if !told_calls.status.success() {
            return Err(told(&told_calls));
        }
        reference.calls.push(calls(&told_calls));
        let out = self.work().join("out.tar");
        if out.exists() {
            reference.exported = fs::read(out).expect("exported archive");
        }
        if step.leaves.is_empty() {
            copy(&self.root(), &reference.disk.path().join(step.title));
        }
        for word in step.after {
            if reference.expected.contains_key(*word) {
                continue;
            }
            let name = format!("localhost/{word}");
            let image = self.json(&["images", "inspect", "--json", &name])?;
            let target = image["target"]["digest"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let expected = Expected {
                blobs: oracle::blobs_of(&self.root(), &target)?,
                tree: self.mounted_tree(word)?,
                target,
            };
            reference.expected.insert((*word).to_owned(), expected);
        }
        let images = self.examine(&reference.expected, step.after, step.after)?;
        self.examine_trees(&reference.expected, &images)?;
        self.empty()
    }

    /// Does one step with one fault, and judges everything that comes of it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn visit(&self, reference: &Reference, step: &Step, fault: &str) -> Verdict<Ended> {
        self.begin(reference.base(step).as_deref());
        for setup in step.setup {
            self.plain(setup)?;
        }
        let output = self.run(step.args, step.stdin, Some(fault));
        let ended = judge(&output, fault)?;
        let context = |reason: String| format!("{reason}\nafter it {}", told(&output));
        let rest = || {
            let (least, most) =
                step.between(ended == Ended::Succeeded || ended == Ended::Untouched);
            if ended == Ended::Succeeded {
                self.check_leaves(reference, step)?;
            }
            self.examine(&reference.expected, &least, &most)?;
            self.repeat(step)?;
            self.check_leaves(reference, step)?;
            let images = self.examine(&reference.expected, step.after, step.after)?;
            self.examine_trees(&reference.expected, &images)?;
            self.empty()
        };
        rest().map(|()| ended).map_err(context)
    }

    /// Looks at the whole store, which has exactly these images.
    pub fn check(&self, reference: &Reference, images: &[&str]) -> Verdict {
        let found = self.examine(&reference.expected, images, images)?;
        self.examine_trees(&reference.expected, &found)
    }

    /// The same command again finishes what is left to do.
    fn repeat(&self, step: &Step) -> Verdict {
        let output = self.run(step.args, step.stdin, None);
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || step.done.is_some_and(|done| text.contains(done)) {
            return Ok(());
        }
        Err(format!("the same command again {}", told(&output)))
    }

    fn check_leaves(&self, reference: &Reference, step: &Step) -> Verdict {
        let leaves = |name: &str| step.leaves.contains(&name);
        let work = self.work();
        let mounted = self.is_mounted("mnt");
        if mounted != leaves("mnt") {
            return Err(format!("mnt is mounted: {mounted}"));
        }
        let bundle = work.join("bundle/config.json").exists() && self.is_mounted("bundle/rootfs");
        if bundle != leaves("bundle") || work.join("bundle").exists() != bundle {
            return Err(format!("the bundle is there: {bundle}"));
        }
        if leaves("out.tar") {
            let bytes = fs::read(work.join("out.tar")).map_err(|err| format!("out.tar: {err}"))?;
            if bytes != reference.exported {
                return Err("out.tar has other bytes".to_owned());
            }
        }
        Ok(())
    }
}

impl Reference {
    fn base(&self, step: &Step) -> Option<PathBuf> {
        step.base.map(|title| self.disk.path().join(title))
    }
}

impl Step {
    /// Which images there are at least and at most. What is half done may have come to some of them.
    fn between(&self, done: bool) -> (Vec<&'static str>, Vec<&'static str>) {
        if done {
            return (self.after.to_vec(), self.after.to_vec());
        }
        let (before, after) = (self.before.iter(), self.after.iter());
        let least = before.clone().filter(|word| self.after.contains(word));
        let added = after.filter(|word| !self.before.contains(word));
        (
            least.copied().collect(),
            before.chain(added).copied().collect(),
        )
    }
}

/// Whether a command ended as it may.
fn judge(output: &Output, fault: &str) -> Verdict<Ended> {
    let text = String::from_utf8_lossy(&output.stderr);
    let fired = text.contains("cairn-fault: ");
    let (kind, _) = fault.split_once('@').expect("KIND@N");
    let ended = match (output.status.code(), output.status.signal()) {
        _ if text.contains("panicked") => Err("a panic"),
        (Some(0), _) if !fired => Ok(Ended::Untouched),
        (Some(0), _) => Ok(Ended::Succeeded),
        (Some(1), _) if fired && text.contains("error: cannot ") => Ok(Ended::Failed),
        (None, Some(9)) if fired => Ok(Ended::Killed),
        _ => Err("no way to end"),
    };
    let ended = ended.and_then(|ended| match (kind, ended) {
        (_, Ended::Untouched) => Ok(ended),
        ("kill" | "kill-after", Ended::Killed) => Ok(ended),
        ("EINTR" | "short", Ended::Succeeded) => Ok(ended),
        ("kill" | "kill-after" | "EINTR" | "short", _) => Err("not the way to end"),
        (_, Ended::Failed | Ended::Succeeded) => Ok(ended),
        _ => Err("not the way to end"),
    });
    ended.map_err(|reason| format!("{reason}: it {}", told(output)))
}

fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(25);
    format!(
        "ended with {} and said\n{}",
        output.status,
        lines[from..].join("\n")
    )
}
