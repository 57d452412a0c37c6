//! Names of what a daemon keeps, for the completion of a shell.

use std::{path::PathBuf, sync::mpsc, thread, time::Duration};

use cairn_types::Namespace;
use clap::{Arg, ArgAction, Command, CommandFactory};
use clap_complete::Shell;

use super::{Context, Result};
use crate::{
    args::{Cli, Global, Place, SOCKET},
    client::{Client, Result as Answer},
    error::quote,
};

/// What asks for names, beside what is known without a store.
const BASH: &str = include_str!("complete/names.bash");
const ZSH: &str = include_str!("complete/names.zsh");
const FISH: &str = include_str!("complete/names.fish");

/// The end of zsh's script, which runs what stands before it.
const ZSH_END: &str = "\nif [ \"$funcstack[1]\" = \"_cairn\" ]";

/// Whoever waits for a completion goes on typing after this long.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a word names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Images,
    Blobs,
    Ingests,
    Snapshots,
    Leases,
    Namespaces,
    Bundles,
}

/// What the words before the cursor ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    kind: Option<Kind>,
    namespace: Option<String>,
    address: Option<String>,
    root: bool,
}

/// `complete`: what may stand in the place of the last of `words`, one on a line. Without a daemon that
/// answers at once there is nothing to say, and nobody to say it to.
pub fn complete(context: &Context, words: &[String]) -> Result {
    let Some((word, before)) = words.split_last() else {
        return Ok(());
    };
    let asked = asked(before, word);
    let (Some(kind), Some(global)) = (asked.kind, global(context, &asked)) else {
        return Ok(());
    };
    let patience = global.connect_timeout.unwrap_or(PATIENCE);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let names = Client::open(&global).and_then(|client| names(&client, kind));
        // Nobody listens when it came too late.
        let _ = sender.send(names.unwrap_or_default());
    });
    let names = receiver.recv_timeout(patience).unwrap_or_default();
    let fits = names.iter().filter_map(|name| fitting(kind, name, word));
    // A shell puts them into the line as they are.
    context.names(fits.filter(|name| quote(name) == *name));
    Ok(())
}

/// `completion`
pub fn script(context: &Context, shell: Shell) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cairn", &mut script);
    let script = String::from_utf8(script).expect("made of text");
    context.out.text(&with_names(script, shell));
    Ok(())
}

fn with_names(script: String, shell: Shell) -> String {
    match shell {
        Shell::Bash => script + BASH,
        Shell::Fish => script + FISH,
        // What is nothing known without a store is a name, or else a file.
        Shell::Zsh => {
            let asking = script.replace(":_default'", ":_cairn_names'");
            asking.replace(ZSH_END, &format!("{ZSH}{ZSH_END}"))
        }
        _ => script,
    }
}

/// The flags that lead to the daemon; `None` when a store is meant that no daemon serves.
fn global(context: &Context, asked: &Asked) -> Option<Global> {
    let mut global = context.global.clone();
    if let Some(namespace) = &asked.namespace {
        global.namespace = Namespace::parse(namespace).ok()?;
    }
    if let Some(address) = &asked.address {
        global.address = Some(PathBuf::from(address));
    }
    global.connect_timeout.get_or_insert(PATIENCE);
    global.address = match global.place() {
        _ if asked.root && asked.address.is_none() => return None,
        Place::Daemon(socket) => Some(socket),
        Place::Store(_) => return None,
        Place::Usual => Some(PathBuf::from(SOCKET)),
    };
    Some(global)
}

fn names(client: &Client, kind: Kind) -> Answer<Vec<String>> {
    Ok(match kind {
        Kind::Images => client.images()?.into_iter().map(|i| i.name).collect(),
        Kind::Blobs => client.blobs()?.into_iter().map(|b| b.digest).collect(),
        Kind::Ingests => client.ingests()?.into_iter().map(|i| i.reference).collect(),
        Kind::Snapshots => client.snapshots()?.into_iter().map(|s| s.key).collect(),
        Kind::Leases => client.leases()?.into_iter().map(|l| l.id).collect(),
        Kind::Namespaces => client.namespaces()?,
        Kind::Bundles => client.bundles()?.into_iter().map(|b| b.dir).collect(),
    })
}

/// The name as it continues what was typed: whole, or as short as people write it.
fn fitting<'n>(kind: Kind, name: &'n str, word: &str) -> Option<&'n str> {
    if name.starts_with(word) {
        return Some(name);
    }
    let short = match kind {
        Kind::Images => name.strip_prefix("docker.io/"),
        Kind::Blobs | Kind::Snapshots => name.strip_prefix("sha256:"),
        _ => None,
    }?;
    let shortest = short.strip_prefix("library/");
    let mut both = [Some(short), shortest].into_iter().flatten();
    both.find(|short| short.starts_with(word))
}

/// Reads the words as the program would, as far as names go.
fn asked(before: &[String], word: &str) -> Asked {
    let mut command = Cli::command();
    command.build();
    let mut command = &command;
    let mut asked = Asked::default();
    let mut group = String::new();
    let mut place = 0;
    let mut words = before.iter();
    while let Some(typed) = words.next() {
        if typed == "--" {
            return asked;
        }
        if let Some((flag, value)) = flag(command, typed) {
            let value = match value {
                None if takes_value(flag) => match words.next() {
                    Some(value) => value.clone(),
                    None => {
                        asked.kind = kind(&group, command, flag);
                        return asked;
                    }
                },
                value => value.unwrap_or_default(),
            };
            match flag.get_id().as_str() {
                "namespace" => asked.namespace = Some(value),
                "address" => asked.address = Some(value),
                "root" => asked.root = true,
                _ => {}
            }
        } else if let (0, Some(below)) = (place, command.find_subcommand(typed)) {
            if group.is_empty() {
                group = below.get_name().to_owned();
            }
            command = below;
        } else {
            place += 1;
        }
    }
    if !word.starts_with('-') {
        let all: Vec<&Arg> = command
            .get_positionals()
            .filter(|arg| !arg.is_last_set())
            .collect();
        // The last one may be there many times.
        let repeated = all
            .last()
            .filter(|arg| matches!(arg.get_action(), ArgAction::Append));
        let at = all.get(place).or(repeated);
        asked.kind = at.and_then(|arg| kind(&group, command, arg));
        if is_output(asked.kind, at, place) && !before.iter().any(|w| w == "-o" || w == "--output")
        {
            asked.kind = None;
        }
    }
    asked
}

/// Of `images export OUT REF…` the first word is a file.
fn is_output(kind: Option<Kind>, at: Option<&&Arg>, place: usize) -> bool {
    let words = at.is_some_and(|arg| arg.get_id() == "words");
    kind.is_some() && words && place == 0
}

/// The flag that a word is, and the value that stands in the same word.
fn flag<'c>(command: &'c Command, typed: &str) -> Option<(&'c Arg, Option<String>)> {
    let mut arguments = command.get_arguments();
    if let Some(long) = typed.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        return Some((arguments.find(|arg| arg.get_long() == Some(name))?, value));
    }
    let mut letters = typed.strip_prefix('-')?.chars();
    let letter = letters.next()?;
    let found = arguments.find(|arg| arg.get_short() == Some(letter))?;
    let rest = letters.as_str();
    Some((found, Some(rest.to_owned()).filter(|rest| !rest.is_empty())))
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// What stands in the place of an argument, by what help calls it there.
fn kind(group: &str, command: &Command, arg: &Arg) -> Option<Kind> {
    let name = arg.get_value_names()?.first()?.as_str();
    let verb = command.get_name();
    let image = matches!(name, "REF" | "LOCAL" | "IMAGE" | "SRC" | "OUT|- REF");
    Some(match (group, name) {
        (_, "NS") => Kind::Namespaces,
        ("content", "REF") if verb == "abort" => Kind::Ingests,
        ("content", "ID") => Kind::Leases,
        ("content", "DIGEST") if arg.is_positional() => Kind::Blobs,
        ("content", "NAME") if verb == "label" => Kind::Blobs,
        // These make what they name.
        ("snapshots", "KEY") if matches!(verb, "prepare" | "view") => return None,
        ("snapshots", "KEY" | "PARENT" | "ACTIVE-KEY" | "A" | "B") => Kind::Snapshots,
        ("snapshots", "NAME") if verb == "label" => Kind::Snapshots,
        ("leases", "ID") if arg.is_positional() => Kind::Leases,
        ("namespaces", "NAME") if verb != "create" => Kind::Namespaces,
        ("bundle", "DIR") if verb == "rm" => Kind::Bundles,
        ("why", "OBJECT") => Kind::Images,
        ("content" | "snapshots", _) => return None,
        _ if image => Kind::Images,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Asked {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (word, before) = words.split_last().expect("a word");
        asked(before, word)
    }

    #[test]
    fn what_the_words_ask_for() {
        for (line, kind) in [
            ("images rm ", Some(Kind::Images)),
            ("images rm --force a b", Some(Kind::Images)),
            ("rmi ", Some(Kind::Images)),
            ("why ", Some(Kind::Images)),
            ("i i bus", Some(Kind::Images)),
            ("images tag ", Some(Kind::Images)),
            ("images tag a ", None),
            ("images export ", None),
            ("images export f ", Some(Kind::Images)),
            ("save -o f ", Some(Kind::Images)),
            ("images import ", None),
            ("images pull ", Some(Kind::Images)),
            ("push ", None),
            ("push a ", Some(Kind::Images)),
            ("images mount a ", None),
            ("images rm --", None),
            ("bundle create ", Some(Kind::Images)),
            ("bundle create a d -- ", None),
            ("bundle unpack --image ", Some(Kind::Images)),
            ("bundle rm ", Some(Kind::Bundles)),
            ("content get ", Some(Kind::Blobs)),
            ("content label ", Some(Kind::Blobs)),
            ("content put --lease ", Some(Kind::Leases)),
            ("content abort ", Some(Kind::Ingests)),
            ("snapshots prepare ", None),
            ("snapshots prepare k ", Some(Kind::Snapshots)),
            ("snapshot diff a ", Some(Kind::Snapshots)),
            ("snapshots mounts ", None),
            ("snapshots mounts /mnt ", Some(Kind::Snapshots)),
            ("leases rm ", Some(Kind::Leases)),
            ("leases create --id ", None),
            ("ns rm ", Some(Kind::Namespaces)),
            ("namespaces create ", None),
            ("images ls -n ", Some(Kind::Namespaces)),
            ("df ", None),
            ("", None),
        ] {
            assert_eq!(of(line).kind, kind, "{line}");
        }
        let asked = of("-n k8s.io images rm -a/run/x.sock --root=/r ");
        assert_eq!(asked.kind, Some(Kind::Images));
        assert_eq!(asked.namespace.as_deref(), Some("k8s.io"));
        assert_eq!(asked.address.as_deref(), Some("/run/x.sock"));
        assert!(asked.root);
    }

    #[test]
    fn names_go_on_as_they_were_begun() {
        let name = "docker.io/library/busybox:1.36";
        let image = |word| fitting(Kind::Images, name, word);
        assert_eq!(image(""), Some(name));
        assert_eq!(image("docker.io/l"), Some(name));
        assert_eq!(image("library/b"), Some("library/busybox:1.36"));
        assert_eq!(image("busybox:"), Some("busybox:1.36"));
        assert_eq!(image("box"), None);
        let digest = "sha256:791d2af5d3b2";
        assert_eq!(fitting(Kind::Blobs, digest, "791"), Some("791d2af5d3b2"));
    }

    #[test]
    fn scripts_ask_for_names() {
        for (shell, lines) in [(Shell::Bash, BASH), (Shell::Zsh, ZSH), (Shell::Fish, FISH)] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cairn", &mut script);
            let script = with_names(String::from_utf8(script).expect("text"), shell);
            assert!(script.contains(lines), "{shell}");
            assert!(!script.contains(":_default'"), "{shell}");
        }
    }
}
