//! The first message: a ref is taken, and an upload opened, unless what it is to become is here.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_content::{Error, Ingest};
use cairn_meta::Timestamp;
use cairn_node::{Caller, Node, Pins, Resource};
use cairn_proto::containerd::services::content::v1::WriteContentRequest;
use cairn_types::{Algorithm, Digest, ErrorKind, IngestRef};
use tonic::Status;

use super::{super::super::linking::Linking, Upload, Writer};
use crate::{
    convert,
    status::{of, of_failure, with},
};

/// How long a ref that is locked is tried again before its client is told so.
const PATIENCE: Duration = Duration::from_millis(250);

impl Upload {
    /// Takes the ref of a first message, or says what there is already.
    pub(super) fn open(
        node: Node,
        linking: Arc<Linking>,
        caller: Caller,
        first: &WriteContentRequest,
    ) -> Result<Upload, Status> {
        let reference = convert::name(IngestRef::parse(&first.r#ref))?;
        let total = u64::try_from(first.total).unwrap_or(0);
        // One that does not parse is no error here; committing will fail on it.
        let expected = Digest::parse(&first.expected).ok();
        if let Some(digest) = &expected
            && node
                .hold_if_there(&caller, &Resource::Content(digest.clone()))
                .map_err(of_failure)?
            // A damaged one is held, and brought again all the same.
            && (node.content().is_whole(&caller.ns, digest)).map_err(|err| of(&err))?
        {
            return Err(with(ErrorKind::AlreadyExists, format!("content {digest}")));
        }
        node.hold(&caller, &Resource::Ingest(reference.clone()))
            .map_err(of_failure)?;
        // Answers carry SHA-256 digests whatever is expected, as containerd's do.
        let remembered = expected
            .as_ref()
            .filter(|digest| digest.algorithm() == Algorithm::Sha256);
        let mut pins = Some(node.pins());
        let writer = match shared(&node, pins.as_ref(), expected.as_ref(), total)? {
            Some(writer) => {
                linking.begin(&caller.ns, &reference);
                writer
            }
            None => {
                pins = None;
                let opened = own(&node, &caller, &reference, remembered, total)?;
                Writer::Own(Box::new(opened))
            }
        };
        let expected = first.expected.clone();
        Ok(Upload {
            node,
            linking,
            caller,
            reference,
            writer,
            expected,
            total,
            _pins: pins,
        })
    }
}

/// Opens an upload, held already. What it is to become may have been committed by somebody a moment
/// ago. A client is told so only if its lease holds that, too; if it is gone again by then, there is
/// something to upload.
fn own(
    node: &Node,
    caller: &Caller,
    reference: &IngestRef,
    expected: Option<&Digest>,
    total: u64,
) -> Result<Ingest, Status> {
    let leased = caller.lease.is_some();
    let content = node.content();
    loop {
        let opened =
            patiently(|| content.writer_for(&caller.ns, reference, expected, total, leased));
        let digest = match opened {
            Err(Error::Exists { digest, .. }) => digest,
            opened => return opened.map_err(|err| of(&err)),
        };
        let blob = Resource::Content(digest.clone());
        if node.hold_if_there(caller, &blob).map_err(of_failure)? {
            node.let_go(caller, &Resource::Ingest(reference.clone()))
                .map_err(of_failure)?;
            return Err(with(ErrorKind::AlreadyExists, format!("content {digest}")));
        }
    }
}

/// Opens an upload whose last stream may have been closed a moment ago: its client knows, and we have
/// still to hear of it. One that is really in use stays so for longer.
fn patiently(open: impl Fn() -> Result<Ingest, Error>) -> Result<Ingest, Error> {
    let began = Instant::now();
    loop {
        match open() {
            Err(Error::Locked { .. }) if began.elapsed() < PATIENCE => {
                std::thread::sleep(PATIENCE / 50);
            }
            opened => return opened,
        }
    }
}

/// A writer that only links, when another namespace has the blob and shares it.
fn shared(
    node: &Node,
    pins: Option<&Pins>,
    expected: Option<&Digest>,
    total: u64,
) -> Result<Option<Writer>, Status> {
    let (Some(digest), Some(pins)) = (expected, pins) else {
        return Ok(None);
    };
    let size = node.shared_size(pins, digest).map_err(of_failure)?;
    let fits = size.filter(|size| total == 0 || total == *size);
    Ok(fits.map(|size| Writer::Shared {
        digest: digest.clone(),
        size,
        since: Timestamp::now(),
    }))
}
