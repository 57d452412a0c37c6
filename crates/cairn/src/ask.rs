//! The one question that is ever asked: a password, on the terminal, without an echo.
//!
//! The terminal reads a line of its own accord, so that it can be mended as any other. Ctrl-C ends the
//! program as it always does; the terminal gets its echo back first, by [`restore`].

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    sync::{Mutex, PoisonError},
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Longer than any password, shorter than what a pipe could fill the memory with.
pub const BYTES_MAX: u64 = 64 << 10;

/// A terminal whose echo is off, and how it was before.
static SILENT: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Asks on the terminal that this program was started from, wherever its streams lead.
///
/// # Errors
/// There is no terminal, or it is gone.
pub fn password(prompt: &str) -> io::Result<String> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    *SILENT.lock().unwrap_or_else(PoisonError::into_inner) = Some((terminal.try_clone()?, before));
    let asked = (|| {
        // What was typed ahead was not typed as a password.
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        terminal.write_all(prompt.as_bytes())?;
        line(&mut terminal)
    })();
    restore();
    asked
}

/// Gives the terminal its echo back. Whether it was taken.
pub fn restore() -> bool {
    let silent = SILENT.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((terminal, before)) = silent else {
        return false;
    };
    // A terminal that is gone needs no echo.
    let _ = tcsetattr(&terminal, OptionalActions::Drain, &before);
    true
}

/// One line without its end; of what has no end, all of it.
///
/// # Errors
/// Those of reading; more than [`BYTES_MAX`] bytes, or bytes that are no text.
pub fn line(from: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut one = [0];
    // Byte by byte: what comes after the line is somebody else's.
    while from.read(&mut one)? == 1 && one[0] != b'\n' {
        bytes.push(one[0]);
        if bytes.len() as u64 > BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is too long to be a password",
            ));
        }
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    // The bytes are not in this error.
    let text = String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_line() {
        for (input, password) in [
            ("hidden\n", "hidden"),
            ("hidden\r\n", "hidden"),
            ("hidden", "hidden"),
            (" with blanks \nrest", " with blanks "),
            ("\n", ""),
            ("", ""),
        ] {
            assert_eq!(line(&mut input.as_bytes()).expect(input), password);
        }
        let long = vec![b'x'; 100_000];
        assert!(line(&mut long.as_slice()).is_err());
        assert!(line(&mut [0xff, b'\n'].as_slice()).is_err());
    }
}
