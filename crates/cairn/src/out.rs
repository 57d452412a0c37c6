//! The only way to the two streams: what was asked for goes to standard output, everything else to
//! standard error, and both know whether a person looks.
//!
//! A reader that went away ends the program quietly: its status is the one a shell shows for
//! SIGPIPE. The signal itself cannot be raised, because Rust's start-up code ignores it.

use std::{
    env,
    io::{self, IsTerminal, Write},
    process,
};

/// What a shell shows for a program that died of SIGPIPE.
const STATUS_SIGPIPE: i32 = 128 + 13;

/// Columns when a terminal does not say.
const COLUMNS_DEFAULT: usize = 80;

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// When that stream is a terminal and nothing forbids it.
    #[default]
    Auto,
    /// Even into a pipe.
    Always,
    /// Not at all.
    Never,
}

/// What one stream can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Columns when it is a terminal (or is told to look like one), else `None`.
    pub columns: Option<usize>,
    /// Escape codes may be written.
    pub color: bool,
}

/// Both streams, as they were at the start.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
    /// `-q`: no notes, names only.
    pub quiet: bool,
    /// `-v` once or more.
    pub verbose: u8,
}

impl Out {
    /// Looks at the streams and the environment. `CAIRN_FORCE_TTY=COLUMNS` makes both look like a
    /// terminal of that width without colour, for transcripts.
    pub fn new(choice: ColorChoice, quiet: bool, verbose: u8) -> Out {
        let var = |name: &str| env::var(name).ok().filter(|v| !v.is_empty());
        let forced = var("CAIRN_FORCE_TTY").and_then(|v| v.parse::<usize>().ok());
        let columns = var("COLUMNS").and_then(|v| v.parse().ok());
        let stream = |terminal: bool| Stream {
            columns: forced.or_else(|| terminal.then(|| columns.unwrap_or_else(terminal_columns))),
            color: wants_color(choice, terminal && forced.is_none(), var),
        };
        Out {
            stdout: stream(io::stdout().is_terminal()),
            stderr: stream(io::stderr().is_terminal()),
            quiet,
            verbose,
        }
    }

    /// One line of what was asked for.
    pub fn line(&self, text: impl AsRef<str>) {
        self.text(&format!("{}\n", text.as_ref()));
    }

    /// Text that brings its own line ends.
    pub fn text(&self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Bytes as they are.
    pub fn bytes(&self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        settle(stdout.write_all(bytes).and_then(|()| stdout.flush()));
    }

    /// Standard output for what is written piece by piece. It never fails: without a reader, or
    /// with a full disk behind it, the program has ended.
    pub fn writer(&self) -> impl Write {
        Settled(io::stdout())
    }

    /// One JSON document, indented for a person and on one line for a program.
    pub fn json(&self, document: &impl serde::Serialize) {
        let text = if self.stdout.columns.is_some() {
            serde_json::to_string_pretty(document)
        } else {
            serde_json::to_string(document)
        };
        self.line(text.expect("our documents have text keys and no failing parts"));
    }

    /// One JSON object of a stream: on one line for everybody.
    pub fn json_line(&self, object: &impl serde::Serialize) {
        let text = serde_json::to_string(object);
        self.line(text.expect("our documents have text keys and no failing parts"));
    }

    /// A note on standard error, which `-q` silences.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.error_text(&format!("note: {}\n", text.as_ref()));
        }
    }

    /// What `-v` shows.
    pub fn trace(&self, text: impl AsRef<str>) {
        if self.verbose > 0 {
            self.error_text(&format!("cairn: {}\n", text.as_ref()));
        }
    }

    /// Text on standard error that nothing silences.
    pub fn error_text(&self, text: &str) {
        // With standard error gone there is nobody left to tell.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

struct Settled(io::Stdout);

impl Write for Settled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        settle(self.0.lock().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        settle(self.0.lock().flush());
        Ok(())
    }
}

/// Ends the program when standard output is gone, quietly if only its reader left.
fn settle(result: io::Result<()>) {
    let Err(err) = result else { return };
    if err.kind() == io::ErrorKind::BrokenPipe {
        process::exit(STATUS_SIGPIPE);
    }
    let reason = crate::error::io_reason(&err);
    let text = format!("error: cannot write standard output: {reason}\n");
    let _ = io::stderr().lock().write_all(text.as_bytes());
    process::exit(1);
}

/// What the terminal says, of either stream: both are the same one when both are terminals.
fn terminal_columns() -> usize {
    let sizes = [
        rustix::termios::tcgetwinsize(io::stdout()),
        rustix::termios::tcgetwinsize(io::stderr()),
    ];
    let mut columns = sizes
        .into_iter()
        .flatten()
        .map(|size| usize::from(size.ws_col));
    columns.find(|n| *n > 0).unwrap_or(COLUMNS_DEFAULT)
}

/// `--color`, then `NO_COLOR`, then `CLICOLOR_FORCE`, then the terminal, in this order.
fn wants_color(choice: ColorChoice, terminal: bool, var: impl Fn(&str) -> Option<String>) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if var("NO_COLOR").is_some() => false,
        ColorChoice::Auto if var("CLICOLOR_FORCE").is_some_and(|v| v != "0") => true,
        ColorChoice::Auto => terminal && var("TERM").is_none_or(|t| t != "dumb"),
    }
}

/// The few styles there are; each repeats what the words already say.
#[derive(Clone, Copy, Debug)]
pub enum Style {
    /// Table headers.
    Bold,
    /// `error`.
    Red,
    /// `warning`.
    Yellow,
    /// `next`.
    Cyan,
}

/// `text`, styled if `color`.
pub fn paint(color: bool, style: Style, text: &str) -> String {
    if !color {
        return text.to_owned();
    }
    let code = match style {
        Style::Bold => "1",
        Style::Red => "31",
        Style::Yellow => "33",
        Style::Cyan => "36",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_decided_in_the_pages_order() {
        let env = |set: &'static [(&'static str, &'static str)]| {
            move |name: &str| {
                let found = set.iter().find(|(n, _)| *n == name);
                found.map(|(_, v)| (*v).to_owned())
            }
        };
        use ColorChoice::{Always, Auto, Never};
        assert!(wants_color(Always, false, env(&[("NO_COLOR", "1")])));
        assert!(!wants_color(Never, true, env(&[("CLICOLOR_FORCE", "1")])));
        let both = &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")];
        assert!(!wants_color(Auto, true, env(both)));
        assert!(wants_color(Auto, false, env(&[("CLICOLOR_FORCE", "1")])));
        assert!(wants_color(Auto, true, env(&[])));
        assert!(!wants_color(Auto, true, env(&[("TERM", "dumb")])));
        assert!(!wants_color(Auto, false, env(&[])));
    }
}
