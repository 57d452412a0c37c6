//! What is known of work that goes on: its layers, how far they are, and what that looks like.

use std::time::{Duration, Instant};

use super::{Line, label, plain, rate::Rate, remaining};
use crate::{client::Phase, model::TimingMs};

/// Layers that are shown at once.
const LINES: usize = 8;

/// A long phase in a log says every so often that it lives.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// A layer's object is not written more often than this, unless its phase changes.
const JSON_EVERY: Duration = Duration::from_millis(100);

/// All of it.
pub(super) struct State {
    started: Instant,
    /// The image, or how many there are.
    pub(super) name: String,
    images: usize,
    /// Each once, in the order in which they were told.
    layers: Vec<Layer>,
    /// Those that a layer has been in.
    phases: Vec<Phase>,
    rate: Rate,
    /// Of what was unpacked.
    pub(super) times: Vec<TimingMs>,
    /// When a log last heard of it.
    pub(super) spoke: Instant,
}

/// One layer.
pub(super) struct Layer {
    pub(super) digest: String,
    pub(super) phase: Phase,
    pub(super) done: u64,
    pub(super) total: u64,
    rate: Rate,
    /// Its last line is on the screen.
    printed: bool,
    spoke: Option<Instant>,
    /// In place of the phase's word.
    pub(super) note: Option<String>,
    /// Who was asked last, and how often somebody was.
    pub(super) asked: Option<(String, u32)>,
}

impl State {
    /// Before anything is known.
    pub(super) fn new(now: Instant) -> State {
        State {
            started: now,
            name: String::new(),
            images: 0,
            layers: Vec::new(),
            phases: Vec::new(),
            rate: Rate::default(),
            times: Vec::new(),
            spoke: now,
        }
    }

    /// It is over.
    pub(super) fn clear(&mut self) {
        self.layers.clear();
        self.phases.clear();
        self.times.clear();
        self.images = 0;
    }

    /// Whether anything is to be told.
    pub(super) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Whether something has happened to what was resolved. What is resolved before that belongs to the
    /// same work: other platforms, other images of an archive.
    pub(super) fn has_begun(&self) -> bool {
        !self.phases.is_empty()
            || self
                .layers
                .iter()
                .any(|layer| layer.phase != Phase::Waiting)
    }

    /// Takes in an image. A layer that is in it twice, or in another one as well, is done once.
    pub(super) fn add(&mut self, name: String, layers: Vec<(String, u64)>) {
        self.images += 1;
        match self.images {
            1 => self.name = name,
            images if self.name != name => self.name = format!("{images} images"),
            _ => {}
        }
        for (digest, total) in layers {
            if self.layer(&digest).is_none() {
                self.layers.push(Layer::waiting(digest, total));
            }
        }
    }

    pub(super) fn layer(&mut self, digest: &str) -> Option<&mut Layer> {
        self.layers.iter_mut().find(|l| l.digest == digest)
    }

    /// Whether it is the first that comes to a phase of the whole. That nothing has begun yet, or that a
    /// layer has nothing left to do, is none.
    pub(super) fn enters(&mut self, phase: Phase) -> bool {
        let none = phase == Phase::Waiting || is_done(phase);
        if none || self.phases.contains(&phase) {
            return false;
        }
        self.phases.push(phase);
        true
    }

    /// Bytes so far, and in all.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let done = self.layers.iter().map(|l| l.done).sum();
        let total = self.layers.iter().map(|l| l.total).sum();
        (done, total)
    }

    /// Has time pass for what is told by the second: something that stands still has no rate.
    pub(super) fn mark(&mut self, now: Instant) {
        let layers = self.layers.iter_mut();
        for layer in layers.filter(|layer| layer.phase != Phase::Waiting) {
            layer.rate.mark(now, layer.done);
        }
        let (done, _) = self.bytes();
        self.rate.mark(now, done);
    }

    /// Whether a log should hear of it, after a while of silence.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        !self.is_empty() && now.duration_since(self.spoke) >= PLAIN_EVERY
    }

    /// How far all of it is, for a log.
    pub(super) fn plain(&self, verb: &str) -> String {
        let (done, total) = self.bytes();
        let word = match verb {
            "export" => "written",
            "unpack" => "unpacked",
            "pull" => "fetched",
            "push" => "sent",
            "fsck" => "checked",
            _ => "stored",
        };
        plain(verb, &self.name, word, done, total)
    }

    /// Lines of what has ended since the last time. They stay where they are.
    pub(super) fn finished(&mut self) -> Vec<String> {
        let ended = self.layers.iter_mut();
        let ended = ended.filter(|layer| layer.is_done() && !layer.printed);
        ended
            .map(|layer| {
                layer.printed = true;
                layer.line()
            })
            .collect()
    }

    /// Lines that change: of layers that something happens to, before those that wait, and of the whole.
    pub(super) fn lines(&self, now: Instant) -> Vec<String> {
        let open: Vec<&Layer> = self.layers.iter().filter(|l| !l.is_done()).collect();
        let moving = open.iter().filter(|l| l.phase != Phase::Waiting).count();
        let mut waiting = LINES.saturating_sub(moving);
        let mut lines = Vec::new();
        for layer in &open {
            if layer.phase == Phase::Waiting {
                if waiting == 0 {
                    continue;
                }
                waiting -= 1;
            }
            if lines.len() < LINES {
                lines.push(layer.line());
            }
        }
        let hidden = open.len() - lines.len();
        if hidden > 0 {
            lines.push(format!("  … {hidden} more waiting"));
        }
        lines.push(self.total(now));
        lines
    }

    fn total(&self, now: Instant) -> String {
        let finished = self.layers.iter().filter(|l| l.is_done()).count();
        let (done, total) = self.bytes();
        let rate = self.rate.per_second();
        let passed = now.duration_since(self.started);
        Line {
            label: &format!("total {finished} of {}", self.layers.len()),
            done,
            total,
            rate,
            note: &remaining(total.saturating_sub(done), rate, passed),
        }
        .render()
    }
}

impl Layer {
    fn waiting(digest: String, total: u64) -> Layer {
        Layer {
            digest,
            phase: Phase::Waiting,
            done: 0,
            total,
            rate: Rate::default(),
            printed: false,
            spoke: None,
            note: None,
            asked: None,
        }
    }

    /// It is so far now; whether that is another phase than before.
    pub(super) fn goes_on(&mut self, phase: Phase, (done, total): (u64, u64)) -> bool {
        let changed = self.phase != phase;
        if changed {
            self.note = None;
        }
        (self.phase, self.done, self.total) = (phase, done, total);
        changed
    }

    /// Whether a program should hear of it again; if so, it does.
    pub(super) fn is_due(&mut self, changed: bool, now: Instant) -> bool {
        let recent = |then| now.duration_since(then) < JSON_EVERY;
        if !changed && self.spoke.is_some_and(recent) {
            return false;
        }
        self.spoke = Some(now);
        true
    }

    /// Bytes per second; `None` when nothing moves.
    pub(super) fn rate(&self) -> Option<u64> {
        self.rate.per_second()
    }

    fn is_done(&self) -> bool {
        is_done(self.phase)
    }

    fn line(&self) -> String {
        let rate = if self.is_done() { None } else { self.rate() };
        let label = label(&self.digest);
        let (done, total) = (self.done, self.total);
        Line {
            label: &label,
            done,
            total,
            rate,
            note: self.note.as_deref().unwrap_or_else(|| word(self.phase)),
        }
        .render()
    }
}

/// Nothing more will be told of such a layer.
fn is_done(phase: Phase) -> bool {
    matches!(phase, Phase::Done | Phase::HereAlready | Phase::Mounted)
}

/// As people are told.
pub(super) fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Fetch => "fetch",
        Phase::FetchUnpack => "fetch + unpack",
        Phase::Unpack => "unpack",
        Phase::Sync => "sync",
        Phase::Done => "done",
        Phase::HereAlready => "here already",
        Phase::Push => "push",
        Phase::Mounted => "mounted",
        Phase::Check => "check",
    }
}
