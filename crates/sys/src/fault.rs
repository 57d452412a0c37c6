//! Numbered fault points: in a build with the feature `fault`, the n-th system call on the store can
//! fail or kill the process.
//!
//! `CAIRN_FAULT=kill@N` dies before the N-th call, `kill-after@N` after it, `ENOSPC@N` (or `EIO`,
//! `EDQUOT`, `EMFILE`, `EINTR`) makes it fail. Calls are counted over the whole process, because
//! strace's own counter is per thread and cannot enumerate a threaded program. Without the feature
//! every gate is empty.

use crate::Result;

/// Passed before the system call `op` on `object`; the closure only runs when it must be named.
#[cfg(not(feature = "fault"))]
#[inline(always)]
pub fn gate(_op: &'static str, _object: impl FnOnce() -> String) -> Result<()> {
    Ok(())
}

/// How many calls were counted.
#[cfg(not(feature = "fault"))]
pub fn count() -> u64 {
    0
}

#[cfg(feature = "fault")]
pub use active::{count, gate};

#[cfg(feature = "fault")]
mod active {
    use std::{
        io::Write,
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    use rustix::{io::Errno, process::Signal};

    use crate::{Error, Result};

    static COUNT: AtomicU64 = AtomicU64::new(0);

    enum What {
        Kill,
        Fail(Errno),
    }

    struct Plan {
        what: What,
        at: u64,
    }

    fn plan() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        PLAN.get_or_init(|| parse(&std::env::var("CAIRN_FAULT").ok()?))
            .as_ref()
    }

    fn parse(text: &str) -> Option<Plan> {
        let (word, number) = text.split_once('@')?;
        let at: u64 = number.parse().ok()?;
        let (what, at) = match word {
            "kill" => (What::Kill, at),
            // After the n-th call is before the next one: nothing happens between two calls.
            "kill-after" => (What::Kill, at + 1),
            "ENOSPC" => (What::Fail(Errno::NOSPC), at),
            "EIO" => (What::Fail(Errno::IO), at),
            "EDQUOT" => (What::Fail(Errno::DQUOT), at),
            "EMFILE" => (What::Fail(Errno::MFILE), at),
            "EINTR" => (What::Fail(Errno::INTR), at),
            _ => return None,
        };
        Some(Plan { what, at })
    }

    /// How many calls were counted.
    pub fn count() -> u64 {
        COUNT.load(Ordering::Relaxed)
    }

    /// Passed before the system call `op` on `object`.
    pub fn gate(op: &'static str, object: impl FnOnce() -> String) -> Result<()> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(plan) = plan() else { return Ok(()) };
        if number != plan.at {
            return Ok(());
        }
        let object = object();
        // The run that is looked at later needs to know where it was stopped.
        let _ = writeln!(
            std::io::stderr(),
            "cairn-fault: {op} {object} is call {number}"
        );
        match plan.what {
            What::Kill => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
                Err(Error::new(op, object, Errno::INTR))
            }
            What::Fail(errno) => Err(Error::new(op, object, errno)),
        }
    }
}
