//! Sizes as people write them.

/// Reads a size: `50M` is 50·10⁶, `50MiB` (or `50Mi`) is 50·2²⁰, a bare number is bytes.
///
/// # Errors
/// What to write instead.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write 50M (10^6) or 50MiB (2^20)");
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let factor: f64 = match unit.trim_end_matches('b') {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "ki" => 1024.0,
        "mi" => 1_048_576.0,
        "gi" => 1_073_741_824.0,
        "ti" => 1_099_511_627_776.0,
        _ => return Err(wrong()),
    };
    let value: f64 = number.parse().map_err(|_| wrong())?;
    let size = (value * factor).round();
    if !(0.0..9.0e18).contains(&size) {
        return Err(wrong());
    }
    // In range by the line above; the fraction is gone by `round`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_read() {
        assert_eq!(parse_bytes("50M"), Ok(50_000_000));
        assert_eq!(parse_bytes("50MiB"), Ok(52_428_800));
        assert_eq!(parse_bytes("1.5k"), Ok(1500));
        assert_eq!(parse_bytes("7"), Ok(7));
        for bad in ["", "M", "-1", "5X", "1e9", "5 0", "99999999T"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
