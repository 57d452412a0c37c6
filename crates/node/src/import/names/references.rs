//! Names as the image store of containerd's transfer service gives them (containerd
//! `core/transfer/image`). They are taken to the letter: whoever asks for an image there looks for the
//! very name that was stored.

use cairn_types::{Descriptor, Digest, ImageName, Labels, NameError};
use jiff::Timestamp;

use super::{IMAGE_NAME, REF_NAME, SUBJECT, is_prefix, is_tag};

/// Ties an image to another (containerd `core/metadata/gc.go`).
const BELONGS_TO: &str = "containerd.io/gc.bref.image";
/// From when on it is kept for its own sake no more.
const EXPIRE: &str = "containerd.io/gc.expire";

/// One more name, or a rule for more of them (containerd `types/transfer/imagestore.proto`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// A name, or what names begin with.
    pub name: String,
    /// It is what names begin with, and says how the entries of an archive are called.
    pub is_prefix: bool,
    /// An entry that has a whole name keeps it, whatever it begins with.
    pub allow_overwrite: bool,
    /// The name that is meant ends in `@` and a digest; of a prefix this is one more name.
    pub add_digest: bool,
    /// An entry that has a name gets none by its digest.
    pub skip_named_digest: bool,
}

/// How the images of a transfer are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// What came as a whole: an archive's index, or what a registry has under a name.
    pub name: Option<String>,
    /// More names of it, and rules for what an archive lists.
    pub more: Vec<Reference>,
}

impl References {
    /// The names of what came as a whole.
    ///
    /// # Errors
    /// One that is too long, or empty.
    pub fn whole(&self, digest: &Digest) -> Result<Vec<ImageName>, NameError> {
        let more = self.more.iter().filter(|more| match more.is_prefix {
            // The index of an archive that nobody named is no image of its own.
            true => more.add_digest && self.name.is_some(),
            false => true,
        });
        let more = more.map(|more| match more.add_digest {
            true => format!("{}@{digest}", more.name),
            false => more.name.clone(),
        });
        unique(self.name.clone().into_iter().chain(more))
    }

    /// The names of one entry of an archive's index, by what it is annotated with.
    ///
    /// # Errors
    /// One that is too long, or empty.
    pub fn listed(&self, entry: &Descriptor) -> Result<Vec<ImageName>, NameError> {
        if entry.annotations.contains_key(SUBJECT) {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for rule in self.more.iter().filter(|more| more.is_prefix) {
            let name = rule.name_of(entry);
            let by_digest = rule.add_digest && (name.is_none() || !rule.skip_named_digest);
            names.extend(name);
            if by_digest {
                names.push(format!("{}@{}", rule.name, entry.digest));
            }
        }
        unique(names)
    }

    /// Labels that one of the names gets: beside a name for the whole, the others live no longer than
    /// that.
    pub fn labels(&self, name: &ImageName, now: Timestamp) -> Labels {
        match &self.name {
            Some(first) if name.as_str() != first => Labels::from([
                (BELONGS_TO.to_owned(), first.clone()),
                (EXPIRE.to_owned(), format!("{now:.0}")),
            ]),
            _ => Labels::new(),
        }
    }
}

impl Reference {
    /// What an entry is called by this rule, if it is.
    fn name_of(&self, entry: &Descriptor) -> Option<String> {
        let annotation = |key| entry.annotations.get(key).filter(|name| !name.is_empty());
        if let Some(name) = annotation(IMAGE_NAME) {
            // It is a whole name or none at all.
            return self.completed(name).filter(|completed| completed == name);
        }
        self.completed(annotation(REF_NAME)?)
    }

    fn completed(&self, name: &str) -> Option<String> {
        if self.name.is_empty() {
            return None;
        }
        match is_tag(name) {
            true => Some(format!("{}:{name}", self.name)),
            false => (self.allow_overwrite || self.begins(name)).then(|| name.to_owned()),
        }
    }

    /// Whether a name begins as it should, or would if it were written as short as the prefix is.
    fn begins(&self, name: &str) -> bool {
        let last = name.rsplit('/').next().unwrap_or(name);
        is_prefix(name, &self.name) || is_prefix(last, &self.name)
    }
}

/// Names in order, each once.
fn unique(names: impl IntoIterator<Item = String>) -> Result<Vec<ImageName>, NameError> {
    let mut unique = Vec::new();
    for name in names {
        let name = ImageName::parse(&name)?;
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    Ok(unique)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn prefix(name: &str) -> Reference {
        Reference {
            name: name.to_owned(),
            is_prefix: true,
            ..Reference::default()
        }
    }

    fn overwriting(name: &str) -> Reference {
        Reference {
            allow_overwrite: true,
            ..prefix(name)
        }
    }

    fn digested(mut reference: Reference) -> Reference {
        reference.add_digest = true;
        reference
    }

    fn skipping(mut reference: Reference) -> Reference {
        reference.skip_named_digest = true;
        reference
    }

    /// What is expected may end in `@`, for the digest.
    #[track_caller]
    fn same(names: Result<Vec<ImageName>, NameError>, expected: &[&str]) {
        let names = names.expect("names");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let whole = |name: &&str| match name.ends_with('@') {
            true => format!("{name}{DIGEST}"),
            false => (*name).to_owned(),
        };
        let expected: Vec<String> = expected.iter().map(whole).collect();
        assert_eq!(names, expected);
    }

    #[track_caller]
    fn listed(rule: Reference, annotation: &str, value: &str, expected: &[&str]) {
        let mut entry = Descriptor::new("", Digest::sha256(b"abc"), 3);
        let (key, value) = (annotation.to_owned(), value.to_owned());
        entry.annotations.insert(key, value);
        let references = References {
            name: None,
            more: vec![rule],
        };
        same(references.listed(&entry), expected);
    }

    /// The cases of containerd's own test of it (`core/transfer/image`, `TestStore`).
    #[test]
    fn entries_are_named_by_prefixes() {
        let (image, base) = ("registry.test/image", "registry.test/base");
        let whole = "registry.test/image:latest";
        for annotation in [IMAGE_NAME, REF_NAME] {
            listed(prefix(image), annotation, whole, &[whole]);
            listed(overwriting("unused"), annotation, whole, &[whole]);
            listed(prefix(base), annotation, whole, &[]);
            let rule = digested(overwriting("base"));
            listed(rule.clone(), annotation, whole, &[whole, "base@"]);
            listed(skipping(rule), annotation, whole, &[whole]);
        }
        listed(prefix(image), REF_NAME, "latest", &[whole]);
        // A tag is no name of an image.
        listed(prefix(image), IMAGE_NAME, "latest", &[]);
        listed(
            digested(prefix(image)),
            "other",
            "x",
            &["registry.test/image@"],
        );
        let rule = digested(prefix(image));
        listed(
            rule.clone(),
            REF_NAME,
            "latest",
            &[whole, "registry.test/image@"],
        );
        listed(skipping(rule), REF_NAME, "latest", &[whole]);
        listed(digested(overwriting(image)), SUBJECT, "x", &[]);
    }

    #[test]
    fn a_prefix_ends_where_a_part_of_the_name_does() {
        listed(prefix("quay.io/a"), IMAGE_NAME, "quay.io/ab:1", &[]);
        listed(
            prefix("nginx"),
            IMAGE_NAME,
            "docker.io/library/nginx:1",
            &["docker.io/library/nginx:1"],
        );
        listed(
            prefix("nginx"),
            IMAGE_NAME,
            "docker.io/library/nginxes:1",
            &[],
        );
        listed(prefix(""), REF_NAME, "1", &[]);
    }

    /// Unlike people's references, which are completed.
    #[test]
    fn names_are_taken_to_the_letter() {
        listed(
            overwriting("p"),
            REF_NAME,
            "busybox:1.36",
            &["busybox:1.36"],
        );
        listed(prefix("p"), REF_NAME, "../../etc/passwd", &[]);
    }

    #[test]
    fn the_whole_has_its_name_and_those_that_are_complete() {
        let whole = |name: Option<&str>, more: Vec<Reference>| {
            let name = name.map(str::to_owned);
            References { name, more }.whole(&Digest::sha256(b"abc"))
        };
        let extra = Reference {
            name: "r/extra:1".to_owned(),
            ..Reference::default()
        };
        same(whole(None, vec![]), &[]);
        same(whole(Some("r/i:1"), vec![prefix("r/b")]), &["r/i:1"]);
        same(
            whole(Some("r/i:1"), vec![extra.clone()]),
            &["r/i:1", "r/extra:1"],
        );
        same(whole(None, vec![digested(extra.clone())]), &["r/extra:1@"]);
        let rule = skipping(digested(prefix("r/b")));
        same(whole(Some("r/i:1"), vec![rule.clone()]), &["r/i:1", "r/b@"]);
        same(whole(None, vec![rule]), &[]);
        same(whole(Some("r/extra:1"), vec![extra]), &["r/extra:1"]);
        assert!(whole(Some(""), vec![]).is_err());
    }

    #[test]
    fn more_names_go_with_the_first() {
        let named = |name: Option<&str>| References {
            name: name.map(str::to_owned),
            more: Vec::new(),
        };
        let other = ImageName::parse("b").expect("name");
        let labels = |references: References| references.labels(&other, Timestamp::UNIX_EPOCH);
        let expected = [(BELONGS_TO, "a"), (EXPIRE, "1970-01-01T00:00:00Z")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(labels(named(Some("a"))), Labels::from(expected));
        assert_eq!(labels(named(Some("b"))), Labels::new());
        assert_eq!(labels(named(None)), Labels::new());
    }
}
