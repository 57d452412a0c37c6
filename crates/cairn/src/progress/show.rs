//! Where the events of the store go: to bars, lines or objects on standard error.
//!
//! Nothing may happen for a long time, and that is what a person wants to see: so time passes here by
//! itself, and not only when there are events.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use indicatif::ProgressDrawTarget;

use super::{
    headline, label, resumed, retry,
    screen::{self, Screen},
    state::{State, word},
    took,
};
use crate::{
    client::{Event, Phase, Progress},
    model,
    out::Out,
    table::printable,
};

#[cfg(test)]
mod tests;

/// How often time passes by itself: a second hand, and rates that fall.
const TICK: Duration = Duration::from_millis(250);

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
    told: Arc<Told>,
    /// Ends before what it draws.
    ticker: Option<Ticker>,
}

/// What was told, and to whom it goes on.
struct Told {
    mode: Mode,
    verb: &'static str,
    /// Instead of what the store calls it.
    title: Option<String>,
    /// Lines and objects.
    say: Box<dyn Fn(&str) + Send + Sync>,
    /// Where bars are drawn.
    target: Box<dyn Fn() -> ProgressDrawTarget + Send + Sync>,
    shown: Mutex<Shown>,
}

struct Shown {
    state: State,
    screen: Option<Screen>,
}

impl Show {
    /// For one run of `verb`, on standard error. `title` is shown instead of the store's own name for the
    /// work, which may be a digest.
    pub fn new(mode: Mode, verb: &'static str, title: Option<&str>, out: Out) -> Show {
        let told = Told {
            mode,
            verb,
            title: title.map(str::to_owned),
            say: Box::new(move |text| out.error_text(text)),
            target: Box::new(move || screen::standard_error(out)),
            shown: Mutex::new(Shown::new(Instant::now())),
        };
        Show::of(told)
    }

    fn of(told: Told) -> Show {
        let told = Arc::new(told);
        let ticker = match told.mode {
            Mode::Tty | Mode::Plain => Ticker::start(&told),
            Mode::Json | Mode::None => None,
        };
        Show { told, ticker }
    }
}

impl Progress for Show {
    fn event(&self, event: Event) {
        self.told.event(event, Instant::now());
    }
}

impl Drop for Show {
    /// Work that failed leaves no half-drawn bars above its error.
    fn drop(&mut self) {
        drop(self.ticker.take());
        self.told.shown().clear();
    }
}

/// Has time pass where nothing else happens, for as long as it is kept.
struct Ticker {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Without a thread to be had, events have to do.
    fn start(told: &Arc<Told>) -> Option<Ticker> {
        let (stop, stopped) = mpsc::channel();
        let told = Arc::clone(told);
        let tick = move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                told.tick(Instant::now());
            }
        };
        let thread = thread::Builder::new().name("progress".to_owned());
        Some(Ticker {
            thread: Some(thread.spawn(tick).ok()?),
            stop: Some(stop),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was reported where it was.
            let _ = thread.join();
        }
    }
}

impl Shown {
    fn new(now: Instant) -> Shown {
        Shown {
            state: State::new(now),
            screen: None,
        }
    }

    fn clear(&mut self) {
        self.screen = None;
        self.state.clear();
    }

    fn draw(&mut self, now: Instant) {
        let Some(screen) = &self.screen else { return };
        for line in self.state.finished() {
            screen.stays(line);
        }
        screen.changes(&self.state.lines(now));
    }
}

impl Told {
    fn event(&self, event: Event, now: Instant) {
        match event {
            Event::Resolved {
                name,
                platform,
                layers,
            } => self.resolved(name, platform, layers, now),
            Event::Layer {
                digest,
                phase,
                done,
                total,
            } => self.layer(&digest, phase, (done, total), now),
            Event::Asked {
                digest,
                host,
                attempt,
            } => self.asked(&digest, host, attempt, now),
            Event::Resumed { digest, at } => {
                let note = resumed(at);
                self.befell(&digest, note, now, |r#ref, digest| {
                    model::Progress::Resumed { r#ref, digest, at }
                });
            }
            Event::Retry {
                digest,
                host,
                attempt: (attempt, attempts),
                wait,
                cause,
            } => {
                let note = retry((attempt, attempts), wait, &host, &cause);
                self.befell(&digest, note, now, |r#ref, digest| model::Progress::Retry {
                    r#ref,
                    digest,
                    host,
                    attempt,
                    attempts,
                    wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                    cause,
                });
            }
            Event::Timed {
                digest,
                chain_id,
                timing,
            } => self.timed(digest, chain_id, timing),
            Event::Traced(line) => self.traced(line),
            Event::Done => self.done(),
        }
    }

    /// A line that was asked for, and so is shown whatever is shown of the progress.
    fn traced(&self, line: String) {
        if self.mode == Mode::Json {
            return self.object(&model::Progress::Http { line });
        }
        let line = format!("http: {}", printable(&line));
        match &self.shown().screen {
            Some(screen) => screen.stays(line),
            None => self.say(&line),
        }
    }

    /// Nothing happened, and it is later.
    fn tick(&self, now: Instant) {
        let mut shown = self.shown();
        if shown.state.is_empty() {
            return;
        }
        shown.state.mark(now);
        match self.mode {
            Mode::Tty => shown.draw(now),
            Mode::Plain if shown.state.is_silent(now) => {
                shown.state.spoke = now;
                self.say(&shown.state.plain(self.verb));
            }
            Mode::Plain | Mode::Json | Mode::None => {}
        }
    }

    /// A panic elsewhere must not hide the error that explains it.
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, line: &str) {
        (self.say)(&format!("{line}\n"));
    }

    fn object(&self, object: &model::Progress) {
        let text = serde_json::to_string(object).expect("our objects have text keys");
        self.say(&text);
    }

    fn resolved(&self, name: String, platform: String, layers: Vec<(String, u64)>, now: Instant) {
        let name = self.title.clone().unwrap_or(name);
        let mut shown = self.shown();
        if shown.state.has_begun() {
            shown.clear();
        }
        let total = layers.iter().map(|l| l.1).sum();
        let line = headline(self.verb, &name, &platform, layers.len(), total);
        match self.mode {
            Mode::None => {}
            Mode::Plain => self.say(&line),
            Mode::Json => self.object(&model::Progress::Resolved {
                r#ref: name.clone(),
                platform,
                layers: layers.len(),
                total,
            }),
            Mode::Tty => {
                let screen = shown.screen.take();
                let screen = screen.unwrap_or_else(|| Screen::new((self.target)()));
                screen.stays(line);
                shown.screen = Some(screen);
            }
        }
        shown.state.add(name, layers);
        shown.state.spoke = now;
    }

    fn layer(&self, digest: &str, phase: Phase, bytes: (u64, u64), now: Instant) {
        let mut shown = self.shown();
        let state = &mut shown.state;
        let Some(layer) = state.layer(digest) else {
            return;
        };
        let changed = layer.goes_on(phase, bytes);
        state.mark(now);
        let enters = state.enters(phase);
        match self.mode {
            Mode::None => {}
            Mode::Tty => shown.draw(now),
            // Of what is called as the work itself the first line spoke.
            Mode::Plain if enters && word(phase) != self.verb => {
                state.spoke = now;
                let name = printable(&state.name);
                self.say(&format!("{} {name}: {}", self.verb, word(phase)));
            }
            Mode::Plain => {}
            Mode::Json => {
                if enters {
                    self.phase_object(state, phase);
                }
                self.layer_object(state, digest, changed, now);
            }
        }
    }

    fn phase_object(&self, state: &State, phase: Phase) {
        let (done, total) = state.bytes();
        self.object(&model::Progress::Phase {
            r#ref: state.name.clone(),
            phase: word(phase),
            done,
            total,
        });
    }

    fn layer_object(&self, state: &mut State, digest: &str, changed: bool, now: Instant) {
        let name = state.name.clone();
        let Some(layer) = state.layer(digest) else {
            return;
        };
        if !layer.is_due(changed, now) {
            return;
        }
        self.object(&model::Progress::Layer {
            r#ref: name,
            digest: digest.to_owned(),
            phase: word(layer.phase),
            done: layer.done,
            total: layer.total,
            rate: layer.rate(),
            host: layer.asked.as_ref().map(|(host, _)| host.clone()),
            attempt: layer.asked.as_ref().map_or(1, |(_, attempt)| *attempt),
        });
    }

    /// The bytes of a layer are asked for: what went wrong before is past.
    fn asked(&self, digest: &str, host: String, attempt: u32, now: Instant) {
        let mut shown = self.shown();
        if let Some(layer) = shown.state.layer(digest) {
            layer.note = None;
            layer.asked = Some((host, attempt));
        }
        if self.mode == Mode::Tty {
            shown.draw(now);
        }
    }

    /// Something befell a layer: `note` says so in its line, `object` to a program.
    fn befell(
        &self,
        digest: &str,
        note: String,
        now: Instant,
        object: impl FnOnce(String, String) -> model::Progress,
    ) {
        let mut shown = self.shown();
        let name = shown.state.name.clone();
        let Some(layer) = shown.state.layer(digest) else {
            return;
        };
        layer.note = Some(note.clone());
        match self.mode {
            Mode::None => {}
            Mode::Tty => shown.draw(now),
            Mode::Plain => {
                shown.state.spoke = now;
                let (name, layer) = (printable(&name), label(digest));
                self.say(&format!("{} {name}: layer {layer}: {note}", self.verb));
            }
            Mode::Json => self.object(&object(name, digest.to_owned())),
        }
    }

    fn timed(&self, digest: String, chain_id: String, timing_ms: model::TimingMs) {
        let mut shown = self.shown();
        shown.state.times.push(timing_ms);
        if self.mode == Mode::Json {
            self.object(&model::Progress::Timing {
                r#ref: shown.state.name.clone(),
                digest,
                chain_id,
                timing_ms,
            });
        }
    }

    fn done(&self) {
        let mut shown = self.shown();
        let took = took(&shown.state.times);
        match self.mode {
            Mode::Plain if !shown.state.is_empty() => {
                self.say(&shown.state.plain(self.verb));
                if let Some(took) = took {
                    let name = printable(&shown.state.name);
                    self.say(&format!("{} {name}: {took}", self.verb));
                }
            }
            Mode::Tty => {
                if let (Some(screen), Some(took)) = (&shown.screen, took) {
                    screen.stays(format!("  {took}"));
                }
            }
            Mode::Json => self.object(&model::Progress::Done {
                r#ref: shown.state.name.clone(),
            }),
            _ => {}
        }
        shown.clear();
    }
}
