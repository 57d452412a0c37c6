//! What can still be read of a journal that is damaged.

use std::collections::BTreeMap;

use cairn_sys::{Dir, raw};

use super::{Frame, PAGE, SEGMENTS, Segment, Trouble, frame_at};
use crate::engine::Batch;

/// What a damaged journal still has.
pub(crate) struct Salvaged {
    /// Changes by number, the oldest first.
    pub(crate) changes: Vec<(u64, Batch)>,
    /// What is missing, in words.
    pub(crate) lost: Vec<String>,
    /// The highest number of all that is there, also of what was not asked for.
    pub(crate) newest: u64,
}

/// Reads what comes after the change `after`, or everything where it is not known what is needed.
///
/// Behind a frame that does not prove itself only those count that were written when it was on the disk, and
/// those that they follow on: others may be of an older process, and nobody was promised them. What is missing
/// in between was promised. The newest that is known of each record is still the best there is, so the later ones
/// are not thrown away.
pub(crate) fn salvage(dir: &Dir, after: Option<u64>) -> Salvaged {
    let mut found: BTreeMap<u64, Batch> = BTreeMap::new();
    let mut lost = Vec::new();
    let mut segments = Vec::new();
    for name in SEGMENTS {
        match Segment::open(dir, name) {
            Ok((segment, frames)) => {
                let frames = frames.into_iter();
                found.extend(frames.map(|frame| (frame.head.number, frame.changes)));
                // Where it was cut, nothing tells whether that was the end.
                if let Err(Trouble::Damaged(text)) = segment.refuse_cut(name) {
                    lost.push(text);
                }
                segments.push(segment);
            }
            Err(err) => lost.push(format!("{name} cannot be read ({err})")),
        }
    }
    let newest = found.keys().next_back().copied().unwrap_or(0);
    let last = newest.max(after.unwrap_or(0));
    for segment in &segments {
        for run in runs_behind(segment) {
            if run.last().is_some_and(|frame| frame.head.durable > last) {
                let run = run.into_iter().filter(|frame| frame.head.number > last);
                found.extend(run.map(|frame| (frame.head.number, frame.changes)));
            }
        }
    }
    let newest = found.keys().next_back().copied().unwrap_or(0);
    found.retain(|number, _| after.is_none_or(|after| *number > after));
    lost.extend(gaps(found.keys().copied(), after));
    Salvaged {
        changes: found.into_iter().collect(),
        lost,
        newest,
    }
}

/// The frames behind the end of a segment, in runs of which each frame belongs behind the one before.
fn runs_behind(segment: &Segment) -> Vec<Vec<Frame>> {
    let mut runs: Vec<Vec<Frame>> = Vec::new();
    let length = raw::length(&segment.file).unwrap_or(0);
    let mut at = segment.end;
    while at < length {
        let Ok(Some(frame)) = frame_at(&segment.file, at) else {
            at += PAGE as u64;
            continue;
        };
        at += frame.bytes as u64;
        let before = runs.last().and_then(|run| run.last());
        let follows = before.is_some_and(|last| {
            frame.head.number == last.head.number + 1 && frame.head.before == last.checksum
        });
        match runs.last_mut() {
            Some(run) if follows => run.push(frame),
            _ => runs.push(vec![frame]),
        }
    }
    runs
}

/// Which numbers are missing in a row that goes on behind `after`.
fn gaps(numbers: impl Iterator<Item = u64>, after: Option<u64>) -> Vec<String> {
    let mut gaps = Vec::new();
    let mut before = after;
    for number in numbers {
        match before {
            Some(before) if number == before + 2 => {
                gaps.push(format!("change {} of the journal", before + 1));
            }
            Some(before) if number > before + 2 => {
                let (first, last) = (before + 1, number - 1);
                gaps.push(format!("changes {first} to {last} of the journal"));
            }
            _ => {}
        }
        before = Some(number);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let gaps = |numbers: &[u64], after| gaps(numbers.iter().copied(), after);
        assert!(gaps(&[4, 5, 6], Some(3)).is_empty());
        assert!(gaps(&[4, 5], None).is_empty());
        assert!(gaps(&[], Some(3)).is_empty());
        assert_eq!(gaps(&[5], Some(3)), ["change 4 of the journal"]);
        assert_eq!(
            gaps(&[7, 9], Some(3)),
            ["changes 4 to 6 of the journal", "change 8 of the journal"]
        );
    }
}
