//! All records a second time, so that an engine whose files are destroyed is made anew without a loss.
//!
//! ```text
//! <engine>/copy.<n>     all records as they were after the change <n> of the journal, or later
//! <engine>/copy.tmp     one that is being written
//! <engine>/log.<n>      what the engine took over after the change <n>
//! ```
//!
//! Both consist of frames as the journal's. A frame of a copy holds records, and the last one none. While a
//! copy is written the engine goes on: whatever that changes is in the log as well, and to do it once more
//! over records that have it already makes no difference. A frame of a log holds what the engine took over at
//! once. It is on the disk before the segment of the journal it comes from is written over; so a copy, the
//! logs behind it and the journal have all that was ever acknowledged.

use std::{ffi::OsStr, fs::File};

use cairn_sys::{Dir, OFlags, durable, raw};

use crate::{
    Timestamp,
    engine::Batch,
    journal::{
        frame::{self, Frame, Head, PAGE, pack},
        frame_at,
    },
};

/// What a copy is called until it is whole.
pub(crate) const UNFINISHED: &str = "copy.tmp";
/// So many bytes are left to the kernel at most before they are put on the disk: a sync of many at once would
/// keep those of the journal waiting.
const UNSYNCED_BYTES_MAX: u64 = 4 << 20;

/// The name of a copy.
pub(crate) fn copy_name(number: u64) -> String {
    format!("copy.{number}")
}

/// The name of a log.
pub(crate) fn log_name(number: u64) -> String {
    format!("log.{number}")
}

/// Whether a name is that of either, or of a copy that is not whole.
pub(crate) fn is_either(name: &str) -> bool {
    let number = |(kind, number): (&str, &str)| {
        matches!(kind, "copy" | "log") && number.parse::<u64>().is_ok()
    };
    name == UNFINISHED || name.split_once('.').is_some_and(number)
}

/// Which copies and logs there are, by number.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) copies: Vec<u64>,
    pub(crate) logs: Vec<u64>,
}

impl Names {
    pub(crate) fn of(dir: &Dir) -> cairn_sys::Result<Names> {
        let mut names = Names::default();
        for entry in dir.entries()? {
            let Some((kind, number)) = entry.name.to_str().and_then(|name| name.split_once('.'))
            else {
                continue;
            };
            match (kind, number.parse()) {
                ("copy", Ok(number)) => names.copies.push(number),
                ("log", Ok(number)) => names.logs.push(number),
                _ => {}
            }
        }
        names.copies.sort_unstable();
        names.logs.sort_unstable();
        Ok(names)
    }
}

/// Makes the copy of a database that has no records yet, and its log, durably but for their names.
pub(crate) fn create_empty(dir: &Dir) -> cairn_sys::Result<()> {
    let mut copy = Writer::create(dir, &copy_name(0))?;
    copy.append(0, 0, &Batch::new())?;
    copy.sync()?;
    Writer::create(dir, &log_name(0)).map(drop)
}

/// Whether a copy is there to its end, which says nothing of what comes before that.
pub(crate) fn has_end(dir: &Dir, number: u64) -> cairn_sys::Result<bool> {
    let file = dir.open_file(OsStr::new(&copy_name(number)), OFlags::RDONLY, 0)?;
    let Some(last) = raw::length(&file)?.checked_sub(PAGE as u64) else {
        return Ok(false);
    };
    let frame = frame_at(&file, last)?;
    Ok(frame.is_some_and(|frame| frame.head.number == number && frame.changes.is_empty()))
}

/// A file of frames that is written from its beginning to its end.
pub(crate) struct Writer {
    file: File,
    end: u64,
    unsynced: u64,
    /// Stands in all of its frames, and in no other file's: what only looks like one, as a record of somebody
    /// may, is not taken for one.
    mark: u64,
    before: u32,
}

impl Writer {
    pub(crate) fn create(dir: &Dir, name: &str) -> cairn_sys::Result<Writer> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        let file = dir.open_file(OsStr::new(name), flags, 0o600)?;
        Ok(Writer {
            file,
            end: 0,
            unsynced: 0,
            mark: Timestamp::now().0.cast_unsigned(),
            before: 0,
        })
    }

    /// Writes a frame. After an error the file is of no use.
    pub(crate) fn append(
        &mut self,
        number: u64,
        follows: u64,
        changes: &Batch,
    ) -> cairn_sys::Result<()> {
        let head = Head {
            number,
            durable: follows,
            opening: self.mark,
            before: self.before,
        };
        let (bytes, checksum) = pack(head, changes).map_err(|reason| {
            let err = std::io::Error::new(std::io::ErrorKind::FileTooLarge, reason);
            cairn_sys::Error::of_io("pwrite", "a copy of records", &err)
        })?;
        raw::write_all_at(&self.file, &bytes, self.end)?;
        self.end += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        self.before = checksum;
        if self.unsynced > UNSYNCED_BYTES_MAX {
            self.sync()?;
        }
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> cairn_sys::Result<()> {
        durable::sync_data(&self.file)?;
        self.unsynced = 0;
        Ok(())
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }
}

/// What the engine has taken over since a copy, frame by frame.
pub(crate) struct Log {
    writer: Writer,
    /// The number of the last change in it, or before it.
    last: u64,
}

impl Log {
    /// Makes one for what comes after the change `last`. Its name is on the disk with the next sync of `dir`.
    pub(crate) fn create(dir: &Dir, last: u64) -> cairn_sys::Result<Log> {
        let writer = Writer::create(dir, &log_name(last))?;
        Ok(Log { writer, last })
    }

    /// Opens the one after the change `first` to go on with; `None` when something is wrong with it.
    ///
    /// Each frame was on the disk before the next one was begun, so only the last can be torn.
    pub(crate) fn reopen(dir: &Dir, first: u64) -> cairn_sys::Result<Option<Log>> {
        let file = dir.open_file(OsStr::new(&log_name(first)), OFlags::RDWR, 0)?;
        let length = raw::length(&file)?;
        let (mut places, mut at, mut last) = (Vec::new(), 0, first);
        while at < length {
            let page = raw::read_at(&file, PAGE, at)?;
            let (Some(head), Some(bytes)) = (frame::head_of(&page), frame::length_of(&page)) else {
                break;
            };
            let bytes = bytes.next_multiple_of(PAGE as u64);
            if bytes > length - at {
                break;
            }
            if head.durable != last {
                return Ok(None);
            }
            places.push(at);
            (at, last) = (at + bytes, head.number);
        }
        let newest = match places.last() {
            Some(at) => frame_at(&file, *at)?.map(|frame| (*at, frame)),
            None => None,
        };
        let newest = match (newest, places.len()) {
            (Some(newest), _) => Some(newest),
            (None, 0 | 1) => None,
            (None, many) => match frame_at(&file, places[many - 2])? {
                Some(frame) => Some((places[many - 2], frame)),
                None => return Ok(None),
            },
        };
        let (end, last, mark, before) = match newest {
            Some((at, frame)) => (
                at + frame.bytes as u64,
                frame.head.number,
                frame.head.opening,
                frame.checksum,
            ),
            None => (0, first, Timestamp::now().0.cast_unsigned(), 0),
        };
        // What is torn is the last.
        for at in (end..length).step_by(PAGE) {
            if frame_at(&file, at)?.is_some_and(|frame| frame.head.opening == mark) {
                return Ok(None);
            }
        }
        // Nothing is to be found behind what is written next.
        if end < length {
            raw::ftruncate(&file, end)?;
        }
        let writer = Writer {
            file,
            end,
            unsynced: 0,
            mark,
            before,
        };
        Ok(Some(Log { writer, last }))
    }

    /// Puts the changes up to `number` on the disk, of which those before it had none.
    pub(crate) fn append(&mut self, number: u64, changes: &Batch) -> cairn_sys::Result<()> {
        self.writer.append(number, self.last, changes)?;
        self.writer.sync()?;
        self.last = number;
        Ok(())
    }

    /// The number of the last change in it, or before it.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }
}

/// The frames of a file that prove themselves, wherever they are.
pub(crate) struct Frames {
    file: File,
    length: u64,
    at: u64,
    mark: Option<u64>,
    /// Something before the next frame does not prove itself.
    pub(crate) skipped: bool,
}

impl Frames {
    pub(crate) fn of(dir: &Dir, name: &str) -> cairn_sys::Result<Frames> {
        let file = dir.open_file(OsStr::new(name), OFlags::RDONLY, 0)?;
        Ok(Frames {
            length: raw::length(&file)?,
            file,
            at: 0,
            mark: None,
            skipped: false,
        })
    }

    pub(crate) fn next(&mut self) -> cairn_sys::Result<Option<Frame>> {
        while self.at < self.length {
            match frame_at(&self.file, self.at)? {
                Some(frame) if self.mark.is_none_or(|mark| mark == frame.head.opening) => {
                    self.mark = Some(frame.head.opening);
                    self.at += frame.bytes as u64;
                    return Ok(Some(frame));
                }
                _ => {
                    self.skipped = true;
                    self.at += PAGE as u64;
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
