//! What imported images are called.

mod references;

use cairn_types::{Descriptor, Digest, ImageName, NameError};

pub use self::references::{Reference, References};

/// Annotation with an image's full name (containerd and BuildKit write it).
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";
/// Annotation with a tag or name (image-spec `annotations.md`).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of a manifest about another one (containerd); it gets no name.
pub(crate) const SUBJECT: &str = "io.containerd.manifest.subject";

/// How names are made of what the archive says.
pub(super) struct Naming {
    pub(super) base: Option<String>,
    pub(super) prefix: String,
    pub(super) digests: bool,
    /// Names the archive's own index.
    pub(super) index: Option<String>,
    /// What is said here is all that counts.
    pub(super) references: Option<References>,
}

impl Naming {
    /// `base` restricts to names below it; `today` (`2026-11-25`) stands in for it otherwise.
    pub(super) fn new(base: Option<String>, digests: bool, today: &str) -> Naming {
        Naming {
            prefix: base.clone().unwrap_or_else(|| format!("import-{today}")),
            base,
            digests,
            index: None,
            references: None,
        }
    }

    /// The names of the archive's own index, which is an image if it has any.
    pub(super) fn of_index(&self, digest: &Digest) -> Result<Vec<ImageName>, NameError> {
        match (&self.references, &self.index) {
            (Some(references), _) => references.whole(digest),
            (None, Some(name)) => Ok(vec![ImageName::normalize(name)?]),
            (None, None) => Ok(Vec::new()),
        }
    }

    /// The names of one entry of `index.json`, in order. An entry that the archive does not name
    /// is kept under its digest, rather than lost.
    pub(super) fn names(&self, entry: &Descriptor) -> Result<Vec<ImageName>, NameError> {
        if let Some(references) = &self.references {
            return references.listed(entry);
        }
        if entry.annotations.contains_key(SUBJECT) {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        let given = entry.annotations.get(IMAGE_NAME).filter(|n| !n.is_empty());
        let given = given.or_else(|| entry.annotations.get(REF_NAME).filter(|n| !n.is_empty()));
        let named = given.is_some();
        if let Some(name) = given.and_then(|name| self.translate(name)) {
            names.push(ImageName::parse(&name)?);
        }
        if self.digests || !named {
            names.push(self.by_digest(&entry.digest)?);
        }
        Ok(names)
    }

    /// `<prefix>@<digest>`.
    pub(super) fn by_digest(&self, digest: &Digest) -> Result<ImageName, NameError> {
        ImageName::parse(&format!("{}@{digest}", self.prefix))
    }

    /// A reference with `/`, `:` or `@` is whole and only filtered; a bare tag is put behind the
    /// prefix (containerd `core/images/archive/reference.go`).
    fn translate(&self, reference: &str) -> Option<String> {
        if is_tag(reference) {
            return Some(format!("{}:{reference}", self.prefix));
        }
        // A whole name is found again by what people type only in its completed form.
        let whole = ImageName::normalize(reference)
            .map_or_else(|_| reference.to_owned(), |name| name.as_str().to_owned());
        match &self.base {
            Some(base) if !is_prefix(&whole, base) && !is_prefix(reference, base) => None,
            _ => Some(whole),
        }
    }
}

/// Whether a reference is no more than a tag.
fn is_tag(reference: &str) -> bool {
    !reference.contains(['/', ':', '@'])
}

/// Whether `prefix` ends where a component of `name` does.
fn is_prefix(name: &str, prefix: &str) -> bool {
    match name.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with(['/', ':', '@']),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: Option<&str>, annotation: &str, value: &str, expected: &[&str]) {
        let mut entry = Descriptor::new("", Digest::sha256(b"abc"), 3);
        entry
            .annotations
            .insert(annotation.to_owned(), value.to_owned());
        let naming = Naming::new(base.map(str::to_owned), false, "2026-11-25");
        let names = naming.names(&entry).expect("names");
        let names: Vec<&str> = names.iter().map(ImageName::as_str).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn names_follow_containerds_prefix_rule() {
        check(None, REF_NAME, "latest", &["import-2026-11-25:latest"]);
        check(Some("shop/web"), REF_NAME, "2.1", &["shop/web:2.1"]);
        check(None, IMAGE_NAME, "quay.io/a/b:1", &["quay.io/a/b:1"]);
        check(
            None,
            REF_NAME,
            "busybox:1.36",
            &["docker.io/library/busybox:1.36"],
        );
        check(
            Some("quay.io/a"),
            IMAGE_NAME,
            "quay.io/a/b:1",
            &["quay.io/a/b:1"],
        );
        check(Some("quay.io/a"), IMAGE_NAME, "quay.io/ab:1", &[]);
        let unnamed = "import-2026-11-25@sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(None, "other", "x", &[unnamed]);
        check(None, REF_NAME, "", &[unnamed]);
        check(None, SUBJECT, "x", &[]);
    }

    /// Names are text, never paths; odd ones stay odd and harmless.
    #[test]
    fn odd_names_are_kept_as_text() {
        check(None, REF_NAME, "../../etc/passwd", &["../../etc/passwd"]);
    }
}
