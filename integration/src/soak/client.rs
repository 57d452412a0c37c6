//! One client: a process that does one piece of work after the other, each under a lease of its own,
//! until it is told to stop or is killed in the middle.
//!
//! It says on standard output what it has done and what it found wrong, a line each, so that the one
//! who started it loses nothing when it is killed.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    DONE, FAULT, STARTED,
    api::{Api, Verdict, good, map},
    work,
};
use crate::fault::Dice;
use cairn_proto::containerd::services::leases::v1::{CreateRequest, DeleteRequest};

/// How long what a killed client held is kept, in seconds.
const LEASE_SECONDS: i64 = 600;
/// The same where leases are to end meanwhile; longer than any piece of work.
const SHORT_LEASE_SECONDS: i64 = 120;

/// Who it is.
#[derive(Debug)]
pub struct Who {
    /// Where the daemon listens.
    pub socket: String,
    /// Its namespace.
    pub ns: String,
    /// What its names begin with; of one life of one client.
    pub name: String,
    /// Where its dice begin.
    pub seed: u64,
    /// Where it mounts.
    pub dir: PathBuf,
    /// The registry of the images that all share; empty where there is none, and everything is done.
    pub registry: String,
}

/// What a piece of work needs.
pub(super) struct Desk {
    /// Under the lease of this piece of work.
    pub(super) api: Api,
    /// Chance.
    pub(super) dice: Dice,
    /// What names begin with.
    pub(super) name: String,
    /// Where to mount.
    pub(super) dir: PathBuf,
    /// Of the images that all share.
    pub(super) registry: String,
}

impl Desk {
    /// Bytes that nobody else has.
    pub(super) fn noise(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = format!("{} ", self.name).into_bytes();
        while bytes.len() < length {
            let word = self.dice.roll(usize::MAX);
            bytes.extend(word.to_le_bytes());
        }
        bytes.truncate(length.max(1));
        bytes
    }
}

/// Works until standard input ends. Whether nothing was wrong.
#[allow(clippy::print_stdout, reason = "that is how it reports")]
pub fn run(who: &Who) -> bool {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    std::thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    println!("{STARTED}");
    match runtime.block_on(works(who, &stop)) {
        Ok(()) => true,
        Err(reason) => {
            println!("{FAULT} {}: {reason}", who.name);
            false
        }
    }
}

#[allow(clippy::print_stdout, reason = "that is how it reports")]
async fn works(who: &Who, stop: &AtomicBool) -> Verdict {
    let api = Api::connect(&who.socket, &who.ns).await?;
    let mut dice = Dice(who.seed);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (kind, work) = work::choose(&mut dice, &who.registry);
        let name = format!("{}-{number}", who.name);
        let mut desk = Desk {
            api: api.clone(),
            dice: Dice(dice.roll(usize::MAX) as u64 | 1),
            name,
            dir: who.dir.clone(),
            registry: who.registry.clone(),
        };
        leased(&mut desk, work)
            .await
            .map_err(|reason| format!("{kind}: {reason}"))?;
        println!("{DONE} {kind}");
    }
    Ok(())
}

/// Does a piece of work under a lease, and gives that back.
async fn leased(desk: &mut Desk, work: work::Work) -> Verdict {
    let plain = desk.api.clone();
    let lease = format!("lease-{}", desk.name);
    let expire = expiry(match desk.registry.is_empty() {
        true => LEASE_SECONDS,
        false => SHORT_LEASE_SECONDS,
    });
    let request = CreateRequest {
        id: lease.clone(),
        labels: map(&[("containerd.io/gc.expire", &expire)]),
    };
    good("create lease", plain.leases().create(request).await)?;
    desk.api = plain.under(&lease);
    work(desk).await?;
    let request = DeleteRequest {
        id: lease,
        sync: desk.dice.roll(3) == 0,
    };
    good("delete lease", plain.leases().delete(request).await)?;
    Ok(())
}

fn expiry(seconds: i64) -> String {
    let now = jiff::Timestamp::now();
    let end = now.as_second() + seconds;
    jiff::Timestamp::from_second(end)
        .expect("this century")
        .to_string()
}
