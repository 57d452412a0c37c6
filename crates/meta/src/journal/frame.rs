//! One group of changes as the journal has it, and the copy of the records: whole pages, which prove
//! themselves and their place.

use crate::engine::Batch;

/// Frames begin at multiples of this and fill them, so that no write touches a page that an
/// acknowledged frame is on: a disk may lose the whole of a page that it was writing when the power
/// went.
pub(crate) const PAGE: usize = 4096;

const MAGIC: [u8; 4] = *b"CJ01";
/// Magic, length, checksum, and the four numbers of a [`Head`].
const HEAD_BYTES: usize = 4 + 4 + 4 + 4 + 3 * 8;
/// The length of a value that is none: the record was removed.
const REMOVED: u32 = u32::MAX;

/// What a frame says of itself beside its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its number; each is one more than the one before.
    pub(crate) number: u64,
    /// All frames up to this number were on the disk when it was written.
    pub(crate) durable: u64,
    /// The opening of the store that wrote it.
    pub(crate) opening: u64,
    /// The checksum of the frame before it. What an earlier opening wrote and nobody was promised may
    /// stand right behind what a later one wrote in its place; by this it is told apart.
    pub(crate) before: u32,
}

/// A frame that proved itself.
pub(crate) struct Frame {
    pub(crate) head: Head,
    pub(crate) changes: Batch,
    pub(crate) checksum: u32,
    /// What it takes in the file.
    pub(crate) bytes: usize,
}

/// Packs changes; the bytes, and their checksum.
///
/// # Errors
/// A batch of more than 4 GiB.
pub(crate) fn pack(head: Head, changes: &Batch) -> Result<(Vec<u8>, u32), String> {
    let mut bytes = vec![0; HEAD_BYTES];
    for (key, value) in changes {
        let value_length = value.as_ref().map_or(Ok(REMOVED), |v| length(v));
        bytes.extend(length(key)?.to_le_bytes());
        bytes.extend(value_length?.to_le_bytes());
        bytes.extend(key);
        bytes.extend(value.iter().flatten());
    }
    let payload = u32::try_from(bytes.len() - HEAD_BYTES).map_err(|_| "too many changes")?;
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&payload.to_le_bytes());
    bytes[12..16].copy_from_slice(&head.before.to_le_bytes());
    bytes[16..24].copy_from_slice(&head.number.to_le_bytes());
    bytes[24..32].copy_from_slice(&head.durable.to_le_bytes());
    bytes[32..40].copy_from_slice(&head.opening.to_le_bytes());
    let checksum = checksum(&bytes);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    Ok((bytes, checksum))
}

/// What changes of so many bytes take in a file.
pub(crate) fn room_of(bytes: u64) -> u64 {
    (HEAD_BYTES as u64)
        .saturating_add(bytes)
        .next_multiple_of(PAGE as u64)
}

fn length(bytes: &[u8]) -> Result<u32, String> {
    match u32::try_from(bytes.len()) {
        Ok(length) if length != REMOVED => Ok(length),
        _ => Err(format!("{} bytes are too many for a record", bytes.len())),
    }
}

/// Over everything but itself.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..])
}

/// What the frame that `page` begins with says of itself, whether or not that is true.
pub(crate) fn head_of(page: &[u8]) -> Option<Head> {
    let word = |at: usize| Some(u32::from_le_bytes(page.get(at..at + 4)?.try_into().ok()?));
    let number = |at: usize| Some(u64::from_le_bytes(page.get(at..at + 8)?.try_into().ok()?));
    let head = Head {
        before: word(12)?,
        number: number(16)?,
        durable: number(24)?,
        opening: number(32)?,
    };
    (page[..4] == MAGIC).then_some(head)
}

/// How many bytes the frame takes that `page` begins with, if it begins with one.
pub(crate) fn length_of(page: &[u8]) -> Option<u64> {
    let length = u32::from_le_bytes(page.get(4..8)?.try_into().ok()?);
    (page[..4] == MAGIC).then_some(HEAD_BYTES as u64 + u64::from(length))
}

/// Unpacks the frame that `bytes` begin with; `None` when there is none, or not all of it.
pub(crate) fn unpack(bytes: &[u8]) -> Option<Frame> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if bytes.get(..4)? != MAGIC {
        return None;
    }
    let whole = HEAD_BYTES.checked_add(usize::try_from(word(4)?).ok()?)?;
    let (framed, sum) = (bytes.get(..whole)?, word(8)?);
    if checksum(framed) != sum {
        return None;
    }
    Some(Frame {
        head: head_of(bytes)?,
        changes: changes(&framed[HEAD_BYTES..])?,
        checksum: sum,
        bytes: whole.next_multiple_of(PAGE),
    })
}

fn changes(mut rest: &[u8]) -> Option<Batch> {
    let mut changes = Batch::new();
    while !rest.is_empty() {
        let (lengths, behind) = rest.split_at_checked(8)?;
        let key_length = u32::from_le_bytes(lengths[..4].try_into().ok()?);
        let value_length = u32::from_le_bytes(lengths[4..].try_into().ok()?);
        let (key, behind) = behind.split_at_checked(usize::try_from(key_length).ok()?)?;
        let value = match value_length {
            REMOVED => {
                rest = behind;
                None
            }
            length => {
                let (value, behind) = behind.split_at_checked(usize::try_from(length).ok()?)?;
                rest = behind;
                Some(value.to_vec())
            }
        };
        changes.insert(key.to_vec(), value);
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::bytes_of;

    const HEAD: Head = Head {
        number: 7,
        durable: 5,
        opening: 3,
        before: 9,
    };

    fn batch() -> Batch {
        Batch::from([
            (b"a".to_vec(), Some(b"one".to_vec())),
            (b"b".to_vec(), None),
            (b"c".to_vec(), Some(Vec::new())),
        ])
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        for changes in [Batch::new(), batch()] {
            let (bytes, checksum) = pack(HEAD, &changes).expect("pack");
            assert_eq!(bytes.len(), PAGE);
            let frame = unpack(&bytes).expect("whole");
            assert_eq!((frame.head, frame.checksum), (HEAD, checksum));
            assert_eq!(room_of(bytes_of(&changes)), PAGE as u64);
            assert_eq!((frame.changes, frame.bytes), (changes, PAGE));
        }
        let long = Batch::from([(b"k".to_vec(), Some(vec![1; 2 * PAGE]))]);
        let (bytes, _) = pack(HEAD, &long).expect("pack");
        assert_eq!(bytes.len(), 3 * PAGE);
        assert_eq!(room_of(bytes_of(&long)), 3 * PAGE as u64);
        assert!(unpack(&bytes[..2 * PAGE]).is_none(), "not all of it");
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (bytes, _) = pack(HEAD, &batch()).expect("pack");
        let used = HEAD_BYTES + 3 * 8 + 3 + 3;
        for bit in 0..used * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unpack(&damaged).is_none(), "bit {bit}");
        }
        for length in 0..used {
            assert!(unpack(&bytes[..length]).is_none(), "{length} bytes");
        }
    }
}
