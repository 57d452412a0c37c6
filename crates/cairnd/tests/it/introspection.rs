//! `Introspection`, `Version`, health, and what is served beside.

use cairn_proto::containerd::services::{
    containers::v1::{ListContainersRequest, containers_client::ContainersClient},
    introspection::v1::{PluginInfoRequest, PluginsRequest},
};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::common::{Server, code};

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_who_it_is() {
    let server = Server::start().await;
    let client = server.nobody();
    let first = client.introspection().server(()).await.expect("server");
    let first = first.into_inner();
    assert_eq!(first.uuid.len(), 36);
    assert_eq!(first.uuid.as_bytes()[14], b'4', "a random one");
    assert_eq!(first.pid, u64::from(std::process::id()));
    assert!(first.pidns > 0);
    let again = client.introspection().server(()).await.expect("server");
    assert_eq!(again.into_inner().uuid, first.uuid);
    let version = client.version().version(()).await.expect("version");
    assert!(!version.into_inner().version.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_find_the_snapshotter_they_ask_for() {
    let server = Server::start().await;
    let client = server.nobody();
    let find = |filters: &[&str]| {
        let request = PluginsRequest {
            filters: filters.iter().map(|f| (*f).to_owned()).collect(),
        };
        let client = client.clone();
        async move {
            let answer = client.introspection().plugins(request).await;
            answer.map(|a| a.into_inner().plugins).map_err(|s| s.code())
        }
    };
    // To the letter what Pull, CRI and every new container ask, the blank included.
    let filter = "type==io.containerd.snapshotter.v1, id==overlayfs";
    let found = find(&[filter]).await.expect("plugins");
    let [plugin] = &*found else {
        panic!("{found:?}")
    };
    assert_eq!(plugin.platforms[0].os, "linux");
    assert!(plugin.capabilities.iter().any(|c| c == "rebase"));
    assert!(plugin.exports.contains_key("root"));
    let all = find(&[]).await.expect("plugins");
    assert!(all.iter().all(|plugin| plugin.init_err.is_none()));
    for (filters, expected) in [
        (&["id==overlayfs"][..], Ok(1)),
        (&["type~=snapshotter", "id==walking"], Ok(2)),
        (&["type==io.containerd.transfer.v1, id==local"], Ok(1)),
        (&["type==io.containerd.streaming.v1, id==manager"], Ok(1)),
        (&["id==transfer", "id==streaming"], Ok(2)),
        (&["capabilities~=rebase"], Ok(0)),
        (&["id="], Err(Code::InvalidArgument)),
    ] {
        let found = find(filters).await.map(|plugins| plugins.len());
        assert_eq!(found, expected, "{filters:?}");
    }
    for (kind, id, expected) in [
        ("io.containerd.snapshotter.v1", "overlayfs", Code::Ok),
        ("io.containerd.snapshotter.v1", "native", Code::NotFound),
        ("", "", Code::NotFound),
    ] {
        let request = PluginInfoRequest {
            r#type: kind.to_owned(),
            id: id.to_owned(),
            options: None,
        };
        let answer = client.introspection().plugin_info(request).await;
        assert_eq!(code(answer), expected, "{kind} {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_serving_and_unknown_services_are_unimplemented() {
    let server = Server::start().await;
    let uri = format!("unix://{}", server.path("sock").display());
    let endpoint = Endpoint::from_shared(uri).expect("address");
    let channel = endpoint.connect().await.expect("connection");
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let answer = HealthClient::new(channel.clone()).check(request).await;
    let answer = answer.expect("check").into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    // Without a namespace, so that being asked for one tells that the service is there.
    let request = ListContainersRequest::default();
    let answer = ContainersClient::new(channel.clone()).list(request).await;
    assert_eq!(code(answer), Code::FailedPrecondition);
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("ready");
    let path = "/containerd.services.tasks.v1.Tasks/List"
        .parse()
        .expect("path");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let answer = grpc.unary(tonic::Request::new(()), path, codec).await;
    assert_eq!(code(answer), Code::Unimplemented);
}
