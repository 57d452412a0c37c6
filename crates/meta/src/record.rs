//! The envelope of a record: a version, the payload, a checksum over the key and both.
//!
//! Engines check less than one would think: a flipped bit came back as a silently wrong value from
//! both of ours under some circumstances. So every record proves itself, and proves that it stands
//! under its own key.

use crate::Error;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// What can be kept in a table.
pub trait Record: Sized {
    /// The payload.
    fn encode(&self) -> Vec<u8>;
    /// Back from a payload; the error is the reason.
    fn decode(payload: &[u8]) -> Result<Self, String>;
}

/// Nothing: the key says it all.
impl Record for () {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }
    fn decode(payload: &[u8]) -> Result<(), String> {
        if payload.is_empty() {
            Ok(())
        } else {
            Err("a payload where none belongs".to_owned())
        }
    }
}

/// Bytes as they are.
impl Record for Vec<u8> {
    fn encode(&self) -> Vec<u8> {
        self.clone()
    }
    fn decode(payload: &[u8]) -> Result<Vec<u8>, String> {
        Ok(payload.to_vec())
    }
}

/// A counter.
impl Record for u64 {
    fn encode(&self) -> Vec<u8> {
        self.to_le_bytes().to_vec()
    }
    fn decode(payload: &[u8]) -> Result<u64, String> {
        let bytes = payload
            .try_into()
            .map_err(|_| "a counter has eight bytes".to_owned())?;
        Ok(u64::from_le_bytes(bytes))
    }
}

fn checksum(key: &[u8], body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(key), body).to_le_bytes()
}

/// Packs a record for `key` (with its table's tag).
pub(crate) fn seal<R: Record>(key: &[u8], record: &R) -> Vec<u8> {
    seal_payload(key, &record.encode())
}

/// The same for a payload.
pub(crate) fn seal_payload(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(payload);
    let sum = checksum(key, &bytes);
    bytes.extend(sum);
    bytes
}

/// Unpacks what [`seal`] packed.
pub(crate) fn open<R: Record>(key: &[u8], bytes: &[u8]) -> Result<R, Error> {
    R::decode(payload(key, bytes)?).map_err(|reason| corrupt(key, reason))
}

fn corrupt(key: &[u8], reason: String) -> Error {
    Error::Corrupt {
        key: shown(key),
        reason,
    }
}

/// The payload of what proves itself.
pub(crate) fn payload<'b>(key: &[u8], bytes: &'b [u8]) -> Result<&'b [u8], Error> {
    let corrupt = |reason| corrupt(key, reason);
    let body_len = bytes.len().checked_sub(CHECKSUM_BYTES);
    let (body, sum) = bytes.split_at(body_len.ok_or_else(|| corrupt("too short".to_owned()))?);
    if checksum(key, body) != sum {
        return Err(corrupt("its checksum does not match".to_owned()));
    }
    match body.split_first() {
        Some((&VERSION, payload)) => Ok(payload),
        Some((version, _)) => Err(corrupt(format!("version {version} is not known"))),
        None => Err(corrupt("too short".to_owned())),
    }
}

/// A key for messages: the table's name and the components.
pub(crate) fn shown(key: &[u8]) -> String {
    let (tag, rest) = key.split_first().unwrap_or((&0, &[]));
    let parts = rest.split(|&b| b == 0).filter(|part| !part.is_empty());
    let parts: Vec<String> = parts.map(|part| part.escape_ascii().to_string()).collect();
    format!("{} {}", crate::schema::table_name(*tag), parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found() {
        let key = b"\x03default\0name\0";
        let sealed = seal(key, &7_u64);
        assert_eq!(open::<u64>(key, &sealed).expect("whole"), 7);
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            open::<u64>(key, &damaged).expect_err("damaged");
        }
        for length in 0..sealed.len() {
            open::<u64>(key, &sealed[..length]).expect_err("cut");
        }
        open::<u64>(b"\x03default\0other\0", &sealed).expect_err("under another key");
    }
}
