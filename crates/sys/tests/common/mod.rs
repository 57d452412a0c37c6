//! A directory to work in.

#![allow(dead_code, reason = "each test file uses its part")]

use std::ffi::OsStr;

use cairn_sys::Dir;

pub(crate) fn dir() -> (tempfile::TempDir, Dir) {
    let temp = tempfile::tempdir().expect("temporary directory");
    let dir = Dir::open(temp.path()).expect("open");
    (temp, dir)
}

pub(crate) fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}
