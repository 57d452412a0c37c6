//! The journal: what was changed and is not in the engine yet, on the disk by one write and one flush.
//!
//! An engine pays for every commit with a rebuilt path of pages and two flushes, whatever the change.
//! Here a group of changes is one frame at the end of a file whose blocks were written before, so that
//! its sync moves no metadata. There are two such files, segments: when one is full the other is gone
//! on with, and meanwhile the engine takes over all that the full one holds, as one commit.
//!
//! Each frame has a number, and the engine knows the last one it has. So an opening reads both
//! segments and goes on from what the engine lacks; whatever does not prove itself at the end of the
//! last was written when the power went, and nobody was promised it.

pub(crate) mod frame;
mod salvage;

use std::{ffi::OsStr, fs::File};

use cairn_sys::{Dir, OFlags, durable, raw};

use self::frame::{Frame, Head, PAGE, pack, unpack};
pub(crate) use self::salvage::{Salvaged, salvage};
use crate::{Timestamp, engine::Batch};

/// The names of the segments.
pub(crate) const SEGMENTS: [&str; 2] = ["journal.a", "journal.b"];
/// What one is called until it is whole. One that is shorter than it was made counts as damaged, and that is what
/// a crash leaves of it, or a disk that is full.
pub(crate) const UNFINISHED: &str = "journal.tmp";
/// Bytes of a segment: how much the engine takes over at once.
const SEGMENT_BYTES: u64 = 1 << 20;
/// How far behind a frame that does not prove itself others are looked for.
const LOOK_BEHIND_BYTES: u64 = 64 * PAGE as u64;

/// Makes the segments that are missing, durably but for their names: all for a new database, or one that
/// was written before there were any. Where only one is gone the other keeps what the engine lacks.
///
/// Answers whether any was made.
pub(crate) fn create_missing(dir: &Dir) -> cairn_sys::Result<bool> {
    let mut made = false;
    for name in SEGMENTS.map(OsStr::new) {
        if dir.try_stat(name)?.is_none() {
            create(dir, name)?;
            made = true;
        }
    }
    Ok(made)
}

/// Makes an empty segment.
fn create(dir: &Dir, name: &OsStr) -> cairn_sys::Result<()> {
    let aside = OsStr::new(UNFINISHED);
    fill(dir, aside).inspect_err(|_| {
        // Whoever comes next needs the room; what stays is written over.
        let _ = dir.unlink(aside);
    })?;
    dir.rename(aside, dir, name)
}

fn fill(dir: &Dir, name: &OsStr) -> cairn_sys::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let file = dir.open_file(name, flags, 0o600)?;
    // Written and not only allocated: the first write to an allocated block changes the file's map of
    // blocks, which each sync would have to write as well.
    let zeros = vec![0; PAGE * 16];
    for at in (0..SEGMENT_BYTES).step_by(zeros.len()) {
        raw::write_all_at(&file, &zeros, at)?;
    }
    durable::sync_file(&file)
}

/// One file of frames.
struct Segment {
    file: File,
    /// Where the next frame goes.
    end: u64,
    /// The number of its last frame; 0 when it has none.
    last: u64,
}

/// The segments, and the place in them.
pub(crate) struct Journal {
    segments: [Segment; 2],
    current: usize,
    /// The number of the last frame, also when it is only in the engine.
    last: u64,
    /// All frames up to this one are on the disk.
    durable: u64,
    opening: u64,
    /// The checksum of the last frame.
    before: u32,
}

/// What an opening found.
pub(crate) struct Found {
    pub(crate) journal: Journal,
    /// What the engine lacks, the oldest first.
    pub(crate) changes: Vec<Batch>,
    /// Some of it is in the segment that is to be gone on with, so that the engine has to take it over
    /// first.
    pub(crate) in_both: bool,
    /// What the engine has and the segments still hold, by number, the oldest first.
    pub(crate) taken: Vec<(u64, Batch)>,
    /// The segments hold the last change that the engine has, or a later one.
    pub(crate) reaches: bool,
}

/// Why a journal cannot be read.
pub(crate) enum Trouble {
    /// A system call failed.
    Sys(cairn_sys::Error),
    /// A change that was acknowledged does not prove itself, or is gone.
    Damaged(String),
}

impl From<cairn_sys::Error> for Trouble {
    fn from(err: cairn_sys::Error) -> Trouble {
        Trouble::Sys(err)
    }
}

impl Journal {
    /// Opens the segments in `dir`; `known` is the number of the last frame that the engine has.
    pub(crate) fn open(dir: &Dir, known: u64) -> Result<Found, Trouble> {
        let (a, in_a) = Segment::open(dir, SEGMENTS[0])?;
        let (b, in_b) = Segment::open(dir, SEGMENTS[1])?;
        for (segment, name) in [&a, &b].into_iter().zip(SEGMENTS) {
            segment.refuse_cut(name)?;
        }
        let current = usize::from(b.last > a.last);
        let (mut frames, mut newest) = if current == 1 {
            (in_a, in_b)
        } else {
            (in_b, in_a)
        };
        frames.append(&mut newest);
        let mut segments = [a, b];
        let in_both = segments[1 - current].last > known;
        let newest = frames
            .last()
            .map(|frame| (frame.head.number, frame.checksum));
        let newest = newest.filter(|(last, _)| *last >= known);
        let (last, before) = match newest {
            Some(newest) => newest,
            None => {
                // The engine has more than was written here, and a frame that does not follow on the
                // one before it would be taken for the end.
                segments[current].end = 0;
                (known, 0)
            }
        };
        for segment in &segments {
            segment.refuse_damage(last)?;
        }
        let mut journal = Journal {
            segments,
            current,
            last,
            durable: known,
            opening: Timestamp::now().0.cast_unsigned(),
            before,
        };
        let (taken, frames): (Vec<Frame>, Vec<Frame>) = frames
            .into_iter()
            .partition(|frame| frame.head.number <= known);
        let changes = unknown(frames, known)?;
        if !changes.is_empty() {
            journal.write_again()?;
        }
        Ok(Found {
            journal,
            changes,
            in_both,
            taken: taken
                .into_iter()
                .map(|frame| (frame.head.number, frame.changes))
                .collect(),
            reaches: newest.is_some(),
        })
    }

    /// Puts on the disk what was read and may only have been in the kernel's memory of the files. It is
    /// written once more, since the process before may have ended because a sync failed: the kernel
    /// counts such pages as clean, and the next sync would pass over them.
    fn write_again(&mut self) -> cairn_sys::Result<()> {
        for segment in &self.segments {
            let bytes = usize::try_from(segment.end).unwrap_or(usize::MAX);
            let bytes = raw::read_at(&segment.file, bytes, 0)?;
            raw::write_all_at(&segment.file, &bytes, 0)?;
            durable::sync_data(&segment.file)?;
        }
        self.durable = self.last;
        Ok(())
    }

    /// The number of the last frame.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Whether the segment in use has no more room for `frame`; an empty one has room for any.
    pub(crate) fn is_full(&self, frame: &Packed) -> bool {
        self.is_full_for(frame.bytes.len() as u64)
    }

    fn is_full_for(&self, frame: u64) -> bool {
        let end = self.segments[self.current].end;
        end > 0 && end.saturating_add(frame) > SEGMENT_BYTES
    }

    /// Bytes that the disk has to have before changes of `bytes` are written, beside what any commit of the
    /// engine takes; `None` where the segment in use has room for them, and the engine is not soon to take
    /// over what it holds.
    ///
    /// What is longer than a segment makes one grow, and then the engine has as much more to take over.
    pub(crate) fn needs(&self, bytes: u64) -> Option<u64> {
        let frame = frame::room_of(bytes);
        let end = self.segments[self.current].end;
        let (grows, grown) = (
            frame.saturating_sub(SEGMENT_BYTES),
            end.saturating_sub(SEGMENT_BYTES),
        );
        let soon = end > SEGMENT_BYTES / 2 || self.is_full_for(frame) || grows > 0;
        soon.then(|| grows.saturating_mul(2).saturating_add(grown))
    }

    /// Packs changes as the next frame.
    pub(crate) fn pack(&self, changes: &Batch) -> Result<Packed, String> {
        let head = Head {
            number: self.last + 1,
            durable: self.durable,
            opening: self.opening,
            before: self.before,
        };
        let (bytes, checksum) = pack(head, changes)?;
        Ok(Packed { bytes, checksum })
    }

    /// Writes the frame that was packed last. It is on the disk after the next [`Journal::sync`].
    ///
    /// After an error nothing may be written any more before the next opening.
    pub(crate) fn append(&mut self, frame: &Packed) -> cairn_sys::Result<()> {
        let segment = &mut self.segments[self.current];
        raw::write_all_at(&segment.file, &frame.bytes, segment.end)?;
        self.last += 1;
        self.before = frame.checksum;
        segment.end += frame.bytes.len() as u64;
        segment.last = self.last;
        Ok(())
    }

    /// Puts all frames on the disk. An error is as final as one of [`Journal::append`].
    pub(crate) fn sync(&mut self) -> cairn_sys::Result<()> {
        if self.durable < self.last {
            durable::sync_data(&self.segments[self.current].file)?;
            self.durable = self.last;
        }
        Ok(())
    }

    /// Goes on in the other segment, all of whose frames the engine has. The one that is full is put
    /// on the disk: a frame must not get there before those with lower numbers.
    pub(crate) fn switch(&mut self) -> cairn_sys::Result<()> {
        self.sync()?;
        self.current = 1 - self.current;
        let segment = &mut self.segments[self.current];
        if segment.end > SEGMENT_BYTES {
            // Grown for a long frame; the disk may need the room.
            raw::ftruncate(&segment.file, SEGMENT_BYTES)?;
        }
        segment.end = 0;
        Ok(())
    }
}

/// A frame ready to be written.
pub(crate) struct Packed {
    bytes: Vec<u8>,
    checksum: u32,
}

impl Segment {
    /// Opens it; with the frames that it begins with, as far as each belongs behind the one before.
    fn open(dir: &Dir, name: &str) -> cairn_sys::Result<(Segment, Vec<Frame>)> {
        let file = dir.open_file(OsStr::new(name), OFlags::RDWR, 0)?;
        let mut segment = Segment {
            file,
            end: 0,
            last: 0,
        };
        let mut frames: Vec<Frame> = Vec::new();
        while let Some(frame) = frame_at(&segment.file, segment.end)? {
            let belongs = frames.last().is_none_or(|last| {
                frame.head.number == last.head.number + 1 && frame.head.before == last.checksum
            });
            if !belongs {
                break;
            }
            segment.end += frame.bytes as u64;
            segment.last = frame.head.number;
            frames.push(frame);
        }
        Ok((segment, frames))
    }

    /// Refuses a segment that is shorter than it was made.
    fn refuse_cut(&self, name: &str) -> Result<(), Trouble> {
        match raw::length(&self.file)? {
            whole if whole >= SEGMENT_BYTES => Ok(()),
            bytes => Err(Trouble::Damaged(format!(
                "{name} is cut off at {bytes} bytes"
            ))),
        }
    }

    /// Refuses a segment where what should come after the change `last` does not prove itself, though
    /// a frame behind it says that it was on the disk.
    fn refuse_damage(&self, last: u64) -> Result<(), Trouble> {
        for behind in (0..LOOK_BEHIND_BYTES).step_by(PAGE) {
            if let Some(frame) = frame_at(&self.file, self.end + behind)?
                && frame.head.durable > last
            {
                let text = format!("change {} in its journal does not prove itself", last + 1);
                return Err(Trouble::Damaged(text));
            }
        }
        Ok(())
    }
}

/// The frame at `offset` in a file, if there is one that proves itself.
pub(crate) fn frame_at(file: &File, offset: u64) -> cairn_sys::Result<Option<Frame>> {
    let page = raw::read_at(file, PAGE, offset)?;
    let Some(length) = frame::length_of(&page) else {
        return Ok(None);
    };
    if length <= page.len() as u64 {
        return Ok(unpack(&page));
    }
    // What a damaged length asks for must not be made room for.
    let left = raw::length(file)?.saturating_sub(offset);
    match usize::try_from(length) {
        Ok(bytes) if length <= left => Ok(unpack(&raw::read_at(file, bytes, offset)?)),
        _ => Ok(None),
    }
}

/// The changes of the frames that come after `known`.
fn unknown(frames: Vec<Frame>, known: u64) -> Result<Vec<Batch>, Trouble> {
    let mut changes = Vec::new();
    let lacking = frames.into_iter().filter(|frame| frame.head.number > known);
    for (next, frame) in (known + 1..).zip(lacking) {
        if frame.head.number != next {
            let text = format!("change {next} is missing in its journal");
            return Err(Trouble::Damaged(text));
        }
        changes.push(frame.changes);
    }
    Ok(changes)
}

#[cfg(test)]
mod tests;
