//! The daemon's services as a client of one namespace and one lease calls them, and what it thinks of
//! the answers.

use std::collections::BTreeMap;

use cairn_proto::{
    cairn::v1::store_client::StoreClient,
    containerd::services::{
        content::v1::content_client::ContentClient, diff::v1::diff_client::DiffClient,
        events::v1::events_client::EventsClient, images::v1::images_client::ImagesClient,
        leases::v1::leases_client::LeasesClient,
        namespaces::v1::namespaces_client::NamespacesClient,
        snapshots::v1::snapshots_client::SnapshotsClient,
        transfer::v1::transfer_client::TransferClient, version::v1::version_client::VersionClient,
    },
};
use tonic::{
    Code, Request, Response, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// As containerd's clients have it.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What is wrong with an answer.
pub(crate) type Verdict<T = ()> = Result<T, String>;

/// The headers of every call.
#[derive(Clone)]
pub(crate) struct Headers {
    ns: String,
    lease: Option<String>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        let header = |text: &str| {
            text.parse()
                .map_err(|_| Status::invalid_argument("no header"))
        };
        metadata.insert("containerd-namespace", header(&self.ns)?);
        if let Some(lease) = &self.lease {
            metadata.insert("containerd-lease", header(lease)?);
        }
        Ok(request)
    }
}

type Intercepted = InterceptedService<Channel, Headers>;

/// Typed clients over one connection.
#[derive(Clone)]
pub(crate) struct Api {
    channel: Channel,
    headers: Headers,
}

impl Api {
    /// Connects.
    pub(crate) async fn connect(socket: &str, ns: &str) -> Verdict<Api> {
        let endpoint = Endpoint::from_shared(format!("unix://{socket}"));
        let endpoint = endpoint.map_err(|err| format!("{socket}: {err}"))?;
        let channel = endpoint.connect().await;
        Ok(Api {
            channel: channel.map_err(|err| format!("connect to {socket}: {err:?}"))?,
            headers: Headers {
                ns: ns.to_owned(),
                lease: None,
            },
        })
    }

    /// The same in another namespace, without a lease.
    pub(crate) fn within(&self, ns: &str) -> Api {
        Api {
            channel: self.channel.clone(),
            headers: Headers {
                ns: ns.to_owned(),
                lease: None,
            },
        }
    }

    /// The same under a lease.
    pub(crate) fn under(&self, lease: &str) -> Api {
        let mut api = self.clone();
        api.headers.lease = Some(lease.to_owned());
        api
    }

    /// The namespace.
    pub(crate) fn ns(&self) -> &str {
        &self.headers.ns
    }
}

macro_rules! clients {
    ($($name:ident: $client:ident),* $(,)?) => {
        impl Api {
            $(pub(crate) fn $name(&self) -> $client<Intercepted> {
                $client::with_interceptor(self.channel.clone(), self.headers.clone())
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
            })*
        }
    };
}
clients! {
    content: ContentClient, diff: DiffClient, events: EventsClient, images: ImagesClient,
    leases: LeasesClient, namespaces: NamespacesClient, snapshots: SnapshotsClient,
    store: StoreClient, transfers: TransferClient, version: VersionClient,
}

/// It has to succeed.
pub(crate) fn good<T>(what: &str, answer: Result<Response<T>, Status>) -> Verdict<T> {
    match answer {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(told(what, &status)),
    }
}

/// It has to be refused with this code.
pub(crate) fn refused<T>(what: &str, answer: Result<T, Status>, code: Code) -> Verdict {
    match answer {
        Err(status) if status.code() == code => Ok(()),
        Err(status) => Err(format!("{}, not {code:?}", told(what, &status))),
        Ok(_) => Err(format!("{what}: not refused with {code:?}")),
    }
}

/// It has to succeed or to be refused with one of these, since others do the same at that time.
pub(crate) fn either<T>(
    what: &str,
    answer: Result<Response<T>, Status>,
    codes: &[Code],
) -> Verdict<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if codes.contains(&status.code()) => Ok(None),
        Err(status) => Err(told(what, &status)),
    }
}

/// A status for people.
pub(crate) fn told(what: &str, status: &Status) -> String {
    format!("{what}: {:?}: {}", status.code(), status.message())
}

/// It has to be so.
pub(crate) fn check(so: bool, what: impl FnOnce() -> String) -> Verdict {
    match so {
        true => Ok(()),
        false => Err(what()),
    }
}

/// Labels.
pub(crate) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    pairs.iter().map(owned).collect()
}
