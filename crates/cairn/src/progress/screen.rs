//! Lines at the bottom of a terminal that are drawn again and again, and those above that stay.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::out::Out;

/// Redraws per second at most.
const HERTZ: u8 = 10;

/// Lines of what only looks like a terminal; more than are ever drawn at once.
const ROWS: u16 = 24;

/// All changing lines are one bar's text, so that they are drawn at once or not at all. Drawing is best
/// effort: the work goes on when the terminal does not.
pub(super) struct Screen(ProgressBar);

impl Screen {
    /// Draws there.
    pub(super) fn new(target: ProgressDrawTarget) -> Screen {
        let style = ProgressStyle::with_template("{msg}").expect("a fixed template");
        Screen(ProgressBar::with_draw_target(None, target).with_style(style))
    }

    /// A line that stays, above those that change.
    pub(super) fn stays(&self, line: String) {
        self.0.println(line);
    }

    /// The lines that change, from now on.
    pub(super) fn changes(&self, lines: &[String]) {
        self.0.set_message(lines.join("\n"));
    }
}

impl Drop for Screen {
    /// What was to change would be wrong for ever.
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Standard error: the terminal that it is, or is told to look like.
pub(super) fn standard_error(out: Out) -> ProgressDrawTarget {
    match out.stderr.columns {
        Some(columns) if !io::stderr().is_terminal() => {
            let width = u16::try_from(columns).unwrap_or(u16::MAX);
            ProgressDrawTarget::term_like_with_hz(Box::new(Pretended { width }), HERTZ)
        }
        _ => ProgressDrawTarget::stderr_with_hz(HERTZ),
    }
}

/// A file or a pipe, written as a terminal would be; `indicatif` writes nothing to those by itself.
#[derive(Debug)]
struct Pretended {
    width: u16,
}

impl Pretended {
    fn moved(&self, cells: usize, way: char) -> io::Result<()> {
        match cells {
            // Terminals take 0 for 1.
            0 => Ok(()),
            _ => self.write_str(&format!("\x1b[{cells}{way}")),
        }
    }
}

impl TermLike for Pretended {
    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        ROWS
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.moved(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(&format!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        io::stderr().lock().write_all(text.as_bytes())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.write_str("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
