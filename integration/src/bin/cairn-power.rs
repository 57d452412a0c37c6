//! Power cuts: looks at a store in the states that a disk could have been left in. `integration/crash power`
//! runs it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use cairn_integration::power::{self, Options, Programs};

const USAGE: &str =
    "usage: cairn-power [--full | --states N] [--seed S] [--keep DIR] [--replay FILE]";
/// The word that says that this is the one in a mount namespace of its own.
const INSIDE: &str = "inside";
const STATES: usize = 6000;
const STATES_FULL: usize = 60_000;

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "its output")]
fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if(|word| word == INSIDE).is_none() {
        return enter(words);
    }
    let (options, replayed) = match options(words) {
        Ok(options) => options,
        Err(reason) => {
            eprintln!("error: {reason}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let done = match replayed {
        Some(file) => power::replay(&options.programs, &file).map(|looks| {
            println!("{}", looks.join("\n\n"));
            looks[1..].iter().all(|look| look == "nothing is wrong")
        }),
        None => power::run(&options).map(|report| {
            print!("{report}");
            report.failures.is_empty()
        }),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("error: cannot look at states after power cuts: {reason}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "its output")]
fn enter(words: impl Iterator<Item = String>) -> ExitCode {
    let inside =
        std::env::current_exe().and_then(|own| power::enter(&own).arg(INSIDE).args(words).status());
    match inside {
        Ok(status) => ExitCode::from(
            status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1),
        ),
        Err(err) => {
            eprintln!("error: cannot start unshare: {err}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<(Options, Option<PathBuf>), String> {
    let own = std::env::current_exe().map_err(|err| format!("cannot find this program: {err}"))?;
    let mut options = Options {
        programs: programs(&own, ["cairn", "cairnd"]),
        flawed: programs(&own, ["cairn-fault", "cairnd-fault"]),
        states: STATES,
        seed: 20_261_130,
        keep: std::env::temp_dir().join("cairn-power"),
    };
    let mut replayed = None;
    while let Some(name) = words.next() {
        if name == "--full" {
            options.states = STATES_FULL;
            continue;
        }
        let value = words
            .next()
            .ok_or_else(|| format!("{name} wants a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{name} wants a number, not {value:?}"))
        };
        match &*name {
            "--states" => {
                options.states = usize::try_from(number()?).map_err(|err| err.to_string())?
            }
            "--seed" => options.seed = number()?,
            "--keep" => options.keep = PathBuf::from(value),
            "--replay" => replayed = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok((options, replayed))
}

/// Those beside this one.
fn programs(own: &Path, names: [&str; 2]) -> Programs {
    let [cairn, cairnd] = names.map(|name| own.with_file_name(name));
    let flaw = None;
    Programs {
        cairn,
        cairnd,
        flaw,
    }
}
