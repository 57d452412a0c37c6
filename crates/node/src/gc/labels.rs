//! What labels say about collection (containerd `core/metadata/gc.go`).

use cairn_meta::Timestamp;
use cairn_types::{Digest, ImageName, Labels, SnapshotKey};

use super::item::Item;

const ROOT: &str = "containerd.io/gc.root";
/// Ends a lease, or an image as a root.
pub(crate) const EXPIRE: &str = "containerd.io/gc.expire";
const FLAT: &str = "containerd.io/gc.flat";
const FORWARD: &str = "containerd.io/gc.ref.";
const BACK: &str = "containerd.io/gc.bref.";
const CONDITION: &str = "containerd.io/gc.cond.snapshot";
const USED_AT: &str = "containerd.io/gc.cond.value-usedat";
/// Our one snapshotter; what is said of others concerns nobody here.
const SNAPSHOTTER: &str = "overlayfs";

/// A root by itself: any key that begins so, with any value but the empty one.
pub(super) fn is_root(labels: &Labels) -> bool {
    root_key(labels).is_some()
}

/// Which label makes it one.
pub(super) fn root_key(labels: &Labels) -> Option<&str> {
    let mut roots = labels
        .iter()
        .filter(|(key, value)| key.starts_with(ROOT) && !value.is_empty());
    roots.next().map(|(key, _)| key.as_str())
}

/// Its time is over.
pub(super) fn is_expired(labels: &Labels, now: Timestamp) -> bool {
    expiry(labels).is_some_and(|time| time < i128::from(now.0))
}

/// When its time is over, in nanoseconds since 1970. What cannot be read must not delete anything.
pub(crate) fn expiry(labels: &Labels) -> Option<i128> {
    let time = labels.get(EXPIRE)?.parse::<jiff::Timestamp>().ok()?;
    Some(time.as_nanosecond())
}

/// A lease that holds its resources alone.
pub(super) fn is_flat(labels: &Labels) -> bool {
    labels.get(FLAT).is_some_and(|value| !value.is_empty())
}

/// What an object with these labels keeps alive.
pub(super) fn forward(labels: &Labels) -> Vec<Item> {
    named(labels, FORWARD)
}

/// Whom an object with these labels belongs to: it lives as long as one of them does.
pub(super) fn back(labels: &Labels) -> Vec<Item> {
    named(labels, BACK)
}

fn named(labels: &Labels, prefix: &str) -> Vec<Item> {
    let item = |(key, value): (&String, &String)| {
        let kind = key.strip_prefix(prefix)?;
        let rest = |word: &str| kind.strip_prefix(word);
        // `content`, `content.0` and `content/0` are all of the kind; `contents` is not.
        let ends =
            |rest: &str, separators: &[char]| rest.is_empty() || rest.starts_with(separators);
        if rest("content").is_some_and(|rest| ends(rest, &['.', '/'])) {
            Digest::parse(value).ok().map(Item::Blob)
        } else if rest("image").is_some_and(|rest| ends(rest, &['.', '/'])) {
            ImageName::parse(value).ok().map(Item::Image)
        } else if let Some(rest) = rest("container").filter(|rest| ends(rest, &['.', '/'])) {
            let _ = rest;
            Some(Item::Container(value.clone()))
        } else {
            let rest = rest("snapshot.")?.strip_prefix(SNAPSHOTTER)?;
            // A dot would be part of another snapshotter's name.
            ends(rest, &['/']).then(|| SnapshotKey::parse(value).ok().map(Item::Snapshot))?
        }
    };
    labels.iter().filter_map(item).collect()
}

/// When an object with these labels was last used, in nanoseconds since 1970.
pub(super) fn used_at(labels: &Labels) -> Option<i128> {
    let text = labels.get(USED_AT)?;
    let time = text.parse::<jiff::Timestamp>().ok()?;
    Some(time.as_nanosecond())
}

/// A snapshot that is kept while a condition on it holds: `usedat<24h|KEY`.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Conditional {
    pub(super) key: SnapshotKey,
    pub(super) conditions: Conditions,
}

/// What has to hold, all of it: operators and nanoseconds since the last use.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Conditions(Vec<(char, i64)>);

impl Conditions {
    /// Whether a snapshot that was last used at `used_at` fulfils all of them.
    pub(super) fn hold(&self, used_at: Option<i128>, now: Timestamp) -> bool {
        let Some(used) = used_at else { return false };
        let since = i128::from(now.0) - used;
        self.0.iter().all(|(operator, limit)| match operator {
            '<' => since < i128::from(*limit),
            _ => since > i128::from(*limit),
        })
    }
}

/// The conditional references of an image or blob.
pub(super) fn conditional(labels: &Labels) -> Vec<Conditional> {
    let read = |(key, value): (&String, &String)| {
        let rest = key.strip_prefix(CONDITION)?.strip_prefix(['.', '/'])?;
        let rest = rest.strip_prefix(SNAPSHOTTER)?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        let (conditions, key) = value.split_once('|')?;
        let conditions = conditions.split(',').map(|text| {
            let rest = text.trim().strip_prefix("usedat")?;
            let operator = rest.chars().next().filter(|c| "<>".contains(*c))?;
            Some((operator, nanoseconds(&rest[1..])?))
        });
        Some(Conditional {
            key: SnapshotKey::parse(key).ok()?,
            conditions: Conditions(conditions.collect::<Option<_>>()?),
        })
    };
    labels.iter().filter_map(read).collect()
}

/// A duration as Go writes it: numbers with units, `1h30m`, `24h`, `1.5s`.
fn nanoseconds(mut text: &str) -> Option<i64> {
    let mut total = 0_f64;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = text[..digits].parse().ok()?;
        text = &text[digits..];
        let end = text
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(text.len());
        let unit = match &text[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        text = &text[end..];
    }
    // Durations of centuries saturate.
    #[allow(clippy::cast_possible_truncation)]
    Some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn references_are_containerds() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let kinds = |key: &str, value: &str| {
            forward(&labels(&[(key, value)]))
                .iter()
                .map(Item::kind)
                .collect::<Vec<_>>()
        };
        for (key, value, expected) in [
            ("containerd.io/gc.ref.content", digest, vec!["blob"]),
            ("containerd.io/gc.ref.content.l.0", digest, vec!["blob"]),
            ("containerd.io/gc.ref.content/x", digest, vec!["blob"]),
            ("containerd.io/gc.ref.contents", digest, vec![]),
            ("containerd.io/gc.ref.content", "no digest", vec![]),
            (
                "containerd.io/gc.ref.snapshot.overlayfs",
                "k",
                vec!["snapshot"],
            ),
            (
                "containerd.io/gc.ref.snapshot.overlayfs/x",
                "k",
                vec!["snapshot"],
            ),
            ("containerd.io/gc.ref.snapshot.overlayfs.x", "k", vec![]),
            ("containerd.io/gc.ref.snapshot.native", "k", vec![]),
            (
                "containerd.io/gc.ref.image.a",
                "docker.io/library/x:1",
                vec!["image"],
            ),
            ("containerd.io/gc.bref.content", digest, vec![]),
        ] {
            assert_eq!(kinds(key, value), expected, "{key}");
        }
        assert_eq!(
            back(&labels(&[("containerd.io/gc.bref.container/x", "c")]))[0].kind(),
            "container"
        );
        assert!(is_root(&labels(&[("containerd.io/gc.rootless", "x")])));
        assert!(!is_root(&labels(&[("containerd.io/gc.root", "")])));
    }

    #[test]
    fn conditions_are_about_the_time_of_use() {
        let now = Timestamp(1_000_000_000_000_000_000);
        let at = |text: &str| labels(&[(USED_AT, text)]);
        let key = "containerd.io/gc.cond.snapshot.overlayfs/a";
        let of = |condition: &str| conditional(&labels(&[(key, condition)])).pop();
        let holds = |condition: &str, labels: &Labels| {
            let conditional = of(condition).expect("parses");
            conditional.conditions.hold(used_at(labels), now)
        };
        assert!(holds("usedat<24h|k", &at("2199-01-01T00:00:00Z")));
        assert!(!holds("usedat<24h|k", &at("2000-01-01T00:00:00Z")));
        assert!(!holds("usedat<24h|k", &Labels::new()));
        assert!(holds("usedat>1h30m|k", &at("2000-01-01T00:00:00Z")));
        for wrong in [
            "usedat<24|k",
            "usedat|k",
            "other<1h|k",
            "usedat<1h",
            "usedat<|k",
        ] {
            assert!(of(wrong).is_none(), "{wrong}");
        }
        assert_eq!(nanoseconds("1h30m0.5s"), Some(5_400_500_000_000));
    }
}
