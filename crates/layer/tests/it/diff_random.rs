//! Random changes made through a real overlay mount, held against what the kernel shows of them.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use cairn_sys::Dir;

use crate::stack::{Mounted, OLD, Stack, age, chmod, listing, set_xattr, written};

/// A small generator: the same numbers in each run.
struct Random {
    state: u64,
    /// Not in lower layers: an overlay takes the names of one file apart when it copies one of them up,
    /// and a layer that does not have the copy, as nothing else changed, leaves them together.
    links: bool,
}

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state % limit as u64).unwrap()
    }

    /// A path of few names, so that everything happens to the same ones.
    fn path(&mut self, root: &Path) -> PathBuf {
        let mut path = root.to_owned();
        for _ in 0..=self.below(3) {
            path.push(["a", "b", "c", "d"][self.below(4)]);
        }
        path
    }

    /// Anything that may happen; much of it fails, as there is no such file or parent.
    fn act(&mut self, root: &Path) {
        let (path, other) = (self.path(root), self.path(root));
        let linked = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_dir());
        let _ = match self.below(14) {
            0..=2 => fs::create_dir(&path),
            3..=5 if !path.is_symlink() => fs::write(&path, ["", "x", "y"][self.below(3)]),
            6 => symlink("a", &path),
            7 => fs::remove_file(&path),
            8 => fs::remove_dir_all(&path),
            9 => fs::rename(&path, &other),
            10 if self.links && linked(&path) => fs::hard_link(&path, &other),
            11 if !path.is_symlink() && path.exists() => {
                chmod(&path, [0o644, 0o755, 0o700][self.below(3)]);
                Ok(())
            }
            12 => std::os::unix::fs::lchown(&path, Some(7), Some(8)),
            13 if path.is_file() && !path.is_symlink() => {
                set_xattr(&path, "user.x", ["1", "2"][self.below(2)].as_bytes());
                Ok(())
            }
            _ => Ok(()),
        };
        // Often enough the time says nothing.
        if self.below(2) == 0 && fs::symlink_metadata(&path).is_ok() {
            age(&path, OLD);
        }
    }
}

/// What containerd does: it walks two mounts and compares them, and knows nothing of overlay's marks.
#[test]
fn random_changes_come_back_and_are_those_that_the_kernel_shows() {
    for seed in 1..=60u64 {
        let mut random = Random {
            state: 0x9e37_79b9_7f4a_7c15 ^ (seed << 32),
            links: false,
        };
        let stack = Stack::new(|bottom, nearer| {
            for root in [bottom, nearer] {
                (0..40).for_each(|_| random.act(root));
            }
        });
        random.links = true;
        stack.change(|root| (0..60).for_each(|_| random.act(root)));
        let layer = stack.diff();
        let lowers = format!("{}:{}", stack.at("1").display(), stack.at("0").display());
        fs::create_dir(stack.at("below")).unwrap();
        let below = Mounted::new(stack.at("below"), &format!("lowerdir={lowers}"));
        let lowers = format!("lowerdir={}:{lowers}", stack.at("upper").display());
        let above = Mounted::new(stack.at("mnt"), &lowers);
        let (left, right) = (Dir::open(&below.0).unwrap(), Dir::open(&above.0).unwrap());
        let compared = written(&[left], &[right]);
        assert_eq!(listing(&layer), listing(&compared), "seed {seed}");
        assert!(layer == compared, "seed {seed}");
        drop((below, above));
        // A directory in which something came and went has another time, and nothing else.
        stack.check_round_trip_with(false);
    }
}
