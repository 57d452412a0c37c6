//! The daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    cairnd::run::main()
}
