//! Removing bundles: those that were asked for, and what was cut short.

use std::path::{Path, PathBuf};

use cairn_sys::mount::{self, Holder};
use cairn_types::{Classified, ErrorKind, Failure, HostDir, Mount};

use crate::{
    Known, Store, claim, owners,
    place::{Marker, Place, discard_all},
};

const ATTEMPTED: &str = "remove bundle";

/// Unmounts the bundle at `dir` and removes it with its writable layer. A directory that is not the
/// bundle any more is left alone. Returns the directory as it is recorded.
///
/// # Errors
/// The store's; `NotFound` when no bundle was made there; `FailedPrecondition` while a container runs
/// in it, or its root is mounted elsewhere.
pub fn remove<S: Store>(store: &S, dir: &Path) -> Result<PathBuf, S::Error> {
    let place = Place::find(dir, ATTEMPTED)?;
    if !cairn_sys::is_root() {
        let reason = "unmounting needs root";
        let failure = Failure::new(ErrorKind::PermissionDenied, ATTEMPTED, reason);
        return Err(failure.object("bundle", place.dir()).into());
    }
    let _claim = claim::take(place.dir(), ATTEMPTED, "bundle")?;
    let Some(known) = store.get(place.dir())? else {
        let reason = "no bundle was made there";
        let failure = Failure::new(ErrorKind::NotFound, ATTEMPTED, reason);
        return Err(failure
            .object("bundle", place.dir())
            .next("cairn bundle ls")
            .into());
    };
    if known.made {
        take_down(&place, &known)?;
        store.withdraw(place.dir())?;
    }
    unfinished_part(store, &place, &known)?;
    Ok(place.dir().as_path().to_owned())
}

/// Undoes what is neither whole nor has anybody at work on it: its maker, or whoever was removing it,
/// died. What cannot be removed now (its file system is not mounted, a shell stands in it) is tried
/// again by the next call.
///
/// # Errors
/// Those of asking the store which there are; what goes wrong with one of them is only told.
pub fn finish<S: Store>(store: &S) -> Result<(), S::Error> {
    for dir in store.unfinished()? {
        if let Err(err) = finish_one(store, &dir) {
            tracing::warn!("{err}");
        }
    }
    Ok(())
}

fn finish_one<S: Store>(store: &S, dir: &str) -> Result<(), S::Error> {
    let failed = |err: &dyn Classified| Failure::of(ATTEMPTED, err).object("bundle", dir);
    let recorded = HostDir::parse(dir).map_err(|err| failed(&err))?;
    let Some(_claim) = claim::try_take(&recorded).map_err(|err| failed(&err))? else {
        return Ok(());
    };
    // Whoever was at work may have come to an end before the claim was ours.
    let known = store.get(&recorded)?.filter(|known| !known.made);
    let Some(known) = known else { return Ok(()) };
    let place = Place::find(recorded.as_path(), ATTEMPTED)?;
    if *place.dir() != recorded {
        // A link has come into its way. What is behind that is another place.
        let reason = format!("it is at {} now", place.dir());
        let failure = Failure::new(ErrorKind::FailedPrecondition, ATTEMPTED, reason);
        return Err(failure.object("bundle", recorded).into());
    }
    unfinished_part(store, &place, &known)
}

/// Unmounts a whole bundle.
fn take_down(place: &Place, known: &Known) -> Result<(), Failure> {
    let failed = |err: &dyn Classified| failed(place, err);
    if !place.is_ours(&known.marker()).map_err(|err| failed(&err))? {
        // It may have been renamed, with what is mounted in it.
        return refuse_held(place, &known.root(place), &[], ATTEMPTED);
    }
    let target = place.rootfs();
    refuse_held(place, &known.root(place), &[&target], ATTEMPTED)?;
    discard_all(&target).map_err(|err| match err.is(rustix::io::Errno::BUSY) {
        true => in_use(place, "a process works in it"),
        false => failed(&err),
    })
}

/// Removes everything of a bundle that is not recorded as whole; its record last.
pub(crate) fn unfinished_part<S: Store>(
    store: &S,
    place: &Place,
    known: &Known,
) -> Result<(), S::Error> {
    undo(place, &known.marker(), &known.root(place))?;
    store.discard(place.dir())
}

/// Removes what is there of a bundle outside of the store. Its layer can be dropped then: nothing has
/// it mounted.
pub(crate) fn undo(place: &Place, marker: &Marker<'_>, mounts: &[Mount]) -> Result<(), Failure> {
    let failed = |err: &dyn Classified| failed(place, err);
    let own = [place.rootfs(), place.rootfs_aside()];
    refuse_held(
        place,
        mounts,
        &own.each_ref().map(|path| &**path),
        ATTEMPTED,
    )?;
    owners::clear(place.dir()).map_err(|err| failed(&err))?;
    place.clear_aside().map_err(|err| failed(&err))?;
    if place.is_ours(marker).map_err(|err| failed(&err))? {
        discard_all(&place.rootfs()).map_err(|err| failed(&err))?;
        place.withdraw().map_err(|err| failed(&err))?;
    }
    refuse_held(place, mounts, &[], ATTEMPTED)
}

/// Refuses to go on while the bundle's root, which `mounts` make, is mounted elsewhere than at `own`,
/// or a container runs in it: its files would be deleted under it, or written to by two.
pub(crate) fn refuse_held(
    place: &Place,
    mounts: &[Mount],
    own: &[&Path],
    attempted: &str,
) -> Result<(), Failure> {
    if mounts.is_empty() {
        return Ok(());
    }
    let failed = |err: &dyn Classified| Failure::of(attempted, err).object("bundle", place.dir());
    match mount::holder(mounts, own).map_err(|err| failed(&err))? {
        None => Ok(()),
        Some(Holder::RootOf(pid)) => Err(in_use(place, &format!("process {pid} runs in it"))),
        Some(Holder::Here(at)) => {
            let at = at.display();
            let reason = format!("its root is mounted at {at}");
            let failure = Failure::new(ErrorKind::FailedPrecondition, attempted, reason);
            Err(failure
                .object("bundle", place.dir())
                .next(format!("umount {at}")))
        }
    }
}

fn failed(place: &Place, err: &dyn Classified) -> Failure {
    Failure::of(ATTEMPTED, err).object("bundle", place.dir())
}

fn in_use(place: &Place, reason: &str) -> Failure {
    let failure = Failure::new(ErrorKind::FailedPrecondition, ATTEMPTED, reason);
    failure
        .object("bundle", place.dir())
        .next("stop its container first (runc list, runc delete --force ID)")
}
