//! What a listing shows: a word without operator, or a filter in containerd's language.
//!
//! Of several filters one must let a thing through. The language itself is `cairn_types::filter`'s;
//! here are the words that people type instead, and the fields of what is listed.

use std::borrow::Cow;

use cairn_types::{
    Labels,
    filter::{self, Filters},
};

use crate::{
    error::Problem,
    model::{Blob, Image, Lease, Snapshot},
};

/// What can be filtered.
pub trait Fields {
    /// The fields' names, without labels.
    const FIELDS: &'static [&'static str];

    /// The value of one of them.
    fn field(&self, name: &str) -> Option<Cow<'_, str>>;

    /// As set.
    fn labels(&self) -> &Labels;

    /// A word without operator means it.
    fn is_meant_by(&self, word: &str) -> bool;
}

/// One word of the command line.
#[derive(Debug)]
pub enum Filter {
    /// Without operator.
    Word(String),
    /// In containerd's language.
    Conditions(Filters),
}

/// An object as the language sees it.
struct Asked<'t, T>(&'t T);

impl<T: Fields> filter::Fields for Asked<'_, T> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match path {
            [first, key @ ..] if first == LABELS => filter::label(self.0.labels(), key),
            path => self.0.field(&path.join(".")),
        }
    }
}

/// The field whose further components are a label's key.
const LABELS: &str = "labels";

/// Reads the filters of a listing of `T`.
pub fn parse<'t, T: Fields>(
    texts: impl IntoIterator<Item = &'t String>,
) -> Result<Vec<Filter>, Problem> {
    texts.into_iter().map(|text| one::<T>(text)).collect()
}

/// One filter lets it through, or there is none.
pub fn passes(filters: &[Filter], item: &impl Fields) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.matches(item))
}

fn one<T: Fields>(text: &str) -> Result<Filter, Problem> {
    if !["==", "!=", "~="].iter().any(|o| text.contains(o)) {
        return Ok(Filter::Word(text.to_owned()));
    }
    let filters = Filters::parse(&[text]).map_err(|err| {
        Problem::usage(err.to_string())
            .cause("known: FIELD==X, FIELD!=X, FIELD~=REGEXP, labels.\"a.b/c\"==X")
    })?;
    for path in filters.paths() {
        let name = path.join(".");
        if path[0] != LABELS && !T::FIELDS.contains(&&*name) {
            let known = T::FIELDS.join(", ");
            let text = format!("no filter field is called {name:?}");
            return Err(Problem::usage(text).cause(format!("known: {known}, labels.KEY")));
        }
    }
    Ok(Filter::Conditions(filters))
}

impl Filter {
    /// Lets it through.
    pub fn matches(&self, item: &impl Fields) -> bool {
        match self {
            Filter::Word(word) => item.is_meant_by(word),
            Filter::Conditions(filters) => filters.pass(&Asked(item)),
        }
    }
}

impl Fields for Image {
    const FIELDS: &'static [&'static str] = &["name", "target.digest", "target.mediatype"];

    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "name" => Some((&self.name).into()),
            "target.digest" => Some((&self.target.digest).into()),
            "target.mediatype" => Some((&self.target.media_type).into()),
            _ => None,
        }
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn is_meant_by(&self, word: &str) -> bool {
        has_name(&self.name, word)
    }
}

impl Fields for Blob {
    const FIELDS: &'static [&'static str] = &["digest", "size"];

    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "digest" => Some((&self.digest).into()),
            "size" => Some(self.size.to_string().into()),
            _ => None,
        }
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The beginning of its digest, with or without the algorithm.
    fn is_meant_by(&self, word: &str) -> bool {
        let hex = self.digest.split_once(':').map_or("", |(_, hex)| hex);
        self.digest.starts_with(word) || hex.starts_with(word)
    }
}

impl Fields for Snapshot {
    const FIELDS: &'static [&'static str] = &["name", "parent", "kind"];

    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "name" => Some((&self.key).into()),
            "parent" => self.parent.as_ref().map(Into::into),
            "kind" => Some(self.kind.name().into()),
            _ => None,
        }
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    /// A part of its key.
    fn is_meant_by(&self, word: &str) -> bool {
        self.key.contains(word)
    }
}

impl Fields for Lease {
    const FIELDS: &'static [&'static str] = &["id"];

    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "id").then(|| (&self.id).into())
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    /// A part of its id.
    fn is_meant_by(&self, word: &str) -> bool {
        self.id.contains(word)
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
    use crate::model::Time;

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
    fn conditions_are_containerds() {
        let labels = [("a.b/c", "d,e"), ("f", "g")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let blob = Blob {
            digest: "sha256:0123abc".to_owned(),
            size: 7,
            uncompressed: None,
            labels: labels.into(),
            created_at: Time(jiff::Timestamp::UNIX_EPOCH),
            updated_at: Time(jiff::Timestamp::UNIX_EPOCH),
        };
        for (text, found) in [
            ("0123", true),
            ("sha256:01", true),
            ("123", false),
            ("size==7", true),
            ("size!=7", false),
            ("digest~=^sha256:01", true),
            ("digest~=^01", false),
            ("labels.f==g", true),
            ("labels.f!=h", true),
            ("labels.gone!=h", true),
            ("labels.gone==h", false),
            (r#"labels."a.b/c"=="d,e",size==7"#, true),
            (r#"labels."a.b/c"=="d,e",size==8"#, false),
        ] {
            let filter = one::<Blob>(text).expect(text);
            assert_eq!(filter.matches(&blob), found, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_wrong_usage() {
        for (text, says) in [
            ("dangling==true", "no filter field is called \"dangling\""),
            ("target==x", "no filter field is called \"target\""),
            (
                "name==a,=b",
                "filter \"name==a,=b\" does not parse at byte 8: a field is expected",
            ),
        ] {
            let problem = one::<Image>(text).expect_err(text);
            assert_eq!(problem.exit_code(), 2, "{text}");
            assert_eq!(problem.message(), says);
        }
        assert!(one::<Image>("labels.a==c").is_ok());
    }
}
