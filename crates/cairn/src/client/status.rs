//! What a status says, for people: the parts that Cairn's own services send along, or what can be
//! told from the code and the line of any other.

use std::path::Path;

use cairn_proto::{cairn::v1, google::rpc};
use cairn_types::ErrorKind;
use prost::Message;
use tonic::{Code, Status};

use super::some;
use crate::error::Problem;

/// A status as a problem. One without Cairn's details has neither verb nor object: the caller knows
/// them.
pub(super) fn problem(status: &Status) -> Problem {
    if let Some(parts) = parts(status) {
        return of_parts(parts);
    }
    if is_unknown(status) {
        let reason = "the server there does not know this call";
        return Problem::new(ErrorKind::Unimplemented, "", "", reason)
            .next("compare its version with this one's: cairn version");
    }
    let (kind, words) = cairnd::status::class(status.code()).unwrap_or((ErrorKind::Internal, ""));
    let message = status.message();
    let told = message.strip_suffix(words);
    let told = told.and_then(|rest| rest.strip_suffix(": "));
    let reason = told.filter(|_| !words.is_empty()).unwrap_or(message);
    Problem::new(kind, "", "", reason)
}

/// What frameworks say for a service or method that is not there; ours says nothing, Go's a line.
fn is_unknown(status: &Status) -> bool {
    let message = status.message();
    status.code() == Code::Unimplemented && (message.is_empty() || message.starts_with("unknown "))
}

/// A daemon that was meant and does not answer.
pub(super) fn unreachable(socket: &Path, kind: ErrorKind, reason: &str) -> Problem {
    let mut problem = Problem::new(kind, "reach cairnd at", "", reason);
    problem.object = Some(("daemon".to_owned(), socket.display().to_string()));
    problem
}

fn parts(status: &Status) -> Option<v1::Failure> {
    let details = rpc::Status::decode(status.details()).ok()?;
    let ours = |any: &&prost_types::Any| any.type_url.ends_with("/cairn.v1.Failure");
    let any = details.details.iter().find(ours)?;
    v1::Failure::decode(&*any.value).ok()
}

fn of_parts(parts: v1::Failure) -> Problem {
    let kind = ErrorKind::from_code(&parts.kind).unwrap_or(ErrorKind::Internal);
    let mut problem = Problem::new(kind, &parts.attempted, "", parts.reason);
    problem.object = some(parts.object).map(|name| (parts.object_kind, name));
    // `default (2 images; …)`: no namespace has a blank in its name.
    let note = parts.namespace.strip_suffix(')');
    let note = note.and_then(|text| text.split_once(" ("));
    match note {
        Some((name, note)) => {
            problem.namespace = Some(name.to_owned());
            problem.namespace_note = Some(note.to_owned());
        }
        None => problem.namespace = some(parts.namespace),
    }
    problem.found_in = parts.found_in;
    problem.causes = parts.causes;
    problem.location = some(parts.location);
    problem.next = parts.next;
    problem.other_platform = some(parts.other_platform);
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_at_the_end_of_a_line_is_said_by_the_code() {
        let of = |code, text: &str| problem(&Status::new(code, text)).reason.clone();
        assert_eq!(of(Code::NotFound, "lease \"x\": not found"), "lease \"x\"");
        assert_eq!(of(Code::NotFound, "not found"), "not found");
        assert_eq!(
            of(Code::NotFound, "image was not found"),
            "image was not found"
        );
        assert_eq!(of(Code::Unknown, "odd"), "odd");
        assert_eq!(of(Code::Unimplemented, "no: not implemented"), "no");
        let unknown = of(Code::Unimplemented, "unknown service cairn.v1.Store");
        assert_eq!(unknown, "the server there does not know this call");
    }
}
