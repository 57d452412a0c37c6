//! What a request says of a registry, and `Images.ExplainHost`: whom a pull would ask.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use cairn_node::Remote;
use cairn_proto::cairn::v1;
use cairn_registry::{
    Detail,
    credentials::Credentials,
    env::Env,
    explain::{self, Row},
    hosts::{self, Origin},
};
use cairn_types::Platform;
use tonic::Status;

use super::{parsed, refused};
use crate::details;

/// What was said of the registry besides its name; `who` is asked for credentials.
pub(super) fn remote(
    said: Option<v1::Remote>,
    who: Arc<dyn Credentials>,
    attempted: &str,
) -> Result<Remote, Status> {
    let said = said.unwrap_or_default();
    let trace = match (said.http_dump, said.http_trace) {
        (true, _) => Some(Detail::Messages),
        (false, true) => Some(Detail::Exchanges),
        (false, false) => None,
    };
    Ok(Remote {
        trace,
        limit_rate: said.limit_rate,
        max_concurrent: usize::try_from(said.max_concurrent_downloads).unwrap_or(usize::MAX),
        hosts: hosts_said(said, attempted)?,
        credentials: who,
    })
}

fn hosts_said(said: v1::Remote, attempted: &str) -> Result<hosts::Options, Status> {
    let path = |text: String| match text.starts_with('/') {
        true => Ok(PathBuf::from(text)),
        false => Err(refused(
            attempted,
            &format!("{text:?} is not absolute, and the server is in another directory"),
        )),
    };
    let given = |text: String| (!text.is_empty()).then(|| path(text)).transpose();
    let (cert, key) = (given(said.cert)?, given(said.key)?);
    let client = match (cert, key) {
        (Some(cert), key) => vec![(cert, key)],
        (None, None) => Vec::new(),
        (None, Some(_)) => {
            return Err(refused(attempted, "a key is given without its certificate"));
        }
    };
    Ok(hosts::Options {
        dirs: said
            .hosts_dirs
            .into_iter()
            .map(path)
            .collect::<Result<_, _>>()?,
        plain_http: said.plain_http,
        tls: hosts::Tls {
            ca: given(said.ca)?.into_iter().collect(),
            client,
            skip_verify: said.skip_verify,
        },
        headers: Vec::new(),
    })
}

/// As they were typed.
pub(super) fn platforms(texts: &[String], attempted: &str) -> Result<Vec<Platform>, Status> {
    let platform = |text: &String| parsed(text.parse(), attempted, "platform", text);
    texts.iter().map(platform).collect()
}

/// Whom a pull would ask, in that order, where the configuration names these directories. Reads files and
/// asks nobody.
pub(crate) fn explain(
    dirs: &[PathBuf],
    request: v1::ExplainHostRequest,
) -> Result<v1::ExplainHostResponse, Status> {
    const ATTEMPTED: &str = "explain host";
    let mut options = hosts_said(request.remote.unwrap_or_default(), ATTEMPTED)?;
    if options.dirs.is_empty() {
        options.dirs = dirs.to_vec();
    }
    let registry = request.name.split('/').next().unwrap_or_default();
    let rows = explain::explain(registry, &options, &Env::of_process());
    let rows = rows.map_err(|err| details::of(err.failure()))?;
    Ok(v1::ExplainHostResponse {
        endpoints: rows.into_iter().map(endpoint).collect(),
    })
}

fn endpoint(row: Row) -> v1::Endpoint {
    let text = |path: &Path| path.display().to_string();
    let (from_file, line) = match &row.from {
        Origin::Name | Origin::Flags => (String::new(), 0),
        Origin::Directory(dir) => (text(dir), 0),
        Origin::File(file, line) => (text(file), *line),
    };
    v1::Endpoint {
        url: row.url,
        host: row.host,
        capabilities: row.capabilities.to_string(),
        proxy: row.proxy,
        from: row.from.to_string(),
        from_file,
        from_line: u64::try_from(line).unwrap_or(u64::MAX),
    }
}
