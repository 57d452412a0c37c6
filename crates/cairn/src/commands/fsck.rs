//! `fsck`: what is damaged, what that means, and what was done about it.

use std::{collections::HashSet, time::Duration};

use super::{Context, Result, Stop};
use crate::{
    args::FsckArgs,
    client::Client,
    error::Problem,
    model::{Finding, Fsck},
    out::{Style, paint},
    size, view,
};

/// Steps that lead on, said once each; more are in the table.
const STEPS: usize = 3;

/// `fsck`
pub fn fsck(context: &Context, args: FsckArgs) -> Result {
    let client = Client::open(&context.global)?;
    let show = context.progress("fsck", None)?;
    let only = context.global.namespace_typed;
    let only = only.then_some(&context.global.namespace);
    let done = client.fsck(args.deep, args.repair, only, &show)?;
    drop(show);
    if let Some(only) = only {
        let note = format!("only what is of namespace {only} was checked");
        context.out.note(note);
    }
    let left = done.findings.iter().any(Finding::is_left);
    if context.global.wants_json() {
        context.out.json(&done);
    } else if context.out.quiet {
        context.names(names_left(&done));
    } else {
        told(context, &done);
    }
    match left {
        true => Err(Stop::Failed),
        false => Ok(()),
    }
}

/// What is not as it should be, each once in however many places.
fn names_left(done: &Fsck) -> Vec<&str> {
    let left = done.findings.iter().filter(|finding| finding.is_left());
    let mut names: Vec<&str> = left.map(|finding| &*finding.name).collect();
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(*name));
    names
}

fn told(context: &Context, done: &Fsck) {
    let all = context.out.verbose > 0;
    let shown = |finding: &&Finding| all || finding.severity != "note";
    let shown: Vec<&Finding> = done.findings.iter().filter(shown).collect();
    if !shown.is_empty() {
        let table = view::findings(&shown, context.short_digests());
        let no_trunc = context.global.no_trunc;
        context
            .out
            .text(&table.render(context.out.stdout, no_trunc));
    }
    context.out.line(verdict(done));
    let mut steps = steps(done);
    if !done.deep && !done.findings.iter().any(Finding::is_left) {
        context.out.note("no blob and no unpacked file was read");
        steps.push("cairn fsck --deep".to_owned());
    }
    if !context.out.quiet {
        advise(context, steps);
    }
}

/// Says what leads on, as after an error, with the flags that lead to the same store.
fn advise(context: &Context, steps: Vec<String>) {
    let none = Problem::usage("");
    let problem = steps.into_iter().fold(none, |all, step| all.next(step));
    say_next(context, &problem.pointed_at(&context.global).next);
}

/// Says steps as they are.
pub(super) fn say_next(context: &Context, steps: &[String]) {
    for step in steps {
        let next = paint(context.out.stderr.color, Style::Cyan, "next");
        context.out.error_text(&format!("  {next}:      {step}\n"));
    }
}

/// What was looked at, and what came of it.
fn verdict(done: &Fsck) -> String {
    let checked = &done.checked;
    let took = size::duration(Duration::from_millis(done.wall_ms));
    format!(
        "checked {}, {}, {}, {} in {took}: {}",
        count(checked.blobs, "blob"),
        count(checked.snapshots, "snapshot"),
        count(checked.images, "image"),
        count(checked.bundles, "bundle"),
        outcome(&done.findings)
    )
}

fn outcome(findings: &[Finding]) -> String {
    let of = |severity, repaired| {
        let some = findings.iter();
        some.filter(|one| one.severity == severity && one.repaired == repaired)
            .count()
    };
    let mended = of("damage", true) + of("loss", true);
    let mut parts = Vec::new();
    for (number, word) in [
        (of("damage", false), "damaged"),
        (of("loss", false), "lost"),
        (mended, "mended"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {word}"));
        }
    }
    if parts.is_empty() {
        parts.push("no damage".to_owned());
    }
    let litter = of("litter", false);
    if litter > 0 {
        parts.push(format!("{litter} litter"));
    }
    parts.join(", ")
}

fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// What leads on: mending where that may help and was not tried, else what each finding says.
fn steps(done: &Fsck) -> Vec<String> {
    let deep = if done.deep { " --deep" } else { "" };
    let repair = [format!("cairn fsck{deep} --repair")];
    let mut steps: Vec<String> = Vec::new();
    for finding in done.findings.iter().filter(|finding| finding.is_left()) {
        let helps = finding.severity == "damage" || finding.kind == "snapshot-missing";
        let next = match helps && !done.repair {
            true => repair.as_slice(),
            false => finding.next.as_slice(),
        };
        for step in next {
            if steps.len() < STEPS && !steps.contains(step) {
                steps.push(step.clone());
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Checked;

    #[test]
    fn what_is_wrong_in_two_places_is_named_once() {
        let finding = |name: &str, path: &str, severity, repaired| Finding {
            severity,
            kind: "tree-content".to_owned(),
            object: "snapshot".to_owned(),
            name: name.to_owned(),
            namespace: None,
            path: Some(path.to_owned()),
            detail: String::new(),
            meaning: String::new(),
            next: Vec::new(),
            repaired,
            action: None,
        };
        let done = Fsck {
            deep: true,
            repair: false,
            checked: Checked::default(),
            findings: vec![
                finding("b", "/bin/sh", "damage", false),
                finding("a", "/bin/sh", "damage", false),
                finding("mended", "/bin/sh", "damage", true),
                finding("b", "/etc/motd", "loss", false),
                finding("note", "/bin/sh", "note", false),
            ],
            wall_ms: 0,
        };
        assert_eq!(names_left(&done), ["b", "a"]);
    }
}
