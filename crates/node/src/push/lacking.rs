//! What is neither here nor there, and what can be done instead.

use cairn_types::{Digest, ErrorKind};

use super::{
    ATTEMPTED, PushRequest,
    plan::{Kind, Part, Place, Plan},
};
use crate::Failure;

/// Causes, and commands, of one message.
const SAID_MAX: usize = 4;

/// Something that the target needs.
pub(super) struct Lack {
    /// The document that is missing, or names what is.
    document: Digest,
    /// `None` for what is for no platform.
    platform: Option<String>,
    missing: String,
    left_out: bool,
    /// What to say of it where it is all there is to say.
    why: Option<Failure>,
}

impl Lack {
    pub(super) fn manifest(part: &Part) -> Lack {
        Lack {
            document: part.descriptor.digest.clone(),
            platform: known(part),
            missing: format!("manifest {} is missing", part.descriptor.digest),
            left_out: matches!(part.kind, Kind::LeftOut),
            why: None,
        }
    }

    pub(super) fn blob(part: &Part, why: &Failure) -> Lack {
        Lack {
            document: part.descriptor.digest.clone(),
            platform: known(part),
            missing: why.reason.clone(),
            left_out: false,
            why: Some(why.clone()),
        }
    }

    pub(super) fn is_of(&self, part: &Part) -> bool {
        self.document == part.descriptor.digest
    }
}

/// Attestations are for an unknown platform.
fn known(part: &Part) -> Option<String> {
    let platform = part.platform.clone();
    platform.filter(|platform| !platform.starts_with("unknown"))
}

impl Part {
    /// Whether all of it can be sent from here.
    pub(super) fn is_whole(&self) -> bool {
        let here = |place: &Place| !matches!(place, Place::Nowhere(_));
        matches!(self.kind, Kind::Sent(_)) && self.pieces.iter().all(|piece| here(&piece.bytes))
    }
}

/// The failure of a push for want of `lacks`.
pub(super) fn incomplete(
    request: &PushRequest,
    plan: &Plan,
    lacks: &[Lack],
    host: &str,
) -> Failure {
    // A single manifest: which platforms there are is of no use.
    if let ([_], Some(why)) = (plan.parts.as_slice(), &lacks[0].why) {
        return why.clone().cause(format!("{host} does not have it either"));
    }
    let mut names: Vec<String> = lacks
        .iter()
        .filter_map(|lack| lack.platform.clone())
        .collect();
    names.dedup();
    let names = match names.as_slice() {
        [] => "a part of it is".to_owned(),
        [one] => format!("{one} is"),
        several => format!("{} are", several.join(", ")),
    };
    let left_out = lacks.iter().all(|lack| lack.left_out);
    let reason = match left_out {
        true => format!("{names} left out, and not at {host} either: its index would have gaps"),
        false => format!("{names} neither here nor at {host}"),
    };
    let mut failure = Failure::new(ErrorKind::NotFound, ATTEMPTED, reason)
        .object("image", &request.name)
        .namespace(&request.ns);
    if !left_out {
        for lack in lacks.iter().take(SAID_MAX) {
            failure = failure.cause(lack.missing.clone());
        }
    }
    let arguments = match request.name == request.remote_name {
        true => request.name.to_string(),
        false => format!("{} {}", request.remote_name, request.name),
    };
    let whole = plan.parts.iter().filter(|part| part.is_whole());
    for platform in whole.filter_map(known).take(SAID_MAX) {
        failure = failure.next(format!(
            "cairn images push --platform {platform} {arguments}"
        ));
    }
    failure.next(match left_out {
        true => format!("cairn images push {arguments}"),
        false => format!("cairn images pull --all-platforms {}", request.name),
    })
}
