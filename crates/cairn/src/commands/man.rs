//! Manual pages, made from what the program accepts; what its words do not tell is written here.

use std::{fs, path::Path};

use cairn_types::ErrorKind;
use clap::CommandFactory;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{Context, Result};
use crate::{
    args::{Cli, ManArgs},
    error::{Problem, io_reason, quote},
    size,
};

/// The heading of flags that every command has; only cairn(1) lists them.
const GLOBAL: &str = "Global options";

/// What cairn(1) has besides its commands, as name and paragraphs of a section.
const SECTIONS: &[(&str, &str)] = &[
    (
        "NAMES",
        "An image is named as docker names it: busybox:1.36 is docker.io/library/busybox:1.36. It can \
         also be named by the first 7 hex digits of its digest, or more; so can blobs and snapshots. \
         To remove a blob or a snapshot takes 12 digits.\n\
         Each namespace sees its own images, blobs, snapshots and leases; -n chooses one.",
    ),
    (
        "DAEMON",
        "Without --address or --root, cairn talks to cairnd(8) at /run/cairn/cairn.sock when it \
         answers there, and otherwise opens /var/lib/cairn itself. With --root it opens that \
         directory, which one process at a time can do.",
    ),
    (
        "REGISTRIES",
        "images pull and images push ask the hosts that explain-host names, mirrors first. Which they are, \
         and which certificates are trusted, is written in hosts.toml files: cairn-hosts.toml(5).\n\
         Passwords are those that docker login and podman login have noted, and of the helpers that their \
         files name; -u goes before. A password stays with the program that was typed: a daemon asks for \
         it when a host does. What -u gives is shown to the registry and not to its mirrors.",
    ),
    (
        "OUTPUT",
        "What was asked for goes to standard output, everything else to standard error. With --json \
         it is one document, whose keys stay; events and --progress=json are one object for each \
         line. With -q it is names, one on a line, for the next command. Digests are shortened at a \
         terminal only.",
    ),
    (
        "EXIT STATUS",
        "0: done.\n\
         1: failed, for one of several arguments or for all; each failure is reported, and ends in \
         what to do next. From images check and fsck: something is not whole.\n\
         2: wrong usage; nothing was attempted.",
    ),
    (
        "ENVIRONMENT",
        "CAIRN_ADDRESS, CAIRN_ROOT, CONTAINERD_NAMESPACE, CONTAINERD_SNAPSHOTTER: as --address, \
         --root, --namespace and --snapshotter.\n\
         CAIRN_METADATA__ENGINE: redb or sled, for a store that cairn opens itself.\n\
         SOURCE_DATE_EPOCH: the latest time of a file in what snapshots diff writes, in seconds since \
         1970.\n\
         DOCKER_CONFIG, REGISTRY_AUTH_FILE, XDG_RUNTIME_DIR: where passwords of registries are looked for.\n\
         HTTPS_PROXY, HTTP_PROXY, NO_PROXY: how registries are reached by cairn itself; by a daemon, as its \
         own environment has it.\n\
         NO_COLOR, CLICOLOR_FORCE, COLUMNS: as in other programs.",
    ),
    (
        "FILES",
        "/var/lib/cairn: the store.\n\
         /run/cairn/cairn.sock: where the daemon listens.\n\
         /run/cairn/mounts: where images are mounted that were given no place.",
    ),
];

/// `man`
pub fn man(context: &Context, args: &ManArgs) -> Result {
    let mut top = Cli::command();
    top.build();
    if let Some(dir) = &args.dir {
        return write_all(context, &top, dir);
    }
    let mut command = &top;
    // `cairn man cairn` and `man images-ls` are what people type who know other manuals.
    let words = args.command.iter().skip_while(|word| *word == "cairn");
    for word in words {
        let found = command.find_subcommand(word);
        command = found.filter(|c| is_page(c)).ok_or_else(|| {
            let path = command.get_bin_name().unwrap_or("cairn");
            Problem::usage(format!("{path} has no command {}", quote(word)))
                .next(format!("{path} -h"))
        })?;
    }
    context.out.text(&page(command));
    if context.out.stdout.columns.is_some() {
        context
            .out
            .note("this is a manual page's source; to read it: cairn man … | man -l -");
    }
    Ok(())
}

/// Each page's file, by the name that `man` looks for.
fn write_all(context: &Context, top: &clap::Command, dir: &Path) -> Result {
    let failed = |path: &Path, err: &std::io::Error| {
        let name = path.display().to_string();
        Problem::new(ErrorKind::Internal, "write", &name, io_reason(err))
    };
    fs::create_dir_all(dir).map_err(|err| failed(dir, &err))?;
    let mut files = Vec::new();
    let mut bytes = 0;
    for command in pages(top) {
        let path = dir.join(format!("{}.1", name(command)));
        let text = page(command);
        fs::write(&path, &text).map_err(|err| failed(&path, &err))?;
        bytes += text.len() as u64;
        files.push(path.display().to_string());
    }
    if context.global.wants_json() {
        context.out.json(&serde_json::json!({ "files": files }));
    } else if context.out.quiet {
        context.names(files.iter().map(|file| &**file));
    } else {
        let (count, dir) = (files.len(), quote(&dir.display().to_string()));
        context.out.line(format!(
            "wrote {count} pages to {dir}  {}",
            size::bytes(bytes)
        ));
    }
    Ok(())
}

/// The command itself and all below it that help lists.
fn pages(command: &clap::Command) -> Vec<&clap::Command> {
    let below = command.get_subcommands().filter(|c| is_page(c));
    std::iter::once(command)
        .chain(below.flat_map(pages))
        .collect()
}

/// Words of other tools have no page.
fn is_page(command: &clap::Command) -> bool {
    !command.is_hide_set()
}

fn name(command: &clap::Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

/// One page as roff.
fn page(command: &clap::Command) -> String {
    let is_top = name(command) == "cairn";
    let shown = match is_top {
        true => command.clone(),
        false => command
            .clone()
            .mut_args(|arg| match arg.get_help_heading() {
                Some(GLOBAL) => arg.hide(true),
                _ => arg,
            }),
    };
    let man = Man::new(shown)
        .section("1")
        // Without anything in the place of the date the rest would move up.
        .date(format!("cairn {}", env!("CARGO_PKG_VERSION")))
        .source("Cairn")
        .manual("Cairn Manual");
    let mut out = Vec::new();
    let written = (|| {
        man.render_title(&mut out)?;
        man.render_name_section(&mut out)?;
        man.render_synopsis_section(&mut out)?;
        man.render_description_section(&mut out)?;
        examples(command).to_writer(&mut out)?;
        man.render_options_section(&mut out)?;
        if command.get_subcommands().any(is_page) {
            man.render_subcommands_section(&mut out)?;
        }
        more(command, is_top).to_writer(&mut out)
    })();
    written.expect("memory can be written to");
    String::from_utf8(out).expect("made of text")
}

/// What `-h` opens with.
fn examples(command: &clap::Command) -> Roff {
    let mut roff = Roff::new();
    let Some(text) = command.get_before_help() else {
        return roff;
    };
    roff.control("SH", ["EXAMPLES"]);
    roff.control("nf", []);
    for line in text
        .to_string()
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty())
    {
        roff.text([roman(line.trim_start())]);
    }
    roff.control("fi", []);
    roff
}

fn more(command: &clap::Command, is_top: bool) -> Roff {
    let mut roff = Roff::new();
    if is_top {
        for (name, text) in SECTIONS {
            roff.control("SH", [*name]);
            for paragraph in text.lines() {
                roff.control("PP", []);
                roff.text([roman(paragraph)]);
            }
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    let own = name(command);
    let group = own.rsplit_once('-').map_or("cairn", |(group, _)| group);
    let others: &[&str] = match is_top {
        true => &[
            "cairnd(8)",
            "cairn-config.toml(5)",
            "cairn-hosts.toml(5)",
            "runc(8)",
        ],
        false => &["cairn(1), for the options that every command has"],
    };
    let mut words = Vec::new();
    if !is_top && group != "cairn" {
        words.extend([bold(group), roman("(1), ")]);
    }
    words.push(roman(others.join(", ")));
    roff.text(words);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_help_lists_has_a_page() {
        let mut top = Cli::command();
        top.build();
        let names: Vec<&str> = pages(&top).into_iter().map(name).collect();
        for wanted in [
            "cairn",
            "cairn-images",
            "cairn-images-ls",
            "cairn-leases-add",
            "cairn-man",
        ] {
            assert!(names.contains(&wanted), "{wanted}: {names:?}");
        }
        assert!(
            !names
                .iter()
                .any(|n| n.contains("rmi") || n.contains("help")),
            "{names:?}"
        );
        for command in pages(&top) {
            let text = page(command);
            for section in [
                ".TH",
                ".SH NAME",
                ".SH SYNOPSIS",
                ".SH EXAMPLES",
                ".SH \"SEE ALSO\"",
            ] {
                assert!(text.contains(section), "{section} in {}", name(command));
            }
            let globals = text.contains("Never shorten anything");
            assert_eq!(globals, name(command) == "cairn", "{}", name(command));
        }
    }
}
