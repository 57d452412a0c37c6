//! Requests that lack the message they are about. containerd dies of most of them; here they are wrong.

use cairn_proto::containerd::services::{
    containers::v1::{CreateContainerRequest, UpdateContainerRequest},
    content::v1::UpdateRequest,
    diff::v1::ApplyRequest,
    events::v1::ForwardRequest,
    images::v1::{CreateImageRequest, UpdateImageRequest},
    leases::v1::{AddResourceRequest, DeleteResourceRequest},
    namespaces::v1::{CreateNamespaceRequest, UpdateNamespaceRequest},
    snapshots::v1::UpdateSnapshotRequest,
};
use tonic::Code;

use crate::common::{Server, code};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_asked_for() {
    let server = Server::start().await;
    let client = server.client("n").leased("l").await;
    let id = || "l".to_owned();
    let snapshot = UpdateSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        ..UpdateSnapshotRequest::default()
    };
    let add = AddResourceRequest {
        id: id(),
        resource: None,
    };
    let delete = DeleteResourceRequest {
        id: id(),
        resource: None,
    };
    macro_rules! check {
        ($($service:ident.$call:ident($request:expr);)*) => {
            $(
                let answer = client.$service().$call($request).await;
                let call = concat!(stringify!($service), ".", stringify!($call));
                assert_eq!(code(answer), Code::InvalidArgument, "{call}");
            )*
        };
    }
    check! {
        containers.create(CreateContainerRequest::default());
        containers.update(UpdateContainerRequest::default());
        content.update(UpdateRequest::default());
        snapshots.update(snapshot);
        images.create(CreateImageRequest::default());
        images.update(UpdateImageRequest::default());
        leases.add_resource(add);
        leases.delete_resource(delete);
        namespaces.create(CreateNamespaceRequest::default());
        namespaces.update(UpdateNamespaceRequest::default());
        events.forward(ForwardRequest::default());
        diff.apply(ApplyRequest::default());
    }
}
