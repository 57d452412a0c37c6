//! What came of it, as a table.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

/// How many times as fast as a peer large blobs are to come and go.
const BULK: f64 = 2.0;

/// One pass over one operation.
pub(crate) struct Measured {
    pub(crate) wall: Duration,
    /// Of the daemon.
    pub(crate) cpu: Duration,
    /// Of every call.
    pub(crate) took: Vec<Duration>,
}

/// All that was measured; rows stay in the order in which they were first met.
#[derive(Default)]
pub(crate) struct Results {
    rows: Vec<Row>,
    bulk: Vec<Bulk>,
    collections: BTreeMap<String, Vec<Duration>>,
}

struct Row {
    op: &'static str,
    clients: usize,
    mark: f64,
    of: BTreeMap<String, Of>,
}

/// Of one daemon.
#[derive(Default)]
struct Of {
    rates: Vec<f64>,
    took: Vec<Duration>,
    cpu: Duration,
}

struct Bulk {
    what: &'static str,
    of: BTreeMap<String, (Vec<f64>, Vec<f64>)>,
}

impl Results {
    pub(crate) fn add(
        &mut self,
        peer: &str,
        (op, clients, mark): (&'static str, usize, f64),
        measured: Measured,
    ) {
        let known = self
            .rows
            .iter()
            .position(|row| (row.op, row.clients) == (op, clients));
        let at = known.unwrap_or_else(|| {
            let of = BTreeMap::new();
            self.rows.push(Row {
                op,
                clients,
                mark,
                of,
            });
            self.rows.len() - 1
        });
        let of = self.rows[at].of.entry(peer.to_owned()).or_default();
        of.rates
            .push(measured.took.len() as f64 / measured.wall.as_secs_f64());
        of.took.extend(measured.took);
        of.cpu += measured.cpu;
    }

    pub(crate) fn bulk(
        &mut self,
        peer: &str,
        what: &'static str,
        (bytes, wall, cpu): (u64, Duration, Duration),
    ) {
        let known = self.bulk.iter().position(|bulk| bulk.what == what);
        let at = known.unwrap_or_else(|| {
            let of = BTreeMap::new();
            self.bulk.push(Bulk { what, of });
            self.bulk.len() - 1
        });
        let of = self.bulk[at].of.entry(peer.to_owned()).or_default();
        of.0.push(bytes as f64 / 1e6 / wall.as_secs_f64());
        of.1.push(cpu.as_secs_f64());
    }

    pub(crate) fn collections(&mut self, peer: &str, took: Vec<Duration>) {
        let of = self.collections.entry(peer.to_owned()).or_default();
        of.extend(took);
    }
}

/// The rates of every round, by operation, number of clients and daemon, of the bulk in MB/s; and how many
/// milliseconds 99 of 100 calls took, and the longest.
pub(crate) fn json(results: &Results) -> serde_json::Value {
    let rows = results.rows.iter().map(|row| {
        let of: BTreeMap<&String, &Vec<f64>> =
            row.of.iter().map(|(peer, of)| (peer, &of.rates)).collect();
        let waits = row.of.iter().map(|(peer, of)| (peer, waits(&of.took)));
        let waits: BTreeMap<&String, serde_json::Value> = waits.collect();
        serde_json::json!({
            "what": row.op, "clients": row.clients, "mark": row.mark, "rates": of, "waits": waits,
        })
    });
    let bulk = results.bulk.iter().map(|bulk| {
        let of: BTreeMap<&String, &Vec<f64>> =
            bulk.of.iter().map(|(peer, of)| (peer, &of.0)).collect();
        serde_json::json!({ "what": bulk.what, "clients": 1, "mark": BULK, "rates": of })
    });
    rows.chain(bulk).collect()
}

fn waits(took: &[Duration]) -> serde_json::Value {
    let mut took = took.to_vec();
    took.sort_unstable();
    let ms = |part: f64| at(&took, part).as_secs_f64() * 1e3;
    serde_json::json!({ "p99": ms(0.99), "max": ms(1.0) })
}

/// Rates with their spread, times of calls, and how many times the first peer is ahead of the others.
pub(crate) fn table(results: &Results, peers: &[&str]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:32} {:>2}  {:11} {:>22} {:>8} {:>8} {:>8} {:>7}  {:>16}  mark",
        "operation",
        "n",
        "",
        "per s min/med/max",
        "p50 ms",
        "p99 ms",
        "max ms",
        "CPU us",
        "times min/med/max",
    );
    for row in &results.rows {
        for (place, peer) in peers.iter().enumerate() {
            let Some(of) = row.of.get(*peer) else {
                continue;
            };
            let mut took = of.took.clone();
            took.sort_unstable();
            let ms = |part: f64| at(&took, part).as_secs_f64() * 1e3;
            let (op, clients) = match place {
                0 => (row.op, row.clients.to_string()),
                _ => ("", String::new()),
            };
            let _ = writeln!(
                text,
                "{op:32} {clients:>2}  {peer:11} {:>22} {:>8.2} {:>8.2} {:>8.2} {:>7.0}  {}",
                spread(&of.rates, 0),
                ms(0.5),
                ms(0.99),
                ms(1.0),
                of.cpu.as_secs_f64() * 1e6 / of.took.len().max(1) as f64,
                ahead(
                    row.of.get(peers[0]).map(|first| &first.rates),
                    &of.rates,
                    row.mark,
                    place
                ),
            );
        }
    }
    for bulk in &results.bulk {
        for (place, peer) in peers.iter().enumerate() {
            let Some((rates, cpu)) = bulk.of.get(*peer) else {
                continue;
            };
            let what = if place == 0 { bulk.what } else { "" };
            let first = bulk.of.get(peers[0]).map(|(rates, _)| rates);
            let _ = writeln!(
                text,
                "{what:32} {:>2}  {peer:11} {:>17} MB/s  CPU s {:>17}  {}",
                if place == 0 { "1" } else { "" },
                spread(rates, 0),
                spread(cpu, 2),
                ahead(first, rates, BULK, place),
            );
        }
    }
    for (peer, took) in &results.collections {
        let mut took = took.clone();
        took.sort_unstable();
        let ms = |part| at(&took, part).as_secs_f64() * 1e3;
        let _ = writeln!(
            text,
            "{peer}: {} collections meanwhile, p50 {:.0} ms, max {:.0} ms",
            took.len(),
            ms(0.5),
            ms(1.0),
        );
    }
    text
}

/// How far the first is ahead of another, round by round, and whether that is as far as wanted.
fn ahead(first: Option<&Vec<f64>>, other: &[f64], mark: f64, place: usize) -> String {
    let Some(first) = first.filter(|_| place > 0) else {
        return String::new();
    };
    let ratios: Vec<f64> = first.iter().zip(other).map(|(a, b)| a / b).collect();
    let met = if median(&ratios) >= mark {
        "met"
    } else {
        "missed"
    };
    format!("{:>16}  {mark:.0}: {met}", spread(&ratios, 1))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn spread(values: &[f64], digits: usize) -> String {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(0.0, f64::max);
    let median = median(values);
    format!("{min:.digits$}/{median:.digits$}/{max:.digits$}")
}

/// The value below which `part` of all sorted ones are.
fn at(sorted: &[Duration], part: f64) -> Duration {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let index = (sorted.len() as f64 * part) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(index.min(last)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_a_row() {
        let sorted: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(at(&sorted, 0.5), Duration::from_millis(51));
        assert_eq!(at(&sorted, 0.99), Duration::from_millis(100));
        assert_eq!(at(&sorted, 1.0), Duration::from_millis(100));
        assert_eq!(at(&[], 0.5), Duration::ZERO);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let (first, other) = (vec![20.0, 90.0, 40.0], [10.0, 30.0, 40.0]);
        assert_eq!(
            ahead(Some(&first), &other, 2.0, 1).trim(),
            "1.0/2.0/3.0  2: met"
        );
        assert_eq!(
            ahead(Some(&first), &other, 2.1, 1).trim(),
            "1.0/2.0/3.0  2: missed"
        );
    }
}
