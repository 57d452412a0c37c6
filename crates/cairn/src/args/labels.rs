//! Labels as they are typed: `K=V` sets one, `K=` and kubectl's `K-` remove it.

use cairn_types::{Labels, validate_label};
use clap::Args;

/// What is to become of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelChange {
    /// Its key, which is not empty.
    pub key: String,
    /// Its new value; an empty one removes it, as everywhere in containerd's API.
    pub value: String,
}

/// `label`, of whatever has labels
#[derive(Debug, Args)]
pub struct LabelArgs {
    /// Which one
    #[arg(value_name = "NAME")]
    pub name: String,
    /// K=V sets a label, K= or K- removes it
    #[arg(value_name = "K=V", required = true, value_parser = change)]
    pub changes: Vec<LabelChange>,
}

/// `images label`
#[derive(Debug, Args)]
pub struct LabelImage {
    /// Name or digest
    #[arg(value_name = "REF")]
    pub image: String,
    /// K=V sets a label, K= or K- removes it
    #[arg(value_name = "K=V", required_unless_present = "replace_all", value_parser = change)]
    pub changes: Vec<LabelChange>,
    /// Remove all labels that are not given
    #[arg(short, long)]
    pub replace_all: bool,
}

/// A label that is set.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            validate_label(key, value).map_err(|e| e.to_string())?;
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

fn change(text: &str) -> Result<LabelChange, String> {
    let removed = match text.contains('=') {
        true => None,
        false => text.strip_suffix('-').filter(|key| !key.is_empty()),
    };
    let (key, value) = match removed {
        Some(key) => (key.to_owned(), String::new()),
        None => label(text).map_err(|err| match text.contains('=') {
            true => err,
            false => format!("{err}; KEY= or KEY- removes one"),
        })?,
    };
    Ok(LabelChange { key, value })
}

impl LabelChange {
    /// Those labels that are set by `changes`.
    pub fn set(changes: &[LabelChange]) -> Labels {
        let given = changes.iter().filter(|change| !change.value.is_empty());
        given.map(|c| (c.key.clone(), c.value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_spellings() {
        let of = |text| change(text).map(|c| (c.key, c.value));
        let some = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(of("a=b"), some("a", "b"));
        assert_eq!(of("a=b=c"), some("a", "b=c"));
        assert_eq!(of("a="), some("a", ""));
        assert_eq!(of("a-"), some("a", ""));
        assert_eq!(of("a-=b-"), some("a-", "b-"));
        for wrong in ["", "-", "=", "=b", "a"] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
        let long = format!("a={}", "b".repeat(cairn_types::LABEL_BYTES_MAX));
        assert!(of(&long).expect_err("too long").contains("maximum size"));
    }
}
