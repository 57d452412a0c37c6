//! `cairn namespaces …`.

use cairn_types::{Labels, Namespace};

use super::{Context, Result, labels};
use crate::{args::NamespacesVerb, client::Client, view};

/// Runs one verb.
pub fn run(context: &Context, verb: NamespacesVerb) -> Result {
    match verb {
        NamespacesVerb::Ls => ls(context),
        NamespacesVerb::Create { name, labels } => {
            create(context, &name, labels.into_iter().collect())
        }
        NamespacesVerb::Label(args) => labels::namespace(context, &args),
        NamespacesVerb::Rm { names } => rm(context, &names),
    }
}

fn ls(context: &Context) -> Result {
    let namespaces = Client::open(&context.global)?.namespace_list()?;
    if context.wants_names() {
        context.names(namespaces.iter().map(|namespace| &*namespace.name));
    } else {
        context.list(&view::namespaces(&namespaces), &namespaces);
    }
    Ok(())
}

fn create(context: &Context, name: &Namespace, labels: Labels) -> Result {
    let client = Client::open(&context.global)?;
    client.namespace_create(name, labels)?;
    if context.global.wants_json() {
        context.out.json(&client.namespace_info(name)?);
    } else if context.out.quiet {
        context.out.line(name.as_str());
    } else {
        context.out.line(format!("created {name}"));
    }
    Ok(())
}

fn rm(context: &Context, names: &[Namespace]) -> Result {
    let client = Client::open(&context.global)?;
    context.removing(names, |name| {
        client.namespace_remove(name)?;
        Ok(vec![name.to_string().into()])
    })
}
