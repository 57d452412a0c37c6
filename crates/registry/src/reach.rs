//! Where others may have us ask: a registry says where tokens are to be had and uploads go, an image where its
//! foreign layers are. None of them is to reach what only this machine, or its network, can.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::OnceCell;
use url::{Host, Url};

use crate::error::Cause;

/// What an address is to this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Public,
    /// Of a network that is nobody's, or shared within a provider's.
    Private,
    /// Of this wire; clouds tell machines their secrets there.
    LinkLocal,
    /// This machine.
    Loopback,
}

impl Place {
    pub(crate) fn of(address: IpAddr) -> Place {
        match address.to_canonical() {
            IpAddr::V4(address) => Place::of_v4(address),
            IpAddr::V6(address) => Place::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Place {
        let [first, second, ..] = address.octets();
        if address.is_loopback() || first == 0 {
            return Place::Loopback;
        }
        if address.is_link_local() || address.is_multicast() || address.is_broadcast() {
            return Place::LinkLocal;
        }
        // 100.64.0.0/10 is between providers and their customers (RFC 6598).
        match address.is_private() || (first == 100 && second & 0xc0 == 64) {
            true => Place::Private,
            false => Place::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Place {
        if address.is_loopback() || address.is_unspecified() {
            return Place::Loopback;
        }
        let [a, b, c, d, e, f, g, h] = address.segments();
        // 64:ff9b::/96 is the other protocol's (RFC 6052).
        if [a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0] {
            let [[a, b], [c, d]] = [g.to_be_bytes(), h.to_be_bytes()];
            return Place::of_v4(Ipv4Addr::new(a, b, c, d));
        }
        if address.is_unicast_link_local() || address.is_multicast() {
            return Place::LinkLocal;
        }
        match address.is_unique_local() {
            true => Place::Private,
            false => Place::Public,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Public => "public",
            Place::Private => "private",
            Place::LinkLocal => "link-local",
            Place::Loopback => "loopback",
        })
    }
}

/// What may be reached because of somebody's word: what is public, and what is where the registry is.
#[derive(Debug)]
pub(crate) struct Reach {
    /// Hosts and ports that were configured, or named by the user.
    homes: Vec<(String, u16)>,
    places: OnceCell<Vec<Place>>,
    /// An image says it and not a registry.
    strict: bool,
}

impl Reach {
    /// Of what a registry says.
    pub(crate) fn of(home: &Url) -> Reach {
        Reach {
            homes: place(home).into_iter().collect(),
            places: OnceCell::new(),
            strict: false,
        }
    }

    /// Of what an image says that comes from one of these.
    pub(crate) fn of_image<'a>(homes: impl Iterator<Item = &'a Url>) -> Reach {
        Reach {
            homes: homes.filter_map(place).collect(),
            places: OnceCell::new(),
            strict: true,
        }
    }

    /// Refuses an address that is written as one. Names are refused when they are looked up.
    ///
    /// # Errors
    /// [`Cause::Redirect`].
    pub(crate) async fn check(&self, url: &Url) -> Result<(), Cause> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        match self.refused(address).await {
            Some(why) => Err(Cause::Redirect(why)),
            None => Ok(()),
        }
    }

    async fn refused(&self, address: IpAddr) -> Option<String> {
        let place = Place::of(address);
        let harmless = match place {
            Place::Public => true,
            Place::Private => !self.strict,
            Place::LinkLocal | Place::Loopback => false,
        };
        if harmless || self.homes().await.contains(&place) {
            return None;
        }
        let who = if self.strict { "an image" } else { "it" };
        Some(format!(
            "{who} may not have {address} asked, which is {place}; the registry is not"
        ))
    }

    async fn homes(&self) -> &[Place] {
        let look = async || {
            let mut places = Vec::new();
            for (host, port) in &self.homes {
                let found = tokio::net::lookup_host((&**host, *port)).await;
                places.extend(found.into_iter().flatten().map(|one| Place::of(one.ip())));
            }
            places
        };
        self.places.get_or_init(look).await
    }
}

fn place(url: &Url) -> Option<(String, u16)> {
    let host = url.host_str()?.trim_matches(['[', ']']);
    Some((host.to_owned(), url.port_or_known_default()?))
}

/// Why a name was not followed to any of its addresses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

/// Looks names up, and leaves out what may not be reached.
pub(crate) struct Resolver {
    pub(crate) reach: Arc<Reach>,
    /// Names that were configured: the endpoint's own, and those of proxies.
    pub(crate) known: Vec<String>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = Arc::clone(&self.reach);
        let known = self.known.iter().any(|known| known == name.as_str());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found.collect();
            if known {
                return Ok(Box::new(found.into_iter()) as Addrs);
            }
            let mut allowed = Vec::new();
            let mut refused = None;
            for address in found {
                match reach.refused(address.ip()).await {
                    Some(why) => refused = Some(why),
                    None => allowed.push(address),
                }
            }
            match refused {
                Some(why) if allowed.is_empty() => Err(Refused(why).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the registries of special addresses (RFC 6890), those that matter here.
    #[test]
    fn addresses_are_somewhere() {
        for (address, place) in [
            ("93.184.216.34", Place::Public),
            ("100.128.0.1", Place::Public),
            ("2606:2800:220:1::1", Place::Public),
            ("10.0.0.1", Place::Private),
            ("172.31.255.255", Place::Private),
            ("192.168.1.1", Place::Private),
            ("100.64.0.1", Place::Private),
            ("fd00::1", Place::Private),
            ("::ffff:10.0.0.1", Place::Private),
            ("169.254.169.254", Place::LinkLocal),
            ("fe80::1", Place::LinkLocal),
            ("::ffff:169.254.169.254", Place::LinkLocal),
            ("64:ff9b::a9fe:a9fe", Place::LinkLocal),
            ("224.0.0.1", Place::LinkLocal),
            ("127.0.0.53", Place::Loopback),
            ("0.0.0.0", Place::Loopback),
            ("::1", Place::Loopback),
            ("::", Place::Loopback),
        ] {
            let parsed = address.parse().expect(address);
            assert_eq!(Place::of(parsed), place, "{address}");
        }
    }

    fn url(text: &str) -> Url {
        Url::parse(text).expect(text)
    }

    #[tokio::test]
    async fn only_where_the_registry_is() {
        let near = [
            "http://169.254.169.254/token",
            "https://[fe80::1]/token",
            "http://127.0.0.1:2375/x",
            "http://0x7f.1/x",
        ];
        let far = Reach::of(&url("https://203.0.113.1/"));
        for refused in near {
            assert!(far.check(&url(refused)).await.is_err(), "{refused}");
        }
        let private = url("https://10.1.2.3/x");
        assert_eq!(far.check(&private).await, Ok(()));
        let image = Reach::of_image([url("https://203.0.113.1/")].iter());
        assert!(image.check(&private).await.is_err());
        let image = Reach::of_image([url("https://10.0.0.1:5000/")].iter());
        assert_eq!(image.check(&private).await, Ok(()));
        let here = Reach::of(&url("http://localhost:5000/"));
        assert_eq!(here.check(&url(near[2])).await, Ok(()));
        assert!(here.check(&url(near[0])).await.is_err());
    }

    #[tokio::test]
    async fn names_are_no_way_round() {
        let resolver = |homes: &[Url], known: &[&str]| Resolver {
            reach: Arc::new(Reach::of_image(homes.iter())),
            known: known.iter().copied().map(str::to_owned).collect(),
        };
        let name = || "localhost".parse::<Name>().expect("name");
        let far = [url("https://203.0.113.1/")];
        assert!(resolver(&far, &[]).resolve(name()).await.is_err());
        assert!(resolver(&far, &["localhost"]).resolve(name()).await.is_ok());
        let near = [url("http://127.0.0.1:5000/"), url("http://[::1]:5000/")];
        assert!(resolver(&near, &[]).resolve(name()).await.is_ok());
    }
}
