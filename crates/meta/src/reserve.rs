//! Room kept for the day the disk is full: what frees space has to write records first, and a
//! database that cannot grow refuses even that.
//!
//! A file holds it. Whoever finds the disk full gives the file up, an opening or the commit that needs the
//! room, and makes it anew when there is room again. Nothing depends on it being there.

use std::ffi::OsStr;

use cairn_sys::{Dir, OFlags, raw};

pub(crate) const NAME: &str = "reserve";
/// Several commits of either engine.
const BYTES: u64 = 4 << 20;
/// With less than this the disk counts as full.
const LOW_BYTES: u64 = 1 << 20;
/// The reserve must not be what fills a small disk.
const AMPLE_BYTES: u64 = 8 * BYTES;

/// Without so much no engine is given anything: a commit of which a part found room is worse than none.
pub(crate) const NEEDED_BYTES: u64 = 2 << 20;

/// Bytes free, once the reserve has been given up if there were too few.
pub(crate) fn room(dir: &Dir) -> cairn_sys::Result<u64> {
    let free = dir.space()?.free_bytes;
    let name = OsStr::new(NAME);
    if free >= NEEDED_BYTES || dir.try_stat(name)?.is_none() {
        return Ok(free);
    }
    tracing::warn!("the disk is full: the room kept for the records is used");
    dir.unlink(name)?;
    Ok(dir.space()?.free_bytes)
}

/// Gives the reserve up or makes it, as the disk needs. Also for the time before the engine is opened:
/// one of them writes at once.
pub(crate) fn keep(dir: &Dir) {
    if let Err(err) = try_keep(dir) {
        tracing::info!("keep no room for the records: {err}");
    }
}

fn try_keep(dir: &Dir) -> cairn_sys::Result<()> {
    let name = OsStr::new(NAME);
    let known = dir.try_stat(name)?;
    let whole = known.is_some_and(|stat| u64::try_from(stat.st_size) == Ok(BYTES));
    let free = dir.space()?.free_bytes;
    if free < LOW_BYTES && known.is_some() {
        tracing::warn!("the disk is full: the room kept for the records is used");
        dir.unlink(name)?;
    } else if free > AMPLE_BYTES && !whole {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let file = dir.open_file(name, flags, 0o600)?;
        // Not every file system can.
        if let Err(err) = raw::allocate(&file, BYTES) {
            let _ = dir.unlink(name);
            return Err(err);
        }
    }
    Ok(())
}
