//! PAX records: what the headers `x` and `g` say in `length key=value` lines.

use std::collections::BTreeMap;

use super::{Problem, Time, sparse::Records as SparseRecords};

/// Extended attributes, by name.
pub(super) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What PAX records say of the next entry, of each key the last.
#[derive(Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    xattrs: Xattrs,
    encoded_xattrs: Xattrs,
    pub(super) sparse: SparseRecords,
}

impl Records {
    /// Adds the records of an `x` header.
    pub(super) fn add(&mut self, body: &[u8]) -> Result<(), Problem> {
        each(body, |key, value| self.set(key, value))
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), Problem> {
        let invalid = || Problem::Value(key.escape_default().to_string());
        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            return self.xattr(name.as_bytes().to_vec(), value.to_vec());
        }
        if let Some(name) = key.strip_prefix("LIBARCHIVE.xattr.") {
            let name = url_decoded(name).ok_or_else(invalid)?;
            let value = base64_decoded(value).ok_or_else(invalid)?;
            check_xattr_name(&name)?;
            self.encoded_xattrs.insert(name, value);
            return Ok(());
        }
        if let Some(key) = key.strip_prefix("GNU.sparse.") {
            return self.sparse.set(key, value).ok_or_else(invalid)?;
        }
        match key {
            "path" => self.path = Some(name(value).ok_or_else(invalid)?),
            "linkpath" => self.link = Some(name(value).ok_or_else(invalid)?),
            "size" => self.size = Some(decimal(value).ok_or_else(invalid)?),
            "uid" => self.uid = Some(decimal(value).ok_or_else(invalid)?),
            "gid" => self.gid = Some(decimal(value).ok_or_else(invalid)?),
            "mtime" => self.mtime = Some(time(value).ok_or_else(invalid)?),
            "atime" => self.atime = Some(time(value).ok_or_else(invalid)?),
            // Nobody can set it, but a damaged one is a damaged header.
            "ctime" => drop(time(value).ok_or_else(invalid)?),
            "SCHILY.devmajor" => self.major = Some(decimal(value).ok_or_else(invalid)?),
            "SCHILY.devminor" => self.minor = Some(decimal(value).ok_or_else(invalid)?),
            "SCHILY.acl.access" | "SCHILY.acl.default" | "SCHILY.acl.ace" => {
                return self.xattr(key.as_bytes().to_vec(), value.to_vec());
            }
            "RHT.security.selinux" => {
                return self.xattr(b"security.selinux".to_vec(), value.to_vec());
            }
            // star's own sparse files, GNU's multi-volume archives and incremental backups: readers
            // that skip these keys give files with other contents.
            "SCHILY.realsize" | "SCHILY.offset" | "GNU.volume.size" | "GNU.volume.offset"
            | "GNU.dumpdir" => {
                return Err(invalid());
            }
            _ => {}
        }
        Ok(())
    }

    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<(), Problem> {
        check_xattr_name(&name)?;
        self.xattrs.insert(name, value);
        Ok(())
    }

    /// Takes the extended attributes out. libarchive writes each one twice; star's way counts, since
    /// containerd knows no other.
    pub(super) fn take_xattrs(&mut self) -> Xattrs {
        let mut xattrs = std::mem::take(&mut self.encoded_xattrs);
        xattrs.append(&mut self.xattrs);
        xattrs
    }
}

fn check_xattr_name(name: &[u8]) -> Result<(), Problem> {
    if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX || name.contains(&0) {
        return Err(Problem::Record("the name of an extended attribute"));
    }
    Ok(())
}

/// `XATTR_NAME_MAX` of the kernel.
const XATTR_NAME_BYTES_MAX: usize = 255;

/// Checks a `g` header: it is ignored, so it must not say what cannot be ignored.
pub(super) fn check_global(body: &[u8]) -> Result<(), Problem> {
    each(body, |key, _| match key {
        "path" | "linkpath" | "size" => Err(Problem::Global(key.to_owned())),
        _ if key.starts_with("GNU.sparse.") => Err(Problem::Global("a sparse map".to_owned())),
        _ => Ok(()),
    })
}

fn each(
    mut rest: &[u8],
    mut record: impl FnMut(&str, &[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    while !rest.is_empty() {
        let (key, value, after) = split(rest).map_err(Problem::Record)?;
        record(key, value)?;
        rest = after;
    }
    Ok(())
}

/// Takes `length SP key = value LF` off the front, the length counting all of it.
fn split(bytes: &[u8]) -> Result<(&str, &[u8], &[u8]), &'static str> {
    const LENGTH_DIGITS_MAX: usize = 20;
    let space = bytes
        .iter()
        .take(LENGTH_DIGITS_MAX + 1)
        .position(|b| *b == b' ')
        .ok_or("no length")?;
    let length = decimal(&bytes[..space]).ok_or("the length is no number")?;
    let length = usize::try_from(length).map_err(|_| "the length is too large")?;
    if length <= space + 1 || length > bytes.len() {
        return Err("the length is wrong");
    }
    let (record, after) = bytes.split_at(length);
    let record = record[space + 1..]
        .strip_suffix(b"\n")
        .ok_or("no newline at its end")?;
    let equals = record
        .iter()
        .position(|b| *b == b'=')
        .ok_or("no equals sign")?;
    let key = std::str::from_utf8(&record[..equals]).map_err(|_| "the key is not UTF-8")?;
    if key.is_empty() || key.contains('\0') {
        return Err("the key is empty or has a NUL byte");
    }
    Ok((key, &record[equals + 1..], after))
}

/// A path: any bytes but NUL, since names are bytes. An empty one would be POSIX's way to withdraw
/// a global record, and we have none to withdraw.
pub(super) fn name(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty() && !value.contains(&0)).then(|| value.to_vec())
}

/// Digits and nothing else.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// `[-]seconds[.fraction]`. What is finer than a nanosecond is cut off, as Go does.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(value) => (true, value),
        None => (false, value),
    };
    let point = value.iter().position(|b| *b == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&value[..point], &value[point + 1..]),
        None => (value, &b""[..]),
    };
    let secs = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanos = digits.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        (true, _) => Time {
            secs: (-secs).checked_sub(1)?,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

fn url_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

/// libarchive writes no padding; one that is there must be at the end.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().position(|b| *b == b'=').unwrap_or(text.len());
    let (digits, padding) = text.split_at(end);
    if padding.len() > 2 || padding.iter().any(|b| *b != b'=') || digits.len() % 4 == 1 {
        return None;
    }
    let mut decoded = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let bits = group.iter().try_fold(0u32, |bits, digit| {
            Some(bits << 6 | u32::from(base64_digit(*digit)?))
        })?;
        let bytes = (bits << (6 * (4 - group.len()))).to_be_bytes();
        decoded.extend_from_slice(&bytes[1..group.len()]);
    }
    Some(decoded)
}

fn base64_digit(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_forward_from_the_second_before() {
        let at = |secs, nanos| Some(Time { secs, nanos });
        assert_eq!(time(b"0"), at(0, 0));
        assert_eq!(time(b"1.5"), at(1, 500_000_000));
        assert_eq!(time(b"1.0000000019"), at(1, 1));
        assert_eq!(time(b"5."), at(5, 0));
        assert_eq!(time(b"-1"), at(-1, 0));
        assert_eq!(time(b"-1.25"), at(-2, 750_000_000));
        assert_eq!(time(b"-0.1"), at(-1, 900_000_000));
        assert_eq!(time(b"9223372036854775807"), at(i64::MAX, 0));
        for bad in [
            "",
            "-",
            ".5",
            "1e-9",
            "NaN",
            "+1",
            "1.2.3",
            "--1",
            "1.-5",
            "9223372036854775808",
        ] {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(time(b"-9223372036854775807.5"), at(i64::MIN, 500_000_000));
    }

    #[test]
    fn libarchive_attributes_are_decoded() {
        assert_eq!(url_decoded("user.a%3Db").as_deref(), Some(&b"user.a=b"[..]));
        assert_eq!(url_decoded("a%zz"), None);
        assert_eq!(url_decoded("a%4"), None);
        assert_eq!(
            base64_decoded(b"AQIDBA").as_deref(),
            Some(&[1, 2, 3, 4][..])
        );
        assert_eq!(
            base64_decoded(b"AQIDBA==").as_deref(),
            Some(&[1, 2, 3, 4][..])
        );
        assert_eq!(base64_decoded(b"").as_deref(), Some(&[][..]));
        assert_eq!(base64_decoded(b"A"), None);
        assert_eq!(base64_decoded(b"A=BC"), None);
        assert_eq!(base64_decoded(b"AQ\n"), None);
    }
}
