//! What a pull or push did, and whom one would ask.

use std::time::Duration;

use super::pairs;
use crate::{
    error::quote,
    model::{Host, Transfer},
    size,
    table::{Cell, Column, Table},
};

/// The summary of a pull.
pub fn pulled(done: &Transfer, unpacked: bool, print_chain: bool) -> String {
    let mut rows = vec![
        ("digest", done.digest.clone()),
        ("fetched", moved(done.fetched_bytes, done, "here")),
    ];
    let layers = match done.layers.len() {
        1 => "1 layer".to_owned(),
        n => format!("{n} layers"),
    };
    rows.push(match done.image.unpacked_size {
        Some(bytes) if unpacked => ("unpacked", format!("{layers}, {}", size::bytes(bytes))),
        _ => ("unpacked", "nothing".to_owned()),
    });
    if print_chain {
        let top = done.layers.last().and_then(|layer| layer.chain_id.clone());
        rows.push(("chain id", top.unwrap_or_else(|| "-".to_owned())));
    }
    format!("pulled {}\n{}", quote(&done.image.name), pairs(&rows))
}

/// The summary of a push.
pub fn pushed(done: &Transfer, name: &str) -> String {
    let rows = [
        ("digest", done.digest.clone()),
        ("sent", moved(done.sent_bytes, done, "there")),
    ];
    format!("pushed {}\n{}", quote(name), pairs(&rows))
}

/// `89.2 MiB in 2.4 s (37.2 MiB/s), 0 B were here already`
fn moved(bytes: u64, done: &Transfer, place: &str) -> String {
    let wall = Duration::from_millis(done.wall_ms);
    let rate = match (bytes, done.wall_ms) {
        (0, _) | (_, 0) => String::new(),
        (bytes, ms) => {
            let rate = u128::from(bytes) * 1000 / u128::from(ms);
            format!(" ({})", size::rate(u64::try_from(rate).unwrap_or(u64::MAX)))
        }
    };
    format!(
        "{} in {}{rate}, {} were {place} already",
        size::bytes(bytes),
        size::duration(wall),
        size::bytes(done.reused_bytes)
    )
}

/// URL CAPABILITIES AUTH PROXY FROM.
pub fn hosts(hosts: &[Host]) -> Table {
    let headers = ["URL", "CAPABILITIES", "AUTH", "PROXY", "FROM"].map(Column::left);
    let mut table = Table::new(&headers);
    for host in hosts {
        table.row(vec![
            Cell::text(&*host.url),
            Cell::text(host.capabilities.join(",")),
            Cell::text(host.auth_source.clone().unwrap_or_default()),
            Cell::text(host.proxy.clone().unwrap_or_default()),
            Cell::text(&*host.from.text),
        ]);
    }
    table
}
