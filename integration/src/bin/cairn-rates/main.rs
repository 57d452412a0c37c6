//! How many calls a second a daemon answers over its socket, and how long each takes: Cairn beside
//! containerd, by the same clients, in turns.
//!
//! The clients do what containerd's Go client does: a blob is written in three messages (open, bytes,
//! commit), each sent when the last was answered, and large ones go and come by one MiB. Every client
//! has a connection of its own. What is made carries the label of a root, so that no collection takes
//! it away in between.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

mod client;
mod collect;
mod report;
mod wire;
mod work;

use std::{error::Error, path::PathBuf, process::ExitCode, str::FromStr};

use clap::Parser;

use self::{client::Client, collect::Collecting, report::Results, work::Round};

/// A daemon to be measured.
#[derive(Clone, Debug)]
struct Peer {
    name: String,
    socket: PathBuf,
    pid: u32,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Peer, String> {
        let wrong = || format!("{text:?} is not NAME,PID,SOCKET");
        let mut parts = text.splitn(3, ',');
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let (Some(name), Some(pid), Some(socket)) = (next(), next(), next()) else {
            return Err(wrong());
        };
        Ok(Peer {
            name: name.to_owned(),
            pid: pid.parse().map_err(|_| wrong())?,
            socket: socket.into(),
        })
    }
}

/// Measures daemons that serve containerd's API.
#[derive(Parser)]
struct Options {
    /// NAME,PID,SOCKET; the first is compared with each of the others
    #[arg(long = "peer", required = true)]
    peers: Vec<Peer>,
    /// How often everything is measured, in turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Clients at once, each number for itself
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    clients: Vec<usize>,
    /// Changes of each kind per round and client; reads are eight times as many
    #[arg(long, default_value_t = 200)]
    count: usize,
    /// The same of all peers but the first; as many when it is not said
    #[arg(long)]
    count_others: Option<usize>,
    /// Bytes of the large blob in MiB; none is written when it is 0
    #[arg(long, default_value_t = 512)]
    bulk: u64,
    /// Measure while garbage is collected without a pause, over these many snapshots
    #[arg(long, default_value_t = 0)]
    snapshots: usize,
    /// And these many blobs
    #[arg(long, default_value_t = 0)]
    blobs: usize,
    /// Fill the daemons with these snapshots and blobs, and so many images, and measure nothing
    #[arg(long)]
    fill: Option<usize>,
    /// Where the rates are written as JSON, too
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only operations whose names begin so
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // One thread: the clients shall take as little as possible from those who are measured.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(&options)),
        Err(err) => Err(err.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    if let Some(images) = options.fill {
        for peer in &options.peers {
            collect::fill(&peer.socket, options.snapshots, options.blobs).await?;
            collect::images(&peer.socket, images).await?;
        }
        return Ok(());
    }
    let collecting = options.snapshots + options.blobs > 0;
    let mut connected = Vec::new();
    for peer in &options.peers {
        let most = options.clients.iter().copied().max().unwrap_or(1);
        let clients = Client::connect(&peer.socket, most).await?;
        if collecting {
            let began = std::time::Instant::now();
            collect::fill(&peer.socket, options.snapshots, options.blobs).await?;
            eprintln!(
                "filled {} in {:.0} s",
                peer.name,
                began.elapsed().as_secs_f64()
            );
        }
        connected.push((peer, clients));
    }
    let mut results = Results::default();
    let first = &options.peers[0].name;
    for number in 0..options.rounds {
        // Who begins changes from round to round.
        let turn = number % connected.len();
        for (peer, clients) in connected[turn..].iter().chain(&connected[..turn]) {
            let background = match collecting {
                true => Some(Collecting::start(&peer.socket).await?),
                false => None,
            };
            let others = options.count_others.unwrap_or(options.count);
            let count = if peer.name == *first {
                options.count
            } else {
                others
            };
            for &at_once in &options.clients {
                let mut round = Round {
                    peer,
                    clients: &clients[..at_once],
                    tag: format!("{number}-{at_once}"),
                    count,
                    only: &options.only,
                    results: &mut results,
                };
                round.run().await?;
            }
            if options.bulk > 0 {
                let bulk = work::bulk(peer, &clients[0], options.bulk, number, &mut results);
                bulk.await?;
            }
            if let Some(background) = background {
                results.collections(&peer.name, background.stop().await?);
            }
            eprintln!("round {} {}", number + 1, peer.name);
        }
    }
    let names: Vec<&str> = options.peers.iter().map(|peer| &*peer.name).collect();
    print!("{}", report::table(&results, &names));
    if let Some(out) = &options.out {
        std::fs::write(out, report::json(&results).to_string())?;
    }
    Ok(())
}
