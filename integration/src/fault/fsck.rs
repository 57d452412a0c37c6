//! What `fsck` says of a store after a fault or a power cut: nothing that is not explained.

use std::process::Output;

use serde_json::Value;

use super::Verdict;

/// Notes of which nothing is wrong: an upload of which nothing has come, a lease on what is still to
/// come, and a container's files, of which there is no blob to hold them against.
const EXPLAINED: [&str; 3] = ["ingest-empty", "lease-holds", "snapshot-unproven"];

/// Whether it found nothing else; how many trees it held against their blobs.
pub(crate) fn clean(output: &Output) -> Verdict<u64> {
    let told = || String::from_utf8_lossy(&output.stderr).into_owned();
    let document: Value = serde_json::from_slice(&output.stdout)
        .map_err(|err| format!("fsck ended with {}: {err}\n{}", output.status, told()))?;
    let findings = document["findings"].as_array();
    let findings = findings.ok_or_else(|| format!("fsck says {document}"))?;
    let explained = |finding: &&Value| {
        let kind = finding["kind"].as_str().unwrap_or_default();
        finding["severity"] == "note" && EXPLAINED.contains(&kind)
    };
    let wrong: Vec<String> = findings
        .iter()
        .filter(|finding| !explained(finding))
        .map(Value::to_string)
        .collect();
    if !wrong.is_empty() {
        return Err(format!("fsck finds\n{}", wrong.join("\n")));
    }
    match output.status.success() {
        true => Ok(document["checked"]["trees"].as_u64().unwrap_or(0)),
        false => Err(format!("fsck ended with {}:\n{}", output.status, told())),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    use serde_json::json;

    use super::*;

    fn judged(code: i32, findings: &Value) -> Verdict<u64> {
        let document = json!({"findings": findings, "checked": {"trees": 2}});
        clean(&Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: document.to_string().into_bytes(),
            stderr: Vec::new(),
        })
    }

    #[test]
    fn what_is_not_explained_is_wrong() {
        let note = json!({"severity": "note", "kind": "lease-holds"});
        assert_eq!(judged(0, &json!([])), Ok(2));
        assert_eq!(judged(0, &json!([note])), Ok(2));
        assert!(judged(1, &json!([])).is_err());
        for severity in ["damage", "loss", "litter", "note"] {
            let other = json!({"severity": severity, "kind": "file-unrecorded"});
            assert!(judged(0, &json!([note, other])).is_err(), "{severity}");
        }
    }
}
