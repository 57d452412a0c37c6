//! What a registry says when it refuses: its own codes and messages, cut to a length a person reads.

use std::fmt;

use serde::Deserialize;

/// Bytes of an answer that are read in search of its errors.
pub(crate) const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Characters of a message, or of a code, that are kept.
const TEXT_CHARS_MAX: usize = 300;

/// Errors of one answer that are kept.
const COMPLAINTS_MAX: usize = 4;

/// One error as the registry names it (distribution-spec, "Error Codes").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// `MANIFEST_UNKNOWN` and the like; any text, since registries make up their own.
    pub code: String,
    /// For people; may be empty.
    pub message: String,
}

/// The errors of an answer; none where it was not of the form that the specification asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer(pub Vec<Complaint>);

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default)]
    message: Option<String>,
}

impl Answer {
    /// Reads the body of a refusal. What cannot be read says nothing.
    pub(crate) fn parse(body: &[u8]) -> Answer {
        let Ok(body) = serde_json::from_slice::<Body>(body) else {
            return Answer::default();
        };
        let complaints = body.errors.into_iter().take(COMPLAINTS_MAX).map(|item| {
            // Some write numbers where the specification has words.
            let code = match item.code {
                serde_json::Value::String(code) => code,
                serde_json::Value::Number(code) => code.to_string(),
                _ => String::new(),
            };
            Complaint {
                code: tame(&code),
                message: tame(&item.message.unwrap_or_default()),
            }
        });
        Answer(complaints.collect())
    }

    /// Whether the registry used this code.
    pub fn has(&self, code: &str) -> bool {
        self.0.iter().any(|complaint| complaint.code == code)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, complaint) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}", complaint.code)?;
            if !complaint.message.is_empty() {
                write!(f, ": {}", complaint.message)?;
            }
        }
        Ok(())
    }
}

/// A stranger's text, fit for a terminal: cut, and without control characters.
pub(crate) fn tame(text: &str) -> String {
    let mut tamed: String = text
        .chars()
        .take(TEXT_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        tamed.push('…');
    }
    tamed.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body is what Debian's docker-registry 2.8.2 answers for a tag that is not there.
    #[test]
    fn a_registrys_words_are_kept() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"2.1"}}]}"#;
        let answer = Answer::parse(body);
        assert!(answer.has("MANIFEST_UNKNOWN"));
        assert_eq!(answer.to_string(), "MANIFEST_UNKNOWN: manifest unknown");
    }

    #[test]
    fn what_is_no_answer_says_nothing() {
        for body in ["", "<html>", "{}", "[]", r#"{"errors":1}"#] {
            assert_eq!(Answer::parse(body.as_bytes()), Answer::default(), "{body}");
        }
    }

    #[test]
    fn long_and_wild_texts_are_tamed() {
        let message = format!("\u{1b}[2J{}", "x".repeat(10_000));
        let body = serde_json::json!({"errors": [{"code": 7, "message": message}]});
        let answer = Answer::parse(body.to_string().as_bytes());
        let shown = answer.to_string();
        assert!(shown.starts_with("7: [2Jxxx"), "{shown}");
        assert!(shown.ends_with("x…"), "{shown}");
        assert!(shown.chars().count() < 310);
    }
}
