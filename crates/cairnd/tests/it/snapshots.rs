//! `Snapshots`: keys, kinds, mounts, and what may be done to which.

use cairn_proto::containerd::{
    services::snapshots::v1::{CleanupRequest, Kind, ListSnapshotsRequest, UsageRequest},
    types::Mount,
};
use tonic::Code;

use crate::common::{
    Server, code, long_label, map,
    snapshots::{Snapshots, sn},
};

/// A mount with the numbers of its directories in the order they come.
fn spelled(server: &Server, mounts: &[Mount]) -> String {
    let [mount] = mounts else {
        panic!("{mounts:?}")
    };
    let options = mount.options.join(" ");
    let text = format!("{} {} {options}", mount.r#type, mount.source);
    let root = server.path("root/snapshots").display().to_string() + "/";
    let mut ids: Vec<String> = Vec::new();
    let mut out = String::new();
    for (n, part) in text.split(&root).enumerate() {
        if n == 0 {
            out.push_str(part);
            continue;
        }
        let (id, rest) = part.split_once('/').expect("below a number");
        let at = ids.iter().position(|known| known == id).unwrap_or_else(|| {
            ids.push(id.to_owned());
            ids.len() - 1
        });
        out.push_str(&format!("{at}/{rest}"));
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_are_spelled_as_containerds() {
    let server = Server::start().await;
    let snapshots = Snapshots(server.client("n"));
    snapshots.stack().await;
    let index = match std::path::Path::new("/sys/module/overlay/parameters/index").exists() {
        true => " index=off",
        false => "",
    };
    let overlay = |options: &str| format!("overlay overlay {options}{index}");
    let rows = [
        (
            snapshots.prepare("p0", "").await,
            "bind 0/fs rw rbind".to_owned(),
        ),
        (
            snapshots.view("v0", "").await,
            "bind 0/fs ro rbind".to_owned(),
        ),
        (
            snapshots.view("v1", "base").await,
            "bind 0/fs ro rbind".to_owned(),
        ),
        (
            snapshots.prepare("p1", "base").await,
            overlay("workdir=0/work upperdir=0/fs lowerdir=1/fs"),
        ),
        (
            snapshots.prepare("p2", "middle").await,
            // The nearest parent first.
            overlay("workdir=0/work upperdir=0/fs lowerdir=1/fs:2/fs"),
        ),
        (
            snapshots.view("v2", "middle").await,
            overlay("lowerdir=0/fs:1/fs"),
        ),
    ];
    for (n, (mounts, expected)) in rows.into_iter().enumerate() {
        let mounts = mounts.expect("made");
        assert_eq!(spelled(&server, &mounts), expected);
        let key = ["p0", "v0", "v1", "p1", "p2", "v2"][n];
        assert_eq!(snapshots.mounts(key).await, Ok(mounts), "{key} again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_has_its_preconditions() {
    let server = Server::start().await;
    let snapshots = Snapshots(server.client("n"));
    snapshots.stack().await;
    for (key, parent, expected) in [
        ("active", "", Code::AlreadyExists),
        ("base", "", Code::AlreadyExists),
        ("active", "missing", Code::AlreadyExists),
        ("new", "missing", Code::NotFound),
        ("new", "active", Code::InvalidArgument),
        ("new", "view", Code::InvalidArgument),
        // Unknown in containerd, the empty key of a bucket.
        ("", "", Code::InvalidArgument),
    ] {
        let prepared = snapshots.prepare(key, parent).await;
        assert_eq!(prepared.err(), Some(expected), "{key:?} on {parent:?}");
        let viewed = snapshots.view(key, parent).await;
        assert_eq!(viewed.err(), Some(expected), "view {key:?} on {parent:?}");
    }
    for (name, key, expected) in [
        ("base", "active", Code::AlreadyExists),
        ("base", "missing", Code::AlreadyExists),
        ("active", "active", Code::AlreadyExists),
        ("new", "missing", Code::NotFound),
        ("new", "view", Code::FailedPrecondition),
        ("new", "base", Code::FailedPrecondition),
        ("new", "", Code::NotFound),
        ("", "active", Code::InvalidArgument),
    ] {
        let committed = snapshots.commit(name, key).await;
        assert_eq!(committed, expected, "commit {key:?} as {name:?}");
    }
    for (key, expected) in [
        ("base", Code::FailedPrecondition),
        ("missing", Code::NotFound),
        ("", Code::NotFound),
    ] {
        assert_eq!(snapshots.mounts(key).await, Err(expected), "{key:?}");
    }
    for key in ["missing", ""] {
        assert_eq!(snapshots.stat(key).await.err(), Some(Code::NotFound));
        assert_eq!(snapshots.usage(key).await, Err(Code::NotFound));
        let removed = snapshots.remove(key).await.expect_err("missing");
        assert_eq!(removed.code(), Code::NotFound);
    }
    for key in ["base", "middle"] {
        let refusal = snapshots.remove(key).await.expect_err("has children");
        assert_eq!(refusal.code(), Code::FailedPrecondition);
        assert!(refusal.message().contains("remove"), "{refusal}");
    }
    for key in ["view", "active", "middle", "base"] {
        snapshots.remove(key).await.expect(key);
    }
    assert_eq!(snapshots.list(&[]).await, Ok(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshotter_must_be_ours() {
    let server = Server::start().await;
    let client = server.client("n");
    for name in ["", "native", "Overlayfs"] {
        let snapshotter = name.to_owned();
        let answers = [
            code(
                client
                    .snapshots()
                    .list(ListSnapshotsRequest {
                        snapshotter: snapshotter.clone(),
                        filters: vec![],
                    })
                    .await,
            ),
            code(
                client
                    .snapshots()
                    .cleanup(CleanupRequest {
                        snapshotter: snapshotter.clone(),
                    })
                    .await,
            ),
            code(
                client
                    .snapshots()
                    .usage(UsageRequest {
                        snapshotter,
                        key: "k".to_owned(),
                    })
                    .await,
            ),
        ];
        assert_eq!(answers, [Code::InvalidArgument; 3], "{name:?}");
    }
    let cleanup = CleanupRequest { snapshotter: sn() };
    let answer = client.snapshots().cleanup(cleanup).await;
    assert_eq!(code(answer), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_times() {
    let server = Server::start().await;
    let snapshots = Snapshots(server.client("n"));
    let labels = [("a", "1"), ("empty", "")];
    snapshots
        .prepare_with("k", "", &labels)
        .await
        .expect("prepare");
    let info = snapshots.stat("k").await.expect("stat");
    assert_eq!(info.labels, map(&[("a", "1")]));
    assert_eq!((info.kind(), &*info.parent), (Kind::Active, ""));
    assert_eq!(info.created_at, info.updated_at);
    for (asked, paths, expected) in [
        (
            &[("b", "2")][..],
            &["labels.b"][..],
            Ok(vec![("a", "1"), ("b", "2")]),
        ),
        (&[("a", "")], &["labels.a"], Ok(vec![("b", "2")])),
        (&[("c", "3")], &["labels"], Ok(vec![("c", "3")])),
        (&[("d", "4")], &[], Ok(vec![("d", "4")])),
        (&[("e", "5")], &["parent"], Err(Code::InvalidArgument)),
        (
            &[("e", "5")],
            &["kind", "labels.e"],
            Err(Code::InvalidArgument),
        ),
    ] {
        let answer = snapshots.update("k", asked, paths).await;
        let labels = answer.clone().map(|info| info.labels);
        assert_eq!(labels, expected.map(|pairs| map(&pairs)), "{paths:?}");
        if let Ok(answer) = answer {
            assert_eq!(answer.parent, "", "the request's is ignored");
            assert_eq!(answer.created_at, info.created_at);
            assert_eq!(snapshots.stat("k").await, Ok(answer));
        }
    }
    let missing = snapshots.update("missing", &[], &[]).await;
    assert_eq!(missing.err(), Some(Code::NotFound));
    let nameless = snapshots.update("", &[], &[]).await;
    assert_eq!(nameless.err(), Some(Code::InvalidArgument));
    let (key, value) = long_label();
    let long = snapshots.prepare_with("long", "", &[(&key, &value)]).await;
    assert_eq!(long.err(), Some(Code::InvalidArgument));

    // Committing replaces the labels, also by none.
    assert_eq!(snapshots.commit("done", "k").await, Code::Ok);
    let done = snapshots.stat("done").await.expect("stat");
    assert_eq!((done.labels.len(), done.kind()), (0, Kind::Committed));
    assert_eq!(done.created_at, done.updated_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_in_order() {
    let server = Server::start().await;
    let snapshots = Snapshots(server.client("n"));
    snapshots.stack().await;
    snapshots
        .update("active", &[("k", "v")], &[])
        .await
        .expect("label");
    let all = vec!["active", "base", "middle", "view"];
    for (filters, expected) in [
        (vec![], Ok(all.clone())),
        (vec![""], Ok(all.clone())),
        (vec!["name==base"], Ok(vec!["base"])),
        (vec!["kind==committed"], Ok(vec!["base", "middle"])),
        (
            vec!["kind==active", "kind==view"],
            Ok(vec!["active", "view"]),
        ),
        (vec!["kind==Committed"], Ok(vec![])),
        (vec!["parent==middle"], Ok(vec!["active", "view"])),
        (vec!["parent==\"\""], Ok(vec!["base"])),
        (vec!["labels.k"], Ok(vec!["active"])),
        (vec!["unknown!=x"], Ok(all.clone())),
        // Unknown in containerd, whose Snapshots.List maps no error.
        (vec!["name=="], Err(Code::InvalidArgument)),
    ] {
        let listed = snapshots.list(&filters).await;
        let names = listed
            .clone()
            .map(|all| all.into_iter().map(|i| i.name).collect());
        let expected =
            expected.map(|names| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert_eq!(names, expected, "{filters:?}");
        for info in listed.into_iter().flatten() {
            assert_eq!(snapshots.stat(&info.name).await, Ok(info));
        }
    }
    assert_eq!(Snapshots(server.client("m")).list(&[]).await, Ok(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_counts_the_own_layer() {
    let server = Server::start().await;
    let snapshots = Snapshots(server.client("n"));
    let mounts = snapshots.prepare("k", "").await.expect("prepare");
    assert_eq!(snapshots.usage("k").await.expect("usage").1, 1, "the root");
    let fs = std::path::Path::new(&mounts[0].source);
    std::fs::write(fs.join("file"), [7; 10_000]).expect("write");
    std::fs::hard_link(fs.join("file"), fs.join("other")).expect("link");
    let (size, inodes) = snapshots.usage("k").await.expect("usage");
    assert_eq!(inodes, 2, "a file with two names is one");
    assert!((10_000..40_000).contains(&size), "{size} bytes on disk");
    assert_eq!(snapshots.commit("done", "k").await, Code::Ok);
    assert_eq!(snapshots.usage("done").await, Ok((size, inodes)));
    snapshots.view("v", "done").await.expect("view");
    assert_eq!(snapshots.usage("v").await, Ok((0, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_can_choose_the_parent() {
    let server = Server::start().await;
    let snapshots = Snapshots(server.client("n"));
    snapshots.stack().await;
    for (key, on) in [
        ("free", ""),
        ("free2", ""),
        ("free3", ""),
        ("bound", "base"),
    ] {
        snapshots.prepare(key, on).await.expect("prepare");
    }
    for (name, key, parent, expected) in [
        ("r1", "free2", "missing", Code::NotFound),
        ("r1", "free2", "active", Code::FailedPrecondition),
        ("r1", "free3", "free3", Code::NotFound),
        ("r1", "free", "middle", Code::Ok),
        // What has a parent keeps it.
        ("r2", "bound", "middle", Code::Ok),
    ] {
        let answer = snapshots.commit_on(name, key, parent).await;
        assert_eq!(answer, expected, "{key} on {parent}");
    }
    assert_eq!(snapshots.stat("r1").await.expect("stat").parent, "middle");
    assert_eq!(snapshots.stat("r2").await.expect("stat").parent, "base");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_to_what_is_there_says_so() {
    let server = Server::start().await;
    let snapshots = Snapshots(server.client("n"));
    snapshots.stack().await;
    let reference = "containerd.io/snapshot.ref";
    for (key, parent, target, expected) in [
        ("x1", "", "base", Some(Code::AlreadyExists)),
        ("x2", "missing", "base", Some(Code::AlreadyExists)),
        ("x3", "", "active", Some(Code::AlreadyExists)),
        ("x4", "", "absent", None),
        ("x5", "", "x5", None),
    ] {
        let answer = snapshots
            .prepare_with(key, parent, &[(reference, target)])
            .await;
        assert_eq!(answer.err(), expected, "{key} for {target}");
        let made = snapshots.stat(key).await.is_ok();
        assert_eq!(made, expected.is_none(), "{key}");
    }
}
