//! What is told of a transfer on its progress stream, in the words that `ctr` draws (containerd
//! `core/transfer/local/progress.go`): things by the names of their uploads, and without a name what is
//! being done.

mod seen;

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use cairn_node::{Contents, Event, Progress};
use cairn_proto::containerd::types::transfer as wire;
use cairn_types::{Descriptor, Digest, ImageName};
use tokio::task::JoinHandle;
use tonic::Status;

use self::seen::Seen;
pub(super) use self::seen::Way;
use super::log::Log;
use crate::{
    convert,
    service::news::{News, Tiding},
    streams::{Awaited, Outgoing, Streams, pack},
};

/// How long an answer waits for a client to read what was told before it, which clients that read at
/// all do at once. Older ones read nothing any more when they have the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is told of a thing, or of the whole.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in crate::service) enum Said {
    /// The event of something that has a name.
    State(String),
    /// The first word of what is being done, of which the last is enough: one may be tried again often.
    Doing(String),
}

impl Tiding for wire::Progress {
    type Thing = String;
    type Said = Said;

    fn about(&self) -> Option<(String, Said)> {
        let said = match self.name.is_empty() {
            true => Said::Doing(self.event.split(' ').next().unwrap_or_default().to_owned()),
            false => Said::State(self.event.clone()),
        };
        Some((self.name.clone(), said))
    }

    fn is_state(said: &Said) -> bool {
        matches!(said, Said::State(_))
    }
}

/// Tells a transfer's client how it goes, if the client asked for that.
pub(super) struct Teller {
    told: Option<Told>,
    /// Of a registry, if it was asked for.
    log: OnceLock<Log>,
    call: Awaited,
}

struct Told {
    news: Arc<News<wire::Progress>>,
    /// Until its end is waited for.
    forwarding: Mutex<Option<JoinHandle<()>>>,
}

impl Teller {
    /// On the stream of this id; nobody without one.
    ///
    /// # Errors
    /// `NotFound` without such a stream.
    pub(super) fn new(
        streams: &Streams,
        ns: &str,
        id: &str,
        call: Awaited,
    ) -> Result<Teller, Status> {
        let told = match id {
            "" => None,
            id => {
                let pipe = streams.take(ns, id)?;
                let news = News::new();
                // What the client sends there is of no interest, but its end is that of the stream.
                let forwarding = forward(news.clone(), pipe.outgoing);
                let forwarding = Mutex::new(Some(tokio::spawn(forwarding)));
                Some(Told { news, forwarding })
            }
        };
        Ok(Teller {
            told,
            log: OnceLock::new(),
            call,
        })
    }

    /// Has what a registry is asked and answers told there. A transfer has one registry at most.
    pub(super) fn log(&self, log: Log) {
        let _ = self.log.set(log);
    }

    fn add(&self, progress: wire::Progress) {
        if let Some(told) = &self.told {
            told.news.add(progress);
        }
    }

    /// Says what is being done.
    pub(super) fn say(&self, event: impl Into<String>) {
        self.add(wire::Progress {
            event: event.into(),
            ..wire::Progress::default()
        });
    }

    /// Says that it was done, of what the client named.
    pub(super) fn done(&self, event: String, target: &Descriptor) {
        self.add(wire::Progress {
            event,
            desc: Some(convert::to_descriptor(target)),
            ..wire::Progress::default()
        });
    }

    /// Says what happens to an image.
    pub(super) fn image(&self, event: &str, name: &str, target: &Descriptor) {
        self.add(wire::Progress {
            event: event.to_owned(),
            name: name.to_owned(),
            desc: Some(convert::to_descriptor(target)),
            ..wire::Progress::default()
        });
    }

    /// Says which images are stored now.
    pub(super) fn saved<'i>(&self, images: impl Iterator<Item = (&'i ImageName, &'i Descriptor)>) {
        for (name, target) in images {
            self.image("saved", name.as_str(), target);
        }
    }

    /// Listens to the node, for layers that go this way.
    pub(super) fn listen(&self, way: Way) -> Listener<'_> {
        Listener {
            teller: self,
            way,
            seen: Mutex::default(),
            doing: Mutex::default(),
        }
    }

    /// The transfer is over. What was told is on its way when this returns, unless its client does not
    /// read; then it is left to the stream.
    pub(super) async fn end(&self) {
        let told = async {
            if let Some(told) = &self.told {
                told.end().await;
            }
        };
        let logged = async {
            if let Some(log) = self.log.get() {
                log.end(PATIENCE).await;
            }
        };
        tokio::join!(told, logged);
    }
}

impl Told {
    async fn end(&self) {
        self.news.end();
        let forwarding = self
            .forwarding
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(forwarding) = forwarding {
            let _ = tokio::time::timeout(PATIENCE, forwarding).await;
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if let Some(told) = &self.told {
            told.news.end();
        }
    }
}

/// Sends news until there are no more, or the client is gone; that is the end of the stream.
async fn forward(news: Arc<News<wire::Progress>>, client: Outgoing) {
    loop {
        let (all, ended) = tokio::select! {
            next = news.next() => next,
            () = client.closed() => return,
        };
        for progress in all {
            if client.send(pack(&progress)).await.is_err() {
                return;
            }
        }
        if ended {
            return;
        }
    }
}

/// The node's events, in those words.
pub(super) struct Listener<'t> {
    teller: &'t Teller,
    way: Way,
    seen: Mutex<Seen>,
    /// What is said to be done once it is known what there is to do.
    doing: Mutex<Option<String>>,
}

impl Listener<'_> {
    /// The image goes by this name, whatever the node calls it.
    pub(super) fn named(mut self, name: &str) -> Self {
        self.seen = Mutex::new(Seen::of(Some(name.to_owned())));
        self
    }

    /// Says that this is being done as soon as it is known what there is to do.
    pub(super) fn doing(mut self, event: String) -> Self {
        self.doing = Mutex::new(Some(event));
        self
    }

    fn tell(&self, translate: impl FnOnce(&mut Seen) -> Vec<wire::Progress>) {
        if self.teller.told.is_none() {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for progress in translate(&mut seen) {
            self.teller.add(progress);
        }
    }
}

impl Progress for Listener<'_> {
    fn event(&self, event: Event) {
        match event {
            Event::Traced(line) => {
                if let Some(log) = self.teller.log.get() {
                    log.add(line);
                }
            }
            event => self.tell(|seen| seen.translated(event, self.way)),
        }
    }

    fn wants_contents(&self) -> bool {
        self.teller.told.is_some()
    }

    fn contents(&self, image: &Contents) {
        let doing = &self.doing;
        let doing = doing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(doing) = doing {
            self.teller.say(doing);
        }
        self.tell(|seen| seen.contents(image, self.way));
    }

    fn document(&self, digest: &Digest, was: bool) {
        self.tell(|seen| seen.document(digest, was).into_iter().collect());
    }

    fn given_up(&self) -> bool {
        self.teller.call.is_given_up()
    }
}
