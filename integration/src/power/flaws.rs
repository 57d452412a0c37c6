//! Programs that are wrong on purpose, and what each of them loses.

use super::{ENGINES, Kind, Programs, record::Life};
use crate::fault::Dice;

/// A program that is wrong on purpose.
pub(super) struct Flaw {
    /// The word that makes it so.
    pub(super) word: &'static str,
    /// What a state has to lack for it to be caught, in the judge's words: each names what it is.
    loses: &'static [&'static str],
}

/// All of them.
pub(super) const FLAWS: [Flaw; 3] = [
    // Names: of files in a snapshot, of blobs, of directories of snapshots, of the store's own files.
    Flaw {
        word: "skip-dir-sync",
        loses: &[
            " has another tree\nnot there: [\n    \"",
            "blobs without a file: [\n    \"sha256:",
            "snapshots have the directories",
            "acknowledged and not there: [\n    \"",
            "cannot open ",
            "No such file",
        ],
    },
    // Files of a snapshot of which there is no other copy.
    Flaw {
        word: "skip-tree-sync",
        loses: &[
            "snapshot names has",
            "snapshot bare has",
            "snapshot files has",
            "snapshot many has",
            "snapshot more has",
        ],
    },
    // What a record speaks of.
    Flaw {
        word: "record-first",
        loses: &[
            "the file of blob ",
            "blobs without a file: [\n    \"sha256:",
            "has another tree",
            "\"kind\":\"blob-",
        ],
    },
];

/// Where each is caught for certain: a file system that writes nothing unless it is asked to, and an
/// engine that syncs no more than its own bytes.
const SURE: (Kind, &str) = (Kind::Ext4Lazy, ENGINES[0]);
/// Where it may be caught as well, and one is drawn. sled's syncs take names along on most.
const DRAWN: [Kind; 3] = [Kind::Ext4, Kind::Xfs, Kind::Btrfs];

/// Where they are looked for: each where it is caught for certain, and somewhere else.
pub(super) fn lives<'l>(programs: &'l [Programs], dice: &mut Dice) -> Vec<Life<'l>> {
    let mut lives = Vec::new();
    for programs in programs {
        let drawn = (DRAWN[dice.roll(DRAWN.len())], ENGINES[dice.roll(2)]);
        lives.extend([SURE, drawn].map(|(kind, engine)| Life {
            kind,
            engine,
            programs,
        }));
    }
    lives
}

/// Whether it has to be caught there.
pub(super) fn is_sure(kind: Kind, engine: &str) -> bool {
    (kind, engine) == SURE
}

/// Whether a state lacks what this program loses, and not only something.
pub(super) fn explains(word: &str, reason: &str) -> bool {
    // What the daemon said may be of anything.
    let reason = reason.split("\nthe daemon's log:").next().unwrap_or(reason);
    let flaw = FLAWS.iter().find(|flaw| flaw.word == word);
    let mut lost = flaw.into_iter().flat_map(|flaw| flaw.loses);
    lost.any(|lost| reason.contains(lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_explained_by_its_own_flaw_alone() {
        let file = "blobs without a file: [\n    \"sha256:1\",\n]\nand without a record: []";
        let none = "blobs without a file: []\nand without a record: [\n    \"sha256:1\",\n]";
        let tree = "snapshot files has another tree\nnot there: []\nthe daemon's log:\n";
        let name = "snapshot a has another tree\nnot there: [\n    \"dir made 0755\",\n]";
        let told = "mount: wrong\nthe daemon's log:\nNo such file";
        for (word, caught) in [
            ("skip-dir-sync", [true, false, false, true, false]),
            ("skip-tree-sync", [false, false, true, false, false]),
            ("record-first", [true, false, true, true, false]),
            ("none", [false; 5]),
        ] {
            let seen = [file, none, tree, name, told].map(|reason| explains(word, reason));
            assert_eq!(seen, caught, "{word}");
        }
    }

    #[test]
    fn each_is_looked_for_in_two_places() {
        let programs = [Programs {
            cairn: "cairn".into(),
            cairnd: "cairnd".into(),
            flaw: Some("skip-dir-sync"),
        }];
        let mut engines = std::collections::BTreeSet::new();
        for seed in 1..20 {
            let lives = lives(&programs, &mut Dice(seed));
            let [sure, drawn] = &lives[..] else {
                panic!("{} lives", lives.len());
            };
            assert!(is_sure(sure.kind, sure.engine));
            assert!(!is_sure(drawn.kind, drawn.engine));
            engines.insert(drawn.engine);
        }
        assert_eq!(engines.len(), ENGINES.len());
    }
}
