//! The pieces of work. Each knows what every call has to come to; whatever it leaves is held by its
//! lease alone.

mod content;
mod images;
mod others;
mod shared;
mod snapshots;

use std::pin::Pin;

use super::{api::Verdict, client::Desk};
use crate::fault::Dice;

type Doing<'d> = Pin<Box<dyn Future<Output = Verdict> + 'd>>;
/// A piece of work.
pub(super) type Work = for<'d> fn(&'d mut Desk) -> Doing<'d>;

/// How often each is chosen, and its name.
type Works = &'static [(usize, &'static str, Work)];

macro_rules! works {
    ($($share:literal $kind:literal $work:path;)*) => {
        &[$(($share, $kind, |desk| Box::pin($work(desk)))),*]
    };
}

const EVERYTHING: Works = works! {
    6 "write a blob" content::write;
    3 "resume a write" content::resume;
    2 "abort a write" content::abort;
    2 "commit what was not expected" content::mismatch;
    3 "write what others write" content::common;
    5 "stack snapshots" snapshots::stack;
    4 "make, run and remove an image" images::live;
    3 "take a difference" snapshots::difference;
    2 "make and remove a namespace" others::namespace;
    2 "hear an event" others::event;
    2 "keep a lease" others::lease;
    2 "look at everything" others::look;
    3 "want what others want" others::rivals;
};

/// What holds and lets go.
const SHARED: Works = works! {
    6 "pull and run" shared::run;
    5 "pull and build" shared::build;
    3 "pull and change the name" shared::rename;
    2 "make, run and remove an image" images::live;
    2 "write what others write" content::common;
    2 "take a difference" snapshots::difference;
    1 "keep a lease" others::lease;
};

/// What is done next: of everything, or where there is a registry of what holds and lets go.
pub(super) fn choose(dice: &mut Dice, registry: &str) -> (&'static str, Work) {
    let works = if registry.is_empty() {
        EVERYTHING
    } else {
        SHARED
    };
    let mut number = dice.roll(works.iter().map(|(share, ..)| share).sum());
    for &(share, kind, work) in works {
        match number.checked_sub(share) {
            Some(rest) => number = rest,
            None => return (kind, work),
        }
    }
    unreachable!("the number is below all shares together")
}
