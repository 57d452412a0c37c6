//! Blobs: written whole, in parts and by several at once, resumed, aborted and refused.

use std::time::{Duration, Instant};

use cairn_proto::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, ListContentRequest, ReadContentRequest,
    StatusRequest, UpdateRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use prost_types::FieldMask;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use super::super::{
    api::{Api, Verdict, check, either, good, map, refused, told},
    client::Desk,
};
use crate::image::digest;

/// How long a ref may be locked by a stream that its client has dropped.
const PATIENCE: Duration = Duration::from_secs(20);
/// Blobs that every client writes.
const COMMON: usize = 4;

/// An open stream of writes.
struct Writer {
    send: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
}

impl Writer {
    async fn open(api: &Api, first: WriteContentRequest) -> Result<Writer, Status> {
        let (send, receive) = mpsc::channel(4);
        // Nobody else can have closed it.
        let _ = send.send(first).await;
        let answers = api.content().write(ReceiverStream::new(receive)).await?;
        Ok(Writer {
            send,
            answers: answers.into_inner(),
        })
    }

    async fn answer(&mut self) -> Result<WriteContentResponse, Status> {
        let answer = self.answers.message().await?;
        answer.ok_or_else(|| Status::unknown("the stream ended without an answer"))
    }

    async fn send(&mut self, message: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        let _ = self.send.send(message).await;
        self.answer().await
    }
}

fn message(action: WriteAction, name: &str, at: usize, data: &[u8]) -> WriteContentRequest {
    WriteContentRequest {
        action: action as i32,
        r#ref: name.to_owned(),
        offset: i64::try_from(at).unwrap_or(i64::MAX),
        data: data.to_vec().into(),
        ..WriteContentRequest::default()
    }
}

/// Opens a ref whose last stream was dropped, and may be there for a moment.
async fn reopen(api: &Api, name: &str) -> Verdict<(Writer, usize)> {
    let began = Instant::now();
    loop {
        let stat = message(WriteAction::Stat, name, 0, b"");
        let opened = match Writer::open(api, stat).await {
            Ok(mut writer) => writer.answer().await.map(|answer| (writer, answer)),
            Err(status) => Err(status),
        };
        match opened {
            Ok((writer, answer)) => {
                let offset = usize::try_from(answer.offset);
                return Ok((writer, offset.map_err(|_| "a negative offset".to_owned())?));
            }
            Err(status) if status.code() == Code::Unavailable && began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(status) => return Err(told("open again", &status)),
        }
    }
}

/// Most are small, some are not.
fn size(desk: &mut Desk) -> usize {
    match desk.dice.roll(8) {
        0 => 1 + desk.dice.roll(3 << 20),
        1..=3 => 1 + desk.dice.roll(200 << 10),
        _ => 1 + desk.dice.roll(4 << 10),
    }
}

/// Writes from `at` on, in parts, and commits.
async fn finish(writer: &mut Writer, name: &str, bytes: &[u8], mut at: usize) -> Verdict<String> {
    while bytes.len() - at > 256 << 10 {
        let part = &bytes[at..at + (256 << 10)];
        let sent = writer
            .send(message(WriteAction::Write, name, at, part))
            .await;
        let answer = sent.map_err(|status| told("write", &status))?;
        at += part.len();
        check(answer.offset == i64::try_from(at).unwrap_or(-1), || {
            format!("written to {at}, told {}", answer.offset)
        })?;
    }
    let commit = WriteContentRequest {
        total: i64::try_from(bytes.len()).unwrap_or(-1),
        expected: digest(bytes),
        ..message(WriteAction::Commit, name, at, &bytes[at..])
    };
    let answer = writer.send(commit).await;
    Ok(answer.map_err(|status| told("commit", &status))?.digest)
}

/// Stores bytes; their digest.
pub(super) async fn put(desk: &Desk, bytes: &[u8], labels: &[(&str, &str)]) -> Verdict<String> {
    let expected = digest(bytes);
    let name = format!("put-{}-{expected}", desk.name);
    let commit = WriteContentRequest {
        total: i64::try_from(bytes.len()).unwrap_or(-1),
        expected: expected.clone(),
        labels: map(labels),
        ..message(WriteAction::Commit, &name, 0, bytes)
    };
    let opened = Writer::open(&desk.api, commit).await;
    let mut writer = opened.map_err(|status| told("put", &status))?;
    match writer.answer().await {
        Ok(_) => Ok(expected),
        Err(status) if status.code() == Code::AlreadyExists => Ok(expected),
        Err(status) => Err(told("put", &status)),
    }
}

/// Reads a blob, whole or from an offset on.
pub(super) async fn read(api: &Api, digest: &str, offset: usize) -> Verdict<Vec<u8>> {
    let request = ReadContentRequest {
        digest: digest.to_owned(),
        offset: i64::try_from(offset).unwrap_or(-1),
        size: 0,
    };
    let mut answers = good("read", api.content().read(request).await)?;
    let mut bytes = Vec::new();
    loop {
        match answers.message().await {
            Ok(Some(answer)) => bytes.extend_from_slice(&answer.data),
            Ok(None) => return Ok(bytes),
            Err(status) => return Err(told("read", &status)),
        }
    }
}

async fn same(api: &Api, name: &str, bytes: &[u8], offset: usize) -> Verdict {
    let found = read(api, name, offset).await?;
    check(found == bytes[offset..], || {
        format!("{name} from {offset}: other bytes than were written")
    })
}

/// Whether a blob is there.
pub(super) async fn exists(api: &Api, digest: &str) -> Verdict<bool> {
    let request = InfoRequest {
        digest: digest.to_owned(),
    };
    let answer = either("info", api.content().info(request).await, &[Code::NotFound])?;
    Ok(answer.is_some())
}

/// In parts; then read, labelled, found and removed.
pub(super) async fn write(desk: &mut Desk) -> Verdict {
    let size = size(desk);
    let bytes = desk.noise(size);
    let api = &desk.api;
    let (mut writer, at) = reopen(api, &desk.name).await?;
    check(at == 0, || format!("a new upload begins at {at}"))?;
    let name = finish(&mut writer, &desk.name, &bytes, 0).await?;
    check(name == digest(&bytes), || format!("committed as {name}"))?;
    same(api, &name, &bytes, 0).await?;
    same(api, &name, &bytes, desk.dice.roll(bytes.len())).await?;
    let request = UpdateRequest {
        info: Some(Info {
            digest: name.clone(),
            labels: map(&[("soak", &desk.name)]),
            ..Info::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["labels.soak".to_owned()],
        }),
    };
    good("label", api.content().update(request).await)?;
    let request = ListContentRequest {
        filters: vec![format!("labels.soak=={:?}", desk.name)],
    };
    let mut listed = good("list", api.content().list(request).await)?;
    let batch = listed
        .message()
        .await
        .map_err(|status| told("list", &status))?;
    let found = batch.map(|batch| batch.info).unwrap_or_default();
    check(found.len() == 1 && found[0].digest == name, || {
        format!("{} blobs carry the label of one", found.len())
    })?;
    if desk.dice.roll(2) == 0 {
        let request = || DeleteContentRequest {
            digest: name.clone(),
        };
        good("delete", api.content().delete(request()).await)?;
        let again = api.content().delete(request()).await;
        refused("delete again", again, Code::NotFound)?;
    }
    Ok(())
}

/// Begins an upload and leaves it; how much of it is there, which is all that was acknowledged.
async fn begin(desk: &Desk, bytes: &[u8]) -> Verdict<usize> {
    let half = bytes.len() / 2;
    let first = message(WriteAction::Write, &desk.name, 0, &bytes[..half]);
    let opened = Writer::open(&desk.api, first).await;
    let mut writer = opened.map_err(|status| told("begin", &status))?;
    let answer = writer.answer().await;
    answer.map_err(|status| told("begin", &status))?;
    Ok(half)
}

/// Left in the middle, and taken up again.
pub(super) async fn resume(desk: &mut Desk) -> Verdict {
    let size = size(desk);
    let bytes = desk.noise(size);
    let half = begin(desk, &bytes).await?;
    let request = StatusRequest {
        r#ref: desk.name.clone(),
    };
    let status = good("status", desk.api.content().status(request).await)?;
    let offset = status.status.map(|status| status.offset);
    check(offset == i64::try_from(half).ok(), || {
        format!("{half} bytes acknowledged, {offset:?} there")
    })?;
    let (mut writer, at) = reopen(&desk.api, &desk.name).await?;
    check(at == half, || format!("{half} acknowledged, {at} there"))?;
    let name = finish(&mut writer, &desk.name, &bytes, at).await?;
    same(&desk.api, &name, &bytes, 0).await
}

/// Left in the middle, and given up.
pub(super) async fn abort(desk: &mut Desk) -> Verdict {
    let bytes = desk.noise(64 << 10);
    begin(desk, &bytes).await?;
    let request = || AbortRequest {
        r#ref: desk.name.clone(),
    };
    let began = Instant::now();
    loop {
        match desk.api.content().abort(request()).await {
            Ok(_) => break,
            // The stream that was dropped may hold it for a moment.
            Err(status) if status.code() == Code::Unavailable && began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(status) => return Err(told("abort", &status)),
        }
    }
    let again = desk.api.content().abort(request()).await;
    refused("abort again", again, Code::NotFound)
}

/// Bytes that are not those that were promised.
pub(super) async fn mismatch(desk: &mut Desk) -> Verdict {
    let (bytes, others) = (desk.noise(5000), desk.noise(5000));
    let commit = WriteContentRequest {
        total: 5000,
        expected: digest(&others),
        ..message(WriteAction::Commit, &desk.name, 0, &bytes)
    };
    let opened = Writer::open(&desk.api, commit).await;
    let mut writer = opened.map_err(|status| told("open", &status))?;
    let answer = writer.answer().await;
    refused("commit", answer, Code::FailedPrecondition)?;
    let there = exists(&desk.api, &digest(&others)).await?;
    check(!there, || "what was refused is there".to_owned())?;
    // An upload that fails so is kept or not; nothing of it may stay.
    drop(writer);
    let request = AbortRequest {
        r#ref: desk.name.clone(),
    };
    let codes = [Code::NotFound, Code::Unavailable];
    either("abort", desk.api.content().abort(request).await, &codes)?;
    Ok(())
}

/// What all write: one writes, the others wait or find it there.
pub(super) async fn common(desk: &mut Desk) -> Verdict {
    let number = desk.dice.roll(COMMON);
    let bytes = vec![u8::try_from(number).unwrap_or(0); 100_000 + number];
    let expected = digest(&bytes);
    let name = format!("common-{number}");
    let began = Instant::now();
    loop {
        let commit = WriteContentRequest {
            total: i64::try_from(bytes.len()).unwrap_or(-1),
            expected: expected.clone(),
            ..message(WriteAction::Commit, &name, 0, &bytes)
        };
        let answer = match Writer::open(&desk.api, commit).await {
            Ok(mut writer) => writer.answer().await,
            Err(status) => Err(status),
        };
        match answer {
            Ok(_) => break,
            Err(status) if status.code() == Code::AlreadyExists => break,
            Err(status) if status.code() == Code::Unavailable && began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(status) => return Err(told("write", &status)),
        }
    }
    // Whoever wrote it: from now on our lease holds it.
    same(&desk.api, &expected, &bytes, 0).await
}

/// The answer to a call that may be made by several at once on one ref.
pub(super) async fn contend(desk: &mut Desk, name: &str) -> Verdict {
    let codes = [Code::Unavailable, Code::NotFound];
    let stat = message(WriteAction::Stat, name, 0, b"");
    let opened: Result<Response<()>, Status> = match Writer::open(&desk.api, stat).await {
        Ok(mut writer) => writer.answer().await.map(|_| Response::new(())),
        Err(status) => Err(status),
    };
    either("open", opened, &codes)?;
    let request = AbortRequest {
        r#ref: name.to_owned(),
    };
    either("abort", desk.api.content().abort(request).await, &codes)?;
    Ok(())
}
