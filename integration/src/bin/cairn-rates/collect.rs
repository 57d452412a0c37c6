//! A store with much in it, and garbage collections that follow one another without a pause.

use std::{
    error::Error,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use tonic::Status;

use crate::client::Client;

/// So many share a flush where flushes are shared.
const CLIENTS: usize = 64;
/// Snapshots in one stack, as of an image with so many layers.
const STACK: usize = 10;

/// Fills a store with stacks of committed snapshots, and with blobs.
pub(crate) async fn fill(
    socket: &Path,
    snapshots: usize,
    blobs: usize,
) -> Result<(), Box<dyn Error>> {
    let clients = Client::connect(socket, CLIENTS).await?;
    let all = clients.into_iter().enumerate().map(|(first, client)| {
        tokio::spawn(async move {
            let client = stacks(client, (first..snapshots / STACK).step_by(CLIENTS)).await?;
            blobs_of(client, (first..blobs).step_by(CLIENTS)).await
        })
    });
    for filling in all.collect::<Vec<_>>() {
        filling.await??;
    }
    Ok(())
}

/// Makes so many images, which all are one and the same.
pub(crate) async fn images(socket: &Path, count: usize) -> Result<(), Box<dyn Error>> {
    for mut client in Client::connect(socket, 1).await? {
        for number in 0..count {
            client
                .create_image(format!("localhost/filled:{number}"))
                .await?;
        }
    }
    Ok(())
}

async fn stacks(
    mut client: Client,
    numbers: impl Iterator<Item = usize>,
) -> Result<Client, Status> {
    for number in numbers {
        let mut parent = String::new();
        for height in 0..STACK {
            let key = format!("filling-{number}-{height}");
            client.prepare(key.clone(), parent).await?;
            parent = format!("filled-{number}-{height}");
            client.commit(parent.clone(), key).await?;
        }
    }
    Ok(client)
}

async fn blobs_of(mut client: Client, numbers: impl Iterator<Item = usize>) -> Result<(), Status> {
    for number in numbers {
        let bytes = format!("filled {number}").into_bytes();
        client.put(format!("filling-{number}"), bytes).await?;
    }
    Ok(())
}

/// Collections under way.
pub(crate) struct Collecting {
    enough: Arc<AtomicBool>,
    running: JoinHandle<Result<Vec<Duration>, Status>>,
}

impl Collecting {
    /// Deletes one image after the other, each time waiting for the collection that follows.
    pub(crate) async fn start(socket: &Path) -> Result<Collecting, Box<dyn Error>> {
        let mut clients = Client::connect(socket, 1).await?;
        let mut client = clients.remove(0);
        let enough = Arc::new(AtomicBool::new(false));
        let told = enough.clone();
        let running = tokio::spawn(async move {
            let mut took = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let name = "localhost/collected:1".to_owned();
                client.create_image(name.clone()).await?;
                let began = Instant::now();
                client.delete_image(name, true).await?;
                took.push(began.elapsed());
            }
            Ok(took)
        });
        Ok(Collecting { enough, running })
    }

    /// Ends after the one that runs; how long each took.
    pub(crate) async fn stop(self) -> Result<Vec<Duration>, Box<dyn Error>> {
        self.enough.store(true, Ordering::Relaxed);
        Ok(self.running.await??)
    }
}
