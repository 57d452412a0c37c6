//! The reader: from block to entry, from entry to data, and to the very end.

use std::io::BufRead;

use super::{
    Entry, EntryKind, Limits, Problem, Segment, TarError,
    extension::Extension,
    header::{BLOCK_BYTES, Block, Format, Header},
    input::{Input, at_most, padding},
    pax,
    sparse::{self, Map, Source},
};

/// Reads an uncompressed tar entry by entry, without copying data.
///
/// After an error every further call fails: what follows a damaged place cannot be trusted.
#[derive(Debug)]
pub struct Reader<R> {
    input: Input<R>,
    limits: Limits,
    state: State,
    entries: u64,
    /// Stored bytes of the current entry that are still to come, and the padding after them.
    left: u64,
    padding: u64,
    /// The current entry's path and first header, for messages.
    path: Vec<u8>,
    offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Broken,
}

impl<R: BufRead> Reader<R> {
    /// A reader at the start of a tar.
    pub fn new(input: R, limits: Limits) -> Reader<R> {
        Reader {
            input: Input::new(input),
            limits,
            state: State::Reading,
            entries: 0,
            left: 0,
            padding: 0,
            path: Vec::new(),
            offset: 0,
        }
    }

    /// The next entry, or `None` at the end. Data of the entry before that was not read is skipped.
    #[expect(
        clippy::should_implement_trait,
        reason = "data() borrows between the entries"
    )]
    pub fn next(&mut self) -> Result<Option<Entry>, TarError> {
        match self.state {
            State::Reading => {}
            State::Ended => return Ok(None),
            State::Broken => return Err(self.fail(Problem::Broken)),
        }
        self.advance().map_err(|problem| self.fail(problem))
    }

    /// The next piece of the entry's stored data, straight from the input's buffer; empty at its
    /// end. The same piece comes again until [`consume`](Reader::consume) takes of it.
    pub fn data(&mut self) -> Result<&[u8], TarError> {
        if self.state == State::Broken {
            return Err(self.fail(Problem::Broken));
        }
        if self.left == 0 {
            return Ok(&[]);
        }
        match self.input.buffered() {
            Ok(0) => return Err(self.fail(Problem::Truncated("data"))),
            Ok(_) => {}
            Err(problem) => return Err(self.fail(problem)),
        }
        match self.input.bytes(self.left) {
            Ok(bytes) => Ok(bytes),
            // The bytes borrow the input to the end of the match, so `fail` cannot be called.
            Err(problem) => {
                self.state = State::Broken;
                Err(TarError::new(&self.path, self.offset, problem))
            }
        }
    }

    /// Takes `n` bytes of the last [`data`](Reader::data), no more than it had.
    pub fn consume(&mut self, n: usize) {
        let n = at_most(n, self.left);
        self.left -= n as u64;
        self.input.take(n);
    }

    /// Reads what is left, entries and anything after them, and gives the length of the whole
    /// stream in bytes.
    pub fn finish(&mut self) -> Result<u64, TarError> {
        while self.next()?.is_some() {}
        loop {
            match self.input.buffered() {
                Ok(0) => return Ok(self.input.offset()),
                Ok(n) => self.input.take(n),
                Err(problem) => return Err(self.fail(problem)),
            }
        }
    }

    fn fail(&mut self, problem: Problem) -> TarError {
        self.state = State::Broken;
        TarError::new(&self.path, self.offset, problem)
    }

    fn advance(&mut self) -> Result<Option<Entry>, Problem> {
        self.skip_data()?;
        self.path.clear();
        self.offset = self.input.offset();
        let mut extension = Extension::default();
        loop {
            let Some(block) = self.header_block()? else {
                extension.expect_none()?;
                self.state = State::Ended;
                return Ok(None);
            };
            let header = Header::parse(&block)?;
            match header.flag() {
                flag @ (b'x' | b'g' | b'L' | b'K') => {
                    extension.read(&header, &mut self.input, &self.limits)?;
                    // A global header belongs to no entry.
                    if flag == b'g' {
                        self.offset = self.input.offset();
                    }
                }
                _ => return self.entry(&header, extension).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header<'_>, mut extension: Extension) -> Result<Entry, Problem> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Problem::Limit {
                what: "entries",
                limit: self.limits.entries,
            });
        }
        let path = extension.take_path()?.unwrap_or_else(|| header.path());
        self.path.clone_from(&path);
        let link = extension.take_link()?;
        let pax = extension.records.is_some();
        let mut records = extension.records.unwrap_or_default();

        let kind = kind(header, &path, &records)?;
        self.check_path(&path)?;
        let link = match kind {
            EntryKind::Symlink | EntryKind::HardLink => {
                link.unwrap_or_else(|| header.link().to_vec())
            }
            _ => Vec::new(),
        };
        self.check_bytes(&link, "link target")?;
        let header_size = header.size()?;
        let stored = records.size.unwrap_or(header_size);
        if kind == EntryKind::HardLink && pax && stored != 0 {
            return Err(Problem::Ambiguous("a hard link with a size"));
        }
        let xattrs = records.take_xattrs();
        self.check_xattrs(&xattrs)?;
        let mut entry = Entry {
            path,
            link,
            kind,
            mode: header.mode()?,
            uid: id("uid", header.uid()?, records.uid)?,
            gid: id("gid", header.gid()?, records.gid)?,
            mtime: records.mtime.unwrap_or(header.mtime()?),
            atime: records.atime.or(header.atime()?),
            xattrs: xattrs.into_iter().collect(),
            size: 0,
            sparse: None,
            offset: self.offset,
        };
        if kind == EntryKind::Regular {
            (entry.size, entry.sparse) = self.open_data(header, records, stored)?;
        } else if records.sparse.any() {
            return Err(Problem::Sparse("only files can be sparse"));
        }
        Ok(entry)
    }

    /// Prepares for the entry's data and gives its size and map.
    fn open_data(
        &mut self,
        header: &Header<'_>,
        records: pax::Records,
        stored: u64,
    ) -> Result<(u64, Option<Vec<Segment>>), Problem> {
        self.check_size(stored)?;
        let regions_max = self.limits.sparse_regions;
        if header.flag() == b'S' {
            if records.sparse.any() {
                return Err(Problem::Sparse("two maps"));
            }
            let (size, map) =
                sparse::old_gnu(header, regions_max, || self.input.block("sparse map"))?;
            self.check_size(size)?;
            self.left = stored;
            self.padding = padding(stored);
            return Ok((size, Some(map.finish(stored)?)));
        }
        self.left = stored;
        self.padding = padding(stored);
        if !records.sparse.any() {
            return Ok((stored, None));
        }
        let (size, source) = records.sparse.source()?;
        self.check_size(size)?;
        let mut map = Map::new(size, regions_max);
        match source {
            Source::Records(numbers) => map.add_all(&numbers)?,
            Source::Data => sparse::in_data(&mut map, || self.data_block())?,
        }
        Ok((size, Some(map.finish(self.left)?)))
    }

    fn check_path(&self, path: &[u8]) -> Result<(), Problem> {
        if path.is_empty() {
            return Err(Problem::EmptyPath);
        }
        self.check_bytes(path, "path")?;
        let mut depth = 0;
        for component in path.split(|b| *b == b'/') {
            // A whiteout's own name may be longer than any: no file has it.
            let name = component.strip_prefix(b".wh.").unwrap_or(component);
            if name.len() > self.limits.component_bytes {
                return Err(Problem::Limit {
                    what: "bytes of a path's component",
                    limit: self.limits.component_bytes as u64,
                });
            }
            depth += usize::from(!matches!(component, b"" | b"."));
        }
        if depth > self.limits.depth {
            return Err(Problem::Limit {
                what: "components of a path",
                limit: self.limits.depth as u64,
            });
        }
        Ok(())
    }

    fn check_bytes(&self, path: &[u8], what: &'static str) -> Result<(), Problem> {
        if path.len() > self.limits.path_bytes {
            return Err(Problem::Limit {
                what: match what {
                    "path" => "bytes of its path",
                    _ => "bytes of its link target",
                },
                limit: self.limits.path_bytes as u64,
            });
        }
        if path.contains(&0) {
            return Err(Problem::Nul(what));
        }
        Ok(())
    }

    fn check_size(&self, size: u64) -> Result<(), Problem> {
        if size > self.limits.file_bytes {
            return Err(Problem::Limit {
                what: "bytes of one file",
                limit: self.limits.file_bytes,
            });
        }
        Ok(())
    }

    fn check_xattrs(&self, xattrs: &pax::Xattrs) -> Result<(), Problem> {
        let bytes: usize = xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if bytes as u64 > self.limits.xattr_bytes {
            return Err(Problem::Limit {
                what: "bytes of extended attributes",
                limit: self.limits.xattr_bytes,
            });
        }
        Ok(())
    }

    /// A block of the entry's own data.
    fn data_block(&mut self) -> Result<Block, Problem> {
        const BYTES: u64 = BLOCK_BYTES as u64;
        // Writers pad the map to a whole block, so that no data shares one with it.
        if self.left < BYTES {
            return Err(Problem::Sparse("the map is longer than the stored data"));
        }
        let block = self.input.block("sparse map")?;
        self.left -= BYTES;
        Ok(block)
    }

    /// A header, or `None` at the end of the archive.
    fn header_block(&mut self) -> Result<Option<Block>, Problem> {
        let mut block = [0; BLOCK_BYTES];
        match self.input.fill(&mut block)? {
            0 => return Ok(None),
            BLOCK_BYTES => {}
            _ => return Err(Problem::Truncated("header")),
        }
        if block.iter().any(|b| *b != 0) {
            return Ok(Some(block));
        }
        // One zero block may end the stream. Between entries Go refuses it and GNU tar stops there.
        let n = self.input.fill(&mut block)?;
        if block[..n].iter().any(|b| *b != 0) {
            return Err(Problem::Ambiguous("a single zero block and more after it"));
        }
        Ok(None)
    }

    fn skip_data(&mut self) -> Result<(), Problem> {
        let left = std::mem::take(&mut self.left);
        self.input.skip(left, "data")?;
        // Where a writer was flushed and not closed, the stream ends with the data of its last entry
        // (`umoci insert` does so). Go's reader, which unpacks images everywhere, takes that; GNU tar,
        // libarchive and Python fail, and none of them sees another file.
        let padding = std::mem::take(&mut self.padding);
        self.input.skip_to(padding).map(|_| ())
    }
}

fn kind(header: &Header<'_>, path: &[u8], records: &pax::Records) -> Result<EntryKind, Problem> {
    Ok(match header.flag() {
        0 if path.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' => EntryKind::Regular,
        b'S' if header.format == Format::Gnu => EntryKind::Regular,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        flag @ (b'3' | b'4') => {
            let (major, minor) = header.device()?;
            let part = |pax: Option<u64>, header, what| {
                u32::try_from(pax.unwrap_or(header)).map_err(|_| Problem::Number(what))
            };
            let major = part(records.major, major, "major")?;
            let minor = part(records.minor, minor, "minor")?;
            if flag == b'3' {
                EntryKind::CharDevice { major, minor }
            } else {
                EntryKind::BlockDevice { major, minor }
            }
        }
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        flag => return Err(Problem::Type(flag)),
    })
}

/// 2³²−1 is no id: `chown` takes it for "leave as it is".
fn id(what: &'static str, header: i64, pax: Option<u64>) -> Result<u32, Problem> {
    let value = pax.map_or_else(|| header.into(), i128::from);
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or(Problem::Id(what, value))
}
