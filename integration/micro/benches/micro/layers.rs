//! Layers that are made up: contents that pack about as well as those of images, and many small files.

use tar::{Builder, EntryType, Header};

/// Bytes that a file of [`small_files`] has at most.
const SMALL_BYTES: usize = 3000;
/// Files of a directory.
const FILES: usize = 100;
/// Bytes of one kind after which [`contents`] goes on with another.
const STRETCH_BYTES: usize = 16 << 10;
const WORDS: usize = 2048;
const LETTERS: &[u8] = b"etaoinshrdlcumwfgypbvk";
/// 2023-11-14, as everything in the images of `integration/bench` has it.
const MTIME: u64 = 1_700_000_000;

/// Numbers by xorshift (Marsaglia 2003), the same ones each time.
struct Dice(u64);

impl Dice {
    fn new() -> Dice {
        Dice(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("less than a usize")
    }

    /// Below `limit` as well, the lower ones likelier.
    fn low(&mut self, limit: usize) -> usize {
        self.below(limit).min(self.below(limit))
    }
}

/// Bytes as layers have them: mostly words, as unevenly frequent as those of a language, then tables in
/// which little changes from row to row, and something that packs no further.
pub(crate) fn contents(len: usize) -> Vec<u8> {
    let mut dice = Dice::new();
    let words: Vec<Vec<u8>> = (0..WORDS).map(|_| word(&mut dice)).collect();
    let mut bytes = Vec::with_capacity(len + STRETCH_BYTES + 16);
    while bytes.len() < len {
        let end = bytes.len() + STRETCH_BYTES;
        let kind = dice.below(16);
        while bytes.len() < end {
            match kind {
                0 => bytes.extend(dice.next().to_le_bytes()),
                1..=3 => {
                    bytes.extend((bytes.len() as u64).to_le_bytes());
                    bytes.extend((dice.next() % 4096).to_le_bytes());
                }
                _ => bytes.extend(&words[dice.low(WORDS)]),
            }
        }
    }
    bytes.truncate(len);
    bytes
}

fn word(dice: &mut Dice) -> Vec<u8> {
    let letters = 2 + dice.below(9);
    let mut word = vec![b' '];
    word.extend((0..letters).map(|_| LETTERS[dice.low(LETTERS.len())]));
    word
}

/// A tar of so many files of up to 3000 bytes, a hundred in each directory; with `pax`, each has a time
/// in nanoseconds and an extended attribute besides.
pub(crate) fn small_files(count: usize, pax: bool) -> Vec<u8> {
    let mut dice = Dice::new();
    let pool = contents(1 << 20);
    let mut tar = Builder::new(Vec::new());
    for number in 0..count {
        let folder = format!("usr/share/layer/{}", number / FILES);
        if number.is_multiple_of(FILES) {
            entry(&mut tar, EntryType::Directory, 0o755, &folder, &[]);
        }
        if pax {
            let records: [(&str, &[u8]); 2] = [
                ("mtime", b"1700000000.123456789"),
                ("SCHILY.xattr.user.origin", b"integration/bench micro"),
            ];
            tar.append_pax_extensions(records)
                .expect("records in memory");
        }
        let size = dice.below(SMALL_BYTES + 1);
        let start = dice.below(pool.len() - size);
        let path = format!("{folder}/file{number}");
        let data = &pool[start..start + size];
        entry(&mut tar, EntryType::Regular, 0o644, &path, data);
    }
    tar.into_inner().expect("a tar in memory")
}

fn entry(tar: &mut Builder<Vec<u8>>, kind: EntryType, mode: u32, path: &str, data: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(data.len() as u64);
    tar.append_data(&mut header, path, data)
        .expect("an entry in memory");
}
