//! Records: each by itself, and whether those that belong together do.

use std::collections::{BTreeMap, HashMap, HashSet};

use cairn_meta::{
    BundleRecord, Error, ImageRecord, IngestRecord, Key, Record, SnapshotRecord, Table, Tx, View,
    schema,
};
use cairn_types::{
    Digest, ErrorKind, ImageName, IngestRef, LeaseId, Namespace, SnapshotKey, SnapshotKind,
};

use super::{Blobs, Check, Finding, Severity, mend::stands_on};
use crate::{Failure, gc::Item, lost, objects::word};

/// Records in one look. With one of the engines nothing is committed during a look.
const PART: usize = 256;

/// What is read of all records, in parts: no one state of them.
#[derive(Default)]
pub(super) struct Records {
    pub(super) blobs: Blobs,
    pub(super) links: HashMap<Digest, Vec<Namespace>>,
    pub(super) snapshots: BTreeMap<(Namespace, SnapshotKey), SnapshotRecord>,
    pub(super) images: Vec<((Namespace, ImageName), ImageRecord)>,
    pub(super) ingests: Vec<((Namespace, IngestRef), IngestRecord)>,
    children: Vec<(Namespace, SnapshotKey, SnapshotKey)>,
    leases: HashSet<(Namespace, LeaseId)>,
    resources: Vec<(Namespace, LeaseId, String, String)>,
    bundles: Vec<(String, BundleRecord)>,
    pub(super) damaged: Vec<Error>,
}

impl Records {
    pub(super) fn read(check: &mut Check<'_>) -> Result<Records, Failure> {
        let mut all = Records::default();
        let mut damaged = Vec::new();
        let mut spaces: HashSet<Namespace> = HashSet::new();
        each(check, &mut damaged, &schema::NAMESPACES, |ns, _| {
            spaces.insert(ns);
        })?;
        each(check, &mut damaged, &schema::IMAGES, |key, record| {
            all.images.push((key, record))
        })?;
        each(check, &mut damaged, &schema::BLOBS, |digest, record| {
            all.blobs.insert(digest, record.size);
        })?;
        each(check, &mut damaged, &schema::BLOB_BYTES, |_, _| ())?;
        each(
            check,
            &mut damaged,
            &schema::BLOB_LINKS,
            |(ns, digest), _| {
                all.links.entry(digest).or_default().push(ns);
            },
        )?;
        each(check, &mut damaged, &schema::INGESTS, |key, record| {
            all.ingests.push((key, record))
        })?;
        each(check, &mut damaged, &schema::SNAPSHOTS, |key, record| {
            all.snapshots.insert(key, record);
        })?;
        each(check, &mut damaged, &schema::CHILDREN, |key, ()| {
            all.children.push(key)
        })?;
        each(check, &mut damaged, &schema::LEASES, |key, _| {
            all.leases.insert(key);
        })?;
        each(check, &mut damaged, &schema::LEASE_RESOURCES, |key, ()| {
            all.resources.push(key)
        })?;
        each(check, &mut damaged, &schema::BUNDLES, |dir, record| {
            all.bundles.push((dir, record))
        })?;
        each(check, &mut damaged, &schema::CONTAINERS, |(ns, _), _| {
            spaces.insert(ns);
        })?;
        check.doubtful = !damaged.is_empty();
        if let Some(ns) = &check.request.namespace {
            all.limit(ns);
            damaged.retain(|err| all.concerns(ns, err));
            // A bundle's damaged record says of no namespace that there is one.
            let names = |err: &Error| space_of(err) == Some(ns.as_str());
            if !spaces.contains(ns) && all.is_empty() && !damaged.iter().any(names) {
                return Err(no_such(ns));
            }
        }
        all.damaged = damaged;
        check.report.blobs = all.blobs.len() as u64;
        check.report.snapshots = all.snapshots.len() as u64;
        check.report.images = all.images.len() as u64;
        check.report.bundles = all.bundles.len() as u64;
        Ok(all)
    }

    /// Whether nothing at all is left.
    fn is_empty(&self) -> bool {
        self.links.is_empty()
            && self.snapshots.is_empty()
            && self.images.is_empty()
            && self.ingests.is_empty()
            && self.leases.is_empty()
            && self.bundles.is_empty()
    }

    /// Whether a damaged record is of this namespace, or of a blob that it sees; or may be, since of a bundle
    /// nothing but its record says whose it is.
    fn concerns(&self, ns: &Namespace, err: &Error) -> bool {
        let Error::Corrupt { key, .. } = err else {
            return true;
        };
        match key.split_once(' ') {
            Some(("blob" | "blob-bytes", digest)) => {
                Digest::parse(digest).is_ok_and(|digest| self.links.contains_key(&digest))
            }
            Some(("bundle", _)) | None => true,
            Some(_) => space_of(err) == Some(ns.as_str()),
        }
    }

    /// Leaves what is of one namespace, and the blobs that it sees.
    fn limit(&mut self, ns: &Namespace) {
        self.links.retain(|_, spaces| {
            spaces.retain(|one| one == ns);
            !spaces.is_empty()
        });
        self.blobs
            .retain(|digest, _| self.links.contains_key(digest));
        self.snapshots.retain(|(one, _), _| one == ns);
        self.images.retain(|((one, _), _)| one == ns);
        self.ingests.retain(|((one, _), _)| one == ns);
        self.children.retain(|(one, ..)| one == ns);
        self.leases.retain(|(one, _)| one == ns);
        self.resources.retain(|(one, ..)| one == ns);
        self.bundles.retain(|(_, bundle)| bundle.namespace == *ns);
    }
}

/// The first name in the key of a damaged record: its namespace, where its table has them.
fn space_of(err: &Error) -> Option<&str> {
    match err {
        Error::Corrupt { key, .. } => key.split(' ').nth(1),
        _ => None,
    }
}

fn no_such(ns: &Namespace) -> Failure {
    Failure::new(ErrorKind::NotFound, "check namespace", "not found")
        .object("namespace", ns)
        .next("cairn namespaces ls")
}

/// Hands out every record of a table that proves itself, and collects what is wrong with the others.
fn each<K: Key, V: Record>(
    check: &mut Check<'_>,
    wrong: &mut Vec<Error>,
    table: &'static Table<K, V>,
    mut take: impl FnMut(K, V),
) -> Result<(), Failure> {
    let mut after = None;
    loop {
        check.go_on()?;
        let read = check
            .node
            .meta()
            .read(|view| view.sound_part(table, after.as_ref(), PART));
        let ((sound, damaged), end) = read.map_err(|err| check.failed(&err))?;
        check.report.records += (sound.len() + damaged.len()) as u64;
        for (key, value) in sound {
            take(key, value);
        }
        wrong.extend(damaged);
        match end {
            Some(end) => after = Some(end),
            None => return Ok(()),
        }
    }
}

impl Check<'_> {
    /// Whether records were destroyed, and what became of them.
    pub(super) fn rebuilt(&mut self) {
        let Some(rebuilt) = self.node.rebuilt() else {
            return;
        };
        let severity = match rebuilt.lost.is_empty() {
            true => Severity::Note,
            false => Severity::Loss,
        };
        let root = self.node.root();
        let told = lost::told(&rebuilt);
        let mut finding = Finding::new(severity, "records-rebuilt", "store", root.display(), told);
        if severity == Severity::Loss {
            let meaning =
                "images, snapshots and leases may be missing; their files were not removed";
            finding = finding
                .meaning(meaning)
                .next("cairn fsck --deep")
                .next("pull or import the images again");
        } else {
            finding = finding.meaning("all is as it was");
        }
        let kept = rebuilt
            .aside
            .iter()
            .map(|name| root.join("meta").join(name));
        let found = (!rebuilt.found.is_empty()).then(|| root.join("lost"));
        for path in kept.chain(found) {
            finding = finding.next(format!(
                "when it is of no use any more: rm -r {}",
                word(&path.to_string_lossy())
            ));
        }
        self.found(finding);
    }

    /// Records that do not prove themselves. Told of when it is known what images need.
    pub(super) fn damaged(&mut self, records: &Records) {
        for err in &records.damaged {
            let (key, reason) = match err {
                Error::Corrupt { key, reason } => (key.as_str(), reason.clone()),
                other => ("", other.to_string()),
            };
            let finding = Finding::new(Severity::Damage, "record-damaged", "record", key, reason)
                .meaning("what it said is not known; nothing goes that it may have spoken of")
                .next("pull or import what it belonged to again")
                .next("restore the records from an export: cairnd meta import");
            let finding = match self.request.repair {
                true => self.mend_record(finding, key),
                false => finding,
            };
            self.found(finding);
        }
    }

    /// Whether records that belong together are all there.
    pub(super) fn relations(&mut self, records: &Records) -> Result<(), Failure> {
        self.unrecorded(records)?;
        self.unseen(records)?;
        self.family(records)?;
        self.held(records)?;
        self.bundles(records)?;
        for ((ns, reference), _) in &records.ingests {
            let hollow = self.node.content().is_hollow(ns, reference);
            if hollow.map_err(|err| self.failed(&err))? {
                let detail = "none of its bytes are here";
                let kind = "ingest-empty";
                let finding = Finding::new(Severity::Note, kind, "ingest", reference, detail)
                    .within(ns)
                    .meaning("it begins anew when it is resumed");
                self.found(finding);
            }
        }
        Ok(())
    }

    /// Namespaces that see a blob of which nothing is known.
    fn unrecorded(&mut self, records: &Records) -> Result<(), Failure> {
        let mut lost: Vec<&Digest> = records.links.keys().collect();
        lost.retain(|digest| !records.blobs.contains_key(digest));
        lost.sort();
        for digest in lost {
            let spaces = &records.links[digest];
            let look = |view: &cairn_meta::Reader<'_>| {
                for ns in spaces {
                    let link = view.get(&schema::BLOB_LINKS, &(ns.clone(), digest.clone()));
                    if matches!(link, Ok(Some(_))) {
                        return Ok::<_, Error>(match view.get(&schema::BLOBS, digest) {
                            // A damaged one is told of as such.
                            Err(Error::Corrupt { .. }) => false,
                            record => record?.is_none(),
                        });
                    }
                }
                Ok(false)
            };
            let suspect = self.node.meta().read(look);
            if !suspect.map_err(|err| self.failed(&err))? {
                continue;
            }
            let detail = format!(
                "its record is missing, and {} can see it",
                few_spaces(spaces)
            );
            let finding = Finding::new(Severity::Damage, "blob-unrecorded", "blob", digest, detail);
            let finding = self.about_blob(finding, digest);
            let finding = match self.request.repair {
                true => self.mend_unrecorded(finding, digest),
                false => finding,
            };
            self.found(finding);
        }
        Ok(())
    }

    /// Blobs that no namespace sees.
    fn unseen(&mut self, records: &Records) -> Result<(), Failure> {
        let mut unseen: Vec<&Digest> = records.blobs.keys().collect();
        unseen.retain(|digest| !records.links.contains_key(digest));
        for digest in unseen {
            let look = |view: &cairn_meta::Reader<'_>| {
                let (spaces, damaged) = view.scan_sound(&schema::NAMESPACES, &())?;
                if !damaged.is_empty() || view.get(&schema::BLOBS, digest)?.is_none() {
                    return Ok(false);
                }
                for (ns, _) in spaces {
                    let key = (ns, digest.clone());
                    // A damaged one may be somebody's.
                    if !matches!(view.get(&schema::BLOB_LINKS, &key), Ok(None)) {
                        return Ok(false);
                    }
                }
                Ok::<_, Error>(true)
            };
            if self
                .node
                .meta()
                .read(look)
                .map_err(|err| self.failed(&err))?
            {
                let detail = "no namespace can see it";
                let kind = "blob-unseen";
                let finding = Finding::new(Severity::Litter, kind, "blob", digest, detail)
                    .meaning("it takes room, and comes to light again when somebody stores it");
                self.found(finding);
            }
        }
        Ok(())
    }

    /// Parents and children.
    fn family(&mut self, records: &Records) -> Result<(), Failure> {
        let children: HashSet<(&Namespace, &SnapshotKey, &SnapshotKey)> = records
            .children
            .iter()
            .map(|(ns, parent, child)| (ns, parent, child))
            .collect();
        for ((ns, key), record) in &records.snapshots {
            let Some(parent) = &record.parent else {
                continue;
            };
            let known = records.snapshots.get(&(ns.clone(), parent.clone()));
            let stands = known.is_some_and(|known| known.kind == SnapshotKind::Committed);
            if !stands || !children.contains(&(ns, parent, key)) {
                self.stands_on(ns, key, parent)?;
            }
        }
        for (ns, parent, child) in &records.children {
            let known = records.snapshots.get(&(ns.clone(), child.clone()));
            if known.is_none_or(|known| known.parent.as_ref() != Some(parent)) {
                self.stands_no_more(ns, parent, child)?;
            }
        }
        Ok(())
    }

    fn stands_on(
        &mut self,
        ns: &Namespace,
        key: &SnapshotKey,
        parent: &SnapshotKey,
    ) -> Result<(), Failure> {
        let look = |view: &cairn_meta::Reader<'_>| {
            let own = view.get(&schema::SNAPSHOTS, &(ns.clone(), key.clone()))?;
            if own.and_then(|own| own.parent).as_ref() != Some(parent) {
                return Ok((true, true));
            }
            let below = match view.get(&schema::SNAPSHOTS, &(ns.clone(), parent.clone())) {
                // Damaged, and told of as such.
                Err(Error::Corrupt { .. }) => true,
                below => below?.is_some_and(|below| below.kind == SnapshotKind::Committed),
            };
            let child = (ns.clone(), parent.clone(), key.clone());
            let listed = match view.get(&schema::CHILDREN, &child) {
                Err(Error::Corrupt { .. }) => true,
                listed => listed?.is_some(),
            };
            Ok::<_, Error>((below, listed))
        };
        let (stands, listed) = self
            .node
            .meta()
            .read(look)
            .map_err(|err| self.failed(&err))?;
        if !stands {
            let detail = format!("its parent {parent} is missing");
            let kind = "snapshot-parent";
            let finding = Finding::new(Severity::Damage, kind, "snapshot", key, detail)
                .within(ns)
                .meaning("it cannot be mounted")
                .next("pull or import its image again, or remove it: cairn snapshots rm");
            self.found(finding);
        }
        if !listed {
            let detail = format!("it is not listed as a child of {parent}");
            let kind = "snapshot-child";
            let finding = Finding::new(Severity::Damage, kind, "snapshot", key, detail)
                .within(ns)
                .meaning("what it stands on could be removed under it")
                .next("cairn fsck --repair");
            let finding = match self.request.repair {
                true => self.mend_child(finding, (ns, parent, key), true),
                false => finding,
            };
            self.found(finding);
        }
        Ok(())
    }

    fn stands_no_more(
        &mut self,
        ns: &Namespace,
        parent: &SnapshotKey,
        child: &SnapshotKey,
    ) -> Result<(), Failure> {
        let id = (ns.clone(), parent.clone(), child.clone());
        let look = |view: &cairn_meta::Reader<'_>| {
            let listed = view.get(&schema::CHILDREN, &id)?.is_some();
            Ok::<_, Error>(
                match view.get(&schema::SNAPSHOTS, &(ns.clone(), child.clone())) {
                    Err(Error::Corrupt { .. }) => false,
                    own => listed && own?.and_then(|own| own.parent).as_ref() != Some(parent),
                },
            )
        };
        if self
            .node
            .meta()
            .read(look)
            .map_err(|err| self.failed(&err))?
        {
            let detail = format!("{child} is listed as its child, and does not stand on it");
            let kind = "snapshot-child";
            let finding = Finding::new(Severity::Damage, kind, "snapshot", parent, detail)
                .within(ns)
                .meaning("it can never be removed")
                .next("cairn fsck --repair");
            let finding = match self.request.repair {
                true => self.mend_child(finding, (ns, parent, child), false),
                false => finding,
            };
            self.found(finding);
        }
        Ok(())
    }

    /// What leases hold.
    fn held(&mut self, records: &Records) -> Result<(), Failure> {
        for resource in &records.resources {
            let (ns, lease, kind, name) = resource;
            if !records.leases.contains(&(ns.clone(), lease.clone())) {
                let key = (ns.clone(), lease.clone());
                let look = |view: &cairn_meta::Reader<'_>| {
                    let lease = view.get(&schema::LEASES, &key);
                    let gone = matches!(lease, Ok(None));
                    Ok::<_, Error>(gone && view.get(&schema::LEASE_RESOURCES, resource)?.is_some())
                };
                if self
                    .node
                    .meta()
                    .read(look)
                    .map_err(|err| self.failed(&err))?
                {
                    let detail = format!("its hold on {kind} {name} is left, and it is gone");
                    let finding =
                        Finding::new(Severity::Litter, "lease-resource", "lease", lease, detail)
                            .within(ns)
                            .meaning("it holds nothing")
                            .next("cairn fsck --repair");
                    let finding = match self.request.repair {
                        true => self.mend_resource(finding, resource),
                        false => finding,
                    };
                    self.found(finding);
                }
                continue;
            }
            // A lease may hold what is still to come, so this is no more than a note.
            if let Some(missing) = self.is_missing(ns, kind, name)? {
                let finding = Finding::new(Severity::Note, "lease-holds", "lease", lease, missing)
                    .within(ns)
                    .meaning("it may be still to come");
                self.found(finding);
            }
        }
        Ok(())
    }

    fn is_missing(
        &self,
        ns: &Namespace,
        kind: &str,
        name: &str,
    ) -> Result<Option<String>, Failure> {
        let ns = ns.clone();
        let look = |view: &cairn_meta::Reader<'_>| {
            Ok::<_, Error>(match Item::of_resource(kind, name) {
                Some(Item::Blob(digest)) => view.get(&schema::BLOB_LINKS, &(ns, digest))?.is_none(),
                Some(Item::Image(name)) => view.get(&schema::IMAGES, &(ns, name))?.is_none(),
                Some(Item::Snapshot(key)) => view.get(&schema::SNAPSHOTS, &(ns, key))?.is_none(),
                Some(Item::Ingest(name)) => view.get(&schema::INGESTS, &(ns, name))?.is_none(),
                Some(Item::Container(_)) | None => false,
            })
        };
        match self.node.meta().read(look) {
            Ok(missing) => {
                Ok(missing.then(|| format!("{kind} {name}, which it holds, is not here")))
            }
            // It is there, and told of as damaged.
            Err(Error::Corrupt { .. }) => Ok(None),
            Err(err) => Err(self.failed(&err)),
        }
    }

    fn bundles(&mut self, records: &Records) -> Result<(), Failure> {
        for (dir, bundle) in &records.bundles {
            if !bundle.made || bundle.copied {
                continue;
            }
            let key = (bundle.namespace.clone(), bundle.snapshot.clone());
            if records.snapshots.contains_key(&key) {
                continue;
            }
            let look = |view: &cairn_meta::Reader<'_>| {
                let own = view.get(&schema::BUNDLES, dir)?;
                let own = own.is_some_and(|own| own.made && !own.copied && own.snapshot == key.1);
                Ok::<_, Error>(own && matches!(view.get(&schema::SNAPSHOTS, &key), Ok(None)))
            };
            if self
                .node
                .meta()
                .read(look)
                .map_err(|err| self.failed(&err))?
            {
                let detail = format!("its writable layer {} is missing", bundle.snapshot);
                let finding = Finding::new(Severity::Loss, "bundle-layer", "bundle", dir, detail)
                    .within(&bundle.namespace)
                    .meaning("what was written in it is lost, and it cannot be mounted again")
                    .next(format!("cairn bundle rm {}", word(dir)));
                self.found(finding);
            }
        }
        Ok(())
    }

    /// Writes or removes the name of a child below its parent's, as the child's own record says by now.
    fn mend_child(
        &mut self,
        finding: Finding,
        (ns, parent, child): (&Namespace, &SnapshotKey, &SnapshotKey),
        listed: bool,
    ) -> Finding {
        let id = (ns.clone(), parent.clone(), child.clone());
        let written = self.node.meta().write(move |tx: &mut Tx<'_>| {
            let own = tx.get(&schema::SNAPSHOTS, &(id.0.clone(), id.2.clone()))?;
            // Where its record is lost and others stand on it, they stand on the parent as well.
            if own.is_none() && stands_on(tx, &id.0, &id.2)? {
                return Ok(false);
            }
            match own.and_then(|own| own.parent).as_ref() == Some(&id.1) {
                true => tx.put(&schema::CHILDREN, &id, &())?,
                false => tx.delete(&schema::CHILDREN, &id)?,
            }
            Ok::<_, Error>(true)
        });
        match (written, listed) {
            (Ok(true), true) => finding.mended("listed"),
            (Ok(true), false) => finding.mended("taken from the list"),
            (Ok(false), _) => finding.left("its record is lost, and others stand on it"),
            (Err(err), _) => finding.left(err.to_string()),
        }
    }

    fn mend_resource(
        &mut self,
        finding: Finding,
        resource: &(Namespace, LeaseId, String, String),
    ) -> Finding {
        let resource = resource.clone();
        let removed = self.node.meta().write(move |tx: &mut Tx<'_>| {
            let lease = (resource.0.clone(), resource.1.clone());
            match tx.get(&schema::LEASES, &lease)? {
                // It was made again.
                Some(_) => Ok(()),
                None => tx.delete(&schema::LEASE_RESOURCES, &resource),
            }
        });
        match removed {
            Ok(()) => finding.mended("removed"),
            Err(err) => finding.left(err.to_string()),
        }
    }
}

fn few_spaces(spaces: &[Namespace]) -> String {
    super::few(spaces.iter())
}
