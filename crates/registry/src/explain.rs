//! What would be asked for a registry's content, and through whom, without asking. By whom, say
//! [`Sources::explain`](crate::credentials::Sources::explain), which may be another process's.

#[cfg(test)]
mod tests;

use crate::{
    env::Env,
    hosts::{self, Capabilities, HostsError, Options, Origin},
    proxy,
};

/// One endpoint, as `cairn explain-host` shows it beside who asks. No secret is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where to ask.
    pub url: String,
    /// Which credentials are for it: host and port.
    pub host: String,
    /// For what.
    pub capabilities: Capabilities,
    /// Through whom, and what decided that.
    pub proxy: String,
    /// Where the endpoint was learned of.
    pub from: Origin,
}

/// The endpoints for what `registry` has, in the order in which they would be tried. Reads files; runs
/// nothing and asks nobody.
///
/// # Errors
/// As [`hosts::endpoints`].
pub fn explain(registry: &str, options: &Options, env: &Env) -> Result<Vec<Row>, HostsError> {
    let endpoints = hosts::endpoints(registry, options)?;
    let row = |endpoint: hosts::Endpoint| Row {
        url: match endpoint.https_first {
            true => format!("https or {endpoint}"),
            false => endpoint.to_string(),
        },
        capabilities: endpoint.capabilities,
        proxy: proxy::of_endpoint(&endpoint, env).to_string(),
        from: endpoint.from,
        host: endpoint.authority,
    };
    Ok(endpoints.into_iter().map(row).collect())
}
