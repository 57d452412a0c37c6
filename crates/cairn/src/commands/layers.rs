//! Snapshots that are made, mounted by others, committed and compared.

use std::path::Path;

use super::{Context, Result};
use crate::{
    args::{SnapshotCommit, SnapshotDiff, SnapshotMounts, SnapshotNew},
    client::{Client, DiffOptions},
    model::Mount,
    view,
};

/// `snapshots prepare`, or with `look` `snapshots view`
pub fn new(context: &Context, args: &SnapshotNew, look: bool) -> Result {
    let client = Client::open(&context.global)?;
    let attempted = if look {
        "view snapshot"
    } else {
        "prepare snapshot on"
    };
    let parent = args.parent.as_deref();
    let parent = parent.map(|text| client.resolve_snapshot(text, attempted));
    let parent = parent.transpose()?;
    let mounts = client.snapshot_new(&args.key, parent.as_ref(), look)?;
    let key = &args.key;
    tracing::info!("labelled {key} containerd.io/gc.root: gc leaves it alone");
    if args.mounts || context.global.wants_json() {
        context.out.json(&at(mounts, args.target.as_deref()));
    } else if let Some(target) = &args.target {
        context.out.text(&view::mounts(&mounts, target));
    } else if context.out.quiet {
        context.out.line(key.as_str());
    }
    Ok(())
}

/// `snapshots commit`
pub fn commit(context: &Context, args: &SnapshotCommit) -> Result {
    let client = Client::open(&context.global)?;
    let key = client.resolve_snapshot(&args.key, "commit snapshot")?;
    client.snapshot_commit(&args.name, &key)?;
    if context.global.wants_json() {
        context.out.json(&client.snapshot(&args.name)?);
    } else {
        context.out.line(args.name.as_str());
    }
    Ok(())
}

/// `snapshots mounts`
pub fn mounts(context: &Context, args: &SnapshotMounts) -> Result {
    let client = Client::open(&context.global)?;
    let key = client.resolve_snapshot(&args.key, "mount snapshot")?;
    let mounts = client.snapshot_mounts(&key)?;
    if context.global.wants_json() {
        context.out.json(&at(mounts, Some(&args.target)));
    } else {
        context.out.text(&view::mounts(&mounts, &args.target));
    }
    Ok(())
}

/// Says in each mount where it goes, if that is known.
fn at(mut mounts: Vec<Mount>, target: Option<&Path>) -> Vec<Mount> {
    if let Some(target) = target {
        for mount in &mut mounts {
            let below = target.join(mount.target.trim_start_matches('/'));
            let place = match &*mount.target {
                "" => target,
                _ => &below,
            };
            mount.target = place.to_string_lossy().into_owned();
        }
    }
    mounts
}

/// `snapshots diff`
pub fn diff(context: &Context, args: SnapshotDiff) -> Result {
    let client = Client::open(&context.global)?;
    let attempted = "diff snapshot";
    let a = client.resolve_snapshot(&args.a, attempted)?;
    let (older, newer) = match &args.b {
        Some(b) => (Some(a), client.resolve_snapshot(b, attempted)?),
        None => {
            let parent = client.snapshot(&a)?.parent;
            let parent = parent.map(|key| cairn_types::SnapshotKey::parse(&key));
            (parent.transpose()?, a)
        }
    };
    let options = DiffOptions {
        media_type: args.media_type,
        reference: args.r#ref,
        keep: args.keep,
        labels: args.label.into_iter().collect(),
    };
    let digest = client.snapshot_diff(older.as_ref(), &newer, &options)?;
    if !options.keep {
        context
            .out
            .note("nothing refers to it yet: the next cairn gc removes it; --keep labels it");
    }
    let text = digest.to_string();
    if context.global.wants_json() {
        context.out.json(&client.blob(&digest)?);
    } else if context.out.quiet {
        context.out.line(text);
    } else {
        context.out.line(context.digest(&text));
    }
    Ok(())
}
