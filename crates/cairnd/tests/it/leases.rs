//! `Leases`: the calls, and what the header does to other services' calls.

use cairn_proto::containerd::services::{
    images::v1::{CreateImageRequest, Image},
    leases::v1::{
        AddResourceRequest, CreateRequest, DeleteRequest, DeleteResourceRequest, ListRequest,
        ListResourcesRequest, Resource,
    },
    snapshots::v1::{CommitSnapshotRequest, PrepareSnapshotRequest, ViewSnapshotRequest},
};
use tonic::Code;

use crate::common::{Client, Server, code, commit, descriptor, expecting, map, sha256, write};

const SNAPSHOTS: &str = "snapshots/overlayfs";

async fn create(client: &Client, id: &str) -> Code {
    let request = CreateRequest {
        id: id.to_owned(),
        ..CreateRequest::default()
    };
    code(client.leases().create(request).await)
}

async fn list(client: &Client, filters: &[&str]) -> Result<Vec<String>, Code> {
    let request = ListRequest {
        filters: filters.iter().map(|f| (*f).to_owned()).collect(),
    };
    let listed = client.leases().list(request).await;
    let leases = listed.map_err(|status| status.code())?.into_inner().leases;
    Ok(leases.into_iter().map(|lease| lease.id).collect())
}

async fn change(client: &Client, lease: &str, kind: &str, id: &str, add: bool) -> Code {
    let resource = Some(Resource {
        id: id.to_owned(),
        r#type: kind.to_owned(),
    });
    let id = lease.to_owned();
    let mut leases = client.leases();
    match add {
        true => code(
            leases
                .add_resource(AddResourceRequest { id, resource })
                .await,
        ),
        false => code(
            leases
                .delete_resource(DeleteResourceRequest { id, resource })
                .await,
        ),
    }
}

async fn held(client: &Client, lease: &str) -> Vec<String> {
    let request = ListResourcesRequest {
        id: lease.to_owned(),
    };
    let listed = client
        .leases()
        .list_resources(request)
        .await
        .expect("resources");
    let resources = listed.into_inner().resources.into_iter();
    resources
        .map(|r| format!("{} {}", r.r#type, r.id))
        .collect()
}

async fn prepare(client: &Client, key: &str, parent: &str) -> Code {
    let request = PrepareSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    code(client.snapshots().prepare(request).await)
}

async fn commit_snapshot(client: &Client, name: &str, key: &str) -> Code {
    let request = CommitSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
        ..CommitSnapshotRequest::default()
    };
    code(client.snapshots().commit(request).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_come_and_go() {
    let server = Server::start().await;
    let client = server.client("n");
    for id in ["b", "a", "any text/é"] {
        assert_eq!(create(&client, id).await, Code::Ok, "{id:?}");
        assert_eq!(create(&client, id).await, Code::AlreadyExists, "{id:?}");
    }
    assert_eq!(
        list(&client, &[]).await.expect("list"),
        ["a", "any text/é", "b"]
    );

    let made = client.leases().create(CreateRequest::default()).await;
    let made = made.expect("create").into_inner().lease.expect("lease");
    let (nanos, random) = made.id.split_once('-').expect("two parts");
    assert!(
        nanos.parse::<u64>().is_ok() && random.len() == 4,
        "{made:?}"
    );
    assert!(made.created_at.is_some());

    let delete = |id: &str| DeleteRequest {
        id: id.to_owned(),
        sync: false,
    };
    assert_eq!(code(client.leases().delete(delete("a")).await), Code::Ok);
    assert_eq!(
        code(client.leases().delete(delete("a")).await),
        Code::NotFound
    );
    // containerd's is Unknown: the empty key of a bucket.
    assert_eq!(
        code(client.leases().delete(delete("")).await),
        Code::InvalidArgument
    );
    assert_eq!(
        list(&server.client("m"), &[]).await.expect("list"),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_listed_and_filtered() {
    let server = Server::start().await;
    let client = server.client("n");
    for (id, labels) in [
        ("a", vec![("color", "red")]),
        ("b", vec![("color", "blue"), ("empty", "")]),
    ] {
        let request = CreateRequest {
            id: id.to_owned(),
            labels: map(&labels),
        };
        let made = client.leases().create(request).await.expect("create");
        let labels = made.into_inner().lease.expect("lease").labels;
        assert!(!labels.contains_key("empty"), "an empty value is no label");
    }
    let all = vec!["a".to_owned(), "b".to_owned()];
    let one = |id: &str| Ok(vec![id.to_owned()]);
    for (filters, expected) in [
        (&["id==a"][..], one("a")),
        (&["labels.color==blue"], one("b")),
        (&["labels.color"], Ok(all.clone())),
        (&["id==a", "id==b"], Ok(all.clone())),
        (&["id==a,labels.color==blue"], Ok(vec![])),
        (&["id~=^[ab]$"], Ok(all.clone())),
        (&["labels.empty"], Ok(vec![])),
        (&["nothing!=x"], Ok(all.clone())),
        (&["id="], Err(Code::InvalidArgument)),
        (&["id==a", "=="], Err(Code::InvalidArgument)),
    ] {
        assert_eq!(list(&client, filters).await, expected, "{filters:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_have_types_and_ids() {
    let server = Server::start().await;
    let client = server.client("n");
    client.leased("l").await;
    let digest = sha256(b"need not exist");
    let rows = [
        ("content", &*digest, Code::Ok),
        ("content", "nonsense", Code::InvalidArgument),
        ("content/x", &digest, Code::InvalidArgument),
        ("ingests", "ref", Code::Ok),
        ("ingests/x", "ref", Code::InvalidArgument),
        ("images", "any name", Code::Ok),
        ("images/x", "any name", Code::InvalidArgument),
        (SNAPSHOTS, "key", Code::Ok),
        ("snapshots/native", "key", Code::Ok),
        ("snapshots", "key", Code::InvalidArgument),
        ("snapshots/a/b", "key", Code::InvalidArgument),
        ("containers", "id", Code::Unimplemented),
        ("", "id", Code::Unimplemented),
        // Unknown in containerd, where an empty id is the key of a bucket.
        ("ingests", "", Code::InvalidArgument),
        ("images", "", Code::InvalidArgument),
    ];
    for (kind, id, expected) in rows {
        let answer = change(&client, "l", kind, id, true).await;
        assert_eq!(answer, expected, "add {kind} {id:?}");
        if expected == Code::Ok {
            let again = change(&client, "l", kind, id, true).await;
            assert_eq!(again, Code::Ok, "add {kind} {id:?} twice");
        }
    }
    let content = format!("content {digest}");
    let expected = [
        &*content,
        "images any name",
        "ingests ref",
        "snapshots/native key",
        "snapshots/overlayfs key",
    ];
    assert_eq!(held(&client, "l").await, expected);
    for (kind, id, expected) in rows {
        let answer = change(&client, "l", kind, id, false).await;
        assert_eq!(answer, expected, "delete {kind} {id:?}");
    }
    assert_eq!(held(&client, "l").await, Vec::<String>::new());
    let absent = change(&client, "l", "ingests", "absent", false).await;
    assert_eq!(absent, Code::Ok);
    for add in [true, false] {
        let unknown = change(&client, "unknown", "ingests", "r", add).await;
        assert_eq!(unknown, Code::NotFound);
    }
    let unknown = ListResourcesRequest {
        id: "unknown".to_owned(),
    };
    assert_eq!(
        code(client.leases().list_resources(unknown).await),
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_makes_a_lease_hold_what_is_made() {
    let server = Server::start().await;
    let plain = server.client("n");
    // Leases may be called anything, and headers carry that as it is.
    let client = plain.leased("für l").await;
    let other = plain.leased("other").await;
    let digest = client.put("text", &[]).await;
    client
        .write_one(write("begun", 0, b"x"))
        .await
        .expect("write");
    assert_eq!(prepare(&client, "active", "").await, Code::Ok);
    assert_eq!(prepare(&client, "base", "").await, Code::Ok);
    assert_eq!(commit_snapshot(&client, "done", "base").await, Code::Ok);
    let content = format!("content {digest}");
    let expected = [
        &*content,
        "ingests begun",
        "snapshots/overlayfs active",
        "snapshots/overlayfs done",
    ];
    assert_eq!(held(&client, "für l").await, expected);

    // Who asks for what is there may keep it, too.
    let exists = expecting(commit("r", 0, b"text"), &digest, 0);
    assert_eq!(other.write_one(exists).await, Err(Code::AlreadyExists));
    assert_eq!(prepare(&other, "active", "").await, Code::AlreadyExists);
    assert_eq!(prepare(&other, "done", "").await, Code::AlreadyExists);
    let expected = [
        &*content,
        "snapshots/overlayfs active",
        "snapshots/overlayfs done",
    ];
    assert_eq!(held(&client, "other").await, expected);

    // What fails is not held.
    assert_eq!(prepare(&other, "orphan", "missing").await, Code::NotFound);
    assert_eq!(held(&client, "other").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_does_not_exist_is_missed_only_where_it_is_needed() {
    let server = Server::start().await;
    let plain = server.client("n");
    let digest = plain.put("text", &[]).await;
    assert_eq!(prepare(&plain, "there", "").await, Code::Ok);
    for name in ["unknown", ""] {
        let client = plain.under(name);
        let written = client.write_one(write("r", 0, b"x")).await;
        assert_eq!(written, Err(Code::NotFound), "{name:?}");
        let existing = expecting(commit("r", 0, b"text"), &digest, 0);
        assert_eq!(client.write_one(existing).await, Err(Code::NotFound));
        assert_eq!(prepare(&client, "new", "").await, Code::NotFound);
        assert_eq!(prepare(&client, "there", "").await, Code::NotFound);
        let view = ViewSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            key: "view".to_owned(),
            ..ViewSnapshotRequest::default()
        };
        assert_eq!(code(client.snapshots().view(view).await), Code::NotFound);
        assert_eq!(
            commit_snapshot(&client, "name", "there").await,
            Code::NotFound
        );
        // Only an image with an expiry is held by a lease.
        let create = |image: &str, labels: &[(&str, &str)]| CreateImageRequest {
            image: Some(Image {
                name: format!("{image}{name}"),
                labels: map(labels),
                target: Some(descriptor("text/plain", &digest, 4)),
                ..Image::default()
            }),
            source_date_epoch: None,
        };
        assert_eq!(
            code(client.images().create(create("plain", &[])).await),
            Code::Ok
        );
        let expiring = create(
            "expiring",
            &[("containerd.io/gc.expire", "2100-01-01T00:00:00Z")],
        );
        assert_eq!(code(client.images().create(expiring).await), Code::NotFound);
        assert!(client.has(&digest).await, "reading needs no lease");
    }
}
