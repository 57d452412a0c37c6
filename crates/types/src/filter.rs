//! containerd's filter language (`pkg/filters`): which objects a listing or subscription shows.
//!
//! A filter is selectors joined by commas, all of which must hold: `name==alpine,labels.env~="^p"`.
//! A selector is a field path, alone (the field is there) or with `==`, `!=` or `~=` and a value. Of a
//! list of filters one must hold; an empty filter or list lets everything through.

use std::{borrow::Cow, iter::Peekable, str::CharIndices};

use regex::Regex;

use crate::{Classified, ErrorKind, Labels};

/// What can be filtered.
pub trait Fields {
    /// The value of a field path, `None` when it is absent. Components beyond a plain field are
    /// ignored, as containerd ignores them.
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>>;
}

/// The label that a path of `labels` means: its further components joined by dots.
pub fn label<'l>(labels: &'l Labels, rest: &[String]) -> Option<Cow<'l, str>> {
    labels
        .get(&rest.join("."))
        .map(|value| Cow::Borrowed(&**value))
}

/// Several filters, of which one must hold.
#[derive(Clone, Debug, Default)]
pub struct Filters(Vec<Vec<Selector>>);

#[derive(Clone, Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Is(String),
    IsNot(String),
    Matches(Regex),
    /// An expression that does not compile matches nothing.
    Nothing,
}

/// A filter that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter {filter:?} does not parse at byte {at}: {reason}")]
pub struct FilterError {
    /// Its first characters.
    pub filter: String,
    /// Where it goes wrong.
    pub at: usize,
    /// What was expected.
    pub reason: &'static str,
}

impl Classified for FilterError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

impl Filters {
    /// Parses all of them.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Filters, FilterError> {
        let parsed = filters
            .iter()
            .map(|filter| Parser::new(filter.as_ref()).filter());
        Ok(Filters(parsed.collect::<Result<_, _>>()?))
    }

    /// The field paths they ask for; a program for people refuses one that it does not have.
    pub fn paths(&self) -> impl Iterator<Item = &[String]> {
        self.0.iter().flatten().map(|selector| &*selector.path)
    }

    /// Whether one of them holds, or there is none.
    pub fn pass(&self, object: &impl Fields) -> bool {
        let holds = |filter: &Vec<Selector>| filter.iter().all(|selector| selector.holds(object));
        self.0.is_empty() || self.0.iter().any(holds)
    }
}

impl Selector {
    fn holds(&self, object: &impl Fields) -> bool {
        let value = object.field(&self.path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Is(wanted) => value.is_some_and(|value| value == *wanted),
            Test::IsNot(other) => value.is_none_or(|value| value != *other),
            Test::Matches(pattern) => pattern.is_match(value.as_deref().unwrap_or_default()),
            Test::Nothing => false,
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    rest: Peekable<CharIndices<'t>>,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Parser<'t> {
        Parser {
            text,
            rest: text.char_indices().peekable(),
        }
    }

    fn filter(mut self) -> Result<Vec<Selector>, FilterError> {
        let mut selectors = Vec::new();
        if self.text.is_empty() {
            return Ok(selectors);
        }
        loop {
            selectors.push(self.selector()?);
            match self.peek() {
                None => return Ok(selectors),
                Some(',') => self.advance(),
                // White space is skipped before a token only, not before a comma or the end.
                Some(_) => return Err(self.error("a comma or the end is expected")),
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, FilterError> {
        let mut path = vec![self.field()?];
        while self.peek() == Some('.') {
            self.advance();
            path.push(self.field()?);
        }
        if matches!(self.peek(), None | Some(',')) {
            return Ok(Selector {
                path,
                test: Test::Present,
            });
        }
        let operator = self.operator()?;
        let value = self.value(operator == "~=")?;
        let test = match operator {
            "==" => Test::Is(value),
            "!=" => Test::IsNot(value),
            _ => Regex::new(&value).map_or(Test::Nothing, Test::Matches),
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<String, FilterError> {
        self.skip_blanks();
        match self.peek() {
            Some('"') => self.quoted(),
            Some(c) if is_field(c) => Ok(self.run(is_field).to_owned()),
            _ => Err(self.error("a field is expected")),
        }
    }

    fn operator(&mut self) -> Result<&'t str, FilterError> {
        self.skip_blanks();
        match self.run(|c| "=!~".contains(c)) {
            operator @ ("==" | "!=" | "~=") => Ok(operator),
            _ => Err(self.error("==, != or ~= is expected")),
        }
    }

    /// `/` and `|` quote an expression, too, since those often have quotation marks in them.
    fn value(&mut self, expression: bool) -> Result<String, FilterError> {
        self.skip_blanks();
        match self.peek() {
            Some('"') => self.quoted(),
            Some('/' | '|') if expression => self.quoted(),
            None | Some('/' | '|' | ',' | '.' | '=' | '!' | '~') => {
                Err(self.error("a value is expected, quoted if it begins with this"))
            }
            Some(_) => Ok(self.run(|c| c != ',' && !c.is_whitespace()).to_owned()),
        }
    }

    /// Text in quotes with the escapes of Go's strings.
    fn quoted(&mut self) -> Result<String, FilterError> {
        let quote = self.rest.next().map(|(_, c)| c);
        let mut text = String::new();
        loop {
            match self.rest.next() {
                None => return Err(self.error("a quotation mark is missing")),
                Some((_, c)) if Some(c) == quote => return Ok(text),
                Some((_, '\\')) => {
                    // What is not Go's escape stays as it is between the quotes of expressions, where
                    // backslashes mean something themselves.
                    let escaped = self.escape(quote)?;
                    match escaped {
                        Some(c) => text.push(c),
                        None => text.push('\\'),
                    }
                }
                Some((_, c)) => text.push(c),
            }
        }
    }

    fn escape(&mut self, quote: Option<char>) -> Result<Option<char>, FilterError> {
        let Some(c) = self.peek() else {
            return Err(self.error("a quotation mark is missing"));
        };
        let plain = match c {
            _ if Some(c) == quote => Some(c),
            'a' => Some('\u{7}'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            '\\' => Some('\\'),
            _ => None,
        };
        if plain.is_some() {
            self.advance();
            return Ok(plain);
        }
        let (digits, radix) = match c {
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='7' => (3, 8),
            _ if quote == Some('"') => return Err(self.error("this is no escape")),
            _ => return Ok(None),
        };
        if radix == 16 {
            self.advance();
        }
        let mut code = 0_u32;
        for _ in 0..digits {
            let digit = self.peek().and_then(|c| c.to_digit(radix));
            let digit = digit.ok_or_else(|| self.error("a digit is missing"))?;
            code = code
                .checked_mul(radix)
                .and_then(|code| code.checked_add(digit))
                .unwrap_or(u32::MAX);
            self.advance();
        }
        char::from_u32(code)
            .map(Some)
            .ok_or_else(|| self.error("this is no character"))
    }

    fn skip_blanks(&mut self) {
        self.run(char::is_whitespace);
    }

    fn run(&mut self, mut is_in: impl FnMut(char) -> bool) -> &'t str {
        let start = self.at();
        while self.peek().is_some_and(&mut is_in) {
            self.advance();
        }
        &self.text[start..self.at()]
    }

    fn at(&mut self) -> usize {
        self.rest.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, c)| *c)
    }

    fn advance(&mut self) {
        self.rest.next();
    }

    fn error(&mut self, reason: &'static str) -> FilterError {
        FilterError {
            filter: self.text.chars().take(64).collect(),
            at: self.at(),
            reason,
        }
    }
}

fn is_field(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As containerd 2.3.4's content service sees its blobs.
    struct Blob(&'static str, Labels);

    impl Fields for Blob {
        fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
            match &*path[0] {
                "digest" => Some(Cow::Borrowed(self.0)),
                "labels" => label(&self.1, &path[1..]),
                _ => None,
            }
        }
    }

    fn blobs() -> Vec<Blob> {
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        vec![
            Blob(
                "one",
                labels(&[("color", "red"), ("probe.io/a.b", "x"), ("a.b", "dotted")]),
            ),
            Blob(
                "three",
                labels(&[("color", "red"), ("shape", "square"), ("space", "a b")]),
            ),
            Blob("two", labels(&[("color", "green"), ("shape", "round")])),
        ]
    }

    fn listed(filters: &[&str]) -> Vec<&'static str> {
        let filters = Filters::parse(filters).unwrap_or_else(|err| panic!("{err}"));
        let all = blobs();
        all.iter()
            .filter(|blob| filters.pass(*blob))
            .map(|blob| blob.0)
            .collect()
    }

    /// Recorded from containerd 2.3.4.
    #[test]
    fn listings_are_containerds() {
        let all = vec!["one", "three", "two"];
        for (filter, expected) in [
            ("labels.color==red", vec!["one", "three"]),
            ("labels.\"color\"==red", vec!["one", "three"]),
            ("labels.\"probe.io/a.b\"==x", vec!["one"]),
            ("labels.a.b==dotted", vec!["one"]),
            ("labels.\"a.b\"==dotted", vec!["one"]),
            ("\"labels\".color==red", vec!["one", "three"]),
            ("labels.color==\"red\"", vec!["one", "three"]),
            ("labels.space==\"a b\"", vec!["three"]),
            ("labels.color=='red'", vec![]),
            ("labels.shape", vec!["three", "two"]),
            ("labels.nope", vec![]),
            ("labels.shape!=round", vec!["one", "three"]),
            ("labels.shape==\"\"", vec![]),
            ("labels.color~=^r", vec!["one", "three"]),
            ("labels.color~=\"^(red|blue)$\"", vec!["one", "three"]),
            ("labels.color~=/^gr/", vec!["two"]),
            ("labels.color~=|e+|", all.clone()),
            ("labels.shape~=\"^$\"", vec!["one"]),
            ("labels.color~=\"(\"", vec![]),
            ("labels.color ~= red", vec!["one", "three"]),
            ("labels.color==red,labels.shape==square", vec!["three"]),
            ("labels.color==red, labels.shape==square", vec!["three"]),
            ("labels.color==red,labels.shape==round", vec![]),
            ("labels.color==red,labels.shape", vec!["three"]),
            ("size==5", vec![]),
            ("size!=5", all.clone()),
            ("nope", vec![]),
            ("labels", vec![]),
            ("labels==x", vec![]),
            ("digest", all.clone()),
            ("digest.x", all.clone()),
            ("name~=a", vec![]),
            ("", all.clone()),
        ] {
            assert_eq!(listed(&[filter]), expected, "{filter}");
        }
        assert_eq!(listed(&[]), all);
        assert_eq!(listed(&["labels.nope", "digest==two"]), ["two"]);
        assert_eq!(listed(&["digest==two", ""]), all);
    }

    /// Refused by containerd 2.3.4, too.
    #[test]
    fn what_does_not_parse_is_refused() {
        for filter in [
            "type=",
            "==",
            "type==a ,id==b",
            "id==a,",
            "topic==\"/x\" | ==",
            "topic==/unquoted/slash",
            "labels.",
            "a===b",
            "a==\"b",
            "a==\"\\q\"",
            "a==\"\\ud800\"",
            "a==b ",
            " ",
            ",",
        ] {
            assert!(Filters::parse(&[filter]).is_err(), "{filter}");
        }
        let error = Filters::parse(&["id==a,"])
            .expect_err("refused")
            .to_string();
        assert_eq!(
            error,
            "filter \"id==a,\" does not parse at byte 6: a field is expected"
        );
    }

    #[test]
    fn escapes_are_gos() {
        let parsed = Parser::new(r#"a=="\x41\u00e9\U0001f600\101\"\n""#)
            .filter()
            .expect("parses");
        assert!(matches!(&parsed[0].test, Test::Is(text) if text == "A\u{e9}\u{1f600}A\"\n"));
        let parsed = Parser::new(r"a~=/\d+\/x/").filter().expect("parses");
        assert!(matches!(&parsed[0].test, Test::Matches(re) if re.as_str() == r"\d+/x"));
    }
}
