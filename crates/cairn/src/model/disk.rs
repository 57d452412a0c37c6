//! What is on the disk, and what it is there for.

use serde::Serialize;

/// All that is below the root (`df --disk`). Sizes are allocated bytes, blocks times 512 as `du` counts
/// them, and each inode counts once.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Disk {
    /// By what it is there for: always the same kinds in the same order.
    pub rows: Vec<DiskRow>,
    /// What is there for nothing that is known, by path.
    pub unexplained: Vec<Unexplained>,
    /// Bytes of all.
    pub size: u64,
    /// Inodes of all.
    pub inodes: u64,
}

/// What is there for one purpose.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiskRow {
    /// `content`; of snapshots `committed`, `active`, `views`; `ingests`; what is being made, `staging`; what
    /// waits to be deleted, `garbage` and `replaced`; of the records `records`, `journal`, `copies`,
    /// `reserve`, `backups`; `pushes`; what no record spoke of when some were `lost`; the store of the
    /// `backend` socket; and the `store`'s own directories.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many blobs, snapshots or files.
    pub total: u64,
    /// Bytes.
    pub size: u64,
    /// Files, directories and the rest, each once.
    pub inodes: u64,
}

/// Something that is there for nothing that is known.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Unexplained {
    /// From the root.
    pub path: String,
    /// Bytes, with all that is in it.
    pub size: u64,
    /// Inodes, with all that is in it.
    pub inodes: u64,
}

impl Disk {
    /// With the sums.
    pub fn of(rows: Vec<DiskRow>, unexplained: Vec<Unexplained>) -> Disk {
        let mut disk = Disk {
            rows,
            unexplained,
            size: 0,
            inodes: 0,
        };
        let (size, inodes) = disk.left();
        disk.size = size + disk.rows.iter().map(|row| row.size).sum::<u64>();
        disk.inodes = inodes + disk.rows.iter().map(|row| row.inodes).sum::<u64>();
        disk
    }

    /// Bytes and inodes of what is unexplained.
    pub fn left(&self) -> (u64, u64) {
        let left = self.unexplained.iter();
        left.fold((0, 0), |(size, inodes), one| {
            (size + one.size, inodes + one.inodes)
        })
    }
}
