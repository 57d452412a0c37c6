//! Where the events of the store go: to bars, lines or objects on standard error.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{Line, headline, label, plain, rate::Rate, remaining, resumed, retry};
use crate::{
    client::{Event, Phase, Progress},
    out::Out,
    table::printable,
};

/// Redraws per second at most.
const HERTZ: u8 = 10;

/// Layers that are shown at once.
const LINES: usize = 8;

/// A long phase in a log says every so often that it lives.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// A layer's object is not written more often than this, unless its phase changes.
const JSON_EVERY: Duration = Duration::from_millis(100);

/// Decided once, from `--progress`, `-q` and the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bars.
    Tty,
    /// Lines.
    Plain,
    /// Objects.
    Json,
    /// Nothing.
    None,
}

/// Listens to one piece of work.
pub struct Show {
    mode: Mode,
    verb: &'static str,
    /// Instead of what the store calls it.
    title: Option<String>,
    out: Out,
    state: Mutex<State>,
}

struct State {
    started: Instant,
    name: String,
    layers: Vec<Layer>,
    /// Those that a layer has been in.
    phases: Vec<Phase>,
    bars: Option<Bars>,
    rate: Rate,
    spoke: Instant,
}

struct Layer {
    digest: String,
    phase: Phase,
    done: u64,
    total: u64,
    rate: Rate,
    bar: Option<ProgressBar>,
    spoke: Option<Instant>,
    /// In place of the phase's word.
    note: Option<String>,
    /// Who was asked last, and how often somebody was.
    asked: Option<(String, u32)>,
}

struct Bars {
    multi: MultiProgress,
    total: ProgressBar,
}

#[derive(Serialize)]
struct LayerObject<'t> {
    event: &'t str,
    r#ref: &'t str,
    digest: &'t str,
    phase: &'t str,
    done: u64,
    total: u64,
    rate: Option<u64>,
    host: Option<&'t str>,
    attempt: u32,
}

impl Show {
    /// For one run of `verb`.
    pub fn new(mode: Mode, verb: &'static str, out: Out) -> Show {
        let now = Instant::now();
        let state = State {
            started: now,
            name: String::new(),
            layers: Vec::new(),
            phases: Vec::new(),
            bars: None,
            rate: Rate::default(),
            spoke: now,
        };
        Show {
            mode,
            verb,
            title: None,
            out,
            state: Mutex::new(state),
        }
    }

    /// Shown instead of the store's own name for the work, which may be a digest.
    #[must_use]
    pub fn titled(mut self, title: &str) -> Show {
        self.title = Some(title.to_owned());
        self
    }

    /// A panic elsewhere must not hide the error that explains it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, line: &str) {
        self.out.error_text(&format!("{line}\n"));
    }

    fn object(&self, object: &impl Serialize) {
        let text = serde_json::to_string(object).expect("our objects have text keys");
        self.say(&text);
    }

    fn resolved(&self, name: String, platform: &str, layers: Vec<(String, u64)>) {
        let name = self.title.clone().unwrap_or(name);
        let mut state = self.state();
        state.clear();
        let bytes = layers.iter().map(|l| l.1).sum();
        let line = headline(self.verb, &name, platform, layers.len(), bytes);
        match self.mode {
            Mode::None => {}
            Mode::Plain => self.say(&line),
            Mode::Json => self.object(&serde_json::json!({
                "event": "resolved", "ref": &name, "platform": platform,
                "layers": layers.len(), "total": bytes,
            })),
            Mode::Tty => {
                let target = ProgressDrawTarget::stderr_with_hz(HERTZ);
                let multi = MultiProgress::with_draw_target(target);
                let total = multi.add(line_bar());
                // Drawing is best effort: the work goes on when the terminal does not.
                let _ = multi.println(line);
                state.bars = Some(Bars { multi, total });
            }
        }
        state.name = name;
        state.layers = layers
            .into_iter()
            .map(|(digest, total)| Layer::waiting(digest, total))
            .collect();
    }

    fn layer(&self, digest: &str, phase: Phase, done: u64, total: u64) {
        let mut guard = self.state();
        let state = &mut *guard;
        let now = Instant::now();
        let Some(layer) = state.layers.iter_mut().find(|l| l.digest == digest) else {
            return;
        };
        let changed = layer.phase != phase;
        if changed {
            layer.note = None;
        }
        (layer.phase, layer.done, layer.total) = (phase, done, total);
        layer.rate.mark(now, done);
        let all: u64 = state.layers.iter().map(|l| l.done).sum();
        state.rate.mark(now, all);
        match self.mode {
            Mode::None => {}
            Mode::Tty => state.draw(digest, now),
            Mode::Plain if now.duration_since(state.spoke) >= PLAIN_EVERY => {
                state.spoke = now;
                self.say(&state.plain(self.verb));
            }
            Mode::Plain => {}
            Mode::Json => {
                self.phase_object(state, phase);
                self.layer_object(state, digest, changed, now);
            }
        }
    }

    /// The work as a whole is in a phase from when the first of its layers is. That nothing has begun
    /// yet, or that a layer has nothing left to do, is no phase of the whole.
    fn phase_object(&self, state: &mut State, phase: Phase) {
        let none = phase == Phase::Waiting || is_done(phase);
        if none || state.phases.contains(&phase) {
            return;
        }
        state.phases.push(phase);
        let done: u64 = state.layers.iter().map(|l| l.done).sum();
        let total: u64 = state.layers.iter().map(|l| l.total).sum();
        self.object(&serde_json::json!({
            "event": "phase", "ref": &state.name, "phase": word(phase),
            "done": done, "total": total,
        }));
    }

    fn layer_object(&self, state: &mut State, digest: &str, changed: bool, now: Instant) {
        let State { name, layers, .. } = state;
        let Some(layer) = layers.iter_mut().find(|l| l.digest == digest) else {
            return;
        };
        let recent = |then| now.duration_since(then) < JSON_EVERY;
        if !changed && layer.spoke.is_some_and(recent) {
            return;
        }
        layer.spoke = Some(now);
        self.object(&LayerObject {
            event: "layer",
            r#ref: name,
            digest,
            phase: word(layer.phase),
            done: layer.done,
            total: layer.total,
            rate: layer.rate.per_second(),
            host: layer.asked.as_ref().map(|(host, _)| &**host),
            attempt: layer.asked.as_ref().map_or(1, |(_, attempt)| *attempt),
        });
    }

    /// The bytes of a layer are asked for: what went wrong before is past.
    fn asked(&self, digest: &str, host: String, attempt: u32) {
        let mut state = self.state();
        if let Some(layer) = state.layers.iter_mut().find(|l| l.digest == digest) {
            layer.note = None;
            layer.asked = Some((host, attempt));
        }
        if self.mode == Mode::Tty {
            state.draw(digest, Instant::now());
        }
    }

    /// Something befell a layer: `note` says so in its line, `object` to a program.
    fn befell(&self, digest: &str, note: String, mut object: serde_json::Value) {
        let mut state = self.state();
        let Some(layer) = state.layers.iter_mut().find(|l| l.digest == digest) else {
            return;
        };
        layer.note = Some(note.clone());
        match self.mode {
            Mode::None => {}
            Mode::Tty => state.draw(digest, Instant::now()),
            Mode::Plain => {
                let (name, layer) = (printable(&state.name), label(digest));
                self.say(&format!("{} {name}: layer {layer}: {note}", self.verb));
            }
            Mode::Json => {
                object["ref"] = state.name.clone().into();
                object["digest"] = digest.into();
                self.object(&object);
            }
        }
    }

    fn done(&self) {
        let mut state = self.state();
        match self.mode {
            Mode::Plain if !state.layers.is_empty() => self.say(&state.plain(self.verb)),
            Mode::Json => self.object(&serde_json::json!({"event": "done", "ref": &state.name})),
            _ => {}
        }
        state.clear();
    }
}

impl Progress for Show {
    fn event(&self, event: Event) {
        match event {
            Event::Resolved {
                name,
                platform,
                layers,
            } => self.resolved(name, &platform, layers),
            Event::Layer {
                digest,
                phase,
                done,
                total,
            } => self.layer(&digest, phase, done, total),
            Event::Asked {
                digest,
                host,
                attempt,
            } => self.asked(&digest, host, attempt),
            Event::Resumed { digest, at } => {
                let object = serde_json::json!({"event": "resumed", "at": at});
                self.befell(&digest, resumed(at), object);
            }
            Event::Retry {
                digest,
                host,
                attempt,
                wait,
                cause,
            } => {
                let object = serde_json::json!({
                    "event": "retry", "host": &host, "attempt": attempt.0, "attempts": attempt.1,
                    "wait_ms": u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "cause": &cause,
                });
                self.befell(&digest, retry(attempt, wait, &host, &cause), object);
            }
            Event::Done => self.done(),
        }
    }
}

impl Drop for Show {
    /// Work that failed leaves no half-drawn bars above its error.
    fn drop(&mut self) {
        self.state().clear();
    }
}

impl State {
    fn clear(&mut self) {
        if let Some(bars) = self.bars.take() {
            bars.total.finish_and_clear();
            let _ = bars.multi.clear();
        }
        self.layers.clear();
        self.phases.clear();
    }

    fn plain(&self, verb: &str) -> String {
        let done = self.layers.iter().map(|l| l.done).sum();
        let total = self.layers.iter().map(|l| l.total).sum();
        let word = match verb {
            "export" => "written",
            "unpack" => "unpacked",
            "pull" => "fetched",
            "push" => "sent",
            _ => "stored",
        };
        plain(verb, &self.name, word, done, total)
    }

    /// Places the line of one layer, and the total below all.
    fn draw(&mut self, digest: &str, now: Instant) {
        let Some(Bars {
            multi,
            total: total_bar,
        }) = &self.bars
        else {
            return;
        };
        let shown = self.layers.iter().filter(|l| l.bar.is_some()).count();
        if let Some(layer) = self.layers.iter_mut().find(|l| l.digest == digest) {
            let text = layer.line();
            if layer.is_done() {
                // Finished lines stay: they scroll up and make room for the next.
                if let Some(bar) = layer.bar.take() {
                    bar.finish_and_clear();
                    multi.remove(&bar);
                    let _ = multi.println(text);
                }
            } else {
                if layer.bar.is_none() && shown < LINES {
                    layer.bar = Some(multi.insert_before(total_bar, line_bar()));
                }
                if let Some(bar) = &layer.bar {
                    bar.set_message(text);
                }
            }
        }
        let finished = self.layers.iter().filter(|l| l.is_done()).count();
        let hidden = self
            .layers
            .iter()
            .filter(|l| !l.is_done() && l.bar.is_none())
            .count();
        let done: u64 = self.layers.iter().map(|l| l.done).sum();
        let total: u64 = self.layers.iter().map(|l| l.total).sum();
        let rate = self.rate.per_second();
        let passed = now.duration_since(self.started);
        let line = Line {
            label: &format!("total {finished} of {}", self.layers.len()),
            done,
            total,
            rate,
            note: &remaining(total.saturating_sub(done), rate, passed),
        };
        let more = if hidden > 0 {
            format!("  … {hidden} more waiting\n")
        } else {
            String::new()
        };
        total_bar.set_message(format!("{more}{}", line.render()));
    }
}

impl Layer {
    fn waiting(digest: String, total: u64) -> Layer {
        let (phase, rate) = (Phase::Waiting, Rate::default());
        Layer {
            digest,
            phase,
            done: 0,
            total,
            rate,
            bar: None,
            spoke: None,
            note: None,
            asked: None,
        }
    }

    fn is_done(&self) -> bool {
        is_done(self.phase)
    }

    fn line(&self) -> String {
        let rate = if self.is_done() {
            None
        } else {
            self.rate.per_second()
        };
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

fn line_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}").expect("a fixed template");
    ProgressBar::no_length().with_style(style)
}

/// Nothing more will be told of such a layer.
fn is_done(phase: Phase) -> bool {
    matches!(phase, Phase::Done | Phase::HereAlready | Phase::Mounted)
}

fn word(phase: Phase) -> &'static str {
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
    }
}
