//! What lanes have looked at, kept for the end of the test command, which says it: cargo shows nothing of
//! what a test that passes prints.

use std::{fmt::Display, fs, path::Path};

/// Keeps `told` in `counts` of `target_tmp`, which cargo names to every test (`CARGO_TARGET_TMPDIR`), in the
/// place of what a lane of this name said before.
///
/// # Panics
///
/// When it cannot be written.
pub fn keep(target_tmp: &str, lane: &str, told: &dyn Display) {
    let dir = Path::new(target_tmp).join("counts");
    fs::create_dir_all(&dir).unwrap_or_else(|err| panic!("create {}: {err}", dir.display()));
    let path = dir.join(lane);
    fs::write(&path, format!("{told}\n"))
        .unwrap_or_else(|err| panic!("write {}: {err}", path.display()));
}
