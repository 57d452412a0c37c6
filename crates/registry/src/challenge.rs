//! `WWW-Authenticate`: what a host wants to be shown (RFC 9110, 11.6.1).

use std::collections::BTreeMap;

use http::{HeaderMap, header::WWW_AUTHENTICATE};

/// Challenges of one answer that are looked at.
const CHALLENGES_MAX: usize = 16;

/// One way to authenticate that a host offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub(crate) scheme: String,
    /// By their names in lower case.
    pub(crate) parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// A parameter's value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }
}

/// All challenges of an answer, in its order. What does not parse is left out: a host that offers an
/// unknown scheme first may still offer one that we know.
pub(crate) fn of(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).into_iter();
    let mut challenges = Vec::new();
    for value in values.filter_map(|value| value.to_str().ok()) {
        parse(value, &mut challenges);
    }
    challenges.truncate(CHALLENGES_MAX);
    challenges
}

/// One header's value. The commas between challenges and those between parameters look the same, so what
/// follows one is told by whether `=` comes after its first word.
fn parse(text: &str, challenges: &mut Vec<Challenge>) {
    let mut rest = Cursor(text);
    let mut open = false;
    loop {
        rest.skip(|c| c == ',' || c.is_ascii_whitespace());
        let word = rest.word();
        if word.is_empty() {
            // Neither a word nor a comma: nothing before the next comma can be understood.
            rest.skip(|c| c != ',');
            if rest.0.is_empty() {
                return;
            }
            continue;
        }
        if rest.assignment() {
            let value = rest.value();
            if let (Some(value), true, Some(last)) = (value, open, challenges.last_mut()) {
                // The first of two of a name counts: what comes later may have been added by others.
                last.parameters
                    .entry(word.to_ascii_lowercase())
                    .or_insert(value);
            }
            continue;
        }
        if rest.0.starts_with('/') || rest.0.starts_with('=') {
            // The rest of a token68, as Negotiate's.
            rest.skip(|c| c != ',');
            continue;
        }
        open = true;
        challenges.push(Challenge {
            scheme: word.to_ascii_lowercase(),
            parameters: BTreeMap::new(),
        });
    }
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip(&mut self, of: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(of);
    }

    /// A token of RFC 9110, 5.6.2; empty where there is none.
    fn word(&mut self) -> &'a str {
        let end = self
            .0
            .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
            .unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word
    }

    /// Steps over `=`, if a value follows it; the padding of a token68 has none.
    fn assignment(&mut self) -> bool {
        let Some(rest) = self.0.trim_start().strip_prefix('=') else {
            return false;
        };
        let rest = rest.trim_start();
        if rest.is_empty() || rest.starts_with([',', '=']) {
            return false;
        }
        self.0 = rest;
        true
    }

    /// A quoted string, or what stands before the next comma or space: some write addresses unquoted.
    fn value(&mut self) -> Option<String> {
        let Some(quoted) = self.0.strip_prefix('"') else {
            let end = self
                .0
                .find(|c: char| c == ',' || c.is_ascii_whitespace())
                .unwrap_or(self.0.len());
            let (value, rest) = self.0.split_at(end);
            self.0 = rest;
            return Some(value.to_owned());
        };
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &quoted[at + 1..];
                    return Some(value);
                }
                '\\' => value.extend(chars.next().map(|(_, c)| c)),
                c => value.push(c),
            }
        }
        // It never ends.
        self.0 = "";
        None
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(values: &[&'static str], expected: &[(&str, &[(&str, &str)])]) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        let found = of(&headers);
        let found: Vec<_> = found
            .iter()
            .map(|c| {
                let parameters = c.parameters.iter().map(|(k, v)| (k.as_str(), v.as_str()));
                (c.scheme.as_str(), parameters.collect::<Vec<_>>())
            })
            .collect();
        let expected: Vec<_> = expected.iter().map(|(s, p)| (*s, p.to_vec())).collect();
        assert_eq!(found, expected);
    }

    /// The example of the token specification (distribution, docs/spec/auth/token.md).
    #[test]
    fn docker_hubs_challenge() {
        check(
            &[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:samalba/my-app:pull,push""#,
            ],
            &[(
                "bearer",
                &[
                    ("realm", "https://auth.docker.io/token"),
                    ("scope", "repository:samalba/my-app:pull,push"),
                    ("service", "registry.docker.io"),
                ],
            )],
        );
    }

    /// The example of RFC 9110, 11.6.1, with its several challenges, spaces and quotes in quotes.
    #[test]
    fn several_challenges_in_one_header() {
        check(
            &[r#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#],
            &[
                ("basic", &[("realm", "simple")]),
                (
                    "newauth",
                    &[
                        ("realm", "apps"),
                        ("title", "Login to \"apps\""),
                        ("type", "1"),
                    ],
                ),
            ],
        );
        check(
            &["Basic", "BEARER Realm = http://a/b"],
            &[("basic", &[]), ("bearer", &[("realm", "http://a/b")])],
        );
    }

    #[test]
    fn what_cannot_be_understood_is_left_out() {
        check(
            &["Negotiate YWJj/ZGU==, Digest abc=, Basic realm=x"],
            &[
                ("negotiate", &[]),
                ("digest", &[]),
                ("basic", &[("realm", "x")]),
            ],
        );
        check(&["", ", ,", "=;", "\"x\""], &[]);
        check(&[r#"Bearer realm="never ends"#], &[("bearer", &[])]);
        check(&["realm=x, Basic"], &[("basic", &[])]);
        check(&["Bearer a=1, a=2"], &[("bearer", &[("a", "1")])]);
    }
}
