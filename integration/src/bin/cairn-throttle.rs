//! Stands before a registry and lets each connection have so many bytes a second. `integration/bench pull`
//! starts it.

use std::{io::Read, process::ExitCode};

use cairn_integration::fault_proxy::Proxy;

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "its output")]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match &words[..] {
        [upstream, rate] => upstream.parse().ok().zip(rate.parse().ok()),
        _ => None,
    };
    let Some((upstream, rate)) = parsed else {
        eprintln!("usage: cairn-throttle ADDRESS:PORT BYTES-A-SECOND");
        return ExitCode::from(2);
    };
    let proxy = Proxy::start(upstream);
    proxy.throttle(rate);
    println!("{}", proxy.host());
    // Until whoever started it closes its standard input, or ends.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    ExitCode::SUCCESS
}
