//! One header block: its checksum, its format and its fixed fields.

use super::{Problem, Time};

pub(super) const BLOCK_BYTES: usize = 512;
pub(super) type Block = [u8; BLOCK_BYTES];

/// Which fields a header has beside those of v7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A header block whose checksum is right.
pub(super) struct Header<'b> {
    pub(super) block: &'b Block,
    pub(super) format: Format,
}

impl<'b> Header<'b> {
    pub(super) fn parse(block: &'b Block) -> Result<Header<'b>, Problem> {
        check_sum(block)?;
        let format = format(block)?;
        Ok(Header { block, format })
    }

    pub(super) fn flag(&self) -> u8 {
        self.block[156]
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = match self.format {
            Format::Ustar => text(&self.block[345..500]),
            Format::Star => text(&self.block[345..476]),
            // GNU keeps times and a sparse map where ustar keeps the prefix.
            Format::V7 | Format::Gnu => b"",
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(super) fn link(&self) -> &'b [u8] {
        text(&self.block[157..257])
    }

    pub(super) fn mode(&self) -> Result<u32, Problem> {
        let mode = unsigned(&self.block[100..108], "mode")?;
        // Some writers leave the file type's bits in.
        u32::try_from(mode & 0o7777).map_err(|_| Problem::Number("mode"))
    }

    pub(super) fn uid(&self) -> Result<i64, Problem> {
        number(&self.block[108..116], "uid")
    }

    pub(super) fn gid(&self) -> Result<i64, Problem> {
        number(&self.block[116..124], "gid")
    }

    pub(super) fn size(&self) -> Result<u64, Problem> {
        unsigned(&self.block[124..136], "size")
    }

    pub(super) fn mtime(&self) -> Result<Time, Problem> {
        let secs = number(&self.block[136..148], "mtime")?;
        Ok(Time { secs, nanos: 0 })
    }

    pub(super) fn atime(&self) -> Result<Option<Time>, Problem> {
        let field = match self.format {
            Format::Gnu => &self.block[345..357],
            Format::Star => &self.block[476..488],
            Format::V7 | Format::Ustar => return Ok(None),
        };
        if field.iter().all(|b| matches!(b, 0 | b' ')) {
            return Ok(None);
        }
        let secs = number(field, "atime")?;
        Ok(Some(Time { secs, nanos: 0 }))
    }

    pub(super) fn device(&self) -> Result<(u64, u64), Problem> {
        if self.format == Format::V7 {
            return Err(Problem::Number("device"));
        }
        Ok((
            unsigned(&self.block[329..337], "major")?,
            unsigned(&self.block[337..345], "minor")?,
        ))
    }
}

fn format(block: &Block) -> Result<Format, Problem> {
    let mut magic = [0; 8];
    magic.copy_from_slice(&block[257..265]);
    match &magic {
        b"ustar\x0000" if &block[508..] == b"tar\0" => Ok(Format::Star),
        b"ustar\x0000" => Ok(Format::Ustar),
        b"ustar  \0" => Ok(Format::Gnu),
        // A version of NUL or anything else is ustar to some readers and v7, without its prefix, to
        // others (astral-tokio-tar 0.6.3 refuses it too).
        _ if magic.starts_with(b"ustar") => Err(Problem::Magic(magic)),
        _ => Ok(Format::V7),
    }
}

/// Old writers summed `char`s that were signed on their machines.
fn check_sum(block: &Block) -> Result<(), Problem> {
    let field = 148..156;
    let stated = number(&block[field.clone()], "checksum").map_err(|_| Problem::Checksum)?;
    let spaces = 8 * i64::from(b' ');
    let (mut unsigned, mut signed) = (spaces, spaces);
    for (at, byte) in block.iter().enumerate() {
        if !field.contains(&at) {
            unsigned += i64::from(*byte);
            signed += i64::from(byte.cast_signed());
        }
    }
    if stated == unsigned || stated == signed {
        Ok(())
    } else {
        Err(Problem::Checksum)
    }
}

/// A text field ends at its first NUL or at its end.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    &field[..end]
}

pub(super) fn unsigned(field: &[u8], what: &'static str) -> Result<u64, Problem> {
    u64::try_from(number(field, what)?).map_err(|_| Problem::Number(what))
}

/// Octal digits, or base-256 if the first bit is set. An empty field is zero, as everywhere.
fn number(field: &[u8], what: &'static str) -> Result<i64, Problem> {
    let invalid = || Problem::Number(what);
    if field[0] & 0x80 != 0 {
        return base_256(field).ok_or_else(invalid);
    }
    let start = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|b| matches!(b, 0 | b' '));
    let (digits, rest) = digits.split_at(end.unwrap_or(digits.len()));
    if rest.iter().any(|b| !matches!(b, 0 | b' ')) {
        return Err(invalid());
    }
    // Fields have 12 bytes at most, so this cannot overflow.
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => Ok(value * 8 + i64::from(digit - b'0')),
        _ => Err(invalid()),
    })
}

/// Two's complement, big endian, where the first bit is only the mark of the encoding.
fn base_256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let first = field[0] & 0x7f | if negative { 0x80 } else { 0 };
    let (fill, mut value) = if negative { (0xff, -1i64) } else { (0, 0i64) };
    let bytes = std::iter::once(first).chain(field[1..].iter().copied());
    for (at, byte) in bytes.enumerate() {
        let beyond = at + 8 < field.len();
        if beyond && byte != fill {
            return None;
        }
        value = value << 8 | i64::from(byte);
    }
    ((value < 0) == negative).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(field: &[u8], expected: Option<i64>) {
        assert_eq!(number(field, "test").ok(), expected, "{field:?}");
    }

    #[test]
    fn numbers_are_octal_or_base_256() {
        check(b"0000644\0", Some(0o644));
        check(b"   644 \0", Some(0o644));
        check(b"77777777", Some(0o77_777_777));
        check(b"\0\0\0\0\0\0\0\0", Some(0));
        check(b"        ", Some(0));
        check(b"644\0 \0\0 ", Some(0o644));
        check(b"0000648\0", None);
        check(b"-000001\0", None);
        check(b"+000001\0", None);
        check(b"64\x004\0\0\0\0", None);
        check(b"\x80\0\0\0\x7f\xff\xff\xff", Some(0x7fff_ffff));
        check(&[0xff; 8], Some(-1));
        check(&[0xff; 12], Some(-1));
        check(
            b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
            Some(i64::MAX),
        );
        check(b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None);
        check(b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN));
        check(b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None);
        check(b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None);
    }
}
