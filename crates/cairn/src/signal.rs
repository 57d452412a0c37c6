//! Ctrl-C: a word about resuming, then death by the signal itself, so that shells and scripts see
//! what happened. And `--timeout`, which ends the program in the same way, but by itself.
//!
//! The signal is blocked everywhere and waited for by one thread. So nothing runs in a handler, and
//! its default action is still in place when the time comes. Nothing is cleaned up here: the store
//! recovers from any death, and bytes already received are kept for the next try.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use cairn_types::ErrorKind;
use nix::{
    sys::signal::{SigSet, Signal, kill},
    unistd::getpid,
};

use crate::{ask, error::Problem, out::Out, size};

/// Something that another run continues is in progress.
static RESUMABLE: AtomicBool = AtomicBool::new(false);

/// The command has been answered; no deadline can take that back.
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// Ends the program after this long, unless it is [`answered`] by then.
pub fn deadline(after: Duration, out: Out, json: bool) {
    let waiter = thread::Builder::new().name("deadline".to_owned());
    let spawned = waiter.spawn(move || {
        thread::sleep(after);
        if ANSWERED.swap(true, Ordering::SeqCst) {
            return;
        }
        let text = format!("gave up after {}, as --timeout says", size::duration(after));
        let mut problem = Problem::new(ErrorKind::Canceled, "", "", text);
        if RESUMABLE.load(Ordering::Relaxed) {
            problem = problem.next("run the same command to resume");
        }
        ask::restore();
        problem.report(&out, json);
        std::process::exit(1);
    });
    if let Err(err) = spawned {
        out.note(format!("--timeout has no effect: {err}"));
    }
}

/// Says that all that was asked for is done, or reported as failed.
pub fn answered() {
    if ANSWERED.swap(true, Ordering::SeqCst) {
        // The deadline came first and has said so; it ends the program.
        loop {
            thread::park();
        }
    }
}

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
    if ask::restore() {
        // The question has no end of its own.
        let _ = std::io::stderr().lock().write_all(b"\n");
    }
    let text = match RESUMABLE.load(Ordering::Relaxed) {
        true => "interrupted: the work is not complete; run the same command to resume\n",
        false => "interrupted\n",
    };
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    let _ = set.thread_unblock();
    let _ = kill(getpid(), Signal::SIGINT);
}
