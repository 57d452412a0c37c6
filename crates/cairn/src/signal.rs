//! Ctrl-C: a word about resuming, then death by the signal itself, so that shells and scripts see
//! what happened.
//!
//! The signal is blocked everywhere and waited for by one thread. So nothing runs in a handler, and
//! its default action is still in place when the time comes. Nothing is cleaned up here: the store
//! recovers from any death, and bytes already received are kept for the next try.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::{
    sys::signal::{SigSet, Signal, kill},
    unistd::getpid,
};

/// Something that another run continues is in progress.
static RESUMABLE: AtomicBool = AtomicBool::new(false);

/// Says that a run of the same command would continue what is now being done.
pub fn resumable(yes: bool) {
    RESUMABLE.store(yes, Ordering::Relaxed);
}

/// Starts waiting. Called once, before any other thread: they inherit the block.
pub fn watch() {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    if set.thread_block().is_err() {
        return; // Then Ctrl-C simply kills, as it always did.
    }
    let waiter = thread::Builder::new().name("signals".to_owned());
    let spawned = waiter.spawn(move || {
        if set.wait().is_ok() {
            interrupted(set);
        }
    });
    if spawned.is_err() {
        let _ = set.thread_unblock();
    }
}

fn interrupted(set: SigSet) {
    let text = match RESUMABLE.load(Ordering::Relaxed) {
        true => "interrupted: the work is not complete; run the same command to resume\n",
        false => "interrupted\n",
    };
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    let _ = set.thread_unblock();
    let _ = kill(getpid(), Signal::SIGINT);
}
