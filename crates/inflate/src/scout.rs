//! Decoding from the middle of a stream, without what came before.
//!
//! A match may refer to the last 32 KiB, so these are taken for unknown: cells of sixteen bits, of which
//! each says either a byte or which byte of the unknown ones it will be. Matches copy either alike. Once
//! 32 KiB have come out of which all is known, decoding goes on as it does anywhere.

use std::sync::{Arc, mpsc::Sender};

use crate::{
    Error, WINDOW_BYTES,
    ahead::Task,
    copy::Cell,
    crew::Order,
    find::Finder,
    gzip::remember,
    inflate::{Inflate, Status},
    part::{FIRST_MARKER, PARTS_MAX, Part, Parts},
};

/// As much as is searched between two looks at whether to stop.
const SEARCH_BYTES: u64 = 32 << 10;

/// One thread's decoder, used for one task after the other.
pub(crate) struct Scout {
    finder: Box<Finder>,
    inflate: Box<Inflate>,
    /// What came last, as long as it is not known, and how much of its end is known.
    window: Box<[u16; WINDOW_BYTES]>,
    known: usize,
    /// What came last, since it is.
    history: Vec<u8>,
}

impl Scout {
    pub(crate) fn new() -> Scout {
        let mut inflate = Box::new(Inflate::new());
        inflate.pause_from = 0;
        Scout {
            finder: Box::new(Finder::new()),
            inflate,
            window: Box::new([0; WINDOW_BYTES]),
            known: 0,
            history: Vec::with_capacity(WINDOW_BYTES),
        }
    }

    /// Decodes from the first block that it finds to begin in the task's pieces to the first end of one
    /// behind them, or for as long as there is something to decode, room for it, and nobody who has gone
    /// on without it.
    pub(crate) fn explore(
        &mut self,
        task: &Task,
        order: &Order,
        parts: &Arc<Parts>,
        made: &Sender<Part>,
    ) {
        let mut left = PARTS_MAX;
        let mut from = 0;
        while let Some(start) = self.find(task, order, from) {
            order.begun(task.begin * 8 + start);
            let mut trial = Trial::new(task, self, start);
            loop {
                // One that nobody has taken is lost with its channel.
                let room = (left > 0 && !order.is_stopped()).then(|| parts.take(trial.start));
                let Some(mut part) = room.flatten() else {
                    return;
                };
                let Ok(more) = trial.fill(&mut part) else {
                    break;
                };
                left -= 1;
                if part.length > 0 && made.send(part).is_err() || !more {
                    return;
                }
            }
            // What is no block at all shows by its codes, or by what they lead to.
            from = start + 1;
            order.searching();
        }
        order.nothing();
    }

    /// The first bit from `from` on at which a block may begin, both counted from the task's beginning.
    fn find(&mut self, task: &Task, order: &Order, from: u64) -> Option<u64> {
        let mut begin = 0;
        for piece in &task.pieces[..task.count] {
            let end = begin + piece.len() as u64 * 8;
            let mut from = from.max(begin);
            while from < end && !order.is_stopped() {
                let to = end.min(from + SEARCH_BYTES * 8);
                match self.finder.find(piece, from - begin, to - begin) {
                    Some(found) if self.is_header(piece, found) => return Some(begin + found),
                    Some(found) => from = begin + found + 1,
                    None => from = to,
                }
            }
            begin = end;
        }
        None
    }

    /// Whether all codes of a block are right that begins at a bit of `piece`, and the first symbol has a
    /// meaning.
    fn is_header(&mut self, piece: &[u8], bit: u64) -> bool {
        let mut from = (bit / 8) as usize;
        self.inflate.begin(piece[from], 8 - (bit % 8) as u32);
        from += 1;
        let out = self.window.as_mut_slice();
        let mut to = out.len();
        self.inflate
            .run(piece, &mut from, out, &mut to, &[])
            .is_ok()
    }
}

/// Decoding from one place on.
struct Trial<'a> {
    task: &'a Task,
    scout: &'a mut Scout,
    /// The bit of the input at which it began.
    start: u64,
    /// Where in the pieces the next byte is.
    piece: usize,
    from: usize,
}

impl<'a> Trial<'a> {
    /// Begins at a bit, counted from the task's beginning.
    fn new(task: &'a Task, scout: &'a mut Scout, start: u64) -> Self {
        let (mut piece, mut from) = (0, (start / 8) as usize);
        while from >= task.pieces[piece].len() {
            from -= task.pieces[piece].len();
            piece += 1;
        }
        let byte = task.pieces[piece][from];
        scout.inflate.begin(byte, 8 - (start % 8) as u32);
        for (cell, marker) in scout.window.iter_mut().zip(FIRST_MARKER..) {
            *cell = marker;
        }
        scout.known = 0;
        Trial {
            task,
            scout,
            start: task.begin * 8 + start,
            piece,
            from: from + 1,
        }
    }

    /// Decodes as much as has room in a part. False if there will be no more.
    fn fill(&mut self, part: &mut Part) -> Result<bool, Error> {
        part.is_clear = self.scout.known >= WINDOW_BYTES;
        let (status, to) = if part.is_clear {
            let history = std::mem::take(&mut self.scout.history);
            let ended = self.run(part.clear_mut(), 0, &history);
            self.scout.history = history;
            ended?
        } else {
            let out = part.marked_mut(&self.scout.window);
            let (status, to) = self.run(out, WINDOW_BYTES, &[])?;
            (status, to - WINDOW_BYTES)
        };
        part.length = to;
        part.between = status == Status::Boundary;
        part.next = self.next();
        part.save(&self.scout.inflate);
        if part.is_clear {
            let bytes = part.clear();
            let mut sum = crc32fast::Hasher::new();
            sum.update(bytes);
            remember(&mut self.scout.history, bytes);
            part.sum = sum;
        } else {
            self.scout.remember(part.marked());
        }
        Ok(status == Status::Full)
    }

    /// Decodes until `out` is full or there is nothing more to do.
    fn run<C: Cell>(
        &mut self,
        out: &mut [C],
        mut to: usize,
        history: &[C],
    ) -> Result<(Status, usize), Error> {
        while let Some(input) = self.task.pieces.get(self.piece) {
            let inflate = &mut self.scout.inflate;
            match inflate.run(input, &mut self.from, out, &mut to, history)? {
                Status::Hungry if self.piece + 1 < self.task.pieces.len() => {
                    self.piece += 1;
                    self.from = 0;
                }
                Status::Boundary if !inflate.is_last() && !self.is_done() => {}
                status => return Ok((status, to)),
            }
        }
        Ok((Status::Hungry, to))
    }

    /// Whether what comes next is behind the task.
    fn is_done(&self) -> bool {
        self.next() * 8 - u64::from(self.scout.inflate.unused()) >= self.task.end * 8
    }

    /// The byte of the input that is next.
    fn next(&self) -> u64 {
        let before: usize = self.task.pieces[..self.piece].iter().map(|p| p.len()).sum();
        self.task.begin + (before + self.from) as u64
    }
}

impl Scout {
    /// Keeps the end of what came out, and looks how much of it is known.
    fn remember(&mut self, marked: &[u16]) {
        let (before, new) = marked.split_at(WINDOW_BYTES);
        self.known = match new.iter().rposition(|cell| *cell >= FIRST_MARKER) {
            Some(at) => new.len() - at - 1,
            None => self.known + new.len(),
        };
        let (_, end) = marked.split_at(marked.len() - before.len());
        self.window.copy_from_slice(end);
        if self.known >= WINDOW_BYTES {
            self.history.clear();
            self.history.extend(end.iter().map(|cell| *cell as u8));
        }
    }
}
