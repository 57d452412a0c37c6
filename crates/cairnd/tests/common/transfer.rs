//! A client of streams and transfers that behaves as `ctr` does.

use cairn_proto::containerd::{
    services::{
        streaming::v1::StreamInit,
        transfer::v1::{TransferOptions, TransferRequest},
    },
    types::transfer::{Data, Progress, WindowUpdate},
};
use prost::{Message, Name};
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::Client;

/// What a receiver grants, and again when less of it is left.
pub const WINDOW: usize = 64 << 10;
/// Most that a sender sends in one message.
pub const DATA_MAX: usize = 32 << 10;

pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::full_name(),
        value: message.encode_to_vec(),
    }
}

#[track_caller]
pub fn unpack<M: Message + Name + Default>(any: &Any) -> M {
    assert_eq!(any.type_url, M::full_name());
    M::decode(&*any.value).expect("a message")
}

/// An open stream.
pub struct Stream {
    pub send: Option<mpsc::Sender<Any>>,
    pub answers: Streaming<Any>,
}

impl Client {
    /// Opens a stream, and waits until it is known.
    pub async fn stream(&self, id: &str) -> Result<Stream, Status> {
        let init = StreamInit { id: id.to_owned() };
        let mut stream = self.stream_with(vec![pack(&init)]).await?;
        let ready = stream.answers.message().await?.expect("a message");
        assert_eq!(
            (&*ready.type_url, ready.value.len()),
            ("google.protobuf.Empty", 0)
        );
        Ok(stream)
    }

    /// Opens one with these messages.
    pub async fn stream_with(&self, messages: Vec<Any>) -> Result<Stream, Status> {
        let (send, receive) = mpsc::channel(4);
        let none = messages.is_empty();
        for message in messages {
            send.send(message).await.expect("room");
        }
        let send = Some(send).filter(|_| !none);
        let answers = self.streaming().stream(ReceiverStream::new(receive)).await;
        Ok(Stream {
            send,
            answers: answers?.into_inner(),
        })
    }

    /// Transfers, and tells how on the stream of this id.
    pub async fn transfer<F, T>(&self, from: &F, to: &T, progress: &str) -> Result<(), Status>
    where
        F: Message + Name,
        T: Message + Name,
    {
        let request = TransferRequest {
            source: Some(pack(from)),
            destination: Some(pack(to)),
            options: Some(TransferOptions {
                progress_stream: progress.to_owned(),
            }),
        };
        let answer = self.transfers().transfer(request).await;
        answer.map(Response::into_inner)
    }
}

impl Stream {
    pub async fn send<M: Message + Name>(&self, message: &M) {
        let send = self.send.as_ref().expect("open");
        let _ = send.send(pack(message)).await;
    }

    /// The next message; `None` at the end.
    pub async fn next<M: Message + Name + Default>(&mut self) -> Option<M> {
        let any = self.answers.message().await.expect("no failure");
        any.as_ref().map(unpack)
    }

    /// Waits until the server closes the stream.
    pub async fn closed(&mut self) {
        while let Ok(Some(_)) = self.answers.message().await {}
    }

    /// Sends bytes, as many as are granted, and then that there are no more.
    pub async fn send_all(mut self, bytes: &[u8]) {
        let (mut window, mut rest) = (0, bytes);
        while !rest.is_empty() {
            while window == 0 {
                let Some(WindowUpdate { update }) = self.next().await else {
                    return;
                };
                window += usize::try_from(update).expect("a window");
            }
            let (part, after) = rest.split_at(rest.len().min(DATA_MAX).min(window));
            let data = part.to_vec();
            self.send(&Data { data }).await;
            (window, rest) = (window - part.len(), after);
        }
        self.send = None;
        self.closed().await;
    }

    /// Receives bytes until the server closes the stream.
    pub async fn receive_all(mut self) -> Vec<u8> {
        let (mut window, mut all) = (0, Vec::new());
        loop {
            if window < WINDOW {
                let update = i32::try_from(WINDOW).expect("small");
                self.send(&WindowUpdate { update }).await;
                window += WINDOW;
            }
            let Some(Data { data }) = self.next().await else {
                return all;
            };
            assert!(data.len() <= window, "{} bytes", data.len());
            window -= data.len();
            all.extend(data);
        }
    }

    /// Everything that is told until the server closes the stream.
    pub async fn told(mut self) -> Vec<Progress> {
        let mut told = Vec::new();
        while let Some(progress) = self.next().await {
            told.push(progress);
        }
        told
    }
}
