//! One store on one small disk, and commands on it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::{
    Before, Disk, Images, Reference, Step, Verdict,
    disk::{copy, unmount},
    records::Records,
    reference,
};
use crate::image::MTIME;

/// A store, the programs and the images.
pub struct Bench {
    disk: Disk,
    /// `cairn`, or the one with fault points; the daemon of the same kind is beside it.
    binary: PathBuf,
    engine: &'static str,
    images: PathBuf,
    /// What words stand for in commands.
    words: Vec<(&'static str, String)>,
}

impl Bench {
    /// An empty disk. `engine` keeps the records.
    pub fn new(binary: &Path, images: &Images, engine: &'static str) -> Bench {
        let disk = Disk::new("192M", &["-O", "^has_journal"]);
        Bench::on(disk, binary, images, engine)
    }

    /// The same on a disk of one's own.
    pub fn on(disk: Disk, binary: &Path, images: &Images, engine: &'static str) -> Bench {
        let mut words = images.words();
        words.push(("{w}", disk.path().join(WORK).display().to_string()));
        let bench = Bench {
            disk,
            binary: binary.to_owned(),
            engine,
            images: images.path(),
            words,
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
        self.disk.path().join(WORK)
    }

    /// The store.
    pub fn root(&self) -> PathBuf {
        self.work().join("store")
    }

    /// Where a daemon has its socket and its log.
    pub(super) fn state(&self) -> PathBuf {
        self.disk.path().join("state")
    }

    /// The daemon of the same kind as the program.
    pub(super) fn daemon(&self) -> PathBuf {
        let name = self.binary.file_name().unwrap_or_default();
        let name = name.to_string_lossy().replacen("cairn", "cairnd", 1);
        self.binary.with_file_name(name)
    }

    pub(super) fn engine(&self) -> &'static str {
        self.engine
    }

    /// What is mounted here.
    pub fn mounts(&self) -> Vec<PathBuf> {
        self.disk.mounts()
    }

    pub(super) fn is_mounted(&self, name: &str) -> bool {
        self.mounts().contains(&self.work().join(name))
    }

    /// A program with this store's engine and nothing else of this machine's.
    pub(super) fn clean(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for variable in ["CAIRN_FAULT", "CAIRN_ROOT", "CONTAINERD_NAMESPACE"] {
            command.env_remove(variable);
        }
        crate::cairn::nobody(&mut command, &self.disk.path());
        command.env("CAIRN_METADATA__ENGINE", self.engine);
        command.stdin(Stdio::null());
        command
    }

    /// The words of a command, with what they stand for, and what it reads.
    pub(super) fn typed(&self, command: &mut Command, args: &[&str], stdin: Option<&str>) {
        for arg in args {
            let mut arg = (*arg).to_owned();
            for (word, meaning) in &self.words {
                arg = arg.replace(word, meaning);
            }
            command.arg(arg);
        }
        if let Some(name) = stdin {
            let file = fs::File::open(self.images.join(name)).expect("archive");
            command.stdin(file);
        }
    }

    /// The program with this store opened by itself.
    fn command(&self) -> Command {
        let mut command = self.clean(&self.binary);
        command.arg("--root").arg(self.root());
        command
    }

    /// The program as the client of a daemon.
    pub(super) fn client(&self, socket: &Path) -> Command {
        let mut command = self.clean(&self.binary);
        command.arg("--address").arg(socket);
        command
    }

    /// Runs the program, whose words may stand for something else.
    pub fn run(&self, args: &[&str], stdin: Option<&str>, fault: Option<&str>) -> Output {
        let mut command = self.command();
        self.typed(&mut command, args, stdin);
        if let Some(fault) = fault {
            command.env("CAIRN_FAULT", fault);
        }
        command.output().expect("start cairn")
    }

    /// Runs it without a fault, and it succeeds.
    pub fn plain(&self, args: &[&str]) -> Verdict<Output> {
        let output = self.run(args, None, None);
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

    /// All records.
    pub(super) fn records(&self) -> Verdict<Records> {
        if !self.root().exists() {
            return Ok(Records::default());
        }
        let mut command = self.clean(&self.daemon());
        command.arg("--root").arg(self.root());
        let output = command.args(["meta", "export"]).output();
        let output = output.map_err(|err| format!("start {}: {err}", self.daemon().display()))?;
        match output.status.success() {
            true => Records::parse(&String::from_utf8_lossy(&output.stdout), &self.places()),
            false => Err(format!("meta export {}", told(&output))),
        }
    }

    /// The words of what is elsewhere for each bench.
    fn places(&self) -> Vec<(&'static str, String)> {
        let places = self.words.iter();
        let places = places.filter(|(word, _)| ["{w}", "{r}"].contains(word));
        places.cloned().collect()
    }

    /// Begins anew with a copy of a store.
    pub(super) fn begin(&self, store: Option<&Path>) {
        self.disk.unmount_all();
        for dir in [self.work(), self.state()] {
            if dir.exists() {
                fs::remove_dir_all(&dir).expect("remove");
            }
            fs::create_dir(&dir).expect("mkdir");
        }
        if let Some(store) = store {
            copy(store, &self.root());
        }
    }

    /// Begins where a step does.
    pub(super) fn before(&self, reference: &Reference, step: &Step) -> Verdict {
        self.begin(reference.base(step).as_deref());
        step.setup.iter().try_for_each(|before| match before {
            Before::Run(args) => self.plain(args).map(drop),
            Before::Fail(args) => match self.plain(args) {
                Ok(_) => Err(format!("plain {args:?} succeeded")),
                Err(_) => Ok(()),
            },
            Before::Write(key) => self.write(key),
            Before::Damage => self.damage(),
        })
    }

    /// Lives through the steps once.
    pub fn reference(&self, steps: &[&'static Step]) -> Reference {
        reference::live(self, steps)
    }

    /// Mounts a snapshot as its mounts say.
    pub(super) fn mount(&self, ns: &str, key: &str, at: &Path) -> Verdict {
        fs::create_dir_all(at).map_err(|err| format!("{}: {err}", at.display()))?;
        let shown = at.display().to_string();
        let output = self.plain(&["-n", ns, "snapshots", "mounts", &shown, key])?;
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        super::disk::attempt(Command::new("sh").args(["-ec", &script]))
    }

    /// What a container may do.
    fn write(&self, key: &str) -> Verdict {
        let at = self.work().join("container");
        self.mount("default", key, &at)?;
        let written = write_files(&at);
        let unmounted = unmount(&at);
        written.map_err(|err| format!("write into {key}: {err}"))?;
        unmounted?;
        fs::remove_dir(&at).map_err(|err| format!("{}: {err}", at.display()))
    }

    /// One bit of one unpacked file.
    fn damage(&self) -> Verdict {
        for dir in super::oracle::names(&self.root().join("snapshots"))? {
            let file = self.root().join("snapshots").join(dir).join("fs/bin/tool");
            let Ok(mut bytes) = fs::read(&file) else {
                continue;
            };
            bytes[1000] ^= 1;
            return fs::write(&file, bytes).map_err(|err| format!("{}: {err}", file.display()));
        }
        Err("there is no bin/tool to damage".to_owned())
    }
}

const WORK: &str = "w";

/// A new file, a changed one and a removed one, with the ordinary time.
fn write_files(at: &Path) -> std::io::Result<()> {
    fs::create_dir(at.join("app"))?;
    fs::write(at.join("app/big"), Images::noise(90_000, 41))?;
    fs::hard_link(at.join("app/big"), at.join("app/same"))?;
    fs::write(at.join("etc/passwd"), "user:x:1000:1000::/:/bin/sh\n#\n")?;
    fs::remove_file(at.join("lib/seen"))?;
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(MTIME);
    for name in ["app/big", "etc/passwd", "app", "etc", "lib", ""] {
        fs::File::open(at.join(name))?.set_modified(time)?;
    }
    Ok(())
}

/// How a program ended and what it said last.
pub(super) fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    format!("ended with {} and said\n{}", output.status, last(&text))
}

/// The last lines.
pub(super) fn last(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
