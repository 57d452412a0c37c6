//! What a registry is asked and what it answers, line by line, for whoever wants to see that (containerd
//! `core/transfer/registry`, `pkg/httpdbg`): a client, on a stream of bytes, or whoever reads our log.
//!
//! The lines come without secrets (`cairn_registry::Trace`), and no request waits until they are read:
//! what a client leaves unread is kept up to a number of lines, and how many had to go is a line.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cairn_node::Event;
use cairn_proto::containerd::types::transfer::HttpDebug;
use cairn_registry::Detail;
use tokio::{task::JoinHandle, time::timeout};
use tracing::{Span, debug, info};

use crate::{service::news::News, streams::Sent};

/// How much was asked for. containerd takes the two apart, the messages and the course of connections;
/// here the more has the less in it. What else a number may mean one day is nothing, as there.
pub(super) fn detail(wanted: i32) -> Option<Detail> {
    match HttpDebug::try_from(wanted) {
        Ok(HttpDebug::Debug | HttpDebug::Both) => Some(Detail::Messages),
        Ok(HttpDebug::Trace) => Some(Detail::Exchanges),
        Ok(HttpDebug::Disabled) | Err(_) => None,
    }
}

/// Where the lines of a transfer go.
pub(super) enum Log {
    /// To its client.
    Client {
        news: Arc<News<Event>>,
        /// Until its end is waited for.
        sending: Mutex<Option<JoinHandle<()>>>,
    },
    /// To our log, within the call: as containerd has it for information, or for debugging what is about
    /// connections alone.
    Daemon { span: Span, detail: Detail },
}

impl Log {
    /// To a client.
    pub(super) fn client(client: Sent) -> Log {
        let news = News::new();
        let sending = tokio::spawn(send(news.clone(), client));
        Log::Client {
            news,
            sending: Mutex::new(Some(sending)),
        }
    }

    /// To our log, as of the call that this is in.
    pub(super) fn daemon(detail: Detail) -> Log {
        Log::Daemon {
            span: Span::current(),
            detail,
        }
    }

    /// Adds a line.
    pub(super) fn add(&self, line: String) {
        match self {
            Log::Client { news, .. } => {
                news.add(Event::Traced(line));
            }
            Log::Daemon { span, detail } => match detail {
                Detail::Messages => info!(parent: span, %line, "http"),
                Detail::Exchanges => debug!(parent: span, %line, "http"),
            },
        }
    }

    /// There are no more. A client that reads has all of them when this returns, one that does not loses
    /// the rest after that time, since its stream ends with the call.
    pub(super) async fn end(&self, patience: Duration) {
        let Log::Client { news, sending } = self else {
            return;
        };
        news.end();
        let sending = sending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut sending) = sending
            && timeout(patience, &mut sending).await.is_err()
        {
            sending.abort();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Log::Client { news, .. } = self {
            news.end();
        }
    }
}

/// Sends lines until there are no more, or the client wants none; that is the end of the stream.
async fn send(news: Arc<News<Event>>, mut client: Sent) {
    loop {
        let (lines, ended) = tokio::select! {
            next = news.next() => next,
            () = client.closed() => return,
        };
        let text = text(lines);
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let Ok(sent) = client.send(rest).await else {
                return;
            };
            rest = &rest[sent..];
        }
        if ended {
            return;
        }
    }
}

/// A line end after each of them.
fn text(lines: Vec<Event>) -> String {
    let mut text = String::new();
    for event in lines {
        if let Event::Traced(line) = event {
            text += &line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use cairn_proto::containerd::types::transfer::Data;
    use tokio::sync::mpsc::Receiver;

    use super::*;
    use crate::streams::{Loose, unpack};

    /// More than are kept of them.
    const LINES: usize = 5000;

    /// All that comes until the stream ends.
    async fn read(receiver: &mut Receiver<Result<prost_types::Any, tonic::Status>>) -> String {
        let mut bytes = Vec::new();
        while let Some(any) = receiver.recv().await {
            let data = unpack::<Data>(&any.expect("a message")).expect("data");
            bytes.extend(data.expect("data").data);
        }
        String::from_utf8(bytes).expect("text")
    }

    #[tokio::test]
    async fn what_a_client_does_not_read_in_time_is_counted() {
        let Loose {
            sent,
            mut receiver,
            window,
            call: _call,
        } = Loose::new();
        let log = Log::client(sent);
        // Nothing is granted, and nobody waits for that.
        for number in 0..LINES {
            log.add(format!("line {number}"));
        }
        window.grant(1 << 20);
        let ending = log.end(Duration::from_secs(3600));
        let ((), text) = tokio::join!(ending, read(&mut receiver));
        let lines: Vec<&str> = text.lines().collect();
        let (last, kept) = lines.split_last().expect("lines");
        for (number, line) in kept.iter().enumerate() {
            assert_eq!(*line, format!("line {number}"));
        }
        let lost = LINES - kept.len();
        let expected = format!("{lost} lines came faster than they were read, and are left out");
        assert_eq!(*last, expected);
        assert!(text.ends_with('\n') && lost > 0);
    }

    #[tokio::test]
    async fn a_client_that_grants_too_little_loses_the_rest() {
        let Loose {
            sent,
            mut receiver,
            window,
            call: _call,
        } = Loose::new();
        let log = Log::client(sent);
        log.add("some".to_owned());
        window.grant(2);
        // Until what was granted has come; then nothing more can.
        let first = receiver.recv().await.expect("a message");
        let first = unpack::<Data>(&first.expect("a message")).expect("data");
        assert_eq!(first.expect("data").data, b"so");
        log.end(Duration::from_millis(1)).await;
        assert_eq!(read(&mut receiver).await, "");
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_ends_the_stream() {
        let Loose {
            sent,
            mut receiver,
            call,
            ..
        } = Loose::new();
        let log = Log::client(sent);
        log.add("some".to_owned());
        drop(call);
        assert_eq!(read(&mut receiver).await, "");
        log.add("more".to_owned());
    }

    #[test]
    fn more_detail_has_the_less_in_it() {
        let rows = [
            (HttpDebug::Disabled, None),
            (HttpDebug::Debug, Some(Detail::Messages)),
            (HttpDebug::Trace, Some(Detail::Exchanges)),
            (HttpDebug::Both, Some(Detail::Messages)),
        ];
        for (wanted, expected) in rows {
            assert_eq!(detail(wanted.into()), expected, "{wanted:?}");
        }
        assert_eq!(detail(99), None);
    }
}
