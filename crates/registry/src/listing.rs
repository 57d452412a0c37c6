//! Lists that come in pages: tags, and who refers to a manifest.

use std::collections::HashSet;

use bytes::Bytes;
use cairn_types::{Descriptor, Digest, Index, MediaKind};
use http::{HeaderName, HeaderValue, StatusCode, header};
use reqwest::Response;
use serde::Deserialize;
use url::Url;

use crate::{
    body::Body,
    client::{Client, Need},
    error::{Cause, Error, What},
    host::{Host, Patience},
    manifest::media_type,
    net::Ask,
    options::DOCUMENT_BYTES_MAX,
    reference::{Reference, Tag},
};

/// Pages of one list. A registry whose pages never end has more to hide than to show.
const PAGES_MAX: usize = 10_000;

/// Entries of one list; ten times what the largest known repositories have.
const ENTRIES_MAX: usize = 1_000_000;

/// Bytes of all pages of one list.
const BYTES_MAX: u64 = 64 << 20;

/// Characters of a tag (distribution-spec, "Pulling manifests").
const TAG_MAX: usize = 128;

/// Tags of a page that are asked for, as many as registries allow that allow few.
const PAGE: &str = "1000";

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

#[derive(Deserialize)]
struct Tags {
    /// Go writes an empty list as `null`.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

/// A page that was read.
pub(crate) struct Page {
    bytes: Bytes,
    next: Option<Url>,
    media_type: String,
    filtered: bool,
}

/// The pages of a list so far.
#[derive(Default)]
struct Pages {
    /// Digests of their addresses, which a registry may make long.
    seen: HashSet<Digest>,
    bytes: u64,
}

impl Pages {
    /// Notices a list that leads back into itself.
    fn turn(&mut self, url: &Url) -> Result<(), Cause> {
        match self.seen.insert(Digest::sha256(url.as_str().as_bytes())) {
            true => Ok(()),
            false => Err(endless()),
        }
    }

    fn read(&mut self, page: &Page) -> Result<(), Cause> {
        self.bytes += page.bytes.len() as u64;
        match self.bytes > BYTES_MAX {
            true => Err(Cause::TooLarge { limit: BYTES_MAX }),
            false => Ok(()),
        }
    }
}

/// What a host says to a request for a page.
enum Said {
    Page(Page),
    Refused(StatusCode, Cause),
}

impl Client {
    /// All tags of the repository, in the registry's order.
    ///
    /// # Errors
    /// Those of all hosts that may be asked what a tag means.
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        let mut failed = Vec::new();
        for (host, patience) in self.hosts(Need::Resolve) {
            match self.tags_at(host, patience).await {
                Ok(tags) => return Ok(tags),
                Err(cause) => failed.push(host.failed(cause)),
            }
        }
        Err(self.error(What::Tags, failed))
    }

    async fn tags_at(&self, host: &Host, patience: Patience) -> Result<Vec<String>, Cause> {
        let mut all = Vec::new();
        let mut pages = Pages::default();
        let mut next = Some(self.first_tags(host)?);
        for _ in 0..PAGES_MAX {
            let Some(url) = next else {
                return Ok(all);
            };
            pages.turn(&url)?;
            let (tags, page) = self.tags_of(host, patience, url).await?;
            pages.read(&page)?;
            all.extend(tags);
            if all.len() > ENTRIES_MAX {
                break;
            }
            next = page.next;
        }
        Err(endless())
    }

    /// Where a host's list of tags begins.
    pub(crate) fn first_tags(&self, host: &Host) -> Result<Url, Cause> {
        host.url("tags/list", &[("n", PAGE)])
    }

    /// The tags of one page, and that.
    pub(crate) async fn tags_of(
        &self,
        host: &Host,
        patience: Patience,
        url: Url,
    ) -> Result<(Vec<String>, Page), Cause> {
        let page = match self.page(host, patience, url, &What::Tags).await? {
            Said::Page(page) => page,
            Said::Refused(_, cause) => return Err(cause),
        };
        let tags: Tags = parse(&page.bytes)?;
        let tags = tags.tags.unwrap_or_default();
        if let Some(long) = tags.iter().find(|tag| tag.len() > TAG_MAX) {
            let why = format!("a tag of {} characters is in its list", long.len());
            return Err(Cause::Malformed(why));
        }
        Ok((tags, page))
    }

    /// The manifests whose `subject` is `digest`, of one type of artifact where one is given. A registry
    /// without this list keeps one as a tag (distribution-spec, "Referrers Tag Schema").
    ///
    /// # Errors
    /// Those of all hosts. A subject to which nobody refers is an empty list.
    pub async fn referrers(
        &self,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        let mut failed = Vec::new();
        for (host, patience) in self.hosts(Need::Referrers) {
            match self
                .referrers_at(host, patience, digest, artifact_type)
                .await
            {
                Ok(referrers) => return Ok(referrers),
                Err(cause) => failed.push(host.failed(cause)),
            }
        }
        Err(self.error(What::Referrers(digest.clone()), failed))
    }

    async fn referrers_at(
        &self,
        host: &Host,
        patience: Patience,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, Cause> {
        let what = What::Referrers(digest.clone());
        let pairs = artifact_type.map(|kind| ("artifactType", kind));
        let pairs: Vec<_> = pairs.into_iter().collect();
        let mut all = Vec::new();
        let mut pages = Pages::default();
        let mut next = Some(host.url(&format!("referrers/{digest}"), &pairs)?);
        for number in 0..PAGES_MAX {
            let Some(url) = next else {
                return Ok(all);
            };
            pages.turn(&url)?;
            let page = match self.page(host, patience, url, &what).await? {
                Said::Page(page) => page,
                // 404 is what the specification has for a registry that knows nothing of it; the others
                // are what some answer to a path that they do not know.
                Said::Refused(status, _)
                    if number == 0 && matches!(status.as_u16(), 400 | 404 | 405 | 501) =>
                {
                    let listed = self.referrers_by_tag(host, patience, digest).await?;
                    return Ok(of_type(listed, artifact_type));
                }
                Said::Refused(_, cause) => return Err(cause),
            };
            pages.read(&page)?;
            let index: Index = parse(&page.bytes)?;
            let wanted = if page.filtered { None } else { artifact_type };
            all.extend(of_type(index.manifests, wanted));
            if all.len() > ENTRIES_MAX {
                break;
            }
            next = page.next;
        }
        Err(endless())
    }

    async fn referrers_by_tag(
        &self,
        host: &Host,
        patience: Patience,
        digest: &Digest,
    ) -> Result<Vec<Descriptor>, Cause> {
        let Some(tag) = referrers_tag(digest) else {
            return Ok(Vec::new());
        };
        let what = What::Resolve(Reference::Tag(tag.clone()));
        let url = host.url(&format!("manifests/{tag}"), &[])?;
        let page = match self.page(host, patience, url, &what).await? {
            Said::Page(page) => page,
            Said::Refused(StatusCode::NOT_FOUND, _) => return Ok(Vec::new()),
            Said::Refused(_, cause) => return Err(cause),
        };
        if MediaKind::of(&page.media_type) != MediaKind::Index {
            return Err(Cause::Malformed(format!("its tag {tag} is no index")));
        }
        let index: Index = parse(&page.bytes)?;
        Ok(index.manifests)
    }

    async fn page(
        &self,
        host: &Host,
        patience: Patience,
        url: Url,
        what: &What,
    ) -> Result<Said, Cause> {
        let accept =
            HeaderValue::from_static("application/vnd.oci.image.index.v1+json, application/json");
        let ask = Ask::new(http::Method::GET, url.clone())
            .header(header::ACCEPT, accept)
            .about(what.clone());
        let response = host.send(&ask, &self.pull_scopes(), patience).await?;
        let status = response.status();
        if !status.is_success() {
            let cause = host.refusal(response, what, self.repository()).await;
            return Ok(Said::Refused(status, cause));
        }
        let next = next_page(host, &response, &url)?;
        let media_type = media_type(&response);
        let filters = response.headers().get(FILTERS_APPLIED);
        let filters = filters
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let filtered = filters
            .split(',')
            .any(|filter| filter.trim() == "artifactType");
        let bytes = Body::new(response, &self.0.options)
            .all(DOCUMENT_BYTES_MAX)
            .await?;
        Ok(Said::Page(Page {
            bytes,
            next,
            media_type,
            filtered,
        }))
    }
}

/// The address of the next page, which has to be the same host's: it will be shown the same token.
fn next_page(host: &Host, response: &Response, asked: &Url) -> Result<Option<Url>, Cause> {
    let links = response.headers().get_all(header::LINK);
    let mut links = links.iter().filter_map(|value| value.to_str().ok());
    let Some(link) = links.find_map(next_link) else {
        return Ok(None);
    };
    match asked.join(link) {
        Ok(next) if next == *asked => Err(endless()),
        Ok(next) if host.net.is_home(&next) => Ok(Some(next)),
        _ => Err(Cause::Malformed(
            "the next page of its list is somewhere else".to_owned(),
        )),
    }
}

/// The address of `<…>; rel="next"` (RFC 8288). No registry sends several links, so commas are not looked
/// for: they may stand in the address.
fn next_link(value: &str) -> Option<&str> {
    let (address, parameters) = value.trim().strip_prefix('<')?.split_once('>')?;
    let next = parameters.split([';', ',']).any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        name.trim().eq_ignore_ascii_case("rel")
            && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
    });
    next.then_some(address)
}

fn endless() -> Cause {
    Cause::Malformed("its list does not end".to_owned())
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Cause> {
    serde_json::from_slice(bytes)
        .map_err(|err| Cause::Malformed(format!("a list that cannot be read: {err}")))
}

fn of_type(descriptors: Vec<Descriptor>, wanted: Option<&str>) -> Vec<Descriptor> {
    let fits = |descriptor: &Descriptor| {
        wanted.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted))
    };
    descriptors.into_iter().filter(fits).collect()
}

/// The tag under which those are listed that refer to a manifest, where a registry has no list of
/// its own (distribution-spec, "Referrers Tag Schema"): `sha256-` and the hex digits, of which no more than 64 are
/// taken.
pub fn referrers_tag(digest: &Digest) -> Option<Tag> {
    let hex = digest.hex();
    let hex = hex.get(..64).unwrap_or(hex);
    Tag::parse(&format!("{}-{hex}", digest.algorithm().name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the distribution specification, "Listing Tags" and "Listing Referrers".
    #[test]
    fn links_are_found() {
        let link = r#"</v2/foo/bar/tags/list?n=20&last=v1.2.3>; rel="next""#;
        assert_eq!(
            next_link(link),
            Some("/v2/foo/bar/tags/list?n=20&last=v1.2.3")
        );
        assert_eq!(
            next_link("<http://a/b?c=1,2>;rel=next"),
            Some("http://a/b?c=1,2")
        );
        for none in ["", "<a>", "<a>; rel=prev", "a; rel=next", "<a; rel=next"] {
            assert_eq!(next_link(none), None, "{none}");
        }
    }

    /// > `sha512:a3ba…` (128 digits) becomes `sha512-a3ba…` with 64 (distribution-spec)
    #[test]
    fn fallback_tags_are_short() {
        let long = Digest::of(cairn_types::Algorithm::Sha512, b"");
        let tag = referrers_tag(&long).expect("tag");
        // `sha512sum /dev/null`
        assert_eq!(
            tag.as_str(),
            "sha512-cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
        );
    }
}
