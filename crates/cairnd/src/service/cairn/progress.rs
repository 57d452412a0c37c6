//! Long work that tells its client how it goes, while the client may read more slowly than there is
//! something to tell.

use std::{io, sync::Arc};

use cairn_node::{Event, Progress};
use cairn_proto::cairn::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{Instrument, Span};

use super::{Answers, wire};
use crate::{
    service::news::{News, Said, Tiding},
    status::blocking,
    traces,
};

/// Answers that wait for a slow client, each a megabyte at most.
const AHEAD: usize = 4;

/// Where the answers of a call go.
pub(super) type Sender<M> = mpsc::Sender<Result<M, Status>>;

/// Answers of a call, and where they come from.
pub(super) fn answers<M: Send + 'static>() -> (Sender<M>, Answers<M>) {
    let (send, receive) = mpsc::channel(AHEAD);
    (send, Box::pin(ReceiverStream::new(receive)))
}

/// Answers a call with the events of `work`, each as `wrap` puts it, and last with what it returns.
pub(super) fn start<M, F>(wrap: fn(v1::Progress) -> M, work: F) -> Answers<M>
where
    M: Send + 'static,
    F: FnOnce(&Teller<M>) -> Result<M, Status> + Send + 'static,
{
    let (send, answers) = self::answers();
    tokio::spawn(run(send, wrap, work).in_current_span());
    answers
}

/// Answers a call by what `run` sends, and last with its failure, if it has one.
pub(super) fn converse<M, R, F>(run: F) -> Answers<M>
where
    M: Send + 'static,
    R: Future<Output = Result<(), Status>> + Send + 'static,
    F: FnOnce(Sender<M>) -> R,
{
    let (send, answers) = answers();
    let run = run(send.clone());
    let run = async move {
        if let Err(status) = run.await {
            let _ = send.send(Err(status)).await;
        }
    };
    tokio::spawn(run.in_current_span());
    answers
}

/// As [`start`], to where `send` leads.
pub(super) async fn run<M, F>(send: Sender<M>, wrap: fn(v1::Progress) -> M, work: F)
where
    M: Send + 'static,
    F: FnOnce(&Teller<M>) -> Result<M, Status> + Send + 'static,
{
    let news = News::new();
    let teller = Teller {
        news: news.clone(),
        send: send.clone(),
        span: Span::current(),
    };
    // The teller goes with the work, whichever way that ends, and its end is told.
    let work = blocking(move || work(&teller));
    let (result, ()) = tokio::join!(work, forward(&news, &send, wrap));
    // A client that is gone hears nothing.
    let _ = send.send(result).await;
}

/// Sends events on until there are no more, or nobody reads them.
async fn forward<M>(news: &News<Event>, send: &Sender<M>, wrap: fn(v1::Progress) -> M) {
    loop {
        let (events, ended) = tokio::select! {
            next = news.next() => next,
            () = send.closed() => return,
        };
        for event in events {
            if send.send(Ok(wrap(wire::progress(event)))).await.is_err() {
                return;
            }
        }
        if ended {
            return;
        }
    }
}

/// The client of work, to the work.
pub(super) struct Teller<M> {
    news: Arc<News<Event>>,
    send: Sender<M>,
    /// Of the call; the work's own threads are in none.
    span: Span,
}

impl<M> Teller<M> {
    /// Sends an answer, and waits until there is room for it. Not for where others are served.
    ///
    /// # Errors
    /// `BrokenPipe` when the client is gone.
    pub(super) fn answer(&self, answer: M) -> io::Result<()> {
        let sent = self.send.blocking_send(Ok(answer));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl<M: Send> Progress for Teller<M> {
    fn event(&self, event: Event) {
        let about = event.about();
        if let (true, Some((layer, Said::Phase(phase)))) = (self.news.add(event), about) {
            traces::phase(&self.span, &layer, phase);
        }
    }

    fn given_up(&self) -> bool {
        self.send.is_closed()
    }
}

impl<M> Drop for Teller<M> {
    fn drop(&mut self) {
        self.news.end();
    }
}

#[cfg(test)]
mod tests {
    use cairn_node::Phase;
    use cairn_types::Digest;

    use super::*;

    fn layer(text: &str, phase: Phase, done: u64) -> Event {
        Event::Layer {
            digest: Digest::sha256(text.as_bytes()),
            phase,
            done,
            total: 1 << 40,
        }
    }

    /// The answers are not read before the work has ended.
    #[tokio::test]
    async fn work_does_not_wait_for_its_reader() {
        let (send, mut receive) = mpsc::channel(AHEAD);
        let (ended, end) = tokio::sync::oneshot::channel();
        let work = |teller: &Teller<v1::Progress>| {
            for done in 0..10_000 {
                for text in ["a", "b", "c", "d", "e", "f"] {
                    teller.event(layer(text, Phase::Fetch, done));
                    teller.event(layer(text, Phase::Unpack, done));
                }
            }
            let _ = ended.send(());
            Ok(v1::Progress::default())
        };
        let answers = tokio::spawn(run(send, |progress| progress, work));
        end.await.expect("the end of the work");
        let mut all = Vec::new();
        while let Some(answer) = receive.recv().await {
            all.push(answer.expect("no failure"));
        }
        answers.await.expect("task");
        // Each layer in either phase, whenever those that waited were taken: once, or a few times.
        assert!((13..1000).contains(&all.len()), "{}", all.len());
        assert_eq!(all.last(), Some(&v1::Progress::default()));
    }
}
