//! Waiting for what other programs do: looked for again and again, for as long as that may take on a
//! machine with much else to do.

use std::{
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(10);
/// Far more than anything takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until there is something; `None` when there was nothing for as long as `patience`.
pub fn within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        // First of all, or what comes in the last moment would not be seen.
        let over = began.elapsed() >= patience;
        match look() {
            None if over => return None,
            None => thread::sleep(EVERY),
            found => return found,
        }
    }
}

/// Waits until something is so; `told` says what it is about when it never is.
///
/// # Panics
/// After a minute.
#[track_caller]
pub fn until(mut so: impl FnMut() -> bool, told: impl FnOnce() -> String) {
    if within(PATIENCE, || so().then_some(())).is_none() {
        panic!("{}", told());
    }
}

/// Waits for the end of a program.
///
/// # Panics
/// As [`until`].
#[track_caller]
pub fn ended(program: &mut Child, told: impl FnOnce() -> String) -> ExitStatus {
    let ended = within(PATIENCE, || program.try_wait().expect("wait"));
    ended.unwrap_or_else(|| panic!("{}", told()))
}
