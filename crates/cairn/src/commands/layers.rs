//! Snapshots that are made, mounted by others, committed and compared.

use std::{ffi::OsString, path::Path};

use cairn_types::ErrorKind;

use super::{Context, Result};
use crate::{
    args::{SnapshotCommit, SnapshotDiff, SnapshotMounts, SnapshotNew},
    client::{Client, DiffOptions},
    error::{Problem, quote},
    model::Mount,
    view,
};

/// Says what a build calls now, so that the same input gives the same bytes.
const EPOCH_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// The first and the last second that a time on the wire can be in: of the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

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
        lines(context, args.key.as_str(), &mounts, target)?;
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
        lines(context, key.as_str(), &mounts, &args.target)?;
    }
    Ok(())
}

/// Prints what a shell is to run.
fn lines(context: &Context, key: &str, mounts: &[Mount], target: &Path) -> Result {
    let Some(text) = view::mounts(mounts, target) else {
        let reason = "mount(8) cannot be told of so many layers";
        let problem = Problem::new(ErrorKind::FailedPrecondition, "mount snapshot", key, reason);
        // A program can, by fsconfig(2).
        let (target, key) = (quote(&target.to_string_lossy()), quote(key));
        let next = format!("cairn snapshots mounts --json {target} {key}");
        return Err(problem.next(next).into());
    };
    context.out.text(&text);
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
    let epoch = epoch(std::env::var_os(EPOCH_VARIABLE))?;
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
        epoch,
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

/// What the variable holds; empty is as good as unset.
fn epoch(value: Option<OsString>) -> std::result::Result<Option<i64>, Problem> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let seconds = value.to_str().and_then(|text| text.parse().ok());
    let seconds = seconds.filter(|seconds| SECONDS.contains(seconds));
    seconds.map(Some).ok_or_else(|| {
        let value = quote(&value.to_string_lossy());
        let text = format!("{EPOCH_VARIABLE}={value} is no number of seconds since 1970");
        Problem::usage(text).next(format!("unset {EPOCH_VARIABLE}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs() {
        let read = |text: &str| epoch(Some(text.into())).ok();
        assert_eq!(epoch(None), Ok(None));
        assert_eq!(read(""), Some(None));
        assert_eq!(read("0"), Some(Some(0)));
        assert_eq!(read("-1"), Some(Some(-1)));
        assert_eq!(read("253402300799"), Some(Some(253_402_300_799)));
        for wrong in ["x", "1.5", " 1", "253402300800", "99999999999999999999"] {
            let problem = epoch(Some(wrong.into())).expect_err(wrong);
            assert!(
                problem.reason.starts_with("SOURCE_DATE_EPOCH="),
                "{problem}"
            );
            assert_eq!(problem.exit_code(), 2);
        }
    }
}
