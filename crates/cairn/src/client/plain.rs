//! What containerd's services leave to be said: their statuses are one line and a class, and the
//! caller knows verb, object and namespace.

use cairn_types::ErrorKind;
use jiff::Timestamp;
use tonic::Request;

use super::{Client, Result};
use crate::{error::Problem, model};

/// Keeps its object from collections (containerd `core/metadata/gc.go`).
pub(super) const GC_ROOT: &str = "containerd.io/gc.root";

/// The header that says which lease is to hold what a call makes.
const LEASE: &str = "containerd-lease";

impl Client {
    /// Completes the problem of a plain status: `cannot ATTEMPTED NAME`, in this namespace.
    pub(super) fn explain(
        &self,
        attempted: &str,
        (kind, name): (&str, &str),
        problem: Problem,
    ) -> Problem {
        let mut problem = explain(attempted, (kind, name), problem);
        if problem.namespace.is_none() {
            problem.namespace = Some(self.namespace().to_string());
        }
        problem
    }

    /// A request whose results a lease holds.
    pub(super) fn leased<T>(&self, message: T, lease: Option<&str>) -> Result<Request<T>> {
        let mut request = self.link.request(message);
        if let Some(id) = lease {
            let value = id.parse().map_err(|_| {
                let reason = "its id has characters that no header can carry";
                Problem::new(ErrorKind::InvalidArgument, "use lease", id, reason)
            })?;
            request.metadata_mut().insert(LEASE, value);
        }
        Ok(request)
    }
}

/// As [`Client::explain`], about what is in no namespace.
pub(super) fn explain(
    attempted: &str,
    (kind, name): (&str, &str),
    mut problem: Problem,
) -> Problem {
    if !problem.attempted.is_empty() {
        return problem; // It came with all its parts.
    }
    problem.attempted = attempted.to_owned();
    problem.object = (!name.is_empty()).then(|| (kind.to_owned(), name.to_owned()));
    // The rooms below name the object again, each in its own way.
    match problem.kind {
        ErrorKind::NotFound => "not found".clone_into(&mut problem.reason),
        ErrorKind::AlreadyExists => "already exists".clone_into(&mut problem.reason),
        _ => {
            let verb = attempted.split(' ').next().unwrap_or_default();
            let whole = format!("cannot {attempted} {name}: ");
            let rest = problem.reason.strip_prefix(&whole).or_else(|| {
                let said = problem.reason.strip_prefix("cannot ")?.strip_prefix(verb)?;
                said.split_once(": ").map(|(_, rest)| rest)
            });
            if let Some(rest) = rest {
                problem.reason = rest.to_owned();
            }
        }
    }
    problem
}

/// A moment on the wire; one outside of what a calendar holds, or none, is its start.
pub(super) fn time(time: Option<prost_types::Timestamp>) -> model::Time {
    let at = time.and_then(|t| Timestamp::new(t.seconds, t.nanos).ok());
    model::Time(at.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// A count that the wire has with a sign.
pub(super) fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_not_said_twice() {
        let of = |kind, text: &str| {
            let problem = Problem::new(kind, "", "", text);
            explain("remove namespace", ("namespace", "dev"), problem).message()
        };
        assert_eq!(
            of(
                ErrorKind::FailedPrecondition,
                "cannot remove namespace dev: it holds 2 images"
            ),
            "cannot remove namespace dev: it holds 2 images"
        );
        assert_eq!(
            of(
                ErrorKind::Unimplemented,
                "cannot remove namespaces: never: no"
            ),
            "cannot remove namespace dev: never: no"
        );
        assert_eq!(
            of(ErrorKind::NotFound, "namespace \"dev\""),
            "cannot remove namespace dev: not found"
        );
        assert_eq!(
            of(ErrorKind::Internal, "disk on fire"),
            "cannot remove namespace dev: disk on fire"
        );
        let whole = Problem::new(ErrorKind::NotFound, "list images", "", "no");
        assert_eq!(
            explain("remove namespace", ("namespace", "dev"), whole.clone()),
            whole
        );
    }
}
