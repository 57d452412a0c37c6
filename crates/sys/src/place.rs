//! Facts about the machine and the process.

use std::fs;

use crate::{Error, Result};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A text that is new at each boot: what was written under another one may not have reached the disk.
pub fn boot_id() -> Result<String> {
    match fs::read_to_string(BOOT_ID) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(err) => Err(Error::of_io("read", BOOT_ID, &err)),
    }
}

/// Whether the effective user is root; mounting needs it.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
