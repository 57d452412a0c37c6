//! Numbered fault points: in a build with the feature `fault`, the n-th system call on the store can
//! fail, fall short or kill the process.
//!
//! `CAIRN_FAULT=KIND@N` acts on the N-th call, counted from 1; `KIND@N+` on that and every later one,
//! as a disk that stays full does. Kinds: `kill` (before the call), `kill-after` (when it was made but
//! nothing has been told about it), `short` (half of a write) and `ENOSPC`, `EIO`, `EDQUOT`, `EMFILE`,
//! `EINTR`, `EROFS` (the call is not made); `none` only tells the calls. Calls are counted over the
//! whole process, because strace's own counter is per thread and cannot enumerate a threaded program.
//! What was done, where and at which number is written to stderr, so that a run in which nothing
//! fired is known to be the last.
//!
//! `CAIRN_FAULT=skip-dir-sync` and the other words of [`Flaw`] make the whole program one that is wrong on
//! purpose: whoever looks for lost data, or for what is removed under its users, has to find it.
//!
//! Without the feature nothing of this is in the program.

use crate::Result;

#[cfg(feature = "fault")]
pub use active::{call, count, has, later, overdue, write};
#[cfg(not(feature = "fault"))]
pub use inert::{call, count, has, later, overdue, write};

/// What a program does wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// `skip-dir-sync`: names are not synced.
    NoDirSync,
    /// `skip-tree-sync`: trees of which there is no other copy are not synced.
    NoTreeSync,
    /// `record-first`: files are synced after the record that speaks of them.
    RecordFirst,
    /// `stale-marks`: garbage is removed by what was known of it before the transaction that removes it.
    StaleMarks,
    /// `unseen-pins`: garbage is removed whatever calls under way rely on.
    UnseenPins,
}

/// Passed before a call that is made elsewhere: by the standard library, or by a database engine.
pub fn gate(op: &'static str, object: impl Fn() -> String) -> Result<()> {
    call(op, object, || Ok(()))
}

#[cfg(not(feature = "fault"))]
mod inert {
    use rustix::io::{self, Errno};

    use super::Flaw;
    use crate::{Error, Result};

    /// Whether this program is wrong in this way.
    #[inline]
    pub const fn has(_: Flaw) -> bool {
        false
    }

    /// Puts a sync off until [`overdue`].
    pub fn later(_: impl FnOnce() -> Result<()> + Send + 'static) {}

    /// Makes the syncs that were put off.
    #[inline]
    pub const fn overdue() -> Result<()> {
        Ok(())
    }

    /// Makes the system call `op` on `object`, again when a signal interrupts it. The closure `object`
    /// only runs when the call must be named.
    #[inline]
    pub fn call<T>(
        op: &'static str,
        object: impl Fn() -> String,
        mut make: impl FnMut() -> io::Result<T>,
    ) -> Result<T> {
        loop {
            match make() {
                Err(Errno::INTR) => {}
                other => return other.map_err(|errno| Error::new(op, object(), errno)),
            }
        }
    }

    /// The same for a call that may take fewer bytes than it is given; answers how many it took.
    #[inline]
    pub fn write(
        op: &'static str,
        object: impl Fn() -> String,
        bytes: &[u8],
        mut make: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Result<usize> {
        call(op, object, || make(bytes))
    }

    /// How many calls were counted.
    pub fn count() -> u64 {
        0
    }
}

#[cfg(feature = "fault")]
mod active {
    use std::{
        io::Write,
        sync::{
            Mutex, OnceLock, PoisonError,
            atomic::{AtomicU64, Ordering},
        },
    };

    use nix::sys::signal::{Signal, raise};
    use rustix::io::{self, Errno};

    use super::Flaw;
    use crate::{Error, Result};

    const VARIABLE: &str = "CAIRN_FAULT";
    static COUNT: AtomicU64 = AtomicU64::new(0);

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Kind {
        Kill,
        KillAfter,
        Short,
        None,
        Fail(Errno),
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Plan {
        kind: Kind,
        at: u64,
        /// Every later call as well.
        on: bool,
    }

    impl Plan {
        fn parse(text: &str) -> Option<Plan> {
            let (word, number) = text.split_once('@')?;
            let (number, on) = match number.strip_suffix('+') {
                Some(number) => (number, true),
                None => (number, false),
            };
            let kind = match word {
                "kill" => Kind::Kill,
                "kill-after" => Kind::KillAfter,
                "short" => Kind::Short,
                "none" => Kind::None,
                "ENOSPC" => Kind::Fail(Errno::NOSPC),
                "EIO" => Kind::Fail(Errno::IO),
                "EDQUOT" => Kind::Fail(Errno::DQUOT),
                "EMFILE" => Kind::Fail(Errno::MFILE),
                "EROFS" => Kind::Fail(Errno::ROFS),
                // Interrupted calls are made again, so that this for ever would never end.
                "EINTR" if !on => Kind::Fail(Errno::INTR),
                _ => return None,
            };
            let at = number.parse().ok()?;
            Some(Plan { kind, at, on })
        }
    }

    #[derive(Clone, Copy)]
    enum Fault {
        At(Plan),
        Always(Flaw),
    }

    impl Flaw {
        fn parse(text: &str) -> Option<Flaw> {
            match text {
                "skip-dir-sync" => Some(Flaw::NoDirSync),
                "skip-tree-sync" => Some(Flaw::NoTreeSync),
                "record-first" => Some(Flaw::RecordFirst),
                "stale-marks" => Some(Flaw::StaleMarks),
                "unseen-pins" => Some(Flaw::UnseenPins),
                _ => None,
            }
        }
    }

    fn fault() -> Option<Fault> {
        static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
        *FAULT.get_or_init(|| {
            let text = std::env::var(VARIABLE).ok()?;
            let flaw = Flaw::parse(&text).map(Fault::Always);
            let fault = flaw.or_else(|| Plan::parse(&text).map(Fault::At));
            // A misspelt fault that never fires would pass for a program without faults.
            assert!(fault.is_some(), "{VARIABLE}={text} is no KIND@N");
            fault
        })
    }

    fn plan() -> Option<Plan> {
        match fault()? {
            Fault::At(plan) => Some(plan),
            Fault::Always(_) => None,
        }
    }

    /// Whether this program is wrong in this way.
    pub fn has(flaw: Flaw) -> bool {
        matches!(fault(), Some(Fault::Always(own)) if own == flaw)
    }

    type Sync = Box<dyn FnOnce() -> Result<()> + Send>;
    static LATE: Mutex<Vec<Sync>> = Mutex::new(Vec::new());

    /// Puts a sync off until [`overdue`].
    pub fn later(sync: impl FnOnce() -> Result<()> + Send + 'static) {
        let mut late = LATE.lock().unwrap_or_else(PoisonError::into_inner);
        late.push(Box::new(sync));
    }

    /// Makes the syncs that were put off.
    pub fn overdue() -> Result<()> {
        let late = std::mem::take(&mut *LATE.lock().unwrap_or_else(PoisonError::into_inner));
        late.into_iter().try_for_each(|sync| sync())
    }

    /// How many calls were counted.
    pub fn count() -> u64 {
        COUNT.load(Ordering::Relaxed)
    }

    /// Counts a call and says what is to become of it.
    fn next(op: &'static str, object: impl Fn() -> String) -> Option<Kind> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        let plan = plan()?;
        if number != plan.at && !(plan.on && number > plan.at) {
            return None;
        }
        let said = format!(
            "cairn-fault: {:?} {op} {} n={number}\n",
            plan.kind,
            object()
        );
        let _ = std::io::stderr().write_all(said.as_bytes());
        if plan.kind == Kind::Kill {
            die();
        }
        Some(plan.kind)
    }

    fn die() {
        let _ = raise(Signal::SIGKILL);
    }

    /// Makes the system call `op` on `object`, again when a signal interrupts it.
    pub fn call<T>(
        op: &'static str,
        object: impl Fn() -> String,
        mut make: impl FnMut() -> io::Result<T>,
    ) -> Result<T> {
        loop {
            let kind = next(op, &object);
            let answer = match kind {
                Some(Kind::Fail(errno)) => Err(errno),
                _ => make(),
            };
            if kind == Some(Kind::KillAfter) {
                die();
            }
            match answer {
                Err(Errno::INTR) => {}
                other => return other.map_err(|errno| Error::new(op, object(), errno)),
            }
        }
    }

    /// The same for a call that may take fewer bytes than it is given; answers how many it took.
    pub fn write(
        op: &'static str,
        object: impl Fn() -> String,
        bytes: &[u8],
        mut make: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Result<usize> {
        loop {
            let kind = next(op, &object);
            let answer = match kind {
                Some(Kind::Fail(errno)) => Err(errno),
                Some(Kind::Short) => make(&bytes[..bytes.len().div_ceil(2)]),
                _ => make(bytes),
            };
            if kind == Some(Kind::KillAfter) {
                die();
            }
            match answer {
                Err(Errno::INTR) => {}
                other => return other.map_err(|errno| Error::new(op, object(), errno)),
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn flaws_have_words() {
            assert_eq!(Flaw::parse("skip-dir-sync"), Some(Flaw::NoDirSync));
            assert_eq!(Flaw::parse("skip-tree-sync"), Some(Flaw::NoTreeSync));
            assert_eq!(Flaw::parse("record-first"), Some(Flaw::RecordFirst));
            assert_eq!(Flaw::parse("stale-marks"), Some(Flaw::StaleMarks));
            assert_eq!(Flaw::parse("unseen-pins"), Some(Flaw::UnseenPins));
            assert_eq!(Flaw::parse("kill@3"), None);
        }

        #[test]
        fn plans_are_read_whole_or_not_at_all() {
            let plan = |kind, at, on| Some(Plan { kind, at, on });
            assert_eq!(Plan::parse("kill@3"), plan(Kind::Kill, 3, false));
            let full = Kind::Fail(Errno::NOSPC);
            assert_eq!(Plan::parse("ENOSPC@12+"), plan(full, 12, true));
            for wrong in [
                "", "kill", "kill@", "kill@x", "Kill@1", "EINTR@1+", "kill@1-",
            ] {
                assert_eq!(Plan::parse(wrong), None, "{wrong}");
            }
        }
    }
}
