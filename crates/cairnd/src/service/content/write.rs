//! `Content.Write`: one stream for one upload. The first message names the ref and takes its lock
//! until the stream ends; every message gets one answer.

mod open;

use std::{
    io::{Read, Write},
    sync::Arc,
};

use cairn_content::{Error, Ingest};
use cairn_meta::Timestamp;
use cairn_node::{
    Caller, Node, Pins, Resource,
    events::{Event, What},
};
use cairn_proto::containerd::services::content::v1::{
    WriteAction, WriteContentRequest, WriteContentResponse,
};
use cairn_types::{Classified, Digest, ErrorKind, IngestRef};
use futures_util::stream;
use tonic::{Code, Status, Streaming};

use super::{super::linking::Linking, Answers};
use crate::{
    calls::about,
    convert,
    status::{self, blocking, of, of_failure, with},
    turns::{self, Turns},
};

/// Most bytes that are written where their message comes in.
const BRIEF: usize = 64 << 10;

/// Where the bytes go.
enum Writer {
    /// To an upload.
    Own(Box<Ingest>),
    /// Nowhere: another namespace has the blob, and committing only links it.
    Shared {
        digest: Digest,
        size: u64,
        since: Timestamp,
    },
}

/// An open stream.
struct Upload {
    node: Node,
    linking: Arc<Linking>,
    caller: Caller,
    reference: IngestRef,
    writer: Writer,
    expected: String,
    total: u64,
    /// What is only to be linked.
    _pins: Option<Pins>,
}

/// A stream of messages, and how far it has come.
struct Session {
    messages: Streaming<WriteContentRequest>,
    turns: Option<Turns>,
    state: State,
}

enum State {
    /// Nothing was said yet.
    New {
        node: Node,
        linking: Arc<Linking>,
        caller: Result<Caller, Status>,
    },
    Open(Upload),
    Over,
}

/// The answers to a stream of messages. Each message is taken when its client can take an answer.
pub(super) fn answers(
    node: Node,
    linking: Arc<Linking>,
    caller: Result<Caller, Status>,
    messages: Streaming<WriteContentRequest>,
) -> Answers<WriteContentResponse> {
    let session = Session {
        messages,
        turns: turns::own(),
        state: State::New {
            node,
            linking,
            caller,
        },
    };
    Box::pin(stream::unfold(session, |session| {
        turns::during(session.turns.clone(), session.next())
    }))
}

impl Session {
    /// The next answer, with what goes on after it. A client that hangs up leaves its upload to be
    /// resumed.
    async fn next(mut self) -> Option<(Result<WriteContentResponse, Status>, Session)> {
        let state = std::mem::replace(&mut self.state, State::Over);
        let answer = match self.step(state).await {
            Ok(Some((state, answer))) => {
                self.state = state;
                Ok(answer)
            }
            Ok(None) => return None,
            Err(status) => Err(status),
        };
        Some((answer, self))
    }

    /// Takes a message; `None` when there is none.
    async fn step(
        &mut self,
        state: State,
    ) -> Result<Option<(State, WriteContentResponse)>, Status> {
        let (upload, answer) = match state {
            State::Over => return Ok(None),
            State::New {
                node,
                linking,
                caller,
            } => self.begin(node, linking, caller).await?,
            State::Open(upload) => match self.messages.message().await? {
                Some(message) => upload.taken(message).await?,
                None => return Ok(None),
            },
        };
        if answer.action == WriteAction::Commit as i32 {
            about("digest", &answer.digest);
            return Ok(Some((State::Over, answer)));
        }
        Ok(Some((State::Open(upload), answer)))
    }

    /// Takes the first message, which says what it is about.
    async fn begin(
        &mut self,
        node: Node,
        linking: Arc<Linking>,
        caller: Result<Caller, Status>,
    ) -> Result<(Upload, WriteContentResponse), Status> {
        let Some(first) = self.messages.message().await? else {
            return Err(Status::unknown("the stream ended before its first message"));
        };
        if first.r#ref.is_empty() {
            return Err(with(
                ErrorKind::InvalidArgument,
                "first message must have a reference",
            ));
        }
        about("ingest", &first.r#ref);
        let caller = caller?;
        let open = move || {
            let mut upload = Upload::open(node, linking, caller, &first)?;
            let answer = upload.take(first)?;
            Ok((upload, answer))
        };
        blocking(open).await
    }
}

impl Upload {
    /// Takes a message where that keeps nobody waiting.
    async fn taken(
        mut self,
        message: WriteContentRequest,
    ) -> Result<(Upload, WriteContentResponse), Status> {
        if self.is_brief(&message)
            && let Some(_here) = turns::here()
        {
            let answer = status::unpanicked(|| self.take(message))?;
            return Ok((self, answer));
        }
        let take = move || {
            let answer = self.take(message)?;
            Ok((self, answer))
        };
        blocking(take).await
    }

    /// One message, one answer.
    fn take(&mut self, message: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        if !message.expected.is_empty() {
            self.expect(message.expected)?;
        }
        if let Ok(total @ 1..) = u64::try_from(message.total) {
            self.total = total;
        }
        match WriteAction::try_from(message.action) {
            Ok(WriteAction::Write) => {
                self.write(message.offset, &message.data)?;
                Ok(self.answer(WriteAction::Write))
            }
            Ok(WriteAction::Commit) => {
                self.write(message.offset, &message.data)?;
                self.commit(message.labels)
            }
            Ok(WriteAction::Stat) => Ok(self.answer(WriteAction::Stat)),
            // Anything else is answered with the offset, and its data ignored.
            Err(_) => Ok(WriteContentResponse {
                action: message.action,
                ..self.answer(WriteAction::Stat)
            }),
        }
    }

    /// Whether taking a message is over sooner than another thread is awake to do it: its bytes go to
    /// the kernel's memory, and no records change.
    fn is_brief(&self, message: &WriteContentRequest) -> bool {
        let commits = message.action == WriteAction::Commit as i32;
        let own = matches!(self.writer, Writer::Own(_));
        own && !commits && message.expected.is_empty() && message.data.len() <= BRIEF
    }

    /// Remembers what the upload is to become; when that is here already the upload is thrown away.
    fn expect(&mut self, expected: String) -> Result<(), Status> {
        let known = match Digest::parse(&expected) {
            Ok(digest) => {
                let content = self.node.content();
                // A damaged one is held, and brought again all the same.
                let whole = || content.is_whole(&self.caller.ns, &digest);
                self.held(&digest)? && whole().map_err(|err| of(&err))?
            }
            Err(_) => false,
        };
        self.expected = expected;
        if !known {
            return Ok(());
        }
        self.linking.end(&self.caller.ns, &self.reference);
        if let Writer::Own(_) = &self.writer {
            match self.node.content().abort(&self.caller.ns, &self.reference) {
                Ok(()) | Err(Error::NoIngest { .. }) => {}
                Err(err) => return Err(of(&err)),
            }
        }
        self.let_go_of_ref()?;
        Err(with(
            ErrorKind::AlreadyExists,
            format!("content {}", self.expected),
        ))
    }

    fn write(&mut self, offset: i64, data: &[u8]) -> Result<(), Status> {
        let at = self.offset();
        if offset < 0 || (offset > 0 && convert::signed(at) != offset) {
            let text = format!("write at {offset}, the current offset is {at}: out of range");
            return Err(Status::new(Code::OutOfRange, text));
        }
        if offset == 0 && at > 0 {
            self.own(false)?.truncate().map_err(|err| of(&err))?;
        }
        if data.is_empty() {
            return Ok(());
        }
        let reference = self.reference.to_string();
        self.own(true)?.write_all(data).map_err(|err| {
            let kind = match err.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    ErrorKind::ResourceExhausted
                }
                _ => ErrorKind::Internal,
            };
            with(kind, format!("write ingest {reference}: {err}"))
        })
    }

    /// The upload of one's own. Where the blob was only to be linked there is none yet; `keep` copies
    /// the blob's bytes into it.
    fn own(&mut self, keep: bool) -> Result<&mut Ingest, Status> {
        if let Writer::Shared { digest, .. } = &self.writer {
            let content = self.node.content();
            let leased = self.caller.lease.is_some();
            let opened = content.writer_for(&self.caller.ns, &self.reference, None, 0, leased);
            let mut ingest = opened.map_err(|err| of(&err))?;
            ingest.truncate().map_err(|err| of(&err))?;
            if keep {
                let mut blob = content.open_any(digest).map_err(|err| of(&err))?;
                copy(&mut blob, &mut ingest)
                    .map_err(|err| with(ErrorKind::Internal, format!("copy {digest}: {err}")))?;
            }
            self.linking.end(&self.caller.ns, &self.reference);
            self.writer = Writer::Own(Box::new(ingest));
        }
        match &mut self.writer {
            Writer::Own(ingest) => Ok(ingest),
            Writer::Shared { .. } => Err(with(ErrorKind::Internal, "no upload was opened")),
        }
    }

    fn commit(
        &mut self,
        labels: std::collections::BTreeMap<String, String>,
    ) -> Result<WriteContentResponse, Status> {
        let mut labels = labels;
        labels.retain(|_, value| !value.is_empty());
        let expected = match &*self.expected {
            "" => None,
            text => Some(Digest::parse(text).map_err(|err| {
                with(
                    ErrorKind::FailedPrecondition,
                    format!("unexpected commit digest: {err}"),
                )
            })?),
        };
        let size = (self.total > 0).then_some(self.total);
        let offset = self.offset();
        let (digest, since) = match &self.writer {
            Writer::Own(ingest) => (None, ingest.started_at()),
            Writer::Shared { digest, since, .. } => (Some(digest.clone()), *since),
        };
        let digest = match digest {
            Some(digest) => self.link(&digest, offset, (size, expected.as_ref()), labels)?,
            None => self.publish(size, expected.as_ref(), labels)?,
        };
        self.let_go_of_ref()?;
        let created = What::ContentCreated {
            digest: digest.clone(),
            size: offset,
        };
        self.node.happened(Event::of(&self.caller.ns, created));
        Ok(WriteContentResponse {
            action: WriteAction::Commit as i32,
            started_at: Some(convert::time(since)),
            updated_at: Some(convert::time(Timestamp::now())),
            offset: convert::signed(offset),
            total: convert::signed(self.total),
            digest: digest.to_string(),
        })
    }

    fn publish(
        &mut self,
        size: Option<u64>,
        expected: Option<&Digest>,
        labels: std::collections::BTreeMap<String, String>,
    ) -> Result<Digest, Status> {
        let nothing = Writer::Shared {
            digest: Digest::sha256(b""),
            size: 0,
            since: Timestamp::now(),
        };
        let Writer::Own(ingest) = std::mem::replace(&mut self.writer, nothing) else {
            return Err(with(ErrorKind::Internal, "no upload was opened"));
        };
        // Held before it exists, so that no collection comes between. What was not said to become
        // anything becomes what it is.
        let becomes = expected.cloned().unwrap_or_else(|| ingest.digest_so_far());
        self.hold(&becomes)?;
        match ingest.commit(size, expected, labels) {
            Ok(digest) if digest == becomes => Ok(digest),
            Ok(digest) => {
                self.held(&digest)?;
                Ok(digest)
            }
            Err(Error::Exists { digest, .. }) => {
                // Held already, or it may be gone again before it is.
                self.held(&digest)?;
                self.let_go_of_ref()?;
                Err(with(ErrorKind::AlreadyExists, format!("content {digest}")))
            }
            Err(err) => Err(with(err.kind(), err.to_string())),
        }
    }

    /// Commits what another namespace has.
    fn link(
        &self,
        digest: &Digest,
        at: u64,
        (size, expected): (Option<u64>, Option<&Digest>),
        labels: std::collections::BTreeMap<String, String>,
    ) -> Result<Digest, Status> {
        let reference = &self.reference;
        if size.is_some_and(|size| size != at) || expected.is_some_and(|other| other != digest) {
            let text = format!("commit ingest {reference}: it is {digest}, {at} bytes");
            return Err(with(ErrorKind::FailedPrecondition, text));
        }
        self.hold(digest)?;
        self.node
            .content()
            .link(&self.caller.ns, digest, labels)
            .map_err(|err| of(&err))?;
        self.linking.end(&self.caller.ns, reference);
        Ok(digest.clone())
    }

    fn hold(&self, digest: &Digest) -> Result<(), Status> {
        self.node
            .hold(&self.caller, &Resource::Content(digest.clone()))
            .map_err(of_failure)
    }

    /// Holds what is there.
    fn held(&self, digest: &Digest) -> Result<bool, Status> {
        self.node
            .hold_if_there(&self.caller, &Resource::Content(digest.clone()))
            .map_err(of_failure)
    }

    fn let_go_of_ref(&self) -> Result<(), Status> {
        self.node
            .let_go(&self.caller, &Resource::Ingest(self.reference.clone()))
            .map_err(of_failure)
    }

    fn offset(&self) -> u64 {
        match &self.writer {
            Writer::Own(ingest) => ingest.offset(),
            Writer::Shared { size, .. } => *size,
        }
    }

    fn answer(&self, action: WriteAction) -> WriteContentResponse {
        let (digest, started_at, updated_at) = match &self.writer {
            Writer::Own(ingest) => (
                ingest.digest_so_far(),
                ingest.started_at(),
                ingest.updated_at(),
            ),
            Writer::Shared { digest, since, .. } => (digest.clone(), *since, *since),
        };
        WriteContentResponse {
            action: action as i32,
            started_at: Some(convert::time(started_at)),
            updated_at: Some(convert::time(updated_at)),
            offset: convert::signed(self.offset()),
            total: convert::signed(self.total),
            digest: digest.to_string(),
        }
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<u64> {
    let mut buffered = std::io::BufReader::with_capacity(1 << 20, from);
    std::io::copy(&mut buffered, to)
}
