//! What is said of one endpoint, before it is known what the rest of the world says of it.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};

use super::{Capabilities, Endpoint, Options, Origin, Tls};

/// Docker Hub's name, and the host that answers for it.
const DOCKER: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Where to ask.
pub(super) struct Server {
    pub(super) scheme: &'static str,
    pub(super) authority: String,
    pub(super) path: String,
}

/// One table of a file of hosts.
#[derive(Default)]
pub(super) struct Settings {
    /// `None` is the host that the name has in it.
    pub(super) server: Option<Server>,
    pub(super) capabilities: Option<Capabilities>,
    pub(super) ca: Vec<PathBuf>,
    pub(super) client: Vec<(PathBuf, Option<PathBuf>)>,
    pub(super) skip_verify: Option<bool>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) proxy: Option<String>,
    pub(super) dial_timeout: Option<Duration>,
    pub(super) from: Origin,
}

impl Settings {
    pub(super) fn speaks_of_tls(&self) -> bool {
        self.skip_verify.is_some() || !self.ca.is_empty() || !self.client.is_empty()
    }

    /// The endpoint that these describe, for the content of `host`.
    pub(super) fn endpoint(self, host: &str, options: &Options) -> Endpoint {
        let tls_said = self.speaks_of_tls() || options.tls != Tls::default();
        let mut from = self.from;
        // containerd forgets the capabilities of an endpoint whose server is not named: who has a host's
        // name can do everything.
        let (server, capabilities, loopback) = match self.server {
            Some(server) => (server, self.capabilities, false),
            None => {
                let server = own_server(host, options);
                if from == Origin::Name && server.scheme == "http" && options.plain_http {
                    from = Origin::Flags;
                }
                // Nobody is in between, and hardly anybody has a certificate for it. Who names an authority
                // or says `skip_verify = false` has; containerd would not listen.
                let unverified = !options.plain_http
                    && is_loopback(host)
                    && port(&server.authority) != Some("80");
                (server, None, unverified)
            }
        };
        let ambiguous = server.scheme == "http" && port(&server.authority) != Some("80");
        let flags = &options.tls;
        let named = !self.ca.is_empty() || !flags.ca.is_empty();
        let mut headers = self.headers;
        let said: Vec<HeaderName> = headers.iter().map(|(name, _)| name.clone()).collect();
        let more = options
            .headers
            .iter()
            .filter(|(name, _)| !said.contains(name));
        headers.extend(more.cloned());
        Endpoint {
            https_first: ambiguous && (tls_said || loopback),
            capabilities: capabilities.unwrap_or(Capabilities::ALL),
            headers,
            tls: Tls {
                ca: [&*flags.ca, &*self.ca].concat(),
                client: [&*flags.client, &*self.client].concat(),
                skip_verify: self
                    .skip_verify
                    .unwrap_or(flags.skip_verify || loopback && !named),
            },
            proxy: self.proxy,
            dial_timeout: self.dial_timeout,
            is_origin: server.authority == host || (host, &*server.authority) == DOCKER,
            from,
            scheme: server.scheme,
            authority: server.authority,
            path: server.path,
        }
    }
}

/// The server that a name has in it.
fn own_server(host: &str, options: &Options) -> Server {
    let (authority, http) = if host == DOCKER.0 {
        (DOCKER.1, false)
    } else {
        let local = is_loopback(host) && !matches!(port(host), None | Some("443"));
        (host, options.plain_http || local)
    };
    Server {
        scheme: if http { "http" } else { "https" },
        authority: authority.to_owned(),
        path: "/v2".to_owned(),
    }
}

/// The port that is written in an authority.
pub(crate) fn port(authority: &str) -> Option<&str> {
    split(authority).1
}

/// Host, without the brackets of an IPv6 address, and port of an authority.
pub(crate) fn split(authority: &str) -> (&str, Option<&str>) {
    if let Some(inner) = authority.strip_prefix('[')
        && let Some((host, rest)) = inner.split_once(']')
    {
        return (host, rest.strip_prefix(':'));
    }
    match authority.split_once(':') {
        // An IPv6 address without brackets has no port.
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// `localhost`, 127.0.0.0/8 and `::1`, with or without a port.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let (host, _) = split(authority);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}
