//! gRPC by hand over HTTP/2. A client of tonic takes some 30 µs of processor time for a call, which is
//! more than the daemons take: on few cores a measurement by it is one of the client.

use std::{future::poll_fn, marker::PhantomData, path::Path};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderValue, Method, Request, Uri, Version, header};
use prost::Message;
use tokio::net::UnixStream;
use tonic::Status;

const NAMESPACE: &str = "rates";
/// The windows of containerd's Go client grow by themselves; these stay at what such grow to.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// containerd's limit on messages.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Before each message: whether it is compressed, which these are not, and its length.
const PREFIX_BYTES: usize = 5;

/// A connection, over which one call after the other goes.
#[derive(Clone)]
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
}

impl Connection {
    pub(crate) async fn open(socket: &Path) -> Result<Connection, Status> {
        let stream = UnixStream::connect(socket).await?;
        let (requests, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(broken)?;
        // Its end is seen by the calls.
        tokio::spawn(connection);
        Ok(Connection { requests })
    }

    /// One message there, one back.
    pub(crate) async fn call<A: Message + Default>(
        &mut self,
        method: &'static str,
        message: &impl Message,
    ) -> Result<A, Status> {
        let (answer, mut body) = self.begin(method).await?;
        body.send_data(framed(message)?, true).map_err(broken)?;
        let mut answers = Answers::of(answer).await?;
        let first = answers.next().await?;
        answers.end().await?;
        first.ok_or_else(|| Status::internal("no answer"))
    }

    /// One message there, many back.
    pub(crate) async fn ask<A: Message + Default>(
        &mut self,
        method: &'static str,
        message: &impl Message,
    ) -> Result<Answers<A>, Status> {
        let (answer, mut body) = self.begin(method).await?;
        body.send_data(framed(message)?, true).map_err(broken)?;
        Answers::of(answer).await
    }

    /// Messages there and back in turns.
    pub(crate) async fn converse<A>(
        &mut self,
        method: &'static str,
    ) -> Result<Conversation<A>, Status> {
        let (answer, body) = self.begin(method).await?;
        let heard = Heard::Nothing(answer);
        Ok(Conversation { body, heard })
    }

    async fn begin(
        &mut self,
        method: &'static str,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Status> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(method);
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        let known = HeaderValue::from_static;
        headers.insert(header::CONTENT_TYPE, known("application/grpc"));
        headers.insert(header::TE, known("trailers"));
        headers.insert("containerd-namespace", known(NAMESPACE));
        let ready = poll_fn(|context| self.requests.poll_ready(context));
        ready.await.map_err(broken)?;
        self.requests.send_request(request, false).map_err(broken)
    }
}

/// A call of many messages, of which each waits for the answer to the last.
pub(crate) struct Conversation<A> {
    body: SendStream<Bytes>,
    heard: Heard<A>,
}

enum Heard<A> {
    Nothing(ResponseFuture),
    Answers(Answers<A>),
    Broken,
}

impl<A: Message + Default> Conversation<A> {
    /// Sends a message and waits for what is said to it; `last` when none comes after.
    pub(crate) async fn say(&mut self, message: &impl Message, last: bool) -> Result<A, Status> {
        let sent = self.body.send_data(framed(message)?, last);
        // Whoever hangs up has said why.
        let answers = self.answers().await?;
        let answer = answers.next().await?;
        sent.map_err(broken)?;
        // containerd may say more than once to the last.
        while last && answers.next().await?.is_some() {}
        answer.ok_or_else(|| Status::internal("the stream ended without an answer"))
    }

    async fn answers(&mut self) -> Result<&mut Answers<A>, Status> {
        if let Heard::Nothing(_) = &self.heard
            && let Heard::Nothing(answer) = std::mem::replace(&mut self.heard, Heard::Broken)
        {
            self.heard = Heard::Answers(Answers::of(answer).await?);
        }
        match &mut self.heard {
            Heard::Answers(answers) => Ok(answers),
            _ => Err(Status::unavailable("the stream is closed")),
        }
    }
}

/// The messages that come back.
pub(crate) struct Answers<A> {
    body: RecvStream,
    buffer: BytesMut,
    kind: PhantomData<A>,
}

impl<A: Message + Default> Answers<A> {
    async fn of(answer: ResponseFuture) -> Result<Answers<A>, Status> {
        let (head, body) = answer.await.map_err(broken)?.into_parts();
        if let Some(refused) = Status::from_header_map(&head.headers) {
            said(refused)?;
        }
        Ok(Answers {
            body,
            buffer: BytesMut::new(),
            kind: PhantomData,
        })
    }

    /// The next message, or none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<A>, Status> {
        loop {
            if let Some(message) = self.taken()? {
                let message = A::decode(message);
                return message
                    .map(Some)
                    .map_err(|err| Status::internal(err.to_string()));
            }
            let Some(bytes) = self.body.data().await else {
                return match self.buffer.is_empty() {
                    true => self.end().await.map(|()| None),
                    false => Err(Status::internal("the stream ended within a message")),
                };
            };
            let bytes = bytes.map_err(broken)?;
            let released = self.body.flow_control().release_capacity(bytes.len());
            released.map_err(broken)?;
            self.buffer.extend_from_slice(&bytes);
        }
    }

    /// A message that is there whole.
    fn taken(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((&[compressed, ref length @ ..], _)) =
            self.buffer.split_first_chunk::<PREFIX_BYTES>()
        else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if compressed != 0 || length > MESSAGE_BYTES_MAX {
            return Err(Status::internal("no message that was asked for"));
        }
        if self.buffer.len() < PREFIX_BYTES + length {
            self.buffer
                .reserve(PREFIX_BYTES + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// How the call ended, after its last message.
    async fn end(&mut self) -> Result<(), Status> {
        while let Some(bytes) = self.body.data().await {
            if !bytes.map_err(broken)?.is_empty() {
                return Err(Status::internal("more than was asked for"));
            }
        }
        let trailers = self.body.trailers().await.map_err(broken)?;
        let status = trailers.as_ref().and_then(Status::from_header_map);
        said(status.unwrap_or_else(|| Status::internal("no status")))
    }
}

fn said(status: Status) -> Result<(), Status> {
    match status.code() {
        tonic::Code::Ok => Ok(()),
        _ => Err(status),
    }
}

fn framed(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    let too_long = |err: std::num::TryFromIntError| Status::internal(err.to_string());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).map_err(too_long)?);
    let encoded = message.encode(&mut bytes);
    encoded.map_err(|err| Status::internal(err.to_string()))?;
    Ok(bytes.freeze())
}

fn broken(err: h2::Error) -> Status {
    Status::unavailable(err.to_string())
}
