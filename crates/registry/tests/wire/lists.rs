//! Tags and referrers: of Debian's registry, which gives all tags at once and knows no referrers but by
//! their tag, and of a server that has both lists of the specification.

use std::sync::Arc;

use bytes::Bytes;
use cairn_registry::{
    Client, Reference, Source, Tag,
    credentials::{Anonymous, Credentials},
    referrers_tag,
};
use cairn_types::{Descriptor, Digest, media};
use serde_json::{Value, json};

use crate::{
    common::{
        FakeClock, client, options, origin,
        registry::Registry,
        server::{Reply, Request, Server},
    },
    read::{DIGEST, MANIFEST, descriptor, digest},
};

const SBOM: &str = "application/vnd.example.sbom";
const SIGNATURE: &str = "application/vnd.example.signature";

pub(crate) fn client_of(registry: &Registry) -> Client {
    let nobody: Arc<dyn Credentials> = Arc::new(Anonymous);
    let endpoints = [origin(&registry.host())];
    let options = options(&FakeClock::new());
    Client::new(&registry.host(), "shop/web", &endpoints, &nobody, options).expect("client")
}

pub(crate) fn named(text: &str) -> Reference {
    Reference::Tag(Tag::parse(text).expect("tag"))
}

async fn put(client: &Client, reference: &Reference, document: &Value, media_type: &str) {
    let bytes = Bytes::from(document.to_string());
    let stored = client.put(reference, media_type, bytes).await;
    stored.expect("stored");
}

/// The image that tags mean.
pub(crate) async fn push_image(client: &Client) {
    let config: Arc<dyn Source> = Arc::new(Bytes::from_static(b"{}"));
    let described = Descriptor::new(media::OCI_CONFIG, Digest::sha256(b"{}"), 2);
    let pushed = client.push(&described, &config, &[]).await;
    pushed.expect("config");
    let manifest = Bytes::from(MANIFEST);
    let stored = client
        .put(&Reference::Digest(digest()), media::OCI_MANIFEST, manifest)
        .await;
    stored.expect("manifest");
}

#[tokio::test]
async fn tags_of_debians_registry() {
    let registry = Registry::start();
    let client = client_of(&registry);
    push_image(&client).await;
    let mut expected: Vec<String> = (0..30).map(|number| format!("1.{number}")).collect();
    for tag in &expected {
        let stored = client
            .put(&named(tag), media::OCI_MANIFEST, Bytes::from(MANIFEST))
            .await;
        stored.expect("stored");
    }
    let mut tags = client.tags().await.expect("tags");
    tags.sort();
    expected.sort();
    assert_eq!(tags, expected);
}

/// A manifest about the image, of a kind.
fn about(kind: &str) -> Value {
    let empty = json!({
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": Digest::sha256(b"{}"), "size": 2,
    });
    json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "artifactType": kind,
        "config": empty, "layers": [empty], "subject": descriptor(),
        "annotations": { "org.example.kind": kind },
    })
}

/// As a list has it: with type and annotations of the manifest.
fn listed(document: &Value) -> Value {
    let bytes = document.to_string();
    json!({
        "mediaType": media::OCI_MANIFEST,
        "digest": Digest::sha256(bytes.as_bytes()), "size": bytes.len(),
        "artifactType": document["artifactType"], "annotations": document["annotations"],
    })
}

fn list(of: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": of })
}

#[track_caller]
fn are(found: &[Descriptor], expected: &[&Value]) {
    let found: Vec<Value> = found
        .iter()
        .map(|one| serde_json::to_value(one).expect("JSON"))
        .collect();
    assert_eq!(found.iter().collect::<Vec<_>>(), expected);
}

/// > If the referrers API returns a 404, the client MUST fallback to pulling the referrers tag schema.
/// > (distribution-spec, "Listing Referrers")
#[tokio::test]
async fn referrers_of_debians_registry_are_a_tag() {
    let registry = Registry::start();
    let client = client_of(&registry);
    push_image(&client).await;
    let none = client.referrers(&digest(), None).await;
    are(&none.expect("referrers"), &[]);

    let documents = [about(SBOM), about(SIGNATURE)];
    let [sbom, signature] = documents.each_ref().map(listed);
    for (document, described) in documents.iter().zip([&sbom, &signature]) {
        let digest = described["digest"].as_str().expect("digest");
        let by = Reference::Digest(Digest::parse(digest).expect("digest"));
        put(&client, &by, document, media::OCI_MANIFEST).await;
    }
    let fallback = referrers_tag(&digest()).expect("tag");
    assert_eq!(fallback.as_str(), DIGEST.replace(':', "-"));
    let both = list(&[sbom.clone(), signature.clone()]);
    put(&client, &fallback.into(), &both, media::OCI_INDEX).await;

    let found = client.referrers(&digest(), None).await;
    are(&found.expect("referrers"), &[&sbom, &signature]);
    for (kind, expected) in [
        (SBOM, &[&sbom][..]),
        (SIGNATURE, &[&signature]),
        ("text/plain", &[]),
    ] {
        let found = client.referrers(&digest(), Some(kind)).await;
        are(&found.expect("referrers"), expected);
    }
}

/// > If filtering is requested and applied, the response MUST include a header `OCI-Filters-Applied:
/// > artifactType` denoting that an `artifactType` filter was applied. (distribution-spec, "Listing
/// > Referrers")
#[tokio::test]
async fn referrers_that_are_filtered_come_as_they_are() {
    let [sbom, signature] = [about(SBOM), about(SIGNATURE)].map(|document| listed(&document));
    // A registry may know the type of one that its list does not give.
    let mut untyped = sbom.clone();
    untyped["digest"] = json!(Digest::sha256(b"untyped"));
    untyped
        .as_object_mut()
        .expect("object")
        .remove("artifactType");
    let all = [sbom.clone(), signature.clone(), untyped.clone()];
    let server = Server::start(move |request: &Request, _| {
        let query = request.query();
        let get = |name: &str| {
            let found = query.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        let is_sbom = |one: &&Value| one["artifactType"] != SIGNATURE;
        let filter = get("artifactType");
        let wanted: Vec<Value> = match &filter {
            Some(_) => all.iter().filter(is_sbom).cloned().collect(),
            None => all.to_vec(),
        };
        // One for each page.
        let at = get("at").map_or(0, |at| at.parse().expect("number"));
        let mut reply = Reply::Whole(200, Vec::new(), list(&wanted[at..=at]).to_string().into());
        reply = reply.with("content-type", media::OCI_INDEX);
        if let Some(filter) = &filter {
            reply = reply.with("oci-filters-applied", "artifactType");
            let next = format!("<?at={}&artifactType={filter}>; rel=\"next\"", at + 1);
            return if at + 1 < wanted.len() {
                reply.with("link", next)
            } else {
                reply
            };
        }
        let next = format!("<?at={}>; rel=\"next\"", at + 1);
        if at + 1 < wanted.len() {
            reply.with("link", next)
        } else {
            reply
        }
    })
    .await;
    let client = client(&[origin(&server.host())]);
    let found = client.referrers(&digest(), None).await;
    are(&found.expect("referrers"), &[&sbom, &signature, &untyped]);
    let found = client.referrers(&digest(), Some(SBOM)).await;
    are(&found.expect("referrers"), &[&sbom, &untyped]);
    assert_eq!(server.asked().len(), 3 + 2);
}
