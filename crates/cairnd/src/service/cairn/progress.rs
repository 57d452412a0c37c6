//! Long work that tells its client how it goes, while the client may read more slowly than there is
//! something to tell.
//!
//! The work never waits for an event to be read. What waits to be read is at most the events that say
//! something new (a few for each layer); of how far a layer is within its phase only the last one is
//! kept, and sent a few times a second. So it is with whom its bytes are asked of, how far they had come
//! and what went wrong: a layer that is asked for again and again has one of each waiting.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_node::{Event, Phase, Progress};
use cairn_proto::cairn::v1;
use cairn_types::Digest;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{Instrument, Span};

use super::{Answers, wire};
use crate::{status::blocking, traces};

/// Answers that wait for a slow client, each a megabyte at most.
const AHEAD: usize = 4;

/// How often it is told how far a layer is within its phase; a terminal is drawn no faster.
const PACE: Duration = Duration::from_millis(50);

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

/// As [`start`], to where `send` leads.
pub(super) async fn run<M, F>(send: Sender<M>, wrap: fn(v1::Progress) -> M, work: F)
where
    M: Send + 'static,
    F: FnOnce(&Teller<M>) -> Result<M, Status> + Send + 'static,
{
    let news = Arc::new(News {
        span: Some(Span::current()),
        ..News::default()
    });
    let teller = Teller {
        news: news.clone(),
        send: send.clone(),
    };
    // The teller goes with the work, whichever way that ends, and its end is told.
    let work = blocking(move || work(&teller));
    let (result, ()) = tokio::join!(work, forward(&news, &send, wrap));
    // A client that is gone hears nothing.
    let _ = send.send(result).await;
}

/// Sends events on until there are no more, or nobody reads them.
async fn forward<M>(news: &News, send: &Sender<M>, wrap: fn(v1::Progress) -> M) {
    loop {
        // What is not news by itself waits for the next beat.
        tokio::select! {
            biased;
            () = news.urgent.notified() => {}
            () = tokio::time::sleep(PACE) => {}
            () = send.closed() => return,
        }
        let (events, ended) = news.take();
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

/// What work has to tell its client, without ever waiting for it.
#[derive(Default)]
struct News {
    pending: Mutex<Pending>,
    urgent: Notify,
    /// Of the call; the work's own threads are in none.
    span: Option<Span>,
}

#[derive(Default)]
struct Pending {
    /// By number, in order.
    events: BTreeMap<u64, Event>,
    next: u64,
    /// Which of `events` says what of a layer.
    places: HashMap<(Digest, Said), u64>,
    /// Which is a layer's last that is none of its phases.
    turns: HashMap<Digest, u64>,
    /// The phase that each layer was in last.
    phases: HashMap<Digest, Phase>,
    ended: bool,
}

/// What an event says of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Said {
    Phase(Phase),
    Asked,
    Resumed,
    Retry,
}

impl Said {
    /// Of which layer an event says what; `None` when it is about all of them.
    fn of(event: &Event) -> Option<(&Digest, Said)> {
        match event {
            Event::Layer { digest, phase, .. } => Some((digest, Said::Phase(*phase))),
            Event::Asked { digest, .. } => Some((digest, Said::Asked)),
            Event::Resumed { digest, .. } => Some((digest, Said::Resumed)),
            Event::Retry { digest, .. } => Some((digest, Said::Retry)),
            Event::Resolved { .. } | Event::Done => None,
        }
    }
}

impl News {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> (Vec<Event>, bool) {
        let mut pending = self.pending();
        pending.separate();
        let events = std::mem::take(&mut pending.events);
        (events.into_values().collect(), pending.ended)
    }

    fn add(&self, event: Event) {
        let phase_begun = |layer: &Digest, phase| {
            if let Some(span) = &self.span {
                traces::phase(span, layer, phase);
            }
        };
        if self.pending().add(event, phase_begun) {
            self.urgent.notify_one();
        }
    }

    fn end(&self) {
        self.pending().ended = true;
        self.urgent.notify_one();
    }
}

impl Pending {
    /// Whether it is news that should not wait.
    fn add(&mut self, event: Event, phase_begun: impl FnOnce(&Digest, Phase)) -> bool {
        let here = self.next;
        self.next += 1;
        let Some((digest, said)) = Said::of(&event) else {
            // What comes after it is about other work, even of the same layer.
            self.separate();
            self.events.insert(here, event);
            return true;
        };
        let digest = digest.clone();
        let mut is_new = true;
        if let Said::Phase(phase) = said {
            is_new = self.phases.insert(digest.clone(), phase) != Some(phase);
            if is_new {
                phase_begun(&digest, phase);
            }
        }
        let turn = self.turns.get(&digest).copied();
        let is_turn = !matches!(said, Said::Phase(_));
        match self.places.get_mut(&(digest.clone(), said)) {
            // Nothing else was said of the layer meanwhile that it must come after.
            Some(place) if !is_turn && turn.is_none_or(|turn| turn < *place) => {
                self.events.insert(*place, event);
                return is_new;
            }
            Some(place) => {
                self.events.remove(place);
                *place = here;
            }
            None => {
                self.places.insert((digest.clone(), said), here);
            }
        }
        if is_turn {
            self.turns.insert(digest, here);
        }
        self.events.insert(here, event);
        is_new
    }

    /// What comes from now on takes nothing's place that is there.
    fn separate(&mut self) {
        self.places.clear();
        self.turns.clear();
    }
}

/// The client of work, to the work.
pub(super) struct Teller<M> {
    news: Arc<News>,
    send: Sender<M>,
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
        self.news.add(event);
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
    use super::*;

    fn layer(text: &str, phase: Phase, done: u64) -> Event {
        Event::Layer {
            digest: Digest::sha256(text.as_bytes()),
            phase,
            done,
            total: 1 << 40,
        }
    }

    fn resolved(name: &str) -> Event {
        Event::Resolved {
            name: name.to_owned(),
            platform: String::new(),
            layers: Vec::new(),
        }
    }

    #[test]
    fn what_waits_does_not_grow_with_the_bytes() {
        let news = News::default();
        news.add(resolved("i"));
        for done in 0..100_000 {
            news.add(layer("a", Phase::Fetch, done));
            news.add(layer("b", Phase::Unpack, done));
        }
        news.add(layer("a", Phase::Done, 7));
        let expected = vec![
            resolved("i"),
            layer("a", Phase::Fetch, 99_999),
            layer("b", Phase::Unpack, 99_999),
            layer("a", Phase::Done, 7),
        ];
        assert_eq!(news.take(), (expected, false));
        // Nothing is told twice, and nothing is put where it was taken from.
        news.add(layer("b", Phase::Unpack, 100_000));
        news.end();
        let expected = vec![layer("b", Phase::Unpack, 100_000)];
        assert_eq!(news.take(), (expected, true));
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

    #[test]
    fn only_a_new_phase_is_urgent() {
        let mut pending = Pending::default();
        let rows = [
            (resolved("i"), true),
            (layer("a", Phase::Fetch, 0), true),
            (layer("a", Phase::Fetch, 9), false),
            (layer("b", Phase::Fetch, 0), true),
            (layer("a", Phase::Done, 9), true),
            (Event::Done, true),
        ];
        for (event, urgent) in rows {
            let mut begun = false;
            let is_urgent = pending.add(event.clone(), |_, _| begun = true);
            assert_eq!(is_urgent, urgent, "{event:?}");
            let of_layer = matches!(event, Event::Layer { .. });
            assert_eq!(begun, urgent && of_layer, "{event:?}");
        }
    }

    /// Of a layer that is asked for without end one of each kind waits, in the order of the last ones.
    #[test]
    fn what_waits_does_not_grow_with_the_tries() {
        let digest = Digest::sha256(b"a");
        let retry = |attempt| Event::Retry {
            digest: digest.clone(),
            host: "h".to_owned(),
            attempt: (attempt, 5),
            wait: Duration::from_secs(3),
            cause: "timed out".to_owned(),
        };
        let asked = |attempt| Event::Asked {
            digest: digest.clone(),
            host: "h".to_owned(),
            attempt,
        };
        let resumed = |at| Event::Resumed {
            digest: digest.clone(),
            at,
        };
        let news = News::default();
        news.add(layer("a", Phase::Fetch, 0));
        for n in 0..10_000 {
            news.add(asked(n));
            news.add(resumed(u64::from(n)));
            news.add(layer("a", Phase::Fetch, u64::from(n)));
            news.add(layer("b", Phase::Fetch, u64::from(n)));
            news.add(retry(n));
        }
        assert_eq!(news.pending().events.len(), 5);
        let expected = vec![
            layer("b", Phase::Fetch, 9_999),
            asked(9_999),
            resumed(9_999),
            layer("a", Phase::Fetch, 9_999),
            retry(9_999),
        ];
        assert_eq!(news.take(), (expected, false));
    }

    #[test]
    fn the_layers_of_two_images_are_not_mixed_up() {
        let news = News::default();
        let events = [
            resolved("i"),
            layer("a", Phase::Fetch, 1),
            resolved("j"),
            layer("a", Phase::Fetch, 2),
        ];
        for event in &events {
            news.add(event.clone());
        }
        assert_eq!(news.take().0, events);
    }
}
