//! How numbers are written for people, and read from them: sizes in powers of 1024, rates,
//! durations, ages, times.
//!
//! Pure text; machines get integers and RFC 3339 with nanoseconds instead.

use std::time::Duration;

pub use cairn_types::size::parse_bytes;
use jiff::Timestamp;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Bytes in IEC units: whole below 1 KiB, one decimal from there, never more than four digits.
pub fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    // Tenths are computed in integers, so that the text does not depend on float rounding.
    let n = u128::from(n);
    for (power, unit) in (1_u32..).zip(UNITS) {
        let one = 1_u128 << (10 * power);
        let tenths = (n * 10 + one / 2) / one;
        if tenths < 10_000 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        // 1000.0 to 1023.9 would be five digits; the decimal goes, not the unit.
        let whole = (n + one / 2) / one;
        if whole < 1024 {
            return format!("{whole} {unit}");
        }
    }
    format!("{} EiB", n >> 60)
}

/// Bytes per second, as `41.8 MiB/s`.
pub fn rate(per_second: u64) -> String {
    format!("{}/s", bytes(per_second))
}

/// `part` of `whole` in percent, rounded; nothing of nothing is 0.
pub fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 0;
    }
    let (part, whole) = (u128::from(part), u128::from(whole));
    u64::try_from((part * 100 + whole / 2) / whole).unwrap_or(u64::MAX)
}

/// `12 ms`, `2.4 s`, `1 min 05 s`, `1 h 02 min`.
pub fn duration(d: Duration) -> String {
    let ms = d.as_millis();
    let tenths = (ms + 50) / 100;
    let seconds = (ms + 500) / 1000;
    match () {
        () if ms < 1000 => format!("{ms} ms"),
        () if tenths < 600 => format!("{}.{} s", tenths / 10, tenths % 10),
        () if seconds < 3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        () => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Time since `then` in its one largest unit, as `3 days ago`; the future counts as now.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    format!("{} ago", largest_unit(seconds))
}

/// Time until `then` in its one largest unit, as `in 23 hours`; the past is `expired`.
pub fn remaining(then: Timestamp, now: Timestamp) -> String {
    let seconds = then.as_second().saturating_sub(now.as_second());
    match seconds {
        ..=0 => "expired".to_owned(),
        seconds => format!("in {}", largest_unit(seconds)),
    }
}

fn largest_unit(seconds: i64) -> String {
    const STEPS: [(i64, &str); 6] = [
        (31_536_000, "year"),
        (2_592_000, "month"),
        (604_800, "week"),
        (86_400, "day"),
        (3_600, "hour"),
        (60, "minute"),
    ];
    // Two weeks and more are weeks; between one and two, days say more.
    let fits = |&&(step, unit): &&(i64, &str)| seconds >= step * if unit == "week" { 2 } else { 1 };
    let (count, unit) = STEPS
        .iter()
        .find(fits)
        .map_or((seconds, "second"), |(step, unit)| (seconds / step, *unit));
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// RFC 3339 in UTC to the second, for people.
pub fn time(t: Timestamp) -> String {
    format!("{}", t.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

/// RFC 3339 in UTC with nanoseconds, for machines.
pub fn time_exact(t: Timestamp) -> String {
    format!("{}", t.strftime("%Y-%m-%dT%H:%M:%S.%9NZ"))
}

/// Reads a duration as Go writes it: `500ms`, `5s`, `1m30s`, `24h`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 500ms, 5s, 1m30s or 24h");
    if text.is_empty() {
        return Err(wrong());
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let word = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .map_or(after, |end| &after[..end]);
        let seconds = match word {
            "ms" => 0.001,
            "s" | "" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        let value: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(value * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &after[word.len()..];
    }
    Ok(total)
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_iec_with_at_most_four_digits() {
        for (n, text) in [
            (0, "0 B"),
            (349, "349 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_084_789, "1.0 MiB"),
            (1_022_361, "998.4 KiB"),
            (1_024_000, "1000 KiB"),
            (1_048_575, "1.0 MiB"),
            (253_440_819, "241.7 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(n), text, "{n}");
        }
        assert_eq!(rate(43_830_477), "41.8 MiB/s");
        assert_eq!((percent(1, 90), percent(0, 0), percent(5, 10)), (1, 0, 50));
    }

    #[test]
    fn durations_as_in_the_page() {
        for (ms, text) in [
            (12, "12 ms"),
            (400, "400 ms"),
            (2_400, "2.4 s"),
            (59_940, "59.9 s"),
            (59_960, "1 min 00 s"),
            (65_000, "1 min 05 s"),
            (3_725_000, "1 h 02 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), text, "{ms}");
        }
    }

    #[test]
    fn ages_have_one_unit() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().expect("time");
        for (seconds, text) in [
            (-5, "0 seconds ago"),
            (1, "1 second ago"),
            (5, "5 seconds ago"),
            (119, "1 minute ago"),
            (3 * 86_400, "3 days ago"),
            (13 * 86_400, "13 days ago"),
            (15 * 86_400, "2 weeks ago"),
            (40 * 86_400, "1 month ago"),
            (800 * 86_400, "2 years ago"),
        ] {
            let then = Timestamp::from_second(now.as_second() - seconds).expect("time");
            assert_eq!(age(then, now), text, "{seconds}");
        }
    }

    #[test]
    fn times_for_people_and_machines() {
        let t: Timestamp = "2026-11-22T04:30:39.000000012Z".parse().expect("time");
        assert_eq!(time(t), "2026-11-22T04:30:39Z");
        assert_eq!(time_exact(t), "2026-11-22T04:30:39.000000012Z");
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        for bad in ["", "s", "5y", "-5s", "1..2s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
