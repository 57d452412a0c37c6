//! Trees that a power cut may have torn, and that cannot be dropped because somebody's changes stand on
//! them: they are unpacked again before anybody sees them.

use cairn_sys::mount::Users;

use super::{
    Check, Finding, FsckRequest, FsckWatcher, Severity,
    records::Records,
    trees::{self, Ordered},
};
use crate::Node;

/// Nobody waits for what is seen on the way, but somebody may for its end.
struct Unheard<'a> {
    gets_on: &'a (dyn Fn() + Sync),
}

impl FsckWatcher for Unheard<'_> {
    fn found(&self, finding: Finding) {
        tracing::debug!("{} {}: {}", finding.object, finding.name, finding.detail);
    }

    fn progress(&self, _: &'static str, _: u64, _: u64) {}

    fn has_read(&self, _: u64) -> bool {
        (self.gets_on)();
        true
    }
}

impl Node {
    /// Unpacks the trees again that an opening found to be unproven, each before what stands on it. One of
    /// which the layer is not here or is damaged stays as it is, and nothing is mounted over it: the next
    /// opening tries again, and so does a repair. Tells `gets_on` at each of them, and at whatever is read.
    pub(crate) fn prove(&self, gets_on: &(dyn Fn() + Sync)) {
        let unheard = Unheard { gets_on };
        let mut check = Check::new(self, FsckRequest::default(), &unheard);
        let read = Records::read(&mut check).and_then(|records| {
            check.images(&records)?;
            Ok(records)
        });
        let records = match read {
            Ok(records) => records,
            Err(failure) => return tracing::error!("{failure}"),
        };
        for one in trees::order(&records) {
            if !self.snapshots().is_unproven(one.record) {
                continue;
            }
            gets_on();
            let (ns, key) = (one.ns, one.key);
            match check.prove(&one) {
                Ok(()) => tracing::warn!(
                    "snapshot {key} of {ns} may not have been whole, and is unpacked again"
                ),
                Err(reason) => {
                    tracing::error!("snapshot {key} of {ns} may not be whole: {reason}");
                }
            }
        }
    }
}

impl Check<'_> {
    /// Unpacks a tree again that may be torn, and says so. The error is the reason.
    pub(super) fn prove(&self, one: &Ordered<'_>) -> Result<(), String> {
        let (ns, key, id) = (one.ns, one.key, one.record.id);
        // From mounts of another boot nobody can see it; somebody may have mounted it by hand since.
        let tree = self.node.real_root().join(format!("snapshots/{id}/fs"));
        let Users { found, .. } = cairn_sys::mount::users(&tree);
        if let Some((at, pid)) = found.first() {
            let at = at.display();
            return Err(format!("it is mounted at {at} (seen by pid {pid})"));
        }
        let staged = self.stage_again(one, None, &|| Ok(()))?;
        let renewed = self.node.snapshots().renew(ns, key, id, staged);
        renewed.map_err(|err| err.to_string())
    }

    /// Tells of a tree that may be torn still.
    pub(super) fn torn(&mut self, one: &Ordered<'_>) {
        let detail = "a power cut came before its files were known to be on the disk";
        let finding = Finding::new(
            Severity::Damage,
            "snapshot-torn",
            "snapshot",
            one.key,
            detail,
        );
        let finding = self.about_layer(finding.within(one.ns), one.key);
        let finding = match self.request.repair {
            false => finding.next("cairn fsck --repair"),
            true => match self.prove(one) {
                Ok(()) => finding.mended("unpacked again from its layer"),
                Err(reason) => finding.left(reason),
            },
        };
        self.found(finding);
    }
}
