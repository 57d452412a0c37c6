//! Storing: blobs that are missing, mounts from other repositories, manifests.

use std::sync::Arc;

use bytes::Bytes;
use cairn_types::{Descriptor, Digest};
use http::{HeaderValue, Method, StatusCode, header};

use crate::{
    client::Client,
    error::{Cause, Error, What},
    host::{Host, Patience},
    net::Payload,
    reference::{Reference, is_repository},
    source::Source,
    token::Scopes,
    upload::{Upload, compare},
};

/// What came of the wish to mount a blob.
#[derive(Debug)]
pub enum Mounted {
    /// It is there now.
    Yes,
    /// It has to be sent, by this session.
    No(Box<Upload>),
}

/// How a blob came to be where it was to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Present,
    /// From this repository of the same registry.
    Mounted(String),
    /// It was sent.
    Sent,
}

/// What a registry made of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// It keeps the list of those that refer to the manifest's subject. Where it does not, whoever pushes
    /// has to keep one as a tag (distribution-spec, "Referrers Tag Schema").
    pub lists_subject: bool,
}

impl Client {
    /// Sees to it that a blob is there: looks, goes on with what was left of it ([`Options::sessions`](crate::Options::sessions)),
    /// mounts it from the first of the repositories `from` that has it, or sends it.
    ///
    /// # Errors
    /// That of the host to store at.
    pub async fn push(
        &self,
        descriptor: &Descriptor,
        source: &Arc<dyn Source>,
        from: &[String],
    ) -> Result<Pushed, Error> {
        if self.is_stored(descriptor).await? {
            return Ok(Pushed::Present);
        }
        if let Some(mut upload) = self.left(descriptor).await? {
            match upload.send(source).await {
                Ok(()) => return Ok(Pushed::Sent),
                // What was left may be what is wrong.
                Err(err) if err.last().is_some_and(|failed| !failed.cause.passes()) => {
                    tracing::debug!(%err, "send the rest of an upload of before");
                }
                Err(err) => return Err(err),
            }
        }
        let mut session = None;
        for repository in from {
            // One that was opened by the way and is not needed is not left behind.
            if let Some(upload) = session.take() {
                discard(upload).await;
            }
            match self.mount(descriptor, repository).await? {
                Mounted::Yes => return Ok(Pushed::Mounted(repository.clone())),
                Mounted::No(upload) => session = Some(*upload),
            }
        }
        let mut upload = match session {
            Some(upload) => upload,
            None => self.upload(descriptor).await?,
        };
        upload.send(source).await?;
        Ok(Pushed::Sent)
    }

    /// Whether a manifest or blob is at the host to store at.
    ///
    /// # Errors
    /// That host's.
    pub async fn is_stored(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        let (tail, what) = crate::manifest::place(descriptor);
        let host = self.push_host(&what)?;
        let scopes = self.push_scopes();
        let there = crate::manifest::look(host, Patience::Waits, (&tail, &what), &scopes).await;
        there.map_err(|cause| self.error(what, vec![host.failed(cause)]))
    }

    /// Asks for a blob of another repository of the same registry to be in this one as well. Whatever
    /// speaks against it (that one may be private, or registries may not do so), it can be sent instead.
    ///
    /// # Errors
    /// That of the host to store at, when it can neither be mounted nor sent.
    pub async fn mount(&self, descriptor: &Descriptor, from: &str) -> Result<Mounted, Error> {
        let what = What::Upload(descriptor.digest.clone());
        let host = self.push_host(&what)?;
        if is_repository(from) && from != self.repository() {
            let mounted = self.mount_at(host, descriptor, from).await;
            match mounted {
                Ok(Some(mounted)) => return Ok(mounted),
                Ok(None) | Err(Cause::Unauthorized { .. } | Cause::Denied(_)) => {}
                Err(cause) => return Err(self.error(what, vec![host.failed(cause)])),
            }
        }
        let upload = self.upload(descriptor).await?;
        Ok(Mounted::No(Box::new(upload)))
    }

    /// `None` when it is refused without a session to send it by.
    async fn mount_at(
        &self,
        host: &Host,
        descriptor: &Descriptor,
        from: &str,
    ) -> Result<Option<Mounted>, Cause> {
        let digest = descriptor.digest.to_string();
        let mut ask = host.ask(Method::POST, "blobs/uploads/")?;
        ask.url = host.url("blobs/uploads/", &[("mount", &digest), ("from", from)])?;
        let ask = ask
            .header(header::CONTENT_LENGTH, HeaderValue::from_static("0"))
            .about(What::Upload(descriptor.digest.clone()));
        let scopes = self.push_scopes().and(&Scopes::pull(from));
        let response = host.send(&ask, &scopes, Patience::Waits).await?;
        match response.status() {
            StatusCode::CREATED => {
                compare(&response, &descriptor.digest)?;
                Ok(Some(Mounted::Yes))
            }
            StatusCode::ACCEPTED => {
                let upload = Upload::opened(self, host, descriptor, &response)?;
                Ok(Some(Mounted::No(Box::new(upload))))
            }
            _ => Ok(None),
        }
    }

    /// Stores a manifest or index under a tag or its digest, byte for byte.
    ///
    /// # Errors
    /// The host's. [`Cause::WrongDigest`] when the registry has something else than was sent, or when the
    /// reference is another digest than that of the bytes.
    pub async fn put(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Stored, Error> {
        let what = What::Put(reference.clone());
        let host = self.push_host(&what)?;
        let stored = self.put_at(host, reference, media_type, bytes).await;
        stored.map_err(|cause| self.error(what, vec![host.failed(cause)]))
    }

    async fn put_at(
        &self,
        host: &Host,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Stored, Cause> {
        let expected = match reference {
            Reference::Tag(_) => Digest::sha256(&bytes),
            Reference::Digest(digest) => {
                let actual = Digest::of(digest.algorithm(), &bytes);
                if actual != *digest {
                    return Err(Cause::WrongDigest {
                        expected: digest.clone(),
                        actual,
                    });
                }
                actual
            }
        };
        let kind = HeaderValue::from_str(media_type)
            .map_err(|_| Cause::Source(format!("{media_type:?} is no media type")))?;
        let ask = host.ask(Method::PUT, &format!("manifests/{reference}"))?;
        let mut ask = ask
            .header(header::CONTENT_TYPE, kind)
            .about(What::Put(reference.clone()));
        ask.payload = Payload::Bytes(bytes);
        let scopes = self.push_scopes();
        let response = host.send(&ask, &scopes, Patience::Waits).await?;
        if !response.status().is_success() {
            let what = What::Put(reference.clone());
            return Err(host.refusal(response, what, self.repository()).await);
        }
        compare(&response, &expected)?;
        Ok(Stored {
            lists_subject: response.headers().contains_key("oci-subject"),
        })
    }
}

/// Nothing depends on it: a registry removes such sessions by itself, only later.
async fn discard(upload: Upload) {
    if let Err(err) = upload.cancel().await {
        tracing::debug!(%err, "cancel an upload that is not needed");
    }
}
