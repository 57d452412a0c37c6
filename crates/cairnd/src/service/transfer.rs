//! `Transfer`: images from one place to another, done here (containerd `plugins/services/transfer`,
//! `core/transfer/local`).
//!
//! No lease is made for a transfer without one, as containerd does: what is under way is pinned, and
//! what is done has a name.

mod credentials;
mod export;
mod import;
mod log;
mod platforms;
mod progress;
mod pull;
mod push;
mod registry;
mod store;
mod tag;

use std::{
    io::{self, Write},
    sync::Arc,
    time::Instant,
};

use cairn_node::{Caller, Node};
use cairn_proto::containerd::{
    services::transfer::v1::{TransferRequest, transfer_server::Transfer},
    types::transfer::{ImageExportStream, ImageImportStream, ImageStore, OciRegistry},
};
use cairn_types::ErrorKind;
use prost::{Message, Name};
use prost_types::Any;
use tokio::io::AsyncReadExt;
use tonic::{Request, Response, Status};
use tracing::info;

use self::progress::Teller;
use super::Service;
use crate::{
    caller,
    chunks::Chunks,
    status::{blocking, missing, of_failure, with},
    streams::{self, Awaited, Sent, Streams, unpack},
};

/// One end of a transfer.
enum End {
    /// Images that are here, or shall be.
    Store(ImageStore),
    /// A registry.
    Registry(OciRegistry),
    /// An archive that comes.
    Import(ImageImportStream),
    /// An archive that goes.
    Export(ImageExportStream),
}

/// What every transfer has.
struct Work {
    node: Node,
    streams: Streams,
    caller: Caller,
    call: Awaited,
    teller: Teller,
    began: Instant,
}

impl Work {
    /// Bytes that the client sends on a stream.
    fn received(&self, id: &str) -> Result<Chunks, Status> {
        let pipe = self.streams.take(self.caller.ns.as_str(), id)?;
        Ok(streams::received(pipe, self.call.clone()))
    }

    /// Bytes that it is sent.
    fn sent(&self, id: &str) -> Result<Sent, Status> {
        let pipe = self.streams.take(self.caller.ns.as_str(), id)?;
        Ok(Sent::new(pipe, self.call.clone()))
    }

    /// Refuses to change a store that takes no changes. That of a call is known by its method, that of
    /// a transfer by its ends only.
    fn changes(&self) -> Result<(), Status> {
        self.node
            .read_only()
            .map_or(Ok(()), |failure| Err(of_failure(failure)))
    }

    /// Milliseconds since it began.
    fn ms(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * 1e3
    }
}

#[tonic::async_trait]
impl Transfer for Service {
    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<()>, Status> {
        let caller = caller::of(&request)?;
        let request = request.into_inner();
        let progress = request.options.unwrap_or_default().progress_stream;
        // Dropped with this call, in whatever way it ends.
        let (_call, call) = Awaited::new();
        let work = Arc::new(Work {
            node: self.node.clone(),
            streams: self.streams.clone(),
            teller: Teller::new(&self.streams, caller.ns.as_str(), &progress, call.clone())?,
            caller,
            call,
            began: Instant::now(),
        });
        let done = transfer(work.clone(), request.source, request.destination).await;
        work.teller.end().await;
        done.map(Response::new)
    }
}

async fn transfer(
    work: Arc<Work>,
    source: Option<Any>,
    destination: Option<Any>,
) -> Result<(), Status> {
    let source = source.ok_or_else(|| missing("source"))?;
    let destination = destination.ok_or_else(|| missing("destination"))?;
    match (end(&source)?, end(&destination)?) {
        (Some(End::Store(from)), Some(End::Store(to))) => {
            work.changes()?;
            tag::tag(work, from, to).await
        }
        (Some(End::Import(from)), Some(End::Store(to))) => {
            work.changes()?;
            import::import(work, from, to).await
        }
        (Some(End::Registry(from)), Some(End::Store(to))) => {
            work.changes()?;
            pull::pull(work, from, to).await
        }
        (Some(End::Store(from)), Some(End::Registry(to))) => push::push(work, from, to).await,
        (Some(End::Store(from)), Some(End::Export(to))) => export::export(work, from, to).await,
        (Some(End::Import(from)), Some(End::Export(to))) => echo(work, &from, &to).await,
        _ => {
            let (from, to) = (source.type_url, destination.type_url);
            let message = format!("method Transfer not implemented for {from} to {to}");
            Err(Status::unimplemented(message))
        }
    }
}

/// Sends an archive back as it comes.
async fn echo(
    work: Arc<Work>,
    from: &ImageImportStream,
    to: &ImageExportStream,
) -> Result<(), Status> {
    let (mut received, mut sent) = (work.received(&from.stream)?, work.sent(&to.stream)?);
    let runtime = tokio::runtime::Handle::current();
    blocking(move || {
        let mut buffer = vec![0; 32 << 10];
        let mut bytes = 0_u64;
        loop {
            let failed = |err: io::Error| with(ErrorKind::Canceled, err.to_string());
            let length = match runtime.block_on(received.read(&mut buffer)) {
                Ok(0) => break,
                read => read.map_err(failed)?,
            };
            sent.write_all(&buffer[..length]).map_err(failed)?;
            bytes += length as u64;
        }
        info!(bytes, ms = work.ms(), "echoed");
        Ok(())
    })
    .await
}

/// Which end a message speaks of; `None` of none that is known.
fn end(any: &Any) -> Result<Option<End>, Status> {
    fn of<M: Message + Name + Default>(
        any: &Any,
        make: fn(M) -> End,
    ) -> Option<Result<End, Status>> {
        Some(unpack::<M>(any)?.map(make))
    }
    let known = of(any, End::Store)
        .or_else(|| of(any, End::Registry))
        .or_else(|| of(any, End::Import))
        .or_else(|| of(any, End::Export));
    known.transpose()
}
