//! The command line once more, with a change: what a `next:` line repeats is then there to be pasted.

use crate::error::quote;

/// The words after the program's name, as they were typed, without what only the terminal should see.
fn typed() -> Vec<String> {
    let words = std::env::args_os().skip(1);
    without_secrets(
        words
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
    )
}

/// `-u USER:PASS` as `-u USER`, which asks for the password, and a placeholder for a token. `--user` is
/// somebody in the container where bundles are made.
fn without_secrets(mut words: Vec<String>) -> Vec<String> {
    let of_container = words.iter().any(|word| word == "bundle");
    let is_user = |flag: &str| flag == "--creds" || (flag == "--user" && !of_container);
    let mut hidden: Option<fn(&str) -> String> = None;
    let user: fn(&str) -> String = user_only;
    let token: fn(&str) -> String = |_| "TOKEN".to_owned();
    for word in &mut words {
        if let Some(hide) = hidden.take() {
            *word = hide(word);
        } else if word == "--" {
            break;
        } else if let Some((flag, value)) = word.split_once('=').filter(|_| word.starts_with("--"))
        {
            if is_user(flag) {
                *word = format!("{flag}={}", user(value));
            } else if flag == "--refresh" {
                *word = format!("{flag}=TOKEN");
            }
        } else if is_user(word) {
            hidden = Some(user);
        } else if word == "--refresh" {
            hidden = Some(token);
        } else if let Some((flags, value)) = short_user(word) {
            match value {
                "" => hidden = Some(user),
                value => *word = format!("-{flags}u{}", user_only(value)),
            }
        }
    }
    words
}

fn user_only(value: &str) -> String {
    value.split(':').next().unwrap_or_default().to_owned()
}

/// `-u`, with flags that take no value before it in the same word, and its value behind it.
fn short_user(word: &str) -> Option<(&str, &str)> {
    let letters = word
        .strip_prefix('-')
        .filter(|rest| !rest.starts_with('-'))?;
    let split = letters.split_once('u');
    split.filter(|(flags, _)| flags.chars().all(|c| "qvk".contains(c)))
}

fn line(words: &[String]) -> String {
    let words = words.iter().map(|word| quote(word));
    let words: Vec<String> = std::iter::once("cairn".to_owned()).chain(words).collect();
    words.join(" ")
}

/// As it was typed.
pub fn unchanged() -> String {
    line(&typed())
}

/// In another namespace.
pub fn in_namespace(other: &str) -> String {
    line(&with_namespace(&typed(), other))
}

/// For another platform, where it was typed for one at most.
pub fn for_platform(other: &str) -> Option<String> {
    with_platform(&typed(), other).map(|words| line(&words))
}

fn with_namespace(words: &[String], other: &str) -> Vec<String> {
    let mut changed = vec!["-n".to_owned(), other.to_owned()];
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        // Flags without a value may stand before it in the same word.
        let letters = word.strip_prefix('-').and_then(|w| w.split_once('n'));
        let letters = letters.filter(|(flags, _)| flags.chars().all(|c| "qv".contains(c)));
        if word == "--" {
            changed.push(word.clone());
            changed.extend(rest.by_ref().cloned());
        } else if word == "--namespace" {
            rest.next();
        } else if let Some((flags, value)) = letters {
            if value.is_empty() {
                rest.next();
            }
            if !flags.is_empty() {
                changed.push(format!("-{flags}"));
            }
        } else if !word.starts_with("--namespace=") {
            changed.push(word.clone());
        }
    }
    changed
}

fn with_platform(words: &[String], other: &str) -> Option<Vec<String>> {
    let end = words.iter().position(|word| word == "--");
    let end = end.unwrap_or(words.len());
    let is_flag = |word: &String| word == "--platform" || word.starts_with("--platform=");
    let flags: Vec<usize> = (0..end).filter(|i| is_flag(&words[*i])).collect();
    let mut changed = words.to_vec();
    let flag = ["--platform".to_owned(), other.to_owned()];
    match flags.as_slice() {
        [] => changed.splice(end..end, flag),
        [at] if words[*at].contains('=') => changed.splice(*at..*at + 1, flag),
        [at] => changed.splice(*at..(*at + 2).min(end), flag),
        _ => return None,
    };
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn another_namespace() {
        for (typed, wanted) in [
            ("tag a b", "-n x tag a b"),
            ("-n dev tag a b", "-n x tag a b"),
            ("tag --namespace dev a b", "-n x tag a b"),
            ("tag --namespace=dev a -q b", "-n x tag a -q b"),
            ("tag -ndev a b", "-n x tag a b"),
            ("-qn dev --no-trunc tag a b", "-n x -q --no-trunc tag a b"),
            (
                "bundle create a b -- sh -n c",
                "-n x bundle create a b -- sh -n c",
            ),
            ("-a /n/s tag a b", "-n x -a /n/s tag a b"),
        ] {
            assert_eq!(with_namespace(&words(typed), "x"), words(wanted), "{typed}");
        }
    }

    #[test]
    fn secrets_are_not_repeated() {
        for (typed, wanted) in [
            ("pull -u alice:hidden web", "pull -u alice web"),
            ("pull -kualice:hid:den web", "pull -kualice web"),
            ("pull -qu alice web", "pull -qu alice web"),
            ("pull --user=alice:hidden web", "pull --user=alice web"),
            ("pull --creds alice:hidden web", "pull --creds alice web"),
            ("pull --refresh hidden web", "pull --refresh TOKEN web"),
            ("pull --refresh=hidden web", "pull --refresh=TOKEN web"),
            (
                "bundle create --refresh hidden web d -- sh --refresh b",
                "bundle create --refresh TOKEN web d -- sh --refresh b",
            ),
            (
                "bundle create --user 1:2 --creds a:hidden web d -- sh -u a:b",
                "bundle create --user 1:2 --creds a web d -- sh -u a:b",
            ),
            ("images usage web", "images usage web"),
        ] {
            assert_eq!(without_secrets(words(typed)), words(wanted), "{typed}");
        }
    }

    #[test]
    fn another_platform() {
        for (typed, wanted) in [
            ("mount a", Some("mount a --platform x/y")),
            ("mount --platform a/b a", Some("mount --platform x/y a")),
            ("mount --platform=a/b a", Some("mount --platform x/y a")),
            (
                "bundle create a b -- sh --platform",
                Some("bundle create a b --platform x/y -- sh --platform"),
            ),
            ("save f i --platform a/b --platform c/d", None),
        ] {
            let changed = with_platform(&words(typed), "x/y");
            assert_eq!(changed, wanted.map(words), "{typed}");
        }
    }
}
