//! The command line of Cairn.
//!
//! `args` says which words there are, `commands` has one function per verb, `client` is the only
//! door to the store, `view`, `table`, `size`, `progress` and `error` turn what comes back into
//! text, and `out` is the only way out. `ask` is the one question, for a password. It keeps nothing itself.

pub mod again;
pub mod args;
pub mod ask;
pub mod client;
pub mod commands;
pub mod error;
pub mod filter;
pub mod model;
pub mod notes;
pub mod out;
pub mod progress;
pub mod save;
pub mod signal;
pub mod size;
pub mod table;
pub mod view;

use std::{io::Write, process::ExitCode};

/// Reads the command line, runs it, reports, and answers with the exit code: 0 done, 1 failed,
/// 2 wrong usage.
pub fn main() -> ExitCode {
    let cli = match args::Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(err) => return wrong_usage(&err),
    };
    signal::watch();
    let out = out::Out::new(cli.global.color, cli.global.quiet, cli.global.verbosity());
    notes::listen(out);
    // 0 is ctr's word for no limit.
    if let Some(after) = cli.global.timeout.filter(|after| !after.is_zero()) {
        signal::deadline(after, out, cli.global.wants_json());
    }
    let code = match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err((commands::Stop::Failed, ..)) => ExitCode::FAILURE,
        Err((commands::Stop::Problem(problem), out, json)) => {
            problem.report(&out, json);
            ExitCode::from(problem.exit_code())
        }
    };
    signal::answered();
    client::settle(&out);
    code
}

/// Help and version go to standard output with 0, complaints to standard error with 2: to a program as
/// the document that it expects.
fn wrong_usage(err: &clap::Error) -> ExitCode {
    if err.use_stderr() && args::json_typed(std::env::args_os()) {
        let text = error::Problem::of_usage(&err.render().to_string()).json();
        // As below.
        let _ = writeln!(std::io::stderr(), "{text}");
    } else {
        // A closed stream leaves nobody to tell.
        let _ = err.print();
    }
    u8::try_from(err.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}
