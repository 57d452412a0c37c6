//! What was left out of a layer and why, counted so that a hostile layer cannot fill the log.

use std::collections::BTreeMap;

use crate::path::shown;

/// Reasons told apart; further ones are counted together.
const REASONS_MAX: usize = 32;

/// Counts what was left out, by reason, each with the first entry it happened to.
#[derive(Debug, Default)]
pub(super) struct Skipped {
    reasons: BTreeMap<String, (u64, String)>,
    others: u64,
}

impl Skipped {
    pub(super) fn note(&mut self, entry: &[u8], reason: String) {
        if let Some((count, _)) = self.reasons.get_mut(&reason) {
            *count += 1;
        } else if self.reasons.len() < REASONS_MAX {
            self.reasons.insert(reason, (1, shown(entry)));
        } else {
            self.others += 1;
        }
    }

    /// One line for each reason.
    pub(super) fn lines(self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .reasons
            .into_iter()
            .map(|(reason, (count, first))| match count {
                1 => format!("{reason} (\"{first}\")"),
                n => format!("{reason} ({n} times, first for \"{first}\")"),
            })
            .collect();
        if self.others > 0 {
            lines.push(format!("other reasons ({} times)", self.others));
        }
        lines
    }
}
