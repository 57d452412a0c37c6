//! `Content`, all but uploads: what is known of blobs, their labels, reading.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use cairn_proto::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, ListContentRequest, ListStatusesRequest,
    ReadContentRequest, StatusRequest, UpdateRequest,
};
use rustix::fs::Advice;
use tonic::Code;

use crate::common::{
    Client, Server, archive::Archive, code, expecting, layer::Layer, long_label, map, mask, sha256,
    write,
};

async fn info(client: &Client, digest: &str) -> Result<Info, Code> {
    let request = InfoRequest {
        digest: digest.to_owned(),
    };
    let answer = client.content().info(request).await;
    let answer = answer.map_err(|status| status.code())?;
    Ok(answer.into_inner().info.expect("info"))
}

async fn update(
    client: &Client,
    digest: &str,
    labels: &[(&str, &str)],
    paths: &[&str],
) -> Result<Info, Code> {
    let request = UpdateRequest {
        info: Some(Info {
            digest: digest.to_owned(),
            labels: map(labels),
            ..Info::default()
        }),
        update_mask: mask(paths),
    };
    let answer = client.content().update(request).await;
    let answer = answer.map_err(|status| status.code())?;
    Ok(answer.into_inner().info.expect("info"))
}

async fn list(client: &Client, filters: &[&str]) -> Result<Vec<Vec<Info>>, Code> {
    let request = ListContentRequest {
        filters: filters.iter().map(|f| (*f).to_owned()).collect(),
    };
    let stream = client.content().list(request).await;
    let mut stream = stream.map_err(|status| status.code())?.into_inner();
    let mut batches = Vec::new();
    while let Some(batch) = stream.message().await.map_err(|status| status.code())? {
        batches.push(batch.info);
    }
    Ok(batches)
}

async fn read(client: &Client, digest: &str, offset: i64, size: i64) -> Result<Vec<u8>, Code> {
    let request = ReadContentRequest {
        digest: digest.to_owned(),
        offset,
        size,
    };
    let stream = client.content().read(request).await;
    let mut stream = stream.map_err(|status| status.code())?.into_inner();
    let mut all = Vec::new();
    while let Some(part) = stream.message().await.map_err(|status| status.code())? {
        assert!(part.data.len() <= 1 << 20, "messages of up to a mebibyte");
        assert_eq!(
            usize::try_from(part.offset).expect("not negative"),
            all.len(),
            "counted from where reading began"
        );
        all.extend_from_slice(&part.data);
    }
    Ok(all)
}

async fn delete(client: &Client, digest: &str) -> Code {
    let request = DeleteContentRequest {
        digest: digest.to_owned(),
    };
    code(client.content().delete(request).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn m03_digests_are_checked_before_anything() {
    let server = Server::start().await;
    let client = server.client("n");
    let absent = sha256(b"absent");
    let cut = &absent[..70];
    for (digest, expected) in [
        (&*absent, Code::NotFound),
        ("", Code::InvalidArgument),
        ("nonsense", Code::InvalidArgument),
        ("sha256:", Code::InvalidArgument),
        (
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            Code::InvalidArgument,
        ),
        (cut, Code::InvalidArgument),
        (&*absent.to_uppercase(), Code::InvalidArgument),
    ] {
        let answers = [
            info(&client, digest).await.err(),
            update(&client, digest, &[], &[]).await.err(),
            read(&client, digest, 0, 0).await.err(),
            Some(delete(&client, digest).await),
        ];
        assert_eq!(answers, [Some(expected); 4], "{digest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_know_their_own_blobs() {
    let server = Server::start().await;
    let (one, two) = (server.client("one"), server.client("two"));
    let digest = one.put("text", &[("k", "v"), ("empty", "")]).await;
    let known = info(&one, &digest).await.expect("info");
    assert_eq!((known.size, known.labels), (4, map(&[("k", "v")])));
    assert_eq!(known.created_at, known.updated_at);
    assert_eq!(info(&two, &digest).await.err(), Some(Code::NotFound));
    assert_eq!(read(&two, &digest, 0, 0).await.err(), Some(Code::NotFound));
    two.put("text", &[]).await;
    assert_eq!(delete(&one, &digest).await, Code::Ok);
    assert_eq!(delete(&one, &digest).await, Code::NotFound);
    assert_eq!(read(&two, &digest, 0, 0).await.expect("read"), b"text");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_replaced_or_masked() {
    let server = Server::start().await;
    let client = server.client("n");
    let digest = client.put("text", &[("a", "1")]).await;
    type Row<'r> = (
        &'r [(&'r str, &'r str)],
        &'r [&'r str],
        Result<&'r [(&'r str, &'r str)], Code>,
    );
    let invalid = Err(Code::InvalidArgument);
    let rows: &[Row<'_>] = &[
        (&[("b", "2")], &["labels.b"], Ok(&[("a", "1"), ("b", "2")])),
        (&[], &["labels.a"], Ok(&[("b", "2")])),
        (&[("b", "")], &["labels.b"], Ok(&[])),
        (
            &[("containerd.io/gc.ref.content.0", "x")],
            &["labels.containerd.io/gc.ref.content.0"],
            Ok(&[("containerd.io/gc.ref.content.0", "x")]),
        ),
        (&[("a", "1"), ("b", "")], &["labels"], Ok(&[("a", "1")])),
        (&[("c", "3"), ("d", "")], &[], Ok(&[("c", "3")])),
        (&[("e", "1")], &["labels."], Ok(&[("c", "3")])),
        (&[("e", "1")], &["size"], invalid),
        (&[("e", "1")], &["labels.e", "digest"], invalid),
        (&[("e", "1")], &["Labels"], invalid),
    ];
    let mut before = info(&client, &digest).await.expect("info");
    for (asked, paths, expected) in rows {
        let answer = update(&client, &digest, asked, paths).await;
        let answer = answer.map(|info| info.labels);
        assert_eq!(answer, expected.map(map), "{asked:?} by {paths:?}");
        let after = info(&client, &digest).await.expect("info");
        assert_eq!(after.created_at, before.created_at);
        match expected {
            Ok(labels) => {
                assert_eq!(after.labels, map(labels));
                assert_ne!(after.updated_at, before.updated_at, "by {paths:?}");
            }
            Err(_) => assert_eq!(after, before, "nothing of it is done: {paths:?}"),
        }
        before = after;
    }
    let (key, value) = long_label();
    let long = [(&*key, &*value), ("short", "1")];
    let refused = update(&client, &digest, &long, &[]).await;
    assert_eq!(refused.err(), Some(Code::InvalidArgument));
    // Whatever the mask does not name is nobody's business.
    let masked = update(&client, &digest, &long, &["labels.short"]).await;
    assert_eq!(masked.expect("update").labels["short"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_order_and_in_batches() {
    let server = Server::start().await;
    let client = server.client("n");
    assert_eq!(list(&client, &[]).await, Ok(vec![]), "no message at all");
    let mut digests = Vec::new();
    for n in 0..205 {
        let label = if n % 2 == 0 { "even" } else { "odd" };
        digests.push(client.put(&n.to_string(), &[("kind", label)]).await);
    }
    let batches = list(&client, &[]).await.expect("list");
    let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
    assert_eq!(sizes, [100, 100, 5]);
    let listed: Vec<Info> = batches.concat();
    let mut sorted = digests.clone();
    sorted.sort();
    let names: Vec<&String> = listed.iter().map(|info| &info.digest).collect();
    assert_eq!(names, sorted.iter().collect::<Vec<_>>());
    assert_eq!(
        listed[7],
        info(&client, &listed[7].digest).await.expect("info")
    );

    let first = format!("digest=={}", digests[0]);
    let second = format!("digest=={}", digests[1]);
    let both = format!("{first},labels.kind==odd");
    for (filters, expected) in [
        (vec!["labels.kind==even"], Ok(103)),
        (vec!["labels.kind!=even"], Ok(102)),
        (vec![&*first], Ok(1)),
        (vec![&first, &second], Ok(2)),
        (vec![&both], Ok(0)),
        (vec!["labels.\"kind\"~=^o"], Ok(102)),
        (vec![""], Ok(205)),
        // The size is no field, so it is absent everywhere.
        (vec!["size==1"], Ok(0)),
        (vec!["digest=="], Err(Code::InvalidArgument)),
        (vec!["=x"], Err(Code::InvalidArgument)),
    ] {
        let found = list(&client, &filters).await.map(|all| all.concat().len());
        assert_eq!(found, expected, "{filters:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_takes_any_range() {
    let server = Server::start().await;
    let client = server.client("n");
    let bytes: Vec<u8> = (0..2_500_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let large = client.put_bytes(&bytes, &[]).await;
    assert_eq!(read(&client, &large, 0, 0).await, Ok(bytes.clone()));
    assert_eq!(
        read(&client, &large, 1_000_000, 1_200_000).await,
        Ok(bytes[1_000_000..2_200_000].to_vec())
    );
    let small = client.put("0123456789", &[]).await;
    for (offset, size, expected) in [
        (0, 0, Ok("0123456789")),
        (3, 4, Ok("3456")),
        (3, 0, Ok("3456789")),
        (3, -1, Ok("3456789")),
        (3, 100, Ok("3456789")),
        (3, i64::MAX, Ok("3456789")),
        (-5, 2, Ok("01")),
        (10, 0, Ok("")),
        (10, 5, Ok("")),
        (11, 0, Err(Code::OutOfRange)),
        (i64::MAX, 1, Err(Code::OutOfRange)),
    ] {
        let answer = read(&client, &small, offset, size).await;
        let expected = expected.map(|text| text.as_bytes().to_vec());
        assert_eq!(answer, expected, "{offset} {size}");
    }
    let empty = client.put("", &[]).await;
    assert_eq!(read(&client, &empty, 0, 0).await, Ok(vec![]));
}

/// Has the kernel forget what it has of a file in memory, where the file lies on a disk.
fn forget(file: &Path) {
    let file = File::open(file).expect("a blob");
    file.sync_all().expect("sync");
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("advice");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_waits_for_the_disk_where_it_must() {
    let server = Server::start().await;
    let client = server.client("n");
    let bytes: Vec<u8> = (0..8_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let digest = client.put_bytes(&bytes, &[]).await;
    let hex = digest.strip_prefix("sha256:").expect("sha256");
    let file = server.path("root/content/blobs/sha256").join(hex);
    forget(&file);
    assert_eq!(read(&client, &digest, 0, 0).await, Ok(bytes.clone()));
    forget(&file);
    assert_eq!(
        read(&client, &digest, 7_999_999, 5).await,
        Ok(bytes[7_999_999..].to_vec())
    );
    // More than fits between a server and a client that does not listen, and then somebody cuts it.
    let request = ReadContentRequest {
        digest,
        ..ReadContentRequest::default()
    };
    let answers = client.content().read(request).await.expect("read");
    let mut answers = answers.into_inner();
    let first = answers.message().await.expect("bytes");
    assert!(!first.expect("bytes").data.is_empty());
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("mode");
    let file = File::options().write(true).open(&file).expect("a blob");
    file.set_len(1_000).expect("cut");
    let end = loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if it were whole"),
            Err(status) => break status.code(),
        }
    };
    assert_eq!(end, Code::DataLoss);
}

/// What comes of a file that somebody put in the place of a blob's.
#[tokio::test(flavor = "multi_thread")]
async fn s14_wrong_bytes_are_not_sent_as_a_blob() {
    let server = Server::start().await;
    let client = server.client("n");
    for length in [20_usize, 100_000, 3_000_000] {
        let bytes: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[1]).collect();
        let digest = client.put_bytes(&bytes, &[]).await;
        let hex = digest.strip_prefix("sha256:").expect("sha256");
        let file = server.path("root/content/blobs/sha256").join(hex);
        let replace = |bytes: &[u8]| {
            fs::remove_file(&file).expect("remove");
            fs::write(&file, bytes).expect("write");
        };
        let tail = i64::try_from(length - 10).expect("small");
        for flipped in [0, length / 2, length - 1] {
            let mut wrong = bytes.clone();
            wrong[flipped] ^= 1;
            replace(&wrong);
            assert_eq!(read(&client, &digest, 0, 0).await, Err(Code::DataLoss));
            assert_eq!(read(&client, &digest, 5, 0).await, Err(Code::DataLoss));
            assert_eq!(read(&client, &digest, tail, 5).await, Err(Code::DataLoss));
            assert_eq!(read(&client, &digest, 0, 0).await, Err(Code::DataLoss));
        }
        // In parts first, and whole first.
        replace(&bytes);
        let part = read(&client, &digest, tail, 5).await;
        assert_eq!(part, Ok(bytes[length - 10..length - 5].to_vec()));
        assert_eq!(read(&client, &digest, 0, 0).await, Ok(bytes.clone()));
        replace(&bytes);
        assert_eq!(read(&client, &digest, 0, 0).await, Ok(bytes.clone()));
        assert_eq!(read(&client, &digest, 0, 5).await, Ok(bytes[..5].to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_listed_and_aborted() {
    let server = Server::start().await;
    let client = server.client("n");
    let status = |client: Client, reference: &str| {
        let request = StatusRequest {
            r#ref: reference.to_owned(),
        };
        async move {
            let answer = client.content().status(request).await;
            let answer = answer.map_err(|status| status.code())?;
            Ok::<_, Code>(answer.into_inner().status.expect("status"))
        }
    };
    let abort = |client: Client, reference: &str| {
        let request = AbortRequest {
            r#ref: reference.to_owned(),
        };
        async move { code(client.content().abort(request).await) }
    };
    for reference in ["b", "a", "odd ref/é"] {
        let message = expecting(write(reference, 0, b"12345"), &sha256(b"whole"), 20);
        client.write_one(message).await.expect("write");
    }
    let one = status(client.clone(), "a").await.expect("status");
    assert_eq!((one.offset, one.total), (5, 20));
    assert_eq!(one.expected, "", "containerd leaves it empty");
    for reference in ["none", ""] {
        let missing = status(client.clone(), reference).await;
        assert_eq!(missing.err(), Some(Code::NotFound), "{reference:?}");
        assert_eq!(abort(client.clone(), reference).await, Code::NotFound);
    }
    for (filters, expected) in [
        (vec![], Ok(vec!["a", "b", "odd ref/é"])),
        (vec![""], Ok(vec!["a", "b", "odd ref/é"])),
        (vec!["ref==b"], Ok(vec!["b"])),
        (vec!["ref~=^[ab]"], Ok(vec!["a", "b"])),
        (vec!["offset==5"], Ok(vec![])),
        (vec!["ref=b"], Err(Code::InvalidArgument)),
    ] {
        let request = ListStatusesRequest {
            filters: filters.iter().map(|f: &&str| (*f).to_owned()).collect(),
        };
        let answer = client.content().list_statuses(request).await;
        let refs = answer.map_err(|status| status.code()).map(|answer| {
            let statuses = answer.into_inner().statuses.into_iter();
            // containerd lists these in no order.
            let mut refs: Vec<String> = statuses.map(|status| status.r#ref).collect();
            refs.sort();
            refs
        });
        let expected = expected.map(|refs| refs.into_iter().map(str::to_owned).collect());
        assert_eq!(refs, expected, "{filters:?}");
    }
    let other = server.client("other");
    assert_eq!(abort(other, "a").await, Code::NotFound);
    assert_eq!(abort(client.clone(), "a").await, Code::Ok);
    assert_eq!(abort(client.clone(), "a").await, Code::NotFound);
}

/// From then on nothing could unpack them again after a power cut.
#[tokio::test(flavor = "multi_thread")]
async fn layers_are_on_the_disk_before_a_blob_of_theirs_is_deleted() {
    let server = Server::start().await;
    let client = server.client("ns");
    let layer = Layer::new().dir("etc/").file("etc/motd", "hello");
    let archive = Archive::new("docker.io/shop/web:1", &[layer.bytes()]);
    client.import(&archive).await;
    let durable = || {
        let ns = cairn_types::Namespace::parse("ns").expect("namespace");
        let all = server.node.snapshots().list(&ns).expect("snapshots");
        all.iter().map(|one| one.durable).collect::<Vec<_>>()
    };
    let delete = async |digest: &str| {
        let request = DeleteContentRequest {
            digest: digest.to_owned(),
        };
        assert_eq!(code(client.content().delete(request).await), Code::Ok);
    };
    delete(&archive.config).await;
    assert_eq!(durable(), [false], "nobody waits for nothing");
    delete(&archive.layers[0]).await;
    assert_eq!(durable(), [true]);
}
