//! Where time went.

use std::time::Duration;

/// Where the time of one layer went, from packed bytes to a snapshot. Of what goes on side by side that
/// is counted for which the rest waited, so the sum is the time that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerTiming {
    /// Reading the packed bytes at their source, hashing and storing them.
    pub fetch: Duration,
    /// Inflating them.
    pub inflate: Duration,
    /// Hashing what came of it, and writing it as files.
    pub untar: Duration,
    /// Putting the packed bytes on the disk.
    pub sync: Duration,
    /// Completing the files by the layers below.
    pub commit: Duration,
}

impl LayerTiming {
    /// The parts by name, in the order in which they come.
    pub fn parts(&self) -> [(&'static str, Duration); 5] {
        [
            ("fetch", self.fetch),
            ("inflate", self.inflate),
            ("untar", self.untar),
            ("sync", self.sync),
            ("commit", self.commit),
        ]
    }

    /// All of it.
    pub fn sum(&self) -> Duration {
        self.parts().into_iter().map(|(_, part)| part).sum()
    }
}
