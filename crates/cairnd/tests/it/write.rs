//! `Content.Write`: one stream for one upload, message by message.

use cairn_node::Sharing;
use cairn_proto::containerd::services::{
    content::v1::{AbortRequest, InfoRequest, StatusRequest},
    introspection::v1::PluginsRequest,
    namespaces::v1::{CreateNamespaceRequest, Namespace},
};
use tonic::Code;

use crate::common::{Client, Server, code, commit, expecting, map, sha256, stat, write};

async fn status(client: &Client, reference: &str) -> Result<(i64, i64), Code> {
    let request = StatusRequest {
        r#ref: reference.to_owned(),
    };
    let answer = client.content().status(request).await;
    let answer = answer.map_err(|status| status.code())?.into_inner();
    let status = answer.status.expect("status");
    Ok((status.offset, status.total))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_names_the_ref() {
    let server = Server::start().await;
    let client = server.client("n");
    assert_eq!(client.write_one(stat("")).await, Err(Code::InvalidArgument));
    // Before the header is looked at, as containerd does.
    let nobody = server.nobody();
    assert_eq!(nobody.write_one(stat("")).await, Err(Code::InvalidArgument));
    assert_eq!(
        nobody.write_one(stat("r")).await,
        Err(Code::FailedPrecondition)
    );
    let nothing = tokio_stream::iter(Vec::new());
    let answer = client.content().write(nothing).await;
    let code = match answer {
        Ok(stream) => stream.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    assert_eq!(code.expect_err("no message").code(), Code::Unknown);

    let (mut writer, answer) = client.writer(expecting(stat("one"), "", 7)).await;
    let answer = answer.expect("stat");
    assert_eq!((answer.offset, answer.total), (0, 7));
    assert_eq!(answer.digest, sha256(b""));
    assert!(answer.started_at.is_some());
    // A ref in a later message is ignored.
    let answer = writer.send(write("two", 0, b"abc")).await.expect("write");
    assert_eq!((answer.offset, &answer.digest), (3, &sha256(b"abc")));
    writer.end().await;
    assert_eq!(status(&client, "one").await, Ok((3, 7)));
    assert_eq!(status(&client, "two").await, Err(Code::NotFound));
    for odd in ["a b", "a/b", "../x", "layer-sha256:abc", "é", "/"] {
        assert!(client.write_one(write(odd, 0, b"x")).await.is_ok(), "{odd}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_continue_or_start_over() {
    let server = Server::start().await;
    let client = server.client("n");
    // (messages after "abc", answers: offset and what the digest is of)
    type Row<'r> = (&'r str, i64, &'r [u8], Result<&'r [u8], Code>);
    let rows: &[Row<'_>] = &[
        ("goes on", 3, b"def", Ok(b"abcdef")),
        ("starts over", 0, b"xy", Ok(b"xy")),
        ("nothing more", 3, b"", Ok(b"abc")),
        ("beyond", 4, b"x", Err(Code::OutOfRange)),
        ("behind", 2, b"x", Err(Code::OutOfRange)),
        // containerd appends; nobody can mean that.
        ("negative", -1, b"x", Err(Code::OutOfRange)),
    ];
    for (reference, offset, data, expected) in rows {
        let (mut writer, first) = client.writer(write(reference, 0, b"abc")).await;
        assert_eq!(first.expect("write").offset, 3);
        let answer = writer.send(write("", *offset, data)).await;
        let answer = answer.map(|answer| (answer.offset, answer.digest));
        let wanted = expected.map(|all| {
            let length = i64::try_from(all.len()).expect("small");
            (length, sha256(all))
        });
        assert_eq!(answer, wanted, "{reference}");
        writer.end().await;
        if expected.is_err() {
            // What was there stays.
            assert_eq!(status(&client, reference).await, Ok((3, 0)), "{reference}");
        }
    }
    let first = client.write_one(write("first", 5, b"x")).await;
    assert_eq!(first, Err(Code::OutOfRange));
    // STAT ignores data, and so does an action that nobody knows.
    let mut message = stat("ignored");
    message.data = b"xyz".to_vec().into();
    assert_eq!(
        client
            .write_one(message.clone())
            .await
            .expect("stat")
            .offset,
        0
    );
    message.action = 99;
    let answer = client.write_one(message).await.expect("unknown action");
    assert_eq!((answer.action, answer.offset), (99, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_have_a_limit() {
    let server = Server::start().await;
    let client = server.client("n");
    let large = vec![7; 8 << 20];
    let message = expecting(commit("large", 0, &large), &sha256(&large), 8 << 20);
    assert!(client.write_one(message).await.is_ok());
    let larger = vec![7; (16 << 20) + 100];
    let answer = client.write_one(write("larger", 0, &larger)).await;
    assert_eq!(answer, Err(Code::ResourceExhausted));
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_resumed() {
    let server = Server::start().await;
    let client = server.client("n");
    let first = expecting(write("r", 0, b"first, "), "", 20);
    client.write_one(first).await.expect("write");
    let (mut writer, answer) = client.writer(stat("r")).await;
    let answer = answer.expect("stat");
    assert_eq!((answer.offset, answer.digest), (7, sha256(b"first, ")));
    // While a stream has it, the ref is locked.
    let locked = client.write_one(stat("r")).await;
    assert_eq!(locked, Err(Code::Unavailable));
    let rest = b"resume second";
    let answer = writer.send(write("", 7, rest)).await.expect("write");
    assert_eq!(answer.offset, 20);
    let all = sha256(b"first, resume second");
    let answer = writer.send(expecting(commit("", 20, b""), &all, 20)).await;
    assert_eq!(answer.expect("commit").digest, all);
    writer.end().await;
    assert!(client.has(&all).await);
    assert_eq!(status(&client, "r").await, Err(Code::NotFound));

    // A changed total starts over.
    let message = expecting(write("total", 0, b"12345"), "", 20);
    client.write_one(message).await.expect("write");
    let answer = client.write_one(expecting(stat("total"), "", 30)).await;
    let answer = answer.expect("stat");
    assert_eq!((answer.offset, answer.total), (0, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_proves_size_and_digest() {
    let server = Server::start().await;
    let client = server.client("n");
    let right = sha256(b"text");
    let wrong = sha256(b"else");
    // (name, offset, total, expected, answer)
    let rows = [
        ("bare", 4, 0, "", Ok(())),
        ("both", 4, 4, &*right, Ok(())),
        ("size", 4, 5, "", Err(Code::FailedPrecondition)),
        ("digest", 4, 0, &*wrong, Err(Code::FailedPrecondition)),
        (
            "malformed",
            4,
            0,
            "sha256:12",
            Err(Code::FailedPrecondition),
        ),
        ("unknown", 4, 0, "md5:x", Err(Code::FailedPrecondition)),
        ("offset", 3, 0, "", Err(Code::OutOfRange)),
    ];
    for (n, (name, offset, total, expected, wanted)) in rows.into_iter().enumerate() {
        let client = server.client(&format!("n{n}"));
        let (mut writer, answer) = client.writer(write("r", 0, b"text")).await;
        answer.expect("write");
        let message = expecting(commit("", offset, b""), expected, total);
        let answer = writer.send(message).await.map(|answer| {
            assert_eq!((answer.offset, &answer.digest), (4, &right), "{name}");
        });
        writer.end().await;
        assert_eq!(answer, wanted, "{name}");
        assert_eq!(client.has(&right).await, wanted.is_ok(), "{name}");
        if wanted.is_err() {
            // The upload is kept, and a better commit of it succeeds.
            let retry = expecting(commit("r", 4, b""), &right, 4);
            assert!(client.write_one(retry).await.is_ok(), "retry {name}");
        }
    }
    // What was said at the start counts at the end.
    for (name, first) in [
        ("total", expecting(write("r", 0, b"text"), "", 5)),
        ("digest", expecting(write("r", 0, b"text"), &wrong, 0)),
    ] {
        let client = server.client(name);
        let (mut writer, answer) = client.writer(first).await;
        answer.expect("write");
        let answer = writer.send(commit("", 4, b"")).await;
        assert_eq!(answer.err(), Some(Code::FailedPrecondition), "{name}");
    }
    // Offset 0 after data starts over, also in a commit: so says containerd.
    let (mut writer, _) = client.writer(write("zero", 0, b"text")).await;
    let answer = writer.send(commit("", 0, b"")).await.expect("commit");
    assert_eq!((answer.offset, answer.digest), (0, sha256(b"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_labels_its_blob_and_knows_it_again() {
    let server = Server::start().await;
    let client = server.client("n");
    let digest = sha256(b"text");
    let mut message = write("r", 0, b"text");
    message.labels = map(&[("early", "not used")]);
    let (mut writer, _) = client.writer(message).await;
    let mut message = commit("", 4, b"");
    message.labels = map(&[("k", "v"), ("empty", "")]);
    writer.send(message).await.expect("commit");
    writer.end().await;
    let request = InfoRequest {
        digest: digest.clone(),
    };
    let info = client.content().info(request).await.expect("info");
    let info = info.into_inner().info.expect("info");
    assert_eq!(info.labels, map(&[("k", "v")]));
    assert_eq!(info.created_at, info.updated_at);

    // At the start, later, and at the end.
    let exists = Err(Code::AlreadyExists);
    let opened = client.write_one(expecting(stat("a"), &digest, 0)).await;
    assert_eq!(opened, exists);
    let (mut writer, _) = client.writer(write("b", 0, b"te")).await;
    let later = writer
        .send(expecting(write("", 2, b"xt"), &digest, 0))
        .await;
    assert_eq!(later, exists);
    writer.end().await;
    assert_eq!(status(&client, "b").await, Err(Code::NotFound), "dropped");
    let (mut writer, _) = client.writer(write("c", 0, b"text")).await;
    assert_eq!(writer.send(commit("", 4, b"")).await, exists);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_algorithms_name_the_blob_but_not_the_answers_before() {
    let server = Server::start().await;
    let client = server.client("n");
    let text = b"abc";
    // FIPS 180-4's examples.
    let digests = [
        "sha384:cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
         8086072ba1e7cc2358baeca134c825a7",
        "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
         2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    ];
    for digest in digests {
        let (mut writer, answer) = client.writer(expecting(stat(digest), digest, 0)).await;
        assert_eq!(answer.expect("stat").digest, sha256(b""));
        let answer = writer.send(commit("", 0, text)).await.expect("commit");
        assert_eq!(answer.digest, digest);
        assert!(client.has(digest).await);
        let wrong = expecting(commit("wrong", 0, b"other"), digest, 0);
        let refused = server.client("m").write_one(wrong).await;
        assert!(refused.is_err());
    }
    assert!(
        !client.has(&sha256(text)).await,
        "known by its own name only"
    );
}

/// As recorded of containerd 2.3.4 with `content_sharing_policy = "isolated"`.
#[tokio::test(flavor = "multi_thread")]
async fn isolated_namespaces_bring_all_bytes() {
    let server = Server::sharing(Sharing::Isolated).await;
    let (owner, client) = (server.client("owner"), server.client("n"));
    let asked = PluginsRequest {
        filters: vec!["type==io.containerd.metadata.v1".to_owned()],
    };
    let plugins = client.introspection().plugins(asked).await;
    let plugins = plugins.expect("plugins").into_inner().plugins;
    assert_eq!(plugins[0].exports["policy"], "isolated");

    let text = "isolated text";
    let digest = owner.put(text, &[]).await;
    let length = i64::try_from(text.len()).expect("length");

    let (writer, answer) = client.writer(expecting(stat("r"), &digest, 0)).await;
    let answer = answer.expect("stat");
    assert_eq!((answer.offset, &answer.digest), (0, &sha256(b"")));
    writer.end().await;
    assert_eq!(status(&client, "r").await, Ok((0, 0)));
    for at in [0, length] {
        let early = expecting(commit("early", at, b""), &digest, length);
        let refused = client.write_one(early).await.err();
        let expected = match at {
            0 => Code::FailedPrecondition,
            _ => Code::OutOfRange,
        };
        assert_eq!(refused, Some(expected), "commit at {at}");
    }
    assert!(!client.has(&digest).await);
    let whole = expecting(commit("whole", 0, text.as_bytes()), &digest, length);
    let answer = client.write_one(whole).await.expect("upload");
    assert_eq!((answer.offset, &answer.digest), (length, &digest));
    assert!(client.has(&digest).await);
    let stored = server.work.path().join("root/content/blobs/sha256");
    assert_eq!(std::fs::read_dir(stored).expect("blobs").count(), 1);
    // What is one's own is known by its digest.
    let again = client.write_one(expecting(stat("again"), &digest, 0)).await;
    assert_eq!(again.err(), Some(Code::AlreadyExists));

    for (value, offset) in [("yes", 0), ("true", length)] {
        let labels = [("containerd.io/namespace.shareable", value)];
        let name = format!("sharing-{value}");
        let namespace = Namespace {
            name: name.clone(),
            labels: map(&labels),
        };
        let create = CreateNamespaceRequest {
            namespace: Some(namespace),
        };
        client.namespaces().create(create).await.expect("namespace");
        let digest = server
            .client(&name)
            .put(&format!("of {value:>10}"), &[])
            .await;
        let (writer, answer) = client.writer(expecting(stat(&name), &digest, 0)).await;
        assert_eq!(answer.expect("stat").offset, offset, "{value}");
        writer.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_other_namespaces_are_linked() {
    let server = Server::start().await;
    let (owner, client) = (server.client("owner"), server.client("n"));
    let digest = owner.put("shared text", &[("l", "w")]).await;
    let length = 11;
    // It stands at the end already; a total that differs means another blob.
    for (total, offset) in [(0, length), (length, length), (length + 1, 0)] {
        let (writer, answer) = client
            .writer(expecting(stat(&format!("s{total}")), &digest, total))
            .await;
        assert_eq!(answer.expect("stat").offset, offset, "total {total}");
        writer.end().await;
    }
    assert!(!client.has(&digest).await, "not before it is committed");
    // It is in no listing, takes no lock, and can be aborted.
    let (first, _) = client.writer(expecting(stat("r"), &digest, 0)).await;
    let (second, answer) = client.writer(expecting(stat("r"), &digest, 0)).await;
    assert_eq!(answer.expect("stat").offset, length);
    first.end().await;
    second.end().await;
    assert_eq!(status(&client, "r").await, Err(Code::NotFound));
    let abort = || AbortRequest {
        r#ref: "r".to_owned(),
    };
    assert_eq!(code(client.content().abort(abort()).await), Code::Ok);
    assert_eq!(code(client.content().abort(abort()).await), Code::NotFound);

    // Offset 0 starts over, and then the blob is not what was expected.
    let (mut writer, _) = client.writer(expecting(stat("bare"), &digest, 0)).await;
    let answer = writer.send(commit("", 0, b"")).await;
    assert_eq!(answer.err(), Some(Code::FailedPrecondition));
    writer.end().await;

    let mut message = expecting(commit("first", length, b""), &digest, 0);
    message.labels = map(&[("k", "v")]);
    let answer = client.write_one(message).await.expect("commit");
    assert_eq!((answer.offset, &answer.digest), (length, &digest));
    let request = InfoRequest {
        digest: digest.clone(),
    };
    let info = client.content().info(request).await.expect("info");
    let labels = info.into_inner().info.expect("info").labels;
    assert_eq!(labels, map(&[("k", "v")]), "labels of its own");

    // Appending copies first.
    let third = server.client("third");
    let (mut writer, _) = third.writer(expecting(stat("r"), &digest, 0)).await;
    let answer = writer.send(write("", length, b"!")).await.expect("write");
    assert_eq!(answer.digest, sha256(b"shared text!"));
}

/// What stock clients do when they pull.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_file_is_gone_is_taken_again() {
    let server = Server::start().await;
    let client = server.client("n");
    let bytes = b"x".repeat(20_000);
    let digest = client.put_bytes(&bytes, &[("k", "v")]).await;
    let offered = || expecting(stat("offered"), &digest, 20_000);
    assert_eq!(client.write_one(offered()).await, Err(Code::AlreadyExists));
    let blobs = server.path("root/content/blobs");
    let file = blobs.join(digest.replace(':', "/"));
    std::fs::remove_file(&file).expect("remove");
    let answer = client.write_one(offered()).await.expect("wanted");
    assert_eq!(answer.offset, 0);
    client.put_bytes(&bytes, &[("l", "w")]).await;
    assert_eq!(std::fs::read(&file).expect("file"), bytes);
    let request = InfoRequest {
        digest: digest.clone(),
    };
    let info = client.content().info(request).await.expect("info");
    let labels = info.into_inner().info.expect("info").labels;
    assert_eq!(labels, map(&[("k", "v"), ("l", "w")]));
}
