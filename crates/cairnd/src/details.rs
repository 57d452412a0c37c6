//! A failure with all its parts, for the services that only Cairn's own clients call.
//!
//! containerd's services carry none of this: its Go client takes every detail that it cannot decode
//! for one more error, and prints it.

use cairn_node::Failure;
use cairn_proto::{cairn::v1, google::rpc};
use prost::Message;
use prost_types::Any;
use tonic::Status;

use crate::status;

/// Who says so.
const DOMAIN: &str = "cairn";

/// A failure as a status: one line for everybody, its parts as details.
pub fn of(failure: Failure) -> Status {
    let failure = failure.bounded();
    let parts = v1::Failure {
        kind: failure.kind.code().to_owned(),
        attempted: failure.attempted.clone(),
        object_kind: object(&failure, |(kind, _)| kind),
        object: object(&failure, |(_, name)| name),
        reason: failure.reason.clone(),
        namespace: failure.namespace.clone().unwrap_or_default(),
        found_in: failure.found_in.clone(),
        causes: failure.causes.clone(),
        location: failure.location.clone().unwrap_or_default(),
        next: failure.next.clone(),
        other_platform: failure.other_platform.clone().unwrap_or_default(),
    };
    let info = rpc::ErrorInfo {
        reason: parts.kind.to_ascii_uppercase(),
        domain: DOMAIN.to_owned(),
        metadata: [
            ("kind", &parts.object_kind),
            ("object", &parts.object),
            ("namespace", &parts.namespace),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect(),
    };
    let links = parts.next.iter().map(|step| rpc::help::Link {
        description: step.clone(),
        url: String::new(),
    });
    let help = rpc::Help {
        links: links.collect(),
    };
    let plain = status::of_failure(failure);
    let details = rpc::Status {
        code: plain.code().into(),
        message: plain.message().to_owned(),
        details: vec![
            any("google.rpc.ErrorInfo", &info),
            any("google.rpc.Help", &help),
            any("cairn.v1.Failure", &parts),
        ],
    };
    Status::with_details(
        plain.code(),
        plain.message(),
        details.encode_to_vec().into(),
    )
}

fn object(failure: &Failure, part: impl Fn(&(String, String)) -> &String) -> String {
    failure
        .object
        .as_ref()
        .map(part)
        .cloned()
        .unwrap_or_default()
}

fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{name}"),
        value: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use cairn_types::ErrorKind;

    use super::*;

    /// An image may name thousands of platforms, and a registry quote itself for megabytes.
    #[test]
    fn statuses_have_a_length() {
        let mut failure = Failure::new(ErrorKind::NotFound, "pull image", "x".repeat(4 << 20));
        for _ in 0..10_000 {
            failure = failure.cause("y".repeat(2000)).next("z".repeat(1000));
        }
        let status = of(failure);
        assert!(
            status.message().len() < 20_000,
            "{}",
            status.message().len()
        );
        assert!(
            status.details().len() < 80_000,
            "{}",
            status.details().len()
        );
    }
}
