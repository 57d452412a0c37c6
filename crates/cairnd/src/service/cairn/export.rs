//! `Images.Export`: an archive in chunks.

use std::{io, time::Instant};

use bytes::BytesMut;
use cairn_node::{ExportRequest as Export, Node};
use cairn_proto::cairn::v1::{ExportRequest, ExportResponse, export_response::Part};
use cairn_types::{ImageName, Namespace, Platform};
use tonic::Status;
use tracing::info;

use super::{
    Answers, parsed,
    progress::{self, Teller},
};
use crate::{calls::about, details};

const ATTEMPTED: &str = "export image";

/// Bytes of the archive in one message.
const CHUNK: usize = 512 << 10;

/// The archive, and how it goes.
pub(super) fn answers(
    node: Node,
    ns: Namespace,
    request: ExportRequest,
) -> Result<Answers<ExportResponse>, Status> {
    let image = |text: &String| parsed(ImageName::parse(text), ATTEMPTED, "image", text);
    let names: Vec<ImageName> = request.names.iter().map(image).collect::<Result<_, _>>()?;
    if let [one] = &*names {
        about("image", one);
    }
    let platform = |text: &String| -> Result<Platform, Status> {
        parsed(text.parse(), ATTEMPTED, "platform", text)
    };
    let platforms = request.platforms.iter().map(platform);
    let platforms: Vec<Platform> = platforms.collect::<Result<_, _>>()?;
    let wrap = |event| ExportResponse {
        part: Some(Part::Progress(event)),
    };
    let work = move |teller: &Teller<ExportResponse>| {
        let mut out = Chunks::new(teller);
        let count = names.len();
        let export = Export {
            ns,
            out: &mut out,
            names,
            platforms,
            any_platform: false,
            all_platforms: request.all_platforms,
            skip_manifest_json: request.skip_manifest_json,
            skip_non_distributable: request.skip_non_distributable,
            only_attestations: request.only_attestations,
        };
        let began = Instant::now();
        let size = node.export(export, teller).map_err(details::of)?;
        // Fails only when nobody reads the answer, either.
        let _ = io::Write::flush(&mut out);
        let ms = began.elapsed().as_secs_f64() * 1e3;
        info!(images = count, bytes = size, ms, "exported");
        Ok(ExportResponse {
            part: Some(Part::Size(size)),
        })
    };
    Ok(progress::start(wrap, work))
}

/// Writes to a client, a chunk at a time.
struct Chunks<'t> {
    teller: &'t Teller<ExportResponse>,
    buffer: BytesMut,
}

impl<'t> Chunks<'t> {
    fn new(teller: &'t Teller<ExportResponse>) -> Chunks<'t> {
        Chunks {
            teller,
            buffer: BytesMut::with_capacity(CHUNK),
        }
    }
}

impl io::Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        let length = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        // Chunks that the client has not taken yet keep their memory; this one gets new.
        let full = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK));
        self.teller.answer(ExportResponse {
            part: Some(Part::Chunk(full.freeze())),
        })
    }
}
