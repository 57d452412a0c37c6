//! Who calls: the headers that carry namespace and lease (containerd `pkg/namespaces`, `core/leases`).

use cairn_node::Caller;
use cairn_types::Namespace;
use tonic::{Request, Status, metadata::MetadataMap};

pub(crate) const NAMESPACE: &str = "containerd-namespace";
pub(crate) const LEASE: &str = "containerd-lease";

/// The caller of a request that needs a namespace.
///
/// # Errors
/// `FailedPrecondition` without one, `InvalidArgument` for one that is malformed.
pub fn of<T>(request: &Request<T>) -> Result<Caller, Status> {
    from(request.metadata())
}

/// As [`of`], from the headers alone.
pub fn from(headers: &MetadataMap) -> Result<Caller, Status> {
    let ns = any(headers);
    if ns.is_empty() {
        return Err(Status::failed_precondition(
            "namespace is required: failed precondition",
        ));
    }
    let ns = Namespace::parse(&ns)
        .map_err(|err| Status::invalid_argument(format!("{err}: invalid argument")))?;
    Ok(Caller {
        ns,
        lease: lease(headers),
    })
}

/// Of several the first counts. Clients send what they were given, be it ASCII or not: a header that is
/// no text must not pass for one that is missing, or things would be made under no lease.
fn header(headers: &MetadataMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The lease of a call.
pub(crate) fn lease(headers: &MetadataMap) -> Option<String> {
    header(headers, LEASE)
}

/// The namespace of a call that needs none; empty without one.
pub(crate) fn any(headers: &MetadataMap) -> String {
    header(headers, NAMESPACE).unwrap_or_default()
}
