//! What comes out, cell by cell, and matches copied.

use crate::Error;

/// What one byte of the output is kept in: a byte, or sixteen bits where some bytes are not known yet
/// and stand for what they will be.
pub(crate) trait Cell: Copy + From<u8> {
    /// Copies a match of `length` cells from `distance` back to `at`. There are `length + SLACK` cells
    /// in `out` from there on, of which those behind the match may be overwritten.
    fn repeat(out: &mut [Self], at: usize, distance: usize, length: usize);
}

impl Cell for u8 {
    #[inline(always)]
    fn repeat(out: &mut [u8], at: usize, distance: usize, length: usize) {
        fast(out, at, distance, length);
    }
}

impl Cell for u16 {
    #[inline(always)]
    fn repeat(out: &mut [u16], at: usize, distance: usize, length: usize) {
        wide(out, at, distance, length);
    }
}

/// As far as a copy may write behind a match's end.
pub(crate) const SLACK: usize = 32;
/// The longest match.
pub(crate) const LONGEST: usize = 258;

#[inline(always)]
fn fast(out: &mut [u8], at: usize, distance: usize, length: usize) {
    debug_assert!(distance <= at && out.len() - at >= length + SLACK);
    if distance >= 32 {
        let (old, new) = out.split_at_mut(at);
        let old = &old[at - distance..];
        if let Some(bytes) = old.first_chunk::<32>()
            && let Some(place) = new.first_chunk_mut::<32>()
        {
            *place = *bytes;
        }
        if length > 32 {
            long(out, at, distance, length);
        }
    } else {
        near(out, at, distance, length);
    }
}

#[inline(always)]
fn long(out: &mut [u8], at: usize, distance: usize, length: usize) {
    let end = at + length;
    let mut to = at + 32;
    while to < end {
        chunk::<u8, 32>(out, to - distance, to);
        to += 32;
    }
}

#[inline(always)]
fn chunk<C: Copy, const N: usize>(out: &mut [C], from: usize, to: usize) {
    if let Some(&bytes) = out.get(from..).and_then(|rest| rest.first_chunk::<N>())
        && let Some(place) = out
            .get_mut(to..)
            .and_then(|rest| rest.first_chunk_mut::<N>())
    {
        *place = bytes;
    }
}

/// A match that overlaps itself within a chunk: what is repeated is made in a register.
#[inline(always)]
fn near(out: &mut [u8], at: usize, distance: usize, length: usize) {
    let end = at + length;
    let mut to = at;
    if distance >= 16 {
        while to < end {
            chunk::<u8, 16>(out, to - distance, to);
            to += 16;
        }
        return;
    }
    if distance >= 8 {
        let mut from = at - distance;
        while to < end {
            chunk::<u8, 8>(out, from, to);
            from += 8;
            to += 8;
        }
        return;
    }
    let mut pattern = [0; 8];
    if let Some(bytes) = out
        .get(at - distance..)
        .and_then(|rest| rest.first_chunk::<8>())
    {
        pattern = *bytes;
    }
    let bits = distance as u32 * 8;
    let mut word = u64::from_le_bytes(pattern) & !(u64::MAX << (bits & 63));
    let mut filled = bits;
    while filled < 64 {
        word |= word << filled;
        filled *= 2;
    }
    let pattern = word.to_le_bytes();
    let step = 8 - 8 % distance;
    while to < end {
        if let Some(place) = out
            .get_mut(to..)
            .and_then(|rest| rest.first_chunk_mut::<8>())
        {
            *place = pattern;
        }
        to += step;
    }
}

/// The same of wider cells, of which as many fit in half as often.
#[inline(always)]
fn wide(out: &mut [u16], at: usize, distance: usize, length: usize) {
    debug_assert!(distance <= at && out.len() - at >= length + SLACK);
    let end = at + length;
    let mut to = at;
    if distance >= 32 {
        chunk::<u16, 32>(out, to - distance, to);
        to += 32;
        while to < end {
            chunk::<u16, 32>(out, to - distance, to);
            to += 32;
        }
        return;
    }
    if distance >= 16 {
        while to < end {
            chunk::<u16, 16>(out, to - distance, to);
            to += 16;
        }
        return;
    }
    let mut pattern = [0; 16];
    for (i, cell) in pattern.iter_mut().enumerate() {
        *cell = out[at - distance + i % distance];
    }
    while to < end {
        if let Some(place) = out
            .get_mut(to..)
            .and_then(|rest| rest.first_chunk_mut::<16>())
        {
            *place = pattern;
        }
        to += 16 - 16 % distance;
    }
}

/// Copies as much of a match as `out` has room for. Gives what was copied.
pub(crate) fn careful<C: Copy>(
    out: &mut [C],
    at: usize,
    distance: usize,
    length: usize,
    history: &[C],
) -> Result<usize, Error> {
    let length = length.min(out.len() - at);
    let mut done = 0;
    if distance > at {
        let back = distance - at;
        if back > history.len() {
            return Err(Error::TooFarBack);
        }
        let old = &history[history.len() - back..];
        done = length.min(back);
        out[at..at + done].copy_from_slice(&old[..done]);
    }
    while done < length {
        // What was copied repeats with the same period and makes for longer copies.
        let from = at + done - distance;
        let n = (length - done).min(distance);
        out.copy_within(from..from + n, at + done);
        done += n;
    }
    Ok(length)
}
