//! What other threads hand over, part by part: so many of them, used again and again.

use std::sync::{Arc, Mutex};

use crate::{WINDOW_BYTES, crew::lock, inflate::Inflate};

/// What one part has at most. Of less, much would be copying the window from one to the next; of more,
/// much would be lost with the one that is being made when the reader comes, who does not wait for it.
pub(crate) const PART_BYTES: usize = 64 << 10;
/// The parts of one task. Each takes 276 KiB at most, which makes 6.5 MiB; there are two tasks for each
/// thread and one more, and 1 MiB of the input for each.
pub(crate) const PARTS_MAX: usize = 24;
/// The cell that stands for the first byte of the unknown window.
pub(crate) const FIRST_MARKER: u16 = 256;

/// All parts of one reader that are not in use.
pub(crate) struct Parts(Mutex<Free>);

#[derive(Default)]
struct Free {
    rooms: Vec<Room>,
    /// How many more there may be.
    more: usize,
}

#[derive(Default)]
struct Room {
    marked: Vec<u16>,
    clear: Vec<u8>,
    inflate: Option<Box<Inflate>>,
}

/// Some of what came out, and how to go on behind it. Dropped, it goes back to where it is from.
pub(crate) struct Part {
    /// The bit of the input at which decoding began, the parts before this one included.
    pub(crate) start: u64,
    /// The byte of the input that is next.
    pub(crate) next: u64,
    /// How much came out.
    pub(crate) length: usize,
    /// Whether a block has just ended.
    pub(crate) between: bool,
    /// Whether all of it is known. If so, there is a sum of it.
    pub(crate) is_clear: bool,
    pub(crate) sum: crc32fast::Hasher,
    room: Room,
    parts: Arc<Parts>,
}

impl Parts {
    pub(crate) fn new(count: usize) -> Arc<Parts> {
        Arc::new(Parts(Mutex::new(Free {
            rooms: Vec::new(),
            more: count,
        })))
    }

    /// One for what is decoded from the bit `start` on, if one is left.
    pub(crate) fn take(self: &Arc<Parts>, start: u64) -> Option<Part> {
        let mut free = lock(&self.0);
        let room = match free.rooms.pop() {
            Some(room) => room,
            None => {
                free.more = free.more.checked_sub(1)?;
                Room::default()
            }
        };
        Some(Part {
            start,
            next: 0,
            length: 0,
            between: false,
            is_clear: false,
            sum: crc32fast::Hasher::new(),
            room,
            parts: Arc::clone(self),
        })
    }

    /// The bytes that the free ones take.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |room: &Room| {
            let inflate = room.inflate.as_ref().map_or(0, |_| size_of::<Inflate>());
            2 * room.marked.capacity() + room.clear.capacity() + inflate
        };
        lock(&self.0).rooms.iter().map(bytes).sum()
    }
}

impl Part {
    /// Room for cells behind the window before them.
    pub(crate) fn marked_mut(&mut self, window: &[u16; WINDOW_BYTES]) -> &mut [u16] {
        let marked = &mut self.room.marked;
        if marked.is_empty() {
            marked.reserve_exact(WINDOW_BYTES + PART_BYTES);
            marked.resize(WINDOW_BYTES + PART_BYTES, 0);
        }
        marked[..WINDOW_BYTES].copy_from_slice(window);
        marked
    }

    /// What came out, where some may be bytes of the first window, with the last window before.
    pub(crate) fn marked(&self) -> &[u16] {
        &self.room.marked[..WINDOW_BYTES + self.length]
    }

    /// Room for bytes.
    pub(crate) fn clear_mut(&mut self) -> &mut [u8] {
        let clear = &mut self.room.clear;
        if clear.is_empty() {
            clear.reserve_exact(PART_BYTES);
            clear.resize(PART_BYTES, 0);
        }
        clear
    }

    /// What came out, if all of it is known.
    pub(crate) fn clear(&self) -> &[u8] {
        &self.room.clear[..self.length]
    }

    /// Keeps how to go on.
    pub(crate) fn save(&mut self, inflate: &Inflate) {
        match &mut self.room.inflate {
            Some(saved) => saved.as_mut().clone_from(inflate),
            none => *none = Some(Box::new(inflate.clone())),
        }
    }

    /// Gives it away.
    pub(crate) fn take_saved(&mut self) -> Option<Box<Inflate>> {
        self.room.inflate.take()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let room = std::mem::take(&mut self.room);
        lock(&self.parts.0).rooms.push(room);
    }
}

/// What cells mean, once the window before them is known.
pub(crate) struct Key(Box<[u8; 1 << 16]>);

impl Key {
    pub(crate) fn new() -> Key {
        let mut bytes = Box::new([0; 1 << 16]);
        for (byte, place) in (0..=255).zip(bytes.iter_mut()) {
            *place = byte;
        }
        Key(bytes)
    }

    /// Sets it to the end of `before` and all of `behind`, if that is a window's length.
    pub(crate) fn set(&mut self, before: &[u8], behind: &[u8]) -> bool {
        let window = &mut self.0[usize::from(FIRST_MARKER)..][..WINDOW_BYTES];
        let behind = &behind[behind.len().saturating_sub(WINDOW_BYTES)..];
        let (first, second) = window.split_at_mut(WINDOW_BYTES - behind.len());
        second.copy_from_slice(behind);
        let Some(from) = before.len().checked_sub(first.len()) else {
            return false;
        };
        first.copy_from_slice(&before[from..]);
        true
    }

    pub(crate) fn read(&self, cells: &[u16], out: &mut [u8]) {
        let (chunks, rest) = cells.as_chunks::<32>();
        let (places, rest_place) = out.as_chunks_mut::<32>();
        for (chunk, place) in chunks.iter().zip(places) {
            // Where all are bytes it is one step for several.
            if chunk.iter().fold(0, |all, cell| all | cell) < FIRST_MARKER {
                for (cell, byte) in chunk.iter().zip(place) {
                    *byte = *cell as u8;
                }
            } else {
                self.look_up(chunk, place);
            }
        }
        self.look_up(rest, rest_place);
    }

    fn look_up(&self, cells: &[u16], out: &mut [u8]) {
        for (cell, byte) in cells.iter().zip(out) {
            *byte = self.0[usize::from(*cell)];
        }
    }
}
