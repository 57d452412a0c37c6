//! Removing bundles: those that were asked for, and those that a crash left half made.

use std::path::{Path, PathBuf};

use cairn_meta::{BundleRecord, Tx, View, schema};
use cairn_sys::mount::{self, Holder};
use cairn_types::{Classified, ErrorKind};

use super::place::{Place, unmount_all};
use crate::{Failure, Node};

const ATTEMPTED: &str = "remove bundle";

impl Node {
    /// Unmounts the bundle at `dir` and removes it with its writable layer. Refused while a container
    /// runs in it. A directory that is not the bundle any more is left alone. Returns the directory
    /// as it is recorded.
    pub fn bundle_remove(&self, dir: &Path) -> Result<PathBuf, Failure> {
        let place = Place::find(dir, false, ATTEMPTED)?;
        let failed = |err: &dyn Classified| {
            Failure::of(ATTEMPTED, err).object("bundle", place.dir().display())
        };
        let Some(mut known) = self.bundle_record(place.key(), ATTEMPTED)? else {
            let reason = "no bundle was made there";
            return Err(Failure::new(ErrorKind::NotFound, ATTEMPTED, reason)
                .object("bundle", place.dir().display())
                .next("cairn bundle ls"));
        };
        let _taken = self.take_place(&place, ATTEMPTED)?;
        let pins = self.pins();
        pins.snapshot(&known.namespace, &known.snapshot);
        if place.is_ours(self.root()).map_err(|err| failed(&err))? {
            let target = place.rootfs();
            self.refuse_held(&place, &known, &[&target], ATTEMPTED)?;
            unmount_all(&target).map_err(|err| match err.is(rustix::io::Errno::BUSY) {
                true => in_use(&place, "a process works in it"),
                false => failed(&err),
            })?;
        } else {
            // It may have been renamed, with what is mounted in it.
            self.refuse_held(&place, &known, &[], ATTEMPTED)?;
        }
        known.made = false;
        self.put_bundle(&place, &known)?;
        self.drop_bundle(&place, &known)?;
        Ok(place.dir().to_owned())
    }

    /// Removes everything of a bundle, whole or not; its record last.
    pub(super) fn drop_bundle(&self, place: &Place, known: &BundleRecord) -> Result<(), Failure> {
        let failed = |err: &dyn Classified| {
            Failure::of(ATTEMPTED, err).object("bundle", place.dir().display())
        };
        let own = [place.rootfs(), place.rootfs_aside()];
        self.refuse_held(place, known, &own.each_ref().map(|path| &**path), ATTEMPTED)?;
        place.clear_aside().map_err(|err| failed(&err))?;
        if place.is_ours(self.root()).map_err(|err| failed(&err))? {
            unmount_all(&place.rootfs()).map_err(|err| failed(&err))?;
            place.withdraw().map_err(|err| failed(&err))?;
        }
        self.refuse_held(place, known, &[], ATTEMPTED)?;
        match self.snapshots().remove(&known.namespace, &known.snapshot) {
            Ok(()) => {}
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            Err(err) => return Err(failed(&err)),
        }
        let key = place.key().to_owned();
        let written = self
            .meta()
            .write(move |tx: &mut Tx| tx.delete(&schema::BUNDLES, &key));
        written.map_err(|err| failed(&err))
    }

    /// Refuses to go on while the bundle's root is mounted elsewhere than at `own`, or a container runs
    /// in it: its files would be deleted under it, or written to by two.
    pub(super) fn refuse_held(
        &self,
        place: &Place,
        known: &BundleRecord,
        own: &[&Path],
        attempted: &str,
    ) -> Result<(), Failure> {
        let failed = |err: &dyn Classified| {
            Failure::of(attempted, err).object("bundle", place.dir().display())
        };
        let (ns, snapshot) = (&known.namespace, &known.snapshot);
        let mounts = match self.snapshots().mounts(ns, snapshot) {
            Ok(mounts) => mounts,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
            Err(err) => return Err(failed(&err)),
        };
        match mount::holder(&mounts, own).map_err(|err| failed(&err))? {
            None => Ok(()),
            Some(Holder::RootOf(pid)) => Err(in_use(place, &format!("process {pid} runs in it"))),
            Some(Holder::Here(at)) => {
                let at = at.display();
                let reason = format!("its root is mounted at {at}");
                let failure = Failure::new(ErrorKind::FailedPrecondition, attempted, reason);
                Err(failure
                    .object("bundle", place.dir().display())
                    .next(format!("umount {at}")))
            }
        }
    }

    /// Finishes what was being made or removed when the last process that had this store stopped.
    /// What cannot be removed now (its file system is not mounted, a shell stands in it) is tried
    /// again at the next opening.
    pub(crate) fn finish_bundles(&self) -> Result<(), Failure> {
        let scan = self
            .meta()
            .read(|view| view.scan_sound(&schema::BUNDLES, &()));
        let (bundles, damaged) = scan.map_err(|err| Failure::of("recover bundles", &err))?;
        for err in damaged {
            tracing::error!("{err}");
        }
        for (dir, record) in bundles.into_iter().filter(|(_, record)| !record.made) {
            let removed = Place::find(Path::new(&dir), false, "recover")
                .and_then(|place| self.drop_bundle(&place, &record));
            if let Err(err) = removed {
                tracing::warn!("{err}");
            }
        }
        Ok(())
    }
}

fn in_use(place: &Place, reason: &str) -> Failure {
    let failure = Failure::new(ErrorKind::FailedPrecondition, ATTEMPTED, reason);
    failure
        .object("bundle", place.dir().display())
        .next("stop its container first (runc list, runc delete --force ID)")
}
