//! `Transfer`: images from one place to another, done here (containerd `plugins/services/transfer`,
//! `core/transfer/local`).

mod export;
mod tag;

use std::io::{self, Write};

use cairn_node::Caller;
use cairn_proto::containerd::{
    services::transfer::v1::{TransferRequest, transfer_server::Transfer},
    types::transfer::{ImageExportStream, ImageImportStream, ImageStore, OciRegistry},
};
use cairn_types::ErrorKind;
use prost::{Message, Name};
use prost_types::Any;
use tokio::io::AsyncReadExt;
use tonic::{Request, Response, Status};

use super::Service;
use crate::{
    caller,
    status::{blocking, missing, with},
    streams::{Received, Sent, unpack},
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

#[tonic::async_trait]
impl Transfer for Service {
    async fn transfer(&self, request: Request<TransferRequest>) -> Result<Response<()>, Status> {
        let caller = caller::of(&request)?;
        let request = request.into_inner();
        let source = request.source.ok_or_else(|| missing("source"))?;
        let destination = request.destination.ok_or_else(|| missing("destination"))?;
        match (end(&source)?, end(&destination)?) {
            (Some(End::Store(from)), Some(End::Store(to))) => {
                tag::tag(self, caller, from, to).await?
            }
            (Some(End::Store(from)), Some(End::Export(to))) => {
                export::export(self, caller, from, to).await?
            }
            (Some(End::Import(from)), Some(End::Export(to))) => {
                self.echo(&caller, &from, &to).await?
            }
            _ => {
                let (from, to) = (source.type_url, destination.type_url);
                let message = format!("method Transfer not implemented for {from} to {to}");
                return Err(Status::unimplemented(message));
            }
        }
        Ok(Response::new(()))
    }
}

impl Service {
    /// Sends an archive back as it comes.
    async fn echo(
        &self,
        caller: &Caller,
        from: &ImageImportStream,
        to: &ImageExportStream,
    ) -> Result<(), Status> {
        let ns = caller.ns.as_str();
        let mut received = Received::new(self.streams.take(ns, &from.stream)?);
        let mut sent = Sent::new(self.streams.take(ns, &to.stream)?);
        let runtime = tokio::runtime::Handle::current();
        blocking(move || {
            let mut buffer = vec![0; 32 << 10];
            loop {
                let failed = |err: io::Error| with(ErrorKind::Canceled, err.to_string());
                let read = runtime.block_on(received.read(&mut buffer));
                match read.map_err(failed)? {
                    0 => return Ok(()),
                    length => sent.write_all(&buffer[..length]).map_err(failed)?,
                }
            }
        })
        .await
    }
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
