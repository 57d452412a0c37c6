//! What there is to make records of, and in which order it is believed.

use std::{ffi::OsStr, mem::ManuallyDrop};

use cairn_sys::Dir;
use cairn_types::{Classified, ErrorKind};

use super::{FIRST, Filler, PART, remains, to_be};
use crate::{
    EngineKind, Error,
    copy::{Frames, Names, copy_name, log_name},
    engine::{self, Batch, Engine, taken_over},
    journal::{Salvaged, frame::Head, salvage},
};

/// Where what can still be read of a damaged engine is read.
const REMAINS: &str = "remains";

/// A directory with damaged records.
pub(super) struct Sources<'d> {
    dir: &'d Dir,
    kind: EngineKind,
    names: Names,
    /// What is not damaged: then the journal is.
    engine: Option<Box<dyn Engine>>,
    lost: Vec<String>,
}

impl<'d> Sources<'d> {
    pub(super) fn of(dir: &'d Dir, kind: EngineKind, intact: bool) -> Sources<'d> {
        let engine = match intact {
            true => engine::open(kind, dir).ok(),
            false => None,
        };
        Sources {
            dir,
            kind,
            names: Names::of(dir).unwrap_or_default(),
            engine,
            lost: Vec::new(),
        }
    }

    /// Gives all there is to `out`; what is lost, in words.
    pub(super) fn pour(mut self, out: &mut Filler, aside: &Dir) -> Result<Vec<String>, Error> {
        let chain = self.chain();
        let Begun { place, has } = match (self.engine.take(), chain) {
            (Some(engine), chain) => self.readable(engine.as_ref(), chain, out)?,
            (None, Some(chain)) if self.lacks_nothing(&chain) => {
                self.copy(chain.copy, out)?;
                Begun::with(Some(chain.copy))
            }
            (None, chain) => self.layers(chain, out, aside)?,
        };
        let place = self.logs(place, u64::MAX, out)?;
        let Salvaged {
            changes,
            lost,
            newest,
        } = salvage(self.dir, place);
        for (_, changes) in changes.into_iter().filter(|(number, _)| *number > has) {
            out.add(changes)?;
        }
        for text in lost {
            self.lose(text);
        }
        // Its last frame stays in a segment until others are written over it.
        if let Some(place) = place.filter(|place| *place > newest) {
            self.lose(format!(
                "what was changed after change {place}, if anything was"
            ));
        }
        // It is not known what that was of.
        if has > 0 && !self.lost.is_empty() {
            self.lose("but for what can still be read of the engine".to_owned());
        }
        Ok(self.lost)
    }

    /// Says that this is lost, once.
    fn lose(&mut self, text: String) {
        if !self.lost.contains(&text) {
            self.lost.push(text);
        }
    }

    /// The newest copy, and how far the logs lead on from it.
    fn chain(&self) -> Option<Chain> {
        let copy = self.names.copies.last().copied()?;
        let mut chain = Chain {
            copy,
            whole: Parts::of(self.dir, copy, |_| Ok(())).is_ok_and(|parts| parts.are_all()),
            reach: copy,
            last: copy,
        };
        for head in self.loads() {
            if head.durable <= chain.reach {
                chain.reach = chain.reach.max(head.number);
            }
            chain.last = chain.last.max(head.number);
        }
        Some(chain)
    }

    /// What the frames of the logs say of themselves.
    fn loads(&self) -> Vec<Head> {
        let mut heads = Vec::new();
        for log in &self.names.logs {
            let Ok(mut frames) = Frames::of(self.dir, &log_name(*log)) else {
                continue;
            };
            while let Ok(Some(frame)) = frames.next() {
                heads.push(frame.head);
            }
        }
        heads
    }

    /// Whether a copy, the logs and the journal have all that there was. They do not when a log was given up,
    /// on a full disk say, and no new copy could be made since: then the engine alone has what came between.
    fn lacks_nothing(&self, chain: &Chain) -> bool {
        let Salvaged { lost, newest, .. } = salvage(self.dir, Some(chain.reach));
        chain.whole && chain.reach == chain.last && lost.is_empty() && newest >= chain.reach
    }

    /// Begins with an engine that can be read, or with a copy that has more.
    fn readable(
        &mut self,
        engine: &dyn Engine,
        chain: Option<Chain>,
        out: &mut Filler,
    ) -> Result<Begun, Error> {
        // One that was never given anything has all of it before it, in the journal.
        let known = taken_over(engine).ok().flatten().unwrap_or(0);
        let (place, from_engine, from_copy) = match chain {
            // An engine is given nothing that is not in a log: one with less has lost what it had, or was about
            // to have it. Where the logs break off before that, it is the only one that has what came then.
            Some(chain) if chain.whole && known < chain.reach => (chain.copy, false, true),
            // The older is below what there is of the newer.
            Some(chain) if known < chain.copy => (chain.copy, true, true),
            _ => (known, true, false),
        };
        if from_engine {
            all_of(engine, out)?;
        }
        if from_copy {
            self.copy(place, out)?;
        }
        Ok(Begun::with(Some(place)))
    }

    /// Begins with what there is where no part of it has everything: the older below, the newer over it.
    fn layers(
        &mut self,
        chain: Option<Chain>,
        out: &mut Filler,
        aside: &Dir,
    ) -> Result<Begun, Error> {
        let copy = chain.map(|chain| chain.copy);
        let Some(engine) = self.open_remains(aside)? else {
            match copy {
                Some(copy) => self.copy(copy, out)?,
                None => self.lose("all records but the last changes: there is no copy".to_owned()),
            }
            return Ok(Begun::with(copy));
        };
        let engine: &dyn Engine = engine.as_ref();
        // Where it does not say how far it has come: nothing in the journal is written over that it does not have.
        let begins = || {
            let changes = salvage(self.dir, None).changes;
            changes.first().map(|(number, _)| number.saturating_sub(1))
        };
        let known = taken_over(engine).ok().flatten();
        let known = known.or_else(begins).or(copy);
        if known < copy {
            remains::pour(engine, out)?;
        }
        if let Some(copy) = copy {
            self.copy(copy, out)?;
        }
        if known < copy {
            return Ok(Begun::with(copy));
        }
        // What of it cannot be read may stand in these.
        let has = known.unwrap_or(0);
        let place = self.logs(copy, has, out)?;
        let changes = salvage(self.dir, place).changes;
        for (_, changes) in changes.into_iter().filter(|(number, _)| *number <= has) {
            out.add(changes)?;
        }
        let unread = remains::pour(engine, out)?;
        if copy.is_some() {
            return Ok(Begun { place, has });
        }
        for text in unread {
            self.lose(text);
        }
        if self.lost.is_empty() {
            self.lose("what cannot be read, if anything: there is no copy".to_owned());
        }
        Ok(Begun::with(place.max(known)))
    }

    fn copy(&mut self, number: u64, out: &mut Filler) -> Result<(), Error> {
        let parts = Parts::of(self.dir, number, |changes| out.add(changes))?;
        let end = match parts.ended {
            true => "",
            false => " and its end",
        };
        match (parts.missing, parts.ended) {
            (0, true) => {}
            (0, false) => self.lose("the end of the records' copy".to_owned()),
            (1, _) => self.lose(format!("a part of the records' copy{end}")),
            (many, _) => self.lose(format!("{many} parts of the records' copy{end}")),
        }
        Ok(())
    }

    /// Goes on from the change `place` with what the logs have up to `until`; the last one that is in then.
    fn logs(
        &mut self,
        mut place: Option<u64>,
        until: u64,
        out: &mut Filler,
    ) -> Result<Option<u64>, Error> {
        for log in self.names.logs.clone() {
            let Ok(mut frames) = Frames::of(self.dir, &log_name(log)) else {
                self.lose(format!("what is in {}", log_name(log)));
                continue;
            };
            while let Ok(Some(frame)) = frames.next() {
                let Head {
                    number, durable, ..
                } = frame.head;
                if number > until || place.is_some_and(|place| number <= place) {
                    continue;
                }
                match place.map(|place| place + 1) {
                    Some(first) if first == durable => {
                        self.lose(format!("change {first} of the log"));
                    }
                    Some(first) if first < durable => {
                        self.lose(format!("changes {first} to {durable} of the log"));
                    }
                    _ => {}
                }
                place = Some(number);
                out.add(frame.changes)?;
            }
        }
        Ok(place)
    }

    /// Opens what is left of a damaged engine, if it can be read past its damage.
    fn open_remains(&self, aside: &Dir) -> Result<Option<ManuallyDrop<Box<dyn Engine>>>, Error> {
        let name = OsStr::new(REMAINS);
        aside.create_dir(name, 0o700)?;
        let opened = aside
            .open_dir(name)
            .map_err(Error::from)
            .and_then(|copy| engine::open_remains(self.kind, self.dir, &copy));
        // What is open stays as long as it is.
        aside.remove_tree(name)?;
        match opened {
            Err(err) if err.kind() == ErrorKind::DataLoss => Ok(None),
            // That there is no room, say, is no reason to give up what can be read.
            opened => opened,
        }
    }
}

/// What was begun with.
struct Begun {
    /// The last change of which it is known that it and all before it are in.
    place: Option<u64>,
    /// Something of all changes up to this one is in as well.
    has: u64,
}

impl Begun {
    fn with(place: Option<u64>) -> Begun {
        Begun { place, has: 0 }
    }
}

/// A copy, and how far the logs lead on from it.
struct Chain {
    /// The change that it is of, or of a later one.
    copy: u64,
    /// It has all of its parts.
    whole: bool,
    /// The last change up to which the logs lack nothing.
    reach: u64,
    /// The last change that they have.
    last: u64,
}

/// What there is of a copy.
struct Parts {
    missing: u64,
    ended: bool,
}

impl Parts {
    /// Gives each part to `take`. A copy that cannot be read has none.
    fn of(
        dir: &Dir,
        number: u64,
        mut take: impl FnMut(Batch) -> Result<(), Error>,
    ) -> Result<Parts, Error> {
        let (mut next, mut missing, mut ended) = (0, 0_u64, false);
        if let Ok(mut frames) = Frames::of(dir, &copy_name(number)) {
            while let Ok(Some(frame)) = frames.next() {
                missing += frame.head.durable.saturating_sub(next);
                next = frame.head.durable.saturating_add(1);
                ended = frame.changes.is_empty();
                take(frame.changes)?;
            }
            missing = missing.max(u64::from(frames.skipped));
        }
        Ok(Parts { missing, ended })
    }

    fn are_all(&self) -> bool {
        self.missing == 0 && self.ended
    }
}

fn all_of(engine: &dyn Engine, out: &mut Filler) -> Result<(), Error> {
    let mut after = FIRST.to_vec();
    loop {
        let pairs = engine.snapshot()?.scan_after(&[], &after, PART)?;
        let Some((last, _)) = pairs.last() else {
            return Ok(());
        };
        after.clone_from(last);
        out.add(to_be(pairs))?;
    }
}

#[cfg(test)]
mod tests;
