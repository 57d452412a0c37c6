//! The header of a gzip member (RFC 1952, 2.3), from whatever pieces it comes in. Nothing of it is
//! kept, so its fields may be of any length.

use crate::Error;

const CHECKSUM: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 7 << 5;

/// How far a header has been read.
#[derive(Default)]
pub(crate) struct Header {
    field: Field,
    /// What there is of a field of known length.
    bytes: [u8; 10],
    have: usize,
    flags: u8,
    sum: crc32fast::Hasher,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field {
    #[default]
    Fixed,
    ExtraLength,
    Extra(usize),
    Name,
    Comment,
    Checksum,
    Done,
}

impl Header {
    /// Reads on in `input`. Gives how much of it belongs to the header; all of it may.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Result<usize, Error> {
        let mut at = 0;
        while at < input.len() && self.field != Field::Done {
            let begun = at;
            let field = self.field;
            match field {
                Field::Fixed => {
                    if let Some([a, b, method, flags]) = self.known(10, input, &mut at) {
                        self.fixed([a, b], method, flags)?;
                    }
                }
                Field::ExtraLength => {
                    if let Some([a, b]) = self.known(2, input, &mut at) {
                        self.field = Field::Extra(u16::from_le_bytes([a, b]).into());
                    }
                }
                Field::Extra(left) => {
                    let n = left.min(input.len() - at);
                    at += n;
                    self.field = Field::Extra(left - n);
                }
                Field::Name | Field::Comment => {
                    let end = input[at..].iter().position(|byte| *byte == 0);
                    at = end.map_or(input.len(), |end| at + end + 1);
                    if end.is_some() {
                        self.go_on_after(field);
                    }
                }
                Field::Checksum => {
                    if let Some(bytes) = self.known(2, input, &mut at) {
                        let sum = self.sum.clone().finalize();
                        if sum & 0xffff != u32::from(u16::from_le_bytes(bytes)) {
                            return Err(Error::HeaderChecksum);
                        }
                        self.field = Field::Done;
                    }
                }
                Field::Done => {}
            }
            if self.field == Field::Extra(0) {
                self.go_on_after(self.field);
            }
            // Its flags are not known before the first field is read, and none of it is much.
            if field != Field::Checksum {
                self.sum.update(&input[begun..at]);
            }
        }
        Ok(at)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.field == Field::Done
    }

    /// Gathers the `length` bytes of a field and gives the first ones when all are there.
    fn known<const N: usize>(
        &mut self,
        length: usize,
        input: &[u8],
        at: &mut usize,
    ) -> Option<[u8; N]> {
        while self.have < length {
            self.bytes[self.have] = *input.get(*at)?;
            self.have += 1;
            *at += 1;
        }
        self.have = 0;
        self.bytes.first_chunk().copied()
    }

    fn fixed(&mut self, magic: [u8; 2], method: u8, flags: u8) -> Result<(), Error> {
        if magic != [0x1f, 0x8b] {
            return Err(Error::Magic);
        }
        if method != 8 {
            return Err(Error::Method(method));
        }
        if flags & RESERVED != 0 {
            return Err(Error::Flags(flags & RESERVED));
        }
        self.flags = flags;
        self.go_on_after(Field::Fixed);
        Ok(())
    }

    /// Goes to the next field that this header has.
    fn go_on_after(&mut self, field: Field) {
        let fields = [
            (EXTRA, Field::ExtraLength),
            (NAME, Field::Name),
            (COMMENT, Field::Comment),
            (CHECKSUM, Field::Checksum),
        ];
        let past = match field {
            Field::Fixed => 0,
            Field::ExtraLength | Field::Extra(_) => 1,
            Field::Name => 2,
            Field::Comment => 3,
            Field::Checksum | Field::Done => 4,
        };
        self.field = fields[past..]
            .iter()
            .find(|(flag, _)| self.flags & flag != 0)
            .map_or(Field::Done, |(_, field)| *field);
    }
}
