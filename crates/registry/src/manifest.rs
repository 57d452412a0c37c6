//! Manifests and indexes: what a reference means, and the bytes that it means.

use std::sync::LazyLock;

use bytes::Bytes;
use cairn_types::{Descriptor, Digest, MediaKind, media};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use reqwest::Response;
use serde::Deserialize;

use crate::{
    body::Body,
    client::{Client, Need},
    error::{Cause, Error, What},
    host::{Host, Patience},
    net::Ask,
    options::DOCUMENT_BYTES_MAX,
    reference::Reference,
    token::Scopes,
    turns::Turns,
};

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Manifests of artifacts, from a draft of the specification; some registries still have them.
const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

/// What we can make use of. Without `*/*` some registries deny that anything else is there; with it what
/// is old can be told apart from what is missing.
static ACCEPT: LazyLock<HeaderValue> = LazyLock::new(|| {
    let types = [
        media::OCI_INDEX,
        media::OCI_MANIFEST,
        media::DOCKER_LIST,
        media::DOCKER_MANIFEST,
        OCI_ARTIFACT,
        "*/*",
    ];
    HeaderValue::from_str(&types.join(", ")).unwrap_or(HeaderValue::from_static("*/*"))
});

impl Client {
    /// What a reference means now: type, digest and size of a manifest or index.
    ///
    /// What a host says of a tag is believed, as its answer is the only source; bytes are proven when they
    /// come ([`Client::manifest`]). Where it does not say, the bytes are fetched and hashed here.
    ///
    /// # Errors
    /// Those of all hosts. Docker's first schema is [`Cause::Schema1`].
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor, Error> {
        let need = match reference {
            Reference::Tag(_) => Need::Resolve,
            Reference::Digest(_) => Need::Pull,
        };
        let mut turns = Turns::new(self, What::Resolve(reference.clone()), need);
        while let Some((host, patience)) = turns.host() {
            match self.resolve_at(host, patience, reference).await {
                Ok(descriptor) => return Ok(descriptor),
                Err(cause) => turns.failed(cause),
            }
        }
        Err(turns.error())
    }

    async fn resolve_at(
        &self,
        host: &Host,
        patience: Patience,
        reference: &Reference,
    ) -> Result<Descriptor, Cause> {
        let ask = self.ask(host, Method::HEAD, reference)?;
        let head = host.send(&ask, &self.pull_scopes(), patience).await?;
        if head.status() == StatusCode::NOT_FOUND && patience == Patience::Once {
            // The next host is asked anyway; a body to read the reason from would make a mirror look again.
            let what = What::Resolve(reference.clone());
            return Err(host.refusal(head, what, self.repository()).await);
        }
        if head.status().is_success() {
            let kind = media_type(&head);
            if MediaKind::of(&kind) == MediaKind::Schema1 {
                return Err(Cause::Schema1);
            }
            if let (true, Some(digest), Some(size)) = (
                is_document(&kind),
                claimed(&head, reference)?,
                length(&head),
            ) {
                if size > DOCUMENT_BYTES_MAX {
                    return Err(Cause::TooLarge {
                        limit: DOCUMENT_BYTES_MAX,
                    });
                }
                return Ok(Descriptor::new(kind, digest, size));
            }
        }
        // HEAD is not allowed everywhere, and where it is refused its answer has no body to say why.
        drop(head);
        self.resolve_by_body(host, patience, reference).await
    }

    async fn resolve_by_body(
        &self,
        host: &Host,
        patience: Patience,
        reference: &Reference,
    ) -> Result<Descriptor, Cause> {
        let ask = self.ask(host, Method::GET, reference)?;
        let response = host.send(&ask, &self.pull_scopes(), patience).await?;
        if !response.status().is_success() {
            let what = What::Resolve(reference.clone());
            return Err(host.refusal(response, what, self.repository()).await);
        }
        let kind = media_type(&response);
        if MediaKind::of(&kind) == MediaKind::Schema1 {
            return Err(Cause::Schema1);
        }
        let claimed = claimed(&response, reference)?;
        let bytes = Body::new(response, &self.0.options)
            .all(DOCUMENT_BYTES_MAX)
            .await?;
        let kind = if is_document(&kind) {
            kind
        } else {
            read_kind(&bytes)?
        };
        let digest = match claimed {
            Some(digest) => prove(&digest, &bytes)?,
            None => Digest::sha256(&bytes),
        };
        self.remember(&digest, &bytes);
        Ok(Descriptor::new(kind, digest, bytes.len() as u64))
    }

    /// The bytes of a manifest or index, proven by size and digest. A size of 0 is one that is not known.
    ///
    /// # Errors
    /// Those of all hosts; more than [`DOCUMENT_BYTES_MAX`] bytes are not read.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        if let Some(bytes) = self.remembered(&descriptor.digest) {
            return Ok(bytes);
        }
        let what = What::Manifest(descriptor.digest.clone());
        let mut turns = Turns::new(self, what, Need::Pull);
        while let Some((host, patience)) = turns.host() {
            match self.manifest_at(host, patience, descriptor).await {
                Ok(bytes) => return Ok(bytes),
                Err(cause) => turns.failed(cause),
            }
        }
        Err(turns.error())
    }

    async fn manifest_at(
        &self,
        host: &Host,
        patience: Patience,
        descriptor: &Descriptor,
    ) -> Result<Bytes, Cause> {
        let reference = Reference::Digest(descriptor.digest.clone());
        let ask = self.ask(host, Method::GET, &reference)?;
        let response = host.send(&ask, &self.pull_scopes(), patience).await?;
        if !response.status().is_success() {
            let what = What::Manifest(descriptor.digest.clone());
            return Err(host.refusal(response, what, self.repository()).await);
        }
        let bytes = Body::new(response, &self.0.options)
            .all(DOCUMENT_BYTES_MAX)
            .await?;
        if descriptor.size != 0 && descriptor.size != bytes.len() as u64 {
            return Err(Cause::WrongLength {
                expected: descriptor.size,
                actual: bytes.len() as u64,
            });
        }
        prove(&descriptor.digest, &bytes)?;
        if read_kind(&bytes).is_err_and(|cause| cause == Cause::Schema1) {
            return Err(Cause::Schema1);
        }
        Ok(bytes)
    }

    /// Whether a manifest or blob is there: at any host that may be asked for it.
    ///
    /// # Errors
    /// Those of all hosts, unless one of them says that it has no such thing.
    pub async fn exists(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        let (tail, what) = place(descriptor);
        let mut failed = Vec::new();
        let mut denied = false;
        for (host, patience) in self.hosts(Need::Pull) {
            match look(host, patience, (&tail, &what), &self.pull_scopes()).await {
                Ok(true) => return Ok(true),
                Ok(false) => denied = true,
                Err(cause) => failed.push(host.failed(cause)),
            }
        }
        if denied {
            return Ok(false);
        }
        Err(self.error(what, failed))
    }

    fn ask(&self, host: &Host, method: Method, reference: &Reference) -> Result<Ask, Cause> {
        let mut ask = host.ask(method, &format!("manifests/{reference}"))?;
        ask.proven = matches!(reference, Reference::Digest(_));
        ask.what = Some(match reference {
            Reference::Digest(digest) => What::Manifest(digest.clone()),
            tag @ Reference::Tag(_) => What::Resolve(tag.clone()),
        });
        Ok(ask.header(header::ACCEPT, ACCEPT.clone()))
    }
}

/// Whether something is at a host, by HEAD. It is given by where it is in the repository, and by what it is.
pub(crate) async fn look(
    host: &Host,
    patience: Patience,
    (tail, what): (&str, &What),
    scopes: &Scopes,
) -> Result<bool, Cause> {
    let ask = host.ask(Method::HEAD, tail)?.about(what.clone());
    let ask = ask.header(header::ACCEPT, ACCEPT.clone());
    let response = host.send(&ask, scopes, patience).await?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(false),
        status if status.is_success() => Ok(true),
        _ => Err(host.refusal(response, tail, "").await),
    }
}

/// Where in a repository something is, and as what it is asked for.
pub(crate) fn place(descriptor: &Descriptor) -> (String, What) {
    let digest = &descriptor.digest;
    if is_document(&descriptor.media_type) {
        return (
            format!("manifests/{digest}"),
            What::Manifest(digest.clone()),
        );
    }
    (format!("blobs/{digest}"), What::Blob(digest.clone()))
}

pub(crate) fn is_document(media_type: &str) -> bool {
    media_type == OCI_ARTIFACT
        || matches!(
            MediaKind::of(media_type),
            MediaKind::Index | MediaKind::Manifest
        )
}

/// The type without its parameters; empty where there is none.
pub(crate) fn media_type(response: &Response) -> String {
    let value = response.headers().get(header::CONTENT_TYPE);
    let text = value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

fn length(response: &Response) -> Option<u64> {
    let value = response.headers().get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// The digest that an answer has to have: that which was asked for, else that which its header says.
fn claimed(response: &Response, reference: &Reference) -> Result<Option<Digest>, Cause> {
    let header = response.headers().get(CONTENT_DIGEST);
    let said = header
        .and_then(|value| value.to_str().ok())
        .and_then(|text| Digest::parse(text).ok());
    let Reference::Digest(asked) = reference else {
        return Ok(said);
    };
    // A registry may name the same bytes by its own algorithm.
    match said.filter(|said| said.algorithm() == asked.algorithm() && said != asked) {
        Some(actual) => Err(Cause::WrongDigest {
            expected: asked.clone(),
            actual,
        }),
        None => Ok(Some(asked.clone())),
    }
}

fn prove(expected: &Digest, bytes: &[u8]) -> Result<Digest, Cause> {
    let actual = Digest::of(expected.algorithm(), bytes);
    if actual == *expected {
        return Ok(actual);
    }
    Err(Cause::WrongDigest {
        expected: expected.clone(),
        actual,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
}

/// The type of a document that came without one, by what is in it.
fn read_kind(bytes: &[u8]) -> Result<String, Cause> {
    let shape: Shape = serde_json::from_slice(bytes)
        .map_err(|_| Cause::Malformed("its manifest is no JSON object".to_owned()))?;
    if shape.schema_version == Some(1) {
        return Err(Cause::Schema1);
    }
    match shape {
        Shape {
            media_type: Some(kind),
            ..
        } if is_document(&kind) => Ok(kind),
        Shape {
            manifests: Some(_),
            layers: None,
            ..
        } => Ok(media::OCI_INDEX.to_owned()),
        Shape {
            layers: Some(_),
            manifests: None,
            ..
        } => Ok(media::OCI_MANIFEST.to_owned()),
        _ => Err(Cause::Malformed(
            "its manifest is neither an image's nor an index".to_owned(),
        )),
    }
}
