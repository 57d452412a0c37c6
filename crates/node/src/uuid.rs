//! The store's own name: made once, kept in the root, told to clients (containerd's introspection).

use std::ffi::OsStr;

use cairn_sys::durable;
use cairn_types::ErrorKind;

use crate::{Failure, Node};

const ATTEMPTED: &str = "read the name of the store";
const FILE_BYTES_MAX: u64 = 64;

impl Node {
    /// A random UUID of version 4 (RFC 9562), the same for as long as the store is there.
    pub fn uuid(&self) -> Result<String, Failure> {
        let name = OsStr::new("uuid");
        let failed = |err: &cairn_sys::Error| Failure::of(ATTEMPTED, err);
        if self
            .inner
            .dir
            .try_stat(name)
            .map_err(|err| failed(&err))?
            .is_some()
        {
            let bytes = self.inner.dir.read_file(name, FILE_BYTES_MAX);
            let text = String::from_utf8_lossy(&bytes.map_err(|err| failed(&err))?).into_owned();
            return Ok(text.trim().to_owned());
        }
        let uuid = made_up()?;
        let line = format!("{uuid}\n");
        durable::write_file(&self.inner.dir, name, line.as_bytes(), 0o644)
            .map_err(|err| failed(&err))?;
        Ok(uuid)
    }
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
