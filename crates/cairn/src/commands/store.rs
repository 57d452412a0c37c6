//! Verbs without a group: what the store is, what it takes, what can go.

use clap::CommandFactory;
use serde_json::json;

use super::{Context, Result};
use crate::{args::Cli, client::Client, error::quote, model::Server, view};

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `df`
pub fn df(context: &Context) -> Result {
    let rows = Client::open(&context.global)?.df()?;
    context.list(&view::df(&rows), &rows);
    Ok(())
}

/// `gc`
pub fn gc(context: &Context, dry_run: bool) -> Result {
    let done = Client::open(&context.global)?.gc(dry_run)?;
    if context.out.quiet && !context.global.wants_json() {
        return Ok(());
    }
    context.list(&view::gc(&done), &done);
    Ok(())
}

/// `version` needs no store: it must answer when the store does not open.
pub fn version(context: &Context) -> Result {
    let server = Client::server_of(&context.global)?;
    let platform = cairn_types::Platform::host();
    if context.global.wants_json() {
        let client = json!({"version": VERSION, "platform": platform.to_string()});
        context
            .out
            .json(&json!({"client": client, "server": server}));
        return Ok(());
    }
    context
        .out
        .line(format!("client  cairn {VERSION} ({platform})"));
    let (api, layout) = (&server.api, server.layout);
    context.out.line(format!(
        "server  {}, API {api}, store layout {layout}",
        place(&server)
    ));
    Ok(())
}

/// The two words that tell a daemon from a server inside this process.
fn place(server: &Server) -> String {
    match &server.address {
        Some(socket) => format!("cairnd {} at {}", server.version, quote(socket)),
        None => format!("inside this process, root {}", quote(&server.root)),
    }
}

/// `info`
pub fn info(context: &Context) -> Result {
    let client = Client::open(&context.global)?;
    let namespaces = client.namespaces()?;
    let rows = client.df()?;
    let server = client.server()?;
    if context.global.wants_json() {
        let mut document = json!(server);
        document["namespaces"] = json!(namespaces);
        document["usage"] = json!(rows);
        context.out.json(&document);
        return Ok(());
    }
    context.out.line(match &server.address {
        Some(_) => format!(
            "server      {}, root {}",
            place(&server),
            quote(&server.root)
        ),
        None => format!("server      {}, cairn {}", place(&server), server.version),
    });
    context.out.line(format!(
        "namespaces  {}",
        match namespaces.is_empty() {
            true => "-".to_owned(),
            false => namespaces.join(", "),
        }
    ));
    for row in rows {
        let bytes = crate::size::bytes(row.size);
        context
            .out
            .line(format!("{:10}  {}, {bytes}", row.kind, row.total));
    }
    Ok(())
}

/// `completion`
pub fn completion(context: &Context, shell: clap_complete::Shell) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cairn", &mut script);
    context.out.bytes(&script);
    Ok(())
}
