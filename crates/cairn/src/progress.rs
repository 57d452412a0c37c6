//! Long work as seen from outside: bars for a person, lines for a log, objects for a program.
//!
//! The texts are pure functions; `indicatif` only places them on the terminal, at most ten times a
//! second.

use std::time::Duration;

use crate::{
    model::TimingMs,
    size,
    table::{printable, short_digest},
};

mod rate;
mod screen;
mod show;
mod state;

pub use show::{Mode, Show};

/// Cells of a bar.
const BAR: u64 = 20;

/// Columns that a size such as `28.2 MiB` takes at least.
const SIZE_WIDTH: usize = 8;

/// Columns that a rate such as `41.8 MiB/s` takes at least.
const RATE_WIDTH: usize = 10;

/// A layer or the total at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line<'t> {
    /// 12 columns.
    pub label: &'t str,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes per second, when it moves.
    pub rate: Option<u64>,
    /// Phase, or the time left.
    pub note: &'t str,
}

impl Line<'_> {
    /// As on a terminal, without a line end.
    pub fn render(&self) -> String {
        let filled = if self.total == 0 {
            BAR
        } else {
            let (done, total) = (
                u128::from(self.done.min(self.total)),
                u128::from(self.total),
            );
            let cells = (done * u128::from(BAR) * 2 + total) / (total * 2);
            u64::try_from(cells).unwrap_or(BAR)
        };
        let bar: String = (0..BAR)
            .map(|i| if i < filled { '━' } else { '─' })
            .collect();
        let (done, total) = (size::bytes(self.done), size::bytes(self.total));
        let rate = self.rate.map(size::rate).unwrap_or_default();
        format!(
            "  {:12}  {bar}  {done:>SIZE_WIDTH$} / {total:SIZE_WIDTH$}  {rate:>RATE_WIDTH$}  {}",
            self.label, self.note
        )
    }
}

/// 12 hex digits, for the first column.
pub fn label(digest: &str) -> String {
    let short = short_digest(digest);
    short
        .split_once(':')
        .map_or(&*short, |(_, hex)| hex)
        .to_owned()
}

/// The line above the layers. What is exported is all blobs, on no platform.
pub fn headline(verb: &str, name: &str, platform: &str, blobs: usize, bytes: u64) -> String {
    let noun = if verb == "export" { "blob" } else { "layer" };
    let plural = if blobs == 1 { "" } else { "s" };
    let gap = if platform.is_empty() { "" } else { "  " };
    let (name, bytes) = (printable(name), size::bytes(bytes));
    if verb == "fsck" {
        return format!("{verb} {name}  {bytes}");
    }
    format!("{verb} {name}{gap}{platform}  {blobs} {noun}{plural}  {bytes}")
}

/// `1 s left, 2 s`: what is left by the present rate, and what has passed.
pub fn remaining(left: u64, rate: Option<u64>, passed: Duration) -> String {
    match rate {
        Some(rate) if rate > 0 && left > 0 => {
            format!("{} s left, {} s", left.div_ceil(rate), passed.as_secs())
        }
        _ => format!("{} s", passed.as_secs()),
    }
}

/// In a layer's place for a phase: its bytes go on from where they were.
pub fn resumed(at: u64) -> String {
    format!("resumed at {}", size::bytes(at))
}

/// In a layer's place for a phase: a request failed, and will be made again.
pub fn retry((next, most): (u32, u32), wait: Duration, host: &str, cause: &str) -> String {
    let wait = match wait.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        ms => format!("{} s", ms.div_ceil(1000)),
    };
    // Some causes begin with the host.
    let cause = cause
        .strip_prefix(host)
        .map_or(cause, |rest| rest.trim_start_matches([':', ' ']));
    let (host, cause) = (printable(host), printable(cause));
    format!("retry {next} of {most} in {wait} ({host}: {cause})")
}

/// What the time of layers went into, one after the other.
pub fn parts(timing: TimingMs) -> String {
    let TimingMs {
        fetch,
        inflate,
        untar,
        sync,
        commit,
    } = timing;
    let parts = [
        ("fetch", fetch),
        ("inflate", inflate),
        ("untar", untar),
        ("sync", sync),
        ("commit", commit),
    ];
    parts
        .map(|(name, ms)| format!("{name} {}", size::duration(Duration::from_millis(ms))))
        .join(", ")
}

/// The sums of all layers that were unpacked; `None` without any. They were so side by side, so less time
/// may have passed.
pub fn took(layers: &[TimingMs]) -> Option<String> {
    let sum = layers.iter().copied().reduce(|a, b| TimingMs {
        fetch: a.fetch.saturating_add(b.fetch),
        inflate: a.inflate.saturating_add(b.inflate),
        untar: a.untar.saturating_add(b.untar),
        sync: a.sync.saturating_add(b.sync),
        commit: a.commit.saturating_add(b.commit),
    })?;
    let plural = if layers.len() == 1 { "" } else { "s" };
    Some(format!(
        "{} layer{plural} took {}",
        layers.len(),
        parts(sum)
    ))
}

/// One line of `--progress=plain`.
pub fn plain(verb: &str, name: &str, phase: &str, done: u64, total: u64) -> String {
    let percent = size::percent(done, total);
    let (name, done, total) = (printable(name), size::bytes(done), size::bytes(total));
    format!("{verb} {name}: {phase} {done} of {total} ({percent}%)")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tenths of a MiB, rounded down to bytes.
    const fn mib(tenths: u64) -> u64 {
        tenths * 1_048_576 / 10
    }

    #[test]
    fn the_example_of_a_pull() {
        let line = |label, done, total, rate, note| {
            Line {
                label,
                done,
                total,
                rate,
                note,
            }
            .render()
        };
        let first = "sha256:a3ed95caeb02ffffffffffffffffffffffffffffffffffffffffffffffffffff";
        let web = "registry.example.com/shop/web:2.1";
        let left = remaining(mib(286), Some(mib(630)), Duration::from_millis(2_100));
        let text = [
            headline("pull", web, "linux/amd64", 3, mib(892)),
            line(&label(first), mib(282), mib(282), None, "done"),
            line(
                "7b4d3f10c6aa",
                mib(324),
                mib(610),
                Some(mib(418)),
                "fetch + unpack",
            ),
            line("e19c44b0d5f8", 0, 1331, None, "waiting"),
            line("total 1 of 3", mib(606), mib(892), Some(mib(630)), &left),
        ]
        .join("\n");
        assert_eq!(
            text,
            "\
pull registry.example.com/shop/web:2.1  linux/amd64  3 layers  89.2 MiB
  a3ed95caeb02  ━━━━━━━━━━━━━━━━━━━━  28.2 MiB / 28.2 MiB              done
  7b4d3f10c6aa  ━━━━━━━━━━━─────────  32.4 MiB / 61.0 MiB  41.8 MiB/s  fetch + unpack
  e19c44b0d5f8  ────────────────────       0 B / 1.3 KiB               waiting
  total 1 of 3  ━━━━━━━━━━━━━━──────  60.6 MiB / 89.2 MiB  63.0 MiB/s  1 s left, 2 s"
        );
    }

    #[test]
    fn the_examples_of_what_went_wrong() {
        assert_eq!(resumed(12 << 20), "resumed at 12.0 MiB");
        let (second, host) = ((2, 5), "mirror.example.com");
        let expected = "retry 2 of 5 in 3 s (mirror.example.com: timed out)";
        for cause in ["timed out", "mirror.example.com: timed out"] {
            let wait = Duration::from_millis(2_600);
            assert_eq!(retry(second, wait, host, cause), expected);
        }
    }

    #[test]
    fn the_example_of_a_plain_line() {
        assert_eq!(
            plain(
                "pull",
                "registry.example.com/shop/web:2.1",
                "fetched",
                mib(450),
                mib(892)
            ),
            "pull registry.example.com/shop/web:2.1: fetched 45.0 MiB of 89.2 MiB (50%)"
        );
    }
}
