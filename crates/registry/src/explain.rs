//! What would be asked for a registry's content, by whom and through whom, without asking.

#[cfg(test)]
mod tests;

use crate::{
    credentials::Sources,
    env::Env,
    hosts::{self, Capabilities, HostsError, Options},
    proxy,
};

/// One endpoint, as `cairn explain-host` shows it. No secret is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where to ask.
    pub url: String,
    /// For what.
    pub capabilities: Capabilities,
    /// Who asks, and the file and line that say so; a helper's name; or what is wrong with a file.
    pub auth: String,
    /// Through whom, and what decided that.
    pub proxy: String,
    /// Where the endpoint was learned of: file and line, or the name itself.
    pub from: String,
}

/// The endpoints for what `registry` has, in the order in which they would be tried. Reads files; runs
/// nothing and asks nobody.
///
/// # Errors
/// As [`hosts::endpoints`]. A mistake in a file of credentials is part of the answer.
pub fn explain(
    registry: &str,
    options: &Options,
    sources: &Sources,
    env: &Env,
) -> Result<Vec<Row>, HostsError> {
    let endpoints = hosts::endpoints(registry, options)?;
    let row = |endpoint: hosts::Endpoint| Row {
        url: match endpoint.https_first {
            true => format!("https or {endpoint}"),
            false => endpoint.to_string(),
        },
        capabilities: endpoint.capabilities,
        auth: sources
            .explain(&endpoint.authority)
            .unwrap_or_else(|wrong| wrong),
        proxy: proxy::of_endpoint(&endpoint, env).to_string(),
        from: endpoint.from.to_string(),
    };
    Ok(endpoints.into_iter().map(row).collect())
}
