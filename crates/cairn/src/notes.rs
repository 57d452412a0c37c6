//! What the rooms of the store say on their way: warnings always, what is done with `-v`, more with
//! `-vv`.
//!
//! There is no log and no filter language; a program that wants one has the daemon's.

use std::fmt::{Debug, Write};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::{
    out::{Out, Style, paint},
    table::printable,
};

/// Starts listening. Called once.
pub fn listen(out: Out) {
    // Somebody who listens already is a test's.
    let _ = tracing::subscriber::set_global_default(Notes { out });
}

struct Notes {
    out: Out,
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let shown = match self.out.verbose {
            0 => Level::WARN,
            1 => Level::INFO,
            _ => Level::DEBUG,
        };
        let (target, level) = (metadata.target(), *metadata.level());
        // What a server inside this process would write to its log is no answer; and how a call
        // failed is told by whoever made it.
        let logged = target.starts_with("cairnd")
            && (level > Level::WARN || target.starts_with("cairnd::calls"));
        metadata.is_event() && target.starts_with("cairn") && !logged && level <= shown
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        // Whoever made the change that failed is told so, with the cause.
        if text.message.contains("store is read-only") {
            return;
        }
        let words = printable(&format!("{}{}", text.message, text.fields));
        match *event.metadata().level() {
            Level::ERROR | Level::WARN => {
                let warning = paint(self.out.stderr.color, Style::Yellow, "warning");
                self.out.error_text(&format!("{warning}: {words}\n"));
            }
            _ => self.out.trace(words),
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1) // Spans are not shown; any will do.
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The sentence, and the other fields in brackets' stead behind it.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, ", {name} {value:?}"),
        };
    }
}
