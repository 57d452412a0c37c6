//! Verbs without a group: what the store is, what it takes, what can go.

use clap::CommandFactory;
use serde_json::json;

use super::{Context, Result};
use crate::{args::Cli, client::Client, view};

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
    Client::check_address(&context.global)?;
    let platform = cairn_types::Platform::host();
    let root = context.global.root.display();
    if context.global.wants_json() {
        let server = json!({"version": VERSION, "mode": "embedded", "root": root.to_string()});
        let client = json!({"version": VERSION, "platform": platform.to_string()});
        context
            .out
            .json(&json!({"client": client, "server": server}));
        return Ok(());
    }
    context
        .out
        .line(format!("client  cairn {VERSION} ({platform})"));
    context
        .out
        .line(format!("server  inside this process, root {root}"));
    Ok(())
}

/// `info`
pub fn info(context: &Context) -> Result {
    let client = Client::open(&context.global)?;
    let namespaces = client.namespaces()?;
    let rows = client.df()?;
    let root = client.root().display().to_string();
    let names: Vec<&str> = namespaces.iter().map(|n| n.as_str()).collect();
    if context.global.wants_json() {
        context.out.json(&json!({
            "version": VERSION, "mode": "embedded", "root": root,
            "namespaces": names, "usage": rows,
        }));
        return Ok(());
    }
    context.out.line(format!(
        "server      inside this process, root {root}, cairn {VERSION}"
    ));
    context.out.line(format!(
        "namespaces  {}",
        if names.is_empty() {
            "-".into()
        } else {
            names.join(", ")
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
