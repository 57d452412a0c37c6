//! Part of a file, read by a position of its own.

use std::{
    borrow::Borrow,
    fs::File,
    io::{self, Read},
    ops::Range,
    os::unix::fs::FileExt,
};

/// Reads some bytes of a file, from the first to the last of a range. The descriptor's own position is
/// nobody's: several parts of one file are read side by side.
///
/// A file that ends before the range does is [`io::ErrorKind::UnexpectedEof`]: what is short is not
/// whole.
pub struct Part<F> {
    file: F,
    left: Range<u64>,
}

impl<F: Borrow<File>> Part<F> {
    /// The bytes of `range`.
    pub fn new(file: F, range: Range<u64>) -> Part<F> {
        Part { file, left: range }
    }
}

impl<F: Borrow<File>> Read for Part<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.end.saturating_sub(self.left.start);
        let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let file = self.file.borrow();
        let got = file.read_at(&mut buffer[..wanted], self.left.start)?;
        if got == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left.start += got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_beside_one_another_and_never_short() {
        let mut file = tempfile::tempfile().expect("file");
        io::Write::write_all(&mut file, b"0123456789").expect("write");
        let (mut first, mut second) = (Part::new(&file, 2..5), Part::new(&file, 4..10));
        let mut one = [0; 1];
        first.read_exact(&mut one).expect("read");
        let mut rest = String::new();
        second.read_to_string(&mut rest).expect("read");
        assert_eq!(rest, "456789");
        rest.clear();
        first.read_to_string(&mut rest).expect("read");
        assert_eq!((one, &*rest), (*b"2", "34"));
        assert_eq!(first.read(&mut one).expect("its end"), 0);

        let mut long = Part::new(file, 8..11);
        let err = long.read_to_string(&mut rest).expect_err("too short");
        assert_eq!(err.kind(), io::ErrorKind::UnexpectedEof);
    }
}
