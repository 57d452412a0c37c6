//! What bundles and mounts still need of the store itself, until the server knows them.

use cairn_node::{Failure, Node};
use cairn_types::ErrorKind;

use super::{Client, Event, Phase, Progress, Result, opened};
use crate::{error::Problem, model};

impl Client {
    /// The store, when it is in this process.
    pub(super) fn node(&self) -> Result<Node> {
        let server = opened();
        server
            .as_ref()
            .map(|server| server.node().clone())
            .ok_or_else(|| {
                let reason = "the daemon does not know bundles and mounts yet";
                Problem::new(ErrorKind::Unimplemented, "", "", reason)
                    .next("leave out --address to work without a daemon")
            })
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        super::status::problem(&cairnd::details::of(failure))
    }
}

/// A moment from its nanoseconds since 1970.
pub(super) fn nanos(nanos: i64) -> model::Time {
    let at = jiff::Timestamp::from_nanosecond(i128::from(nanos));
    model::Time(at.unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

/// Events of the store as the server would tell them.
pub(super) struct Heard<'p>(pub(super) &'p dyn Progress);

impl cairn_node::Progress for Heard<'_> {
    fn event(&self, event: cairn_node::Event) {
        use cairn_node::Phase as Theirs;
        self.0.event(match event {
            cairn_node::Event::Resolved {
                name,
                platform,
                layers,
            } => Event::Resolved {
                name,
                platform,
                layers: layers
                    .into_iter()
                    .map(|(digest, size)| (digest.to_string(), size))
                    .collect(),
            },
            cairn_node::Event::Layer {
                digest,
                phase,
                done,
                total,
            } => Event::Layer {
                digest: digest.to_string(),
                phase: match phase {
                    Theirs::Waiting => Phase::Waiting,
                    Theirs::Fetch => Phase::Fetch,
                    Theirs::FetchUnpack => Phase::FetchUnpack,
                    Theirs::Unpack => Phase::Unpack,
                    Theirs::Sync => Phase::Sync,
                    Theirs::Done => Phase::Done,
                    Theirs::HereAlready => Phase::HereAlready,
                },
                done,
                total,
            },
            cairn_node::Event::Done => Event::Done,
        });
    }
}
