//! The methods of the API, with what the daemon has to know of each: read from the descriptors, so
//! that no method is forgotten, and so that a stranger's path never becomes a label of a figure.

use std::collections::HashMap;

use prost::Message;
use prost_types::FileDescriptorSet;

/// How many messages go either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "gRPC's own words")]
pub enum Kind {
    Unary,
    ClientStream,
    ServerStream,
    BidiStream,
}

impl Kind {
    /// As the figures of gRPC servers name it.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Unary => "unary",
            Kind::ClientStream => "client_stream",
            Kind::ServerStream => "server_stream",
            Kind::BidiStream => "bidi_stream",
        }
    }
}

/// What a call does to the store when it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// It adds or alters.
    Change,
    /// It may leave something that nothing refers to.
    Removal,
    /// As [`Effect::Removal`] or nothing, by what is asked for: the service itself refuses what it must.
    Asked,
}

/// A method of a service.
#[derive(Clone, Debug)]
pub struct Method {
    /// Package and service.
    pub service: String,
    /// Its name there.
    pub name: String,
    /// Streams.
    pub kind: Kind,
    /// What it changes.
    pub effect: Effect,
    /// The answer goes on until the client has enough.
    pub endless: bool,
}

impl Method {
    /// What calls of methods that are not served count as.
    pub fn unknown() -> Method {
        Method {
            service: "unknown".to_owned(),
            name: "unknown".to_owned(),
            kind: Kind::Unary,
            effect: Effect::None,
            endless: false,
        }
    }

    fn of(service: &str, name: &str, kind: Kind) -> Method {
        Method {
            service: service.to_owned(),
            name: name.to_owned(),
            kind,
            effect: effect(service, name),
            endless: matches!(
                (service, name),
                ("containerd.services.events.v1.Events", "Subscribe")
                    | ("grpc.health.v1.Health", "Watch")
            ),
        }
    }
}

/// All methods by their paths, `/package.Service/Method`.
pub fn all() -> HashMap<String, Method> {
    let mut methods = HashMap::new();
    let sets = [
        cairn_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    ];
    for set in sets {
        let set = FileDescriptorSet::decode(set).expect("descriptors are made by the build");
        for file in &set.file {
            for service in &file.service {
                let service_name = format!("{}.{}", file.package(), service.name());
                for method in &service.method {
                    let kind = match (method.client_streaming(), method.server_streaming()) {
                        (false, false) => Kind::Unary,
                        (true, false) => Kind::ClientStream,
                        (false, true) => Kind::ServerStream,
                        (true, true) => Kind::BidiStream,
                    };
                    let path = format!("/{service_name}/{}", method.name());
                    methods.insert(path, Method::of(&service_name, method.name(), kind));
                }
            }
        }
    }
    methods
}

/// Of Cairn's own services.
fn own_effect(service: &str, name: &str) -> Effect {
    match (service, name) {
        // A name that points elsewhere now lets go of what it pointed to.
        ("Images", "Import" | "Pull" | "Tag" | "Remove" | "ReleaseMount")
        | ("Store", "RemoveBlob" | "RemoveSnapshot")
        | ("Bundles", "Drop") => Effect::Removal,
        ("Store", "Check") => Effect::Asked,
        ("Images", "PrepareMount") | ("Bundles", "Begin" | "Complete" | "Withdraw") => {
            Effect::Change
        }
        _ => Effect::None,
    }
}

/// As containerd's metadata store counts: what it calls dirty is a removal here.
fn effect(service: &str, name: &str) -> Effect {
    if let Some(service) = service.strip_prefix("cairn.v1.") {
        return own_effect(service, name);
    }
    let service = service.strip_prefix("containerd.services.").unwrap_or("");
    match (service, name) {
        (
            "containers.v1.Containers"
            | "content.v1.Content"
            | "images.v1.Images"
            | "leases.v1.Leases"
            | "namespaces.v1.Namespaces",
            "Delete",
        )
        | ("snapshots.v1.Snapshots", "Remove")
        | ("leases.v1.Leases", "DeleteResource")
        | ("content.v1.Content", "Abort")
        // An image or a label that points elsewhere now lets go of what it pointed to.
        | ("images.v1.Images" | "content.v1.Content" | "snapshots.v1.Snapshots", "Update") => {
            Effect::Removal
        }
        ("transfer.v1.Transfer", "Transfer") => Effect::Asked,
        (
            _,
            "Create" | "Update" | "Write" | "Prepare" | "View" | "Commit" | "Apply" | "Diff"
            | "AddResource",
        ) if !service.is_empty() => Effect::Change,
        _ => Effect::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known() {
        let all = all();
        let method = |path: &str| {
            all.get(path)
                .unwrap_or_else(|| panic!("{path} is not known"))
        };
        let write = method("/containerd.services.content.v1.Content/Write");
        assert_eq!(
            (write.kind, write.effect),
            (Kind::BidiStream, Effect::Change)
        );
        let delete = method("/containerd.services.images.v1.Images/Delete");
        assert_eq!((delete.kind, delete.effect), (Kind::Unary, Effect::Removal));
        assert!(method("/containerd.services.events.v1.Events/Subscribe").endless);
        assert!(method("/grpc.health.v1.Health/Watch").endless);
        let import = method("/cairn.v1.Images/Import");
        assert_eq!(
            (import.kind, import.effect),
            (Kind::BidiStream, Effect::Removal)
        );
        let transfer = method("/containerd.services.transfer.v1.Transfer/Transfer");
        assert_eq!(
            (transfer.kind, transfer.effect),
            (Kind::Unary, Effect::Asked)
        );
        let stream = method("/containerd.services.streaming.v1.Streaming/Stream");
        assert_eq!(
            (stream.kind, stream.effect),
            (Kind::BidiStream, Effect::None)
        );
        let list = method("/containerd.services.snapshots.v1.Snapshots/List");
        assert_eq!((list.kind, list.effect), (Kind::ServerStream, Effect::None));
    }
}
