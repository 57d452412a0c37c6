//! The store checked. Findings come while it is, and so does how far it is.

use cairn_proto::cairn::v1::{
    self, CheckRequest, check_response::Part, finding::Severity, store_client::StoreClient,
};
use cairn_types::{ErrorKind, Namespace};

use super::{Client, Event, Phase, Progress, Result, link::client, some};
use crate::{error::Problem, model};

impl Client {
    /// Checks the store, or what is `only` of one namespace, and mends it if asked to.
    pub fn fsck(
        &self,
        deep: bool,
        repair: bool,
        only: Option<&Namespace>,
        progress: &dyn Progress,
    ) -> Result<model::Fsck> {
        let mut findings = Vec::new();
        let report = self.link.run(async {
            let mut store = client!(self.link, StoreClient<_>);
            let answers = store.check(self.link.request(CheckRequest {
                deep,
                repair,
                namespace: only.map(Namespace::to_string).unwrap_or_default(),
            }));
            let answers = answers.await.map_err(|status| self.link.problem(&status))?;
            let mut answers = answers.into_inner();
            let mut part = String::new();
            loop {
                let answer = answers.message().await;
                let Some(answer) = answer.map_err(|status| self.link.problem(&status))? else {
                    let reason = "the server's answer ended before the work did";
                    return Err(Problem::new(ErrorKind::Internal, "", "", reason));
                };
                match answer.part {
                    Some(Part::Progress(told)) => tell(progress, told, &mut part),
                    Some(Part::Finding(found)) => findings.push(finding(found)),
                    Some(Part::Report(report)) => return Ok(report),
                    None => {}
                }
            }
        })?;
        progress.event(Event::Done);
        Ok(model::Fsck {
            deep,
            repair,
            checked: model::Checked {
                records: report.records,
                blobs: report.blobs,
                bytes: report.bytes,
                snapshots: report.snapshots,
                images: report.images,
                bundles: report.bundles,
                trees: report.trees,
            },
            findings,
            wall_ms: report.took_ms,
        })
    }
}

/// A part of a check is shown as a layer of some work is; the last one it was about is in `part`.
fn tell(progress: &dyn Progress, told: v1::CheckProgress, part: &mut String) {
    let v1::CheckProgress {
        part: now,
        done,
        total,
    } = told;
    if *part != now {
        progress.event(Event::Resolved {
            name: now.clone(),
            platform: String::new(),
            layers: vec![(now.clone(), total)],
        });
        part.clone_from(&now);
    }
    let phase = match done == total {
        true => Phase::Done,
        false => Phase::Check,
    };
    progress.event(Event::Layer {
        digest: now,
        phase,
        done,
        total,
    });
}

/// One of a weight that only a later server knows weighs as much as any.
pub(super) fn finding(found: v1::Finding) -> model::Finding {
    let severity = match found.severity() {
        Severity::Unspecified | Severity::Damage => "damage",
        Severity::Loss => "loss",
        Severity::Litter => "litter",
        Severity::Note => "note",
    };
    model::Finding {
        severity,
        kind: found.kind,
        object: found.object,
        name: found.name,
        namespace: some(found.namespace),
        path: some(found.path),
        detail: found.detail,
        meaning: found.meaning,
        next: found.next,
        repaired: found.repaired,
        action: some(found.action),
    }
}
