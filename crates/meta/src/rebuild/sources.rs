//! What there is to make records of, and in which order it is believed.

use std::ffi::OsStr;

use cairn_sys::Dir;
use cairn_types::{Classified, ErrorKind};

use super::{FIRST, Filler, PART};
use crate::{
    EngineKind, Error,
    copy::{Frames, Names, copy_name, log_name},
    engine::{self, Batch, Engine, Pairs, taken_over},
    journal::{Salvaged, salvage},
    record, schema,
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
        let known = self
            .engine
            .as_deref()
            .and_then(|engine| taken_over(engine).ok().flatten());
        let copy = self.names.copies.last().copied();
        // One that is behind its own log has lost what it had.
        let behind = known.is_some() && copy.is_some() && known.unwrap_or(0) < self.logged_to();
        let engine = self.engine.take().filter(|_| !behind);
        let place = match (engine, copy) {
            (Some(engine), _) => {
                all_of(engine.as_ref(), out)?;
                known
            }
            (None, Some(copy)) => {
                self.copy(copy, out)?;
                Some(copy)
            }
            (None, None) => self.remains(out, aside)?,
        };
        let place = match place {
            Some(place) => Some(self.logs(place, out)?),
            None => None,
        };
        let Salvaged {
            changes,
            lost,
            newest,
        } = salvage(self.dir, place);
        for (_, changes) in changes {
            out.add(changes)?;
        }
        self.lost.extend(lost);
        // Its last frame stays in a segment until others are written over it.
        if let Some(place) = place.filter(|place| *place > newest) {
            let text = format!("what was changed after change {place}, if anything was");
            self.lost.push(text);
        }
        Ok(self.lost)
    }

    /// The number of the last change in the logs.
    fn logged_to(&self) -> u64 {
        let mut last = 0;
        for log in &self.names.logs {
            let Ok(mut frames) = Frames::of(self.dir, &log_name(*log)) else {
                continue;
            };
            while let Ok(Some(frame)) = frames.next() {
                last = last.max(frame.head.number);
            }
        }
        last
    }

    fn copy(&mut self, number: u64, out: &mut Filler) -> Result<(), Error> {
        let (mut next, mut missing, mut ended) = (0, 0_u64, false);
        if let Ok(mut frames) = Frames::of(self.dir, &copy_name(number)) {
            while let Ok(Some(frame)) = frames.next() {
                missing += frame.head.durable.saturating_sub(next);
                next = frame.head.durable.saturating_add(1);
                ended = frame.changes.is_empty();
                out.add(frame.changes)?;
            }
            missing = missing.max(u64::from(frames.skipped));
        }
        let end = match ended {
            true => "",
            false => " and its end",
        };
        match (missing, ended) {
            (0, true) => {}
            (0, false) => self.lost.push("the end of the records' copy".to_owned()),
            (1, _) => self.lost.push(format!("a part of the records' copy{end}")),
            (parts, _) => self
                .lost
                .push(format!("{parts} parts of the records' copy{end}")),
        }
        Ok(())
    }

    /// Goes on from the change `place`; the last one that there is then.
    fn logs(&mut self, mut place: u64, out: &mut Filler) -> Result<u64, Error> {
        for log in self.names.logs.clone() {
            let Ok(mut frames) = Frames::of(self.dir, &log_name(log)) else {
                self.lost.push(format!("what is in {}", log_name(log)));
                continue;
            };
            while let Ok(Some(frame)) = frames.next() {
                if frame.head.number <= place {
                    continue;
                }
                if frame.head.durable > place {
                    let (first, last) = (place + 1, frame.head.durable);
                    self.lost
                        .push(format!("changes {first} to {last} of the log"));
                }
                place = frame.head.number;
                out.add(frame.changes)?;
            }
        }
        Ok(place)
    }

    /// What can be read of a damaged engine of which there is no copy; and the last change it has, if it says.
    fn remains(&mut self, out: &mut Filler, aside: &Dir) -> Result<Option<u64>, Error> {
        let name = OsStr::new(REMAINS);
        aside.create_dir(name, 0o700)?;
        let opened = aside
            .open_dir(name)
            .map_err(Error::from)
            .and_then(|copy| engine::open_remains(self.kind, self.dir, &copy));
        let place = match opened {
            Ok(Some(engine)) => {
                self.readable(&*engine, out)?;
                taken_over(&*engine).ok().flatten()
            }
            // That there is no room, say, is no reason to give up what can be read.
            Err(err) if err.kind() != ErrorKind::DataLoss => return Err(err),
            _ => {
                self.lost
                    .push("all records but the last changes: there is no copy".to_owned());
                None
            }
        };
        aside.remove_tree(name)?;
        Ok(place)
    }

    fn readable(&mut self, engine: &dyn Engine, out: &mut Filler) -> Result<(), Error> {
        for tag in schema::tags() {
            let mut after = vec![tag];
            loop {
                let read = || engine.snapshot()?.scan_after(&[tag], &after, PART);
                match read() {
                    Ok(pairs) => {
                        let Some((last, _)) = pairs.last() else {
                            break;
                        };
                        let last = last.clone();
                        let sound = pairs.into_iter();
                        let sound =
                            sound.filter(|(key, value)| record::payload(key, value).is_ok());
                        out.add(to_be(sound.collect()))?;
                        after = last;
                    }
                    Err(_) => {
                        let table = schema::table_name(tag);
                        self.lost
                            .push(format!("{table} records that cannot be read"));
                        break;
                    }
                }
            }
        }
        if self.lost.is_empty() {
            self.lost
                .push("what cannot be read, if anything: there is no copy".to_owned());
        }
        Ok(())
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

fn to_be(pairs: Pairs) -> Batch {
    let pairs = pairs.into_iter();
    pairs.map(|(key, value)| (key, Some(value))).collect()
}
