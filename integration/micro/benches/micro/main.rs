//! What the parts of Cairn take, each for itself: to see which of them a change made slower, where a
//! whole import would only say that something did.
//!
//! `integration/bench micro` builds it as it is installed and gives it a fresh file system. By hand,
//! `cargo bench -p cairn-micro --features micro` does, and files are made in `TMPDIR`. What is made up
//! is the same in every run and on every machine.

mod apply;
mod filters;
mod hashes;
mod inflate;
mod layers;
mod records;
mod tars;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    inflate::bench(&mut criterion);
    tars::bench(&mut criterion);
    hashes::bench(&mut criterion);
    apply::bench(&mut criterion);
    filters::bench(&mut criterion);
    records::bench(&mut criterion);
    criterion.final_summary();
}
