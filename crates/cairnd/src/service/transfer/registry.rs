//! A registry as one end of a transfer: how it is reached, and who asks.

use std::{path::PathBuf, sync::Arc};

use cairn_node::Remote;
use cairn_proto::containerd::types::transfer::{OciRegistry, RegistryResolver};
use cairn_registry::{
    Detail,
    credentials::{Anonymous, Credentials},
    hosts,
};
use cairn_types::{ErrorKind, ImageName};
use http::{HeaderName, HeaderValue};
use tonic::Status;

use super::{
    Work,
    credentials::Asked,
    log::{self, Log},
};
use crate::{convert, status::with};

/// An image of a registry.
pub(super) struct Distant {
    /// Registry, repository and tag or digest.
    pub(super) name: ImageName,
    /// How it is asked.
    pub(super) remote: Remote,
    /// As `ctr` prints it.
    pub(super) title: String,
}

impl Distant {
    /// What a request speaks of.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no image of a registry, no scheme or no header, `NotFound` without
    /// the stream that is to say who asks, or the one that is to tell what was asked.
    pub(super) fn of(work: &Work, wire: OciRegistry) -> Result<Distant, Status> {
        let name = convert::name(ImageName::normalize(&wire.reference))?;
        let resolver = wire.resolver.unwrap_or_default();
        let credentials = credentials(work, &resolver, &wire.reference)?;
        let trace = log::detail(resolver.http_debug);
        let remote = Remote {
            hosts: hosts(&resolver)?,
            credentials,
            trace,
            ..Remote::default()
        };
        if let Some(log) = logged(work, &resolver.logs_stream, trace)? {
            work.teller.log(log);
        }
        Ok(Distant {
            title: format!("OCI Registry ({})", wire.reference),
            name,
            remote,
        })
    }
}

/// Where what a registry is asked is told, if it is.
fn logged(work: &Work, stream: &str, trace: Option<Detail>) -> Result<Option<Log>, Status> {
    let ns = work.caller.ns.as_str();
    Ok(match (trace, stream) {
        (Some(detail), "") => Some(Log::daemon(detail)),
        (Some(_), id) => Some(Log::client(work.sent(id)?)),
        (None, "") => None,
        (None, id) => {
            // Nobody looks for it at containerd's. Nothing comes on it, which its end says, if it is there.
            drop(work.streams.take(ns, id));
            None
        }
    })
}

fn hosts(resolver: &RegistryResolver) -> Result<hosts::Options, Status> {
    let plain_http = match &*resolver.default_scheme {
        "http" => true,
        "" | "https" => false,
        other => {
            let message = format!("scheme {other:?}: http and https are known");
            return Err(with(ErrorKind::InvalidArgument, message));
        }
    };
    let dir = Some(&resolver.host_dir).filter(|dir| !dir.is_empty());
    Ok(hosts::Options {
        dirs: dir.map(PathBuf::from).into_iter().collect(),
        plain_http,
        headers: resolver
            .headers
            .iter()
            .map(header)
            .collect::<Result<_, _>>()?,
        ..hosts::Options::default()
    })
}

/// A header that is never shown, since some carry tokens.
fn header((name, value): (&String, &String)) -> Result<(HeaderName, HeaderValue), Status> {
    let refused = || with(ErrorKind::InvalidArgument, format!("header {name:?}"));
    let key = HeaderName::try_from(name).map_err(|_| refused())?;
    let mut value = HeaderValue::try_from(value).map_err(|_| refused())?;
    value.set_sensitive(true);
    Ok((key, value))
}

fn credentials(
    work: &Work,
    resolver: &RegistryResolver,
    reference: &str,
) -> Result<Arc<dyn Credentials>, Status> {
    if resolver.auth_stream.is_empty() {
        return Ok(Arc::new(Anonymous));
    }
    let pipe = work
        .streams
        .take(work.caller.ns.as_str(), &resolver.auth_stream)?;
    Ok(Arc::new(Asked::new(pipe, reference, work.call.clone())))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_resolver_says_where_to_ask() {
        let resolver = |scheme: &str, dir: &str| RegistryResolver {
            default_scheme: scheme.to_owned(),
            host_dir: dir.to_owned(),
            ..RegistryResolver::default()
        };
        let said = |scheme, dir| hosts(&resolver(scheme, dir)).map_err(|status| status.code());
        let none = said("", "").expect("hosts");
        assert_eq!((none.dirs, none.plain_http), (vec![], false));
        let all = said("http", "/etc/certs.d").expect("hosts");
        assert_eq!(
            (all.dirs, all.plain_http),
            (vec!["/etc/certs.d".into()], true)
        );
        assert!(!said("https", "").expect("hosts").plain_http);
        assert_eq!(said("ftp", "").map(|_| ()), Err(Code::InvalidArgument));
        let with = |name: &str| RegistryResolver {
            headers: [(name.to_owned(), "secret".to_owned())].into(),
            ..RegistryResolver::default()
        };
        let some = hosts(&with("X-Token")).expect("hosts");
        assert_eq!(some.headers[0].0, "x-token");
        assert!(!format!("{some:?}").contains("secret"));
        assert!(hosts(&with("no header")).is_err());
    }
}
