//! What failures of this room are made of.

pub use cairn_types::failure::{Failure, Report};

pub(crate) use cairn_types::failure::words;

/// What whoever found no room does first; what was attempted comes after.
pub(crate) const MAKE_ROOM: &str = "cairn df; cairn gc";

/// Bytes for people, in powers of 1024.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (30 << 20, "30.0 MiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
