//! The upload of one blob: in one request or in chunks, resumed where the registry has it.
//!
//! One request is what registries like best, and what is sent first. A front that lets no body pass beyond
//! some size answers 413; from then on all uploads to that host go in chunks of less.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_types::{Descriptor, Digest};
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::Response;
use url::Url;

use crate::{
    breaks::Breaks,
    client::Client,
    error::{Cause, Error, What},
    host::{Host, Patience},
    manifest::{CONTENT_DIGEST, look},
    net::{self, Ask, Payload},
    source::{Outgoing, Source},
};

/// Bytes per second at which a registry is thought to read a blob again, or to have its storage copy it,
/// before it says that it is there.
const COMMIT_RATE: u64 = 16 << 20;

/// Bytes of a chunk when a whole blob was too large.
const CHUNK_BYTES: u64 = 16 << 20;

/// Smaller ones are not tried: whoever takes no more is not made for images. nginx takes 1 MiB where nobody
/// told it otherwise.
const CHUNK_BYTES_MIN: u64 = 256 << 10;

/// A session that a registry has opened for one blob.
///
/// Dropping it leaves it there; registries remove what nobody goes on with after a day or a week.
/// [`Upload::cancel`] has it removed at once.
pub struct Upload {
    client: Client,
    descriptor: Descriptor,
    location: Url,
    /// Bytes that the registry has.
    at: u64,
    /// The least that it takes in one request before the last.
    chunk_min: u64,
    /// Bytes of the body that was sent last.
    body: u64,
    /// Its state was asked for, since something had gone wrong.
    recovered: bool,
}

/// What it takes to go on with an upload later, in another process as well.
#[derive(Clone, PartialEq, Eq)]
pub struct UploadState {
    /// The address of the session. Whoever has it may be able to write to it: it is not for logs.
    pub location: String,
}

impl fmt::Debug for UploadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadState")
    }
}

/// What of a session is still there.
enum Session {
    Open,
    /// The blob is there: only the answer that said so was lost.
    Done,
    Gone,
}

impl Client {
    /// Opens a session for a blob.
    ///
    /// # Errors
    /// That of the host to store at.
    pub async fn upload(&self, descriptor: &Descriptor) -> Result<Upload, Error> {
        let what = What::Upload(descriptor.digest.clone());
        let host = self.push_host(&what)?;
        let failed = |cause| self.error(what.clone(), vec![host.failed(cause)]);
        let response = begin(self, host, &what).await.map_err(failed)?;
        Upload::opened(self, host, descriptor, &response).map_err(failed)
    }

    /// Goes on with a session of before, from where the registry has it.
    ///
    /// # Errors
    /// [`Cause::NotFound`] where it was forgotten, and a new one has to be opened.
    pub async fn resume(
        &self,
        descriptor: &Descriptor,
        state: &UploadState,
    ) -> Result<Upload, Error> {
        let what = What::Upload(descriptor.digest.clone());
        let host = self.push_host(&what)?;
        let failed = |cause| self.error(what.clone(), vec![host.failed(cause)]);
        let location = Url::parse(&state.location)
            .map_err(|_| failed(Cause::Malformed("its upload has no address".to_owned())))?;
        let mut upload = Upload {
            client: self.clone(),
            descriptor: descriptor.clone(),
            location,
            at: 0,
            chunk_min: 0,
            body: 0,
            recovered: true,
        };
        upload.look(host).await.map_err(failed)?;
        Ok(upload)
    }

    /// The upload that a process before this one has left, if it is there still. Whatever speaks against it,
    /// a new one can be opened.
    pub(crate) async fn left(&self, descriptor: &Descriptor) -> Result<Option<Upload>, Error> {
        let host = self.push_host(&What::Upload(descriptor.digest.clone()))?;
        let sessions = &self.0.options.sessions;
        let Some(state) = sessions.kept(host.place(), descriptor) else {
            return Ok(None);
        };
        let resumed = self.resume(descriptor, &state).await;
        if let Err(err) = &resumed {
            tracing::debug!(%err, "go on with an upload of before");
            sessions.forget(host.place(), descriptor);
        }
        Ok(resumed.ok())
    }
}

impl Upload {
    pub(crate) fn opened(
        client: &Client,
        host: &Host,
        descriptor: &Descriptor,
        response: &Response,
    ) -> Result<Upload, Cause> {
        let chunk_min = response.headers().get("oci-chunk-min-length");
        let chunk_min = chunk_min.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Upload {
            client: client.clone(),
            descriptor: descriptor.clone(),
            location: session(host, response)?,
            at: 0,
            chunk_min: chunk_min.unwrap_or(0),
            body: 0,
            recovered: false,
        })
    }

    /// Bytes that the registry has.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// What to keep, to go on after a restart.
    pub fn state(&self) -> UploadState {
        UploadState {
            location: self.location.to_string(),
        }
    }

    fn what(&self) -> What {
        What::Upload(self.descriptor.digest.clone())
    }

    /// Sends what the registry does not have yet and makes it a blob. What breaks is resumed where the
    /// registry can, and begun again where it cannot.
    ///
    /// # Errors
    /// The host's; [`Cause::Source`] when the bytes cannot be read; [`Cause::WrongDigest`] when the
    /// registry made something else of them.
    pub async fn send(&mut self, source: &Arc<dyn Source>) -> Result<(), Error> {
        let client = self.client.clone();
        let host = client.push_host(&self.what())?;
        let sent = self.send_to(host, source).await;
        sent.map_err(|cause| client.error(self.what(), vec![host.failed(cause)]))
    }

    /// As long as it may go on, another process may go on with it.
    async fn send_to(&mut self, host: &Host, source: &Arc<dyn Source>) -> Result<(), Cause> {
        self.keep(host);
        let sent = self.send_all(host, source).await;
        if !matches!(&sent, Err(cause) if cause.passes()) {
            let sessions = &self.client.0.options.sessions;
            sessions.forget(host.place(), &self.descriptor);
        }
        sent
    }

    fn keep(&self, host: &Host) {
        let sessions = &self.client.0.options.sessions;
        sessions.keep(host.place(), &self.descriptor, &self.state());
    }

    async fn send_all(&mut self, host: &Host, source: &Arc<dyn Source>) -> Result<(), Cause> {
        let mut breaks = Breaks::new(&self.client.0.options);
        let mut furthest = self.at;
        loop {
            let since = Instant::now();
            let cause = match self.go(host, source, &mut breaks).await {
                Ok(()) => return Ok(()),
                Err(cause) if self.may_recover(&cause) => cause,
                Err(cause) => return Err(cause),
            };
            let took = since.elapsed();
            if let Some(chunk) = self.smaller(&cause) {
                host.limit_chunks(chunk);
            } else {
                breaks.broke(false);
                if !host.pause(&self.what(), breaks.in_row(), &cause).await {
                    return Err(cause);
                }
            }
            match self.recover(host).await? {
                Session::Done => return Ok(()),
                Session::Open => {}
                Session::Gone => {
                    let response = begin(&self.client, host, &self.what()).await?;
                    self.location = session(host, &response)?;
                    self.at = 0;
                    self.recovered = false;
                }
            }
            self.keep(host);
            if self.at > furthest {
                breaks.gained(self.at - furthest, took);
                furthest = self.at;
            }
        }
    }

    /// Whether a session may go on, or begin again, after this.
    fn may_recover(&self, cause: &Cause) -> bool {
        match cause {
            // It counts otherwise than we do.
            Cause::Status { status: 416, .. } => true,
            Cause::Status { status: 413, .. } => self.smaller(cause).is_some(),
            // Some find out at the end, or by a state of their own, that the pieces do not fit.
            Cause::Status { status: 400, .. } | Cause::NotFound { .. } => {
                self.recovered || self.at > 0
            }
            cause => cause.passes(),
        }
    }

    /// Of how many bytes chunks are to be when the last body was too large. `None` for any other failure, and
    /// where the registry takes none that is smaller.
    fn smaller(&self, cause: &Cause) -> Option<u64> {
        if !matches!(cause, Cause::Status { status: 413, .. }) {
            return None;
        }
        let mut chunk = CHUNK_BYTES;
        while chunk >= self.body.max(1) {
            chunk /= 2;
        }
        let chunk = chunk.max(self.chunk_min);
        (chunk < self.body && chunk >= CHUNK_BYTES_MIN).then_some(chunk)
    }

    async fn go(
        &mut self,
        host: &Host,
        source: &Arc<dyn Source>,
        breaks: &mut Breaks,
    ) -> Result<(), Cause> {
        while let Some(chunk) = host.chunk() {
            let chunk = chunk.max(self.chunk_min).max(1);
            if self.descriptor.size - self.at <= chunk {
                break;
            }
            let (before, to) = (self.at, self.at + chunk);
            let since = Instant::now();
            self.patch(host, source, to).await?;
            // Registries have their state in the address, and take no other.
            self.keep(host);
            // Some storages take multiples of their own, and are sent the rest again.
            if self.at < to {
                breaks.broke(false);
                if breaks.in_row() > self.client.0.options.retry.tries {
                    return Err(takes_nothing(before, to, self.at));
                }
                breaks.gained(self.at - before, since.elapsed());
            }
        }
        self.put(host, source).await
    }

    /// Sends the bytes up to `to` and keeps the session open. They are part of no blob yet.
    ///
    /// # Errors
    /// As [`Upload::send`]; nothing is tried again.
    pub async fn send_until(&mut self, source: &Arc<dyn Source>, to: u64) -> Result<(), Error> {
        let client = self.client.clone();
        let host = client.push_host(&self.what())?;
        let to = to.min(self.descriptor.size);
        if to <= self.at {
            return Ok(());
        }
        let sent = self.patch(host, source, to).await;
        sent.map_err(|cause| client.error(self.what(), vec![host.failed(cause)]))
    }

    async fn patch(&mut self, host: &Host, source: &Arc<dyn Source>, to: u64) -> Result<(), Cause> {
        self.body = to - self.at;
        let ask = self.carrying(Method::PATCH, self.location.clone(), source, to)?;
        let ask = ask.header(header::CONTENT_RANGE, span(self.at, to)?);
        let response = self.ask(host, &ask, Patience::ByCaller).await?;
        if !response.status().is_success() {
            return Err(self.refusal(host, response).await);
        }
        self.location = session(host, &response)?;
        // Where it does not say, it has all that it was sent.
        let has = match received(&response) {
            // Of one byte that is the range, too.
            Some(0) if to == 1 => 1,
            has => has.unwrap_or(to),
        };
        if has > to {
            let why = format!("it has {has} bytes of an upload of which {to} were sent");
            return Err(Cause::Malformed(why));
        }
        // It would be sent the same again, and say the same.
        if has <= self.at {
            return Err(takes_nothing(self.at, to, has));
        }
        self.at = has;
        Ok(())
    }

    /// The rest, which may be all of it or nothing, and the digest.
    async fn put(&mut self, host: &Host, source: &Arc<dyn Source>) -> Result<(), Cause> {
        let mut url = self.location.clone();
        // Added to what is there: it may hold the registry's own state.
        url.query_pairs_mut()
            .append_pair("digest", &self.descriptor.digest.to_string());
        self.body = self.descriptor.size - self.at;
        let mut ask = self.carrying(Method::PUT, url, source, self.descriptor.size)?;
        if let Payload::Stream(outgoing) = &mut ask.payload {
            outgoing.digestion = Duration::from_secs(self.descriptor.size / COMMIT_RATE);
        }
        if self.at > 0 && self.at < self.descriptor.size {
            ask = ask.header(header::CONTENT_RANGE, span(self.at, self.descriptor.size)?);
        }
        let response = self.ask(host, &ask, Patience::ByCaller).await?;
        if !response.status().is_success() {
            return Err(self.refusal(host, response).await);
        }
        compare(&response, &self.descriptor.digest)
    }

    fn carrying(
        &self,
        method: Method,
        url: Url,
        source: &Arc<dyn Source>,
        to: u64,
    ) -> Result<Ask, Cause> {
        let bytes = HeaderValue::from_static("application/octet-stream");
        let mut ask = Ask::new(method, url)
            .header(header::CONTENT_TYPE, bytes)
            .about(self.what());
        ask.payload = Payload::Stream(Outgoing {
            source: Arc::clone(source),
            from: self.at,
            to,
            digestion: Duration::ZERO,
        });
        Ok(ask)
    }

    async fn ask(&self, host: &Host, ask: &Ask, patience: Patience) -> Result<Response, Cause> {
        host.send(ask, &self.client.push_scopes(), patience).await
    }

    async fn refusal(&self, host: &Host, response: Response) -> Cause {
        let repository = self.client.repository();
        host.refusal(response, "such upload", repository).await
    }

    /// Finds out what of the session is left.
    async fn recover(&mut self, host: &Host) -> Result<Session, Cause> {
        self.recovered = true;
        match self.look(host).await {
            Ok(()) => return Ok(Session::Open),
            Err(cause) if cause.passes() => return Err(cause),
            Err(_) => {}
        }
        let tail = format!("blobs/{}", self.descriptor.digest);
        let scopes = self.client.push_scopes();
        let what = self.what();
        match look(host, Patience::Waits, (&tail, &what), &scopes).await? {
            true => Ok(Session::Done),
            false => Ok(Session::Gone),
        }
    }

    async fn look(&mut self, host: &Host) -> Result<(), Cause> {
        let ask = Ask::new(Method::GET, self.location.clone()).about(self.what());
        let response = self.ask(host, &ask, Patience::Waits).await?;
        if !response.status().is_success() {
            return Err(self.refusal(host, response).await);
        }
        if response.headers().contains_key(header::LOCATION) {
            self.location = session(host, &response)?;
        }
        let has = received(&response).unwrap_or(0);
        if has > self.descriptor.size {
            return Err(Cause::WrongLength {
                expected: self.descriptor.size,
                actual: has,
            });
        }
        self.at = has;
        Ok(())
    }

    /// Has the registry forget the session.
    ///
    /// # Errors
    /// The host's. A session that is gone already is none.
    pub async fn cancel(self) -> Result<(), Error> {
        let host = self.client.push_host(&self.what())?;
        let failed = |cause| self.client.error(self.what(), vec![host.failed(cause)]);
        let ask = Ask::new(Method::DELETE, self.location.clone()).about(self.what());
        let response = self
            .ask(host, &ask, Patience::Waits)
            .await
            .map_err(failed)?;
        if response.status().is_success() || response.status() == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(failed(self.refusal(host, response).await))
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upload of {} at {}", self.descriptor.digest, self.at)
    }
}

async fn begin(client: &Client, host: &Host, what: &What) -> Result<Response, Cause> {
    let ask = host.ask(Method::POST, "blobs/uploads/")?;
    let ask = ask
        .about(what.clone())
        .header(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    let response = host
        .send(&ask, &client.push_scopes(), Patience::Waits)
        .await?;
    if !response.status().is_success() {
        let what = "place for uploads";
        return Err(host.refusal(response, what, client.repository()).await);
    }
    Ok(response)
}

fn takes_nothing(from: u64, to: u64, has: u64) -> Cause {
    Cause::Malformed(format!(
        "it was sent bytes {from} to {to} of an upload, and has {has}"
    ))
}

/// The address of a session. It may be relative, and on another host, which is then shown nothing of ours;
/// but bytes that were to go encrypted do not go in the clear because a proxy has lost the scheme.
fn session(host: &Host, response: &Response) -> Result<Url, Cause> {
    let location = net::location(response)?;
    let asked = response.url();
    if asked.scheme() == "https" && location.scheme() != "https" {
        let to = location.host_str().unwrap_or_default();
        let why = format!("wants uploads sent to {to} by plain http");
        return Err(Cause::Redirect(why));
    }
    tracing::trace!(home = host.net.is_home(&location), "upload session");
    Ok(location)
}

/// `Range: 0-9` of a session says that ten bytes are there. `0-0` is what registries say of none.
fn received(response: &Response) -> Option<u64> {
    let text = response.headers().get(header::RANGE)?.to_str().ok()?;
    parse_received(text)
}

fn parse_received(text: &str) -> Option<u64> {
    let text = text.trim();
    let range = text.strip_prefix("bytes=").unwrap_or(text);
    let (first, last) = range.split_once('-')?;
    match (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?) {
        (0, 0) => Some(0),
        (0, last) => last.checked_add(1),
        _ => None,
    }
}

/// The bytes from `from` to before `to`, as uploads name them: without a unit.
fn span(from: u64, to: u64) -> Result<HeaderValue, Cause> {
    HeaderValue::from_str(&format!("{from}-{}", to - 1)).map_err(|_| Cause::NoRanges)
}

/// Holds the digest in an answer, where there is one, against what was sent.
pub(crate) fn compare(response: &Response, expected: &Digest) -> Result<(), Cause> {
    let header = response.headers().get(CONTENT_DIGEST);
    let said = header
        .and_then(|value| value.to_str().ok())
        .and_then(|text| Digest::parse(text).ok());
    match said.filter(|said| said.algorithm() == expected.algorithm() && said != expected) {
        Some(actual) => Err(Cause::WrongDigest {
            expected: expected.clone(),
            actual,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `0-0` is what docker-registry 2.8.2 answers for an upload without a byte.
    #[test]
    fn ranges_of_uploads_count_bytes() {
        assert_eq!(parse_received("0-0"), Some(0));
        assert_eq!(parse_received("0-1023"), Some(1024));
        assert_eq!(parse_received("bytes=0-9"), Some(10));
        for none in ["", "5-9", "0", "0-x", "-"] {
            assert_eq!(parse_received(none), None, "{none}");
        }
    }
}
