//! The gzip format (RFC 1952) around a stream: one member, its header and its checks.

use std::{
    io::{self, BufRead, Read},
    ops::Range,
};

use crate::{
    Error, ReadAhead, WINDOW_BYTES, buffered,
    crew::{Crew, Lead, Plan},
    header::Header,
    inflate::{Inflate, Status},
    part::Key,
};

/// Who asks for this much or more has it decoded into his own buffer, who asks for less gets it from
/// one of this size.
const DIRECT_BYTES: usize = 64 << 10;
/// As much as is decoded before it is summed, while it is still in a core's cache.
const PIECE_BYTES: usize = 128 << 10;

/// One gzip member, decoded. Reading ends with the member, whose length and checksum are proven then;
/// of the input nothing behind it is consumed, so that [`Gunzip::restart`] can go on with what follows.
///
/// With more than one thread others decode what is still to come, of a member that is some megabytes long
/// and has blocks with codes of their own. What comes out is the same, and so is what is wrong with it;
/// only how much of `R` has been read is not, see [`ReadAhead`]. They are started when 1 MiB of the input
/// has been consumed, and end with the `Gunzip` or with an error.
///
/// Memory is bounded: some 120 KiB with one thread, and at most 16 MiB for each of several, whatever
/// comes.
///
/// # Errors
/// What is wrong with the stream is an [`Error`] in an [`io::Error`], and said again however often
/// one reads on. Errors of the input are handed on as they are; if it recovers, so does reading.
/// Either comes after all bytes that were decoded before it.
pub struct Gunzip<R> {
    input: ReadAhead<R>,
    part: Part,
    inflate: Box<Inflate>,
    /// The last of what was given out, which matches may refer to.
    history: Vec<u8>,
    buffer: Vec<u8>,
    /// What is in `buffer` and not given out yet.
    ready: Range<usize>,
    sum: crc32fast::Hasher,
    /// Of what came out, modulo 2^32 as the trailer has it.
    length: u32,
    interrupted: Option<io::Error>,
    /// What others have made of what comes next, and what its cells mean. It goes before the
    /// crew, which waits for whoever is at it.
    lead: Option<Lead>,
    key: Option<Key>,
    pub(crate) crew: Crew,
    /// Whether a block has just ended, and not the last one.
    between: bool,
    /// Of all members: how many bytes have been made, and how many of them by others.
    made: u64,
    foreseen: u64,
}

enum Part {
    Header(Header),
    Body,
    Trailer { bytes: [u8; 8], have: usize },
    End,
    Failed(Error),
}

impl<R: BufRead> Gunzip<R> {
    /// Nothing is read yet.
    pub fn new(input: R) -> Gunzip<R> {
        Gunzip::with_threads(input, 1)
    }

    /// Decodes with as many threads, of which the caller's is one. More than nine are of no use, and where
    /// no more can be had it does with fewer.
    pub fn with_threads(input: R, threads: usize) -> Gunzip<R> {
        Gunzip::planned(input, threads, Plan::USUAL)
    }

    pub(crate) fn planned(input: R, threads: usize, plan: Plan) -> Gunzip<R> {
        Gunzip {
            input: ReadAhead::new(input, plan.piece_bytes),
            part: Part::Header(Header::default()),
            inflate: Box::new(Inflate::new()),
            history: Vec::with_capacity(WINDOW_BYTES),
            buffer: Vec::new(),
            ready: 0..0,
            sum: crc32fast::Hasher::new(),
            length: 0,
            interrupted: None,
            lead: None,
            key: None,
            crew: Crew::new(threads, plan),
            between: false,
            made: 0,
            foreseen: 0,
        }
    }

    /// The input, which at the end of the member is right behind it.
    pub fn input_mut(&mut self) -> &mut ReadAhead<R> {
        &mut self.input
    }

    /// How many of the bytes that came out were made by other threads.
    pub fn foreseen(&self) -> u64 {
        self.foreseen
    }

    /// Begins a new member, of which nothing is read yet. It is for the end of a member; bytes that
    /// were not fetched before are gone.
    pub fn restart(&mut self) {
        self.part = Part::Header(Header::default());
        self.inflate.restart();
        self.history.clear();
        self.ready = 0..0;
        self.sum = crc32fast::Hasher::new();
        self.length = 0;
        self.interrupted = None;
        self.between = false;
        self.lead = None;
    }

    /// Reads the header.
    fn read_header(&mut self) -> io::Result<()> {
        while let Part::Header(header) = &mut self.part {
            let input = buffered(&mut self.input)?;
            if input.is_empty() {
                self.part = Part::Failed(Error::Truncated);
                break;
            }
            match header.feed(input) {
                Ok(used) => {
                    let done = header.is_done();
                    self.input.consume(used);
                    if done {
                        self.part = Part::Body;
                    }
                }
                Err(error) => self.part = Part::Failed(error),
            }
        }
        Ok(())
    }

    /// Decodes until `out` is full, the stream at its end or something wrong, and remembers the last.
    fn decode(&mut self, out: &mut [u8]) -> usize {
        let mut to = 0;
        while to < out.len() && matches!(self.part, Part::Body) && self.interrupted.is_none() {
            self.crew.feed(&mut self.input, self.made);
            let begun = to;
            let piece = out.len().min(to + PIECE_BYTES);
            if self.lead.is_some() || self.between && self.find_lead(&out[..to]) {
                to += self.follow(&mut out[to..piece]);
            } else {
                self.decode_piece(&mut out[..piece], &mut to);
                self.sum.update(&out[begun..to]);
            }
            self.length = self.length.wrapping_add((to - begun) as u32);
            self.made += (to - begun) as u64;
        }
        if matches!(self.part, Part::Body) {
            remember(&mut self.history, &out[..to]);
        }
        to
    }

    /// Decodes from what there is of the input.
    fn decode_piece(&mut self, out: &mut [u8], to: &mut usize) {
        let at = self.input.position();
        let input = match buffered(&mut self.input) {
            Ok(input) => input,
            Err(error) => {
                self.interrupted = Some(error);
                return;
            }
        };
        self.inflate.pause_from = self.crew.awaited().map_or(usize::MAX, |begin| {
            usize::try_from(begin.saturating_sub(at)).unwrap_or(usize::MAX)
        });
        let mut from = 0;
        let status = self.inflate.run(input, &mut from, out, to, &self.history);
        self.between = false;
        match status {
            Ok(Status::Hungry) if input.is_empty() => self.part = Part::Failed(Error::Truncated),
            Ok(Status::Hungry | Status::Full) => {}
            Ok(Status::Boundary) => self.between = !self.inflate.is_last(),
            Ok(Status::End) => {
                self.part = Part::Trailer {
                    bytes: [0; 8],
                    have: 0,
                };
            }
            Err(error) => self.part = Part::Failed(error),
        }
        self.input.consume(from);
    }

    /// Whether others have begun at the very bit that is next. What came before it, but for what is in
    /// the history, is `behind`.
    fn find_lead(&mut self, behind: &[u8]) -> bool {
        let bit = self.input.position() * 8 - u64::from(self.inflate.unused());
        self.lead = self.crew.arrive(bit);
        let Some(lead) = &self.lead else {
            return false;
        };
        if !self
            .key
            .get_or_insert_with(Key::new)
            .set(&self.history, behind)
        {
            // Without a whole window they may have taken something for it that was before the member.
            self.lead = None;
            self.crew.count(false, bit / 8);
            return false;
        }
        if lead.part.is_clear {
            self.sum.combine(&lead.part.sum);
        }
        self.between = false;
        true
    }

    /// Gives out what others have made. Where there is no more, it goes on behind it.
    fn follow(&mut self, out: &mut [u8]) -> usize {
        let (Some(lead), Some(key)) = (&mut self.lead, &self.key) else {
            return 0;
        };
        let n = lead.give(key, out);
        if !lead.part.is_clear {
            self.sum.update(&out[..n]);
        }
        self.foreseen += n as u64;
        if lead.has_given_all() {
            self.input.skip_to(lead.part.next);
            if lead.advance() {
                if lead.part.is_clear {
                    self.sum.combine(&lead.part.sum);
                }
            } else {
                self.crew.settle(lead);
                if let Some(saved) = lead.part.take_saved() {
                    self.inflate = saved;
                }
                self.between = lead.part.between && !self.inflate.is_last();
                self.lead = None;
            }
        }
        n
    }

    /// Reads the trailer and holds it against what came out.
    fn read_trailer(&mut self) -> io::Result<()> {
        while let Part::Trailer { bytes, have } = &mut self.part {
            // The decoder looks ahead by less than a trailer's length.
            while *have < 8
                && let Some(byte) = self.inflate.left_over()
            {
                bytes[*have] = byte;
                *have += 1;
            }
            let input = if *have < 8 {
                buffered(&mut self.input)?
            } else {
                &[]
            };
            let n = input.len().min(8 - *have);
            bytes[*have..*have + n].copy_from_slice(&input[..n]);
            *have += n;
            self.input.consume(n);
            let [a, b, c, d, e, f, g, h] = *bytes;
            self.part = if *have < 8 {
                if n > 0 {
                    continue;
                }
                Part::Failed(Error::Truncated)
            } else if u32::from_le_bytes([a, b, c, d]) != self.sum.clone().finalize() {
                Part::Failed(Error::Checksum)
            } else if u32::from_le_bytes([e, f, g, h]) != self.length {
                Part::Failed(Error::Length)
            } else {
                Part::End
            };
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.ready.is_empty() {
                let n = self.ready.len().min(out.len());
                out[..n].copy_from_slice(&self.buffer[self.ready.start..][..n]);
                self.ready.start += n;
                return Ok(n);
            }
            if let Some(error) = self.interrupted.take() {
                return Err(error);
            }
            match &self.part {
                Part::Header(_) => self.read_header()?,
                Part::Body if out.len() >= DIRECT_BYTES => {
                    let n = self.decode(out);
                    if n > 0 {
                        return Ok(n);
                    }
                }
                Part::Body => {
                    let mut buffer = std::mem::take(&mut self.buffer);
                    buffer.resize(DIRECT_BYTES, 0);
                    self.ready = 0..self.decode(&mut buffer);
                    self.buffer = buffer;
                }
                Part::Trailer { .. } => self.read_trailer()?,
                Part::End => return Ok(0),
                Part::Failed(error) => {
                    self.crew.dismiss();
                    return Err((*error).into());
                }
            }
        }
    }
}

/// Keeps the last of `made`, and of what was there before as much as is still within reach.
pub(crate) fn remember(history: &mut Vec<u8>, made: &[u8]) {
    let new = &made[made.len().saturating_sub(WINDOW_BYTES)..];
    let keep = history.len().min(WINDOW_BYTES - new.len());
    history.drain(..history.len() - keep);
    history.extend_from_slice(new);
}
