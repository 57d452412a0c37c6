//! Which images a listing shows: a name without operator, or containerd's filter words.

use crate::{error::Problem, model::Image};

/// One condition.
#[derive(Debug)]
pub enum Filter {
    /// The whole name, or its short form with or without tag.
    Name(String),
    /// `FIELD==VALUE`, `FIELD!=VALUE`.
    Compare {
        /// `name`, `target.digest`, `target.mediatype` or `labels.KEY`.
        field: String,
        /// `==` rather than `!=`.
        equal: bool,
        /// To compare with.
        value: String,
    },
    /// `FIELD~=TEXT`: the field contains the text.
    Contains(String, String),
}

impl Filter {
    /// Reads one word of the command line.
    pub fn parse(text: &str) -> Result<Filter, Problem> {
        let split = |operator| {
            text.split_once(operator)
                .map(|(f, v)| (f, v.trim_matches('"')))
        };
        let compare = |(field, value): (&str, &str), equal| Filter::Compare {
            field: field.to_owned(),
            equal,
            value: value.to_owned(),
        };
        let filter = if let Some(pair) = split("==") {
            compare(pair, true)
        } else if let Some(pair) = split("!=") {
            compare(pair, false)
        } else if let Some((field, value)) = split("~=") {
            Filter::Contains(field.to_owned(), value.to_owned())
        } else {
            return Ok(Filter::Name(text.to_owned()));
        };
        match &filter {
            Filter::Compare { field, .. } | Filter::Contains(field, _) if !known(field) => {
                let text = format!("no filter field is called {field:?}");
                Err(Problem::usage(text)
                    .cause("known: name, target.digest, target.mediatype, labels.KEY"))
            }
            _ => Ok(filter),
        }
    }

    /// Lets the image through.
    pub fn matches(&self, image: &Image) -> bool {
        match self {
            Filter::Name(wanted) => has_name(&image.name, wanted),
            Filter::Compare {
                field,
                equal,
                value,
            } => (value_of(image, field) == Some(value.as_str())) == *equal,
            Filter::Contains(field, text) => {
                value_of(image, field).is_some_and(|value| value.contains(text))
            }
        }
    }
}

fn known(field: &str) -> bool {
    matches!(field, "name" | "target.digest" | "target.mediatype") || field.starts_with("labels.")
}

fn value_of<'i>(image: &'i Image, field: &str) -> Option<&'i str> {
    match field {
        "name" => Some(&image.name),
        "target.digest" => Some(&image.target.digest),
        "target.mediatype" => Some(&image.target.media_type),
        _ => {
            let key = field.strip_prefix("labels.")?.trim_matches('"');
            image.labels.get(key).map(String::as_str)
        }
    }
}

/// `busybox` finds every tag of `docker.io/library/busybox`, `busybox:1.36` that one.
fn has_name(name: &str, wanted: &str) -> bool {
    let forms = [
        Some(name),
        name.strip_prefix("docker.io/"),
        name.strip_prefix("docker.io/library/"),
    ];
    forms.into_iter().flatten().any(|form| {
        let rest = form.strip_prefix(wanted);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_without_operator_is_a_name() {
        let name = "docker.io/library/busybox:1.36";
        for (wanted, found) in [
            ("busybox", true),
            ("busybox:1.36", true),
            ("library/busybox", true),
            (name, true),
            ("busy", false),
            ("busybox:1", false),
            ("box:1.36", false),
        ] {
            assert_eq!(has_name(name, wanted), found, "{wanted}");
        }
    }

    #[test]
    fn unknown_fields_are_wrong_usage() {
        assert_eq!(
            Filter::parse("dangling==true")
                .expect_err("field")
                .exit_code(),
            2
        );
        assert!(Filter::parse("labels.a/b==c").is_ok());
    }
}
