//! What is told of a transfer on its progress stream, in the words that `ctr` draws (containerd
//! `core/transfer/local/progress.go`): things by the names of their uploads, and without a name what is
//! being done.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cairn_node::{Event, Phase, Progress};
use cairn_proto::containerd::types::transfer as wire;
use cairn_types::{Descriptor, Digest, ImageName};
use tokio::task::JoinHandle;
use tonic::Status;

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

/// Which way the bytes of layers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From a registry, under a word for the image they belong to.
    Down,
    /// To a registry.
    Up,
    /// Out of an archive.
    In,
}

impl Way {
    /// What is done to a layer's bytes.
    fn layer(self) -> &'static str {
        match self {
            Way::Down => "downloading",
            Way::Up => "uploading",
            Way::In => "importing",
        }
    }

    /// What is done to an image.
    fn image(self) -> &'static str {
        match self {
            Way::Down => "fetching image content",
            Way::Up => "pushing content",
            Way::In => "importing image content",
        }
    }
}

/// Tells a transfer's client how it goes, if the client asked for that.
pub(super) struct Teller {
    told: Option<Told>,
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
        Ok(Teller { told, call })
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
        }
    }

    /// The transfer is over. What was told is on its way when this returns, unless its client does not
    /// read; then it is left to the stream.
    pub(super) async fn end(&self) {
        let Some(told) = &self.told else { return };
        told.news.end();
        let forwarding = told
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
}

/// What is known of the events that came before.
#[derive(Default)]
struct Seen {
    /// The image whose layers are under way; empty if it has no name.
    image: String,
    /// Layers that are, or were, unpacked.
    unpacked: HashSet<Digest>,
}

impl Progress for Listener<'_> {
    fn event(&self, event: Event) {
        if self.teller.told.is_none() {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for progress in seen.translated(event, self.way) {
            self.teller.add(progress);
        }
    }

    fn given_up(&self) -> bool {
        self.teller.call.is_given_up()
    }
}

impl Seen {
    /// What is told of an event.
    fn translated(&mut self, event: Event, way: Way) -> Vec<wire::Progress> {
        match event {
            Event::Resolved { name, layers, .. } => {
                self.image = name;
                let whole = (!self.image.is_empty()).then(|| wire::Progress {
                    event: way.image().to_owned(),
                    name: self.image.clone(),
                    ..wire::Progress::default()
                });
                let waiting =
                    |(digest, size): &(Digest, u64)| self.layer("waiting", digest, 0, *size);
                whole
                    .into_iter()
                    .chain(layers.iter().map(waiting))
                    .collect()
            }
            Event::Layer {
                digest,
                phase,
                done,
                total,
            } => {
                let (event, done) = match phase {
                    Phase::Waiting => ("waiting", 0),
                    Phase::Fetch | Phase::FetchUnpack | Phase::Push => (way.layer(), done),
                    Phase::Unpack => ("extracting", done),
                    // It has all its bytes by then.
                    Phase::Sync => ("extracting", total),
                    Phase::Done if self.unpacked.contains(&digest) => ("extracted", total),
                    Phase::Done => ("complete", total),
                    Phase::HereAlready | Phase::Mounted => ("already exists", total),
                };
                let told = self.layer(event, &digest, done, total);
                if matches!(phase, Phase::FetchUnpack | Phase::Unpack | Phase::Sync) {
                    self.unpacked.insert(digest);
                }
                vec![told]
            }
            Event::Retry {
                digest,
                host,
                attempt: (attempt, of),
                cause,
                ..
            } => vec![wire::Progress {
                event: format!("Retrying {digest} at {host} ({attempt} of {of}): {cause}"),
                ..wire::Progress::default()
            }],
            Event::Asked { .. } | Event::Resumed { .. } | Event::Timed { .. } | Event::Done => {
                Vec::new()
            }
        }
    }

    fn layer(&self, event: &str, digest: &Digest, done: u64, total: u64) -> wire::Progress {
        let parent = Some(&self.image).filter(|image| !image.is_empty());
        wire::Progress {
            event: event.to_owned(),
            name: format!("layer-{digest}"),
            parents: parent.cloned().into_iter().collect(),
            progress: convert::signed(done),
            total: convert::signed(total),
            // The node says no more of a layer than its digest and size.
            desc: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::sha256(text.as_bytes())
    }

    fn at(phase: Phase, done: u64) -> Event {
        Event::Layer {
            digest: digest("a"),
            phase,
            done,
            total: 9,
        }
    }

    #[test]
    fn layers_belong_to_the_image_that_was_resolved_last() {
        let mut seen = Seen::default();
        let resolved = |name: &str| Event::Resolved {
            name: name.to_owned(),
            platform: "linux/amd64".to_owned(),
            layers: vec![(digest("a"), 9)],
        };
        let told = seen.translated(resolved("i:1"), Way::Down);
        let [whole, waiting] = &*told else {
            panic!("{told:?}")
        };
        assert_eq!(
            (&*whole.event, &*whole.name),
            ("fetching image content", "i:1")
        );
        assert_eq!(whole.parents, Vec::<String>::new());
        let key = format!("layer-{}", digest("a"));
        assert_eq!((&*waiting.event, &waiting.name), ("waiting", &key));
        assert_eq!(waiting.parents, ["i:1"]);
        assert_eq!((waiting.progress, waiting.total), (0, 9));
        // An index that nobody named has layers all the same.
        let told = seen.translated(resolved(""), Way::In);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].parents, Vec::<String>::new());
    }

    #[test]
    fn phases_have_the_words_that_clients_draw() {
        let rows = [
            (Way::Down, Phase::Waiting, "waiting", 0),
            (Way::Down, Phase::Fetch, "downloading", 4),
            (Way::Down, Phase::FetchUnpack, "downloading", 4),
            (Way::Down, Phase::Unpack, "extracting", 4),
            (Way::Down, Phase::Sync, "extracting", 9),
            (Way::Down, Phase::Done, "complete", 9),
            (Way::Down, Phase::HereAlready, "already exists", 9),
            (Way::Up, Phase::Push, "uploading", 4),
            (Way::Up, Phase::Mounted, "already exists", 9),
            (Way::In, Phase::FetchUnpack, "importing", 4),
        ];
        for (way, phase, event, done) in rows {
            let told = Seen::default().translated(at(phase, 4), way);
            let [told] = &*told else { panic!("{told:?}") };
            assert_eq!(
                (&*told.event, told.progress, told.total),
                (event, done, 9),
                "{phase:?}"
            );
        }
    }

    #[test]
    fn what_has_no_name_is_what_is_being_done() {
        let retry = Event::Retry {
            digest: digest("a"),
            host: "r.test".to_owned(),
            attempt: (2, 6),
            wait: Duration::from_secs(1),
            cause: "connection reset".to_owned(),
        };
        let told = Seen::default().translated(retry, Way::Down);
        let [told] = &*told else { panic!("{told:?}") };
        assert_eq!(told.name, "");
        let end = "at r.test (2 of 6): connection reset";
        assert!(told.event.ends_with(end), "{}", told.event);
        assert_eq!(Seen::default().translated(Event::Done, Way::Down), []);
    }

    #[test]
    fn what_was_unpacked_is_extracted_in_the_end() {
        for (phase, end) in [
            (Phase::Fetch, "complete"),
            (Phase::FetchUnpack, "extracted"),
            (Phase::Unpack, "extracted"),
        ] {
            let mut seen = Seen::default();
            seen.translated(at(phase, 4), Way::Down);
            let told = seen.translated(at(Phase::Done, 9), Way::Down);
            assert_eq!(told[0].event, end, "{phase:?}");
        }
    }
}
