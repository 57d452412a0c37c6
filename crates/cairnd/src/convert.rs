//! Between the types of the wire and ours.

use std::collections::BTreeMap;

use cairn_meta::Timestamp;
use cairn_proto::containerd::types;
use cairn_types::{Classified, Descriptor, Digest, ErrorKind, Labels, Mount};
use prost_types::FieldMask;
use tonic::Status;

use crate::status;

/// A moment on the wire.
pub fn time(at: Timestamp) -> prost_types::Timestamp {
    let nanos = at.0.rem_euclid(1_000_000_000);
    prost_types::Timestamp {
        seconds: at.0.div_euclid(1_000_000_000),
        nanos: i32::try_from(nanos).unwrap_or_default(),
    }
}

/// A moment from the wire; absent or outside of what nanoseconds can count (Go's zero time) is none.
pub fn moment(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time?;
    let nanos = time.seconds.checked_mul(1_000_000_000)?;
    nanos.checked_add(i64::from(time.nanos)).map(Timestamp)
}

/// A digest that must parse.
pub fn digest(text: &str) -> Result<Digest, Status> {
    Digest::parse(text).map_err(|err| status::of(&err))
}

/// Any name that must parse.
pub fn name<T, E: Classified>(parsed: Result<T, E>) -> Result<T, Status> {
    parsed.map_err(|err| status::of(&err))
}

/// The name of something that is only looked for: an impossible name is that of nothing.
pub fn known<T, E: Classified>(parsed: Result<T, E>) -> Result<T, Status> {
    parsed.map_err(|err| status::with(ErrorKind::NotFound, err.to_string()))
}

/// Bytes or counts, which the wire has with a sign.
pub fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A size from the wire.
pub fn unsigned(size: i64, what: &str) -> Result<u64, Status> {
    u64::try_from(size)
        .map_err(|_| status::with(ErrorKind::InvalidArgument, format!("{what} is negative")))
}

/// A descriptor for the wire, which has neither platform nor urls nor data.
pub fn to_descriptor(descriptor: &Descriptor) -> types::Descriptor {
    types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: signed(descriptor.size),
        annotations: descriptor.annotations.clone(),
    }
}

/// A descriptor from the wire.
pub fn from_descriptor(descriptor: types::Descriptor) -> Result<Descriptor, Status> {
    let size = unsigned(descriptor.size, "size")?;
    let mut ours = Descriptor::new(descriptor.media_type, digest(&descriptor.digest)?, size);
    ours.annotations = descriptor.annotations;
    Ok(ours)
}

/// Mounts for the wire.
pub fn to_mounts(mounts: Vec<Mount>) -> Vec<types::Mount> {
    let convert = |mount: Mount| types::Mount {
        r#type: mount.kind,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    mounts.into_iter().map(convert).collect()
}

/// Mounts from the wire.
pub fn from_mounts(mounts: Vec<types::Mount>) -> Vec<Mount> {
    let convert = |mount: types::Mount| Mount {
        kind: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    mounts.into_iter().map(convert).collect()
}

/// What an update's mask asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// No mask: everything that can be changed is replaced.
    All,
    /// These paths: whole fields, and single keys of maps as `(field, key)`.
    Paths {
        /// Fields to replace.
        fields: Vec<String>,
        /// Keys to set, or to remove when the request has none or an empty value.
        keys: Vec<(String, String)>,
    },
}

/// Reads a mask whose paths are `known` fields, or `field.key` of those in `maps`. They are free text
/// (`labels.containerd.io/gc.root`), so no rule of protobuf's for paths holds.
pub fn mask(mask: Option<FieldMask>, known: &[&str], maps: &[&str]) -> Result<Change, Status> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Ok(Change::All);
    }
    let (mut fields, mut keys) = (Vec::new(), Vec::new());
    for path in paths {
        let key = maps.iter().find_map(|map| {
            let rest = path.strip_prefix(map)?.strip_prefix('.')?;
            Some(((*map).to_owned(), rest.to_owned()))
        });
        match key {
            Some(key) => keys.push(key),
            None if known.contains(&&*path) => fields.push(path),
            None => {
                let text = format!("cannot update {path:?}");
                return Err(status::with(ErrorKind::InvalidArgument, text));
            }
        }
    }
    Ok(Change::Paths { fields, keys })
}

impl Change {
    /// Changes one map of an object by what the request has for it.
    pub fn apply(&self, map: &str, known: &mut Labels, request: &BTreeMap<String, String>) {
        match self {
            Change::All => known.clone_from(request),
            Change::Paths { fields, keys } => {
                if fields.iter().any(|field| field == map) {
                    known.clone_from(request);
                }
                for (_, key) in keys.iter().filter(|(field, _)| field == map) {
                    match request.get(key) {
                        Some(value) => known.insert(key.clone(), value.clone()),
                        None => known.remove(key),
                    };
                }
            }
        }
        known.retain(|_, value| !value.is_empty());
    }

    /// Whether a whole field is to be replaced.
    pub fn has(&self, field: &str) -> bool {
        match self {
            Change::All => true,
            Change::Paths { fields, .. } => fields.iter().any(|known| known == field),
        }
    }

    /// Whether anything of a map is asked to change, and which labels the request has for it: for
    /// checking their lengths. Labels that the mask does not name are nobody's business.
    pub fn named<'r>(
        &'r self,
        map: &'r str,
        request: &'r BTreeMap<String, String>,
    ) -> impl Iterator<Item = (&'r String, &'r String)> {
        request.iter().filter(move |(key, _)| match self {
            Change::All => true,
            Change::Paths { fields, keys } => {
                fields.iter().any(|field| field == map)
                    || keys
                        .iter()
                        .any(|(field, named)| field == map && named == *key)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_have_positive_nanoseconds() {
        let time = time(Timestamp(-1));
        assert_eq!((time.seconds, time.nanos), (-1, 999_999_999));
        assert_eq!(moment(Some(time)), Some(Timestamp(-1)));
        let zero = prost_types::Timestamp {
            seconds: -62_135_596_800,
            nanos: 0,
        };
        assert_eq!(moment(Some(zero)), None, "Go's zero time");
    }

    #[test]
    fn masks_name_fields_and_keys() {
        let of = |paths: &[&str]| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            mask(
                Some(FieldMask { paths }),
                &["labels", "target"],
                &["labels"],
            )
        };
        assert_eq!(of(&[]).expect("none"), Change::All);
        assert!(of(&["labels", "size"]).is_err());
        let change = of(&["labels.a.b/c", "labels.gone"]).expect("keys");
        let mut known = Labels::from([("gone".into(), "1".into()), ("kept".into(), "2".into())]);
        let request = Labels::from([("a.b/c".into(), "3".into()), ("kept".into(), "4".into())]);
        change.apply("labels", &mut known, &request);
        assert_eq!(
            known,
            Labels::from([("a.b/c".into(), "3".into()), ("kept".into(), "2".into())])
        );
        of(&["labels"])
            .expect("field")
            .apply("labels", &mut known, &request);
        assert_eq!(known, request);
    }
}
