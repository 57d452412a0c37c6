//! `cairn snapshots …`.

use super::{Context, Result, labels, layers, now};
use crate::{
    args::{SnapshotUsage, SnapshotsLs, SnapshotsVerb},
    client::Client,
    filter, model, view,
};

/// As for content; a key that is no digest is always typed whole.
const REMOVE_DIGITS_MIN: usize = 12;

/// Runs one verb.
pub fn run(context: &Context, verb: SnapshotsVerb) -> Result {
    match verb {
        SnapshotsVerb::Ls(args) => ls(context, &args),
        SnapshotsVerb::Tree => tree(context),
        SnapshotsVerb::Info { key } => info(context, &key),
        SnapshotsVerb::Usage(args) => usage(context, &args),
        SnapshotsVerb::Rm { keys, recursive } => rm(context, &keys, recursive),
        SnapshotsVerb::Prepare(args) => layers::new(context, &args, false),
        SnapshotsVerb::View(args) => layers::new(context, &args, true),
        SnapshotsVerb::Commit(args) => layers::commit(context, &args),
        SnapshotsVerb::Mounts(args) => layers::mounts(context, &args),
        SnapshotsVerb::Diff(args) => layers::diff(context, args),
        SnapshotsVerb::Label(args) => labels::snapshot(context, &args),
    }
}

fn ls(context: &Context, args: &SnapshotsLs) -> Result {
    let filters = filter::parse::<model::Snapshot>(&args.filters)?;
    let mut snapshots = Client::open(&context.global)?.snapshots()?;
    snapshots.retain(|snapshot| filter::passes(&filters, snapshot));
    if context.wants_names() {
        context.names(snapshots.iter().map(|snapshot| &*snapshot.key));
    } else {
        context.list(&view::snapshots(&snapshots, args.wide, now()), &snapshots);
    }
    Ok(())
}

fn tree(context: &Context) -> Result {
    let snapshots = Client::open(&context.global)?.snapshots()?;
    if context.global.wants_json() {
        context.out.json(&snapshots);
    } else if context.out.quiet {
        context.names(snapshots.iter().map(|snapshot| &*snapshot.key));
    } else {
        let text = view::snapshot_tree(&snapshots, context.short_digests());
        context.out.text(&text);
    }
    Ok(())
}

fn info(context: &Context, text: &str) -> Result {
    let client = Client::open(&context.global)?;
    let snapshot = client.snapshot(&client.resolve_snapshot(text, "inspect snapshot")?)?;
    if context.global.wants_json() {
        context.out.json(&snapshot);
    } else if context.out.quiet {
        context.out.line(&snapshot.key);
    } else {
        context.out.text(&view::snapshot(&snapshot));
    }
    Ok(())
}

fn usage(context: &Context, args: &SnapshotUsage) -> Result {
    let client = Client::open(&context.global)?;
    let mut chosen = Vec::new();
    let result = if args.keys.is_empty() {
        chosen = client.snapshots()?;
        Ok(())
    } else {
        context.each(&args.keys, |text| {
            let key = client.resolve_snapshot(text, "measure snapshot")?;
            chosen.push(client.snapshot(&key)?);
            Ok(())
        })
    };
    let row = |s: model::Snapshot| (s.key, s.size.unwrap_or(0), s.inodes.unwrap_or(0));
    let rows: Vec<_> = chosen.into_iter().map(row).collect();
    context.usage(&rows, false, args.bytes);
    result
}

fn rm(context: &Context, texts: &[String], recursive: bool) -> Result {
    let client = Client::open(&context.global)?;
    context.removing(texts, |text| {
        let key = client.resolve_snapshot(text, "remove snapshot")?;
        let digits = super::hex_digits(text);
        if key.as_str() != text && digits.is_some_and(|n| n < REMOVE_DIGITS_MIN) {
            return Err(super::too_few_digits("snapshot", text, "snapshots").into());
        }
        let gone = client.remove_snapshot(&key, recursive)?;
        Ok(gone.into_iter().map(Into::into).collect())
    })
}
