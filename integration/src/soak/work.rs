//! The pieces of work. Each knows what every call has to come to; whatever it leaves is held by its
//! lease alone.

mod content;
mod images;
mod others;
mod snapshots;

use std::pin::Pin;

use super::{api::Verdict, client::Desk};

type Doing<'d> = Pin<Box<dyn Future<Output = Verdict> + 'd>>;
/// A piece of work.
pub(super) type Work = for<'d> fn(&'d mut Desk) -> Doing<'d>;

macro_rules! works {
    ($($share:literal $kind:literal $work:path;)*) => {
        /// How often each is chosen, and its name.
        const WORKS: &[(usize, &str, Work)] = &[
            $(($share, $kind, |desk| Box::pin($work(desk)))),*
        ];
        /// All chances together.
        pub(super) const SHARES: usize = 0 $(+ $share)*;
    };
}
works! {
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
}

/// The work that a number below [`SHARES`] stands for.
pub(super) fn choose(mut number: usize) -> (&'static str, Work) {
    for &(share, kind, work) in WORKS {
        match number.checked_sub(share) {
            Some(rest) => number = rest,
            None => return (kind, work),
        }
    }
    unreachable!("the number is below all shares together")
}
