//! Facts about the machine and the process.

use std::fs;

use crate::{Error, Result};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const MEMINFO: &str = "/proc/meminfo";

/// A text that is new at each boot: what was written under another one may not have reached the disk.
pub fn boot_id() -> Result<String> {
    match fs::read_to_string(BOOT_ID) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(err) => Err(Error::of_io("read", BOOT_ID, &err)),
    }
}

/// Bytes of file data on this machine that wait to be written, or are being written, to any disk;
/// `None` when the kernel does not say.
fn dirty_bytes() -> Option<u64> {
    let table = fs::read_to_string(MEMINFO).ok()?;
    let kibibytes = |name: &str| -> Option<u64> {
        let line = table.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let waiting = kibibytes("Dirty:")?.saturating_add(kibibytes("Writeback:")?);
    Some(waiting.saturating_mul(1024))
}

/// More than this still waiting to be written, by whomever, makes a sync of a file system a long wait.
const CROWDED_BYTES: u64 = 64 << 20;

/// Whether others have written so much that [`crate::Dir::syncfs`], which waits for all of it, would take
/// long; `own` bytes do not count. `false` when the kernel does not say.
pub fn is_crowded(own: u64) -> bool {
    dirty_bytes().is_some_and(|bytes| bytes > CROWDED_BYTES.saturating_add(own))
}

/// Whether the effective user is root; mounting needs it.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
