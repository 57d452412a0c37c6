//! Blobs on their way in.

use std::io::{self, Read};

use bytes::Bytes;
use cairn_proto::containerd::services::content::v1::{
    AbortRequest, ListStatusesRequest, Status, WriteAction, WriteContentRequest,
    WriteContentResponse, content_client::ContentClient,
};
use cairn_types::{Digest, ErrorKind, Hasher, Labels};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Client, Result, link::client, plain};
use crate::{
    error::{Problem, io_reason, quote},
    model,
};

/// Bytes of one message; the API's limit is 16 MiB.
const CHUNK: usize = 1 << 20;

/// Messages whose answers have not been read: while the server writes one to its disk the next is on
/// its way.
const AHEAD: usize = 2;

/// What is to be stored, and as what.
pub struct Upload<'u> {
    /// For messages: a file, or standard input.
    pub name: &'u str,
    /// What to call the upload.
    pub reference: &'u str,
    /// Bytes, if known.
    pub size: Option<u64>,
    /// Refuse anything else.
    pub expected: Option<&'u Digest>,
    /// For the blob.
    pub labels: Labels,
    /// Is to hold it.
    pub lease: Option<&'u str>,
}

/// What became of an upload.
pub struct Stored {
    /// Its name from now on.
    pub digest: Digest,
    /// It was here before; labels were not set.
    pub existed: bool,
}

impl Client {
    /// Stores what `from` has left.
    ///
    /// An upload of this name that was interrupted goes on where it ended, if it began with the same
    /// bytes.
    pub fn put(&self, from: &mut dyn Read, upload: &Upload<'_>) -> Result<Stored> {
        let (send, receive) = mpsc::channel(AHEAD);
        let request = self.leased(ReceiverStream::new(receive), upload.lease)?;
        let mut writer = Writer {
            client: self,
            upload,
            send,
            answers: None,
            unread: 0,
            last: WriteContentResponse::default(),
        };
        writer.send(WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: upload.reference.to_owned(),
            total: upload.size.map(signed).unwrap_or_default(),
            expected: upload.expected.map(ToString::to_string).unwrap_or_default(),
            ..WriteContentRequest::default()
        })?;
        let mut content = client!(self.link, ContentClient<_>);
        let answers = self.link.wait(content.write(request));
        writer.answers = Some(
            answers
                .map_err(|err| self.not_put(upload, err))?
                .into_inner(),
        );
        let finished = writer.run(from);
        match (finished, upload.expected) {
            (Err(problem), expected) if problem.kind == ErrorKind::AlreadyExists => {
                let digest = match expected {
                    Some(expected) => expected.clone(),
                    None => writer.digest()?,
                };
                Ok(Stored {
                    digest,
                    existed: true,
                })
            }
            (finished, _) => finished.map(|digest| Stored {
                digest,
                existed: false,
            }),
        }
    }

    fn not_put(&self, upload: &Upload<'_>, err: Problem) -> Problem {
        match (err.kind, upload.lease) {
            (ErrorKind::NotFound, Some(lease)) => self.no_lease("use lease", lease, err),
            (ErrorKind::Unavailable, _) if err.attempted.is_empty() => {
                let mut err = err;
                err.reason = format!("somebody else writes to upload {}", upload.reference);
                self.explain("put blob", ("blob", upload.name), err)
                    .next("cairn content ingests")
            }
            _ => self.explain("put blob", ("blob", upload.name), err),
        }
    }

    /// Uploads that are not complete, by ref.
    pub fn ingests(&self) -> Result<Vec<model::Ingest>> {
        let request = self.link.request(ListStatusesRequest::default());
        let mut content = client!(self.link, ContentClient<_>);
        let answer = self.link.wait(content.list_statuses(request));
        let answer = answer.map_err(|err| self.explain("list ingests", ("", ""), err))?;
        let statuses = answer.into_inner().statuses;
        Ok(statuses.into_iter().map(ingest).collect())
    }

    /// Throws away what an upload has written.
    pub fn ingest_abort(&self, reference: &str) -> Result<()> {
        let request = self.link.request(AbortRequest {
            r#ref: reference.to_owned(),
        });
        let mut content = client!(self.link, ContentClient<_>);
        let answer = self.link.wait(content.abort(request));
        answer.map_err(|err| {
            let kind = err.kind;
            let mut problem = self.explain("abort ingest", ("ingest", reference), err);
            if kind == ErrorKind::Unavailable {
                "somebody writes to it".clone_into(&mut problem.reason);
            }
            problem.next("cairn content ingests")
        })?;
        Ok(())
    }
}

fn ingest(status: Status) -> model::Ingest {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    model::Ingest {
        reference: status.r#ref,
        offset: plain::count(status.offset),
        total: Some(plain::count(status.total)).filter(|total| *total > 0),
        expected: some(status.expected),
        started_at: plain::time(status.started_at),
        updated_at: plain::time(status.updated_at),
    }
}

/// One stream: what was sent, and what came back so far.
struct Writer<'w> {
    client: &'w Client,
    upload: &'w Upload<'w>,
    send: mpsc::Sender<WriteContentRequest>,
    answers: Option<Streaming<WriteContentResponse>>,
    unread: usize,
    last: WriteContentResponse,
}

impl Writer<'_> {
    fn run(&mut self, from: &mut dyn Read) -> Result<Digest> {
        self.catch_up(0)?;
        let mut at = plain::count(self.last.offset);
        if at > 0 {
            self.skip(from, at)?;
        }
        loop {
            let data = chunk(from).map_err(|err| self.unreadable(&err))?;
            if data.is_empty() {
                break;
            }
            let length = data.len() as u64;
            self.send(WriteContentRequest {
                action: WriteAction::Write.into(),
                offset: signed(at),
                data: Bytes::from(data),
                ..WriteContentRequest::default()
            })?;
            at += length;
            self.catch_up(AHEAD - 1)?;
        }
        self.catch_up(0)?;
        self.check(at)?;
        self.send(WriteContentRequest {
            action: WriteAction::Commit.into(),
            offset: signed(at),
            total: self.upload.size.map(signed).unwrap_or_default(),
            labels: self.upload.labels.clone().into_iter().collect(),
            ..WriteContentRequest::default()
        })?;
        // What all bytes hash to, in case that is here already.
        let before = self.last.digest.clone();
        let committed = self.catch_up(0);
        if committed.is_err() {
            self.last.digest = before;
        }
        committed?;
        self.digest()
    }

    fn send(&mut self, message: WriteContentRequest) -> Result<()> {
        let sent = self
            .client
            .link
            .wait(async { Ok(self.send.send(message).await) })?;
        if sent.is_ok() {
            self.unread += 1;
            return Ok(());
        }
        // The other side hung up; its last answer says why.
        self.unread += 1;
        self.catch_up(0)
    }

    /// Reads answers until only so many are outstanding.
    fn catch_up(&mut self, outstanding: usize) -> Result<()> {
        while self.unread > outstanding {
            let Some(answers) = &mut self.answers else {
                return Ok(()); // Not connected yet; the first answer is waited for later.
            };
            let answer = self.client.link.wait(answers.message());
            self.last = answer
                .map_err(|err| self.client.not_put(self.upload, err))?
                .ok_or_else(|| self.problem(ErrorKind::Unavailable, "the connection was closed"))?;
            self.unread -= 1;
        }
        Ok(())
    }

    /// Passes over what an earlier run has sent, if it is what `from` begins with.
    fn skip(&mut self, from: &mut dyn Read, length: u64) -> Result<()> {
        let sent = self.digest()?;
        let mut hasher = Hasher::new(sent.algorithm());
        let mut rest = from.take(length);
        let mut passed = 0;
        loop {
            let data = chunk(&mut rest).map_err(|err| self.unreadable(&err))?;
            if data.is_empty() {
                break;
            }
            passed += data.len() as u64;
            hasher.update(&data);
        }
        if passed == length && hasher.finish() == sent {
            tracing::info!("go on with upload {} at {length}", self.upload.reference);
            return Ok(());
        }
        let reference = self.upload.reference;
        let reason = format!("upload {reference} was begun with other bytes");
        Err(self
            .problem(ErrorKind::FailedPrecondition, &reason)
            .next(format!("cairn content abort {}", quote(reference))))
    }

    /// The server proves it again; here it can be said what was wrong.
    fn check(&self, size: u64) -> Result<()> {
        if let Some(wanted) = self.upload.size.filter(|wanted| *wanted != size) {
            let reason = format!("it has {size} bytes, not {wanted}");
            return Err(self.problem(ErrorKind::FailedPrecondition, &reason));
        }
        let Some(expected) = self.upload.expected else {
            return Ok(());
        };
        let sent = self.digest()?;
        if sent.algorithm() == expected.algorithm() && sent != *expected {
            return Err(self
                .problem(
                    ErrorKind::FailedPrecondition,
                    &format!("it is not {expected}"),
                )
                .cause(format!("its bytes hash to {sent}")));
        }
        Ok(())
    }

    /// Of all bytes so far.
    fn digest(&self) -> Result<Digest> {
        let digest = Digest::parse(&self.last.digest);
        digest.map_err(|err| self.problem(ErrorKind::Internal, &err.to_string()))
    }

    fn unreadable(&self, err: &io::Error) -> Problem {
        let reason = format!("it cannot be read: {}", io_reason(err));
        self.problem(ErrorKind::Internal, &reason)
    }

    fn problem(&self, kind: ErrorKind, reason: &str) -> Problem {
        let problem = Problem::new(kind, "", "", reason);
        let about = ("blob", self.upload.name);
        let mut problem = self.client.explain("put blob", about, problem);
        reason.clone_into(&mut problem.reason);
        problem
    }
}

/// The next bytes, as many as one message takes; none at the end.
fn chunk(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(CHUNK);
    from.take(CHUNK as u64).read_to_end(&mut data)?;
    Ok(data)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
