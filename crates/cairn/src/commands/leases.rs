//! `cairn leases …`.

use cairn_types::{Digest, ImageName};

use super::{Context, Result, now};
use crate::{
    args::{LeaseAdd, LeaseCreate, LeasesLs, LeasesRm, LeasesVerb, ResourceKind},
    client::Client,
    filter, model, view,
};

/// What a resource of the one snapshotter is called.
const SNAPSHOTS: &str = "snapshots/overlayfs";

/// Runs one verb.
pub fn run(context: &Context, verb: LeasesVerb) -> Result {
    match verb {
        LeasesVerb::Ls(args) => ls(context, &args),
        LeasesVerb::Create(args) => create(context, args),
        LeasesVerb::Rm(args) => rm(context, &args),
        LeasesVerb::Add(args) => add(context, &args),
        LeasesVerb::Resources { id } => resources(context, &id),
    }
}

fn ls(context: &Context, args: &LeasesLs) -> Result {
    let filters = filter::parse::<model::Lease>(&args.filters)?;
    let mut leases = Client::open(&context.global)?.leases()?;
    leases.retain(|lease| filter::passes(&filters, lease));
    if context.wants_names() {
        context.names(leases.iter().map(|lease| &*lease.id));
    } else {
        context.list(&view::leases(&leases, now()), &leases);
    }
    Ok(())
}

fn create(context: &Context, args: LeaseCreate) -> Result {
    let life = Some(args.expires).filter(|life| !life.is_zero());
    let id = args.id.as_ref().map(|id| id.as_str());
    let client = Client::open(&context.global)?;
    let lease = client.lease_create(id, life, args.labels.into_iter().collect())?;
    if context.global.wants_json() {
        context.out.json(&lease);
    } else {
        // Alone on standard output, also with -q: `id=$(cairn leases create)`.
        context.out.line(&lease.id);
    }
    Ok(())
}

fn rm(context: &Context, args: &LeasesRm) -> Result {
    let client = Client::open(&context.global)?;
    let last = args.ids.len().saturating_sub(1);
    let ids: Vec<(usize, &String)> = args.ids.iter().enumerate().collect();
    context.removing(&ids, |(i, id)| {
        // One collection is enough, for all that the leases held.
        client.lease_remove(id, args.sync && *i == last)?;
        Ok(vec![(*id).clone().into()])
    })
}

fn add(context: &Context, args: &LeaseAdd) -> Result {
    let attempted = "add to lease";
    let client = Client::open(&context.global)?;
    let name = &args.name;
    let (kind, id) = match args.kind {
        // A whole name need not be there yet; a part of one is looked up.
        ResourceKind::Content => {
            let digest = Digest::parse(name).or_else(|_| client.resolve_blob(name, attempted));
            ("content", digest?.to_string())
        }
        ResourceKind::Images => ("images", ImageName::normalize(name)?.to_string()),
        ResourceKind::Ingests => ("ingests", name.clone()),
        ResourceKind::Snapshots => {
            let part = super::hex_digits(name).is_some_and(|n| (7..64).contains(&n));
            let key = match part {
                true => client.resolve_snapshot(name, attempted)?.to_string(),
                false => name.clone(),
            };
            (SNAPSHOTS, key)
        }
    };
    let kind = kind.to_owned();
    client.lease_add(&args.id, &model::Resource { kind, id })?;
    if context.global.wants_json() {
        context.out.json(&client.lease_resources(&args.id)?);
    }
    Ok(())
}

fn resources(context: &Context, id: &str) -> Result {
    let resources = Client::open(&context.global)?.lease_resources(id)?;
    if context.wants_names() {
        context.names(resources.iter().map(|resource| &*resource.id));
    } else {
        context.list(&view::resources(&resources), &resources);
    }
    Ok(())
}
