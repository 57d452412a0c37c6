//! What is measured, one operation after the other.

use std::{
    error::Error,
    fs, io,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use tonic::Status;

use crate::{
    Peer,
    client::{CHUNK, Client, named, sha256},
    report::{Measured, Results},
};

/// How many times as many reads as changes there are.
const READS: usize = 8;

/// The operations in the order in which they build on one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Content,
    Prepare,
    Commit,
    PrepareOnParent,
    Info,
    Stat,
    Mounts,
    Remove,
    Image,
}

impl Op {
    const ALL: [Op; 9] = [
        Op::Content,
        Op::Prepare,
        Op::Commit,
        Op::PrepareOnParent,
        Op::Info,
        Op::Stat,
        Op::Mounts,
        Op::Remove,
        Op::Image,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Op::Content => "content write and commit, 1 KiB",
            Op::Prepare => "snapshot prepare",
            Op::Commit => "snapshot commit",
            Op::PrepareOnParent => "snapshot prepare on a parent",
            Op::Info => "content info",
            Op::Stat => "snapshot stat",
            Op::Mounts => "snapshot mounts",
            Op::Remove => "snapshot remove",
            Op::Image => "image create",
        }
    }

    fn reads(self) -> bool {
        matches!(self, Op::Info | Op::Stat | Op::Mounts)
    }

    /// How many times as many calls as the peer are wanted with so many clients.
    fn mark(self, clients: usize) -> f64 {
        match (self.reads(), clients) {
            (true, _) | (false, 1) => 2.0,
            (false, _) => 10.0,
        }
    }
}

/// One pass of one daemon with so many clients.
pub(crate) struct Round<'r> {
    pub(crate) peer: &'r Peer,
    pub(crate) clients: &'r [Client],
    /// Part of every name, so that none comes twice.
    pub(crate) tag: String,
    pub(crate) count: usize,
    pub(crate) only: &'r str,
    pub(crate) results: &'r mut Results,
}

impl Round<'_> {
    pub(crate) async fn run(&mut self) -> Result<(), Box<dyn Error>> {
        // One client alone would measure too little in the time that many take.
        let changes = match self.clients.len() {
            1 => self.count * 2,
            many => self.count * many,
        };
        for op in Op::ALL {
            let total = if op.reads() { changes * READS } else { changes };
            let errand = |n: usize| Errand::of(op, &self.tag, n % changes);
            let measured = self.measure(total, errand, perform).await?;
            if op.name().starts_with(self.only) {
                let marked = (op.name(), self.clients.len(), op.mark(self.clients.len()));
                self.results.add(&self.peer.name, marked, measured);
            }
        }
        // The next round shall find the store as this one did.
        let left = |n: usize| Left::of(&self.tag, n);
        self.measure(changes, left, tidy).await?;
        Ok(())
    }

    /// Has the clients do `total` errands between them. What to ask for is made up before the clock
    /// starts: names and digests are no work of the daemon's.
    async fn measure<E, W, F>(
        &self,
        total: usize,
        errand: impl Fn(usize) -> E,
        work: W,
    ) -> Result<Measured, Box<dyn Error>>
    where
        E: Send + 'static,
        W: Fn(Client, E) -> F + Copy + Send + 'static,
        F: Future<Output = Result<Client, Status>> + Send + 'static,
    {
        let at_once = self.clients.len();
        let numbers = |first: usize| (first..total).step_by(at_once);
        let errands = (0..at_once).map(|first| numbers(first).map(&errand).collect());
        let errands: Vec<Vec<E>> = errands.collect();
        let cpu = cpu_of(self.peer.pid)?;
        let began = Instant::now();
        let mut all = Vec::with_capacity(at_once);
        for (client, errands) in self.clients.iter().zip(errands) {
            let mut client = client.clone();
            all.push(tokio::spawn(async move {
                let mut took = Vec::with_capacity(errands.len());
                for errand in errands {
                    let began = Instant::now();
                    client = work(client, errand).await?;
                    took.push(began.elapsed());
                }
                Ok::<_, Status>(took)
            }));
        }
        let mut took = Vec::with_capacity(total);
        for one in all {
            took.extend(one.await??);
        }
        Ok(Measured {
            wall: began.elapsed(),
            cpu: cpu_of(self.peer.pid)?.saturating_sub(cpu),
            took,
        })
    }
}

fn blob(tag: &str, n: usize) -> Vec<u8> {
    let mut bytes = format!("{tag} {n} ").into_bytes();
    bytes.resize(1 << 10, b'.');
    bytes
}

/// One call, or in the case of content the three that a blob takes.
enum Errand {
    Write {
        reference: String,
        digest: String,
        bytes: Vec<u8>,
    },
    Prepare {
        key: String,
        parent: String,
    },
    Commit {
        name: String,
        key: String,
    },
    Info(String),
    Stat(String),
    Mounts(String),
    Remove(String),
    Image(String),
}

impl Errand {
    fn of(op: Op, tag: &str, n: usize) -> Errand {
        let active = || format!("active-{tag}-{n}");
        let layer = || format!("layer-{tag}-{n}");
        let top = || format!("top-{tag}-{n}");
        match op {
            Op::Content => {
                let bytes = blob(tag, n);
                Errand::Write {
                    reference: format!("upload-{tag}-{n}"),
                    digest: sha256(&bytes),
                    bytes,
                }
            }
            Op::Prepare => Errand::Prepare {
                key: active(),
                parent: String::new(),
            },
            Op::Commit => Errand::Commit {
                name: layer(),
                key: active(),
            },
            Op::PrepareOnParent => Errand::Prepare {
                key: top(),
                parent: layer(),
            },
            Op::Info => Errand::Info(sha256(&blob(tag, n))),
            Op::Stat => Errand::Stat(layer()),
            Op::Mounts => Errand::Mounts(top()),
            Op::Remove => Errand::Remove(top()),
            Op::Image => Errand::Image(image(tag, n)),
        }
    }
}

fn image(tag: &str, n: usize) -> String {
    format!("localhost/{tag}:{n}")
}

async fn perform(mut client: Client, errand: Errand) -> Result<Client, Status> {
    match errand {
        Errand::Write {
            reference,
            digest,
            bytes,
        } => {
            let pieces = std::iter::once(bytes);
            client.write(reference, &digest, 1 << 10, pieces).await?;
        }
        Errand::Prepare { key, parent } => {
            client.prepare(key, parent).await?;
        }
        Errand::Commit { name, key } => client.commit(name, key).await?,
        Errand::Info(digest) => client.info(digest).await?,
        Errand::Stat(key) => client.stat(key).await?,
        Errand::Mounts(key) => client.mounts(key).await?,
        Errand::Remove(key) => client.remove(key).await?,
        Errand::Image(name) => client.create_image(name).await?,
    }
    Ok(client)
}

/// What all operations together leave of one number.
struct Left {
    layer: String,
    digest: String,
    image: String,
}

impl Left {
    fn of(tag: &str, n: usize) -> Left {
        Left {
            layer: format!("layer-{tag}-{n}"),
            digest: sha256(&blob(tag, n)),
            image: image(tag, n),
        }
    }
}

/// Takes it away.
async fn tidy(mut client: Client, left: Left) -> Result<Client, Status> {
    client.remove(left.layer).await?;
    client.delete_blob(left.digest).await?;
    client.delete_image(left.image, false).await?;
    Ok(client)
}

/// Writes, reads and deletes one large blob.
pub(crate) async fn bulk(
    peer: &Peer,
    client: &Client,
    mebibytes: u64,
    number: usize,
    results: &mut Results,
) -> Result<(), Box<dyn Error>> {
    let mut client = client.clone();
    let mut noise = vec![0_u8; CHUNK];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut noise))?;
    let piece = |n: u64| {
        let mut piece = noise.clone();
        piece[..8].copy_from_slice(&n.to_le_bytes());
        piece
    };
    let mut hash = Sha256::new();
    for n in 0..mebibytes {
        hash.update(piece(n));
    }
    let digest = named(hash);
    let bytes = mebibytes << 20;
    let total = i64::try_from(bytes)?;
    let reference = format!("bulk-{number}");

    let cpu = cpu_of(peer.pid)?;
    let began = Instant::now();
    let pieces = (0..mebibytes).map(piece);
    client.write(reference, &digest, total, pieces).await?;
    let written = began.elapsed();
    let cpu_written = cpu_of(peer.pid)?;
    results.bulk(
        &peer.name,
        "blob write",
        (bytes, written, cpu_written - cpu),
    );

    let began = Instant::now();
    let read = client.read(&digest, 0, 0).await?;
    if read != bytes {
        return Err(format!("{} gave {read} bytes of {bytes}", peer.name).into());
    }
    let cpu_read = cpu_of(peer.pid)?;
    results.bulk(
        &peer.name,
        "blob read, one stream",
        (bytes, began.elapsed(), cpu_read - cpu_written),
    );

    let began = Instant::now();
    for offset in (0..total).step_by(CHUNK) {
        client.read(&digest, offset, CHUNK as i64).await?;
    }
    let cpu_pieces = cpu_of(peer.pid)?;
    results.bulk(
        &peer.name,
        "blob read, by 1 MiB",
        (bytes, began.elapsed(), cpu_pieces - cpu_read),
    );
    client.delete_blob(digest).await?;
    Ok(())
}

/// What a process has used so far, in the ticks of the kernel.
fn cpu_of(pid: u32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything.
    let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let mut fields = rest.split(' ').skip(11);
    let mut next = || fields.next().and_then(|field| field.parse::<u64>().ok());
    let ticks = next().unwrap_or(0) + next().unwrap_or(0);
    Ok(Duration::from_millis(
        ticks * 1000 / rustix::param::clock_ticks_per_second(),
    ))
}
