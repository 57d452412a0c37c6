//! `Store.Check`: the store checked, and mended, while its client hears of it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_node::{Finding, FsckReport, FsckRequest, FsckWatcher, Node, Severity};
use cairn_proto::cairn::v1::{
    CheckProgress, CheckReport, CheckResponse, check_response::Part, finding,
};

use super::{
    Answers,
    progress::{Sender, converse},
};
use crate::{details, status::blocking};

/// How often a client is told how far it is.
const PACE: Duration = Duration::from_millis(50);

/// The answers to a request: findings as they come, the report last.
pub(super) fn answers(node: Node, request: FsckRequest) -> Answers<CheckResponse> {
    converse(move |send| async move {
        let teller = send.clone();
        let checked = blocking(move || {
            let teller = Teller {
                send: teller,
                told: Mutex::new(None),
                found: AtomicU64::new(0),
            };
            let report = node.fsck(request.clone(), &teller).map_err(details::of)?;
            let (blobs, snapshots) = (report.blobs, report.snapshots);
            let found = teller.found.into_inner();
            tracing::info!(blobs, snapshots, found, ?request, "checked the store");
            Ok(report)
        });
        let report = Part::Report(self::report(&checked.await?));
        // A client that is gone hears nothing.
        let _ = send.send(Ok(answer(report))).await;
        Ok(())
    })
}

fn answer(part: Part) -> CheckResponse {
    CheckResponse { part: Some(part) }
}

/// The client, to the check.
struct Teller {
    send: Sender<CheckResponse>,
    /// When and of what it was told last.
    told: Mutex<Option<(Instant, &'static str)>>,
    /// What is damaged or lost, and not mended.
    found: AtomicU64,
}

impl FsckWatcher for Teller {
    /// Waits until there is room for it: there is nothing that must not be told.
    fn found(&self, finding: Finding) {
        let Finding {
            kind, name, detail, ..
        } = &finding;
        if matches!(finding.severity, Severity::Damage | Severity::Loss) {
            let left = u64::from(!finding.repaired);
            self.found.fetch_add(left, Ordering::Relaxed);
            // The client says so itself, where it is the same process.
            tracing::info!(kind, name, repaired = finding.repaired, "found: {detail}");
        }
        let part = Part::Finding(self::finding(finding));
        let _ = self.send.blocking_send(Ok(answer(part)));
    }

    fn progress(&self, part: &'static str, done: u64, total: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = done == 0 || done == total;
        let recent = |(at, of): (Instant, &str)| of == part && at.elapsed() < PACE;
        if !ends && told.is_some_and(recent) {
            return;
        }
        *told = Some((Instant::now(), part));
        drop(told);
        let part = part.to_owned();
        let progress = answer(Part::Progress(CheckProgress { part, done, total }));
        // Of how far it is the next message says more.
        let _gone = match ends {
            true => self.send.blocking_send(Ok(progress)).is_err(),
            false => self.send.try_send(Ok(progress)).is_err(),
        };
    }

    fn given_up(&self) -> bool {
        self.send.is_closed()
    }
}

fn finding(finding: Finding) -> cairn_proto::cairn::v1::Finding {
    use finding::Severity as Wire;
    let severity = match finding.severity {
        Severity::Damage => Wire::Damage,
        Severity::Loss => Wire::Loss,
        Severity::Litter => Wire::Litter,
        Severity::Note => Wire::Note,
    };
    cairn_proto::cairn::v1::Finding {
        severity: severity.into(),
        kind: finding.kind.to_owned(),
        object: finding.object.to_owned(),
        name: finding.name,
        namespace: finding
            .namespace
            .map(|ns| ns.to_string())
            .unwrap_or_default(),
        path: finding.path.unwrap_or_default(),
        detail: finding.detail,
        meaning: finding.meaning,
        next: finding.next,
        repaired: finding.repaired,
        action: finding.action,
    }
}

fn report(report: &FsckReport) -> CheckReport {
    CheckReport {
        records: report.records,
        blobs: report.blobs,
        bytes: report.bytes,
        snapshots: report.snapshots,
        images: report.images,
        bundles: report.bundles,
        trees: report.trees,
        took_ms: u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
    }
}
