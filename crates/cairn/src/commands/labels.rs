//! `label`, of images, blobs, snapshots and namespaces: changes what is named, and shows all after.

use cairn_types::{Labels, Namespace};

use super::{Context, Result};
use crate::{
    args::{LabelArgs, LabelImage},
    client::Client,
    error::Problem,
    view,
};

/// `images label`
pub fn image(context: &Context, args: &LabelImage) -> Result {
    let client = Client::open(&context.global)?;
    let name = client.resolve(&args.image, "label image")?;
    let labels = client.label_image(&name, &args.changes, args.replace_all)?;
    show(context, &labels, || client.image(&name))
}

/// `content label`
pub fn blob(context: &Context, args: &LabelArgs) -> Result {
    let client = Client::open(&context.global)?;
    let digest = client.resolve_blob(&args.name, "label blob")?;
    let labels = client.label_blob(&digest, &args.changes)?;
    show(context, &labels, || client.blob(&digest))
}

/// `snapshots label`
pub fn snapshot(context: &Context, args: &LabelArgs) -> Result {
    let client = Client::open(&context.global)?;
    let key = client.resolve_snapshot(&args.name, "label snapshot")?;
    let labels = client.label_snapshot(&key, &args.changes)?;
    show(context, &labels, || client.snapshot(&key))
}

/// `namespaces label`
pub fn namespace(context: &Context, args: &LabelArgs) -> Result {
    let name = Namespace::parse(&args.name);
    let name = name.map_err(|err| Problem::from(err).into_usage())?;
    let client = Client::open(&context.global)?;
    let labels = client.label_namespace(&name, &args.changes)?;
    show(context, &labels, || client.namespace_info(&name))
}

fn show<T: serde::Serialize>(
    context: &Context,
    labels: &Labels,
    document: impl FnOnce() -> std::result::Result<T, Problem>,
) -> Result {
    if context.global.wants_json() {
        context.out.json(&document()?);
    } else if !context.out.quiet {
        context.out.text(&view::label_lines(labels));
    }
    Ok(())
}
