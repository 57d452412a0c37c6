//! Columns: headers in capitals, two spaces between, text left and numbers right, no rules, no
//! trailing blanks.
//!
//! On a terminal a table that is too wide gives way in a fixed order (labels, then the middle of
//! references); piped output is never shortened, so that scripts see whole names.

use cairn_types::Labels;
use unicode_width::UnicodeWidthStr;

use crate::out::{Stream, Style, paint};

/// Blanks between two columns.
const GAP: &str = "  ";

/// Hex digits of a digest on a terminal.
const DIGEST_DIGITS: usize = 12;

/// One field of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Left, never shortened.
    Text(String),
    /// Right.
    Number(String),
    /// Left; 12 hex digits on a terminal.
    Digest(String),
    /// Left; keeps its ends when there is no room.
    Reference(String),
    /// Left; keeps its first label when there is no room.
    Labels(Labels),
}

impl Cell {
    /// Text, or `-` when there is none.
    pub fn text(text: impl Into<String>) -> Cell {
        let text = text.into();
        Cell::Text(if text.is_empty() { "-".into() } else { text })
    }

    /// Anything that counts.
    pub fn number(n: impl ToString) -> Cell {
        Cell::Number(n.to_string())
    }

    /// A size for people, `-` when unknown.
    pub fn bytes(n: Option<u64>) -> Cell {
        Cell::Number(n.map_or_else(|| "-".to_owned(), crate::size::bytes))
    }
}

/// A column's header, its least width and whether its header stands right.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    header: &'static str,
    right: bool,
    least: usize,
}

impl Column {
    /// For text.
    pub const fn left(header: &'static str) -> Column {
        Column {
            header,
            right: false,
            least: 0,
        }
    }

    /// For numbers.
    pub const fn right(header: &'static str) -> Column {
        Column {
            header,
            right: true,
            least: 0,
        }
    }

    /// At least this many columns wide, so that two runs line up.
    pub const fn at_least(self, least: usize) -> Column {
        Column { least, ..self }
    }
}

/// Rows under headers.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<(Vec<Cell>, String)>,
}

impl Table {
    /// An empty one.
    pub fn new(columns: &[Column]) -> Table {
        Table {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; it has one cell per column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.row_with(cells, "");
    }

    /// Adds a row with words after its last column.
    pub fn row_with(&mut self, cells: Vec<Cell>, after: &str) {
        assert_eq!(cells.len(), self.columns.len(), "one cell per column");
        self.rows.push((cells, after.to_owned()));
    }

    /// The whole text. An empty table is its header on a terminal and nothing in a pipe.
    pub fn render(&self, stream: Stream, no_trunc: bool) -> String {
        if self.rows.is_empty() && stream.columns.is_none() {
            return String::new();
        }
        let room = if no_trunc { None } else { stream.columns };
        let mut squeeze = Squeeze {
            digests: room.is_some(),
            labels: false,
            reference: None,
        };
        let mut rows = self.texts(squeeze);
        if let Some(room) = room {
            if self.width(&rows) > room {
                squeeze.labels = true;
                rows = self.texts(squeeze);
            }
            let width = self.width(&rows);
            if width > room {
                squeeze.reference = self.reference_room(&rows, width - room);
                rows = self.texts(squeeze);
            }
        }
        self.layout(&rows, stream.color)
    }

    /// How wide references may be for the table to become `excess` narrower.
    fn reference_room(&self, rows: &[Vec<String>], excess: usize) -> Option<usize> {
        let (first, _) = self.rows.first()?;
        let column = first.iter().position(|c| matches!(c, Cell::Reference(_)))?;
        let widest = rows.iter().map(|r| r[column].width()).max()?;
        Some(widest.saturating_sub(excess))
    }

    fn texts(&self, squeeze: Squeeze) -> Vec<Vec<String>> {
        let row =
            |(cells, _): &(Vec<Cell>, String)| cells.iter().map(|c| squeeze.text(c)).collect();
        self.rows.iter().map(row).collect()
    }

    fn widths(&self, rows: &[Vec<String>]) -> Vec<usize> {
        let column = |(i, c): (usize, &Column)| {
            let cells = rows.iter().map(|r| r[i].width()).max().unwrap_or(0);
            cells.max(c.header.width()).max(c.least)
        };
        self.columns.iter().enumerate().map(column).collect()
    }

    fn width(&self, rows: &[Vec<String>]) -> usize {
        let widths = self.widths(rows);
        widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
    }

    fn layout(&self, rows: &[Vec<String>], color: bool) -> String {
        let widths = self.widths(rows);
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for ((cell, column), width) in cells.zip(&self.columns).zip(&widths) {
                if !line.is_empty() {
                    line.push_str(GAP);
                }
                let pad = " ".repeat(width.saturating_sub(cell.width()));
                let (before, after) = if column.right {
                    (&*pad, "")
                } else {
                    ("", &*pad)
                };
                line.push_str(before);
                line.push_str(cell);
                line.push_str(after);
            }
            line.truncate(line.trim_end().len());
            line
        };
        let header = line(&mut self.columns.iter().map(|c| c.header));
        let mut text = paint(color, Style::Bold, &header);
        text.push('\n');
        for (row, (_, after)) in rows.iter().zip(&self.rows) {
            text.push_str(&line(&mut row.iter().map(String::as_str)));
            text.push_str(after);
            text.push('\n');
        }
        text
    }
}

/// What has given way so far.
#[derive(Clone, Copy)]
struct Squeeze {
    digests: bool,
    labels: bool,
    reference: Option<usize>,
}

impl Squeeze {
    fn text(self, cell: &Cell) -> String {
        match cell {
            Cell::Text(text) | Cell::Number(text) => printable(text),
            Cell::Digest(digest) if self.digests => short_digest(digest),
            Cell::Digest(digest) => digest.clone(),
            Cell::Reference(name) => match self.reference {
                Some(room) => shorten_reference(&printable(name), room),
                None => printable(name),
            },
            Cell::Labels(labels) => labels_text(labels, self.labels),
        }
    }
}

/// Control characters escaped: a label must not move the cursor or end the line.
pub fn printable(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().collect::<String>(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// `sha256:` and 12 digits; what is no digest stays whole.
pub fn short_digest(text: &str) -> String {
    match text.split_once(':') {
        Some((algorithm, hex)) if hex.len() > DIGEST_DIGITS && hex.bytes().all(is_hex) => {
            format!("{algorithm}:{}", &hex[..DIGEST_DIGITS])
        }
        _ => text.to_owned(),
    }
}

fn is_hex(digit: u8) -> bool {
    matches!(digit, b'0'..=b'9' | b'a'..=b'f')
}

fn labels_text(labels: &Labels, short: bool) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(k, v)| printable(&format!("{k}={v}")))
        .collect();
    match pairs.as_slice() {
        [] => "-".to_owned(),
        [first, rest @ ..] if short && !rest.is_empty() => format!("{first},+{}", rest.len()),
        all => all.join(","),
    }
}

/// Registry and last component survive, as in `registry.example.com/…/web:2.1`; a name that has no
/// middle loses characters from it.
fn shorten_reference(name: &str, room: usize) -> String {
    if name.width() <= room {
        return name.to_owned();
    }
    if let (Some((head, _)), Some((_, tail))) = (name.split_once('/'), name.rsplit_once('/')) {
        let short = format!("{head}/…/{tail}");
        if short.width() <= room.max(20) && short.width() < name.width() {
            return short;
        }
    }
    let chars: Vec<char> = name.chars().collect();
    let keep = room.max(12).min(chars.len()).saturating_sub(1);
    let (head, tail) = (keep / 2, keep - keep / 2);
    let mut short: String = chars[..head].iter().collect();
    short.push('…');
    short.extend(&chars[chars.len() - tail..]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(columns: usize) -> Stream {
        Stream {
            columns: Some(columns),
            color: false,
        }
    }

    const PIPE: Stream = Stream {
        columns: None,
        color: false,
    };

    fn pair() -> Table {
        let mut table = Table::new(&[Column::left("REF"), Column::left("LABELS")]);
        let labels = [("a", "b"), ("c", "d"), ("e", "f")];
        let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let name = "registry.example.com/shop/team/web:2.1".to_owned();
        table.row(vec![Cell::Reference(name), Cell::Labels(labels)]);
        table
    }

    #[test]
    fn labels_give_way_before_references() {
        let row = |stream, no_trunc| {
            let text = pair().render(stream, no_trunc);
            text.lines().nth(1).expect("row").to_owned()
        };
        let whole = "registry.example.com/shop/team/web:2.1  a=b,c=d,e=f";
        assert_eq!(row(on(100), false), whole);
        assert_eq!(
            row(on(50), false),
            "registry.example.com/shop/team/web:2.1  a=b,+2"
        );
        assert_eq!(row(on(40), false), "registry.example.com/…/web:2.1  a=b,+2");
        assert_eq!(row(on(40), true), whole, "--no-trunc");
        assert_eq!(row(PIPE, false), whole, "a pipe is never shortened");
    }

    #[test]
    fn only_digests_are_shortened() {
        let hex = "0c5943b2c9a0".repeat(5);
        assert_eq!(
            short_digest(&format!("sha256:{hex}")),
            "sha256:0c5943b2c9a0"
        );
        for key in [
            "bundle:/run/demo/of/a/long/path",
            "mount:/mnt",
            "sha256:0c5943b",
        ] {
            assert_eq!(short_digest(key), key);
        }
    }

    #[test]
    fn an_empty_list_is_a_header_for_people_only() {
        let table = Table::new(&[Column::left("REF"), Column::right("SIZE")]);
        assert_eq!(table.render(on(80), false), "REF  SIZE\n");
        assert_eq!(table.render(PIPE, false), "");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(&[Column::left("REF")]);
        table.row(vec![Cell::text("a\x1b[2Jb\nc")]);
        assert_eq!(table.render(PIPE, false), "REF\na\\u{1b}[2Jb\\nc\n");
    }
}
