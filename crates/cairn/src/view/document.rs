//! A stored JSON document as a person reads it: what is in it, in its order, a line for each member.

use serde::de::IgnoredAny;

/// Columns by which what is inside stands behind what it is in.
const STEP: usize = 2;

/// The lines of a document; `None` when it is no JSON. Parsing and printing it would lose the order of
/// its members and how its numbers are written.
pub(super) fn lines(json: &str) -> Option<Vec<String>> {
    serde_json::from_str::<IgnoredAny>(json).ok()?;
    let mut lines = Lines::default();
    let mut rest = json.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => lines.string(&mut rest),
            '{' | '[' => {
                let close = if c == '{' { '}' } else { ']' };
                lines.text.push(c);
                if rest.as_str().trim_start().starts_with(close) {
                    rest.by_ref().find(|c| *c == close);
                    lines.text.push(close);
                } else {
                    lines.depth += 1;
                    lines.end();
                }
            }
            '}' | ']' => {
                lines.depth -= 1;
                lines.end();
                lines.text.push(c);
            }
            ',' => {
                lines.text.push(c);
                lines.end();
            }
            ':' => lines.text.push_str(": "),
            blank if blank.is_ascii_whitespace() => {}
            other => lines.text.push(other),
        }
    }
    lines.done.push(lines.text);
    Some(lines.done)
}

#[derive(Default)]
struct Lines {
    done: Vec<String>,
    text: String,
    depth: usize,
}

impl Lines {
    fn end(&mut self) {
        let next = " ".repeat(self.depth * STEP);
        self.done.push(std::mem::replace(&mut self.text, next));
    }

    /// Up to the quote that ends it.
    fn string(&mut self, rest: &mut std::str::Chars<'_>) {
        self.text.push('"');
        let mut escaped = false;
        for c in rest.by_ref() {
            self.text.push(c);
            match c {
                '"' if !escaped => return,
                _ => escaped = c == '\\' && !escaped,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_spelling() {
        let json = r#"{"z":[],"a" : {"n":1.0e2, "s":"a\\\"{,:}[\u0041 "} ,"e":{ },"l":[1,[2]]}"#;
        assert_eq!(
            lines(json).expect("JSON").join("\n"),
            r#"{
  "z": [],
  "a": {
    "n": 1.0e2,
    "s": "a\\\"{,:}[\u0041 "
  },
  "e": {},
  "l": [
    1,
    [
      2
    ]
  ]
}"#
        );
        assert_eq!(lines(" true\n").expect("JSON"), ["true"]);
        for text in ["", "{", "{}}", "nope"] {
            assert_eq!(lines(text), None, "{text}");
        }
    }
}
