//! What a store says of itself, in sentences that can be compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use cairn_proto::containerd::services::{
    content::v1::{ListContentRequest, ListStatusesRequest},
    images::v1::ListImagesRequest,
    leases::v1::{ListRequest, ListResourcesRequest},
    namespaces::v1::ListNamespacesRequest,
    snapshots::v1::ListSnapshotsRequest,
};

use super::Verdict;
use crate::{
    fault::Stage,
    soak::api::{Api, good, told},
};

/// The label that says where a snapshot's files are, for those who ask for it.
const UPPERDIR: &str = "containerd.io/snapshot/overlay.upperdir";

/// Sentences.
pub(super) type Facts = BTreeSet<String>;

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) facts: Facts,
    /// Where the files of each snapshot are.
    pub(super) dirs: BTreeMap<String, PathBuf>,
}

/// Everything but times, of all namespaces.
pub(super) async fn gather(api: &Api) -> Verdict<Found> {
    let mut found = within(api).await?;
    let request = ListNamespacesRequest::default();
    let listed = good("list namespaces", api.namespaces().list(request).await)?;
    for namespace in listed.namespaces {
        // The one in which all is done is there when anything is.
        if namespace.name == api.ns() {
            continue;
        }
        let what = format!("namespace {}", namespace.name);
        labels(&what, &namespace.labels, &mut found.facts);
        found.facts.insert(what);
        let there = within(&api.within(&namespace.name)).await?.facts;
        let there = there.into_iter();
        let there = there.map(|fact| format!("{ELSEWHERE}{}, {fact}", namespace.name));
        found.facts.extend(there);
    }
    Ok(found)
}

/// What sentences of other namespaces begin with.
const ELSEWHERE: &str = "in ";

/// A sentence without its namespace.
pub(super) fn bare(fact: &str) -> &str {
    let elsewhere = fact.strip_prefix(ELSEWHERE);
    let rest = elsewhere.and_then(|rest| rest.split_once(", "));
    rest.map_or(fact, |(_, rest)| rest)
}

async fn within(api: &Api) -> Verdict<Found> {
    let (mut facts, mut dirs) = (Facts::new(), BTreeMap::new());
    content(api, &mut facts).await?;
    uploads(api, &mut facts).await?;
    snapshots(api, &mut facts, &mut dirs).await?;
    let request = ListImagesRequest::default();
    for image in good("list images", api.images().list(request).await)?.images {
        let what = format!("image {}", image.name);
        labels(&what, &image.labels, &mut facts);
        let target = image.target.map(|target| target.digest);
        facts.insert(format!("{what} is {}", target.unwrap_or_default()));
    }
    let request = ListRequest::default();
    for lease in good("list leases", api.leases().list(request).await)?.leases {
        let what = format!("lease {}", lease.id);
        labels(&what, &lease.labels, &mut facts);
        let request = ListResourcesRequest { id: lease.id };
        let held = good("list resources", api.leases().list_resources(request).await)?;
        for held in held.resources {
            facts.insert(format!("{what} holds {} {}", held.r#type, held.id));
        }
        facts.insert(what);
    }
    Ok(Found { facts, dirs })
}

async fn content(api: &Api, facts: &mut Facts) -> Verdict {
    let request = ListContentRequest::default();
    let mut answers = good("list content", api.content().list(request).await)?;
    let next = |status| told("list content", &status);
    while let Some(answer) = answers.message().await.map_err(next)? {
        for blob in answer.info {
            let what = format!("blob {}", blob.digest);
            labels(&what, &blob.labels, facts);
            facts.insert(format!("{what} of {} bytes", blob.size));
        }
    }
    Ok(())
}

/// Those that a client named; others belong to a process that is gone.
async fn uploads(api: &Api, facts: &mut Facts) -> Verdict {
    let request = ListStatusesRequest::default();
    let listed = good("list uploads", api.content().list_statuses(request).await)?;
    for upload in listed.statuses {
        let mut nameless = ["put-", "cairn."].into_iter();
        if nameless.any(|word| upload.r#ref.starts_with(word)) {
            continue;
        }
        // How much of it has come is no promise.
        facts.insert(format!(
            "{UPLOAD}{} of {} bytes",
            upload.r#ref, upload.total
        ));
    }
    Ok(())
}

const UPLOAD: &str = "upload ";

async fn snapshots(api: &Api, facts: &mut Facts, dirs: &mut BTreeMap<String, PathBuf>) -> Verdict {
    let request = ListSnapshotsRequest {
        snapshotter: "overlayfs".to_owned(),
        ..ListSnapshotsRequest::default()
    };
    let mut answers = good("list snapshots", api.snapshots().list(request).await)?;
    let next = |status| told("list snapshots", &status);
    while let Some(answer) = answers.message().await.map_err(next)? {
        for mut snapshot in answer.info {
            // A bundle is wherever its life has its directories.
            if let Some(path) = snapshot.name.strip_prefix(BUNDLE) {
                let name = path.rsplit('/').next().unwrap_or_default();
                snapshot.name = format!("{BUNDLE}{name}");
            }
            if let Some(dir) = snapshot.labels.remove(UPPERDIR) {
                dirs.insert(snapshot.name.clone(), PathBuf::from(dir));
            }
            let what = format!("snapshot {}", snapshot.name);
            labels(&what, &snapshot.labels, facts);
            let kind = match snapshot.kind {
                1 => "a view",
                2 => "active",
                3 => "committed",
                _ => "of no kind",
            };
            facts.insert(format!("{what} is {kind} on {:?}", snapshot.parent));
        }
    }
    Ok(())
}

/// What the snapshots of bundles are called.
pub(super) const BUNDLE: &str = "bundle:";

fn labels(what: &str, labels: &BTreeMap<String, String>, facts: &mut Facts) {
    for (key, value) in labels {
        let fact = match key.as_str() {
            // Their values are times.
            "containerd.io/gc.root" | "containerd.io/gc.expire" => format!("{what} has {key}"),
            _ => format!("{what} has {key}={value}"),
        };
        facts.insert(fact);
    }
}

/// Whether a power cut may take what was acknowledged: an unpacked layer, and an upload that is not whole.
pub(super) fn may_go(fact: &str) -> bool {
    is_layer(fact) || bare(fact).starts_with(UPLOAD)
}

/// Whether this is of an unpacked layer, which is made again from its blob, with all that is said of it.
pub(super) fn is_layer(fact: &str) -> bool {
    bare(fact).starts_with("snapshot sha256:")
}

/// Whether this is of the snapshot of a bundle.
pub(super) fn is_bundle(fact: &str) -> bool {
    let snapshot = bare(fact).strip_prefix("snapshot ");
    snapshot.is_some_and(|name| name.starts_with(BUNDLE))
}

/// What a sentence is about, where there is one such sentence for each thing.
fn subject(fact: &str) -> Option<&str> {
    let subject = fact.split_once(" is ")?.0;
    subject.starts_with("image ").then_some(subject)
}

/// What a command changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub(super) gained: Facts,
    pub(super) lost: Facts,
}

impl Change {
    /// Between two looks.
    pub(super) fn between(before: &Facts, after: &Facts) -> Change {
        Change {
            gained: after.difference(before).cloned().collect(),
            lost: before.difference(after).cloned().collect(),
        }
    }

    /// How far it came in what was found.
    pub(super) fn stage(&self, found: &Facts) -> Stage {
        let there = |facts: &Facts| {
            let sure = facts.iter().filter(|fact| !may_go(fact));
            let (there, not): (Vec<&String>, Vec<_>) = sure.partition(|fact| found.contains(*fact));
            (there.len(), not.len())
        };
        match (there(&self.gained), there(&self.lost)) {
            ((0, 0), (0, 0)) => Stage::Part,
            ((_, 0), (0, _)) => Stage::All,
            ((0, _), (_, 0)) => Stage::Nothing,
            _ => Stage::Part,
        }
    }
}

/// What is known of a store at some moment: a command that was answered is done, one that was begun may
/// be done in part.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// What has to be there.
    pub(super) certain: Facts,
    /// What may be there.
    pub(super) possible: Facts,
    /// Of each of these one has to be there: what a thing is, and what a command under way makes of it.
    pub(super) either: Vec<[String; 2]>,
}

impl Known {
    /// A command begins.
    pub(super) fn begin(&mut self, change: &Change) {
        for lost in self.certain.intersection(&change.lost) {
            let gained = change
                .gained
                .iter()
                .find(|new| subject(new) == subject(lost));
            if let Some(gained) = gained.filter(|_| subject(lost).is_some()) {
                self.either.push([lost.clone(), gained.clone()]);
            }
        }
        self.certain.retain(|fact| !change.lost.contains(fact));
        self.possible.extend(change.gained.iter().cloned());
    }

    /// It was answered.
    pub(super) fn answer(&mut self, change: &Change) {
        self.possible.retain(|fact| !change.lost.contains(fact));
        self.either.retain(|[_, new]| !change.gained.contains(new));
        self.certain.extend(change.gained.iter().cloned());
        self.possible.extend(change.gained.iter().cloned());
    }

    /// What is wrong with what was found.
    pub(super) fn judge(&self, found: &Facts) -> Verdict {
        let missing = self.certain.difference(found);
        let missing: Vec<_> = missing.filter(|fact| !may_go(fact)).collect();
        let neither = |pair: &&[String; 2]| pair.iter().all(|fact| !found.contains(fact));
        let neither: Vec<_> = self.either.iter().filter(neither).collect();
        let strange: Vec<_> = found.difference(&self.possible).collect();
        match missing.is_empty() && neither.is_empty() && strange.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "acknowledged and not there: {missing:#?}\nneither old nor new: {neither:#?}\n\
                 there and nobody's: {strange:#?}"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(words: &[&str]) -> Facts {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_name_that_is_given_anew_is_never_gone() {
        let old = Change::between(&facts(&[]), &facts(&["image a is 1"]));
        let new = Change::between(&facts(&["image a is 1"]), &facts(&["image a is 2"]));
        let mut known = Known::default();
        known.answer(&old);
        known.begin(&new);
        assert_eq!(known.judge(&facts(&["image a is 1"])), Ok(()));
        assert_eq!(known.judge(&facts(&["image a is 2"])), Ok(()));
        assert!(known.judge(&facts(&[])).is_err());
        known.answer(&new);
        assert!(known.judge(&facts(&["image a is 1"])).is_err());
    }

    #[test]
    fn a_change_is_there_or_not_or_in_part() {
        let change = Change::between(&facts(&["a", "b"]), &facts(&["b", "c", "d"]));
        assert_eq!(change.stage(&facts(&["b", "c", "d"])), Stage::All);
        assert_eq!(change.stage(&facts(&["a", "b"])), Stage::Nothing);
        for found in [&["a", "c", "d"][..], &["c"], &["b"]] {
            assert_eq!(change.stage(&facts(found)), Stage::Part, "{found:?}");
        }
        let layer = Change::between(&facts(&[]), &facts(&["in x, snapshot sha256:1 is"]));
        assert_eq!(layer.stage(&facts(&[])), Stage::Part);
    }

    #[test]
    fn what_is_under_way_may_be_there_or_not() {
        let put = Change::between(&facts(&[]), &facts(&["a"]));
        let swap = Change::between(&facts(&["a"]), &facts(&["b"]));
        let mut known = Known::default();
        known.begin(&put);
        for found in [&[][..], &["a"]] {
            assert_eq!(known.judge(&facts(found)), Ok(()));
        }
        known.answer(&put);
        assert!(known.judge(&facts(&[])).is_err());
        known.begin(&swap);
        for found in [&[][..], &["a"], &["b"], &["a", "b"]] {
            assert_eq!(known.judge(&facts(found)), Ok(()));
        }
        known.answer(&swap);
        assert_eq!(known.judge(&facts(&["b"])), Ok(()));
        for found in [&[][..], &["a", "b"], &["b", "c"]] {
            assert!(known.judge(&facts(found)).is_err());
        }
    }
}
