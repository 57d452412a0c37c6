//! Sparse maps: which parts of a file the archive stores. Four dialects, one result.

use super::{
    Problem, Segment,
    header::{BLOCK_BYTES, Block, Header, unsigned},
    pax,
};

/// The `GNU.sparse.*` records of one entry.
#[derive(Default)]
pub(super) struct Records {
    pub(super) name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    real_size: Option<u64>,
    count: Option<u64>,
    /// Version 0.1: offset and length by turns in one value.
    map: Option<Vec<u64>>,
    /// Version 0.0: a record for each number, in order.
    pairs: Vec<u64>,
    any: bool,
}

/// Where the map of a PAX sparse file is.
pub(super) enum Source {
    /// In the records, as offsets and lengths by turns.
    Records(Vec<u64>),
    /// In front of the data, version 1.0.
    Data,
}

impl Records {
    /// Takes one record, its key without `GNU.sparse.`. `None` is an invalid value.
    pub(super) fn set(&mut self, key: &str, value: &[u8]) -> Option<Result<(), Problem>> {
        self.any = true;
        match key {
            "name" => self.name = Some(pax::name(value)?),
            "major" => self.major = Some(pax::decimal(value)?),
            "minor" => self.minor = Some(pax::decimal(value)?),
            // Versions 0.x say `size`, 1.0 says `realsize`.
            "size" | "realsize" => {
                let size = pax::decimal(value)?;
                if self.real_size.is_some_and(|other| other != size) {
                    return Some(Err(Problem::Sparse("two sizes")));
                }
                self.real_size = Some(size);
            }
            "numblocks" => self.count = Some(pax::decimal(value)?),
            "map" if value.is_empty() => self.map = Some(Vec::new()),
            "map" => {
                let numbers = value.split(|b| *b == b',').map(pax::decimal);
                self.map = Some(numbers.collect::<Option<_>>()?);
            }
            "offset" | "numbytes" => {
                if self.pairs.len().is_multiple_of(2) != (key == "offset") {
                    return Some(Err(Problem::Sparse("an offset without a length")));
                }
                self.pairs.push(pax::decimal(value)?);
            }
            _ => return None,
        }
        Some(Ok(()))
    }

    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// The file's size and where its map is. Keys that make no whole map are refused: a reader that
    /// does not know them sees another file.
    pub(super) fn source(self) -> Result<(u64, Source), Problem> {
        let size = self
            .real_size
            .ok_or(Problem::Sparse("the file's size is missing"))?;
        match (self.major, self.minor) {
            (Some(1), Some(0)) => {
                if self.map.is_some() || !self.pairs.is_empty() || self.count.is_some() {
                    return Err(Problem::Sparse("two maps"));
                }
                return Ok((size, Source::Data));
            }
            (None, None) | (Some(0), Some(0 | 1)) => {}
            _ => return Err(Problem::Sparse("unknown version")),
        }
        let numbers = match (self.map, self.pairs) {
            (Some(map), pairs) if pairs.is_empty() => map,
            (None, pairs) if !pairs.is_empty() || self.count == Some(0) => pairs,
            (None, _) => return Err(Problem::Sparse("no map")),
            (Some(_), _) => return Err(Problem::Sparse("two maps")),
        };
        let regions = (numbers.len() / 2) as u64;
        if !numbers.len().is_multiple_of(2) || self.count.is_some_and(|count| count != regions) {
            return Err(Problem::Sparse("the number of regions is wrong"));
        }
        Ok((size, Source::Records(numbers)))
    }
}

/// A map under construction: every region is checked as it comes, so that a hostile map stops early.
pub(super) struct Map {
    segments: Vec<Segment>,
    regions: usize,
    regions_max: usize,
    end: u64,
    stored: u64,
    size: u64,
}

impl Map {
    /// A map of a file of `size` bytes.
    pub(super) fn new(size: u64, regions_max: usize) -> Map {
        Map {
            segments: Vec::new(),
            regions: 0,
            regions_max,
            end: 0,
            stored: 0,
            size,
        }
    }

    pub(super) fn add(&mut self, offset: u64, len: u64) -> Result<(), Problem> {
        self.regions += 1;
        if self.regions > self.regions_max {
            return Err(Problem::Limit {
                what: "regions of a sparse file",
                limit: self.regions_max as u64,
            });
        }
        if offset < self.end {
            return Err(Problem::Sparse("regions overlap or descend"));
        }
        let end = offset.checked_add(len).filter(|end| *end <= self.size);
        self.end = end.ok_or(Problem::Sparse("a region ends beyond the file"))?;
        self.stored += len;
        // Writers mark a hole at the end by an empty region there.
        if len > 0 {
            self.segments.push(Segment { offset, len });
        }
        Ok(())
    }

    pub(super) fn add_all(&mut self, numbers: &[u64]) -> Result<(), Problem> {
        numbers
            .chunks_exact(2)
            .try_for_each(|pair| self.add(pair[0], pair[1]))
    }

    /// The segments, if they have as many bytes as the archive stores.
    pub(super) fn finish(self, stored: u64) -> Result<Vec<Segment>, Problem> {
        if self.stored != stored {
            return Err(Problem::Sparse("regions and stored data differ in size"));
        }
        Ok(self.segments)
    }
}

/// Reads the map of a GNU `S` header and of the blocks that continue it; gives the file's size too.
pub(super) fn old_gnu(
    header: &Header<'_>,
    regions_max: usize,
    mut next_block: impl FnMut() -> Result<Block, Problem>,
) -> Result<(u64, Map), Problem> {
    let size = unsigned(&header.block[483..495], "real size")?;
    let mut map = Map::new(size, regions_max);
    let mut more = add_old_gnu(&mut map, &header.block[386..482], header.block[482])?;
    while more {
        let block = next_block()?;
        more = add_old_gnu(&mut map, &block[..504], block[504])?;
    }
    Ok((size, map))
}

/// Adds regions up to the first empty one; says whether another block follows.
fn add_old_gnu(map: &mut Map, regions: &[u8], more: u8) -> Result<bool, Problem> {
    for region in regions.chunks_exact(24) {
        let (offset, len) = region.split_at(12);
        if len[0] == 0 {
            // GNU tar goes by the length and Go by the offset, so both must be empty; and GNU tar
            // reads no further blocks while Go does.
            if offset[0] != 0 || more != 0 {
                return Err(Problem::Ambiguous("where the sparse map ends"));
            }
            return Ok(false);
        }
        map.add(
            unsigned(offset, "sparse offset")?,
            unsigned(len, "sparse length")?,
        )?;
    }
    Ok(more != 0)
}

/// Reads a version 1.0 map: decimal numbers, each on a line, the count first, up to a block's end.
pub(super) fn in_data(
    map: &mut Map,
    mut next_block: impl FnMut() -> Result<Block, Problem>,
) -> Result<(), Problem> {
    let mut block = next_block()?;
    let mut at = 0;
    let mut number = || -> Result<u64, Problem> {
        let mut digits = Vec::new();
        loop {
            if at == BLOCK_BYTES {
                block = next_block()?;
                at = 0;
            }
            let byte = block[at];
            at += 1;
            if byte == b'\n' {
                break;
            }
            digits.push(byte);
            // `u64::MAX` has twenty digits.
            if digits.len() > 20 {
                break;
            }
        }
        pax::decimal(&digits).ok_or(Problem::Sparse("a line is no number"))
    };
    for _ in 0..number()? {
        map.add(number()?, number()?)?;
    }
    Ok(())
}
