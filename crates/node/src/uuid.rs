//! The store's own name: made once, kept in the root, told to clients (containerd's introspection).

use std::ffi::OsStr;

use cairn_sys::{Dir, durable};
use cairn_types::ErrorKind;

use crate::{Failure, Node};

const ATTEMPTED: &str = "read the name of the store";
pub(crate) const NAME: &str = "uuid";
const FILE_BYTES_MAX: u64 = 64;

impl Node {
    /// A random UUID of version 4 (RFC 9562), the same for as long as the store is there.
    pub fn uuid(&self) -> Result<String, Failure> {
        let dir = &self.inner.dir;
        if let Some(known) = known(dir)? {
            return Ok(known);
        }
        let uuid = made_up()?;
        keep(dir, &uuid)?;
        Ok(uuid)
    }
}

/// The name that the store in `dir` has, if it was given one.
pub(crate) fn known(dir: &Dir) -> Result<Option<String>, Failure> {
    let name = OsStr::new(NAME);
    let failed = |err: cairn_sys::Error| Failure::of(ATTEMPTED, &err);
    if dir.try_stat(name).map_err(failed)?.is_none() {
        return Ok(None);
    }
    let bytes = dir.read_file(name, FILE_BYTES_MAX).map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
}

/// Whether a text is one as they are made here.
pub(crate) fn is_one(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let is_hex = |part: &&str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    lengths == [8, 4, 4, 4, 12] && parts.iter().all(is_hex)
}

/// Gives it to one that has none.
pub(crate) fn keep(dir: &Dir, uuid: &str) -> Result<(), Failure> {
    let line = format!("{uuid}\n");
    let written = durable::write_file(dir, OsStr::new(NAME), line.as_bytes(), 0o644);
    written.map_err(|err| Failure::of(ATTEMPTED, &err))
}

fn made_up() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    let got = rustix::rand::getrandom(&mut bytes, flags);
    if got.is_err() || got.is_ok_and(|got| got < bytes.len()) {
        let reason = "the kernel gave no random bytes";
        return Err(Failure::new(ErrorKind::Internal, ATTEMPTED, reason));
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-"))
}
