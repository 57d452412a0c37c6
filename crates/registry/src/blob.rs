//! A blob as one stream, however many connections and hosts it takes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use cairn_types::{Descriptor, MediaKind};
use futures_util::{Stream, stream};
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::Response;
use url::Url;

use crate::{
    body::Body,
    breaks::Breaks,
    client::{Client, Need},
    error::{Cause, Error, Failed, What},
    host::{Host, Patience},
    hosts::is_loopback,
    net::Ask,
};

/// Addresses of a foreign layer that are followed.
const URLS_MAX: usize = 4;

/// Bytes of a blob, or of a part of it, in order and each of them once.
///
/// A connection that breaks is made again from the next byte; a host that fails is followed by the next
/// one from there. Lengths are checked, digests are not: whoever keeps the bytes hashes them anyway, and
/// what begins in the middle cannot be. Whoever finds them wrong says so ([`Client::distrust`]) and asks
/// again. Nothing is asked for before the first [`Blob::chunk`].
pub struct Blob {
    client: Client,
    descriptor: Descriptor,
    /// The next byte, and the one at which to end.
    at: u64,
    end: u64,
    /// Only a part is wanted, so that it is no use to have all of it sent.
    part: bool,
    places: std::vec::IntoIter<Place>,
    now: Option<Asked>,
    asked: u32,
    failed: Vec<Failed>,
}

/// Where it may be had.
enum Place {
    /// From an endpoint, by its place in the client's list.
    Host(usize),
    /// From wherever its maker said.
    Elsewhere(Url),
}

/// The place that is being asked.
struct Asked {
    host: Arc<Host>,
    ask: Ask,
    patience: Patience,
    open: Option<Open>,
    /// How often it broke, and why it did last.
    breaks: Breaks,
    why: Cause,
    /// It wants to send all or nothing.
    whole: bool,
}

struct Open {
    body: Body,
    /// Bytes that come although they were here before.
    skip: u64,
    /// Where what it sends ends.
    end: u64,
}

impl Client {
    /// The bytes of a blob from an offset on; none where there are no more.
    ///
    /// Foreign layers are asked for at the addresses in their descriptors when no endpoint has them,
    /// without credentials. Other descriptors' addresses are not followed, nor are more than a few of one:
    /// an image could have a daemon ask whatever it can reach. For the same reason they have to be of https,
    /// or of this machine if the registry is, too, and may not lead into networks in which it is not.
    pub fn blob(&self, descriptor: &Descriptor, offset: u64) -> Blob {
        self.open(descriptor, offset, descriptor.size, false)
    }

    /// The bytes from `from` up to `to`, for those who fetch parts side by side. A host that sends no
    /// parts fails with [`Cause::NoRanges`].
    pub fn part(&self, descriptor: &Descriptor, from: u64, to: u64) -> Blob {
        let part = from > 0 || to < descriptor.size;
        self.open(descriptor, from, to.min(descriptor.size), part)
    }

    fn open(&self, descriptor: &Descriptor, at: u64, end: u64, part: bool) -> Blob {
        let urls = self.elsewhere(descriptor).into_iter();
        let able = self.hosts(Need::Pull).into_iter();
        let index = |host: &Host| {
            self.0
                .hosts
                .iter()
                .position(|one| std::ptr::eq(&**one, host))
        };
        let able = able.filter_map(|(host, _)| index(host)).map(Place::Host);
        let mut places: Vec<Place> = able.chain(urls.map(Place::Elsewhere)).collect();
        places.sort_by_cached_key(|place| {
            let wrong = &self.0.wrong;
            match place {
                Place::Host(index) => wrong.times(&descriptor.digest, self.0.hosts[*index].label()),
                Place::Elsewhere(url) => wrong.times(&descriptor.digest, Host::foreign_label(url)),
            }
        });
        Blob {
            client: self.clone(),
            descriptor: descriptor.clone(),
            at: at.min(end),
            end,
            part,
            places: places.into_iter(),
            now: None,
            asked: 0,
            failed: Vec::new(),
        }
    }

    /// Where the maker of a foreign layer has it, as far as that is followed, each once.
    fn elsewhere(&self, descriptor: &Descriptor) -> Vec<Url> {
        let said = match MediaKind::of(&descriptor.media_type) {
            MediaKind::Layer(layer) if layer.foreign => descriptor.urls.as_slice(),
            _ => &[],
        };
        let here = self.0.hosts.iter().any(|host| is_here(host.net.home()));
        let mut urls: Vec<Url> = Vec::new();
        for url in said.iter().filter_map(|url| Url::parse(url).ok()) {
            let follows = match url.scheme() {
                "https" => true,
                "http" => here && is_here(&url),
                _ => false,
            };
            if follows && !urls.contains(&url) && urls.len() < URLS_MAX {
                urls.push(url);
            }
        }
        urls
    }
}

fn is_here(url: &Url) -> bool {
    is_loopback(&url[url::Position::BeforeHost..url::Position::AfterPort])
}

impl Blob {
    /// The offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The host that is being asked, as the user knows it.
    pub fn host(&self) -> Option<&str> {
        self.now.as_ref().map(|now| now.host.label())
    }

    /// Requests that were made for it so far, those that only ask who asks not counted.
    pub fn asked(&self) -> u32 {
        self.asked
    }

    /// The next bytes; `None` when all have come. A future that is dropped loses none.
    ///
    /// # Errors
    /// Those of all hosts, when the last has failed.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while self.at < self.end {
            let Some(open) = self.now.as_mut().and_then(|now| now.open.as_mut()) else {
                self.ask().await?;
                continue;
            };
            let since = Instant::now();
            let came = open.body.next().await;
            if let Some(now) = self.now.as_mut() {
                now.breaks.waited(since.elapsed());
            }
            match self.take(came) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Ok(Some(bytes)),
                Err(cause) => self.broke(cause),
            }
        }
        self.now = None;
        Ok(None)
    }

    /// The same as a stream, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        stream::unfold(Some(self), |blob| async move {
            let mut blob = blob?;
            match blob.chunk().await {
                Ok(bytes) => Some((Ok(bytes?), Some(blob))),
                Err(err) => Some((Err(err), None)),
            }
        })
    }

    /// What of the bytes that came is new.
    fn take(&mut self, came: Result<Option<Bytes>, Cause>) -> Result<Bytes, Cause> {
        let Some(now) = self.now.as_mut() else {
            return Ok(Bytes::new());
        };
        let Some(open) = now.open.as_mut() else {
            return Ok(Bytes::new());
        };
        let Some(mut bytes) = came? else {
            return Err(Cause::Broken {
                at: self.at,
                why: "it ended early".to_owned(),
            });
        };
        let skipped = open.skip.min(bytes.len() as u64);
        open.skip -= skipped;
        bytes.advance(usize::try_from(skipped).unwrap_or(bytes.len()));
        if bytes.len() as u64 > open.end - self.at {
            return Err(Cause::WrongLength {
                expected: self.descriptor.size,
                actual: self.at + bytes.len() as u64,
            });
        }
        bytes.truncate(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        self.at += bytes.len() as u64;
        now.breaks.moved(bytes.len() as u64);
        Ok(bytes)
    }

    fn broke(&mut self, cause: Cause) {
        let Some(now) = self.now.as_mut() else {
            return;
        };
        now.open = None;
        now.breaks.broke(matches!(cause, Cause::TooSlow { .. }));
        now.why = match cause {
            Cause::Broken { why, .. } => Cause::Broken { at: self.at, why },
            cause => cause,
        };
    }

    /// Has the body opened again where it was, or at the next place.
    async fn ask(&mut self) -> Result<(), Error> {
        let what = What::Blob(self.descriptor.digest.clone());
        let Some(now) = self.now.as_mut() else {
            return self.next_place();
        };
        let broke = now.breaks.in_row();
        let again = match now.patience {
            _ if broke == 0 => true,
            _ if !now.why.passes() => false,
            Patience::Waits => now.host.pause(&what, broke, &now.why).await,
            // Once more, since most connections break once; then the next host.
            Patience::Once | Patience::ByCaller if broke == 1 => {
                now.host
                    .again(Some(&what), (2, 2), Duration::ZERO, &now.why);
                true
            }
            Patience::Once | Patience::ByCaller => false,
        };
        let cause = if again {
            self.asked += 1;
            let (at, end) = (self.at, self.end);
            let since = Instant::now();
            let opened = request(now, &self.client, &self.descriptor, at, end, self.part).await;
            now.breaks.waited(since.elapsed());
            match opened {
                Ok(open) => {
                    now.open = open;
                    return Ok(());
                }
                Err(cause) => cause,
            }
        } else {
            now.why.clone()
        };
        let failed = now.host.failed(cause);
        self.fails(failed);
        self.now = None;
        Ok(())
    }

    fn fails(&mut self, failed: Failed) {
        let wrong = &self.client.0.wrong;
        wrong.beside(&self.descriptor.digest, &failed);
        self.failed.push(failed);
    }

    fn next_place(&mut self) -> Result<(), Error> {
        let Some(place) = self.places.next() else {
            let what = What::Blob(self.descriptor.digest.clone());
            return Err(self.client.error(what, std::mem::take(&mut self.failed)));
        };
        let tail = format!("blobs/{}", self.descriptor.digest);
        let patience = match self.places.as_slice() {
            [] => Patience::Waits,
            _ => Patience::Once,
        };
        let found = match place {
            Place::Host(index) => {
                let host = Arc::clone(&self.client.0.hosts[index]);
                let ask = host.ask(Method::GET, &tail);
                let ask = ask.map_err(|cause| host.failed(cause));
                ask.map(|ask| (host, ask))
            }
            Place::Elsewhere(url) => {
                let host = Host::foreign(self.client.foreign(), &url, &self.client.0.options);
                let ask = Ask::new(Method::GET, url);
                host.map(|host| (Arc::new(host), ask))
            }
        };
        match found {
            Ok((host, mut ask)) => {
                // What an image names is to come by https all the way.
                ask.proven = !host.net.is_foreign();
                ask.what = Some(What::Blob(self.descriptor.digest.clone()));
                let breaks = Breaks::new(&self.client.0.options);
                self.now = Some(Asked::new(host, ask, patience, breaks));
            }
            Err(failed) => self.fails(failed),
        }
        Ok(())
    }
}

impl Asked {
    fn new(host: Arc<Host>, ask: Ask, patience: Patience, breaks: Breaks) -> Asked {
        Asked {
            host,
            ask,
            patience,
            open: None,
            breaks,
            why: Cause::NoRanges,
            whole: false,
        }
    }
}

/// Asks for what is left. `None` is an answer after which to ask once more, without a range.
async fn request(
    now: &mut Asked,
    client: &Client,
    descriptor: &Descriptor,
    at: u64,
    end: u64,
    part: bool,
) -> Result<Option<Open>, Cause> {
    let mut ask = now.ask.clone();
    if part {
        ask = ask.header(header::RANGE, range(&format!("bytes={at}-{}", end - 1))?);
    } else if at > 0 && !now.whole {
        ask = ask.header(header::RANGE, range(&format!("bytes={at}-"))?);
    }
    // What is packed by the way is not what its digest names.
    let ask = ask.header(
        header::ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    let scopes = client.pull_scopes();
    let response = now.host.send(&ask, &scopes, now.patience).await?;
    let (skip, to) = match response.status() {
        StatusCode::OK if part => return Err(Cause::NoRanges),
        StatusCode::OK => {
            check_length(&response, descriptor.size, descriptor.size)?;
            (at, descriptor.size)
        }
        StatusCode::PARTIAL_CONTENT => {
            let to = content_range(&response, descriptor.size, at)?;
            check_length(&response, to - at, descriptor.size)?;
            (0, to)
        }
        StatusCode::RANGE_NOT_SATISFIABLE if part => return Err(Cause::NoRanges),
        StatusCode::RANGE_NOT_SATISFIABLE if !now.whole => {
            // It has less, or does not like ranges; an answer with a length says which.
            now.whole = true;
            return Ok(None);
        }
        status if status.is_success() => {
            let why = format!("{} to a request for a blob", status.as_u16());
            return Err(Cause::Malformed(why));
        }
        _ => {
            let what = What::Blob(descriptor.digest.clone());
            return Err(now.host.refusal(response, what, client.repository()).await);
        }
    };
    let body = Body::new(response, &client.0.options);
    Ok(Some(Open {
        body,
        skip,
        end: to,
    }))
}

fn range(text: &str) -> Result<HeaderValue, Cause> {
    HeaderValue::from_str(text).map_err(|_| Cause::NoRanges)
}

fn check_length(response: &Response, expected: u64, size: u64) -> Result<(), Cause> {
    let header = response.headers().get(header::CONTENT_LENGTH);
    let length = header.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length.filter(|length| *length != expected) {
        // What the whole would have, so that it can be held against the descriptor.
        Some(length) => Err(Cause::WrongLength {
            expected: size,
            actual: (size - expected).saturating_add(length),
        }),
        None => Ok(()),
    }
}

/// Where a part of a blob ends that has to begin at `at`. It may end before it was asked to.
fn content_range(response: &Response, size: u64, at: u64) -> Result<u64, Cause> {
    let header = response.headers().get(header::CONTENT_RANGE);
    let text = header
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let wrong = || {
        let said: String = text.chars().take(64).collect();
        Cause::Malformed(format!("a part {said:?} when asked from byte {at}"))
    };
    let (first, last, total) = parse_range(text).ok_or_else(wrong)?;
    if let Some(actual) = total.filter(|total| *total != size) {
        return Err(Cause::WrongLength {
            expected: size,
            actual,
        });
    }
    if first != at || last < first || last >= size {
        return Err(wrong());
    }
    Ok(last + 1)
}

/// `bytes 5-9/10`, the last of which may be `*` (RFC 9110, 14.4).
fn parse_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((first.parse().ok()?, last.parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 9110, 14.4.
    #[test]
    fn content_ranges_are_those_of_the_rfc() {
        assert_eq!(
            parse_range("bytes 42-1233/1234"),
            Some((42, 1233, Some(1234)))
        );
        assert_eq!(parse_range("bytes 42-1233/*"), Some((42, 1233, None)));
        for bad in [
            "",
            "bytes */1234",
            "bytes 1-2",
            "bytes=1-2/3",
            "bytes -1-2/3",
            "lines 1-2/3",
        ] {
            assert_eq!(parse_range(bad), None, "{bad}");
        }
    }
}
