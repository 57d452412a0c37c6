//! `Namespaces`, and the header that every other service wants.

use cairn_proto::containerd::services::{
    content::v1::{InfoRequest, ListContentRequest},
    images::v1::ListImagesRequest,
    leases::v1::{CreateRequest, DeleteRequest, ListRequest},
    namespaces::v1::{
        CreateNamespaceRequest, DeleteNamespaceRequest, GetNamespaceRequest, ListNamespacesRequest,
        Namespace, UpdateNamespaceRequest,
    },
    snapshots::v1::{ListSnapshotsRequest, PrepareSnapshotRequest},
};
use tonic::Code;

use crate::common::{Client, Server, code, long_label, map, mask, write};

fn namespace(name: &str, labels: &[(&str, &str)]) -> Option<Namespace> {
    Some(Namespace {
        name: name.to_owned(),
        labels: map(labels),
    })
}

async fn create(client: &Client, name: &str, labels: &[(&str, &str)]) -> Code {
    let namespace = namespace(name, labels);
    code(
        client
            .namespaces()
            .create(CreateNamespaceRequest { namespace })
            .await,
    )
}

async fn update(client: &Client, name: &str, labels: &[(&str, &str)], paths: &[&str]) -> Code {
    let request = UpdateNamespaceRequest {
        namespace: namespace(name, labels),
        update_mask: mask(paths),
    };
    code(client.namespaces().update(request).await)
}

async fn delete(client: &Client, name: &str) -> Code {
    let request = DeleteNamespaceRequest {
        name: name.to_owned(),
    };
    code(client.namespaces().delete(request).await)
}

async fn labels(client: &Client, name: &str) -> Vec<(String, String)> {
    let request = GetNamespaceRequest {
        name: name.to_owned(),
    };
    let got = client.namespaces().get(request).await.expect("get");
    let namespace = got.into_inner().namespace.expect("namespace");
    assert_eq!(namespace.name, name);
    namespace.labels.into_iter().collect()
}

async fn list(client: &Client) -> Vec<String> {
    let request = ListNamespacesRequest::default();
    let listed = client.namespaces().list(request).await.expect("list");
    let listed = listed.into_inner().namespaces;
    listed.into_iter().map(|ns| ns.name).collect()
}

/// Each call of a service without a header, and with one that is no name.
async fn with_header(client: &Client) -> Vec<(&'static str, Code)> {
    let sn = || "overlayfs".to_owned();
    let prepare = PrepareSnapshotRequest {
        snapshotter: sn(),
        key: "k".to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    let list = ListSnapshotsRequest {
        snapshotter: sn(),
        ..ListSnapshotsRequest::default()
    };
    vec![
        (
            "content list",
            code(client.content().list(ListContentRequest::default()).await),
        ),
        (
            "images list",
            code(client.images().list(ListImagesRequest::default()).await),
        ),
        (
            "leases list",
            code(client.leases().list(ListRequest::default()).await),
        ),
        (
            "leases create",
            code(client.leases().create(CreateRequest::default()).await),
        ),
        (
            "snapshots prepare",
            code(client.snapshots().prepare(prepare).await),
        ),
        ("snapshots list", code(client.snapshots().list(list).await)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_is_required_and_checked() {
    let server = Server::start().await;
    // containerd answers Unknown in Snapshots.List, since that one call forgets to map its errors; the
    // precise class tells a client more and misleads none.
    for (call, answer) in with_header(&server.nobody()).await {
        assert_eq!(answer, Code::FailedPrecondition, "{call} without a header");
    }
    for (call, answer) in with_header(&server.client("")).await {
        assert_eq!(
            answer,
            Code::FailedPrecondition,
            "{call} with an empty header"
        );
    }
    for name in ["a/b", "-a", "a..b", "ä", &"n".repeat(77)] {
        for (call, answer) in with_header(&server.client(name)).await {
            assert_eq!(answer, Code::InvalidArgument, "{call} in {name:?}");
        }
    }
    // A wrong digest is noticed before a missing namespace.
    let request = InfoRequest {
        digest: "nonsense".to_owned(),
    };
    let answer = server.nobody().content().info(request).await;
    assert_eq!(code(answer), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_follow_the_rule_of_identifiers() {
    let server = Server::start().await;
    let client = server.nobody();
    let longest = "n".repeat(76);
    let good = ["a", "A9", "a.b-c_d", "k8s.io", &longest];
    for name in good {
        assert_eq!(create(&client, name, &[]).await, Code::Ok, "{name:?}");
        assert_eq!(
            create(&client, name, &[]).await,
            Code::AlreadyExists,
            "{name:?}"
        );
    }
    let longer = "n".repeat(77);
    let bad = [
        "", "-a", "a-", "a..b", "a.-b", "a/b", "a b", "ä", ".", &longer,
    ];
    for name in bad {
        assert_eq!(
            create(&client, name, &[]).await,
            Code::InvalidArgument,
            "{name:?}"
        );
        // containerd answers Unknown in Update and Delete, from a layer below that has no classes.
        let updated = update(&client, name, &[("k", "v")], &[]).await;
        assert_eq!(updated, Code::InvalidArgument, "{name:?}");
        assert_eq!(
            delete(&client, name).await,
            Code::InvalidArgument,
            "{name:?}"
        );
        // Get answers for any name.
        assert_eq!(labels(&client, name).await, []);
    }
    let mut listed: Vec<String> = good.iter().map(|name| (*name).to_owned()).collect();
    listed.sort();
    assert_eq!(list(&client).await, listed, "in bytewise order");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_replaced_or_masked() {
    let server = Server::start().await;
    let client = server.nobody();
    let pairs = |pairs: &[(&str, &str)]| map(pairs).into_iter().collect::<Vec<_>>();
    assert_eq!(
        create(&client, "n", &[("a", "1"), ("empty", "")]).await,
        Code::Ok
    );
    assert_eq!(labels(&client, "n").await, pairs(&[("a", "1")]));
    // (labels of the request, mask, code, labels after)
    type Row<'r> = (
        &'r [(&'r str, &'r str)],
        &'r [&'r str],
        Code,
        &'r [(&'r str, &'r str)],
    );
    let rows: &[Row<'_>] = &[
        (
            &[("b", "2"), ("c", "3")],
            &["labels.b"],
            Code::Ok,
            &[("a", "1"), ("b", "2")],
        ),
        (&[("a", "")], &["labels.a"], Code::Ok, &[("b", "2")]),
        (&[], &["labels.b"], Code::Ok, &[]),
        (&[("x", "1")], &[], Code::Ok, &[("x", "1")]),
        // Unlike other services', this mask knows single labels only.
        (
            &[("y", "1")],
            &["labels"],
            Code::InvalidArgument,
            &[("x", "1")],
        ),
        (
            &[("y", "1")],
            &["name"],
            Code::InvalidArgument,
            &[("x", "1")],
        ),
        (
            &[("y", "1")],
            &["labels.y", "name"],
            Code::InvalidArgument,
            &[("x", "1")],
        ),
        (&[("y", "1")], &[], Code::Ok, &[("y", "1")]),
    ];
    for (asked, paths, expected, after) in rows {
        let answer = update(&client, "n", asked, paths).await;
        assert_eq!(answer, *expected, "{asked:?} by {paths:?}");
        assert_eq!(
            labels(&client, "n").await,
            pairs(after),
            "{asked:?} by {paths:?}"
        );
    }
    let (key, value) = long_label();
    assert_eq!(
        create(&client, "long", &[(&key, &value)]).await,
        Code::InvalidArgument
    );
    assert_eq!(
        update(&client, "n", &[(&key, &value)], &[]).await,
        Code::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn updating_makes_a_namespace_only_by_a_label() {
    let server = Server::start().await;
    let client = server.nobody();
    assert_eq!(update(&client, "none", &[], &[]).await, Code::Ok);
    assert_eq!(list(&client).await, Vec::<String>::new());
    assert_eq!(update(&client, "some", &[("k", "v")], &[]).await, Code::Ok);
    assert_eq!(list(&client).await, ["some"]);
    let request = UpdateNamespaceRequest {
        namespace: namespace("some", &[("k", "v")]),
        update_mask: None,
    };
    let answer = client.namespaces().update(request).await.expect("update");
    assert_eq!(
        answer.into_inner().namespace,
        None,
        "containerd's is empty, too"
    );
}

/// As of what else is made in one, also when it is gone again (containerd 2.1.9).
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_makes_a_namespace() {
    let server = Server::start().await;
    let client = server.client("n");
    client.leased("lease").await;
    assert_eq!(list(&client).await, ["n"]);
    let id = "lease".to_owned();
    let request = DeleteRequest { id, sync: true };
    client.leases().delete(request).await.expect("delete");
    assert_eq!(list(&client).await, ["n"]);
    assert_eq!(create(&client, "n", &[]).await, Code::AlreadyExists);
    assert_eq!(delete(&client, "n").await, Code::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_holds_keeps_a_namespace() {
    let server = Server::start().await;
    let client = server.client("n");
    let digest = client.put("blob", &[]).await;
    assert_eq!(list(&client).await, ["n"], "writing made it");
    assert_eq!(create(&client, "n", &[]).await, Code::AlreadyExists);
    assert_eq!(delete(&client, "n").await, Code::FailedPrecondition);
    let request = cairn_proto::containerd::services::content::v1::DeleteContentRequest { digest };
    client.content().delete(request).await.expect("delete");

    let prepare = PrepareSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        key: "k".to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    client.snapshots().prepare(prepare).await.expect("prepare");
    assert_eq!(delete(&client, "n").await, Code::FailedPrecondition);
    let remove = cairn_proto::containerd::services::snapshots::v1::RemoveSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        key: "k".to_owned(),
    };
    client.snapshots().remove(remove).await.expect("remove");

    // Leases and uploads do not.
    client.leased("lease").await;
    client
        .write_one(write("r", 0, b"begun"))
        .await
        .expect("write");
    assert_eq!(delete(&client, "n").await, Code::Ok);
    assert_eq!(delete(&client, "n").await, Code::NotFound);
    assert_eq!(list(&client).await, Vec::<String>::new());
}
