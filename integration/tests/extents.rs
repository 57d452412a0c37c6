//! Imports of layouts that are on the store's own file system: where it can share blocks nothing is
//! copied, and what is stored is right whatever becomes of the layout meanwhile.
#![allow(missing_docs)]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use cairn_integration::{
    cairn::Cairn,
    fault::{Dice, Disk},
    fixture::{nothing_is_left, text},
    image::{Layer, Layout, Stored, digest, noise},
    peers,
};

/// Those that share blocks, and one that does not.
const KINDS: [(&str, bool); 3] = [("xfs", true), ("btrfs", true), ("ext4", false)];
const LAYER_BYTES: usize = 16 << 20;

/// A store and a layout with an image of one plain layer, on a file system of their own.
struct Scene {
    // Ended before its disk is unmounted.
    cairn: Cairn,
    layout: PathBuf,
    /// Of the layer.
    digest: String,
    disk: Disk,
}

impl Scene {
    fn new(kind: &str) -> Scene {
        let disk = Disk::of(kind, "1G", &[]);
        let cairn = Cairn::below(&disk.path());
        let layout = cairn.path("layout");
        let layer = Stored::plain(Layer::new().file("noise", &noise(LAYER_BYTES, 1)).finish());
        Layout::create(&layout).image_of("shop/web:1", std::slice::from_ref(&layer));
        let digest = digest(&layer.bytes);
        let scene = Scene {
            cairn,
            layout,
            digest,
            disk,
        };
        scene.sync();
        scene
    }

    fn source(&self) -> PathBuf {
        below(&self.layout, "blobs", &self.digest)
    }

    fn blob(&self) -> PathBuf {
        below(&self.cairn.path("store"), "content/blobs", &self.digest)
    }

    fn arguments(&self) -> [&str; 4] {
        ["images", "import", "--no-unpack", text(&self.layout)]
    }

    fn sync(&self) {
        let dir = File::open(self.disk.path()).expect("open");
        rustix::fs::syncfs(dir).expect("syncfs");
    }

    /// Bytes that are taken on the disk, with all that is still to be written.
    fn used(&self) -> u64 {
        self.sync();
        let room = rustix::fs::statvfs(self.disk.path()).expect("statvfs");
        (room.f_blocks - room.f_bfree) * room.f_frsize
    }
}

fn below(root: &Path, dir: &str, digest: &str) -> PathBuf {
    root.join(dir).join(digest.replace(':', "/"))
}

/// Whether all of a file's blocks are another's as well.
fn is_shared(path: &Path) -> bool {
    let told = peers::run("filefrag", &["-v", text(path)]);
    let is_extent = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let mut extents = told.lines().filter(is_extent);
    assert!(extents.clone().count() > 0, "{told}");
    extents.all(|line| line.contains("shared"))
}

#[test]
fn layers_share_their_blocks_with_the_layout() {
    for (kind, able) in KINDS {
        let scene = Scene::new(kind);
        // The records' own files are there before.
        scene.cairn.ok(&["images", "ls"]);
        let before = scene.used();
        scene.cairn.ok(&scene.arguments());
        let grown = scene.used().saturating_sub(before);
        assert_eq!(is_shared(&scene.blob()), able, "{kind}");
        assert_eq!(
            grown < LAYER_BYTES as u64 / 2,
            able,
            "{kind}: {grown} bytes more"
        );
        // Unpacked it is the same as everywhere.
        scene.cairn.ok(&["images", "import", text(&scene.layout)]);
        let target = scene.cairn.path("mnt");
        fs::create_dir(&target).expect("mount point");
        scene
            .cairn
            .ok(&["images", "mount", "docker.io/shop/web:1", text(&target)]);
        let file = fs::read(target.join("noise")).expect("file");
        assert!(file == noise(LAYER_BYTES, 1), "{kind}");
        scene.cairn.ok(&["images", "unmount", text(&target)]);
    }
}

/// Written in place, as whoever owns the layout may, it would take a hard link's blob along.
#[test]
fn the_layout_can_be_changed_afterwards() {
    for (kind, _) in KINDS {
        let scene = Scene::new(kind);
        scene.cairn.ok(&scene.arguments());
        let source = File::options().write(true).open(scene.source());
        let source = source.expect("open");
        source.write_all_at(&[0; 1 << 20], 4096).expect("write");
        source.set_len(1 << 21).expect("cut");
        source.sync_all().expect("sync");
        let got = scene.cairn.command(&["content", "get", &scene.digest]);
        let got = { got }.output().expect("start cairn");
        assert_eq!(digest(&got.stdout), scene.digest, "{kind}");
    }
}

/// One that changes all the time, by one byte: what is stored is the layer as it was, or nothing.
#[test]
fn the_layout_can_be_changed_meanwhile() {
    const ROUNDS: u64 = 9;
    let (mut right, mut refused) = (0, 0);
    for (kind, _) in KINDS {
        let scene = Scene::new(kind);
        let source = File::options().read(true).write(true).open(scene.source());
        let source = source.expect("open");
        for round in 0..ROUNDS {
            let over = AtomicBool::new(false);
            let output = thread::scope(|scope| {
                scope.spawn(|| spoil(&source, &over, round));
                let output = scene.cairn.output(&scene.arguments());
                over.store(true, Ordering::Relaxed);
                output
            });
            let said = String::from_utf8_lossy(&output.stderr);
            match output.status.success() {
                true => {
                    let bytes = fs::read(scene.blob()).expect("blob");
                    assert_eq!(digest(&bytes), scene.digest, "{kind}");
                    scene.cairn.ok(&["images", "rm", "docker.io/shop/web:1"]);
                    scene.cairn.ok(&["gc"]);
                    right += 1;
                }
                false => {
                    let damaged = format!("layer {} is damaged", scene.digest);
                    assert!(said.contains(&damaged), "{kind}: {said}");
                    refused += 1;
                }
            }
            nothing_is_left(&scene.cairn);
        }
    }
    // Or nothing was proven.
    assert!(right > 0 && refused > 0, "{right} right, {refused} refused");
}

/// Flips a byte and soon flips it back, elsewhere each time: half of the time one is wrong.
fn spoil(source: &File, over: &AtomicBool, seed: u64) {
    let mut dice = Dice(seed);
    let mut byte = [0];
    while !over.load(Ordering::Relaxed) {
        let at = dice.roll(LAYER_BYTES) as u64;
        source.read_exact_at(&mut byte, at).expect("read");
        for value in [!byte[0], byte[0]] {
            source.write_all_at(&[value], at).expect("write");
            thread::sleep(Duration::from_micros(dice.roll(4000) as u64));
        }
    }
}

#[test]
fn a_damaged_layout_is_refused_in_the_same_words() {
    let damage: [fn(&File); 3] = [
        |file| {
            file.write_all_at(b"?", LAYER_BYTES as u64 / 2)
                .expect("write")
        },
        |file| file.set_len(LAYER_BYTES as u64 / 2).expect("cut"),
        |file| file.set_len(LAYER_BYTES as u64 * 2).expect("stretch"),
    ];
    let words = KINDS.map(|(kind, _)| {
        let scene = Scene::new(kind);
        let whole = fs::read(scene.source()).expect("layer");
        damage.map(|damage| {
            fs::write(scene.source(), &whole).expect("mend");
            damage(
                &File::options()
                    .write(true)
                    .open(scene.source())
                    .expect("open"),
            );
            let said = scene.cairn.fails(&scene.arguments());
            nothing_is_left(&scene.cairn);
            said.replace(text(&scene.layout), "LAYOUT")
        })
    });
    let [xfs, btrfs, ext4] = &words;
    assert_eq!((xfs, btrfs), (ext4, ext4));
    let [byte, short, long] = ext4;
    assert!(byte.contains("its bytes hash to"), "{byte}");
    assert!(short.contains("bytes instead of"), "{short}");
    assert!(long.contains("it has more than"), "{long}");
}
