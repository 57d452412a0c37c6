//! `Images`: names for descriptors.

use cairn_proto::containerd::{
    services::images::v1::{
        CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest,
        UpdateImageRequest,
    },
    types::Descriptor,
};
use tonic::Code;

use crate::common::{Client, Server, code, descriptor, long_label, map, mask, sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn target(text: &str) -> Descriptor {
    descriptor(MANIFEST, &sha256(text.as_bytes()), text.len())
}

fn image(name: &str, target: Descriptor, labels: &[(&str, &str)]) -> Image {
    Image {
        name: name.to_owned(),
        target: Some(target),
        labels: map(labels),
        ..Image::default()
    }
}

async fn create(client: &Client, image: Image) -> Result<Image, Code> {
    let request = CreateImageRequest {
        image: Some(image),
        source_date_epoch: None,
    };
    let answer = client.images().create(request).await;
    let answer = answer.map_err(|status| status.code())?.into_inner();
    Ok(answer.image.expect("image"))
}

async fn update(client: &Client, image: Image, paths: &[&str]) -> Result<Image, Code> {
    let request = UpdateImageRequest {
        image: Some(image),
        update_mask: mask(paths),
        source_date_epoch: None,
    };
    let answer = client.images().update(request).await;
    let answer = answer.map_err(|status| status.code())?.into_inner();
    Ok(answer.image.expect("image"))
}

async fn get(client: &Client, name: &str) -> Result<Image, Code> {
    let request = GetImageRequest {
        name: name.to_owned(),
    };
    let answer = client.images().get(request).await;
    let answer = answer.map_err(|status| status.code())?.into_inner();
    Ok(answer.image.expect("image"))
}

async fn delete(client: &Client, name: &str, target: Option<Descriptor>) -> Code {
    let request = DeleteImageRequest {
        name: name.to_owned(),
        sync: false,
        target,
    };
    code(client.images().delete(request).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_checked_but_need_not_be_there() {
    let server = Server::start().await;
    let client = server.client("n");
    let bare = |change: fn(&mut Image)| {
        let mut made = image("x", target("absent"), &[]);
        change(&mut made);
        made
    };
    let (key, value) = long_label();
    let mut long = bare(|_| ());
    long.labels.insert(key, value);
    let rows = [
        ("no name", bare(|i| i.name.clear())),
        ("no target", bare(|i| i.target = None)),
        ("no size", bare(|i| i.target.as_mut().expect("t").size = 0)),
        (
            "negative",
            bare(|i| i.target.as_mut().expect("t").size = -1),
        ),
        (
            "no type",
            bare(|i| i.target.as_mut().expect("t").media_type.clear()),
        ),
        (
            "no digest",
            bare(|i| i.target.as_mut().expect("t").digest.clear()),
        ),
        (
            "bad digest",
            bare(|i| i.target.as_mut().expect("t").digest.push('0')),
        ),
        ("long label", long),
    ];
    for (what, image) in rows {
        let refused = create(&client, image).await;
        assert_eq!(refused.err(), Some(Code::InvalidArgument), "{what}");
    }
    let made = create(&client, bare(|_| ())).await.expect("create");
    assert_eq!(made.created_at, made.updated_at);
    let again = create(&client, bare(|_| ())).await;
    assert_eq!(again.err(), Some(Code::AlreadyExists));
    assert_eq!(get(&client, "x").await, Ok(made));
    for name in ["missing", ""] {
        assert_eq!(get(&client, name).await.err(), Some(Code::NotFound));
    }
    let elsewhere = get(&server.client("m"), "x").await;
    assert_eq!(elsewhere.err(), Some(Code::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_replace_or_mask() {
    let server = Server::start().await;
    let client = server.client("n");
    let labels = [("a", "1"), ("empty", "")];
    let made = create(&client, image("x", target("one"), &labels)).await;
    let made = made.expect("create");
    assert_eq!(made.labels, map(&[("a", "1")]));
    let missing = update(&client, image("y", target("one"), &[]), &[]).await;
    assert_eq!(missing.err(), Some(Code::NotFound));

    let mut annotated = target("two");
    annotated.annotations = map(&[("note", "n"), ("other", "o")]);
    // (labels asked, mask, target text after, labels after, annotations after)
    type Pairs<'r> = &'r [(&'r str, &'r str)];
    type After<'r> = Result<(&'r str, Pairs<'r>, Pairs<'r>), Code>;
    let invalid = Err(Code::InvalidArgument);
    let rows: &[(Pairs<'_>, &[&str], After<'_>)] = &[
        (
            &[("b", "2")],
            &["labels.b"],
            Ok(("one", &[("a", "1"), ("b", "2")], &[])),
        ),
        (&[], &["labels.a"], Ok(("one", &[("b", "2")], &[]))),
        (
            &[],
            &["annotations.note"],
            Ok(("one", &[("b", "2")], &[("note", "n")])),
        ),
        (
            &[("c", "3")],
            &["labels", "target"],
            Ok(("two", &[("c", "3")], &[("note", "n"), ("other", "o")])),
        ),
        (&[("d", "4")], &["name"], invalid),
        (&[("d", "4")], &["labels.d", "created_at"], invalid),
        (&[("d", "4")], &["Target"], invalid),
        (
            &[("e", "5")],
            &[],
            Ok(("two", &[("e", "5")], &[("note", "n"), ("other", "o")])),
        ),
    ];
    for (asked, paths, expected) in rows {
        let answer = update(&client, image("x", annotated.clone(), asked), paths).await;
        if let Err(code) = expected {
            assert_eq!(answer, Err(*code), "{paths:?}");
            continue;
        }
        let answer = answer.expect("update");
        let after = answer.target.clone().expect("target");
        let (text, labels, annotations) = expected.expect("checked");
        assert_eq!(after.digest, sha256(text.as_bytes()), "{paths:?}");
        assert_eq!(answer.labels, map(labels), "{paths:?}");
        assert_eq!(after.annotations, map(annotations), "{paths:?}");
        assert_eq!(answer.created_at, made.created_at);
        assert_eq!(get(&client, "x").await, Ok(answer));
    }
    // containerd dies of a request without a target; one that changes labels alone needs none.
    let mut only_labels = image("x", target("x"), &[("f", "6")]);
    only_labels.target = None;
    assert!(
        update(&client, only_labels.clone(), &["labels.f"])
            .await
            .is_ok()
    );
    let whole = update(&client, only_labels, &[]).await;
    assert_eq!(whole.err(), Some(Code::InvalidArgument));
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_can_name_the_target_they_mean() {
    let server = Server::start().await;
    let client = server.client("n");
    create(&client, image("x", target("one"), &[]))
        .await
        .expect("create");
    let other = delete(&client, "x", Some(target("two"))).await;
    assert_eq!(other, Code::NotFound);
    let mut undecided = target("two");
    undecided.digest.clear();
    assert_eq!(delete(&client, "x", Some(undecided)).await, Code::Ok);
    create(&client, image("x", target("one"), &[]))
        .await
        .expect("create");
    assert_eq!(delete(&client, "x", Some(target("one"))).await, Code::Ok);
    assert_eq!(delete(&client, "x", None).await, Code::NotFound);
    // Unknown in containerd, where it is the empty key of a bucket.
    assert_eq!(delete(&client, "", None).await, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_in_order() {
    let server = Server::start().await;
    let client = server.client("n");
    for (name, text, color) in [
        ("docker.io/library/b:1", "one", "red"),
        ("docker.io/library/a:1", "two", "blue"),
        ("any name at all", "two", "red"),
    ] {
        let mut wanted = target(text);
        wanted.annotations = map(&[("note", text)]);
        let labels = [("color", color)];
        create(&client, image(name, wanted, &labels))
            .await
            .expect("create");
    }
    let all = vec![
        "any name at all",
        "docker.io/library/a:1",
        "docker.io/library/b:1",
    ];
    let by_digest = format!("target.digest=={}", sha256(b"two"));
    for (filters, expected) in [
        (vec![], Ok(all.clone())),
        (vec![""], Ok(all.clone())),
        (vec!["name==docker.io/library/a:1"], Ok(vec![all[1]])),
        (vec!["name~=library"], Ok(vec![all[1], all[2]])),
        (vec![&*by_digest], Ok(vec![all[0], all[1]])),
        (vec!["labels.color==red"], Ok(vec![all[0], all[2]])),
        (vec!["annotations.note==one"], Ok(vec![all[2]])),
        (
            vec!["target.mediatype~=manifest,labels.color==blue"],
            Ok(vec![all[1]]),
        ),
        (vec!["target.mediaType~=manifest"], Ok(vec![])),
        (vec!["name=="], Err(Code::InvalidArgument)),
    ] {
        let request = ListImagesRequest {
            filters: filters.iter().map(|f| (*f).to_owned()).collect(),
        };
        let answer = client.images().list(request).await;
        let names = answer.map_err(|status| status.code()).map(|answer| {
            let images = answer.into_inner().images.into_iter();
            images.map(|image| image.name).collect::<Vec<_>>()
        });
        let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect());
        assert_eq!(names, expected, "{filters:?}");
    }
}
