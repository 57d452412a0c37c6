//! A state that failed, as one file: what is known of the store, and the disk.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    Verdict,
    disks::Kind,
    facts::{Change, Facts, Known},
    image::Image,
    judge::{Expected, Judge, Looked},
    typed::Typed,
};
use crate::image::digest;

/// A state.
pub(super) struct Saved {
    pub(super) kind: Kind,
    pub(super) engine: String,
    /// Its number among those of the run, which says what is looked at.
    pub(super) number: usize,
    pub(super) expected: Expected,
    pub(super) image: Image,
    /// Where it comes from and what was wrong, for people.
    pub(super) story: String,
}

impl Saved {
    /// Looks at it.
    pub(super) fn judge(&self, judge: &Judge<'_>) -> Verdict<Looked> {
        let Saved {
            kind,
            engine,
            number,
            expected,
            image,
            ..
        } = self;
        judge.judge(*kind, engine, image, expected, *number)
    }

    /// Writes it into a directory; where.
    pub(super) fn keep(&self, dir: &Path) -> io::Result<PathBuf> {
        let Expected { known, then, .. } = &self.expected;
        let typed = |(typed, change): &(Typed, Change)| {
            json!([
                [typed.words, typed.input, typed.fails],
                [change.gained, change.lost]
            ])
        };
        let again: Vec<Value> = self.expected.again.iter().map(typed).collect();
        let head = json!({
            "filesystem": self.kind.name(),
            "engine": self.engine,
            "number": self.number,
            "story": self.story,
            "certain": known.certain,
            "possible": known.possible,
            "either": known.either,
            "again": again,
            "then certain": then.certain,
            "then possible": then.possible,
            "trees": self.expected.trees,
            "own": self.expected.own,
            "images": self.expected.images,
        });
        let image = self.image.packed()?;
        // States of one number are told apart by what is on the disk.
        let what = &digest(&image)[7..15];
        let name = format!("{}-{}-{what}", self.kind.name(), self.engine);
        let name = name.replace([' ', '='], "-");
        fs::create_dir_all(dir)?;
        let path = dir.join(format!("{name}.state"));
        let bytes = [format!("{head}\n").as_bytes(), &image].concat();
        fs::write(&path, bytes)?;
        Ok(path)
    }

    /// Reads it again.
    pub(super) fn read(path: &Path) -> io::Result<Saved> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let bytes = fs::read(path)?;
        let line = bytes.iter().position(|byte| *byte == b'\n');
        let (head, image) = bytes.split_at(line.ok_or_else(|| wrong("no head"))?);
        let head: Value = serde_json::from_slice(head)?;
        let text = |key: &str| head[key].as_str().unwrap_or_default().to_owned();
        let number = head["number"]
            .as_u64()
            .and_then(|n| usize::try_from(n).ok());
        let facts = |key: &str| serde_json::from_value::<Facts>(head[key].clone());
        let trees =
            |key: &str| serde_json::from_value::<BTreeMap<String, Vec<String>>>(head[key].clone());
        type Words = (Vec<String>, Option<String>, bool);
        let again: Vec<(Words, (Facts, Facts))> = serde_json::from_value(head["again"].clone())?;
        Ok(Saved {
            kind: Kind::of(&text("filesystem")).ok_or_else(|| wrong("no such file system"))?,
            engine: text("engine"),
            number: number.ok_or_else(|| wrong("no number"))?,
            expected: Expected {
                known: Known {
                    certain: facts("certain")?,
                    possible: facts("possible")?,
                    either: serde_json::from_value(head["either"].clone())?,
                },
                trees: trees("trees")?,
                own: trees("own")?,
                images: trees("images")?,
                again: again
                    .into_iter()
                    .map(|((words, input, fails), (gained, lost))| {
                        let typed = Typed {
                            words,
                            input,
                            fails,
                        };
                        (typed, Change { gained, lost })
                    })
                    .collect(),
                then: Known {
                    certain: facts("then certain")?,
                    possible: facts("then possible")?,
                    either: Vec::new(),
                },
            },
            image: Image::unpacked(&image[1..])?,
            story: text("story"),
        })
    }
}
