//! gRPC's messages in the frames that carry them.

/// Finds messages by their five-byte heads, however these are cut into frames.
#[derive(Default)]
pub(super) struct Frames {
    head: [u8; 5],
    have: usize,
    left: usize,
}

impl Frames {
    /// How many messages begin (their head is whole) in `data`.
    ///
    /// # Errors
    /// The bytes of the first that has more than `max`.
    pub(super) fn messages(&mut self, mut data: &[u8], max: usize) -> Result<u64, usize> {
        let mut begun = 0;
        while !data.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(data.len());
                self.left -= skipped;
                data = &data[skipped..];
                continue;
            }
            let taken = (self.head.len() - self.have).min(data.len());
            self.head[self.have..self.have + taken].copy_from_slice(&data[..taken]);
            self.have += taken;
            data = &data[taken..];
            if self.have == self.head.len() {
                let [_, a, b, c, d] = self.head;
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.have = 0;
                if self.left > max {
                    return Err(self.left);
                }
                begun += 1;
            }
        }
        Ok(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(lengths: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &len in lengths {
            bytes.extend([0, 0, 0, 0, len]);
            bytes.extend(vec![0xff; usize::from(len)]);
        }
        bytes
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let bytes = stream(&[0, 3, 0, 200]);
        for cut in 1..bytes.len() {
            let mut frames = Frames::default();
            let begun = bytes.chunks(cut).map(|data| frames.messages(data, 200));
            let begun: Result<Vec<u64>, usize> = begun.collect();
            assert_eq!(
                begun.unwrap().iter().sum::<u64>(),
                4,
                "cut every {cut} bytes"
            );
        }
    }

    #[test]
    fn one_too_large_is_seen_by_its_head() {
        let bytes = stream(&[200, 201]);
        for cut in 1..bytes.len() {
            let mut frames = Frames::default();
            let found = bytes[..210].chunks(cut);
            let found = found
                .map(|data| frames.messages(data, 200))
                .find(Result::is_err);
            assert_eq!(found, Some(Err(201)), "cut every {cut} bytes");
        }
    }
}
