//! The program where users without rights reach it.

use std::{path::Path, process::Command};

/// Copies the built program, which lies where only its builder may look.
///
/// By a process of its own: the copy would be open for writing in this one, and in whatever another
/// test starts at that moment, and the kernel refuses to run such a file.
pub fn copy_program(to: &Path) {
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_cairn"))
        .arg(to)
        .status();
    assert!(copied.expect("cp").success());
}
