//! When a copy of the records is written, and what is in its log.
//!
//! All of it is done by the thread that feeds the engine, between two of its loads, so no caller waits for it
//! and nobody else changes the engine meanwhile. What goes wrong here costs no change: the records are as they
//! were, and only their copy is missing, until one is made.

use std::ffi::OsStr;

use cairn_sys::{Dir, Meter};

use crate::{
    copy::{Log, Names, UNFINISHED, Writer, copy_name, has_end, log_name},
    engine::{self, Batch, Engine, bytes_of},
    journal::frame,
    record,
    reserve::NEEDED_BYTES,
};

/// A copy is made when the logs have so many bytes and half as many as the copy before: then all that is
/// written for copies is twice what is changed, or less.
const LOG_BYTES_MIN: u64 = 16 << 20;
/// With less to spare no copy is begun.
const SPARE_BYTES: u64 = 64 << 20;
/// Records in a frame of a copy: what is read, packed and written in one go.
const PART: usize = 256;
/// Frames that are still written of a copy when the store is closed: a small one is made by then, and for a
/// larger one somebody would wait, which is done only where no later process can be left to make it.
const LAST_PARTS: usize = 64;
/// No record's key comes before it, and none is it: of tags the first table has this one.
const FIRST: &[u8] = &[1];

/// Whoever sees to it that there is a copy.
pub(crate) struct Keeper {
    dir: Dir,
    /// `None` when changes are missing in it: then only a new copy helps.
    log: Option<Log>,
    /// The number of the last change that was found in any log, also in one that does not go on.
    seen: u64,
    /// What the engine has and the log lacks.
    pending: Batch,
    copying: Option<Copying>,
    /// There has been a copy, of whatever state.
    has_copy: bool,
    /// Bytes of the newest copy; while the only one is written, those it may have.
    copied: u64,
    /// Bytes of all logs behind it.
    logged: u64,
    /// What the engine says cannot be read: no copy can be made of it.
    unreadable: bool,
    /// A record that is damaged in an engine that does not know of it: a copy is made once it is mended.
    damaged: Option<Vec<u8>>,
    /// It is said that there is no room.
    told: bool,
}

/// A copy that is being written.
struct Copying {
    writer: Writer,
    number: u64,
    parts: u64,
    after: Vec<u8>,
    /// There is no other that the logs lead on from.
    is_only: bool,
}

impl Keeper {
    /// Looks at what there is in `dir`. What cannot be looked at is made anew.
    pub(crate) fn open(dir: &Dir) -> Keeper {
        let mut keeper = Keeper {
            dir: dir.clone(),
            log: None,
            seen: 0,
            pending: Batch::new(),
            copying: None,
            has_copy: false,
            copied: 0,
            logged: 0,
            unreadable: false,
            damaged: None,
            told: false,
        };
        if let Err(err) = keeper.find() {
            tracing::warn!("look for a copy of the records: {err}");
            keeper.log = None;
        }
        keeper
    }

    fn find(&mut self) -> cairn_sys::Result<()> {
        self.dir.remove_tree(OsStr::new(UNFINISHED))?;
        let names = Names::of(&self.dir)?;
        let copy = names.copies.last().copied();
        let (mut log, mut last) = (None, None);
        if let Some(copy) = copy {
            self.has_copy = true;
            self.copied = self.size(&copy_name(copy))?;
            // To one that was cut off no log helps.
            last = has_end(&self.dir, copy)?.then_some(copy);
        }
        for first in names.logs.into_iter().filter(|first| Some(*first) >= copy) {
            self.logged += self.size(&log_name(first))?;
            let next = Log::reopen(&self.dir, first)?;
            self.seen = self.seen.max(next.as_ref().map_or(0, Log::last));
            // One that does not go on where the one before it ends was begun with a copy that was not ended.
            log = next.filter(|_| last == Some(first));
            last = log.as_ref().map(Log::last);
        }
        self.log = log;
        Ok(())
    }

    fn size(&self, name: &str) -> cairn_sys::Result<u64> {
        let stat = self.dir.try_stat(OsStr::new(name))?;
        Ok(stat.map_or(0, |stat| stat.st_size.unsigned_abs()))
    }

    /// Whether there has been a copy, of whatever state.
    pub(crate) fn has_copy(&self) -> bool {
        self.has_copy
    }

    /// The number of the last change that is in the log, if there is one.
    pub(crate) fn logged_to(&self) -> Option<u64> {
        self.log.as_ref().map(Log::last)
    }

    /// The number of the last change that any log had when this was opened.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes what the engine has up to `known` and the journal still holds: what of it is in no log is to be
    /// in the next frame.
    pub(crate) fn catch_up(&mut self, taken: Vec<(u64, Batch)>, known: u64) {
        let Some(last) = self.logged_to() else {
            return;
        };
        let mut next = last + 1;
        for (number, changes) in taken {
            if number == next {
                self.pending.extend(changes);
                next += 1;
            }
        }
        if next <= known {
            tracing::info!("the log of the records does not go on: they are copied anew");
            self.log = None;
            self.pending.clear();
        }
    }

    /// Takes what the engine is about to be given, up to the change `last`; puts it on the disk now, or with
    /// the next one.
    pub(crate) fn note<'c>(
        &mut self,
        changes: impl Iterator<Item = (&'c Vec<u8>, &'c Option<Vec<u8>>)>,
        last: u64,
        now: bool,
    ) {
        let most = 4 * self.enough();
        let Some(log) = &mut self.log else {
            return;
        };
        if last <= log.last() {
            self.pending.clear();
            return;
        }
        self.pending
            .extend(changes.map(|(key, value)| (key.clone(), value.clone())));
        if !now {
            return;
        }
        let bytes = frame::room_of(bytes_of(&self.pending));
        // The engine needs room more.
        let needed = bytes.saturating_add(2 * NEEDED_BYTES);
        let has_room = self
            .dir
            .space()
            .is_ok_and(|space| space.free_bytes >= needed);
        let done = match (has_room, self.logged <= most) {
            (true, true) => log
                .append(last, &self.pending)
                .map_err(|err| err.to_string()),
            (false, _) => Err("the disk is full".to_owned()),
            // Nor may the log of a copy that cannot be made be what fills it.
            (true, false) => Err("what was changed since the last one is too much".to_owned()),
        };
        self.pending.clear();
        match done {
            Ok(()) => self.logged += bytes,
            Err(reason) => {
                tracing::warn!("the records have no whole copy until a new one is made: {reason}");
                self.log = None;
                self.give_up();
            }
        }
    }

    /// Begins a copy if one is due. The engine has everything up to the change `last`, and nothing more.
    pub(crate) fn look(&mut self, last: u64, engine: &dyn Engine) {
        let enough = self.logged > self.enough() && self.pending.is_empty();
        let due = self.log.is_none() || enough;
        if !due || self.copying.is_some() || self.unreadable || self.is_damaged(engine) {
            return;
        }
        let (bytes, wanted) = self.wanted();
        if !self
            .dir
            .space()
            .is_ok_and(|space| space.free_bytes >= wanted)
        {
            if self.log.is_none() && !self.told {
                tracing::warn!(
                    "the records have no whole copy: one is made when {wanted} bytes are free"
                );
                self.told = true;
            }
            return;
        }
        if self.log.is_none() {
            // What there was of both is of no use to the new one.
            (self.copied, self.logged) = (bytes, 0);
        }
        match self.begin(last) {
            Ok(()) => self.pending.clear(),
            Err(err) => {
                tracing::warn!("begin a copy of the records: {err}");
                // Of its log it is not known whether the name is there.
                self.log = None;
            }
        }
    }

    /// Bytes that a copy may have, and those that have to be free for one to be begun: for it, for the log that
    /// it needs, and so many to spare that the reserve stays.
    fn wanted(&self) -> (u64, u64) {
        let (bytes, room) = match self.log {
            Some(_) => {
                let bytes = self.copied + self.logged;
                (bytes, bytes.saturating_mul(2))
            }
            // No copy tells how much there is, or no log what has come since. The engine's files do: they are
            // larger than what is in them.
            None => {
                let bytes = self.copied.max(self.engine_bytes());
                (bytes, bytes)
            }
        };
        (bytes, room.saturating_add(SPARE_BYTES))
    }

    /// What the engine's files take; 0 where that cannot be known.
    fn engine_bytes(&self) -> u64 {
        let mut meter = Meter::default();
        let taken = engine::FILES.map(|name| meter.entry(&self.dir, OsStr::new(name)));
        let taken = taken.into_iter().filter_map(|usage| usage.ok().flatten());
        taken.map(|usage| usage.bytes).sum()
    }

    /// Whether the record that kept the last copy from being made would keep the next one, too.
    fn is_damaged(&mut self, engine: &dyn Engine) -> bool {
        if let Some(key) = &self.damaged {
            let found = engine.snapshot().and_then(|state| state.get(key));
            let mended = found
                .is_ok_and(|value| value.is_none_or(|value| record::payload(key, &value).is_ok()));
            if mended {
                self.damaged = None;
            }
        }
        self.damaged.is_some()
    }

    /// Bytes of logs that are worth a new copy.
    fn enough(&self) -> u64 {
        LOG_BYTES_MIN.max(self.copied / 2)
    }

    fn begin(&mut self, last: u64) -> cairn_sys::Result<()> {
        // One that has just been begun with is as good, and may be the only one.
        let begun = self.dir.try_stat(OsStr::new(&log_name(last)))?.is_some();
        let is_only = self.log.is_none();
        if !begun || self.logged_to() != Some(last) {
            self.log = Some(Log::create(&self.dir, last)?);
        }
        let writer = Writer::create(&self.dir, UNFINISHED)?;
        self.dir.fsync()?;
        self.copying = Some(Copying {
            writer,
            number: last,
            parts: 0,
            after: FIRST.to_vec(),
            is_only,
        });
        Ok(())
    }

    /// Whether a copy is being written.
    pub(crate) fn is_copying(&self) -> bool {
        self.copying.is_some()
    }

    /// Writes one more frame of the copy.
    pub(crate) fn go_on(&mut self, engine: &dyn Engine) {
        let Some(copying) = &mut self.copying else {
            return;
        };
        match copying.part(engine) {
            Ok(false) => {}
            Ok(true) => {
                if let Err(err) = self.finish() {
                    tracing::warn!("write a copy of the records: {err}");
                    self.give_up();
                }
            }
            Err(Failed::Write(err)) => {
                tracing::warn!("write a copy of the records: {err}");
                self.give_up();
            }
            Err(Failed::Read(err)) => {
                tracing::error!(
                    "the records cannot be copied, and are mended at the next start: {err}"
                );
                self.unreadable = true;
                self.give_up();
            }
            Err(Failed::Record(key, err)) => {
                tracing::error!(
                    "the records cannot be copied before this is mended: {err}; next: cairn fsck --repair"
                );
                self.damaged = Some(key);
                self.give_up();
            }
        }
    }

    fn finish(&mut self) -> cairn_sys::Result<()> {
        let Some(copying) = &mut self.copying else {
            return Ok(());
        };
        copying.writer.sync()?;
        let (number, bytes) = (copying.number, copying.writer.bytes());
        let (aside, name) = (OsStr::new(UNFINISHED), copy_name(number));
        self.dir.rename(aside, &self.dir, OsStr::new(&name))?;
        self.dir.fsync()?;
        self.copying = None;
        self.copied = bytes;
        self.logged = self.size(&log_name(number))?;
        let names = Names::of(&self.dir)?;
        let copies = names.copies.into_iter().filter(|copy| *copy != number);
        let logs = names.logs.into_iter().filter(|log| *log < number);
        for name in copies.map(copy_name).chain(logs.map(log_name)) {
            self.dir.unlink(OsStr::new(&name))?;
        }
        Ok(())
    }

    fn give_up(&mut self) {
        let Some(copying) = self.copying.take() else {
            return;
        };
        // What stays is removed by the next opening.
        let _ = self.dir.unlink(OsStr::new(UNFINISHED));
        if copying.is_only {
            self.forget_log(copying.number);
        }
    }

    /// For the log of a copy that was given up, where it follows on no other: with it nothing is whole, and a
    /// copy is due as if it were not there. Others may need what is in it.
    fn forget_log(&mut self, first: u64) {
        self.pending.clear();
        if self.log.take().is_some_and(|log| log.last() == first) {
            let _ = self.dir.unlink(OsStr::new(&log_name(first)));
        }
    }

    /// For the end of the process.
    ///
    /// Where each lives for one command none would ever come to the end of a large copy, and the log would grow
    /// until it is given up. To go on with the part of a copy that another process wrote would need that part
    /// to be proven first, and its log to have no gap since; so one of them writes all of it. That is only where
    /// there is no copy, or as much was changed since the last one as the next one has: what a command may have
    /// to wait for is little beside what those before it had to write.
    pub(crate) fn end(&mut self, engine: &dyn Engine) {
        let mut parts = 0;
        while self.is_copying() && (parts < LAST_PARTS || self.is_overdue()) {
            self.go_on(engine);
            parts += 1;
        }
        self.give_up();
    }

    /// Whether the copy that is being written was left by processes before this one.
    fn is_overdue(&self) -> bool {
        let is_only = self.copying.as_ref().is_some_and(|it| it.is_only);
        is_only || self.logged > 2 * self.enough()
    }
}

/// Why a copy cannot be gone on with.
enum Failed {
    Read(crate::Error),
    /// What the engine gives under this key does not prove itself.
    Record(Vec<u8>, crate::Error),
    Write(cairn_sys::Error),
}

impl Copying {
    /// Writes a frame; whether it was the last.
    fn part(&mut self, engine: &dyn Engine) -> Result<bool, Failed> {
        let read = || engine.snapshot()?.scan_after(&[], &self.after, PART);
        let pairs = read().map_err(Failed::Read)?;
        // The engine may not know of it, and the copy before, whose place this one takes, has it whole.
        for (key, value) in &pairs {
            let proven = record::payload(key, value);
            proven.map_err(|err| Failed::Record(key.clone(), err))?;
        }
        let ended = pairs.is_empty();
        if let Some((last, _)) = pairs.last() {
            self.after.clone_from(last);
        }
        let pairs = pairs.into_iter().map(|(key, value)| (key, Some(value)));
        let changes: Batch = pairs.collect();
        let written = self.writer.append(self.number, self.parts, &changes);
        written.map_err(Failed::Write)?;
        self.parts += 1;
        Ok(ended)
    }
}

#[cfg(test)]
mod tests;
