//! Through whom an endpoint is asked: its own proxy, or what the environment says, as Go's `net/http` (and
//! so containerd) understands it (`golang.org/x/net/http/httpproxy`).

#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr};

use url::Url;

use crate::{
    env::Env,
    hosts::{Endpoint, is_loopback, split},
};

/// Names of a variable, the stronger first.
const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
/// Not Go's, but what curl and most others read.
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];
const NO: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// Set for a CGI script, whose `HTTP_PROXY` is what its client sent as a header `Proxy`.
const CGI: &str = "REQUEST_METHOD";

/// Through whom to ask.
#[derive(Clone, PartialEq, Eq)]
pub struct Decision {
    /// A proxy's URL, maybe with a password in it. `None` is nobody: ask the host itself.
    pub proxy: Option<String>,
    /// What decided: a variable, a line of a file, `loopback`. Empty if nothing says anything.
    pub by: String,
}

/// As the column PROXY of `cairn explain-host` has it. Passwords are masked.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proxy = self.proxy.as_deref().map(masked);
        f.write_str(proxy.as_deref().unwrap_or("none"))?;
        match &*self.by {
            "" => Ok(()),
            by => write!(f, " ({by})"),
        }
    }
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Through whom an endpoint is asked. Its own proxy is stronger than every variable, `NO_PROXY` and the
/// exception for loopback included.
pub fn of_endpoint(endpoint: &Endpoint, env: &Env) -> Decision {
    match &endpoint.proxy {
        Some(proxy) => Decision {
            proxy: Some(proxy.clone()).filter(|proxy| !proxy.is_empty()),
            by: endpoint.from.to_string(),
        },
        None => of_environment(endpoint.scheme, &endpoint.authority, env),
    }
}

/// Through whom any URL is asked: a token server's, one that was redirected to, an endpoint's by https
/// first.
pub fn of_environment(scheme: &str, authority: &str, env: &Env) -> Decision {
    let decided = |proxy, by: &str| Decision {
        proxy,
        by: by.to_owned(),
    };
    let names = match scheme {
        "https" => HTTPS.as_slice(),
        "http" if env.get(CGI).is_none() => HTTP.as_slice(),
        _ => &[],
    };
    let Some((by, proxy)) = env.first(names).or_else(|| env.first(&ALL)) else {
        return decided(None, "");
    };
    if is_loopback(authority) {
        return decided(None, "loopback");
    }
    if let Some((by, list)) = env.first(&NO)
        && is_exempt(scheme, authority, list)
    {
        return decided(None, by);
    }
    decided(Some(with_scheme(proxy)), by)
}

/// Names of hosts that may be asked to pass something on.
pub(crate) fn hosts(endpoint: &Endpoint, env: &Env) -> Vec<String> {
    let variables = [&HTTP, &HTTPS, &ALL].map(|names| env.first(names).map(|(_, proxy)| proxy));
    let proxies = variables
        .into_iter()
        .flatten()
        .chain(endpoint.proxy.as_deref());
    let urls = proxies.filter_map(|proxy| Url::parse(&with_scheme(proxy)).ok());
    urls.filter_map(|url| url.host_str().map(str::to_owned))
        .collect()
}

/// A proxy that is only `host:port` is one of http.
fn with_scheme(proxy: &str) -> String {
    match proxy.contains("://") {
        true => proxy.to_owned(),
        false => format!("http://{proxy}"),
    }
}

/// Whether a list of `NO_PROXY` has a host.
fn is_exempt(scheme: &str, authority: &str, list: &str) -> bool {
    let (host, port) = split(authority);
    let host = host.to_lowercase();
    let port = port.filter(|port| !port.is_empty());
    let port = port.unwrap_or(if scheme == "https" { "443" } else { "80" });
    let mut parts = list.split(',').map(|part| part.trim().to_lowercase());
    parts.any(|part| matches(&part, &host, port))
}

/// One part of `NO_PROXY`: `*`, a network, an address, a domain; the latter two may have a port.
fn matches(part: &str, host: &str, port: &str) -> bool {
    let ip: Option<IpAddr> = host.parse().ok();
    if part == "*" {
        return true;
    }
    if let Some((net, bits)) = network(part) {
        return ip.is_some_and(|ip| is_within(ip, net, bits));
    }
    let (name, wanted) = split(part);
    // A colon alone says nothing of a port.
    let wanted = wanted.filter(|wanted| !wanted.is_empty());
    let port_fits = wanted.is_none_or(|wanted| wanted == port);
    if let Ok(address) = name.parse::<IpAddr>() {
        return port_fits && ip.is_some_and(|ip| ip.to_canonical() == address.to_canonical());
    }
    // `*.example.com` is `.example.com`: what is below, and not the domain itself.
    let name = match name.strip_prefix('*') {
        Some(below) if below.starts_with('.') => below,
        _ => name,
    };
    if name.is_empty() || host.contains(':') {
        return false;
    }
    let below = match name.starts_with('.') {
        true => host.ends_with(name),
        false => {
            host == name
                || host
                    .strip_suffix(name)
                    .is_some_and(|rest| rest.ends_with('.'))
        }
    };
    port_fits && below
}

/// `10.0.0.0/8`, `2001:db8::/32`.
fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}

fn is_within(ip: IpAddr, net: IpAddr, bits: u8) -> bool {
    let (ip, net, width) = match (ip.to_canonical(), net) {
        (IpAddr::V4(ip), IpAddr::V4(net)) => (ip.to_bits().into(), net.to_bits().into(), 32),
        (IpAddr::V6(ip), IpAddr::V6(net)) => (ip.to_bits(), net.to_bits(), 128),
        _ => return false,
    };
    let differing: u128 = ip ^ net;
    // All 128 bits cannot be shifted out at once.
    bits == 0 || differing >> (width - bits) == 0
}

/// A URL of a proxy as people are shown it.
pub(crate) fn masked(url: &str) -> String {
    let (scheme, rest) = match url.find("://") {
        Some(end) => url.split_at(end + 3),
        None => ("", url),
    };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}***@{host}"),
        None => url.to_owned(),
    }
}
