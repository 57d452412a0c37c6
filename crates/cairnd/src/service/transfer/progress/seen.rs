//! The node's events in the words of containerd: what an image consists of by the names of its uploads, each
//! below what refers to it.

use std::collections::{HashMap, HashSet};

use cairn_node::{Contents, Event, Phase};
use cairn_proto::containerd::types::{Descriptor as WireDescriptor, transfer as wire};
use cairn_types::{Descriptor, Digest, MediaKind};

use crate::convert;

/// An image's own word for an entry of an index, which is part of that one's name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Which way the bytes of layers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::service::transfer) enum Way {
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

/// What is known of the events that came before.
#[derive(Default)]
pub(super) struct Seen {
    /// What the image is called, if not as the node does.
    root: Option<String>,
    /// The image whose parts are under way; empty if it has no name.
    image: String,
    /// What it consists of.
    parts: HashMap<Digest, Part>,
    /// Layers that are, or were, unpacked.
    unpacked: HashSet<Digest>,
}

/// What is told of a document or blob each time.
struct Part {
    name: String,
    parents: Vec<String>,
    size: u64,
    desc: WireDescriptor,
}

impl Seen {
    /// Of an image that clients know by this name; by that of the node otherwise.
    pub(super) fn of(root: Option<String>) -> Seen {
        Seen {
            root,
            ..Seen::default()
        }
    }

    /// What is told of an image before anything of it comes: the image, and its parts.
    pub(super) fn contents(&mut self, image: &Contents, way: Way) -> Vec<wire::Progress> {
        let target = image.parts.first();
        let target = target.map(|part| convert::to_descriptor(&part.descriptor));
        let mut told: Vec<_> = self.begin(&image.name, target, way).into_iter().collect();
        let names = image.parts.iter();
        let names = names.map(|part| (&part.descriptor.digest, key(&part.descriptor)));
        let names: HashMap<&Digest, String> = names.collect();
        for part in &image.parts {
            let descriptor = &part.descriptor;
            // Another image may have it as well. It is told of once.
            if self.parts.contains_key(&descriptor.digest) {
                continue;
            }
            let parents = part.parents.iter().filter_map(|parent| names.get(parent));
            let mut parents: Vec<String> = parents.cloned().collect();
            if parents.is_empty() {
                parents.extend(self.parent());
            }
            let part = Part {
                name: names[&descriptor.digest].clone(),
                parents,
                size: descriptor.size,
                desc: convert::to_descriptor(descriptor),
            };
            told.push(part.told("waiting", 0, part.size));
            self.parts.insert(descriptor.digest.clone(), part);
        }
        told
    }

    /// What is told of a document that is where it is wanted.
    pub(super) fn document(&self, digest: &Digest, was: bool) -> Option<wire::Progress> {
        let part = self.parts.get(digest)?;
        let event = if was { "already exists" } else { "complete" };
        Some(part.told(event, part.size, part.size))
    }

    /// What is told of an event.
    pub(super) fn translated(&mut self, event: Event, way: Way) -> Vec<wire::Progress> {
        match event {
            Event::Resolved { name, layers, .. } => {
                let whole = self.begin(&name, None, way);
                let new = layers.iter();
                let new = new.filter(|(digest, _)| !self.parts.contains_key(digest));
                let waiting =
                    |(digest, size): &(Digest, u64)| self.layer("waiting", digest, 0, *size);
                whole.into_iter().chain(new.map(waiting)).collect()
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
                    // It has all its bytes by then, whether anything was unpacked or not.
                    Phase::Sync if self.unpacked.contains(&digest) => ("extracting", total),
                    Phase::Sync => (way.layer(), total),
                    Phase::Done if self.unpacked.contains(&digest) => ("extracted", total),
                    Phase::Done => ("complete", total),
                    Phase::HereAlready | Phase::Mounted => ("already exists", total),
                };
                let told = self.layer(event, &digest, done, total);
                if matches!(phase, Phase::FetchUnpack | Phase::Unpack) {
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
            Event::Asked { .. }
            | Event::Resumed { .. }
            | Event::Timed { .. }
            | Event::Traced(_)
            | Event::Done => Vec::new(),
        }
    }

    /// What comes from now on belongs to this image. What is told of it, once.
    fn begin(
        &mut self,
        name: &str,
        desc: Option<WireDescriptor>,
        way: Way,
    ) -> Option<wire::Progress> {
        let name = self.root.as_deref().unwrap_or(name).to_owned();
        if name.is_empty() || name == self.image {
            self.image = name;
            return None;
        }
        self.image.clone_from(&name);
        Some(wire::Progress {
            event: way.image().to_owned(),
            name,
            desc,
            ..wire::Progress::default()
        })
    }

    fn parent(&self) -> Option<String> {
        Some(&self.image).filter(|image| !image.is_empty()).cloned()
    }

    fn layer(&self, event: &str, digest: &Digest, done: u64, total: u64) -> wire::Progress {
        match self.parts.get(digest) {
            Some(part) => part.told(event, done, total),
            // What is packed on the way in has its digest at the end only.
            None => wire::Progress {
                event: event.to_owned(),
                name: format!("layer-{digest}"),
                parents: self.parent().into_iter().collect(),
                progress: convert::signed(done),
                total: convert::signed(total),
                desc: None,
            },
        }
    }
}

impl Part {
    fn told(&self, event: &str, done: u64, total: u64) -> wire::Progress {
        wire::Progress {
            event: event.to_owned(),
            name: self.name.clone(),
            parents: self.parents.clone(),
            progress: convert::signed(done),
            total: convert::signed(total),
            desc: Some(self.desc.clone()),
        }
    }
}

/// The name that containerd gives to the upload of this (`core/remotes/handlers.go: MakeRefKey`).
fn key(descriptor: &Descriptor) -> String {
    let kind = match MediaKind::of(&descriptor.media_type) {
        MediaKind::Manifest => "manifest",
        MediaKind::Index => "index",
        MediaKind::Layer(_) => "layer",
        MediaKind::Config => "config",
        MediaKind::Schema1 | MediaKind::Other => "unknown",
    };
    let digest = &descriptor.digest;
    match descriptor.annotations.get(REF_NAME) {
        Some(name) => format!("{kind}-{name}@{digest}"),
        None => format!("{kind}-{digest}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cairn_node::ImagePart;

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
            (Way::Down, Phase::Sync, "downloading", 9),
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
    fn what_was_unpacked_is_extracted_in_the_end_and_nothing_else() {
        for (phase, stored, end) in [
            (Phase::Fetch, "downloading", "complete"),
            (Phase::FetchUnpack, "extracting", "extracted"),
            (Phase::Unpack, "extracting", "extracted"),
        ] {
            let mut seen = Seen::default();
            seen.translated(at(phase, 4), Way::Down);
            for (next, event) in [(Phase::Sync, stored), (Phase::Done, end)] {
                let told = seen.translated(at(next, 9), Way::Down);
                assert_eq!(told[0].event, event, "{phase:?}, {next:?}");
            }
        }
    }

    fn part(kind: &str, text: &str, parents: &[&str]) -> ImagePart {
        let kind = format!("application/vnd.oci.image.{kind}");
        ImagePart {
            descriptor: Descriptor::new(&kind, digest(text), 9),
            parents: parents.iter().map(|parent| digest(parent)).collect(),
        }
    }

    #[test]
    fn parts_are_below_what_refers_to_them() {
        let mut named = part("manifest.v1+json", "n", &["i"]);
        let name = ("org.opencontainers.image.ref.name", "1.0");
        let annotations = &mut named.descriptor.annotations;
        annotations.insert(name.0.to_owned(), name.1.to_owned());
        let image = Contents {
            name: "i:1".to_owned(),
            parts: vec![
                part("index.v1+json", "i", &[]),
                part("manifest.v1+json", "m", &["i"]),
                part("config.v1+json", "c", &["m"]),
                part("layer.v1.tar+gzip", "a", &["m", "n"]),
                named,
                part("other", "o", &["n"]),
            ],
        };
        let mut seen = Seen::of(Some("r.test/i:1".to_owned()));
        let told = seen.contents(&image, Way::Down);
        let of = |word: &str, text: &str| format!("{word}-{}", digest(text));
        let named = format!("manifest-1.0@{}", digest("n"));
        let expected = [
            (of("index", "i"), vec!["r.test/i:1".to_owned()]),
            (of("manifest", "m"), vec![of("index", "i")]),
            (of("config", "c"), vec![of("manifest", "m")]),
            (of("layer", "a"), vec![of("manifest", "m"), named.clone()]),
            (named.clone(), vec![of("index", "i")]),
            (of("unknown", "o"), vec![named]),
        ];
        assert_eq!(told[0].name, "r.test/i:1");
        assert_eq!(told[0].desc, told[1].desc);
        let found = told[1..].iter();
        let found = found.map(|told| (told.name.clone(), told.parents.clone()));
        assert_eq!(found.collect::<Vec<_>>(), expected);
        assert!(told[1..].iter().all(|told| told.event == "waiting"));
        // The layers are known, and what is told of them goes with them.
        let resolved = Event::Resolved {
            name: "i:1".to_owned(),
            platform: String::new(),
            layers: vec![(digest("a"), 9)],
        };
        assert_eq!(seen.translated(resolved, Way::Down), []);
        let layer = seen.translated(at(Phase::Fetch, 4), Way::Down);
        assert_eq!(layer[0].desc, told[4].desc);
        assert_eq!(layer[0].parents, told[4].parents);
        for (was, event) in [(true, "already exists"), (false, "complete")] {
            let manifest = seen.document(&digest("m"), was).expect("known");
            assert_eq!((&*manifest.event, manifest.progress), (event, 9));
        }
        assert_eq!(seen.document(&digest("x"), true), None);
        // Of another image that has the same only the name is new.
        let other = Contents {
            name: "j:1".to_owned(),
            ..image
        };
        assert_eq!(Seen::default().contents(&other, Way::In).len(), 7);
        assert_eq!(seen.contents(&other, Way::In), []);
    }
}
