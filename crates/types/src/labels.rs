//! Labels: what users and clients attach to objects, and the size rule containerd has for them.

use std::collections::BTreeMap;

use crate::{Classified, ErrorKind};

/// Key to value, in bytewise order of the keys.
pub type Labels = BTreeMap<String, String>;

/// Most bytes that one label's key and value may have together (containerd `pkg/labels`).
pub const LABEL_BYTES_MAX: usize = 4096;

/// A label that is too long or has no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "label key and value length ({length} bytes) greater than maximum size ({LABEL_BYTES_MAX} bytes), key: {key}"
)]
pub struct LabelError {
    /// The first bytes of the key.
    pub key: String,
    /// Bytes of key and value together.
    pub length: usize,
}

impl Classified for LabelError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// Checks one label against [`LABEL_BYTES_MAX`].
pub fn validate_label(key: &str, value: &str) -> Result<(), LabelError> {
    let length = key.len() + value.len();
    if length > LABEL_BYTES_MAX {
        return Err(LabelError {
            key: key.chars().take(64).collect(),
            length,
        });
    }
    Ok(())
}

/// Sets what `changes` has and leaves the others; an empty value removes its label, as everywhere in
/// containerd's API.
pub fn merge_labels(known: &mut Labels, changes: Labels) {
    for (key, value) in changes {
        if value.is_empty() {
            known.remove(&key);
        } else {
            known.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_on_key_and_value_together() {
        assert!(validate_label("k", &"v".repeat(4095)).is_ok());
        assert!(validate_label("k", &"v".repeat(4096)).is_err());
    }
}
