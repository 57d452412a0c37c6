//! What scrubs have come to, in the words of `cairn.v1`.

use cairn_meta::Timestamp;
use cairn_node::{Found, ScrubStatus};
use cairn_proto::cairn::v1::{Finding, Scrub, finding::Severity};

use crate::convert;

pub(super) fn wire(status: ScrubStatus) -> Scrub {
    let time = |nanos| convert::time(Timestamp(nanos));
    let under_way = status.under_way.unwrap_or_default();
    let ended_at = status.last.as_ref().map(|last| time(last.ended_at));
    let last = status.last.unwrap_or_default();
    Scrub {
        running: status.is_running,
        began_at: status.under_way.map(|under_way| time(under_way.began_at)),
        done: under_way.done,
        total: under_way.total,
        ended_at,
        blobs: last.blobs,
        bytes: last.bytes,
        trees: last.trees,
        unproven: last.unproven,
        findings: status.findings.into_iter().map(finding).collect(),
    }
}

fn finding(found: Found) -> Finding {
    let severity = match found.is_loss {
        true => Severity::Loss,
        false => Severity::Damage,
    };
    Finding {
        severity: severity.into(),
        kind: found.kind,
        object: found.object,
        name: found.name,
        namespace: found.namespace.unwrap_or_default(),
        path: found.path.unwrap_or_default(),
        detail: found.detail,
        meaning: found.meaning,
        next: found.next,
        repaired: false,
        action: String::new(),
    }
}
