//! Soaks a daemon: many clients that do everything at once, killed at random. `integration/soak` runs it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use cairn_integration::soak::{self, Kind, Options, Who};

const USAGE: &str =
    "usage: cairn-soak [gc] [--minutes N | --seconds N] [--clients N] [--seed N] [--daemon FILE]";

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "its output")]
fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.peek().is_some_and(|word| word == "client") {
        words.next();
        return match who(words) {
            Ok(who) if soak::client(&who) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(reason) => wrong(&reason),
        };
    }
    let collecting = words.next_if(|word| word == "gc").is_some();
    let options = match options(words) {
        Ok(options) if collecting => Options {
            kind: Kind::Collecting,
            ..options
        },
        Ok(options) => options,
        Err(reason) => return wrong(&reason),
    };
    println!("seed {}", options.seed);
    match soak::run(&options) {
        Ok(report) => {
            print!("{report}");
            match report.faults.is_empty() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(err) => {
            eprintln!("error: cannot soak: {err}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "its output")]
fn wrong(reason: &str) -> ExitCode {
    eprintln!("error: {reason}\n{USAGE}");
    ExitCode::from(2)
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("{name} wants a number, not {text:?}"))
}

fn options(words: impl Iterator<Item = String>) -> Result<Options, String> {
    let own = std::env::current_exe().map_err(|err| format!("cannot find this program: {err}"))?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut options = Options {
        kind: Kind::Everything,
        daemon: own.with_file_name("cairnd"),
        client: own,
        time: Duration::from_secs(600),
        clients: 32,
        seed: now.map_or(1, |now| now.as_secs()),
    };
    for (name, value) in pairs(words)? {
        match &*name {
            "--minutes" => options.time = Duration::from_secs(60 * number(&name, &value)?),
            "--seconds" => options.time = Duration::from_secs(number(&name, &value)?),
            "--clients" => {
                let clients = usize::try_from(number(&name, &value)?);
                options.clients = clients.map_err(|_| "too many clients".to_owned())?;
            }
            "--seed" => options.seed = number(&name, &value)?,
            "--daemon" => options.daemon = PathBuf::from(value),
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(options)
}

fn who(words: impl Iterator<Item = String>) -> Result<Who, String> {
    let mut who = Who {
        socket: String::new(),
        ns: String::new(),
        name: String::new(),
        seed: 1,
        dir: PathBuf::new(),
        registry: String::new(),
    };
    for (name, value) in pairs(words)? {
        match &*name {
            "--socket" => who.socket = value,
            "--ns" => who.ns = value,
            "--name" => who.name = value,
            "--seed" => who.seed = number(&name, &value)?,
            "--dir" => who.dir = PathBuf::from(value),
            "--registry" => who.registry = value,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(who)
}

fn pairs(mut words: impl Iterator<Item = String>) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    while let Some(name) = words.next() {
        let value = words.next();
        let value = value.ok_or_else(|| format!("{name} wants a value"))?;
        pairs.push((name, value));
    }
    Ok(pairs)
}
