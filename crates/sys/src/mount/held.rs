//! Copies of this process that do nothing but hold something: a namespace, a mount.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::libc;
use rustix::{
    io::{self, Errno},
    pipe::PipeFlags,
    process::{Pid, WaitOptions},
};

/// After so long the kernel has begun to write whatever was dirty before (`dirty_expire_centisecs`, 30
/// seconds unless somebody chose otherwise, and a round of `dirty_writeback_centisecs`).
const LATER_MILLIS: libc::c_int = 35_000;

/// Starts a process, in new namespaces by `flags` (`CLONE_NEW…`), that waits for the end of the pipe. It
/// has to be waited for.
///
/// It keeps no other descriptor: with copies of each other's ends two that are started at the same time
/// would wait for one another for ever.
pub(super) fn child(flags: libc::c_int, waits: BorrowedFd<'_>) -> io::Result<Pid> {
    let waits = waits.as_raw_fd();
    match copy(flags)? {
        Some(child) => Ok(child),
        None => wait(waits, None, 0),
    }
}

/// Starts a process that keeps `kept` open until the end of the pipe, and is nobody's child here: what its
/// end waits for, nobody waits for. If it is to be `later`, it keeps it for [`LATER_MILLIS`] more.
pub(super) fn orphan(waits: BorrowedFd<'_>, kept: BorrowedFd<'_>, later: bool) -> io::Result<()> {
    let (waits, kept) = (waits.as_raw_fd(), kept.as_raw_fd());
    let millis = if later { LATER_MILLIS } else { 0 };
    let (closed, open) = pipe()?;
    let Some(child) = copy(0)? else {
        // The child of a child that has ended goes to the machine's first process.
        match copy(0) {
            Ok(None) => wait(waits, Some(kept), millis),
            other => end(i32::from(other.is_err())),
        }
    };
    drop(open);
    let ended = rustix::process::waitpid(Some(child), WaitOptions::empty())?;
    // The orphan has this process's locks, too, until it has closed what it does not keep.
    rustix::io::read(&closed, &mut [0_u8; 1])?;
    match ended.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        _ => Err(Errno::AGAIN),
    }
}

/// A copy of this process with this thread alone; `None` in the copy, where other threads may have held
/// locks, so that nothing but system calls can be used.
fn copy(flags: libc::c_int) -> io::Result<Option<Pid>> {
    let flags = u64::from(flags.unsigned_abs());
    let signal = u64::from(libc::SIGCHLD.unsigned_abs());
    // The first version of the structure: flags, three places for what is asked by them, the signal,
    // and the stack, which stays where it is in a copy of this process.
    let mut arguments: [u64; 8] = [flags, 0, 0, 0, signal, 0, 0, 0];
    // SAFETY: `arguments` is a whole `clone_args` of the size that is passed, of which the kernel only
    // reads, and outlives the call. No memory is shared with the child, which goes on below on a copy
    // of this thread's stack.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            arguments.as_mut_ptr(),
            size_of_val(&arguments),
        )
    };
    if answer == 0 {
        return Ok(None);
    }
    let number = nix::errno::Errno::result(answer)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    let number = i32::try_from(number).map_err(|_| Errno::OVERFLOW)?;
    Ok(Some(Pid::from_raw(number).ok_or(Errno::CHILD)?))
}

/// In a copy: closes all but what is given, waits for the end of the pipe, then so long, and ends.
fn wait(waits: RawFd, kept: Option<RawFd>, millis: libc::c_int) -> ! {
    let mut byte = 0_u8;
    // SAFETY: all descriptors are this process's own copies, `byte` is one byte of its stack. A poll of nothing
    // reads no memory.
    unsafe {
        libc::dup2(waits, 0);
        let first = kept.map_or(1, |kept| {
            libc::dup2(kept, 1);
            2
        });
        // Where it cannot close them it must not live: it would wait for itself.
        if libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) != 0 {
            libc::_exit(1);
        }
        // Nor is it to be in anybody's way who unmounts where this process was started.
        libc::chdir(c"/".as_ptr());
        libc::setsid();
        libc::read(0, (&raw mut byte).cast(), 1);
        // A signal ends it sooner, as whoever sends one wants.
        libc::poll(std::ptr::null_mut(), 0, millis);
    }
    end(0)
}

fn end(status: libc::c_int) -> ! {
    // SAFETY: it does not return, and runs nothing of this program's.
    unsafe { libc::_exit(status) }
}

/// A pipe whose first end is waited at, for as long as the second one is open.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{ErrorKind, Read},
        os::fd::AsFd,
    };

    use super::*;

    #[test]
    fn an_orphan_keeps_what_it_is_given_and_nothing_else() {
        let (waits, end) = pipe().expect("pipe");
        let (kept_reader, kept) = pipe().expect("pipe");
        let (other_reader, other) = pipe().expect("pipe");
        orphan(waits.as_fd(), kept.as_fd(), false).expect("orphan");
        drop((kept, other));
        let mut byte = [0];
        let mut read = |reader: OwnedFd| File::from(reader).read(&mut byte);
        assert_eq!(read(other_reader).expect("the end"), 0);
        // It has the other one until it is told, and then no more.
        rustix::io::ioctl_fionbio(&kept_reader, true).expect("not waiting");
        let again = kept_reader.try_clone().expect("the same");
        assert_eq!(read(again).expect_err("open").kind(), ErrorKind::WouldBlock);
        drop((waits, end));
        rustix::io::ioctl_fionbio(&kept_reader, false).expect("waiting");
        assert_eq!(read(kept_reader).expect("the end"), 0);
    }

    #[test]
    fn an_orphan_that_is_to_end_later_does() {
        let (waits, end) = pipe().expect("pipe");
        let (kept_reader, kept) = pipe().expect("pipe");
        orphan(waits.as_fd(), kept.as_fd(), true).expect("orphan");
        drop((kept, waits, end));
        rustix::io::ioctl_fionbio(&kept_reader, true).expect("not waiting");
        std::thread::sleep(std::time::Duration::from_millis(100));
        let again = File::from(kept_reader).read(&mut [0]);
        assert_eq!(again.expect_err("open").kind(), ErrorKind::WouldBlock);
    }
}
