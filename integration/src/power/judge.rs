//! What has to be true of a store that a power cut left, seen by the ordinary daemon after another boot,
//! and from outside.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use cairn_proto::containerd::{
    services::snapshots::v1::{MountsRequest, RemoveSnapshotRequest, ViewSnapshotRequest},
    types::Mount,
};
use rustix::mount::MountFlags;

use super::{
    Verdict,
    daemon::{Daemon, Programs},
    disks::{Kind, Mounted},
    facts::{self, Change, Facts, Found, Known},
    image::Image,
    life::{self, committed, runtime, whole},
    typed::Typed,
};
use crate::{
    fault::{self, Images, Stage, names},
    image::{MTIME, digest},
    soak::api::{check, good},
    tree::Tree,
};

const SNAPSHOTTER: &str = "overlayfs";
/// Every so many states an image is mounted as well, and every so many the store is used.
const MOUNTED_EVERY: usize = 4;
const USED_EVERY: usize = 8;
/// Of these, every so many have all their bytes read.
const DEEP_EVERY: usize = 32;

/// What is known of the store in a state.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) known: Known,
    /// Of snapshots that were committed, as mounted.
    pub(super) trees: BTreeMap<String, Vec<String>>,
    /// Of the same, without what is below.
    pub(super) own: BTreeMap<String, Vec<String>>,
    /// Of images, by the digests of their manifests.
    pub(super) images: BTreeMap<String, Vec<String>>,
    /// Commands that were begun and not answered, and what they change.
    pub(super) again: Vec<(Typed, Change)>,
    /// What is known of the store when they have been, and garbage is gone.
    pub(super) then: Known,
}

/// How a state was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// Images were mounted.
    pub(super) mounted: bool,
    /// The store was checked and used.
    pub(super) used: bool,
    /// And every byte of it read.
    pub(super) deep: bool,
}

impl Looked {
    fn of(number: usize) -> Looked {
        Looked {
            mounted: number.is_multiple_of(MOUNTED_EVERY),
            used: number.is_multiple_of(USED_EVERY),
            deep: number.is_multiple_of(DEEP_EVERY),
        }
    }
}

/// Where states are looked at, one after the other.
pub(super) struct Judge<'j> {
    programs: &'j Programs,
    images: &'j Images,
    /// Its own, in memory.
    dir: PathBuf,
    /// How many images were mounted.
    mounts: Cell<usize>,
}

impl<'j> Judge<'j> {
    /// One with a directory that is nobody else's.
    pub(super) fn new(programs: &'j Programs, images: &'j Images, dir: PathBuf) -> Judge<'j> {
        Judge {
            programs,
            images,
            dir,
            mounts: Cell::new(0),
        }
    }

    /// Mounts the image and looks; `number` says which parts that are not looked at each time are.
    pub(super) fn judge(
        &self,
        kind: Kind,
        engine: &str,
        image: &Image,
        expected: &Expected,
        number: usize,
    ) -> Verdict<Looked> {
        let own = self.dir.file_name().unwrap_or_default().display();
        let file = self.dir.join(format!("{own}-{number}.img"));
        let at = self.dir.join("disk");
        let written = fs::create_dir_all(&at)
            .and_then(|()| fs::File::create(&file))
            .and_then(|file| image.write_to(&file));
        written.map_err(|err| format!("{}: {err}", file.display()))?;
        let mounted = kind.mount(&file, &at);
        let judged = mounted.and_then(|mounted| {
            let judged = self.look(&at.join("store"), engine, expected, number);
            let ended = mounted.end();
            // What is wrong with the store comes first.
            judged.and(ended)
        });
        let _ = fs::remove_file(&file);
        judged.map(|()| Looked::of(number))
    }

    fn look(&self, root: &Path, engine: &str, expected: &Expected, number: usize) -> Verdict {
        let daemon = Daemon::start(self.programs, root, engine, &self.dir.join("state"))?;
        let looked = self.look_with(&daemon, root, expected, number);
        let log = daemon.log();
        let loud = |line: &&str| line.contains(" ERROR ") || line.contains("panicked");
        let loud = log.lines().find(loud);
        let silent = check(loud.is_none(), || "the daemon tells of damage".to_owned());
        let judged = looked.and(silent);
        judged.map_err(|reason| format!("{reason}\nthe daemon's log:\n{log}"))
    }

    fn look_with(
        &self,
        daemon: &Daemon,
        root: &Path,
        expected: &Expected,
        number: usize,
    ) -> Verdict {
        let found = self.gather(daemon)?;
        expected.known.judge(&found.facts)?;
        files(root, &found.facts)?;
        // Layers that are there are whole, or the opening would have dropped them.
        for name in whole(&found.facts) {
            same_as(name, &expected.own, &own(&found, name)?)?;
        }
        let look = Looked::of(number);
        if look.used {
            self.fsck(daemon, look.deep)?;
        }
        if look.mounted {
            let images: Vec<_> = images(&found.facts).collect();
            let all = look.used;
            let turn = (number / MOUNTED_EVERY) % images.len().max(1);
            let one = |at: &usize| all || *at == turn;
            for at in (0..images.len()).filter(one) {
                self.image(daemon, images[at], expected)?;
            }
        }
        match look.used {
            true => self.use_it(daemon, &found, expected, number),
            false => Ok(()),
        }
    }

    /// Everything that the store is for goes on.
    fn use_it(
        &self,
        daemon: &Daemon,
        found: &Found,
        expected: &Expected,
        number: usize,
    ) -> Verdict {
        for name in committed(&found.facts) {
            let seen = tree(daemon, name, &self.dir.join("tree"))?;
            same_as(name, &expected.trees, &seen)?;
        }
        self.actives(daemon, &found.facts)?;
        self.bundles(daemon, &expected.known.certain)?;
        for (typed, change) in &expected.again {
            if !typed.is_of_bundle() {
                self.again(daemon, typed, change.stage(&found.facts))?;
            }
        }
        self.cairn(daemon, &["gc"])?;
        let judged = settled(&expected.then, &self.gather(daemon)?.facts);
        judged.map_err(|reason| format!("after the same again, and gc: {reason}"))?;
        self.import(daemon, expected, number / USED_EVERY)?;
        self.fsck(daemon, false)
    }

    /// Nothing is wrong, nothing is missing and nothing is left over.
    fn fsck(&self, daemon: &Daemon, deep: bool) -> Verdict {
        let words = ["fsck", "--json", "--deep"];
        let words = if deep { &words[..] } else { &words[..2] };
        fault::clean(&self.output(daemon, words)?).map(drop)
    }

    /// Bundles are there whose directories another boot has taken, and go.
    fn bundles(&self, daemon: &Daemon, certain: &Facts) -> Verdict {
        let listed = self.cairn(daemon, &["-q", "bundle", "ls"])?.stdout;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let is = |dir: &str, name: &str| Path::new(dir).file_name().is_some_and(|own| own == name);
        for fact in certain
            .iter()
            .filter(|fact| fact.contains(" is active on "))
        {
            let name = fact.strip_prefix("snapshot ");
            let name = name.and_then(|name| name.strip_prefix(facts::BUNDLE));
            let name = name.and_then(|name| name.split(' ').next());
            let listed = |name: &str| listed.lines().any(|dir| is(dir, name));
            check(name.is_none_or(listed), || {
                format!("no bundle is listed, and {fact}")
            })?;
        }
        for dir in listed.lines() {
            self.cairn(daemon, &["bundle", "rm", dir])?;
        }
        Ok(())
    }

    fn gather(&self, daemon: &Daemon) -> Verdict<Found> {
        runtime().block_on(async { facts::gather(&daemon.api().await?).await })
    }

    /// What was under way is simply done again. What had been done is refused as that, if it is a thing to
    /// refuse, and what had not been begun is not.
    fn again(&self, daemon: &Daemon, typed: &Typed, stage: Stage) -> Verdict {
        let mut command = self.programs.start(&self.programs.cairn, &self.dir);
        command.arg("--address").arg(daemon.socket());
        typed.add_to(&mut command, self.images, &self.dir)?;
        let output = command
            .output()
            .map_err(|err| format!("start cairn: {err}"))?;
        if typed.fails {
            return typed.refused(&output);
        }
        match stage.wrong_again(typed.done(), &output) {
            None => Ok(()),
            Some(wrong) => Err(format!("again: {wrong}: {}", typed.told(&output))),
        }
    }

    /// An image is unpacked, if it has to be, and is what it was.
    fn image(&self, daemon: &Daemon, image: (&str, &str), expected: &Expected) -> Verdict {
        let (name, target) = image;
        let known = expected.images.get(target);
        let known = known.ok_or_else(|| format!("nobody knows {name}, which is {target}"))?;
        let seen = self.image_tree(daemon, name)?;
        same(&format!("image {name}"), known, &seen)
    }

    /// An image's files.
    pub(super) fn image_tree(&self, daemon: &Daemon, name: &str) -> Verdict<Vec<String>> {
        // A place for each: the store remembers what it mounted where.
        let number = self.mounts.get();
        self.mounts.set(number + 1);
        let at = self.dir.join(format!("image-{number}"));
        let at_text = at.display().to_string();
        self.cairn(daemon, &["images", "mount", name, &at_text])?;
        let mounted = Mounted::of(&at);
        let lines = Tree::read(&at).lines();
        let unmount = ["images", "unmount", &at_text];
        mounted.end_by(|| self.cairn(daemon, &unmount).map(drop))?;
        Ok(lines)
    }

    /// What a client was writing to can be mounted and written to.
    fn actives(&self, daemon: &Daemon, found: &Facts) -> Verdict {
        let keys = found.iter().filter_map(|fact| {
            let (key, _) = fact
                .strip_prefix("snapshot ")?
                .split_once(" is active on ")?;
            Some(key)
        });
        // Those of bundles are looked at as bundles.
        for key in keys.filter(|key| !key.starts_with(facts::BUNDLE)) {
            let request = MountsRequest {
                snapshotter: SNAPSHOTTER.to_owned(),
                key: key.to_owned(),
            };
            let mounts = runtime().block_on(async {
                let api = daemon.api().await?;
                good("mounts", api.snapshots().mounts(request).await)
            });
            let mounted = mount(&mounts?.mounts, &self.dir.join("active"))?;
            let written = fs::write(self.dir.join("active/written"), "written");
            written.map_err(|err| format!("write into {key}: {err}"))?;
            mounted.end()?;
        }
        Ok(())
    }

    /// The store takes an image again.
    fn import(&self, daemon: &Daemon, expected: &Expected, turn: usize) -> Verdict {
        let imports = life::imports();
        let (act, name) = &imports[turn % imports.len()];
        self.again(daemon, act, Stage::Part)?;
        let found = self.gather(daemon)?.facts;
        let image = images(&found).find(|(known, _)| known == name);
        let image = image.ok_or_else(|| format!("{name} was imported and is not there"))?;
        self.image(daemon, image, expected)
    }

    fn output(&self, daemon: &Daemon, words: &[&str]) -> Verdict<Output> {
        let mut command = self.programs.start(&self.programs.cairn, &self.dir);
        command.arg("--address").arg(daemon.socket()).args(words);
        let output = command.output();
        output.map_err(|err| format!("start cairn: {err}"))
    }

    fn cairn(&self, daemon: &Daemon, words: &[&str]) -> Verdict<Output> {
        let output = self.output(daemon, words)?;
        check(output.status.success(), || {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("cairn {words:?} ended with {}:\n{said}", output.status)
        })?;
        Ok(output)
    }
}

/// As [`Known::judge`], when all images have been unpacked again and bundles are gone.
fn settled(known: &Known, found: &Facts) -> Verdict {
    let mut known = known.clone();
    known.certain.retain(|fact| !facts::is_bundle(fact));
    known.possible.retain(|fact| !facts::is_bundle(fact));
    let unpacked = found.iter().filter(|fact| facts::is_layer(fact));
    known.possible.extend(unpacked.cloned());
    known.judge(found)
}

/// Names of images and what they are.
pub(super) fn images(facts: &Facts) -> impl Iterator<Item = (&str, &str)> {
    facts
        .iter()
        .filter_map(|fact| fact.strip_prefix("image ")?.split_once(" is "))
}

fn same_as(name: &str, known: &BTreeMap<String, Vec<String>>, seen: &[String]) -> Verdict {
    let known = known.get(name);
    let known = known.ok_or_else(|| format!("nobody committed {name}"))?;
    same(&format!("snapshot {name}"), known, seen)
}

/// The files of a snapshot without those below it, as they lie there.
pub(super) fn own(found: &Found, name: &str) -> Verdict<Vec<String>> {
    let dir = found.dirs.get(name);
    let dir = dir.ok_or_else(|| format!("snapshot {name} is nowhere"))?;
    let mut tree = Tree::read(dir);
    tree.retain(|_, node| {
        // A removal has the time at which it was made.
        if node.kind == "char" && node.rdev == 0 {
            node.mtime = (MTIME.cast_signed(), 0);
        }
        true
    });
    Ok(tree.lines())
}

fn same(what: &str, known: &[String], seen: &[String]) -> Verdict {
    let (known, seen): (BTreeSet<_>, BTreeSet<_>) = (known.iter().collect(), seen.iter().collect());
    check(known == seen, || {
        let lost: Vec<_> = known.difference(&seen).collect();
        let strange: Vec<_> = seen.difference(&known).collect();
        format!("{what} has another tree\nnot there: {lost:#?}\nnot its own: {strange:#?}")
    })
}

/// Records and files say the same, and bytes are those of their names.
fn files(root: &Path, found: &Facts) -> Verdict {
    let recorded: BTreeSet<String> = found
        .iter()
        .filter_map(|fact| facts::bare(fact).strip_prefix("blob ")?.split_once(" of "))
        .map(|(digest, _)| digest.to_owned())
        .collect();
    let mut there = BTreeSet::new();
    let blobs = root.join("content/blobs/sha256");
    for name in names(&blobs)? {
        let bytes =
            fs::read(blobs.join(&name)).map_err(|err| format!("read blob {name}: {err}"))?;
        let own = digest(&bytes);
        check(own == format!("sha256:{name}"), || {
            format!("the file of blob {name} has {} other bytes", bytes.len())
        })?;
        there.insert(own);
    }
    check(recorded == there, || {
        let lost: Vec<_> = recorded.difference(&there).collect();
        let strange: Vec<_> = there.difference(&recorded).collect();
        format!("blobs without a file: {lost:#?}\nand without a record: {strange:#?}")
    })?;
    let snapshots = found.iter().filter(|fact| {
        facts::bare(fact)
            .strip_prefix("snapshot ")
            .is_some_and(|rest| rest.contains(" on \""))
    });
    let mut trees = names(&root.join("snapshots"))?;
    trees.retain(|name| name != "trash");
    let recorded = snapshots.count();
    check(recorded == trees.len(), || {
        format!("{recorded} snapshots have the directories {trees:?}")
    })
}

/// The tree of a committed snapshot with all below it, as a client sees it.
pub(super) fn tree(daemon: &Daemon, name: &str, at: &Path) -> Verdict<Vec<String>> {
    let key = "a look";
    let view = ViewSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.to_owned(),
        parent: name.to_owned(),
        ..ViewSnapshotRequest::default()
    };
    let removal = RemoveSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.to_owned(),
    };
    runtime().block_on(async {
        let mut snapshots = daemon.api().await?.snapshots();
        let mounts = good("view", snapshots.view(view).await)?.mounts;
        let mounted = mount(&mounts, at)?;
        let lines = Tree::read(at).lines();
        mounted.end()?;
        good("remove the view", snapshots.remove(removal).await)?;
        Ok(lines)
    })
}

fn mount(mounts: &[Mount], at: &Path) -> Verdict<Mounted> {
    let [mount] = mounts else {
        return Err(format!("{} mounts, not one", mounts.len()));
    };
    fs::create_dir_all(at).map_err(|err| format!("{}: {err}", at.display()))?;
    let mut flags = MountFlags::empty();
    let mut options = Vec::new();
    for option in &mount.options {
        match option.as_str() {
            "ro" => flags |= MountFlags::RDONLY,
            "rw" => {}
            "bind" => flags |= MountFlags::BIND,
            "rbind" => flags |= MountFlags::BIND | MountFlags::REC,
            _ => options.push(option.as_str()),
        }
    }
    let options = CString::new(options.join(",")).map_err(|err| err.to_string())?;
    let made = rustix::mount::mount(&mount.source, at, &*mount.r#type, flags, options.as_c_str());
    made.map_err(|err| format!("mount {mount:?}: {err}"))?;
    Ok(Mounted::of(at))
}
