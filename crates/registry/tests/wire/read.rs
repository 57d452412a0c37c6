//! Resolving, manifests, lists: what is asked of which host, and what is believed.

use cairn_registry::{Cause, Client, DOCUMENT_BYTES_MAX, Reference, Tag, What};
use cairn_types::{Classified, Descriptor, Digest, ErrorKind, media};

use crate::common::{
    client, mirror, origin,
    server::{Reply, Request, Server},
};

pub(crate) const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;

/// `printf %s "$MANIFEST" | sha256sum`
pub(crate) const DIGEST: &str =
    "sha256:1ccb399e44f3e0ec86bb1a95031c6b9f81ac77860556a81a90acb79bab8005d9";

pub(crate) fn tag() -> Reference {
    Reference::Tag(Tag::parse("2.1").expect("tag"))
}

pub(crate) fn digest() -> Digest {
    Digest::parse(DIGEST).expect("digest")
}

pub(crate) fn descriptor() -> Descriptor {
    Descriptor::new(media::OCI_MANIFEST, digest(), 239)
}

/// As a registry has it that does everything right.
pub(crate) fn manifest() -> Reply {
    Reply::Whole(200, Vec::new(), MANIFEST.into())
        .with("content-type", media::OCI_MANIFEST)
        .with("docker-content-digest", DIGEST)
}

/// The cause of the only host.
#[track_caller]
fn only(err: &cairn_registry::Error) -> Cause {
    match err.details().failed.as_slice() {
        [failed] => failed.cause.clone(),
        several => panic!("{several:?}"),
    }
}

#[tokio::test]
async fn a_tag_is_resolved_by_head_and_its_bytes_are_proven() {
    let server = Server::start(|_, _| manifest()).await;
    let client = client(&[origin(&server.host())]);
    let descriptor = client.resolve(&tag()).await.expect("resolve");
    assert_eq!(descriptor, self::descriptor());
    let bytes = client.manifest(&descriptor).await.expect("manifest");
    assert_eq!(bytes, MANIFEST);
    let by_digest = format!("GET /v2/shop/web/manifests/{DIGEST}");
    assert_eq!(
        server.lines(),
        ["HEAD /v2/shop/web/manifests/2.1", &by_digest]
    );
    let asked = &server.asked()[0];
    let agent = concat!("cairn/", env!("CARGO_PKG_VERSION"));
    assert_eq!(asked.header("user-agent"), Some(agent));
    let accept = asked.header("accept").expect("accept");
    for kind in [
        media::OCI_INDEX,
        media::OCI_MANIFEST,
        media::DOCKER_LIST,
        media::DOCKER_MANIFEST,
    ] {
        assert!(accept.contains(kind), "{accept}");
    }
}

/// Resolves where HEAD answers as `head` says, which leads to a GET; the manifest is not fetched twice.
async fn resolved_by_get(head: fn() -> Reply, get: fn() -> Reply) {
    let server = Server::start(move |request: &Request, _| match request.method.as_str() {
        "HEAD" => head(),
        _ => get(),
    })
    .await;
    let client = client(&[origin(&server.host())]);
    let descriptor = client.resolve(&tag()).await.expect("resolve");
    assert_eq!(descriptor, self::descriptor());
    let bytes = client.manifest(&descriptor).await.expect("manifest");
    assert_eq!(bytes, MANIFEST);
    let manifest = "/v2/shop/web/manifests/2.1";
    assert_eq!(
        server.lines(),
        [format!("HEAD {manifest}"), format!("GET {manifest}")]
    );
}

fn nameless() -> Reply {
    Reply::Whole(200, Vec::new(), MANIFEST.into()).with("content-type", media::OCI_MANIFEST)
}

#[tokio::test]
async fn where_head_is_refused_get_is_asked() {
    for head in [405, 400, 403, 404] {
        let head: fn() -> Reply = match head {
            405 => || Reply::status(405),
            400 => || Reply::status(400),
            403 => || Reply::status(403),
            _ => || Reply::status(404),
        };
        resolved_by_get(head, manifest).await;
    }
}

#[tokio::test]
async fn a_digest_that_is_not_told_is_computed() {
    resolved_by_get(nameless, nameless).await;
}

#[tokio::test]
async fn a_type_that_is_not_told_is_read() {
    fn untyped() -> Reply {
        Reply::Whole(200, Vec::new(), MANIFEST.into())
            .with("content-type", "application/json; charset=utf-8")
            .with("docker-content-digest", DIGEST)
    }
    resolved_by_get(untyped, untyped).await;
}

#[tokio::test]
async fn schema_1_is_named_as_such() {
    let typed = || Reply::status(200).with("content-type", media::DOCKER_SCHEMA1[1]);
    let untyped = || Reply::Whole(200, Vec::new(), br#"{"schemaVersion":1}"#.to_vec());
    for old in [typed as fn() -> Reply, untyped] {
        let server = Server::start(move |_, _| old()).await;
        let err = client(&[origin(&server.host())])
            .resolve(&tag())
            .await
            .expect_err("refused");
        assert_eq!(only(&err), Cause::Schema1);
        assert_eq!(err.kind(), ErrorKind::Unimplemented);
        assert!(!err.passes());
    }
}

#[tokio::test]
async fn m08_wrong_bytes_are_not_believed() {
    let wrong = || {
        let body = MANIFEST.replace("[]", "{}");
        Reply::Whole(200, Vec::new(), body.into()).with("content-type", media::OCI_MANIFEST)
    };
    let liar = Server::start(move |_, _| wrong()).await;
    let honest = Server::start(|_, _| manifest()).await;
    let err = client(&[origin(&liar.host())])
        .manifest(&descriptor())
        .await
        .expect_err("wrong");
    let Cause::WrongDigest { expected, .. } = only(&err) else {
        panic!("{err}");
    };
    assert_eq!(expected, digest());
    assert_eq!(err.kind(), ErrorKind::DataLoss);
    // The next host is asked.
    let client = client(&[mirror(&liar.host()), origin(&honest.host())]);
    let bytes = client.manifest(&descriptor()).await.expect("manifest");
    assert_eq!(bytes, MANIFEST);
}

/// A byte on the way may be wrong once. Who was wrong is asked behind the others.
#[tokio::test]
async fn wrong_bytes_are_asked_for_once_more() {
    let unsure = |wrong: usize| {
        Server::start(move |_, number| match number < wrong {
            true => Reply::Whole(200, Vec::new(), MANIFEST.replace("[]", "{}").into()),
            false => manifest(),
        })
    };
    let once = unsure(1).await;
    let client = client(&[origin(&once.host())]);
    let bytes = client.manifest(&descriptor()).await.expect("manifest");
    assert_eq!((bytes, once.lines().len()), (MANIFEST.into(), 2));
    let always = unsure(9).await;
    let client = self::client(&[origin(&always.host())]);
    let err = client.manifest(&descriptor()).await.expect_err("wrong");
    assert!(matches!(only(&err), Cause::WrongDigest { .. }));
    assert_eq!(always.lines().len(), 2);

    let (once, empty) = (
        unsure(1).await,
        Server::start(|_, _| Reply::status(404)).await,
    );
    let client = self::client(&[mirror(&once.host()), origin(&empty.host())]);
    let bytes = client.manifest(&descriptor()).await.expect("manifest");
    assert_eq!(bytes, MANIFEST);
    assert_eq!((once.lines().len(), empty.lines().len()), (2, 1));
    let always = unsure(9).await;
    let client = self::client(&[mirror(&always.host()), origin(&empty.host())]);
    let err = client.manifest(&descriptor()).await.expect_err("wrong");
    let causes: Vec<&Cause> = err.details().failed.iter().map(|one| &one.cause).collect();
    assert!(
        matches!(
            causes[..],
            [Cause::WrongDigest { .. }, Cause::NotFound { .. }]
        ),
        "{causes:?}"
    );
}

#[tokio::test]
async fn m08_a_header_that_names_another_digest_is_noticed() {
    let server = Server::start(|_, _| manifest()).await;
    let other = Digest::sha256(b"other");
    let err = client(&[origin(&server.host())])
        .resolve(&Reference::Digest(other.clone()))
        .await
        .expect_err("other");
    let expected = Cause::WrongDigest {
        expected: other,
        actual: digest(),
    };
    assert_eq!(only(&err), expected);
}

#[tokio::test]
async fn lengths_are_bounded_and_compared() {
    let long = usize::try_from(DOCUMENT_BYTES_MAX).expect("fits") + 1;
    let server = Server::start(move |_, _| Reply::Whole(200, Vec::new(), vec![b' '; long])).await;
    let client = client(&[origin(&server.host())]);
    let limit = DOCUMENT_BYTES_MAX;
    let err = client.manifest(&descriptor()).await.expect_err("long");
    assert_eq!(only(&err), Cause::TooLarge { limit });
    let err = client.resolve(&tag()).await.expect_err("long");
    assert_eq!(only(&err), Cause::TooLarge { limit });

    let server = Server::start(|_, _| manifest()).await;
    let mut short = descriptor();
    short.size = 238;
    let err = self::client(&[origin(&server.host())])
        .manifest(&short)
        .await
        .expect_err("longer");
    let (expected, actual) = (238, 239);
    assert_eq!(only(&err), Cause::WrongLength { expected, actual });
}

fn client_of(hosts: &[(&Server, bool)]) -> Client {
    let endpoint = |(server, is_origin): &(&Server, bool)| match is_origin {
        true => origin(&server.host()),
        false => mirror(&server.host()),
    };
    client(&hosts.iter().map(endpoint).collect::<Vec<_>>())
}

#[tokio::test]
async fn what_a_mirror_does_not_have_its_registry_does() {
    let empty = Server::start(|_, _| Reply::status(404)).await;
    let broken = Server::start(|_, _| Reply::status(500)).await;
    let origin = Server::start(|_, _| manifest()).await;
    let client = client_of(&[(&empty, false), (&broken, false), (&origin, true)]);

    // What a tag means is not for these mirrors to say.
    client.resolve(&tag()).await.expect("resolve");
    assert_eq!(empty.lines(), [""; 0]);

    client.manifest(&descriptor()).await.expect("manifest");
    let by_digest = format!("GET /v2/shop/web/manifests/{DIGEST}");
    assert_eq!(empty.lines(), [by_digest.as_str()]);
    // Nobody waits for a mirror.
    assert_eq!(broken.lines(), [by_digest.as_str()]);
    let ns = ("ns".to_owned(), "registry.example.com".to_owned());
    assert_eq!(empty.asked()[0].query(), [ns]);
    for asked in origin.asked() {
        assert_eq!(asked.query(), []);
    }
}

#[tokio::test]
async fn no_host_hides_behind_another() {
    let mirror = Server::start(|_, _| Reply::status(500)).await;
    let origin = Server::start(|_, _| {
        let text = r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#;
        Reply::Whole(403, Vec::new(), text.into())
    })
    .await;
    let client = client_of(&[(&mirror, false), (&origin, true)]);
    let err = client.manifest(&descriptor()).await.expect_err("refused");
    assert_eq!(err.details().what, What::Manifest(digest()));
    assert_eq!(err.kind(), ErrorKind::PermissionDenied);
    let text = format!(
        "all 2 hosts failed: {} answered 500 internal server error, gave up after 1 try in 0 s; \
         registry.example.com refused (403 forbidden)",
        mirror.host()
    );
    assert_eq!(err.to_string(), text);
    let answer = err.last().and_then(|failed| failed.cause.answer());
    assert_eq!(
        answer.map(ToString::to_string).as_deref(),
        Some("DENIED: not yours")
    );
}

#[tokio::test]
async fn nobody_to_ask_is_an_error() {
    let server = Server::start(|_, _| manifest()).await;
    let client = client(&[mirror(&server.host())]);
    let err = client.resolve(&tag()).await.expect_err("nobody");
    assert_eq!(err.to_string(), "no host may be asked for the tag 2.1");
    assert_eq!(err.kind(), ErrorKind::FailedPrecondition);
}

#[tokio::test]
async fn whether_it_exists() {
    let server = Server::start(|request: &Request, _| match request.path() {
        path if path.ends_with(DIGEST) => manifest(),
        _ => Reply::status(404),
    })
    .await;
    let client = client(&[mirror(&server.host()), origin(&server.host())]);
    assert!(client.exists(&descriptor()).await.expect("asked"));
    let blob = Descriptor::new(media::OCI_LAYER_GZIP, Digest::sha256(b"x"), 1);
    assert!(!client.exists(&blob).await.expect("asked"));
    let lines = server.lines();
    assert_eq!(lines[0], format!("HEAD /v2/shop/web/manifests/{DIGEST}"));
    assert_eq!(lines[1], format!("HEAD /v2/shop/web/blobs/{}", blob.digest));
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn tags_come_in_pages() {
    let server = Server::start(|request: &Request, _| {
        let last = request.query().into_iter().find(|(name, _)| name == "last");
        match last.as_ref().map(|(_, last)| last.as_str()) {
            None => Reply::json(r#"{"name":"shop/web","tags":["1.0","2.0"]}"#).with(
                "link",
                "</v2/shop/web/tags/list?n=2&last=2.0>; rel=\"next\"",
            ),
            Some("2.0") => Reply::json(r#"{"name":"shop/web","tags":["2.1"]}"#)
                .with("link", "<list?last=2.1>; rel=next"),
            Some(_) => Reply::json(r#"{"name":"shop/web","tags":null}"#),
        }
    })
    .await;
    let tags = client(&[origin(&server.host())])
        .tags()
        .await
        .expect("tags");
    assert_eq!(tags, ["1.0", "2.0", "2.1"]);
    assert_eq!(server.lines(), ["GET /v2/shop/web/tags/list"; 3]);
}

#[tokio::test]
async fn pages_stay_at_their_host_and_end() {
    let other = Server::start(|_, _| Reply::json("{}")).await;
    let link = format!("<{}>; rel=next", other.url("/v2/x/tags/list"));
    let server = Server::start(move |_, _| Reply::json("{}").with("link", link.clone())).await;
    let err = client(&[origin(&server.host())])
        .tags()
        .await
        .expect_err("elsewhere");
    assert!(matches!(only(&err), Cause::Malformed(_)), "{err}");
    assert_eq!(other.lines(), [""; 0]);

    let server = Server::start(|request: &Request, _| {
        Reply::json("{}").with("link", format!("<{}>; rel=next", request.target))
    })
    .await;
    let err = client(&[origin(&server.host())])
        .tags()
        .await
        .expect_err("endless");
    assert!(matches!(only(&err), Cause::Malformed(_)), "{err}");
    assert_eq!(server.lines().len(), 1);
}

/// Two referrers of different types.
fn index() -> String {
    let one = |kind: &str, of: &str| {
        serde_json::json!({
            "mediaType": media::OCI_MANIFEST, "digest": Digest::sha256(of.as_bytes()).to_string(),
            "size": 1, "artifactType": kind,
        })
    };
    let manifests = [one("text/sbom", "a"), one("text/signature", "b")];
    serde_json::json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests})
        .to_string()
}

async fn referrers(server: &Server, kind: Option<&str>) -> Vec<Digest> {
    let client = client(&[origin(&server.host())]);
    let found = client.referrers(&digest(), kind).await.expect("referrers");
    found.into_iter().map(|found| found.digest).collect()
}

#[tokio::test]
async fn referrers_are_listed_and_filtered() {
    let server = Server::start(|request: &Request, number| {
        let reply = Reply::json(&index());
        match number {
            0 => reply.with("link", format!("<{}?page=2>; rel=next", request.path())),
            _ => reply,
        }
    })
    .await;
    let (a, b) = (Digest::sha256(b"a"), Digest::sha256(b"b"));
    let all = referrers(&server, None).await;
    assert_eq!(all, [a.clone(), b.clone(), a.clone(), b]);
    // A registry that does not filter says nothing of a filter.
    assert_eq!(referrers(&server, Some("text/sbom")).await, [a]);
    let asked = server.asked();
    let last = asked.last().expect("asked");
    assert_eq!(last.path(), format!("/v2/shop/web/referrers/{DIGEST}"));
    let filter = ("artifactType".to_owned(), "text/sbom".to_owned());
    assert_eq!(last.query(), [filter]);
}

/// > If the referrers API returns a 404, the client MUST fallback to pulling the referrers tag schema.
/// > (distribution-spec, "Listing Referrers")
#[tokio::test]
async fn referrers_of_old_registries_are_a_tag() {
    let old = Server::start(|request: &Request, _| match request.path() {
        path if path.ends_with(&format!("/manifests/{}", DIGEST.replace(':', "-"))) => {
            Reply::Whole(200, Vec::new(), index().into()).with("content-type", media::OCI_INDEX)
        }
        _ => Reply::status(404),
    })
    .await;
    assert_eq!(
        referrers(&old, Some("text/signature")).await,
        [Digest::sha256(b"b")]
    );
    let empty = Server::start(|_, _| Reply::status(404)).await;
    assert_eq!(referrers(&empty, None).await, []);
}
